"""A home, a release server and orders for the installer's tests. Everything on loopback, nothing slept
through.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from visor_actors.install.errors import InstallError
from visor_actors.install.job import World, install
from visor_actors.install.messages import Installed, JobMessage, Note
from visor_actors.install.order import InstallOrder, Limits, default_asset_name
from visor_actors.simulator import build_asset_zip
from visor_actors.simulator.release_server import ReleaseServer

TAG = "v1.2.3"
ASSET = default_asset_name("fury")
RUN_CONFIG = """\
name = "genesis"

[fury.binary]
path = "fury"
args = ["start", "--home", "/srv/node"]  # as the guide says

[fury.rpc]
socketPath = "/tmp/fury.sock"
httpPath = "/rpc"
"""


@dataclass(slots=True)
class Bench:
    """What a test of one installation needs. ``run`` carries it out in this process; pauses are only written
    down.
    """

    home: Path
    server: ReleaseServer
    order: InstallOrder
    asset: bytes
    pauses: list[float] = field(default_factory=list)
    said: list[JobMessage] = field(default_factory=list)

    def run(self, **changes: object) -> Installed:
        """Install with the order changed by ``changes``."""
        order = msgspec.structs.replace(self.order, **changes)
        world = World(tell=self.said.append, sleep=self.pauses.append, rng=random.Random(1))
        return install(order, world)

    def fail(self, **changes: object) -> InstallError:
        """Install, expect it to fail, and return why. Nothing may look installed then."""
        with pytest.raises(InstallError) as caught:
            self.run(**changes)
        assert not (self.home / TAG).exists()
        return caught.value

    def notes(self, name: str) -> list[str]:
        """Return the messages of the notes called ``name``."""
        return [said.message for said in self.said if isinstance(said, Note) and said.name == name]

    @property
    def staging(self) -> Path:
        """Where the download lies meanwhile."""
        return self.home / ".visor" / "staging" / TAG


@pytest.fixture(scope="session")
def asset_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A zip with a simulated node of version TAG."""
    return build_asset_zip(tmp_path_factory.mktemp("asset") / ASSET, version=TAG).read_bytes()


@pytest.fixture
def server() -> Iterator[ReleaseServer]:
    """An empty release server."""
    with ReleaseServer() as running:
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a genesis folder."""
    genesis = tmp_path / "home" / "genesis"
    genesis.mkdir(parents=True)
    (genesis / "run-config.toml").write_text(RUN_CONFIG)
    return tmp_path / "home"


@pytest.fixture
def make_order(home: Path, server: ReleaseServer) -> Callable[..., InstallOrder]:
    """Return orders for TAG from the server."""

    def make(**changes: object) -> InstallOrder:
        values: dict[str, object] = {
            "home": home,
            "tag": TAG,
            "brand": "fury",
            "folder_name": TAG,
            "source_folder": home / "genesis",
            "owner": server.owner,
            "repository": server.repository,
            "api_url": server.api_url,
            "limits": Limits(lock_seconds=0.2),
            **changes,
        }
        return InstallOrder(**values)  # type: ignore[arg-type]  # checked at run time

    return make


@pytest.fixture
def bench(
    home: Path, server: ReleaseServer, make_order: Callable[..., InstallOrder], asset_bytes: bytes
) -> Bench:
    """A server with one good release of TAG, and an order for it."""
    server.add_release(TAG, {ASSET: asset_bytes, "vegawallet-linux-amd64.zip": b"another"})
    return Bench(home=home, server=server, order=make_order(), asset=asset_bytes)
