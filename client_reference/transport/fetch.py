"""`Fetcher` over HTTP: bounded in bytes and time, resumable, one connection kept per mirror.

`transport.policy` decides; this module opens sockets and keeps the books. Nothing that arrives is
trusted here. Every wait on the network is bounded by a pace: a grace, and from then on the
configured minimum rate over the whole transfer, so that neither a silent peer nor one that drips a
byte now and then holds the device. Time that the caller takes between two pieces does not count.
Every transfer is bounded in raw bytes too: headers, interim answers and trailers without end are
sent as fast as one likes.

Clock, sleep and randomness are passed in as `Ambient`. `ssl` is used for https only.
"""

from __future__ import annotations

import http.client
import io
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self, TypeVar

from client_reference.errors import (
    FirmrootError,
    NotFoundError,
    NotTrustedError,
    RetryLaterError,
    shortened,
)
from client_reference.transport.policy import (
    ROUNDS,
    Attempt,
    Degraded,
    Meaning,
    Mirror,
    Trust,
    attempts,
    backoff,
    content_start,
    encode,
    is_web_page,
    meaning,
    redirected,
)
from client_reference.values import frozen

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["Ambient", "HttpFetcher", "Roots", "Settings", "Traffic", "WebPageError"]

T = TypeVar("T")

PIECE = 64 * 1024
GRACE = 30.0
CONNECT = 15.0
REDIRECTS = 3
FRAME = 128 * 1024
"""Bytes that headers, redirects, error pages and reading ahead may take beside the body."""
EARNED = 64 * 1024
"""Bytes that a broken transfer must have brought to earn one more attempt."""

_OFFLINE = "check the network and run the same command again; nothing was changed"
_RENEW = "check this device's clock and the mirror's certificate, or allow degraded transport"


class WebPageError(RetryLaterError):
    """A web page stands where metadata should be: a captive portal, or a wrong mirror URL."""


class _TransportError(RetryLaterError):
    """One attempt failed.

    Attributes:
        again: whether the same mirror may answer better in a moment.
    """

    def __init__(self, message: str, *, again: bool = True) -> None:
        super().__init__(message, _OFFLINE)
        self.again = again


class _TlsError(_TransportError):
    """TLS failed: the certificate, or the protocol itself."""


@frozen
class Ambient:
    """What the outside gives: monotonic seconds, waiting, and a random fraction of 0 to 1."""

    monotonic: Callable[[], float]
    sleep: Callable[[float], None]
    fraction: Callable[[], float]


@frozen
class Roots:
    """Whose certificates a mirror may show.

    Attributes:
        system: the system's store.
        bundle: a PEM file of ours; None if there is none.
    """

    system: bool = True
    bundle: Path | None = None


@frozen
class Settings:
    """Where to fetch and how far to trust the way.

    Attributes:
        mirrors: at least one, in order.
        degraded: whether anything but verified TLS may be used.
        roots: for verified TLS.
        credentials: a header for verified TLS to configured mirrors, and nothing else.
        minimum_rate: bytes per second that a transfer must reach.
    """

    mirrors: tuple[Mirror, ...]
    degraded: Degraded = Degraded.ALLOW
    roots: Roots = field(default_factory=Roots)
    credentials: tuple[str, str] | None = None
    minimum_rate: int = 4096


@dataclass
class Traffic:
    """Every HTTP request sent, retries and 404s included, and bytes of bodies received."""

    requests: int = 0
    received: int = 0


