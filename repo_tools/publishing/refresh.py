"""Renewal of timestamp and snapshot before they expire: a publish without any change.

It is the same commit, on the same base, rehearsed the same way. Whoever loses the race against a
publish or another refresh has nothing left to do: what is live is fresher than what it would write.
It leaves no record, since it runs where there is no git; the storage keeps the timestamp that it
replaces until a publish takes that into history (`replaced`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from client_reference.errors import ActionRequiredError, LockedError
from repo_tools.publishing.journal import check_jump
from repo_tools.publishing.plan import Admitted
from repo_tools.publishing.prepare import (
    check_root_good,
    check_stranding,
    following_root,
    prepare,
    read_base,
    sign_online,
)
from repo_tools.publishing.publish import commit, finish_interrupted
from repo_tools.publishing.recovery import check_epoch
from repo_tools.publishing.replaced import keep

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from repo_tools.publishing.online import OnlineKeys
    from repo_tools.publishing.prepare import Prepared
    from repo_tools.storage.protocol import Storage
    from repo_tools.workspace import Workspace

__all__ = ["LostRace", "Refreshed", "refresh"]


@dataclass(frozen=True)
class Refreshed:
    """The renewal is live."""

    prepared: Prepared


@dataclass(frozen=True)
class LostRace:
    """Somebody else was faster; what they made live is as fresh."""

    reason: str


def refresh(
    workspace: Workspace,
    storage: Storage,
    keys: OnlineKeys,
    now: datetime,
    *,
    accepted: frozenset[str] = frozenset(),
    accept_jump: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Refreshed | LostRace:
    """Renew the online roles of what is live. The caller holds the workspace's lock.

    Raises:
        ActionRequiredError: nothing is live yet, its root has expired, or online keys are missing.
        RefusedError: as `publish`, and versions that jumped unless `accept_jump` says they may.
        NotTrustedError, RetryLaterError: as `publish`.
    """
    check_epoch(workspace)
    live = read_base(workspace, storage)
    if live.tag is None:
        raise ActionRequiredError("nothing is published yet", "firmroot publish")
    if not accept_jump:
        check_jump(workspace, live.state)
    finish_interrupted(workspace, storage, live)
    check_root_good(workspace, live.state, now)
    admitted = Admitted(live.state, following=following_root(workspace, live, now))
    signed = sign_online(workspace, storage, admitted, keys, now)
    prepared = prepare(workspace, storage, live, admitted, signed, now)
    check_stranding(prepared, accepted)
    keep(workspace, storage, live.state.timestamp or b"", progress)
    try:
        commit(workspace, storage, prepared.plan, now, None, progress)
    except LockedError as error:
        return LostRace(error.message)
    return Refreshed(prepared)
