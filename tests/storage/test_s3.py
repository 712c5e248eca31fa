"""S3 on a real service: the contract of every storage, large objects, rivals, and lost answers."""

from __future__ import annotations

import hashlib
import itertools
import random
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest

from client_reference.errors import (
    ConfigurationError,
    LockedError,
    NotFoundError,
    NotTrustedError,
    RefusedError,
    RetryLaterError,
)
from repo_tools.storage.protocol import Created
from repo_tools.storage.s3 import S3Client, S3Storage
from tests.simulators.seaweed import Service, seaweed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


pytestmark = pytest.mark.services

PART = 5 << 20
"""S3's least for every part but the last."""
IMAGE = random.Random(1).randbytes(2 * PART + 17)
_numbers = itertools.count(1)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with seaweed(tmp_path_factory.mktemp("seaweed")) as running:
        yield running


@pytest.fixture(scope="module")
def client(service: Service) -> S3Client:
    made = service.client()
    made.create_bucket(Bucket="acme")
    return made


@pytest.fixture
def storage(client: S3Client) -> S3Storage:
    return S3Storage(f"s3://acme/{next(_numbers)}", client, part=PART, large=PART + 1)


class Client:
    """The SDK's client, of which one kind of request goes another way."""

    def __init__(
        self, client: S3Client, request: str, way: Callable[[Callable[..., Any]], Any]
    ) -> None:
        self._client = client
        self._request = request
        self._way = way

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 # whatever the real one has
        real = getattr(self._client, name)
        return real if name != self._request else self._way(real)


def losing_the_answer(request: Callable[..., Any]) -> Callable[..., Any]:
    """Executed, the answer lost: what the SDK does then is to ask once more."""

    def twice(**arguments: Any) -> Any:  # noqa: ANN401 # whatever the real one takes
        request(**arguments)
        return request(**arguments)

    return twice


class Killed(BaseException):
    """The publisher, by a signal that nobody can catch."""


def killed(_: Callable[..., Any]) -> Any:  # noqa: ANN401 # never
    raise Killed


def over(
    storage: S3Storage, client: S3Client, request: str, way: Callable[[Callable[..., Any]], Any]
) -> S3Storage:
    """The same storage, over a client of which one kind of request goes another way."""
    changed = cast("Any", Client(client, request, way))
    return S3Storage(storage.url, changed, part=PART, large=PART + 1)


def test_what_was_created_can_be_read_and_is_not_written_again(storage: S3Storage) -> None:
    assert storage.create("metadata/1.root.json", b"root", sha256(b"root")) is Created.NEW
    assert storage.read("metadata/1.root.json", 4).data == b"root"
    assert storage.create("metadata/1.root.json", b"root", sha256(b"root")) is Created.IDENTICAL
    with pytest.raises(LockedError, match=f"exists with sha256 {sha256(b'root')}, expected"):
        storage.create("metadata/1.root.json", b"fork", sha256(b"fork"))
    assert storage.read("metadata/1.root.json", 4).data == b"root"


def test_replace_wants_the_tag_of_what_is_there(storage: S3Storage) -> None:
    first = storage.replace("metadata/timestamp.json", b"1", None)
    assert first == storage.read("metadata/timestamp.json", 9).tag
    second = storage.replace("metadata/timestamp.json", b"2", first)
    with pytest.raises(LockedError, match=r"timestamp\.json changed since it was read"):
        storage.replace("metadata/timestamp.json", b"3", first)
    with pytest.raises(LockedError):
        storage.replace("metadata/timestamp.json", b"3", None)
    with pytest.raises(LockedError):
        storage.replace("metadata/other.json", b"3", first)
    found = storage.read("metadata/timestamp.json", 9)
    assert (found.data, found.tag) == (b"2", second)


