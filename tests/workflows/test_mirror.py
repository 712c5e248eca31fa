"""A second place for devices: copied, verified, never back, and devices update from it alone."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from client_reference.errors import RetryLaterError
from client_reference.selection import DevicePosition
from client_reference.transport.fetcher import DirectoryFetcher
from client_reference.trust.updater import Floors
from repo_tools.publishing.rehearse import Device, Outcome, meet
from repo_tools.storage.local import LocalStorage
from tests.publishing.kills import count_operations, run_killed
from tests.publishing.lab import Lab
from tests.workflows.drill import Drill, Published

if TYPE_CHECKING:
    from pathlib import Path

    from repo_tools.storage.protocol import Created


FULL = os.environ.get("FIRMROOT_KILLS") == "full"


def _tree(top: Path) -> dict[str, bytes]:
    return {path: data for path, data in Published(top).items() if "/." not in f"/{path}"}


def _served(drill: Drill, place: Path) -> None:
    """From now on the device has no other mirror than this."""
    drill.mirror.files = Published(place)


@pytest.fixture
def place(drill: Drill) -> Path:
    return drill.lab.directory.parent / "elsewhere"


def test_a_device_that_has_only_the_mirror_updates(drill: Drill, place: Path) -> None:
    said = drill.firmroot("mirror", place)
    assert "shows timestamp" in said
    assert _tree(place) == _tree(drill.lab.repository)
    _served(drill, place)
    drill.run("check")
    drill.lab.ship("1.1")
    assert "1.0 is installed and is the newest release" in drill.run("check")
    drill.firmroot("mirror", place)
    drill.install("1.1")


def test_a_second_run_copies_what_is_new_and_a_third_nothing(drill: Drill, place: Path) -> None:
    drill.firmroot("mirror", place)
    drill.lab.ship("1.1")
    done = drill.lab.ok("--json", "-v", "mirror", f"file://{place}").json
    assert done["before"] == done["version"] - 1
    # The image and its segments, the manifest; builds, channel, snapshot.
    assert done["objects"] == 6
    assert _tree(place) == _tree(drill.lab.repository)
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()}
    done = drill.lab.ok("--json", "mirror", place).json
    assert (done["objects"], done["length"], done["before"]) == (0, 0, done["version"])
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()} == before


def test_roots_and_their_bundle_come_along(drill: Drill, place: Path) -> None:
    drill.firmroot("mirror", place)
    for _ in range(2):
        drill.firmroot("ceremony", "start", "root")
        drill.firmroot("sign")
        drill.firmroot("publish")
    drill.firmroot("mirror", place)
    names = set(_tree(place))
    assert {"metadata/3.root.json", "metadata/root-chain/3"} <= names
    _served(drill, place)
    drill.run("check")
    assert drill.version("root") == 3


def test_what_is_damaged_at_the_source_is_not_copied(drill: Drill, place: Path) -> None:
    stored = next(path for path in drill.lab.repository.glob("targets/builds/*/*/*.img"))
    whole = stored.read_bytes()
    stored.write_bytes(whole[:-1] + b"!")
    said = drill.firmroot("mirror", place, code=6)
    assert "is not the file that was signed for" in said
    assert "metadata/timestamp.json" not in _tree(place)
    stored.unlink()
    assert "is not in the storage" in drill.firmroot("mirror", place, code=6)
    stored.write_bytes(whole)
    drill.firmroot("mirror", place)
    _served(drill, place)
    drill.run("check")


def test_the_destination_never_goes_back(drill: Drill, place: Path) -> None:
    shutil.copytree(drill.lab.directory, drill.lab.directory.parent / "before")
    drill.lab.ship("1.1")
    drill.firmroot("mirror", place)
    before = _tree(place)
    old = Lab(drill.lab.directory.parent / "before", drill.lab.now)
    done = old.run("mirror", place)
    assert done.code == 5, done
    assert "which is older" in done.err
    assert _tree(place) == before
    # Nor if only its root is ahead.
    (place / "metadata/timestamp.json").unlink()
    shutil.copy(place / "metadata/1.root.json", place / "metadata/2.root.json")
    done = old.run("mirror", place)
    assert done.code == 5
    assert "has metadata/2.root.json" in done.err
    (place / "metadata/2.root.json").unlink()
    drill.firmroot("mirror", place)
    assert _tree(place) == before


def test_nor_does_what_lies_below_the_timestamp(drill: Drill, place: Path) -> None:
    fork = drill.lab.copy(drill.lab.directory.parent / "fork")
    fork.ship("1.1")
    fork.ok("mirror", place)
    for _ in range(3):
        drill.later(hours=1)
        drill.firmroot("refresh")
    said = drill.firmroot("mirror", place, code=5)
    assert "shows timestamp 2 and snapshot 2; live here are 4 and 1, which is older" in said


def test_a_fork_of_the_same_version_is_an_alarm(drill: Drill, place: Path) -> None:
    fork = drill.lab.copy(drill.lab.directory.parent / "fork")
    fork.later(hours=1).ok("refresh")
    fork.ok("mirror", place)
    drill.later(hours=2)
    drill.firmroot("refresh")
    said = drill.firmroot("mirror", place, code=6)
    assert "shows another timestamp" in said


def test_the_mirror_of_another_repository_is_left_alone(
    drill: Drill, place: Path, tmp_path: Path
) -> None:
    other = Lab(tmp_path / "other", drill.lab.now)
    other.init()
    other.ok("product", "add", "gateway", "--hardware", "acme,gw-2")
    other.add("1.0")
    other.promote("1.0")
    other.ok("publish")
    other.ok("mirror", place)
    before = _tree(place)
    said = drill.firmroot("mirror", place, code=6)
    assert "no root of this repository vouches for" in said
    assert _tree(place) == before


def test_another_object_in_the_place_of_one_is_an_alarm(drill: Drill, place: Path) -> None:
    drill.firmroot("mirror", place)
    damages = [
        ("metadata/1.targets.json", b"short", ()),
        ("metadata/1.targets.json", None, ()),
        ("targets", b"short", ()),
        ("targets", None, ("--check",)),
    ]
    for name, data, words in damages:
        file = place / name if name != "targets" else next(place.glob("targets/builds/*/*/*.img"))
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] + b"!" if data is None else data)
        said = drill.firmroot("mirror", *words, place, code=6)
        assert f"has another {file.relative_to(place)}" in said
        file.unlink()
        drill.firmroot("mirror", *words, place)
        assert file.read_bytes() == whole


def test_a_rival_that_writes_meanwhile_is_an_alarm(drill: Drill, place: Path) -> None:
    real = LocalStorage.create

    def rival(self: LocalStorage, path: str, source: bytes | Path, sha256: str) -> Created:
        if path == "metadata/1.targets.json":
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_bytes(b"fork")
        return real(self, path, source, sha256)

    with patch.object(LocalStorage, "create", rival):
        assert "somebody else writes to the mirror" in drill.firmroot("mirror", place, code=6)
    assert "metadata/timestamp.json" not in _tree(place)


def test_interrupted_it_goes_on_without_copying_twice(drill: Drill, place: Path) -> None:
    def gone(*_: object) -> None:
        raise RetryLaterError("the network is gone")

    with patch.object(LocalStorage, "replace", gone):
        drill.firmroot("mirror", place, code=4)
    done = drill.lab.ok("--json", "mirror", place).json
    assert (done["objects"], done["before"]) == (0, None)


def test_killed_anywhere_devices_see_the_old_state_or_the_new_one(
    drill: Drill, place: Path, tmp_path: Path
) -> None:
    drill.firmroot("mirror", place)
    old = tmp_path / "old"
    shutil.copytree(place, old)
    drill.lab.ship("1.1")
    (tmp_path / "factory-root.json").write_bytes((place / "metadata/1.root.json").read_bytes())
    lab = drill.lab
    shutil.copytree(old, tmp_path / "counted")
    count = count_operations(lab, "mirror", str(tmp_path / "counted"))
    seen: set[str] = set()
    for kill_at in range(1, count + 1, 1 if FULL else max(1, count // 5)):
        shutil.rmtree(place)
        shutil.copytree(old, place)
        run_killed(lab, kill_at, "mirror", str(place))
        seen.add(_offered(lab, place, tmp_path))
        lab.ok("mirror", place)
        assert _offered(lab, place, tmp_path) == "installs 1.1"
    assert seen <= {"installs 1.0", "installs 1.1"}
    assert "installs 1.0" in seen


def _offered(lab: Lab, place: Path, tmp_path: Path) -> str:

    position = DevicePosition("gateway", "stable", ("acme,gw-2",), "slot", "test")
    root = (tmp_path / "factory-root.json").read_bytes()
    device = Device("test", position, root, Floors(time=0, minimum_sequence=0, epoch=0))
    outcome, detail = meet(device, DirectoryFetcher(place), lab.now)
    assert outcome is Outcome.UPDATES, detail
    return detail


def test_what_no_destination_can_be(drill: Drill) -> None:
    for text, says in (
        ("ftp://x", "expected a folder"),
        ("file://x", "expected a folder"),
        (str(drill.lab.repository), "the storage of this workspace itself"),
        (f"file://{drill.lab.repository}", "the storage of this workspace itself"),
    ):
        assert says in drill.firmroot("mirror", text, code=2)


def test_a_mirror_is_audited_under_each_name_of_it(drill: Drill, place: Path) -> None:
    drill.firmroot("mirror", place)
    assert "trusted: everything" in drill.firmroot("verify", place)
    assert "trusted: everything" in drill.firmroot("verify", f"file://{place}")
    assert "nothing is published there" in drill.firmroot("verify", f"file://{place}/x", code=6)
    assert "PATH is 'gs://x'; expected" in drill.firmroot("verify", "gs://x", code=2)


def test_before_anything_is_published_there_is_nothing_to_copy(tmp_path: Path) -> None:

    lab = Lab(tmp_path / "acme")
    lab.init()
    done = lab.run("mirror", tmp_path / "place")
    assert done.code == 3
    assert not (tmp_path / "place").exists()
