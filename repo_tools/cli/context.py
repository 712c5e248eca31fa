"""What every command of `firmroot` gets: place, time, and the only ways to ask and to print."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from client_reference.errors import ActionRequiredError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from repo_tools.workspace import Workspace

__all__ = ["Context", "Printer", "example"]


def example(*lines: str) -> str:
    """The example block that ends the help of every command (`epilog`)."""
    # The backspace tells click to leave the lines of this paragraph as they are.
    return "\n".join(("\b", "Example:", *(f"  {line}" for line in lines)))


@dataclass(frozen=True)
class Printer:
    """Standard output of a command: lines for people, or one JSON object for scripts."""

    json: bool

    def say(self, text: str = "") -> None:
        """A line for people; silent under `--json`."""
        if not self.json:
            click.echo(text)

    def result(self, data: Mapping[str, Any]) -> None:
        """The outcome for scripts; silent without `--json`."""
        if self.json:
            click.echo(json.dumps(data, indent=1, sort_keys=True, default=str))


@dataclass(frozen=True)
class Context:
    """What every command gets, as `click.Context.obj`.

    Attributes:
        directory: of the workspace.
        now: the only reading of the clock in this run, whole seconds UTC.
        json: print one JSON object instead of lines.
        yes: go on without asking where that is safe.
        verbose: show more, and the traceback of a bug.
        printer: the only way to standard output.
        lab_time: `now` was injected through `FIRMROOT_LAB_NOW`.
    """

    directory: Path
    now: datetime
    json: bool
    yes: bool
    verbose: bool
    printer: Printer
    lab_time: bool = False

    def workspace(self) -> Workspace:
        """Open the workspace. Raises `ConfigurationError` as `Workspace.open`."""
        from repo_tools.workspace import Workspace  # noqa: PLC0415  tuf is not needed for --help

        return Workspace.open(self.directory)

    def confirm(self, question: str, option: str = "--yes") -> None:
        """Ask before going on; `--yes` answers, where `option` is `--yes`.

        Raises:
            ActionRequiredError: nobody is there to ask, or the answer was no.
        """
        if self.yes and option == "--yes":
            return
        if not sys.stdin.isatty():
            raise ActionRequiredError(
                f"this needs an answer and there is no terminal: {question}",
                f"look at it, then run it again with {option}",
            )
        if not click.confirm(question, err=True):
            raise ActionRequiredError("stopped: the answer was no; nothing was changed")
