from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.simulators.device import DeviceOnDisk
from tests.simulators.mirror import Mirror
from tests.workflows.drill import Drill, Published, live_lab
from tests.workflows.identities import Company, found

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.publishing.lab import Lab


@pytest.fixture(scope="session")
def _live(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return live_lab(tmp_path_factory.mktemp("drills"))


@pytest.fixture(scope="session")
def _anchored(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return live_lab(tmp_path_factory.mktemp("anchored"), anchored=True)


@pytest.fixture(scope="session")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Company:
    """Machines with one key each; root and targets are live. To be copied."""
    return found(tmp_path_factory.mktemp("founded") / "acme")


@pytest.fixture(scope="session")
def shipped(founded: Company, tmp_path_factory: pytest.TempPathFactory) -> Company:
    """The same, with 1.0 live, brought there by three identities. To be copied."""
    company = founded.copy(tmp_path_factory.mktemp("shipped") / "acme")
    company.ship("1.0")
    return company


def stage(live: Lab, directory: Path, capture: pytest.CaptureFixture[str], mirror: Mirror) -> Drill:
    """Copies of a lab and of its device; that is new from the factory."""
    lab = live.copy(directory / "acme")
    shutil.copytree(live.directory.parent / "device", directory / "device")
    drill = Drill(lab, DeviceOnDisk(directory / "device", capture), mirror)
    mirror.files = drill.honest
    drill.at(lab.now)
    drill.mirrors(mirror.url)
    return drill


@pytest.fixture
def drill(_live: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Drill]:
    """A lab with 1.0 live, and a device that has installed and confirmed it."""
    with Mirror({}) as mirror:
        staged = stage(_live, tmp_path, capsys, mirror)
        staged.run("init")
        staged.install("1.0")
        yield staged


@pytest.fixture
def rescue(_anchored: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Drill]:
    """The same with a recovery anchor, on a server of its own; the device is still in its box."""
    with Mirror({}) as mirror, Mirror(Published(tmp_path / "acme/recovery")) as recovery:
        staged = stage(_anchored, tmp_path, capsys, mirror)
        staged.mirrors(recovery.url, key="recovery")
        yield staged
