from __future__ import annotations

import gc
import random
import socket
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import NotFoundError, NotTrustedError, RetryLaterError
from client_reference.transport.fetch import (
    Ambient,
    HttpFetcher,
    Patience,
    Roots,
    Settings,
    WebPageError,
)
from client_reference.transport.pace import ODD, OFFLINE
from client_reference.transport.policy import Degraded, parse_mirror
from tests.simulators.certificates import Authority, make_authority
from tests.simulators.mirror import Mirror, Trouble

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from pathlib import Path

META = "metadata/timestamp.json"
IMAGE = "targets/builds/gateway/1.0/image"
FILES = {META: b'{"signed": {}}', IMAGE: random.Random(1).randbytes(300_000)}


class Waits(list[float]):
    """Sleeps that were asked for and not slept."""


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with Mirror(FILES) as served:
        yield served


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


def fetcher(
    waits: Waits,
    *mirrors: Mirror | str,
    degraded: Degraded = Degraded.ALLOW,
    roots: Roots | None = None,
    credentials: tuple[str, str] | None = None,
    rate: int = 4096,
    grace: float = 30.0,
) -> HttpFetcher:
    urls = [one if isinstance(one, str) else one.url for one in mirrors]
    return HttpFetcher(
        Settings(
            mirrors=tuple(parse_mirror(url) for url in urls),
            degraded=degraded,
            roots=roots or Roots(system=False),
            credentials=credentials,
            minimum_rate=rate,
        ),
        Ambient(time.monotonic, waits.append, lambda: 0.5, patience=Patience(grace=grace)),
    )


