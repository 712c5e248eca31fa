from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from client_reference.manifest import (
    Artifact,
    GroupWave,
    Manifest,
    Payload,
    Release,
    Rollout,
    ShareWave,
    UnsupportedRelease,
    Withdrawn,
)
from client_reference.selection import DevicePosition, Reason, Selection, Skip, Waves, select

NOW = datetime(2031, 5, 14, tzinfo=UTC)
START = NOW - timedelta(days=30)
OPEN = Rollout(START, "0" * 16, paused=False, waves=(ShareWave(0, 1000),))
PAUSED = replace(OPEN, paused=True)
SOON = replace(OPEN, start=NOW + timedelta(hours=1))
PILOTS = replace(OPEN, waves=(GroupWave(0, ("pilot",)),))


def digest(sequence: int) -> str:
    return f"{sequence:064x}"


def payload(sequence: int, hardware: str = "acme,gw-2", handler: str = "slot") -> Payload:
    artifact = Artifact(f"builds/gateway/{sequence}/x", 1, digest(sequence))
    return Payload((hardware,), handler, artifact)


def release(sequence: int, **changes: Any) -> Release:  # noqa: ANN401 # fields of any type
    """Release of a sequence, open for all, for the device below."""
    fields: dict[str, Any] = {
        "version": f"v{sequence}",
        "sequence": sequence,
        "rollout": OPEN,
        "payloads": (payload(sequence),),
    }
    return Release(**{**fields, **changes})


def manifest(*releases: Release, **changes: Any) -> Manifest:  # noqa: ANN401 # likewise
    return Manifest("gateway", "stable", **{"minimum_sequence": 0, "releases": releases, **changes})


def withdrawn(sequence: int) -> tuple[Withdrawn, ...]:
    return (Withdrawn(f"v{sequence}", sequence, NOW, "modem hangs"),)


DEVICE = DevicePosition(
    product="gateway",
    channel="stable",
    hardware=("acme,gw-2",),
    handler="slot",
    device_id="device-1",
    installed_sequence=40,
    confirmed_sequence=40,
)
NEW = replace(DEVICE, installed_sequence=None, confirmed_sequence=0)
SHIPPED = replace(DEVICE, installed_sequence=None, confirmed_sequence=40)

# What is installed next: (manifest, hold, device) -> (hop, destination).
CHOSEN: dict[str, tuple[Manifest, frozenset[int], DevicePosition, tuple[int, int]]] = {
    "the newest release": (
        manifest(release(41), release(43), release(42)), frozenset(), DEVICE, (43, 43)
    ),
    "the newest that is not withdrawn": (
        manifest(release(42), release(43), withdrawn=withdrawn(43)), frozenset(), DEVICE, (42, 42)
    ),
    "the newest that is not held": (
        manifest(release(42), release(43)), frozenset({43}), DEVICE, (42, 42)
    ),
    "the newest whose wave is open": (
        manifest(release(42), release(43, rollout=SOON)), frozenset(), DEVICE, (42, 42)
    ),
    "the newest that is not paused": (
        manifest(release(42), release(43, rollout=PAUSED)), frozenset(), DEVICE, (42, 42)
    ),
    "the newest that did not fail here": (
        manifest(release(42), release(43)),
        frozenset(),
        replace(DEVICE, rejected=(digest(43),)),
        (42, 42),
    ),
    "a group's wave": (
        manifest(release(43, rollout=PILOTS)),
        frozenset(),
        replace(DEVICE, groups=("pilot",)),
        (43, 43),
    ),
    "any release on a device without one": (manifest(release(1)), frozenset(), NEW, (1, 1)),
    "the floor itself on a device as it was shipped": (
        manifest(release(40)), frozenset(), SHIPPED, (40, 40)
    ),
    "a release that installs from what is running": (
        manifest(release(43, from_sequence=40)), frozenset(), DEVICE, (43, 43)
    ),
    "from what was shipped": (
        manifest(release(43, from_sequence=40)), frozenset(), SHIPPED, (43, 43)
    ),
    "a stone first where the destination is too far": (
        manifest(release(50, from_sequence=45), release(45, stone=True)),
        frozenset(),
        DEVICE,
        (45, 50),
    ),
    "the highest stone in reach": (
        manifest(
            release(50, from_sequence=45),
            release(46, stone=True),
            release(45, stone=True),
        ),
        frozenset(),
        DEVICE,
        (46, 50),
    ),
    "a stone on the way to a stone": (
        manifest(
            release(60, from_sequence=50),
            release(50, stone=True, from_sequence=45),
            release(45, stone=True),
        ),
        frozenset(),
        DEVICE,
        (45, 60),
    ),
    "no stone where none is needed": (
        manifest(release(50, from_sequence=40), release(45, stone=True)),
        frozenset(),
        DEVICE,
        (50, 50),
    ),
    "a nearer release where the far one has no path": (
        manifest(release(50, from_sequence=45), release(42)), frozenset(), DEVICE, (42, 42)
    ),
    "a nearer release where the stone is held": (
        manifest(release(50, from_sequence=45), release(45, stone=True), release(42)),
        frozenset({45}),
        DEVICE,
        (42, 42),
    ),
    "a stone as a destination of its own": (
        manifest(release(45, stone=True)), frozenset(), DEVICE, (45, 45)
    ),
    "a release at the channel's minimum": (
        manifest(release(41), minimum_sequence=41), frozenset(), DEVICE, (41, 41)
    ),
    "the floor again on a slot that was rolled back below it": (
        manifest(release(40)), frozenset(), replace(DEVICE, installed_sequence=30), (40, 40)
    ),
}  # fmt: skip


