"""The whole device, cut at every system call of every command: it boots, stays, and converges."""

from __future__ import annotations

import io
import json
import random
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from client_reference import cli
from client_reference.install.bootloader import FileBootloader
from client_reference.trust.store import SqliteStore
from tests.power import drivers
from tests.power.checks import FULL, placed, workspace
from tests.power.recorder import Open, read_tree, record
from tests.power.replay import Model, cuts
from tests.simulators.device import LAB_NOW, DeviceOnDisk, Publisher
from tests.simulators.mirror import Mirror

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from client_reference.trust.state import DeviceState
    from tests.power.replay import Cut

FACTORY = b"the image that the factory wrote"
FIRST = random.Random(1).randbytes((1 << 20) + 1000)
SECOND = random.Random(2).randbytes((1 << 20) + 3000)
WHOLE = {FACTORY, FIRST, SECOND}
LAB = {"FIRMROOT_LAB_NOW": LAB_NOW}
# So many cuts of each command in `make test`, evenly spread; all of them in the full matrix.
SAMPLE = 8


@dataclass
class World:
    """A repository, its mirror and the directory of one device."""

    directory: Path
    publisher: Publisher = field(default_factory=Publisher)

    def furnish(self, url: str) -> None:
        """A device as it leaves the factory."""
        (self.directory / "slots").mkdir()
        (self.directory / "slots" / "A.img").write_bytes(FACTORY)
        device = DeviceOnDisk(self.directory, capture=None)  # type: ignore[arg-type] # never runs
        device.make(self.publisher.repo.files["metadata/1.root.json"], [url])
        self.publisher.release("1.0", 1, FIRST)

    def second_release(self) -> None:
        """Release 1.1, after a new root key and new timestamp and snapshot keys."""
        for role in ("root", "timestamp", "snapshot"):
            self.publisher.repo.rotate(role)
        self.publisher.repo.publish("root")
        self.publisher.release("1.1", 2, SECOND)


def device(directory: Path, *words: str) -> int:
    """Run a command in this process."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return cli.main(["--config", str(directory / "device.toml"), *words], LAB)


COMMANDS: Mapping[str, tuple[str, ...]] = {
    "init": (),
    "first update": ("init",),
    "confirm": ("init", "update"),
    "check over new keys": ("init", "update", "confirm", "second release"),
    "second update over new keys": ("init", "update", "confirm", "second release"),
    "reject": ("init", "update", "confirm", "second release", "update"),
}
VERBS = {
    "first update": "update",
    "check over new keys": "check",
    "second update over new keys": "update",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_device_that_is_cut_anywhere_boots_keeps_its_trust_and_converges(name: str) -> None:
    with workspace() as directory:
        world = World(directory)
        with Mirror(world.publisher.repo.files) as mirror:
            world.furnish(mirror.url)
            for step in COMMANDS[name]:
                if step == "second release":
                    world.second_release()
                else:
                    assert device(directory, step) == 0
            before = accepted(SqliteStore(directory / "state").peek())
            verb = VERBS.get(name, name)
            command = [sys.executable, "-B", "-m", "client_reference"]
            command += ["--config", str(directory / "device.toml"), verb]
            recording = record(command, directory, env=drivers.environment() | LAB)
            assert recording.exit_code == 0, recording.output
            states = list(cuts(recording))
            assert read_tree(directory) in [cut.tree for cut in states[-20:]], "badly recorded"
            print(f"{len(states)} cuts: {name}")
            chosen = states if FULL else states[:: -(-len(states) // SAMPLE)]
            newest = SECOND if "second release" in COMMANDS[name] else FIRST
            check = Check(before, newest, rejecting=verb == "reject")
            wrong = [text for cut in chosen for text in check.problems(cut)]
    assert not wrong, "\n".join(wrong[:20])
    assert len(states) > 50


def accepted(state: DeviceState | None) -> dict[str, int]:
    """Everything that must never go down."""
    if state is None:
        return {}
    trust = state.trust
    files = {"root": trust.root, "timestamp": trust.timestamp, "snapshot": trust.snapshot}
    versions = {
        name: int(json.loads(data)["signed"]["version"])
        for name, data in {**files, **trust.roles}.items()
        if data is not None
    }
    return versions | {"confirmed sequence": state.install.confirmed_sequence}


@dataclass(frozen=True)
class Check:
    """What must hold after a cut.

    Attributes:
        before: accepted before the command began.
        newest: the image that the device must come to run.
        rejecting: the command gives up the newest image.
    """

    before: Mapping[str, int]
    newest: bytes
    rejecting: bool

    def problems(self, cut: Cut) -> Iterator[str]:
        """Each with the place of the cut."""
        with placed(cut.tree) as root:
            for text in self._problems(cut, root):
                yield f"call {cut.index}, {cut.model.value}: {text}"

    def _problems(self, cut: Cut, root: Path) -> Iterator[str]:
        slots = {name: root / "slots" / f"{name}.img" for name in ("A", "B")}
        loader = FileBootloader(root / "slots" / "boot.json", tuple(slots))
        on_trial = loader.running() != loader.primary()
        if cut.model is not Model.KILL:
            loader.reboot()
        for slot in loader.record().bootable:
            if slots[slot].read_bytes() not in WHOLE:
                yield f"slot {slot} is bootable and holds no whole image"
        if self.before:
            yield from self._lowered(root, "after the cut")
            if device(root, "status"):
                yield "status fails"
        elif device(root, "init"):
            yield "init fails"
        for _ in range(2):
            codes = [device(root, "update"), device(root, "confirm")]
            if not set(codes) <= {0, 3, 5}:
                yield f"update and confirm exit with {codes}"
        yield from self._lowered(root, "at the end")
        state = SqliteStore(root / "state").peek()
        assert state is not None
        install = state.install
        runs = slots[loader.running()].read_bytes()
        may_reject = self.rejecting or on_trial
        if runs != self.newest and not (install.rejected and may_reject):
            yield f"it does not converge: {install.phase.value}, rejected {install.rejected}"

    def _lowered(self, root: Path, when: str) -> Iterator[str]:
        now = accepted(SqliteStore(root / "state").peek())
        for name, number in self.before.items():
            # A rotation of the online keys forgets what they signed (TUF 5.3.11).
            forgotten = name in {"timestamp", "snapshot"} and name not in now
            if not forgotten and now.get(name, 0) < number:
                yield f"{name} went from {number} to {now.get(name)} {when}"


def test_a_check_that_finds_nothing_new_writes_nothing() -> None:
    with workspace() as directory:
        world = World(directory)
        with Mirror(world.publisher.repo.files) as mirror:
            world.furnish(mirror.url)
            for step in ("init", "update", "confirm", "check"):
                assert device(directory, step) == 0
            command = [sys.executable, "-B", "-m", "client_reference"]
            command += ["--config", str(directory / "device.toml"), "check"]
            recording = record(command, directory, env=drivers.environment() | LAB)
    assert recording.exit_code == 0, recording.output
    assert not [call for call in recording.calls if not isinstance(call, Open)]
