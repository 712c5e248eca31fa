"""`firmroot history`: who signed what when and why, and the proof of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from client_reference.errors import ConfigurationError, NotTrustedError
from repo_tools.cli.context import Context, example
from repo_tools.publishing.inherit import earlier
from repo_tools.reporting.history import Rite, anchor_problems, changes, problems, read_history
from repo_tools.reporting.refreshes import Renewals, in_words

if TYPE_CHECKING:
    from repo_tools.reporting.history import History
    from repo_tools.workspace import Workspace

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
    epochs = [(each, read_history(each)) for each in (*reversed(list(earlier(ws))), ws)]
    if reference is not None and not any(found.about(reference) for _, found in epochs):
        raise ConfigurationError(
            f"no record of history/ is about {reference}", "firmroot history shows all of them"
        )
    published: list[dict[str, Any]] = []
    ceremonies: list[dict[str, Any]] = []
    refreshed: list[dict[str, Any]] = []
    wrong: list[str] = []
    for each, found in epochs:
        if len(epochs) > 1:
            context.printer.say(f"epoch {each.epoch}")
        _show(context, each, found, reference, published, ceremonies, refreshed)
        wrong += problems(each, found) if verify else ()
    if verify:
        wrong += anchor_problems(ws, [rite for _, found in epochs for rite in found.rites])
    for line in wrong:
        context.printer.say(f"ERROR {line}")
    proof = {"verified": not wrong, "problems": wrong} if verify else {}
    context.printer.result(
        {"published": published, "refreshed": refreshed, "ceremonies": ceremonies, **proof}
    )
    if wrong:
        raise NotTrustedError(
            f"{len(wrong)} problems in history/; the first: {wrong[0]}",
            "whoever published pushed the record: git pull; what git had once: "
            "git log --stat -- history",
        )
    if verify:
        states = sum(len(found.publications) for _, found in epochs)
        rites = sum(len(found.rites) for _, found in epochs)
        renewed = sum(len(list(found.between())) for _, found in epochs)
        between = f"{renewed} refreshes, " if renewed else ""
        context.printer.say(f"verified: {states} published states, {between}{rites} ceremonies")
        for each, found in epochs:
            if missing := found.missing():
                of = f" of epoch {each.epoch}" if len(epochs) > 1 else ""
                context.printer.say(
                    f"nothing was kept of timestamp {in_words(missing)}{of}: refreshes by an older "
                    "firmroot, or before the storage was restored from a mirror; versions that "
                    "were jumped over; or a record that git lacks"
                )


def _show(
    context: Context,
    ws: Workspace,
    found: History,
    reference: str | None,
    published: list[dict[str, Any]],
    ceremonies: list[dict[str, Any]],
    refreshed: list[dict[str, Any]],
) -> None:
    """The records of one epoch: lines for people; facts for scripts, added to the lists."""
    changed = changes(ws, found)
    for each in found.about(reference):
        if isinstance(each, Renewals):
            refreshed += ({"epoch": ws.epoch, **one.facts} for one in each.each)
            for line in each.lines():
                context.printer.say(line)
            continue
        facts = {"epoch": ws.epoch, "name": each.name, **each.facts}
        if isinstance(each, Rite):
            lines = each.lines()
            ceremonies.append(facts)
        else:
            lines = each.lines(changed, reference)
            told = {role: list(text) for (name, role), text in changed.items() if name == each.name}
            published.append({**facts, "changes": told})
        for line in lines:
            context.printer.say(line)
