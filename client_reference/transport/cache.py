"""A `Fetcher` that keeps manifests and holds, so that a check without news makes two requests.

A consistent snapshot names a target file by its hash (`targets/…/<sha256>.<name>`). What is kept is
compared with that name each time it is read, so nothing here needs to be durable or trusted: a torn
or altered copy is fetched again, and the updater verifies the bytes against signed metadata anyway.
One copy is kept for each target; a newer one replaces it.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from client_reference.update import Mirrors

__all__ = ["TargetCache"]

_NAMED = re.compile(
    r"targets/(?P<directory>(channels|holds)/[a-z0-9-]+)/(?P<sha256>[0-9a-f]{64})\.(?P<name>[\w.-]+)"
)


class TargetCache:
    """In front of another fetcher.

    Args:
        mirrors: what is asked for all that is not kept.
        directory: made when something is kept; may be emptied at any time.
    """

    def __init__(self, mirrors: Mirrors, directory: Path) -> None:
        self._mirrors = mirrors
        self._directory = directory

    def fetch(self, path: str, max_length: int) -> bytes:
        """One whole object, from here if it is the one that its name asks for."""
        named = _NAMED.fullmatch(path)
        if named is None:
            return self._mirrors.fetch(path, max_length)
        place = self._directory / f"{named['directory'].replace('/', '.')}.{named['name']}"
        with suppress(OSError), place.open("rb") as file:
            data = file.read(max_length + 1)
            if hashlib.sha256(data).hexdigest() == named["sha256"]:
                return data
        data = self._mirrors.fetch(path, max_length)
        if hashlib.sha256(data).hexdigest() == named["sha256"]:
            # A full disk is no reason to fail: the next check asks once more.
            with suppress(OSError):
                self._directory.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)
        return data

    def stream(self, path: str, offset: int, length: int) -> Iterator[bytes]:
        """Never from here: artifacts are too large to keep twice."""
        return self._mirrors.stream(path, offset, length)

    def another_way(self, why: str = "") -> bool:
        """See `Mirrors`."""
        return self._mirrors.another_way(why)

    def every_mirror(self) -> None:
        """See `Mirrors`."""
        self._mirrors.every_mirror()
