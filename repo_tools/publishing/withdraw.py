"""Pure: a channel's manifest without one of its releases, and what that means to each device.

A withdrawn release stays listed, and marked, until something newer takes its place: so that every
device can say why it does not install it. Nothing goes down by this: it is the next version of the
manifest, and a device that runs the release stays on it until something newer is offered. An older
release may be offered again afterwards (`promote`); that is for devices which never got further.

Who is affected is asked of the device's own decision, once with the manifest of before and once
with that of after, for every release that a registered device may run. Waves are ignored: what
opens later counts as open.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from client_reference.errors import ConfigurationError, RefusedError
from client_reference.manifest import Withdrawn, parse_meaning
from client_reference.nearest import did_you_mean
from client_reference.payload.segments import SUFFIX
from client_reference.selection import Reason, Selection, Waves, select

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from tuf.api.metadata import TargetFile

    from client_reference.manifest import Manifest, Release
    from client_reference.selection import DevicePosition
    from repo_tools.publishing.rehearse import Device

LONGEST_REASON = 400

__all__ = [
    "LONGEST_REASON",
    "Built",
    "Effect",
    "Follows",
    "built_releases",
    "check_left_behind",
    "effects",
    "fallback",
    "offered",
    "without",
]


def offered(manifest: Manifest) -> tuple[Release, ...]:
    """The releases of a manifest that devices may start."""
    gone = {entry.sequence for entry in manifest.withdrawn}
    return tuple(each for each in manifest.releases if each.sequence not in gone)


def without(manifest: Manifest, version: str, reason: str, now: datetime) -> Manifest:
    """The manifest in which a release is withdrawn.

    Args:
        manifest: the newest that is signed or waits.
        version: of the release.
        reason: a line for people; every device shows it.
        now: since when.

    Raises:
        ConfigurationError: it does not offer that release, or there is no reason.
    """
    name = f"{manifest.product}/{manifest.channel}"
    if not reason.strip() or not reason.isprintable() or len(reason) > LONGEST_REASON:
        raise ConfigurationError(
            f"expected a reason of one line, at most {LONGEST_REASON} characters that print: "
            "every device shows it",
            'for example --reason "the modem hangs"',
        )
    for entry in manifest.withdrawn:
        if entry.version == version:
            raise ConfigurationError(
                f"{version} was withdrawn from {name} at {entry.since:%Y-%m-%dT%H:%M:%SZ} already: "
                f"{entry.reason}",
                f"firmroot channel show {name}",
            )
    versions = [each.version for each in offered(manifest)]
    release = next((each for each in manifest.releases if each.version == version), None)
    if release is None:
        raise ConfigurationError(
            f"{name} does not offer {version}; it offers: {', '.join(versions) or 'nothing'}"
            f"{did_you_mean(version, versions)}",
            f"firmroot channel show {name}",
        )
    entry = Withdrawn(version, release.sequence, now, reason.strip())
    return replace(manifest, withdrawn=(*manifest.withdrawn, entry))


@dataclass(frozen=True)
class Built:
    """A release as the builds role tells of it: what a device may run, whatever a channel says."""

    version: str
    sequence: int
    boards: frozenset[tuple[str, str]]

    def fits(self, device: DevicePosition) -> bool:
        """Whether the device could have installed it."""
        return any((each, device.handler) in self.boards for each in device.hardware)


def built_releases(product: str, builds: Mapping[str, TargetFile]) -> tuple[Built, ...]:
    """Every release that was ever built for a product, oldest first."""
    found: dict[int, Built] = {}
    for path, target in builds.items():
        if path.endswith(SUFFIX):
            continue
        meaning = parse_meaning(target.custom, path)
        if meaning.product != product:
            continue
        boards = frozenset((hardware, meaning.handler) for hardware in meaning.hardware)
        known = found.get(meaning.sequence)
        there = known.boards if known is not None else frozenset()
        found[meaning.sequence] = Built(meaning.version, meaning.sequence, there | boards)
    return tuple(found[sequence] for sequence in sorted(found))


class Follows(enum.Enum):
    """What becomes of a device that the withdrawal concerns; the values are part of `--json`."""

    INSTEAD = "installs another"
    WAITS = "waits"
    MOVES_ON = "moves on"
    STAYS = "stays"
    STRANDED = "stranded"


@dataclass(frozen=True)
class Effect:
    """What becomes of one kind of device in one situation.

    Attributes:
        export: its id in the registry.
        hardware: its board.
        runs: the version that it runs; empty as it was shipped.
        follows: what it will do.
        detail: the same for people.
    """

    export: str
    hardware: str
    runs: str
    follows: Follows
    detail: str


def effects(
    before: Manifest,
    after: Manifest,
    hold: Collection[int],
    devices: Iterable[Device],
    built: Sequence[Built],
    now: datetime,
) -> tuple[Effect, ...]:
    """What a withdrawal changes, for each registered device and each release that it may run.

    Args:
        before: what is offered.
        after: the same with more withdrawn.
        hold: sequences that may not start.
        devices: of the registry; those of other products and channels are passed over.
        built: every release of the product.
        now: effective time.
    """
    known = {entry.sequence for entry in before.withdrawn}
    gone = {entry.sequence for entry in after.withdrawn} - known
    found: list[Effect] = []
    for device in devices:
        if (device.position.product, device.position.channel) != (after.product, after.channel):
            continue
        for runs, position in _situations(device, built):
            was = select(before, hold, position, now, Waves.IGNORE)
            then = select(after, hold, position, now, Waves.IGNORE)
            on_it = position.installed_sequence in gone
            if not on_it and _hops(was) == _hops(then):
                continue
            hardware = ", ".join(position.hardware)
            if isinstance(then, Selection):
                follows = Follows.MOVES_ON if on_it else Follows.INSTEAD
                detail = f"installs {then.release.version}"
            elif then.reason is Reason.UNREACHABLE and isinstance(was, Selection):
                follows, detail = Follows.STRANDED, then.detail
            else:
                follows = Follows.STAYS if on_it else Follows.WAITS
                detail = then.detail
            found.append(Effect(device.name, hardware, runs, follows, detail))
    return tuple(found)


def _situations(device: Device, built: Sequence[Built]) -> Iterable[tuple[str, DevicePosition]]:
    """As it was shipped, and with each release that it may have installed since."""
    floor = device.floors.minimum_sequence
    shipped = replace(device.position, installed_sequence=None, confirmed_sequence=floor)
    yield "", shipped
    for each in built:
        if each.sequence >= floor and each.fits(device.position):
            yield (
                each.version,
                replace(
                    shipped, installed_sequence=each.sequence, confirmed_sequence=each.sequence
                ),
            )


def _hops(decision: object) -> tuple[int, int] | None:
    if not isinstance(decision, Selection):
        return None
    return decision.release.sequence, decision.destination.sequence


def fallback(after: Manifest, built: Sequence[Built], sequence: int) -> Built | None:
    """The newest release below `sequence` that may be promoted again and is not offered."""
    barred = {entry.sequence for entry in after.withdrawn}
    barred |= {each.sequence for each in after.releases}
    fitting = [
        each
        for each in built
        if after.minimum_sequence <= each.sequence < sequence and each.sequence not in barred
    ]
    return fitting[-1] if fitting else None


def check_left_behind(found: Iterable[Effect], accepted: Collection[str]) -> None:
    """Refuse a withdrawal that takes the only way forward from a device.

    Raises:
        RefusedError: an export is stranded whose loss was not accepted by name.
    """
    for each in found:
        if each.follows is Follows.STRANDED and each.export not in accepted:
            runs = f"with {each.runs}" if each.runs else "as shipped"
            raise RefusedError(
                f"{each.export} {runs} would be stranded: {each.detail}",
                "promote another stepping stone first; or accept the loss: "
                f"--accept-stranded {each.export}",
            )
