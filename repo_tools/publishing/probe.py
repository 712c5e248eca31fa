"""Single HTTP requests whose whole answer is kept: what a device's fetcher rightly does not show.

Connections, deadlines and bounds are the device's own (`client_reference.transport`), and so is
what a request says: over anything but verified TLS nothing that identifies who asks. Unlike the
device's fetcher this follows no redirect, tries nothing twice and takes no status for another.
"""

from __future__ import annotations

import http.client
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

from client_reference.transport.answer import Answer
from client_reference.transport.connect import Connector, Roots
from client_reference.transport.pace import Pace, TlsError, TransportError, explain
from client_reference.transport.policy import Attempt, Mirror, Trust

if TYPE_CHECKING:
    from collections.abc import Mapping

    from client_reference.transport.fetch import Ambient

__all__ = ["Prober", "Reply"]

_RATE = 4096


@dataclass(frozen=True)
class Reply:
    """One answer.

    Attributes:
        status: of HTTP; 0 if there was no answer.
        headers: by name in lower case; those that were sent several times in one line.
        body: as it was sent, up to the bound.
        whole: whether that is all of it.
        trouble: why there was no answer.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    whole: bool = True
    trouble: str = ""

    @property
    def told(self) -> str:
        """What came, in a few words."""
        return f"status {self.status}" if self.status else self.trouble


class Prober:
    """Asks one mirror.

    Args:
        mirror: which.
        ambient: see there.
        roots: for verified TLS.

    Attributes:
        distrust: why verified TLS failed; empty if it did not, or is not spoken.
    """

    def __init__(self, mirror: Mirror, ambient: Ambient, roots: Roots) -> None:
        self._mirror = mirror
        self._ambient = ambient
        self._connector = Connector(
            ambient.monotonic, ambient.patience, ambient.resolve, lambda _: None, roots, None
        )
        self._trust = Trust.VERIFIED if mirror.scheme == "https" else Trust.PLAIN
        self.distrust = ""

    @property
    def encrypts(self) -> bool:
        """Whether the mirror is asked over TLS, as it is configured."""
        return self._mirror.scheme == "https"

    @property
    def verified(self) -> bool:
        """Whether verified TLS is spoken with it."""
        return self._trust is Trust.VERIFIED

    def ask(self, path: str, headers: Mapping[str, str] | None = None, most: int = 0) -> Reply:
        """One object, as a device asks for it that may fall back to unverified TLS.

        Args:
            path: in the repository; empty for its top.
            headers: to send besides; without any not even a user agent is sent.
            most: bytes of the body to read.
        """
        way = Attempt(self._mirror, self._trust, self._mirror)
        try:
            return self._ask(way, path, headers, most)
        except TlsError as error:
            if self._trust is not Trust.VERIFIED:
                return Reply(0, trouble=error.message)
            self.distrust = error.message
            self._trust = Trust.UNVERIFIED
            return self.ask(path, headers, most)
        except TransportError as error:
            return Reply(0, trouble=error.message)

    def ask_plainly(self, path: str, most: int) -> Reply:
        """The same over plain HTTP, which a device speaks to the default port in the worst case."""
        mirror = self._mirror
        if mirror.scheme == "https":
            mirror = Mirror("http", mirror.host, 80, mirror.base)
        try:
            return self._ask(Attempt(mirror, Trust.PLAIN, self._mirror), path, None, most)
        except TransportError as error:
            return Reply(0, trouble=error.message)

    def certificate(self) -> bytes:
        """The certificate that an https mirror shows, in DER.

        Raises:
            TransportError: it shows none.
        """
        return self._connector.shown(self._mirror, self._pace())

    def _pace(self) -> Pace:
        return Pace(self._ambient.monotonic, _RATE, self._ambient.patience.grace)

    def _ask(self, way: Attempt, path: str, headers: Mapping[str, str] | None, most: int) -> Reply:
        sent = {"Host": way.mirror.authority, **(headers or {})}
        if headers is not None and way.trust is Trust.VERIFIED:
            sent["User-Agent"] = "firmroot-device"
        connection = self._connector.open(way, self._pace(), identified=False)
        try:
            response = connection.ask(way.mirror.base + quote(path, safe="/"), sent)
            answer = Answer(response, connection.paced, lambda: None)
            body = b"".join(answer.pieces(most + 1, exact=False))
        except TransportError:
            raise
        except (OSError, http.client.HTTPException) as error:
            raise TransportError(explain(error)) from error
        finally:
            connection.close()
        together: dict[str, str] = {}
        for name, value in response.getheaders():
            lower = name.lower()
            together[lower] = f"{together[lower]}, {value}" if lower in together else value
        return Reply(response.status, together, body[:most], len(body) <= most)
