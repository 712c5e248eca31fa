"""`firmroot serve`: the repository over HTTP, for trying out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from repo_tools.cli.context import example

if TYPE_CHECKING:
    from repo_tools.cli.context import Context

__all__ = ["serve"]


@click.command(
    short_help="Serve the repository for trying out.",
    epilog=example("firmroot serve --port 8080"),
)
@click.option(
    "--port",
    default=8080,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes a free one.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Interface to listen on.")
@click.pass_obj
def serve(context: Context, port: int, host: str) -> None:
    """Serve metadata/ and targets/ of the storage, in a lab recovery/ too, until Ctrl-C."""
    from repo_tools.publishing.prepare import check_present  # noqa: PLC0415  likewise
    from repo_tools.publishing.serve import listen, run  # noqa: PLC0415  slow, and only here
    from repo_tools.storage.local import LocalStorage  # noqa: PLC0415  likewise

    ws = context.workspace()
    storage = ws.whole_storage()
    place = storage.root if isinstance(storage, LocalStorage) else storage
    check_present(ws, storage)

    def ready(url: str) -> None:
        where = storage.url if place is storage else place
        context.printer.say(f"serving {where} at {url}  (Ctrl-C stops)")
        context.printer.result({"url": url})

    anchor = ws.recovery_storage() if ws.config.lab else None
    recovery = anchor.root if isinstance(anchor, LocalStorage) else anchor
    run(place, listen(host, port), ready, log=context.verbose, recovery=recovery)
    context.printer.say("stopped")
