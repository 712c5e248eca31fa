"""`firmroot rotate`: replace or remove a key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from client_reference.errors import ConfigurationError
from repo_tools.cli.context import Context, discard_option, drop_option, example, passphrase_option
from repo_tools.metadata.roles import builds_role
from repo_tools.publishing.bridge import Gone
from repo_tools.rotation import check_rotations, find_key, free_name, is_replaced, prepare, steps
from repo_tools.rotation import rotate as carry_out
from repo_tools.theft import built_with, check_drop, exposure

if TYPE_CHECKING:
    from repo_tools.metadata.rotation import Rotation
    from repo_tools.rotation import Outcome
    from repo_tools.workspace import Workspace

__all__ = ["report_outcome", "rotate", "run_rotation"]


@click.command(
    epilog=example(
        "firmroot rotate alice --to alice-2",
        "firmroot rotate ci --to ci-2 --compromised",
    )
)
@click.argument("key")
@click.option("--to", "new", metavar="NEW", help="The key that takes its place.")
@click.option("--remove", is_flag=True, help="Remove it without a successor.")
@click.option("--compromised", is_flag=True, help="Somebody else may have the private key.")
@drop_option
@discard_option()
@passphrase_option
@click.pass_obj
def rotate(
    context: Context,
    key: str,
    new: str | None,
    discard: tuple[str, ...],
    descriptor: int | None,
    drop: tuple[str, ...],
    *,
    remove: bool,
    compromised: bool,
) -> None:
    """Replace or remove KEY in every role of the policy.

    Shows every step, asks, and does what can be done here; run again after an interruption, it
    goes on. Changes policy.toml and opens the ceremonies that put it into force; who remains signs
    them. In a lab the successor is made at once.
    """
    if drop and not compromised:
        raise click.UsageError("--drop goes with --compromised")
    gone = Gone.STOLEN if compromised else None
    run_rotation(context, key, new, discard, descriptor, remove=remove, gone=gone, drop=drop)


def run_rotation(
    context: Context,
    key: str,
    new: str | None,
    discard: tuple[str, ...],
    descriptor: int | None,
    *,
    remove: bool,
    gone: Gone | None,
    drop: tuple[str, ...] = (),
) -> None:
    """Plan, ask, do: also for `firmroot recover`."""
    compromised = gone is Gone.STOLEN
    ws = context.workspace()
    find_key(ws, key)
    if new is not None and remove:
        raise click.UsageError(f"either --to {new}, or --remove")
    if new is None and not remove and not ws.config.lab:
        name, command = free_name(ws, key), click.get_current_context().command_path
        raise ConfigurationError(
            f"{key} needs a successor, or none: neither --to NEW nor --remove is given",
            f"its holder makes one: firmroot key new {name} (without --role), then: {command} "
            f"{key} --to {name}; without a successor: firmroot rotate {key} --remove",
        )
    if drop and is_replaced(ws, key):
        raise ConfigurationError(
            f"{key} is in no role any more",
            "what its thief had published meanwhile is left out, where the key that took its place "
            f"is, by: firmroot ceremony start {builds_role('PRODUCT')} --drop REF",
        )
    with ws.lock():
        rotations = prepare(
            ws,
            key,
            new,
            make=new is None and not remove,
            compromised=compromised,
            passphrase=lambda name: context.new_passphrase(ws, descriptor, name),
            now=context.now,
        )
        ws = context.workspace()
        check_rotations(ws, rotations, context.now, discard, gone)
        _show(context, rotations)
        if compromised:
            _show_theft(context, ws, key, drop)
        for number, step in enumerate(steps(ws, rotations, gone, context.now), 1):
            context.printer.say(f"  {number}. {step}")
        if not ws.config.lab:
            context.confirm("Do it?")
        secrets = context.secrets(ws, descriptor)
        outcome = carry_out(ws, rotations, secrets, context.now, gone=gone, drop=drop)
    left = list(outcome.left)
    if rotations[0].snapshot and len(rotations) == 1:
        names = " and ".join(ws.policy.role("snapshot").keys)
        successor = "" if ws.config.lab else " --to NEW"
        left.append(
            f"the snapshot key must rotate too, so that devices forget versions that {key} may "
            f"have signed; where {names} is: firmroot rotate {names}{successor}"
        )
    report_outcome(context, outcome, left)


def _show(context: Context, rotations: list[Rotation]) -> None:
    for each in rotations:
        change = f"{each.new} takes the place of {each.old}" if each.new else f"{each.old} goes"
        where = ", ".join(each.sections) or "roles that are signed already"
        context.printer.say(f"{change} in: {where}")


def _show_theft(context: Context, ws: Workspace, key: str, drop: tuple[str, ...]) -> None:
    """What the thief can have signed, and what would be signed again with the next key."""
    for sentence in exposure(ws, key):
        context.printer.say(f"stolen     {sentence}")
    built = built_with(ws, key)
    check_drop(built, drop)
    for each in built:
        where = f"offered on {', '.join(each.offered)}" if each.offered else "no channel offers it"
        verb = "dropped" if each.ref in drop else "signed again"
        context.printer.say(f"{verb:<12} {each.ref} (sequence {each.sequence}), {where}")
    if built:
        context.printer.say(
            "compare them with what you built; whatever is not yours and no channel offers: "
            "--drop REF"
        )


def report_outcome(context: Context, outcome: Outcome, left: list[str]) -> None:
    """What waits now, and the next command."""
    for name in outcome.ceremonies:
        context.printer.say(f"{name}: open, waits for signatures")
    for name in outcome.renewed:
        context.printer.say(f"{name}: signed again on this machine")
    for sentence in left:
        context.printer.say(f"then: {sentence}")
    following = context.say_next()
    context.printer.result(
        {
            "ceremonies": list(outcome.ceremonies),
            "renewed": list(outcome.renewed),
            "left": left,
            "next": following,
        }
    )
