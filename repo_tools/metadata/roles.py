"""Pure: names of roles, the paths they speak for, and the guards on delegations (design 4).

**Guard (shadowing).** A target must have exactly one role that can speak for it, for every client,
even one whose `*` crosses `/`:

* first path segments are disjoint (`channels/`, `holds/`, `trust/`, `builds/`);
* channel and hold roles are listed before builds, all delegations are terminating;
* no role name arises twice, and leaf roles delegate nothing;
* builds and channel roles share no key: a stolen CI key alone ships nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from client_reference.errors import ConfigurationError, RefusedError
from keys_policy.delegations import delegation_problems
from keys_policy.model import NAME, RECOVERY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tuf.api.metadata import DelegatedRole, Delegations, Targets

__all__ = [
    "DEVICE_TLS",
    "RECOVERY",
    "TOP_LEVEL",
    "Delegated",
    "builds_role",
    "channel_role",
    "check_delegations",
    "check_leaf",
    "check_names",
    "delegated_roles",
    "delegator",
    "hold_path",
    "hold_role",
    "manifest_path",
]

TOP_LEVEL = ("root", "targets", "snapshot", "timestamp")
DEVICE_TLS = "device-tls"

_RESERVED_CHANNELS = ("builds", "hold")


def delegator(role: str) -> str:
    """The role that says who signs this one; empty for roots, which say it themselves."""
    if role in {"root", RECOVERY}:
        return ""
    return "root" if role in TOP_LEVEL else "targets"


@dataclass(frozen=True)
class Delegated:
    """A role that `targets` delegates to.

    Attributes:
        name: of the role.
        template: section of the policy that holds its rules, unless it has its own.
        patterns: the target paths that it speaks for.
        terminating: whether a search ends with it; all of ours are.
    """

    name: str
    template: str
    patterns: tuple[str, ...]
    terminating: bool = True


def builds_role(product: str) -> str:
    """Who says what the artifacts of a product are."""
    return f"{product}-builds"


def channel_role(product: str, channel: str) -> str:
    """Who says what devices on a channel should run."""
    return f"{product}-{channel}"


def hold_role(product: str, channel: str) -> str:
    """Who says what may not start on a channel."""
    return f"{product}-{channel}-hold"


def manifest_path(product: str, channel: str) -> str:
    """The release manifest, the one target of a channel role."""
    return f"channels/{product}/{channel}.json"


def hold_path(product: str, channel: str) -> str:
    """The one target of a hold role."""
    return f"holds/{product}/{channel}.json"


def delegated_roles(
    products: Mapping[str, Sequence[str]],
    *,
    device_tls: bool,
    adopted: Sequence[Delegated] = (),
) -> tuple[Delegated, ...]:
    """Everything that `targets` delegates, in the order in which it must be listed.

    Args:
        products: the channels of each product.
        device_tls: whether the policy has the role `device-tls`.
        adopted: what was delegated before the repository was adopted; searched first, as it was.
    """
    roles: list[Delegated] = list(adopted)
    for product, channels in products.items():
        for channel in channels:
            path, held = manifest_path(product, channel), hold_path(product, channel)
            roles.append(Delegated(channel_role(product, channel), "channel", (path,)))
            roles.append(Delegated(hold_role(product, channel), "hold", (held,)))
    if device_tls:
        roles.append(Delegated(DEVICE_TLS, DEVICE_TLS, ("trust/ca-bundle.pem",)))
    roles.extend(
        Delegated(builds_role(product), "builds", (f"builds/{product}/*/*",))
        for product in products
    )
    return tuple(roles)


def check_names(products: Mapping[str, Sequence[str]]) -> None:
    """Refuse names that would make two roles one.

    Raises:
        ConfigurationError: a name has the wrong form, or two role names collide.
    """
    for product, channels in products.items():
        for name in (product, *channels):
            if NAME.fullmatch(name) is None:
                raise ConfigurationError(
                    f"{name!r} is not a name for a product or channel",
                    "small letters and digits, with single '-' between them",
                )
        if reserved := [name for name in channels if name in _RESERVED_CHANNELS]:
            raise ConfigurationError(
                f"a channel of {product} cannot be called {reserved[0]!r}: that names another role",
                "choose another name, such as stable",
            )
    seen = {DEVICE_TLS: "the role of the devices' CA bundle"}
    for product, channels in products.items():
        names = [(builds_role(product), f"the builds of {product}")]
        for channel in channels:
            names.append((channel_role(product, channel), f"channel {product}/{channel}"))
            names.append((hold_role(product, channel), f"the hold of {product}/{channel}"))
        for name, meaning in names:
            if name in seen:
                raise ConfigurationError(
                    f"the role name {name!r} would stand for {seen[name]} and for {meaning}",
                    "choose another name for the product or the channel",
                )
            seen[name] = meaning


def check_delegations(
    delegations: Delegations | None, adopted: Mapping[str, DelegatedRole] | None = None
) -> None:
    """The guard on shadowing, on what is about to be signed as `targets`.

    Args:
        delegations: of it.
        adopted: roles that were there before; paths, order and meaning of these stay as they were.

    Raises:
        RefusedError: a rule of this module is broken; says which.
    """
    theirs = adopted or {}
    if delegations is None:
        return
    if delegations.roles is None:
        raise RefusedError("targets delegates to hash bins; only builds roles may (design 4)")
    if theirs and [*delegations.roles][: len(theirs)] != [*theirs]:
        raise RefusedError(
            f"targets: expected the adopted roles {', '.join(theirs)} first, in this order",
            "a client that was there before adoption would search otherwise: find out who wrote "
            "this",
        )
    for name, role in theirs.items():
        found = delegations.roles[name]
        if (found.paths, found.terminating) != (role.paths, role.terminating):
            raise RefusedError(
                f"targets: the adopted role {name} speaks for other paths than before",
                "clients that were there before adoption rely on them: find out who wrote this",
            )
    roles = [role for name, role in delegations.roles.items() if name not in theirs]
    for problem in delegation_problems(roles):
        raise RefusedError(f"targets: {problem}", "see the guard on shadowing in docs/format.md")


def check_leaf(name: str, targets: Targets) -> None:
    """Refuse delegations of a role that must not have any.

    Raises:
        RefusedError: it delegates.
    """
    if targets.delegations is not None:
        raise RefusedError(
            f"{name} delegates to other roles; only targets may",
            "somebody tried to let another key speak for this role: find out who",
        )
