"""`firmroot status`: who must act next, and what expires when."""

from __future__ import annotations

import re
from datetime import timedelta

import click

from client_reference.errors import ConfigurationError, ExitCode
from repo_tools.cli.context import Context, example
from repo_tools.reporting.situation import look
from repo_tools.reporting.status import report

__all__ = ["status"]

_DURATION = re.compile(r"(\d{1,5})(h|d)")


@click.command(epilog=example("firmroot status", "firmroot status --fail-within 30d"))
@click.option(
    "--fail-within",
    metavar="TIME",
    help="A monitor: exit code 3 if what people sign expires within TIME, such as 30d or 36h; "
    "snapshot and timestamp count when `firmroot refresh` is late for them.",
)
@click.pass_context
def status(context: click.Context, fail_within: str | None) -> None:
    """Say who has signed, who is missing, what expires when, and which command is next."""
    ours: Context = context.obj
    within = None if fail_within is None else _duration(fail_within)
    found = report(look(ours.workspace(), ours.now))
    failing = [] if within is None else found.failing(within)
    for line in found.lines():
        ours.printer.say(line)
    for line in failing:
        ours.printer.say(f"FAILS: {line}")
    ours.printer.result({**found.facts(), "failing": failing})
    context.exit(ExitCode.ACTION_REQUIRED if failing else ExitCode.DONE)


def _duration(text: str) -> timedelta:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ConfigurationError(f"{text!r} is not a time; expected such as 30d or 36h")
    number = int(match[1])
    return timedelta(days=number) if match[2] == "d" else timedelta(hours=number)
