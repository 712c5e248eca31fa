"""Pure: the recovery anchor, a chain of root files that says which primary root devices follow.

A recovery root is an ordinary TUF root file of other people. Its field `x-firmroot-primary` is the
*statement*: the epoch, hash and length of the primary root that this epoch starts from, and the
least sequence of each product. This module makes and reads statements and knows the rules:

* a link is signed by a threshold of the root before and by one of itself, its version is one
  higher (TUF 5.3.4, 5.3.5); expiry and clock are never looked at: the statement only rises, so
  expiry could do nothing but disable it;
* along the chain the epoch stays or rises by one; while it stays, the statement stays as it is:
  two primary roots for one epoch would split the fleet;
* TUF wants four top-level roles in a root file; all of them are the recovery keys.

It does not say when a device acts on it: that is the client's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tuf.api.metadata import Key, Role, Root

from client_reference.errors import NotTrustedError
from client_reference.trust.verified import first_root, next_root
from repo_tools.metadata.edits import (
    ISSUED_FIELD,
    LAB_FIELD,
    MAX_VERSION,
    expiry,
    format_time,
    next_version,
)
from repo_tools.metadata.repository import sha256
from repo_tools.metadata.roles import RECOVERY, TOP_LEVEL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from keys_policy.model import KeyHolder, Policy

__all__ = ["PRIMARY_FIELD", "Statement", "check_follows", "next_recovery", "read_statement", "walk"]

PRIMARY_FIELD = "x-firmroot-primary"
MAX_ROOT = 512_000
"""Bytes of a root file that devices read."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Statement:
    """What a recovery root says about the primary root.

    Attributes:
        epoch: 0 for the root that devices left the factory with, one more for each re-rooting.
        sha256: hex digest of the first primary root of that epoch.
        length: its bytes.
        minimum_sequence: by product, what a re-rooted device installs at least; 0 if not named.
    """

    epoch: int
    sha256: str
    length: int
    minimum_sequence: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def about(
        cls, root: bytes, epoch: int = 0, minimum_sequence: Mapping[str, int] | None = None
    ) -> Statement:
        """The statement that an epoch starts from exactly these bytes."""
        return cls(epoch, sha256(root), len(root), dict(minimum_sequence or {}))

    def names(self, root: bytes) -> bool:
        """Whether it is about exactly these bytes."""
        return (self.sha256, self.length) == (sha256(root), len(root))

    def to_dict(self) -> dict[str, Any]:
        """As the field of a root file."""
        return {**vars(self), "minimum_sequence": dict(self.minimum_sequence)}


def read_statement(root: Root) -> Statement:
    """The statement of a recovery root; fields that are not known are passed over.

    Raises:
        NotTrustedError: there is none, or it has another form.
    """
    found = root.unrecognized_fields.get(PRIMARY_FIELD)
    name = f"{RECOVERY} {root.version}"
    if not isinstance(found, dict):
        raise NotTrustedError(f"{name} says nothing about a primary root ({PRIMARY_FIELD})")
    least = found.get("minimum_sequence")
    digest = found.get("sha256")
    if not (
        _is_count(found.get("epoch"))
        and _is_count(found.get("length"), 1, MAX_ROOT)
        and isinstance(digest, str)
        and _DIGEST.fullmatch(digest)
        and isinstance(least, dict)
        and all(map(_is_count, least.values()))
    ):
        raise NotTrustedError(
            f"{name}: {PRIMARY_FIELD} is {found!r}, expected epoch, sha256, length and "
            "minimum_sequence by product"
        )
    return Statement(found["epoch"], digest, found["length"], dict(least))


def _is_count(value: object, least: int = 0, most: int = MAX_VERSION) -> bool:
    return type(value) is int and least <= value <= most  # a bool is an int to isinstance


def check_follows(before: Statement, after: Statement, name: str) -> None:
    """Refuse a link whose statement does not continue the one before.

    Raises:
        NotTrustedError: the epoch falls or jumps, or one epoch gets another statement.
    """
    if after.epoch not in {before.epoch, before.epoch + 1}:
        raise NotTrustedError(
            f"{name} is about epoch {after.epoch}, expected {before.epoch} or {before.epoch + 1}"
        )
    if after.epoch == before.epoch and after != before:
        raise NotTrustedError(
            f"{name} says of epoch {after.epoch} otherwise than the version before: "
            f"{after.to_dict()}, expected {before.to_dict()}",
            "two primary roots for one epoch would split the fleet; devices follow neither",
        )


def walk(chain: Sequence[bytes]) -> list[tuple[Root, Statement]]:
    """Verify a chain from its first file on, which is trusted because it is here.

    Raises:
        NotTrustedError: a link does not verify, or breaks a rule of this module.
    """
    found: list[tuple[Root, Statement]] = []
    for data in chain:
        root = next_root(found[-1][0], data) if found else first_root(data)
        statement = read_statement(root)
        if found:
            check_follows(found[-1][1], statement, f"{RECOVERY} {root.version}")
        found.append((root, statement))
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
        PRIMARY_FIELD: statement.to_dict(),
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
