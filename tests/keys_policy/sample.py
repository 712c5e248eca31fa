"""A sound policy and its keys, for tests that break one thing at a time."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from keys_policy.model import KeyHolder, Policy, RolePolicy
from repo_tools.signing.keyfiles import generate, public_key

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["KEYRING", "POLICY", "holder", "policy_with"]

_NAMES = ("alice", "bob", "carol", "rita", "sam", "tess", "oncall", "ci", "publisher")


@cache
def holder(name: str, algorithm: str = "ed25519") -> KeyHolder:
    """A key of that name; the same each time."""
    return KeyHolder(name, name, "file", public_key(generate(algorithm)))


KEYRING: Mapping[str, KeyHolder] = {name: holder(name) for name in _NAMES}

POLICY = Policy(
    {
        "root": RolePolicy(2, ("alice", "bob", "carol"), 365, 60),
        "targets": RolePolicy(2, ("alice", "bob", "carol"), 365, 60),
        "snapshot": RolePolicy(1, ("publisher",), 30, 7),
        "timestamp": RolePolicy(1, ("publisher",), 7, 2),
        "builds": RolePolicy(1, ("ci",), 365, 60),
        "channel": RolePolicy(2, ("rita", "sam", "tess"), 90, 30),
        "hold": RolePolicy(1, ("oncall",), 365, 60),
    }
)


def policy_with(**roles: RolePolicy) -> Policy:
    """The sound policy with other rules for some roles; `_` stands for `-` in their names."""
    changed = {name.replace("_", "-"): rules for name, rules in roles.items()}
    return Policy({**POLICY.roles, **changed})
