"""The installer job: one order in, one outcome out, in a process that may be killed at any moment.

The steps, each repeatable: lock the tag's staging area; find the asset; download; verify; unpack; write the
run configuration; run ``version``; put all on the disk; rename. Until the rename the destination does not
exist, after it the destination is complete. Nothing of the release is executed before it is verified as the
policy demands.
"""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from visor_actors.home.layout import HomeLayout
from visor_actors.home.settings import Verify
from visor_actors.install import limits
from visor_actors.install.archive import Unpacked, unpack
from visor_actors.install.carry import Carried, Provenance, carry_over
from visor_actors.install.check import FolderReport, check_folder
from visor_actors.install.download import Download, Downloaded, not_enough_space
from visor_actors.install.errors import InstallError, Refused, Unfit, storage_error
from visor_actors.install.github import GitHubSource
from visor_actors.install.messages import (
    FailureKind,
    Installed,
    JobMessage,
    Note,
    Phase,
    Proof,
    Verification,
)
from visor_actors.install.order import InstallOrder
from visor_actors.install.progress import ProgressMeter
from visor_actors.install.retry import Patience
from visor_actors.install.sources import Asset, FolderSource, Source, UrlSource, read_small
from visor_actors.install.staging import DestinationExists, Staging
from visor_actors.install.transport import Transport
from visor_actors.install.verification import Fetched, verify
from visor_actors.node.command import Surroundings

_MIB = 1 << 20
_WORTH_FLUSHING = 8 * _MIB


class World(Struct, frozen=True, kw_only=True):
    """What a job needs from outside, so that tests can bring their own."""

    tell: Callable[[JobMessage], None]
    sleep: Callable[[float], None] = time.sleep
    rng: random.Random = random.Random()


def install(order: InstallOrder, world: World) -> Installed:
    """Carry out ``order``. Blocks until done; raises :class:`InstallError`."""
    with Staging(HomeLayout(order.home), order.tag) as staging:
        staging.acquire(requested_by=order.requested_by, timeout=order.limits.lock_seconds)
        if os.path.lexists(order.destination):
            return _present(order)
        source = make_source(order)
        try:
            return _Installation(order, world, staging, source).run()
        except DestinationExists:
            return _present(order)
        finally:
            source.close()


def make_source(order: InstallOrder) -> Source:
    """Return where the order's release comes from."""
    if order.source is not None and "://" not in order.source.removeprefix("file://"):
        return FolderSource(order.source, order.tag)
    if order.source is not None:
        # A token is for the REST interface; a mirror named by a template gets none.
        return UrlSource(order.source, order.tag, Transport(limits=order.limits))
    if not order.owner or not order.repository:
        raise Unfit(
            FailureKind.ORDER_INVALID,
            "no repository is configured to fetch releases from",
            "set autoInstall.repositoryOwner and autoInstall.repository, or autoInstall.source",
        )
    transport = Transport(limits=order.limits, token=order.token, token_url=order.api_url)
    return GitHubSource(
        api_url=order.api_url,
        owner=order.owner,
        repository=order.repository,
        tag=order.tag,
        transport=transport,
    )


def _present(order: InstallOrder) -> Installed:
    """The folder is there: made by an operator, or by an attempt that was killed after its last step."""
    report = _check(order, order.destination)
    if report.problems:
        first = report.problems[0]
        raise Unfit(
            FailureKind.FOLDER_INCOMPLETE,
            f"{order.destination} exists but is not complete: {first.what}",
            f"{first.next_step}, or remove the folder so that visor fetches the release",
        )
    verification = Verification(
        proofs=(Proof.PRESENT,), details=f"{order.folder_name} was there already and was left as it is"
    )
    return Installed(folder=order.destination, verification=verification, bytes=0)


def _check(order: InstallOrder, folder: Path) -> FolderReport:
    with limits.address_space_of_a_node():
        # As this user: the one that is configured for the binary may not even enter the staging area.
        return check_folder(
            folder,
            tag=order.tag,
            timeout=order.limits.version_seconds,
            brand=order.brand,
            surroundings_of=lambda command: Surroundings(env=command.surroundings.env),
        )


