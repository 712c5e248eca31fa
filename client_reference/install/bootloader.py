"""Which slot boots: the protocol, and a boot loader that is a file.

`FileBootloader` is the embedded stand-in for a boot environment: one JSON record beside the slots,
replaced whole and durably. It boots as well: `reboot` moves `running` the way a real one would.

Invariant: the primary slot is always bootable, and neither it nor the running slot can be made
unbootable, so that no sequence of calls and power cuts leaves a device without a slot to boot.
`BootRecord` cannot be built otherwise.

A record is written before the first byte of any slot. So without one, a device is as it left the
factory only if no slot but the first holds anything; otherwise the record was lost, and which slot
runs must be said: to suppose the first has the running one written.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Protocol

from client_reference.durable import replace_file
from client_reference.errors import ConfigurationError, LocalFailureError
from client_reference.values import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

__all__ = [
    "BOOTLOADERS",
    "BOOT_RECORD",
    "TRIES",
    "BootRecord",
    "Bootloader",
    "FileBootloader",
    "open_bootloader",
]

BOOT_RECORD = "boot.json"  # beside the first slot
TRIES = 3  # boots that an image on trial gets: one power cut during a trial must not condemn it
_SCHEMA = 1
_MAX_RECORD = 64 * 1024
_START = 4096  # bytes that tell a written partition from an erased one


class Bootloader(Protocol):
    """What decides which slot boots. Every change is durable when the call returns."""

    def running(self) -> str:
        """The slot that was booted."""

    def primary(self) -> str:
        """The slot that boots when nothing is on trial."""

    def trial(self) -> str:
        """The slot that the next boot tries; empty if none."""

    def disable(self, slot: str) -> None:
        """Make a slot unbootable. Refused for the primary and the running slot."""

    def arm(self, slot: str) -> None:
        """Make a slot bootable and let the next boot try it."""

    def confirm(self, slot: str) -> None:
        """Make the running slot the primary one."""

    def revert(self, slot: str) -> None:
        """Make a slot that was not confirmed unbootable; the next boot is of the primary one."""

    def reboot(self) -> None:
        """Restart the device."""


@frozen
class BootRecord:
    """Pure: what a boot loader remembers, and how each event changes it.

    Attributes:
        primary: boots when nothing is on trial.
        bootable: the slots that may be booted.
        running: the slot that was booted last.
        trial: the slot on trial, empty if none.
        tries: boots that the trial has left.
    """

    primary: str
    bootable: tuple[str, ...]
    running: str
    trial: str = ""
    tries: int = 0

    def __post_init__(self) -> None:
        """Refuse a record that could leave the device without a slot to boot."""
        if self.primary not in self.bootable:
            raise ValueError(f"primary slot {self.primary!r} is not bootable")
        if self.running not in self.bootable:
            raise ValueError(f"running slot {self.running!r} is not bootable")
        if self.trial and (self.trial == self.primary or self.trial not in self.bootable):
            raise ValueError(f"slot {self.trial!r} cannot be on trial")
        if self.tries < 0 or (self.tries and not self.trial):
            raise ValueError(f"{self.tries} tries are left for no trial")

    def disable(self, slot: str) -> BootRecord:
        """A slot is going to be written."""
        if slot in {self.primary, self.running}:
            raise ValueError(f"slot {slot!r} is what this device boots from")
        rest = tuple(other for other in self.bootable if other != slot)
        if self.trial == slot:
            return replace(self, bootable=rest, trial="", tries=0)
        return replace(self, bootable=rest)

    def arm(self, slot: str, tries: int) -> BootRecord:
        """A slot holds a verified image."""
        if slot in {self.primary, self.running}:
            raise ValueError(f"slot {slot!r} is what this device boots from")
        bootable = tuple(dict.fromkeys((*self.bootable, slot)))
        return replace(self, bootable=bootable, trial=slot, tries=tries)

    def confirm(self, slot: str) -> BootRecord:
        """The image that runs works."""
        if slot != self.running:
            raise ValueError(f"slot {slot!r} is not running, {self.running!r} is")
        return replace(self, primary=slot, trial="", tries=0)

    def revert(self, slot: str) -> BootRecord:
        """The image on trial does not work."""
        if slot == self.primary:
            raise ValueError(f"slot {slot!r} is confirmed")
        if slot == self.running:
            # It cannot be unbootable while it runs; without tries it is not booted again.
            return replace(self, trial=slot, tries=0)
        return self.disable(slot)

    def boot(self) -> BootRecord:
        """The device restarts: the trial while it has tries left, then the primary slot."""
        if self.tries:
            return replace(self, running=self.trial, tries=self.tries - 1)
        bootable = tuple(slot for slot in self.bootable if slot != self.trial)
        return replace(self, running=self.primary, bootable=bootable, trial="")


class FileBootloader:
    """A boot loader in a file.

    Args:
        path: of the record. A missing one means a device as it left the factory: the first slot
            is primary and running, the others are not bootable yet.
        slots: names, in order.
        tries: boots that a trial gets.
        places: where the slots are, to tell a lost record from a missing one.
    """

    def __init__(
        self,
        path: Path,
        slots: Sequence[str],
        tries: int = TRIES,
        places: Mapping[str, Path] | None = None,
    ) -> None:
        self._path = path
        self._slots = tuple(slots)
        self._places = places or {}
        self._tries = tries

    def running(self) -> str:
        """The slot that was booted last."""
        return self.record().running

    def primary(self) -> str:
        """The slot that boots when nothing is on trial."""
        return self.record().primary

    def trial(self) -> str:
        """The slot that the next boot tries; empty if none."""
        record = self.record()
        return record.trial if record.tries else ""

    def disable(self, slot: str) -> None:
        """Make a slot unbootable."""
        self._change(lambda record: record.disable(slot))

    def arm(self, slot: str) -> None:
        """Make a slot bootable and let the next boot try it."""
        self._change(lambda record: record.arm(slot, self._tries))

    def confirm(self, slot: str) -> None:
        """Make the running slot the primary one."""
        self._change(lambda record: record.confirm(slot))

    def revert(self, slot: str) -> None:
        """Make a slot that was not confirmed unbootable."""
        self._change(lambda record: record.revert(slot))

    def reboot(self) -> None:
        """Boot as a boot loader does: the try is counted, durably, before the slot runs."""
        self._change(lambda record: record.boot())

    def record(self) -> BootRecord:
        """The record as it is on disk.

        Raises:
            LocalFailureError: it cannot be read, or does not make sense, or was lost.
        """
        try:
            with self._path.open("rb") as file:
                found = json.loads(file.read(_MAX_RECORD))
            return self._parsed(found)
        except FileNotFoundError:
            return self._from_the_factory()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._unusable(f"cannot be used: {error}") from error

    def _from_the_factory(self) -> BootRecord:
        first, *others = self._slots
        for slot in others:
            if slot in self._places and _holds_something(self._places[slot]):
                raise self._unusable(f"is missing, and slot {slot} is not empty")
        return BootRecord(first, (first,), first)

    def _unusable(self, why: str) -> LocalFailureError:
        first = self._slots[0]
        record = {"schema": _SCHEMA, "primary": first, "running": first, "bootable": [first]}
        return LocalFailureError(
            f"the boot record {self._path} {why}: which slot runs must be said before a write",
            f"restore it, or write into it, in place of {first} the slot that is to boot: "
            f"{json.dumps(record)}",
        )

    def _parsed(self, found: Any) -> BootRecord:  # noqa: ANN401  JSON of any shape is judged here
        if not isinstance(found, dict) or found.pop("schema", None) != _SCHEMA:
            raise ValueError(f"it is not a boot record of schema {_SCHEMA}")
        record = BootRecord(**found | {"bootable": tuple(found["bootable"])})
        unknown = {record.primary, record.running, *record.bootable} - set(self._slots)
        if unknown:
            raise ValueError(f"it names slots that are not configured: {sorted(unknown)}")
        return record

    def _change(self, event: Callable[[BootRecord], BootRecord]) -> None:
        before = self.record()
        try:
            after = event(before)
        except ValueError as error:
            raise LocalFailureError(
                f"the boot loader refuses: {error}", "see `firmroot-device status`"
            ) from error
        if after == before and self._path.exists():
            return
        content = json.dumps({"schema": _SCHEMA, **asdict(after)}, sort_keys=True, indent=1)
        try:
            replace_file(self._path, content.encode() + b"\n")
        except OSError as error:
            raise LocalFailureError(
                f"the boot record {self._path} cannot be written: {error}",
                "free some space on its file system, or check its permissions",
            ) from error


def _holds_something(place: Path) -> bool:
    """Whether anybody wrote here. An erased partition reads as zeros or ones."""
    with suppress(OSError), place.open("rb") as file:
        if not stat.S_ISBLK(os.fstat(file.fileno()).st_mode):
            return bool(file.read(1))
        start = file.read(_START)
        return bool(start.strip(b"\0") and start.strip(b"\xff"))
    return False


def _file(slots: Mapping[str, Path]) -> Bootloader:
    first = next(iter(slots.values()))
    return FileBootloader(first.parent / BOOT_RECORD, tuple(slots), places=slots)


BOOTLOADERS: Mapping[str, Callable[[Mapping[str, Path]], Bootloader]] = {"file": _file}


def open_bootloader(name: str, slots: Mapping[str, Path]) -> Bootloader:
    """The boot loader that the configuration names.

    Raises:
        ConfigurationError: there is no such boot loader.
    """
    try:
        factory = BOOTLOADERS[name]
    except KeyError:
        raise ConfigurationError(
            f"[install] bootloader is {name!r}; this firmroot has {', '.join(BOOTLOADERS)}",
            "correct [install] bootloader in device.toml",
        ) from None
    if not slots:
        raise ConfigurationError(
            "[install] slots is empty", "name at least two slots in device.toml"
        )
    return factory(slots)
