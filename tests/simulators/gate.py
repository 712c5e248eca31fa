"""A gate in front of S3 that answers some requests itself, or keeps the answers of others.

    with Gate(service.endpoint) as gate:
        gate.rules.append(Rule("PUT", "timestamp.json", status=503, times=2))
        S3Storage(f"s3://bucket/prefix?endpoint={gate.url}")

Requests pass as they came, with their `Host`, so that their signatures hold.
"""

from __future__ import annotations

import http.client
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Gate", "Rule"]

_HOPS = {"connection", "transfer-encoding", "content-length"}


@dataclass
class Rule:
    """What happens to some requests.

    Attributes:
        method: of the request; empty for any.
        part: of its path and query; empty for any.
        status: of the answer; 0 to let it pass.
        code: in the answer, in S3's words.
        told: further elements of the answer, as XML.
        headers: of the answer.
        after: so many such requests pass before it holds.
        times: for how many requests it holds.
        executed: whether the request reaches S3 all the same.
        lost: no answer, the connection ends.
        without: a header that the answer of S3 loses, in small letters.
    """

    method: str = ""
    part: str = ""
    status: int = 0
    code: str = ""
    told: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    after: int = 0
    times: int = 1 << 30
    executed: bool = False
    lost: bool = False
    without: str = ""

    def takes(self, method: str, path: str) -> bool:
        """Whether this request is one of them; counts it."""
        if (self.method and method != self.method) or self.part not in path:
            return False
        self.after -= 1
        if self.after >= 0 or self.times <= 0:
            return False
        self.times -= 1
        return True


class Gate(ThreadingHTTPServer):
    """See the module.

    Attributes:
        origin: host and port of S3.
        rules: the first that takes a request decides.
        asked: method and path of every request so far.
    """

    daemon_threads = True

    def __init__(self, origin: str) -> None:
        super().__init__(("127.0.0.1", 0), _Visit)
        there = urlsplit(origin)
        self.origin = (there.hostname or "", there.port or 80)
        self.rules: list[Rule] = []
        self.asked: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def decide(self, method: str, path: str) -> Rule:
        """What happens to this request."""
        with self._lock:
            self.asked.append((method, path))
            return next((rule for rule in self.rules if rule.takes(method, path)), Rule())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join(5)


class _Visit(BaseHTTPRequestHandler):
    """Requests of one connection."""

    protocol_version = "HTTP/1.1"
    server: Gate

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        rule = self.server.decide(self.command, self.path)
        answer = None
        if rule.executed or not (rule.status or rule.lost):
            answer = self._forward(body)
        if rule.lost:
            self.close_connection = True
        elif rule.status or answer is None:
            self._refuse(rule)
        else:
            status, headers, data = answer
            kept = [each for each in headers if each[0].lower() != rule.without]
            self._send(status, kept, data)

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        link = http.client.HTTPConnection(*self.server.origin, timeout=30)
        link.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in {"connection", "expect"}:
                link.putheader(name, value)
        link.endheaders(body)
        found = link.getresponse()
        data = found.read()
        headers = [each for each in found.getheaders() if each[0].lower() not in _HOPS]
        if self.command == "HEAD":
            headers.append(("Content-Length", found.headers["Content-Length"] or "0"))
        link.close()
        return found.status, headers, data

    def _refuse(self, rule: Rule) -> None:
        text = f"<Error><Code>{rule.code}</Code><Message>no</Message>{rule.told}</Error>"
        headers = [("Content-Type", "application/xml"), *rule.headers.items()]
        self._send(rule.status, headers, b"" if self.command == "HEAD" else text.encode())

    def _send(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing."""


for _method in ("GET", "PUT", "POST", "HEAD", "DELETE"):
    setattr(_Visit, f"do_{_method}", _Visit._any)
