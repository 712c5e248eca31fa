"""Pure: which release this device installs next, or why none.

Every release of the manifest is judged by the same gates, in this order; the first that is shut is
the verdict:

1. it is not older than what is installed and confirmed here (anti-rollback), nor below the
   channel's minimum, which binds only as long as this manifest is current;
2. it is neither withdrawn, nor held, nor rejected by this device before;
3. this client has what it `needs`, and it has a payload for the hardware and the handler;
4. its wave is open.

Then the destination is the newest release whose gates are all open and that can be reached, either
directly or over stepping stones whose own gates are open. What is returned is the next hop. Version
labels are never compared, sequences are.

Withdrawing a release stops it, and takes it from nobody: a device that runs it stays there until
something newer is offered, and says so in every answer that installs nothing.
"""

from __future__ import annotations

import enum
from dataclasses import replace
from typing import TYPE_CHECKING

from client_reference.rollout import Standing, turn
from client_reference.strictjson import format_time
from client_reference.values import frozen

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from client_reference.manifest import Manifest, Payload, Release

__all__ = ["DevicePosition", "Reason", "Selection", "Skip", "Verdict", "Waves", "select"]


class Reason(enum.Enum):
    """Why a release is not installed; the values are part of `--json`."""

    UP_TO_DATE = "up-to-date"
    NO_CHANNEL = "no-channel"
    NOTHING_OFFERED = "nothing-offered"
    OLDER = "older"
    BELOW_FLOOR = "below-floor"
    BELOW_MINIMUM = "below-minimum"
    WITHDRAWN = "withdrawn"
    HELD = "held"
    REJECTED = "rejected"
    CLIENT_TOO_OLD = "client-too-old"
    HARDWARE = "hardware"
    HANDLER = "handler"
    PAUSED = "paused"
    WAVE = "wave"
    UNREACHABLE = "unreachable"


class Waves(enum.Enum):
    """Whether the owner of the device waits for its wave (`update --ignore-wave`)."""

    OBEY = "obey"
    IGNORE = "ignore"


@frozen
class DevicePosition:
    """What a decision needs to know of a device.

    Attributes:
        product: from the configuration; it fixes the roles.
        channel: likewise.
        hardware: ids of this hardware, the most specific first.
        handler: the handler that it installs with.
        device_id: any text that differs between devices; decides the wave.
        groups: from the configuration.
        installed_sequence: of the confirmed image; None while only the factory image has run.
        confirmed_sequence: the anti-rollback floor.
        rejected: digests of payloads that are not tried again here.
        refused: those of them that a person or a health check rejected, as far as is known.
        doubted: payload digest of what is installed, if an ended epoch of the recovery anchor
            offered it, or a sequence reset came since; empty otherwise. With the keys of that time
            somebody may have given it a huge sequence, beside which all else looks older.
    """

    product: str
    channel: str
    hardware: tuple[str, ...]
    handler: str
    device_id: str
    groups: Collection[str] = ()
    installed_sequence: int | None = None
    confirmed_sequence: int = 0
    rejected: Collection[str] = ()
    refused: Collection[str] = ()
    doubted: str = ""

    @property
    def running_sequence(self) -> int:
        """What `from` is compared with: a factory image counts as the floor it was shipped with."""
        if self.installed_sequence is None:
            return self.confirmed_sequence
        return self.installed_sequence


@frozen
class Verdict:
    """What the gates say of one release. `reason` None: all are open."""

    version: str
    sequence: int
    reason: Reason | None
    detail: str


@frozen
class Selection:
    """Install this.

    Attributes:
        release: the next hop.
        payload: its payload for this device.
        destination: where the device is going; `release` itself if there is no stone between.
        verdicts: of every release, newest first.
    """

    release: Release
    payload: Payload
    destination: Release
    verdicts: tuple[Verdict, ...] = ()


@frozen
class Skip:
    """Install nothing now.

    Attributes:
        reason: what kept the newest release away, or that there is nothing newer.
        detail: a sentence for people.
        verdicts: of every release, newest first.
    """

    reason: Reason
    detail: str
    verdicts: tuple[Verdict, ...] = ()


@frozen
class _Shut:
    reason: Reason
    detail: str


