"""Pure: the life of an image on a device, as transitions of `InstallState`.

```
IDLE --begin--> WRITING --stage--> STAGED --activated--> TRIAL --confirm--> IDLE (new image)
                                       ^                   |----reject / rolled back--> IDLE
                                       '----recalled-------'
```

Every event in every phase is either a transition or `IllegalTransitionError`; a reboot that nobody
asked for is an event like the others (`observe_boot`). Order with the outside, which makes a cut
between the two harmless:

* the slot is made unbootable after WRITING is durable: a cut leaves a slot that is written again;
* the boot loader is armed *before* TRIAL is durable: a cut leaves STAGED, and `observe_boot` sees
  the candidate running. The other way round, a cut would look like a trial that had failed;
* the boot loader confirms, or rejects, *before* the state says so: a cut leaves TRIAL, and the same
  command finishes the job.

`confirmed_sequence` rises at confirm and nowhere else, and never falls; only the recovery anchor
sets it, when it begins another epoch, and a sequence reset takes it back (`trust.reset`).
"""

from __future__ import annotations

import enum
from dataclasses import replace

from client_reference.errors import RefusedError
from client_reference.trust.state import Image, InstallState, Phase
from client_reference.values import frozen

__all__ = [
    "REMEMBERED",
    "Boot",
    "IllegalTransitionError",
    "Observation",
    "abandon",
    "activated",
    "begin",
    "candidate",
    "confirm",
    "observe_boot",
    "recalled",
    "reject",
    "stage",
    "unknown_trial",
]

REMEMBERED = 16  # rejected digests, and known images


class IllegalTransitionError(RefusedError):
    """The phase of the installation does not allow this event; nothing changed."""


class Boot(enum.Enum):
    """What a boot, wanted or not, turned out to mean."""

    UNCHANGED = "unchanged"
    TRIAL_STARTED = "trial started"
    ROLLED_BACK = "rolled back"
    ABANDONED = "abandoned"


@frozen
class Observation:
    """The state after a boot was looked at, and what the boot meant."""

    state: InstallState
    boot: Boot


def begin(state: InstallState, image: Image) -> InstallState:
    """Start, or start again, to write an image. An image that is only staged gives way."""
    _require(state, "start an installation", Phase.IDLE, Phase.WRITING, Phase.STAGED)
    return replace(state, phase=Phase.WRITING, candidate=image)


def stage(state: InstallState) -> InstallState:
    """The whole image is in the slot and was read back."""
    _require(state, "stage an image", Phase.WRITING)
    return replace(state, phase=Phase.STAGED, candidate=candidate(state))


def activated(state: InstallState) -> InstallState:
    """The boot loader will try the candidate next."""
    _require(state, "start a trial", Phase.STAGED)
    return replace(state, phase=Phase.TRIAL, candidate=candidate(state))


def abandon(state: InstallState) -> InstallState:
    """Give up an image that never ran, for a reason that is not its fault."""
    _require(state, "abandon an image", Phase.WRITING, Phase.STAGED)
    return _idle(state)


def recalled(state: InstallState) -> InstallState:
    """An image that was armed and has not run is to be given up; the boot loader has it still.

    Durable before the boot loader is told: a cut after that must not look like a trial that failed.
    """
    _require(state, "recall an image", Phase.TRIAL)
    return replace(state, phase=Phase.STAGED, candidate=candidate(state))


