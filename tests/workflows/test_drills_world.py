"""Drills of design section 7: years on a shelf, wrong clocks, dead TLS, torn disks, bad mirrors.

The device is at its command line, on real files, over real loopback servers, and time is injected.
The release side is at its own command line where it has one for what happens.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from client_reference.payload.segments import SEGMENT
from tests.publishing.lab import PRODUCT, image
from tests.simulators.device import DeviceOnDisk, Publisher
from tests.simulators.fault_proxy import Fault, FaultProxy
from tests.simulators.mirror import Mirror, Trouble, wait_until
from tests.workflows.drill import hashed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.workflows.drill import Drill

ROTATIONS = 30
ROTATIONS_A_YEAR = 5
RELEASED_EVERY = 4  # rotations, or the channel expires


# shelf-aged


def test_shelf_aged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Made six years ago, switched on today: thirty roots behind, the first one long expired."""
    publisher = Publisher()
    repo = publisher.repo
    device = DeviceOnDisk(tmp_path, capsys, "2037-05-14T12:00:00Z")
    first = repo.files["metadata/1.root.json"]
    for number in range(ROTATIONS):
        repo.now = repo.later(days=365 // ROTATIONS_A_YEAR)
        for role in ("root", "timestamp", "snapshot", "targets"):
            repo.rotate(role)
            repo.signed[role].expires = repo.later(days=365)
        repo.publish("root")
        if number == ROTATIONS - 1:
            for signed in repo.signed.values():
                signed.expires = repo.later(days=365)
            repo.publish("gateway-stable", "gateway-stable-hold", "gateway-builds", "targets")
            repo.announce()
    publisher.release("7.0", 70, image("7.0"))
    assert repo.root.version == ROTATIONS + 1
    with Mirror(repo.files) as mirror:
        device.make(first, [mirror.url])
        assert device.run("init").code == 0
        checked = device.run("check", before=("--json",)).json
        assert checked["root"] == repo.root.version
        news = [path for path in mirror.paths if "root" in path]
        assert news == ["metadata/2.root.json", "metadata/root-chain/31", "metadata/32.root.json"]
        assert "7.0 (sequence 70)" in device.run("update").out
        assert "confirmed: 7.0" in device.run("confirm").out
        assert device.slot("B") == image("7.0")


@pytest.mark.services
def test_shelf_aged_with_every_rotation_at_the_command_line(drill: Drill) -> None:
    """The same with thirty real ceremonies, publishes and rehearsals, and releases."""
    people = ("alice", "bob", "carol")
    for number in range(ROTATIONS):
        drill.lab.now = drill.lab.later(days=365 // ROTATIONS_A_YEAR).now
        name = people[number % len(people)]
        count = number // len(people) + 1
        drill.firmroot("rotate", name if count == 1 else f"{name}-{count}")
        drill.firmroot("sign")
        drill.firmroot("publish")
        if number % RELEASED_EVERY == 0:
            drill.lab.ship(f"1.{number + 1}")
    drill.at(drill.lab.now)
    drill.unharmed("2.0")
    assert drill.version("root") == ROTATIONS + 1


# clock-1970, clock-2040


def test_clock_1970(drill: Drill) -> None:
    """The battery of the clock is empty. Updates go on, and the device says what it cannot know."""
    now = drill.device.now
    drill.later(days=3)
    drill.firmroot("refresh")
    drill.device.now = "1970-01-01T00:01:00Z"
    said = drill.run("check")
    assert "freshness unproven: this device's clock says 1970-01-01T00:01:00Z" in said
    assert "set the clock" in said
    assert drill.status["freshness"] == "unproven"
    assert drill.status["time_floor"] > now

    # What has expired by the floor is refused, whatever the clock says.
    old = dict(drill.honest)
    drill.lab.now = drill.lab.later(days=30).now
    drill.firmroot("refresh")
    drill.run("check")
    drill.mirror.files = old
    assert "timestamp has version" in drill.run("update", code=6)

    # Honest updates go on, with a warning.
    drill.mirror.files = drill.honest
    drill.lab.ship("1.1")
    assert "freshness unproven" in drill.install("1.1")

    # Somebody sets the clock.
    drill.at(drill.lab.now)
    assert "freshness unproven" not in drill.run("check")
    assert drill.status["freshness"] == "proven"
    drill.unharmed("1.2")


def test_clock_1970_of_a_new_device(drill: Drill) -> None:
    """The same before the first check: the export's floor is all it has."""
    shelf = DeviceOnDisk(drill.device.directory.parent / "shelf", drill.device.capture)
    drill.firmroot("factory", "export", PRODUCT, "--to", shelf.directory)
    drill.device = shelf
    drill.mirrors(drill.mirror.url)
    shelf.now = "1970-01-01T00:01:00Z"
    drill.last = {}
    drill.run("init")
    assert "freshness unproven" in drill.install("1.0")
    drill.unharmed("1.1")


def test_clock_2040(drill: Drill) -> None:
    """The clock runs far ahead: all looks expired. Nothing is taken, nothing is forgotten."""
    drill.lab.ship("1.1")
    trusted, right = drill.status, drill.device.now
    drill.device.now = "2040-01-01T00:00:00Z"
    for command in ("check", "update"):
        said = drill.run(command, code=6)
        assert "root expired at 2027-03-02T06:00:00Z, it is 2040-01-01T00:00:00Z here" in said
        assert "your clock or a frozen mirror" in said
    assert "expired    root" in drill.run("status")
    wild = drill.status
    for what in ("roles", "time_floor", "installed", "confirmed_sequence"):
        assert wild[what] == trusted[what], what
    drill.runs("1.0")

    # Its clock is right again: nothing has to be done.
    drill.device.now = right
    drill.install("1.1")
    drill.unharmed("1.2")


# torn-state


def damage(path: Path) -> None:
    """Half of it, with other bytes in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 4 : len(data) // 2] = random.Random(1).randbytes(
        len(data) // 2 - len(data) // 4
    )
    path.write_bytes(data[: len(data) * 3 // 4])


@pytest.mark.parametrize("copy", ["a.db", "b.db"])
def test_torn_state_of_one_copy(drill: Drill, copy: str) -> None:
    """One copy of the store is rubbish: the other has everything."""
    before = drill.status
    damage(drill.device.directory / "state" / copy)
    said = drill.run("check")
    assert "started from the factory root" not in said
    assert drill.status == before
    drill.unharmed("1.1")
    damage(drill.device.directory / "state" / copy)
    drill.unharmed("1.2")


def test_torn_state_of_both_copies(drill: Drill) -> None:
    """Both are rubbish: from the factory root and the image's floors, and the device says so.

    What it had installed is forgotten as well: it installs the newest release once more.
    """
    drill.firmroot("rotate", "alice")
    drill.firmroot("sign")
    drill.firmroot("publish")
    drill.run("check")
    for copy in ("a.db", "b.db"):
        damage(drill.device.directory / "state" / copy)
    drill.last = {}
    said = drill.run("update")
    assert "started from the factory root and its floors" in said
    assert "1.0 (sequence 1) runs on trial" in said
    assert "confirmed: 1.0" in drill.run("confirm")
    drill.runs("1.0")
    drill.unharmed("1.1")
    assert drill.version("root") == 2


def test_torn_state_by_a_process_that_is_killed_in_mid_update(drill: Drill) -> None:
    """Killed while the image comes in, twice; the third run goes on where the second was.

    Every other moment of every command, and cuts of power, are in `tests.power`.
    """
    drill.lab.ship("1.1")
    data = image("1.1")
    artifact = hashed(f"builds/{PRODUCT}/1.1/firmware.img", data)
    trusted = drill.status
    half, more = SEGMENT // 2, SEGMENT + SEGMENT // 16
    with FaultProxy(drill.mirror, [Fault(stall=half), Fault(stall=more)]) as network:
        drill.mirrors(network.url)
        drill.mirror.seen.clear()
        kill_an_update(drill, until=lambda: drill.mirror.paths[-1:] == [artifact])
        kill_an_update(drill, until=lambda: len(drill.device.slot("A")) >= SEGMENT)
        drill.runs("1.0")
        assert drill.status["phase"] == "writing"
        for what in ("installed", "confirmed_sequence"):
            assert drill.status[what] == trusted[what], what
        drill.install("1.1")
        ranges = [seen.headers["Range"] for seen in drill.mirror.seen if seen.path == artifact]
        whole, rest = (f"bytes={start}-{len(data) - 1}" for start in (0, SEGMENT))
        assert ranges == [whole, whole, rest]
    drill.mirrors(drill.mirror.url)
    drill.unharmed("1.2")


def kill_an_update(drill: Drill, until: Callable[[], bool]) -> None:
    """Start one in a process of its own, and kill that when it has come so far."""
    command = [sys.executable, "-m", "client_reference", "--config", str(drill.device.config)]
    environment = {**os.environ, "FIRMROOT_LAB_NOW": drill.device.now}
    with subprocess.Popen([*command, "update"], env=environment) as device:
        try:
            wait_until(until, seconds=60)
        finally:
            device.kill()
    assert device.returncode == -signal.SIGKILL


# frozen-mirror


def test_frozen_mirror_that_stops(drill: Drill) -> None:
    """The first mirror is gone; the next one serves."""
    with Mirror(drill.honest) as second:
        drill.mirrors(drill.mirror.url, second.url)
        drill.run("check")
        assert not second.seen
        drill.mirror.trouble = Trouble(status=503)
        drill.unharmed("1.1")
        assert second.seen
        drill.mirror.trouble = Trouble(times=0)
        drill.unharmed("1.2")


def test_frozen_mirror_that_stands_still_beside_another(drill: Drill) -> None:
    """The first mirror serves an old state: believed until that expires, then left."""
    with Mirror(drill.honest) as second:
        drill.mirrors(drill.mirror.url, second.url)
        drill.mirror.files = dict(drill.honest)
        drill.later(days=3)
        drill.lab.ship("1.1")
        assert "no update: 1.0 is installed" in drill.run("update")
        drill.later(days=5)
        drill.firmroot("refresh")
        drill.install("1.1")
        assert second.seen
        drill.unharmed("1.2")


def test_frozen_mirror_that_is_the_only_one(drill: Drill) -> None:
    """Nothing can be noticed before the timestamp expires; then it is said, and never installed."""
    drill.mirror.files = dict(drill.honest)
    drill.later(days=3)
    drill.lab.ship("1.1")
    assert "no update: 1.0 is installed" in drill.run("update")
    drill.later(days=5)
    drill.firmroot("refresh")
    said = drill.run("update", code=6)
    assert "timestamp expired at 2026-03-09T06:00:00Z, it is 2026-03-10T06:00:00Z here" in said
    assert "your clock or a frozen mirror" in said
    drill.runs("1.0")
    drill.mirror.files = drill.honest
    drill.install("1.1")
    drill.unharmed("1.2")
