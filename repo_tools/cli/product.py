"""`firmroot product`: products and their channels."""

from __future__ import annotations

import click

from repo_tools.cli.context import Context, discard_option, example
from repo_tools.products import add_product

__all__ = ["product"]


@click.group(epilog=example("firmroot product add gateway --hardware acme,gw-2"))
def product() -> None:
    """Products and their channels."""


@product.command(
    epilog=example(
        "firmroot product add gateway --hardware acme,gw-2",
        "firmroot product add gateway --channel beta",
    )
)
@click.argument("name")
@click.option("--hardware", multiple=True, metavar="ID", help="A board's id; may be repeated.")
@click.option("--channel", "channels", multiple=True, help="A channel; stable if none is named.")
@discard_option(["targets"])
@click.pass_obj
def add(
    context: Context,
    name: str,
    hardware: tuple[str, ...],
    channels: tuple[str, ...],
    discard: tuple[str, ...],
) -> None:
    """Add a product, or hardware and channels to one that exists.

    Opens the ceremony of the targets role, which delegates to the product's own roles.
    """
    ws = context.workspace()
    existing = ws.config.products.get(name)
    if existing is None and not hardware:
        raise click.UsageError("a new product needs --hardware ID")
    if existing is None and not channels:
        channels = ("stable",)
    with ws.lock():
        ceremony = add_product(
            ws,
            name,
            hardware,
            channels,
            context.now,
            discard_signatures=bool(discard),
        )
    context.printer.say(f"{name}: targets {ceremony.version} waits for signatures")
    following = context.say_next()
    context.printer.result({"product": name, "ceremony": ceremony.name, "next": following})


@product.command("list", epilog=example("firmroot product list"))
@click.pass_obj
def list_products(context: Context) -> None:
    """List products with their hardware and channels."""
    products = context.workspace().config.products
    for each in products.values():
        context.printer.say(
            f"{each.name}  hardware {', '.join(each.hardware)}  channels {', '.join(each.channels)}"
        )
    if not products:
        context.printer.say("no product yet; firmroot product add NAME --hardware ID")
    context.printer.result(
        {
            each.name: {"hardware": list(each.hardware), "channels": list(each.channels)}
            for each in products.values()
        }
    )
