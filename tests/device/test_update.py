"""The update over simulated surroundings: what roles must agree on, and power cuts everywhere."""

from __future__ import annotations

import copy
import hashlib
import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from tuf.api.metadata import Delegations, SuccinctRoles

from client_reference import lifecycle
from client_reference import update as update_module
from client_reference.errors import (
    ActionRequiredError,
    FirmrootError,
    ImageGoneError,
    LocalFailureError,
    NotFoundError,
    NotTrustedError,
    RefusedError,
    RetryLaterError,
)
from client_reference.install.handlers import Withdrawal
from client_reference.lifecycle import IllegalTransitionError
from client_reference.manifest import Meaning, Withdrawn
from client_reference.payload.segments import LONGEST, SEGMENT, SUFFIX, list_length
from client_reference.selection import Reason, Selection, Skip, Waves
from client_reference.trust.state import Image, InstallState, MemoryStore, Phase
from client_reference.trust.updater import EpochEndedError, Floors, Updater, initial_state
from client_reference.update import (
    TLS_BUNDLE,
    TLS_ROLE,
    DisagreementError,
    Identified,
    Machine,
    Outcome,
    Restart,
    Stop,
    UnknownTrialError,
    check,
    confirm,
    evaluate,
    refreshed,
    reject,
    update,
)
from tests.simulators.device import Publisher
from tests.simulators.repository import NOW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from client_reference.trust.state import DeviceState
    from client_reference.update import Checked
    from tests.simulators.repository import RepositorySimulator

OLD = random.Random(1).randbytes(SEGMENT + 1000)
NEW = random.Random(2).randbytes(2 * SEGMENT + 1000)
DEVICE = Identified("gateway", "stable", ("acme,gw-2",), "slot", "device-1")


class PowerCutError(BaseException):
    """Power is gone: nothing catches it."""


@dataclass
class Power:
    """Counts durable steps and cuts the power at one of them."""

    cut_at: int = 0
    steps: int = 0

    def step(self) -> None:
        self.steps += 1
        if self.steps == self.cut_at:
            raise PowerCutError


