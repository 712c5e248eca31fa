"""Products and channels: `firmroot.toml` and the delegations that make them real.

A product exists for devices once `targets` delegates its roles, so every change here opens, or
changes, the ceremony of `targets`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import tomlkit

from client_reference.errors import ConfigurationError
from repo_tools.files import replace_file
from repo_tools.metadata.roles import check_names
from repo_tools.signing.rules import enforce_sound
from repo_tools.signing.start import start_targets
from repo_tools.workspace import Product, Workspace

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from repo_tools.signing.ceremony import Ceremony

__all__ = ["add_product", "set_bins"]


def add_product(
    ws: Workspace,
    name: str,
    hardware: Sequence[str],
    channels: Sequence[str],
    now: datetime,
    *,
    bins: int = 0,
    discard_signatures: bool = False,
) -> Ceremony:
    """Add a product, or hardware and channels to one that is there.

    Args:
        ws: the workspace; the caller holds its lock.
        name: of the product.
        hardware: ids of its boards.
        channels: its release channels.
        now: the time.
        bins: hash bins of its builds role; 0 to leave that as it is.
        discard_signatures: as in `start_ceremony`.

    Returns:
        the ceremony of targets that waits for signatures.

    Raises:
        ConfigurationError: a name is malformed or collides.
        RefusedError: the policy, or a guard on delegations, forbids it.
        DiscardedSignaturesError: targets is being signed.
    """
    before = ws.config.products.get(name)
    merged = Product(
        name,
        _union(before.hardware if before else (), hardware),
        _union(before.channels if before else (), channels),
        bins or (before.bins if before else 0),
    )
    products = {**ws.config.products, name: merged}
    check_names({each.name: each.channels for each in products.values()})
    enforce_sound(ws, now)
    ceremony = start_targets(ws, products, now, discard_signatures=discard_signatures)
    _write_product(ws, merged)
    return ceremony


def _union(one: Sequence[str], other: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*one, *other)))


def set_bins(ws: Workspace, name: str, bins: int) -> None:
    """Say in `firmroot.toml` how many hash bins the builds of a product have."""
    _write_product(ws, replace(ws.config.products[name], bins=bins))


def _write_product(ws: Workspace, product: Product) -> None:
    """Write it into `firmroot.toml`, keeping everybody's comments."""
    path = ws.directory / "firmroot.toml"
    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    products = document.setdefault("products", tomlkit.table(is_super_table=True))
    if not isinstance(products, dict):
        raise ConfigurationError("firmroot.toml: products: expected tables of products")
    table = products.setdefault(product.name, tomlkit.table())
    table["hardware"] = list(product.hardware)
    table["channels"] = list(product.channels)
    if product.bins:
        table["bins"] = product.bins
    replace_file(path, tomlkit.dumps(document).encode())
