"""Pure: what it takes to replace or remove a key.

A key lives in sections of the policy. Top-level roles change with a new root, delegated ones with a
new targets, the recovery anchor with `anchor renew`; what the key has signed must be signed anew by
who remains, if it no longer reaches its threshold.

**Guard (fast-forward).** Whoever held a delegated role's key could have moved its version forward;
devices keep the version until the *snapshot* key changes (TUF 5.3.11 clears timestamp and
snapshot). So a compromised delegated key rotates the snapshot key too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from client_reference.errors import ConfigurationError, RefusedError
from keys_policy.model import ONLINE_ROLES, RECOVERY
from repo_tools.metadata.roles import TOP_LEVEL

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from tuf.api.metadata import Root, Targets

    from keys_policy.model import Policy, RolePolicy

__all__ = ["Rotation", "plan_rotation", "replace_key", "roles_held"]


@dataclass(frozen=True)
class Rotation:
    """What a rotation changes.

    Attributes:
        old: name of the key that goes.
        new: name of the key that takes its place, None to remove it.
        sections: of the policy, that name the old key.
        root: a new root is needed.
        targets: a new targets role is needed.
        snapshot: the snapshot key must change as well (guard on fast-forward).
        recovery: a new recovery root is needed.
        policy: the policy afterwards.
    """

    old: str
    new: str | None
    sections: tuple[str, ...]
    root: bool
    targets: bool
    snapshot: bool
    recovery: bool
    policy: Policy

    @property
    def online(self) -> bool:
        """Whether publish and refresh sign with it."""
        return bool(set(self.sections).intersection(ONLINE_ROLES))


def roles_held(
    keyid: str, root: Root | None, targets: Targets | None, recovery: Root | None = None
) -> Iterator[str]:
    """The signed roles in which a key id has a say."""
    if recovery is not None and keyid in recovery.roles["root"].keyids:
        yield RECOVERY
    for name, role in (root.roles if root else {}).items():
        if keyid in role.keyids:
            yield name
    delegated = targets.delegations.roles if targets and targets.delegations else None
    for name, each in (delegated or {}).items():
        if keyid in each.keyids:
            yield name


def plan_rotation(
    policy: Policy, old: str, new: str | None, held: Collection[str], *, compromised: bool
) -> Rotation:
    """Plan the rotation of one key.

    Args:
        policy: in force.
        old: name of the key.
        new: name of its replacement, or None to remove it.
        held: signed roles in which it still has a say (`roles_held`), so that an interrupted
            rotation can be taken up again.
        compromised: somebody else may have the key.

    Raises:
        ConfigurationError: the key has no role, or is its own replacement.
        RefusedError: removing it would leave fewer keys than a threshold.
    """
    sections = tuple(policy.roles_of(old))
    if not sections and not held:
        raise ConfigurationError(
            f"key {old} is in no role: there is nothing to rotate", "firmroot key list"
        )
    if new == old:
        raise ConfigurationError(f"{old} cannot take its own place", "name another key with --to")
    after = replace_key(policy, old, new)
    for name in sections:
        rules = after.roles[name]
        if rules.threshold > len(rules.keys):
            raise RefusedError(
                f"without {old} role {name} has {len(rules.keys)} keys, "
                f"below its threshold {rules.threshold}",
                f"give it a successor: firmroot rotate {old} --to NEW",
            )
    root = any(name in TOP_LEVEL for name in (*sections, *held))
    delegated = any(name not in {*TOP_LEVEL, RECOVERY} for name in (*sections, *held))
    # A new root may leave the targets role without its threshold of signatures.
    targets = delegated or "targets" in sections or "targets" in held
    return Rotation(
        old=old,
        new=new,
        sections=sections,
        root=root,
        targets=targets,
        snapshot=compromised and targets and "snapshot" not in sections,
        recovery=RECOVERY in sections or RECOVERY in held,
        policy=after,
    )


def replace_key(policy: Policy, old: str, new: str | None) -> Policy:
    """The policy with one key in the place of another, or without it."""
    return replace(
        policy, roles={name: _replaced(rules, old, new) for name, rules in policy.roles.items()}
    )


def _replaced(rules: RolePolicy, old: str, new: str | None) -> RolePolicy:
    names: Mapping[str, None] = dict.fromkeys(
        name for name in (new if each == old else each for each in rules.keys) if name is not None
    )
    return replace(rules, keys=tuple(names))