@pytest.mark.parametrize("sentence", CHOSEN)
def test_installs(sentence: str) -> None:
    offered, hold, device, (hop, destination) = CHOSEN[sentence]
    chosen = select(offered, hold, device, NOW)
    assert isinstance(chosen, Selection), chosen
    assert (chosen.release.sequence, chosen.destination.sequence) == (hop, destination)
    assert chosen.payload.artifact.sha256 == digest(hop)


# What is not installed: (manifest, hold, device) -> (reason, words of the detail).
SKIPPED: dict[str, tuple[Manifest, frozenset[int], DevicePosition, Reason, str]] = {
    "an empty channel": (
        manifest(), frozenset(), DEVICE, Reason.NOTHING_OFFERED, "gateway/stable offers no release"
    ),
    "what is installed": (
        manifest(release(40)), frozenset(), DEVICE, Reason.UP_TO_DATE, "v40 is installed and is"
    ),
    "what is installed and withdrawn": (
        manifest(release(40), withdrawn=withdrawn(40)),
        frozenset(),
        DEVICE,
        Reason.UP_TO_DATE,
        "v40 is installed; it was withdrawn (modem hangs) and nothing newer is offered yet",
    ),
    "what is installed, withdrawn and listed no more, beside an older one": (
        manifest(release(39), withdrawn=withdrawn(40)),
        frozenset(),
        DEVICE,
        Reason.OLDER,
        "v40 is installed; it was withdrawn (modem hangs) and nothing newer is offered yet",
    ),
    "what is installed and withdrawn, in an empty channel": (
        manifest(withdrawn=withdrawn(40)),
        frozenset(),
        DEVICE,
        Reason.NOTHING_OFFERED,
        "v40 is installed; it was withdrawn (modem hangs) and nothing newer is offered yet",
    ),
    "what is installed and withdrawn, before the wave of the next": (
        manifest(release(40), release(41, rollout=SOON), withdrawn=withdrawn(40)),
        frozenset(),
        DEVICE,
        Reason.WAVE,
        "v40 is installed; it was withdrawn (modem hangs); v41 (sequence 41) is not installed: its",
    ),
    "what is installed and withdrawn, too far from the next": (
        manifest(release(50, from_sequence=45), withdrawn=withdrawn(40)),
        frozenset(),
        DEVICE,
        Reason.UNREACHABLE,
        "v40 is installed; it was withdrawn (modem hangs); v50 installs from sequence 45 on",
    ),
    "an older release": (
        manifest(release(39)), frozenset(), DEVICE, Reason.OLDER, "sequence 40 is installed"
    ),
    "below the confirmed floor after a rollback": (
        manifest(release(35)),
        frozenset(),
        replace(DEVICE, installed_sequence=30),
        Reason.BELOW_FLOOR,
        "confirmed sequence 40",
    ),
    "below the floor it was shipped with": (
        manifest(release(39)), frozenset(), SHIPPED, Reason.BELOW_FLOOR, "confirmed sequence 40"
    ),
    "below the channel's minimum": (
        manifest(release(41), minimum_sequence=42),
        frozenset(),
        DEVICE,
        Reason.BELOW_MINIMUM,
        "minimum sequence is 42",
    ),
    "withdrawn": (
        manifest(release(41), withdrawn=withdrawn(41)),
        frozenset(),
        DEVICE,
        Reason.WITHDRAWN,
        "modem hangs",
    ),
    "on hold": (manifest(release(41)), frozenset({41}), DEVICE, Reason.HELD, "on hold"),
    "rolled back here before": (
        manifest(release(41)),
        frozenset(),
        replace(DEVICE, rejected=(digest(41),)),
        Reason.REJECTED,
        "rolled back",
    ),
    "rejected here before": (
        manifest(release(41)),
        frozenset(),
        replace(DEVICE, rejected=(digest(41),), refused=(digest(41),)),
        Reason.REJECTED,
        "it was rejected on this device, by a person or a health check",
    ),
    "for other hardware": (
        manifest(release(41, payloads=(payload(41, "acme,gw-3"),))),
        frozenset(),
        DEVICE,
        Reason.HARDWARE,
        "no payload for this hardware (acme,gw-2)",
    ),
    "for another handler": (
        manifest(release(41, payloads=(payload(41, handler="rauc"),))),
        frozenset(),
        DEVICE,
        Reason.HANDLER,
        "needs the handler rauc, this device has slot",
    ),
    "with a second payload that this device cannot install": (
        manifest(release(41, payloads=(payload(41), payload(42, handler="modem")))),
        frozenset(),
        DEVICE,
        Reason.HANDLER,
        "needs the handler modem",
    ),
    "before its wave": (
        manifest(release(41, rollout=SOON)),
        frozenset(),
        DEVICE,
        Reason.WAVE,
        "opens for this device at 2031-05-14T01:00:00Z",
    ),
    "in no wave": (
        manifest(release(41, rollout=PILOTS)), frozenset(), DEVICE, Reason.WAVE, "none of its waves"
    ),
    "paused": (
        manifest(release(41, rollout=PAUSED)), frozenset(), DEVICE, Reason.PAUSED, "is paused"
    ),
    "more than this client can": (
        manifest(release(40), unsupported=(UnsupportedRelease("v41", 41, ("quantum",)),)),
        frozenset(),
        DEVICE,
        Reason.CLIENT_TOO_OLD,
        "needs quantum",
    ),
    "too far without a stone": (
        manifest(release(50, from_sequence=45), release(44)),
        frozenset(),
        replace(DEVICE, installed_sequence=44, confirmed_sequence=44),
        Reason.UNREACHABLE,
        "from sequence 45 on, this device has 44",
    ),
    "over a stone that is withdrawn": (
        manifest(
            release(50, from_sequence=45), release(45, stone=True), withdrawn=withdrawn(45)
        ),
        frozenset(),
        DEVICE,
        Reason.UNREACHABLE,
        "no stepping stone",
    ),
    "over a stone whose wave is not open": (
        manifest(release(50, from_sequence=45), release(45, stone=True, rollout=SOON)),
        frozenset(),
        DEVICE,
        Reason.UNREACHABLE,
        "no stepping stone",
    ),
    "over a stone for other hardware": (
        manifest(
            release(50, from_sequence=45),
            release(45, stone=True, payloads=(payload(45, "acme,gw-3"),)),
        ),
        frozenset(),
        DEVICE,
        Reason.UNREACHABLE,
        "no stepping stone",
    ),
    "over a stone that is itself too far": (
        manifest(
            release(50, from_sequence=45), release(45, stone=True, from_sequence=42)
        ),
        frozenset(),
        DEVICE,
        Reason.UNREACHABLE,
        "no stepping stone",
    ),
    "over a stone that does not reach": (
        manifest(release(50, from_sequence=45), release(44, stone=True, rollout=PAUSED)),
        frozenset(),
        DEVICE,
        Reason.UNREACHABLE,
        "no stepping stone",
    ),
}  # fmt: skip


