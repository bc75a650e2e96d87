"""GitHub's REST interface, or that of an Enterprise server or a mirror, as a :class:`~.sources.Source`.

Every address is made from ``api_url``: an address that the server names is followed only as a redirect, and
there the token stays behind. Drafts and prereleases are as good as any other release when the tag is exactly
the wanted one.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from typing import TypeGuard
from urllib.parse import quote

from msgspec import Struct

from visor_actors.install.errors import InstallError, TransferFailed, Unavailable
from visor_actors.install.messages import FailureKind
from visor_actors.install.responses import without_query
from visor_actors.install.sources import Asset, Body, Resume, http_body
from visor_actors.install.transport import Transport

_LARGEST_REPLY = 16 << 20
_PER_PAGE = 100
_MOST_PAGES = 20
_MOST_NAMED = 12
_API = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}


class _Release(Struct, frozen=True, kw_only=True):
    id: int
    assets: dict[str, Asset]


class GitHubSource:
    """One release of one repository. What was looked up is kept; links to content are resolved anew each
    time.
    """

    def __init__(self, *, api_url: str, owner: str, repository: str, tag: str, transport: Transport) -> None:
        self._name = f"{owner}/{repository}"
        self._root = f"{api_url.rstrip('/')}/repos/{quote(owner, safe='')}/{quote(repository, safe='')}"
        self._tag = tag
        self._transport = transport
        self._release: _Release | None = None
        self._all_pages = False

    def find(self, name: str) -> Asset:
        """Return the asset. The release's own list is asked first, then every page of its assets."""
        release = self._release or self._look_up()
        self._release = release
        if name not in release.assets and not self._all_pages:
            for page in self._pages(f"{self._root}/releases/{release.id}/assets"):
                release.assets.update(self._read_assets(page))
            self._all_pages = True
        found = release.assets.get(name)
        if found is None:
            raise self._asset_missing(name, list(release.assets))
        return found

    def open(self, asset: Asset, resume: Resume | None) -> Body:
        """Begin to read. The link is asked for again each time, so one that has expired is no obstacle."""
        url = f"{self._root}/releases/assets/{asset.identity.partition(':')[0]}"
        return http_body(
            self._transport,
            url,
            resume,
            headers={**_API, "Accept": "application/octet-stream"},
            on_refusal=_link_expired,
        )

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def _look_up(self) -> _Release:
        try:
            reply, _ = self._get(f"{self._root}/releases/tags/{quote(self._tag, safe='')}")
        except Unavailable as error:
            if error.kind is not FailureKind.ASSET_MISSING:
                raise
            return self._search_list()
        return self._read_release(reply)

    def _search_list(self) -> _Release:
        """Look through the list of releases: drafts are only there. Its failure tells what is missing."""
        tags: list[str] = []
        try:
            for page in self._pages(f"{self._root}/releases", most=3):
                for release in page:
                    if not isinstance(release, dict) or not isinstance(release.get("tag_name"), str):
                        continue
                    if release["tag_name"] == self._tag:
                        return self._read_release(release)
                    tags.append(release["tag_name"])
        except Unavailable as error:
            if error.kind is not FailureKind.ASSET_MISSING:
                raise
            raise Unavailable(
                FailureKind.REPOSITORY_MISSING,
                f"{self._name} does not exist, or is private",
                "correct autoInstall.repositoryOwner and repository, or set autoInstall.tokenFile",
            ) from None
        raise Unavailable(
            FailureKind.RELEASE_MISSING,
            f"{self._name} has no release {self._tag}; it has {_listed(self._tag, tags)}",
            "wait for its publication, or put the release into its upgrade folder by hand",
        )

    def _pages(self, url: str, *, most: int = _MOST_PAGES) -> Iterator[list[object]]:
        for number in range(1, most + 1):
            page, more = self._get(f"{url}?per_page={_PER_PAGE}&page={number}")
            if not isinstance(page, list):
                raise _malformed(url)
            yield page
            if not more:
                return

    def _get(self, url: str) -> tuple[object, bool]:
        """Return the decoded reply and whether the server says that there is a next page."""
        with self._transport.get(url, headers=_API) as answer:
            body = answer.read_all(_LARGEST_REPLY)
            more = re.search(r'rel="?next"?', answer.headers.get("link", "")) is not None
        try:
            return json.loads(body), more
        except (ValueError, RecursionError):
            raise _malformed(url) from None

    def _read_release(self, reply: object) -> _Release:
        if not isinstance(reply, dict) or not _is_id(reply.get("id")):
            raise _malformed(self._root)
        assets = reply.get("assets")
        return _Release(id=reply["id"], assets=self._read_assets(assets if isinstance(assets, list) else []))

    def _read_assets(self, page: list[object]) -> dict[str, Asset]:
        return {asset.name: asset for item in page if (asset := self._read_asset(item)) is not None}

    def _read_asset(self, item: object) -> Asset | None:
        if not isinstance(item, dict):
            return None
        number, name, size = item.get("id"), item.get("name"), item.get("size")
        if not _is_id(number) or not isinstance(name, str) or item.get("state", "uploaded") != "uploaded":
            return None
        digest = item.get("digest")
        found = re.fullmatch(r"sha256:([0-9a-fA-F]{64})", digest) if isinstance(digest, str) else None
        return Asset(
            name=name,
            identity=f"{number}:{item.get('updated_at')}:{size}",
            url=f"{self._root}/releases/assets/{number}",
            size=size if _is_id(size) else None,
            sha256=found.group(1).lower() if found else None,
        )

    def _asset_missing(self, name: str, names: list[str]) -> Unavailable:
        self._release, self._all_pages = None, False  # it may still be uploaded: the next look is a fresh one
        return Unavailable(
            FailureKind.ASSET_MISSING,
            f"release {self._tag} of {self._name} has no asset {name}; it has {_listed(name, names)}",
            "correct autoInstall.asset.name, or wait if the release is still being uploaded",
        )


def _is_id(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _listed(wanted: str, names: list[str]) -> str:
    """Return the names nearest to the wanted one first, as a phrase."""
    near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.3)
    ordered = near + [name for name in names if name not in near]
    more = len(ordered) - _MOST_NAMED
    text = ", ".join(ordered[:_MOST_NAMED]) or "none at all"
    return f"{text} and {more} more" if more > 0 else text


def _malformed(url: str) -> TransferFailed:
    return TransferFailed(
        FailureKind.SERVER_ERROR,
        f"{without_query(url)} answers with something that is not a release",
        "check autoInstall.apiUrl",
    )


def _link_expired(error: InstallError, hops: int) -> InstallError:
    """A refusal by the store behind the redirect means that its signed link has run out: the next try gets a
    new one.
    """
    if hops > 0 and not error.transient:
        return TransferFailed(
            FailureKind.SERVER_ERROR, f"the link to the content has run out: {error.message}", error.next_step
        )
    return error
