"""Pure: whether it is this device's turn.

A rollout is a list of waves, each of which opens some hours after the start: group waves for
devices that name a group in their configuration, share waves for a part of the fleet. A device's
place is its *position*, 0 to 999, computed from the release's seed and the device's id:

    SHA-256( "firmroot-wave-1" 0x00 seed 0x00 device_id ), first 8 bytes as a big-endian integer x,
    position = floor(x * 1000 / 2^64)

A share wave with `permille` p admits positions below p; shares are cumulative, so a device once
admitted stays admitted, and the seed gives every release another order of the same fleet. A paused
rollout admits nobody. Without a wave that names it a device is never admitted.
"""

from __future__ import annotations

import enum
import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING

from client_reference.manifest import GroupWave
from client_reference.values import frozen

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from client_reference.manifest import Rollout, Wave

__all__ = ["Standing", "Turn", "position", "turn"]

_DOMAIN = b"firmroot-wave-1"
_POSITIONS = 1000


class Standing(enum.Enum):
    """Where a device stands in a rollout."""

    OPEN = "open"
    LATER = "later"
    PAUSED = "paused"
    NEVER = "never"


@frozen
class Turn:
    """The answer for one device.

    Attributes:
        standing: what it may do now.
        opens: aware UTC, when its first wave opens or opened; None if no wave admits it.
    """

    standing: Standing
    opens: datetime | None


def position(seed: str, device_id: str) -> int:
    """The device's place in the order of one release, 0 to 999. Formula: see the module."""
    digest = hashlib.sha256(b"\0".join((_DOMAIN, seed.encode(), device_id.encode()))).digest()
    return int.from_bytes(digest[:8], "big") * _POSITIONS >> 64


def turn(rollout: Rollout, device_id: str, groups: Collection[str], now: datetime) -> Turn:
    """Whether a device with that id and those groups may start now."""
    place = position(rollout.seed, device_id)
    hours = [wave.after_hours for wave in rollout.waves if _admits(wave, place, groups)]
    opens = rollout.start + timedelta(hours=min(hours)) if hours else None
    if rollout.paused:
        return Turn(Standing.PAUSED, opens)
    if opens is None:
        return Turn(Standing.NEVER, None)
    return Turn(Standing.OPEN if now >= opens else Standing.LATER, opens)


def _admits(wave: Wave, place: int, groups: Collection[str]) -> bool:
    if isinstance(wave, GroupWave):
        return any(group in groups for group in wave.groups)
    return place < wave.permille
