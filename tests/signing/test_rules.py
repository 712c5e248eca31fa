"""What the rules of the policy look at in a workspace."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tuf.api.metadata import Targets

from client_reference.errors import ConfigurationError
from keys_policy.checks import Severity
from repo_tools.gone import remember_gone
from repo_tools.metadata.edits import renewed
from repo_tools.publishing.bridge import Gone
from repo_tools.signing.ceremony import finish, start_ceremony
from repo_tools.signing.rules import (
    PolicyViolationError,
    enforce,
    enforce_sound,
    findings,
    judge,
    peoples_roles,
    templates,
)
from repo_tools.signing.start import start_targets
from repo_tools.workspace import Workspace
from tests.signing.team import NOW, give, make_lab, publish_by_hand

if TYPE_CHECKING:
    from pathlib import Path

    from keys_policy.checks import Finding


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


def of_a_kind(ws: Workspace, *algorithms: str) -> Workspace:
    return replace(ws, policy=replace(ws.policy, algorithms=algorithms))


def test_what_is_wrong_with_other_keys_does_not_keep_one_from_being_replaced(
    ws: Workspace,
) -> None:
    """Keys of a kind that is not allowed any more go one by one; what is new is refused."""
    before = of_a_kind(ws, "ml-dsa-65")
    with pytest.raises(PolicyViolationError, match="alice is ed25519"):
        enforce_sound(before, NOW)
    enforce_sound(before, NOW, before)
    with pytest.raises(PolicyViolationError, match="alice is ed25519"):
        enforce_sound(before, NOW, ws)
    enforce_sound(ws, NOW, before)


def test_what_no_rotation_mends_stops_one_even_if_it_was_there(ws: Workspace) -> None:
    roles = {**ws.policy.roles}
    roles["root"] = replace(roles["root"], threshold=4)
    before = replace(ws, policy=replace(ws.policy, roles=roles))
    with pytest.raises(PolicyViolationError, match="threshold-reachable"):
        enforce_sound(before, NOW, before)
    enforce_sound(ws, NOW, before)


def test_a_stolen_key_may_have_no_role_and_a_lost_one_only_cannot_sign(ws: Workspace) -> None:
    def stolen() -> list[str]:
        return [each.text for each in findings(ws, NOW) if each.check.id == "stolen-keys"]

    remember_gone(ws, "tess", Gone.LOST)
    assert stolen() == []
    remember_gone(ws, "tess", Gone.STOLEN)
    (said,) = stolen()
    assert "roles.channel: tess is in other hands, as gone.toml says" in said


def errors(found: list[Finding]) -> set[str]:
    return {each.check.id for each in found if each.severity is Severity.ERROR}


def test_of_a_key_file_that_cannot_be_read_nothing_is_guessed(ws: Workspace) -> None:
    """Its key may be what root and targets were signed with, and its holder anybody."""
    files = [ws.directory / f"keys/{name}.toml" for name in ("alice", "bob")]
    sound = [file.read_bytes() for file in files]
    assert judge(ws.directory, NOW)[0] == ()
    for file in files:
        file.write_text("=")
    mistakes, found = judge(ws.directory, NOW)
    assert [each.file for each in mistakes] == ["keys/alice.toml", "keys/bob.toml"]
    assert errors(found) == set()
    policy = ws.directory / "policy.toml"
    policy.write_text(policy.read_text().replace('keys = ["ci"]', 'keys = ["ci", "rita"]'))
    assert errors(judge(ws.directory, NOW)[1]) == {"builds-channel"}
    for file, data in zip(files, sound, strict=True):
        file.write_bytes(data)
    assert judge(ws.directory, NOW)[0] == ()


def test_what_is_wrong_elsewhere_is_no_mistake_of_the_policy(ws: Workspace) -> None:
    config = ws.directory / "firmroot.toml"
    sound = config.read_bytes()
    config.write_text("=")
    with pytest.raises(ConfigurationError, match=r"firmroot\.toml"):
        judge(ws.directory, NOW)
    config.write_bytes(sound)
    assert judge(ws.directory, NOW)[0] == ()
