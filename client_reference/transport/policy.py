"""Pure: what a transport may do, in which order, and what an answer means.

Rules (design 8, degraded transport):

* Mirrors are asked in the order of the configuration. A mirror that answers "not there" has
  answered; one that fails to answer is followed by the next.
* Verified TLS is tried first in each cycle. Only if TLS itself fails with a mirror, the certificate
  first of all, may the same public object be fetched over unverified TLS or plain HTTP, and only
  where the configuration allows it. A network failure never degrades anything.
* A degraded request carries nothing that identifies or authorises: no credentials, no cookies, no
  ETag, no user agent.
* A redirect is followed only to a configured mirror's host, and never from verified TLS to less.
* Credentials are for artifacts. Metadata, manifests, holds and `trust/` are public: who asks for
  them says nothing about itself.
* The mirror that worked last time is asked first, but plain HTTP never before verified TLS: who
  can block TLS for one day must not have the device on plain HTTP from then on.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urljoin, urlsplit

from client_reference.errors import ConfigurationError, NotTrustedError
from client_reference.values import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "ROUNDS",
    "Attempt",
    "Degraded",
    "Meaning",
    "Mirror",
    "Trust",
    "attempts",
    "backoff",
    "content_start",
    "encode",
    "is_artifact",
    "is_web_page",
    "meaning",
    "parse_mirror",
    "preferred",
    "redirected",
    "strong_etag",
]

ROUNDS = 3
"""How often all mirrors are asked before it is "retry later"."""
_FIRST_PAUSE = 0.5
_MAX_ETAG = 128
_PORTS = {"https": 443, "http": 80}
_MAX_DIGITS = 18
"""Of a position in an object; int() refuses more than 4300 with an error of its own."""
_QUERY = "/?:@!$&'()*+,;=-._~%"
"""What stands for itself in a query (RFC 3986, 3.4), the percent of what is encoded already too."""


class Degraded(enum.Enum):
    """Whether public objects may be fetched without verified TLS."""

    ALLOW = "allow"
    FORBID = "forbid"


class Trust(enum.Enum):
    """How much a connection is worth, best first."""

    VERIFIED = "verified TLS"
    UNVERIFIED = "unverified TLS"
    PLAIN = "plain HTTP"


class Meaning(enum.Enum):
    """What an HTTP status says about the object."""

    WHOLE = "whole"
    PART = "part"
    UNCHANGED = "unchanged"
    NOT_FOUND = "not found"
    REDIRECT = "redirect"
    BUSY = "busy"
    REFUSED = "refused"


@frozen
class Mirror:
    """Where a repository is served.

    Attributes:
        scheme: `https` or `http`.
        host: name or address.
        port: TCP port.
        base: percent-encoded path that ends with a slash.
    """

    scheme: str
    host: str
    port: int
    base: str

    @property
    def authority(self) -> str:
        """Host and port as in a URL; the port only if it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """As written in the configuration."""
        return f"{self.scheme}://{self.authority}{self.base}"


@frozen
class Attempt:
    """One way to ask for an object.

    Attributes:
        mirror: where to connect.
        trust: how.
        origin: the configured mirror that this is a way to.
    """

    mirror: Mirror
    trust: Trust
    origin: Mirror

    @property
    def as_configured(self) -> bool:
        """Whether this is how the configuration wants the mirror asked, and no way below it."""
        return self.mirror == self.origin and self.trust is _configured(self.mirror)


