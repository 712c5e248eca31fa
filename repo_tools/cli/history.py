"""`firmroot history`: who signed what when, and the proof of it."""

from __future__ import annotations

import click

from client_reference.errors import ConfigurationError, NotTrustedError
from repo_tools.cli.context import Context, example
from repo_tools.reporting.history import problems, records

__all__ = ["history"]


@click.command(epilog=example("firmroot history gateway/stable", "firmroot history --verify"))
@click.argument("reference", metavar="[REF]", required=False)
@click.option("--verify", is_flag=True, help="Prove each recorded state from the first root on.")
@click.pass_obj
def history(context: Context, reference: str | None, *, verify: bool) -> None:
    """Say who signed what when: all, a build, a channel or a role.

    REF is such as gateway@1.1, gateway/stable or targets. Reads git's part of the workspace only.
    """
    ws = context.workspace()
    found = records(ws)
    shown = [record for record in found if record.about(reference)]
    if reference is not None and not shown:
        raise ConfigurationError(
            f"no record of history/ is about {reference}", "firmroot history shows all of them"
        )
    wrong = list(problems(ws, found)) if verify else []
    for record in shown:
        for line in record.lines():
            context.printer.say(line)
    for line in wrong:
        context.printer.say(f"ERROR {line}")
    context.printer.result(
        {
            "records": [{"name": each.name, **each.facts} for each in shown],
            **({"problems": wrong} if verify else {}),
        }
    )
    if wrong:
        raise NotTrustedError(
            f"{len(wrong)} problems in history/; the first: {wrong[0]}", "take it from git"
        )
    if verify:
        less = sum(not record.whole for record in found)
        context.printer.say(
            f"verified: {len(found) - less} recorded states; {less} older records hold less"
        )
