"""An HTTP mirror on loopback that serves a mapping of files, honestly or not.

    with Mirror(repo.files) as mirror:
        mirror.trouble = Trouble(status=503, times=1)

It understands single ranges, keeps connections, and notes every request with its headers. With
`packs` it gzips what it may, with `etags` it answers conditional requests, and whoever `guard`
does not let in gets a 403. `cached` is what a cache before it has of some paths, None for a 404
that it remembers; whoever asks past caches gets what the mirror itself has.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from email.message import Message

TICK = 0.01


@dataclass
class Trouble:
    """What the mirror does wrong.

    Attributes:
        path: only for paths that end with this.
        times: how often; then it is honest again. Negative: always.
        status: answers with this instead.
        headers: sent besides.
        body: sent instead of the file.
        cut: bytes of the body after which the connection is closed.
        flip: offset in the file of a byte that is changed.
        ranges: whether it knows ranges.
        wrong_range: answers a range with its start moved by this many bytes.
        drip: seconds between the single bytes of the body.
        announce: whether it says how long the body is; otherwise the end of connection tells.
        silent: accepts the request and never answers, until it is closed.
    """

    path: str = ""
    times: int = -1
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut: int | None = None
    flip: int | None = None
    ranges: bool = True
    wrong_range: int = 0
    drip: float = 0.0
    announce: bool = True
    silent: bool = False


@dataclass(frozen=True)
class Seen:
    """A request as it arrived."""

    path: str
    headers: Message
    connection: int
    peer: str = ""
    """Subject of the client certificate that was shown, if any."""


class Mirror(ThreadingHTTPServer):
    """See the module."""

    daemon_threads = True

    def __init__(
        self,
        files: Mapping[str, bytes],
        context: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, 0), _Handler)
        self.files = files
        self.host = f"[{host}]" if ":" in host else host
        self.numbers = itertools.count(1)
        self.packs = False
        self.etags = False
        self.cached: dict[str, bytes | None] = {}
        self.guard: Callable[[Seen], bool] = lambda _: True
        self.context = context
        self.trouble = Trouble(times=0)
        self.seen: list[Seen] = []
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        scheme = "https" if self.context else "http"
        return f"{scheme}://{self.host}:{self.server_port}/"

    @property
    def paths(self) -> list[str]:
        """What was asked for, in order."""
        return [seen.path for seen in self.seen]

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(TICK,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is what some tests want; nothing to print."""


class _Handler(BaseHTTPRequestHandler):
    server: Mirror
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        self.number = next(self.server.numbers)
        if self.server.context is not None:
            # Here, in the connection's own thread: a failing handshake must not stop the others.
            self.request = self.server.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self) -> None:
        super().finish()
        self.request.close()

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        path = unquote(self.path).lstrip("/")
        self.server.seen.append(Seen(path, self.headers, self.number, _peer(self.request)))
        trouble = self._trouble(path)
        if not self.server.guard(self.server.seen[-1]):
            trouble = Trouble(status=403)
        if trouble.silent:
            self.server.closing.wait()
            self.close_connection = True
            return
        data = trouble.body if trouble.body is not None else self.server.files.get(path)
        if self.headers.get("Cache-Control") != "no-cache":
            data = self.server.cached.get(path, data)
        if trouble.status or data is None:
            status = trouble.status or 404
            self._send(status, trouble.body or b"", {}, trouble)
            return
        if trouble.flip is not None:
            data = bytes([*data[: trouble.flip], data[trouble.flip] ^ 1, *data[trouble.flip + 1 :]])
        headers = {}
        if self.server.etags:
            headers["ETag"] = f'"{hashlib.sha256(data).hexdigest()}"'
            if self.headers.get("If-None-Match") == headers["ETag"]:
                self._send(304, b"", headers, trouble)
                return
        if self.server.packs and "gzip" in self.headers.get("Accept-Encoding", ""):
            data = gzip.compress(data)
            headers["Content-Encoding"] = "gzip"
        ranged = self.headers.get("Range")
        if ranged and trouble.ranges:
            first, last = ranged.removeprefix("bytes=").split("-")
            start, end = int(first) + trouble.wrong_range, min(int(last) + 1, len(data))
            where = {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
            self._send(206, data[start:end], where, trouble)
        else:
            self._send(200, data, headers, trouble)

    def _trouble(self, path: str) -> Trouble:
        trouble = self.server.trouble
        if trouble.times == 0 or not path.endswith(trouble.path):
            return Trouble()
        trouble.times -= 1
        return trouble

    def _send(self, status: int, body: bytes, headers: dict[str, str], trouble: Trouble) -> None:
        self.send_response_only(status)
        for name, value in (headers | trouble.headers).items():
            self.send_header(name, value)
        if status == 304:
            pass
        elif trouble.announce:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        if trouble.cut is not None and trouble.cut < len(body):
            self.wfile.write(body[: trouble.cut])
            self.close_connection = True
            return
        if trouble.drip:
            for byte in body:
                if self.server.closing.wait(trouble.drip):
                    return
                self.wfile.write(bytes([byte]))
            return
        self.wfile.write(body)


def _peer(request: object) -> str:
    shown = request.getpeercert() if isinstance(request, ssl.SSLSocket) else None
    subject: Any = shown.get("subject", ()) if shown else ()
    return "".join(value for names in subject for _, value in names)


def wait_until(condition: object, seconds: float = 5.0) -> None:
    """Wait for something that another thread does."""
    deadline = time.monotonic() + seconds
    while not (callable(condition) and condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(TICK)
