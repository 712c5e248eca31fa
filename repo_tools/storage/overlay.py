"""A candidate laid over what is live, for the rehearsal: nothing of it is ever written.

Reads look among the candidate's objects first. It is both what a device asks (`Fetcher`) and what
an auditor reads (the reading half of `Storage`), so that the same bytes serve both.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from client_reference.errors import NotTrustedError, RetryLaterError
from repo_tools.storage.protocol import Blob

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from repo_tools.storage.protocol import Storage

__all__ = ["OverlayStorage"]

_CHUNK = 64 * 1024


class OverlayStorage:
    """Live objects, and candidate objects in front of them.

    Args:
        live: what is published.
        candidate: objects by path, as bytes or as the file that holds them.
    """

    def __init__(self, live: Storage, candidate: Mapping[str, bytes | Path]) -> None:
        self._live = live
        self._candidate = dict(candidate)

    @property
    def url(self) -> str:
        """The live storage's own, since this has none."""
        return self._live.url

    def read(self, path: str, max_length: int) -> Blob:
        """One whole object. See `Storage.read`."""
        if path not in self._candidate:
            return self._live.read(path, max_length)
        with self.open(path) as file:
            data = file.read(max_length + 1)
        if len(data) > max_length:
            raise NotTrustedError(f"{path} is longer than the {max_length} bytes allowed")
        return Blob(data, hashlib.sha256(data).hexdigest())

    @contextlib.contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """A seekable stream of one object. See `Storage.open`."""
        if path not in self._candidate:
            with self._live.open(path) as file:
                yield file
            return
        source = self._candidate[path]
        with (
            cast("BinaryIO", source.open("rb"))
            if isinstance(source, Path)
            else io.BytesIO(source) as file
        ):
            yield file

    def paths(self, prefix: str) -> Iterator[str]:
        """Every object of either under a prefix, sorted. See `Storage.paths`."""
        candidate = {path for path in self._candidate if path.startswith(prefix)}
        yield from sorted(candidate.union(self._live.paths(prefix)))

    def fetch(self, path: str, max_length: int) -> bytes:
        """One whole object, as a device asks for it. See `Fetcher.fetch`."""
        return self.read(path, max_length).data

    def stream(self, path: str, offset: int, length: int) -> Iterator[bytes]:
        """Part of an object, as a device asks for it. See `Fetcher.stream`."""
        left = length
        with self.open(path) as file:
            file.seek(offset)
            while chunk := file.read(min(_CHUNK, left)):
                left -= len(chunk)
                yield chunk
        if left:
            raise RetryLaterError(f"{path} ended {left} bytes early")
