"""The table as a section of docs/threat-model.md, between two markers.

python -m tests.attacks.render      writes it anew
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from client_reference.errors import ExitCode
from tests.attacks.anchored import ANCHORED
from tests.attacks.keys import KEYS
from tests.attacks.named import NAMED
from tests.attacks.resets import RESETS
from tests.attacks.scene import Attack, Ending
from tests.attacks.surface import SURFACE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.attacks.table import Chapter

__all__ = ["CHAPTERS", "COMMAND", "PAGE", "page", "section"]

CHAPTERS = (NAMED, KEYS, ANCHORED, RESETS, SURFACE)
PAGE = Path(__file__).parent.parent.parent / "docs" / "threat-model.md"
COMMAND = "make attacks-table"
BEGIN = "<!-- attacks: written by `make attacks-table`; each row is a test in tests/attacks -->\n"
END = "<!-- attacks: end -->\n"
INTRODUCTION = """
Each row is a test: the attack is played against a whole device at its command line, which has
installed release 1.1 and to which 1.2 is offered. What the table says is asserted, and so is that
nothing that was trusted goes back, that no byte reaches an installer before it verified, and that
the next honest release (1.9) is installed at once after the step in the last column.

*Attacker has*: the network in any case, unless the row says "nothing" or "clock". With "1 of" the
role has a threshold of two. Where snapshot and timestamp stand beside other keys, a publisher who
was talked into publishing it does as well. `recovery` are the keys of the recovery anchor; only
what was learnt in an epoch that it ended is forgotten. *Device does*, with the code of `update`:
*refuses*, an error, and nothing changes; *retries later*, likewise, since nobody may have meant it;
*installs nothing*, all of it verifies and none of it lets
the device start a release; *installs the honest release*, the attack has no effect on what runs;
**installs it**, since whoever has so many keys is, for a device, the publisher.
"""
HEAD = ("id", "attack", "named by", "attacker has", "device does", "it says", "back to normal by")


def section() -> str:
    """What stands between the markers."""
    parts = [INTRODUCTION]
    for chapter in CHAPTERS:
        parts.append(f"\n### {chapter.title}\n\n")
        parts.extend(_table(chapter))
    return "".join(parts) + "\n"


def _table(chapter: Chapter) -> Iterator[str]:
    yield _line(HEAD)
    yield _line(("---",) * len(HEAD))
    for row in chapter.rows:
        yield _line(
            (
                f"`{row.id}`",
                row.name,
                row.source,
                _has(row),
                _does(row),
                _code(row.says),
                row.back.by,
            )
        )


def _code(text: str) -> str:
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _has(row: Attack) -> str:
    if not row.keys:
        return row.means
    named = [key.partition(":") for key in row.keys]
    keys = ", ".join(f"{count} of {role}" if count else role for role, _, count in named)
    return f"keys: {keys}" if row.means == "network" else f"keys: {keys}; {row.means}"


def _does(row: Attack) -> str:
    if row.ending is Ending.WAITS:
        assert row.reason is not None
        return f"{row.ending.value}: {row.reason.value} (0)"
    spare = "; what the thief signed stays in the unbootable slot" if row.writes else ""
    verb = "retries later" if row.code is ExitCode.RETRY_LATER else row.ending.value
    return f"{verb} ({int(row.code)}){spare}"


def page(text: str) -> str:
    """The page with the section as it must be.

    Raises:
        ValueError: the page lacks the markers.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE} lacks the lines {BEGIN!r} and {END!r}")
    return before + begin + section() + end + after


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
