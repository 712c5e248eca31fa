"""Pure: what an adopted repository had before, and keeps for the devices that were there.

`firmroot adopt` keeps the last root and the last targets role of the others as they were signed.
From then on every targets role of ours carries their target files, their delegations (first, in
their order, terminating or not) and their paths unchanged, beside our own: a client that was there
before searches as before, and finds the same bytes. What may change is who signs a delegated role:
its rules are the section `adopted-ROLE` of the policy.

Nothing of theirs can stand for anything of ours: our devices never search, they ask the one role
that the product and channel name, and none of their paths or names is one of ours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from keys_policy.model import ADOPTED
from repo_tools.metadata.roles import DEVICE_TLS, RECOVERY, TOP_LEVEL, Delegated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tuf.api.metadata import DelegatedRole, Key, Root, TargetFile, Targets

__all__ = ["OURS", "Adopted", "claims_ours", "section_of"]

OURS = ("channels", "holds", "trust", "builds")
"""First segments of the paths that our roles speak for."""


def section_of(role: str) -> str:
    """The section of the policy with the rules of an adopted delegated role."""
    return ADOPTED + (re.sub(r"[^a-z0-9]+", "-", role.lower()).strip("-") or "role")


def claims_ours(pattern: str) -> bool:
    """Whether a path, or a pattern as TUF has them (segment by segment), is for what is ours."""
    first, slash, _ = pattern.partition("/")
    return bool(slash) and any(fnmatchcase(each, first) for each in OURS)


@dataclass(frozen=True)
class Adopted:
    """What was there.

    Attributes:
        root: their last one.
        targets: their last one.
    """

    root: Root
    targets: Targets

    @property
    def files(self) -> Mapping[str, TargetFile]:
        """The target files of their targets role itself."""
        return self.targets.targets

    @property
    def delegations(self) -> Mapping[str, DelegatedRole]:
        """Their delegated roles, in the order in which they are searched."""
        delegations = self.targets.delegations
        return (delegations.roles or {}) if delegations else {}

    @property
    def roles(self) -> tuple[Delegated, ...]:
        """The same as ours are described."""
        return tuple(
            Delegated(name, section_of(name), tuple(each.paths or ()), each.terminating)
            for name, each in self.delegations.items()
        )

    @property
    def keys(self) -> dict[str, Key]:
        """Every key that they had, by key id: its id need not be the one that we would give it."""
        delegations = self.targets.delegations
        return {**(delegations.keys if delegations else {}), **self.root.keys}

    def vouches(self, keyid: str, key: Key) -> bool:
        """Whether this key had this id already."""
        known = self.keys.get(keyid)
        return known is not None and (known.keytype, known.scheme, known.keyval) == (
            key.keytype,
            key.scheme,
            key.keyval,
        )

    def collisions(self) -> Iterator[str]:
        """What of theirs could be taken for something of ours, in words."""
        for path in self.files:
            if claims_ours(path):
                yield f"the target {path} has a path that firmroot's own roles speak for"
        sections: dict[str, str] = {}
        for role in self.roles:
            if role.name in {*TOP_LEVEL, DEVICE_TLS, RECOVERY}:
                yield f"the delegated role {role.name} has a name that firmroot's own role has"
            if (other := sections.setdefault(role.template, role.name)) != role.name:
                yield f"the delegated roles {other} and {role.name} would share {role.template}"
            for pattern in role.patterns:
                if claims_ours(pattern):
                    yield (
                        f"the delegated role {role.name} speaks for {pattern}, where firmroot's "
                        "own roles do"
                    )
