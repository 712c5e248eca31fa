"""The course of a clean-up (`collect`): look, then fence, look again, remove.

The second look decides; what the first one showed to a person is the most that may go.
"""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from client_reference.errors import ActionRequiredError, ConfigurationError, FirmrootError
from repo_tools.files import replace_file
from repo_tools.publishing.collect import (
    Garbage,
    begin,
    end,
    find_garbage,
    is_marked,
    sweep,
)
from repo_tools.publishing.prepare import read_base
from repo_tools.publishing.recovery import check_epoch
from repo_tools.publishing.refresh import refresh
from repo_tools.publishing.replaced import take

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from repo_tools.publishing.online import OnlineKeys
    from repo_tools.workspace import Workspace

__all__ = ["Look", "clean", "look"]

_NOTHING = "gc/nothing"
"""An object that is never there: whether it may be removed is asked of it."""
_PATIENCE = timedelta(hours=1)
"""Older than that, the mark of another machine counts as left behind."""


@dataclass(frozen=True)
class Look:
    """What a clean-up would do.

    Attributes:
        garbage: what can go.
        cutoff: what is younger stays.
        interrupted: a clean-up has begun and did not end.
        timestamp: what is live.
    """

    garbage: Garbage
    cutoff: datetime
    interrupted: bool
    timestamp: bytes | None


def look(workspace: Workspace, cutoff: datetime) -> Look:
    """See what can go. Changes nothing.

    Raises:
        ActionRequiredError: nothing is live.
        NotTrustedError, RetryLaterError: as `read_base`.
    """
    check_epoch(workspace)
    whole = workspace.whole_storage()
    live = read_base(workspace, workspace.storage())
    if live.tag is None or live.root_ahead:
        # Without a live state that devices follow, nobody knows what they need.
        raise ActionRequiredError(
            "nothing is published yet, or a publish was interrupted", "firmroot publish"
        )
    waiting = workspace.staged_roles().values()
    garbage = find_garbage(whole, live.state, workspace.epoch, waiting, cutoff)
    return Look(garbage, cutoff, is_marked(whole), live.state.timestamp)


def clean(
    workspace: Workspace,
    found: Look,
    keys: OnlineKeys,
    now: datetime,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[int, int]:
    """Remove what `look` found and what still can go. The caller holds the workspace's lock.

    Returns:
        how many objects and bytes went.

    Raises:
        LockedError: another clean-up is under way, or took this one over.
        ConfigurationError: objects, or some of them, may not be removed by who runs this.
        Whatever `refresh` raises: nothing was removed then.
    """
    whole = workspace.whole_storage()
    # Who may write and not remove would leave a mark that stops every publish, and that no clean-up
    # of theirs can take away.
    whole.remove(_NOTHING)
    tag = begin(whole, now, _token(workspace), take_over=now - _PATIENCE)
    try:
        # Whoever loses this race lost it to a commit, which moves the base just as well.
        refresh(workspace, workspace.storage(), keys, now)
        again = look(workspace, found.cutoff)
        # From then on history has the snapshots that refreshes made, and the storage need not.
        take(workspace, workspace.storage(), again.timestamp, progress)
    except FirmrootError:
        end(whole, tag)
        raise
    shown = {entry.path for entry in found.garbage.entries}
    entries = tuple(each for each in again.garbage.entries if each.path in shown)
    try:
        done = sweep(whole, replace(again.garbage, entries=entries), tag, progress)
    except ConfigurationError:
        # An answer, and so the last of what was asked: nothing is removed any more. After a request
        # without one the mark stays, since that may still be carried out.
        with contextlib.suppress(FirmrootError):
            end(whole, tag)
        raise
    end(whole, tag)
    return done


def _token(workspace: Workspace) -> str:
    """Tells this workspace's clean-ups from others': it holds its lock, so its own mark is left."""
    path = workspace.memory / "gc-token"
    if not path.exists():
        replace_file(path, secrets.token_hex(16).encode())
    return path.read_text(encoding="ascii")
