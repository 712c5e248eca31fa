"""What every command of `firmroot` gets: place, time, and the only ways to ask and to print."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click

from client_reference.errors import ActionRequiredError
from repo_tools.reporting.visible import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from repo_tools.metadata.repository import RepositoryState
    from repo_tools.signing.secrets import Secrets
    from repo_tools.workspace import Workspace

__all__ = [
    "Context",
    "Printer",
    "StatusLine",
    "discard_option",
    "drop_option",
    "example",
    "passphrase_option",
]

F = TypeVar("F", bound="Callable[..., Any]")

# The variable that names a file with the passphrase (`repo_tools.signing.secrets`).
PASSPHRASE_FILE = "FIRMROOT_PASSPHRASE_FILE"  # noqa: S105  the name of a variable


def example(*lines: str) -> str:
    """The example block that ends the help of every command (`epilog`)."""
    # The backspace tells click to leave the lines of this paragraph as they are.
    return "\n".join(("\b", "Example:", *(f"  {line}" for line in lines)))


drop_option = click.option(
    "--drop",
    multiple=True,
    metavar="REF",
    help="A release that a thief may have built: not signed again; may be repeated.",
)


passphrase_option = click.option(
    "--passphrase-fd",
    "descriptor",
    type=click.IntRange(min=0),
    metavar="N",
    help="Read the passphrase from this file descriptor.",
)


def discard_option(roles: Sequence[str] | None = None) -> Callable[[F], F]:
    """`--discard-signatures ROLE`, of every command that can change an open ceremony."""
    return click.option(
        "--discard-signatures",
        "discard",
        metavar="ROLE",
        multiple=True,
        type=click.Choice(roles) if roles else str,
        help="Accept that signatures already given for this role are lost.",
    )


class StatusLine:
    """What a long command is at: one line of a terminal that is written over, and gone at last."""

    def __init__(self) -> None:
        self._shown = 0

    def tell(self, text: str) -> None:
        """The next step, in place of the one before."""
        line = visible(text)[: shutil.get_terminal_size().columns - 1]
        click.echo("\r" + line.ljust(self._shown), nl=False, err=True)
        self._shown = len(line)

    def clear(self) -> None:
        """Leave the line empty, before anything else is written."""
        if self._shown:
            click.echo("\r" + " " * self._shown + "\r", nl=False, err=True)
        self._shown = 0


@dataclass(frozen=True)
class Printer:
    """Standard output of a command: lines for people, or one JSON object for scripts.

    Either has no control characters of others: JSON spells them out, `visible` does for lines.
    """

    json: bool
    status: StatusLine = field(default_factory=StatusLine)

    def say(self, text: str = "") -> None:
        """A line for people; silent under `--json`."""
        if not self.json:
            self.status.clear()
            click.echo(visible(text))

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
        why: `--why`, for what `history/` keeps.
    """

    directory: Path
    now: datetime
    json: bool
    yes: bool
    verbose: bool
    printer: Printer
    lab_time: bool = False
    why: str = ""

    def workspace(self, *, missing_keys: bool = False) -> Workspace:
        """Open the workspace. Arguments and errors are those of `Workspace.open`."""
        from repo_tools.workspace import Occasion, Workspace  # noqa: PLC0415  not for --help

        occasion = Occasion(self.now, self.why)
        return Workspace.open(self.directory, missing_keys=missing_keys, occasion=occasion)

    def say_next(self, *, wrote: bool = True, live: RepositoryState | None = None) -> str:
        """End a command: which one is next, as `status` says it, and what git does not have yet.

        Args:
            wrote: the command changed files.
            live: what it has just seen live; None to look.

        Returns:
            the next command; empty if nothing is to be done.
        """
        from repo_tools.reporting.situation import next_step  # noqa: PLC0415  not for --help

        # Opened again: the command has changed its files. `key new` ends before policy and keys
        # agree.
        ws = self.workspace(missing_keys=True)
        found = next_step(ws, self.now, live)
        self.printer.say(f"next: {found.next_step}")
        if wrote:
            self.say_unshared(ws)
        return found.next_command

    def say_unshared(self, ws: Workspace) -> None:
        """One line on what git does not have yet; nothing in a lab, where nobody else waits."""
        from repo_tools.git import reminder  # noqa: PLC0415  not for --help

        if not self.json and not ws.config.lab and (line := reminder(ws.directory)):
            self.printer.say(line)

    def secrets(self, ws: Workspace | None, descriptor: int | None) -> Secrets:
        """Where passphrases come from in this run; see `repo_tools.signing.secrets`."""
        from repo_tools.signing.secrets import open_secrets  # noqa: PLC0415  not for --help

        prompt = self._ask_passphrase if sys.stdin.isatty() else None
        fallback = ws.lab_passphrase if ws is not None and ws.config.lab else None
        return open_secrets(descriptor, os.environ, prompt, fallback)

    def _ask_passphrase(self, question: str) -> str:
        self.printer.status.clear()
        return str(click.prompt(question, hide_input=True, err=True))

    @contextlib.contextmanager
    def steps(self) -> Iterator[Callable[[str], None]]:
        """Whom long work tells its steps: each a line with `-v`, else one line of a terminal."""
        if self.verbose:
            yield self.printer.say
        elif self.json or not sys.stderr.isatty():
            yield lambda _: None
        else:
            try:
                yield self.printer.status.tell
            finally:
                self.printer.status.clear()

    def new_passphrase(self, ws: Workspace, descriptor: int | None, name: str) -> bytes:
        """The passphrase for a key that is being made; typed twice where a person types it."""
        if descriptor is None and sys.stdin.isatty() and PASSPHRASE_FILE not in os.environ:
            question = f"New passphrase of {name}"
            answer = click.prompt(question, hide_input=True, confirmation_prompt=True, err=True)
            return str(answer).encode()
        return self.secrets(ws, descriptor).passphrase(name)

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
                f"look at it, then run it again with {option}"
                + (" before the command: firmroot --yes ..." if option == "--yes" else ""),
            )
        if not click.confirm(visible(question), err=True):
            raise ActionRequiredError("stopped: the answer was no; nothing was changed")
