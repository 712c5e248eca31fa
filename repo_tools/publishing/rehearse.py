"""Pure: what every device that ever left the factory would do with a candidate, before it is live.

The simulated device is the real one: the client's own updater, its own walk along the recovery
anchor and its own decision, over objects in memory and a store in memory. `rehearse` is a function
of (views, devices, time): it reads no file, network or clock, so the same question has the same
answer for ever.

Asked, for each device: fresh from the factory, with the live state in its store, and with what it
sees in the middle of this publish (the new root is there, the timestamp not yet); now, at the
horizon (the last second before the first signature of the candidate expires), with a good clock,
with one that says 1970, and with one that said 2106 in the check before. What must hold in
each case: within two checks the device trusts the candidate and can decide what to run next. One
that cannot is stranded. So is one for which the channel had firmware before, and has none that
could ever run there after; a hold, a withdrawal and a pause are the publisher's own stop, and
strand nobody.

A device that left the factory in an older epoch follows the recovery anchor as it would in the
field, in a check that asks it; what it had of the older epoch is gone then, so no view shows that.
One that does not arrive in the epoch of the candidate is stranded, whatever else works for it.
"""

from __future__ import annotations

import enum
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from client_reference.errors import FirmrootError, NotFoundError, NotTrustedError, RetryLaterError
from client_reference.selection import Reason, Selection, Waves
from client_reference.trust.anchor import RecoveryAnchor
from client_reference.trust.state import MemoryStore
from client_reference.trust.updater import Updater, initial_state
from client_reference.trust.verified import reading_once
from client_reference.update import anchored, before_root, evaluate, refreshed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Self

    from client_reference.selection import DevicePosition, Skip
    from client_reference.transport.fetcher import Fetcher
    from client_reference.trust.updater import Floors
    from repo_tools.metadata.repository import RepositoryState

