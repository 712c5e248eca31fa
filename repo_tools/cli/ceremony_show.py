"""`firmroot ceremony show`: of a role in this workspace, or of a file that came from elsewhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from repo_tools.cli.context import Context, example
from repo_tools.signing.apart import review_apart
from repo_tools.signing.known_good import KnownGood, user_file
from repo_tools.signing.portable import read_portable

if TYPE_CHECKING:
    from repo_tools.signing.portable import Portable

__all__ = ["quorum_lines", "show"]


@click.command(
    epilog=example("firmroot ceremony show root", "firmroot ceremony show /media/usb/root-3.json")
)
@click.argument("name", metavar="ROLE|FILE")
@click.pass_obj
def show(context: Context, name: str) -> None:
    """Show what a ceremony changes, what is unusual about it, and who may sign.

    FILE is an exported ceremony; it needs no workspace. The words are a fingerprint: whoever signs
    the same thing sees the same ones.
    """
    if "/" in name or name.endswith(".json"):
        _show_file(context, Path(name))
    else:
        # Where only files are signed, the libraries of a workspace are not installed.
        from repo_tools.cli.ceremony_here import show_here  # noqa: PLC0415

        show_here(context, name)


def _show_file(context: Context, path: Path) -> None:
    found = read_portable(path)
    memory = KnownGood.open(user_file(os.environ), by_key=True)
    told = review_apart(found, memory, tuple(found.electorate.members()))
    for index, line in enumerate(told.lines):
        context.printer.say(f"{'  ' if index else ''}{line}")
    for line in quorum_lines(found):
        context.printer.say(line)
    context.printer.say(f"read aloud: {told.words}")
    context.printer.say(f"to sign it: firmroot sign {path} --key file:KEY.pem")
    context.printer.result(
        {
            "name": found.name,
            "role": found.role,
            "version": found.signed.version,
            "words": told.words,
            "changes": list(told.changes),
            "unusual": [vars(each) for each in told.stops],
            "notes": list(told.notes),
            "signed_content": found.signed.to_dict(),
        }
    )


def quorum_lines(found: Portable) -> list[str]:
    """Who must sign, whose keys they are said to be, who has signed, and what is ignored."""
    quorums, ignored = found.count()
    people = {who.name: (keyid[:8], who) for keyid, who in found.people.items()}
    lines = []
    for quorum in quorums:
        lines.append(
            f"{found.name}: {quorum.threshold} needed by {quorum.delegator}, signed by "
            f"{', '.join(quorum.signed) or 'nobody'} in this file"
        )
        for name in quorum.missing:
            told = name
            if name in people:
                digits, who = people[name]
                facts = (digits, who.holder if who.holder != name else "", who.contact)
                told = f"{name} ({', '.join(each for each in facts if each)})"
            lines.append(f"  may sign: {told}")
    return [*lines, *(f"{found.name}: ignored: {why}" for why in ignored)]
