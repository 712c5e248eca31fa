"""Reads the pages of `docs/`: their fenced blocks, and what marks them."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["DOCS", "IN_PROCESS", "PAGES", "console", "kinds", "vectors"]

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGES = sorted(DOCS.rglob("*.md"))

# Runbooks whose commands are simple enough to be run without a shell (`test_runbooks`).
IN_PROCESS = (
    "rotate-key",
    "lost-key",
    "stolen-key",
    "expired-root",
    "sequence-reset",
    "three-machines",
    "withdraw",
    "refresh-job",
)

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_VECTOR = re.compile(r"^<!-- vector: ([^>]+) -->\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def console(page: Path) -> str:
    """What a reader of the page would type, top to bottom."""
    return "".join(text for kind, text in _FENCE.findall(page.read_text()) if kind == "console")


def kinds(page: Path) -> set[str]:
    """The info strings of the page's blocks."""
    return {kind for kind, _ in _FENCE.findall(page.read_text())}


def vectors(page: Path) -> dict[str, str]:
    """The page's test vectors, by name."""
    found = _VECTOR.findall(page.read_text())
    assert len({name for name, _, _ in found}) == len(found), "two vectors with one name"
    return {name: text for name, _, text in found}
