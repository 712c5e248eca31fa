"""Pure: who may sign what, as values.

`policy.toml` belongs to the people who answer for security; it says which roles exist, who holds
their keys, how many must agree, and for how long a signature is good. A role of a product takes its
rules from a template (`builds`, `channel`, `hold`) unless the policy has a section for exactly that
role.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import date

    from securesystemslib.signer import Key

__all__ = [
    "ADOPTED",
    "ALGORITHMS",
    "ALGORITHM_SINCE",
    "CUSTODIES",
    "NAME",
    "ONLINE_ROLES",
    "OPTIONAL_ROLES",
    "RECOVERY",
    "REQUIRED_ROLES",
    "TEMPLATES",
    "KeyHolder",
    "Policy",
    "RolePolicy",
    "Scale",
]

# Names of keys, products and channels: they become file names, role names and path segments.
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")

# The key types that every device must verify, by the name that people use for them.
ALGORITHMS: Mapping[str, tuple[str, str]] = {
    "ed25519": ("ed25519", "ed25519"),
    "ecdsa-p256": ("ecdsa", "ecdsa-sha2-nistp256"),
    "ecdsa-p384": ("ecdsa", "ecdsa-sha2-nistp384"),
    "rsa": ("rsa", "rsassa-pss-sha256"),
    "ml-dsa-65": ("ml-dsa", "ml-dsa-65/1"),
}

# The first release whose client verifies an algorithm.
ALGORITHM_SINCE: Mapping[str, str] = {
    "ed25519": "0.1.0",
    "ecdsa-p256": "0.1.0",
    "ecdsa-p384": "0.1.0",
    "rsa": "0.1.0",
    "ml-dsa-65": "0.1.0",
}

# Where a private half can be: a file, a token (PKCS#11), a KMS of a cloud, Vault or OpenBao.
CUSTODIES = ("file", "hsm", "kms", "vault")

ONLINE_ROLES = ("snapshot", "timestamp")
TEMPLATES = ("builds", "channel", "hold")
REQUIRED_ROLES = ("root", "targets", *ONLINE_ROLES, *TEMPLATES)
# The root of the recovery anchor; a section without keys means that there is no anchor yet.
RECOVERY = "recovery"
# Begins the sections of delegated roles that were there before `firmroot adopt`.
ADOPTED = "adopted-"
OPTIONAL_ROLES = ("device-tls", RECOVERY)


class Scale:
    """How many people stand behind the keys (the `scale` of a policy)."""

    TEAM = "team"  # losing or stealing one key is not a disaster
    MAKER = "maker"  # one person: thresholds of one are accepted, with a warning


@dataclass(frozen=True)
class RolePolicy:
    """The rules of one role, or of a template.

    Attributes:
        threshold: distinct keys that must sign.
        keys: names of the keys (`keys/<name>.toml`).
        expiry_days: how long a signature is good.
        signing_days: how long before the end it is time to sign again; 0 for online roles that a
            job refreshes.
        hybrid_left: people whose signatures must still be needed when either the classical or the
            post-quantum algorithms are broken; 0 claims nothing.
        custodies: different kinds of custody that its keys must have at least.
        rotation_days: how old a key may become; 0 asks for no rotation.
        algorithms: names of `ALGORITHMS` that its keys may use; empty for all that the policy has.
    """

    threshold: int
    keys: tuple[str, ...]
    expiry_days: int
    signing_days: int
    hybrid_left: int = 0
    custodies: int = 1
    rotation_days: int = 0
    algorithms: tuple[str, ...] = ()


@dataclass(frozen=True)
class KeyHolder:
    """The public half of a key and who answers for it (`keys/<name>.toml`).

    Attributes:
        name: what policy and people call the key.
        holder: the person or machine that has the private half.
        custody: where the private half is kept, one of `CUSTODIES`; files that were written before
            there was a choice may say anything.
        key: the public key, with its id.
        contact: how to reach the holder; may be empty.
        place: where the private half lies; may be empty.
        made: when it was made, None if nobody knows.
        destroyed: when the last copy of the private half was destroyed, None if there is one.
    """

    name: str
    holder: str
    custody: str
    key: Key
    contact: str = ""
    place: str = ""
    made: date | None = None
    destroyed: date | None = None


@dataclass(frozen=True)
class Policy:
    """The whole of `policy.toml`.

    Attributes:
        roles: rules by role or template name.
        algorithms: names of `ALGORITHMS` that new keys may use.
        scale: `Scale.TEAM` or `Scale.MAKER`.
        algorithms_until: first day on which an algorithm may not be used any more.
        lead_days: how long a ceremony takes until everybody has signed.
        lab: thrown-away keys for trying out; never good for production.
    """

    roles: Mapping[str, RolePolicy]
    algorithms: tuple[str, ...] = tuple(ALGORITHMS)
    scale: str = Scale.TEAM
    lab: bool = False
    source: str = field(default="policy.toml", compare=False)
    algorithms_until: Mapping[str, date] = field(default_factory=dict)
    lead_days: int = 0

    @property
    def recovery(self) -> RolePolicy | None:
        """The rules of the recovery anchor, None while its section names no keys."""
        rules = self.roles.get(RECOVERY)
        return rules if rules is not None and rules.keys else None

    def role(self, name: str, template: str | None = None) -> RolePolicy:
        """The rules of a role: its own section, else those of its template.

        Args:
            name: such as `root` or `gateway-builds`.
            template: `builds`, `channel` or `hold` for a role of a product.

        Raises:
            KeyError: the policy has neither.
        """
        return self.roles[name] if name in self.roles or template is None else self.roles[template]

    def roles_of(self, key: str) -> Iterator[str]:
        """The roles and templates that a key signs for, in the order of the policy."""
        return (name for name, rules in self.roles.items() if key in rules.keys)
