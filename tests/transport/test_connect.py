from __future__ import annotations

import select
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from client_reference.errors import RetryLaterError
from client_reference.transport.connect import _Deadline, system_addresses
from client_reference.transport.fetch import Roots
from client_reference.transport.pace import HEAD, TransportError
from client_reference.transport.policy import Attempt, Trust, parse_mirror
from tests.simulators.certificates import Issuer, make_issuer
from tests.simulators.mirror import Mirror, Trouble
from tests.simulators.servers import Raw, Unanswering
from tests.transport.fetchers import FILES, IMAGE, META, fetcher

if TYPE_CHECKING:
    from collections.abc import Callable

    from client_reference.transport.connect import Address


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    return make_issuer(tmp_path_factory.mktemp("issuer"))


def at(*places: tuple[str, int]) -> Callable[[str, int], list[Address]]:
    """A resolver that knows one host with these addresses."""

    def resolve(_host: str, _port: int) -> list[Address]:
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, (address, port))
            for address, port in places
        ]

    return resolve


def test_a_literal_address_of_version_6_needs_no_resolver() -> None:
    with Mirror(FILES, host="::1") as mirror, fetcher(mirror) as http:
        assert mirror.url.startswith("http://[::1]:")
        assert http.fetch(META, 100) == FILES[META]
        assert mirror.seen[0].headers["Host"] == f"[::1]:{mirror.server_port}"


def test_a_certificate_for_an_address_of_version_6_verifies(issuer: Issuer) -> None:
    with (
        Mirror(FILES, issuer.server("six", address="::1"), host="::1") as mirror,
        fetcher(mirror, roots=Roots(system=False, bundle=issuer.bundle)) as http,
    ):
        assert http.fetch(META, 100) == FILES[META]
        assert http.degraded == {}


def test_a_name_is_resolved_and_sent_as_host() -> None:
    with (
        Mirror(FILES) as mirror,
        fetcher("http://fw.test/", resolve=at(("127.0.0.1", mirror.server_port))) as http,
    ):
        assert http.fetch(META, 100) == FILES[META]
        assert mirror.seen[0].headers["Host"] == "fw.test"


def test_an_address_that_refuses_is_followed_by_the_next() -> None:
    with socket.socket(socket.AF_INET6) as unused, Mirror(FILES) as mirror:
        unused.bind(("::1", 0))
        places = ("::1", unused.getsockname()[1]), ("127.0.0.1", mirror.server_port)
        with fetcher("http://fw.test/", resolve=at(*places)) as http:
            assert http.fetch(META, 100) == FILES[META]


def test_an_address_that_does_not_answer_takes_its_share_of_the_deadline_only() -> None:
    with Unanswering() as hole, Mirror(FILES, host="::1") as mirror:
        places = ("127.0.0.1", hole.port), ("127.0.0.1", hole.port), ("::1", mirror.server_port)
        with fetcher("http://fw.test/", resolve=at(*places), connect=0.5) as http:
            assert http.fetch(META, 100) == FILES[META]
            assert http.traffic.requests == 1


def test_when_no_address_answers_the_deadline_is_for_all_of_them() -> None:
    waited: list[float] = []
    with Unanswering() as hole:
        places = [("127.0.0.1", hole.port)] * 4
        before = time.monotonic()
        with (
            fetcher(
                "http://fw.test/", resolve=at(*places), connect=0.2, sleep=waited.append
            ) as http,
            pytest.raises(RetryLaterError, match="no answer in time"),
        ):
            http.fetch(META, 100)
    assert time.monotonic() - before < 0.2 * 3 + 10, "three rounds, each within the deadline"
    assert len(waited) == 2


def test_a_family_that_the_kernel_does_not_know_is_passed_over() -> None:
    with Mirror(FILES) as mirror:
        unknown: Address = (9999, ("x", 1))

        def resolve(_host: str, _port: int) -> list[Address]:
            return [unknown, (socket.AF_INET, ("127.0.0.1", mirror.server_port))]

        with fetcher("http://fw.test/", resolve=resolve) as http:
            assert http.fetch(META, 100) == FILES[META]


def test_a_resolver_that_hangs_is_left_at_the_deadline() -> None:
    over = threading.Event()

    def resolve(_host: str, _port: int) -> list[Address]:
        over.wait()
        return []

    try:
        with (
            Mirror(FILES) as mirror,
            fetcher("http://fw.test/", mirror, resolve=resolve, connect=0.2) as http,
        ):
            assert http.fetch(META, 100) == FILES[META]
            assert http.degraded.keys() == {f"{mirror.url} (plain HTTP)"}
        with (
            fetcher("http://fw.test/", resolve=resolve, connect=0.1) as http,
            pytest.raises(RetryLaterError, match=r"the name fw\.test was not resolved in time"),
        ):
            http.fetch(META, 100)
    finally:
        over.set()


