"""`firmroot factory`: what a device is born with."""

from __future__ import annotations

from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import click
from tuf.api.metadata import Root

from client_reference.errors import ActionRequiredError, ConfigurationError, RefusedError
from client_reference.install.handlers import HANDLERS
from client_reference.trust.recovery import read_statement
from client_reference.trust.reset import read_resets
from repo_tools.cli.context import Context, example
from repo_tools.metadata.edits import ISSUED_FIELD, format_time, is_lab_root
from repo_tools.metadata.repository import parse
from repo_tools.metadata.roles import RECOVERY
from repo_tools.publishing.channels import check_channel, read_channel
from repo_tools.publishing.factory import (
    Export,
    Target,
    device_toml,
    load_registry,
    make_package,
    register,
    retire,
    write_package,
)
from repo_tools.publishing.prepare import read_base

if TYPE_CHECKING:
    from repo_tools.publishing.factory import Package
    from repo_tools.publishing.live import Live
    from repo_tools.workspace import Workspace

__all__ = ["factory"]

_LAB_SERVER = "http://127.0.0.1:8080/"
_SOON = timedelta(days=30)


@click.group(epilog=example("firmroot factory list"))
def factory() -> None:
    """What a device is born with: trust, floors, configuration."""


@factory.command(
    epilog=example(
        "firmroot factory export gateway --to ../device",
        "firmroot factory export gateway --to out --channel beta --server https://fw.acme.example/",
    )
)
@click.argument("product")
@click.option(
    "--to",
    "directory",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The directory to write, device.toml at its top.",
)
@click.option("--channel", default="stable", show_default=True, help="What the devices follow.")
@click.option(
    "--server", "servers", multiple=True, metavar="URL", help="A mirror; may be repeated."
)
@click.option(
    "--handler",
    default="slot",
    show_default=True,
    type=click.Choice(tuple(HANDLERS)),
    help="What installs the firmware.",
)
@click.option("--count", default=0, type=click.IntRange(min=0), help="Devices made with it.")
@click.pass_obj
def export(
    context: Context,
    product: str,
    directory: Path,
    channel: str,
    servers: tuple[str, ...],
    handler: str,
    count: int,
) -> None:
    """Write what a new device needs, and register it: from now on no publish may strand it."""
    ws = context.workspace()
    check_channel(ws, product, channel)
    mirrors = _mirrors(servers or ws.config.urls, lab=ws.config.lab)
    target = Target(
        product=product,
        channel=channel,
        hardware=ws.config.products[product].hardware,
        handler=handler,
        mirrors=mirrors,
        recovery=_recovery_urls(context, ws, mirrors[0]),
    )
    with ws.lock():
        live = _published(ws)
        root = parse(live.state.roots[-1], Root, "root").signed
        _check_root(context, root)
        package = _package(ws, live, target)
        entry = register(ws, _entry(context, ws, target, root, count), package)
        write_package(package, directory)
    lab = is_lab_root(root)
    mark = "LAB export, never for devices in the field: " if lab else ""
    context.printer.say(f"{mark}{directory} is {entry.id}, with root {root.version}")
    following = _next(directory, lab=lab)
    for line in following:
        context.printer.say(line)
    context.say_unshared(ws)
    context.printer.result(
        {
            **vars(entry),
            "directory": str(directory),
            "lab": lab,
            "next": " ".join(line.strip() for line in following).removeprefix("next: "),
        }
    )


def _next(directory: Path, *, lab: bool) -> list[str]:
    """What becomes of an export: a lab device lives in its directory, a real one in an image."""
    if lab:
        return [f"next: firmroot-device --config {directory / 'device.toml'} init"]
    return [
        f"next: copy {directory / 'factory'}/ into the image as /usr/share/firmroot/",
        f"  and {directory / 'device.toml'} as /etc/firmroot/device.toml, its hardware, slots and",
        "  boot loader made those of your device (docs/device-integration.md)",
        "  then, once at the first boot: firmroot-device init",
    ]


def _package(ws: Workspace, live: Live, target: Target) -> Package:
    """The files for that target: trust and floors from what is live now."""
    manifest = read_channel(ws, ws.storage(), target.product, target.channel).live
    if manifest is None:
        raise ActionRequiredError(
            f"nothing is published on {target.product}/{target.channel} yet: "
            "its devices would find nothing",
            f"firmroot channel promote {target.product}@VERSION --to {target.channel}",
        )
    targets = live.state.targets
    found = None if targets is None else read_resets(targets).get(target.product)
    return make_package(
        target.product,
        live.state.roots[-1],
        _floor(live),
        manifest.minimum_sequence,
        device_toml(target, lab=ws.config.lab),
        epoch=ws.epoch,
        recovery=next(reversed(ws.recovery_roots()), None),
        reset=0 if found is None else found.since,
    )


