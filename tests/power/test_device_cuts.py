"""The whole device, cut at every system call of every command: it boots, stays, and converges."""

from __future__ import annotations

import io
import json
import random
import sys
from collections import ChainMap
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
from tests.simulators.anchor import AnchorSimulator
from tests.simulators.device import LAB_NOW, DeviceOnDisk, Publisher
from tests.simulators.mirror import Mirror
from tests.simulators.repository import RepositorySimulator

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from client_reference.trust.state import DeviceState
    from tests.power.replay import Cut

EPOCH = "epoch"
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
    served: ChainMap[str, bytes] = field(default_factory=ChainMap)

    def __post_init__(self) -> None:
        self.served.maps.insert(0, self.publisher.repo.files)
        self.anchor = AnchorSimulator(self.publisher.repo.files["metadata/1.root.json"])

    def furnish(self, url: str, *recovery: str, every: str = "24h") -> None:
        """A device as it leaves the factory; with recovery URLs, it asks them at every check."""
        (self.directory / "slots").mkdir()
        (self.directory / "slots" / "A.img").write_bytes(FACTORY)
        device = DeviceOnDisk(self.directory, capture=None)  # type: ignore[arg-type] # never runs
        device.make(
            self.publisher.repo.files["metadata/1.root.json"],
            [url],
            f'[check]\nevery = "{every}"\n' if recovery else "",
            recovery_root=self.anchor.newest() if recovery else None,
            repository=f"recovery = {json.dumps(recovery)}" if recovery else "",
        )
        self.publisher.release("1.0", 1, FIRST)

    def second_release(self) -> None:
        """Release 1.1, after a new root key and new timestamp and snapshot keys."""
        for role in ("root", "timestamp", "snapshot"):
            self.publisher.repo.rotate(role)
        self.publisher.repo.publish("root")
        self.publisher.release("1.1", 2, SECOND)

    def second_epoch(self) -> None:
        """The primary begins anew, with a release; the anchor says so, after a change of keys."""
        second = Publisher(RepositorySimulator(epoch=1))
        second.release("1.1", 2, SECOND)
        self.served.maps.append(second.repo.files)
        self.anchor.renew()
        self.anchor.re_root(second.repo)


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
    "check that re-roots": ("init", "update", "confirm", "second epoch"),
    "update that re-roots": ("init", "update", "confirm", "second epoch"),
    "first check after a loss, that re-roots": (
        "init",
        "update",
        "confirm",
        "second epoch",
        "lose",
    ),
    "reject": ("init", "update", "confirm", "second release", "update"),
}
VERBS = {
    "first update": "update",
    "check over new keys": "check",
    "second update over new keys": "update",
    "check that re-roots": "check",
    "update that re-roots": "update",
    "first check after a loss, that re-roots": "check",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_device_that_is_cut_anywhere_boots_keeps_its_trust_and_converges(name: str) -> None:
    with workspace() as directory:
        world = World(directory)
        with Mirror(world.served) as mirror, Mirror(world.anchor.files) as rescue:
            world.furnish(mirror.url, *[rescue.url] * ("re-roots" in name))
            for step in COMMANDS[name]:
                if step == "second release":
                    world.second_release()
                elif step == "second epoch":
                    world.second_epoch()
                elif step == "lose":
                    lose(directory)
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
            newest = SECOND if {"second release", "second epoch"} & {*COMMANDS[name]} else FIRST
            check = Check(before, newest, rejecting=verb == "reject")
            wrong = [text for cut in chosen for text in check.problems(cut)]
    assert not wrong, "\n".join(wrong[:20])
    assert len(states) > 50


def lose(directory: Path) -> None:
    """Both copies of the store."""
    for copy in ("a.db", "b.db"):
        (directory / "state" / copy).unlink()


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
    return versions | {
        "confirmed sequence": state.install.confirmed_sequence,
        "recovery root": trust.recovery_version,
        EPOCH: trust.epoch,
    }


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
        if now.get(EPOCH, 0) > self.before.get(EPOCH, 0):
            # Another epoch: its versions have nothing to do with those before.
            yield from self._mixed(root, when)
            return
        for name, number in self.before.items():
            # A rotation of the online keys forgets what they signed (TUF 5.3.11).
            forgotten = name in {"timestamp", "snapshot"} and name not in now
            if not forgotten and now.get(name, 0) < number:
                yield f"{name} went from {number} to {now.get(name)} {when}"

    @staticmethod
    def _mixed(root: Path, when: str) -> Iterator[str]:
        """A state of the new epoch has nothing of the old one."""
        state = SqliteStore(root / "state").peek()
        assert state is not None
        trust = state.trust
        with SqliteStore(root / "state") as store:
            chain = list(store.root_chain())
        if chain != [trust.root] or trust.recovery_version != 3:
            yield f"epoch {trust.epoch} with another chain, or another recovery root, {when}"
        root_signed = json.loads(trust.root)["signed"]
        for name, data in (("timestamp", trust.timestamp), ("snapshot", trust.snapshot)):
            signed = json.loads(data)["signatures"] if data else []
            if not {each["keyid"] for each in signed} <= {*root_signed["roles"][name]["keyids"]}:
                yield f"{name} of another epoch {when}"


@pytest.mark.parametrize("anchored", ["no anchor", "not its turn", "its turn"])
def test_a_check_that_finds_nothing_new_writes_nothing(anchored: str) -> None:
    with workspace() as directory:
        world = World(directory)
        with Mirror(world.served) as mirror, Mirror(world.anchor.files) as rescue:
            every = "24h" if anchored == "its turn" else "0s"
            world.furnish(mirror.url, *[rescue.url] * (anchored != "no anchor"), every=every)
            for step in ("init", "update", "confirm", "check"):
                assert device(directory, step) == 0
            command = [sys.executable, "-B", "-m", "client_reference"]
            command += ["--config", str(directory / "device.toml"), "check"]
            rescue.seen.clear()
            recording = record(command, directory, env=drivers.environment() | LAB)
            assert bool(rescue.seen) == (anchored == "its turn")
    assert recording.exit_code == 0, recording.output
    assert not [call for call in recording.calls if not isinstance(call, Open)]
