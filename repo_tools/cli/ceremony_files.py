"""`firmroot ceremony export | merge`: ceremonies and signatures that travel by file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from client_reference.errors import ExitCode
from repo_tools.cli.context import Context, example
from repo_tools.files import replace_file
from repo_tools.signing.ceremony import check_ceremony, find_ceremony
from repo_tools.signing.exchange import export as export_ceremony
from repo_tools.signing.exchange import merge as merge_file
from repo_tools.signing.known_good import KnownGood
from repo_tools.signing.session import review_ceremony

if TYPE_CHECKING:
    from repo_tools.signing.exchange import Merged

__all__ = ["export", "merge"]


@click.command(epilog=example("firmroot ceremony export root --to /media/usb/root-3.json"))
@click.argument("name", metavar="ROLE")
@click.option(
    "--to", "target", required=True, type=click.Path(path_type=Path), help="The file to write."
)
@click.pass_obj
def export(context: Context, name: str, target: Path) -> None:
    """Write a ceremony to one file, for a machine without network or git.

    The file has everything that a signer must see; a small install of firmroot is enough to read
    and sign it. Read the words to each signer: theirs must be the same.
    """
    ws = context.workspace()
    found = find_ceremony(ws, name)
    check_ceremony(ws, found)
    # What changes is told from the predecessor: what this person signed last is nobody else's.
    told = review_ceremony(ws, found, KnownGood(ws.memory, by_key=False))
    replace_file(target.absolute(), export_ceremony(ws, found, list(told.changes)))
    context.printer.say(f"wrote {target}; there: firmroot sign {target.name} --key file:KEY.pem")
    context.printer.say(f"read aloud: {told.words}")
    context.printer.result({"ceremony": found.name, "file": str(target), "words": told.words})


@click.command(epilog=example("firmroot ceremony merge root-3.alice.sig.json root-3.bob.sig.json"))
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.pass_obj
def merge(context: Context, files: tuple[Path, ...]) -> None:
    """Add signatures that came as files, in any order; each is verified first.

    FILE is a signature, or a copy of an exported ceremony with the signatures that it has. What
    does not count is named and ignored; exit code 5 if nothing in any file did.
    """
    ws = context.workspace()
    with ws.lock():
        merged = [merge_file(ws, file) for file in files]
    for each in merged:
        _say(context, each)
    following = context.say_next(wrote=any(each.added for each in merged))
    context.printer.result(
        {
            "merged": [[each.ceremony, name] for each in merged for name in each.added],
            "known": [[each.ceremony, name] for each in merged for name in each.known],
            "ignored": [[str(each.path), why] for each in merged for why in each.ignored],
            "next": following,
        }
    )
    if not any(each.added or each.known for each in merged):
        click.get_current_context().exit(ExitCode.REFUSED)


def _say(context: Context, merged: Merged) -> None:
    for name in merged.added:
        context.printer.say(f"{merged.ceremony}: signature of {name} added")
    for name in merged.known:
        context.printer.say(f"{merged.ceremony}: signature of {name} is here already")
    for why in merged.ignored:
        context.printer.say(f"{merged.path.name}: ignored: {why}")