class _Installation:
    """One run through the steps."""

    def __init__(self, order: InstallOrder, world: World, staging: Staging, source: Source) -> None:
        self._order = order
        self._world = world
        self._staging = staging
        self._source = source
        self._meter = ProgressMeter(world.tell)
        self._patience = Patience(
            attempts=order.limits.attempts,
            longest_wait=order.limits.longest_wait_seconds,
            sleep=world.sleep,
            rng=world.rng,
            on_retry=self._tell_of_retry,
        )

    def run(self) -> Installed:
        order = self._order
        self._meter.enter(Phase.RESOLVING)
        asset = self._patience.call(lambda: self._source.find(order.asset))
        downloaded, verification = self._fetch(asset)
        unpacked = self._unpack(downloaded)
        carried = self._carry_over(asset, unpacked, verification)
        self._check_staged(carried)
        self._meter.enter(Phase.FINISHING)
        self._staging.publish(order.destination)
        self._staging.clean_up()
        return Installed(folder=order.destination, verification=verification, bytes=downloaded.size)

    def _fetch(self, asset: Asset) -> tuple[Downloaded, Verification]:
        """Download and verify. What was resumed and then proves false is fetched once more from its
        beginning.
        """
        while True:
            downloaded = self._download(asset)
            self._meter.enter(Phase.VERIFYING)
            try:
                return downloaded, self._verify(asset, downloaded)
            except Refused as error:
                if error.kind is not FailureKind.VERIFICATION_FAILED:
                    raise  # what has no proof is not worse for being kept: it may be pinned now
                self._staging.discard_download()
                if not downloaded.resumed:
                    raise
                self._note("install.refetch", f"{error.message}; it was resumed, so it is fetched once more")

    def _download(self, asset: Asset) -> Downloaded:
        order = self._order
        self._meter.enter(Phase.DOWNLOADING, total=asset.size)
        downloaded = Download(
            self._source,
            asset,
            self._staging,
            max_bytes=order.max_size_mib * _MIB,
            reserve_bytes=order.limits.reserve_mib * _MIB,
            patience=self._patience,
            on_progress=self._meter.reached,
        ).run()
        how = f", {downloaded.resumed} bytes of them from an earlier attempt" if downloaded.resumed else ""
        self._note("install.downloaded", f"{asset.name}: {downloaded.size} bytes from {asset.url}{how}")
        return downloaded

    def _verify(self, asset: Asset, downloaded: Downloaded) -> Verification:
        fetched = Fetched(path=downloaded.path, sha256=downloaded.sha256, published=asset.sha256)
        verification = verify(
            self._order,
            fetched,
            lambda name: self._patience.call(lambda: read_small(self._source, name)),
            self._staging.folder,
        )
        loud = Proof.NOTHING in verification.proofs
        name = "install.unverified" if loud else "install.verified"
        hint = (
            "" if self._order.verify is Verify.OFF or not loud else "; installed all the same (ifAvailable)"
        )
        self._note(name, verification.details + hint, loud=loud)
        return verification

    def _unpack(self, downloaded: Downloaded) -> Unpacked:
        order = self._order
        free, needed = (
            shutil.disk_usage(self._staging.folder).free,
            downloaded.size + order.limits.reserve_mib * _MIB,
        )
        if free < needed:
            raise not_enough_space(self._staging.folder, free, needed)
        self._meter.enter(Phase.UNPACKING)
        flusher = _Flusher()
        try:
            unpacked = unpack(
                downloaded.path,
                self._staging.new_tree(),
                binary_name=order.binary,
                most_bytes=order.limits.unpacked_mib * _MIB,
                on_bytes=self._meter.advance,
                on_file=flusher.flush,
            )
        except InstallError as error:
            if not error.transient:
                self._staging.discard_download()
            raise
        if unpacked.skipped:
            self._note("install.skipped", f"the release's own {', '.join(unpacked.skipped)} was not used")
        return unpacked

    def _carry_over(self, asset: Asset, unpacked: Unpacked, verification: Verification) -> Carried:
        order = self._order
        provenance = Provenance(
            tag=order.tag,
            asset=asset.name,
            origin=asset.url if order.source is not None else f"{order.owner}/{order.repository}",
            proof=f"{verification.details}; SHA-256 {verification.sha256}",
            when=time.strftime("%Y-%m-%d %H:%M:%S %z"),
        )
        carried = carry_over(
            order.source_folder, binary=unpacked.binary, provenance=provenance, brand=order.brand
        )
        if carried.dropped:
            self._note("install.height-dropped", "a stale snapshot height was not carried over")
        try:
            path = self._staging.tree / carried.file_name
            path.write_text(carried.text, encoding="utf-8")
            path.chmod(carried.mode)
        except OSError as error:
            raise storage_error(error, "write the run configuration") from error
        return carried

    def _check_staged(self, carried: Carried) -> None:
        self._meter.enter(Phase.CHECKING)
        report = _check(self._order, self._staging.tree)
        if report.ready:
            return
        first = report.problems[0]
        if report.version is not None and report.version != self._order.tag:
            kind = FailureKind.WRONG_VERSION
        elif "this machine needs" in first.what:
            kind = FailureKind.WRONG_ARCHITECTURE
        elif carried.file_name in first.what:
            kind = FailureKind.RUN_CONFIG
        else:
            kind = FailureKind.WRONG_VERSION
        self._staging.discard_download()
        raise Refused(kind, f"the release is not usable: {first.what}", first.next_step)

    def _tell_of_retry(self, error: InstallError, delay: float) -> None:
        self._note("install.retrying", f"{error.message}; tried again in {delay:.1f} s")

    def _note(self, name: str, message: str, *, loud: bool = False) -> None:
        self._world.tell(Note(name=name, message=message, loud=loud))


class _Flusher:
    """Starts to write finished files to the disk while the next one is unpacked; publishing waits for what is
    left.
    """

    def flush(self, path: Path) -> None:
        if path.stat().st_size < _WORTH_FLUSHING:
            return
        threading.Thread(target=self._sync, args=(path,), daemon=True).start()

    def _sync(self, path: Path) -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        try:
            os.fdatasync(descriptor)
        except OSError:
            return  # publishing will find out, and say so
        finally:
            os.close(descriptor)
