"""`firmroot firmware`: files and the releases that they make."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from client_reference.errors import ConfigurationError
from client_reference.install.handlers import HANDLERS
from client_reference.nearest import did_you_mean
from client_reference.payload.segments import SUFFIX
from repo_tools.cli.context import Context, example, passphrase_option
from repo_tools.metadata.bins import RECENT
from repo_tools.metadata.roles import channel_role
from repo_tools.publishing.artifacts import Labels
from repo_tools.publishing.bulk import find, import_directory
from repo_tools.publishing.channels import check_product
from repo_tools.publishing.firmware import Near, add_firmware, read_builds
from repo_tools.publishing.online import can_sign
from repo_tools.publishing.promote import parse_reference

if TYPE_CHECKING:
    from typing import Any

    from tuf.api.metadata import TargetFile

    from repo_tools.publishing.firmware import Builds

__all__ = ["firmware"]


@click.group(epilog=example("firmroot firmware list"))
def firmware() -> None:
    """Firmware files and their releases."""


_handler = click.option(
    "--handler",
    default="slot",
    show_default=True,
    help=f"How devices install it: {' or '.join(HANDLERS)}.",
)


@firmware.command(
    epilog=example(
        "firmroot firmware add build/gw2.ext4 -p gateway -V 1.0 --hardware acme,gw-2",
    )
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-p", "--product", required=True, help="Whose firmware it is.")
@click.option("-V", "--version", required=True, help="A label; never compared.")
@click.option("--hardware", multiple=True, required=True, metavar="ID", help="May be repeated.")
@_handler
@passphrase_option
@click.pass_obj
def add(
    context: Context,
    file: Path,
    product: str,
    version: str,
    hardware: tuple[str, ...],
    handler: str,
    descriptor: int | None,
) -> None:
    """Add a firmware file: copy it, hash it, sign it with the builder's key.

    Nobody sees it before it is promoted to a channel and published.
    """
    ws = context.workspace()
    labels = Labels(product, version, frozenset(hardware), handler, file.name)
    secrets = context.secrets(ws, descriptor)
    with ws.lock(), _progress_bar(context, file) as bar:
        added = add_firmware(ws, ws.storage(), file, labels, secrets, context.now, bar.update)
    word = "added as" if added.new else "is there already as"
    context.printer.say(
        f"{file.name} {word} {product}@{version}: sequence {added.sequence}, "
        f"{added.length} bytes, sha256 {added.sha256}"
    )
    channels = ws.config.products[product].channels
    channel = channels[0] if len(channels) == 1 else "CHANNEL"
    following = f"firmroot channel promote {product}@{version} --to {channel}"
    if not can_sign(ws, "timestamp") and not can_sign(
        ws, channel_role(product, channel), "channel"
    ):
        following = "firmroot submit"
    context.printer.say(f"next: {following}")
    context.printer.result({**vars(added), "release": f"{product}@{version}", "next": following})


def _progress_bar(context: Context, file: Path, length: int | None = None) -> Any:  # noqa: ANN401  click has no public type
    """A bar on a terminal, nothing elsewhere."""
    if length is None:
        length = file.stat().st_size if file.is_file() else 0
    hidden = context.json or not sys.stderr.isatty()
    return click.progressbar(length=length, label=file.name, hidden=hidden, file=sys.stderr)


@firmware.command(
    "import",
    epilog=example("firmroot firmware import releases/ -p gateway --hardware acme,gw-2"),
)
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("-p", "--product", required=True, help="Whose firmware it is.")
@click.option("--hardware", multiple=True, required=True, metavar="ID", help="May be repeated.")
@_handler
@passphrase_option
@click.pass_obj
def import_(
    context: Context,
    directory: Path,
    product: str,
    hardware: tuple[str, ...],
    handler: str,
    descriptor: int | None,
) -> None:
    """Add every file of a directory, VERSION/FILE, in one go; interrupted, it goes on.

    Versions get their sequences in the order of their names, 1.9 before 1.10. Each part of the
    builds role that changes is signed once. Nobody sees anything before it is published.
    """
    ws = context.workspace()
    check_product(ws, product)
    files = find(directory, product, frozenset(hardware), handler)
    secrets = context.secrets(ws, descriptor)
    total = sum(each.length for each in files)
    with ws.lock(), _progress_bar(context, directory, total) as bar:
        done = import_directory(ws, ws.storage(), files, secrets, context.now, bar.update)
    context.printer.say(
        f"{done.new} artifacts of {done.releases} releases added, {done.length} bytes; "
        f"{done.there} were there already"
    )
    if done.signed:
        context.printer.say(f"signed: {len(done.signed)} of {product}'s builds roles")
    following = context.say_next()
    context.printer.result({**vars(done), "signed": list(done.signed), "next": following})


@firmware.command("list", epilog=example("firmroot firmware list"))
@click.option("-p", "--product", help="Only this product.")
@click.option("--all", "every", is_flag=True, help="Those of hash bins, too: reads every bin.")
@click.pass_obj
def list_firmware(context: Context, product: str | None, *, every: bool) -> None:
    """List every release: its sequence, files and whether it is published.

    Of a product in hash bins the newest ones, and what waits on this machine.
    """
    ws = context.workspace()
    if product is not None:
        check_product(ws, product)
    rows: list[dict[str, Any]] = []
    for name in [product] if product else list(ws.config.products):
        builds = read_builds(ws, ws.storage(), name, Near(recent=True, every=every))
        rows += _rows(name, builds)
        if builds.bins is not None and not every:
            context.printer.say(f"{name}: its newest {RECENT} releases; --all reads every hash bin")
    for row in rows:
        context.printer.say(
            f"{row['release']}  sequence {row['sequence']}  {row['state']}  "
            f"{', '.join(row['hardware'])}  {row['handler']}  {row['length']} bytes  {row['path']}"
        )
    if not rows:
        context.printer.say("no firmware yet; firmroot firmware add FILE -p PRODUCT -V VERSION")
    context.printer.result({"firmware": rows})


@firmware.command(epilog=example("firmroot firmware show gateway@1.1"))
@click.argument("reference", metavar="REF")
@click.pass_obj
def show(context: Context, reference: str) -> None:
    """Show one release with the digest of each file."""
    ws = context.workspace()
    ref = parse_reference(reference)
    check_product(ws, ref.product)
    builds = read_builds(ws, ws.storage(), ref.product)
    versions = {(each.custom or {}).get("version") for each in builds.targets.values()}
    if builds.bins is not None and ref.version not in versions:
        builds = read_builds(ws, ws.storage(), ref.product, Near(every=True))
    known = _rows(ref.product, builds)
    rows = [row for row in known if row["version"] == ref.version]
    if not rows:
        near = did_you_mean(ref.version, (str(row["version"]) for row in known))
        raise ConfigurationError(f"there is no release {ref}{near}", "firmroot firmware list")
    context.printer.say(f"{ref}  sequence {rows[0]['sequence']}")
    for row in rows:
        context.printer.say(f"  {row['path']}  {row['state']}")
        context.printer.say(f"    {', '.join(row['hardware'])}, handler {row['handler']}")
        context.printer.say(f"    {row['length']} bytes, sha256 {row['sha256']}")
    context.printer.result({"release": str(ref), "files": rows})


def _rows(product: str, builds: Builds) -> list[dict[str, Any]]:
    published = {path for role in (builds.live, *builds.loaded) if role for path in role.targets}
    rows = [
        _row(product, target, "published" if path in published else "waits for publish")
        for path, target in builds.targets.items()
        if not path.endswith(SUFFIX)
    ]
    return sorted(rows, key=lambda row: (row["sequence"], row["path"]))


def _row(product: str, target: TargetFile, state: str) -> dict[str, Any]:
    custom = target.custom or {}
    return {
        "release": f"{product}@{custom.get('version')}",
        "version": custom.get("version"),
        "sequence": custom.get("sequence"),
        "hardware": custom.get("hardware", []),
        "handler": custom.get("handler"),
        "path": target.path,
        "length": target.length,
        "sha256": target.hashes.get("sha256"),
        "state": state,
    }
