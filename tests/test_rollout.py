from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from client_reference.manifest import GroupWave, Rollout, ShareWave, Wave
from client_reference.rollout import Standing, Turn, position, turn

START = datetime(2031, 1, 1, tzinfo=UTC)
SEED = "9f2c61d04ab87e35"
HOUR = timedelta(hours=1)
PILOT, TENTH, ALL = GroupWave(0, ("pilot",)), ShareWave(24, 100), ShareWave(72, 1000)

POSITIONS = {("9f2c61d04ab87e35", "device-1"): 649, ("0000000000000000", "device-1"): 984}


@pytest.mark.parametrize(("seed", "device"), POSITIONS)
def test_the_position_is_the_documented_one(seed: str, device: str) -> None:
    """Devices in the field compute it: it can never change."""
    assert position(seed, device) == POSITIONS[seed, device]


def test_positions_are_spread_evenly() -> None:
    tenths = [0] * 10
    for number in range(10_000):
        tenths[position(SEED, f"device-{number}") // 100] += 1
    assert all(900 < count < 1100 for count in tenths)


def test_another_seed_gives_another_order() -> None:
    devices = [f"device-{number}" for number in range(100)]
    first = sorted(devices, key=lambda device: position(SEED, device))
    second = sorted(devices, key=lambda device: position(SEED[::-1], device))
    assert first != second


def test_seed_and_device_id_do_not_run_into_each_other() -> None:
    assert position("ab", "c") != position("a", "bc")


def placed(below: int, at_least: int = 0) -> str:
    """A device id whose position is within bounds."""
    names = (f"device-{number}" for number in range(100_000))
    return next(name for name in names if at_least <= position(SEED, name) < below)


EARLY, LATE = placed(100), placed(1000, 100)
TURNS: dict[str, tuple[tuple[Wave, ...], bool, str, tuple[str, ...], timedelta, Turn]] = {
    "a pilot starts at once": (
        (PILOT, ALL), False, LATE, ("pilot",), 0 * HOUR, Turn(Standing.OPEN, START)
    ),
    "before the start nobody does": (
        (PILOT, ALL), False, LATE, ("pilot",), -HOUR, Turn(Standing.LATER, START)
    ),
    "another group waits for its share": (
        (PILOT, ALL), False, LATE, ("lab",), 0 * HOUR, Turn(Standing.LATER, START + 72 * HOUR)
    ),
    "an early position starts with its share": (
        (TENTH, ALL), False, EARLY, (), 24 * HOUR, Turn(Standing.OPEN, START + 24 * HOUR)
    ),
    "a second before it does not": (
        (TENTH, ALL), False, EARLY, (), 24 * HOUR - timedelta(seconds=1),
        Turn(Standing.LATER, START + 24 * HOUR),
    ),
    "a late position waits for all": (
        (TENTH, ALL), False, LATE, (), 24 * HOUR, Turn(Standing.LATER, START + 72 * HOUR)
    ),
    "at the end everybody starts": (
        (TENTH, ALL), False, LATE, (), 72 * HOUR, Turn(Standing.OPEN, START + 72 * HOUR)
    ),
    "a paused rollout admits nobody": (
        (PILOT, ALL), True, LATE, ("pilot",), 99 * HOUR, Turn(Standing.PAUSED, START)
    ),
    "no wave admits a late position": (
        (TENTH,), False, LATE, (), 99 * HOUR, Turn(Standing.NEVER, None)
    ),
    "no waves admit nobody": ((), False, EARLY, (), 99 * HOUR, Turn(Standing.NEVER, None)),
}  # fmt: skip


@pytest.mark.parametrize("sentence", TURNS)
def test_turn(sentence: str) -> None:
    waves, paused, device, groups, after, expected = TURNS[sentence]
    rollout = Rollout(START, SEED, paused, waves)
    assert turn(rollout, device, groups, START + after) == expected


def test_a_share_of_none_admits_not_even_position_zero() -> None:
    rollout = Rollout(START, SEED, paused=False, waves=(ShareWave(0, 0),))
    assert turn(rollout, placed(1), (), START).standing is Standing.NEVER


def test_who_was_admitted_stays_admitted_while_shares_grow() -> None:
    def admitted(*shares: int) -> set[str]:
        waves = tuple(ShareWave(number, share) for number, share in enumerate(shares))
        rollout = Rollout(START, SEED, paused=False, waves=waves)
        devices = {f"device-{number}" for number in range(300)}
        last = START + len(shares) * HOUR
        return {one for one in devices if turn(rollout, one, (), last).standing is Standing.OPEN}

    assert admitted(10) <= admitted(10, 200) <= admitted(10, 200, 1000)
    assert len(admitted(10, 200, 1000)) == 300
