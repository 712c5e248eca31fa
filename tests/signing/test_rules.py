"""What the rules of the policy look at in a workspace."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tuf.api.metadata import Targets

from repo_tools.metadata.edits import renewed
from repo_tools.signing.ceremony import finish, start_ceremony
from repo_tools.signing.rules import PolicyViolationError, enforce, peoples_roles, templates
from repo_tools.signing.start import start_targets
from repo_tools.workspace import Workspace
from tests.signing.team import NOW, give, make_lab, publish_by_hand

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lab(tmp_path_factory.mktemp("rules") / "acme").directory


@pytest.fixture
def ws(_made: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(_made, tmp_path / "acme")
    return Workspace.open(tmp_path / "acme")


def ahead(ws: Workspace) -> Workspace:
    """The policy has moved on from what is signed: Carol and Tess have changed their places."""
    roles = {**ws.policy.roles}
    roles["root"] = replace(roles["root"], keys=("alice", "bob", "tess"))
    roles["channel"] = replace(roles["channel"], keys=("rita", "sam", "carol"))
    return replace(ws, policy=replace(ws.policy, roles=roles))


def test_the_authority_of_certificates_has_a_role_where_the_policy_has_its_section(
    ws: Workspace,
) -> None:
    assert "device-tls" not in templates(ws)
    roles = {**ws.policy.roles, "device-tls": ws.policy.roles["targets"]}
    with_authority = replace(ws, policy=replace(ws.policy, roles=roles))
    assert templates(with_authority)["device-tls"] == "device-tls"
    assert "device-tls" in peoples_roles(with_authority)


def test_a_ceremony_of_a_role_that_no_product_has_is_not_judged(ws: Workspace) -> None:
    """A product was removed, or a stranger wrote it; nobody can sign it in either case."""
    start_ceremony(ws, "router-stable", Targets(1, expires=NOW))
    enforce(ws, NOW)


def test_the_expired_root_may_be_signed_again_as_it_was(ws: Workspace) -> None:
    publish_by_hand(ws)
    root = ws.newest_root()
    assert root is not None
    with pytest.raises(PolicyViolationError, match="root 1: root is 2 of alice, bob, carol"):
        enforce(ahead(ws), root.expires)
    start_ceremony(ws, "root", renewed(root, ws.policy.role("root"), root.expires))
    enforce(ahead(ws), root.expires)
    with pytest.raises(PolicyViolationError, match="root 2: root is 2 of alice, bob, carol"):
        enforce(ahead(ws), NOW)


def test_expired_targets_may_be_signed_again_as_they_were(ws: Workspace) -> None:
    first = start_targets(ws, ws.config.products, NOW)
    give(ws, first, "alice", "bob")
    finish(ws, first)
    publish_by_hand(ws)
    root, targets = ws.newest_root(), ws.newest_targets()
    assert root is not None
    assert targets is not None
    late = max(root.expires, targets.expires)
    start_ceremony(ws, "root", renewed(root, ws.policy.role("root"), late))
    with pytest.raises(PolicyViolationError, match="targets 1: gateway-stable is 2 of rita, sam,"):
        enforce(ahead(ws), late)
    start_ceremony(ws, "targets", renewed(targets, ws.policy.role("targets"), late))
    enforce(ahead(ws), late)