def parse_mirror(url: str) -> Mirror:
    """Read the URL of a mirror.

    Raises:
        ConfigurationError: it is no URL that a repository can be at.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigurationError(f"mirror {url!r} is not a URL: {error}") from error
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ConfigurationError(f"mirror {url!r} must begin with https:// or http:// and a host")
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError(
            f"the mirror at {parts.hostname} has a user name in its URL, which anyone can read",
            "put the header into a file and name it in repository.credentials",
        )
    if parts.query or parts.fragment:
        raise ConfigurationError(f"mirror {url!r} must not have a query or a fragment")
    base = quote(unquote(parts.path), safe="/").rstrip("/") + "/"
    return Mirror(parts.scheme, _host(parts.hostname, url), port or _PORTS[parts.scheme], base)


def _host(name: str, url: str) -> str:
    """A host as it is written in a request, which takes letters, digits and signs of ASCII only."""
    try:
        host = name if name.isascii() else name.encode("idna").decode()
    except UnicodeError as error:
        raise ConfigurationError(f"mirror {url!r} has a host that is no name: {error}") from error
    if not host.isprintable() or " " in host:
        raise ConfigurationError(f"mirror {url!r} has a host with a space or a control character")
    return host


def preferred(mirrors: Sequence[Mirror], worked: str) -> tuple[Mirror, ...]:
    """The mirrors in the order in which they are asked.

    Args:
        mirrors: in the order of the configuration.
        worked: URL of the one that worked last time, an untrusted hint; empty if there is none.
    """
    # One that is written twice is one: it would never be given up often enough (`another_way`).
    once = tuple(dict.fromkeys(mirrors))
    remembered = next((mirror for mirror in once if mirror.url == worked), None)
    if remembered is None:
        return once
    rest = [mirror for mirror in once if mirror != remembered]
    safer = [one for one in rest if one.scheme == "https" and remembered.scheme == "http"]
    return (*safer, remembered, *(one for one in rest if one not in safer))


def attempts(
    mirrors: Sequence[Mirror], degraded: Degraded, failed: Mapping[Mirror, Trust]
) -> tuple[Attempt, ...]:
    """The ways to ask, best first.

    Args:
        mirrors: in the order of the configuration.
        degraded: whether anything below verified TLS may be used.
        failed: the least trust with which TLS failed for a mirror in this cycle.
    """
    intact = [mirror for mirror in mirrors if mirror not in failed]
    ways = [Attempt(mirror, _configured(mirror), mirror) for mirror in intact]
    if degraded is Degraded.FORBID:
        return tuple(way for way in ways if way.trust is Trust.VERIFIED)
    for mirror in mirrors:
        if failed.get(mirror) is Trust.VERIFIED:
            ways.append(Attempt(mirror, Trust.UNVERIFIED, mirror))
        elif failed.get(mirror) is Trust.UNVERIFIED and mirror.port == _PORTS["https"]:
            plain = Mirror("http", mirror.host, _PORTS["http"], mirror.base)
            ways.append(Attempt(plain, Trust.PLAIN, mirror))
    return tuple(ways)


def _configured(mirror: Mirror) -> Trust:
    return Trust.VERIFIED if mirror.scheme == "https" else Trust.PLAIN


def backoff(round_number: int, fraction: float) -> float:
    """Seconds to wait after a round in which every mirror failed.

    Args:
        round_number: 0 after the first round.
        fraction: random, 0 to 1; without it all devices would come back at the same moment.
    """
    return float(_FIRST_PAUSE * 2**round_number * (1 + fraction))


def encode(mirror: Mirror, path: str) -> str:
    """The request target for a repository path.

    Raises:
        NotTrustedError: the path would leave the repository.
    """
    if any(segment in {"", ".", ".."} for segment in path.split("/")):
        raise NotTrustedError(f"the path {path!r} has a segment that no repository has")
    return mirror.base + quote(path, safe="/")


def meaning(status: int) -> Meaning:
    """What a status code says. Only 403 and 404 are "not there" (S3 answers 403 for it)."""
    known = {
        200: Meaning.WHOLE,
        206: Meaning.PART,
        304: Meaning.UNCHANGED,
        403: Meaning.NOT_FOUND,
        404: Meaning.NOT_FOUND,
    }
    if status in known:
        return known[status]
    if status in {301, 302, 303, 307, 308}:
        return Meaning.REDIRECT
    if status in {408, 425, 429} or status >= 500:  # noqa: PLR2004 # server errors by RFC 9110
        return Meaning.BUSY
    return Meaning.REFUSED


def content_start(content_range: str | None) -> int | None:
    """The first byte of a partial answer by its Content-Range, None if that cannot be read."""
    unit, _, rest = (content_range or "").partition(" ")
    first = rest.partition("-")[0]
    if unit != "bytes" or not first.isdecimal() or len(first) > _MAX_DIGITS:
        return None
    return int(first)


def strong_etag(header: str | None) -> str:
    """An ETag that may be sent back; empty if it may not.

    A weak one does not promise the same bytes. A long one is a name for this device, not a version.
    """
    etag = (header or "").strip()
    quoted = etag.startswith('"') and etag.endswith('"') and etag.count('"') == len('""')
    short = len(etag) <= _MAX_ETAG and etag.isascii() and etag.isprintable()
    return etag if quoted and short else ""


def is_artifact(path: str) -> bool:
    """Whether an object may need credentials. Everything else is public (design 8)."""
    return path.startswith("targets/builds/")


def is_web_page(content_type: str | None, start: bytes) -> bool:
    """Whether an answer is HTML: a captive portal, a login page, a parked domain."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    return kind in {"text/html", "application/xhtml+xml"} or start.lstrip()[:1] == b"<"


def redirected(
    attempt: Attempt, target: str, location: str, mirrors: Sequence[Mirror]
) -> tuple[Attempt, str] | None:
    """Where a redirect leads, None if it must not be followed.

    Args:
        attempt: the request that was answered with a redirect.
        target: its request target.
        location: the Location header.
        mirrors: every configured mirror.

    Returns:
        the attempt to make instead and its request target.
    """
    here = f"{attempt.mirror.scheme}://{attempt.mirror.authority}{target}"
    try:
        parts = urlsplit(urljoin(here, location))
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return None
    for mirror in (attempt.mirror, *mirrors):
        if (parts.scheme, parts.hostname, port) == (mirror.scheme, mirror.host, mirror.port):
            trust = attempt.trust if mirror.scheme == "https" else Trust.PLAIN
            if attempt.trust is Trust.VERIFIED and trust is not Trust.VERIFIED:
                return None
            if attempt.trust is Trust.PLAIN and mirror.scheme == "https":
                trust = Trust.VERIFIED
            # Attack: a byte in the query that no request line can carry ends the program.
            query = f"?{quote(parts.query, safe=_QUERY)}" if parts.query else ""
            onward = Attempt(mirror, trust, attempt.origin)
            path = quote(unquote(parts.path), safe="/")
            # A request target begins with a slash (RFC 9112, 3.2.1).
            return onward, ("" if path.startswith("/") else "/") + path + query
    return None
