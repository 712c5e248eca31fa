"""gzip and "304 Not Modified": fewer bytes, and nothing believed for it."""

from __future__ import annotations

import gzip
import json
import random
import resource
import zlib
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import NotFoundError, NotTrustedError, RetryLaterError
from client_reference.transport.answer import inflate
from client_reference.transport.fetch import Roots
from client_reference.transport.memory import Memory
from client_reference.transport.pace import TransportError
from client_reference.transport.policy import Degraded, parse_mirror, preferred, strong_etag
from tests.simulators.certificates import DAY, Issuer, make_issuer
from tests.simulators.mirror import Mirror, Trouble
from tests.transport.fetchers import FILES, IMAGE, MANIFEST, META, fetcher

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STAMP = FILES[META]


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    return make_issuer(tmp_path_factory.mktemp("issuer"))


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with Mirror(FILES) as served:
        served.etags = True
        yield served


@pytest.fixture
def hint(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "transport.json"


def sizes(data: bytes, *steps: int) -> list[bytes]:
    """The bytes in pieces of these lengths; the last one is the rest."""
    pieces = []
    for step in steps:
        pieces.append(data[:step])
        data = data[step:]
    return [*pieces, data]


# gzip


def test_gzip_is_asked_for_metadata_only() -> None:
    data = b'{"signed": "' + b"a" * 5000 + b'"}'
    with Mirror({**FILES, META: data}) as mirror, fetcher(mirror) as http:
        mirror.packs = True
        assert http.fetch(META, 6000) == data
        assert http.traffic.received == len(gzip.compress(data))
        assert http.fetch(MANIFEST, 100) == FILES[MANIFEST]
        assert b"".join(http.stream(IMAGE, 0, 300_000)) == FILES[IMAGE]
        assert [seen.headers["Accept-Encoding"] for seen in mirror.seen] == [
            "gzip",
            "identity",
            "identity",
        ]
        assert len({seen.connection for seen in mirror.seen}) == 1


def test_what_is_served_packed_unasked_is_left_as_it_is() -> None:
    """An artifact may be a .gz file, and its server may say so."""
    packed = gzip.compress(b"image")
    with Mirror({IMAGE: packed, MANIFEST: packed}) as mirror, fetcher(mirror) as http:
        mirror.trouble = Trouble(headers={"Content-Encoding": "gzip"})
        assert http.fetch(MANIFEST, 100) == packed
        assert b"".join(http.stream(IMAGE, 0, len(packed))) == packed


PACKED = gzip.compress(STAMP)
DAMAGED = {
    "truncated": (PACKED[:-1], "the gzip that it sent ended early"),
    "without its last eight bytes": (PACKED[:-8], "the gzip that it sent ended early"),
    "no gzip": (STAMP, "what it sent is no gzip"),
    "zlib": (zlib.compress(STAMP), "what it sent is no gzip"),
    "a wrong sum": (PACKED[:-8] + bytes(8), "what it sent is no gzip"),
    "followed by garbage": (PACKED + b"x", "something follows the end of the gzip"),
    "two members": (PACKED + PACKED, "something follows the end of the gzip"),
    "nothing": (b"", "the gzip that it sent ended early"),
}


@pytest.mark.parametrize("sentence", DAMAGED)
def test_damaged_gzip_is_a_network_failure(sentence: str) -> None:
    body, message = DAMAGED[sentence]
    with Mirror(FILES) as bad, Mirror(FILES) as good:
        bad.trouble = Trouble(body=body, headers={"Content-Encoding": "gzip"})
        with fetcher(bad) as http, pytest.raises(RetryLaterError, match=message) as caught:
            http.fetch(META, 100)
        assert not isinstance(caught.value, NotFoundError)
        assert len(bad.seen) == 3
        with fetcher(bad, good) as http:
            assert http.fetch(META, 100) == STAMP


@pytest.mark.parametrize("coding", ["br", "deflate", "gzip, gzip"])
def test_a_coding_that_nobody_asked_for_is_refused(coding: str) -> None:
    with Mirror(FILES) as mirror, fetcher(mirror) as http:
        mirror.trouble = Trouble(headers={"Content-Encoding": coding}, times=1)
        with pytest.raises(RetryLaterError, match=f"answered in the coding '{coding}'"):
            http.fetch(META, 100)
        assert http.fetch(META, 100) == STAMP


@pytest.mark.parametrize("coding", ["identity", "", " GZIP", "x-gzip"])
def test_codings_that_are_known(coding: str) -> None:
    with Mirror({META: PACKED if "gzip" in coding.lower() else STAMP}) as mirror:
        mirror.trouble = Trouble(headers={"Content-Encoding": coding})
        with fetcher(mirror) as http:
            assert http.fetch(META, 100) == STAMP


@pytest.mark.parametrize("announced", [True, False])
def test_a_bomb_stops_at_the_bound(*, announced: bool) -> None:
    """64 KB that inflate to 64 MB."""
    bomb = gzip.compress(bytes(64 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Mirror(FILES) as mirror, fetcher(mirror) as http:
        mirror.trouble = Trouble(
            body=bomb, headers={"Content-Encoding": "gzip"}, announce=announced, times=1
        )
        with pytest.raises(NotTrustedError, match="longer than the 100000 bytes allowed"):
            http.fetch(META, 100_000)
        assert http.fetch(META, 100) == STAMP
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10


def test_inflating_makes_one_byte_above_the_bound_and_no_more() -> None:
    bomb = gzip.compress(bytes(1 << 20))
    assert len(b"".join(inflate([bomb], 1000))) == 1001
    assert len(b"".join(inflate([bomb], 1 << 20))) == 1 << 20


def test_more_gzip_than_any_such_object_has_is_refused_before_it_is_read() -> None:
    with Mirror(FILES) as mirror, fetcher(mirror) as http:
        mirror.trouble = Trouble(body=bytes(1226), headers={"Content-Encoding": "gzip"})
        with pytest.raises(NotTrustedError, match="longer than the 200 bytes allowed"):
            http.fetch(META, 200)
        assert http.traffic.received == 0


@pytest.mark.parametrize(("length", "fits"), [(1224, True), (1225, False)])
def test_gzip_may_be_a_little_longer_than_what_it_holds(length: int, *, fits: bool) -> None:
    """Its frame may hold a name."""
    name = bytes(length - len(PACKED) - 1).replace(b"\0", b"n") + b"\0"
    padded = PACKED[:3] + b"\x08" + PACKED[4:10] + name + PACKED[10:]
    assert len(padded) == length
    with Mirror(FILES) as mirror, fetcher(mirror) as http:
        mirror.trouble = Trouble(body=padded, headers={"Content-Encoding": "gzip"})
        if fits:
            assert http.fetch(META, 200) == STAMP
        else:
            with pytest.raises(NotTrustedError, match="longer than the 200 bytes"):
                http.fetch(META, 200)


@pytest.mark.parametrize("length", [0, 1, 1000, 70_000])
def test_what_does_not_shrink_fits_all_the_same(length: int) -> None:
    data = b"{" + random.Random(length).randbytes(length)
    with Mirror({META: data}) as mirror, fetcher(mirror) as http:
        mirror.packs = True
        assert http.fetch(META, len(data)) == data
        with pytest.raises(NotTrustedError):
            http.fetch(META, len(data) - 1)


@pytest.mark.parametrize("step", [1, 3, 17, 1000])
def test_gzip_comes_in_pieces_of_any_length(step: int) -> None:
    data = random.Random(step).randbytes(3000) + bytes(3000)
    packed = gzip.compress(data)
    pieces = [packed[at : at + step] for at in range(0, len(packed), step)]
    assert b"".join(inflate(pieces, len(data))) == data
    with pytest.raises(TransportError, match="something follows"):
        list(inflate([*pieces, b"x"], len(data)))


# 304


def test_the_etag_of_a_verified_timestamp_saves_its_body(mirror: Mirror, hint: Path) -> None:
    with fetcher(mirror, memory=Memory(hint, None)) as http:
        assert http.fetch(META, 100) == STAMP
        http.remember()
    with fetcher(mirror, memory=Memory(hint, STAMP)) as http:
        assert http.fetch(META, 100) == STAMP
        assert http.fetch(META, 100) == STAMP
        assert http.traffic.received == 0
    assert mirror.seen[0].headers["If-None-Match"] is None
    assert mirror.seen[1].headers["If-None-Match"].startswith('"')
    assert len({seen.connection for seen in mirror.seen}) == 2, "a 304 keeps its connection"


def test_a_timestamp_that_changed_is_sent_whole(mirror: Mirror, hint: Path) -> None:
    with fetcher(mirror, memory=Memory(hint, None)) as http:
        http.fetch(META, 100)
        http.remember()
    mirror.files = {META: b'{"signed": 2}'}
    with fetcher(mirror, memory=Memory(hint, STAMP)) as http:
        assert http.fetch(META, 100) == b'{"signed": 2}'
        http.remember()
    with fetcher(mirror, memory=Memory(hint, b'{"signed": 2}')) as http:
        assert http.fetch(META, 100) == b'{"signed": 2}'
        assert http.traffic.received == 0


def test_a_check_without_news_writes_nothing(mirror: Mirror, hint: Path) -> None:
    def run() -> int:
        with fetcher(mirror, memory=Memory(hint, STAMP)) as http:
            http.fetch(META, 100)
            http.remember()
        return hint.stat().st_mtime_ns

    first = run()
    assert run() == first
    mirror.etags = False
    assert run() == first
    mirror.trouble = Trouble(headers={"ETag": '"another name each time"'})
    assert run() == first


def test_only_the_stored_timestamp_is_asked_for_conditionally(mirror: Mirror, hint: Path) -> None:
    with fetcher(mirror, memory=Memory(hint, STAMP)) as http:
        http.fetch(META, 100)
        http.fetch(MANIFEST, 100)
        http.remember()
    mirror.seen.clear()
    for stored in (None, b"another", STAMP[:-1]):
        with fetcher(mirror, memory=Memory(hint, stored)) as http:
            assert http.fetch(META, 100) == STAMP
    with fetcher(mirror, memory=Memory(hint, STAMP)) as http:
        with pytest.raises(NotFoundError):
            http.fetch("metadata/e1/timestamp.json", 100)
        http.fetch(MANIFEST, 100)
    assert {seen.headers["If-None-Match"] for seen in mirror.seen} == {None}


@pytest.mark.parametrize("path", [META, IMAGE])
def test_a_forged_304_is_a_network_failure(mirror: Mirror, path: str) -> None:
    mirror.trouble = Trouble(status=304)
    with Mirror(FILES) as other, fetcher(mirror) as http:
        with pytest.raises(RetryLaterError, match="answered 304") as caught:
            http.fetch(path, 300_000)
        assert not isinstance(caught.value, NotFoundError)
        with pytest.raises(RetryLaterError, match="answered 304"):
            list(http.stream(path, 0, 10))
        with fetcher(mirror, other) as both:
            assert both.fetch(path, 300_000) == FILES[path]
    assert mirror.seen[0].headers["If-None-Match"] is None


def test_another_mirror_does_not_hear_the_etag(mirror: Mirror, hint: Path) -> None:
    with fetcher(mirror, memory=Memory(hint, STAMP)) as http:
        http.fetch(META, 100)
        http.remember()
    mirror.trouble = Trouble(status=503)
    with Mirror(FILES) as other, fetcher(mirror, other, memory=Memory(hint, STAMP)) as http:
        assert http.fetch(META, 100) == STAMP
        assert mirror.seen[-1].headers["If-None-Match"]
        assert other.seen[0].headers["If-None-Match"] is None
        other.trouble = Trouble(status=304)
        with pytest.raises(RetryLaterError):
            http.fetch(META, 100)


def test_an_etag_does_not_follow_a_redirect(mirror: Mirror, hint: Path) -> None:
    with fetcher(mirror, memory=Memory(hint, STAMP)) as http:
        http.fetch(META, 100)
        http.remember()
    mirror.seen.clear()
    with Mirror(FILES) as other, fetcher(mirror, other, memory=Memory(hint, STAMP)) as http:
        other.etags = True
        mirror.trouble = Trouble(status=307, headers={"Location": other.url + META})
        assert http.fetch(META, 100) == STAMP
        assert mirror.seen[0].headers["If-None-Match"]
        assert other.seen[0].headers["If-None-Match"] is None
        other.trouble = Trouble(status=304, times=3)
        with pytest.raises(RetryLaterError, match="answered 304"):
            http.fetch(META, 100)


def test_what_came_by_a_redirect_has_no_etag_to_remember(mirror: Mirror, hint: Path) -> None:
    with Mirror(FILES) as other, fetcher(mirror, other, memory=Memory(hint, STAMP)) as http:
        other.etags = True
        mirror.trouble = Trouble(status=307, headers={"Location": other.url + META})
        http.fetch(META, 100)
        http.remember()
    assert not hint.exists()


def test_below_verified_tls_no_etag_is_remembered_or_sent(issuer: Issuer, hint: Path) -> None:
    roots = Roots(system=False, bundle=issuer.bundle)
    files = {META: STAMP}
    with Mirror(files, issuer.server("good")) as mirror:
        mirror.etags = True
        with fetcher(mirror, roots=roots, memory=Memory(hint, STAMP)) as http:
            http.fetch(META, 100)
            http.remember()
        assert json.loads(hint.read_text())["etag"]
        with fetcher(mirror, memory=Memory(hint, STAMP)) as http:
            assert http.fetch(META, 100) == STAMP
            assert http.degraded
            http.remember()
        assert mirror.seen[-1].headers["If-None-Match"] is None
        hint.unlink()
        with fetcher(mirror, memory=Memory(hint, STAMP)) as http:
            http.fetch(META, 100)
            http.remember()
        assert not hint.exists()


ETAGS = {
    '"abc"': '"abc"',
    ' "abc" ': '"abc"',
    '""': '""',
    'W/"abc"': "",
    "abc": "",
    '"abc': "",
    'abc"': "",
    '"': "",
    '"a"b"': "",
    '"ä"': "",
    '"a\x7f"': "",
    f'"{"a" * 126}"': f'"{"a" * 126}"',
    f'"{"a" * 127}"': "",
    "": "",
    None: "",
}


@pytest.mark.parametrize("header", ETAGS)
def test_which_etags_may_be_sent_back(header: str | None) -> None:
    assert strong_etag(header) == ETAGS[header]


# which mirror works


def test_the_mirror_that_worked_is_asked_first_next_time(mirror: Mirror, hint: Path) -> None:
    with Mirror(FILES) as first:
        first.trouble = Trouble(status=503)
        with fetcher(first, mirror, memory=Memory(hint, STAMP)) as http:
            http.fetch(META, 100)
            http.remember()
        first.seen.clear()
        first.trouble = Trouble(times=0)
        with fetcher(first, mirror, memory=Memory(hint, STAMP)) as http:
            http.fetch(META, 100)
            http.remember()
        assert first.seen == []
        mirror.trouble = Trouble(status=503)
        with fetcher(first, mirror, memory=Memory(hint, STAMP)) as http:
            http.fetch(META, 100)
            http.remember()
        mirror.seen.clear()
        with fetcher(first, mirror, memory=Memory(hint, STAMP)) as http:
            http.fetch(META, 100)
        assert mirror.seen == []


def test_where_the_first_mirror_works_nothing_is_written(hint: Path) -> None:
    with Mirror(FILES) as mirror, fetcher(mirror, memory=Memory(hint, STAMP)) as http:
        http.fetch(META, 100)
        http.remember()
    assert not hint.exists()


def test_without_a_memory_there_is_nothing_to_remember(mirror: Mirror) -> None:
    with fetcher(mirror) as http:
        http.remember()
        http.fetch(META, 100)
        http.remember()
        http.fetch(META, 100)
    assert mirror.seen[-1].headers["If-None-Match"] is None


def test_a_cycle_that_asked_nobody_remembers_nothing(mirror: Mirror, hint: Path) -> None:
    with fetcher(mirror, memory=Memory(hint, STAMP)) as http:
        http.remember()
    assert not hint.exists()


def test_a_mirror_that_lied_is_not_remembered(mirror: Mirror, hint: Path) -> None:
    with Mirror(FILES) as first, fetcher(first, mirror, memory=Memory(hint, STAMP)) as http:
        first.trouble = Trouble(status=503)
        http.fetch(META, 100)
        assert http.another_way()
        http.fetch(META, 100)
        assert http.another_way()
        http.remember()
    assert not hint.exists()


def test_a_mirror_whose_cache_was_stale_is_asked_without_the_etag(
    mirror: Mirror, hint: Path
) -> None:
    """Or a cache that answers "not modified" for ever would keep the device where it is."""
    with fetcher(mirror, memory=Memory(hint, STAMP)) as http:
        http.fetch(META, 100)
        http.remember()
    mirror.files = {**FILES, META: b'{"signed": {"version": 2}}'}
    mirror.cached[META] = STAMP
    with fetcher(mirror, memory=Memory(hint, STAMP)) as http:
        assert http.fetch(META, 100) == STAMP
        assert mirror.seen[-1].headers["If-None-Match"]
        assert http.another_way()
        assert http.fetch(META, 100) == mirror.files[META]
        assert mirror.seen[-1].headers["If-None-Match"] is None


def test_a_mirror_that_never_answered_is_not_remembered(mirror: Mirror, hint: Path) -> None:
    with Mirror({}) as first, fetcher(first, mirror, memory=Memory(hint, STAMP)) as http:
        first.trouble = Trouble(body=b"<html>", path=META)
        mirror.trouble = Trouble(body=b"<html>", path=META)
        with pytest.raises(RetryLaterError):
            http.fetch(META, 100)
        http.remember()
    assert not hint.exists()


TORN = {
    "empty": b"",
    "torn": b'{"mirror": "http://127',
    "no JSON": b"\xff\xfe",
    "deep": b"[" * 4000,
    "a list": b"[]",
    "null": b"null",
    "no text": b'{"mirror": 1, "object": "", "etag": "", "sha256": ""}',
    "a number for an ETag": b'{"mirror": "x", "object": "", "etag": 1, "sha256": ""}',
    "a member less": b'{"mirror": "x", "object": "", "etag": ""}',
}


@pytest.mark.parametrize("sentence", TORN)
def test_a_torn_hint_is_ignored_and_written_anew(mirror: Mirror, hint: Path, sentence: str) -> None:
    hint.parent.mkdir()
    hint.write_bytes(TORN[sentence])
    for expected in (False, True):
        with fetcher(mirror, memory=Memory(hint, STAMP)) as http:
            assert http.fetch(META, 100) == STAMP
            http.remember()
        assert (mirror.seen[-1].headers["If-None-Match"] is not None) is expected


def test_a_hint_that_lost_its_etag_gets_a_new_one(mirror: Mirror, hint: Path) -> None:
    with fetcher(mirror, memory=Memory(hint, STAMP)) as http:
        http.fetch(META, 100)
        http.remember()
    document = json.loads(hint.read_text())
    hint.write_text(json.dumps(document | {"etag": ""}))
    assert Memory(hint, STAMP).condition(document["mirror"], META) == ("", b"")
    with fetcher(mirror, memory=Memory(hint, STAMP)) as http:
        http.fetch(META, 100)
        http.remember()
    assert json.loads(hint.read_text()) == document


def test_a_hint_that_would_inject_a_header_is_ignored(mirror: Mirror, hint: Path) -> None:
    with fetcher(mirror, memory=Memory(hint, STAMP)) as http:
        http.fetch(META, 100)
        http.remember()
    document = json.loads(hint.read_text())
    hint.write_text(json.dumps({**document, "etag": '"a"\r\nAuthorization: x'}))
    with fetcher(mirror, memory=Memory(hint, STAMP)) as http:
        assert http.fetch(META, 100) == STAMP
    assert mirror.seen[-1].headers["If-None-Match"] is None


def test_a_hint_of_a_mirror_that_is_not_configured_is_ignored(mirror: Mirror, hint: Path) -> None:
    hint.parent.mkdir()
    names = {"mirror": "http://127.0.0.1:1/", "object": "", "etag": "", "sha256": ""}
    hint.write_text(json.dumps(names))
    with fetcher(mirror, memory=Memory(hint, STAMP)) as http:
        assert http.fetch(META, 100) == STAMP
        assert http.traffic.requests == 1


def test_a_hint_that_cannot_be_written_fails_nothing(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with fetcher(mirror, memory=Memory(tmp_path / "file" / "hint", STAMP)) as http:
        assert http.fetch(META, 100) == STAMP
        http.remember()


ONE, TWO, PLAIN, LAB = (
    parse_mirror(url)
    for url in ("https://1.test/", "https://2.test/", "http://3.test/", "http://4.test/")
)
ORDERS = {
    "nothing remembered": ("", [ONE, PLAIN, TWO, LAB]),
    "the first": (ONE.url, [ONE, PLAIN, TWO, LAB]),
    "verified TLS comes first": (TWO.url, [TWO, ONE, PLAIN, LAB]),
    "plain HTTP never before verified TLS": (LAB.url, [ONE, TWO, LAB, PLAIN]),
    "a stranger": ("https://5.test/", [ONE, PLAIN, TWO, LAB]),
}


@pytest.mark.parametrize("sentence", ORDERS)
def test_the_order_in_which_mirrors_are_asked(sentence: str) -> None:
    worked, expected = ORDERS[sentence]
    assert list(preferred((ONE, PLAIN, TWO, LAB), worked)) == expected


def test_who_blocks_tls_once_does_not_win_for_ever(issuer: Issuer, hint: Path) -> None:
    roots = Roots(system=False, bundle=issuer.bundle)
    with Mirror(FILES, issuer.server("good")) as safe, Mirror(FILES) as plain:
        for blocked in (True, False):
            safe.trouble = Trouble(status=503, times=-1 if blocked else 0)
            with fetcher(safe, plain, roots=roots, memory=Memory(hint, STAMP)) as http:
                assert http.fetch(META, 100) == STAMP
                assert bool(http.degraded) is blocked
                http.remember()


def test_an_expired_certificate_is_no_reason_to_forget_the_mirror(
    issuer: Issuer, hint: Path
) -> None:
    with (
        Mirror({}) as first,
        Mirror(FILES, issuer.server("old", until=-DAY)) as second,
        fetcher(first, second, memory=Memory(hint, STAMP), degraded=Degraded.ALLOW) as http,
    ):
        first.trouble = Trouble(status=503)
        assert http.fetch(META, 100) == STAMP
        http.remember()
    assert json.loads(hint.read_text())["mirror"] == second.url
