"""The slot handler: what it writes, what it never touches, and when a slot may boot."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import ConfigurationError, ImageGoneError, LocalFailureError
from client_reference.install.bootloader import FileBootloader
from client_reference.install.handlers import InstallSettings, open_installer
from client_reference.install.slots import SlotInstaller, SlotTooSmallError
from client_reference.trust.state import Image

if TYPE_CHECKING:
    from collections.abc import Callable

NEW = b"a new image " * 1000
OLD = b"what runs now"
IMAGE = Image(hashlib.sha256(NEW).hexdigest(), len(NEW), "1.1", 2)


class Device:
    """Two slots, A running; the boot loader notes what the slot held when it became unbootable."""

    def __init__(self, directory: Path) -> None:
        self.slots = {"A": directory / "A.img", "B": directory / "B.img"}
        self.slots["A"].write_bytes(OLD)
        self.loader = FileBootloader(directory / "boot.json", ("A", "B"))
        self.installer = SlotInstaller(self.slots, self.loader)

    def bootable(self) -> tuple[str, ...]:
        return self.loader.record().bootable

    def install(self) -> Image:
        image = self.installer.begin(IMAGE)
        self.installer.write(0, NEW)
        self.installer.finish(image)
        self.installer.activate(image)
        return image


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def test_an_image_is_written_tried_and_confirmed(device: Device) -> None:
    assert not device.installer.boot_pending()
    image = device.installer.begin(IMAGE)
    assert image == replace(IMAGE, slot="B")
    device.installer.write(0, NEW[:5000])
    device.installer.write(5000, NEW[5000:])
    device.installer.finish(image)
    assert device.bootable() == ("A",)
    device.installer.activate(image)
    assert device.installer.boot_pending()
    assert device.installer.running() == "A"
    device.installer.reboot()
    assert (device.installer.running(), device.installer.boot_pending()) == ("B", False)
    device.installer.confirm(image)
    device.installer.reboot()
    assert device.installer.running() == "B"
    assert device.slots["B"].read_bytes() == NEW
    assert device.slots["A"].read_bytes() == OLD
    assert device.installer.name == "slot"


def test_the_next_image_goes_to_the_other_slot(device: Device) -> None:
    image = device.install()
    device.installer.reboot()
    device.installer.confirm(image)
    assert device.installer.begin(IMAGE).slot == "A"
    assert device.bootable() == ("B",)
    assert device.slots["A"].read_bytes() == b""


def test_a_rejected_image_is_not_booted_again(device: Device) -> None:
    image = device.install()
    device.installer.reboot()
    device.installer.reject(image)
    device.installer.reboot()
    assert device.installer.running() == "A"
    assert device.bootable() == ("A",)


def test_a_slot_is_unbootable_before_its_first_byte_changes(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.slots["B"].write_bytes(b"the image before")
    device.loader.arm("B")
    held: list[bytes] = []
    really = device.loader.disable

    def disable(slot: str) -> None:
        held.append(device.slots[slot].read_bytes())
        really(slot)

    monkeypatch.setattr(device.loader, "disable", disable)
    device.installer.begin(IMAGE)
    assert held == [b"the image before"]
    assert device.bootable() == ("A",)


def test_while_a_trial_runs_no_slot_is_free(device: Device) -> None:
    device.install()
    device.installer.reboot()
    with pytest.raises(LocalFailureError, match="no slot is free: A and B") as caught:
        device.installer.begin(IMAGE)
    assert "confirm" in caught.value.hint
    assert device.slots["B"].read_bytes() == NEW


def test_an_image_that_does_not_fit_touches_nothing(device: Device) -> None:
    device.slots["B"].write_bytes(b"the image before")
    device.loader.arm("B")
    with pytest.raises(SlotTooSmallError, match=f"has {1 << 60} bytes, slot B has room for"):
        device.installer.begin(replace(IMAGE, length=1 << 60))
    assert device.bootable() == ("A", "B")
    assert device.slots["B"].read_bytes() == b"the image before"


@pytest.mark.parametrize(("size", "fits"), [(len(NEW) - 1, False), (len(NEW), True)])
def test_a_partition_does_not_grow(
    device: Device,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    fits: bool,  # noqa: FBT001  a table
) -> None:
    monkeypatch.setattr("client_reference.install.slots._is_file", lambda _: False)
    device.slots["B"].write_bytes(bytes(size))
    if fits:
        assert device.installer.begin(IMAGE).slot == "B"
        assert device.slots["B"].stat().st_size == size, "a partition is not truncated"
    else:
        with pytest.raises(SlotTooSmallError, match=f"slot B has room for {size}"):
            device.installer.begin(IMAGE)


def test_a_regular_file_may_use_what_its_file_system_has(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client_reference.install.slots.free_bytes", lambda _: len(NEW) - 10)
    with pytest.raises(SlotTooSmallError):
        device.installer.begin(IMAGE)
    device.slots["B"].write_bytes(bytes(10))
    device.installer.begin(IMAGE)


def test_a_block_device_is_opened_so_that_a_mounted_one_is_refused(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.slots["B"].write_bytes(bytes(len(NEW)))
    used: list[int] = []
    really_open = os.open

    def note(path: Path, flags: int, *mode: int) -> int:
        used.append(flags)
        return really_open(path, flags, *mode)

    monkeypatch.setattr(stat, "S_ISBLK", lambda _: True)
    monkeypatch.setattr(os, "open", note)
    device.installer.begin(IMAGE)
    assert used[0] & os.O_EXCL


def test_a_new_start_forgets_what_was_in_the_slot(device: Device) -> None:
    device.slots["B"].write_bytes(b"x" * 99999)
    image = device.installer.begin(IMAGE)
    assert device.installer.written(image) == 0


def test_a_resume_finds_what_was_written(device: Device, tmp_path: Path) -> None:
    image = device.installer.begin(IMAGE)
    device.installer.write(0, NEW[:4096])
    again = SlotInstaller(device.slots, FileBootloader(tmp_path / "boot.json", ("A", "B")))
    assert again.begin(image) == image
    assert again.written(image) == 4096
    assert again.read(0, 4096) == NEW[:4096]
    assert again.read(4000, 4096) == NEW[4000:4096]
    again.write(4096, NEW[4096:])
    again.finish(image)
    assert device.slots["B"].read_bytes() == NEW


def test_a_resume_in_a_slot_that_holds_more_ends_with_the_image(device: Device) -> None:
    image = device.installer.begin(IMAGE)
    device.slots["B"].write_bytes(b"x" * 99999)
    device.installer.begin(image)
    assert device.installer.written(image) == len(NEW)
    device.installer.write(0, NEW)
    device.installer.finish(image)
    assert device.slots["B"].read_bytes() == NEW


def test_a_resume_goes_to_the_slot_where_it_began(tmp_path: Path) -> None:
    slots = {name: tmp_path / f"{name}.img" for name in ("A", "B", "C")}
    installer = SlotInstaller(slots, FileBootloader(tmp_path / "boot.json", tuple(slots)))
    assert installer.begin(replace(IMAGE, slot="C")).slot == "C"
    assert installer.begin(IMAGE).slot == "B"


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        pytest.param(errno.ENOSPC, "free some space", id="a full file system"),
        pytest.param(errno.EBUSY, "it is mounted", id="a device in use"),
        pytest.param(errno.EIO, "and the medium", id="a failing medium"),
    ],
)
def test_a_failing_slot_says_what_to_do(
    device: Device, monkeypatch: pytest.MonkeyPatch, number: int, hint: str
) -> None:
    device.installer.begin(IMAGE)

    def refuse(*_: object) -> int:
        raise OSError(number, "refused")

    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(LocalFailureError, match=r"slot B .* failed") as caught:
        device.installer.write(0, NEW)
    assert hint in caught.value.hint


def test_a_resume_never_goes_to_the_running_slot(device: Device) -> None:
    assert device.installer.begin(replace(IMAGE, slot="A")).slot == "B"
    assert device.slots["A"].read_bytes() == OLD


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda path: path.write_bytes(NEW[:-1] + b"?"), id="a byte changed"),
        pytest.param(lambda path: path.write_bytes(NEW[:-1]), id="a byte missing"),
        pytest.param(lambda path: path.write_bytes(b""), id="nothing there"),
    ],
)
def test_what_the_medium_gives_back_must_be_what_was_signed(device: Device, spoil: object) -> None:
    image = device.installer.begin(IMAGE)
    device.installer.write(0, NEW)
    spoil(device.slots["B"])  # type: ignore[operator]
    with pytest.raises(ImageGoneError, match="slot B gives back SHA-256"):
        device.installer.finish(image)
    assert device.bootable() == ("A",)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(NEW[:-1] + b"?"), "slot B gives back SHA-256"),
        (lambda path: path.write_bytes(NEW[:-1]), "slot B gives back SHA-256"),
        (lambda path: path.unlink(), "slot B is gone"),
    ],
    ids=["a byte changed", "a byte missing", "nothing there"],
)
def test_what_was_staged_earlier_is_compared_again_before_it_may_boot(
    device: Device, spoil: Callable[[Path], object], said: str
) -> None:
    image = device.installer.begin(IMAGE)
    device.installer.write(0, NEW)
    device.installer.finish(image)
    spoil(device.slots["B"])
    later = SlotInstaller(device.slots, device.loader)
    with pytest.raises(ImageGoneError, match=said):
        later.activate(image)
    assert device.bootable() == ("A",)
    assert not later.boot_pending()
    image = later.begin(IMAGE)
    later.write(0, NEW)
    later.finish(image)
    later.activate(image)
    assert later.boot_pending()


def test_another_image_than_the_one_just_verified_is_compared(device: Device) -> None:
    image = device.installer.begin(IMAGE)
    device.installer.write(0, NEW)
    device.installer.finish(image)
    with pytest.raises(ImageGoneError, match="slot B gives back SHA-256"):
        device.installer.activate(replace(image, sha256="0" * 64))
    device.installer.begin(IMAGE)
    device.slots["B"].write_bytes(b"")
    with pytest.raises(ImageGoneError, match="slot B gives back SHA-256"):
        device.installer.activate(image)


def test_what_is_read_back_does_not_come_from_the_cache(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def noted(name: str) -> object:
        really = getattr(os, name)

        def call(*words: object) -> object:
            order.append(name)
            return really(*words)

        return call

    image = device.installer.begin(IMAGE)
    device.installer.write(0, NEW)
    for name in ("fsync", "posix_fadvise", "pread"):
        monkeypatch.setattr(os, name, noted(name))
    device.installer.finish(image)
    assert order[:3] == ["fsync", "posix_fadvise", "pread"]


def test_a_partial_write_of_the_kernel_is_continued(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: really(fd, data[:700], at))
    device.install()
    assert device.slots["B"].read_bytes() == NEW


def test_nothing_is_written_before_a_slot_was_chosen(device: Device) -> None:
    with pytest.raises(RuntimeError, match="no image was begun"):
        device.installer.write(0, NEW)
    device.install()
    with pytest.raises(RuntimeError, match="no image was begun"):
        device.installer.write(0, NEW)


def test_beginning_again_closes_the_slot_that_was_open(device: Device) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        device.installer.begin(IMAGE)
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 1
    for _ in range(3):
        with pytest.raises(SlotTooSmallError):
            device.installer.begin(replace(IMAGE, length=1 << 60))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_slot_in_a_directory_that_is_not_there_yet_is_made(tmp_path: Path) -> None:
    slots = {"A": tmp_path / "slots" / "A.img", "B": tmp_path / "more" / "slots" / "B.img"}
    settings = InstallSettings("slot", tmp_path, slots)
    (tmp_path / "slots").mkdir()
    installer = open_installer(settings)
    installer.begin(IMAGE)
    assert slots["B"].is_file()
    assert stat.S_IMODE(slots["B"].stat().st_mode) == 0o600


def test_a_slot_that_cannot_be_opened_is_a_local_failure_and_changes_nothing(
    device: Device,
) -> None:
    device.slots["B"].mkdir()
    with pytest.raises(LocalFailureError, match=r"slot B .* failed: .*directory") as caught:
        device.installer.begin(IMAGE)
    assert "device.toml" in caught.value.hint
    assert not (device.slots["A"].parent / "boot.json").exists()


def test_slots_must_be_two_different_places(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "A.img")
    loader = FileBootloader(tmp_path / "boot.json", ("A", "B"))
    for second in ({}, {"B": tmp_path / "link"}, {"B": tmp_path / "x" / ".." / "A.img"}):
        with pytest.raises(ConfigurationError, match="at least two different places"):
            SlotInstaller({"A": tmp_path / "A.img", **second}, loader)