NO_NAMES: dict[str, tuple[Any, str]] = {
    "unknown": (socket.gaierror(socket.EAI_NONAME, "not known"), "not known"),
    "no text that a name can be": (UnicodeError("label too long"), "label too long"),
}


@pytest.mark.parametrize("sentence", NO_NAMES)
def test_a_name_that_cannot_be_resolved_is_retried_later(sentence: str) -> None:
    failure, message = NO_NAMES[sentence]

    def resolve(_host: str, _port: int) -> list[Address]:
        raise failure

    with (
        fetcher("http://fw.test/", resolve=resolve) as http,
        pytest.raises(RetryLaterError, match=rf"fw\.test: .*{message}"),
    ):
        http.fetch(META, 100)


def test_a_name_without_an_address_is_retried_later() -> None:
    with (
        fetcher("http://fw.test/", resolve=at()) as http,
        pytest.raises(RetryLaterError, match=r"fw\.test has no address"),
    ):
        http.fetch(META, 100)


def test_the_system_knows_this_machine() -> None:
    found = system_addresses("127.0.0.1", 80)
    assert found == [(socket.AF_INET, ("127.0.0.1", 80))]


@pytest.mark.parametrize("trust", [Trust.VERIFIED, Trust.UNVERIFIED])
def test_a_connection_that_was_reset_before_its_handshake_is_none(trust: Trust) -> None:
    """Python would take the socket, make no handshake, and send in the clear."""
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, socket.create_connection(listener.getsockname()) as ours:
        theirs, _ = listener.accept()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        select.select([ours], [], [], 5)
        connector = fetcher("https://127.0.0.1/")._connector
        mirror = parse_mirror("https://127.0.0.1/")
        with pytest.raises(TransportError):
            connector._encrypt(
                ours,
                Attempt(mirror, trust, mirror),
                _Deadline(time.monotonic, time.monotonic() + 5),
                identified=False,
            )


def test_a_handshake_that_drips_is_left_at_the_deadline(issuer: Issuer) -> None:
    """Each byte comes in time; all of them together would take for ever."""

    def drip(peer: socket.socket) -> None:
        # The head of a handshake record of 16 KiB, and then its content, slowly.
        for byte in b"\x16\x03\x03\x40\x00" + b"\x02\x00\x3f\xfc" + bytes(16_380):
            if server.closing.wait(0.02):
                return
            peer.sendall(bytes([byte]))

    with Raw(drip) as server, Mirror(FILES, issuer.server("fw")) as mirror:
        slow = f"https://127.0.0.1:{server.port}/"
        roots = Roots(system=False, bundle=issuer.bundle)
        with fetcher(slow, mirror, roots=roots, connect=0.4) as http:
            assert http.fetch(META, 100) == FILES[META]
            assert http.degraded == {}, "slowness is a network failure"
        with (
            fetcher(slow, roots=roots, connect=0.2) as http,
            pytest.raises(RetryLaterError, match="no answer in time"),
        ):
            http.fetch(META, 100)


def test_a_handshake_that_never_comes_is_left_at_the_deadline() -> None:
    def wait(_: socket.socket) -> None:
        server.closing.wait()

    with (
        Raw(wait) as server,
        fetcher(f"https://127.0.0.1:{server.port}/", connect=0.2) as http,
        pytest.raises(RetryLaterError, match="no answer in time"),
    ):
        http.fetch(META, 100)


def answering(
    head: bytes, drip: float = 0.0, forever: bytes = b""
) -> Callable[[socket.socket], None]:
    """Read a request; send bytes, one by one if so wished; then some for ever."""
    over = threading.Event()

    def serve(peer: socket.socket) -> None:
        peer.recv(65_536)
        if not drip:
            peer.sendall(head)
        else:
            for byte in head:
                if over.wait(drip):
                    return
                peer.sendall(bytes([byte]))
        while forever:
            peer.sendall(forever)

    return serve


def test_headers_that_drip_are_left_for_their_rate() -> None:
    head = b"HTTP/1.1 200 OK\r\n" + 1000 * b"A: b\r\n"
    with (
        Raw(answering(head, drip=0.02)) as slow,
        Mirror(FILES) as mirror,
        fetcher(slow.url, mirror, grace=0.3, minimum_rate=1000) as http,
    ):
        assert http.fetch(META, 100) == FILES[META]


ENDLESS = {
    "headers": b"HTTP/1.1 200 OK\r\nA: " + 60_000 * b"b" + b"\r\nA: " + 60_000 * b"b" + b"\r\n",
    "a line of a header": b"HTTP/1.1 200 OK\r\nA: " + 70_000 * b"b",
    "continue": 20_000 * b"HTTP/1.1 100 Continue\r\n\r\n",
    "a status line": 70_000 * b"H",
}