def _recovery_urls(context: Context, ws: Workspace, server: str) -> tuple[str, ...]:
    """Where the devices ask for the recovery anchor; nowhere if there is none.

    Raises:
        ActionRequiredError: what is live is of an epoch that the published anchor does not name.
        ConfigurationError: there is an anchor, and nobody knows where.
    """
    if (anchor := next(reversed(ws.recovery_roots()), None)) is None:
        if not ws.config.lab:
            context.printer.say(
                "warning: these devices get no recovery anchor: if a threshold of root is lost or "
                "stolen, they must be reflashed by hand; first: firmroot anchor init"
            )
        return ()
    named = read_statement(parse(anchor, Root, RECOVERY).signed).epoch
    if named != ws.epoch:
        raise ActionRequiredError(
            f"the published anchor is at epoch {named}, this workspace at {ws.epoch}: a device "
            "would leave the factory between the two",
            "firmroot anchor publish",
        )
    urls = ws.config.recovery_urls or ((f"{server}recovery/",) if ws.config.lab else ())
    if not urls:
        raise ConfigurationError(
            "the devices would not know where to ask for the recovery anchor",
            "set `recovery_urls` in firmroot.toml",
        )
    return tuple(url if url.endswith("/") else f"{url}/" for url in urls)


def _entry(context: Context, ws: Workspace, target: Target, root: Root, count: int) -> Export:
    """What the registry says of it; `register` names it."""
    return Export(
        id="",
        product=target.product,
        channel=target.channel,
        hardware=target.hardware,
        handler=target.handler,
        date=format_time(context.now)[:10],
        root_version=root.version,
        client_version=version("firmroot"),
        count=count,
        epoch=ws.epoch,
        recovery_version=len(ws.recovery_roots()),
    )


def _mirrors(urls: tuple[str, ...], *, lab: bool) -> tuple[str, ...]:
    found = urls or ((_LAB_SERVER,) if lab else ())
    if not found:
        raise ConfigurationError(
            "the devices would not know where to fetch from",
            "set `urls` in firmroot.toml, or name them: --server https://fw.example/",
        )
    if wrong := [url for url in found if not url.startswith(("http://", "https://"))]:
        raise ConfigurationError(
            f"{wrong[0]!r} is not the URL of a server", "expected http://... or https://..."
        )
    return tuple(url if url.endswith("/") else f"{url}/" for url in found)


def _published(ws: Workspace) -> Live:
    if not ws.roots():
        raise ActionRequiredError(
            "nothing is published yet: a device needs a root that can be followed",
            "firmroot publish",
        )
    return read_base(ws, ws.storage())


def _check_root(context: Context, root: Root) -> None:
    """A root that has ended can still be followed, but it is a bad start of a life on a shelf."""
    if root.expires <= context.now:
        raise RefusedError(
            f"root {root.version} expired on {root.expires:%Y-%m-%d}; new devices would start "
            "with a certificate that has ended",
            "firmroot recover expired-root, publish, then export again",
        )
    if root.expires <= context.now + _SOON:
        click.echo(
            f"warning: root {root.version} expires on {root.expires:%Y-%m-%d}; "
            "renew it first: firmroot ceremony start root",
            err=True,
        )


def _floor(live: Live) -> str:
    """Verified evidence of how late it is: when the live timestamp was issued."""
    timestamp = live.state.parsed_timestamp()
    issued = None if timestamp is None else timestamp.unrecognized_fields.get(ISSUED_FIELD)
    if not isinstance(issued, str):
        raise ActionRequiredError(
            "the live timestamp does not say when it was issued", "firmroot refresh"
        )
    return issued


@factory.command("list", epilog=example("firmroot factory list"))
@click.pass_obj
def list_exports(context: Context) -> None:
    """List every export there ever was."""
    exports = load_registry(context.workspace())
    for each in exports:
        state = f"retired {each.retired}" if each.retired else "in service"
        anchor = f"recovery {each.recovery_version}" if each.recovery_version else "no anchor"
        context.printer.say(
            f"{each.id}  {each.date}  {each.product}/{each.channel}  root {each.root_version}  "
            f"epoch {each.epoch}, {anchor}  "
            f"client {each.client_version}  {each.count or 'unknown'} devices  {state}"
        )
    if not exports:
        context.printer.say("no export yet; firmroot factory export PRODUCT --to DIR")
    context.printer.result({"exports": [vars(each) for each in exports]})


@factory.command("retire", epilog=example("firmroot factory retire gateway-stable-1f00aa42"))
@click.argument("name", metavar="ID")
@click.pass_obj
def retire_export(context: Context, name: str) -> None:
    """Say that no device of an export is in service: it is rehearsed no longer."""
    ws = context.workspace()
    with ws.lock():
        context.confirm(f"No device of {name} is in service any more, and none may be stranded?")
        entry = retire(ws, name, format_time(context.now)[:10])
    context.printer.say(f"{entry.id} is retired since {entry.retired}")
    context.say_unshared(ws)
    context.printer.result(vars(entry))