@frozen
class _Judged:
    release: Release
    payload: Payload | None
    shut: _Shut | None

    @property
    def verdict(self) -> Verdict:
        reason, detail = (self.shut.reason, self.shut.detail) if self.shut else (None, "allowed")
        return Verdict(self.release.version, self.release.sequence, reason, detail)


def select(
    manifest: Manifest,
    hold: Collection[int],
    device: DevicePosition,
    now: datetime,
    waves: Waves = Waves.OBEY,
) -> Selection | Skip:
    """Choose the next hop for a device.

    Args:
        manifest: the current manifest of the device's channel.
        hold: sequences that may not start.
        device: who asks.
        now: effective time, aware UTC.
        waves: `IGNORE` opens waves that are not open yet; nothing else, not even a pause.
    """
    releases = sorted(manifest.releases, key=lambda release: release.sequence, reverse=True)
    if device.doubted:
        device = _undoubted(device, releases)
    judged = [_judge(release, manifest, hold, device, now, waves) for release in releases]
    verdicts = _verdicts(judged, manifest)
    unreachable: Skip | None = None
    for destination in judged:
        if destination.shut:
            continue
        hop = _next_hop(destination, judged, device)
        if hop is not None and hop.payload is not None:
            return Selection(hop.release, hop.payload, destination.release, verdicts)
        unreachable = unreachable or _unreachable(destination.release, device, verdicts)
    return _with_withdrawal(unreachable or _nothing(verdicts, manifest), manifest, device)


def _undoubted(device: DevicePosition, releases: Sequence[Release]) -> DevicePosition:
    """The device with a sequence of what is installed that is worth believing.

    This manifest's, if it lists that payload. Otherwise the recorded one if it is below the floor,
    where only stepping stones depend on it; what claims more counts as the floor.
    """
    listed = (
        release.sequence
        for release in releases
        for payload in release.payloads
        if payload.artifact.sha256 == device.doubted
    )
    recorded = device.installed_sequence
    below = recorded is not None and recorded < device.confirmed_sequence
    return replace(device, installed_sequence=next(listed, recorded if below else None))


def _judge(
    release: Release,
    manifest: Manifest,
    hold: Collection[int],
    device: DevicePosition,
    now: datetime,
    waves: Waves,
) -> _Judged:
    payload = _payload(release, device)
    shut = (
        _shut_by_sequence(release, manifest, device)
        or _shut_by_people(release, manifest, hold)
        or (payload if isinstance(payload, _Shut) else _shut_by_device(payload, device))
        or _shut_by_wave(release, device, now, waves)
    )
    return _Judged(release, None if isinstance(payload, _Shut) else payload, shut)


def _shut_by_sequence(release: Release, manifest: Manifest, device: DevicePosition) -> _Shut | None:
    installed = device.installed_sequence
    if release.sequence == installed:
        return _Shut(Reason.UP_TO_DATE, "it is installed")
    if release.sequence < device.running_sequence and installed is not None:
        return _Shut(Reason.OLDER, f"sequence {installed} is installed")
    if release.sequence < device.confirmed_sequence:
        floor = device.confirmed_sequence
        return _Shut(Reason.BELOW_FLOOR, f"this device confirmed sequence {floor} before")
    if release.sequence < manifest.minimum_sequence:
        minimum = manifest.minimum_sequence
        return _Shut(Reason.BELOW_MINIMUM, f"the channel's minimum sequence is {minimum}")
    return None


def _shut_by_people(release: Release, manifest: Manifest, hold: Collection[int]) -> _Shut | None:
    for entry in manifest.withdrawn:
        if entry.sequence == release.sequence:
            return _Shut(Reason.WITHDRAWN, f"it was withdrawn: {entry.reason}")
    if release.sequence in hold:
        return _Shut(Reason.HELD, "it is on hold")
    return None


def _shut_by_device(payload: Payload, device: DevicePosition) -> _Shut | None:
    if payload.artifact.sha256 in device.rejected:
        if payload.artifact.sha256 in device.refused:
            found = "it was rejected on this device, by a person or a health check"
            return _Shut(Reason.REJECTED, found)
        return _Shut(Reason.REJECTED, "it failed on this device and was rolled back")
    return None


