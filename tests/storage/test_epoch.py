"""One epoch of a storage: its metadata are its own, target files are everybody's."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import LockedError, NotFoundError
from client_reference.transport.fetcher import DirectoryFetcher
from repo_tools.storage.epoch import EpochFetcher, EpochStorage, epoch_path
from repo_tools.storage.local import LocalStorage
from repo_tools.storage.protocol import Created

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def whole(tmp_path: Path) -> LocalStorage:
    storage = LocalStorage(tmp_path / "whole", "repository")
    for path in ("metadata/1.root.json", "metadata/e2/1.root.json", "targets/a"):
        create(storage, path, path.encode())
    return storage


def create(storage: LocalStorage | EpochStorage, path: str, data: bytes) -> Created:
    return storage.create(path, data, hashlib.sha256(data).hexdigest())


def test_only_metadata_have_an_epoch() -> None:
    assert epoch_path("metadata/timestamp.json", 2) == "metadata/e2/timestamp.json"
    assert epoch_path("metadata/root-chain/7", 2) == "metadata/e2/root-chain/7"
    assert epoch_path("targets/metadata/a", 2) == "targets/metadata/a"
    assert epoch_path("metadata/timestamp.json", 0) == "metadata/timestamp.json"


def test_an_epoch_does_not_see_what_others_published(whole: LocalStorage) -> None:
    first = EpochStorage(whole, 1)
    with pytest.raises(NotFoundError):
        first.read("metadata/1.root.json", 99)
    assert create(first, "metadata/1.root.json", b"new") is Created.NEW
    assert create(first, "metadata/1.root.json", b"new") is Created.IDENTICAL
    with pytest.raises(LockedError):
        create(first, "metadata/1.root.json", b"another")
    assert first.read("metadata/1.root.json", 99).data == b"new"
    assert whole.read("metadata/e1/1.root.json", 99).data == b"new"
    assert whole.read("metadata/1.root.json", 99).data == b"metadata/1.root.json"
    with first.open("targets/a") as file:
        assert file.read() == b"targets/a"
    with first.open("metadata/1.root.json") as file:
        assert file.read() == b"new"
    assert first.url == "repository"


def test_the_timestamp_of_each_epoch_is_replaced_apart(whole: LocalStorage) -> None:
    first, second = EpochStorage(whole, 1), EpochStorage(whole, 2)
    tag = first.replace("metadata/timestamp.json", b"one", None)
    second.replace("metadata/timestamp.json", b"two", None)
    with pytest.raises(LockedError):
        first.replace("metadata/timestamp.json", b"late", None)
    first.replace("metadata/timestamp.json", b"later", tag)
    assert second.read("metadata/timestamp.json", 99).data == b"two"


def test_a_listing_has_this_epoch_and_the_targets(whole: LocalStorage) -> None:
    second = EpochStorage(whole, 2)
    assert list(second.paths("")) == ["metadata/1.root.json", "targets/a"]
    assert list(second.paths("metadata/")) == ["metadata/1.root.json"]
    assert list(second.paths("metadata/1.")) == ["metadata/1.root.json"]
    assert list(second.paths("targets/")) == ["targets/a"]
    assert list(EpochStorage(whole, 1).paths("")) == ["targets/a"]


def test_entries_are_those_of_this_epoch_under_its_names(whole: LocalStorage) -> None:
    found = list(EpochStorage(whole, 2).entries(""))
    assert [(each.path, each.length) for each in found] == [
        ("metadata/1.root.json", len("metadata/e2/1.root.json")),
        ("targets/a", len("targets/a")),
    ]
    assert list(EpochStorage(whole, 1).entries("metadata/")) == []


def test_an_epoch_removes_its_own(whole: LocalStorage) -> None:
    EpochStorage(whole, 2).remove("metadata/1.root.json")
    assert list(EpochStorage(whole, 2).paths("metadata/")) == []
    EpochStorage(whole, 2).remove("targets/a")
    assert "targets/a" not in list(whole.paths(""))


def test_a_device_of_an_epoch_asks_there(whole: LocalStorage) -> None:
    second = EpochFetcher(DirectoryFetcher(whole.root), 2)
    assert second.fetch("metadata/1.root.json", 99) == b"metadata/e2/1.root.json"
    assert b"".join(second.stream("targets/a", 8, 1)) == b"a"
    assert b"".join(second.stream("metadata/1.root.json", 0, 11)) == b"metadata/e2"
    with pytest.raises(NotFoundError):
        EpochFetcher(DirectoryFetcher(whole.root), 1).fetch("metadata/1.root.json", 99)