class HttpFetcher:
    """See `transport.fetcher.Fetcher`. One object lives for one cycle.

    Attributes:
        traffic: what was sent and received so far.
        degraded: one sentence for each way below verified TLS that was used.
        fallen: those of them with a mirror for which verified TLS was expected.
    """

    def __init__(self, settings: Settings, ambient: Ambient) -> None:
        self.traffic = Traffic()
        self.degraded: dict[str, str] = {}
        self.fallen: dict[str, str] = {}
        self._settings = settings
        self._ambient = ambient
        self._connections: dict[Attempt, _Connection] = {}
        self._failed: dict[Mirror, Trust] = {}
        self._given_up: set[Mirror] = set()
        self._asked: Mirror | None = None
        self._contexts: dict[Trust, ssl.SSLContext] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def next_mirror(self) -> bool:
        """Give up, for this cycle, the mirror that answered last: what it sent did not verify.

        Returns:
            whether there is another one; none if nobody was asked since the last call, since what
            failed then came from no mirror, and would fail for ever.
        """
        if self._asked is None:
            return False
        self._given_up.add(self._asked)
        self._asked = None
        return len(self._given_up) < len(self._settings.mirrors)

    def fetch(self, path: str, max_length: int) -> bytes:
        """One whole object. See `Fetcher.fetch`."""
        return self._ask(path, lambda way: self._whole(way, path, max_length))

    def stream(self, path: str, offset: int, length: int) -> Iterator[bytes]:
        """Part of an object, from wherever it can be had. See `Fetcher.stream`."""
        at, end, broken = offset, offset + length, 0
        while at < end:
            answer = self._open(path, (at, end))
            try:
                for piece in answer.pieces(end - at):
                    at += len(piece)
                    self.traffic.received += len(piece)
                    yield piece
            except _TransportError as error:
                broken += 1
                self.next_mirror()
                if broken > ROUNDS + (at - offset) // EARNED:
                    raise RetryLaterError(
                        f"{path} broke off again and again: {error.message}", _OFFLINE
                    ) from error
            finally:
                answer.finish()

    def _open(self, path: str, span: tuple[int, int]) -> _Answer:
        return self._ask(path, lambda way: self._part(way, path, span))

    def _ask(self, path: str, once: Callable[[Attempt], T]) -> T:
        """Try the ways in order, in rounds, until one answers."""
        failures: dict[str, _TransportError | WebPageError] = {}
        for number in range(ROUNDS):
            if number:
                self._ambient.sleep(backoff(number - 1, self._ambient.fraction()))
            failures.clear()
            while (way := self._next_way(failures)) is not None:
                try:
                    return once(way)
                except (_TransportError, WebPageError) as error:
                    failures[_name(way)] = error
            if not any(isinstance(e, _TransportError) and e.again for e in failures.values()):
                break
        raise _summary(path, failures)

    def _next_way(self, failures: dict[str, _TransportError | WebPageError]) -> Attempt | None:
        mirrors = [one for one in self._settings.mirrors if one not in self._given_up]
        for way in attempts(
            mirrors or self._settings.mirrors, self._settings.degraded, self._failed
        ):
            if _name(way) not in failures:
                self._asked = way.origin
                return way
        return None

    def _whole(self, way: Attempt, path: str, max_length: int) -> bytes:
        answer = self._get(way, encode(way.mirror, path), {}, self._pace(max_length))
        try:
            if answer.meaning is not Meaning.WHOLE:
                raise _TransportError("answered a part of what was asked for", again=False)
            if (answer.length or 0) > max_length:
                raise _too_long(path, way, max_length)
            data = b"".join(answer.pieces(max_length + 1, exact=False))
            self.traffic.received += len(data)
        finally:
            answer.finish()
        if len(data) > max_length:
            raise _too_long(path, way, max_length)
        if path.startswith("metadata/") and is_web_page(answer.content_type, data):
            raise WebPageError(f"{way.mirror.url} answers {path} with a web page")
        return data

    def _part(self, way: Attempt, path: str, span: tuple[int, int]) -> _Answer:
        first, end = span
        headers = {"Range": f"bytes={first}-{end - 1}"}
        # A server that does not know ranges sends all that comes before the part.
        answer = self._get(way, encode(way.mirror, path), headers, self._pace(end))
        try:
            answer.go_to(first)
        except _TransportError:
            answer.finish()
            raise
        return answer

    def _get(self, way: Attempt, target: str, headers: dict[str, str], pace: _Pace) -> _Answer:
        """One object's answer, redirects followed as far as the policy allows."""
        for _ in range(REDIRECTS + 1):
            answer = self._exchange(way, target, headers, pace)
            if answer.meaning in {Meaning.WHOLE, Meaning.PART}:
                self._report(way)
                return answer
            answer.drop()
            if answer.meaning is Meaning.NOT_FOUND:
                self._report(way)
                raise NotFoundError(
                    f"{way.mirror.url} answers {answer.status} for {target}",
                    "check repository.mirrors in the device configuration",
                )
            if answer.meaning is not Meaning.REDIRECT:
                raise _TransportError(
                    f"answered {answer.status}", again=answer.meaning is Meaning.BUSY
                )
            place = answer.location or ""
            onward = redirected(way, target, place, self._settings.mirrors)
            if onward is None:
                raise _TransportError(
                    f"redirects to {place[:200]!r}, which is no configured mirror", again=False
                )
            way, target = onward
        raise _TransportError(f"redirects more than {REDIRECTS} times", again=False)

    def _exchange(self, way: Attempt, target: str, headers: dict[str, str], pace: _Pace) -> _Answer:
        """One request. A kept connection that the other side closed meanwhile is opened anew."""
        kept = self._connections.pop(way, None)
        if kept is not None and kept.sock is not None:
            try:
                return self._send(kept, way, target, headers, pace)
            except _TransportError:
                kept.close()
        return self._send(self._connect(way, pace), way, target, headers, pace)

    def _send(
        self,
        connection: _Connection,
        way: Attempt,
        target: str,
        headers: dict[str, str],
        pace: _Pace,
    ) -> _Answer:
        connection.paced.pace = pace
        sent = {"Host": way.mirror.authority, **headers}
        if way.trust is Trust.VERIFIED:
            sent["User-Agent"] = "firmroot-device"
            if self._settings.credentials is not None:
                name, value = self._settings.credentials
                sent[name] = value
        self.traffic.requests += 1
        try:
            connection.request("GET", target, headers=sent)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise _TransportError(_explain(error)) from error
        return _Answer(response, lambda: self._keep(way, connection, response))

    def _keep(
        self,
        way: Attempt,
        connection: _Connection,
        response: http.client.HTTPResponse,
    ) -> None:
        """A connection whose answer was not read to its end is out of step: close it.

        So is a second one: while a segment is fetched once more, two are in use for one mirror.
        """
        spare = way not in self._connections
        if spare and response.isclosed() and connection.sock is not None:
            self._connections[way] = connection
        else:
            response.close()
            connection.close()

    def _connect(self, way: Attempt, pace: _Pace) -> _Connection:
        mirror = way.mirror
        before = self._ambient.monotonic()
        try:
            raw = socket.create_connection((mirror.host, mirror.port), CONNECT)
        except OSError as error:
            raise _TransportError(_explain(error)) from error
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if way.trust is not Trust.PLAIN:
            raw = self._encrypt(raw, way)
        pace.spent += self._ambient.monotonic() - before
        return _Connection(mirror, _PacedSocket(raw, pace))

    def _encrypt(self, raw: socket.socket, way: Attempt) -> socket.socket:
        import ssl  # noqa: PLC0415 # a device that speaks plain HTTP does not pay for it

        try:
            return self._context(way.trust).wrap_socket(raw, server_hostname=way.mirror.host)
        except ssl.SSLEOFError as error:
            raw.close()
            raise _TransportError("the connection broke during the TLS handshake") from error
        except ssl.SSLError as error:
            raw.close()
            self._failed[way.mirror] = way.trust
            raise _TlsError(f"TLS failed: {_explain(error)}", again=False) from error
        except OSError as error:
            raw.close()
            raise _TransportError(_explain(error)) from error

    def _context(self, trust: Trust) -> ssl.SSLContext:
        if trust not in self._contexts:
            self._contexts[trust] = _tls_context(trust, self._settings.roots)
        return self._contexts[trust]

    def _pace(self, wanted: int) -> _Pace:
        # Twice: a body in small chunks comes with as much again around them.
        return _Pace(self._ambient.monotonic, self._settings.minimum_rate, FRAME + 2 * wanted)

    def _report(self, way: Attempt) -> None:
        if way.trust is not Trust.VERIFIED:
            told = f"{way.mirror.url} was read over {way.trust.value}"
            self.degraded[_name(way)] = told
            if way.origin.scheme == "https":
                self.fallen[_name(way)] = told


