"""The handler `slot`: two or more files or block devices, one of which runs.

Rules: the slot that runs, and the one that boots when a trial fails, are never written. A slot is
unbootable, durably, before its first byte changes, and bootable again only after the whole image
was synced, dropped from the page cache, read back and compared with the signed digest.

A regular file stands in for a partition: it grows as it is written, so that a resume sees how far
it came, and ends with exactly the image. There is no progress record to trust: what a resume keeps
is what verifies.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from client_reference.durable import (
    free_bytes,
    make_private_directory,
    read_back_sha256,
    sync_directory,
    write_at,
)
from client_reference.errors import ConfigurationError, ImageGoneError, LocalFailureError
from client_reference.install.handlers import Withdrawal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from client_reference.install.bootloader import Bootloader
    from client_reference.trust.state import Image

__all__ = ["SlotInstaller", "SlotTooSmallError"]


class SlotTooSmallError(LocalFailureError):
    """The image does not fit; nothing was touched."""


class SlotInstaller:
    """Writes images into the slot that is not in use.

    Args:
        slots: name to file or block device.
        bootloader: decides which of them boots.
    """

    name = "slot"

    def __init__(self, slots: Mapping[str, Path], bootloader: Bootloader) -> None:
        places = {path.resolve() for path in slots.values()}
        if len(slots) < 2 or len(places) < len(slots):  # noqa: PLR2004  one runs, one is written
            raise ConfigurationError(
                "[install] slots must name at least two different places",
                "correct [install] slots in device.toml",
            )
        self._slots = slots
        self._bootloader = bootloader
        self._file: int | None = None
        self._slot = ""
        self._verified: Image | None = None

    def running(self) -> str:
        """The slot that runs now."""
        return self._bootloader.running()

    def boot_pending(self) -> bool:
        """Whether the next boot is the first that tries an activated slot.

        A trial that runs has tries left for a power cut, but waits for nothing but its verdict.
        """
        trial = self._bootloader.trial()
        return bool(trial) and trial != self._bootloader.running()

    def trial(self) -> str:
        """The slot that runs without being confirmed, or is tried next. See `Installer.trial`."""
        running = self._bootloader.running()
        return running if running != self._bootloader.primary() else self._bootloader.trial()

    def begin(self, image: Image) -> Image:
        """Choose a slot that is not in use and make it unbootable. See `Installer.begin`."""
        slot = self._free_slot(image)
        path = self._slots[slot]
        self._close()
        self._verified = None
        with _failures(slot, path):
            make_private_directory(path.parent)
            descriptor = _open(path)
            try:
                _require_room(descriptor, slot, image)
                self._bootloader.disable(slot)
                if _is_file(descriptor):
                    sync_directory(path.parent)
                    kept = image.length if image.slot == slot else 0
                    os.ftruncate(descriptor, min(kept, os.fstat(descriptor).st_size))
            except BaseException:
                os.close(descriptor)
                raise
        self._file, self._slot = descriptor, slot
        return replace(image, slot=slot)

    def written(self, image: Image) -> int:
        """How much of the slot may be the image's start. See `Installer.written`."""
        with self._begun() as descriptor:
            return min(image.length, os.lseek(descriptor, 0, os.SEEK_END))

    def read(self, offset: int, length: int) -> bytes:
        """Bytes that are in the slot."""
        with self._begun() as descriptor:
            return os.pread(descriptor, length, offset)

    def write(self, offset: int, data: bytes) -> None:
        """Put verified bytes into the slot."""
        with self._begun() as descriptor:
            write_at(descriptor, offset, data)

    def finish(self, image: Image) -> None:
        """Sync the slot and compare what the medium gives back. See `Installer.finish`.

        Raises:
            ImageGoneError: it is not what was signed.
        """
        with self._begun() as descriptor:
            found = read_back_sha256(descriptor, image.length)
        self._close()
        _require_image(image, found)
        self._verified = image

    def activate(self, image: Image) -> None:
        """Let the next boot try the slot.

        Days may lie between `finish` and now (`update --download-only`), and whoever writes to the
        slot meanwhile would have their bytes tried and confirmed: unless `finish` was just now, in
        this process, the whole slot is compared again.

        Raises:
            ImageGoneError: it is not there any more, or not what was signed.
        """
        if self._verified != image:
            path = self._slots[image.slot]
            with _failures(image.slot, path):
                try:
                    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                except FileNotFoundError as error:
                    raise ImageGoneError(
                        f"slot {image.slot} is gone: there is no {path}", "run the update again"
                    ) from error
                try:
                    found = read_back_sha256(descriptor, image.length)
                finally:
                    os.close(descriptor)
            _require_image(image, found)
        self._bootloader.arm(image.slot)

    def reboot(self) -> None:
        """Restart the device."""
        self._bootloader.reboot()

    def confirm(self, image: Image) -> None:
        """Let every later boot be of the slot."""
        self._bootloader.confirm(image.slot)

    def reject(self, image: Image) -> None:
        """Let the next boot be of the slot before."""
        self._bootloader.revert(image.slot)

    def withdraw(self, image: Image) -> Withdrawal:
        """Make the slot unbootable before it ran. See `Installer.withdraw`."""
        self._bootloader.revert(image.slot)
        return Withdrawal(done=True, told="it was given up, and is not booted")

    def _free_slot(self, image: Image) -> str:
        used = {self._bootloader.running(), self._bootloader.primary()}
        free = [slot for slot in self._slots if slot not in used]
        if image.slot in free:
            return image.slot
        if not free:
            raise LocalFailureError(
                f"no slot is free: {' and '.join(sorted(used))} are needed to boot",
                "run `firmroot-device confirm` or `firmroot-device reject` first",
            )
        return free[0]

    @contextmanager
    def _begun(self) -> Iterator[int]:
        """The descriptor of the slot that is being written."""
        if self._file is None:
            raise RuntimeError("no image was begun")
        with _failures(self._slot, self._slots[self._slot]):
            yield self._file

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None


def _require_image(image: Image, found: str) -> None:
    """Refuse what the medium gives back if it is not what was signed."""
    if found != image.sha256:
        raise ImageGoneError(
            f"slot {image.slot} gives back SHA-256 {found}, release {image.version} has"
            f" {image.sha256}",
            "run the update again; if it happens again the medium is failing",
        )


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        # On a block device O_EXCL fails while the device is mounted: a slot in use by mistake.
        exclusive = os.O_EXCL if stat.S_ISBLK(path.stat().st_mode) else 0
    except FileNotFoundError:
        return os.open(path, flags | os.O_CREAT, 0o600)
    return os.open(path, flags | exclusive)


def _is_file(descriptor: int) -> bool:
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


def _require_room(descriptor: int, slot: str, image: Image) -> None:
    room = os.lseek(descriptor, 0, os.SEEK_END)
    if _is_file(descriptor):
        room += free_bytes(descriptor)
    if image.length > room:
        raise SlotTooSmallError(
            f"release {image.version} has {image.length} bytes, slot {slot} has room for {room}",
            "free some space on the file system of the slot, or ask for a smaller image",
        )


@contextmanager
def _failures(slot: str, path: Path) -> Iterator[None]:
    """The boundary to the operating system."""
    try:
        yield
    except OSError as error:
        hints: dict[int | None, str] = {
            errno.ENOSPC: "free some space on its file system and run the update again",
            errno.EBUSY: "it is mounted: correct [install] slots in device.toml",
        }
        raise LocalFailureError(
            f"slot {slot} ({path}) failed: {error}",
            hints.get(error.errno, "check [install] slots in device.toml, and the medium"),
        ) from error
