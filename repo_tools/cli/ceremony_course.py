"""`firmroot ceremony start | list | status | finish | abandon`: the course of a ceremony."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from client_reference.errors import ActionRequiredError, ExitCode
from repo_tools.cli.context import Context, discard_option, drop_option, example, passphrase_option
from repo_tools.metadata.roles import builds_role
from repo_tools.publishing.renewal import renew_builds
from repo_tools.signing.asking import asking, by_file
from repo_tools.signing.ceremony import (
    DiscardedSignaturesError,
    Ending,
    find_ceremony,
    keep_record,
    open_ceremonies,
)
from repo_tools.signing.ceremony import abandon as abandon_ceremony
from repo_tools.signing.ceremony import finish as finish_ceremony
from repo_tools.signing.ceremony import status as ceremony_status
from repo_tools.signing.rules import enforce, enforce_sound
from repo_tools.signing.start import start_role
from repo_tools.theft import built, check_drop, versions_of

if TYPE_CHECKING:
    from typing import Any

    from repo_tools.signing.ceremony import Ceremony, CeremonyStatus
    from repo_tools.workspace import Workspace

__all__ = [
    "abandon",
    "facts_of",
    "finish",
    "lines_of",
    "list_ceremonies",
    "start",
    "status",
    "why_of",
]


@click.command(
    epilog=example("firmroot ceremony start root targets", "firmroot ceremony start gateway-stable")
)
@click.argument("roles", metavar="ROLE...", nargs=-1, required=True)
@drop_option
@discard_option()
@passphrase_option
@click.pass_obj
def start(
    context: Context,
    roles: tuple[str, ...],
    drop: tuple[str, ...],
    discard: tuple[str, ...],
    descriptor: int | None,
) -> None:
    """Open the next version of roles: root and targets from policy.toml and firmroot.toml.

    Any other role is renewed as it is, with a fresh expiry; a builds role is signed at once with
    the builder's key, which must be on this machine, and may leave out what a thief had published.
    """
    ws = context.workspace()
    builds = {builds_role(product): product for product in ws.config.products}
    products = [builds[role] for role in roles if role in builds]
    if drop and not products:
        raise click.UsageError("--drop goes with a builds role")
    # Delegators first, so that a new targets role is verified with the new root.
    ordered = sorted(roles, key=lambda role: ("root", "targets", role).index(role))
    with ws.lock():
        enforce_sound(ws, context.now)
        started = [_start(context, ws, role, discard) for role in ordered if role not in builds]
        secrets = context.secrets(ws, descriptor)
        check_drop([each for product in products for each in built(ws, product)], drop)
        for product in products:
            role = builds_role(product)
            again = renew_builds(ws, product, secrets, context.now, versions_of(product, drop))
            context.printer.say(f"{role} {again.version}: signed on this machine, staged")
            for sentence in again.sentences:
                context.printer.say(f"  {sentence}")
    for each in started:
        context.printer.say(f"{each.name}: open, waits for signatures")
    following = context.say_next()
    context.printer.result({"open": [each.name for each in started], "next": following})


@click.command("list", epilog=example("firmroot ceremony list"))
@click.pass_obj
def list_ceremonies(context: Context) -> None:
    """List what waits for signatures."""
    _print_statuses(context, None)


@click.command(epilog=example("firmroot ceremony status", "firmroot ceremony status root"))
@click.argument("name", metavar="[ROLE]", required=False)
@click.pass_obj
def status(context: Context, name: str | None) -> None:
    """Say who has signed, who is missing, how to reach them, and what to send them.

    Exit code 3 while somebody is missing.
    """
    if not _print_statuses(context, name, ask=True):
        click.get_current_context().exit(ExitCode.ACTION_REQUIRED)


@click.command(epilog=example("firmroot ceremony finish", "firmroot ceremony finish root"))
@click.argument("name", metavar="[ROLE]", required=False)
@click.pass_obj
def finish(context: Context, name: str | None) -> None:
    """Stage what has all its signatures; exit code 3 if something is missing."""
    ws = context.workspace()
    with ws.lock():
        enforce(ws, context.now)
        chosen = open_ceremonies(ws) if name is None else [find_ceremony(ws, name)]
        if not chosen:
            raise ActionRequiredError("no ceremony is open", "firmroot status")
        for each in chosen:
            context.printer.say(f"{each.name}: staged as {finish_ceremony(ws, each).name}")
    following = context.say_next()
    context.printer.result({"staged": [each.role for each in chosen], "next": following})


@click.command(epilog=example("firmroot ceremony abandon root --discard-signatures root"))
@click.argument("name", metavar="ROLE")
@discard_option()
@click.pass_obj
def abandon(context: Context, name: str, discard: tuple[str, ...]) -> None:
    """End a ceremony without a result."""
    ws = context.workspace()
    with ws.lock():
        found = find_ceremony(ws, name)
        signed = ceremony_status(ws, found).signed
        if signed and found.role not in discard:
            context.confirm(
                f"{found.name} has been signed by {', '.join(signed)}; that would be discarded. "
                "End it?",
                option=f"--discard-signatures {found.role}",
            )
        if not signed:
            context.confirm(f"End {found.name} without a result?")
        keep_record(ws, found, Ending.ABANDONED)
        abandon_ceremony(found)
    context.printer.say(f"{found.name}: ended without a result")
    following = context.say_next()
    context.printer.result({"abandoned": found.name, "next": following})


def _start(context: Context, ws: Workspace, role: str, discard: tuple[str, ...]) -> Ceremony:
    """Start one; who is there is asked before signatures are lost."""
    try:
        return start_role(ws, role, context.now, discard_signatures=role in discard)
    except DiscardedSignaturesError as error:
        question = f"{error.message}. Go on?"
        context.confirm(question, option=f"--discard-signatures {role}")
    return start_role(ws, role, context.now, discard_signatures=True)


def _print_statuses(context: Context, name: str | None, *, ask: bool = False) -> bool:
    """Print, and say whether nothing is missing."""
    ws = context.workspace()
    chosen = open_ceremonies(ws) if name is None else [find_ceremony(ws, name)]
    statuses = [ceremony_status(ws, each) for each in chosen]
    for each in statuses:
        for line in [*lines_of(each), *(_ask(ws, each) if ask else ())]:
            context.printer.say(line)
    if not statuses:
        context.printer.say("nothing waits for signatures")
    facts = [
        {**facts_of(each), "ask": [vars(asked) for asked in asking(ws, each)]} for each in statuses
    ]
    context.printer.result({"ceremonies": facts})
    return all(each.complete for each in statuses)


def _ask(ws: Workspace, found: CeremonyStatus) -> list[str]:
    lines = [f"  {asked.line}" for asked in asking(ws, found)]
    if lines:
        wrote, theirs = by_file(found)
        lines.append(f"  or by file: {wrote}; send it; they run: {theirs}")
    return lines


def why_of(ceremony: Ceremony) -> list[str]:
    """The reason that somebody gave, as what it is."""
    return [f"why, says who started it: {ceremony.why}"] if ceremony.why else []


def lines_of(found: CeremonyStatus) -> list[str]:
    """What each delegator asks for, and what is ignored, for people."""
    lines = []
    for quorum in found.quorums:
        signed = ", ".join(quorum.signed) or "nobody"
        text = f"{found.ceremony.name}: {quorum.threshold} needed by {quorum.delegator}, "
        text += f"signed by {signed}"
        if quorum.needed:
            text += f"; {quorum.needed} more of {', '.join(quorum.missing) or 'nobody left'}"
        lines.append(text)
    word = "ignored: " if found.quorums else ""
    return [*lines, *(f"{found.ceremony.name}: {word}{each}" for each in found.problems)]


def facts_of(found: CeremonyStatus) -> dict[str, Any]:
    """The same for scripts."""
    return {
        "name": found.ceremony.name,
        "role": found.ceremony.role,
        "version": found.ceremony.version,
        "complete": found.complete,
        "signed": list(found.signed),
        "missing": list(found.missing),
        "problems": list(found.problems),
    }