def _tls_context(trust: Trust, roots: Roots) -> ssl.SSLContext:
    import ssl  # noqa: PLC0415 # see `_encrypt`

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if trust is Trust.UNVERIFIED:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    if roots.system:
        context.load_default_certs()
    if roots.bundle is not None:
        try:
            context.load_verify_locations(roots.bundle)
        except (OSError, ssl.SSLError) as error:
            # A damaged bundle must not end updates: without its roots TLS fails, which is reported.
            if roots.system:
                return context
            raise ssl.SSLError(f"{roots.bundle} is no CA bundle: {error}") from error
    return context


def _name(way: Attempt) -> str:
    return f"{way.mirror.url} ({way.trust.value})"


def _explain(error: Exception) -> str:
    verify = getattr(error, "verify_message", "")
    if verify:
        return f"the certificate does not verify: {verify}"
    if isinstance(error, TimeoutError):
        return "no answer in time, or slower than download.minimum_rate"
    return shortened(error) or type(error).__name__


def _too_long(path: str, way: Attempt, max_length: int) -> NotTrustedError:
    return NotTrustedError(
        f"{path} at {way.mirror.url} is longer than the {max_length} bytes allowed"
    )


def _summary(path: str, failures: dict[str, _TransportError | WebPageError]) -> FirmrootError:
    if not failures:
        return RetryLaterError(
            f"{path} cannot be fetched: verified TLS failed with every mirror, and "
            'tls.degraded = "forbid"',
            _RENEW,
        )
    told = "; ".join(f"{name}: {error.message}" for name, error in failures.items())
    if any(isinstance(error, WebPageError) for error in failures.values()):
        return WebPageError(
            f"{path} cannot be fetched: {told}. Expected JSON, found HTML with status 200",
            "a captive portal or login page answers instead of the repository, or the mirror URL "
            "is wrong: open it in a browser, correct repository.mirrors",
        )
    tls = all(isinstance(error, _TlsError) for error in failures.values())
    return RetryLaterError(f"{path} cannot be fetched: {told}", _RENEW if tls else _OFFLINE)


