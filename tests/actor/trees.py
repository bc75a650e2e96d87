"""Small running trees of faulty actors for the tests with real threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from msgspec.structs import replace

from visor_actors.actor import (
    ActorExited,
    ActorStarted,
    ActorSystem,
    Address,
    Backoff,
    ChildSpec,
    Intensity,
    SupervisorSpec,
)
from visor_actors.actor.cell import Cell
from visor_actors.testing.faulty import Action, Do, Lived, Script
from visor_actors.testing.harness import Run, running
from visor_actors.testing.probe import PATIENCE, Probe

AT_ONCE = Backoff(base=0.0, maximum=0.0, jitter=0.0)
PLENTY = Intensity(restarts=100_000, window=60.0)


def faulty(script: Script, **changes: object) -> ChildSpec:
    spec = ChildSpec(id=script.name, factory=script.factory, backoff=AT_ONCE, heartbeat=None)
    return replace(spec, **changes)


@dataclass
class Bench:
    """A running tree. ``events`` are the runtime's, ``lives`` what the faulty actors recorded."""

    run: Run
    system: ActorSystem
    events: Probe
    lives: Probe

    def do(self, name: str, action: Action) -> None:
        self.system.tell(Address(name), Do(action))

    def cell(self, name: str) -> Cell:
        found = self.system._find(self.system._root, name)
        assert found is not None
        return found

    def ask(self, name: str, body: object, timeout: float = PATIENCE) -> object:
        return self.system.ask(Address(name), body, timeout=timeout)

    def started(self, name: str, generation: int) -> ActorStarted:
        return self.events.expect(
            ActorStarted, lambda event: event.child == name and event.generation == generation
        )

    def exited(self, name: str, generation: int) -> ActorExited:
        return self.events.expect(
            ActorExited, lambda event: event.child == name and event.generation == generation
        )

    def lived(self, name: str, what: object, generation: int = 1) -> Lived:
        wanted = Lived(name=name, generation=generation, what=what)
        return self.lives.expect(Lived, lambda life: life == wanted)


@contextmanager
def bench(
    *children: ChildSpec | SupervisorSpec, lives: Probe | None = None, **changes: object
) -> Iterator[Bench]:
    """Run a root with ``children``. ``changes`` are fields of SupervisorSpec, or arguments of ActorSystem."""
    options = {key: changes.pop(key) for key in ("clock", "rng", "max_abandoned") if key in changes}
    root = SupervisorSpec(id="root", children=children, intensity=PLENTY)
    root = replace(root, **changes)
    events = Probe()
    system = ActorSystem(root, on_event=events, **options)  # type: ignore[arg-type]  # likewise
    with running(system) as run:
        yield Bench(run, system, events, lives or Probe())


def scripts(*names: str) -> tuple[Probe, list[Script]]:
    """Return a script for each name, all of which record in one probe."""
    probe = Probe()
    return probe, [Script(name, probe) for name in names]


def raising(error: BaseException) -> Action:
    """Return an action that raises ``error``."""

    def action() -> None:
        raise error

    return action


def waiting(event: threading.Event) -> None:
    """Wait for ``event``, in an actor or in the test, with a generous deadline."""
    assert event.wait(20)
