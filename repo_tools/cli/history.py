"""`firmroot history`: who signed what when and why, and the proof of it."""

from __future__ import annotations

import click

from client_reference.errors import ConfigurationError, NotTrustedError
from repo_tools.cli.context import Context, example
from repo_tools.reporting.history import Rite, changes, problems, read_history

__all__ = ["history"]


@click.command(
    epilog=example(
        "firmroot history",
        "firmroot history gateway/stable",
        "firmroot history gateway@1.1",
        "firmroot history --verify",
    )
)
@click.argument("reference", metavar="[REF]", required=False)
@click.option("--verify", is_flag=True, help="Prove each recorded state from the first root on.")
@click.pass_obj
def history(context: Context, reference: str | None, *, verify: bool) -> None:
    """Say who signed what when, what changed and why: all, a build, a channel or a role.

    REF is such as gateway@1.1, gateway/stable, targets or root. Reads git's part of the workspace
    only. Exit code 6 if something is not as it was recorded.
    """
    ws = context.workspace()
    found = read_history(ws)
    shown = found.about(reference)
    if reference is not None and not shown:
        raise ConfigurationError(
            f"no record of history/ is about {reference}", "firmroot history shows all of them"
        )
    changed = changes(ws, found)
    wrong = list(problems(ws, found)) if verify else []
    published, ceremonies = [], []
    for each in shown:
        if isinstance(each, Rite):
            lines = each.lines()
            ceremonies.append({"name": each.name, **each.facts})
        else:
            lines = each.lines(changed, reference)
            told = {role: list(text) for (name, role), text in changed.items() if name == each.name}
            published.append({"name": each.name, **each.facts, "changes": told})
        for line in lines:
            context.printer.say(line)
    for line in wrong:
        context.printer.say(f"ERROR {line}")
    proof = {"verified": not wrong, "problems": wrong} if verify else {}
    context.printer.result({"published": published, "ceremonies": ceremonies, **proof})
    if wrong:
        raise NotTrustedError(
            f"{len(wrong)} problems in history/; the first: {wrong[0]}",
            "whoever published pushed the record: git pull; what git had once: "
            "git log --stat -- history",
        )
    if verify:
        context.printer.say(
            f"verified: {len(found.publications)} published states, {len(found.rites)} ceremonies"
        )