@pytest.mark.parametrize("sentence", ENDLESS)
def test_a_head_without_an_end_is_bounded(sentence: str) -> None:
    head = ENDLESS[sentence]
    assert len(head) > HEAD
    sent = []

    def serve(peer: socket.socket) -> None:
        peer.recv(65_536)
        while True:
            sent.append(peer.send(head))

    with (
        Raw(serve) as server,
        fetcher(server.url) as http,
        pytest.raises(RetryLaterError) as caught,
    ):
        http.fetch(META, 100)
    assert "more than" in caught.value.message or "got more" in caught.value.message


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
FRAMES = {
    "the extension of a chunk": (CHUNKED + b"2;", b"x" * 60_000 + b"\r\n{}\r\n2;"),
    "trailers": (CHUNKED + b"2\r\n{}\r\n0\r\n", 10_000 * b"A: b\r\n"),
}


@pytest.mark.parametrize("sentence", FRAMES)
def test_what_frames_a_body_has_a_bound(sentence: str) -> None:
    """Fast enough, and nothing of it counts as content."""
    head, forever = FRAMES[sentence]
    with (
        Raw(answering(head, forever=forever)) as server,
        fetcher(server.url) as http,
        pytest.raises(RetryLaterError, match="without an end"),
    ):
        http.fetch(META, 100_000)
    assert server.connections == 3


def test_chunks_of_one_byte_are_no_attack() -> None:
    data = FILES[META]
    body = b"".join(b"1\r\n%c\r\n" % byte for byte in data) + b"0\r\nA: b\r\n\r\n"
    with Raw(answering(CHUNKED + body)) as server, fetcher(server.url) as http:
        assert http.fetch(META, 100) == data


def test_a_long_artifact_in_small_chunks_arrives() -> None:
    data = FILES[IMAGE][:100_000]
    body = b"".join(b"1\r\n%c\r\n" % byte for byte in data) + b"0\r\n\r\n"
    with Raw(answering(CHUNKED + body)) as server, fetcher(server.url) as http:
        assert b"".join(http.stream(IMAGE, 0, len(data))) == data


CUTS = {
    "before the head": b"",
    "in the status line": b"HTTP/1.1 20",
    "after the status line": b"HTTP/1.1 200 OK\r\n",
    "in a header": b"HTTP/1.1 200 OK\r\nContent-Le",
    "between two headers": b"HTTP/1.1 200 OK\r\nServer: x\r\n",
    "in the line of a chunk": CHUNKED + b"2",
    "before the last chunk": CHUNKED + b"2\r\n{}\r\n",
    "in the trailers": CHUNKED + b"2\r\n{}\r\n0\r\nA: b\r\n",
}


@pytest.mark.parametrize("sentence", CUTS)
def test_a_connection_that_was_cut_is_no_answer(sentence: str) -> None:
    """An answer without a length ends with the connection, but not before its body begins."""
    with Raw(answering(CUTS[sentence])) as server, Mirror(FILES) as mirror:
        with fetcher(server.url) as http, pytest.raises(RetryLaterError):
            http.fetch(META, 100)
        with fetcher(server.url, mirror) as http:
            assert http.fetch(META, 100) == FILES[META]


def test_a_kept_connection_that_falls_silent_is_left_for_the_next_mirror() -> None:
    with Mirror(FILES) as silent, Mirror(FILES) as mirror:
        with fetcher(silent, mirror, grace=0.2) as http:
            http.fetch(META, 100)
            silent.trouble = Trouble(silent=True)
            assert http.fetch(META, 100) == FILES[META]
        with fetcher(silent, grace=0.2) as http:
            silent.trouble = Trouble(times=0)
            http.fetch(META, 100)
            silent.trouble = Trouble(silent=True)
            with pytest.raises(RetryLaterError, match="no answer in time"):
                http.fetch(META, 100)


def test_a_stream_that_ends_after_its_fetcher_leaves_nothing_open() -> None:
    """Its reader failed at the last segment, and is still being reported."""
    with Mirror(FILES) as mirror, fetcher(mirror) as http:
        stream = http.stream(IMAGE, 0, 300_000)
        got = 0
        while got < 300_000:
            got += len(next(stream))
        http.close()
        next(stream, None)
        assert http._connections == {}


def test_a_second_connection_amid_a_stream_is_closed() -> None:
    """A segment that did not verify is fetched once more while the stream waits."""
    with Mirror(FILES) as mirror, fetcher(mirror) as http:
        stream = http.stream(IMAGE, 0, 300_000)
        got = next(stream)
        assert b"".join(http.stream(IMAGE, 0, 1000)) == got[:1000]
        assert got + b"".join(stream) == FILES[IMAGE]
        http.fetch(META, 100)
        assert len(http._connections) == 1
    assert len({seen.connection for seen in mirror.seen}) == 2
