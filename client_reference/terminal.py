"""How the command speaks: results, warnings, a progress bar, and what an error means to its user.

Results go to standard output, everything else to standard error; with --json each is one JSON
object. What came from outside is printed without its control characters.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from client_reference import report
from client_reference.errors import ExitCode, FirmrootError
from client_reference.values import frozen

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from client_reference.strictjson import Json
    from client_reference.transport.fetch import Ambient

__all__ = ["Bar", "Failure", "Run", "complain", "failure_of", "on_terminal", "tell"]

# The terminal is what this module is for.
# ruff: noqa: T201

_BAR = 30
_COLOURS = {"error": "31", "warning": "33", "hint": "36"}


@frozen
class Run:
    """One run of the command: its options, and the only ways to print."""

    options: argparse.Namespace
    environment: Mapping[str, str]
    ambient: Ambient

    @property
    def program(self) -> str:
        """How this command was called; what a hint begins with."""
        given = self.options.config
        return "firmroot-device" + (f" --config {given}" if given else "")

    def say(self, *lines: str) -> None:
        """Lines for people."""
        if not self.options.json:
            for line in lines:
                print(report.printable(line))

    def result(self, document: Mapping[str, Json]) -> None:
        """One object for scripts."""
        if self.options.json:
            print(json.dumps(document, indent=1, sort_keys=True))

    def warn(self, text: str) -> None:
        """What a person should know, whatever the outcome."""
        tell("warning", text)


def tell(kind: str, text: str) -> None:
    """One line on standard error: an `error`, a `warning` or a `hint`.

    That nobody reads it, or that it was closed, stops nothing: a device is alone.
    """
    coloured = on_terminal() and "NO_COLOR" not in os.environ
    label = f"\x1b[{_COLOURS[kind]}m{kind}\x1b[0m" if coloured else kind
    complain(f"{label}: {report.printable(text)}")


def complain(text: str) -> None:
    """Write to standard error, if there is one that somebody reads."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(text, file=sys.stderr)


def on_terminal() -> bool:
    """Whether standard error is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


class Bar:
    """A progress bar on a terminal, redrawn when the percentage changes."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._drawn = -1

    def show(self, done: int, whole: int) -> None:
        """Draw."""
        percent = done * 100 // whole
        if not self._shown or percent == self._drawn:
            return
        self._drawn = percent
        full = "#" * (percent * _BAR // 100)
        sys.stderr.write(f"\r[{full:<{_BAR}}] {percent:3} %  of {report.size(whole)}")
        sys.stderr.flush()

    def finish(self) -> None:
        """Leave the line, if there is one."""
        if self._drawn >= 0:
            sys.stderr.write("\n")
        self._drawn = -1


@frozen
class Failure:
    """An error as its user is told of it."""

    message: str
    hint: str
    code: ExitCode


def failure_of(error: BaseException) -> Failure:
    """What an error means to the user; the table of all that may escape a command."""
    match error:
        case FirmrootError():
            return Failure(error.message, error.hint, error.exit_code)
        case KeyboardInterrupt():
            return Failure(
                "interrupted; what was done so far is kept",
                "run the same command again to go on",
                ExitCode.INTERRUPTED,
            )
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return Failure(
                f"the disk is full: {error}",
                "free some space, then run the same command again",
                ExitCode.RETRY_LATER,
            )
        case OSError():
            return Failure(str(error), "check the path and its permissions", ExitCode.USAGE)
        case _:
            return Failure(
                f"this is a bug in firmroot: {type(error).__name__}: {error}",
                "run it with -v and report the traceback",
                ExitCode.BUG,
            )
