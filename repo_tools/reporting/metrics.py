"""Pure: what a monitor needs to know of a repository, as a text file for Prometheus.

The file is read by somebody else's collector, long after it was written. So whatever ages is there
as a point in time as well: a job that has stopped leaves numbers that look good, and only their age
betrays it (the dead-man's switch). What could not be looked at is left out, never guessed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

__all__ = ["NAMES", "Run", "render", "succeeded_before"]

_SUCCESS = "firmroot_refresh_success_timestamp_seconds"

NAMES: Mapping[str, str] = {
    "firmroot_refresh_heartbeat_timestamp_seconds": "When firmroot refresh ran last, well or not.",
    _SUCCESS: "When it last ended well (0: never as far as this file knows).",
    "firmroot_refresh_exit_code": "How its last run ended; 0 is well.",
    "firmroot_live_readable": "1 if what is live could be read and verified.",
    "firmroot_expiry_timestamp_seconds": "When the live metadata of a role expire.",
    "firmroot_expiry_seconds": "How long the live metadata of a role were good for at that run.",
    "firmroot_timestamp_issued_timestamp_seconds": "When the live timestamp was signed.",
    "firmroot_timestamp_age_seconds": "How old the live timestamp was at that run.",
    "firmroot_open_ceremonies": "Ceremonies that wait for signatures.",
}
"""Every metric, with its help."""


@dataclass(frozen=True)
class Run:
    """One run of the job, and what it saw after it.

    Attributes:
        now: when.
        exit_code: how it ended.
        succeeded: when one last ended well, in seconds; 0 if nobody knows.
        expires: of each live role; None if what is live could not be read.
        issued: when the live timestamp was signed; None if it does not say.
        ceremonies: how many are open; None if that could not be seen.
    """

    now: datetime
    exit_code: int
    succeeded: int
    expires: Mapping[str, datetime] | None
    issued: datetime | None
    ceremonies: int | None


def succeeded_before(text: str) -> int:
    """When a run last ended well, from the file of the run before; 0 if it does not say."""
    match = re.search(rf"^{_SUCCESS} (\d{{1,15}})$", text, re.MULTILINE)
    return int(match[1]) if match else 0


def render(run: Run) -> str:
    """The file."""
    lines: list[str] = []
    seen: set[str] = set()
    for name, label, value in _values(run):
        if name not in seen:
            seen.add(name)
            lines += [f"# HELP {name} {NAMES[name]}", f"# TYPE {name} gauge"]
        lines.append(f"{name}{label} {value}")
    return "\n".join(lines) + "\n"


def _values(run: Run) -> Iterator[tuple[str, str, int]]:
    now = int(run.now.timestamp())
    succeeded = run.succeeded if run.exit_code else now
    yield "firmroot_refresh_heartbeat_timestamp_seconds", "", now
    yield _SUCCESS, "", succeeded
    yield "firmroot_refresh_exit_code", "", run.exit_code
    yield "firmroot_live_readable", "", int(run.expires is not None)
    roles = sorted((run.expires or {}).items())
    for role, expires in roles:
        label = f'{{role="{role}"}}'
        yield "firmroot_expiry_timestamp_seconds", label, int(expires.timestamp())
    for role, expires in roles:
        yield "firmroot_expiry_seconds", f'{{role="{role}"}}', int(expires.timestamp()) - now
    if run.issued is not None:
        issued = int(run.issued.timestamp())
        yield "firmroot_timestamp_issued_timestamp_seconds", "", issued
        yield "firmroot_timestamp_age_seconds", "", now - issued
    if run.ceremonies is not None:
        yield "firmroot_open_ceremonies", "", run.ceremonies
