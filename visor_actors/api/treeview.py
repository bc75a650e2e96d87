"""The supervision tree as rows, from the root down: what the page, the metrics and ``tree`` show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from visor_actors.actor import NodeSnapshot


class TreeRow(Struct, frozen=True, kw_only=True):
    """One actor or supervisor. ``path`` names it from the root; ``failure`` is its last one, in one line.

    ``last`` says for the row and each of its ancestors below the root whether it is its parent's last
    child."""

    id: str
    path: str
    depth: int
    kind: str
    state: str
    degraded: bool
    generation: int
    restarts: int
    failure: str | None
    inbox_depth: int
    dead_letters: int
    busy_seconds: float | None
    last: tuple[bool, ...] = ()


def flatten(root: NodeSnapshot) -> tuple[TreeRow, ...]:
    """Return the rows of ``root`` and all below it, parents first."""
    return tuple(_rows(root, "", ()))


def _rows(node: NodeSnapshot, above: str, last: tuple[bool, ...]) -> Iterator[TreeRow]:
    path = f"{above}/{node.id}" if above else node.id
    failure = node.last_failure
    yield TreeRow(
        id=node.id,
        path=path,
        depth=len(last),
        kind=node.kind,
        state=node.state,
        degraded=node.degraded,
        generation=node.generation,
        restarts=node.restarts,
        failure=f"{failure.type_name}: {failure.message}" if failure is not None else None,
        inbox_depth=node.inbox_depth,
        dead_letters=node.dead_letters,
        busy_seconds=node.busy_seconds,
        last=last,
    )
    for number, child in enumerate(node.children, start=1):
        yield from _rows(child, path, (*last, number == len(node.children)))
