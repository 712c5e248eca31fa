from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.simulators.device import DeviceOnDisk
from tests.simulators.mirror import Mirror
from tests.workflows.drill import Drill, Published, live_lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.publishing.lab import Lab


@pytest.fixture(scope="session")
def _live(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return live_lab(tmp_path_factory.mktemp("drills"))


@pytest.fixture
def drill(_live: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Drill]:
    """A lab with 1.0 live, and a device that has installed and confirmed it."""
    lab = _live.copy(tmp_path / "acme")
    shutil.copytree(_live.directory.parent / "device", tmp_path / "device")
    with Mirror(Published(lab.repository)) as mirror:
        staged = Drill(lab, DeviceOnDisk(tmp_path / "device", capsys), mirror)
        staged.at(lab.now)
        staged.mirrors(mirror.url)
        staged.run("init")
        staged.install("1.0")
        yield staged
