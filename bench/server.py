"""A static server in its own process, over HTTP and HTTPS, that counts what it is asked.

It writes one line per request into a log: the status, and the bytes of the body that it sent.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import gzip
import ipaddress
import os
import re
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK = 256 * 1024
GZIP = "--gzip"


@dataclass(frozen=True)
class Traffic:
    """What crossed the wire: requests of any outcome, and bytes of bodies."""

    requests: int
    body_bytes: int


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        url: ends in `/`.
        log: one line per request.
    """

    url: str
    log: Path

    def traffic(self) -> Traffic:
        """Everything since the last `forget`."""
        lines = self.log.read_text().splitlines()
        return Traffic(len(lines), sum(int(line.split()[1]) for line in lines))

    def forget(self) -> None:
        """Count from zero again."""
        os.truncate(self.log, 0)


class Handler(BaseHTTPRequestHandler):
    """Files below `directory`; GET only, one byte range at most."""

    protocol_version = "HTTP/1.1"
    directory: Path
    log: int
    compressed = False
    # Without this each answer would wait for the delayed ACK of the one before.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Send a file, or a part of it."""
        path = self.directory / self.path.lstrip("/").partition("?")[0]
        if not path.is_file():
            self._note(404, 0)
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.compressed and path.suffix == ".json":
            self._send_compressed(path.read_bytes())
            return
        size = path.stat().st_size
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        end = min(int(wanted[2]) + 1, size) if wanted and wanted[2] else size
        self._note(206 if wanted else 200, end - start)
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(end - start))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.end_headers()
        with path.open("rb") as file:
            file.seek(start)
            left = end - start
            while left and (chunk := file.read(min(CHUNK, left))):
                self.wfile.write(chunk)
                left -= len(chunk)

    def _send_compressed(self, data: bytes) -> None:
        """As a CDN sends JSON to who asks for gzip."""
        asked = "gzip" in self.headers.get("Accept-Encoding", "")
        body = gzip.compress(data, mtime=0) if asked else data
        self._note(200, len(body))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        if asked:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _note(self, status: int, length: int) -> None:
        os.write(self.log, f"{status} {length} {self.path}\n".encode())

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


class QuietServer(ThreadingHTTPServer):
    """A client that hangs up is no event."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Nothing on the terminal."""


def make_certificates(directory: Path) -> None:
    """A CA of its own (`ca.pem`) and a certificate for 127.0.0.1 (`server.pem` with its key)."""
    ca_key, server_key = (
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP256R1()),
    )
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "firmroot bench CA")])
    now = dt.datetime.now(dt.UTC)

    def certificate(subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=30))
        )

    ca = (
        certificate(ca_name, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    server = (
        certificate(name, server_key.public_key())
        .add_extension(address, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    (directory / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    (directory / "server.pem").write_bytes(
        server_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + server.public_bytes(serialization.Encoding.PEM)
    )


@contextlib.contextmanager
def serving(
    directory: Path, scratch: Path, *, tls: bool, compressed: bool = False
) -> Iterator[Server]:
    """Serve `directory` on loopback from a process of its own until the block ends.

    Args:
        directory: what is served.
        scratch: for the log and the port.
        tls: with the certificate of `make_certificates`.
        compressed: metadata as gzip, as a CDN does it; without TLS only.
    """
    name = "https" if tls else "http"
    scratch = scratch / "compressed" if compressed else scratch
    scratch.mkdir(exist_ok=True)
    log, ready = scratch / f"{name}.log", scratch / f"{name}.port"
    ready.unlink(missing_ok=True)
    log.write_bytes(b"")
    command = [sys.executable, "-m", "bench.server", str(directory), str(log), str(ready)]
    if tls:
        command.append(str(scratch / "server.pem"))
    if compressed:
        command.append(GZIP)
    process = subprocess.Popen(command, cwd=Path(__file__).parent.parent)  # noqa: S603 - our own module
    try:
        deadline = time.monotonic() + 15
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the loopback server of the bench did not start")
            time.sleep(0.02)
        yield Server(f"{name}://127.0.0.1:{ready.read_text()}/", log)
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Serve until terminated.

    Arguments: directory, log, port file; a certificate for HTTPS, or `GZIP`.
    """
    Handler.compressed = sys.argv[-1] == GZIP
    arguments = sys.argv[1:-1] if Handler.compressed else sys.argv[1:]
    directory, log, ready, *certificate = (Path(argument) for argument in arguments)
    Handler.directory = directory
    Handler.log = os.open(log, os.O_WRONLY | os.O_APPEND)
    server = QuietServer(("127.0.0.1", 0), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate[0])
        server.socket = context.wrap_socket(server.socket, server_side=True)
    partial = ready.with_suffix(".partial")
    partial.write_text(str(server.server_address[1]))
    partial.replace(ready)
    server.serve_forever()


if __name__ == "__main__":
    main()
