"""Opens connections: the name, an address that answers, a proxy and TLS, within one deadline.

Rules:

* A host may have several addresses, IPv6 and IPv4. Each gets its share of what is left of the
  deadline, so that one that does not answer costs time and nothing else.
* A proxy sees plain requests, or the host that it shall connect to; TLS is spoken through it with
  the mirror. What goes wrong with a proxy is a network failure: it never degrades anything.
* A client certificate is shown only where the caller asks for it.

`ssl` is imported for https only.
"""

from __future__ import annotations

import _thread
import http.client
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from client_reference.errors import ConfigurationError
from client_reference.transport.pace import (
    PacedSocket,
    Patience,
    TlsError,
    TransportError,
    explain,
)
from client_reference.transport.policy import Attempt, Trust
from client_reference.values import frozen

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Any

    from client_reference.transport.pace import Pace
    from client_reference.transport.policy import Mirror
    from client_reference.transport.proxy import ProxyServer

    Address = tuple[int, Any]
    """Family and socket address, as `socket.connect` wants it."""

__all__ = ["RENEW", "Certificate", "Connection", "Connector", "Roots", "system_addresses"]

RENEW = (
    "check this device's clock and the mirror's certificate; a newer CA bundle, or "
    'tls.degraded = "allow" in the device configuration, is the way out'
)
_NO_TLS = (
    "write http:// in repository.mirrors if it shall speak plain HTTP, correct the port there, or "
    "have it speak TLS"
)
_PROXY = "check that proxy, or correct what names it, and run the same command again"
_NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"})
"""What OpenSSL calls an answer that is no record of TLS."""
_MAX_REPLY = 8192
_MOST_INTERIM = 16


@frozen
class Roots:
    """Whose certificates a mirror may show.

    Attributes:
        system: the system's store.
        bundle: a PEM file of ours; None if there is none.
        image: the one that the image carries, where `bundle` is another that was accepted since. It
            goes on serving what is public: a bundle without the right authorities must not cut a
            device off from the next one, nor from the recovery anchor. Whoever hears a credential
            must be in `bundle` (design 8).
    """

    system: bool = True
    bundle: Path | None = None
    image: Path | None = None


@frozen
class Certificate:
    """What the device shows to mirrors that ask who it is: PEM files; `key` may be in `path`."""

    path: Path
    key: Path | None = None


