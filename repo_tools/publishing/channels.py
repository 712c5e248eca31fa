"""Channels of a workspace: from what is signed now to a ceremony over the next manifest or hold.

The newest signed manifest is the base: one in an open ceremony (so that two promotions before a
signature are both kept), else a staged one, else the live one. A ceremony carries the manifest's
bytes; `manifests/<product>/<channel>.toml` shows the same to people, for their review in git.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuf.api.metadata import Targets

from client_reference import manifest as formats
from client_reference.errors import ConfigurationError, NotTrustedError
from client_reference.manifest import Hold, Manifest, Release
from client_reference.nearest import did_you_mean
from client_reference.trust.verified import check_target
from repo_tools.files import replace_file
from repo_tools.metadata.edits import manifest_targets
from repo_tools.metadata.repository import RepositoryState, parse
from repo_tools.metadata.roles import channel_role, hold_path, hold_role, manifest_path
from repo_tools.publishing.artifacts import stored_name
from repo_tools.publishing.factory import devices
from repo_tools.publishing.firmware import Near, read_builds
from repo_tools.publishing.prepare import read_base
from repo_tools.publishing.promote import next_manifest, release_payloads, to_toml
from repo_tools.publishing.withdraw import (
    Built,
    Effect,
    built_releases,
    check_left_behind,
    effects,
    fallback,
    offered,
    without,
)
from repo_tools.signing.ceremony import carried, open_ceremonies, predecessor, start_ceremony

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from tuf.api.metadata import TargetFile

    from client_reference.manifest import Rollout
    from repo_tools.publishing.promote import Reference
    from repo_tools.signing.ceremony import Ceremony
    from repo_tools.storage.protocol import Storage
    from repo_tools.workspace import Workspace

__all__ = [
    "Channel",
    "Withdrawal",
    "check_channel",
    "check_product",
    "promote",
    "propose_hold",
    "propose_manifest",
    "read_channel",
    "withdraw",
]


@dataclass(frozen=True)
class Channel:
    """What a channel says.

    Attributes:
        live: the published manifest, None before the first.
        next: the newest one that is signed or waits for signatures; `live` if there is no newer.
        live_hold: sequences that may not start.
        next_hold: likewise, of the newest.
    """

    product: str
    channel: str
    live: Manifest | None
    next: Manifest | None
    live_hold: Hold
    next_hold: Hold


def check_product(workspace: Workspace, product: str) -> None:
    """Refuse a product that the workspace does not have.

    Raises:
        ConfigurationError: names those that it has.
    """
    known = workspace.config.products
    if product not in known:
        raise ConfigurationError(
            f"there is no product {product!r}; there is: {', '.join(known) or 'none'}"
            f"{did_you_mean(product, known)}",
            f"firmroot product add {product} --hardware ID",
        )


def check_channel(workspace: Workspace, product: str, channel: str) -> None:
    """Refuse a channel that the workspace does not have.

    Raises:
        ConfigurationError: names those that it has.
    """
    found = workspace.config.products.get(product)
    if found is None or channel not in found.channels:
        known = [
            f"{each.name}/{name}"
            for each in workspace.config.products.values()
            for name in each.channels
        ]
        asked = f"{product}/{channel}"
        raise ConfigurationError(
            f"there is no channel {asked}; there is: {', '.join(known) or 'none'}"
            f"{did_you_mean(asked, known)}",
            f"firmroot product add {product} --channel {channel}",
        )


def read_channel(workspace: Workspace, storage: Storage, product: str, channel: str) -> Channel:
    """Everything that is known about a channel.

    Raises:
        ConfigurationError: there is no such channel.
        NotTrustedError, RetryLaterError: as `read_base`.
    """
    check_channel(workspace, product, channel)
    rooted = bool(workspace.roots()) or workspace.staged_role("root") is not None
    state = read_base(workspace, storage).state if rooted else RepositoryState()
    role, path = channel_role(product, channel), manifest_path(product, channel)
    live = _published(storage, state, role, path, formats.MAX_MANIFEST)
    newest = _newest(workspace, role, path) or live
    held, held_path = hold_role(product, channel), hold_path(product, channel)
    live_hold = _published(storage, state, held, held_path, formats.MAX_HOLD)
    newest_hold = _newest(workspace, held, held_path) or live_hold
    nothing = Hold(product, channel, frozenset())
    return Channel(
        product=product,
        channel=channel,
        live=None if live is None else formats.parse(live),
        next=None if newest is None else formats.parse(newest),
        live_hold=nothing if live_hold is None else formats.parse_hold(live_hold),
        next_hold=nothing if newest_hold is None else formats.parse_hold(newest_hold),
    )


def _published(
    storage: Storage, state: RepositoryState, role: str, path: str, limit: int
) -> bytes | None:
    signed = state.role(role)
    if signed is None or (target := signed.targets.get(path)) is None:
        return None
    data = storage.read(stored_name(path, target.hashes["sha256"]), limit).data
    check_target(target, data)
    return data


def _newest(workspace: Workspace, role: str, path: str) -> bytes | None:
    """What waits for signatures, or for a publish.

    Attack: who can write to git, and sign nothing, exchanges a file that waits, and the next
    manifest or hold is built upon it.
    """
    for ceremony in open_ceremonies(workspace):
        if ceremony.role == role:
            return carried(ceremony).get(path)
    staged = workspace.staged_role(role)
    if staged is None:
        return None
    target = parse(staged, Targets, role).signed.targets.get(path)
    if target is None:
        return None
    stored = stored_name(path, target.hashes["sha256"])
    if (file := workspace.staged_targets().get(stored)) is None:
        raise NotTrustedError(
            f"staged/{role}.json names {path}, and staged/{stored} is missing",
            "take staged/ from git again",
        )
    return workspace.staged_target(file, target)


def promote(  # noqa: PLR0913  what, where, and how it is rolled out
    workspace: Workspace,
    storage: Storage,
    reference: Reference,
    channel: str,
    rollout: Rollout,
    now: datetime,
    *,
    severity: str = "",
    notes: str = "",
    stone: bool = False,
    from_sequence: int = 0,
    discard_signatures: bool = False,
) -> tuple[Ceremony, Manifest]:
    """Open the ceremony in which a release is offered on a channel.

    Raises:
        ConfigurationError: there is no such release or channel.
        RefusedError: devices would have to go back.
        DiscardedSignaturesError: the channel's open ceremony has signatures already.
    """
    current = read_channel(workspace, storage, reference.product, channel)
    targets = _release_targets(workspace, storage, reference)
    sequence, payloads = release_payloads(reference, targets)
    release = Release(
        version=reference.version,
        sequence=sequence,
        rollout=rollout,
        payloads=payloads,
        from_sequence=from_sequence,
        stone=stone,
        severity=severity,
        notes=notes,
    )
    base = current.next or Manifest(reference.product, channel, 0, ())
    following = next_manifest(base, release, now)
    ceremony = propose_manifest(workspace, following, now, discard_signatures=discard_signatures)
    return ceremony, following


def _release_targets(
    workspace: Workspace, storage: Storage, reference: Reference
) -> Mapping[str, TargetFile]:
    """Targets of a product, with those of a release.

    A release in hash bins is found by the index of the newest ones, by a channel that offers it,
    and only then by reading every bin.
    """
    product, version = reference.product, reference.version
    builds = read_builds(workspace, storage, product, Near(versions=(version,)))
    if _has(builds.targets, version):
        return builds.targets
    paths = offered_paths(workspace, storage, product, version)
    near = Near(paths=paths, every=not paths)
    return read_builds(workspace, storage, product, near).targets


def _has(targets: Mapping[str, TargetFile], version: str) -> bool:
    return any((each.custom or {}).get("version") == version for each in targets.values())


def offered_paths(
    workspace: Workspace, storage: Storage, product: str, version: str = ""
) -> tuple[str, ...]:
    """Paths of artifacts that channels of a product offer, of one version or of all."""
    found: dict[str, None] = {}
    for name in workspace.config.products[product].channels:
        there = read_channel(workspace, storage, product, name)
        for manifest in (there.live, there.next):
            for release in manifest.releases if manifest is not None else ():
                if not version or release.version == version:
                    found.update((each.artifact.path, None) for each in release.payloads)
    return tuple(found)


@dataclass(frozen=True)
class Withdrawal:
    """A withdrawal that waits for signatures.

    Attributes:
        ceremony: over the manifest.
        manifest: what it says.
        effects: what becomes of registered devices.
        fallback: what could be offered again to devices that have not got so far; None if nothing.
        elsewhere: other channels that still offer the release.
    """

    ceremony: Ceremony
    manifest: Manifest
    effects: tuple[Effect, ...]
    fallback: Built | None
    elsewhere: tuple[str, ...]


def withdraw(
    workspace: Workspace,
    storage: Storage,
    reference: Reference,
    channel: str,
    reason: str,
    now: datetime,
    *,
    accepted: Collection[str] = (),
    discard_signatures: bool = False,
) -> Withdrawal:
    """Open the ceremony in which a release is withdrawn from a channel.

    Raises:
        ConfigurationError: it is not offered there, or was withdrawn already.
        RefusedError: devices would be stranded whose loss `accepted` does not name.
        DiscardedSignaturesError: the channel's open ceremony has signatures already.
    """
    product = reference.product
    current = read_channel(workspace, storage, product, channel)
    before = current.next or Manifest(product, channel, 0, ())
    following = without(before, reference.version, reason, now)
    near = Near(paths=offered_paths(workspace, storage, product), recent=True)
    built = built_releases(product, read_builds(workspace, storage, product, near).targets)
    hold = current.next_hold.sequences
    found = effects(before, following, hold, devices(workspace), built, now)
    check_left_behind(found, accepted)
    sequence = following.withdrawn[-1].sequence
    elsewhere = []
    for name in workspace.config.products[product].channels:
        there = read_channel(workspace, storage, product, name)
        manifests = [each for each in (there.live, there.next) if each is not None]
        if name != channel and any(
            release.sequence == sequence for each in manifests for release in offered(each)
        ):
            elsewhere.append(f"{product}/{name}")
    ceremony = propose_manifest(workspace, following, now, discard_signatures=discard_signatures)
    again = fallback(following, built, sequence)
    return Withdrawal(ceremony, following, found, again, tuple(elsewhere))


def propose_manifest(
    workspace: Workspace, manifest: Manifest, now: datetime, *, discard_signatures: bool
) -> Ceremony:
    """Open the ceremony of a manifest, and write its readable form.

    Raises:
        DiscardedSignaturesError: the channel's open ceremony has signatures already.
    """
    role = channel_role(manifest.product, manifest.channel)
    path = manifest_path(manifest.product, manifest.channel)
    data = formats.serialize(manifest)
    ceremony = _start(workspace, role, "channel", path, data, now, discard=discard_signatures)
    readable = workspace.directory / "manifests" / manifest.product / f"{manifest.channel}.toml"
    replace_file(readable, to_toml(manifest).encode())
    return ceremony


def propose_hold(
    workspace: Workspace, hold: Hold, now: datetime, *, discard_signatures: bool
) -> Ceremony:
    """Open the ceremony of a hold file. Raises as `propose_manifest`."""
    role, path = hold_role(hold.product, hold.channel), hold_path(hold.product, hold.channel)
    data = formats.serialize_hold(hold)
    return _start(workspace, role, "hold", path, data, now, discard=discard_signatures)


def _start(
    workspace: Workspace,
    role: str,
    template: str,
    path: str,
    data: bytes,
    now: datetime,
    *,
    discard: bool,
) -> Ceremony:
    before = predecessor(workspace, role)
    previous = None if before is None else parse(before, Targets, role).signed
    rules = workspace.policy.role(role, template)
    signed = manifest_targets(role, previous, path, data, rules, now)
    return start_ceremony(workspace, role, signed, {path: data}, discard_signatures=discard)
