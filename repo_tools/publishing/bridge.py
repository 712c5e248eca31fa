"""Pure: how a root that gives timestamp, snapshot or targets other keys goes live (design 8).

A device sees root and timestamp at different moments, through caches of different age. So without
hurry there is a *bridge*: a publish whose timestamp, snapshot and targets meet the thresholds of
the live and of the next root; a wait until no cache has anything older; then the root; a wait; then
a publish without the old signatures. At every moment in between, whatever a device was served
before verifies with whatever it is served next.

Where the bridge is no help it is a *cut*: the root, and at once a timestamp of the new keys. That
is so when thieves have a threshold of the old keys (their timestamps are as good as ours until the
root is there), when too few of the old keys are left, and when the live root has expired.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from client_reference.errors import ActionRequiredError, RefusedError
from client_reference.trust.updater import Limits
from client_reference.trust.verified import BadSignatureError, authentic, rotated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from repo_tools.metadata.repository import RepositoryState

__all__ = ["BRIDGED", "Gone", "Passage", "check_bridged", "check_sizes", "is_bridged", "passage"]

BRIDGED = (Timestamp.type, Snapshot.type, Targets.type)
"""The roles that a root names and that devices need at each check."""


class Gone(enum.Enum):
    """What became of a key; the values are written to `gone.toml`."""

    LOST = "lost"
    STOLEN = "stolen"


class Passage(enum.Enum):
    """How devices come from the live root to the next one."""

    SAME_KEYS = "same keys"
    BRIDGE = "bridge"
    CUT = "cut"


@dataclass(frozen=True)
class _Role:
    keyids: frozenset[str]
    threshold: int

    def can_sign(self, keyids: frozenset[str]) -> bool:
        return len(self.keyids & keyids) >= self.threshold


def passage(live: Root, following: Root, gone: Mapping[str, Gone], now: datetime) -> Passage:
    """Which way it is.

    Args:
        live: the newest root that devices can fetch.
        following: the root that is signed for after it.
        gone: key ids of keys that are lost or stolen.
        now: the time.
    """
    changed = [role for role in BRIDGED if rotated(live, following, role)]
    if not changed:
        return Passage.SAME_KEYS
    stolen = frozenset(keyid for keyid, how in gone.items() if how is Gone.STOLEN)
    for name in changed:
        role = _Role(frozenset(live.roles[name].keyids), live.roles[name].threshold)
        if role.can_sign(stolen) or not role.can_sign(role.keyids - gone.keys()):
            return Passage.CUT
    return Passage.CUT if live.expires <= now else Passage.BRIDGE


def is_bridged(state: RepositoryState, roots: Sequence[Root]) -> bool:
    """Whether a device with any of these roots accepts timestamp, snapshot and targets."""
    if state.timestamp is None or state.snapshot is None or "targets" not in state.roles:
        return False
    try:
        for root in roots:
            authentic(Timestamp, root, Timestamp.type, state.timestamp)
            authentic(Snapshot, root, Snapshot.type, state.snapshot)
            authentic(Targets, root, Targets.type, state.roles["targets"])
    except BadSignatureError:
        return False
    return True


def check_bridged(targets: bytes, live: Root, following: Root) -> None:
    """Whether a `targets` role, which people sign, can be part of a bridge.

    Raises:
        ActionRequiredError: it does not meet the threshold of one of the roots.
    """
    for root in (live, following):
        try:
            authentic(Targets, root, Targets.type, targets)
        except BadSignatureError as error:
            raise ActionRequiredError(
                f"root {following.version} gives targets other keys, and devices that still have "
                f"root {live.version} must go on meanwhile: targets must be signed for both; "
                f"for root {root.version}: {error.message}",
                "firmroot ceremony start targets; if too few of the old keys are left, say so "
                "first: firmroot recover lost-key KEY",
            ) from error


def check_sizes(state: RepositoryState, limits: Limits | None = None) -> None:
    """Whether devices read everything that is to be published: they stop at a limit.

    While a root changes, files carry the signatures of both roots, and some algorithms' are long.

    Raises:
        RefusedError: says what is too long, and how much of it are signatures.
    """
    limits = limits or Limits()
    files = [
        ("root", state.roots[-1] if state.roots else b"", limits.root),
        (Timestamp.type, state.timestamp or b"", limits.timestamp),
        (Snapshot.type, state.snapshot or b"", limits.snapshot),
        *((role, data, limits.targets) for role, data in state.roles.items()),
    ]
    for role, data, limit in files:
        if len(data) > limit:
            found = len(json.dumps(json.loads(data)["signatures"], separators=(",", ":")))
            raise RefusedError(
                f"{role} has {len(data)} bytes, {found} of them signatures; every client that was "
                f"shipped stops reading at {limit}",
                "fewer keys, or keys with shorter signatures; while a root changes, the old and "
                "the new ones sign",
            )
