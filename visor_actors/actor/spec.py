"""How a supervision tree is declared, and how an operator's settings change it.

Durations are seconds. The words are those of Erlang/OTP.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal, TypeVar

from msgspec import Struct, field
from msgspec.structs import replace

from visor_actors.actor.errors import SpecInvalid

if TYPE_CHECKING:
    from visor_actors.actor.actor import Actor, Context

EVERYWHERE = "*"
"""The key of settings that hold for every id that has none of its own."""


SUPERVISOR_MARGIN = 5.0
"""Seconds that a supervisor may take for its own start or stop, beyond what its children may."""


class Restart(enum.Enum):
    """Whether a child that ended is started again."""

    PERMANENT = "permanent"  # always
    TRANSIENT = "transient"  # unless it ended by itself, normally
    TEMPORARY = "temporary"  # never


class Strategy(enum.Enum):
    """Who is restarted with a child that ended."""

    ONE_FOR_ONE = "one_for_one"
    ONE_FOR_ALL = "one_for_all"
    REST_FOR_ONE = "rest_for_one"


class OnExhausted(enum.StrEnum):
    """What a supervisor does when its children fail more often than its intensity allows."""

    ESCALATE = "escalate"  # stop all children and fail, so that the parent decides
    DEGRADE = "degrade"  # say so, and keep trying at the slowest delay


class Intensity(Struct, frozen=True, kw_only=True):
    """At most ``restarts`` restarts within any ``window`` seconds. 0: the first failure exhausts it."""

    restarts: int = 5
    window: float = 60.0


class Backoff(Struct, frozen=True, kw_only=True):
    """The delay before restart n in a row: ``base * 2**(n - 1)``, at most ``maximum``, varied by the
    fraction ``jitter``.

    After ``reset_after`` seconds of healthy running the row starts again, and a degraded child counts as
    recovered.
    """

    base: float = 0.2
    maximum: float = 30.0
    jitter: float = 0.1
    reset_after: float = 60.0


class ChildSpec(Struct, frozen=True, kw_only=True):
    """One actor of the tree.

    ``factory`` is called on the new actor's own thread, once per incarnation. ``heartbeat`` is how long one
    message may take before the actor counts as hung (None: unwatched). ``intensity`` gives the child a
    restart budget of its own; without, it shares its supervisor's. ``capacity`` bounds the inbox.
    """

    id: str
    factory: Callable[[Context], Actor]
    restart: Restart = Restart.PERMANENT
    start_timeout: float = 10.0
    shutdown_timeout: float = 5.0
    heartbeat: float | None = 30.0
    backoff: Backoff = field(default_factory=Backoff)
    intensity: Intensity | None = None
    capacity: int = 1000


class SupervisorSpec(Struct, frozen=True, kw_only=True):
    """A supervisor and its children, in the order in which they start. Its own start and stop take what the
    children take."""

    id: str
    children: tuple[ChildSpec | SupervisorSpec, ...] = ()
    strategy: Strategy = Strategy.ONE_FOR_ONE
    intensity: Intensity = field(default_factory=Intensity)
    restart: Restart = Restart.PERMANENT
    backoff: Backoff = field(default_factory=Backoff)
    on_exhausted: OnExhausted | Literal["escalate", "degrade"] = OnExhausted.ESCALATE

    @property
    def start_timeout(self) -> float:
        """What its children may take together, and a margin."""
        return sum(child.start_timeout for child in self.children) + SUPERVISOR_MARGIN

    @property
    def shutdown_timeout(self) -> float:
        """What its children may take together, and a margin."""
        return sum(child.shutdown_timeout for child in self.children) + SUPERVISOR_MARGIN


AnySpec = ChildSpec | SupervisorSpec


class SupervisionSettings(Struct, frozen=True, kw_only=True):
    """An operator's wish for one id, or for :data:`EVERYWHERE`. None leaves what the tree declares.

    For a supervisor the first two are its intensity; for an actor they give it a budget of its own. The
    delays are those before a restart of the named one; they begin anew after a healthy window.
    """

    max_restarts: int | None = None
    window_seconds: float | None = None
    delay_seconds: float | None = None
    max_delay_seconds: float | None = None


def walk(spec: AnySpec) -> Iterator[AnySpec]:
    """Yield ``spec`` and everything below it, parents first."""
    yield spec
    if isinstance(spec, SupervisorSpec):
        for child in spec.children:
            yield from walk(child)


def configured(spec: AnySpec, settings: Mapping[str, SupervisionSettings]) -> AnySpec:
    """Return ``spec`` (with all below it) as ``settings`` want it. Raises SpecInvalid for ids that do not
    exist."""
    known = {node.id for node in walk(spec)}
    unknown = sorted(set(settings) - known - {EVERYWHERE})
    if unknown:
        raise SpecInvalid(
            tuple(f"settings for {name!r}: there is no such actor or supervisor" for name in unknown)
        )
    changed = _configured(spec, settings)
    problems = tuple(find_problems(changed))
    if problems:
        raise SpecInvalid(problems)
    return changed


def _configured(spec: AnySpec, settings: Mapping[str, SupervisionSettings]) -> AnySpec:
    general = settings.get(EVERYWHERE, SupervisionSettings())
    own = settings.get(spec.id, SupervisionSettings())
    base = _either(own.delay_seconds, general.delay_seconds, spec.backoff.base)
    maximum = max(base, _either(own.max_delay_seconds, general.max_delay_seconds, spec.backoff.maximum))
    # Whoever was well for a whole window has its budget back, and so is well.
    reset_after = _either(own.window_seconds, general.window_seconds, spec.backoff.reset_after)
    backoff = replace(spec.backoff, base=base, maximum=maximum, reset_after=reset_after)
    if isinstance(spec, SupervisorSpec):
        intensity = Intensity(
            restarts=_either(own.max_restarts, general.max_restarts, spec.intensity.restarts),
            window=_either(own.window_seconds, general.window_seconds, spec.intensity.window),
        )
        children = tuple(_configured(child, settings) for child in spec.children)
        return replace(spec, backoff=backoff, intensity=intensity, children=children)
    budget = spec.intensity
    if own.max_restarts is not None or own.window_seconds is not None:
        start = budget or Intensity()
        budget = Intensity(
            restarts=_either(own.max_restarts, general.max_restarts, start.restarts),
            window=_either(own.window_seconds, general.window_seconds, start.window),
        )
    return replace(spec, backoff=backoff, intensity=budget)


N = TypeVar("N", int, float)


def _either(*choices: N | None) -> N:
    return next(choice for choice in choices if choice is not None)


def validate(root: SupervisorSpec) -> None:
    """Raise :class:`SpecInvalid` with every problem of the tree below ``root``, or return."""
    problems = tuple(find_problems(root))
    if problems:
        raise SpecInvalid(problems)


def find_problems(root: AnySpec) -> Iterator[str]:
    """Yield one sentence for each faulty field of the tree."""
    seen: set[str] = set()
    for spec in walk(root):
        name: object = spec.id  # whatever the annotation promises
        restart: object = spec.restart
        if not isinstance(name, str) or name in ("", EVERYWHERE):
            yield f"id {name!r}: a non-empty text other than {EVERYWHERE!r} is needed"
        elif spec.id in seen:
            yield f"id {spec.id!r}: used twice; ids are addresses and must be unique in the whole tree"
        seen.add(spec.id)
        if not isinstance(restart, Restart):
            yield f"{spec.id}: restart is {restart!r}, which is no Restart"
        yield from _backoff_problems(spec.id, spec.backoff)
        if spec.intensity is not None:
            yield from _intensity_problems(spec.id, spec.intensity)
        if isinstance(spec, ChildSpec):
            yield from _child_problems(spec)
        else:
            strategy: object = spec.strategy
            if not isinstance(strategy, Strategy):
                yield f"{spec.id}: strategy is {strategy!r}, which is no Strategy"
            if spec.on_exhausted not in tuple(OnExhausted):
                yield f"{spec.id}: on_exhausted is {spec.on_exhausted!r}, not 'escalate' or 'degrade'"


def _child_problems(spec: ChildSpec) -> Iterator[str]:
    factory: object = spec.factory
    if not callable(factory):
        yield f"{spec.id}: factory {factory!r} cannot be called"
    if spec.start_timeout <= 0:
        yield f"{spec.id}: start_timeout {spec.start_timeout!r} is not above 0"
    if spec.shutdown_timeout <= 0:
        yield f"{spec.id}: shutdown_timeout {spec.shutdown_timeout!r} is not above 0"
    if spec.heartbeat is not None and spec.heartbeat <= 0:
        yield f"{spec.id}: heartbeat {spec.heartbeat!r} is not above 0; None switches it off"
    if spec.capacity < 1:
        yield f"{spec.id}: capacity {spec.capacity!r} is not above 0"


def _backoff_problems(name: str, backoff: Backoff) -> Iterator[str]:
    if backoff.base < 0:
        yield f"{name}: backoff.base {backoff.base!r} is below 0"
    if backoff.maximum < backoff.base:
        yield f"{name}: backoff.maximum {backoff.maximum!r} is below backoff.base {backoff.base!r}"
    if not 0 <= backoff.jitter <= 1:
        yield f"{name}: backoff.jitter {backoff.jitter!r} is not between 0 and 1"
    if backoff.reset_after <= 0:
        yield f"{name}: backoff.reset_after {backoff.reset_after!r} is not above 0"


def _intensity_problems(name: str, intensity: Intensity) -> Iterator[str]:
    if intensity.restarts < 0:
        yield f"{name}: intensity.restarts {intensity.restarts!r} is below 0"
    if intensity.window <= 0:
        yield f"{name}: intensity.window {intensity.window!r} is not above 0"
