"""Whole cold processes: what one used, and the median of several.

By the words of measurement of the format page: *check* is from process start to exit, with `.pyc`
present; *request* is every HTTP request sent, 404s and retries included; *peak RSS* is `VmHWM`.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bench.server import Server

__all__ = ["Command", "Figures", "PeerFailedError", "measured", "median", "state_writes"]

ROOT = Path(__file__).parent.parent
CLIENTS = ROOT / "bench" / "clients"

# What changes a file or a directory, or makes a change durable. Locks and reads are not among them.
WRITE_CLASS = (
    "write,pwrite64,writev,pwritev,pwritev2,sendfile,copy_file_range,splice,fallocate,truncate,"
    "ftruncate,fsync,fdatasync,sync,syncfs,sync_file_range,msync,rename,renameat,renameat2,unlink,"
    "unlinkat,link,linkat,symlink,symlinkat,mkdir,mkdirat,rmdir,chmod,fchmod,fchmodat,utimensat,"
    "openat,creat"
)


class PeerFailedError(Exception):
    """A measured command did not do what is measured; holds what it said."""


@dataclass(frozen=True)
class Command:
    """A process to measure.

    Attributes:
        arguments: after the interpreter, or with another program first if `python` is false.
        environment: on top of this process's own.
        python: whether it runs in this interpreter.
    """

    arguments: Sequence[str]
    environment: tuple[tuple[str, str], ...] = ()
    python: bool = True

    @property
    def line(self) -> list[str]:
        """The command line."""
        return [sys.executable, *self.arguments] if self.python else list(self.arguments)


@dataclass(frozen=True)
class Figures:
    """What one process, or several in a row, used.

    Attributes:
        cpu: seconds, user and system.
        wall: seconds.
        peak: `VmHWM` in MiB; of several, the largest. 0 where it is not known.
        requests: HTTP requests.
        body_bytes: of the answers' bodies.
    """

    cpu: float
    wall: float
    peak: float
    requests: float
    body_bytes: float

    def after(self, other: Figures) -> Figures:
        """Both in a row: sums, and the larger peak."""
        return Figures(
            self.cpu + other.cpu,
            self.wall + other.wall,
            max(self.peak, other.peak),
            self.requests + other.requests,
            self.body_bytes + other.body_bytes,
        )


def measured(command: Command, server: Server, scratch: Path) -> Figures:
    """Run one process to its end.

    Raises:
        PeerFailedError: it failed.
    """
    report = scratch / "peak"
    report.unlink(missing_ok=True)
    server.forget()
    environment = _environment(command) | {"BENCH_REPORT": str(report)}
    with (scratch / "said").open("wb+") as said:
        start = time.perf_counter()
        process = subprocess.Popen(  # noqa: S603 - the clients of this package, and curl
            command.line, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            said.seek(0)
            text = said.read().decode(errors="replace")[-2000:]
            raise PeerFailedError(f"{' '.join(command.line)}: {process.returncode}\n{text}")
    peak = int(report.read_text()) / 1024 if report.exists() else 0.0
    traffic = server.traffic()
    cpu = usage.ru_utime + usage.ru_stime
    return Figures(cpu, wall, peak, traffic.requests, traffic.body_bytes)


def _environment(command: Command) -> dict[str, str]:
    environment = os.environ | dict(command.environment) | {"PYTHONPATH": str(ROOT)}
    # `.pyc` present is part of what is measured; some machines forbid to write them.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def median(runs: Iterable[Figures]) -> Figures:
    """The median of each figure."""
    columns = zip(*(astuple(run) for run in runs), strict=True)
    return Figures(
        **{f.name: statistics.median(c) for f, c in zip(fields(Figures), columns, strict=True)}
    )


def state_writes(command: Command, state: Path, scratch: Path) -> int:
    """How many write-class system calls a process makes on the files below `state`.

    Raises:
        PeerFailedError: it failed, or strace is missing.
    """
    trace = scratch / "strace"
    line = ["strace", "-f", "-qq", "-y", "-o", str(trace), "-e", f"trace={WRITE_CLASS}"]
    try:
        done = subprocess.run(  # noqa: S603 - likewise
            [*line, *command.line], env=_environment(command), check=False, capture_output=True
        )
    except FileNotFoundError as error:
        raise PeerFailedError("strace is not installed") from error
    if done.returncode != 0:
        raise PeerFailedError(f"strace {' '.join(command.line)}: {done.stderr[-2000:]!r}")
    return sum(_is_state_write(each, str(state)) for each in trace.read_text().splitlines())


def _is_state_write(line: str, state: str) -> bool:
    if state not in line or re.search(r"= -1 E\w+", line):
        return False
    # Opening writes nothing unless it makes the file anew or empties it.
    return " openat(" not in line or "O_TRUNC" in line or "O_EXCL" in line
