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
import hashlib
import os
import stat
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from client_reference.durable import make_private_directory, sync_directory
from client_reference.errors import ConfigurationError, LocalFailureError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from client_reference.install.bootloader import Bootloader
    from client_reference.trust.state import Image

__all__ = ["ReadBackError", "SlotInstaller", "SlotTooSmallError"]

_CHUNK = 1024 * 1024


class SlotTooSmallError(LocalFailureError):
    """The image does not fit; nothing was touched."""


class ReadBackError(LocalFailureError):
    """The medium gave back something else than what was written; the slot is not bootable."""


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

    def running(self) -> str:
        """The slot that runs now."""
        return self._bootloader.running()

    def boot_pending(self) -> bool:
        """Whether the next boot tries an activated slot."""
        return bool(self._bootloader.trial())

    def begin(self, image: Image) -> Image:
        """Choose a slot that is not in use and make it unbootable. See `Installer.begin`."""
        slot = self._free_slot(image)
        path = self._slots[slot]
        self._close()
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
        with _failures(self._slot, self._slots[self._slot]):
            return min(image.length, os.lseek(self._descriptor(), 0, os.SEEK_END))

    def read(self, offset: int, length: int) -> bytes:
        """Bytes that are in the slot."""
        with _failures(self._slot, self._slots[self._slot]):
            return os.pread(self._descriptor(), length, offset)

    def write(self, offset: int, data: bytes) -> None:
        """Put verified bytes into the slot."""
        left = memoryview(data)
        with _failures(self._slot, self._slots[self._slot]):
            while left:
                count = os.pwrite(self._descriptor(), left, offset)
                offset, left = offset + count, left[count:]

    def finish(self, image: Image) -> None:
        """Sync the slot and compare what the medium gives back. See `Installer.finish`.

        Raises:
            ReadBackError: it is not what was signed.
        """
        descriptor = self._descriptor()
        with _failures(self._slot, self._slots[self._slot]):
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            found = _digest(descriptor, image.length)
        self._close()
        if found != image.sha256:
            raise ReadBackError(
                f"slot {image.slot} gives back SHA-256 {found}, release {image.version} has"
                f" {image.sha256}",
                "run the update again; if it happens again the medium is failing",
            )

    def activate(self, image: Image) -> None:
        """Let the next boot try the slot."""
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

    def _descriptor(self) -> int:
        if self._file is None:
            raise RuntimeError("no image was begun")
        return self._file

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None


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
        volume = os.fstatvfs(descriptor)
        room += volume.f_bavail * volume.f_frsize
    if image.length > room:
        raise SlotTooSmallError(
            f"release {image.version} has {image.length} bytes, slot {slot} has room for {room}",
            "free some space on the file system of the slot, or ask for a smaller image",
        )


def _digest(descriptor: int, length: int) -> str:
    """SHA-256 of exactly `length` bytes from the start."""
    digest, offset = hashlib.sha256(), 0
    while chunk := os.pread(descriptor, min(_CHUNK, length - offset), offset):
        digest.update(chunk)
        offset += len(chunk)
    return digest.hexdigest()


@contextmanager
def _failures(slot: str, path: Path) -> Iterator[None]:
    """The boundary to the operating system."""
    try:
        yield
    except OSError as error:
        hints = {
            errno.ENOSPC: "free some space on its file system and run the update again",
            errno.EBUSY: "it is mounted: correct [install] slots in device.toml",
        }
        raise LocalFailureError(
            f"slot {slot} ({path}) failed: {error}",
            hints.get(error.errno or 0, "check [install] slots in device.toml, and the medium"),
        ) from error
