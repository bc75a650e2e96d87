"""A node to test against: one executable that plays core and data node, faults included, and leaves a chain
to judge.

Use :func:`build_binary`, :func:`init_chain`, :func:`write_faults`, :func:`check_chain` and
:func:`read_records`; ``docs/simulator.md`` explains them. Nothing else of the project is imported here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visor_actors.simulator.chain import (
        SimulatedChain,
        Upgrade,
        init_chain,
        planned_upgrades,
        set_upgrades,
    )
    from visor_actors.simulator.check import (
        ChainReport,
        Problem,
        ProblemKind,
        UpgradeTiming,
        VersionRange,
        check_chain,
    )
    from visor_actors.simulator.faults import (
        CoreFaults,
        DataNodeFaults,
        HistoryFaults,
        VersionFaults,
        faults_text,
        write_faults,
    )
    from visor_actors.simulator.growth import grow_chain
    from visor_actors.simulator.records import ProcessRecord, read_records
    from visor_actors.simulator.release import build_asset_zip, build_binary
    from visor_actors.simulator.samples import SampleHome, install_sample, sample_folders

_HOMES = {
    "chain": ("SimulatedChain", "Upgrade", "init_chain", "planned_upgrades", "set_upgrades"),
    "check": ("ChainReport", "Problem", "ProblemKind", "UpgradeTiming", "VersionRange", "check_chain"),
    "faults": (
        "CoreFaults",
        "DataNodeFaults",
        "HistoryFaults",
        "VersionFaults",
        "faults_text",
        "write_faults",
    ),
    "growth": ("grow_chain",),
    "records": ("ProcessRecord", "read_records"),
    "samples": ("SampleHome", "install_sample", "sample_folders"),
    "release": ("build_asset_zip", "build_binary"),
}

__all__ = [
    "ChainReport",
    "CoreFaults",
    "DataNodeFaults",
    "HistoryFaults",
    "Problem",
    "ProblemKind",
    "ProcessRecord",
    "SampleHome",
    "SimulatedChain",
    "Upgrade",
    "UpgradeTiming",
    "VersionFaults",
    "VersionRange",
    "build_asset_zip",
    "build_binary",
    "check_chain",
    "faults_text",
    "grow_chain",
    "init_chain",
    "install_sample",
    "planned_upgrades",
    "read_records",
    "sample_folders",
    "set_upgrades",
    "write_faults",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            from importlib import import_module

            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
