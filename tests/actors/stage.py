"""A world for one actor: a home, a configuration, clocks the test sets, and everything said written down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from visor_actors.actors.reports import Board
from visor_actors.actors.world import Intent, Settings, World
from visor_actors.home.config import load_config
from visor_actors.home.layout import HomeLayout
from visor_actors.telemetry.events import Event, EventBus

R = TypeVar("R")


@dataclass
class Stage:
    """``now``, ``monotonic`` and ``since_boot`` are what the clocks show; ``departures`` count."""

    root: Path
    config: str = ""
    now: float = 1_700_000_000.0
    monotonic: float = 1000.0
    since_boot: float = 5000.0
    events: list[Event] = field(default_factory=list)
    departures: int = 0
    world: World = field(init=False)

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / "config.toml").write_text(self.config)
        layout = HomeLayout(self.root)
        layout.prepare_private()
        bus = EventBus()
        bus.subscribe(self.events.append)
        self.world = World(
            layout=layout,
            bus=bus,
            board=Board(),
            settings=Settings(load_config(layout).config),
            intent=Intent(self._leave),
            now=lambda: self.now,
            monotonic=lambda: self.monotonic,
            since_boot=lambda: self.since_boot,
        )

    def _leave(self) -> None:
        self.departures += 1

    def reconfigure(self, text: str) -> None:
        """Put another configuration into force."""
        (self.root / "config.toml").write_text(text)
        self.world.settings.replace(load_config(self.world.layout).config)

    def said(self, name: str) -> list[Event]:
        """Every event of that name."""
        return [event for event in self.events if event.name == name]

    def report(self, key: str, kind: type[R]) -> R:
        """What the board shows; it must be there."""
        found = self.world.board.read(key, kind)
        assert found is not None
        return found


def last(messages: list[object], kind: type[R], where: Callable[[R], Any] = lambda _: True) -> R:
    """The last message of that kind."""
    found = [one for one in messages if isinstance(one, kind) and where(one)]
    assert found, f"no {kind.__name__} among {messages}"
    return found[-1]
