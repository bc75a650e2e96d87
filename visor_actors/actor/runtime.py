"""What all cells of one system share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from random import Random

from visor_actors.actor.clock import Clock
from visor_actors.actor.events import (
    AbandonedEnded,
    AbandonedLimitReached,
    ActorAbandoned,
    ActorEvent,
    ExitReason,
)
from visor_actors.actor.publisher import Publisher
from visor_actors.actor.spec import AnySpec, SupervisionSettings, SupervisorSpec, configured, walk
from visor_actors.actor.switchboard import Switchboard


class Abandoned:
    """Counts the threads that were given up and still live. Any thread."""

    def __init__(
        self, limit: int, publish: Callable[[ActorEvent], None], on_limit: Callable[[], None]
    ) -> None:
        self.limit = limit
        self._publish = publish
        self._on_limit = on_limit
        self._lock = threading.Lock()
        self.count = 0

    def add(self, child: str, generation: int, reason: ExitReason) -> None:
        """One more. Beyond the limit the system is told to stop."""
        with self._lock:
            self.count += 1
            count = self.count
        self._publish(ActorAbandoned(child=child, generation=generation, reason=reason, abandoned=count))
        if count == self.limit + 1:
            self._publish(AbandonedLimitReached(abandoned=count, limit=self.limit))
            self._on_limit()

    def ended(self, child: str, generation: int) -> None:
        """One of them has ended after all."""
        with self._lock:
            self.count -= 1
            count = self.count
        self._publish(AbandonedEnded(child=child, generation=generation, abandoned=count))


class Runtime:
    """Clock, chance, addresses, events and the settings in force."""

    def __init__(
        self,
        *,
        root: SupervisorSpec,
        clock: Clock,
        rng: Random,
        on_event: Callable[[ActorEvent], None],
        max_abandoned: int,
        on_abandoned_limit: Callable[[], None],
    ) -> None:
        self.declared = root
        self.clock = clock
        self.rng = rng
        self.publisher = Publisher(on_event)
        self.publish = self.publisher.publish
        self.switchboard = Switchboard((spec.id for spec in walk(root)), self.publish)
        self.abandoned = Abandoned(max_abandoned, self.publish, on_abandoned_limit)
        self._specs: dict[str, AnySpec] = {spec.id: spec for spec in walk(root)}

    def spec(self, name: str) -> AnySpec:
        """Return the spec of ``name`` with the settings in force. Any thread."""
        return self._specs[name]

    def supervisor_spec(self, name: str) -> SupervisorSpec:
        """Return the spec of the supervisor ``name`` with the settings in force."""
        spec = self._specs[name]
        assert isinstance(spec, SupervisorSpec)
        return spec

    def configure(self, settings: Mapping[str, SupervisionSettings]) -> None:
        """Put ``settings`` in force for whatever is started from now on. Raises SpecInvalid and changes
        nothing then."""
        changed = configured(self.declared, settings)
        self._specs = {spec.id: spec for spec in walk(changed)}
