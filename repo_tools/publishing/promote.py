"""Pure: the next release manifest of a channel, and its hold file, from what is signed now.

A promotion adds one release, made of what the builds role says about its artifacts. Releases that
nobody needs any more are dropped, so that the manifest stays small; what stays:

* stepping stones, always: a path through a missing stone strands whoever is behind it;
* a release that for some hardware is still the best: no newer release that covers it is open to
  every device and installs from everywhere that the old one did; what is withdrawn covers nothing.

The seed of a rollout survives a re-promotion with the same waves: nobody loses their place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import tomlkit

from client_reference.errors import ConfigurationError, RefusedError
from client_reference.manifest import (
    Artifact,
    GroupWave,
    Hold,
    Manifest,
    Payload,
    Release,
    Rollout,
    ShareWave,
    parse_meaning,
)
from client_reference.nearest import did_you_mean
from client_reference.payload.segments import SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from tuf.api.metadata import TargetFile

    from client_reference.manifest import Wave

__all__ = [
    "EVERYBODY",
    "Difference",
    "Reference",
    "describe_difference",
    "next_hold",
    "next_manifest",
    "parse_channel",
    "parse_reference",
    "parse_waves",
    "release_payloads",
    "to_toml",
    "with_minimum",
]

_ALL = 1000
_STEP_HOURS = 24
EVERYBODY: tuple[Wave, ...] = (ShareWave(0, _ALL),)


@dataclass(frozen=True)
class Reference:
    """A release: `gateway@1.1`."""

    product: str
    version: str

    def __str__(self) -> str:
        return f"{self.product}@{self.version}"


def parse_reference(text: str) -> Reference:
    """Read `PRODUCT@VERSION`."""
    product, _, version = text.partition("@")
    if not (product and version):
        raise ConfigurationError(
            f"{text!r} does not name a release: PRODUCT@VERSION was expected",
            "for example gateway@1.1; `firmroot firmware list` shows them all",
        )
    return Reference(product, version)


def parse_channel(text: str) -> tuple[str, str]:
    """Read `PRODUCT/CHANNEL`."""
    product, _, channel = text.partition("/")
    if not (product and channel) or "/" in channel:
        raise ConfigurationError(
            f"{text!r} does not name a channel: PRODUCT/CHANNEL was expected",
            "for example gateway/stable; `firmroot channel list` shows them all",
        )
    return product, channel


def parse_waves(text: str) -> tuple[Wave, ...]:
    """Read `1,20,100`: shares of the fleet in percent, a day apart, or `1@0,20@12,100@48` in hours.

    Raises:
        ConfigurationError: not such a list, or a share or an hour falls.
    """
    waves: list[Wave] = []
    hours, permille = 0, 0
    for index, part in enumerate(text.split(",")):
        share, at, hour = part.strip().partition("@")
        try:
            found = round(float(share) * 10)
            after = int(hour) if at else index * _STEP_HOURS
        except (ValueError, OverflowError):
            found, after = -1, 0
        if not permille < found <= _ALL or after < hours:
            raise ConfigurationError(
                f"--waves {text!r}: {part.strip()!r} is not a share of the fleet in percent that "
                "is above the one before it, at most 100, with hours that never fall",
                "for example --waves 1,20,100 or --waves 1@0,20@12,100@48",
            )
        hours, permille = after, found
        waves.append(ShareWave(hours, permille))
    return tuple(waves)


def release_payloads(
    reference: Reference, builds: Mapping[str, TargetFile]
) -> tuple[int, tuple[Payload, ...]]:
    """What the builds role says about a release: its sequence and its payloads.

    Args:
        reference: which release.
        builds: every target of the product's builds role, live and staged.

    Raises:
        ConfigurationError: there is no such release.
    """
    payloads: list[Payload] = []
    versions: set[str] = set()
    sequences: set[int] = set()
    for path, target in sorted(builds.items()):
        if path.endswith(SUFFIX):
            continue
        meaning = parse_meaning(target.custom, path)
        versions.add(meaning.version)
        if meaning.version == reference.version and meaning.product == reference.product:
            artifact = Artifact(path, target.length, target.hashes["sha256"])
            payloads.append(Payload(tuple(sorted(meaning.hardware)), meaning.handler, artifact))
            sequences.add(meaning.sequence)
    if not payloads:
        raise ConfigurationError(
            f"there is no release {reference} that this clone knows: none is live, and no firmware "
            f"was added here under that version{did_you_mean(reference.version, versions)}",
            f"here: firmroot firmware add FILE -p {reference.product} -V {reference.version} "
            "--hardware ID; added on another machine: promote it there, or here once it is live; "
            "`firmroot firmware list` shows what is there",
        )
    if len(sequences) != 1:
        raise RefusedError(
            f"the artifacts of {reference} have different sequences: {sorted(sequences)}",
            "add them again under a new version",
        )
    return sequences.pop(), tuple(payloads)


def next_manifest(manifest: Manifest, release: Release, now: datetime) -> Manifest:
    """The manifest with one release more, and without those that nobody needs.

    Args:
        manifest: what is signed now; empty releases before the first promotion.
        release: the promoted one; its rollout's seed is kept if this is a re-promotion.
        now: for which rollouts are complete.

    Raises:
        RefusedError: it is withdrawn, below the minimum, or older than what the channel offers.
    """
    name = f"{manifest.product}/{manifest.channel}"
    if any(entry.sequence == release.sequence for entry in manifest.withdrawn):
        raise RefusedError(
            f"{release.version} is withdrawn from {name}",
            "add the firmware again under a new version",
        )
    if release.sequence < manifest.minimum_sequence:
        raise RefusedError(
            f"{release.version} has sequence {release.sequence}, below the minimum "
            f"{manifest.minimum_sequence} of {name}",
            "add the firmware again under a new version",
        )
    others = [each for each in manifest.releases if each.sequence != release.sequence]
    previous = next((r for r in manifest.releases if r.sequence == release.sequence), None)
    if previous is not None and previous.rollout.waves == release.rollout.waves:
        release = replace(release, rollout=replace(release.rollout, seed=previous.rollout.seed))
    offered = [*others, release]
    gone = {entry.sequence for entry in manifest.withdrawn}
    better = [each for each in offered if each.sequence not in gone]
    if not release.stone and not _needed(release, better, now):
        newest = max(better, key=lambda each: each.sequence)
        raise RefusedError(
            f"{name} already offers {newest.version} (sequence {newest.sequence}), newer than "
            f"{release.version} (sequence {release.sequence}); devices never go back",
            "add the old bytes again under a new version and promote that; for devices that have "
            "not got further yet: firmroot channel withdraw "
            f"{manifest.product}@{newest.version} --on {manifest.channel}, then promote this",
        )
    kept = [each for each in offered if each.stone or _needed(each, better, now)]
    kept.sort(key=lambda each: each.sequence, reverse=True)
    return replace(manifest, releases=tuple(kept))


def _needed(release: Release, offered: Iterable[Release], now: datetime) -> bool:
    """Whether some hardware has nothing better than this release."""
    better = [
        each
        for each in offered
        if each.sequence > release.sequence
        and each.from_sequence <= release.from_sequence
        and not each.needs
        and _complete(each.rollout, now)
    ]
    covered = {
        (hardware, payload.handler)
        for each in better
        for payload in each.payloads
        for hardware in payload.hardware
    }
    return any(
        (hardware, payload.handler) not in covered
        for payload in release.payloads
        for hardware in payload.hardware
    )


def _complete(rollout: Rollout, now: datetime) -> bool:
    """Whether every device may start by now."""
    return not rollout.paused and any(
        isinstance(wave, ShareWave)
        and wave.permille == _ALL
        and rollout.start + timedelta(hours=wave.after_hours) <= now
        for wave in rollout.waves
    )


def with_minimum(manifest: Manifest, release: Release) -> Manifest:
    """The manifest that lets nothing older than `release` be installed.

    Raises:
        RefusedError: the minimum would fall.
    """
    if release.sequence < manifest.minimum_sequence:
        raise RefusedError(
            f"the minimum of {manifest.product}/{manifest.channel} is sequence "
            f"{manifest.minimum_sequence}, above {release.version} (sequence {release.sequence})",
            "a minimum is raised, never lowered",
        )
    kept = tuple(each for each in manifest.releases if each.sequence >= release.sequence)
    return replace(manifest, minimum_sequence=release.sequence, releases=kept)


def next_hold(hold: Hold, *, add: int | None = None, remove: int | None = None) -> Hold:
    """The hold file with a sequence more or less."""
    sequences = (hold.sequences | {add}) if add is not None else hold.sequences
    return replace(hold, sequences=frozenset(sequences - {remove}))


@dataclass(frozen=True)
class Difference:
    """What a new manifest changes."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    minimum: tuple[int, int] | None
    withdrawn: tuple[str, ...] = ()