@pytest.mark.parametrize("sentence", SKIPPED)
def test_does_not_install(sentence: str) -> None:
    offered, hold, device, reason, detail = SKIPPED[sentence]
    skip = select(offered, hold, device, NOW)
    assert isinstance(skip, Skip), skip
    assert skip.reason is reason
    assert detail in skip.detail


def test_a_release_between_that_is_no_stone_is_no_step() -> None:
    offered = manifest(release(50, from_sequence=45), release(46))
    chosen = select(offered, frozenset(), DEVICE, NOW)
    assert isinstance(chosen, Selection)
    assert chosen.destination.sequence == 46


def test_the_most_specific_hardware_id_decides() -> None:
    board, family = payload(41, "acme,gw-2"), payload(42, "acme,gw")
    device = replace(DEVICE, hardware=("acme,gw-2", "acme,gw"))
    chosen = select(manifest(release(41, payloads=(family, board))), frozenset(), device, NOW)
    assert isinstance(chosen, Selection)
    assert chosen.payload == board


IGNORED: dict[str, tuple[Release, frozenset[int], bool]] = {
    "a wave that is not open is ignored": (release(41, rollout=SOON), frozenset(), True),
    "being in no wave is ignored": (release(41, rollout=PILOTS), frozenset(), True),
    "a pause is obeyed": (release(41, rollout=PAUSED), frozenset(), False),
    "a hold is obeyed": (release(41, rollout=SOON), frozenset({41}), False),
    "hardware is obeyed": (
        release(41, rollout=SOON, payloads=(payload(41, "x"),)), frozenset(), False
    ),
    "the floor is obeyed": (release(39, rollout=SOON), frozenset(), False),
}  # fmt: skip


