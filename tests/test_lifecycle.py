"""Every event in every phase: a transition, or an error that says so."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_reference import lifecycle
from client_reference.errors import RefusedError
from client_reference.lifecycle import REMEMBERED, Boot, IllegalTransitionError
from client_reference.trust.state import Image, InstallState, Phase

if TYPE_CHECKING:
    from collections.abc import Callable

OLD = Image("0d" * 32, 100, "1.0", 10, "A")
NEW = Image("1e" * 32, 200, "1.1", 20, "B")
NEWER = Image("2f" * 32, 300, "1.2", 30)

IDLE = InstallState(Phase.IDLE, OLD, None, 10, ("ff" * 32,), (OLD,))
WRITING = replace(IDLE, phase=Phase.WRITING, candidate=NEW)
STAGED = replace(IDLE, phase=Phase.STAGED, candidate=NEW)
TRIAL = replace(IDLE, phase=Phase.TRIAL, candidate=NEW)
CONFIRMED = InstallState(Phase.IDLE, NEW, None, 20, ("ff" * 32,), (OLD, NEW))
REJECTED = replace(IDLE, rejected=("ff" * 32, NEW.sha256))
PHASES = {"idle": IDLE, "writing": WRITING, "staged": STAGED, "on trial": TRIAL}

EVENTS: dict[str, Callable[[InstallState], InstallState]] = {
    "begin": lambda state: lifecycle.begin(state, NEW),
    "begin another": lambda state: lifecycle.begin(state, NEWER),
    "stage": lifecycle.stage,
    "activated": lifecycle.activated,
    "abandon": lifecycle.abandon,
    "recalled": lifecycle.recalled,
    "confirm in its slot": lambda state: lifecycle.confirm(state, "B"),
    "confirm in the old slot": lambda state: lifecycle.confirm(state, "A"),
    "reject": lifecycle.reject,
    "boot of the candidate": lambda state: booted(state, "B", pending=False),
    "boot of the candidate with tries left": lambda state: booted(state, "B", pending=True),
    "boot of the old slot": lambda state: booted(state, "A", pending=False),
    "boot of the old slot with the trial to come": lambda state: booted(state, "A", pending=True),
}


def booted(state: InstallState, running: str, *, pending: bool) -> InstallState:
    return lifecycle.observe_boot(state, running, pending=pending).state


LEGAL = {
    ("idle", "begin"): WRITING,
    ("idle", "begin another"): replace(WRITING, candidate=NEWER),
    ("writing", "begin"): WRITING,
    ("writing", "begin another"): replace(WRITING, candidate=NEWER),
    ("staged", "begin"): WRITING,
    ("staged", "begin another"): replace(WRITING, candidate=NEWER),
    ("writing", "stage"): STAGED,
    ("staged", "activated"): TRIAL,
    ("writing", "abandon"): IDLE,
    ("staged", "abandon"): IDLE,
    ("on trial", "recalled"): STAGED,
    ("on trial", "confirm in its slot"): CONFIRMED,
    ("staged", "reject"): REJECTED,
    ("on trial", "reject"): REJECTED,
    ("idle", "boot of the candidate"): IDLE,
    ("idle", "boot of the candidate with tries left"): IDLE,
    ("idle", "boot of the old slot"): IDLE,
    ("idle", "boot of the old slot with the trial to come"): IDLE,
    ("writing", "boot of the candidate"): IDLE,
    ("writing", "boot of the candidate with tries left"): IDLE,
    ("writing", "boot of the old slot"): WRITING,
    ("writing", "boot of the old slot with the trial to come"): WRITING,
    ("staged", "boot of the candidate"): TRIAL,
    ("staged", "boot of the candidate with tries left"): TRIAL,
    ("staged", "boot of the old slot"): STAGED,
    ("staged", "boot of the old slot with the trial to come"): STAGED,
    ("on trial", "boot of the candidate"): TRIAL,
    ("on trial", "boot of the candidate with tries left"): TRIAL,
    ("on trial", "boot of the old slot"): REJECTED,
    ("on trial", "boot of the old slot with the trial to come"): TRIAL,
}
PAIRS = [(phase, event) for phase in PHASES for event in EVENTS]


@pytest.mark.parametrize(
    ("phase", "event"), PAIRS, ids=[f"{event} when {phase}" for phase, event in PAIRS]
)
def test_every_event_in_every_phase(phase: str, event: str) -> None:
    expected = LEGAL.get((phase, event))
    if expected is None:
        with pytest.raises(IllegalTransitionError) as caught:
            EVENTS[event](PHASES[phase])
        assert caught.value.hint
        assert isinstance(caught.value, RefusedError)
    else:
        assert EVENTS[event](PHASES[phase]) == expected


@pytest.mark.parametrize(
    ("phase", "hint"),
    [("idle", "update"), ("writing", "update"), ("staged", "reboot"), ("on trial", "confirm")],
)
def test_an_illegal_event_says_the_phase_and_what_to_do(phase: str, hint: str) -> None:
    illegal = next(event for event in EVENTS if (phase, event) not in LEGAL)
    with pytest.raises(IllegalTransitionError, match=PHASES[phase].phase.value) as caught:
        EVENTS[illegal](PHASES[phase])
    assert hint in caught.value.hint


def test_a_confirm_from_the_wrong_slot_names_both_slots() -> None:
    with pytest.raises(IllegalTransitionError, match="in slot B, but A is running"):
        lifecycle.confirm(TRIAL, "A")


@pytest.mark.parametrize(
    ("state", "running", "pending", "meaning"),
    [
        pytest.param(IDLE, "A", False, Boot.UNCHANGED, id="nothing was going on"),
        pytest.param(WRITING, "A", False, Boot.UNCHANGED, id="writing was interrupted"),
        pytest.param(WRITING, "B", False, Boot.ABANDONED, id="an unverified slot was booted"),
        pytest.param(STAGED, "B", False, Boot.TRIAL_STARTED, id="a cut after arming the loader"),
        pytest.param(TRIAL, "B", False, Boot.UNCHANGED, id="the trial runs"),
        pytest.param(TRIAL, "A", True, Boot.UNCHANGED, id="the trial is still to come"),
        pytest.param(TRIAL, "A", False, Boot.ROLLED_BACK, id="the trial failed"),
    ],
)
def test_what_a_boot_means(
    state: InstallState, running: str, meaning: Boot, *, pending: bool
) -> None:
    assert lifecycle.observe_boot(state, running, pending=pending).boot is meaning


@pytest.mark.parametrize("phase", list(Phase))
def test_a_handler_that_owns_its_slots_tells_nothing_by_booting(phase: Phase) -> None:
    state = InstallState(phase, candidate=None if phase is Phase.IDLE else NEWER)
    for pending in (False, True):
        assert lifecycle.observe_boot(state, "", pending=pending).state == state


def test_a_handler_that_owns_its_slots_is_confirmed_without_knowing_the_slot() -> None:
    state = InstallState(Phase.TRIAL, candidate=NEWER)
    assert lifecycle.confirm(state, "").current == NEWER


@pytest.mark.parametrize("phase", [Phase.WRITING, Phase.STAGED, Phase.TRIAL])
@pytest.mark.parametrize(
    "event", [e for e in EVENTS if e in {"stage", "activated", "reject"} or "confirm" in e]
)
def test_a_phase_without_its_image_is_refused(phase: Phase, event: str) -> None:
    with pytest.raises(IllegalTransitionError):
        EVENTS[event](InstallState(phase))


def test_confirming_an_older_sequence_does_not_lower_the_floor() -> None:
    state = replace(TRIAL, confirmed_sequence=99)
    assert lifecycle.confirm(state, "B").confirmed_sequence == 99


def test_what_an_ended_epoch_offered_does_not_raise_the_floor() -> None:
    for running, offered, floor in ((1, 0, 1), (1, 1, NEW.sequence), (2, 1, 1)):
        image = replace(NEW, epoch=offered)
        state = replace(TRIAL, candidate=image, confirmed_sequence=1)
        after = lifecycle.confirm(state, "B", running)
        assert (after.confirmed_sequence, after.current) == (floor, image)


def test_confirming_makes_an_image_known_once_and_no_longer_rejected() -> None:
    state = replace(TRIAL, rejected=(NEW.sha256,), known=(NEW, OLD))
    after = lifecycle.confirm(state, "B")
    assert (after.known, after.rejected) == ((OLD, NEW), ())


def test_rejecting_again_moves_a_digest_to_the_end() -> None:
    state = replace(TRIAL, rejected=(NEW.sha256, OLD.sha256))
    assert lifecycle.reject(state).rejected == (OLD.sha256, NEW.sha256)


def test_what_is_remembered_is_bounded_and_the_newest_stays() -> None:
    state = IDLE
    images = [Image(f"{number:064x}", 1, str(number), number, "B") for number in range(40)]
    for image in images[:20]:
        trial = lifecycle.activated(lifecycle.stage(lifecycle.begin(state, image)))
        state = lifecycle.confirm(trial, "B")
    for image in images[20:]:
        state = lifecycle.reject(lifecycle.stage(lifecycle.begin(state, image)))
    assert state.known == tuple(images[20 - REMEMBERED : 20])
    assert state.rejected == tuple(image.sha256 for image in images[-REMEMBERED:])
    assert REMEMBERED == 16


@given(st.lists(st.sampled_from(sorted(EVENTS)), max_size=40))
def test_the_floor_never_falls_and_rises_only_at_confirm(events: list[str]) -> None:
    state = IDLE
    for event in events:
        before = state.confirmed_sequence
        try:
            state = EVENTS[event](state)
        except IllegalTransitionError:
            continue
        assert state.confirmed_sequence >= before
        assert state.confirmed_sequence == before or event.startswith("confirm")
        assert (state.candidate is None) == (state.phase is Phase.IDLE)


UNKNOWN = {
    "nothing is on trial": (IDLE, "", ""),
    "idle": (IDLE, "B", "B"),
    "written elsewhere": (replace(WRITING, candidate=NEWER), "B", "B"),
    "staged and armed, not yet stored": (STAGED, "B", ""),
    "staged, another is tried": (STAGED, "C", "C"),
    "not yet verified, and somebody boots it": (WRITING, "B", "B"),
    "of no image": (replace(STAGED, candidate=None), "B", "B"),
    "recorded": (TRIAL, "B", ""),
    "confirmed by the boot loader, not yet stored": (TRIAL, "", ""),
}


@pytest.mark.parametrize("sentence", UNKNOWN)
def test_a_trial_without_a_record_is_known_as_such(sentence: str) -> None:
    state, trial, unknown = UNKNOWN[sentence]
    assert lifecycle.unknown_trial(state, trial) == unknown
