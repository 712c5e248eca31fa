"""Servers that say what no server says: each is left for the next mirror, and holds nobody."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import RetryLaterError
from client_reference.transport.fetch import Ambient, HttpFetcher, Roots, Settings
from client_reference.transport.policy import parse_mirror
from tests.simulators.mirror import Mirror

if TYPE_CHECKING:
    from collections.abc import Iterator

META = "metadata/timestamp.json"
IMAGE = "targets/builds/gateway/1.0/image"
FILES = {META: b'{"signed": {}}', IMAGE: bytes(range(200))}
WHOLE = b"HTTP/1.1 200 OK\r\n"
CHUNKED = WHOLE + b"Transfer-Encoding: chunked\r\n\r\n"
TOO_MUCH = "more than any answer has, without an end"


@contextmanager
def server(answer: bytes, again: bytes = b"") -> Iterator[str]:
    """One that sends `answer` on every connection, and then `again` until nobody listens."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with connection, suppress(OSError):
                    connection.recv(65_536)
                    connection.sendall(answer)
                    while again:
                        connection.sendall(again * 1000)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(5)


def fetcher(*urls: str) -> HttpFetcher:
    return HttpFetcher(
        Settings(mirrors=tuple(map(parse_mirror, urls)), roots=Roots(system=False)),
        Ambient(time.monotonic, lambda _: None, lambda: 0.5),
    )


HOSTILE = {
    "interim answers without end": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", TOO_MUCH),
    "trailers without end": (CHUNKED + b"0\r\n", b"a: b\r\n", TOO_MUCH),
    "a chunk of -1 bytes, which is all there is": (CHUNKED + b"-1\r\n", b"abc", TOO_MUCH),
    "a chunk of -2 bytes": (CHUNKED + b"-2\r\nab\r\n0\r\n\r\n", b"", "non-negative"),
    "a redirect to letters that no request line can carry": (
        b"HTTP/1.1 302 Found\r\nLocation: /a?\xe9\r\nConnection: close\r\n\r\n",
        b"",
        "redirects more than 3 times",
    ),
    "a part whose place has more digits than an integer may": (
        b"HTTP/1.1 206 Part\r\nContent-Range: bytes " + b"1" * 5000 + b"-\r\n\r\n",
        b"",
        "answered a part",
    ),
    "a status line as long as a page": (b"HTTP/1.1 " + b"x" * 9000 + b"\r\n\r\n", b"", "x…"),
}


@pytest.mark.parametrize("sentence", HOSTILE)
def test_a_hostile_server_is_left_for_the_next_mirror(sentence: str) -> None:
    answer, again, says = HOSTILE[sentence]
    with server(answer, again) as url, Mirror(FILES) as honest:
        with fetcher(url) as http, pytest.raises(RetryLaterError, match=says) as caught:
            http.fetch(META, 100)
        assert len(caught.value.message) < 500
        with fetcher(url, honest.url) as http:
            assert http.fetch(META, 100) == FILES[META]


def test_a_part_whose_place_cannot_be_read_is_not_taken() -> None:
    part = b"HTTP/1.1 206 Part\r\nContent-Range: bytes %b-\r\n\r\n" + bytes(200)
    with server(part % (b"1" * 5000)) as url, Mirror(FILES) as honest:
        with fetcher(url) as http, pytest.raises(RetryLaterError, match="from byte None"):
            list(http.stream(IMAGE, 10, 90))
        with fetcher(url, honest.url) as http:
            assert b"".join(http.stream(IMAGE, 10, 90)) == FILES[IMAGE][10:100]


def test_a_body_as_long_as_allowed_may_come_in_small_chunks() -> None:
    body = CHUNKED + b"8\r\n12345678\r\n" * 20_000 + b"0\r\n\r\n"
    with server(body) as url, fetcher(url) as http:
        assert http.fetch(META, 160_000) == b"12345678" * 20_000
