"""What the recovery URLs were like when they were asked last, for `status` and `doctor`.

A hint, never trusted: the file may be torn, altered or gone at any time and then says nothing. It
is written only when what it says changes.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import field
from typing import TYPE_CHECKING

from client_reference.values import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["PLACE", "Asked", "keep_asked", "read_asked"]

PLACE = "recovery.json"
"""In the directory of downloads."""
_MOST = 64 * 1024


@frozen
class Asked:
    """What came of one asking.

    Attributes:
        failures: what failed, by URL.
        fork: that there are two primary roots for one epoch, and what to do; empty if not.
    """

    failures: Mapping[str, str] = field(default_factory=dict)
    fork: str = ""


def read_asked(path: Path) -> Asked:
    """What was noted; nothing without a readable file."""
    with suppress(OSError, ValueError, RecursionError, KeyError, TypeError):
        with path.open("rb") as file:
            found = json.loads(file.read(_MOST))
        failures, fork = dict(found["failures"]), found["fork"]
        if all(isinstance(text, str) for text in (fork, *failures.values())):
            return Asked(failures, fork)
    return Asked()


def keep_asked(path: Path, asked: Asked) -> None:
    """Write down what came of it. A full disk is no failure."""
    if asked == read_asked(path):
        return
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        said = {"failures": dict(asked.failures), "fork": asked.fork}
        path.write_text(json.dumps(said), "ascii")