@dataclass
class _Pace:
    """How long a transfer may still wait, judged by what it has brought.

    Attributes:
        monotonic: seconds.
        rate: bytes per second that it must reach after the grace.
        most: bytes that it may bring, all that is around the body included.
        spent: seconds waited so far.
        received: bytes so far.
    """

    monotonic: Callable[[], float]
    rate: int
    most: int
    spent: float = 0.0
    received: int = 0

    def left(self) -> float:
        """Seconds. Raises TimeoutError when there are none."""
        left = GRACE + self.received / self.rate - self.spent
        if left <= 0:
            raise TimeoutError
        return min(left, GRACE)


class _Connection(http.client.HTTPConnection):
    """A connection over a socket that was opened here, with the trust that was asked for."""

    auto_open = 0

    def __init__(self, mirror: Mirror, paced: _PacedSocket) -> None:
        super().__init__(mirror.host, mirror.port)
        self.paced = paced
        self.sock = paced


class _PacedSocket:
    """A socket as `http.client` uses one, each wait on it bounded by a pace."""

    def __init__(self, raw: socket.socket, pace: _Pace) -> None:
        self.pace = pace
        self._raw = raw
        self._readers = 0
        self._closing = False

    def makefile(self, _mode: str) -> io.BufferedReader:
        """A reader for one answer."""
        self._readers += 1
        return io.BufferedReader(_Reader(self), PIECE)

    def sendall(self, data: bytes) -> None:
        """Send a request."""
        self._raw.settimeout(self.pace.left())
        self._raw.sendall(data)

    def receive_into(self, buffer: memoryview) -> int:
        """Wait for bytes."""
        self._raw.settimeout(self.pace.left())
        before = self.pace.monotonic()
        count = self._raw.recv_into(buffer)
        self.pace.spent += self.pace.monotonic() - before
        self.pace.received += count
        if self.pace.received > self.pace.most:
            raise ConnectionError(f"more than {self.pace.most} bytes, far more than was asked for")
        return count

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

    def __init__(self, paced: _PacedSocket) -> None:
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


class _Answer:
    """An HTTP response whose body has not been read yet."""

    def __init__(self, response: http.client.HTTPResponse, finish: Callable[[], None]) -> None:
        self._response = response
        self.finish = finish
        self.status = response.status
        self.meaning = meaning(response.status)
        self.length = response.length
        self.content_type = response.getheader("Content-Type")
        self.location = response.getheader("Location")
        self.start = content_start(response.getheader("Content-Range"))

    def pieces(self, most: int, *, exact: bool = True) -> Iterator[bytes]:
        """The body, at most `most` bytes.

        Args:
            most: bytes.
            exact: whether an end before `most` is an error even if the server meant it.

        Raises:
            _TransportError: it ended early.
        """
        left = most
        announced = self._response.length
        while left:
            try:
                piece = self._response.read(min(PIECE, left))
            except (OSError, http.client.HTTPException, ValueError) as error:
                # A ValueError is a chunk of negative length. One of -1 is read as "all there is".
                raise _TransportError(_explain(error)) from error
            if not piece:
                break
            left -= len(piece)
            yield piece
        got = most - left
        wanted = most if exact else min(most, got if announced is None else announced)
        if got < wanted:
            raise _TransportError(f"the body ended after {got} of {wanted} bytes")

    def drop(self) -> None:
        """Read the little that an error page is, so that the connection can be kept, and finish."""
        with suppress(_TransportError):
            if self._response.length is not None and self._response.length <= PIECE:
                for _ in self.pieces(PIECE, exact=False):
                    pass
        self.finish()

    def go_to(self, first: int) -> None:
        """Make the next byte of the body byte `first` of the object.

        Raises:
            _TransportError: the answer is another part than was asked for, or too short.
        """
        if self.meaning is Meaning.WHOLE:
            # The server does not know ranges.
            for _ in self.pieces(first):
                pass
        elif self.start != first:
            raise _TransportError(f"answered from byte {self.start}, asked for {first}")
