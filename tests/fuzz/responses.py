"""HTTP responses: `transport.fetch.HttpFetcher` over connections that answer anything.

The first byte chooses: bit 0 a part of an object instead of a whole one, bit 1 a server that never
stops sending, bit 2 one byte at a time, bit 3 a second mirror; bits 4 to 7 how many of the last
lines an endless server repeats. The rest is what connection after connection answers, `SEPARATOR`
between them; the last one stands for all that follow.
"""

from __future__ import annotations

import itertools
import socket
from unittest import mock

from client_reference.errors import NotTrustedError, RetryLaterError
from client_reference.transport.fetch import Ambient, HttpFetcher, Settings
from client_reference.transport.policy import parse_mirror
from tests.fuzz import SEPARATOR
from tests.fuzz.refusals import only

# Addresses, so that no name is looked up.
MIRRORS = ("http://192.0.2.1/fw/", "http://192.0.2.2:8080/")
META = "metadata/timestamp.json"
IMAGE = "targets/builds/gateway/1.0/image"
MOST = 4096
OFFSET, LENGTH = 100, 300
MOST_REQUESTS = 300
MOST_BYTES = 512 * 1024
"""Of one request. Attack: a mirror that keeps a device, and its metered link, busy for ever."""
BLOCK = 64 * 1024
DRIP = 200


class Wire:
    """One connection, as far as a client uses it."""

    def __init__(self, answer: bytes, *, endless: int, step: int) -> None:
        self.closed = False
        self.requests: list[bytes] = []
        self._left = memoryview(answer)
        self._tail = b"".join(answer.splitlines(keepends=True)[-endless:]) if endless else b""
        self._step = step
        self._sent = 0

    def connect(self, _: object) -> None:
        """It answers at once."""

    def settimeout(self, seconds: float) -> None:
        assert seconds > 0, "a wait without a limit"

    def setsockopt(self, *_: int) -> None:
        """Nothing."""

    def sendall(self, request: bytes) -> None:
        # Attack: a redirect that smuggles a second request, or headers, into the next one.
        first, _, rest = request.partition(b"\r\n")
        words = first.split(b" ")
        assert len(words) == 3, f"request line {first!r}"
        assert words[0] == b"GET"
        assert words[1].startswith(b"/")
        assert rest.endswith(b"\r\n\r\n")
        assert rest.count(b"\r\n\r\n") == 1
        assert rest.lower().count(b"host: ") == 1
        self.requests.append(request)
        self._sent = 0

    def recv_into(self, buffer: memoryview) -> int:
        assert not self.closed
        if not self._left and self._tail:
            self._left = memoryview(self._tail * (1 + BLOCK // len(self._tail)))
        # A drip is short: what it can break is at the beginning, and 100,000 steps take seconds.
        step = self._step if self._sent < DRIP else BLOCK
        count = min(len(buffer), len(self._left), step)
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        self._sent += count
        assert self._sent <= MOST_BYTES, "a client that reads on and on"
        return count

    def close(self) -> None:
        self.closed = True


def run(data: bytes) -> None:
    choice, rest = data[0] if data else 0, data[1:]
    answers = rest.split(SEPARATOR)
    wires: list[Wire] = []

    def connect(*_: object, **__: object) -> Wire:
        answer = answers[min(len(wires), len(answers) - 1)]
        endless = 1 + (choice >> 4) if choice & 2 else 0
        wires.append(Wire(answer, endless=endless, step=1 if choice & 4 else BLOCK))
        return wires[-1]

    mirrors = tuple(parse_mirror(url) for url in MIRRORS[: 2 if choice & 8 else 1])
    ticks = itertools.count()
    ambient = Ambient(lambda: next(ticks) / 1000, lambda _: None, lambda: 0.5)
    with (
        mock.patch.object(socket, "create_connection", connect),
        mock.patch.object(socket, "socket", connect),
    ):
        http = HttpFetcher(Settings(mirrors), ambient)
        with http, only(RetryLaterError, NotTrustedError):
            if choice & 1:
                _part(http)
            else:
                assert len(http.fetch(META, MOST)) <= MOST
    assert http.traffic.requests <= MOST_REQUESTS
    assert sum(len(wire.requests) for wire in wires) <= http.traffic.requests
    assert all(wire.closed for wire in wires), "a connection that stayed open"


def _part(http: HttpFetcher) -> None:
    got = 0
    for piece in http.stream(IMAGE, OFFSET, LENGTH):
        got += len(piece)
        assert got <= LENGTH
    assert got == LENGTH
