"""Opening the ceremony of a role by its name, with what policy and workspace say it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuf.api.metadata import Root, Targets

from client_reference.errors import ConfigurationError
from client_reference.nearest import did_you_mean
from client_reference.trust.reset import read_resets
from repo_tools.metadata.edits import is_lab_root, next_root, next_targets, renewed
from repo_tools.metadata.repository import parse
from repo_tools.metadata.roles import RECOVERY
from repo_tools.publishing.prepare import check_present
from repo_tools.signing.ceremony import open_ceremonies, predecessor, start_ceremony
from repo_tools.signing.rules import peoples_roles, templates

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from repo_tools.signing.ceremony import Ceremony
    from repo_tools.workspace import Product, Workspace

__all__ = ["planned_targets", "start_role", "start_root", "start_targets"]


def start_role(
    ws: Workspace, role: str, now: datetime, *, discard_signatures: bool = False
) -> Ceremony:
    """Open the next version of a role.

    Raises:
        ConfigurationError: it is not a role that people sign, or has nothing to renew.
        FirmrootError: as `start_ceremony`.
    """
    if role == "root":
        return start_root(ws, now, discard_signatures=discard_signatures)
    if role == "targets":
        products = ws.config.products
        return start_targets(ws, products, now, discard_signatures=discard_signatures)
    kinds = templates(ws)
    people = peoples_roles(ws)
    before = predecessor(ws, role)
    if role == RECOVERY:
        raise ConfigurationError(
            "the recovery anchor is no role of the repository",
            "its first version: firmroot anchor init; the next: firmroot anchor renew",
        )
    if role not in people:
        raise ConfigurationError(
            f"{role!r} is not a role that people sign; those are: {', '.join(people)}"
            f"{did_you_mean(role, people)}",
            "builds: firmroot firmware add; snapshot and timestamp: firmroot refresh",
        )
    if before is None:
        raise ConfigurationError(
            f"{role} has no content yet, so there is nothing to renew",
            "channels get theirs from: firmroot channel promote REF --to CHANNEL",
        )
    signed = parse(before, Targets, role).signed
    rules = ws.policy.role(role, kinds[role])
    adopted = ws.adopted()
    theirs = adopted is not None and role in adopted.delegations
    return start_ceremony(
        ws,
        role,
        renewed(signed, rules, now),
        # Their files are where they were, and may be large: git gets none of them.
        {} if theirs else _carried(ws, signed),
        discard_signatures=discard_signatures,
    )


def start_root(ws: Workspace, now: datetime, *, discard_signatures: bool = False) -> Ceremony:
    """Open a root that puts the policy into force. Raises as `start_ceremony`."""
    before = predecessor(ws, "root")
    root = None if before is None else parse(before, Root, "root").signed
    lab = ws.config.lab if root is None else is_lab_root(root)
    signed = next_root(ws.policy, ws.keyring, root, now, lab=lab)
    return start_ceremony(ws, "root", signed, discard_signatures=discard_signatures)


def start_targets(
    ws: Workspace,
    products: Mapping[str, Product],
    now: datetime,
    *,
    discard_signatures: bool = False,
    resets: Mapping[str, int] | None = None,
) -> Ceremony:
    """Open a targets role that delegates to these products. Raises as `start_ceremony`."""
    signed = planned_targets(ws, products, now, resets)
    return start_ceremony(ws, "targets", signed, discard_signatures=discard_signatures)


def planned_targets(
    ws: Workspace,
    products: Mapping[str, Product],
    now: datetime,
    resets: Mapping[str, int] | None = None,
) -> Targets:
    """The targets role that delegates to these products as the policy says. Writes nothing.

    A sequence reset that waits for signatures in the open ceremony is kept.
    """
    waiting: dict[str, int] = {}
    for each in open_ceremonies(ws):
        if each.role == "targets" and isinstance(each.signed, Targets):
            found = read_resets(each.signed).items()
            waiting = {name: one.to for name, one in found if one.since == each.version}
    before = predecessor(ws, "targets")
    return next_targets(
        ws.policy,
        ws.keyring,
        {each.name: each.channels for each in products.values()},
        None if before is None else parse(before, Targets, "targets").signed,
        now,
        {**waiting, **(resets or {})},
        adopted=ws.adopted(),
    )


def _carried(ws: Workspace, signed: Targets) -> dict[str, bytes]:
    """The target files of a role that is renewed: staged with it, or live."""
    storage, staged = ws.storage(), ws.staged_targets()
    check_present(ws, storage)
    found = {}
    for path, target in signed.targets.items():
        stored = f"targets/{target.get_prefixed_paths()[0]}"
        if stored in staged:
            found[path] = ws.staged_target(staged[stored], target)
        else:
            found[path] = storage.read(stored, target.length).data
    return found
