"""What a core says about upgrades: the request, the answer's exact shape, and nothing of sockets.

The node's admin server speaks JSON-RPC 1.0: ``params`` is an array of one, the id is echoed as it was sent,
``error`` is null or a plain string. The key of the release tag bears the node's brand (``VegaReleaseTag``,
``FuryReleaseTag``).
"""

from __future__ import annotations

from msgspec import Struct

from visor_actors.node import bounded_json
from visor_actors.node.bounded_json import Json, JsonRefused, kind

METHOD = "protocolupgrade.UpgradeStatus"
MAX_HEIGHT = 2**63 - 1  # the node's snapshot height flag is a signed 64 bit number
MAX_TAG = 128


class Release(Struct, frozen=True, kw_only=True):
    """A release the network has accepted: its tag as voted (never empty) and its upgrade height (at least
    1)."""

    tag: str
    height: int


class UpgradeStatus(Struct, frozen=True, kw_only=True):
    """One answer. ``release`` alone may be stale or withdrawn again; only ``ready`` allows a switch."""

    release: Release | None
    ready: bool


class RpcReply(Struct, frozen=True, kw_only=True):
    """The envelope of an answer, checked for shape: ``error`` is None unless the node reports one."""

    id: Json
    result: Json
    error: str | None


def request_body(request_id: int) -> bytes:
    """The JSON text that asks for the status, byte for byte as the node's own tools write it."""
    return b'{"method":"%s","params":[null],"id":%d}\n' % (METHOD.encode(), request_id)


def parse_reply(body: bytes) -> RpcReply:
    """Return the envelope in ``body``. Raises :class:`JsonRefused` when it is none."""
    answer = bounded_json.parse_object(body)
    missing = [key for key in ("result", "error", "id") if key not in answer]
    if missing:
        raise JsonRefused(f"it has no {' and no '.join(repr(key) for key in missing)}")
    error = answer["error"]
    if error is not None and not isinstance(error, str):
        # JSON-RPC 2.0 servers answer with an object; the message in it is still what the operator needs.
        message = error.get("message") if isinstance(error, dict) else None
        error = message if isinstance(message, str) else f"an error that is {kind(error)}"
    return RpcReply(id=answer["id"], result=answer["result"], error=error)


def parse_status(result: Json) -> UpgradeStatus:
    """Return the status in the ``result`` of a reply. Raises :class:`JsonRefused` when it has another
    shape."""
    if not isinstance(result, dict):
        raise JsonRefused(f"its result is {kind(result)}, not an object")
    ready = result.get("ReadyToUpgrade")
    if not isinstance(ready, bool):
        raise JsonRefused(f"its ReadyToUpgrade is {kind(ready)}, not a boolean")
    if "AcceptedReleaseInfo" not in result:
        raise JsonRefused("its result has no AcceptedReleaseInfo")
    return UpgradeStatus(release=_release(result["AcceptedReleaseInfo"]), ready=ready)


def _release(info: Json) -> Release | None:
    if info is None:
        return None
    if not isinstance(info, dict):
        raise JsonRefused(f"its AcceptedReleaseInfo is {kind(info)}, neither null nor an object")
    keys = [key for key in info if key.endswith("ReleaseTag")]
    if len(keys) != 1:
        raise JsonRefused(f"its AcceptedReleaseInfo has {len(keys)} keys that end with ReleaseTag, not one")
    tag, height = info[keys[0]], info.get("UpgradeBlockHeight")
    if not isinstance(tag, str):
        raise JsonRefused(f"its {keys[0][:40]} is {kind(tag)}, not a string")
    if isinstance(height, bool) or not isinstance(height, int) or not 0 <= height <= MAX_HEIGHT:
        raise JsonRefused("its UpgradeBlockHeight is no block height")
    if not tag:
        return None
    if not is_plain_tag(tag):
        raise JsonRefused(f"its release tag {tag[:40]!r} cannot name a release")
    if height == 0:
        raise JsonRefused(f"its release {tag!r} has no upgrade height")
    return Release(tag=tag, height=height)


def is_plain_tag(tag: str) -> bool:
    """Whether ``tag`` can be shown and written down: short and printable.

    Whether it can name a folder is asked where folders are chosen: a release must not go unnoticed because
    its name is odd.
    """
    return len(tag) <= MAX_TAG and tag.isprintable()
