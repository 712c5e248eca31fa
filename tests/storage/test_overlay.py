"""The overlay: the candidate in front, live behind, nothing written."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import NotFoundError, NotTrustedError, RetryLaterError
from repo_tools.storage.local import LocalStorage
from repo_tools.storage.overlay import OverlayStorage
from repo_tools.storage.protocol import Blob

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def live(tmp_path: Path) -> LocalStorage:
    storage = LocalStorage(tmp_path / "live")
    for path, data in (("metadata/t", b"live"), ("metadata/old", b"old")):
        storage.create(path, data, hashlib.sha256(data).hexdigest())
    return storage


@pytest.fixture
def overlay(live: LocalStorage, tmp_path: Path) -> OverlayStorage:
    (tmp_path / "image").write_bytes(b"0123456789")
    return OverlayStorage(live, {"metadata/t": b"candidate", "targets/image": tmp_path / "image"})


def test_the_candidate_hides_what_is_live(overlay: OverlayStorage, live: LocalStorage) -> None:
    assert overlay.fetch("metadata/t", 99) == b"candidate"
    assert overlay.fetch("metadata/old", 99) == b"old"
    assert live.read("metadata/t", 99).data == b"live"
    assert overlay.url == live.url


def test_both_are_listed_once(overlay: OverlayStorage) -> None:
    assert list(overlay.paths("metadata/")) == ["metadata/old", "metadata/t"]
    assert list(overlay.paths("targets/")) == ["targets/image"]


def test_bounds_hold_for_both(overlay: OverlayStorage) -> None:
    assert overlay.read("metadata/t", 9).tag == hashlib.sha256(b"candidate").hexdigest()
    for path, limit in (("metadata/t", 8), ("metadata/old", 2)):
        with pytest.raises(NotTrustedError):
            overlay.fetch(path, limit)


def test_what_is_live_keeps_the_tag_of_its_storage(tmp_path: Path) -> None:
    class Tagging(LocalStorage):
        """Tags of its own, as web storages have."""

        def read(self, path: str, max_length: int) -> Blob:
            return Blob(super().read(path, max_length).data, "its own")

    storage = Tagging(tmp_path / "live")
    storage.create("a", b"x", hashlib.sha256(b"x").hexdigest())
    assert OverlayStorage(storage, {}).read("a", 1).tag == "its own"


def test_a_part_of_a_file_is_streamed(overlay: OverlayStorage) -> None:
    assert b"".join(overlay.stream("targets/image", 3, 4)) == b"3456"
    assert b"".join(overlay.stream("metadata/old", 1, 2)) == b"ld"


def test_a_stream_that_ends_early_is_an_error(overlay: OverlayStorage) -> None:
    with pytest.raises(RetryLaterError, match="ended 2 bytes early"):
        list(overlay.stream("targets/image", 5, 7))


def test_what_neither_has_is_not_there(overlay: OverlayStorage) -> None:
    with pytest.raises(NotFoundError):
        overlay.fetch("metadata/none", 9)