def system_addresses(host: str, port: int) -> list[Address]:
    """Every address of a host, in the order that the system prefers. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, place) for family, _, _, _, place in found]


class _FinalAnswer(http.client.HTTPResponse):
    """The answer after those of status 1xx, which a client must skip (RFC 9110 15.2).

    `http.client` skips 100 alone, and takes a 103 of a CDN for the whole answer. All heads together
    share the bytes of one. 101 is final: what follows is another protocol, that nobody asked for.
    """

    def begin(self) -> None:
        """Read heads up to the one that counts."""
        super().begin()
        interim = 0
        while self.status // 100 == 1 and self.status != http.HTTPStatus.SWITCHING_PROTOCOLS:
            interim += 1
            if interim > _MOST_INTERIM:
                raise http.client.HTTPException(f"more than {_MOST_INTERIM} interim answers")
            # Without headers the next head is read, from the same buffer.
            self.headers = self.msg = None  # type: ignore[assignment] # as before the first head
            super().begin()


class Connection(http.client.HTTPConnection):
    """A connection over a socket that was opened here, with the trust that was asked for.

    Attributes:
        proxy: the one that reads the requests, if one does.
    """

    auto_open = 0
    response_class = _FinalAnswer

    def __init__(self, mirror: Mirror, paced: PacedSocket, proxy: ProxyServer | None) -> None:
        super().__init__(mirror.host, mirror.port)
        self.paced = paced
        self.sock = paced
        self.proxy = proxy
        self._absolute = f"http://{mirror.authority}" if proxy else ""

    def ask(self, target: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        """Send a request and read the head of its answer."""
        own = self.proxy.headers if self.proxy else {}
        self.paced.allow_head()
        self.request("GET", self._absolute + target, headers={**headers, **own})
        return self.getresponse()


@dataclass
class _Deadline:
    """When a connection must be there."""

    monotonic: Callable[[], float]
    end: float

    def left(self) -> float:
        """Seconds. Raises TimeoutError when there are none."""
        left = self.end - self.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class Connector:
    """Opens the connections of one cycle.

    Args:
        monotonic: seconds.
        patience: see there.
        resolve: addresses of a host and port; may block, may raise OSError.
        proxy: what a mirror is asked through; may raise ConfigurationError.
        roots: for verified TLS.
        certificate: for mirrors that ask who this device is.
    """

    def __init__(
        self,
        monotonic: Callable[[], float],
        patience: Patience,
        resolve: Callable[[str, int], Sequence[Address]],
        proxy: Callable[[Mirror], ProxyServer | None],
        roots: Roots,
        certificate: Certificate | None,
    ) -> None:
        self._monotonic = monotonic
        self._patience = patience
        self._resolve = resolve
        self._proxy = proxy
        self._roots = roots
        self._certificate = certificate
        self._contexts: dict[tuple[Trust, bool], ssl.SSLContext] = {}

    def forget(self, roots: Roots | None = None) -> None:
        """Read the bundles again for the next connection, or others from now on."""
        self._roots = self._roots if roots is None else roots
        self._contexts.clear()

    def open(self, way: Attempt, pace: Pace, *, identified: bool) -> Connection:
        """A connection to the mirror of an attempt, as trusted as it says.

        Args:
            way: where to, and how.
            pace: of the transfer that it is opened for; the time counts.
            identified: whether credentials will be sent, or the client certificate shown if the
                mirror asks for it.

        Raises:
            TlsError: TLS failed with the mirror itself.
            TransportError: anything else on the way failed.
            ConfigurationError: the client certificate or the proxy cannot be used.
        """
        before = self._monotonic()
        raw, proxy = self._opened(way, pace, identified=identified)
        pace.spent += self._monotonic() - before
        return Connection(way.mirror, PacedSocket(raw, pace), proxy)

    def shown(self, mirror: Mirror, pace: Pace) -> bytes:
        """The certificate that an https mirror shows, in DER. Nobody has verified it.

        Raises:
            As `open`.
        """
        way = Attempt(mirror, Trust.UNVERIFIED, mirror)
        raw, _ = self._opened(way, pace, identified=False)
        with raw:
            shown: bytes | None = cast("ssl.SSLSocket", raw).getpeercert(binary_form=True)
        return shown or b""

    def _opened(
        self, way: Attempt, pace: Pace, *, identified: bool
    ) -> tuple[socket.socket, ProxyServer | None]:
        """A socket to the mirror, and the proxy that will read the requests, if one does."""
        before = self._monotonic()
        try:
            end = before + min(self._patience.connect, pace.left())
        except TimeoutError as error:
            # A kept connection fell silent; what is left of the transfer's time is none.
            raise TransportError(explain(error)) from error
        deadline = _Deadline(self._monotonic, end)
        proxy = self._proxy_for(way)
        try:
            raw = self._reach(way.mirror if proxy is None else proxy, deadline)
        except TransportError as error:
            if proxy is None:
                raise
            raise TransportError(f"{proxy.named}: {error.message}", hint=_PROXY) from error
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if way.trust is not Trust.PLAIN:
                if proxy is not None:
                    _tunnel(raw, way.mirror, proxy, deadline)
                raw = self._encrypt(raw, way, deadline, identified=identified)
                proxy = None
        except BaseException:
            raw.close()
            raise
        return raw, proxy

    def _proxy_for(self, way: Attempt) -> ProxyServer | None:
        try:
            return self._proxy(way.mirror)
        except ConfigurationError as error:
            if way.as_configured:
                raise
            # A way below https that nobody configured, and its proxy is not one: one way less.
            raise TransportError(error.message, again=False) from error

    def _reach(self, place: Mirror | ProxyServer, deadline: _Deadline) -> socket.socket:
        """Connect to the first address that answers."""
        addresses = self._addresses(place.host, place.port, deadline)
        failure: OSError = OSError(f"{place.host} has no address")
        for number, (family, address) in enumerate(addresses):
            raw: socket.socket | None = None
            try:
                raw = socket.socket(family, socket.SOCK_STREAM)
                raw.settimeout(deadline.left() / (len(addresses) - number))
                raw.connect(address)
            except OSError as error:
                failure = error
                if raw is not None:
                    raw.close()
            else:
                return raw
        raise TransportError(explain(failure)) from failure

    def _addresses(self, host: str, port: int, deadline: _Deadline) -> Sequence[Address]:
        """The addresses of a host. The system's resolver knows no deadline: it is left alone."""
        try:
            literal = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
            )
            return [(family, place) for family, _, _, _, place in literal]
        except (OSError, UnicodeError):
            pass
        found: list[Sequence[Address] | Exception] = []
        done = _thread.allocate_lock()
        done.acquire()

        def look_up() -> None:
            try:
                found.append(self._resolve(host, port))
            except Exception as error:  # noqa: BLE001 # told to who waits
                found.append(error)
            finally:
                done.release()

        _thread.start_new_thread(look_up, ())
        if not done.acquire(timeout=deadline.left()):
            raise TransportError(f"the name {host} was not resolved in time")
        if isinstance(found[0], Exception):
            raise TransportError(f"{host}: {explain(found[0])}") from found[0]
        return found[0]

    def _encrypt(
        self, raw: socket.socket, way: Attempt, deadline: _Deadline, *, identified: bool
    ) -> socket.socket:
        import ssl  # noqa: PLC0415 # a device that speaks plain HTTP does not pay for it

        try:
            context = self._context(way.trust, identified=identified)
            # For the whole handshake: the ssl module counts it down over its reads and writes.
            raw.settimeout(deadline.left())
            # Attack: reset it now. Python takes such a socket without a handshake, and what is sent
            # over it would be sent in the clear.
            raw.getpeername()
            encrypted = context.wrap_socket(raw, server_hostname=way.mirror.host)
        except ssl.SSLEOFError as error:
            raise TransportError("the connection broke during the TLS handshake") from error
        except ssl.SSLError as error:
            why, hint = explain(error), RENEW
            if getattr(error, "reason", None) in _NOT_TLS:  # none if it was raised here
                why, hint = f"port {way.mirror.port} speaks no TLS ({why})", _NO_TLS
            raise TlsError(f"TLS failed: {why}", again=False, hint=hint) from error
        except (OSError, UnicodeError) as error:
            raise TransportError(explain(error)) from error
        if encrypted.version() is None:
            encrypted.close()
            raise TransportError("the connection broke before the TLS handshake")
        return encrypted

    def _context(self, trust: Trust, *, identified: bool) -> ssl.SSLContext:
        if (trust, identified) not in self._contexts:
            context = _context(trust, self._roots, identified=identified)
            if identified and self._certificate is not None:
                _identify(context, self._certificate)
            self._contexts[trust, identified] = context
        return self._contexts[trust, identified]


