"""What the kernel holds the job to. Set by the job itself, for itself and all it runs."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator

from visor_actors.install.order import InstallOrder

_MIB = 1 << 20
_CPU_GRACE = 5
_NICENESS = 10


def apply_limits(order: InstallOrder) -> None:
    """Limit CPU seconds, address space and file size, and step back behind the node; never above what this
    process is limited to already.
    """
    limits = order.limits
    os.nice(_NICENESS)  # a node runs on this machine, and it comes first
    _lower(resource.RLIMIT_CORE, 0, 0)
    _lower(resource.RLIMIT_CPU, limits.cpu_seconds, limits.cpu_seconds + _CPU_GRACE)
    _lower(resource.RLIMIT_FSIZE, *(max(order.max_size_mib, limits.unpacked_mib) * _MIB,) * 2)
    _lower(resource.RLIMIT_AS, limits.memory_mib * _MIB, resource.RLIM_INFINITY)


@contextlib.contextmanager
def address_space_of_a_node() -> Iterator[None]:
    """Lift the limit on address space: a Go binary reserves more of it than it ever uses, and dies when it
    cannot.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _lower(which: int, soft: int, hard: int) -> None:
    _, present = resource.getrlimit(which)
    if present != resource.RLIM_INFINITY:
        hard = present if hard == resource.RLIM_INFINITY else min(hard, present)
        soft = min(soft, hard)
    resource.setrlimit(which, (soft, hard))
