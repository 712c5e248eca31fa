"""How long ago, in this boot, verified evidence was accepted (design 5).

Nobody can set CLOCK_BOOTTIME. So within one boot the floor goes on with it: a device whose clock
says 1970 and that has been up for a month knows that a month has passed, and sees a frozen mirror.
Nothing proves how long a device was off, but what it proved before this boot is at least as old as
the boot.

The note is never synced: after a cut it may be torn, and then says nothing. It is written when it
says nothing of the floor that counts, so a check without news writes nothing. Whoever can write it
can write the trust store beside it.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path

from client_reference.trust.clock import Lead

__all__ = ["BOOT_ID", "Uptime"]

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""Where the kernel gives each of its boots another name."""
_MOST = 4096


class Uptime:
    """The note in one file.

    Args:
        path: of the note.
        boot_id: a file with a name that no other boot has.
    """

    def __init__(self, path: Path, boot_id: Path = BOOT_ID) -> None:
        self._path = path
        self._boot_id = boot_id

    def lead(self) -> Lead:
        """What this boot knows; nothing without a readable note."""
        with suppress(OSError, ValueError, RecursionError, KeyError, TypeError):
            with self._path.open("rb") as file:
                note = json.loads(file.read(_MOST))
            floor, at, now = note["floor"], note["at"], _seconds()
            if note["boot"] != self._boot():
                at = 0  # proven before this boot began
            # A time before the boot would make any lead, more than a date can be moved by.
            if type(floor) is int and type(at) is int and 0 <= at <= now:
                return Lead(floor, now - at)
        return Lead()

    def keep(self, floor: int) -> None:
        """Note that `floor` (Unix seconds) was proven just now. A full disk is no failure."""
        with suppress(OSError):
            note = {"boot": self._boot(), "floor": floor, "at": _seconds()}
            self._path.write_text(json.dumps(note), encoding="ascii")

    def _boot(self) -> str:
        return self._boot_id.read_text(encoding="ascii").strip()


def _seconds() -> int:
    return int(time.clock_gettime(time.CLOCK_BOOTTIME))
