"""The supervision tree, on one page.

::

    root                     main thread, one_for_one; degrades rather than gives up: no bug of ours stops a
    healthy node
    ├─ config-watcher
    ├─ node                  supervisor of everything that holds the node
    │  ├─ process:core       each talks to one shim
    │  ├─ process:data_node
    │  └─ lifecycle          restart budget, start and stop of the node as a whole
    ├─ installer
    ├─ rpc-listener
    ├─ upgrade-coordinator   says what is to run; the node waits for it
    └─ api

To stop an actor is to detach: none of them takes the node along. The heartbeats are what one message may take
at worst, so they follow from the timeouts of what each actor waits for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from visor_actors.actor import (
    EVERYWHERE,
    Actor,
    Address,
    ChildSpec,
    Context,
    Intensity,
    OnExhausted,
    SupervisionSettings,
    SupervisorSpec,
)
from visor_actors.actors.addresses import (
    API,
    CONFIG_WATCHER,
    INSTALLER,
    LIFECYCLE,
    NODE,
    RPC_LISTENER,
    UPGRADE_COORDINATOR,
    Slot,
)
from visor_actors.actors.config_watcher import ConfigWatcherActor
from visor_actors.actors.installer import InstallerActor
from visor_actors.actors.lifecycle import LifecycleActor
from visor_actors.actors.process import ProcessActor
from visor_actors.actors.rpc_listener import RpcListenerActor
from visor_actors.actors.upgrade_coordinator import UpgradeCoordinatorActor
from visor_actors.actors.world import World
from visor_actors.home.config import LoadedConfig
from visor_actors.home.settings import SupervisionConfig

N = TypeVar("N", int, float)
ROOT = "root"
ACTORS = (
    CONFIG_WATCHER,
    *(slot.address for slot in Slot),
    LIFECYCLE,
    INSTALLER,
    RPC_LISTENER,
    UPGRADE_COORDINATOR,
    API,
)
CONFIG_SUBSCRIBERS = (LIFECYCLE, INSTALLER, RPC_LISTENER, UPGRADE_COORDINATOR, API)


def declare(
    world: World, loaded: LoadedConfig, api_factory: Callable[[Context], Actor] | None
) -> SupervisorSpec:
    """Return the tree for ``world``. ``api_factory`` None leaves the API out, for tests of the rest."""

    def config_watcher(context: Context) -> Actor:
        return ConfigWatcherActor(
            context,
            layout=world.layout,
            bus=world.bus,
            board=world.board,
            subscribers=CONFIG_SUBSCRIBERS if api_factory is not None else CONFIG_SUBSCRIBERS[:-1],
            initial=loaded,
            apply=world.settings.replace,
        )

    def installer(context: Context) -> Actor:
        return InstallerActor(
            context,
            layout=world.layout,
            bus=world.bus,
            board=world.board,
            config=lambda: world.settings.current.auto_install,
            notify=UPGRADE_COORDINATOR,
        )

    def child(address: Address, factory: Callable[[Context], Actor]) -> ChildSpec:
        return ChildSpec(
            id=address.name,
            factory=factory,
            start_timeout=15.0,
            heartbeat=world.trials.heartbeat,
            intensity=Intensity(),
        )

    node = SupervisorSpec(
        id=NODE.name,
        children=(
            child(Slot.CORE.address, lambda context: ProcessActor(context, world=world, slot=Slot.CORE)),
            child(
                Slot.DATA_NODE.address,
                lambda context: ProcessActor(context, world=world, slot=Slot.DATA_NODE),
            ),
            child(LIFECYCLE, lambda context: LifecycleActor(context, world=world)),
        ),
    )
    children: list[ChildSpec | SupervisorSpec] = [
        child(CONFIG_WATCHER, config_watcher),
        node,
        child(INSTALLER, installer),
        child(RPC_LISTENER, lambda context: RpcListenerActor(context, world=world)),
        child(UPGRADE_COORDINATOR, lambda context: UpgradeCoordinatorActor(context, world=world)),
    ]
    if api_factory is not None:
        children.append(child(API, api_factory))
    return SupervisorSpec(id=ROOT, children=tuple(children), on_exhausted=OnExhausted.DEGRADE)


def supervision_settings(config: SupervisionConfig) -> Mapping[str, SupervisionSettings]:
    """Turn ``[supervision]`` of the configuration into what the actor system takes.

    Every actor has the configured budget for itself: one that fails often does not use up what another needs.
    """
    general = SupervisionSettings(
        max_restarts=config.max_restarts,
        window_seconds=config.window_seconds,
        delay_seconds=config.delay_seconds,
        max_delay_seconds=config.max_delay_seconds,
    )
    own = {address.name: general for address in ACTORS}
    for name, override in config.actors.items():
        own[name] = SupervisionSettings(
            max_restarts=_either(override.max_restarts, config.max_restarts),
            window_seconds=_either(override.window_seconds, config.window_seconds),
            delay_seconds=_either(override.delay_seconds, config.delay_seconds),
            max_delay_seconds=_either(override.max_delay_seconds, config.max_delay_seconds),
        )
    return {EVERYWHERE: general, **own}


def _either(own: N | None, general: N) -> N:
    return general if own is None else own
