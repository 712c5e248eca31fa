"""Rules of fetching that only the mutation check found untested."""

from __future__ import annotations

import http.client
import itertools
import random
import time
from typing import TYPE_CHECKING, Never

import pytest

from client_reference.errors import NotFoundError, NotTrustedError, RetryLaterError
from client_reference.transport.fetch import Ambient, HttpFetcher, Roots, Settings
from client_reference.transport.pace import PIECE, Patience
from client_reference.transport.policy import parse_mirror
from tests.simulators.certificates import Authority, make_authority
from tests.simulators.mirror import Mirror, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

META = "metadata/timestamp.json"
IMAGE = "targets/builds/gateway/1.0/image"
FILES = {META: b'{"signed": {}}', IMAGE: random.Random(1).randbytes(1_000_000)}


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with Mirror(FILES) as served:
        yield served


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


def fetcher(
    mirror: Mirror,
    *,
    roots: Roots | None = None,
    monotonic: Callable[[], float] = time.monotonic,
    patience: Patience | None = None,
) -> HttpFetcher:
    return HttpFetcher(
        Settings((parse_mirror(mirror.url),), roots=roots or Roots(system=False)),
        Ambient(monotonic, lambda _: None, lambda: 0.5, patience=patience or Patience()),
    )


def test_a_part_is_not_taken_for_the_whole_object(mirror: Mirror) -> None:
    mirror.trouble = Trouble(status=206, body=b'{"signed"', times=1)
    with fetcher(mirror) as asking:
        with pytest.raises(RetryLaterError, match="answered a part"):
            asking.fetch(META, 100)
        assert asking.fetch(META, 100) == FILES[META]


def test_of_a_body_that_is_announced_as_too_long_nothing_is_read(mirror: Mirror) -> None:
    with fetcher(mirror) as asking:
        with pytest.raises(NotTrustedError, match="longer than the 1000 bytes allowed"):
            asking.fetch(IMAGE, 1000)
        assert asking.traffic.received == 0


def test_a_transfer_left_half_way_costs_its_connection_and_no_request(mirror: Mirror) -> None:
    with fetcher(mirror) as asking:
        stream = asking.stream(IMAGE, 0, 1_000_000)
        next(stream)
        stream.close()  # type: ignore[attr-defined] # it is a generator
        assert asking.fetch(META, 100) == FILES[META]
        assert asking.traffic.requests == 2


def test_the_certificates_of_the_system_are_believed(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
    with Mirror(FILES, authority.good) as mirror, fetcher(mirror, roots=Roots()) as asking:
        assert asking.fetch(META, 100) == FILES[META]
        assert asking.degraded == {}


def test_a_damaged_bundle_takes_no_certificate_of_the_system_away(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
    torn = authority.directory / "torn.pem"
    torn.write_bytes(authority.bundle.read_bytes()[:100])
    roots = Roots(bundle=torn)
    with Mirror(FILES, authority.good) as mirror, fetcher(mirror, roots=roots) as asking:
        assert asking.fetch(META, 100) == FILES[META]
        assert asking.degraded == {}


def test_silence_is_called_silence(mirror: Mirror) -> None:
    mirror.trouble = Trouble(silent=True)
    brief = Patience(grace=0.1)
    with (
        fetcher(mirror, patience=brief) as asking,
        pytest.raises(RetryLaterError, match="no answer in time"),
    ):
        asking.fetch(META, 100)


def test_a_failure_without_words_is_named_by_its_kind(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Never:
        raise ConnectionAbortedError

    monkeypatch.setattr("socket.socket.connect", fail)
    with fetcher(mirror) as asking, pytest.raises(RetryLaterError, match="ConnectionAbortedError"):
        asking.fetch(META, 100)


def test_a_connection_that_took_all_the_time_is_not_asked(mirror: Mirror) -> None:
    """Exactly all of it: the grace is over when its last second is."""
    clock = itertools.count(0.0, Patience().connect)
    with (
        fetcher(mirror, monotonic=lambda: next(clock)) as asking,
        pytest.raises(RetryLaterError, match="no answer in time"),
    ):
        asking.fetch(META, 100)
    assert mirror.seen == []


def test_an_error_page_of_unknown_length_says_what_its_status_says(mirror: Mirror) -> None:
    mirror.trouble = Trouble(status=404, announce=False, times=1)
    with fetcher(mirror) as asking:
        with pytest.raises(NotFoundError):
            asking.fetch(META, 100)
        assert asking.fetch(META, 100) == FILES[META]


@pytest.mark.parametrize(("length", "read"), [(PIECE, PIECE), (PIECE + 1, 0)])
def test_only_a_short_error_page_is_read_to_keep_the_connection(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch, length: int, read: int
) -> None:
    taken: list[int] = []
    reading = http.client.HTTPResponse.read

    def noting(response: http.client.HTTPResponse, amount: int | None = None) -> bytes:
        piece = reading(response, amount)
        taken.append(len(piece))
        return piece

    mirror.trouble = Trouble(status=404, body=bytes(length), times=1)
    with fetcher(mirror) as asking:
        with monkeypatch.context() as patched:
            patched.setattr(http.client.HTTPResponse, "read", noting)
            with pytest.raises(NotFoundError):
                asking.fetch(META, 100)
        assert sum(taken) == read
        assert asking.fetch(META, 100) == FILES[META]
