from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from client_reference.transport.cache import TargetCache

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATA = b'{"schema": [1, 0]}'
PATH = f"targets/channels/gateway/{hashlib.sha256(DATA).hexdigest()}.stable.json"


@dataclass
class Counting:
    """A mirror that counts."""

    data: bytes = DATA
    asked: list[str] = field(default_factory=list)

    def fetch(self, path: str, max_length: int) -> bytes:
        self.asked.append(path)
        return self.data[:max_length]

    def stream(self, path: str, offset: int, length: int) -> Iterator[bytes]:
        self.asked.append(path)
        yield self.data[offset : offset + length]

    def another_way(self, why: str = "") -> bool:  # noqa: ARG002 # of the protocol
        return True

    def every_mirror(self) -> None:
        self.asked.append("every mirror")


def test_mirrors_are_turned_away_from_and_taken_back_behind_the_cache(tmp_path: Path) -> None:
    mirror = Counting()
    cache = TargetCache(mirror, tmp_path / "cache")
    cache.every_mirror()
    assert (cache.another_way(), mirror.asked) == (True, ["every mirror"])


def test_a_manifest_is_fetched_once(tmp_path: Path) -> None:
    mirror = Counting()
    for _ in range(3):
        assert TargetCache(mirror, tmp_path / "cache").fetch(PATH, 1000) == DATA
    assert mirror.asked == [PATH]


DAMAGE = {
    "flipped": DATA.replace(b"1", b"2"),
    "torn": DATA[:5],
    "empty": b"",
    "longer": DATA + b" ",
}


@pytest.mark.parametrize("sentence", DAMAGE)
def test_a_damaged_copy_is_fetched_again(tmp_path: Path, sentence: str) -> None:
    mirror = Counting()
    cache = TargetCache(mirror, tmp_path)
    cache.fetch(PATH, 1000)
    (copy,) = tmp_path.iterdir()
    copy.write_bytes(DAMAGE[sentence])
    assert cache.fetch(PATH, 1000) == DATA
    assert cache.fetch(PATH, 1000) == DATA
    assert len(mirror.asked) == 2


def test_bytes_that_are_not_what_their_name_says_are_not_kept(tmp_path: Path) -> None:
    mirror = Counting(b"a lie")
    cache = TargetCache(mirror, tmp_path)
    assert cache.fetch(PATH, 1000) == b"a lie", "the updater refuses it, not the cache"
    assert list(tmp_path.iterdir()) == []


NOT_KEPT = [
    "metadata/timestamp.json",
    PATH.replace("channels", "builds"),
    PATH.replace("gateway", ".."),
    "targets/channels/gateway/stable.json",
]


@pytest.mark.parametrize("path", NOT_KEPT)
def test_nothing_else_is_kept(tmp_path: Path, path: str) -> None:
    TargetCache(Counting(), tmp_path).fetch(path, 1000)
    assert list(tmp_path.iterdir()) == []


def test_a_newer_manifest_replaces_the_older(tmp_path: Path) -> None:
    newer = b"newer"
    TargetCache(Counting(), tmp_path).fetch(PATH, 1000)
    path = f"targets/channels/gateway/{hashlib.sha256(newer).hexdigest()}.stable.json"
    TargetCache(Counting(newer), tmp_path).fetch(path, 1000)
    (copy,) = tmp_path.iterdir()
    assert copy.read_bytes() == newer


def test_where_nothing_can_be_kept_it_is_fetched_each_time(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    mirror = Counting()
    cache = TargetCache(mirror, tmp_path / "file")
    assert cache.fetch(PATH, 1000) == cache.fetch(PATH, 1000) == DATA
    assert len(mirror.asked) == 2