def confirm(
    state: InstallState, running: str, epoch: int = 0, *, pending: bool = False
) -> InstallState:
    """The candidate works: it becomes the current image and raises the anti-rollback floor.

    Args:
        state: on trial.
        running: the slot that runs; empty where the handler owns its slots and nobody can tell.
        epoch: of the recovery anchor that the device is in. Attack: with keys of an ended epoch
            somebody offered a huge sequence; its trial must not raise the floor of this one. A
            sequence reset that came during the trial is the same.
        pending: the boot that tries the candidate first is still to come.
    """
    _require(state, "confirm an image", Phase.TRIAL)
    image = candidate(state)
    if running != image.slot:
        raise IllegalTransitionError(
            f"release {image.version} is in slot {image.slot}, but {running} is running",
            "reboot into it first, or run `firmroot-device reject`",
        )
    if pending:
        raise IllegalTransitionError(
            f"release {image.version} boots next, and this device has not restarted since",
            "restart the device, and let the new system call `firmroot-device confirm`",
        )
    others = [other for other in state.known if other.sha256 != image.sha256]
    proven = image.sequence if (image.epoch, image.reset) == (epoch, state.reset) else 0
    return replace(
        _idle(state),
        current=image,
        confirmed_sequence=max(state.confirmed_sequence, proven),
        known=(*others, image)[-REMEMBERED:],
        rejected=tuple(digest for digest in state.rejected if digest != image.sha256),
    )


def reject(state: InstallState) -> InstallState:
    """The candidate does not work here: it is not tried again."""
    _require(state, "reject an image", Phase.STAGED, Phase.TRIAL)
    digest = candidate(state).sha256
    others = [other for other in state.rejected if other != digest]
    return replace(_idle(state), rejected=(*others, digest)[-REMEMBERED:])


def observe_boot(state: InstallState, running: str, *, pending: bool) -> Observation:
    """What must be believed after a boot, spontaneous ones included.

    Args:
        state: as it was stored before.
        running: the slot that runs; empty where the handler owns its slots and nobody can tell.
        pending: the boot loader is still going to try the candidate at the next boot.
    """
    if state.candidate is None or not state.candidate.slot:
        return Observation(state, Boot.UNCHANGED)
    in_candidate = running == state.candidate.slot
    match state.phase:
        case Phase.WRITING if in_candidate:
            # Somebody booted a slot that was never verified: it is no longer ours to write.
            return Observation(_idle(state), Boot.ABANDONED)
        case Phase.STAGED if in_candidate:
            return Observation(activated(state), Boot.TRIAL_STARTED)
        case Phase.TRIAL if not in_candidate and not pending:
            return Observation(reject(state), Boot.ROLLED_BACK)
    return Observation(state, Boot.UNCHANGED)


def unknown_trial(state: InstallState, trial: str) -> str:
    """The slot on trial, if the state has no record of it; else empty.

    A trust store that was lost during a trial is begun again from the factory, and the boot loader
    still tries the slot. A trial that was given up, with the restart left to others, looks alike.

    Args:
        state: with the last boot observed.
        trial: the slot that runs without being confirmed, or is tried next; empty if none is.
    """
    recorded = state.phase in {Phase.STAGED, Phase.TRIAL}
    if recorded and state.candidate is not None and state.candidate.slot == trial:
        return ""
    return trial


def _require(state: InstallState, event: str, *phases: Phase) -> None:
    if state.phase not in phases:
        allowed = " or ".join(phase.value for phase in phases)
        hints = {
            Phase.TRIAL: "run `firmroot-device confirm` or `firmroot-device reject` first",
            Phase.STAGED: "reboot into the staged image first",
            Phase.WRITING: "run `firmroot-device update` to finish writing",
            Phase.IDLE: "run `firmroot-device update` first",
        }
        raise IllegalTransitionError(
            f"cannot {event}: the installation is {state.phase.value}, not {allowed}",
            hints[state.phase],
        )


def candidate(state: InstallState) -> Image:
    """The image that is written, staged or on trial.

    Raises:
        IllegalTransitionError: there is none.
    """
    if state.candidate is None:
        raise IllegalTransitionError(
            f"the installation is {state.phase.value}, but of no image",
            "the stored state makes no sense: remove it and run `firmroot-device init`",
        )
    return state.candidate


def _idle(state: InstallState) -> InstallState:
    return replace(state, phase=Phase.IDLE, candidate=None)
