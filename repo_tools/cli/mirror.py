"""`firmroot mirror`: another place from which devices can be served."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from client_reference.errors import ConfigurationError
from repo_tools.cli.context import Context, example
from repo_tools.cli.places import open_place
from repo_tools.publishing.mirror import mirror as copy

if TYPE_CHECKING:
    from repo_tools.storage.protocol import Storage
    from repo_tools.workspace import Workspace

__all__ = ["mirror"]


@click.command(
    epilog=example(
        "firmroot mirror /srv/mirror", "firmroot mirror s3://acme-fw-2/prefix", "firmroot mirror "
        "file:///srv/mirror --check"
    )
)  # fmt: skip
@click.argument("destination", metavar="DEST")
@click.option("--check", is_flag=True, help="Read back everything that is there already.")
@click.pass_obj
def mirror(context: Context, destination: str, *, check: bool) -> None:
    """Copy what is live to a folder or another storage, verified; the timestamp comes last.

    Run it after each publish and refresh. Interrupted, run it again; it copies what is missing, and
    never brings a destination back to something older.
    """
    ws = context.workspace()
    storage = _open(ws, destination)
    with context.steps() as progress:
        done = copy(ws, storage, check=check, progress=progress)
    came = "" if done.before in {None, done.version} else f", before it was {done.before}"
    context.printer.say(
        f"{storage.url} shows timestamp {done.version}{came}: "
        f"{done.objects} objects copied ({done.length} bytes), {done.present} were there"
    )
    context.printer.result({"destination": storage.url, **vars(done)})


def _open(ws: Workspace, text: str) -> Storage:
    """The destination: a folder seen from here, `file:///...` or `s3://...`.

    Raises:
        ConfigurationError: it is something else, or the storage that is to be copied.
    """
    storage = open_place(text, "DEST")
    if ws.place(storage.url) == ws.place(ws.config.storage):
        raise ConfigurationError(
            f"DEST is {text!r}, the storage of this workspace itself", "name another place"
        )
    return storage
