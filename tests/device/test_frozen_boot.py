"""A device whose clock says 1970 sees a frozen mirror within one boot, at its command line."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from client_reference.trust.clock import ISSUED
from tests.simulators.repository import SECONDS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.simulators.device import DeviceOnDisk, Publisher

MADE = datetime(2031, 1, 1, tzinfo=UTC)  # the floor of the device's image
DAY = 86_400


class Kernel:
    """CLOCK_BOOTTIME, which only the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.up = 1000.0
        monkeypatch.setattr(time, "clock_gettime", lambda _: self.up)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


@pytest.fixture
def frozen(publisher: Publisher, device: DeviceOnDisk) -> DeviceOnDisk:
    """It was made from the very timestamp that its mirror shows from then on."""
    publisher.repo.now = MADE
    publish(publisher)
    device.now = "1970-01-01T00:00:00Z"
    assert device.run("init").code == 0
    return device


def publish(publisher: Publisher) -> None:
    """A timestamp of now, good for a week."""
    repo = publisher.repo
    repo.timestamp.expires = repo.later(days=7)
    repo.timestamp.unrecognized_fields[ISSUED] = repo.now.strftime(SECONDS)
    repo.publish("timestamp")


def sees_it(device: DeviceOnDisk, publisher: Publisher) -> None:
    """It is refused, and an honest timestamp is not."""
    said = device.run("check")
    assert said.code == 6
    assert "timestamp expired at 2031-01-08T00:00:00Z, it is 2031-01-09T00:00:00Z here" in said.err
    publisher.repo.now = publisher.repo.later(days=8)
    publish(publisher)
    assert device.run("check").code == 0


def test_a_mirror_that_never_showed_anything_newer_than_the_image(
    frozen: DeviceOnDisk, publisher: Publisher, kernel: Kernel
) -> None:
    assert frozen.run("check").code == 0
    kernel.up += 6 * DAY
    assert frozen.run("check").code == 0
    kernel.up += 2 * DAY
    sees_it(frozen, publisher)


@pytest.mark.parametrize("torn", [None, b'{"boot": "x", "flo'])
def test_a_note_that_a_cut_took_is_written_anew(
    frozen: DeviceOnDisk, publisher: Publisher, kernel: Kernel, torn: bytes | None
) -> None:
    note = place(frozen)
    assert frozen.run("check").code == 0
    if torn is None:
        note.unlink()
    else:
        note.write_bytes(torn)
    assert frozen.run("check").code == 0
    kernel.up += 8 * DAY
    sees_it(frozen, publisher)


def test_a_floor_that_rose_has_a_note_of_its_own(
    frozen: DeviceOnDisk, publisher: Publisher, kernel: Kernel
) -> None:
    assert frozen.run("check").code == 0
    kernel.up += 30 * DAY
    publisher.repo.now = publisher.repo.later(days=1)
    publish(publisher)
    assert frozen.run("check").code == 6, "by the image's floor and 30 days it is over"
    publisher.repo.now = publisher.repo.later(days=30)
    publish(publisher)
    assert frozen.run("check").code == 0
    kernel.up += 6 * DAY
    assert frozen.run("check").code == 0
    kernel.up += 2 * DAY
    assert frozen.run("check").code == 6


def test_a_check_without_news_leaves_the_note_alone(frozen: DeviceOnDisk, kernel: Kernel) -> None:
    assert frozen.run("check").code == 0
    before = place(frozen).read_bytes()
    kernel.up += DAY
    assert frozen.run("check").code == 0
    assert place(frozen).read_bytes() == before


def place(device: DeviceOnDisk) -> Path:
    return device.directory / "state" / "uptime.json"
