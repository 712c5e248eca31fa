"""One epoch of a repository, seen as if it were the only one.

The anchor starts a new epoch with its own metadata below `metadata/eE/`, with versions from 1 on;
target files are shared. This maps the paths, so that nothing that publishes, reads or rehearses
needs to know in which epoch it is. Epoch 0 needs no mapping and is never wrapped.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime
    from pathlib import Path

    from client_reference.transport.fetcher import Fetcher
    from repo_tools.storage.protocol import Blob, Created, Entry, Storage, Unfinished

__all__ = ["EpochFetcher", "EpochStorage", "epoch_path"]

_METADATA = "metadata/"


def epoch_path(path: str, epoch: int) -> str:
    """Pure: where an object of an epoch is stored."""
    if not epoch or not path.startswith(_METADATA):
        return path
    return f"{_METADATA}e{epoch}/{path.removeprefix(_METADATA)}"


class EpochStorage:
    """A storage as one epoch sees it. See `repo_tools.storage.protocol.Storage`."""

    def __init__(self, whole: Storage, epoch: int) -> None:
        self._whole = whole
        self._epoch = epoch

    @property
    def whole(self) -> Storage:
        """The storage with every epoch in it."""
        return self._whole

    @property
    def url(self) -> str:
        """Of the whole storage, as in `firmroot.toml`."""
        return self._whole.url

    def read(self, path: str, max_length: int) -> Blob:
        """One whole object. See `Storage.read`."""
        return self._whole.read(epoch_path(path, self._epoch), max_length)

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        """A seekable stream of one object. See `Storage.open`."""
        return self._whole.open(epoch_path(path, self._epoch))

    def create(self, path: str, source: bytes | Path, sha256: str) -> Created:
        """Create the object durably, or find the identical one. See `Storage.create`."""
        return self._whole.create(epoch_path(path, self._epoch), source, sha256)

    def replace(self, path: str, data: bytes, tag: str | None) -> str:
        """Replace the object if its tag is still `tag`. See `Storage.replace`."""
        return self._whole.replace(epoch_path(path, self._epoch), data, tag)

    def remove(self, path: str) -> None:
        """Remove an object, or find it gone. See `Storage.remove`."""
        self._whole.remove(epoch_path(path, self._epoch))

    def remove_all(self, paths: Sequence[str]) -> None:
        """Remove many objects. See `Storage.remove_all`."""
        self._whole.remove_all([epoch_path(path, self._epoch) for path in paths])

    def unfinished(self, before: datetime) -> Sequence[Unfinished]:
        """Of every epoch: large objects are target files. See `Storage.unfinished`."""
        return self._whole.unfinished(before)

    def abandon(self, upload: Unfinished) -> None:
        """Drop an upload. See `Storage.abandon`."""
        self._whole.abandon(upload)

    def paths(self, prefix: str) -> Iterator[str]:
        """Every object of this epoch under a prefix, sorted; metadata of others are not there."""
        found = (self._seen(path) for path in self._whole.paths(epoch_path(prefix, self._epoch)))
        yield from sorted(path for path in found if path)

    def entries(self, prefix: str) -> Iterator[Entry]:
        """The same with size and age. See `Storage.entries`."""
        found = (
            replace(entry, path=self._seen(entry.path))
            for entry in self._whole.entries(epoch_path(prefix, self._epoch))
        )
        yield from sorted((each for each in found if each.path), key=lambda each: each.path)

    def _seen(self, path: str) -> str:
        """How this epoch calls an object; empty if it is metadata of another."""
        here = epoch_path(_METADATA, self._epoch)
        if path.startswith(here):
            return _METADATA + path.removeprefix(here)
        return "" if path.startswith(_METADATA) else path


class EpochFetcher:
    """A repository as a device of one epoch asks for it. See `Fetcher`."""

    def __init__(self, whole: Fetcher, epoch: int) -> None:
        self._whole = whole
        self._epoch = epoch

    def fetch(self, path: str, max_length: int) -> bytes:
        """One whole object."""
        return self._whole.fetch(epoch_path(path, self._epoch), max_length)

    def stream(self, path: str, offset: int, length: int) -> Iterator[bytes]:
        """Part of an object."""
        return self._whole.stream(epoch_path(path, self._epoch), offset, length)
