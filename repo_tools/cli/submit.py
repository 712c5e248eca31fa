"""`firmroot submit`: signed work to the publisher, and what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from client_reference.errors import ConfigurationError, ExitCode
from repo_tools.cli.context import Context, example, passphrase_option
from repo_tools.publishing.submit import Fate, standings
from repo_tools.publishing.submit import submit as hand_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from repo_tools.publishing.rebase import Rebased
    from repo_tools.publishing.submit import Standing

__all__ = ["submit"]

_OPEN = {Fate.WAITS, Fate.UNFINISHED}


@click.command(
    epilog=example("firmroot submit", "firmroot submit --status", "firmroot --json submit --again")
)
@click.argument("ids", metavar="[ID...]", nargs=-1)
@click.option(
    "--status", is_flag=True, help="Say what became of what was handed in; change nothing."
)
@click.option("--again", is_flag=True, help="Hand in once more what was refused.")
@passphrase_option
@click.pass_context
def submit(
    context: click.Context,
    ids: tuple[str, ...],
    descriptor: int | None,
    *,
    status: bool,
    again: bool,
) -> None:
    """Hand signed builds and channels to the publisher; no online key is needed.

    Run it again at any time: it finishes, or says that everything is there. Builds that were made
    from what is no longer live are made anew and signed again where their key is. With --status
    the exit code is 0 when all is published, 4 while something waits, 5 if something was refused.
    """
    ours: Context = context.obj
    if ids and not status:
        raise ConfigurationError(
            f"{ids[0]!r}: what is handed in is everything that is signed here",
            f"to see what became of it: firmroot submit --status {ids[0]}",
        )
    if status:
        context.exit(_say_status(ours, ids))
    context.exit(_hand_in(ours, descriptor, again=again))


def _hand_in(ours: Context, descriptor: int | None, *, again: bool) -> ExitCode:
    ws = ours.workspace()
    secrets = ours.secrets(ws, descriptor)
    with ws.lock(), ours.steps() as progress:
        found = hand_in(ws, ws.storage(), secrets, ours.now, again=again, progress=progress)
    for rebased in found.rebased:
        _say_rebased(ours, rebased)
    _say(ours, found.standings)
    for role in found.by_git:
        ours.printer.say(f"{role}: not by the inbox; it goes to the publisher by git")
    if not found.standings:
        ours.printer.say("nothing to hand in: no builds, channel or hold is signed and not live")
    following = ours.say_next()
    ours.printer.result(
        {
            "submissions": [_facts(each) for each in found.standings],
            "rebased": [vars(each) for each in found.rebased],
            "by_git": list(found.by_git),
            "next": following,
        }
    )
    refused = any(each.fate is Fate.REFUSED for each in found.standings)
    return ExitCode.REFUSED if refused else ExitCode.DONE


def _say_rebased(ours: Context, rebased: Rebased) -> None:
    if not rebased.version:
        ours.printer.say(f"{rebased.role}: everything that was staged here is live already")
        return
    ours.printer.say(
        f"{rebased.role}: somebody else was published first; made anew on what is live as version "
        f"{rebased.version}, and signed again"
    )
    for sentence in rebased.sentences:
        ours.printer.say(f"  {sentence}")


def _say_status(ours: Context, ids: Sequence[str]) -> ExitCode:
    ws = ours.workspace()
    found = standings(ws, ws.storage(), ids)
    _say(ours, found)
    if not found:
        ours.printer.say("nothing was handed in from this machine")
    ours.printer.result({"submissions": [_facts(each) for each in found]})
    if any(each.fate is Fate.REFUSED for each in found):
        return ExitCode.REFUSED
    waits = any(each.fate in _OPEN for each in found)
    return ExitCode.RETRY_LATER if waits else ExitCode.DONE


def _say(ours: Context, found: Sequence[Standing]) -> None:
    for each in found:
        version = f" {each.version}" if each.version else ""
        if each.bins:
            version += f" with {each.bins} hash bin{'s' if each.bins > 1 else ''}"
        name = f"  {each.id}" if each.id else ""
        why = f": {each.reason}" if each.reason else ""
        ours.printer.say(f"{each.role}{version}  {each.fate.value}{name}{why}")
        if each.hint:
            ours.printer.say(f"  {each.hint}")


def _facts(standing: Standing) -> dict[str, object]:
    return {**vars(standing), "fate": standing.fate.value}
