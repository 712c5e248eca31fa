"""An HTTP answer whose body is still to come: bounded, exact, and inflated if it must be."""

from __future__ import annotations

import http.client
from contextlib import suppress
from typing import TYPE_CHECKING

from client_reference.transport.pace import ODD, PIECE, TransportError, explain
from client_reference.transport.policy import Meaning, content_start, meaning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from client_reference.transport.pace import PacedSocket

__all__ = ["Answer", "inflate"]

_GZIP = 16 + 15
"""What zlib calls a gzip member with the largest window."""
_OVERHEAD = 1024
"""Bytes that gzip may add to what does not shrink: its frame, and one in a thousand."""


class Answer:
    """An HTTP response whose body has not been read yet.

    Attributes:
        finish: to be called when nothing more is wanted of it.
    """

    def __init__(
        self, response: http.client.HTTPResponse, paced: PacedSocket, finish: Callable[[], None]
    ) -> None:
        self._response = response
        self._paced = paced
        self.finish = finish
        self.status = response.status
        self.meaning = meaning(response.status)
        self.length = response.length
        self.content_type = response.getheader("Content-Type")
        self.coding = (response.getheader("Content-Encoding") or "identity").strip().lower()
        self.etag = response.getheader("ETag")
        self.location = response.getheader("Location")
        self.start = content_start(response.getheader("Content-Range"))

    def pieces(self, most: int, *, exact: bool = True) -> Iterator[bytes]:
        """The body as it is sent, at most `most` bytes.

        Args:
            most: bytes.
            exact: whether an end before `most` is an error even if the server meant it.

        Raises:
            TransportError: it ended early.
        """
        left = most
        announced = self._response.length
        self._paced.allow_body(most)
        while left:
            try:
                piece = self._response.read(min(PIECE, left))
            except (OSError, http.client.HTTPException, ValueError) as error:
                # A ValueError is a chunk of negative length. One of -1 is read as "all there is".
                raise TransportError(explain(error)) from error
            if not piece:
                break
            left -= len(piece)
            yield piece
        got = most - left
        wanted = most if exact else min(most, got if announced is None else announced)
        if got < wanted:
            raise TransportError(f"the body ended after {got} of {wanted} bytes")

    def whole(self, most: int, received: Callable[[int], None]) -> bytes | None:
        """The whole body, as it is sent; None if it is longer than `most`.

        Args:
            most: bytes.
            received: told the bytes of each piece.
        """
        if (self.length or 0) > most:
            return None
        return _bounded(self._counted(most, received), most)

    def inflated(self, most: int, received: Callable[[int], None]) -> bytes | None:
        """The whole body, which may be gzip; None if it is longer than `most`.

        Raises:
            TransportError: what was sent is no gzip, or was cut, or is in another coding.
        """
        if self.coding == "identity":
            return self.whole(most, received)
        if self.coding not in {"gzip", "x-gzip"}:
            raise TransportError(
                f"answered in the coding {self.coding[:40]!r}", again=False, hint=ODD
            )
        sent = most + most // 1000 + _OVERHEAD
        if (self.length or 0) > sent:
            return None
        return _bounded(inflate(self._counted(sent, received), most), most)

    def _counted(self, most: int, received: Callable[[int], None]) -> Iterator[bytes]:
        for piece in self.pieces(most + 1, exact=False):
            received(len(piece))
            yield piece

    def drop(self) -> None:
        """Read the little that an error page is, so that the connection can be kept, and finish.

        Attack: one in chunks, which `http.client` believes to be empty for its status (1xx, 204,
        304), may go on without an end.
        """
        with suppress(TransportError):
            chunked = self._response.getheader("Transfer-Encoding") is not None
            length = self._response.length
            if not chunked and length is not None and length <= PIECE:
                for _ in self.pieces(PIECE, exact=False):
                    pass
        self.finish()

    def go_to(self, first: int) -> None:
        """Make the next byte of the body byte `first` of the object.

        Raises:
            TransportError: the answer is another part than was asked for, or too short.
        """
        if self.meaning is Meaning.WHOLE:
            # The server does not know ranges.
            for _ in self.pieces(first):
                pass
        elif self.start != first:
            raise TransportError(f"answered from byte {self.start}, asked for {first}", hint=ODD)


def _bounded(pieces: Iterable[bytes], most: int) -> bytes | None:
    data = b"".join(pieces)
    return data if len(data) <= most else None


def inflate(pieces: Iterable[bytes], most: int) -> Iterator[bytes]:
    """What one gzip member holds, in pieces; it stops one byte above `most`.

    Attack: a few bytes that inflate to gigabytes. No more than `most` + 1 are ever made.

    Raises:
        TransportError: it is no gzip, or ended early, or something follows it.
    """
    import zlib  # noqa: PLC0415 # most answers are short, and are not compressed

    stream, left = zlib.decompressobj(wbits=_GZIP), most + 1
    try:
        for sent in pieces:
            rest = sent
            while rest and left and not stream.eof:
                data = stream.decompress(rest, left)
                left -= len(data)
                rest = stream.unconsumed_tail
                yield data
            if not left:
                return
            if stream.eof and (stream.unused_data or rest):
                raise TransportError("something follows the end of the gzip that it sent")
    except zlib.error as error:
        raise TransportError(f"what it sent is no gzip: {error}") from error
    if not stream.eof:
        raise TransportError("the gzip that it sent ended early")
