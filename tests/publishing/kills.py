"""Kill a command before each of its file operations, in a forked child.

A child inherits everything imported, so one trial costs a fork and not an interpreter. Operations
are counted where Python hands them to the system: opening for writing, linking, renaming, removing,
making directories (audit events), writing and syncing (wrapped). A write is also torn: half of its
bytes reach the file before the kill.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from repo_tools.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.publishing.lab import Lab

__all__ = ["count_operations", "run_killed"]

_EVENTS = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass
class _Counter:
    """Counts operations; kills the process in place of the chosen one."""

    kill_at: int
    count: int = 0

    def step(self) -> bool:
        """Whether the process must die now."""
        self.count += 1
        return self.count == self.kill_at

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        writing = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING
        if (event in _EVENTS or writing) and self.step():
            _die()

    def wrap(self, name: str) -> None:
        real: Callable[..., Any] = getattr(os, name)

        def wrapped(*arguments: Any) -> Any:  # noqa: ANN401  any system call
            if self.step():
                if name == "write":
                    real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                _die()
            return real(*arguments)

        setattr(os, name, wrapped)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _in_child(lab: Lab, arguments: tuple[str, ...], kill_at: int) -> tuple[int, int]:
    """Run a command in a child; its wait status, and how many operations it made."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            counter = _Counter(kill_at)
            with lab.environment():
                report = os.write
                sys.addaudithook(counter.audit)
                for name in ("write", "fsync"):
                    counter.wrap(name)
                code = main(["-C", str(lab.directory), *arguments])
            report(writer, str(counter.count).encode())
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        counted = pipe.read()
    return os.waitpid(child, 0)[1], int(counted or 0)


def count_operations(lab: Lab, *arguments: str) -> int:
    """Carry a command out and count its file operations."""
    status, count = _in_child(lab, arguments, 0)
    assert os.waitstatus_to_exitcode(status) == 0, f"{arguments} ended with {status}"
    return count


def run_killed(lab: Lab, kill_at: int, *arguments: str) -> None:
    """Carry a command out up to an operation, and no further."""
    status, _ = _in_child(lab, arguments, kill_at)
    assert os.WIFSIGNALED(status), f"{arguments} was not killed at operation {kill_at}"
