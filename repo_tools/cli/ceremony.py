"""`firmroot ceremony`: signing by several people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from client_reference.errors import ActionRequiredError, ExitCode
from repo_tools.cli.context import Context, discard_option, example, passphrase_option
from repo_tools.files import replace_file
from repo_tools.metadata.roles import builds_role
from repo_tools.publishing.renewal import renew_builds
from repo_tools.signing.ceremony import (
    abandon as abandon_ceremony,
)
from repo_tools.signing.ceremony import (
    check_ceremony,
    find_ceremony,
    open_ceremonies,
)
from repo_tools.signing.ceremony import finish as finish_ceremony
from repo_tools.signing.ceremony import status as ceremony_status
from repo_tools.signing.rules import enforce, enforce_sound
from repo_tools.signing.session import describe_ceremony
from repo_tools.signing.session import export as export_ceremony
from repo_tools.signing.session import merge as merge_signature
from repo_tools.signing.start import start_role

if TYPE_CHECKING:
    from typing import Any

    from repo_tools.signing.ceremony import CeremonyStatus

__all__ = ["ceremony"]


@click.group(epilog=example("firmroot ceremony start root targets", "firmroot ceremony status"))
def ceremony() -> None:
    """Signing by several people, each on their own machine with only their own key."""


@ceremony.command(
    epilog=example("firmroot ceremony start root targets", "firmroot ceremony start gateway-stable")
)
@click.argument("roles", metavar="ROLE...", nargs=-1, required=True)
@discard_option()
@passphrase_option
@click.pass_obj
def start(
    context: Context, roles: tuple[str, ...], discard: tuple[str, ...], descriptor: int | None
) -> None:
    """Open the next version of roles: root and targets from policy.toml and firmroot.toml.

    Any other role is renewed as it is, with a fresh expiry; a builds role is signed at once with
    the builder's key, which must be on this machine.
    """
    ws = context.workspace()
    builds = {builds_role(product): product for product in ws.config.products}
    # Delegators first, so that a new targets role is verified with the new root.
    ordered = sorted(roles, key=lambda role: ("root", "targets", role).index(role))
    with ws.lock():
        enforce_sound(ws, context.now)
        started = [
            start_role(ws, role, context.now, discard_signatures=role in discard)
            for role in ordered
            if role not in builds
        ]
        secrets = context.secrets(ws, descriptor)
        for role in builds.keys() & set(roles):
            version = renew_builds(ws, builds[role], secrets, context.now)
            context.printer.say(f"{role} {version}: signed on this machine, staged")
    for each in started:
        context.printer.say(f"{each.name}: open, waits for signatures")
    following = context.say_next()
    context.printer.result({"open": [each.name for each in started], "next": following})


@ceremony.command("list", epilog=example("firmroot ceremony list"))
@click.pass_obj
def list_ceremonies(context: Context) -> None:
    """List what waits for signatures."""
    _print_statuses(context, None)


@ceremony.command(epilog=example("firmroot ceremony status", "firmroot ceremony status root"))
@click.argument("name", metavar="[ROLE]", required=False)
@click.pass_obj
def status(context: Context, name: str | None) -> None:
    """Say who has signed and who is missing. Exit code 3 while somebody is."""
    if not _print_statuses(context, name):
        click.get_current_context().exit(ExitCode.ACTION_REQUIRED)


@ceremony.command(epilog=example("firmroot ceremony show root"))
@click.argument("name", metavar="ROLE")
@click.pass_obj
def show(context: Context, name: str) -> None:
    """Show what a ceremony changes, and who may sign."""
    ws = context.workspace()
    found = find_ceremony(ws, name)
    check_ceremony(ws, found)
    lines = describe_ceremony(ws, found)
    facts = _facts(ceremony_status(ws, found))
    for line in (*lines, *_lines(ceremony_status(ws, found))):
        context.printer.say(line)
    context.printer.result({**facts, "changes": lines, "signed_content": found.signed.to_dict()})


@ceremony.command(epilog=example("firmroot ceremony export root --to /media/usb/root-3.json"))
@click.argument("name", metavar="ROLE")
@click.option(
    "--to", "target", required=True, type=click.Path(path_type=Path), help="The file to write."
)
@click.pass_obj
def export(context: Context, name: str, target: Path) -> None:
    """Write a ceremony to one file, for a machine without network or git."""
    found = find_ceremony(context.workspace(), name)
    replace_file(target.absolute(), export_ceremony(found))
    context.printer.say(f"wrote {target}; there: firmroot sign {target.name}")
    context.printer.result({"ceremony": found.name, "file": str(target)})


@ceremony.command(epilog=example("firmroot ceremony merge root-3.alice.sig.json"))
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.pass_obj
def merge(context: Context, files: tuple[Path, ...]) -> None:
    """Add signatures that came as files; each is verified first."""
    ws = context.workspace()
    with ws.lock():
        merged = [merge_signature(ws, file) for file in files]
    for found, name in merged:
        context.printer.say(f"{found.name}: signature of {name} added")
    following = context.say_next()
    context.printer.result(
        {"merged": [[found.name, name] for found, name in merged], "next": following}
    )


@ceremony.command(epilog=example("firmroot ceremony finish", "firmroot ceremony finish root"))
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


@ceremony.command(epilog=example("firmroot ceremony abandon root --discard-signatures root"))
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
            raise ActionRequiredError(
                f"{found.name} has been signed by {', '.join(signed)}; that would be discarded",
                f"say so: firmroot ceremony abandon {name} --discard-signatures {found.role}",
            )
        if not signed:
            context.confirm(f"End {found.name} without a result?")
        abandon_ceremony(found)
    context.printer.say(f"{found.name}: ended without a result")
    following = context.say_next()
    context.printer.result({"abandoned": found.name, "next": following})


def _print_statuses(context: Context, name: str | None) -> bool:
    """Print, and say whether nothing is missing."""
    ws = context.workspace()
    chosen = open_ceremonies(ws) if name is None else [find_ceremony(ws, name)]
    statuses = [ceremony_status(ws, each) for each in chosen]
    for each in statuses:
        for line in _lines(each):
            context.printer.say(line)
    if not statuses:
        context.printer.say("nothing waits for signatures")
    context.printer.result({"ceremonies": [_facts(each) for each in statuses]})
    return all(each.complete for each in statuses)


def _lines(found: CeremonyStatus) -> list[str]:
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


def _facts(found: CeremonyStatus) -> dict[str, Any]:
    return {
        "name": found.ceremony.name,
        "role": found.ceremony.role,
        "version": found.ceremony.version,
        "complete": found.complete,
        "signed": list(found.signed),
        "missing": list(found.missing),
        "problems": list(found.problems),
    }
