"""Which of the rejected payloads a person or a health check rejected, for what is said of them.

The trust store knows that a payload is not tried again, and not whose word that was. This note
beside it does, and nothing else rests on it: the file may be torn, altered or gone at any time, and
then all that was rejected counts as rolled back. It is written before the rejection is durable, so
that a restart right after that finds it.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

from client_reference.lifecycle import REMEMBERED

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["note", "noted"]

_MOST = 4096


def noted(path: Path) -> tuple[str, ...]:
    """SHA-256 digests of payloads, the newest last; none without a readable file."""
    with suppress(OSError, ValueError, RecursionError):
        with path.open("rb") as file:
            found = json.loads(file.read(_MOST))
        if isinstance(found, list) and all(isinstance(digest, str) for digest in found):
            return tuple(found)
    return ()


def note(path: Path, digest: str) -> None:
    """Write down one more. A full disk is no failure."""
    others = [each for each in noted(path) if each != digest]
    with suppress(OSError):
        path.write_text(json.dumps([*others, digest][-REMEMBERED:]), encoding="ascii")