@pytest.mark.parametrize("sentence", IGNORED)
def test_who_ignores_the_wave(sentence: str) -> None:
    offered, hold, installs = IGNORED[sentence]
    decision = select(manifest(offered), hold, DEVICE, NOW, Waves.IGNORE)
    assert isinstance(decision, Selection) == installs


def test_every_release_has_a_verdict_newest_first() -> None:
    offered = manifest(
        release(40),
        release(42),
        release(43, rollout=PAUSED),
        unsupported=(UnsupportedRelease("v44", 44, ("quantum",)),),
    )
    verdicts = select(offered, frozenset(), DEVICE, NOW).verdicts
    assert [(one.sequence, one.reason) for one in verdicts] == [
        (44, Reason.CLIENT_TOO_OLD),
        (43, Reason.PAUSED),
        (42, None),
        (40, Reason.UP_TO_DATE),
    ]


# What an ended epoch of the recovery anchor offered: its sequence is not believed as it is.
FAR = 2**53 - 1
STONES = (release(50, stone=True, from_sequence=30), release(60, from_sequence=50))
DOUBTED: dict[str, tuple[Manifest, dict[str, int], tuple[int, int] | Reason]] = {
    "a huge sequence does not stand in the way": (
        manifest(release(41)), {"installed_sequence": FAR, "confirmed_sequence": 40}, (41, 41)
    ),
    "nor does one above the floor": (
        manifest(release(41)), {"installed_sequence": 42, "confirmed_sequence": 40}, (41, 41)
    ),
    "what runs under a sequence of its own is replaced by what has it here": (
        manifest(release(40)), {"installed_sequence": 40, "confirmed_sequence": 40}, (40, 40)
    ),
    "what claims much has the floor as its place": (
        manifest(*STONES), {"installed_sequence": FAR, "confirmed_sequence": 40}, (50, 60)
    ),
    "what is below the floor needs its stone": (
        manifest(*STONES), {"installed_sequence": 30, "confirmed_sequence": 50}, (50, 60)
    ),
    "at the floor no stone is needed": (
        manifest(*STONES), {"installed_sequence": 50, "confirmed_sequence": 50}, (60, 60)
    ),
    "too far below the floor no stone is in reach": (
        manifest(*STONES),
        {"installed_sequence": 29, "confirmed_sequence": 50},
        Reason.UNREACHABLE,
    ),
    "the floor holds": (
        manifest(release(39)),
        {"installed_sequence": FAR, "confirmed_sequence": 40},
        Reason.BELOW_FLOOR,
    ),
    "a factory image has none": (
        manifest(*STONES), {"confirmed_sequence": 40}, (50, 60)
    ),
}  # fmt: skip


@pytest.mark.parametrize("sentence", DOUBTED)
def test_what_an_ended_epoch_said_of_the_installed_image(sentence: str) -> None:
    offered, numbers, expected = DOUBTED[sentence]
    fields: dict[str, Any] = {"installed_sequence": None, "doubted": digest(1), **numbers}
    decision = select(offered, frozenset(), replace(DEVICE, **fields), NOW)
    if isinstance(decision, Selection):
        assert (decision.release.sequence, decision.destination.sequence) == expected
    else:
        assert decision.reason is expected


def test_an_image_that_this_epoch_lists_has_the_sequence_that_it_lists() -> None:
    device = replace(DEVICE, installed_sequence=FAR, doubted=digest(41), confirmed_sequence=0)
    decision = select(manifest(release(41)), frozenset(), device, NOW)
    assert isinstance(decision, Skip)
    assert decision.reason is Reason.UP_TO_DATE
    offered = manifest(release(41), release(42), release(40))
    decision = select(offered, frozenset(), device, NOW)
    assert isinstance(decision, Selection)
    assert decision.release.sequence == 42
    assert [verdict.reason for verdict in decision.verdicts] == [
        None,
        Reason.UP_TO_DATE,
        Reason.OLDER,
    ]
