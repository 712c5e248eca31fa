"""Pure: the file for Prometheus as measurements of a cloud's monitoring, and nothing more.

That file says points in time, from which a monitor that knows the time makes an age. CloudWatch
only compares numbers, so here are durations as of the run, and beside them a heartbeat: when the
job has stopped there is none, and that is the alarm.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from keys_policy.model import ONLINE_ROLES

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NAMES", "measures"]

NAMES: Mapping[str, str] = {
    "Heartbeat": "Count",
    "Success": "Count",
    "ExitCode": "None",
    "LiveReadable": "Count",
    "TimestampExpiresIn": "Seconds",
    "SnapshotExpiresIn": "Seconds",
    "PeopleExpireIn": "Seconds",
    "TimestampAge": "Seconds",
    "OpenCeremonies": "Count",
}
"""Every measurement, with its unit."""

_LINE = re.compile(r'^firmroot_(\w+?)(?:\{role="([^"]+)"\})? (-?\d+)$', re.MULTILINE)
_SINGLE = {
    "live_readable": "LiveReadable",
    "timestamp_age_seconds": "TimestampAge",
    "open_ceremonies": "OpenCeremonies",
}


def measures(text: str, exit_code: int) -> dict[str, int]:
    """What a run measured, by name.

    Args:
        text: what `firmroot refresh --metrics` left; empty if it never came so far.
        exit_code: how the run ended, the part after the command included.
    """
    found = {"Heartbeat": 1, "Success": int(exit_code == 0), "ExitCode": exit_code}
    people: list[int] = []
    for name, role, value in _LINE.findall(text):
        if name in _SINGLE:
            found[_SINGLE[name]] = int(value)
        elif name == "expiry_seconds" and role in ONLINE_ROLES:
            found[f"{role.capitalize()}ExpiresIn"] = int(value)
        elif name == "expiry_seconds":
            people.append(int(value))
    if people:
        found["PeopleExpireIn"] = min(people)
    return found
