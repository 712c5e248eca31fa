"""The note of what this boot proved, in a file that may be torn (`trust.uptime`).

Whatever it holds, nothing is raised, and what it says can be added to a floor.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
import time
from pathlib import Path

from client_reference.trust.clock import effective_now
from client_reference.trust.uptime import Uptime
from tests.fuzz.refusals import only
from tests.simulators.repository import NOW

BOOT = "0f1e2d3c-0000-4000-8000-000000000000"
FLOOR = int(NOW.timestamp())


def run(data: bytes) -> None:
    path, boot_id = _place() / "uptime.json", _place() / "boot_id"
    path.write_bytes(data)
    with only():
        uptime = Uptime(path, boot_id)
        lead = uptime.lead()
        assert type(lead.floor) is int
        assert type(lead.seconds) is int
        assert 0 <= lead.seconds <= time.clock_gettime(time.CLOCK_BOOTTIME)
        assert effective_now(NOW, FLOOR, lead) >= NOW
        uptime.keep(FLOOR)
        assert uptime.lead().floor == FLOOR


@functools.cache
def _place() -> Path:
    """One directory for all inputs: making one for each takes longer than judging it."""
    place = Path(tempfile.mkdtemp(prefix="uptime-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    (place / "boot_id").write_text(f"{BOOT}\n", encoding="ascii")
    return place