@dataclass
class Slots:
    """Two slots and a boot loader that survive a cut; the installer protocol over them."""

    power: Power
    name: str = "slot"
    slots: dict[str, bytearray] = field(default_factory=lambda: {"A": bytearray(b"factory")})
    bootable: set[str] = field(default_factory=lambda: {"A"})
    primary: str = "A"
    runs: str = "A"
    armed: str = ""
    open_slot: str = ""

    def running(self) -> str:
        return self.runs

    def boot_pending(self) -> bool:
        return bool(self.armed)

    def trial(self) -> str:
        return self.runs if self.runs != self.primary else self.armed

    def begin(self, image: Image) -> Image:
        slot = image.slot or ("B" if self.primary == "A" else "A")
        assert slot not in {self.primary, self.runs}
        self.power.step()
        self.bootable.discard(slot)
        self.power.step()
        if not image.slot:
            self.slots[slot] = bytearray()
        self.open_slot = slot
        return replace(image, slot=slot)

    def written(self, image: Image) -> int:
        return min(len(self.slots[image.slot]), image.length)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.slots[self.open_slot][offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        assert self.open_slot not in self.bootable, "a bootable slot was written"
        half = len(data) // 2
        self.slots[self.open_slot][offset : offset + half] = data[:half]
        self.power.step()
        self.slots[self.open_slot][offset : offset + len(data)] = data

    def finish(self, image: Image) -> None:
        self.power.step()
        if hashlib.sha256(self.slots[image.slot]).hexdigest() != image.sha256:
            raise LocalFailureError("the slot gives back something else")

    def activate(self, image: Image) -> None:
        if len(self.slots[image.slot]) != image.length:
            raise ImageGoneError("the staged image is not there any more")
        self.power.step()
        self.bootable.add(image.slot)
        self.armed = image.slot
        self.power.step()

    def reboot(self) -> None:
        self.power.step()
        self.boot()
        self.power.step()

    def boot(self) -> None:
        """What the boot loader does at every start, wanted or not."""
        self.runs, self.armed = self.armed or self.primary, ""
        assert self.runs in self.bootable, "the device does not boot"

    def confirm(self, image: Image) -> None:
        self.power.step()
        self.primary = image.slot
        self.power.step()

    def reject(self, image: Image) -> None:
        self.power.step()
        self.bootable.discard(image.slot)
        self.armed = ""
        self.power.step()

    def withdraw(self, image: Image) -> Withdrawal:
        self.reject(image)
        return Withdrawal(done=True, told="")


class CutStore(MemoryStore):
    """A durable store: a cut is before a commit, or after it."""

    def __init__(self, state: DeviceState, power: Power) -> None:
        super().__init__(state)
        self.power = power

    def commit(self, state: DeviceState, new_roots: Sequence[bytes] = ()) -> None:
        self.power.step()
        super().commit(state, new_roots)
        self.power.step()


@dataclass
class Network:
    """The simulator as a mirror; `another_way` turns to the ones in `others`."""

    repo: Any
    others: list[Any] = field(default_factory=list)

    def fetch(self, path: str, max_length: int) -> bytes:
        data: bytes = self.repo.fetch(path, max_length)
        return data

    def stream(self, path: str, offset: int, length: int) -> Iterator[bytes]:
        pieces: Iterator[bytes] = self.repo.stream(path, offset, length)
        return pieces

    def another_way(self, why: str = "") -> bool:  # noqa: ARG002 # of the protocol
        if self.others:
            self.repo = self.others.pop(0)
            return True
        return False

    def every_mirror(self) -> None:
        """It has no way back."""


@dataclass
class Returning(Network):
    """A network with a way back."""

    returned: int = 0

    def __post_init__(self) -> None:
        self.everyone = [self.repo, *self.others]

    def every_mirror(self) -> None:
        self.returned += 1
        self.repo, *self.others = self.everyone


@dataclass
class Bench:
    """One publisher, one device."""

    publisher: Publisher = field(default_factory=Publisher)
    power: Power = field(default_factory=Power)

    def __post_init__(self) -> None:
        root = self.publisher.repo.files["metadata/1.root.json"]
        self.store = CutStore(initial_state(root, Floors(0, 0, 0)), self.power)
        self.slots = Slots(self.power)
        self.network = Network(self.publisher.repo)
        self.machine = Machine(
            DEVICE,
            self.store,
            self.network,
            self.slots,
            NOW,
            2**62,
            lambda *_: None,
            recall=lambda image, _: self.slots.withdraw(image).done,
        )

    @property
    def state(self) -> DeviceState:
        assert self.store.state is not None
        return self.store.state

    def update(self, stop: Stop = Stop.NEVER, restart: Restart = Restart.NOW) -> Outcome:
        return update(self.machine, Waves.OBEY, stop, restart).outcome

    def install(self, version: str, sequence: int, image: bytes) -> None:
        """Publish a release, install and confirm it."""
        self.publisher.release(version, sequence, image)
        assert self.update() is Outcome.REBOOTING
        confirm(self.machine)


def confirmed(machine: Machine) -> str:
    """The version that a confirm made the device's own."""
    image = confirm(machine)
    assert image is not None
    return image.version


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_release_is_installed_tried_and_confirmed(bench: Bench) -> None:
    bench.publisher.release("1.0", 1, OLD)
    assert bench.update() is Outcome.REBOOTING
    assert bench.slots.runs == "B"
    assert bench.slots.slots["B"] == OLD
    assert bench.state.install.phase is Phase.TRIAL
    assert bench.state.install.confirmed_sequence == 0, "the floor rises at confirm only"
    assert confirmed(bench.machine) == "1.0"
    assert bench.slots.primary == "B"
    assert bench.state.install.confirmed_sequence == 1


def test_an_image_of_one_segment_needs_no_list(bench: Bench) -> None:
    bench.install("1.0", 1, OLD[:SEGMENT])
    assert bench.slots.slots["B"] == OLD[:SEGMENT]
    files = bench.publisher.repo.files
    assert not any(path.endswith(SUFFIX) for path in files)


def test_a_list_of_segments_that_a_hash_bin_names_is_fetched_and_counts(bench: Bench) -> None:
    """As a target of its own it would lie in another bin, and the device would load two."""
    repo = bench.publisher.repo
    bench.publisher.release("1.0", 1, OLD)
    listed = repo.role("gateway-builds").targets[IMG + SUFFIX]
    _in_custom(listed.hashes["sha256"])(bench)
    (place,) = [f"targets/{each}" for each in listed.get_prefixed_paths()]
    honest = repo.files[place]
    repo.files[place] = honest[:-1] + bytes([honest[-1] ^ 1])
    with pytest.raises(NotTrustedError, match="is not the file that was signed for"):
        bench.update()
    repo.files[place] = honest
    assert bench.update() is Outcome.REBOOTING
    assert bench.slots.slots["B"] == OLD


def test_a_device_that_keeps_no_ca_bundle_does_not_ask_for_one(bench: Bench) -> None:
    repo = bench.publisher.repo
    repo.delegate(TLS_ROLE, [TLS_BUNDLE])
    repo.add_target(TLS_ROLE, TLS_BUNDLE, b"certificates")
    repo.publish(TLS_ROLE, "targets")
    bench.publisher.release("1.0", 1, NEW)
    assert bench.update() is Outcome.REBOOTING
    assert not [path for path in repo.requests if TLS_ROLE in path]


def test_the_next_release_goes_to_the_other_slot(bench: Bench) -> None:
    bench.install("1.0", 1, OLD)
    bench.install("1.1", 2, NEW)
    assert bench.slots.primary == "A"
    assert bench.slots.slots["A"] == NEW
    assert bench.slots.slots["B"] == OLD


def test_a_rejected_release_is_not_tried_again(bench: Bench) -> None:
    bench.install("1.0", 1, OLD)
    bench.publisher.release("1.1", 2, NEW)
    bench.update()
    assert reject(bench.machine, Restart.NOW).outcome is Outcome.REBOOTING
    assert bench.slots.runs == bench.slots.primary == "B"
    decision = check(bench.machine).decision
    assert isinstance(decision, Skip)
    assert decision.reason is Reason.REJECTED


def test_a_trial_that_does_not_come_up_is_a_rollback(bench: Bench) -> None:
    bench.install("1.0", 1, OLD)
    bench.publisher.release("1.1", 2, NEW)
    bench.update()
    bench.slots.boot()
    decision = check(bench.machine).decision
    assert isinstance(decision, Skip)
    assert decision.reason is Reason.REJECTED
    assert bench.state.install.phase is Phase.IDLE


def test_a_running_trial_waits_for_its_verdict(bench: Bench) -> None:
    bench.publisher.release("1.0", 1, OLD)
    bench.update()
    bench.publisher.repo.requests.clear()
    with pytest.raises(ActionRequiredError, match=r"1\.0 is on trial and not yet confirmed"):
        bench.update()
    assert not bench.publisher.repo.requests, "nobody needs to be asked"


def next_epoch(bench: Bench) -> None:
    """The recovery anchor began another epoch, and its primary has nothing yet."""
    trust = replace(bench.state.trust, epoch=1)
    bench.store.state = replace(bench.state, trust=trust)


@pytest.mark.parametrize("pending", [Phase.WRITING, Phase.STAGED, Phase.TRIAL])
def test_what_waits_to_be_booted_is_given_up_when_its_epoch_ends(
    bench: Bench, pending: Phase
) -> None:
    """At each cut the device is restarted by hand; it never boots what was given up."""
    bench.install("1.0", 1, OLD)
    bench.publisher.release("1.1", 2, NEW)
    takes_back, taken = bench.machine.recall, set[str]()

    def recall(image: Image, why: str) -> bool:
        taken.add(image.version)
        return takes_back(image, why)

    bench.machine = replace(bench.machine, recall=recall)
    for cut_at in range(1, 20):
        stop = Stop.AFTER_STAGING if pending is Phase.STAGED else Stop.NEVER
        bench.update(stop, Restart.LATER)
        assert bench.slots.armed == ("" if pending is Phase.STAGED else "A")
        if pending is Phase.WRITING:
            install = replace(bench.state.install, phase=pending)
            bench.store.state = replace(bench.state, install=install)
            bench.slots.reject(lifecycle.candidate(install))
        before = bench.state
        next_epoch(bench)
        bench.power.steps, bench.power.cut_at = 0, cut_at
        with pytest.raises((PowerCutError, FirmrootError)) as stopped:
            check(bench.machine)
        bench.power.cut_at = 0
        if stopped.type is PowerCutError and not bench.slots.armed:
            bench.slots.boot()
            assert bench.slots.runs == "B"
        for _ in range(2):
            with pytest.raises(FirmrootError):
                check(bench.machine)
            install = bench.state.install
            assert (install.phase, install.candidate) == (Phase.IDLE, None)
            assert (bench.slots.armed, bench.slots.runs) == ("", "B")
            # It is no fault of the payload's: the new epoch may list it.
            assert install.rejected == ()
        bench.store.state = replace(bench.state, trust=before.trust)
        if stopped.type is not PowerCutError:
            break
    assert cut_at > {Phase.WRITING: 2, Phase.STAGED: 4, Phase.TRIAL: 6}[pending]
    # Nobody is told that something is taken back which no boot loader had.
    assert taken == (set() if pending is Phase.WRITING else {"1.1"})
    assert bench.update() is Outcome.REBOOTING
    assert confirmed(bench.machine) == "1.1"


def test_a_trial_that_runs_when_its_epoch_ends_waits_for_its_verdict(bench: Bench) -> None:
    bench.publisher.release("1.0", 1, OLD)
    bench.update()
    next_epoch(bench)
    with pytest.raises(FirmrootError):
        check(bench.machine)
    assert bench.state.install.phase is Phase.TRIAL
    with pytest.raises(ActionRequiredError, match="on trial and not yet confirmed"):
        bench.update()
    assert confirmed(bench.machine) == "1.0"


def test_what_cannot_be_taken_back_is_not_booted_from_here(bench: Bench) -> None:
    bench.install("1.0", 1, OLD)
    bench.publisher.release("1.1", 2, NEW)
    bench.update(restart=Restart.LATER)
    bench.machine = replace(bench.machine, recall=lambda _, __: False)
    next_epoch(bench)
    for _ in range(2):
        with pytest.raises(FirmrootError):
            bench.update()
        assert bench.state.install.phase is Phase.STAGED
        assert (bench.slots.armed, bench.slots.runs) == ("A", "B")


def armed(bench: Bench) -> None:
    """1.0 is installed, and 1.1 boots next."""
    bench.install("1.0", 1, OLD)
    bench.publisher.release("1.1", 2, NEW)
    assert bench.update(restart=Restart.LATER) is Outcome.READY
    assert (bench.slots.armed, bench.slots.runs) == ("A", "B")


def hold(bench: Bench) -> None:
    bench.publisher.hold(2)


def withdraw(bench: Bench) -> None:
    gone = Withdrawn("1.1", 2, NOW, "it hangs")
    bench.publisher.promote(*bench.publisher.manifest.releases, withdrawn=(gone,))


STOPS = {"held": hold, "withdrawn": withdraw}


@pytest.mark.parametrize("command", ["check", "update"])
@pytest.mark.parametrize("stop", STOPS)
def test_what_waits_to_be_booted_is_given_up_when_it_is_stopped(
    bench: Bench, stop: str, command: str
) -> None:
    """At each cut somebody restarts the device: what was given up is not booted."""
    armed(bench)
    begun, files = bench.state, dict(bench.publisher.repo.files)
    for cut_at in range(1, 30):
        STOPS[stop](bench)
        bench.power.steps, bench.power.cut_at = 0, cut_at
        cut = False
        try:
            check(bench.machine) if command == "check" else bench.update()
        except PowerCutError:
            cut = True
        bench.power.cut_at = 0
        if not bench.slots.armed:
            bench.slots.boot()
            assert bench.slots.runs == "B"
        for _ in range(2):
            assert isinstance(check(bench.machine).decision, Skip)
            install = bench.state.install
            # After a cut it may count as written and verified still; nothing boots it.
            assert install.phase in ({Phase.IDLE, Phase.STAGED} if cut else {Phase.IDLE})
            assert (bench.slots.armed, bench.slots.runs) == ("", "B")
            assert install.rejected == (), "what was stopped may start again"
        if not cut:
            break
        bench.store.state = begun
        bench.publisher.repo.files.clear()
        bench.publisher.repo.files.update(files)
        bench.slots.bootable.add("A")
        bench.slots.armed = "A"
    assert cut_at > 4
    bench.publisher.release("1.2", 3, NEW + b"2")
    assert bench.update() is Outcome.REBOOTING
    assert confirmed(bench.machine) == "1.2"


@pytest.mark.parametrize("stop", STOPS)
def test_what_is_stopped_and_only_the_owner_can_take_back_is_not_booted_from_here(
    bench: Bench, stop: str
) -> None:
    armed(bench)
    told: list[str] = []

    def recall(image: Image, why: str) -> bool:
        told.append(f"{image.version} {why}")
        return False

    bench.machine = replace(bench.machine, recall=recall)
    STOPS[stop](bench)
    for _ in range(2):
        assert bench.update() is Outcome.NOTHING
        assert bench.state.install.phase is Phase.STAGED
        assert (bench.slots.armed, bench.slots.runs) == ("A", "B")
    why = {"held": "it is on hold", "withdrawn": "it was withdrawn: it hangs"}[stop]
    assert set(told) == {f"1.1 may not start, {why}"}


def test_another_release_that_is_stopped_keeps_nothing_from_booting(bench: Bench) -> None:
    armed(bench)
    bench.publisher.release("1.2", 3, NEW + b"2")
    bench.publisher.hold(1, 3)
    check(bench.machine)
    assert (bench.state.install.phase, bench.slots.armed) == (Phase.TRIAL, "A")
    assert bench.update() is Outcome.REBOOTING
    assert confirmed(bench.machine) == "1.1"


def test_a_check_does_not_stumble_over_an_armed_boot_that_no_record_tells_of(bench: Bench) -> None:
    fresh = bench.state
    armed(bench)
    bench.store.state = fresh
    assert not isinstance(check(bench.machine).decision, Skip)
    bench.publisher.repo.requests.clear()
    assert bench.update() is Outcome.REBOOTING
    assert bench.publisher.repo.requests.count("metadata/timestamp.json") == 1
    assert confirmed(bench.machine) == "1.1"


def test_a_release_on_trial_that_is_stopped_waits_for_its_verdict(bench: Bench) -> None:
    bench.install("1.0", 1, OLD)
    bench.publisher.release("1.1", 2, NEW)
    assert bench.update() is Outcome.REBOOTING
    bench.publisher.hold(2)
    check(bench.machine)
    assert (bench.state.install.phase, bench.slots.runs) == (Phase.TRIAL, "A")
    assert confirmed(bench.machine) == "1.1"


def test_who_only_downloads_does_not_restart_into_what_an_earlier_run_armed(bench: Bench) -> None:
    armed(bench)
    assert bench.update(Stop.AFTER_STAGING) is Outcome.READY
    assert (bench.slots.armed, bench.slots.runs) == ("A", "B")
    assert bench.update() is Outcome.REBOOTING


def test_that_nobody_answers_stops_no_restart(bench: Bench) -> None:
    armed(bench)
    bench.publisher.repo.files.clear()
    assert bench.update() is Outcome.REBOOTING
    assert confirmed(bench.machine) == "1.1"


def test_download_only_leaves_the_boot_loader_alone(bench: Bench) -> None:
    bench.publisher.release("1.0", 1, OLD)
    assert bench.update(Stop.AFTER_STAGING) is Outcome.STAGED
    assert (bench.slots.armed, bench.slots.bootable) == ("", {"A"})
    before = len(bench.publisher.repo.requests)
    assert bench.update() is Outcome.REBOOTING
    asked = bench.publisher.repo.requests[before:]
    assert not any(path.endswith(".img") for path in asked), "it is there already"


def test_an_artifact_that_just_fits_the_quota_is_installed(bench: Bench) -> None:
    bench.publisher.release("1.0", 1, OLD)
    machine = replace(bench.machine, largest=len(OLD))
    result = update(machine, Waves.OBEY, Stop.NEVER, Restart.NOW)
    assert result.outcome is Outcome.REBOOTING


def test_rejecting_what_does_not_run_restarts_nothing(bench: Bench) -> None:
    bench.publisher.release("1.0", 1, OLD)
    bench.update(Stop.AFTER_STAGING)
    assert reject(bench.machine, Restart.NOW).outcome is Outcome.NOTHING
    assert bench.slots.runs == "A"


def test_what_began_to_be_written_beside_an_unknown_trial_is_gone_on_with(bench: Bench) -> None:
    bench.publisher.release("1.0", 1, NEW)
    image = Image(hashlib.sha256(NEW).hexdigest(), len(NEW), "1.0", 1)
    writing = InstallState(phase=Phase.WRITING, candidate=image)
    bench.store.commit(bench.state.with_install(writing))
    bench.slots.bootable.add("B")
    bench.slots.runs = "B"
    with pytest.raises(UnknownTrialError, match="slot B is on trial"):
        bench.update()
    with pytest.raises(UnknownTrialError, match="slot B is on trial"):
        confirm(bench.machine)
    assert bench.state.install == writing
    assert reject(bench.machine, Restart.NOW).outcome is Outcome.REBOOTING
    assert (bench.slots.runs, bench.state.install) == ("A", writing)
    assert bench.update() is Outcome.REBOOTING
    assert confirmed(bench.machine) == "1.0"


class OwnsItsSlots(Slots):
    """A handler such as `command`: nobody can tell which slot runs, and it restarts by itself."""

    def running(self) -> str:
        return ""

    def reject(self, image: Image) -> None:
        assert image.slot == ""

    def reboot(self) -> None:
        raise AssertionError("a handler that owns its slots was told to restart")


def test_rejecting_with_a_handler_that_owns_its_slots_restarts_nothing(bench: Bench) -> None:
    image = Image("0" * 64, 1, "1.0", 1)
    trial = InstallState(phase=Phase.TRIAL, candidate=image)
    bench.store.commit(bench.state.with_install(trial))
    machine = replace(bench.machine, installer=OwnsItsSlots(Power()))
    assert reject(machine, Restart.NOW).outcome is Outcome.NOTHING
    assert bench.state.install.rejected == (image.sha256,)


def test_a_staged_image_that_was_lost_is_written_again(bench: Bench) -> None:
    bench.publisher.release("1.0", 1, OLD)
    bench.update(Stop.AFTER_STAGING)
    bench.slots.slots["B"] = bytearray()
    with pytest.raises(ImageGoneError, match="not there any more"):
        bench.update()
    assert bench.state.install.phase is Phase.IDLE
    assert bench.update() is Outcome.REBOOTING
    assert bench.slots.slots["B"] == OLD


def test_without_a_restart_the_next_boot_is_the_trial(bench: Bench) -> None:
    bench.publisher.release("1.0", 1, OLD)
    assert bench.update(restart=Restart.LATER) is Outcome.READY
    assert bench.slots.runs == "A"
    assert bench.update(restart=Restart.LATER) is Outcome.READY
    bench.slots.boot()
    assert confirmed(bench.machine) == "1.0"


def test_what_is_staged_gives_way_to_something_newer(bench: Bench) -> None:
    bench.publisher.release("1.0", 1, OLD)
    bench.update(Stop.AFTER_STAGING)
    bench.publisher.release("1.1", 2, NEW)
    bench.update()
    assert bench.slots.slots["B"] == NEW


def test_what_was_staged_and_is_now_held_is_not_started(bench: Bench) -> None:
    bench.publisher.release("1.0", 1, OLD)
    bench.update(Stop.AFTER_STAGING)
    bench.publisher.hold(1)
    assert bench.update() is Outcome.NOTHING
    assert bench.slots.armed == ""


def test_an_artifact_above_the_quota_is_not_fetched(bench: Bench) -> None:
    bench.publisher.release("1.0", 1, OLD)
    machine = replace(bench.machine, largest=len(OLD) - 1)
    with pytest.raises(RefusedError, match=f"has {len(OLD)} bytes, download.quota allows"):
        update(machine, Waves.OBEY, Stop.NEVER, Restart.NOW)
    assert bench.slots.slots.keys() == {"A"}


@pytest.mark.parametrize("suffix", ["", SUFFIX], ids=["an image", "its list of segments"])
def test_an_artifact_that_no_mirror_has_is_named_with_what_to_do(bench: Bench, suffix: str) -> None:
    bench.publisher.release("1.0", 1, OLD)
    repo = bench.publisher.repo
    (path,) = [path for path in repo.files if path.endswith(f".img{suffix}")]
    lost = repo.files.pop(path)
    with pytest.raises(NotFoundError) as caught:
        bench.update()
    told = f"the mirror lacks builds/gateway/1.0/gw2.img{suffix}, which signed metadata list: "
    assert caught.value.message.startswith(told)
    assert "try again later or with another mirror" in caught.value.hint
    assert "the publisher must look: `firmroot verify`" in caught.value.hint
    assert bench.slots.bootable == {"A"}
    repo.files[path] = lost
    assert bench.update() is Outcome.REBOOTING
    assert bench.slots.slots["B"] == OLD


# Attacks and mistakes in the repository. Each gets the bench with 1.0 published.
def _other_bytes_in_the_manifest(bench: Bench) -> None:
    (release,) = bench.publisher.manifest.releases
    (payload,) = release.payloads
    artifact = replace(payload.artifact, sha256="0" * 64)
    payload = replace(payload, artifact=artifact)
    bench.publisher.promote(replace(release, payloads=(payload,)))


def _other_length_in_the_manifest(bench: Bench) -> None:
    (release,) = bench.publisher.manifest.releases
    (payload,) = release.payloads
    artifact = replace(payload.artifact, length=payload.artifact.length - 1)
    bench.publisher.promote(replace(release, payloads=(replace(payload, artifact=artifact),)))


def _unknown_artifact(bench: Bench) -> None:
    builds = bench.publisher.repo.role("gateway-builds").targets
    del builds["builds/gateway/1.0/gw2.img"]
    bench.publisher.repo.publish("gateway-builds")


def _meaning(**changes: Any) -> Callable[[Bench], None]:  # noqa: ANN401 # fields of any type
    def change(bench: Bench) -> None:
        bench.publisher.artifact("1.0", 1, OLD, **changes)
        bench.publisher.repo.publish("gateway-builds")

    return change


def _no_meaning(bench: Bench) -> None:
    target = bench.publisher.repo.role("gateway-builds").targets["builds/gateway/1.0/gw2.img"]
    del target.unrecognized_fields["custom"]
    bench.publisher.repo.publish("gateway-builds")


def _no_segments(bench: Bench) -> None:
    del bench.publisher.repo.role("gateway-builds").targets["builds/gateway/1.0/gw2.img" + SUFFIX]
    bench.publisher.repo.publish("gateway-builds")


def _segments(data: bytes, of: str) -> Callable[[Bench], None]:
    def change(bench: Bench) -> None:
        path = "builds/gateway/1.0/gw2.img" + SUFFIX
        bench.publisher.repo.add_target("gateway-builds", path, data, {"segments-of": of})
        bench.publisher.repo.publish("gateway-builds")

    return change


def _manifest_of(**changes: Any) -> Callable[[Bench], None]:  # noqa: ANN401 # likewise
    def change(bench: Bench) -> None:
        bench.publisher.promote(**changes)

    return change


def _hold_of_another_product(bench: Bench) -> None:
    bench.publisher.hold(9, product="other")


def _in_custom(digest: str) -> Callable[[Bench], None]:
    """The list as a hash bin names it, and no target for it."""

    def change(bench: Bench) -> None:
        targets = bench.publisher.repo.role("gateway-builds").targets
        targets[IMG].unrecognized_fields["custom"]["segments"] = digest
        targets.pop(IMG + SUFFIX, None)
        bench.publisher.repo.publish("gateway-builds")

    return change


IMG = "builds/gateway/1.0/gw2.img"
DISAGREEMENTS: dict[str, tuple[Callable[[Bench], None], str]] = {
    "the manifest names other bytes": (_other_bytes_in_the_manifest, "says sha256"),
    "the manifest names another length": (_other_length_in_the_manifest, "says length"),
    "the builds role does not list it": (_unknown_artifact, "does not list"),
    "it is another product's": (
        _meaning(product="other"),
        "says product other, the channel says gateway",
    ),
    "it is for more hardware": (
        _meaning(hardware=frozenset({"acme,gw-2", "x"})),
        r"says hardware \['acme,gw-2', 'x'\], the channel says \['acme,gw-2'\]",
    ),
    "it is another version": (
        _meaning(version="1.0-debug"),
        "says version 1.0-debug, the channel says 1.0",
    ),
    "it has another sequence": (_meaning(sequence=2), "says sequence 2, the channel says 1"),
    "it is for another handler": (
        _meaning(handler="command"),
        "says handler command, the channel says slot",
    ),
    "it has no meaning": (_no_meaning, "expected an object"),
    "it has no segments": (_no_segments, "lists nothing, expected 64 bytes"),
    "its segments are too few": (_segments(b"x" * 32, IMG), "lists 32 bytes"),
    "its segments are another artifact's": (_segments(b"x" * 64, "other"), "is not marked"),
    "its custom names no digest of segments": (_in_custom("x"), "custom of .*segments"),
    "the manifest is about another product": (
        _manifest_of(product="other"),
        "is about other/stable, expected gateway/stable",
    ),
    "the manifest is about another channel": (
        _manifest_of(channel="beta"),
        "is about gateway/beta, expected gateway/stable",
    ),
    "the hold is about another product": (_hold_of_another_product, "is about other/stable"),
}


@pytest.mark.parametrize("beyond", [0, 1])
def test_a_list_of_segments_that_no_device_can_hold_is_not_asked_for(
    bench: Bench, beyond: int
) -> None:
    release = bench.publisher.release("1.0", 1, OLD)
    targets = bench.publisher.repo.role("gateway-builds").targets
    length = LONGEST + beyond
    targets[IMG].length, targets[IMG + SUFFIX].length = length, list_length(length)
    (payload,) = release.payloads
    payload = replace(payload, artifact=replace(payload.artifact, length=length))
    bench.publisher.promote(replace(release, payloads=(payload,)))
    if beyond:
        with pytest.raises(RefusedError, match=f"firmroot installs at most {LONGEST}"):
            check(bench.machine)
    else:
        assert isinstance(check(bench.machine).decision, Selection)


@pytest.mark.parametrize("sentence", DISAGREEMENTS)
def test_nothing_is_installed_that_two_roles_do_not_agree_on(bench: Bench, sentence: str) -> None:
    bench.publisher.release("1.0", 1, OLD)
    change, message = DISAGREEMENTS[sentence]
    if "manifest is about" in sentence:
        bench.publisher.manifest = replace(bench.publisher.manifest, releases=())
    change(bench)
    with pytest.raises(NotTrustedError, match=message):
        bench.update()
    assert bench.slots.slots.keys() == {"A"}
    assert bench.state.install.phase is Phase.IDLE


def test_a_disagreement_has_a_type_of_its_own(bench: Bench) -> None:
    bench.publisher.release("1.0", 1, OLD)
    _unknown_artifact(bench)
    with pytest.raises(DisagreementError):
        check(bench.machine)


def test_a_manifest_is_taken_from_its_channel_role_only(bench: Bench) -> None:
    """A stolen builds key, whose delegation is wide enough, must not speak for the channel."""
    bench.publisher.release("1.0", 1, OLD)
    repo = bench.publisher.repo
    path = "channels/gateway/stable.json"
    manifest = repo.files[
        f"targets/{repo.role('gateway-stable').targets[path].get_prefixed_paths()[0]}"
    ]
    del repo.role("gateway-stable").targets[path]
    delegations = repo.targets.delegations
    assert delegations is not None
    assert delegations.roles is not None
    delegations.roles["gateway-builds"].paths = ["*"]
    repo.add_target("gateway-builds", path, manifest)
    repo.publish("gateway-stable", "gateway-builds", "targets")
    decision = check(bench.machine).decision
    assert isinstance(decision, Skip)
    assert decision.reason is Reason.NO_CHANNEL


def test_an_artifact_is_taken_from_the_builds_role_only(bench: Bench) -> None:
    """Release managers alone cannot invent a binary."""
    bench.publisher.release("1.0", 1, OLD)
    _unknown_artifact(bench)
    repo = bench.publisher.repo
    meaning = Meaning("gateway", frozenset({"acme,gw-2"}), "1.0", 1, "slot")
    delegations = repo.targets.delegations
    assert delegations is not None
    assert delegations.roles is not None
    delegations.roles["gateway-stable"].paths = ["*", "channels/gateway/*"]
    repo.add_target("gateway-stable", IMG, OLD, meaning.custom())
    repo.publish("gateway-stable", "targets")
    with pytest.raises(DisagreementError, match="does not list"):
        check(bench.machine)


def test_a_hold_stops_a_release(bench: Bench) -> None:
    bench.publisher.release("1.0", 1, OLD)
    bench.publisher.hold(1)
    decision = check(bench.machine).decision
    assert isinstance(decision, Skip)
    assert decision.reason is Reason.HELD


def test_without_a_hold_file_nothing_is_held(bench: Bench) -> None:
    bench.publisher.release("1.0", 1, OLD)
    assert isinstance(check(bench.machine).decision, Selection)


def test_a_channel_that_does_not_exist_is_no_up_to_date(bench: Bench) -> None:
    bench.publisher.release("1.0", 1, OLD)
    machine = replace(bench.machine, identified=replace(DEVICE, channel="stble"))
    decision = check(machine).decision
    assert isinstance(decision, Skip)
    assert decision.reason is Reason.NO_CHANNEL
    assert decision.detail == (
        "likely a mistake in repository.channel of device.toml: the repository has no channel "
        "gateway/stble, it has: gateway/stable; did you mean gateway/stable?"
    )


def test_the_channels_of_the_product_are_named_and_no_others(bench: Bench) -> None:
    repo = bench.publisher.repo
    repo.delegate("gateway-beta", ["channels/gateway/beta.json"])
    repo.delegate("modem-nightly", ["channels/modem/nightly.json"])
    repo.publish("targets", "gateway-beta", "modem-nightly")
    nightly = replace(bench.machine, identified=replace(DEVICE, channel="nightly"))
    decision = check(nightly).decision
    assert isinstance(decision, Skip)
    assert decision.detail.endswith(
        "no channel gateway/nightly, it has: gateway/stable, gateway/beta"
    )
    elsewhere = replace(bench.machine, identified=replace(DEVICE, product="gatewy"))
    decision = check(elsewhere).decision
    assert isinstance(decision, Skip)
    assert decision.detail == (
        "likely a mistake in repository.product of device.toml: the repository has no channel "
        "gatewy/stable, it has: gateway/stable, gateway/beta, modem/nightly; did you mean "
        "gateway/stable?"
    )


def test_a_channel_without_a_release_is_no_mistake(bench: Bench) -> None:
    decision = check(bench.machine).decision
    assert isinstance(decision, Skip)
    assert decision.reason is Reason.NO_CHANNEL
    assert decision.detail == "nothing was promoted to gateway/stable yet"


def test_a_repository_that_delegates_nothing_has_no_channel(bench: Bench) -> None:
    bench.publisher.repo.targets.delegations = None
    bench.publisher.repo.publish("targets")
    decision = check(bench.machine).decision
    assert isinstance(decision, Skip)
    assert decision.detail.endswith("has no channel gateway/stable, it has: none")


def test_the_wave_is_judged_by_the_later_of_clock_and_floor(bench: Bench) -> None:
    bench.publisher.release("1.0", 1, OLD)
    bench.store.state = initial_state(
        bench.publisher.repo.files["metadata/1.root.json"], Floors(int(NOW.timestamp()), 0, 0)
    )
    long_ago = datetime(1970, 1, 1, tzinfo=UTC)
    updater = Updater(bench.store, bench.network, long_ago)
    install = refreshed(updater, bench.store, DEVICE.product)
    decision = evaluate(updater, DEVICE.position(install))
    assert isinstance(decision, Selection)


def test_a_mirror_that_tampers_is_left_for_the_next(bench: Bench) -> None:
    bench.publisher.release("1.0", 1, OLD)
    liar = bench.publisher.repo.fork()
    for path in liar.files:
        if path.endswith(("timestamp.json", ".img")):
            liar.files[path] = b"x" * len(liar.files[path])
    bench.network.repo, bench.network.others = liar, [bench.publisher.repo]
    assert bench.update() is Outcome.REBOOTING
    assert bench.slots.slots["B"] == OLD


@pytest.mark.parametrize("lacks", ["timestamp.json", "gateway-stable.json", ".segments", ".img"])
def test_a_mirror_that_lacks_an_object_is_left_for_the_next(bench: Bench, lacks: str) -> None:
    bench.publisher.release("1.0", 1, NEW)
    empty = bench.publisher.repo.fork()
    gone = [path for path in empty.files if path.endswith(lacks)]
    assert gone
    for path in gone:
        del empty.files[path]
    bench.network.repo, bench.network.others = empty, [bench.publisher.repo]
    assert bench.update() is Outcome.REBOOTING
    assert bench.slots.slots["B"] == NEW


def test_a_mirror_that_alters_the_image_is_left_for_the_next(bench: Bench) -> None:
    bench.publisher.release("1.0", 1, OLD)
    liar = bench.publisher.repo.fork()
    for path in liar.files:
        if path.endswith(".img"):
            liar.files[path] = OLD[:SEGMENT] + b"x" * 1000
    bench.network.repo, bench.network.others = liar, [bench.publisher.repo]
    assert bench.update() is Outcome.REBOOTING
    assert bench.slots.slots["B"] == OLD


def hide_root(bench: Bench) -> RepositorySimulator:
    """A second root is published; the mirror that is returned lost the file."""
    repo = bench.publisher.repo
    repo.publish("root")
    repo.announce()
    mirror = repo.fork()
    del mirror.files["metadata/2.root.json"], mirror.files["metadata/root-chain/2"]
    return mirror


def test_a_mirror_that_lacks_a_root_it_announces_is_left_for_the_next(bench: Bench) -> None:
    bench.publisher.release("1.0", 1, NEW)
    mirror = hide_root(bench)
    bench.network.repo, bench.network.others = mirror, [bench.publisher.repo]
    checked = check(bench.machine)
    assert checked.updater.root.version == 2
    assert checked.updater.missing_root is None
    assert bench.update() is Outcome.REBOOTING
    assert bench.slots.slots["B"] == NEW


def test_a_root_that_no_mirror_has_is_reported_and_stops_nothing(bench: Bench) -> None:
    bench.publisher.release("1.0", 1, NEW)
    first, second = hide_root(bench), bench.publisher.repo.fork()
    del second.files["metadata/2.root.json"]
    bench.network.repo, bench.network.others = first, [second]
    checked = check(bench.machine)
    assert checked.updater.missing_root == 2
    assert first.requests.count("metadata/timestamp.json") == 1
    assert second.requests == ["metadata/2.root.json"]
    assert isinstance(checked.decision, Selection)


@pytest.mark.parametrize("lie", [b"{}", b"x" * 600_000])
def test_a_mirror_with_a_false_root_is_not_looked_at_again(bench: Bench, lie: bytes) -> None:
    bench.publisher.release("1.0", 1, NEW)
    first, second = hide_root(bench), bench.publisher.repo.fork()
    second.files["metadata/2.root.json"] = lie
    bench.network.repo, bench.network.others = first, [second, bench.publisher.repo]
    checked = check(bench.machine)
    assert second.requests == ["metadata/2.root.json"]
    assert (checked.updater.root.version, checked.updater.missing_root) == (2, None)


def test_a_mirror_that_has_the_root_and_nothing_else_stops_nothing(bench: Bench) -> None:
    bench.publisher.release("1.0", 1, NEW)
    first, second = hide_root(bench), bench.publisher.repo.fork()
    del second.files["metadata/timestamp.json"]
    bench.network.repo, bench.network.others = first, [second]
    checked = check(bench.machine)
    assert isinstance(checked.decision, Selection), "the last good answer stands"
    assert bench.state.trust.root_version == 2


def test_what_nobody_has_is_looked_for_once_in_a_cycle(bench: Bench) -> None:
    # An update that begins its check again, since bytes of an artifact did not verify.
    bench.publisher.release("1.0", 1, NEW)
    first, liar, honest = hide_root(bench), *(bench.publisher.repo.fork() for _ in range(2))
    for mirror in (first, liar):
        mirror.files.pop("metadata/2.root.json", None)
        for path in [path for path in mirror.files if path.endswith(".img")]:
            mirror.files[path] = bytes(len(mirror.files[path]))
    honest.files.pop("metadata/2.root.json", None)
    network = Returning(first, [liar, honest])
    result = update(replace(bench.machine, mirrors=network), Waves.OBEY, Stop.NEVER, Restart.NOW)
    assert result.outcome is Outcome.REBOOTING
    assert bench.slots.slots["B"] == NEW
    assert network.returned == 1
    roots = [m.requests.count("metadata/2.root.json") for m in (first, liar, honest)]
    assert roots == [1, 2, 2], "once by the check, and once by who looked for it"


def test_mirrors_that_have_one_root_more_each_are_followed_to_the_last(bench: Bench) -> None:
    bench.publisher.release("1.0", 1, NEW)
    repo = bench.publisher.repo
    for _ in range(3):
        repo.publish("root")
    repo.announce()
    mirrors = [repo.fork() for _ in range(3)]
    for mirror, hidden in zip(mirrors, ((2, 3, 4), (3, 4), (4,)), strict=True):
        del mirror.files["metadata/root-chain/4"]
        for version in hidden:
            del mirror.files[f"metadata/{version}.root.json"]
    bench.network.repo, bench.network.others = mirrors[0], [*mirrors[1:], repo]
    checked = check(bench.machine)
    assert (checked.updater.root.version, checked.updater.missing_root) == (4, None)


def test_a_false_announcement_and_a_mirror_that_lags_stop_nothing(bench: Bench) -> None:
    lagging = bench.publisher.repo.fork()
    bench.publisher.release("1.0", 1, NEW)
    bench.publisher.repo.timestamp.unrecognized_fields["x-firmroot-root"] = 99
    bench.publisher.repo.publish("timestamp")
    bench.network.others = [lagging]
    checked = check(bench.machine)
    assert checked.updater.missing_root == 99
    assert isinstance(checked.decision, Selection), "the last good answer stands"


def test_an_epoch_that_ends_during_the_second_look_is_heeded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or what was found in the epoch before would be installed."""
    bench.publisher.release("1.0", 1, NEW)
    bench.network.repo, bench.network.others = hide_root(bench), [bench.publisher.repo]
    once, looks = update_module._check_once, []

    def look(machine: Machine, waves: Waves, sought: dict[int | str, str]) -> Checked:
        looks.append(waves)
        if len(looks) == 2:
            raise EpochEndedError("the recovery anchor began another epoch")
        return once(machine, waves, sought)

    monkeypatch.setattr(update_module, "_check_once", look)
    assert isinstance(check(bench.machine).decision, Selection)
    assert len(looks) == 3, "the check began again"


def test_a_device_without_an_anchor_asks_nobody_about_an_epoch(bench: Bench) -> None:
    bench.publisher.release("1.0", 1, NEW)
    bench.publisher.repo.timestamp.unrecognized_fields["x-firmroot-epoch"] = 5
    bench.publisher.repo.publish("timestamp")
    assert isinstance(check(bench.machine).decision, Selection)


@pytest.mark.parametrize("heard", [False, True])
def test_before_a_boot_that_an_earlier_run_armed_the_anchor_is_asked(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, *, heard: bool
) -> None:
    """The check before it may have had no reason to: what it hears ends the epoch or the hiding."""
    asked = []

    class Anchor:
        def before_install(self) -> bool:
            asked.append("before the install")
            return heard

    network = Returning(bench.publisher.repo)
    machine = replace(bench.machine, anchor=Anchor(), mirrors=network)  # type: ignore[arg-type]
    monkeypatch.setattr(update_module, "check", lambda *_: None)
    update_module._look_before_boot(machine, Waves.OBEY)
    assert asked == ["before the install"]
    assert network.returned == heard


def test_only_an_image_of_another_epoch_is_doubted() -> None:
    image = Image("ab" * 32, 1, "1.0", 1, "A", epoch=1)
    install = InstallState(current=image)
    assert DEVICE.position(install, epoch=1).doubted == ""
    assert DEVICE.position(install, epoch=2).doubted == image.sha256
    assert DEVICE.position(InstallState(), epoch=2).doubted == ""


def test_a_channel_that_is_not_there_is_told_whatever_else_is_delegated(bench: Bench) -> None:
    """Delegations by hash prefix, or to bins alone, are none of ours and name no channel."""
    repo = bench.publisher.repo
    repo.delegate("others", [])
    assert repo.targets.delegations is not None
    assert repo.targets.delegations.roles is not None
    repo.targets.delegations.roles["others"].path_hash_prefixes = ["ab"]
    repo.targets.delegations.roles["others"].paths = None
    repo.publish("targets")
    elsewhere = replace(bench.machine, identified=replace(DEVICE, channel="beta"))
    decision = check(elsewhere).decision
    assert isinstance(decision, Skip)
    assert "the repository has no channel gateway/beta, it has: gateway/stable" in decision.detail
    keys = repo.targets.delegations.keys
    keyids = repo.targets.delegations.roles["others"].keyids
    bins = SuccinctRoles(keyids, 1, 4, "bin")
    repo.targets.delegations = Delegations(keys, None, bins)
    repo.publish("targets")
    decision = check(elsewhere).decision
    assert isinstance(decision, Skip)
    assert "it has: none" in decision.detail


def test_with_the_only_mirror_tampering_nothing_is_installed(bench: Bench) -> None:
    bench.publisher.release("1.0", 1, OLD)
    for path in bench.publisher.repo.files:
        if path.endswith(".img"):
            bench.publisher.repo.files[path] = OLD[:SEGMENT] + b"x" * 1000
    with pytest.raises(NotTrustedError, match="twice in a row"):
        bench.update()
    assert bench.slots.slots["B"] == OLD[:SEGMENT]
    assert bench.slots.bootable == {"A"}
    assert bench.state.install.phase is Phase.WRITING


def test_an_interrupted_download_goes_on_where_it_stopped(bench: Bench) -> None:
    bench.publisher.release("1.0", 1, NEW)
    files = bench.publisher.repo.files
    (image,) = (path for path in files if path.endswith(".img"))
    files[image] = NEW[: SEGMENT + 10]
    with pytest.raises(RetryLaterError):
        bench.update()
    files[image] = bytes(SEGMENT) + NEW[SEGMENT:]
    assert bench.update() is Outcome.REBOOTING, "the first segment was not asked for again"
    assert bench.slots.slots["B"] == NEW


def test_confirm_needs_no_network_and_no_right_time(bench: Bench) -> None:
    bench.publisher.release("1.0", 1, OLD)
    bench.update()
    bench.publisher.repo.files.clear()
    late = replace(bench.machine, now=datetime(2099, 1, 1, tzinfo=UTC))
    assert confirmed(late) == "1.0"


def test_a_check_that_broke_off_during_the_trial_fails_no_confirm(bench: Bench) -> None:
    """The new timestamp is stored, its snapshot could not be had."""
    bench.publisher.release("1.0", 1, OLD)
    bench.update()
    bench.publisher.release("1.1", 2, NEW)
    del bench.publisher.repo.files[bench.publisher.repo.location("snapshot")]
    with pytest.raises(RetryLaterError):
        check(bench.machine)
    assert confirmed(bench.machine) == "1.0"


def _a_root_that_nobody_signed(bench: Bench) -> None:
    bench.store.chain[0] = bench.store.chain[0].replace(b'"version": 1', b'"version":  1')
    bench.store.chain.append(Publisher().repo.files["metadata/1.root.json"])


def _no_root(bench: Bench) -> None:
    bench.store.chain.clear()


def _a_root_less(bench: Bench) -> None:
    bench.store.chain.pop()


def _damaged(part: str) -> Callable[[Bench], None]:
    def damage(bench: Bench) -> None:
        trust = bench.state.trust
        data = trust.roles["targets"] if part == "roles" else getattr(trust, part)
        torn: Any = data[: len(data) // 2]
        if part == "roles":
            torn = {**trust.roles, "targets": torn}
        bench.store.state = bench.state.with_trust(replace(trust, **{part: torn}))

    return damage


UNVERIFIABLE = {
    "a link that does not follow": _a_root_that_nobody_signed,
    "no root at all": _no_root,
    "a chain that ends too early": _a_root_less,
    "a torn timestamp": _damaged("timestamp"),
    "a torn snapshot": _damaged("snapshot"),
    "a torn role": _damaged("roles"),
}


@pytest.mark.parametrize("sentence", UNVERIFIABLE)
def test_confirm_fails_where_the_stored_state_does_not_verify(bench: Bench, sentence: str) -> None:
    bench.publisher.release("1.0", 1, OLD)
    bench.publisher.repo.publish("root", "timestamp")
    bench.update()
    UNVERIFIABLE[sentence](bench)
    with pytest.raises(LocalFailureError, match="cannot verify the stored trust state") as caught:
        confirm(bench.machine)
    assert "reject" in caught.value.hint
    assert bench.slots.primary == "A"


def test_nothing_on_trial_is_nothing_to_confirm_or_reject(bench: Bench) -> None:
    assert confirm(bench.machine) is None
    with pytest.raises(IllegalTransitionError):
        reject(bench.machine, Restart.NOW)


def test_a_device_without_state_is_told_to_init(bench: Bench) -> None:
    machine = replace(bench.machine, store=MemoryStore())
    with pytest.raises(ActionRequiredError) as caught:
        update(machine, Waves.OBEY, Stop.NEVER, Restart.NOW)
    assert caught.value.hint == "run `firmroot-device init` first"


def _finish(bench: Bench) -> None:
    """Run the same commands again, as a service or a person would, until all is done."""
    try:
        bench.update()
    except ActionRequiredError:
        assert bench.state.install.phase is Phase.TRIAL
    if bench.state.install.phase is Phase.TRIAL:
        confirm(bench.machine)


def _steps(command: Callable[[Bench], object]) -> int:
    bench = _prepared()
    bench.power.steps = 0
    command(bench)
    return bench.power.steps


@cache
def _template() -> Bench:
    bench = Bench()
    bench.install("1.0", 1, OLD)
    bench.publisher.release("1.1", 2, NEW)
    return bench


def _prepared() -> Bench:
    """1.0 is confirmed, 1.1 is published. Made once: states are values, slots are copied."""
    template = _template()
    bench = Bench(template.publisher)
    bench.store.state, bench.store.chain = template.state, list(template.store.chain)
    there = copy.deepcopy(template.slots)
    there.power = bench.power
    bench.slots = there
    bench.machine = replace(bench.machine, installer=there)
    return bench


def _update_and_confirm(bench: Bench) -> None:
    bench.update()
    confirm(bench.machine)


@pytest.mark.parametrize("reboot", ["process killed", "power cut"])
def test_an_update_cut_at_every_step_and_run_again_finishes(reboot: str) -> None:
    """The device always has a slot that boots; nothing unverified ever runs."""
    count = _steps(_update_and_confirm)
    assert count > 25
    for cut_at in range(1, count + 1):
        bench = _prepared()
        bench.power.steps, bench.power.cut_at = 0, cut_at
        with pytest.raises(PowerCutError):
            _update_and_confirm(bench)
        bench.power.cut_at = 0
        if reboot == "power cut":
            bench.slots.boot()
        assert bytes(bench.slots.slots[bench.slots.runs]) in {OLD, NEW}, cut_at
        _finish(bench)
        install = bench.state.install
        rolled_back = hashlib.sha256(NEW).hexdigest() in install.rejected
        # A trial that loses power before it was confirmed counts as one that did not come up.
        expected = ("1.0", OLD) if rolled_back else ("1.1", NEW)
        assert install.phase is Phase.IDLE, cut_at
        assert install.current is not None
        assert (install.current.version, bytes(bench.slots.slots[bench.slots.runs])) == expected
        assert not (rolled_back and reboot == "process killed"), cut_at


@pytest.mark.parametrize("reboot", ["process killed", "power cut"])
def test_a_reject_cut_at_every_step_and_run_again_ends_on_the_old_release(reboot: str) -> None:
    def command(bench: Bench) -> None:
        if bench.state.install.phase is not Phase.TRIAL:
            bench.update()
        reject(bench.machine, Restart.NOW)

    start = _steps(lambda bench: bench.update())
    for cut_at in range(start + 1, _steps(command) + 1):
        bench = _prepared()
        bench.power.steps, bench.power.cut_at = 0, cut_at
        with pytest.raises(PowerCutError):
            command(bench)
        bench.power.cut_at = 0
        if reboot == "power cut":
            bench.slots.boot()
        if bench.state.install.phase is Phase.TRIAL and bench.slots.runs != bench.slots.primary:
            reject(bench.machine, Restart.NOW)
        check(bench.machine)
        bench.slots.boot()
        assert bytes(bench.slots.slots[bench.slots.runs]) == OLD, cut_at
        assert hashlib.sha256(NEW).hexdigest() in bench.state.install.rejected, cut_at
