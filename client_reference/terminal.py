"""How the command speaks: results, warnings, a progress bar, and what an error means to its user.

Results go to standard output, everything else to standard error. With --json the result is one JSON
object, and so is an error, each with the warnings in it: beside the object of an error nothing else
is on standard error, beside that of a result the warnings are there for the log. What came from
outside is printed without its control characters. A command that is named anywhere is printed as it
must be typed: with the configuration that was given.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import sys
from contextlib import contextmanager, suppress
from dataclasses import field
from typing import TYPE_CHECKING

from client_reference import report
from client_reference.errors import ConfigurationError, ExitCode, FirmrootError
from client_reference.values import frozen

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping

    from client_reference.strictjson import Json
    from client_reference.transport.fetch import Ambient

__all__ = [
    "Bar",
    "Failure",
    "OutputError",
    "Run",
    "called",
    "complain",
    "failure_of",
    "on_terminal",
    "runnable",
    "tell",
]

# The terminal is what this module is for.
# ruff: noqa: T201

_BAR = 30
_COLOURS = {"error": "31", "warning": "33", "hint": "36"}
_PROGRAM = "firmroot-device"
_COMMAND = re.compile(rf"{_PROGRAM} (?=(?:init|check|update|confirm|reject|status|doctor)\b)")


class OutputError(ConfigurationError):
    """Standard output takes nothing. What the command did is done."""


def called(config: str | None) -> str:
    """How this program is called with a configuration; without one it finds its own."""
    return _PROGRAM + (f" --config {shlex.quote(config)}" if config else "")


def runnable(text: str, program: str) -> str:
    """A text in which every command of this program is called as `program` is."""
    return _COMMAND.sub(lambda _: f"{program} ", text)


@frozen
class Run:
    """One run of the command: its options, and the only ways to print.

    Attributes:
        options, environment, ambient: see `cli.main`.
        warnings: what was said so far.
        document: what --json will print.
        around: what an error says with --json besides itself.
    """

    options: argparse.Namespace
    environment: Mapping[str, str]
    ambient: Ambient
    warnings: list[str] = field(default_factory=list)
    document: dict[str, Json] = field(default_factory=dict)
    around: dict[str, Json] = field(default_factory=dict)

    @property
    def program(self) -> str:
        """How this command was called; what a hint begins with."""
        return called(self.options.config)

    def say(self, *lines: str) -> None:
        """Lines for people."""
        if not self.options.json:
            with _output():
                for line in lines:
                    print(report.printable(runnable(line, self.program)))

    def result(self, document: Mapping[str, Json]) -> None:
        """Members of the one object for scripts."""
        self.document.update(document)

    def finish(self) -> None:
        """Print the object, if there is one to print; all that was said has left after this."""
        with _output():
            if self.options.json:
                told: list[Json] = [*self.warnings]
                text = json.dumps(self.document | {"warnings": told}, indent=1, sort_keys=True)
                # Within JSON: a path may have a character that is escaped there.
                print(runnable(text, json.dumps(self.program)[1:-1]))
            if sys.stdout is not None:
                sys.stdout.flush()
        for warning in self.warnings if self.options.json else ():
            tell("warning", warning)

    def warn(self, text: str) -> None:
        """What a person should know, whatever the outcome."""
        text = runnable(text, self.program)
        self.warnings.append(text)
        if not self.options.json:
            tell("warning", text)


@contextmanager
def _output() -> Iterator[None]:
    """The boundary to standard output."""
    try:
        yield
    except BrokenPipeError:
        # Whoever read it has gone (`| head -1`), which is no error: the command goes on unread, or
        # an update would end half done with a code that says otherwise.
        _discard()
    except OSError as error:
        # Or the interpreter would try to write the rest once more, and fail with a code of its own.
        _discard()
        raise OutputError(
            f"standard output cannot be written: {error}",
            "give it a place that takes it; what the command did is kept",
        ) from error


def _discard() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
