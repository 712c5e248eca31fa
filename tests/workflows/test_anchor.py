"""The recovery anchor from its first root to a fleet that was re-rooted.

Everything goes through the command lines of both sides, as a team and its devices would do it; what
is published is also read with the checks of the device's own code.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from client_reference.trust import verified
from repo_tools.demo.network import Network
from repo_tools.metadata.anchor import walk
from repo_tools.metadata.repository import sha256
from tests.publishing.lab import HARDWARE, NOW, PRODUCT, Lab, image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NEW_KEYS = ("ada", "ben", "cleo")
LOST = ("alice", "bob", "carol")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lab, str, bytes]:
    """1.0 is live, one export has the anchor, root is lost and the fleet was re-rooted."""
    lab = Lab(tmp_path_factory.mktemp("anchor") / "acme")
    lab.init()
    lab.ok("product", "add", PRODUCT, "--hardware", HARDWARE)
    lab.ok("anchor", "init")
    lab.add("1.0")
    lab.promote("1.0")
    lab.ok("publish")
    lab.ok("anchor", "publish")
    device = lab.directory.parent / "device"
    lab.ok("factory", "export", PRODUCT, "--to", device)
    lab.ship("1.1")
    old = lab.tree()
    for name in NEW_KEYS:
        lab.ok("key", "new", name, "--role", "root", "--role", "targets")
    lost = [word for name in LOST for word in ("--without", name)]
    first = lab.ok("anchor", "re-root", *lost)
    lab.ok("sign")
    lab.ok("anchor", "re-root")
    lab.ok("sign")
    lab.ok("publish")
    lab.ok("anchor", "publish")
    kept = {path: data for path, data in old.items() if path.startswith(("metadata/", "history/"))}
    assert {path: lab.tree()[path] for path in kept} == kept
    return lab, first.out, (device / "factory/recovery-root.json").read_bytes()


def test_the_published_anchor_leads_from_the_factory_to_the_new_root(
    told: tuple[Lab, str, bytes],
) -> None:
    lab, _, factory = told
    recovery = lab.directory / "recovery"
    chain = [factory]
    while (file := recovery / f"{len(chain) + 1}.root.json").exists():
        chain.append(file.read_bytes())
    links = walk(chain)
    assert [link.version for link in links] == [1, 2]
    statement = links[-1].statement
    assert statement.epoch == 1
    assert statement.minimum_sequence == {PRODUCT: 2}
    beside = (recovery / "e1/1.root.json").read_bytes()
    primary = (lab.repository / "metadata/e1/1.root.json").read_bytes()
    assert beside == primary
    assert (statement.sha256, statement.length) == (sha256(primary), len(primary))
    assert verified.first_root(primary).version == 1


def test_the_new_epoch_starts_every_version_again_and_says_so(
    told: tuple[Lab, str, bytes],
) -> None:
    lab, _, _ = told
    place = lab.repository / "metadata/e1"
    timestamp = json.loads((place / "timestamp.json").read_bytes())["signed"]
    assert (timestamp["version"], timestamp["x-firmroot-epoch"]) == (1, 1)
    assert sorted(path.name for path in place.iterdir()) == sorted(
        ["root-chain", "timestamp.json", "1.root.json", "1.snapshot.json", "1.targets.json"]
        + [f"1.{PRODUCT}-{role}.json" for role in ("stable", "builds")]
    )


def test_the_release_goes_on_in_the_new_epoch(told: tuple[Lab, str, bytes], tmp_path: Path) -> None:
    lab = told[0].copy(tmp_path / "acme")
    added = lab.add("1.2")
    assert "sequence 3" in added.out
    lab.promote("1.2")
    done = lab.ok("publish")
    assert f"{PRODUCT}-stable" in done.out
    assert "installs 1.2" in done.out
    assert "0 devices stranded" in done.out
    lab.ok("refresh")
    lab.ok("verify")


# Both command lines.


@dataclass(frozen=True)
class FieldDevice:
    """A device made by `factory export`, at its command line in a process of its own."""

    directory: Path

    def run(self, *arguments: str) -> tuple[int, str]:
        """One command: its exit code, and all that it said."""
        done = subprocess.run(
            [
                *(sys.executable, "-m", "client_reference"),
                *("--config", str(self.directory / "device.toml"), *arguments),
            ],
            env={**os.environ, "FIRMROOT_LAB_NOW": f"{NOW:%Y-%m-%dT%H:%M:%SZ}"},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def ok(self, *arguments: str) -> str:
        """One command that must succeed."""
        code, said = self.run(*arguments)
        assert code == 0, said
        return said

    @property
    def facts(self) -> tuple[str | None, int]:
        """Which release is confirmed, and in which epoch it trusts."""
        status = json.loads(self.ok("--json", "status"))
        installed = status["installed"]
        return (installed and installed["version"]), status["epoch"]

    def holds(self, data: bytes) -> bool:
        """Whether any of it is in a slot."""
        return any(data[:512] in slot.read_bytes() for slot in (self.directory / "slots").iterdir())


@dataclass(frozen=True)
class Fleet:
    """A publisher, a server and two devices that run 1.0 of epoch 0; 1.1 is live."""

    lab: Lab
    network: Network
    device: FieldDevice
    forgetful: FieldDevice

    def re_root(self) -> None:
        """What people do when a threshold of root is lost or stolen."""
        for name in NEW_KEYS:
            self.lab.ok("key", "new", name, "--role", "root", "--role", "targets")
        self.lab.ok("anchor", "re-root", *(word for name in LOST for word in ("--without", name)))
        self.lab.ok("sign")
        self.lab.ok("anchor", "re-root")
        self.lab.ok("sign")
        self.lab.ok("publish")
        self.lab.ok("anchor", "publish")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    lab = Lab(tmp_path / "acme")
    lab.init()
    lab.ok("product", "add", PRODUCT, "--hardware", HARDWARE)
    lab.ok("anchor", "init")
    lab.add("1.0")
    lab.promote("1.0")
    lab.ok("publish")
    lab.ok("anchor", "publish")
    with Network(lab.repository, lab.directory / "recovery") as network:
        first = FieldDevice(tmp_path / "first")
        lab.ok("factory", "export", PRODUCT, "--to", first.directory, "--server", network.url)
        second = FieldDevice(tmp_path / "second")
        shutil.copytree(first.directory, second.directory)
        for device in (first, second):
            for command in ("init", "update", "confirm"):
                device.ok(command)
            assert device.facts == ("1.0", 0)
        lab.ship("1.1")
        yield Fleet(lab, network, first, second)


def steal(fleet: Fleet, top: Path) -> tuple[Lab, bytes]:
    """A thief with every key of the old epoch: root 2 and a release of their own, on a mirror."""
    thief = fleet.lab.copy(top / "thief" / "acme")
    evil = image("evil")
    thief.ok("rotate", "alice")
    thief.ok("sign")
    thief.add("6.6", data=evil)
    thief.promote("6.6")
    thief.ok("publish")
    assert (thief.repository / "metadata/2.root.json").exists()
    return thief, evil


def test_the_fleet_follows_the_anchor_and_no_thief(fleet: Fleet, tmp_path: Path) -> None:
    thief, evil = steal(fleet, tmp_path)
    fleet.re_root()
    # The thief goes on at the old place of the very mirror that has the new epoch as well.
    shutil.copytree(fleet.lab.repository / "metadata/e1", thief.repository / "metadata/e1")
    fleet.network.swap(thief.repository)

    said = fleet.device.ok("update")
    assert "the recovery anchor re-rooted this device: epoch 0 has ended, epoch 1 begins" in said
    fleet.device.ok("confirm")
    assert fleet.device.facts == ("1.1", 1)

    shutil.rmtree(fleet.forgetful.directory / "state")
    said = fleet.forgetful.ok("update")
    assert "epoch 0 has ended, epoch 1 begins" in said
    fleet.forgetful.ok("confirm")
    assert fleet.forgetful.facts == ("1.1", 1)

    # Without the new epoch on it, the mirror has nothing for them.
    shutil.rmtree(thief.repository / "metadata/e1")
    for device in (fleet.device, fleet.forgetful):
        code, said = device.run("update")
        assert (code, "6.6" in said) == (4, False), said
        shutil.rmtree(device.directory / "state")
        assert device.run("update")[0] == 4
        assert device.facts == (None, 1), "followed again; the store was lost, the anchor was not"
        assert not device.holds(evil)

    fleet.network.swap(fleet.lab.repository)
    fleet.lab.ship("1.2")
    for device in (fleet.device, fleet.forgetful):
        device.ok("update")
        device.ok("confirm")
        assert device.facts == ("1.2", 1)
        assert not device.holds(evil)


def test_before_the_anchor_has_spoken_nobody_leaves(fleet: Fleet) -> None:
    before = (fleet.lab.directory / "recovery").iterdir()
    assert [path.name for path in before] == ["1.root.json"]
    assert "re-rooted" not in fleet.device.ok("update")
    fleet.device.ok("confirm")
    assert fleet.device.facts == ("1.1", 0)
    fleet.re_root()
    fleet.lab.ship("1.2")
    assert "epoch 1 begins" in fleet.forgetful.ok("update")
    fleet.forgetful.ok("confirm")
    assert fleet.forgetful.facts == ("1.2", 1)
