"""Servers that say what no server says: each is left for the next mirror, and holds nobody."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import NotFoundError, RetryLaterError
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
    "early hints without end": (
        b"",
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
        "more than 16 interim answers",
    ),
    "an early hint without end": (b"HTTP/1.1 103 Early Hints\r\n", b"a: b\r\n", "more than"),
    "early hints that are as long as pages": (
        b"",
        b"HTTP/1.1 103 Early Hints\r\nLink: " + b"x" * 9000 + b"\r\n\r\n",
        TOO_MUCH,
    ),
    "interim answers and no other": (
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n",
        b"",
        "ended before the body",
    ),
    "another protocol": (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n" + WHOLE + b"\r\n{}",
        b"",
        "answered 101",
    ),
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


INTERIM = {
    "early hints": b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n",
    "processing, without a phrase": b"HTTP/1.1 102\r\n\r\n",
    "continue, processing and hints": b"HTTP/1.1 100 Continue\r\n\r\n"
    b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    b"HTTP/1.1 100 Continue\r\n\r\n",
    "one that nobody knows": b"HTTP/1.1 199 Anything\r\nContent-Length: 5\r\n\r\n",
    "one that says that its body is in chunks": b"HTTP/1.1 103 Early Hints\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
    "as many as are borne": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 16,
}


@pytest.mark.parametrize("before", INTERIM)
def test_an_interim_answer_is_none(before: str) -> None:
    # RFC 9110 15.2: a client must be able to skip those that it did not ask for.
    whole = WHOLE + b"Content-Length: %d\r\n\r\n" % len(FILES[META]) + FILES[META]
    with server(INTERIM[before] + whole) as url, fetcher(url) as http:
        assert http.fetch(META, 100) == FILES[META]
        assert http.traffic.requests == 1
    missing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    with server(INTERIM[before] + missing) as url, fetcher(url) as http:
        with pytest.raises(NotFoundError):
            http.fetch(META, 100)
        assert http.traffic.requests == 1


def test_a_connection_is_kept_after_an_interim_answer() -> None:
    whole = WHOLE + b"Content-Length: %d\r\n\r\n" % len(FILES[META]) + FILES[META]
    listening = socket.create_server(("127.0.0.1", 0))
    accepted = []

    def serve() -> None:
        connection, _ = listening.accept()
        accepted.append(connection)
        with connection:
            while connection.recv(65_536):
                connection.sendall(INTERIM["early hints"] + whole)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listening, fetcher(f"http://127.0.0.1:{listening.getsockname()[1]}/") as http:
        for _ in range(3):
            assert http.fetch(META, 100) == FILES[META]
    thread.join(5)
    assert len(accepted) == 1


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
