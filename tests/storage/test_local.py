"""The local storage: create only, replace if unchanged, durable before it says so."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from client_reference.errors import (
    ConfigurationError,
    LockedError,
    NotFoundError,
    NotTrustedError,
    RefusedError,
    RetryLaterError,
)
from repo_tools.files import DiskFullError, exclusive_lock, temporary_file
from repo_tools.storage.local import LocalStorage
from repo_tools.storage.protocol import Created, Entry
from tests.simulators.disk import full_disk, names, recorded

if TYPE_CHECKING:
    from pathlib import Path


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "repository", "repository")


def test_what_was_created_can_be_read(storage: LocalStorage) -> None:
    assert storage.create("metadata/1.root.json", b"root", sha256(b"root")) is Created.NEW
    assert storage.read("metadata/1.root.json", 4).data == b"root"
    assert storage.url == "repository"
    assert LocalStorage(storage.root).url == f"file://{storage.root}"


def test_create_syncs_bytes_before_the_name_and_the_name_before_it_returns(
    storage: LocalStorage,
) -> None:
    storage.create("metadata/a", b"", sha256(b""))
    with recorded() as calls:
        storage.create("metadata/b", b"x", sha256(b"x"))
    assert calls == ["sync file", "link b", "sync directory metadata"]


def test_replace_syncs_bytes_before_the_name_and_the_name_before_it_returns(
    storage: LocalStorage,
) -> None:
    tag = storage.replace("metadata/timestamp.json", b"1", None)
    with recorded() as calls:
        storage.replace("metadata/timestamp.json", b"2", tag)
    assert calls == ["sync file", "rename timestamp.json", "sync directory metadata"]


def test_the_identical_object_means_resume_and_is_made_durable(storage: LocalStorage) -> None:
    storage.create("metadata/a", b"x", sha256(b"x"))
    with recorded() as calls:
        assert storage.create("metadata/a", b"x", sha256(b"x")) is Created.IDENTICAL
    assert calls == ["sync directory metadata"]


def test_a_different_object_is_a_rival_and_stays(storage: LocalStorage) -> None:
    storage.create("a/b", b"x", sha256(b"x"))
    with pytest.raises(LockedError) as caught:
        storage.create("a/b", b"y", sha256(b"y"))
    assert f"a/b exists with sha256 {sha256(b'x')}" in caught.value.message
    assert storage.read("a/b", 9).data == b"x"


@pytest.mark.parametrize(("rival", "ends"), [(b"x", Created.IDENTICAL), (b"y", None)])
def test_a_rival_between_look_and_link_is_found(
    storage: LocalStorage, rival: bytes, ends: Created | None
) -> None:
    link = os.link

    def rival_first(source: Path, target: Path) -> None:
        target.write_bytes(rival)
        link(source, target)

    with patch("os.link", rival_first):
        if ends is None:
            with pytest.raises(LockedError):
                storage.create("a/b", b"x", sha256(b"x"))
        else:
            assert storage.create("a/b", b"x", sha256(b"x")) is ends
    assert storage.read("a/b", 9).data == rival


def test_a_rival_that_is_gone_again_is_a_failure_to_retry(storage: LocalStorage) -> None:
    def exists(*_: object) -> None:
        raise FileExistsError(errno.EEXIST, "File exists")

    with patch("os.link", exists), pytest.raises(RetryLaterError):
        storage.create("a/b", b"x", sha256(b"x"))


def test_a_source_that_changed_is_refused_and_leaves_nothing(
    storage: LocalStorage, tmp_path: Path
) -> None:
    source = tmp_path / "image"
    source.write_bytes(b"changed")
    with pytest.raises(RefusedError) as caught:
        storage.create("targets/image", source, sha256(b"as it was hashed"))
    assert f"the source has {sha256(b'changed')}" in caught.value.message
    assert names(storage.root / "targets") == []


def test_a_large_file_is_copied_whole(storage: LocalStorage, tmp_path: Path) -> None:
    data = bytes(range(256)) * 9000
    (tmp_path / "image").write_bytes(data)
    write = os.write
    with patch("os.write", lambda descriptor, piece: write(descriptor, bytes(piece[:700_000]))):
        storage.create("targets/image", tmp_path / "image", sha256(data))
    assert storage.read("targets/image", len(data)).data == data
    assert (storage.root / "targets/image").stat().st_mode & 0o777 == 0o644


def test_a_full_disk_while_creating_leaves_nothing_visible(storage: LocalStorage) -> None:
    with (
        full_disk(errno.ENOSPC),
        pytest.raises(DiskFullError, match=f"the disk is full: {storage.root}/a/b: "),
    ):
        storage.create("a/b", b"x", sha256(b"x"))
    assert list(storage.paths("")) == []
    assert names(storage.root / "a") == []


def test_a_failing_disk_is_to_be_retried(storage: LocalStorage) -> None:
    with full_disk(errno.EIO), pytest.raises(RetryLaterError, match="Input/output error"):
        storage.create("a/b", b"x", sha256(b"x"))


def test_what_is_removed_is_gone_durably_and_once_is_enough(storage: LocalStorage) -> None:
    storage.create("inbox/a/x", b"x", sha256(b"x"))
    storage.create("inbox/a/y", b"y", sha256(b"y"))
    with recorded() as calls:
        storage.remove("inbox/a/x")
    assert calls == ["unlink x", "sync directory a"]
    storage.remove("inbox/a/x")
    assert list(storage.paths("inbox/")) == ["inbox/a/y"]
    storage.remove("inbox/a/y")
    assert names(storage.root / "inbox") == [], "the last one takes its directory along"
    storage.create("targets/a/x", b"x", sha256(b"x"))
    storage.remove("targets/a/x")
    assert names(storage.root / "targets") == ["a"], "somebody may be about to create another"
    with pytest.raises(ConfigurationError):
        storage.remove("inbox/../metadata/timestamp.json")


def test_a_pipe_is_no_object(storage: LocalStorage) -> None:
    (storage.root / "inbox").mkdir(parents=True)
    os.mkfifo(storage.root / "inbox/pipe")
    with pytest.raises(NotFoundError):
        storage.read("inbox/pipe", 9)
    assert list(storage.paths("inbox/")) == []


def test_a_listing_looks_only_where_it_must(storage: LocalStorage) -> None:
    for path in ("inbox/a/1", "inbox/ab", "metadata/x"):
        storage.create(path, b"x", sha256(b"x"))
    assert list(storage.paths("inbox/a")) == ["inbox/a/1", "inbox/ab"]
    assert list(storage.paths("inbox/a/")) == ["inbox/a/1"]
    assert list(storage.paths("outbox/")) == []


def test_replace_wants_the_tag_of_what_is_there(storage: LocalStorage) -> None:
    first = storage.replace("metadata/timestamp.json", b"1", None)
    assert first == storage.read("metadata/timestamp.json", 9).tag
    second = storage.replace("metadata/timestamp.json", b"2", first)
    with pytest.raises(LockedError, match=r"timestamp\.json changed since it was read"):
        storage.replace("metadata/timestamp.json", b"3", first)
    assert storage.read("metadata/timestamp.json", 9).data == b"2"
    assert storage.read("metadata/timestamp.json", 9).tag == second


def test_replace_without_a_tag_wants_nothing_to_be_there(storage: LocalStorage) -> None:
    storage.replace("t", b"1", None)
    with pytest.raises(LockedError):
        storage.replace("t", b"2", None)
    with pytest.raises(LockedError):
        storage.replace("other", b"2", "0" * 64)


def test_compare_and_replace_are_one_step_among_processes(storage: LocalStorage) -> None:
    tag = storage.replace("t", b"1", None)
    done = threading.Event()

    def replace() -> None:
        storage.replace("t", b"2", tag)
        done.set()

    with exclusive_lock(storage.root / ".lock", wait=False, owner="another process"):
        thread = threading.Thread(target=replace)
        thread.start()
        assert not done.wait(0.1)
        assert storage.read("t", 9).data == b"1"
    thread.join(5)
    assert storage.read("t", 9).data == b"2"


def test_what_is_not_there_is_told_apart_from_what_failed(storage: LocalStorage) -> None:
    with pytest.raises(NotFoundError, match=r"metadata/2\.root\.json is not in"):
        storage.read("metadata/2.root.json", 9)
    storage.create("a/b", b"x", sha256(b"x"))
    for path in ("a", "a/b/c"):
        with pytest.raises(NotFoundError):
            storage.read(path, 9)
    with (
        patch("pathlib.Path.open", side_effect=PermissionError(errno.EACCES, "Permission denied")),
        pytest.raises(RetryLaterError) as caught,
    ):
        storage.read("a/b", 9)
    assert not isinstance(caught.value, NotFoundError)


def test_longer_than_allowed_is_not_trusted(storage: LocalStorage) -> None:
    storage.create("a", b"12345", sha256(b"12345"))
    assert storage.read("a", 5).data == b"12345"
    with pytest.raises(NotTrustedError, match="longer than the 4 bytes"):
        storage.read("a", 4)


def test_a_stream_can_seek(storage: LocalStorage) -> None:
    storage.create("a", b"12345", sha256(b"12345"))
    with storage.open("a") as file:
        file.seek(3)
        assert file.read() == b"45"


@pytest.mark.parametrize("path", ["", "/etc/passwd", "a//b", "../a", "a/..", "./a", "a\0b"])
def test_a_path_never_leads_out_of_the_storage(storage: LocalStorage, path: str) -> None:
    for attempt in (
        lambda: storage.read(path, 9),
        lambda: storage.create(path, b"x", sha256(b"x")),
        lambda: storage.replace(path, b"x", None),
    ):
        with pytest.raises(ConfigurationError, match="is not a path of a repository"):
            attempt()


def test_objects_are_listed_sorted_and_our_own_files_are_not(storage: LocalStorage) -> None:
    storage.replace("metadata/timestamp.json", b"1", None)
    for path in ("targets/b", "targets/a", "metadata/1.root.json"):
        storage.create(path, b"x", sha256(b"x"))
    (storage.root / "targets" / ".a.x.tmp").touch()
    assert list(storage.paths("targets/")) == ["targets/a", "targets/b"]
    assert list(storage.paths("")) == [
        "metadata/1.root.json",
        "metadata/timestamp.json",
        "targets/a",
        "targets/b",
    ]


def test_a_commit_removes_what_killed_publishers_left_and_nothing_that_is_being_written(
    storage: LocalStorage,
) -> None:
    place, other = storage.root / "targets/builds/p/1", storage.root / "targets/builds/p/2"
    found = [top / ".image.abcdefgh.tmp" for top in (place, storage.root / "inbox", other)]
    for left in found:
        left.parent.mkdir(parents=True)
        left.write_bytes(b"half")
    storage.create("targets/builds/p/1/image", b"x", sha256(b"x"))
    with temporary_file(place, "image") as (_, rival):
        storage.replace("metadata/timestamp.json", b"1", None)
        assert rival.exists()
    # A million artifacts are not looked through for what somebody left beside them.
    assert [left.exists() for left in found] == [False, False, True]


def test_a_listing_for_clean_up_has_sizes_and_ages(storage: LocalStorage) -> None:
    storage.create("metadata/x", b"four", sha256(b"four"))
    storage.create("targets/y", b"", sha256(b""))
    (storage.root / "metadata/.temporary").write_bytes(b"z")
    os.utime(storage.root / "metadata/x", (1_000_000_000, 1_000_000_000))
    (found,) = storage.entries("metadata/")
    assert found == Entry("metadata/x", 4, datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC))
    assert [(each.path, each.length) for each in storage.entries("")] == [
        ("metadata/x", 4),
        ("targets/y", 0),
    ]
