"""`firmroot recover`: the way back from an accident."""

from __future__ import annotations

import click

from repo_tools.cli.context import Context, discard_option, drop_option, example, passphrase_option
from repo_tools.cli.rotate import report_outcome, run_rotation
from repo_tools.metadata.edits import MAX_VERSION
from repo_tools.publishing.bridge import Gone
from repo_tools.rotation import plan_sequence_reset, recover_expired_root, reset_sequence

__all__ = ["recover"]


@click.group(epilog=example("firmroot recover expired-root", "firmroot recover lost-key alice"))
def recover() -> None:
    """The way back from an accident."""


@recover.command("expired-root", epilog=example("firmroot recover expired-root"))
@discard_option()
@passphrase_option
@click.pass_obj
def expired_root(context: Context, discard: tuple[str, ...], descriptor: int | None) -> None:
    """The newest root has expired: sign it again, unchanged, and whatever else has expired.

    Its own keys and threshold are enough; devices that were off for years follow.
    """
    ws = context.workspace()
    with ws.lock():
        secrets = context.secrets(ws, descriptor)
        outcome = recover_expired_root(ws, secrets, context.now, discard)
    report_outcome(context, outcome, list(outcome.left))


@recover.command("sequence", epilog=example("firmroot recover sequence gateway --to 2"))
@click.argument("product")
@click.option(
    "--to",
    required=True,
    type=click.IntRange(0, MAX_VERSION),
    metavar="N",
    help="What devices confirmed counts as no more than this sequence.",
)
@discard_option()
@click.pass_obj
def sequence(context: Context, product: str, to: int, discard: tuple[str, ...]) -> None:
    """Thieves had devices of PRODUCT confirm a sequence that nothing honest will ever reach.

    The next targets takes it back, once for each device. Channel and builds keys must be rotated
    first (recover stolen-key), or the thieves do it again.
    """
    ws = context.workspace()
    with ws.lock():
        planned = plan_sequence_reset(ws, product, to, discard)
        context.printer.say(
            f"every device of {product} that confirmed more than sequence {to} goes back to it; "
            f"these may be installed again: {', '.join(planned.again)}"
        )
        if not ws.config.lab:
            context.confirm("Do it?")
        outcome = reset_sequence(ws, planned, context.now)
    report_outcome(context, outcome, [])


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
    run_rotation(context, key, new, discard, descriptor, remove=False, gone=Gone.LOST)


@recover.command("stolen-key", epilog=example("firmroot recover stolen-key ci --to ci-2"))
@click.argument("key")
@_to_option
@drop_option
@discard_option()
@passphrase_option
@click.pass_obj
def stolen_key(
    context: Context,
    key: str,
    new: str | None,
    drop: tuple[str, ...],
    discard: tuple[str, ...],
    descriptor: int | None,
) -> None:
    """A private key is in other hands: it goes, and devices forget what it may have signed."""
    run_rotation(context, key, new, discard, descriptor, remove=False, gone=Gone.STOLEN, drop=drop)
