"""What a machine has read of a storage: whose bytes come back, and what is kept of them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from client_reference.manifest import MAX_MANIFEST
from repo_tools.metadata.repository import sha256
from repo_tools.publishing.cache import KEPT, NO_CACHE, Cache
from repo_tools.publishing.plan import Upload
from repo_tools.storage.local import LocalStorage

if TYPE_CHECKING:
    from pathlib import Path

    from tests.publishing.lab import Lab

PATH, DATA = "metadata/1.targets.json", b"what was signed"


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    found = LocalStorage(tmp_path / "repository")
    found.create(PATH, DATA, sha256(DATA))
    return found


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def _kept(cache: Cache) -> set[str]:
    assert cache.directory is not None
    return {path.name for path in cache.directory.glob("*")}


def test_what_was_read_is_not_asked_for_again(storage: LocalStorage, cache: Cache) -> None:
    with patch.object(storage, "read", wraps=storage.read) as read:
        for _ in range(2):
            assert cache.read(storage, PATH, 99, sha256(DATA)) == DATA
    assert read.call_count == 1


def test_what_has_no_digest_is_asked_for_each_time(storage: LocalStorage, cache: Cache) -> None:
    with patch.object(storage, "read", wraps=storage.read) as read:
        for _ in range(2):
            assert cache.read(storage, PATH, 99, "") == DATA
    assert read.call_count == 2
    assert _kept(cache) == set()


def test_what_was_damaged_here_is_read_again(storage: LocalStorage, cache: Cache) -> None:
    cache.read(storage, PATH, 99, sha256(DATA))
    assert cache.directory is not None
    (cache.directory / sha256(DATA)).write_bytes(DATA[:-1])
    assert cache.read(storage, PATH, 99, sha256(DATA)) == DATA
    assert (cache.directory / sha256(DATA)).read_bytes() == DATA


def test_what_is_not_what_was_signed_is_not_kept(storage: LocalStorage, cache: Cache) -> None:
    """The caller refuses it; who mends the storage is believed at once."""
    (storage.root / PATH).write_bytes(b"another")
    assert cache.read(storage, PATH, 99, sha256(DATA)) == b"another"
    assert _kept(cache) == set()
    (storage.root / PATH).write_bytes(DATA)
    assert cache.read(storage, PATH, 99, sha256(DATA)) == DATA


def test_of_a_publish_what_is_small_is_kept(cache: Cache, tmp_path: Path) -> None:
    def upload(path: str, length: int) -> Upload:
        file = tmp_path / str(length)
        file.write_bytes(bytes(length))
        return Upload(path, file, length, f"{path} {length}".replace("/", "-"))

    role = Upload.of(PATH, DATA)
    longest = upload("targets/channels/gateway/1.stable.json", MAX_MANIFEST)
    longer = upload("targets/channels/gateway/2.stable.json", MAX_MANIFEST + 1)
    firmware = upload("targets/builds/gateway/1.0/x.img", 7)
    cache.keep([role, longest, longer, firmware])
    assert _kept(cache) == {role.sha256, sha256(PATH.encode()), longest.sha256}
    assert cache.recall(PATH) == DATA


def test_what_was_seen_there_is_known_by_its_bytes(cache: Cache) -> None:
    assert not cache.knows_stored(DATA)
    cache.note_stored(DATA)
    assert cache.knows_stored(DATA)
    assert not cache.knows_stored(b"another")


def test_the_oldest_go(cache: Cache) -> None:
    for number in range(KEPT + 3):
        cache.note_stored(b"%d" % number)
    assert len(_kept(cache)) == KEPT
    assert cache.knows_stored(b"%d" % (KEPT + 2))


def test_who_keeps_nothing_knows_nothing(storage: LocalStorage) -> None:
    NO_CACHE.keep([Upload.of(PATH, DATA)])
    NO_CACHE.note_stored(DATA)
    assert not NO_CACHE.knows_stored(DATA)
    assert NO_CACHE.recall(PATH) is None
    assert NO_CACHE.read(storage, PATH, 99, sha256(DATA)) == DATA


def test_only_a_workspace_with_bins_keeps_what_it_reads(live: Lab) -> None:
    """A publish of any other notices what is gone from its storage."""
    assert Cache.of(live.workspace) == NO_CACHE
    with patch.object(type(live.workspace), "is_large", new=True):
        assert Cache.of(live.workspace) == Cache(live.workspace.memory / "cache")