def _tunnel(raw: socket.socket, mirror: Mirror, proxy: ProxyServer, deadline: _Deadline) -> None:
    """Have a proxy connect to the mirror.

    Raises:
        TransportError: it did not.
    """
    named = proxy.named
    host = f"[{mirror.host}]" if ":" in mirror.host else mirror.host
    place = f"{host}:{mirror.port}"
    fields = {"Host": place, **proxy.headers}
    lines = [f"CONNECT {place} HTTP/1.1", *(f"{name}: {fields[name]}" for name in fields), "", ""]
    try:
        raw.settimeout(deadline.left())
        raw.sendall("\r\n".join(lines).encode())
        head = _reply(raw, deadline)
    except (OSError, UnicodeError) as error:
        raise TransportError(f"{named}: {explain(error)}", hint=_PROXY) from error
    from client_reference.transport.proxy import tunnel_status  # noqa: PLC0415 # proxies are rare

    status = tunnel_status(head)
    if status is None:
        text = f"{named} does not answer as a proxy does"
        raise TransportError(text, again=False, hint=_PROXY)
    if status == http.HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        text = f"{named} asks for a user name and password"
        raise TransportError(text, again=False, hint=_PROXY)
    if status // 100 != 2:  # noqa: PLR2004 # any success, RFC 9110 9.3.6
        raise TransportError(f"{named} answered {status} to CONNECT {place}", hint=_PROXY)


def _reply(raw: socket.socket, deadline: _Deadline) -> bytes:
    """Everything up to the empty line, and nothing after it: the next byte belongs to TLS."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        raw.settimeout(deadline.left())
        piece = raw.recv(1)
        if not piece:
            raise OSError("it closed the connection")
        head += piece
        if len(head) > _MAX_REPLY:
            return b""
    return head


def _context(trust: Trust, roots: Roots, *, identified: bool) -> ssl.SSLContext:
    import ssl  # noqa: PLC0415 # see `_encrypt`

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if trust is Trust.UNVERIFIED:
        # Nothing rests on it, so any version will do: it is still no worse than plain HTTP.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.set_ciphers("ALL:@SECLEVEL=0")
        return context
    if roots.system:
        context.load_default_certs()
    usable = roots.system
    failure: OSError | None = None
    for bundle in (roots.bundle, None if identified else roots.image):
        if bundle is not None:
            try:
                context.load_verify_locations(bundle)
                usable = True
            except (OSError, ssl.SSLError) as error:
                # A damaged bundle must not end updates: without its roots TLS fails, and is
                # reported.
                failure = failure or error
    if not usable and failure is not None:
        # Of one argument alone, Python would show a tuple.
        raise ssl.SSLError(1, f"{roots.bundle} is no CA bundle: {failure}") from failure
    return context


def _identify(context: ssl.SSLContext, certificate: Certificate) -> None:
    import ssl  # noqa: PLC0415 # see `_encrypt`

    def no_password() -> str:
        # Without it OpenSSL asks on the terminal, and a device waits for ever.
        raise ValueError("the key is encrypted")

    try:
        context.load_cert_chain(certificate.path, certificate.key, no_password)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise ConfigurationError(
            f"repository.client_certificate: {certificate.path} cannot be used: {explain(error)}",
            "it must be a PEM certificate; repository.client_key its private key, not encrypted",
        ) from error