def describe_difference(before: Manifest, after: Manifest) -> Difference:
    """What changes from one manifest to the next, by version."""
    old = {release.sequence: release for release in before.releases}
    new = {release.sequence: release for release in after.releases}
    moved = before.minimum_sequence != after.minimum_sequence
    return Difference(
        added=tuple(new[sequence].version for sequence in sorted(new.keys() - old.keys())),
        removed=tuple(old[sequence].version for sequence in sorted(old.keys() - new.keys())),
        changed=tuple(new[s].version for s in sorted(new.keys() & old.keys()) if new[s] != old[s]),
        minimum=(before.minimum_sequence, after.minimum_sequence) if moved else None,
        withdrawn=tuple(each.version for each in after.withdrawn if each not in before.withdrawn),
    )


def to_toml(manifest: Manifest) -> str:
    """The manifest as people read it in a review; what is signed is the JSON in the ceremony."""
    lines = [
        f"# {manifest.product}/{manifest.channel}: what its release managers sign next.",
        "# Written by `firmroot channel`; for reading and reviewing.",
        "schema = 1",
        f"minimum_sequence = {manifest.minimum_sequence}",
    ]
    for release in manifest.releases:
        lines += ["", "[[release]]", *_release_lines(release)]
    for entry in manifest.withdrawn:
        lines += [
            "",
            "[[withdrawn]]",
            f"version = {_quoted(entry.version)}",
            f"sequence = {entry.sequence}",
            f"since = {entry.since:%Y-%m-%dT%H:%M:%SZ}",
            f"reason = {_quoted(entry.reason)}",
        ]
    return "\n".join(lines) + "\n"


