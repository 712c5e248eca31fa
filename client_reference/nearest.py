"""Pure: the name that somebody probably meant. For messages only; nothing is ever decided by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["did_you_mean"]

# Below two thirds, so that 1.2 is no near miss of 1.1; above it, so that v1.1 is.
_NEAR = 0.7


def did_you_mean(found: str, known: Iterable[str]) -> str:
    """The end of a sentence: `; did you mean stable?`, or nothing if no known name is near.

    Args:
        found: what was given and does not exist.
        known: what does exist.
    """
    import difflib  # noqa: PLC0415  only where something went wrong already

    near = difflib.get_close_matches(found, sorted(set(known)), n=1, cutoff=_NEAR)
    return f"; did you mean {near[0]}?" if near else ""
