"""A CDN on loopback that keeps every rule of design 8, unless a function changes what it says.

with Cdn(files) as cdn:
    cdn.wrong = lambda asked, said: replace(said, status=403) if said.status == 404 else said
"""

from __future__ import annotations

import gzip
import hashlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping
    from email.message import Message

IMMUTABLE = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class Asked:
    """A request."""

    path: str
    headers: Message
    times: int
    """How often this path was asked for, this time included."""
    file: bytes
    """What is there; empty if nothing is."""


@dataclass(frozen=True)
class Said:
    """An answer."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def but(self, **headers: str) -> Said:
        """The same with these headers; `_` in a name stands for `-`, an empty one is left out."""
        changed = {name.replace("_", "-"): value for name, value in headers.items()}
        kept = {name: v for name, v in self.headers.items() if name.lower() not in changed}
        together = {**kept, **{name: v for name, v in changed.items() if v}}
        return Said(self.status, together, self.body)


class Cdn(ThreadingHTTPServer):
    """See the module."""

    daemon_threads = True

    def __init__(self, files: Mapping[str, bytes], context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.context = context
        self.wrong: Callable[[Asked, Said], Said] = lambda _, said: said
        self.times: dict[str, int] = {}

    @property
    def url(self) -> str:
        return f"{'https' if self.context else 'http'}://127.0.0.1:{self.server_port}/"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away, or trusts nobody, is what some tests want."""

    def honest(self, asked: Asked) -> Said:
        """What a CDN should say."""
        data = self.files.get(asked.path)
        if data is None or not asked.path.startswith(("metadata/", "targets/")):
            return Said(404, {"Cache-Control": "no-store"}, b"not there\n")
        mutable = asked.path.endswith("timestamp.json")
        headers = {
            "Cache-Control": "max-age=60" if mutable else IMMUTABLE,
            "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
        }
        if asked.headers.get("If-None-Match") == headers["ETag"]:
            return Said(304, headers)
        if ranged := asked.headers.get("Range"):
            first, last = map(int, ranged.removeprefix("bytes=").split("-"))
            part = data[first : last + 1]
            headers["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(data)}"
            return Said(206, headers, part)
        if not mutable and "gzip" in asked.headers.get("Accept-Encoding", ""):
            headers |= {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
            return Said(200, headers, gzip.compress(data, 1))
        return Said(200, headers, data)


class _Handler(BaseHTTPRequestHandler):
    server: Cdn
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        if self.server.context is not None:
            self.request = self.server.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self) -> None:
        super().finish()
        self.request.close()

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        path = unquote(self.path).lstrip("/")
        self.server.times[path] = self.server.times.get(path, 0) + 1
        file = self.server.files.get(path, b"")
        asked = Asked(path, self.headers, self.server.times[path], file)
        said = self.server.wrong(asked, self.server.honest(asked))
        self.send_response_only(said.status)
        for name, value in said.headers.items():
            self.send_header(name, value)
        if said.status != 304:
            self.send_header("Content-Length", str(len(said.body)))
        self.end_headers()
        self.wfile.write(said.body)
