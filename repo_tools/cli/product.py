"""`firmroot product`: products and their channels."""

from __future__ import annotations

import click

from repo_tools.cli.context import Context, discard_option, example, passphrase_option
from repo_tools.metadata.bins import MAX_BINS, MIN_BINS, bits, number_for, sizes
from repo_tools.products import add_product
from repo_tools.publishing.channels import check_product
from repo_tools.publishing.renewal import convert

__all__ = ["product"]


@click.group(epilog=example("firmroot product add gateway --hardware acme,gw-2"))
def product() -> None:
    """Products and their channels."""


@product.command(
    epilog=example(
        "firmroot product add gateway --hardware acme,gw-2",
        "firmroot product add gateway --channel beta",
        "firmroot product add sensor --hardware acme,s-1 --expect 100000",
    )
)
@click.argument("name")
@click.option("--hardware", multiple=True, metavar="ID", help="A board's id; may be repeated.")
@click.option("--channel", "channels", multiple=True, help="A channel; stable if none is named.")
@click.option(
    "--expect",
    type=click.IntRange(1, 100_000_000),
    metavar="ARTIFACTS",
    help="How many there will be: chooses hash bins for its builds.",
)
@discard_option(["targets"])
@click.pass_obj
def add(
    context: Context,
    name: str,
    hardware: tuple[str, ...],
    channels: tuple[str, ...],
    expect: int | None,
    discard: tuple[str, ...],
) -> None:
    """Add a product, or hardware and channels to one that exists.

    Opens the ceremony of the targets role, which delegates to the product's own roles.

    A product with thousands of artifacts is cut into hash bins (--expect): each device then fetches
    one of them instead of the whole list. `firmroot product bins` changes that later.
    """
    ws = context.workspace()
    existing = ws.config.products.get(name)
    if existing is None and not hardware:
        raise click.UsageError("a new product needs --hardware ID")
    if existing is None and not channels:
        channels = ("stable",)
    if existing is not None and expect is not None:
        raise click.UsageError(f"{name} exists: firmroot product bins {name} --expect {expect}")
    number = number_for(name, expect) if expect is not None else 0
    with ws.lock():
        ceremony = add_product(
            ws,
            name,
            hardware,
            channels,
            context.now,
            bins=number,
            discard_signatures=bool(discard),
        )
    rows = _explain(context, name, expect, number) if expect is not None else []
    bins = number or (existing.bins if existing is not None else 0)
    context.printer.say(f"{name}: targets {ceremony.version} waits for signatures")
    following = context.say_next()
    context.printer.result(
        {
            "product": name,
            "bins": bins,
            "choices": rows,
            "ceremony": ceremony.name,
            "next": following,
        }
    )


def _explain(context: Context, name: str, artifacts: int, number: int) -> list[dict[str, int]]:
    """What the choice costs, beside the choices next to it."""
    choices = {each for each in (number // 4, number, number * 4) if MIN_BINS <= each <= MAX_BINS}
    rows = [sizes(name, artifacts, each) for each in (0, *sorted(choices))]
    say = context.printer.say
    say(f"{name}: {artifacts} artifacts in {f'{number} hash bins' if number else 'one file'}")
    say("        bins   a bin, kB   snapshot, kB   a device fetches, kB (after one new artifact)")
    for each in rows:
        mark = "->" if each.number == number else "  "
        say(
            f"   {mark}{each.number or 'none':>7}{each.role / 1000:>12.1f}"
            f"{each.snapshot / 1000:>15.1f}{each.device / 1000:>14.1f}"
        )
    return [vars(each) for each in rows]


@product.command(
    epilog=example(
        "firmroot product bins gateway --expect 100000",
        "firmroot product bins gateway --number 1024",
    )
)
@click.argument("name")
@click.option(
    "--expect",
    type=click.IntRange(1, 100_000_000),
    metavar="ARTIFACTS",
    help="How many there will be: chooses the number of bins.",
)
@click.option("--number", type=int, metavar="BINS", help="A power of two, instead of --expect.")
@click.option("--dry-run", is_flag=True, help="Show the choice and what it costs; do nothing.")
@passphrase_option
@click.pass_obj
def bins(
    context: Context,
    name: str,
    expect: int | None,
    number: int | None,
    descriptor: int | None,
    *,
    dry_run: bool,
) -> None:
    """Cut the builds of a product into hash bins.

    What is there is signed again by the builder, in bins, and goes live with the next publish.
    Devices go on as before; an older client that does not know bins stops the command.
    """
    ws = context.workspace()
    check_product(ws, name)
    if (expect is None) == (number is None):
        raise click.UsageError("name --expect ARTIFACTS or --number BINS")
    chosen = number if number is not None else number_for(name, expect or 0)
    if chosen:
        bits(chosen)
    rows: list[dict[str, int]] = []
    if expect is not None:
        rows = _explain(context, name, expect, chosen)
    if dry_run or not chosen:
        context.printer.result({"product": name, "bins": chosen, "choices": rows})
        return
    with ws.lock():
        version = convert(ws, name, chosen, context.secrets(ws, descriptor), context.now)
    if version:
        context.printer.say(f"{name}-builds {version}: in {chosen} hash bins, signed and staged")
    else:
        context.printer.say(f"{name}: {chosen} hash bins from the first artifact on")
    following = context.say_next()
    context.printer.result(
        {"product": name, "bins": chosen, "version": version, "choices": rows, "next": following}
    )


@product.command("list", epilog=example("firmroot product list"))
@click.pass_obj
def list_products(context: Context) -> None:
    """List products with their hardware and channels."""
    products = context.workspace().config.products
    for each in products.values():
        context.printer.say(
            f"{each.name}  hardware {', '.join(each.hardware)}  channels {', '.join(each.channels)}"
            + (f"  {each.bins} hash bins" if each.bins else "")
        )
    if not products:
        context.printer.say("no product yet; firmroot product add NAME --hardware ID")
    context.printer.result(
        {
            each.name: {
                "hardware": list(each.hardware),
                "channels": list(each.channels),
                "bins": each.bins,
            }
            for each in products.values()
        }
    )
