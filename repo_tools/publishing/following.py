"""Where the recovery anchor leads, and which factory exports follow it to this epoch.

Reads what was exported and the chain in git; asks no storage. An export follows if the recovery
root that it carries is one of this chain and its configuration has a URL to ask: everything that a
device needs on the day when its primary root is lost must have left the factory with it.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from client_reference.errors import NotTrustedError
from client_reference.trust.recovery import first_root_path, link_path
from repo_tools.metadata.anchor import walk
from repo_tools.metadata.roles import RECOVERY
from repo_tools.publishing.inherit import earlier, primary_root
from repo_tools.publishing.rehearse import Lead

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from repo_tools.publishing.factory import Export
    from repo_tools.workspace import Workspace

__all__ = [
    "RECOVERY_ROOT",
    "Follower",
    "cannot_follow",
    "first_roots",
    "followers",
    "lead",
    "signed_chain",
]

RECOVERY_ROOT = "factory/recovery-root.json"
"""Where an export has the newest recovery root of its day."""


@dataclass(frozen=True)
class Follower:
    """An export that is in service, and what becomes of its devices when the fleet is re-rooted.

    Attributes:
        export: which.
        obstacle: why they cannot follow; empty if they do.
    """

    export: Export
    obstacle: str


def followers(ws: Workspace, exports: Iterable[Export]) -> tuple[Follower, ...]:
    """Every export that is in service."""
    return tuple(Follower(each, cannot_follow(ws, each.id)) for each in exports if not each.retired)


def cannot_follow(ws: Workspace, name: str) -> str:
    """Why devices of an export stay behind when the anchor re-roots; empty if they follow."""
    directory = ws.directory / "factory" / name
    try:
        carried = (directory / RECOVERY_ROOT).read_bytes()
    except FileNotFoundError:
        return "it was made without a recovery root, so nothing but its old root leads it"
    try:
        document = tomllib.loads((directory / "device.toml").read_text(encoding="utf-8"))
        urls = document["repository"].get("recovery", [])
    except (OSError, ValueError, KeyError, AttributeError) as error:
        return f"its device.toml cannot be read: {error!r}"
    if not urls:
        return "its device.toml names no URL of the recovery anchor"
    chain = ws.recovery_roots()
    if carried not in chain:
        return "the recovery root that it carries is not one of this anchor"
    try:
        walk(chain[chain.index(carried) :])
    except NotTrustedError as error:
        return f"the chain of {RECOVERY} roots breaks for it: {error.message}"
    return ""


def signed_chain(ws: Workspace) -> tuple[bytes, ...]:
    """Every recovery root that has its signatures, published or not."""
    chain, staged = ws.recovery_roots(), ws.staged_role(RECOVERY)
    return chain if staged is None or staged in chain else (*chain, staged)


def first_roots(ws: Workspace, newest: int) -> Iterator[tuple[int, bytes]]:
    """The first primary root of each epoch after the first, up to one."""
    for view in (ws, *earlier(ws)):
        if 0 < view.epoch <= newest and (root := primary_root(view)) is not None:
            yield view.epoch, root


def lead(ws: Workspace) -> Lead:
    """Where devices are led once everything that is signed is published."""
    files = {link_path(version): data for version, data in enumerate(signed_chain(ws), 1)}
    roots = {first_root_path(epoch): root for epoch, root in first_roots(ws, ws.epoch)}
    return Lead(files | roots, ws.epoch)