def test_of_many_rivals_one_wins(storage: S3Storage) -> None:
    tag = storage.replace("t", b"0", None)
    start, won = threading.Barrier(8), []

    def rival(number: int) -> None:
        start.wait()
        try:
            storage.replace("t", b"%d" % number, tag)
        except (LockedError, RetryLaterError):
            return
        won.append(b"%d" % number)

    threads = [threading.Thread(target=rival, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [storage.read("t", 9).data] == won


@pytest.mark.parametrize("data", [b"small", IMAGE])
def test_an_answer_that_was_lost_is_no_rival(
    client: S3Client, storage: S3Storage, tmp_path: Path, data: bytes
) -> None:
    (tmp_path / "image").write_bytes(data)
    request = "put_object" if data == b"small" else "complete_multipart_upload"
    lossy = over(storage, client, request, losing_the_answer)
    assert lossy.create("image", tmp_path / "image", sha256(data)) in set(Created)
    with storage.open("image") as stream:
        assert stream.read() == data


def test_a_lost_answer_to_a_replacement_is_no_rival(client: S3Client, storage: S3Storage) -> None:
    tag = storage.replace("t", b"1", None)
    lossy = over(storage, client, "put_object", losing_the_answer)
    assert lossy.replace("t", b"2", tag) == storage.read("t", 9).tag
    assert storage.read("t", 9).data == b"2"


def test_a_large_object_goes_up_in_parts_and_is_the_identical_one(
    client: S3Client, storage: S3Storage, tmp_path: Path
) -> None:
    (tmp_path / "image").write_bytes(IMAGE)
    assert storage.create("image", tmp_path / "image", sha256(IMAGE)) is Created.NEW
    assert storage.create("image", tmp_path / "image", sha256(IMAGE)) is Created.IDENTICAL
    assert storage.create("image", IMAGE, sha256(IMAGE)) is Created.IDENTICAL
    (tmp_path / "fork").write_bytes(IMAGE[::-1])
    with pytest.raises(LockedError, match="a rival published it"):
        storage.create("image", tmp_path / "fork", sha256(IMAGE[::-1]))
    with storage.open("image") as stream:
        stream.seek(-17, 2)
        assert stream.read() == IMAGE[-17:]
        stream.seek(PART - 5)
        assert stream.read(10) == IMAGE[PART - 5 : PART + 5]
    assert "Uploads" not in client.list_multipart_uploads(Bucket="acme", Prefix="image")


def test_parts_that_are_there_are_not_sent_again(
    client: S3Client, storage: S3Storage, tmp_path: Path
) -> None:
    """A publish that was killed before the last request."""
    (tmp_path / "image").write_bytes(IMAGE)

    dying = over(storage, client, "complete_multipart_upload", killed)
    with pytest.raises(Killed):
        dying.create("image", tmp_path / "image", sha256(IMAGE))
    with pytest.raises(NotFoundError):
        storage.read("image", 9)
    again = over(storage, client, "upload_part", killed)
    assert again.create("image", tmp_path / "image", sha256(IMAGE)) is Created.NEW
    with storage.open("image") as stream:
        assert sha256(stream.read()) == sha256(IMAGE)


def test_a_part_that_is_not_the_source_s_is_sent_again(
    client: S3Client, storage: S3Storage, tmp_path: Path
) -> None:
    """Somebody's upload to the same name, of other bytes: nothing of it comes into ours."""
    (tmp_path / "image").write_bytes(IMAGE)
    (tmp_path / "other").write_bytes(IMAGE[::-1])
    dying = over(storage, client, "complete_multipart_upload", killed)
    with pytest.raises(Killed):
        dying.create("image", tmp_path / "other", sha256(IMAGE[::-1]))
    assert storage.create("image", tmp_path / "image", sha256(IMAGE)) is Created.NEW
    with storage.open("image") as stream:
        assert sha256(stream.read()) == sha256(IMAGE)


@pytest.mark.parametrize("data", [b"as it was", IMAGE])
def test_a_source_that_changed_is_refused_and_leaves_nothing(
    storage: S3Storage, tmp_path: Path, data: bytes
) -> None:
    (tmp_path / "image").write_bytes(data[::-1])
    with pytest.raises(RefusedError, match="the source has"):
        storage.create("image", tmp_path / "image", sha256(data))
    with pytest.raises(NotFoundError):
        storage.read("image", 9)


def test_a_rival_that_was_faster_keeps_a_large_object(
    client: S3Client, storage: S3Storage, tmp_path: Path
) -> None:
    """Attack: what devices verified under a path is exchanged by the last request of another."""
    (tmp_path / "image").write_bytes(IMAGE)

    def overtaken(request: Callable[..., Any]) -> Callable[..., Any]:
        def late(**arguments: Any) -> Any:  # noqa: ANN401 # whatever the real one takes
            assert storage.create("image", b"rival", sha256(b"rival")) is Created.NEW
            return request(**arguments)

        return late

    slow = over(storage, client, "complete_multipart_upload", overtaken)
    with pytest.raises(LockedError, match=f"image exists with sha256 {sha256(b'rival')}, expected"):
        slow.create("image", tmp_path / "image", sha256(IMAGE))
    assert storage.read("image", 9).data == b"rival"
    with storage.open("image") as stream:
        assert stream.read() == b"rival"


def test_a_stream_is_of_one_version(storage: S3Storage) -> None:
    tag = storage.replace("t", b"before", None)
    with storage.open("t") as stream:
        storage.replace("t", b"after!", tag)
        with pytest.raises(RetryLaterError, match="changed while it was read"):
            stream.read()
    with storage.open("t") as stream:
        assert stream.read() == b"after!"


def test_longer_than_allowed_is_not_trusted(storage: S3Storage) -> None:
    storage.create("a", b"12345", sha256(b"12345"))
    assert storage.read("a", 5).data == b"12345"
    with pytest.raises(NotTrustedError, match="longer than the 4 bytes"):
        storage.read("a", 4)


def test_objects_are_listed_sorted_and_removed(storage: S3Storage) -> None:
    for name in ("b/2", "a/1", "b/10", "c"):
        storage.create(name, name.encode(), sha256(name.encode()))
    assert list(storage.paths("")) == ["a/1", "b/10", "b/2", "c"]
    assert list(storage.paths("b/")) == ["b/10", "b/2"]
    storage.remove("b/2")
    storage.remove("b/2")
    assert list(storage.paths("b/")) == ["b/10"]


def test_what_is_not_there_is_told_apart_from_what_is_denied(
    service: Service, client: S3Client, storage: S3Storage
) -> None:
    with pytest.raises(NotFoundError):
        storage.read("metadata/2.root.json", 9)
    with pytest.raises(NotFoundError), storage.open("metadata/2.root.json"):
        pass
    nobody = S3Storage(storage.url, service.client(secret="another"))
    with pytest.raises(ConfigurationError, match="the secret key is wrong") as caught:
        nobody.read("metadata/2.root.json", 9)
    assert not isinstance(caught.value, NotFoundError)
    elsewhere = S3Storage("s3://nobody", client)
    with pytest.raises(ConfigurationError, match="there is no such bucket"):
        elsewhere.read("metadata/2.root.json", 9)
    for write in (
        lambda: elsewhere.create("a", b"x", sha256(b"x")),
        lambda: elsewhere.replace("a", b"x", None),
    ):
        with pytest.raises(ConfigurationError, match="there is no such bucket"):
            write()


def test_a_listing_for_clean_up_has_sizes_and_ages(storage: S3Storage) -> None:
    before = datetime.now(UTC) - timedelta(minutes=5)
    storage.create("metadata/x", b"four", sha256(b"four"))
    storage.create("targets/y", b"y", sha256(b"y"))
    (found,) = storage.entries("metadata/")
    assert (found.path, found.length) == ("metadata/x", 4)
    assert found.modified > before
    assert [each.path for each in storage.entries("")] == list(storage.paths(""))
    storage.remove("metadata/x")
    storage.remove("metadata/x")
    assert [each.path for each in storage.entries("")] == ["targets/y"]


def test_many_objects_go_with_one_request(client: S3Client, storage: S3Storage) -> None:
    names = [f"targets/{number}" for number in range(1003)]
    for name in names[:3] + names[-3:]:
        storage.create(name, name.encode(), sha256(name.encode()))
    asked: list[int] = []

    def counted(request: Callable[..., Any]) -> Callable[..., Any]:
        def once(**arguments: Any) -> Any:  # noqa: ANN401 # whatever the real one takes
            asked.append(len(arguments["Delete"]["Objects"]))
            return request(**arguments)

        return once

    over(storage, client, "delete_objects", counted).remove_all(names)
    assert asked == [1000, 3]
    assert list(storage.paths("")) == []
    storage.remove_all([])


def test_uploads_that_never_ended_are_listed_by_age_and_dropped(
    client: S3Client, storage: S3Storage, tmp_path: Path
) -> None:
    (tmp_path / "image").write_bytes(IMAGE)
    dying = over(storage, client, "complete_multipart_upload", killed)
    with pytest.raises(Killed):
        dying.create("image", tmp_path / "image", sha256(IMAGE))
    now = datetime.now(UTC)
    assert list(storage.unfinished(now - timedelta(hours=1))) == []
    (left,) = storage.unfinished(now + timedelta(hours=1))
    assert left.path == "image"
    storage.abandon(left)
    storage.abandon(left)
    assert list(storage.unfinished(now + timedelta(hours=1))) == []
    assert storage.create("image", tmp_path / "image", sha256(IMAGE)) is Created.NEW


def test_a_large_object_is_read_once(
    storage: S3Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "image"
    file.write_bytes(IMAGE)
    opened = []
    real = type(file).open

    def counted(path: Path, *arguments: Any) -> Any:  # noqa: ANN401 # as the real one
        opened.append(path)
        return real(path, *arguments)

    monkeypatch.setattr(type(file), "open", counted)
    assert storage.create("image", file, sha256(IMAGE)) is Created.NEW
    assert opened.count(file) == 1


def test_an_object_with_too_many_parts_has_larger_ones(storage: S3Storage) -> None:
    assert storage._part_of(10_000 * PART) == PART
    assert storage._part_of(10_000 * PART + 1) == PART + 1
    assert 10_000 * storage._part_of(256 << 30) >= 256 << 30
