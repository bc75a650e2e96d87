"""HTTPS: certificates are checked against the environment's CA bundle, and a redirect never leaves it."""

from __future__ import annotations

import datetime
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.install.conftest import Bench
from visor_actors.install.messages import FailureKind
from visor_actors.install.order import Limits

ONCE = Limits(attempts=1, connect_seconds=5.0, stall_seconds=5.0, lock_seconds=0.2)


@dataclass(frozen=True)
class Mirror:
    """An HTTPS server: under ``/good`` it serves the asset, under ``/down`` it redirects to plain HTTP."""

    url: str
    certificate: Path


def write_certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a mirror")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "key.pem").write_bytes(pem)
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def mirror(bench: Bench, tmp_path: Path) -> Iterator[Mirror]:
    plain = bench.server.template.partition("{")[0]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/down"):
                self.send_response(302)
                self.send_header("Location", plain + self.path.removeprefix("/down/"))
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(bench.asset)))
            self.end_headers()
            self.wfile.write(bench.asset)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    certificate, key = write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    class Server(ThreadingHTTPServer):
        daemon_threads = False

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that does not trust us goes away."""

        def finish_request(self, request: object, client_address: object) -> None:
            assert not isinstance(request, tuple)
            with context.wrap_socket(request, server_side=True) as secure:  # type: ignore[arg-type]  # a TCP socket
                super().finish_request(secure, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield Mirror(url=f"https://127.0.0.1:{server.server_address[1]}", certificate=certificate)
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_certificate_that_nobody_vouches_for_is_not_trusted(bench: Bench, mirror: Mirror) -> None:
    error = bench.fail(source=f"{mirror.url}/good", limits=ONCE)
    assert error.kind is FailureKind.NETWORK
    assert "REQUESTS_CA_BUNDLE" in error.next_step


def test_the_ca_bundle_of_the_environment_is_used(
    bench: Bench, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(mirror.certificate))
    assert bench.run(source=f"{mirror.url}/good", limits=ONCE).bytes == len(bench.asset)


def test_a_redirect_to_plain_http_is_not_followed(
    bench: Bench, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(mirror.certificate))
    error = bench.fail(source=f"{mirror.url}/down", limits=ONCE)
    assert "from HTTPS to plain HTTP" in error.message
    assert not bench.server.requests
