"""A release server like GitHub's, on loopback: what the demo fetches from and the tests misuse.

Two servers on two ports, as there are two hosts in reality: the *interface* answers with JSON and redirects
to the *store*, which wants a signed link that runs out and refuses any ``Authorization``. With a fault
injected either misbehaves exactly as told. Every request is kept in :attr:`ReleaseServer.requests`.
"""

from __future__ import annotations

import hashlib
import itertools
import secrets
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from visor_actors.simulator.release_catalog import LoggedRequest, SimulatedAsset, SimulatedRelease
from visor_actors.simulator.release_faults import AnyFault, At
from visor_actors.simulator.release_handlers import Listener


class ReleaseServer:
    """The server. Use it as a context manager; every method may be called from any thread.

    ``token`` makes the repository private: the interface then answers 404 to everybody else, as GitHub does.
    ``listed`` is how many assets a release names itself; the others are only on the pages of its assets.
    """

    def __init__(
        self,
        *,
        owner: str = "simulated",
        repository: str = "node",
        token: str | None = None,
        listed: int = 1000,
        page_size: int | None = None,
    ) -> None:
        self.owner = owner
        self.repository = repository
        self.token = token
        self.listed = listed
        self.page_size = page_size
        self.requests: list[LoggedRequest] = []
        self.closing = threading.Event()
        self.lock = threading.Lock()
        self._ids = itertools.count(1000)
        self._releases: dict[str, SimulatedRelease] = {}
        self._assets: dict[int, SimulatedAsset] = {}
        self._links: set[str] = set()
        self._faults: list[AnyFault] = []
        self._left: dict[int, int] = {}
        self.remaining = 60
        self._interface = Listener(self, "interface")
        self._store = Listener(self, "store")

    @property
    def api_url(self) -> str:
        """What ``autoInstall.apiUrl`` has to be."""
        return self._interface.url

    @property
    def store_url(self) -> str:
        """The address of the store."""
        return self._store.url

    @property
    def template(self) -> str:
        """What ``autoInstall.source`` has to be to fetch without the interface."""
        return f"{self.store_url}/files/{{tag}}/{{asset}}"

    def add_release(
        self,
        tag: str,
        assets: Mapping[str, bytes | Path],
        *,
        draft: bool = False,
        prerelease: bool = True,
        with_digest: bool = True,
        state: str = "uploaded",
    ) -> None:
        """Publish a release, or add assets to it. Paths are served as they are at that moment."""
        with self.lock:
            release = self._releases.get(tag)
            if release is None:
                release = SimulatedRelease(id=next(self._ids), tag=tag, draft=draft, prerelease=prerelease)
                self._releases[tag] = release
            for name, given in assets.items():
                asset = SimulatedAsset(
                    id=next(self._ids),
                    name=name,
                    path=given if isinstance(given, Path) else None,
                    content=given if isinstance(given, bytes) else b"",
                    digest=_digest(given) if with_digest else None,
                    content_type="application/zip" if name.endswith(".zip") else "application/octet-stream",
                    state=state,
                    size=len(given) if isinstance(given, bytes) else given.stat().st_size,
                )
                release.assets[name] = asset
                self._assets[asset.id] = asset

    def replace_content(self, tag: str, name: str, content: bytes, *, keep_listing: bool = False) -> None:
        """Change a file: a new entity tag; with ``keep_listing`` the release goes on naming the old size and
        digest.
        """
        with self.lock:
            asset = self._releases[tag].assets[name]
            asset.path, asset.content = None, content
            asset.version += 1
            if not keep_listing:
                asset.size, asset.digest = len(content), _digest(content)

    def remove_release(self, tag: str) -> None:
        """Unpublish a release."""
        with self.lock:
            self._releases.pop(tag, None)

    def set_digest(self, tag: str, name: str, digest: str | None) -> None:
        """Make the release name this digest for an asset."""
        with self.lock:
            self._releases[tag].assets[name].digest = digest

    def inject(self, *injected: AnyFault) -> None:
        """Add faults; the oldest that fits strikes first."""
        with self.lock:
            for fault in injected:
                self._faults.append(fault)
                if fault.times is not None:
                    self._left[id(fault)] = fault.times

    def clear_faults(self) -> None:
        """Behave again."""
        with self.lock:
            self._faults.clear()
            self._left.clear()

    def expire_links(self) -> None:
        """Make every signed link that was given out useless."""
        with self.lock:
            self._links.clear()

    def seen(self, server: str, containing: str = "") -> tuple[LoggedRequest, ...]:
        """Return the requests to one of the servers whose path contains a text."""
        with self.lock:
            return tuple(
                request
                for request in self.requests
                if request.server == server and containing in request.path
            )

    def close(self) -> None:
        """Stop both servers and end every connection. Idempotent."""
        if not self.closing.is_set():
            self.closing.set()
            self._interface.stop()
            self._store.stop()

    def __enter__(self) -> ReleaseServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # What the handlers ask.

    def next_fault(self, at: At, name: str | None) -> AnyFault | None:
        """Return the fault that strikes this request, and count it."""
        with self.lock:
            for fault in self._faults:
                if fault.at is not at or fault.name not in (None, name):
                    continue
                if fault.times is None:
                    return fault
                if self._left[id(fault)] > 0:
                    self._left[id(fault)] -= 1
                    return fault
        return None

    def release(self, tag: str) -> SimulatedRelease | None:
        """Return a published release."""
        with self.lock:
            found = self._releases.get(tag)
        return None if found is None or found.draft else found

    def releases(self, *, drafts: bool) -> list[SimulatedRelease]:
        """Return all releases, the newest first."""
        with self.lock:
            return [found for found in reversed(self._releases.values()) if drafts or not found.draft]

    def asset(self, number: int) -> SimulatedAsset | None:
        """Return an asset by its id."""
        with self.lock:
            return self._assets.get(number)

    def file(self, tag: str, name: str) -> SimulatedAsset | None:
        """Return an asset by tag and name."""
        with self.lock:
            release = self._releases.get(tag)
        return None if release is None else release.assets.get(name)

    def new_link(self, asset: SimulatedAsset) -> str:
        """Return a signed link to the content."""
        signature = secrets.token_hex(8)
        with self.lock:
            self._links.add(signature)
        return f"{self.store_url}/store/{asset.id}?X-Signature={signature}&X-Expires=300"

    def link_is_valid(self, signature: str) -> bool:
        """Whether a link with this signature was given out and has not run out."""
        with self.lock:
            return signature in self._links

    def log(self, request: LoggedRequest) -> None:
        """Remember a request."""
        with self.lock:
            self.requests.append(request)


def _digest(content: bytes | Path) -> str:
    if isinstance(content, bytes):
        return f"sha256:{hashlib.sha256(content).hexdigest()}"
    with content.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, hashlib.sha256).hexdigest()}"
