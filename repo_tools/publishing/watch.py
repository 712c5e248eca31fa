"""What the refresh job watches beside its own keys, and what it leaves for monitors.

A refresher renews two roles. All others are people's, and when one of those is about to end, the
job fails: it is the one thing that runs every day.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from client_reference.errors import ActionRequiredError, FirmrootError, RetryLaterError
from client_reference.strictjson import format_time, parse_time
from keys_policy.model import ONLINE_ROLES
from repo_tools.files import replace_file
from repo_tools.metadata.edits import ISSUED_FIELD
from repo_tools.metadata.repository import RepositoryState
from repo_tools.publishing.prepare import read_base
from repo_tools.reporting.metrics import Run, render, succeeded_before
from repo_tools.reporting.situation import look
from repo_tools.reporting.status import renewal_command, report
from repo_tools.signing.ceremony import open_ceremonies

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta
    from pathlib import Path

    from repo_tools.reporting.status import Expiry
    from repo_tools.workspace import Workspace

__all__ = ["Ending", "check_people", "endings", "write_metrics"]


@dataclass(frozen=True)
class Ending:
    """A live role that people sign, and that is about to expire.

    Attributes:
        expiry: which, and when.
        threshold: how many must sign.
        keys: whose.
    """

    expiry: Expiry
    threshold: int
    keys: tuple[str, ...]

    def __str__(self) -> str:
        role = f"{self.expiry.role} {self.expiry.version}"
        who = f"{self.threshold} of {', '.join(self.keys)}" if self.keys else "nobody has its keys"
        return f"{role} expires {format_time(self.expiry.expires)} (to sign: {who})"


def endings(workspace: Workspace, now: datetime, within: timedelta) -> tuple[Ending, ...]:
    """What a refresh cannot renew and what ends within that time, soonest first.

    Raises:
        RetryLaterError: nobody knows, since what is live could not be looked at.
    """
    situation = look(workspace, now)
    if situation.unread:
        raise RetryLaterError(
            f"what people sign could not be looked at: {situation.unread}", "firmroot status"
        )
    found: list[Ending] = []
    for each in report(situation).expiries:
        if each.role in ONLINE_ROLES or each.expires > now + within:
            continue
        rules = situation.rules.get(each.role)
        keys = tuple(rules.keys) if rules is not None else ()
        found.append(Ending(each, rules.threshold if rules is not None else 0, keys))
    return tuple(found)


def check_people(found: Sequence[Ending], *, now: datetime) -> None:
    """Fail where people must act.

    Raises:
        ActionRequiredError: names each role, who signs it, and the command.
    """
    if not found:
        return
    roles = [each.expiry.role for each in found]
    expired = any(each.expiry.role == "root" and each.expiry.expires <= now for each in found)
    raise ActionRequiredError(
        "a refresh cannot renew what people sign: " + "; ".join(map(str, found)),
        f"{renewal_command(roles, root_expired=expired)}; then they run firmroot sign, and "
        "somebody firmroot publish",
    )


def write_metrics(path: Path, workspace: Workspace | None, now: datetime, exit_code: int) -> None:
    """Leave the file for a monitor, in one step.

    Args:
        path: of the file.
        workspace: None if it could not be opened.
        now: of the run.
        exit_code: how it ended.

    Raises:
        OSError: it cannot be written.
    """
    before = ""
    with contextlib.suppress(OSError, ValueError):
        before = path.read_text(encoding="ascii")
    run = Run(now, exit_code, succeeded_before(before), None, None, None)
    if workspace is not None:
        run = _seen(workspace, run)
    replace_file(path, render(run).encode())


def _seen(workspace: Workspace, run: Run) -> Run:
    ceremonies: int | None = None
    with contextlib.suppress(FirmrootError):
        ceremonies = len(open_ceremonies(workspace))
    state = RepositoryState()
    with contextlib.suppress(FirmrootError):
        state = read_base(workspace, workspace.storage()).state
    if state.timestamp is None:  # it cannot be read, or nothing is live yet
        return Run(run.now, run.exit_code, run.succeeded, None, None, ceremonies)
    newest = state.newest()
    issued = None
    if (timestamp := newest.get("timestamp")) is not None:
        text = timestamp.unrecognized_fields.get(ISSUED_FIELD)
        issued = parse_time(text) if isinstance(text, str) else None
    expires = {role: each.expires for role, each in newest.items()}
    return Run(run.now, run.exit_code, run.succeeded, expires, issued, ceremonies)