def closed_port() -> str:
    """The URL of a mirror where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/"


def test_one_connection_serves_many_requests_and_all_are_counted(
    mirror: Mirror, waits: Waits
) -> None:
    with fetcher(waits, mirror) as http:
        assert http.fetch(META, 100) == FILES[META]
        assert b"".join(http.stream(IMAGE, 0, 300_000)) == FILES[IMAGE]
        with pytest.raises(NotFoundError):
            http.fetch("metadata/2.root.json", 100)
        http.fetch(META, 100)
        assert http.traffic.requests == 4
        assert http.traffic.received == 300_000 + 2 * len(FILES[META])
    assert len({seen.connection for seen in mirror.seen}) == 1
    assert waits == []


def test_a_kept_connection_that_was_closed_meanwhile_is_opened_anew(
    mirror: Mirror, waits: Waits
) -> None:
    with fetcher(waits, mirror) as http:
        mirror.trouble = Trouble(times=1, headers={"Connection": "keep-alive"})
        http.fetch(META, 100)
        for connection in http._connections.values():
            connection.paced._raw.shutdown(socket.SHUT_RDWR)
        assert http.fetch(META, 100) == FILES[META]
    assert waits == []


@pytest.mark.parametrize("status", [403, 404])
def test_only_403_and_404_mean_not_there(mirror: Mirror, waits: Waits, status: int) -> None:
    mirror.trouble = Trouble(status=status)
    with fetcher(waits, mirror, mirror.url + "other/") as http, pytest.raises(NotFoundError):
        http.fetch(META, 100)
    assert len(mirror.seen) == 1, "a mirror that says no has answered"


PAGES_OF_ERRORS = {
    "short": (Trouble(status=404, body=b"gone", times=1), 1),
    "as long as is read": (Trouble(status=404, body=bytes(65_536), times=1), 1),
    "longer": (Trouble(status=404, body=bytes(65_537), times=1), 2),
    "of unknown length": (Trouble(status=404, body=b"gone", announce=False, times=1), 2),
}


@pytest.mark.parametrize("sentence", PAGES_OF_ERRORS)
def test_a_page_of_an_error_is_read_if_it_is_short(
    mirror: Mirror, waits: Waits, sentence: str
) -> None:
    """So that its connection can be kept."""
    trouble, connections = PAGES_OF_ERRORS[sentence]
    mirror.trouble = replace(trouble)
    with fetcher(waits, mirror) as http:
        with pytest.raises(NotFoundError):
            http.fetch(META, 100)
        assert http.fetch(META, 100) == FILES[META]
        assert http.traffic.received == len(FILES[META])
    assert len({seen.connection for seen in mirror.seen}) == connections


@pytest.mark.parametrize("status", [400, 401, 410])
def test_another_refusal_is_no_absence_and_is_not_repeated(
    mirror: Mirror, waits: Waits, status: int
) -> None:
    mirror.trouble = Trouble(status=status)
    with fetcher(waits, mirror) as http, pytest.raises(RetryLaterError) as caught:
        http.fetch(META, 100)
    assert not isinstance(caught.value, NotFoundError)
    assert f"answered {status}" in caught.value.message
    assert len(mirror.seen) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_mirror_is_asked_again_with_growing_pauses(
    mirror: Mirror, waits: Waits, status: int
) -> None:
    mirror.trouble = Trouble(status=status, times=2)
    with fetcher(waits, mirror) as http:
        assert http.fetch(META, 100) == FILES[META]
    assert waits == [0.75, 1.5]


def test_a_mirror_that_stays_busy_is_given_up(mirror: Mirror, waits: Waits) -> None:
    mirror.trouble = Trouble(status=503)
    with fetcher(waits, mirror) as http, pytest.raises(RetryLaterError, match="answered 503"):
        http.fetch(META, 100)
    assert len(mirror.seen) == 3


def test_the_next_mirror_is_asked_at_once(mirror: Mirror, waits: Waits) -> None:
    with fetcher(waits, closed_port(), mirror) as http:
        assert http.fetch(META, 100) == FILES[META]
    assert waits == []


def test_when_nobody_answers_the_message_names_every_mirror(waits: Waits) -> None:
    one, two = closed_port(), closed_port()
    with fetcher(waits, one, two) as http, pytest.raises(RetryLaterError) as caught:
        http.fetch(META, 100)
    assert one in caught.value.message
    assert two in caught.value.message
    assert "refused" in caught.value.message
    assert "check the network" in caught.value.hint
    assert len(waits) == 2


def test_a_mirror_that_lies_is_left_for_this_cycle(mirror: Mirror, waits: Waits) -> None:
    with Mirror({META: b'{"lie": 1}'}) as liar, fetcher(waits, liar, mirror) as http:
        for _ in ("as usual", "past its caches"):
            assert http.fetch(META, 100) == b'{"lie": 1}'
            assert http.another_way()
        assert [seen.headers["Cache-Control"] for seen in liar.seen] == [None, "no-cache"]
        assert http.fetch(META, 100) == FILES[META]
        assert http.another_way()
        assert http.fetch(META, 100) == FILES[META]
        assert not http.another_way()
        assert [seen.headers["Cache-Control"] for seen in mirror.seen] == [None, "no-cache"]
        http.every_mirror()
        http.fetch(META, 100)
        assert liar.seen[-1].headers["Cache-Control"] is None


def test_a_mirror_that_is_written_twice_is_one(mirror: Mirror, waits: Waits) -> None:
    """Or a device whose only mirror lies would ask it for ever."""
    with fetcher(waits, mirror, mirror.url.rstrip("/")) as http:
        for _ in ("as usual", "past its caches"):
            http.fetch(META, 100)
            left = http.another_way()
        assert not left
        http.every_mirror()
        assert http.fetch(META, 100) == FILES[META]


def test_a_stream_that_breaks_off_does_not_ask_past_caches(mirror: Mirror, waits: Waits) -> None:
    """The bytes were good as far as they came: it goes on at once, elsewhere if it can."""
    mirror.trouble = Trouble(cut=140_000, times=1)
    with fetcher(waits, mirror) as http:
        assert b"".join(http.stream(IMAGE, 0, 300_000)) == FILES[IMAGE]
    assert [seen.headers["Cache-Control"] for seen in mirror.seen] == [None, None]


@pytest.mark.parametrize("announced", [True, False])
def test_more_bytes_than_allowed_are_neither_read_nor_believed(
    mirror: Mirror, waits: Waits, *, announced: bool
) -> None:
    mirror.trouble = Trouble(announce=announced)
    with fetcher(waits, mirror) as http:
        with pytest.raises(NotTrustedError, match="longer than the 1000 bytes allowed"):
            http.fetch(IMAGE, 1000)
        assert http.traffic.received == (0 if announced else 1001)


def test_a_body_without_a_length_ends_with_the_connection(mirror: Mirror, waits: Waits) -> None:
    mirror.trouble = Trouble(announce=False)
    with fetcher(waits, mirror) as http:
        assert http.fetch(META, 100) == FILES[META]
        assert http.fetch(META, 100) == FILES[META]
    assert waits == []


def test_an_object_of_exactly_the_allowed_length_is_read(mirror: Mirror, waits: Waits) -> None:
    with fetcher(waits, mirror) as http:
        assert http.fetch(META, len(FILES[META])) == FILES[META]


def test_a_part_that_nobody_asked_for_is_no_object(mirror: Mirror, waits: Waits) -> None:
    mirror.trouble = Trouble(status=206, body=FILES[META][:5], times=1)
    with fetcher(waits, mirror) as http:
        with pytest.raises(RetryLaterError, match="answered a part of what was asked for"):
            http.fetch(META, 100)
        assert http.fetch(META, 100) == FILES[META]


def test_a_truncated_body_is_no_body(mirror: Mirror, waits: Waits) -> None:
    mirror.trouble = Trouble(cut=5)
    with fetcher(waits, mirror) as http, pytest.raises(RetryLaterError, match="after 5 of 14"):
        http.fetch(META, 100)


def test_a_body_truncated_once_is_fetched_again(mirror: Mirror, waits: Waits) -> None:
    mirror.trouble = Trouble(cut=5, times=1)
    with fetcher(waits, mirror) as http:
        assert http.fetch(META, 100) == FILES[META]
        assert http.traffic.requests == 2, "on a new connection at once"


PAGES = {
    "by its type": Trouble(body=b"{}", headers={"Content-Type": "text/html"}),
    "by its first byte": Trouble(body=b"<html>login</html>"),
}


@pytest.mark.parametrize("sentence", PAGES)
def test_a_web_page_instead_of_metadata_is_named(
    mirror: Mirror, waits: Waits, sentence: str
) -> None:
    mirror.trouble = PAGES[sentence]
    with fetcher(waits, mirror) as http, pytest.raises(WebPageError) as caught:
        http.fetch(META, 100)
    assert "Expected JSON, found HTML with status 200" in caught.value.message
    assert "captive portal" in caught.value.hint
    assert mirror.url in caught.value.message


def test_another_mirror_is_asked_when_one_shows_a_web_page(mirror: Mirror, waits: Waits) -> None:
    with Mirror({META: b"<html>"}) as portal, fetcher(waits, portal, mirror) as http:
        assert http.fetch(META, 100) == FILES[META]


def test_an_artifact_may_begin_like_a_web_page(waits: Waits) -> None:
    path = "targets/builds/gateway/1.0/page"
    with Mirror({path: b"<html>"}) as mirror, fetcher(waits, mirror) as http:
        assert http.fetch(path, 100) == b"<html>"
        assert b"".join(http.stream(path, 0, 6)) == b"<html>"


def test_a_redirect_within_the_mirror_is_followed(mirror: Mirror, waits: Waits) -> None:
    mirror.trouble = Trouble(status=302, headers={"Location": "/" + META}, path="moved")
    with fetcher(waits, mirror) as http:
        assert http.fetch("moved", 100) == FILES[META]


def test_a_redirect_to_a_stranger_is_refused(mirror: Mirror, waits: Waits) -> None:
    with Mirror(FILES) as stranger:
        mirror.trouble = Trouble(status=302, headers={"Location": stranger.url + META})
        with fetcher(waits, mirror) as http, pytest.raises(RetryLaterError, match="no configured"):
            http.fetch(META, 100)
        assert stranger.seen == []


def test_redirects_in_a_circle_end(mirror: Mirror, waits: Waits) -> None:
    mirror.trouble = Trouble(status=307, headers={"Location": "/" + META})
    with fetcher(waits, mirror) as http, pytest.raises(RetryLaterError, match="more than 3 times"):
        http.fetch(META, 100)
    assert len(mirror.seen) == 4


ODD_ANSWERS = {
    "a redirect to a stranger": Trouble(status=302, headers={"Location": "http://a.example/"}),
    "a redirect to itself": Trouble(status=302, headers={"Location": "timestamp.json"}),
    "a 304 that was not asked for": Trouble(status=304),
    "a refusal": Trouble(status=400),
    "a part of it": Trouble(status=206),
    "an unknown coding": Trouble(headers={"Content-Encoding": "br"}),
    "more headers than anybody needs": Trouble(headers={f"X-{n}": "x" for n in range(200)}),
}


@pytest.mark.parametrize("sentence", ODD_ANSWERS)
def test_an_odd_answer_is_no_fault_of_the_network(
    mirror: Mirror, waits: Waits, sentence: str
) -> None:
    mirror.trouble = replace(ODD_ANSWERS[sentence])
    with fetcher(waits, mirror) as http, pytest.raises(RetryLaterError) as caught:
        http.fetch(META, 100)
    assert caught.value.hint == ODD
    with fetcher(waits, mirror, closed_port()) as http, pytest.raises(RetryLaterError) as caught:
        http.fetch(META, 100)
    assert caught.value.hint == OFFLINE, "one of them is not reached at all"


def test_another_range_is_no_fault_of_the_network(mirror: Mirror, waits: Waits) -> None:
    mirror.trouble = Trouble(wrong_range=3)
    with fetcher(waits, mirror) as http, pytest.raises(RetryLaterError) as caught:
        list(http.stream(IMAGE, 0, 10))
    assert caught.value.hint == ODD


def test_a_busy_mirror_is_asked_again_later(mirror: Mirror, waits: Waits) -> None:
    mirror.trouble = Trouble(status=503)
    with fetcher(waits, mirror) as http, pytest.raises(RetryLaterError) as caught:
        http.fetch(META, 100)
    assert caught.value.hint == OFFLINE


SPANS = [(0, 300_000), (0, 10), (131_072, 168_928), (299_999, 1), (100, 65_536)]


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize(("offset", "length"), SPANS)
def test_a_part_is_exact_whether_the_mirror_knows_ranges_or_not(
    mirror: Mirror, waits: Waits, offset: int, length: int, *, ranges: bool
) -> None:
    mirror.trouble = Trouble(ranges=ranges)
    with fetcher(waits, mirror) as http:
        part = b"".join(http.stream(IMAGE, offset, length))
    assert part == FILES[IMAGE][offset : offset + length]


def test_a_part_that_starts_elsewhere_is_refused(mirror: Mirror, waits: Waits) -> None:
    mirror.trouble = Trouble(wrong_range=1)
    with fetcher(waits, mirror) as http, pytest.raises(RetryLaterError, match="from byte 101"):
        list(http.stream(IMAGE, 100, 1000))


def test_a_stream_that_breaks_goes_on_where_it_stopped(mirror: Mirror, waits: Waits) -> None:
    mirror.trouble = Trouble(cut=140_000, times=2)
    with fetcher(waits, mirror) as http:
        assert b"".join(http.stream(IMAGE, 0, 300_000)) == FILES[IMAGE]
        assert http.traffic.received == 300_000
    asked = [seen.headers["Range"] for seen in mirror.seen]
    assert asked == ["bytes=0-299999", "bytes=140000-299999", "bytes=280000-299999"]


def test_a_stream_goes_on_at_the_next_mirror(mirror: Mirror, waits: Waits) -> None:
    with Mirror(FILES) as first, fetcher(waits, first, mirror) as http:
        stream = http.stream(IMAGE, 0, 300_000)
        first.trouble = Trouble(cut=100_000)
        got = next(stream)
        first.trouble = Trouble(status=503)
        got += b"".join(stream)
    assert got == FILES[IMAGE]


def test_a_stream_that_brings_nothing_ends(mirror: Mirror, waits: Waits) -> None:
    mirror.trouble = Trouble(cut=10)
    with fetcher(waits, mirror) as http, pytest.raises(RetryLaterError, match="again and again"):
        list(http.stream(IMAGE, 0, 300_000))
    assert len(mirror.seen) == 4


def test_what_came_from_no_mirror_turns_from_none(mirror: Mirror, waits: Waits) -> None:
    """Or a caller that fails before it asks would try again for ever."""
    with Mirror(FILES) as first, fetcher(waits, first, mirror) as http:
        assert not http.another_way()
        for _ in ("as usual", "past its caches"):
            http.fetch(META, 100)
            assert http.another_way()
            assert not http.another_way() or first.seen[-1].headers["Cache-Control"]
        http.fetch(META, 100)
        assert len(mirror.seen) == 1


def test_of_two_transfers_at_once_one_connection_is_kept_and_one_closed(
    mirror: Mirror, waits: Waits
) -> None:
    """A socket that is left open is an error of this test."""
    with fetcher(waits, mirror) as http:
        first, second = http.stream(IMAGE, 0, 300_000), http.stream(IMAGE, 0, 300_000)
        got = next(first)
        assert b"".join(second) == FILES[IMAGE]
        assert got + b"".join(first) == FILES[IMAGE]
    gc.collect()


def test_a_stream_of_what_is_not_there_says_so(mirror: Mirror, waits: Waits) -> None:
    with fetcher(waits, mirror) as http, pytest.raises(NotFoundError):
        list(http.stream("targets/none", 0, 10))


def test_a_stream_shorter_than_asked_is_an_error(mirror: Mirror, waits: Waits) -> None:
    with fetcher(waits, mirror) as http, pytest.raises(RetryLaterError):
        list(http.stream(IMAGE, 299_990, 20))


def test_a_silent_mirror_is_left_after_the_grace(mirror: Mirror, waits: Waits) -> None:
    with Mirror(FILES) as silent, fetcher(waits, silent, mirror, grace=0.2) as http:
        silent.trouble = Trouble(silent=True)
        assert http.fetch(META, 100) == FILES[META]


def test_a_mirror_that_drips_is_left_for_its_rate(mirror: Mirror, waits: Waits) -> None:
    """Each byte comes in time; all of them together would take for ever."""
    with Mirror(FILES) as slow, fetcher(waits, slow, mirror, rate=1000, grace=0.3) as http:
        slow.trouble = Trouble(drip=0.02)
        before = time.monotonic()
        assert b"".join(http.stream(IMAGE, 0, 300_000)) == FILES[IMAGE]
    assert time.monotonic() - before < 3


def test_time_that_the_caller_takes_does_not_count(mirror: Mirror, waits: Waits) -> None:
    with fetcher(waits, mirror, rate=10_000_000, grace=0.2) as http:
        got = b""
        for piece in http.stream(IMAGE, 0, 300_000):
            time.sleep(0.1)
            got += piece
    assert got == FILES[IMAGE]


def test_verified_tls_is_used_where_it_works(authority: Authority, waits: Waits) -> None:
    with (
        Mirror(FILES, authority.good) as mirror,
        fetcher(waits, mirror, roots=Roots(system=False, bundle=authority.bundle)) as http,
    ):
        assert http.fetch(META, 100) == FILES[META]
        assert http.degraded == {}
        assert mirror.seen[0].headers["User-Agent"] == "firmroot-device"


BAD_CERTIFICATES = ["expired", "elsewhere", "unknown authority"]


@pytest.mark.parametrize("sentence", BAD_CERTIFICATES)
def test_a_bad_certificate_degrades_and_is_reported(
    authority: Authority, waits: Waits, sentence: str
) -> None:
    context: ssl.SSLContext = getattr(authority, sentence, authority.good)
    bundle = None if sentence == "unknown authority" else authority.bundle
    with (
        Mirror(FILES, context) as mirror,
        fetcher(
            waits,
            mirror,
            roots=Roots(system=False, bundle=bundle),
            credentials=("Authorization", "Bearer secret"),
        ) as http,
    ):
        assert http.fetch(META, 100) == FILES[META]
        assert http.fetch(META, 100) == FILES[META]
        (degraded,) = http.degraded.values()
        assert degraded.startswith(
            f"{mirror.url} was read over unverified TLS (TLS failed: the certificate does not"
        )
        assert waits == []
        for seen in mirror.seen:
            assert {name.lower() for name in seen.headers} <= {"host", "accept-encoding"}


@pytest.mark.parametrize("sentence", BAD_CERTIFICATES)
def test_a_bad_certificate_ends_it_where_degraded_is_forbidden(
    authority: Authority, waits: Waits, sentence: str
) -> None:
    context: ssl.SSLContext = getattr(authority, sentence, authority.good)
    bundle = None if sentence == "unknown authority" else authority.bundle
    with (
        Mirror(FILES, context) as mirror,
        fetcher(
            waits,
            mirror,
            degraded=Degraded.FORBID,
            roots=Roots(system=False, bundle=bundle),
        ) as http,
    ):
        with pytest.raises(RetryLaterError, match="certificate does not verify") as caught:
            http.fetch(META, 100)
        assert "clock" in caught.value.hint
        with pytest.raises(RetryLaterError, match=r'tls\.degraded = "forbid"'):
            http.fetch(META, 100)
        assert mirror.seen == []


def test_credentials_go_over_verified_tls_only(authority: Authority, waits: Waits) -> None:
    secret = ("Authorization", "Bearer secret")
    with (
        Mirror({}, authority.good) as verified,
        Mirror(FILES) as plain,
        fetcher(
            waits,
            verified,
            plain,
            roots=Roots(system=False, bundle=authority.bundle),
            credentials=secret,
        ) as http,
    ):
        verified.trouble = Trouble(status=503)
        assert http.fetch(IMAGE, 300_000) == FILES[IMAGE]
        assert verified.seen[0].headers["Authorization"] == "Bearer secret"
        assert plain.seen[0].headers["Authorization"] is None
        assert plain.seen[0].headers["User-Agent"] is None


def test_a_network_failure_degrades_nothing(authority: Authority, waits: Waits) -> None:
    with Mirror(FILES, authority.good) as mirror:
        url = mirror.url
    with fetcher(waits, url) as http, pytest.raises(RetryLaterError, match="refused"):
        http.fetch(META, 100)
    assert http.degraded == {}


def test_a_server_that_speaks_no_tls_gets_no_plain_request_on_that_port(waits: Waits) -> None:
    with Mirror(FILES) as mirror:
        url = mirror.url.replace("http:", "https:")
        with fetcher(waits, url) as http, pytest.raises(RetryLaterError):
            http.fetch(META, 100)
        assert mirror.seen == []


def test_a_damaged_bundle_degrades_like_a_bad_certificate(
    authority: Authority, waits: Waits
) -> None:
    bundle = authority.directory / "torn.pem"
    bundle.write_bytes(authority.bundle.read_bytes()[:100])
    with (
        Mirror(FILES, authority.good) as mirror,
        fetcher(waits, mirror, roots=Roots(system=False, bundle=bundle)) as http,
    ):
        assert http.fetch(META, 100) == FILES[META]
        assert http.degraded


def test_the_image_s_authorities_serve_what_is_public_and_hear_no_credentials(
    authority: Authority, waits: Waits, tmp_path: Path
) -> None:
    """Attack: a bundle without the right authorities would cut the device off for good."""
    accepted = make_authority(tmp_path).bundle
    roots = Roots(system=False, bundle=accepted, image=authority.bundle)
    with (
        Mirror(FILES, authority.good) as mirror,
        fetcher(
            waits,
            mirror,
            roots=roots,
            degraded=Degraded.FORBID,
            credentials=("Authorization", "Bearer secret"),
        ) as http,
    ):
        assert http.fetch(META, 100) == FILES[META]
        with pytest.raises(RetryLaterError, match="does not verify"):
            list(http.stream(IMAGE, 0, 300_000))
        assert not any(seen.headers["Authorization"] for seen in mirror.seen)
    again = Roots(system=False, bundle=authority.bundle, image=accepted)
    credentials = ("Authorization", "Bearer secret")
    with (
        Mirror(FILES, authority.good) as mirror,
        fetcher(waits, mirror, roots=again, credentials=credentials) as http,
    ):
        assert b"".join(http.stream(IMAGE, 0, 300_000)) == FILES[IMAGE]
        assert mirror.seen[-1].headers["Authorization"] == "Bearer secret"


def test_a_repository_that_ended_is_not_asked_over_its_connections(
    authority: Authority, waits: Waits, tmp_path: Path
) -> None:
    """What they were verified with may have been the thief's."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(authority.bundle.read_bytes())
    roots = Roots(system=False, bundle=bundle)
    with (
        Mirror(FILES, authority.good) as mirror,
        fetcher(waits, mirror, roots=roots, degraded=Degraded.FORBID) as http,
    ):
        assert http.fetch(META, 100) == FILES[META]
        bundle.unlink()
        assert http.fetch(META, 100) == FILES[META]
        http.every_mirror()
        with pytest.raises(RetryLaterError, match=f"TLS failed: {bundle} is no CA bundle: "):
            http.fetch(META, 100)
