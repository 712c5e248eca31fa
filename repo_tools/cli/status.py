"""`firmroot status`: who must act next, and what expires when."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from client_reference.errors import (
    ConfigurationError,
    ExitCode,
    NotTrustedError,
    RetryLaterError,
)
from keys_policy.checks import Severity
from repo_tools.anchor import describe_anchor
from repo_tools.cli.context import Context, example
from repo_tools.publishing.prepare import read_base
from repo_tools.reporting.status import Situation, report
from repo_tools.signing.ceremony import open_ceremonies
from repo_tools.signing.ceremony import status as ceremony_status
from repo_tools.signing.rules import findings, templates

if TYPE_CHECKING:
    from datetime import datetime

    from repo_tools.workspace import Workspace

__all__ = ["status"]

_DURATION = re.compile(r"(\d{1,5})(h|d)")


@click.command(epilog=example("firmroot status", "firmroot status --fail-within 30d"))
@click.option(
    "--fail-within",
    metavar="TIME",
    help="A monitor: exit code 3 if anything expires within, such as 30d or 36h.",
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


def look(ws: Workspace, now: datetime) -> Situation:
    """Read what the report is made of."""
    kinds = templates(ws)
    ceremonies = tuple(ceremony_status(ws, each) for each in open_ceremonies(ws))
    rules = {role: ws.policy.role(role) for role in ("root", "targets", "snapshot", "timestamp")}
    rules |= {role: ws.policy.role(role, kind) for role, kind in kinds.items()}
    live: dict[str, tuple[int, datetime]] = {}
    unread = ""
    if ws.roots():
        try:
            state = read_base(ws, ws.storage()).state
            live = {role: (each.version, each.expires) for role, each in state.newest().items()}
        except (RetryLaterError, NotTrustedError) as error:
            unread = error.message
    anchor, anchor_next = describe_anchor(ws)
    return Situation(
        now=now,
        rules=rules,
        live=live,
        unread=unread,
        ceremonies=ceremonies,
        staged=tuple(ws.staged_roles()),
        violations=tuple(
            f"{each.detail} [{each.check.id}]"
            for each in findings(ws, now)
            if each.severity is Severity.ERROR
        ),
        has_root=ws.newest_root() is not None or any(s.ceremony.role == "root" for s in ceremonies),
        has_keys=bool(ws.keyring),
        products=tuple(ws.config.products),
        mine=frozenset(ws.key_uris()),
        anchor=anchor,
        anchor_next=anchor_next,
    )
