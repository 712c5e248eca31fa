"""What somebody with a copy of a key can have signed, and what is worth keeping of it.

A builds role is signed by a machine, so a thief of its key may have put artifacts into it that
nobody else built. Signing the role again with another key would vouch for them: who rotates sees
each release, and whether a channel offers it, and may drop those that none does. Nothing here
writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuf.api.metadata import Root, Targets

from client_reference.errors import ConfigurationError, NotFoundError, RefusedError
from client_reference.nearest import did_you_mean
from repo_tools.gone import gone_keys
from repo_tools.metadata.repository import parse
from repo_tools.metadata.roles import RECOVERY, builds_role
from repo_tools.publishing.bridge import Gone
from repo_tools.publishing.channels import read_channel
from repo_tools.publishing.firmware import read_builds
from repo_tools.signing.ceremony import predecessor

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from tuf.api.metadata import Role

    from repo_tools.workspace import Workspace

__all__ = ["Built", "built", "built_with", "check_drop", "exposure", "versions_of"]


@dataclass(frozen=True)
class Built:
    """One release that a builds role speaks for.

    Attributes:
        product: its product.
        version: its label.
        sequence: its number.
        offered: channels whose manifest offers it, live or on its way.
    """

    product: str
    version: str
    sequence: int
    offered: tuple[str, ...]

    @property
    def ref(self) -> str:
        """As commands name it."""
        return f"{self.product}@{self.version}"


def exposure(ws: Workspace, key: str) -> Iterator[str]:
    """One sentence for each role in which a key has a say: what its thief can do there."""
    keyid = ws.keyring[key].key.keyid
    stolen = {each for each, how in gone_keys(ws).items() if how is Gone.STOLEN} | {keyid}
    root, targets = ws.newest_root(), ws.newest_targets()
    roles: dict[str, Role] = dict(root.roles) if root else {}
    delegations = targets.delegations if targets else None
    roles |= dict((delegations.roles or {}) if delegations else {})
    if (anchor := next(reversed(ws.recovery_roots()), None)) is not None:
        roles[RECOVERY] = parse(anchor, Root, RECOVERY).signed.roles[Root.type]
    for name, role in roles.items():
        if keyid not in role.keyids:
            continue
        more = max(0, role.threshold - len(stolen.intersection(role.keyids)))
        power = f"with {more} more key(s) its thief signs it" if more else "its thief signs it"
        reach = " and leads every device to another root" if name == RECOVERY else ""
        if name == Root.type and not more:
            reach = "; no rotation ends that: docs/runbooks/lost-root.md"
        yield f"{name}: {power}{reach}{_signed_live(ws, name, keyid)}"


def _signed_live(ws: Workspace, role: str, keyid: str) -> str:
    data = predecessor(ws, role)
    if data is None:
        return ""
    metadata = (
        parse(data, Root, role).signatures
        if role in {Root.type, RECOVERY}
        else parse(data, Targets, role).signatures
    )
    return "; what is live carries its signature" if keyid in metadata else ""


def built_with(ws: Workspace, key: str) -> list[Built]:
    """What the builds roles of a key speak for; signing them again vouches for all of it.

    Raises:
        NotTrustedError, RetryLaterError: the storage cannot be read.
    """
    targets = ws.newest_targets()
    delegations = targets.delegations if targets else None
    keyid, roles = ws.keyring[key].key.keyid, (delegations.roles or {}) if delegations else {}
    found = []
    for product in ws.config.products:
        role = roles.get(builds_role(product))
        if role is not None and keyid in role.keyids:
            found += built(ws, product)
    return found


def versions_of(product: str, drop: Collection[str]) -> list[str]:
    """The versions of a product among references such as `gateway@6.6`."""
    named = (each.partition("@") for each in drop)
    return [version for name, _, version in named if name == product]


def built(ws: Workspace, product: str) -> list[Built]:
    """What the builds role of a product speaks for, and what its next version drops.

    Raises:
        NotTrustedError, RetryLaterError: the storage cannot be read.
    """
    storage = ws.storage()
    offered: dict[int, list[str]] = {}
    for name in ws.config.products[product].channels:
        try:
            channel = read_channel(ws, storage, product, name)
        except NotFoundError:
            continue  # its manifest is not there: nothing can be said for keeping what it offers
        for manifest in (channel.live, channel.next):
            for release in manifest.releases if manifest else ():
                places = offered.setdefault(release.sequence, [])
                places.extend([name] if name not in places else [])
    releases = {
        (int(custom["sequence"]), str(custom["version"]))
        for target in read_builds(ws, storage, product, anew=True).known.values()
        if "sequence" in (custom := target.custom or {})
    }
    return [
        Built(product, version, sequence, tuple(offered.get(sequence, ())))
        for sequence, version in sorted(releases)
    ]


def check_drop(builds: Collection[Built], drop: Collection[str]) -> None:
    """Whether releases may be left out when their builds role is signed again.

    Args:
        builds: what roles speak for.
        drop: such as `gateway@6.6`.

    Raises:
        ConfigurationError: there is no such release.
        RefusedError: a channel offers it.
    """
    known = {each.ref: each for each in builds}
    for ref in drop:
        if ref not in known:
            raise ConfigurationError(
                f"{ref} is not what this key built; that is: {', '.join(known) or 'nothing'}"
                f"{did_you_mean(ref, known)}",
                "firmroot firmware list",
            )
        if known[ref].offered:
            where = ", ".join(known[ref].offered)
            raise RefusedError(
                f"{ref} cannot be dropped: {where} offers it, and its devices would be stranded",
                "first promote a release there that you built, and publish; or keep this one: what "
                "release managers tested and signed is theirs as well",
            )
