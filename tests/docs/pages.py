"""Reads the pages of `docs/`: their fenced blocks, and what marks them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.simulators.foreign import PASSPHRASE, make

__all__ = [
    "DOCS",
    "IN_PROCESS",
    "IN_SERVICES",
    "PAGES",
    "console",
    "kinds",
    "prepare",
    "vectors",
]

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGES = sorted(DOCS.rglob("*.md"))

# Runbooks whose commands are simple enough to be run without a shell (`test_runbooks`).
IN_PROCESS = (
    "rotate-key",
    "lost-key",
    "stolen-key",
    "expired-root",
    "planted-root",
    "lost-storage",
    "sequence-reset",
    "three-machines",
    "withdraw",
    "adopt",
    "refresh-job",
)

# Of these, the ones that take too long for every run.
IN_SERVICES = ("adopt",)


def prepare(page: str, directory: Path) -> None:
    """What a page says is there before its first command, beside the firmware files."""
    if page == "adopt":
        theirs = make(directory / "theirs", keys_in=directory / "keys")
        (directory / "passphrase").write_bytes(PASSPHRASE + b"\n")
        (directory / "shipped-root.json").write_bytes(theirs.roots[1])


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
