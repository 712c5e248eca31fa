"""`firmroot sign` in a workspace: everything that waits for the keys of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repo_tools.cli.ceremony_course import why_of
from repo_tools.cli.stops import digests_of, settle
from repo_tools.files import replace_file
from repo_tools.signing.ceremony import (
    finish_complete,
    open_ceremonies,
    signature_path,
    status,
    tidy,
)
from repo_tools.signing.exchange import adopt
from repo_tools.signing.rules import enforce
from repo_tools.signing.session import (
    my_keys,
    open_memory,
    remember,
    require_member,
    review_ceremony,
    sign_tasks,
    waiting,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from repo_tools.cli.context import Context
    from repo_tools.signing.ceremony import Ceremony
    from repo_tools.signing.review import Review
    from repo_tools.signing.session import Task
    from repo_tools.workspace import Workspace

__all__ = ["sign_here"]


def sign_here(
    context: Context,
    files: Sequence[Path],
    keys: Sequence[str],
    descriptor: int | None,
    tested: Sequence[str],
    accepted: Sequence[str],
) -> None:
    """Show what waits, ask, sign, stage what is complete. Arguments are those of the command."""
    ws = context.workspace()
    secrets = context.secrets(ws, descriptor)
    with ws.lock():
        ceremonies = [adopt(ws, file) for file in files] or open_ceremonies(ws)
        enforce(ws, context.now)
        uris: dict[str, str] = {}
        for key in keys or (None,):
            found, named = my_keys(ws, key, secrets)
            if named is not None:
                require_member(ws, named, ceremonies)
            uris |= found
        tasks = waiting(ws, uris, ceremonies)
        memory = open_memory(ws)
        memory.record_tested(digests_of(tested), context.now)
        reviews = [review_ceremony(ws, task.ceremony, memory) for task in tasks]
        _show(context, ws, tasks, reviews)
        if tasks and not ws.config.lab:
            settle(context, [stop for told in reviews for stop in told.stops], accepted)
            count = sum(len(task.names) for task in tasks)
            context.confirm(f"Sign {count} time(s), with {', '.join(_names(tasks))}?")
        sign_tasks(ws, tasks, uris, secrets, keep=lambda: remember(ws, memory, tasks, context.now))
        for file, ceremony in zip(files, ceremonies, strict=False):
            _write_beside(context, ws, file, ceremony, tasks)
        tidy(ws)
        staged = [path.stem for path in finish_complete(ws)]
        _report(context, ws, tasks, staged)


def _names(tasks: Sequence[Task]) -> list[str]:
    return list(dict.fromkeys(name for task in tasks for name in task.names))


def _show(
    context: Context, ws: Workspace, tasks: Sequence[Task], reviews: Sequence[Review]
) -> None:
    for task, told in zip(tasks, reviews, strict=True):
        lines = [*told.lines, *why_of(task.ceremony)]
        if not ws.config.lab:  # where one person plays all parts, nobody reads to anybody
            lines.append(f"read aloud: {told.words}")
        for index, line in enumerate(lines):
            context.printer.say(f"{'  ' if index else ''}{line}")
        for problem in status(ws, task.ceremony).problems:
            context.printer.say(f"  ignored: {problem}")


def _write_beside(
    context: Context, ws: Workspace, file: Path, ceremony: Ceremony, tasks: Sequence[Task]
) -> None:
    for name in (name for task in tasks if task.ceremony is ceremony for name in task.names):
        target = file.with_name(f"{ceremony.name}.{name}.sig.json")
        replace_file(target, signature_path(ceremony, ws.keyring[name].key.keyid).read_bytes())
        context.printer.say(f"wrote {target}; send it back for: firmroot ceremony merge")


def _report(context: Context, ws: Workspace, tasks: Sequence[Task], staged: list[str]) -> None:
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
