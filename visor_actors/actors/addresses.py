"""The addresses of the tree's actors. Code holds an address; supervisors swap the incarnation behind it."""

from __future__ import annotations

import enum

from visor_actors.actor import Address


class Slot(enum.StrEnum):
    """The places a binary can run in; also the names of the shims' folders."""

    CORE = "core"
    DATA_NODE = "data_node"

    @property
    def address(self) -> Address:
        """The process actor of this slot."""
        return Address(f"process:{self.value}")

    @property
    def words(self) -> str:
        """How the binary is called in sentences."""
        return "data node" if self is Slot.DATA_NODE else "core"


CONFIG_WATCHER = Address("config-watcher")
NODE = Address("node")
LIFECYCLE = Address("lifecycle")
INSTALLER = Address("installer")
RPC_LISTENER = Address("rpc-listener")
UPGRADE_COORDINATOR = Address("upgrade-coordinator")
API = Address("api")