def _payload(release: Release, device: DevicePosition) -> Payload | _Shut:
    for id_ in device.hardware:
        fitting = [payload for payload in release.payloads if id_ in payload.hardware]
        # All payloads for an id are installed together (rule 10), so one foreign handler shuts it.
        foreign = [payload for payload in fitting if payload.handler != device.handler]
        if foreign:
            found = f"it needs the handler {foreign[0].handler}, this device has {device.handler}"
            return _Shut(Reason.HANDLER, found)
        if fitting:
            return fitting[0]
    ids = ", ".join(device.hardware)
    return _Shut(Reason.HARDWARE, f"it has no payload for this hardware ({ids})")


def _shut_by_wave(
    release: Release, device: DevicePosition, now: datetime, waves: Waves
) -> _Shut | None:
    its = turn(release.rollout, device.device_id, device.groups, now)
    if its.standing is Standing.PAUSED:
        return _Shut(Reason.PAUSED, "its rollout is paused")
    if waves is Waves.IGNORE or its.standing is Standing.OPEN:
        return None
    if its.opens is None:
        return _Shut(Reason.WAVE, "none of its waves admits this device yet")
    return _Shut(Reason.WAVE, f"its wave opens for this device at {format_time(its.opens)}")


def _next_hop(
    destination: _Judged, judged: Sequence[_Judged], device: DevicePosition
) -> _Judged | None:
    """The first step towards `destination`, None if it cannot be reached.

    A higher sequence is never worse: `from` names a minimum only. So from every point the highest
    stone in reach is the best next one.
    """
    stones = [
        one
        for one in judged
        if one.release.stone
        and one.shut is None
        and one.release.sequence < destination.release.sequence
    ]
    first: _Judged | None = None
    reached = device.running_sequence
    while reached < destination.release.from_sequence:
        in_reach = (
            stone
            for stone in stones
            if stone.release.from_sequence <= reached < stone.release.sequence
        )
        stone = next(in_reach, None)
        if stone is None:
            return None
        first = first or stone
        reached = stone.release.sequence
    return first or destination


def _unreachable(release: Release, device: DevicePosition, verdicts: tuple[Verdict, ...]) -> Skip:
    return Skip(
        Reason.UNREACHABLE,
        f"{release.version} installs from sequence {release.from_sequence} on, this device has "
        f"{device.running_sequence}, and no stepping stone between is allowed now",
        verdicts,
    )


def _verdicts(judged: Sequence[_Judged], manifest: Manifest) -> tuple[Verdict, ...]:
    too_new = (
        Verdict(
            release.version,
            release.sequence,
            Reason.CLIENT_TOO_OLD,
            f"this client is too old for it: it needs {', '.join(release.needs)}",
        )
        for release in manifest.unsupported
    )
    found = [*(one.verdict for one in judged), *too_new]
    return tuple(sorted(found, key=lambda verdict: verdict.sequence, reverse=True))


def _nothing(verdicts: tuple[Verdict, ...], manifest: Manifest) -> Skip:
    if not verdicts:
        name = f"{manifest.product}/{manifest.channel}"
        return Skip(Reason.NOTHING_OFFERED, f"the channel {name} offers no release", verdicts)
    newest = verdicts[0]
    if newest.reason is Reason.UP_TO_DATE:
        detail = f"{newest.version} is installed and is the newest release of the channel"
        return Skip(Reason.UP_TO_DATE, detail, verdicts)
    detail = f"{newest.version} (sequence {newest.sequence}) is not installed: {newest.detail}"
    return Skip(newest.reason or Reason.UNREACHABLE, detail, verdicts)


def _with_withdrawal(skip: Skip, manifest: Manifest, device: DevicePosition) -> Skip:
    """The answer, which does not keep quiet about what runs here having been withdrawn."""
    for entry in manifest.withdrawn:
        if entry.sequence == device.installed_sequence:
            told = f"{entry.version} is installed; it was withdrawn ({entry.reason})"
            if skip.reason in {Reason.UP_TO_DATE, Reason.OLDER, Reason.NOTHING_OFFERED}:
                return replace(skip, detail=f"{told} and nothing newer is offered yet")
            return replace(skip, detail=f"{told}; {skip.detail}")
    return skip
