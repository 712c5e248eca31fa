"""Waiting until caches between the storage and the devices have what was just published.

`timestamp.json` may be cached for a minute (design 8), an answer "not there" not at all. Each
public URL is asked until it shows the new bytes; since it stands for many caches, the minute
passes in any case. Where nothing stands between devices and the storage (a lab), there is nothing
to wait for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from client_reference.errors import FirmrootError, RetryLaterError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from client_reference.transport.fetcher import Fetcher

__all__ = ["LIFETIME", "AwaitedEdges", "Edges", "NoEdges"]

LIFETIME = 60.0
"""Seconds for which a cache may keep a `timestamp.json`."""
PATIENCE = 900.0
"""Seconds after which an edge that still shows the old bytes is given up for now."""
_PAUSE = 5.0


class Edges(Protocol):
    """What stands between the storage and the devices."""

    def wait(self, path: str, data: bytes) -> None:
        """Return when no device can be served anything older than these bytes.

        Args:
            path: of the object, in the storage.
            data: its bytes.

        Raises:
            RetryLaterError: an edge does not show them; nothing is lost by running again.
        """


class NoEdges:
    """Nothing does."""

    def wait(self, path: str, data: bytes) -> None:
        """There is nothing to wait for."""
        del path, data


@dataclass(frozen=True)
class AwaitedEdges:
    """Caches that keep what they have for a while.

    Attributes:
        probes: a way to fetch from each public URL, by URL.
        sleep: seconds to pass.
        tell: told what is waited for.
        lifetime: see `LIFETIME`.
        patience: see `PATIENCE`.
    """

    probes: Mapping[str, Fetcher]
    sleep: Callable[[float], None]
    tell: Callable[[str], None] = lambda _: None
    lifetime: float = LIFETIME
    patience: float = PATIENCE

    def wait(self, path: str, data: bytes) -> None:
        """See `Edges.wait`."""
        self.tell(f"waiting {self.lifetime:.0f} s until no cache has an older {path}")
        self.sleep(self.lifetime)
        for url, fetcher in self.probes.items():
            waited = 0.0
            while (why := _lacks(fetcher, path, data)) is not None:
                if waited >= self.patience:
                    raise RetryLaterError(
                        f"{url} does not show the new {path} after {waited + self.lifetime:.0f} s: "
                        f"{why}",
                        "find out what that edge caches; then: firmroot publish, which goes on "
                        "from here",
                    )
                self.sleep(_PAUSE)
                waited += _PAUSE


def _lacks(fetcher: Fetcher, path: str, data: bytes) -> str | None:
    """Why an edge does not show these bytes; None if it does."""
    try:
        found = fetcher.fetch(path, max(len(data), 1 << 16))
    except FirmrootError as error:
        return error.message
    return None if found == data else "it shows other bytes"
