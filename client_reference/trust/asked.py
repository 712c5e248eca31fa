"""What was wrong with recovery URLs when they were asked last, for `status`.

A hint, never trusted: the file may be torn, altered or gone at any time and then says nothing. It
is written only when what it says changes.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["keep_failures", "read_failures"]

_MOST = 64 * 1024


def read_failures(path: Path) -> Mapping[str, str]:
    """What failed, by URL; nothing without a readable file."""
    with suppress(OSError, ValueError, RecursionError):
        with path.open("rb") as file:
            found = json.loads(file.read(_MOST))
        if isinstance(found, dict) and all(isinstance(why, str) for why in found.values()):
            return found
    return {}


def keep_failures(path: Path, failures: Mapping[str, str]) -> None:
    """Write down what failed. A full disk is no failure."""
    if failures == read_failures(path):
        return
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dict(failures)), "ascii")
