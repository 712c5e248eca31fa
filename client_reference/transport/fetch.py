"""`Fetcher` over HTTP: mirrors, retries and redirects; resumable, one connection kept per way.

`transport.policy` decides, `transport.connect` opens connections, `transport.pace` bounds every
wait, `transport.answer` reads bodies; this module makes the attempts and keeps the books. Nothing
that arrives is trusted here. Time that the caller takes between two pieces does not count.

What a request may say about the device (design 8, degraded transport):

* Credentials, a header or a client certificate, only for artifacts, over verified TLS, to
  configured mirrors, and never because of a redirect that came over less. For everything else
  nobody is told who asks.
* An ETag only to the mirror that gave it, asked as it is configured, never below that.
* A user agent over verified TLS only.

Clock, sleep, randomness and the resolver are passed in as `Ambient`.
"""

from __future__ import annotations

import http.client
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self, TypeVar

from client_reference.errors import FirmrootError, NotFoundError, NotTrustedError, RetryLaterError
from client_reference.transport.answer import Answer
from client_reference.transport.connect import (
    RENEW,
    Certificate,
    Connection,
    Connector,
    Roots,
    system_addresses,
)
from client_reference.transport.pace import (
    ODD,
    OFFLINE,
    Pace,
    Patience,
    TlsError,
    TransportError,
    explain,
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
    encode,
    is_artifact,
    is_web_page,
    preferred,
    redirected,
)
from client_reference.values import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from client_reference.transport.connect import Address
    from client_reference.transport.memory import Memory
    from client_reference.transport.proxy import ProxyServer

__all__ = [
    "Ambient",
    "Certificate",
    "HttpFetcher",
    "Patience",
    "Roots",
    "Settings",
    "Traffic",
    "WebPageError",
]

T = TypeVar("T")

REDIRECTS = 3
EARNED = 64 * 1024
"""Bytes that a broken transfer must have brought to earn one more attempt."""

_NOT_THERE = "check repository.mirrors in the device configuration"
_FORBIDDEN = (
    "a bucket without permission to list answers 403 for what is not there; otherwise "
    "repository.credentials or repository.client_certificate is missing or not accepted"
)


class WebPageError(RetryLaterError):
    """A web page stands where metadata should be: a captive portal, or a wrong mirror URL."""


def _no_proxy(_mirror: Mirror) -> ProxyServer | None:
    return None


@frozen
class Ambient:
    """What the outside gives.

    Attributes:
        monotonic: seconds.
        sleep: waits.
        fraction: random, 0 to 1.
        resolve: addresses of a host and port; may block, may raise OSError.
        patience: how long the outside is waited for.
    """

    monotonic: Callable[[], float]
    sleep: Callable[[float], None]
    fraction: Callable[[], float]
    resolve: Callable[[str, int], Sequence[Address]] = system_addresses
    patience: Patience = field(default_factory=Patience)


@frozen
class Settings:
    """Where to fetch and how far to trust the way.

    Attributes:
        mirrors: at least one, in order.
        degraded: whether anything but verified TLS may be used.
        roots: for verified TLS.
        credentials: a header for artifacts over verified TLS to configured mirrors, nothing else.
        certificate: likewise, for mirrors that ask who this device is.
        proxy: what a mirror is asked through; None to reach it directly.
        minimum_rate: bytes per second that a transfer must reach.
    """

    mirrors: tuple[Mirror, ...]
    degraded: Degraded = Degraded.ALLOW
    roots: Roots = field(default_factory=Roots)
    credentials: tuple[str, str] | None = field(default=None, repr=False)
    certificate: Certificate | None = None
    proxy: Callable[[Mirror], ProxyServer | None] = _no_proxy
    minimum_rate: int = 4096


@dataclass
class Traffic:
    """Every HTTP request sent, retries and 404s included, and bytes of bodies received."""

    requests: int = 0
    received: int = 0


@frozen
class _Wanted:
    """What is asked for. The same wherever and however it is asked.

    Attributes:
        path: of the object in the repository.
        headers: that say which part, and how it may be coded.
        etag: asks for nothing if the object is still the one with this ETag; may be empty.
        known: whether it may be asked for with credentials.
    """

    path: str
    headers: dict[str, str]
    etag: str = ""
    known: bool = False


