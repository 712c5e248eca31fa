"""Sockets whose every wait and every byte is bounded, and the errors of one attempt.

Two bounds, both over a whole transfer: time (a grace, and from then on the configured minimum rate,
so that neither a silent peer nor one that drips a byte now and then holds the device) and bytes on
the wire (so that a peer that is fast enough, but never comes to the point, ends as well: endless
headers, "100 Continue" for ever, chunks that are all frame and no content). And a connection that
was cut between two headers is not taken for an answer without a body.

Nothing here knows HTTP, mirrors or TLS.
"""

from __future__ import annotations

import io
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from client_reference.errors import RetryLaterError, shortened
from client_reference.values import frozen

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

__all__ = [
    "ODD",
    "OFFLINE",
    "Pace",
    "PacedSocket",
    "Patience",
    "TlsError",
    "TransportError",
    "explain",
]

PIECE = 64 * 1024
HEAD = 64 * 1024
"""Bytes that the head of an answer, everything before its body, may have."""
_FRAMES = 8
"""How often the length of a body may come over the wire: chunks of one byte cost six."""

OFFLINE = "check the network and run the same command again; it goes on from what was verified"
ODD = (
    "a mirror answers as none should: look at its configuration, check repository.mirrors in the "
    "device configuration, and what stands between"
)


class TransportError(RetryLaterError):
    """One attempt failed.

    Attributes:
        again: whether the same mirror may answer better in a moment.
    """

    def __init__(self, message: str, *, again: bool = True, hint: str = OFFLINE) -> None:
        super().__init__(message, hint)
        self.again = again


class TlsError(TransportError):
    """TLS failed: the certificate, or the protocol itself."""


class _EndlessError(OSError):
    """More bytes came than the answer may have."""


@frozen
class Patience:
    """How long the outside is waited for, in seconds.

    Attributes:
        connect: for the name, the connection, a proxy and the TLS handshake together.
        grace: for a transfer, before the minimum rate counts.
    """

    connect: float = 15.0
    grace: float = 30.0


@dataclass
class Pace:
    """How long a transfer may still wait, judged by what it has brought.

    Attributes:
        monotonic: seconds.
        rate: bytes per second that it must reach after the grace.
        grace: seconds.
        spent: seconds waited so far.
        received: bytes so far.
    """

    monotonic: Callable[[], float]
    rate: int
    grace: float
    spent: float = 0.0
    received: int = 0

    def left(self) -> float:
        """Seconds. Raises TimeoutError when there are none."""
        left = self.grace + self.received / self.rate - self.spent
        if left <= 0:
            raise TimeoutError
        return min(left, self.grace)


class PacedSocket:
    """A socket as `http.client` uses one, each wait on it bounded by a pace.

    Attributes:
        pace: of the transfer that goes on.
        ended: whether the other side has said its last.
    """

    def __init__(self, raw: socket.socket, pace: Pace) -> None:
        self.pace = pace
        self.ended = False
        self._raw = raw
        self._readers = 0
        self._closing = False
        self._allowed = 0

    def makefile(self, _mode: str) -> io.BufferedReader:
        """A reader for one answer."""
        self._readers += 1
        return _Lines(_Reader(self), PIECE)

    def allow_head(self) -> None:
        """A new answer begins."""
        self._allowed = HEAD

    def allow_body(self, length: int) -> None:
        """So many bytes of a body are wanted now; what frames them comes on top."""
        self._allowed += HEAD + _FRAMES * length

    def sendall(self, data: bytes) -> None:
        """Send a request."""
        with self._waiting():
            self._raw.sendall(data)

    def receive_into(self, buffer: memoryview) -> int:
        """Wait for bytes."""
        if self._allowed <= 0:
            raise _EndlessError("it sends more than any answer has, without an end")
        with self._waiting():
            count = self._raw.recv_into(buffer)
        self.pace.received += count
        self.ended = count == 0
        self._allowed -= count
        return count

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """One wait. It counts if it was in vain as well: the transfer may go on elsewhere."""
        self._raw.settimeout(self.pace.left())
        before = self.pace.monotonic()
        try:
            yield
        finally:
            self.pace.spent += self.pace.monotonic() - before

    def close(self) -> None:
        """Close the connection once no answer is being read from it any more."""
        self._closing = True
        if not self._readers:
            self._raw.close()

    def reader_closed(self) -> None:
        """One answer less."""
        self._readers -= 1
        if self._closing:
            self.close()


class _Reader(io.RawIOBase):
    """What one answer is read from."""

    def __init__(self, paced: PacedSocket) -> None:
        super().__init__()
        self._paced = paced

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # what io passes
        return self._paced.receive_into(buffer)

    def close(self) -> None:
        if not self.closed:
            self._paced.reader_closed()
        super().close()


class _Lines(io.BufferedReader):
    """A reader whose lines all end. `http.client` takes a cut for the end of the head."""

    def readline(self, size: int | None = -1) -> bytes:
        line = super().readline(size)
        if not line.endswith(b"\n") and len(line) != size:
            raise ConnectionError("the connection ended before the body of its answer")
        return line


def explain(error: Exception) -> str:
    """What went wrong, for a message."""
    verify = getattr(error, "verify_message", "")
    if verify:
        return f"the certificate does not verify: {verify}"
    if isinstance(error, TimeoutError):
        return "no answer in time, or slower than download.minimum_rate"
    return shortened(error) or type(error).__name__
