"""Pure: the list of segment hashes that stands beside a long artifact (Guard: segments).

An artifact longer than one segment has a second target, `<path>.segments`, in the same builds role:
the raw SHA-256 digests of its 1 MiB segments, one after the other, the last segment being the rest.
With it no byte reaches an installer, a pipe or a decoder before its segment has verified, and a
download can be resumed or continued from another mirror at any segment.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from client_reference.errors import NotTrustedError
from client_reference.values import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "LONGEST",
    "SEGMENT",
    "SUFFIX",
    "Segments",
    "has_segments",
    "hash_segments",
    "list_length",
    "parse_segments",
]

SEGMENT = 1024 * 1024
"""Bytes."""
LONGEST = 2**38
"""Bytes of an artifact at most (256 GiB). Its list is held in memory, and so has at most 8 MiB."""
SUFFIX = ".segments"
_DIGEST = 32


@frozen
class Segments:
    """How one artifact is cut, and the digest of each piece.

    Attributes:
        length: bytes of the artifact.
        digests: raw SHA-256 digests, concatenated.
    """

    length: int
    digests: bytes

    def __len__(self) -> int:
        return len(self.digests) // _DIGEST

    def offset(self, index: int) -> int:
        """Where a segment starts, in bytes."""
        return index * SEGMENT

    def size(self, index: int) -> int:
        """Bytes of a segment; the last one is the rest."""
        return min(SEGMENT, self.length - self.offset(index))

    def matches(self, index: int, data: bytes | bytearray | memoryview) -> bool:
        """Whether these are the bytes of that segment."""
        expected = self.digests[index * _DIGEST : (index + 1) * _DIGEST]
        return len(data) == self.size(index) and hashlib.sha256(data).digest() == expected


def has_segments(length: int) -> bool:
    """Whether an artifact of that length has a list of segments beside it."""
    return length > SEGMENT


def list_length(length: int) -> int:
    """Bytes of the list for an artifact of that length."""
    return _DIGEST * -(-length // SEGMENT)


def parse_segments(data: bytes, length: int) -> Segments:
    """Read a list of segment hashes.

    Args:
        data: verified bytes of the `.segments` target.
        length: bytes of the artifact.

    Raises:
        NotTrustedError: the list is not as long as that artifact needs.
    """
    if len(data) != list_length(length):
        raise NotTrustedError(
            f"the list of segments has {len(data)} bytes, expected {list_length(length)} "
            f"for an artifact of {length}",
            "the artifact was not made by `firmroot firmware add`; ask the publisher",
        )
    return Segments(length, data)


def hash_segments(pieces: Iterable[bytes]) -> bytes:
    """The list for an artifact that is given as its segments, in order."""
    return b"".join(hashlib.sha256(piece).digest() for piece in pieces)
