"""What stays of a ceremony that ended: a record in `history/ceremonies/`, for good.

Finished ones stay, those that somebody had signed when another content took their place, and those
that were ended by hand. A record holds the content, the signatures that had verified, and what each
delegator asked for, so that it can be judged again without a network.

A file is named by the digest of its bytes: it is never replaced, two clones that finish the same
ceremony do not conflict in git, and one that was edited shows it. Rules:

* a record is written before its ceremony is removed; killed between, the next run finds the
  ceremony, and a second record of the same content says nothing new;
* when it was is as the machine that ended it says; signatures have no time of their own in TUF.
"""

from __future__ import annotations

import contextlib
import enum
from typing import TYPE_CHECKING

from repo_tools.files import create_file
from repo_tools.metadata.edits import format_time
from repo_tools.metadata.repository import sha256
from repo_tools.signing.ceremony.reading import readable
from repo_tools.signing.ceremony.signatures import status

if TYPE_CHECKING:
    from pathlib import Path

    from repo_tools.signing.ceremony.reading import Ceremony
    from repo_tools.workspace import Workspace

__all__ = ["DIGITS", "Ending", "keep_record", "record_paths"]

DIGITS = 16
"""Hexadecimal digits of the digest that a record's name carries."""


class Ending(enum.Enum):
    """How a ceremony ended; the values are part of the record."""

    SIGNED = "signed"
    REPLACED = "replaced"
    ABANDONED = "abandoned"


def keep_record(ws: Workspace, ceremony: Ceremony, ending: Ending) -> None:
    """Write what stays of a ceremony, before it is removed. Run again it does no harm."""
    if ws.occasion is None:
        return
    found = status(ws, ceremony)
    document = {
        "schema": 1,
        "ceremony": ceremony.name,
        "role": ceremony.role,
        "version": ceremony.version,
        "ending": ending.value,
        "when": format_time(ws.occasion.when),
        "why": ceremony.why,
        "base": vars(ceremony.base),
        "quorums": [
            {
                "for": quorum.delegator,
                "needed": quorum.threshold,
                "signed": list(quorum.signed),
                "missing": list(quorum.missing),
            }
            for quorum in found.quorums
        ],
        "ignored": list(found.problems),
        "signed": ceremony.signed.to_dict(),
        "signatures": [each.to_dict() for each in found.signatures],
    }
    if ending is not Ending.SIGNED:
        document["ended-because"] = ws.occasion.why
    data = readable(document)
    name = f"{ceremony.name}-{sha256(data)[:DIGITS]}.json"
    with contextlib.suppress(FileExistsError):
        create_file(ws.history / "ceremonies" / name, data)


def record_paths(ws: Workspace) -> list[Path]:
    """The records of this epoch, by name."""
    return sorted((ws.history / "ceremonies").glob("*.json"))
