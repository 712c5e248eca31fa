"""`firmroot channel`: what devices on a channel should run."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from client_reference.errors import ConfigurationError
from client_reference.manifest import GroupWave, Manifest, Rollout
from client_reference.nearest import did_you_mean
from repo_tools.cli.context import Context, discard_option, example
from repo_tools.metadata.edits import format_time
from repo_tools.publishing.channels import (
    promote as promote_release,
)
from repo_tools.publishing.channels import (
    propose_hold,
    propose_manifest,
    read_channel,
)
from repo_tools.publishing.channels import (
    withdraw as withdraw_release,
)
from repo_tools.publishing.factory import load_registry
from repo_tools.publishing.promote import (
    EVERYBODY,
    describe_difference,
    next_hold,
    parse_channel,
    parse_reference,
    parse_waves,
    with_minimum,
)
from repo_tools.publishing.withdraw import Follows, offered

if TYPE_CHECKING:
    from client_reference.manifest import Release
    from repo_tools.publishing.channels import Channel, Withdrawal
    from repo_tools.signing.ceremony import Ceremony
    from repo_tools.workspace import Workspace

__all__ = ["channel"]


@click.group(epilog=example("firmroot channel show gateway/stable"))
def channel() -> None:
    """What devices on a channel should run."""


@channel.command(
    epilog=example(
        "firmroot channel promote gateway@1.1 --to stable",
        "firmroot channel promote gateway@1.2 --to stable --waves 1,20,100 --severity security",
    )
)
@click.argument("reference", metavar="REF")
@click.option("--to", "name", required=True, metavar="CHANNEL", help="Which channel.")
@click.option("--waves", metavar="LIST", help="Percent of the fleet, a day apart: 1,20,100.")
@click.option("--severity", default="", help="A word for people, such as security.")
@click.option("--notes", default="", help="Where the release notes are.")
@click.option("--stone", is_flag=True, help="Keep it as a stepping stone for old devices.")
@click.option(
    "--from", "origin", metavar="REF", help="The oldest release that may install it directly."
)
@discard_option()
@click.pass_obj
def promote(  # noqa: PLR0913  a click command gets its options one by one
    context: Context,
    reference: str,
    name: str,
    waves: str | None,
    severity: str,
    notes: str,
    origin: str | None,
    discard: tuple[str, ...],
    *,
    stone: bool,
) -> None:
    """Offer a release on a channel; opens the ceremony that its release managers sign."""
    ref = parse_reference(reference)
    rollout = Rollout(
        start=context.now,
        seed=secrets.token_hex(8),
        paused=False,
        waves=EVERYBODY if waves is None else parse_waves(waves),
    )
    ws = context.workspace()
    with ws.lock():
        ceremony, manifest = promote_release(
            ws,
            ws.storage(),
            ref,
            name,
            rollout,
            context.now,
            severity=severity,
            notes=notes,
            stone=stone,
            from_sequence=0 if origin is None else _sequence(ws, ref.product, name, origin),
            discard_signatures=_named(discard, f"{ref.product}-{name}"),
        )
    versions = ", ".join(_versions(manifest))
    context.printer.say(f"{ref} goes to {ref.product}/{name}, which then offers {versions}")
    _next(context, ceremony, release=str(ref), channel=f"{ref.product}/{name}")


def _sequence(ws: Workspace, product: str, name: str, reference: str) -> int:
    """The sequence of a release that a channel offers."""
    ref = parse_reference(reference)
    if ref.product != product:
        raise ConfigurationError(f"{ref} is not a release of {product}")
    return _find(read_channel(ws, ws.storage(), product, name), ref.version).sequence


def _named(discard: tuple[str, ...], role: str) -> bool:
    """Whether the loss of signatures was accepted by naming their role."""
    if other := [each for each in discard if each != role]:
        raise ConfigurationError(
            f"--discard-signatures {other[0]}: this command changes {role}",
            f"--discard-signatures {role}",
        )
    return bool(discard)


def _next(context: Context, ceremony: Ceremony, **facts: Any) -> None:  # noqa: ANN401  for JSON
    context.printer.say(f"{ceremony.role} {ceremony.version} waits for signatures")
    following = context.say_next()
    context.printer.result({"ceremony": ceremony.name, "next": following, **facts})


@channel.command("list", epilog=example("firmroot channel list"))
@click.pass_obj
def list_channels(context: Context) -> None:
    """List every channel with what it offers now and next."""
    ws = context.workspace()
    rows: dict[str, Any] = {}
    for product in ws.config.products.values():
        for name in product.channels:
            found = read_channel(ws, ws.storage(), product.name, name)
            live, following = _versions(found.live), _versions(found.next)
            rows[f"{product.name}/{name}"] = {
                "live": live,
                "next": following,
                "held": sorted(found.live_hold.sequences),
                "next_held": sorted(found.next_hold.sequences),
            }
            then = "" if live == following else f"  next: {', '.join(following) or 'nothing'}"
            held = [
                f"  {each.version}: {word}"
                for each in (found.live.releases if found.live else ())
                if (word := _held(each, found))
            ]
            offered = ", ".join(live) or "nothing"
            context.printer.say(f"{product.name}/{name}  {offered}{then}{''.join(held)}")
    if not rows:
        context.printer.say("no channel yet; firmroot product add NAME --hardware ID")
    context.printer.result(rows)


def _versions(manifest: Manifest | None) -> list[str]:
    return [release.version for release in offered(manifest)] if manifest is not None else []


@channel.command(epilog=example("firmroot channel show gateway/stable"))
@click.argument("reference", metavar="CHANNEL")
@click.pass_obj
def show(context: Context, reference: str) -> None:
    """Show what a channel offers: releases, waves, holds."""
    ws = context.workspace()
    found = read_channel(ws, ws.storage(), *parse_channel(reference))
    for title, manifest in (("live", found.live), ("next", found.next)):
        if manifest is None or (title == "next" and found.next == found.live):
            continue
        context.printer.say(f"{title}: minimum sequence {manifest.minimum_sequence}")
        gone = {entry.sequence: entry for entry in manifest.withdrawn}
        for release in manifest.releases:
            line = _line(release, found)
            if (entry := gone.pop(release.sequence, None)) is not None:
                line += f"; WITHDRAWN: {entry.reason}"
            context.printer.say(f"  {line}")
        for entry in gone.values():
            context.printer.say(
                f"  {entry.version}  sequence {entry.sequence}; WITHDRAWN: {entry.reason}"
            )
    if found.next is None:
        context.printer.say("nothing was promoted to it yet")
    context.printer.result(
        {
            "channel": reference,
            "live": _versions(found.live),
            "next": _versions(found.next),
            "withdrawn": _withdrawn(found.live),
            "next_withdrawn": _withdrawn(found.next),
            "held": sorted(found.live_hold.sequences),
            "next_held": sorted(found.next_hold.sequences),
        }
    )


def _withdrawn(manifest: Manifest | None) -> list[str]:
    return [entry.version for entry in manifest.withdrawn] if manifest is not None else []


def _held(release: Release, found: Channel) -> str:
    """Whether devices obey a hold, and whether that is about to change."""
    now, then = (release.sequence in hold.sequences for hold in (found.live_hold, found.next_hold))
    if now:
        return "HELD" if then else "HELD; unhold waits"
    return "hold waits" if then else ""


def _line(release: Release, found: Channel) -> str:
    waves = ", ".join(
        f"{wave.after_hours} h: {' '.join(wave.groups)}"
        if isinstance(wave, GroupWave)
        else f"{wave.after_hours} h: {wave.permille / 10:g} %"
        for wave in release.rollout.waves
    )
    notes = [
        f"sequence {release.sequence}",
        f"from {format_time(release.rollout.start)}",
        waves,
        *(["stepping stone"] if release.stone else []),
        *([release.severity] if release.severity else []),
        *([held] if (held := _held(release, found)) else []),
    ]
    return f"{release.version}  {'; '.join(notes)}"


@channel.command(epilog=example("firmroot channel diff gateway/stable"))
@click.argument("reference", metavar="CHANNEL")
@click.pass_obj
def diff(context: Context, reference: str) -> None:
    """Show what the newest manifest changes against the live one."""
    ws = context.workspace()
    product, name = parse_channel(reference)
    found = read_channel(ws, ws.storage(), product, name)
    nothing = Manifest(product, name, 0, ())
    change = describe_difference(found.live or nothing, found.next or nothing)
    for sign, versions in (
        ("+", change.added),
        ("-", change.removed),
        ("~", change.changed),
        ("withdrawn", change.withdrawn),
    ):
        for version in versions:
            context.printer.say(f"{sign} {version}")
    if change.minimum is not None:
        context.printer.say(f"minimum sequence {change.minimum[0]} -> {change.minimum[1]}")
    if not any(vars(change).values()):
        context.printer.say("no difference: what is signed is live")
    context.printer.result({"channel": reference, **vars(change)})


@channel.command(epilog=example("firmroot channel minimum gateway@1.1 --on stable"))
@click.argument("reference", metavar="REF")
@click.option("--on", "name", required=True, metavar="CHANNEL", help="Which channel.")
@discard_option()
@click.pass_obj
def minimum(context: Context, reference: str, name: str, discard: tuple[str, ...]) -> None:
    """Let nothing older than a release be installed from a channel."""
    ref = parse_reference(reference)
    ws = context.workspace()
    with ws.lock():
        found = read_channel(ws, ws.storage(), ref.product, name)
        release = _find(found, ref.version)
        manifest = with_minimum(found.next or Manifest(ref.product, name, 0, ()), release)
        accepted = _named(discard, f"{ref.product}-{name}")
        ceremony = propose_manifest(ws, manifest, context.now, discard_signatures=accepted)
    context.printer.say(f"{ref.product}/{name} accepts nothing older than {ref.version}")
    _next(context, ceremony, channel=f"{ref.product}/{name}", minimum=release.sequence)


def _find(found: Channel, version: str) -> Release:
    for release in found.next.releases if found.next is not None else ():
        if release.version == version:
            return release
    offered = _versions(found.next)
    raise ConfigurationError(
        f"{found.product}/{found.channel} does not offer {version}; "
        f"it offers: {', '.join(offered) or 'nothing'}{did_you_mean(version, offered)}",
        f"firmroot channel show {found.product}/{found.channel}",
    )


@channel.command(
    epilog=example('firmroot channel withdraw gateway@1.1 --on stable --reason "the modem hangs"')
)
@click.argument("reference", metavar="REF")
@click.option("--on", "name", required=True, metavar="CHANNEL", help="Which channel.")
@click.option("--reason", required=True, metavar="TEXT", help="Why; every device shows it.")
@click.option(
    "--accept-stranded",
    "accepted",
    multiple=True,
    metavar="ID",
    help="Withdraw it although this factory export would be left behind; may be repeated.",
)
@discard_option()
@click.pass_obj
def withdraw(
    context: Context,
    reference: str,
    name: str,
    reason: str,
    accepted: tuple[str, ...],
    discard: tuple[str, ...],
) -> None:
    """Take a release back: no device starts it any more. Who runs it stays until something newer.

    Opens the ceremony that the channel's release managers sign. Until that is published, a hold
    (one key) stops it faster.
    """
    ref = parse_reference(reference)
    ws = context.workspace()
    with ws.lock():
        found = withdraw_release(
            ws,
            ws.storage(),
            ref,
            name,
            reason,
            context.now,
            accepted=accepted,
            discard_signatures=_named(discard, f"{ref.product}-{name}"),
        )
    place = f"{ref.product}/{name}"
    versions = ", ".join(_versions(found.manifest)) or "nothing"
    context.printer.say(f"{ref} is withdrawn from {place}, which then offers {versions}")
    _say_effects(context, ws, found)
    for other in found.elsewhere:
        context.printer.say(f"{ref} is still offered on {other}")
    following = {each.follows for each in found.effects}
    if Follows.WAITS in following and found.fallback is not None:
        again = f"{ref.product}@{found.fallback.version}"
        context.printer.say(
            f"for devices that have not got so far: firmroot channel promote {again} --to {name}"
        )
    if Follows.STAYS in following:
        context.printer.say(
            f"for devices that run {ref.version}: firmroot firmware add FILE -p {ref.product} "
            "-V NEW, with the mended or the old bytes, and promote that"
        )
    _next(
        context,
        found.ceremony,
        release=str(ref),
        channel=place,
        offers=_versions(found.manifest),
        elsewhere=found.elsewhere,
        devices=[{**vars(each), "follows": each.follows.value} for each in found.effects],
    )


def _say_effects(context: Context, ws: Workspace, found: Withdrawal) -> None:
    """Which registered devices it concerns, and which of them can follow."""
    counts = {export.id: export.count for export in load_registry(ws)}
    if not found.effects:
        context.printer.say("no registered device is affected")
    for each in found.effects:
        runs = f"on {each.runs}" if each.runs else "as shipped"
        made = f" ({counts[each.export]} made)" if counts.get(each.export) else ""
        context.printer.say(
            f"device   {each.export}{made}, {each.hardware}, {runs}: {each.follows.value}, "
            f"{each.detail}"
        )


@channel.command(epilog=example("firmroot channel hold gateway@1.1 --on stable"))
@click.argument("reference", metavar="REF")
@click.option("--on", "name", required=True, metavar="CHANNEL", help="Which channel.")
@discard_option()
@click.pass_obj
def hold(context: Context, reference: str, name: str, discard: tuple[str, ...]) -> None:
    """Stop a release: no device starts it while it is held. One key on call is enough."""
    _hold(context, reference, name, discard, held=True)


@channel.command(epilog=example("firmroot channel unhold gateway@1.1 --on stable"))
@click.argument("reference", metavar="REF")
@click.option("--on", "name", required=True, metavar="CHANNEL", help="Which channel.")
@discard_option()
@click.pass_obj
def unhold(context: Context, reference: str, name: str, discard: tuple[str, ...]) -> None:
    """Let a held release go on."""
    _hold(context, reference, name, discard, held=False)


def _hold(
    context: Context, reference: str, name: str, discard: tuple[str, ...], *, held: bool
) -> None:
    ref = parse_reference(reference)
    ws = context.workspace()
    with ws.lock():
        found = read_channel(ws, ws.storage(), ref.product, name)
        sequence = _find(found, ref.version).sequence
        if held == (sequence in found.next_hold.sequences):
            word = "is held already" if held else "is not held"
            raise ConfigurationError(
                f"{ref} {word} on {ref.product}/{name}",
                f"firmroot channel show {ref.product}/{name}",
            )
        change = {"add": sequence} if held else {"remove": sequence}
        following = next_hold(replace(found.next_hold), **change)
        accepted = _named(discard, f"{ref.product}-{name}-hold")
        ceremony = propose_hold(ws, following, context.now, discard_signatures=accepted)
    word = "stops" if held else "goes on"
    context.printer.say(f"{ref} {word} on {ref.product}/{name} once this is signed and published")
    _next(context, ceremony, release=str(ref), held=held)
