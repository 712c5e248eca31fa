"""A second place for devices, step by step: in which order, what is read again, what stops it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from client_reference.errors import (
    ActionRequiredError,
    NotTrustedError,
    RefusedError,
    RetryLaterError,
)
from repo_tools.publishing.mirror import Mirrored, mirror
from repo_tools.storage.local import LocalStorage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.publishing.lab import Lab

large = pytest.mark.services  # whole lives of a repository, beside the large matrices


@pytest.fixture
def place(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "elsewhere")


def _names(storage: LocalStorage) -> set[str]:
    return set(storage.paths(""))


def test_what_names_a_file_comes_after_it_and_the_timestamp_last(
    live: Lab, place: LocalStorage
) -> None:
    said: list[str] = []
    mirror(live.workspace, place, progress=said.append)
    metadata = [line.rpartition("/")[2] for line in said if not line.startswith("copy targets/")]
    assert said[-len(metadata) :] == [line for line in said if "metadata/" in line]
    assert set(metadata[:2]) == {"1.gateway-builds.json", "1.gateway-stable.json"}
    assert metadata[2:] == [
        "1.targets.json",
        "1.snapshot.json",
        "1.root.json",
        "1",
        "timestamp.json",
    ]
    assert _names(place) == _names(LocalStorage(live.repository))


def test_a_target_of_full_length_is_read_again_only_if_somebody_asks(
    live: Lab, place: LocalStorage
) -> None:
    mirror(live.workspace, place)
    [image] = place.root.glob("targets/builds/*/*/*.img")
    whole = image.read_bytes()
    image.write_bytes(whole[:-1] + b"!")
    assert mirror(live.workspace, place) == Mirrored(1, 1, 0, 0, 9)
    with pytest.raises(NotTrustedError, match="has another targets/builds"):
        mirror(live.workspace, place, check=True)
    image.write_bytes(whole)
    assert mirror(live.workspace, place, check=True) == Mirrored(1, 1, 0, 0, 9)


def test_before_anything_is_live_there_is_nothing_to_copy(ready: Lab, place: LocalStorage) -> None:
    with pytest.raises(ActionRequiredError, match="nothing is published yet"):
        mirror(ready.workspace, place)
    assert not place.root.exists()


@large
def test_a_root_that_is_ahead_of_its_timestamp_is_not_copied(
    live: Lab, place: LocalStorage
) -> None:
    """Devices of the mirror would get a root, and nothing that it vouches for."""
    live.ok("ceremony", "start", "root")
    live.ok("sign")
    with patch.object(LocalStorage, "replace", side_effect=RetryLaterError("the network is gone")):
        assert live.run("publish").code == 4
    assert (live.repository / "metadata/2.root.json").exists()
    with pytest.raises(ActionRequiredError, match="or a publish was interrupted"):
        mirror(live.workspace, place)
    assert not place.root.exists()
    live.ok("publish")
    mirror(live.workspace, place)
    assert "metadata/2.root.json" in _names(place)


def test_a_timestamp_alone_does_not_go_back_either(
    live: Lab, place: LocalStorage, tmp_path: Path
) -> None:
    """Nothing but the time is newer there: devices would refuse the mirror from then on."""
    old = live.copy(tmp_path / "old")
    mirror(live.workspace, place)
    live.later(hours=1).ok("refresh")
    assert mirror(live.workspace, place) == Mirrored(2, 1, 0, 0, 9), "but for the timestamp"
    newest = (live.repository / "metadata/timestamp.json").read_bytes()
    assert (place.root / "metadata/timestamp.json").read_bytes() == newest
    with pytest.raises(RefusedError, match="shows timestamp 2 and snapshot 1; live here are 1 and"):
        mirror(old.workspace, place)
    assert mirror(live.workspace, place).before == 2


def test_every_bin_comes_along_with_what_it_names(binned: Lab, place: LocalStorage) -> None:
    mirror(binned.workspace, place)
    assert _names(place) == _names(LocalStorage(binned.repository))
    [image] = place.root.glob("targets/builds/*/*/*.img")
    [home] = place.root.glob("metadata/*_-*.json")
    shutil.rmtree(place.root / "targets/builds")
    home.unlink()
    said: list[str] = []
    mirror(binned.workspace, place, progress=said.append)
    assert said[-1] == f"copy metadata/{home.name}", "a bin after its artifacts"
    assert image.exists()
    assert mirror(binned.workspace, place).objects == 0


@large
def test_an_epoch_has_its_place_in_the_mirror_too(
    at: Callable[[str], Lab], place: LocalStorage
) -> None:
    lab = at("there")
    mirror(lab.workspace, place)
    here = _names(LocalStorage(lab.repository))
    assert "metadata/e1/timestamp.json" in _names(place)
    assert _names(place) == {path for path in here if path.startswith(("metadata/e1/", "targets/"))}
