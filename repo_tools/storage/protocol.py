"""The protocol of a storage: read, create only, replace if unchanged.

These three are what an object store with conditional writes offers, and all that publishing needs.
Paths are relative, `/`-separated, without `.` or `..` segments. `timestamp.json` is the only object
that is ever replaced. Only the inbox, which no device reads, is ever cleared (`remove`), and what
no state needs any more is collected (`entries`, `remove_all`; `unfinished`, `abandon`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from client_reference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime
    from pathlib import Path

__all__ = ["AccessDeniedError", "Blob", "Created", "Entry", "Storage", "Unfinished", "check_path"]


class AccessDeniedError(ConfigurationError):
    """These credentials may not do that; others may."""


@dataclass(frozen=True)
class Blob:
    """One object as it was read: its bytes, and the tag that `replace` compares."""

    data: bytes
    tag: str


class Created(enum.Enum):
    """What `create` found."""

    NEW = "new"
    IDENTICAL = "identical"


@dataclass(frozen=True)
class Entry:
    """One object of a listing.

    Attributes:
        path: where it is.
        length: bytes.
        modified: when the storage got it, by the storage's own clock; aware UTC.
    """

    path: str
    length: int
    modified: datetime


@dataclass(frozen=True)
class Unfinished:
    """A large object that was begun and has not ended; whoever stores it is paid for its parts.

    Attributes:
        path: where it would be.
        id: the storage's own.
        begun: when, by the storage's own clock; aware UTC.
    """

    path: str
    id: str
    begun: datetime


class Storage(Protocol):
    """Where a repository lives."""

    @property
    def url(self) -> str:
        """How this storage is written in `firmroot.toml`."""

    def read(self, path: str, max_length: int) -> Blob:
        """One whole object.

        Raises:
            NotFoundError: there is no such object.
            NotTrustedError: it is longer than `max_length` bytes.
            RetryLaterError: the storage does not answer.
        """

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        """A seekable stream of one object of any size. Raises as `read`."""

    def create(self, path: str, source: bytes | Path, sha256: str) -> Created:
        """Create the object, durably, or find that the identical one is there.

        Args:
            path: where.
            source: the bytes, or a file that holds them (read in constant memory).
            sha256: hex digest that the stored object must have; checked on the bytes as written.

        Raises:
            LockedError: another object is there: a rival.
            RefusedError: the source does not have that digest (it changed under us).
            RetryLaterError: the storage failed; nothing is visible under `path`.
        """

    def replace(self, path: str, data: bytes, tag: str | None) -> str:
        """Replace the object if its tag is still `tag` (None: if it does not exist), durably.

        Returns:
            the new tag.

        Raises:
            LockedError: it changed meanwhile; nothing was written.
            RetryLaterError: the storage failed; it is the old object or the new one, whole.
        """

    def remove(self, path: str) -> None:
        """Remove an object, or find it gone. For the inbox and for clean-up, never for truth.

        Raises:
            RetryLaterError: the storage failed; the object is there or gone.
        """

    def remove_all(self, paths: Sequence[str]) -> None:
        """The same for many objects, in as few requests as there can be. Raises as `remove`."""

    def unfinished(self, before: datetime) -> Sequence[Unfinished]:
        """Uploads that were begun before then and made no object."""

    def abandon(self, upload: Unfinished) -> None:
        """Drop the parts of an upload, or find it ended. Raises as `remove`."""

    def paths(self, prefix: str) -> Iterator[str]:
        """Every object under a prefix, sorted. For audits and clean-up, never for truth."""

    def entries(self, prefix: str) -> Iterator[Entry]:
        """The same with size and age, for clean-up alone; what goes meanwhile may be missing."""


def check_path(path: str) -> None:
    """A path may never lead out of the storage.

    Raises:
        ConfigurationError: this one could.
    """
    if any(segment in {"", ".", ".."} for segment in path.split("/")) or "\0" in path:
        raise ConfigurationError(
            f"{path!r} is not a path of a repository",
            "it is relative, separated by '/', without '.' or '..'",
        )
