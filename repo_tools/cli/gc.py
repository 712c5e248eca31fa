"""`firmroot gc`: objects of the storage that nobody needs any more."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from client_reference.errors import ConfigurationError
from repo_tools.cli.context import Context, example, passphrase_option
from repo_tools.cli.durations import parse_duration
from repo_tools.publishing.cleaning import clean, look
from repo_tools.publishing.online import OnlineKeys
from repo_tools.publishing.replaced import refresh_paths

if TYPE_CHECKING:
    from repo_tools.publishing.collect import Garbage

__all__ = ["gc"]

_LEAST = timedelta(days=1)
_SHOWN = 20


@click.command(epilog=example("firmroot gc --dry-run", "firmroot gc --older 365d"))
@click.option(
    "--older",
    default="180d",
    show_default=True,
    metavar="TIME",
    help="What is younger stays, and so does every state that was good within that time.",
)
@click.option("--dry-run", is_flag=True, help="Show what would go, and stop.")
@passphrase_option
@click.pass_obj
def gc(context: Context, older: str, descriptor: int | None, *, dry_run: bool) -> None:
    """Remove objects of the storage that no device and no publish can ask for any more.

    Never roots, root chains, stepping stones, what is live or was within the window, or what has a
    name that no publish gives. It renews the timestamp, so that no publish goes on from before.
    """
    window = parse_duration(older)
    if window < _LEAST:
        raise ConfigurationError(
            f"--older {older}: expected 1d at least",
            "caches and slow publishes need time; 180d costs little",
        )
    ws = context.workspace()
    with ws.lock():
        found = look(ws, context.now - window)
        _show(context, found.garbage)
        left = found.garbage.unfinished
        if dry_run or not (found.garbage.entries or left or found.interrupted):
            context.printer.result(_facts(found.garbage, 0, 0))
            return
        count = len(found.garbage.entries)
        parts = f" and {len(left)} unfinished uploads" if left else ""
        context.confirm(f"Remove {count} objects, {found.garbage.length} bytes{parts}, for ever?")
        keys, known = OnlineKeys(ws, context.secrets(ws, descriptor)), len(refresh_paths(ws))
        with context.steps() as progress:
            removed, length = clean(ws, found, keys, context.now, progress=progress)
        taken = len(refresh_paths(ws)) - known
    if taken:
        context.printer.say(
            f"history/ has {taken} refreshes more, with snapshots that may be nowhere else now: "
            "commit and push it"
        )
    context.printer.say(f"removed {removed} objects, {length} bytes{parts}")
    context.printer.result(_facts(found.garbage, removed, length))


def _show(context: Context, garbage: Garbage) -> None:
    entries = garbage.entries
    shown = entries if context.verbose else entries[:_SHOWN]
    for entry in shown:
        context.printer.say(f"{entry.modified:%Y-%m-%d}  {entry.length:>12}  {entry.path}")
    if len(shown) < len(entries):
        context.printer.say(f"... and {len(entries) - len(shown)} more (-v shows them)")
    for folder, count in sorted(Counter(each.path.split("/")[0] for each in entries).items()):
        length = sum(each.length for each in entries if each.path.startswith(f"{folder}/"))
        context.printer.say(f"{folder}/: {count} objects, {length} bytes can go")
    for path in garbage.strangers[: None if context.verbose else _SHOWN]:
        context.printer.say(f"not from a publish, left alone: {path}")
    for upload in garbage.unfinished[: None if context.verbose else _SHOWN]:
        context.printer.say(f"{upload.begun:%Y-%m-%d}  never finished: {upload.path}")
    if not entries and not garbage.unfinished:
        context.printer.say(f"nothing can go; {garbage.kept} objects stay")


def _facts(garbage: Garbage, removed: int, length: int) -> dict[str, object]:
    return {
        "objects": len(garbage.entries),
        "bytes": garbage.length,
        "paths": [entry.path for entry in garbage.entries],
        "kept": garbage.kept,
        "strangers": list(garbage.strangers),
        "unfinished": [upload.path for upload in garbage.unfinished],
        "removed": removed,
        "removed_bytes": length,
    }
