"""Verified bytes of an artifact into a sink, one segment at a time (Guard: segments).

The only way from a network to an installer. No byte reaches the sink before the segment that it
belongs to has verified; an artifact of at most one segment is its own segment, judged by the signed
hash of the whole. The hash of the whole is compared at the end in any case, so that a wrong list of
segments cannot pass. One segment is held in memory at a time.

A segment that does not verify is fetched once more, alone: a proxy or a broken mirror may have been
in the way. If it fails again the bytes are not to be trusted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from client_reference.errors import NotTrustedError, RetryLaterError
from client_reference.payload.segments import SEGMENT, Segments
from client_reference.values import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from client_reference.transport.fetcher import Fetcher

__all__ = ["BadSegmentError", "Download", "Place", "whole_segments"]


class BadSegmentError(NotTrustedError):
    """Bytes of an artifact are not those that were signed for."""


class Place(Protocol):
    """Where verified bytes go: the writing half of an installer."""

    def read(self, offset: int, length: int) -> bytes:
        """Bytes that were written before."""

    def write(self, offset: int, data: bytes) -> None:
        """Take verified bytes."""


class _Total(Protocol):
    """A running hash."""

    def update(self, data: bytes, /) -> None:
        """Take more bytes."""


def whole_segments(sha256: str, length: int) -> Segments:
    """The segments of an artifact that needs no list, being at most one segment long."""
    if length > SEGMENT:
        raise ValueError(f"an artifact of {length} bytes has a list of segments")
    return Segments(length, bytes.fromhex(sha256))


@frozen
class Download:
    """One artifact to bring.

    Attributes:
        location: repository path, such as `targets/builds/…`.
        sha256: signed hex digest of the whole.
        segments: verified list of segments.
    """

    location: str
    sha256: str
    segments: Segments

    def run(
        self,
        fetcher: Fetcher,
        place: Place,
        written: int,
        progress: Callable[[int, int], None],
    ) -> None:
        """Bring what is missing.

        Args:
            fetcher: untrusted bytes.
            place: gets verified bytes, in order, from the first segment that it does not have.
            written: bytes that `place` may have from before; they are read back and verified.
            progress: called with (bytes in place, bytes of the whole) after each segment.

        Raises:
            BadSegmentError: a segment failed twice, or the whole is not what was signed for.
            NotFoundError, RetryLaterError: a segment could not be had; those before stay.
            LocalFailureError: `place` failed.
        """
        total = hashlib.sha256()
        first = self._keep(place, written, total, progress)
        self._bring(fetcher, place, first, total, progress)
        if total.hexdigest() != self.sha256:
            raise BadSegmentError(
                f"{self.location} has the sha256 {total.hexdigest()}, expected {self.sha256}, "
                "though every segment matched its list",
                "its list of segments is wrong: the publisher must publish the artifact anew",
            )

    def _keep(
        self, place: Place, written: int, total: _Total, progress: Callable[[int, int], None]
    ) -> int:
        """Read back what is there from before; the first segment that is missing or wrong."""
        for index in range(len(self.segments)):
            offset, size = self.segments.offset(index), self.segments.size(index)
            if offset + size > written:
                return index
            data = place.read(offset, size)
            if not self.segments.matches(index, data):
                return index
            total.update(data)
            progress(offset + size, self.segments.length)
        return len(self.segments)

    def _bring(
        self,
        fetcher: Fetcher,
        place: Place,
        first: int,
        total: _Total,
        progress: Callable[[int, int], None],
    ) -> None:
        """The segments from `first` on, each of them verified before it is written."""
        if first == len(self.segments):
            return
        start = self.segments.offset(first)
        rest = bytearray()
        with _ended(fetcher.stream(self.location, start, self.segments.length - start)) as pieces:
            for index in range(first, len(self.segments)):
                offset, size = self.segments.offset(index), self.segments.size(index)
                data = _take(pieces, rest, size)
                if not self.segments.matches(index, data):
                    data = self._again(fetcher, index)
                total.update(data)
                place.write(offset, data)
                progress(offset + size, self.segments.length)
                del data  # or two segments would be in memory while the next one is collected

    def _again(self, fetcher: Fetcher, index: int) -> bytes:
        offset, size = self.segments.offset(index), self.segments.size(index)
        with _ended(fetcher.stream(self.location, offset, size)) as pieces:
            data = _take(pieces, bytearray(), size)
        if not self.segments.matches(index, data):
            raise BadSegmentError(
                f"bytes {offset} to {offset + size - 1} of {self.location} are not the bytes that "
                "were signed for, twice in a row; nothing of them was written",
                "a mirror or a proxy alters files; run the command again to try once more",
            )
        return data


@contextmanager
def _ended(pieces: Iterator[bytes]) -> Iterator[Iterator[bytes]]:
    """A transfer that is given up ends now.

    Each one that a mirror spoils would else keep its connection until the garbage is collected.
    """
    try:
        yield pieces
    finally:
        if isinstance(pieces, Generator):
            pieces.close()


def _take(pieces: Iterator[bytes], rest: bytearray, size: int) -> bytes:
    """Exactly `size` bytes; what is left of the last piece stays in `rest`."""
    taken, count = [bytes(rest)], len(rest)
    rest.clear()
    while count < size:
        piece = next(pieces, None)
        if piece is None:
            raise RetryLaterError(
                f"the transfer ended {size - count} bytes early",
                "run the command again; it goes on where it stopped",
            )
        taken.append(piece)
        count += len(piece)
    data = b"".join(taken)
    rest += data[size:]
    return data[:size]
