"""A world around the pure core: fake time, children that do what the test says, and the invariants checked
at each step."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from msgspec.structs import replace

from visor_actors.actor import (
    Actor,
    Backoff,
    ChildSpec,
    Context,
    ExitReason,
    Failure,
    Intensity,
    Restart,
    RestartScheduled,
    Strategy,
    SupervisorSpec,
)
from visor_actors.actor.core import SupervisorCore
from visor_actors.actor.decisions import (
    AbandonChild,
    Abort,
    ArmTimer,
    Begin,
    CancelTimer,
    ChildExited,
    ChildHung,
    ChildStarted,
    Finished,
    Input,
    Publish,
    Ready,
    RetireChild,
    StartChild,
    Stop,
    StopChild,
    TimerFired,
    TimerKey,
    TimerKind,
)
from visor_actors.actor.ledger import Phase

BOOM = Failure("Boom", "a test says so")


def never_built(context: Context) -> Actor:
    raise AssertionError("the pure core builds nothing")


def child(name: str, restart: Restart = Restart.PERMANENT, **changes: object) -> ChildSpec:
    spec = ChildSpec(
        id=name,
        factory=never_built,
        restart=restart,
        backoff=Backoff(base=0.0, maximum=0.0, jitter=0.0, reset_after=60.0),
    )
    return replace(spec, **changes)


def supervisor(*children: ChildSpec | SupervisorSpec, **changes: object) -> SupervisorSpec:
    spec = SupervisorSpec(id="sup", children=children)
    return replace(spec, **changes)


@dataclass
class World:
    """The shell's part, played by the test. ``log`` has what was done to the children, as short words."""

    spec: SupervisorSpec
    now: float = 1000.0
    log: list[str] = field(default_factory=list)
    events: list[object] = field(default_factory=list)
    told_at: list[float] = field(default_factory=list)
    live: dict[str, int] = field(default_factory=dict)
    ordered_to_stop: set[str] = field(default_factory=set)
    timers: dict[TimerKey, float] = field(default_factory=dict)
    finished: Finished | None = None
    ready: bool = False
    retired: set[str] = field(default_factory=set)
    starts: list[tuple[str, int]] = field(default_factory=list)
    exits: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.core = SupervisorCore(spec=self.spec, rng=random.Random(1))

    # --- what a test does

    def begin(self) -> World:
        self.feed(Begin())
        return self

    def up(self) -> World:
        """Start everything; each child acknowledges at once."""
        self.begin()
        self.settle()
        assert self.ready or self.finished
        return self

    def settle(self) -> None:
        """Every child that is starting acknowledges, every child that was asked to stop does."""
        for _ in range(1000):
            starting = [name for name in self.live if self.core.children[name].state.value == "starting"]
            if self.ordered_to_stop:
                self.exit(next(iter(self.ordered_to_stop)), ExitReason.REQUESTED)
            elif starting:
                self.ack(starting[0])
            else:
                return
        raise AssertionError("it does not quiesce")

    def ack(self, name: str) -> None:
        self.feed(ChildStarted(name, self.live[name]))

    def exit(
        self, name: str, reason: ExitReason = ExitReason.CRASHED, failure: Failure | None = None
    ) -> None:
        generation = self.live.pop(name)
        self.ordered_to_stop.discard(name)
        if failure is None and reason not in (ExitReason.NORMAL, ExitReason.REQUESTED):
            failure = BOOM
        self.exits.append((name, generation))
        self.feed(ChildExited(name, generation, reason, failure))

    def crash(self, name: str) -> None:
        self.exit(name)

    def hang(self, name: str) -> None:
        self.feed(ChildHung(name, self.live[name], BOOM))

    def stop(self) -> None:
        self.feed(Stop())

    def gave_up(self) -> bool:
        return self.finished is not None

    def abort(self) -> None:
        self.feed(Abort(BOOM))

    def advance(self, seconds: float) -> None:
        """Let time pass; due timers fire in order."""
        until = self.now + seconds
        while True:
            due = sorted((at, key.child, key.number, key) for key, at in self.timers.items() if at <= until)
            if not due:
                break
            at, _, _, key = due[0]
            self.now = max(self.now, at)
            del self.timers[key]
            self.feed(TimerFired(key))
        self.now = until

    def feed(self, event: Input) -> None:
        was_stopping = self.core.phase in (Phase.STOPPING, Phase.FINISHED)
        for effect in self.core.handle(event, self.now):
            match effect:
                case StartChild(name, generation):
                    assert not was_stopping, "nothing starts after stopping"
                    assert name not in self.live, "two live generations"
                    assert all(generation > earlier for who, earlier in self.starts if who == name)
                    if not self.ready or self.spec.strategy is not Strategy.ONE_FOR_ONE:
                        assert self.alive_in("starting") in ([], [name]), "two start at once"
                    if self.core.children[name].spec.restart is Restart.TEMPORARY:
                        assert name not in {who for who, _ in self.starts}, "a temporary child came back"
                    self.live[name] = generation
                    self.starts.append((name, generation))
                    self.log.append(f"start {name}")
                case StopChild(name, generation):
                    assert self.live[name] == generation
                    self._check_reverse_order(name)
                    self.ordered_to_stop.add(name)
                    self.log.append(f"stop {name}")
                case AbandonChild(name, generation, _):
                    assert self.live.pop(name) == generation
                    self.ordered_to_stop.discard(name)
                    self.exits.append((name, generation))
                    self.log.append(f"abandon {name}")
                case RetireChild(name):
                    self.retired.add(name)
                case ArmTimer(key, delay):
                    assert key not in self.timers
                    self.timers[key] = self.now + delay
                case CancelTimer(key):
                    del self.timers[key]
                case Publish(published):
                    self.events.append(published)
                    self.told_at.append(self.now)
                case Ready():
                    assert not self.ready
                    self.ready = True
                case Finished():
                    assert self.finished is None
                    assert not self.live, "finished while children live"
                    self.finished = effect
        assert frozenset(self.timers) == self.core.armed

    # --- what a test asks

    def states(self) -> dict[str, str]:
        return {name: known.state.value for name, known in self.core.children.items()}

    def alive_in(self, *states: str) -> list[str]:
        return sorted(name for name in self.live if self.core.children[name].state.value in states)

    def of(self, kind: type) -> list[object]:
        return [event for event in self.events if isinstance(event, kind)]

    def delays(self) -> list[float]:
        return [event.delay for event in self.events if isinstance(event, RestartScheduled)]

    def waiting(self) -> list[str]:
        return [key.child for key in self.timers if key.kind is TimerKind.RESTART]

    def clear_log(self) -> None:
        self.log.clear()

    def _check_reverse_order(self, name: str) -> None:
        names = list(self.core.children)
        later = names[names.index(name) + 1 :]
        assert not [other for other in later if other in self.live], f"{name} is stopped before a later one"


def tree(
    *names: str,
    strategy: Strategy = Strategy.ONE_FOR_ONE,
    restarts: int = 5,
    window: float = 60.0,
    **changes: object,
) -> World:
    """Return a world with permanent children of these names."""
    return World(
        supervisor(
            *(child(name) for name in names),
            strategy=strategy,
            intensity=Intensity(restarts=restarts, window=window),
            **changes,
        )
    )
