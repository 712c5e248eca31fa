"""`firmroot sign`: everything that waits for my keys, in a workspace or from a file alone."""

from __future__ import annotations

from pathlib import Path

import click

from client_reference.errors import ConfigurationError
from repo_tools.cli.context import Context, example, passphrase_option
from repo_tools.cli.stops import accept_option, tested_option

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
@click.option(
    "--key",
    "keys",
    metavar="URI",
    multiple=True,
    help="A key's name or URI; all of this machine's otherwise; may be repeated in a workspace.",
)
@click.option(
    "--as", "called", metavar="NAME", help="Whose key it is, where URI and FILE alone do not say."
)
@tested_option
@accept_option
@passphrase_option
@click.pass_obj
def sign(
    context: Context,
    files: tuple[Path, ...],
    keys: tuple[str, ...],
    called: str | None,
    tested: tuple[str, ...],
    accepted: tuple[str, ...],
    descriptor: int | None,
) -> None:
    """Sign everything that waits for your keys: shows what changes, asks, signs.

    FILE is a ceremony that `firmroot ceremony export` wrote elsewhere; the signature is then also
    written beside it, for `firmroot ceremony merge`. No workspace is needed for that. What reaches
    its threshold is staged for `firmroot publish`. What changes is told from what you signed last
    on this machine; what is unusual is asked about. A lab workspace signs with all of its keys and
    does not ask.
    """
    if files and context.directory == Path() and not Path("firmroot.toml").exists():
        from repo_tools.cli.sign_apart import sign_apart  # noqa: PLC0415  or that, or this

        if len(keys) > 1:
            raise ConfigurationError(
                f"{len(keys)} keys are named; without a workspace one signs at a time",
                "run it once for each: --key URI",
            )
        key = keys[0] if keys else None
        sign_apart(context, files, key, called, descriptor, tested, accepted)
    elif called is not None:
        raise ConfigurationError(
            "--as is for signing a file without a workspace; here keys have names",
            f"firmroot sign --key {called}",
        )
    else:
        # Where only files are signed, the libraries of a workspace are not installed.
        from repo_tools.cli.sign_here import sign_here  # noqa: PLC0415

        sign_here(context, files, keys, descriptor, tested, accepted)
