"""`firmroot recover`: the way back from an accident."""

from __future__ import annotations

import click

from repo_tools.cli.context import Context, discard_option, example, passphrase_option
from repo_tools.cli.rotate import report_outcome, run_rotation
from repo_tools.rotation import recover_expired_root

__all__ = ["recover"]


@click.group(epilog=example("firmroot recover expired-root", "firmroot recover lost-key alice"))
def recover() -> None:
    """The way back from an accident."""


@recover.command("expired-root", epilog=example("firmroot recover expired-root"))
@passphrase_option
@click.pass_obj
def expired_root(context: Context, descriptor: int | None) -> None:
    """The newest root has expired: sign it again, unchanged, and whatever else has expired.

    Its own keys and threshold are enough; devices that were off for years follow.
    """
    ws = context.workspace()
    with ws.lock():
        outcome = recover_expired_root(ws, context.secrets(ws, descriptor), context.now)
    report_outcome(context, outcome, list(outcome.left))


_to_option = click.option("--to", "new", metavar="NEW", help="The key that takes its place.")


@recover.command("lost-key", epilog=example("firmroot recover lost-key alice --to alice-2"))
@click.argument("key")
@_to_option
@discard_option()
@passphrase_option
@click.pass_obj
def lost_key(
    context: Context, key: str, new: str | None, discard: tuple[str, ...], descriptor: int | None
) -> None:
    """A private key is lost: the others sign it out of its roles."""
    run_rotation(context, key, new, discard, descriptor, remove=False, compromised=False)


@recover.command("stolen-key", epilog=example("firmroot recover stolen-key ci --to ci-2"))
@click.argument("key")
@_to_option
@discard_option()
@passphrase_option
@click.pass_obj
def stolen_key(
    context: Context, key: str, new: str | None, discard: tuple[str, ...], descriptor: int | None
) -> None:
    """A private key is in other hands: it goes, and devices forget what it may have signed."""
    run_rotation(context, key, new, discard, descriptor, remove=False, compromised=True)
