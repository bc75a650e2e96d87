"""The actor runtime against plain Pykka, in the same run: throughput, crash to serving again, memory per
actor.

Prints medians of several rounds as a Markdown table. Rounds of both sides alternate, so that a busy machine
hits both.
"""

from __future__ import annotations

import gc
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pykka

from visor_actors.actor import (
    Actor,
    ActorSystem,
    Address,
    Backoff,
    ChildSpec,
    Context,
    Intensity,
    Request,
    SupervisorSpec,
)

ROUNDS = 7
TELLS = 40_000
ASKS = 4_000
CRASHES = 200
ACTORS = 200

COUNTER = Address("counter")


class Last:
    """The message after which a round is over."""

    def __init__(self) -> None:
        self.seen = threading.Event()


class Counter(Actor):
    """Takes messages and answers requests."""

    def handle(self, message: object) -> None:
        """Answer, or note the end of a round."""
        if isinstance(message, Request):
            self.context.reply(message, message.body)
        elif isinstance(message, Last):
            message.seen.set()


class PlainCounter(pykka.ThreadingActor):
    """The same, with nothing but Pykka."""

    def on_receive(self, message: object) -> object:
        """Answer, or note the end of a round."""
        if isinstance(message, Last):
            message.seen.set()
        return message


def tell(send: Callable[[object], None]) -> float:
    """Return messages per second: sent by one thread, handled by another."""
    last = Last()
    started = time.perf_counter()
    for number in range(TELLS):
        send(number)
    send(last)
    last.seen.wait()
    return TELLS / (time.perf_counter() - started)


def ask(call: Callable[[object], object]) -> float:
    """Return request-answer round trips per second, one after another."""
    started = time.perf_counter()
    for number in range(ASKS):
        call(number)
    return ASKS / (time.perf_counter() - started)


@contextmanager
def serving(*children: ChildSpec) -> Iterator[ActorSystem]:
    """Run a system with ``children`` beside the block."""
    up = threading.Semaphore(0)

    def count(event: object) -> None:
        if type(event).__name__ == "ActorStarted":
            up.release()

    root = SupervisorSpec(id="root", children=children, intensity=Intensity(restarts=10**6, window=60.0))
    system = ActorSystem(root, on_event=count)
    thread = threading.Thread(target=system.run)
    thread.start()
    for _ in children[:25]:
        up.acquire()
    time.sleep(0.3)
    try:
        yield system
    finally:
        system.stop()
        thread.join()


def throughput() -> list[str]:
    """Compare tell and ask with Pykka's."""
    spec = ChildSpec(id="counter", factory=Counter, capacity=10 * TELLS)
    plain = PlainCounter.start()
    ours: dict[str, list[float]] = {"tell": [], "ask": []}
    theirs: dict[str, list[float]] = {"tell": [], "ask": []}
    try:
        with serving(spec) as system:
            for _ in range(ROUNDS):
                ours["tell"].append(tell(lambda message: system.tell(COUNTER, message)))
                theirs["tell"].append(tell(plain.tell))
                ours["ask"].append(ask(lambda body: system.ask(COUNTER, body, timeout=10.0)))
                theirs["ask"].append(ask(plain.ask))
    finally:
        plain.stop()
    rows = []
    for kind in ("tell", "ask"):
        mine, other = statistics.median(ours[kind]), statistics.median(theirs[kind])
        rows.append(f"| {kind}, per second | {mine:,.0f} | {other:,.0f} | {mine / other:.0%} of Pykka's |")
    return rows


class Crasher(Actor):
    """Dies on request and notes when it serves again."""

    served = threading.Event()
    crashed_at = 0.0
    delays: list[float]

    def __init__(self, context: Context) -> None:
        super().__init__(context)

    def init(self) -> None:
        """Ask itself for a sign that messages are handled again."""
        self.context.tell(self.context.address, "serving")

    def handle(self, message: object) -> None:
        """Crash, or tell that this incarnation serves."""
        if message == "serving":
            if Crasher.crashed_at:
                Crasher.delays.append(time.perf_counter() - Crasher.crashed_at)
            Crasher.served.set()
        else:
            Crasher.crashed_at = time.perf_counter()
            raise RuntimeError("as asked")


def recovery() -> str:
    """Measure from the raise in a handler to the first message that the next incarnation handles, without
    delay."""
    Crasher.delays = []
    spec = ChildSpec(id="crasher", factory=Crasher, backoff=Backoff(base=0.0, maximum=0.0))
    with serving(spec) as system:
        for _ in range(CRASHES):
            Crasher.served.wait(10.0)
            Crasher.served.clear()
            system.tell(Address("crasher"), "crash")
        Crasher.served.wait(10.0)
    delays = sorted(Crasher.delays)
    median, worst = statistics.median(delays) * 1000, delays[int(len(delays) * 0.99)] * 1000
    return f"| crash to serving again, ms | {median:.2f} (p99 {worst:.2f}) | | at most 5 |"


def memory() -> str:
    """Measure the proportional memory of idle actors, thread included."""

    def pss() -> int:
        text = Path("/proc/self/smaps_rollup").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))

    gc.collect()
    before = pss()
    with serving(*(ChildSpec(id=f"idle-{n}", factory=Counter) for n in range(ACTORS))):
        gc.collect()
        ours = (pss() - before) / ACTORS
    gc.collect()
    before = pss()
    plain = [PlainCounter.start() for _ in range(ACTORS)]
    time.sleep(0.3)
    theirs = (pss() - before) / ACTORS
    for ref in plain:
        ref.stop()
    return f"| memory per idle actor, KiB | {ours:.0f} | {theirs:.0f} | |"


def idle() -> str:
    """Count the context switches of an idle tree."""

    def switches() -> int:
        total = 0
        for task in Path("/proc/self/task").iterdir():
            text = (task / "status").read_text()
            total += sum(int(line.split()[1]) for line in text.splitlines() if "ctxt_switches" in line)
        return total

    seconds = 12.0
    with serving(*(ChildSpec(id=f"idle-{n}", factory=Counter) for n in range(8))):
        before = switches()
        time.sleep(seconds)
        count = switches() - before
    return f"| context switches a minute, 8 idle actors | {count * 60 / seconds:.0f} | | |"


def main() -> None:
    """Run everything and print the table."""
    print("| | visor_actors.actor | Pykka | |")
    print("|---|---|---|---|")
    for row in (*throughput(), recovery(), memory(), idle()):
        print(row)


if __name__ == "__main__":
    main()
