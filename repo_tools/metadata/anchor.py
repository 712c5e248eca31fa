"""Pure: making recovery roots, which say which primary root devices follow.

What a recovery root is, how it is read and which link may follow which is the device's own code,
`client_reference.trust.recovery`: what devices would not accept is not made here. This module makes
statements and the roots that carry them. TUF wants four top-level roles in a root file; all of them
are the recovery keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tuf.api.metadata import Key, Role, Root

from client_reference.trust.recovery import FIELD, Statement, first_anchor, next_anchor
from repo_tools.metadata.edits import (
    ISSUED_FIELD,
    LAB_FIELD,
    expiry,
    format_time,
    next_version,
)
from repo_tools.metadata.repository import sha256
from repo_tools.metadata.roles import RECOVERY, TOP_LEVEL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from client_reference.trust.recovery import Anchor
    from keys_policy.model import KeyHolder, Policy

__all__ = ["as_field", "names", "next_recovery", "statement_about", "walk"]


def statement_about(
    root: bytes, epoch: int = 0, minimum_sequence: Mapping[str, int] | None = None
) -> Statement:
    """The statement that an epoch starts from exactly these bytes."""
    return Statement(epoch, sha256(root), len(root), dict(minimum_sequence or {}))


def names(statement: Statement, root: bytes) -> bool:
    """Whether a statement is about exactly these bytes."""
    return statement.primary == (sha256(root), len(root))


def as_field(statement: Statement) -> dict[str, Any]:
    """A statement as the field of a root file."""
    return {**vars(statement), "minimum_sequence": dict(statement.minimum_sequence)}


def walk(chain: Sequence[bytes]) -> list[Anchor]:
    """Verify a chain as a device does that trusts its first file, because it is here.

    Raises:
        NotTrustedError: a link does not verify, or does not follow from the one before.
    """
    found: list[Anchor] = []
    for data in chain:
        found.append(next_anchor(found[-1], data) if found else first_anchor(data))
    return found


def next_recovery(
    policy: Policy,
    keyring: Mapping[str, KeyHolder],
    previous: Root | None,
    statement: Statement,
    now: datetime,
    *,
    lab: bool,
) -> Root:
    """The recovery root that makes this statement, with the keys that the policy names now."""
    rules = policy.role(RECOVERY)
    keys: dict[str, Key] = {
        holder.key.keyid: holder.key for holder in (keyring[name] for name in rules.keys)
    }
    fields: dict[str, Any] = {
        ISSUED_FIELD: format_time(now),
        FIELD: as_field(statement),
    }
    if lab:
        fields[LAB_FIELD] = True
    return Root(
        version=next_version(previous),
        expires=expiry(rules, now),
        keys=keys,
        roles={name: Role(list(keys), rules.threshold) for name in TOP_LEVEL},
        consistent_snapshot=True,
        unrecognized_fields=fields,
    )
