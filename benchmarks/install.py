"""What fetching a release costs: time against ``curl``, ``sha256sum`` and ``unzip``, and memory of the
process that asks.

Usage: ``python benchmarks/install.py [MIB] [ROUNDS]`` (300 and 3). The server is the simulated one, in a
process of its own, on loopback; both sides fetch the same asset from it in turn. ``unzip`` writes nothing to
the disk for certain, the installer does (fsync before the rename), so ``sync`` of the unpacked folder is
timed for the peer as well.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from visor_actors.install.launch import launch_job
from visor_actors.install.messages import Installed
from visor_actors.install.order import InstallOrder, default_asset_name

TAG = "v1.0.0"
ASSET = default_asset_name("fury")
RUN_CONFIG = '[fury.binary]\npath = "fury"\nargs = ["start"]\n'
SERVE = """
import sys
from pathlib import Path
from visor_actors.simulator.release_server import ReleaseServer
with ReleaseServer() as server:
    server.add_release(sys.argv[1], {sys.argv[2]: Path(sys.argv[3])})
    print(server.api_url, server.store_url, flush=True)
    sys.stdin.read()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where the asset is: through the interface, and directly."""

    api_url: str
    asset_url: str


def make_asset(path: Path, mib: int) -> None:
    """Write a zip of about ``mib`` MiB: a binary that tells its version, followed by data that packs like a
    program.

    Every other block is noise and every other one repeats, so it unpacks to about twice its size.
    """
    rng = random.Random(1)
    script = f'#!/bin/sh\necho \'{{"version":"{TAG}","hash":""}}\'\nexit 0\n'.encode()
    entry = zipfile.ZipInfo("fury")
    entry.external_attr = 0o100755 << 16
    entry.create_system = 3
    entry.compress_type = zipfile.ZIP_DEFLATED
    with (
        zipfile.ZipFile(path, "w", compresslevel=1) as archive,
        archive.open(entry, "w", force_zip64=True) as file,
    ):
        file.write(script)
        while path.stat().st_size < mib << 20:
            noise = rng.randbytes(1 << 16)
            file.write(noise + noise[:4096] * 16)


def fetch_with_peers(server: Server, folder: Path) -> None:
    """Do by hand what the installer does: fetch and hash in one go, unpack, put on the disk."""
    archive = folder / "asset.zip"
    script = 'set -eo pipefail; curl -sSfL "$1" | tee "$2" | sha256sum >"$3/sum"; unzip -q "$2" -d "$3/out"'
    subprocess.run(["bash", "-c", script, "-", server.asset_url, archive, folder], check=True)
    subprocess.run([folder / "out" / "fury"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["sync", folder / "out" / "fury"], check=True)


class Peak:
    """The most memory this process has had at any moment that was looked at."""

    def __init__(self) -> None:
        self.kib = 0

    def observe(self) -> None:
        """Look now."""
        self.kib = max(self.kib, own_memory())


peak = Peak()


def fetch_with_the_installer(server: Server, folder: Path) -> None:
    """Install from the same server, watching this process's memory meanwhile."""
    (folder / "genesis").mkdir()
    (folder / "genesis" / "run-config.toml").write_text(RUN_CONFIG)
    order = InstallOrder(
        home=folder,
        tag=TAG,
        brand="fury",
        folder_name=TAG,
        source_folder=folder / "genesis",
        owner="simulated",
        repository="node",
        api_url=server.api_url,
    )
    with launch_job(order) as job:
        for _ in job.messages():
            peak.observe()
    if not isinstance(job.outcome, Installed):
        raise SystemExit(f"the installation failed: {job.outcome}")


def timed(action: Callable[[Server, Path], None], server: Server, scratch: Path) -> float:
    """Return the seconds that ``action`` takes in an empty folder; what it leaves is removed outside the
    time.
    """
    folder = Path(tempfile.mkdtemp(dir=scratch))
    os.sync()
    start = time.perf_counter()
    action(server, folder)
    seconds = time.perf_counter() - start
    shutil.rmtree(folder)
    return seconds


def own_memory() -> int:
    """Return the memory that is only this process's, in KiB: what others share with it would blur it."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def main() -> None:
    """Run and print one line a figure."""
    mib = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    missing = [tool for tool in ("curl", "unzip", "sha256sum") if shutil.which(tool) is None]
    with tempfile.TemporaryDirectory(prefix="bench-install-") as name:
        scratch = Path(name)
        make_asset(scratch / ASSET, mib)
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, TAG, ASSET, str(scratch / ASSET)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        api_url, store_url = process.stdout.readline().split()
        server = Server(api_url=api_url, asset_url=f"{store_url}/files/{TAG}/{ASSET}")
        try:
            timed(fetch_with_the_installer, server, scratch)  # also warms the caches
            peak.kib = before = own_memory()
            ours, theirs = [], []
            for _ in range(rounds):
                ours.append(timed(fetch_with_the_installer, server, scratch))
                if not missing:
                    theirs.append(timed(fetch_with_peers, server, scratch))
            growth = peak.kib - before
        finally:
            process.communicate()
    print(f"install {mib} MiB: {statistics.median(ours):.2f} s (median of {rounds})")
    if theirs:
        ratio = statistics.median(ours) / statistics.median(theirs)
        by_hand = statistics.median(theirs)
        print(f"curl | sha256sum, unzip, sync: {by_hand:.2f} s; ratio {ratio:.2f} (at most 1.3)")
    else:
        print(f"no comparison: {', '.join(missing)} not found")
    print(f"memory of the owner: {growth:+d} KiB at its peak during {rounds} installs (at most 2048)")


if __name__ == "__main__":
    main()
