"""`firmroot ceremony show ROLE`, in a workspace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repo_tools.cli.ceremony_course import facts_of, lines_of, why_of
from repo_tools.signing.ceremony import check_ceremony, find_ceremony, status
from repo_tools.signing.session import open_memory, review_ceremony

if TYPE_CHECKING:
    from repo_tools.cli.context import Context

__all__ = ["show_here"]


def show_here(context: Context, name: str) -> None:
    """Show an open ceremony. Raises as `find_ceremony` and `check_ceremony`."""
    ws = context.workspace()
    found = find_ceremony(ws, name)
    check_ceremony(ws, found)
    told = review_ceremony(ws, found, open_memory(ws))
    counted = status(ws, found)
    why = why_of(found)
    for line in (*told.lines, *why, *lines_of(counted), f"read aloud: {told.words}"):
        context.printer.say(line)
    context.printer.result(
        {
            **facts_of(counted),
            "words": told.words,
            "changes": list(told.changes),
            "unusual": [vars(each) for each in told.stops],
            "notes": list(told.notes),
            "why": found.why,
            "signed_content": found.signed.to_dict(),
        }
    )
