"""`firmroot anchor`: the second root, which re-roots the fleet when the first is lost or stolen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from client_reference.errors import ConfigurationError, RefusedError
from repo_tools.anchor import (
    begin_epoch,
    check_begin,
    init_anchor,
    least_sequences,
    open_epoch,
    renew_anchor,
    underway,
    without_keys,
)
from repo_tools.cli.context import Context, discard_option, example, passphrase_option
from repo_tools.metadata.anchor import as_field
from repo_tools.metadata.roles import RECOVERY
from repo_tools.publishing.factory import load_registry
from repo_tools.publishing.following import followers
from repo_tools.publishing.inherit import primary_root
from repo_tools.publishing.recovery import publish_anchor
from repo_tools.signing.rules import enforce, enforce_sound

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from repo_tools.anchor import Opened
    from repo_tools.publishing.following import Follower
    from repo_tools.signing.ceremony import Ceremony
    from repo_tools.workspace import Workspace

__all__ = ["anchor"]

_discard = discard_option([RECOVERY])


@click.group(epilog=example("firmroot anchor init", "firmroot anchor re-root --without alice"))
def anchor() -> None:
    """The second root: other people, who re-root the fleet if the first is lost or stolen."""


@anchor.command("init", epilog=example("firmroot anchor init"))
@_discard
@click.pass_obj
def init(context: Context, discard: tuple[str, ...]) -> None:
    """Open the ceremony of the first recovery root, with the keys of roles.recovery.

    Do it before the first factory export: devices made without it can never use it.
    """
    ws = context.workspace()
    with ws.lock():
        enforce_sound(ws, context.now)
        ceremony = init_anchor(ws, context.now, discard_signatures=RECOVERY in discard)
    _say_waits(context, ceremony)


@anchor.command(epilog=example("firmroot anchor renew"))
@_discard
@click.pass_obj
def renew(context: Context, discard: tuple[str, ...]) -> None:
    """Open the next recovery root: the same statement, the keys that policy.toml names now."""
    ws = context.workspace()
    with ws.lock():
        enforce_sound(ws, context.now)
        ceremony = renew_anchor(ws, context.now, discard_signatures=RECOVERY in discard)
    _say_waits(context, ceremony)


def _say_waits(context: Context, ceremony: Ceremony) -> None:
    context.printer.say(f"{ceremony.name}: open, waits for signatures")
    context.printer.result({"ceremony": ceremony.name, "next": context.say_next()})


@anchor.command(
    "re-root",
    epilog=example(
        "firmroot anchor re-root --without alice --without bob",
        "firmroot anchor re-root --minimum gateway=12",
    ),
)
@click.option(
    "--without", "lost", multiple=True, metavar="KEY", help="A key that is lost or stolen; it goes."
)
@click.option(
    "--minimum",
    "minimum",
    multiple=True,
    metavar="PRODUCT=SEQUENCE",
    help="Least sequence that re-rooted devices install; else what its channels still offer.",
)
@click.option(
    "--accept-stranded",
    "accepted",
    multiple=True,
    metavar="ID",
    help="Go on although this factory export cannot follow; may be repeated.",
)
@_discard
@passphrase_option
@click.pass_obj
def re_root(
    context: Context,
    lost: tuple[str, ...],
    minimum: tuple[str, ...],
    accepted: tuple[str, ...],
    discard: tuple[str, ...],
    descriptor: int | None,
) -> None:
    """A threshold of root is lost or stolen: lead every device to a new root.

    Run it again after each step; it says what is due. Shows first which factory exports follow.
    """
    ws = context.workspace()
    least = _minimum(minimum)
    with ws.lock():
        begun = underway(ws)
        policy = without_keys(ws, lost)
        if begun and policy != ws.policy:
            raise ConfigurationError(
                f"epoch {ws.epoch} has begun: --without changes nothing any more",
                "edit policy.toml; then: firmroot ceremony start root",
            )
        if not begun:
            check_begin(ws, policy, context.now, discard_signatures=RECOVERY in discard)
        left = followers(ws, load_registry(ws))
        target = ws.epoch if begun else ws.epoch + 1
        _show(context, left, target)
        _check_stranded(left, accepted)
        names_root = primary_root(ws) is not None
        if not begun or names_root:
            shown = ws if begun else ws.after()
            _show_least(context, least_sequences(shown, least))
        if not begun:
            if not ws.config.lab:
                context.confirm(f"Leave epoch {ws.epoch} and begin epoch {target}?")
            ws = begin_epoch(ws, policy)
        enforce_sound(ws, context.now)
        done = open_epoch(ws, context.secrets(ws, descriptor), least, context.now)
    _report(context, ws, done, left)


def _minimum(values: Sequence[str]) -> dict[str, int]:
    found = {}
    for value in values:
        product, separator, number = value.partition("=")
        if not separator or not number.isdecimal():
            raise ConfigurationError(f"--minimum {value!r}: expected such as gateway=12")
        found[product] = int(number)
    return found


def _show(context: Context, exports: Sequence[Follower], epoch: int) -> None:
    for each in exports:
        count = f"{each.export.count or 'unknown'} devices"
        verdict = f"STAY BEHIND: {each.obstacle}" if each.obstacle else f"follow to epoch {epoch}"
        context.printer.say(f"{each.export.id}  {count}  {verdict}")
    if not exports:
        context.printer.say("no factory export is in service: no device has to follow")


def _show_least(context: Context, least: dict[str, int]) -> None:
    for product, sequence in least.items():
        context.printer.say(f"devices of {product} then install nothing below sequence {sequence}")


def _check_stranded(exports: Sequence[Follower], accepted: Collection[str]) -> None:
    """Going on leaves these devices to whoever has the old root: each must be named."""
    names = [each.export.id for each in exports if each.obstacle and each.export.id not in accepted]
    if names:
        raise RefusedError(
            f"{len(names)} factory export(s) cannot follow the anchor and would be left behind",
            "if they are lost or will be reflashed by hand: "
            + " ".join(f"--accept-stranded {name}" for name in names),
        )


def _report(context: Context, ws: Workspace, done: Opened, exports: Sequence[Follower]) -> None:
    for name in done.ceremonies:
        context.printer.say(f"{name}: open, waits for signatures")
    for role in done.builds:
        context.printer.say(f"{role}: signed again on this machine")
    for sentence in done.left:
        context.printer.say(f"then: {sentence}")
    facts: dict[str, Any] = {
        "epoch": ws.epoch,
        "opened": list(done.ceremonies),
        "builds": list(done.builds),
        "left": list(done.left),
        "exports": [
            {"id": each.export.id, "follows": not each.obstacle, "obstacle": each.obstacle}
            for each in exports
        ],
        "statement": as_field(done.statement) if done.statement else None,
        "next": context.say_next(),
    }
    context.printer.result(facts)


@anchor.command(epilog=example("firmroot anchor publish"))
@click.pass_obj
def publish(context: Context) -> None:
    """Write the recovery root that has its signatures to the recovery storage, for good.

    If it begins an epoch, devices leave the old one from now on, each at its next probe.
    """
    ws = context.workspace()
    with ws.lock():
        enforce(ws, context.now)
        new, statement = publish_anchor(ws)
    url = ws.recovery_storage().url
    names = ", ".join(f"{version}.root.json" for version in new)
    context.printer.say(f"{url}: {f'{names} is there now' if new else 'everything was there'}")
    context.printer.say(f"devices that can follow start from epoch {statement.epoch}")
    facts = {"published": list(new), "storage": url, **as_field(statement)}
    context.printer.result({**facts, "next": context.say_next()})