class HttpFetcher:
    """See `transport.fetcher.Fetcher`. One object lives for one cycle.

    Args:
        settings: where to fetch.
        ambient: see there.
        memory: what the last cycle left; `remember` adds to it.

    Attributes:
        traffic: what was sent and received so far.
        degraded: one sentence for each way below verified TLS that was used.
        fallen: those of them with a mirror for which verified TLS was expected.
        forbidden: one sentence for each mirror that answered 403.
        failures: what was wrong last with a mirror, by URL, whether or not another one helped.
    """

    def __init__(self, settings: Settings, ambient: Ambient, memory: Memory | None = None) -> None:
        self.traffic = Traffic()
        self.degraded: dict[str, str] = {}
        self.fallen: dict[str, str] = {}
        self.forbidden: dict[str, str] = {}
        self.failures: dict[str, str] = {}
        self._settings = settings
        self._ambient = ambient
        self._memory = memory
        self._mirrors = preferred(settings.mirrors, "" if memory is None else memory.mirror)
        self._connector = Connector(
            ambient.monotonic,
            ambient.patience,
            ambient.resolve,
            settings.proxy,
            settings.roots,
            settings.certificate,
        )
        self._connections: dict[tuple[Attempt, bool], Connection] = {}
        self._failed: dict[Mirror, Trust] = {}
        self._reasons: dict[Mirror, str] = {}
        self._given_up: set[Mirror] = set()
        self._uncached: set[Mirror] = set()
        self._closed = False
        self._asked: Mirror | None = None
        self._answered: Mirror | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._closed = True
        self._hang_up()

    def remember(self) -> None:
        """Keep for the next cycle which mirror answered. Without news nothing is written."""
        mirror = self._answered
        if self._memory is not None and mirror is not None and mirror not in self._given_up:
            self._memory.keep(mirror.url, first=mirror == self._settings.mirrors[0])

    def another_way(self, why: str = "") -> bool:
        """Turn away from the mirror that answered last: what it sent did not verify.

        A cache before it may be what is stale or damaged, so it is asked once more past all caches
        (RFC 9111, 5.2.1.4); then it is given up for this cycle.

        Args:
            why: what was wrong, for `failures`.

        Returns:
            whether there is another way; none if nobody was asked since the last call, since what
            failed then came from no mirror, and would fail for ever.
        """
        asked = self._asked
        if asked is None:
            return False
        if why:
            self.failures[asked.url] = why
        if asked not in self._uncached:
            self._asked = None
            self._uncached.add(asked)
            return True
        return self._give_up()

    def _give_up(self) -> bool:
        """Ask others than the mirror that was asked last; whether there is one."""
        if self._asked is not None:
            self._given_up.add(self._asked)
            self._asked = None
        return len(self._given_up) < len(self._mirrors)

    def every_mirror(self) -> None:
        """Ask every mirror again, and anew: the repository that was asked for has ended."""
        self._given_up.clear()
        self._uncached.clear()
        self._hang_up()
        self._connector.forget()

    def use_roots(self, roots: Roots) -> None:
        """Believe other authorities from now on, and try verified TLS anew with every mirror.

        Attack: whoever has the key of an old authority hears credentials until the process ends.
        """
        self._settings = replace(self._settings, roots=roots)
        self._failed.clear()
        self._reasons.clear()
        self._hang_up()
        self._connector.forget(roots)

    def _hang_up(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

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
            except TransportError as error:
                broken += 1
                if self._asked is not None:
                    self.failures[self._asked.url] = error.message
                self._give_up()
                if broken > ROUNDS + (at - offset) // EARNED:
                    raise RetryLaterError(
                        f"{path} broke off again and again: {error.message}", OFFLINE
                    ) from error
            finally:
                answer.finish()

    def _open(self, path: str, span: tuple[int, int]) -> Answer:
        return self._ask(path, lambda way: self._part(way, path, span))

    def _ask(self, path: str, once: Callable[[Attempt], T]) -> T:
        """Try the ways in order, in rounds, until one answers."""
        failures: dict[str, TransportError | WebPageError] = {}
        for number in range(ROUNDS):
            if number:
                self._ambient.sleep(backoff(number - 1, self._ambient.fraction()))
            failures.clear()
            while (way := self._next_way(failures)) is not None:
                try:
                    answer = once(way)
                except (TransportError, WebPageError) as error:
                    failures[_name(way)] = error
                    self.failures[way.origin.url] = error.message
                else:
                    self._answered = way.origin
                    return answer
            if not any(isinstance(e, TransportError) and e.again for e in failures.values()):
                break
        raise _summary(path, failures)

    def _next_way(self, failures: dict[str, TransportError | WebPageError]) -> Attempt | None:
        mirrors = [one for one in self._mirrors if one not in self._given_up]
        for way in attempts(mirrors or self._mirrors, self._settings.degraded, self._failed):
            if _name(way) not in failures:
                self._asked = way.origin
                return way
        return None

    def _whole(self, way: Attempt, path: str, max_length: int) -> bytes:
        etag, stored = "", b""
        if self._memory is not None and way.as_configured and way.origin not in self._uncached:
            etag, stored = self._memory.condition(way.mirror.url, path)
        metadata = path.startswith("metadata/")
        coding = {"Accept-Encoding": "gzip"} if metadata else {}
        wanted = _Wanted(path, coding, etag, is_artifact(path))
        answer, found_at = self._get(way, wanted, self._pace())
        try:
            if answer.meaning is Meaning.UNCHANGED:
                answer.drop()
                return stored
            if answer.meaning is not Meaning.WHOLE:
                raise TransportError("answered a part of what was asked for", again=False, hint=ODD)
            read = answer.inflated if metadata else answer.whole
            data = read(max_length, self._count)
        finally:
            answer.finish()
        if data is None:
            raise _too_long(path, way, max_length)
        if metadata and is_web_page(answer.content_type, data):
            raise WebPageError(f"{way.mirror.url} answers {path} with a web page")
        if self._memory is not None and path.endswith("/timestamp.json"):
            # An ETag from below what is configured, or from elsewhere, is never sent back.
            own = way.as_configured and found_at == way
            self._memory.received(way.mirror.url, path, answer.etag if own else None, data)
        return data

    def _count(self, length: int) -> None:
        self.traffic.received += length

    def _part(self, way: Attempt, path: str, span: tuple[int, int]) -> Answer:
        first, end = span
        wanted = _Wanted(path, {"Range": f"bytes={first}-{end - 1}"}, known=is_artifact(path))
        answer, _ = self._get(way, wanted, self._pace())
        try:
            answer.go_to(first)
        except TransportError:
            answer.finish()
            raise
        return answer

    def _get(self, way: Attempt, wanted: _Wanted, pace: Pace) -> tuple[Answer, Attempt]:
        """One object's answer, redirects followed as far as the policy allows, and who gave it."""
        target, etag = encode(way.mirror, wanted.path), wanted.etag
        for _ in range(REDIRECTS + 1):
            answer = self._exchange(way, target, self._headers(way, wanted, etag), wanted, pace)
            conditional, etag = bool(etag), ""
            if answer.meaning in {Meaning.WHOLE, Meaning.PART} or (
                answer.meaning is Meaning.UNCHANGED and conditional
            ):
                self._report(way)
                return answer, way
            answer.drop()
            if answer.meaning is Meaning.NOT_FOUND:
                self._report(way)
                raise self._not_found(answer, way, target, wanted)
            if answer.meaning is not Meaning.REDIRECT:
                busy = answer.meaning is Meaning.BUSY
                raise TransportError(
                    f"answered {answer.status}", again=busy, hint=OFFLINE if busy else ODD
                )
            place = answer.location or ""
            onward = redirected(way, target, place, self._settings.mirrors)
            if onward is None:
                raise TransportError(
                    f"redirects to {place[:200]!r}, which is no configured mirror",
                    again=False,
                    hint=ODD,
                )
            if way.trust is not Trust.VERIFIED:
                # Attack: whoever is on the way has the secret sent to any place of a mirror's host.
                wanted = replace(wanted, known=False)
            way, target = onward
        raise TransportError(f"redirects more than {REDIRECTS} times", again=False, hint=ODD)

    def _not_found(
        self, answer: Answer, way: Attempt, target: str, wanted: _Wanted
    ) -> NotFoundError:
        """The other side says that it is not there. With a 403 it may mean something else."""
        message = f"{way.mirror.url} answers {answer.status} for {target}"
        if answer.status != http.HTTPStatus.FORBIDDEN:
            return NotFoundError(message, _NOT_THERE)
        self.forbidden.setdefault(
            way.mirror.url,
            f"mirror {way.mirror.url} answers 403 for {wanted.path}, which is taken as not there: "
            "it may be a bucket without list permission, or credentials are missing",
        )
        return NotFoundError(message, _FORBIDDEN)

    def _headers(self, way: Attempt, wanted: _Wanted, etag: str) -> dict[str, str]:
        """Everything that a request says; see the rules of this module."""
        sent = {"Host": way.mirror.authority, **wanted.headers}
        if etag:
            sent["If-None-Match"] = etag
        if way.origin in self._uncached:
            sent["Cache-Control"] = "no-cache"
        if way.trust is Trust.VERIFIED:
            sent["User-Agent"] = "firmroot-device"
            if self._settings.credentials is not None and wanted.known:
                name, value = self._settings.credentials
                sent[name] = value
        return sent

    def _identified(self, way: Attempt, wanted: _Wanted) -> bool:
        """Whether this needs a connection of its own, since it tells the mirror who asks.

        A header does only where fewer authorities serve for it than for what is public.
        """
        settings = self._settings
        header = settings.credentials is not None and settings.roots.image is not None
        known = settings.certificate is not None or header
        return known and way.trust is Trust.VERIFIED and wanted.known

    def _exchange(
        self, way: Attempt, target: str, headers: dict[str, str], wanted: _Wanted, pace: Pace
    ) -> Answer:
        """One request. A kept connection that the other side closed meanwhile is opened anew."""
        place = way, self._identified(way, wanted)
        kept = self._connections.pop(place, None)
        if kept is not None and kept.sock is not None:
            kept.paced.pace = pace
            try:
                return self._send(kept, place, target, headers)
            except TransportError:
                kept.close()
        try:
            opened = self._connector.open(way, pace, identified=place[1])
        except TlsError as error:
            self._failed[way.mirror] = way.trust
            self._reasons.setdefault(way.mirror, error.message)
            raise
        return self._send(opened, place, target, headers)

    def _send(
        self,
        connection: Connection,
        place: tuple[Attempt, bool],
        target: str,
        headers: dict[str, str],
    ) -> Answer:
        self.traffic.requests += 1
        try:
            response = connection.ask(target, headers)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            # What http.client cannot read is the mirror's; what breaks off is the network's.
            hint = OFFLINE if isinstance(error, OSError) else ODD
            through = "" if connection.proxy is None else f"{connection.proxy.named}: "
            raise TransportError(through + explain(error), hint=hint) from error
        return Answer(response, connection.paced, lambda: self._keep(place, connection, response))

    def _keep(
        self,
        place: tuple[Attempt, bool],
        connection: Connection,
        response: http.client.HTTPResponse,
    ) -> None:
        """A connection whose answer was not read to its end is out of step: close it.

        And a second one to the same place: a segment was fetched again amid a stream.
        """
        usable = response.isclosed() and connection.sock is not None and not connection.paced.ended
        # A stream that its reader abandoned may end after this object was closed.
        if usable and not self._closed and self._connections.get(place, connection) is connection:
            self._connections[place] = connection
        else:
            response.close()
            connection.close()

    def _pace(self) -> Pace:
        patience = self._ambient.patience
        return Pace(self._ambient.monotonic, self._settings.minimum_rate, patience.grace)

    def _report(self, way: Attempt) -> None:
        if way.trust is not Trust.VERIFIED:
            reason = self._reasons.get(way.origin)
            told = f"{way.mirror.url} was read over {way.trust.value}"
            self.degraded[_name(way)] = told + (f" ({reason})" if reason else "")
            if way.origin.scheme == "https":
                self.fallen[_name(way)] = self.degraded[_name(way)]


def _name(way: Attempt) -> str:
    return f"{way.mirror.url} ({way.trust.value})"


def _too_long(path: str, way: Attempt, max_length: int) -> NotTrustedError:
    return NotTrustedError(
        f"{path} at {way.mirror.url} is longer than the {max_length} bytes allowed",
        "the mirror serves another file, or one without an end; another mirror may help",
    )


def _summary(path: str, failures: dict[str, TransportError | WebPageError]) -> FirmrootError:
    if not failures:
        return RetryLaterError(
            f"{path} cannot be fetched: verified TLS failed with every mirror, and "
            'tls.degraded = "forbid"',
            RENEW,
        )
    told = "; ".join(f"{name}: {error.message}" for name, error in failures.items())
    if any(isinstance(error, WebPageError) for error in failures.values()):
        return WebPageError(
            f"{path} cannot be fetched: {told}. Expected JSON, found HTML with status 200",
            "a captive portal or login page answers instead of the repository, or the mirror URL "
            "is wrong: open it in a browser, correct repository.mirrors",
        )
    hints = {error.hint for error in failures.values()}
    tls = all(isinstance(error, TlsError) for error in failures.values())
    hint = hints.pop() if len(hints) == 1 else RENEW if tls else OFFLINE
    return RetryLaterError(f"{path} cannot be fetched: {told}", hint)
