"""What a release server's answer means: pure, from status, headers and the start of the body.

Rate limits follow what GitHub documents: 403 and 429 are both used; ``retry-after`` counts first, then
``x-ratelimit-reset`` once nothing remains, and a secondary limit that names no time asks for at least a
minute.
"""

from __future__ import annotations

import email.utils
import re
from collections.abc import Mapping
from urllib.parse import urljoin, urlsplit

from visor_actors.install.errors import InstallError, RateLimited, ResumeRefused, TransferFailed, Unavailable
from visor_actors.install.messages import FailureKind

MOST_REDIRECTS = 5
_SECONDARY_WAIT = 60.0
_LONGEST_WAIT = 24 * 3600.0


def problem_of(
    *, url: str, status: int, headers: Mapping[str, str], body: str, now: float, authorized: bool
) -> InstallError | None:
    """Return what a final (not redirecting) answer means, None when it is a success.

    ``headers`` must be case-insensitive; ``now`` is Unix time, used where the server does not tell its own. A
    404 is returned as an ``ASSET_MISSING``: only the caller knows what was asked for.
    """
    where = urlsplit(url).hostname or url
    if status in (200, 206):
        return None
    if status in (403, 429):
        wait = _rate_limit_wait(status, headers, body, now)
        if wait is not None:
            return RateLimited(f"{where} limits our requests for {wait:.0f} s", retry_after=wait)
    match status:
        case 401 | 403:
            return Unavailable(
                FailureKind.ACCESS_DENIED,
                f"{where} denies access ({status}): {_said(body)}",
                "check the token (autoInstall.tokenFile or GITHUB_TOKEN) and its access to the repository"
                if authorized
                else "set autoInstall.tokenFile or GITHUB_TOKEN if the repository is private",
            )
        case 404 | 410:
            return Unavailable(
                FailureKind.ASSET_MISSING,
                f"{where} has nothing at {without_query(url)}",
                "check the name and the tag",
            )
        case 416:
            return ResumeRefused(without_query(url))
        case 408 | 425:
            return _server_error(where, status, headers, body, now)
        case _ if status >= 500 or status < 400:
            return _server_error(where, status, headers, body, now)
        case _:
            return Unavailable(
                FailureKind.SERVER_ERROR,
                f"{where} refuses the request ({status}): {_said(body)}",
                "check autoInstall.apiUrl and autoInstall.source",
            )


def _server_error(
    where: str, status: int, headers: Mapping[str, str], body: str, now: float
) -> TransferFailed:
    return TransferFailed(
        FailureKind.SERVER_ERROR,
        f"{where} answers {status}: {_said(body)}",
        "nothing, it is tried again; look at the server's status page if it lasts",
        retry_after=_retry_after(headers, now),
    )


def _rate_limit_wait(status: int, headers: Mapping[str, str], body: str, now: float) -> float | None:
    wait = _retry_after(headers, now)
    if wait is not None:
        return wait
    reset = _number(headers.get("x-ratelimit-reset"))
    if headers.get("x-ratelimit-remaining", "").strip() == "0" and reset is not None:
        return _bounded(reset - (_server_time(headers) or now))
    if status == 429 or re.search(r"rate limit|abuse", body, re.IGNORECASE):
        return _SECONDARY_WAIT
    return None


def _retry_after(headers: Mapping[str, str], now: float) -> float | None:
    value = headers.get("retry-after", "").strip()
    seconds = _number(value)
    if seconds is not None:
        return _bounded(seconds)
    at = _date(value)
    return None if at is None else _bounded(at - (_server_time(headers) or now))


def _bounded(seconds: float) -> float:
    return min(max(0.0, seconds), _LONGEST_WAIT)


def _number(value: str | None) -> float | None:
    return float(value) if value and re.fullmatch(r"[0-9]{1,12}", value.strip()) else None


def _date(value: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def _server_time(headers: Mapping[str, str]) -> float | None:
    return _date(headers.get("date", ""))


def _said(body: str) -> str:
    found = re.search(r'"message"\s*:\s*"([^"\\]{1,200})', body)
    text = found.group(1) if found else " ".join(body.split())[:120]
    return text or "it says nothing more"


def without_query(url: str) -> str:
    """Return ``url`` as it may be shown and logged: signatures of signed links are in the query, passwords
    before @.
    """
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def origin_of(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port: the unit within which a token may travel."""
    parts = urlsplit(url)
    default = 443 if parts.scheme == "https" else 80
    return parts.scheme, (parts.hostname or "").lower(), parts.port or default


def next_hop(url: str, location: str | None, *, hops: int) -> str:
    """Return where a redirect from ``url`` leads.

    Raises :class:`TransferFailed` for a redirect without a target, to a scheme that is not HTTP, from HTTPS
    to HTTP, or the sixth in a row.
    """
    if hops >= MOST_REDIRECTS:
        raise _bad_redirect(url, f"redirects more than {MOST_REDIRECTS} times")
    if not location:
        raise _bad_redirect(url, "redirects to nowhere")
    try:
        target = urljoin(url, location)
        scheme, host, _ = origin_of(target)
    except ValueError:
        raise _bad_redirect(url, "redirects to something that is no address") from None
    if scheme not in ("http", "https") or not host:
        raise _bad_redirect(url, "redirects to something that is not HTTP")
    if scheme == "http" and origin_of(url)[0] == "https":
        raise _bad_redirect(url, "redirects from HTTPS to plain HTTP")
    return target


def _bad_redirect(url: str, what: str) -> TransferFailed:
    return TransferFailed(
        FailureKind.SERVER_ERROR,
        f"{urlsplit(url).hostname} {what}",
        "check autoInstall.apiUrl, autoInstall.source and the proxy between here and there",
    )


def parse_content_range(value: str | None) -> tuple[int, int, int | None] | None:
    """Return first byte, last byte and total (None: unknown) of a ``Content-Range``; None when it is no such
    header.
    """
    found = re.fullmatch(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", (value or "").strip())
    if found is None:
        return None
    first, last = int(found.group(1)), int(found.group(2))
    total = None if found.group(3) == "*" else int(found.group(3))
    if first > last or (total is not None and last >= total):
        return None
    return first, last, total


def strong_validator(headers: Mapping[str, str]) -> str | None:
    """Return what an ``If-Range`` may carry: a strong entity tag. Dates have a resolution of a second: not
    good enough.
    """
    tag = headers.get("etag", "").strip()
    return tag if re.fullmatch(r'"[^"\x00-\x20\x7f]{1,200}"', tag) else None
