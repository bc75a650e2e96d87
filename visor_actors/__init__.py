"""Runs a blockchain node's binaries and carries protocol upgrades out at the exact block.

The packages, and which may import which, are described in ``docs/architecture.md``.
"""

__version__ = "0.1.0"
