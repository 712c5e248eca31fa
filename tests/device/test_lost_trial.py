"""A trust store that was lost while a release was on trial: every order of commands leads out."""

from __future__ import annotations

import json
import random
import re
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import ExitCode
from client_reference.payload.segments import SEGMENT

if TYPE_CHECKING:
    from tests.simulators.device import DeviceOnDisk, Output, Publisher

FIRST = random.Random(1).randbytes(SEGMENT + 17)
SECOND = random.Random(2).randbytes(SEGMENT + 19)


def lose_the_store(device: DeviceOnDisk) -> None:
    for name in ("a.db", "b.db"):
        with (device.directory / "state" / name).open("r+b") as file:
            file.truncate(1000)


def boot_record(device: DeviceOnDisk) -> dict[str, object]:
    record: dict[str, object] = json.loads((device.directory / "slots" / "boot.json").read_text())
    return record


@pytest.fixture
def lost(publisher: Publisher, device: DeviceOnDisk) -> DeviceOnDisk:
    """1.0 is confirmed in B, 1.1 runs on trial in A, and both copies of the store are damaged."""
    publisher.release("1.0", 1, FIRST)
    device.run("init")
    device.run("update")
    assert device.run("confirm").code == 0
    publisher.release("1.1", 2, SECOND)
    assert "1.1 (sequence 2) runs on trial in slot A" in device.run("update").out
    lose_the_store(device)
    return device


def refused(said: Output, code: ExitCode) -> None:
    assert said.code == code
    assert "slot A is on trial in the boot loader" in said.err
    assert "no record of what is in it" in said.err
    assert re.search("run `firmroot-device --config .* reject`", said.err)


def comes_back(device: DeviceOnDisk) -> None:
    """Reject, then an honest update that is confirmed."""
    assert device.run("status", before=("--json",)).json["unknown_trial"] == "A"
    given_up = device.run("reject")
    assert given_up.code == 0
    assert "given up: the trial of which this device has no record" in given_up.out
    record = boot_record(device)
    assert (record["running"], record["primary"]) == ("B", "B")
    assert (record["bootable"], record["trial"]) == (["B"], "")
    assert device.slot("B") == FIRST
    assert device.run("status", before=("--json",)).json["unknown_trial"] is None
    assert "1.1 (sequence 2) runs on trial in slot A" in device.run("update").out
    assert device.slot("A") == SECOND
    assert "confirmed: 1.1" in device.run("confirm").out
    assert boot_record(device)["primary"] == "A"


def test_update_first_names_the_way_out(lost: DeviceOnDisk) -> None:
    refused(lost.run("update"), ExitCode.REFUSED)
    refused(lost.run("confirm"), ExitCode.REFUSED)
    comes_back(lost)


def test_confirm_first_confirms_nothing_that_nobody_knows(lost: DeviceOnDisk) -> None:
    before = (lost.directory / "slots" / "boot.json").read_bytes()
    refused(lost.run("confirm"), ExitCode.REFUSED)
    assert (lost.directory / "slots" / "boot.json").read_bytes() == before
    refused(lost.run("update"), ExitCode.REFUSED)
    comes_back(lost)


def test_reject_first_goes_back(lost: DeviceOnDisk) -> None:
    lost.run("check")
    comes_back(lost)


def test_status_first_names_reject_and_not_init(lost: DeviceOnDisk) -> None:
    """The way out is open without `init`, and there is only one: nothing can be confirmed."""
    for missing in (False, True):
        if missing:
            for name in ("a.db", "b.db"):
                (lost.directory / "state" / name).unlink()
        said = lost.run("status")
        assert said.code == ExitCode.ACTION_REQUIRED
        assert "slot A is on trial, and nothing is stored about what is in it" in said.err
        assert re.search("hint: run `firmroot-device --config .* reject`: it goes back", said.err)
    assert "given up" in lost.run("reject").out
    comes = lost.run("update")
    assert (comes.code, boot_record(lost)["running"]) == (0, "A")


def test_check_status_and_doctor_say_it(lost: DeviceOnDisk) -> None:
    checked = lost.run("check", "--exit-code")
    assert checked.code == 0, "it cannot be installed now"
    assert "slot A is on trial, and this device has no record" in checked.out
    assert checked.out.splitlines()[-1] == f"next: firmroot-device --config {lost.config} reject"
    status = lost.run("status").out
    assert "unknown    slot A is on trial, nothing is stored about it" in status
    assert status.splitlines()[-1].endswith(f"--config {lost.config} reject")
    doctor = lost.run("doctor")
    assert doctor.code == ExitCode.REFUSED
    assert "error    installer: slot A is on trial, and this device has no record" in doctor.out
    comes_back(lost)
    assert lost.run("doctor").code == 0


def test_a_restart_that_is_left_to_others_is_asked_for(lost: DeviceOnDisk) -> None:
    said = lost.run("reject", "--no-reboot")
    assert "next: restart the device" in said.out
    assert boot_record(lost)["running"] == "A"
    refused(lost.run("confirm"), ExitCode.REFUSED)
    comes_back(lost)


def test_a_trial_that_was_armed_and_never_ran_gives_way_to_an_update(
    publisher: Publisher, device: DeviceOnDisk
) -> None:
    publisher.release("1.0", 1, FIRST)
    device.run("init")
    assert "boots next in slot B" in device.run("update", "--no-reboot").out
    lose_the_store(device)
    assert "slot B is on trial" in device.run("confirm").err
    publisher.hold(1)
    assert "it is on hold" in device.run("update").out
    assert boot_record(device)["trial"] == "", "what is held would boot next"
    assert device.run("confirm").code == 0
    publisher.hold()
    assert "1.0 (sequence 1) runs on trial in slot B" in device.run("update").out
    assert "confirmed: 1.0" in device.run("confirm").out


def test_a_trial_that_was_armed_and_never_ran_is_rejected_without_a_restart(
    publisher: Publisher, device: DeviceOnDisk
) -> None:
    publisher.release("1.0", 1, FIRST)
    device.run("init")
    device.run("update", "--no-reboot")
    lose_the_store(device)
    said = device.run("reject", before=("--json",))
    assert (said.json["rejected"], said.json["outcome"]) == (None, "nothing")
    assert boot_record(device)["trial"] == ""
    assert "1.0 (sequence 1) runs on trial in slot B" in device.run("update").out
    assert "confirmed: 1.0" in device.run("confirm").out
