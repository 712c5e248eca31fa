from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.simulators.device import DeviceOnDisk, Publisher
from tests.simulators.mirror import Mirror

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def publisher() -> Publisher:
    """A repository without a release."""
    return Publisher()


@pytest.fixture
def mirror(publisher: Publisher) -> Iterator[Mirror]:
    """It is served."""
    with Mirror(publisher.repo.files) as served:
        yield served


@pytest.fixture
def device(
    publisher: Publisher, mirror: Mirror, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> DeviceOnDisk:
    """A device that follows it, not initialised yet."""
    made = DeviceOnDisk(tmp_path, capsys)
    made.make(publisher.repo.files["metadata/1.root.json"], [mirror.url])
    return made
