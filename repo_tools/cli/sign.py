"""`firmroot sign`: everything that waits for my keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from repo_tools.cli.context import Context, example, passphrase_option
from repo_tools.files import replace_file
from repo_tools.signing.ceremony import (
    finish_complete,
    open_ceremonies,
    signature_path,
    status,
    tidy,
)
from repo_tools.signing.rules import enforce
from repo_tools.signing.session import (
    adopt,
    describe_ceremony,
    my_keys,
    require_member,
    sign_tasks,
    waiting,
)

if TYPE_CHECKING:
    from repo_tools.signing.ceremony import Ceremony
    from repo_tools.signing.session import Task
    from repo_tools.workspace import Workspace

__all__ = ["sign"]


@click.command(
    epilog=example(
        "firmroot sign",
        "firmroot sign --key alice --passphrase-fd 3 3<secret",
        "firmroot sign root-3.json --key file:/media/usb/alice.pem",
    )
)
@click.argument(
    "files", metavar="[FILE...]", nargs=-1, type=click.Path(path_type=Path, dir_okay=False)
)
@click.option("--key", metavar="URI", help="A key's name or URI; all of this machine's otherwise.")
@passphrase_option
@click.pass_obj
def sign(
    context: Context, files: tuple[Path, ...], key: str | None, descriptor: int | None
) -> None:
    """Sign everything that waits for your keys: shows what changes, asks, signs.

    FILE is a ceremony that `firmroot ceremony export` wrote elsewhere; the signature is then also
    written beside it, for `firmroot ceremony merge`. What reaches its threshold is staged for
    `firmroot publish`. A lab workspace signs with all of its keys and does not ask.
    """
    ws = context.workspace()
    secrets = context.secrets(ws, descriptor)
    with ws.lock():
        ceremonies = [adopt(ws, file) for file in files] or open_ceremonies(ws)
        enforce(ws, context.now)
        uris, named = my_keys(ws, key, secrets)
        if named is not None:
            require_member(ws, named, ceremonies)
        tasks = waiting(ws, uris, ceremonies)
        _show(context, ws, tasks)
        if tasks and not ws.config.lab:
            count = sum(len(task.names) for task in tasks)
            context.confirm(f"Sign {count} time(s), with {', '.join(_names(tasks))}?")
        sign_tasks(ws, tasks, uris, secrets)
        for file, ceremony in zip(files, ceremonies, strict=False):
            _write_beside(context, ws, file, ceremony, tasks)
        tidy(ws)
        staged = [path.stem for path in finish_complete(ws)]
        _report(context, ws, tasks, staged)


def _names(tasks: list[Task]) -> list[str]:
    return list(dict.fromkeys(name for task in tasks for name in task.names))


def _show(context: Context, ws: Workspace, tasks: list[Task]) -> None:
    for task in tasks:
        for index, line in enumerate(describe_ceremony(ws, task.ceremony)):
            context.printer.say(f"{'  ' if index else ''}{line}")
        for problem in status(ws, task.ceremony).problems:
            context.printer.say(f"  ignored: {problem}")


def _write_beside(
    context: Context, ws: Workspace, file: Path, ceremony: Ceremony, tasks: list[Task]
) -> None:
    for name in (name for task in tasks if task.ceremony is ceremony for name in task.names):
        target = file.with_name(f"{ceremony.name}.{name}.sig.json")
        replace_file(target, signature_path(ceremony, ws.keyring[name].key.keyid).read_bytes())
        context.printer.say(f"wrote {target}; send it back for: firmroot ceremony merge")


def _report(context: Context, ws: Workspace, tasks: list[Task], staged: list[str]) -> None:
    for task in tasks:
        context.printer.say(f"{task.ceremony.name}: signed by {', '.join(task.names)}")
    for role in staged:
        context.printer.say(f"{role}: has all its signatures, staged")
    missing = {
        each.name: list(status(ws, each).missing)
        for each in open_ceremonies(ws)
        if not status(ws, each).complete
    }
    for name, names in missing.items():
        context.printer.say(f"{name}: still waits for {' or '.join(names)}")
    if not tasks and not staged:
        context.printer.say("nothing waits for your keys")
    following = context.say_next(wrote=bool(tasks or staged))
    context.printer.result(
        {
            "signed": {task.ceremony.name: list(task.names) for task in tasks},
            "staged": staged,
            "missing": missing,
            "next": following,
        }
    )
