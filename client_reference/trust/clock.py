"""Pure: what time it may be, by verified evidence and a clock that nobody vouches for.

`effective_now = max(system clock, floor)`. The floor is the latest time that verified metadata
prove to have passed. It never comes from the raw clock: one wild reading must not poison a device.

Rules:
 * Evidence is `x-firmroot-issued` in a signed file; absent is legal and proves nothing.
 * The floor rises to the `issued` of a timestamp only after the whole refresh succeeded (`raised`).
 * Attack: a stolen timestamp key writes an `issued` of the far future, and everything looks expired
   for ever. So a timestamp whose `issued` is not before its own expiry, and before the expiry of
   all that it is accepted with, is refused (`check_issued`); and a root link with other timestamp
   keys or another threshold takes the floor back (`reset`) to what the image carries, or to that
   root's own `issued` if that is later. A rotation that was already accepted does nothing when it
   is replayed, since the caller takes strictly newer roots only.
 * Within a boot the floor goes on with the time since it was proven (`Lead`).
 * A root whose `issued` is not before its own expiry contradicts itself: it proves nothing.
   Refusing it would end the chain for ever.
"""

from __future__ import annotations

import enum
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from client_reference.errors import shortened
from client_reference.strictjson import parse_time
from client_reference.trust.verified import MalformedError, MismatchError
from client_reference.values import frozen

if TYPE_CHECKING:
    from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

__all__ = [
    "ISSUED",
    "Freshness",
    "Lead",
    "check_issued",
    "effective_now",
    "ended",
    "freshness",
    "raised",
    "reset",
]

ISSUED = "x-firmroot-issued"
SECONDS = "%Y-%m-%dT%H:%M:%SZ"
_LAST = 253_402_300_799
"""Unix seconds of the last moment that a date can be."""


class Freshness(enum.Enum):
    """Whether a freeze across reboots would have been noticed."""

    PROVEN = "proven"
    UNPROVEN = "unproven"


@frozen
class Lead:
    """What this boot knows beyond the stored floor (`trust.uptime`).

    Attributes:
        floor: Unix seconds; the floor that the lead belongs to.
        seconds: that have passed since it was proven.
    """

    floor: int = 0
    seconds: int = 0


def effective_now(now: datetime, floor: int, lead: Lead | None = None) -> datetime:
    """The time to judge by.

    Args:
        now: aware UTC reading of the system clock.
        floor: Unix seconds.
        lead: counts only if it belongs to this very floor: one that was reset, or was raised
            since, takes its lead with it.
    """
    seconds = lead.seconds if lead is not None and lead.floor == floor else 0
    return max(now, datetime.fromtimestamp(min(floor + seconds, _LAST), UTC))


def freshness(now: datetime, floor: int, expires: datetime | None = None) -> Freshness:
    """A clock that runs behind verified evidence is wrong, and expiry then proves little.

    Args:
        now: aware UTC reading of the system clock.
        floor: Unix seconds.
        expires: when the timestamp ends that was accepted last. Once it has, a mirror that stands
            still looks like one that was not asked, and like a clock that is ahead.
    """
    behind = now.timestamp() < floor
    return Freshness.UNPROVEN if behind or ended(now, expires) else Freshness.PROVEN


def ended(now: datetime, expires: datetime | None) -> bool:
    """Whether a clock says that metadata are no longer valid; None never ends."""
    return expires is not None and now >= expires


def issued(signed: Root | Timestamp) -> int | None:
    """When the file says that it was signed, in Unix seconds; None if it does not say.

    Raises:
        MalformedError: the field is there and is no time.
    """
    if ISSUED not in signed.unrecognized_fields:
        return None
    value = signed.unrecognized_fields[ISSUED]
    # To the letter: two clients must never read two times behind one signature.
    time = parse_time(value) if isinstance(value, str) else None
    if time is None:
        raise MalformedError(
            f"{ISSUED} of {signed.type} is {shortened(repr(value))}, expected YYYY-MM-DDTHH:MM:SSZ",
            "ask the publisher to run `firmroot refresh`; if the timestamp key may be stolen, "
            "rotate it: `firmroot rotate`",
        )
    return int(time.timestamp())


def check_issued(timestamp: Timestamp, *others: Root | Snapshot | Targets) -> None:
    """Refuse evidence that would make the very metadata it comes with look expired.

    Raises:
        MalformedError: the field is there and is no time.
        MismatchError: issued at or after an expiry of this timestamp or of `others`.
    """
    evidence = issued(timestamp)
    for signed in (timestamp, *others):
        if evidence is not None and evidence >= signed.expires.timestamp():
            raise MismatchError(
                f"timestamp says it was issued at {timestamp.unrecognized_fields[ISSUED]}, which "
                f"is not before {signed.type} expires ({signed.expires.strftime(SECONDS)})",
                "if the timestamp key may be stolen, rotate it: `firmroot rotate`",
            )


def raised(floor: int, timestamp: Timestamp) -> int:
    """The floor after a whole refresh with this timestamp succeeded."""
    return max(floor, issued(timestamp) or 0)


def reset(factory_floor: int, root: Root) -> int:
    """The floor after a link to `root`, which changed the timestamp's keys or threshold."""
    try:
        evidence = issued(root)
    except MalformedError:
        evidence = None
    if evidence is None or evidence >= root.expires.timestamp():
        return factory_floor
    return max(factory_floor, evidence)
