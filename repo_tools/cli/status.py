"""`firmroot status`: who must act next, and what expires when."""

from __future__ import annotations

import click

from client_reference.errors import ExitCode
from repo_tools.cli.context import Context, example
from repo_tools.cli.durations import parse_duration
from repo_tools.reporting.situation import look
from repo_tools.reporting.status import report

__all__ = ["status"]


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
    within = None if fail_within is None else parse_duration(fail_within)
    found = report(look(ours.workspace(), ours.now))
    failing = [] if within is None else found.failing(within)
    for line in found.lines():
        ours.printer.say(line)
    for line in failing:
        ours.printer.say(f"FAILS: {line}")
    ours.printer.result({**found.facts(), "failing": failing})
    context.exit(ExitCode.ACTION_REQUIRED if failing else ExitCode.DONE)
