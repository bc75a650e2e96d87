"""HTTP for the job: requests with redirects followed by hand, so that a token never leaves the host it is
for.

Proxies and CA bundles come from the environment, as requests reads them; ``.netrc`` is not read. Bodies are
asked for unencoded and read as they arrive, so that every pause is bounded by the stall limit.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Mapping
from types import TracebackType

import requests
import urllib3
from msgspec import Struct
from requests.auth import AuthBase

import visor_actors
from visor_actors.install.errors import InstallError, TransferFailed, Unfit
from visor_actors.install.messages import FailureKind
from visor_actors.install.order import Limits
from visor_actors.install.responses import next_hop, origin_of, problem_of, without_query

_REDIRECTS = (301, 302, 303, 307, 308)
_TROUBLE = (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError)
_SMALLEST_RATE = 1024  # bytes a second, over one stall limit; slower is as good as stalled


class _NoAuthentication(AuthBase):
    """Keeps requests from looking into ``.netrc``: the only credentials sent are the ones set here."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class _Session(requests.Session):
    """A session that leaves redirects alone: requests would read their whole bodies and parse where they
    lead.
    """

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002 - the base class's signature
        return None


class Hop(Struct, frozen=True, kw_only=True):
    """One request of a chain of redirects: where it went and whether it carried the token."""

    url: str
    authorized: bool


class Answer:
    """A successful answer whose body has not been read yet. Use it as a context manager."""

    def __init__(self, response: requests.Response, hop: Hop, limits: Limits) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.url = hop.url
        self._response = response
        self._limits = limits
        self._window_start = time.monotonic()
        self._window_bytes = 0

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes once there are some, ``b""`` at the end. Raises TransferFailed."""
        try:
            data: bytes = self._response.raw.read1(size, decode_content=False)
        except _TROUBLE as error:
            raise _network_trouble(self.url, error) from error
        self._watch_rate(len(data))
        return data

    def read_all(self, limit: int) -> bytes:
        """Return the whole body; TransferFailed when it is longer than ``limit`` bytes."""
        parts: list[bytes] = []
        length = 0
        while data := self.read(1 << 16):
            length += len(data)
            if length > limit:
                raise TransferFailed(
                    FailureKind.SERVER_ERROR,
                    f"{without_query(self.url)} answers with more than {limit} bytes",
                    "check that this is the right server",
                )
            parts.append(data)
        return b"".join(parts)

    def _watch_rate(self, received: int) -> None:
        self._window_bytes += received
        elapsed = time.monotonic() - self._window_start
        if elapsed < self._limits.stall_seconds or not received:
            return
        if self._window_bytes < elapsed * _SMALLEST_RATE:
            raise TransferFailed(
                FailureKind.NETWORK,
                f"{without_query(self.url)} sends only {self._window_bytes / elapsed:.0f} bytes a second",
                "check the connection; it is tried again",
            )
        self._window_start += elapsed
        self._window_bytes = 0

    def __enter__(self) -> Answer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._response.close()


class Transport:
    """One session for one job. ``token`` goes to the origin of ``token_url`` and nowhere else."""

    def __init__(
        self,
        *,
        limits: Limits,
        token: str | None = None,
        token_url: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._limits = limits
        self._token = token
        self._token_origin = None if token_url is None else origin_of(token_url)
        self._clock = clock
        self._session = _Session()
        self._session.auth = _NoAuthentication()
        self._session.headers.clear()

    def get(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        on_refusal: Callable[[InstallError, int], InstallError] | None = None,
    ) -> Answer:
        """Return the answer to a GET once redirects are followed; ``headers`` go along on every hop.

        Raises :class:`InstallError` for anything but 200 and 206. ``on_refusal`` may translate that error; it
        is also given the number of redirects that led there.
        """
        hops = 0
        while True:
            hop = Hop(url=url, authorized=self._token is not None and self._may_carry_token(url))
            response = self._send(hop, headers)
            if response.status_code in _REDIRECTS:
                response.close()
                url = next_hop(url, response.headers.get("location"), hops=hops)
                hops += 1
                continue
            answer = Answer(response, hop, self._limits)
            if response.status_code in (200, 206):
                return self._unencoded(answer)
            with answer:
                problem = self._problem(answer, hop)
            raise problem if on_refusal is None else on_refusal(problem, hops)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _may_carry_token(self, url: str) -> bool:
        return self._token_origin == origin_of(url)

    def _send(self, hop: Hop, headers: Mapping[str, str]) -> requests.Response:
        sent = {
            "User-Agent": f"visor-actors/{visor_actors.__version__}",
            "Accept-Encoding": "identity",
            **headers,
        }
        if hop.authorized:
            sent["Authorization"] = f"Bearer {self._token}"
        timeout = (self._limits.connect_seconds, self._limits.stall_seconds)
        try:
            return self._session.get(
                hop.url, headers=sent, allow_redirects=False, stream=True, timeout=timeout
            )
        except (
            requests.exceptions.InvalidURL,
            requests.exceptions.InvalidSchema,
            requests.exceptions.MissingSchema,
        ):
            raise Unfit(
                FailureKind.ORDER_INVALID,
                f"{without_query(hop.url)} is not an HTTP address",
                "correct autoInstall.apiUrl or autoInstall.source",
            ) from None
        except _TROUBLE as error:
            raise _network_trouble(hop.url, error) from error

    def _problem(self, answer: Answer, hop: Hop) -> InstallError:
        try:
            body = answer.read(4096).decode(errors="replace")
        except TransferFailed:
            body = ""
        found = problem_of(
            url=answer.url,
            status=answer.status,
            headers=answer.headers,
            body=body,
            now=self._clock(),
            authorized=hop.authorized,
        )
        assert found is not None, "a success was taken for a problem"
        return found

    def _unencoded(self, answer: Answer) -> Answer:
        encoding = answer.headers.get("content-encoding", "identity").strip().lower()
        if encoding in ("", "identity"):
            return answer
        with answer:
            raise TransferFailed(
                FailureKind.SERVER_ERROR,
                f"{without_query(answer.url)} sends {encoding}-encoded data although asked not to",
                "check the proxy between here and there",
            )


def _network_trouble(url: str, error: Exception) -> TransferFailed:
    match error:
        case requests.exceptions.SSLError():
            next_step = "check the clock and the CA bundle (REQUESTS_CA_BUNDLE)"
        case requests.exceptions.ProxyError():
            next_step = "check the proxy (HTTPS_PROXY, NO_PROXY)"
        case _:
            next_step = "check the connection; it is tried again"
    return TransferFailed(FailureKind.NETWORK, f"{without_query(url)}: {_in_short(error)}", next_step)


def _in_short(error: BaseException) -> str:
    """Return the innermost reason: the libraries wrap it several times, with the whole URL in each layer."""
    seen = 0
    while seen < 8:
        inner = error.__cause__ or error.__context__
        if inner is None:
            break
        error = inner
        seen += 1
    text = str(error) or type(error).__name__
    return text if "?" not in text else type(error).__name__