def _release_lines(release: Release) -> list[str]:
    lines = [
        f"version = {_quoted(release.version)}",
        f"sequence = {release.sequence}",
        f"from_sequence = {release.from_sequence}",
        f"stone = {str(release.stone).lower()}",
        f"severity = {_quoted(release.severity)}",
        f"notes = {_quoted(release.notes)}",
        f"start = {release.rollout.start:%Y-%m-%dT%H:%M:%SZ}",
        f"seed = {_quoted(release.rollout.seed)}",
        f"paused = {str(release.rollout.paused).lower()}",
        "waves = [" + ", ".join(_wave(wave) for wave in release.rollout.waves) + "]",
    ]
    for payload in release.payloads:
        lines += [
            "",
            "  [[release.payload]]",
            f"  hardware = [{', '.join(_quoted(each) for each in payload.hardware)}]",
            f"  handler = {_quoted(payload.handler)}",
            f"  path = {_quoted(payload.artifact.path)}",
            f"  length = {payload.artifact.length}",
            f"  sha256 = {_quoted(payload.artifact.sha256)}",
        ]
    return lines


def _wave(wave: Wave) -> str:
    if isinstance(wave, GroupWave):
        groups = ", ".join(_quoted(group) for group in wave.groups)
        return f"{{ after_hours = {wave.after_hours}, groups = [{groups}] }}"
    return f"{{ after_hours = {wave.after_hours}, permille = {wave.permille} }}"


def _quoted(text: str) -> str:
    return tomlkit.string(text).as_string()
