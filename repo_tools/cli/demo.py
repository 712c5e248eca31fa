"""`firmroot demo`: the whole story on this terminal."""

from __future__ import annotations

import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from repo_tools.cli.context import Context, example

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

__all__ = ["demo"]


@click.command(epilog=example("firmroot demo", "firmroot demo old.img new.img"))
@click.argument(
    "firmware",
    nargs=-1,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="[OLD NEW]",
)
@click.option(
    "--keep",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Tell it in this directory, which must not exist, and leave everything there.",
)
@click.pass_obj
def demo(context: Context, firmware: tuple[Path, ...], keep: Path | None) -> None:
    """Tell the whole story: publish, install, attacks, lost keys, lost years, a power cut.

    Runs real commands on a loopback server of its own, with firmware that it makes, or with the two
    files OLD and NEW of yours. Asks nothing and leaves nothing behind.
    """
    if len(firmware) not in {0, 2}:
        raise click.UsageError(
            f"give two firmware files, OLD and NEW, or none; found {len(firmware)}"
        )
    from repo_tools.demo.story import tell  # noqa: PLC0415  a server is not needed for --help

    began = time.monotonic()
    with _place(keep) as directory:
        checks = tell(Path(directory).resolve(), firmware, context.now)
    click.echo()
    seconds = time.monotonic() - began
    click.secho(f"   {checks} statements held, in {seconds:.0f} s.", bold=True)
    if keep:
        click.echo(f"   Everything is in {keep}: try `firmroot -C {keep}/acme status`.")
    else:
        click.echo(
            "   The tour in README.md does the same by hand; --keep DIR keeps what was made."
        )
    context.printer.result({"statements": checks})


def _place(keep: Path | None) -> AbstractContextManager[str]:
    if keep is None:
        return tempfile.TemporaryDirectory(prefix="firmroot-demo-")
    try:
        keep.mkdir(parents=True)
    except FileExistsError as error:
        raise click.UsageError(f"{keep} exists, expected a new directory") from error
    return nullcontext(str(keep))