__all__ = [
    "Cached",
    "Clock",
    "Device",
    "Lead",
    "MappingFetcher",
    "Moment",
    "Outcome",
    "Rehearsal",
    "Row",
    "Views",
    "first_expiry",
    "meet",
    "rehearse",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FAR_AHEAD = datetime(2106, 2, 7, tzinfo=UTC)
_SECOND = timedelta(seconds=1)

# Not for this device, whatever the publisher says of it later.
_UNFIT = {
    Reason.HARDWARE,
    Reason.HANDLER,
    Reason.BELOW_FLOOR,
    Reason.BELOW_MINIMUM,
    Reason.CLIENT_TOO_OLD,
}


class Cached(enum.Enum):
    """What the device has in its store when it meets the candidate."""

    FACTORY = "factory"
    LIVE = "live"
    MID_PUBLISH = "mid-publish"


class Moment(enum.Enum):
    """When it meets the candidate."""

    NOW = "now"
    HORIZON = "horizon"


class Clock(enum.Enum):
    """What its clock says then.

    With `AHEAD` it says the last day of a 32-bit clock in one check of the candidate: everything
    looks expired and is refused. Then it is set right, and nothing of that may be left.
    """

    GOOD = "good"
    RESET = "1970"
    AHEAD = "2106, then good"


class Outcome(enum.Enum):
    """What it does."""

    UPDATES = "updates"
    STAYS = "stays"
    STRANDED = "stranded"


@dataclass(frozen=True)
class Device:
    """One factory export.

    Attributes:
        name: its id in `factory/registry.toml`, or what it stands for.
        position: what its configuration says.
        root: the factory root.
        floors: what its image carries.
        promised: it was sold with a channel that had a manifest; without one it is stranded.
        recovery: the recovery root that its image carries; None if it has none, or nowhere to ask.
        obstacle: why the anchor does not lead it to another epoch, if that is known.
    """

    name: str
    position: DevicePosition
    root: bytes
    floors: Floors
    promised: bool = True
    recovery: bytes | None = None
    obstacle: str = ""


@dataclass(frozen=True)
class Lead:
    """Where the recovery anchor leads.

    Attributes:
        files: what a recovery URL serves, by path: the chain, and the roots that it names.
        epoch: in which every device must arrive.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    epoch: int = 0


_NOWHERE = Lead()


@dataclass(frozen=True)
class Views:
    """What a device can fetch, by path: metadata, manifests, holds; no artifacts.

    Attributes:
        live: before the publish; empty before the first.
        live_expires: when its first signature expires; devices that have it came before.
        mid_publish: with everything but the new timestamp.
        candidate: after the publish.
        candidate_expires: when its first signature expires.
        lead: the recovery anchor, as it will be after the publish.
    """

    live: Mapping[str, bytes]
    live_expires: datetime
    mid_publish: Mapping[str, bytes]
    candidate: Mapping[str, bytes]
    candidate_expires: datetime
    lead: Lead = _NOWHERE


@dataclass(frozen=True)
class Row:
    """The answer to one question."""

    device: str
    cached: Cached
    moment: Moment
    clock: Clock
    outcome: Outcome
    detail: str


@dataclass(frozen=True)
class Rehearsal:
    """The answers to all of them."""

    rows: tuple[Row, ...]

    def stranded(self) -> dict[str, Row]:
        """The first way in which each stranded device is stranded, by device."""
        found: dict[str, Row] = {}
        for row in self.rows:
            if row.outcome is Outcome.STRANDED:
                found.setdefault(row.device, row)
        return found

    def devices(self) -> dict[str, Row]:
        """What each device does fresh from the factory, now, with a good clock."""
        return {
            row.device: row
            for row in self.rows
            if (row.cached, row.moment, row.clock) == (Cached.FACTORY, Moment.NOW, Clock.GOOD)
        }


class MappingFetcher:
    """Objects in memory, as a device asks for them. See `client_reference.transport.fetcher`."""

    def __init__(self, objects: Mapping[str, bytes]) -> None:
        self._objects = objects

    def fetch(self, path: str, max_length: int) -> bytes:
        """One whole object."""
        if (data := self._objects.get(path)) is None:
            raise NotFoundError(f"{path} is not there")
        if len(data) > max_length:
            raise NotTrustedError(f"{path} is longer than the {max_length} bytes that devices read")
        return data

    def stream(self, path: str, offset: int, length: int) -> Iterator[bytes]:
        """Part of an object."""
        data = self.fetch(path, offset + length)[offset:]
        yield data
        if len(data) < length:
            raise RetryLaterError(f"{path} ended {length - len(data)} bytes early")


def first_expiry(state: RepositoryState) -> datetime:
    """When the first signature of a complete state expires."""
    return min(each.expires for each in state.newest().values())


def rehearse(views: Views, devices: Sequence[Device], now: datetime) -> Rehearsal:
    """Ask every question about every device.

    Args:
        views: what devices see before, during and after the publish.
        devices: every factory export that is not retired.
        now: aware UTC.
    """
    with reading_once():
        return _rehearsed(views, devices, now)


def _rehearsed(views: Views, devices: Sequence[Device], now: datetime) -> Rehearsal:
    served = [device.promised and _was_served(views, device, now) for device in devices]
    return Rehearsal(
        tuple(
            _ask(views, device, cached, moment, clock, now, served=before)
            for device, before in zip(devices, served, strict=True)
            for cached in Cached
            if cached is not Cached.LIVE or views.live
            for moment, clock in (
                (Moment.NOW, Clock.GOOD),
                (Moment.NOW, Clock.RESET),
                (Moment.NOW, Clock.AHEAD),
                (Moment.HORIZON, Clock.GOOD),
            )
        )
    )


def _was_served(views: Views, device: Device, now: datetime) -> bool:
    """Whether the live channel has firmware for a device fresh from the factory.

    A release that is held, or whose wave is to come, is firmware for it as well: else two publishes
    could do what one may not.
    """
    reading = min(now, views.live_expires - _SECOND)
    try:
        simulated = _Simulated.fresh(device, views.lead)
        decision = simulated.decide(MappingFetcher(views.live), reading, Waves.IGNORE)
    except FirmrootError:
        return False
    return isinstance(decision, Selection) or any(
        each.reason in {Reason.HELD, Reason.PAUSED, Reason.WAVE} for each in decision.verdicts
    )


def _ask(
    views: Views,
    device: Device,
    cached: Cached,
    moment: Moment,
    clock: Clock,
    now: datetime,
    *,
    served: bool,
) -> Row:
    horizon = max(now, views.candidate_expires - _SECOND)
    readings = _Readings(
        live=min(now, views.live_expires - _SECOND),
        mid_publish=now,
        candidate=horizon if moment is Moment.HORIZON else now,
    )
    if clock is Clock.RESET:
        readings = _Readings(_EPOCH, _EPOCH, _EPOCH)
    seen: tuple[tuple[Fetcher, datetime], ...] = ()
    if cached is Cached.LIVE:
        seen = ((MappingFetcher(views.live), readings.live),)
    elif cached is Cached.MID_PUBLISH:
        seen = ((MappingFetcher(views.mid_publish), readings.mid_publish),)
    candidate = MappingFetcher(views.candidate)
    if clock is Clock.AHEAD:
        seen = (*seen, (candidate, _FAR_AHEAD))
    outcome, detail = meet(device, candidate, readings.candidate, seen, views.lead, served=served)
    return Row(device.name, cached, moment, clock, outcome, detail)


@dataclass(frozen=True)
class _Readings:
    """What the device's clock says when it sees each view."""

    live: datetime
    mid_publish: datetime
    candidate: datetime


def meet(
    device: Device,
    fetcher: Fetcher,
    reading: datetime,
    seen: Sequence[tuple[Fetcher, datetime]] = (),
    lead: Lead = _NOWHERE,
    *,
    served: bool = False,
) -> tuple[Outcome, str]:
    """What a device does with a repository; stranded if it cannot trust it or decide.

    Args:
        device: fresh from the factory.
        fetcher: the repository.
        reading: of its clock.
        seen: repositories that it checked before, and when; it keeps what it accepted there.
        lead: where the recovery anchor leads; a device that does not arrive there is stranded.
        served: its channel had firmware for it; without any it is stranded.
    """
    try:
        simulated = _Simulated.fresh(device, lead)
    except FirmrootError as error:
        return Outcome.STRANDED, error.message
    for before, earlier in seen:
        with suppress(FirmrootError):
            simulated.decide(before, earlier)
    try:
        outcome, detail = simulated.converge(fetcher, reading, served=served)
    except FirmrootError as error:
        outcome, detail = Outcome.STRANDED, error.message
    if simulated.epoch != lead.epoch:
        why = device.obstacle or detail
        stays = f"stays in epoch {simulated.epoch}, expected epoch {lead.epoch}"
        return Outcome.STRANDED, f"{stays}: {why}"
    return outcome, detail


@dataclass(frozen=True)
class _Simulated:
    """A device at work: the client's own code over a store in memory.

    Attributes:
        device: what it was made as.
        store: what it trusts by now.
        lead: where the recovery anchor leads it.
    """

    device: Device
    store: MemoryStore
    lead: Lead

    @classmethod
    def fresh(cls, device: Device, lead: Lead) -> Self:
        """As it left the factory.

        Raises:
            NotTrustedError: it could not trust its own factory root.
        """
        state = initial_state(device.root, device.floors, device.recovery)
        return cls(device, MemoryStore(state), lead)

    @property
    def epoch(self) -> int:
        """The epoch that it has reached."""
        if self.store.state is None:
            raise AssertionError("a store that began with a state has one")
        return self.store.state.trust.epoch

    def converge(self, fetcher: Fetcher, reading: datetime, *, served: bool) -> tuple[Outcome, str]:
        """Up to two checks; the last verdict counts. Raises as `decide`."""
        with suppress(FirmrootError):
            return self._check(fetcher, reading, served=served)
        return self._check(fetcher, reading, served=served)

    def _check(self, fetcher: Fetcher, reading: datetime, *, served: bool) -> tuple[Outcome, str]:
        decision = self.decide(fetcher, reading)
        if isinstance(decision, Selection):
            return Outcome.UPDATES, f"installs {decision.release.version}"
        if decision.reason is Reason.NO_CHANNEL and self.device.promised:
            return Outcome.STRANDED, decision.detail
        if decision.reason is Reason.UNREACHABLE:
            # A stone whose wave is still to come is a matter of days; one that is missing is not.
            later = self.decide(fetcher, reading, Waves.IGNORE)
            if not isinstance(later, Selection):
                return Outcome.STRANDED, decision.detail
        if served and all(each.reason in _UNFIT for each in decision.verdicts):
            return (
                Outcome.STRANDED,
                f"its channel had firmware for it and has none after this: {decision.detail}",
            )
        return Outcome.STAYS, decision.detail

    def decide(
        self, fetcher: Fetcher, reading: datetime, waves: Waves = Waves.OBEY
    ) -> Selection | Skip:
        """One check as `client_reference.update` has it, on the day that it asks the anchor.

        What was asked at the start is not asked again before an install.

        Raises:
            FirmrootError: whatever the client raises.
        """
        mirrors = _OnlyMirror(fetcher)
        anchor = RecoveryAnchor(
            self.store,
            {"the recovery anchor": MappingFetcher(self.lead.files)},
            mirrors,
            self.device.position.product,
            due=True,
            tell=lambda _: None,
        )

        def step() -> Selection | Skip:
            updater = Updater(self.store, mirrors, reading, before_root=before_root(anchor))
            install = refreshed(updater, self.store, self.device.position.product)
            floor = install.confirmed_sequence
            position = replace(self.device.position, confirmed_sequence=floor)
            return evaluate(updater, position, waves)

        return anchored(anchor, mirrors, step)


class _OnlyMirror:
    """A repository that is the only mirror of a device. See `client_reference.update.Mirrors`."""

    def __init__(self, fetcher: Fetcher) -> None:
        self.fetch = fetcher.fetch
        self.stream = fetcher.stream

    def another_way(self, why: str = "") -> bool:
        """There is none."""
        del why
        return False

    def every_mirror(self) -> None:
        """None was given up."""
