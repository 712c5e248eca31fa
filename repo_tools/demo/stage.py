"""Runs the commands of the story, shows them, and insists that each does what the story says."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from client_reference.errors import FirmrootError

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Stage", "StoryError"]

MODULES = {"firmroot": "repo_tools", "firmroot-device": "client_reference"}
COMMAND_WITHIN = 120  # seconds
POWER_CUT_WITHIN = 30.0  # seconds


class StoryError(FirmrootError):
    """A command did not do what the story says: a bug of firmroot."""


@dataclass
class Stage:
    """One telling of the story, in a directory of its own.

    Attributes:
        directory: holds the workspace `acme`, the device and the firmware files.
        start: aware UTC time at which the story begins.
        years: how much later it is now, in years of 365 days; moved by `pass_time`.
        checks: statements that were held against the commands so far.
    """

    directory: Path
    start: datetime
    years: float = 0.0
    checks: int = 0
    _scene: int = field(default=0, init=False)
    _warned: set[str] = field(default_factory=set, init=False)

    @property
    def now(self) -> datetime:
        """The time in the story."""
        return self.start + timedelta(days=round(self.years * 365))

    def scene(self, title: str, *lines: str) -> None:
        """Begin a scene."""
        self._scene += 1
        click.echo()
        click.secho(f"{self._scene}. {title}", bold=True)
        for line in lines:
            click.echo(f"   {line}")
        click.echo()

    def pass_time(self, years: float) -> None:
        """Let time pass, for publisher and device alike."""
        self.years += years
        click.secho(f"   ... it is {self.now:%Y-%m-%d}", dim=True)

    def firmroot(
        self, line: str, *, place: str = "acme", exits: int = 0, quiet: bool = False
    ) -> str:
        """Run a command of the release side, in the workspace if not told otherwise; its output."""
        return self._run("firmroot", shlex.split(line), place, exits=exits, quiet=quiet)

    def device(self, line: str, *, name: str = "device", exits: int = 0) -> str:
        """Run a command on the device `name`; its output."""
        words = ["--config", f"{name}/device.toml", *shlex.split(line)]
        return self._run("firmroot-device", words, ".", exits=exits, quiet=False)

    def status(self, name: str = "device") -> dict[str, Any]:
        """What a device says of itself, without showing the command."""
        words = ["--config", f"{name}/device.toml", "--json", "status"]
        done = self._execute("firmroot-device", words, ".")
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def insist(self, holds: bool, statement: str) -> None:  # noqa: FBT001  it reads as a sentence
        """Hold the story against what really happened.

        Raises:
            StoryError: it did not.
        """
        if not holds:
            raise StoryError(f"the story says: {statement}; it was not so")
        self.checks += 1
        click.secho(f"   ✓ {statement}", fg="green")

    def cut_power_during(self, line: str, stalled: threading.Event) -> None:
        """Start a command of the device and kill it once the network says that it is half way.

        Raises:
            StoryError: it ended before.
        """
        words = ["--config", "device/device.toml", *shlex.split(line)]
        self._show("firmroot-device", words)
        with subprocess.Popen(  # noqa: S603  our own module
            self._argv("firmroot-device", words),
            cwd=self.directory,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        ) as process:
            half_way = stalled.wait(POWER_CUT_WITHIN)
            process.send_signal(signal.SIGKILL)
        if not half_way:
            raise StoryError("the story says: half of the image had arrived; it had not")
        click.secho("     (power cut)", fg="red")

    def _run(
        self, command: str, words: Sequence[str], place: str, *, exits: int, quiet: bool
    ) -> str:
        self._show(command, words)
        done = self._execute(command, words, place)
        output = done.stdout + done.stderr
        if not quiet or done.returncode != exits:
            self._repeat(output)
        if done.returncode != exits:
            raise StoryError(
                f"the story says: exit code {exits}; found {done.returncode}", "run it with --keep"
            )
        if exits:
            click.secho(f"     (exit code {exits})", dim=True)
        return output

    def _repeat(self, output: str) -> None:
        """Show output. A warning that was shown before is not shown again: each command has it."""
        for line in output.splitlines():
            if line not in self._warned:
                click.echo(f"     {line}")
            if line.startswith("warning:"):
                self._warned.add(line)

    def _show(self, command: str, words: Sequence[str]) -> None:
        click.secho(f"   $ {command} {shlex.join(words)}", fg="cyan")

    def _execute(
        self, command: str, words: Sequence[str], place: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603  our own module
            self._argv(command, words),
            cwd=self.directory / place,
            env=self._environment(),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=COMMAND_WITHIN,
            check=False,
        )

    def _argv(self, command: str, words: Sequence[str]) -> list[str]:
        return [sys.executable, "-m", MODULES[command], *words]

    def _environment(self) -> dict[str, str]:
        time = {"FIRMROOT_LAB_NOW": f"{self.now:%Y-%m-%dT%H:%M:%SZ}"} if self.years else {}
        return {**os.environ, **time}
