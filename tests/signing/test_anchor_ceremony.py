"""The ceremony of a recovery root: who signs it, and what nobody gets to sign."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tuf.api.metadata import Root

from client_reference.errors import (
    ActionRequiredError,
    ConfigurationError,
    NotTrustedError,
    RefusedError,
)
from client_reference.trust.recovery import FIELD, read_statement
from repo_tools.anchor import init_anchor, renew_anchor
from repo_tools.files import replace_file
from repo_tools.metadata.anchor import next_recovery, statement_about
from repo_tools.metadata.edits import is_lab_root, next_root
from repo_tools.metadata.repository import parse
from repo_tools.signing.ceremony import (
    DiscardedSignaturesError,
    abandon,
    check_ceremony,
    finish,
    open_ceremonies,
    proven,
    start_ceremony,
    status,
)
from repo_tools.signing.ceremony.reading import root_in_force
from repo_tools.signing.exchange import adopt, export
from repo_tools.signing.portable import read_portable
from repo_tools.signing.rules import enforce, findings, peoples_roles
from repo_tools.signing.secrets import Secrets
from repo_tools.signing.session import my_keys, open_memory, review_ceremony, waiting
from repo_tools.signing.start import start_role
from repo_tools.workspace import Workspace
from tests.signing.team import NOW, PASSPHRASE, clone, give, make_lab, publish_by_hand

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    """A lab whose first root is published."""
    ws = make_lab(tmp_path / "acme")
    publish_by_hand(ws)
    return ws


def publish_anchor_by_hand(ws: Workspace) -> None:
    """What `anchor publish` leaves in git."""
    staged = ws.staged / "recovery.json"
    number = len(ws.recovery_roots()) + 1
    replace_file(ws.anchor / f"{number}.json", staged.read_bytes())
    staged.unlink()


def first_anchor(ws: Workspace) -> None:
    ceremony = init_anchor(ws, NOW)
    give(ws, ceremony, "noor", "otto")
    finish(ws, ceremony)
    publish_anchor_by_hand(ws)


def test_the_first_one_is_about_the_first_root_and_needs_its_own_threshold(ws: Workspace) -> None:
    ceremony = init_anchor(ws, NOW)
    assert ceremony.name == "recovery-1"
    assert read_statement(parse_root(ceremony.signed)) == statement_about(ws.roots()[0])
    enforce(ws, NOW)
    give(ws, ceremony, "noor")
    assert not status(ws, ceremony).complete
    with pytest.raises(ActionRequiredError, match="needs 1 more of: otto, pia"):
        finish(ws, ceremony)
    with pytest.raises(RefusedError, match="not in role recovery"):
        give(ws, ceremony, "alice")
    give(ws, ceremony, "pia")
    assert finish(ws, ceremony).name == "recovery.json"
    assert ws.staged_role("recovery") is not None
    assert ws.staged_roles() == {}, "it does not go to the repository"


def parse_root(signed: object) -> Root:
    assert isinstance(signed, Root)
    return signed


def test_it_can_be_set_up_before_the_root_is_published(tmp_path: Path) -> None:
    ws = make_lab(tmp_path / "acme")
    staged = ws.staged_role("root")
    assert staged is not None
    assert read_statement(parse_root(init_anchor(ws, NOW).signed)) == statement_about(staged)


def test_it_is_marked_lab_as_the_root_that_it_names(tmp_path: Path) -> None:
    ws = make_lab(tmp_path / "acme")
    lab = init_anchor(ws, NOW)
    assert is_lab_root(parse_root(lab.signed))
    abandon(lab)
    (ws.staged / "root.json").unlink()
    root = next_root(ws.policy, ws.keyring, None, NOW, lab=False)
    ceremony = start_ceremony(ws, "root", root)
    give(ws, ceremony, "alice", "bob")
    finish(ws, ceremony)
    assert not is_lab_root(parse_root(init_anchor(ws, NOW).signed))


def test_without_a_root_there_is_nothing_to_name(tmp_path: Path) -> None:
    ws = make_lab(tmp_path / "acme")
    (ws.staged / "root.json").unlink()
    with pytest.raises(ActionRequiredError, match="no root yet"):
        init_anchor(ws, NOW)


def test_without_keys_there_is_no_anchor(ws: Workspace) -> None:
    rules = {**ws.policy.roles, "recovery": replace(ws.policy.roles["recovery"], keys=())}
    without = replace(ws, policy=replace(ws.policy, roles=rules))
    assert "recovery" in peoples_roles(ws)
    assert "recovery" not in peoples_roles(without)
    with pytest.raises(ConfigurationError, match=r"names no keys in roles\.recovery"):
        init_anchor(without, NOW)


def test_the_other_commands_point_to_its_own(ws: Workspace) -> None:
    with pytest.raises(ConfigurationError, match="no role of the repository") as caught:
        start_role(ws, "recovery", NOW)
    assert "firmroot anchor renew" in caught.value.hint


def test_a_renewal_says_the_same_and_is_signed_by_both_generations(ws: Workspace) -> None:
    with pytest.raises(ActionRequiredError, match="no recovery anchor is published"):
        renew_anchor(ws, NOW)
    first_anchor(ws)
    with pytest.raises(ConfigurationError, match="there is an anchor already, version 1"):
        init_anchor(ws, NOW)
    path = ws.directory / "policy.toml"
    path.write_text(path.read_text().replace('"noor", "otto", "pia"', '"noor", "otto", "oncall-1"'))
    path.write_text(path.read_text().replace('["oncall-1", "oncall-2"]', '["oncall-2"]'))
    ws = Workspace.open(ws.directory)
    ceremony = renew_anchor(ws, NOW)
    assert ceremony.name == "recovery-2"
    assert read_statement(parse_root(ceremony.signed)) == statement_about(ws.roots()[0])
    give(ws, ceremony, "oncall-1", "noor")
    assert [quorum.needed for quorum in status(ws, ceremony).quorums] == [1, 0]
    give(ws, ceremony, "pia")
    finish(ws, ceremony)
    with pytest.raises(ActionRequiredError, match="recovery 2 is signed and not yet published"):
        renew_anchor(ws, NOW)
    publish_anchor_by_hand(ws)
    third = renew_anchor(ws, NOW)
    assert third.version == 3
    assert proven(ws, third), "it was verified when it was published"


def test_a_clone_without_its_roots_renews_nothing(ws: Workspace) -> None:
    first_anchor(ws)
    root = ws.metadata / "root/1.json"
    kept = root.read_bytes()
    root.unlink()
    with pytest.raises(RefusedError, match="the first root of epoch 0 is not signed yet"):
        renew_anchor(ws, NOW)
    root.write_bytes(kept)
    assert renew_anchor(ws, NOW).version == 2


def test_signatures_are_not_lost_unasked(ws: Workspace) -> None:
    first_anchor(ws)
    give(ws, renew_anchor(ws, NOW), "noor")
    later = NOW.replace(hour=9)
    with pytest.raises(DiscardedSignaturesError):
        renew_anchor(ws, later)
    assert status(ws, open_ceremonies(ws)[0]).signed == ("noor",)
    assert status(ws, renew_anchor(ws, later, discard_signatures=True)).signed == ()


def test_a_stranger_cannot_have_another_root_named(ws: Workspace) -> None:
    first_anchor(ws)
    before = parse(ws.recovery_roots()[0], Root, "recovery").signed
    theirs = statement_about(b"their root", 1)
    for statement, message in (
        (theirs, "starts epoch 1 from root"),
        (replace(theirs, epoch=0), "names two primary roots for epoch 0"),
        (statement_about(ws.roots()[0], 1), "starts epoch 1 from root"),
        (replace(theirs, epoch=2), "is of epoch 2, expected 0 or 1"),
    ):
        signed = next_recovery(ws.policy, ws.keyring, before, statement, NOW, lab=True)
        with pytest.raises((RefusedError, NotTrustedError), match=message):
            start_ceremony(ws, "recovery", signed)
    assert open_ceremonies(ws) == []
    assert renew_anchor(ws, NOW).version == 2


def test_a_stranger_cannot_change_what_waits(ws: Workspace) -> None:
    ceremony = init_anchor(ws, NOW)
    path = ceremony.directory / "payload.json"
    honest = path.read_text()
    path.write_text(honest.replace(statement_about(ws.roots()[0]).sha256, "ab" * 32))
    with pytest.raises(RefusedError, match="starts epoch 0 from root sha256 abab"):
        waiting(ws, ["noor"])
    path.write_text(honest.replace(FIELD, "x-something"))
    with pytest.raises(NotTrustedError, match="x-firmroot-primary: found nothing"):
        waiting(ws, ["noor"])
    path.write_text(honest)
    assert [task.names for task in waiting(ws, ["noor", "alice"])] == [("noor",)]


def test_all_four_roles_are_the_recovery_keys(ws: Workspace) -> None:
    signed = next_recovery(
        ws.policy, ws.keyring, None, statement_about(ws.roots()[0]), NOW, lab=True
    )
    signed.roles["timestamp"].threshold = 1
    with pytest.raises(RefusedError, match="gives its roles different keys"):
        start_ceremony(ws, "recovery", signed)
    signed.roles["timestamp"].threshold = 2
    check_ceremony(ws, start_ceremony(ws, "recovery", signed))


def test_it_goes_by_file_to_people_in_other_places(ws: Workspace, tmp_path: Path) -> None:
    ceremony = init_anchor(ws, NOW)
    file = tmp_path / "recovery-1.json"
    file.write_bytes(export(ws, ceremony, []))
    theirs = clone(ws, tmp_path / "noor", "noor")
    abandon(open_ceremonies(theirs)[0])
    adopted = adopt(theirs, file)
    uris, _ = my_keys(theirs, None, Secrets(PASSPHRASE))
    assert [task.names for task in waiting(theirs, uris, [adopted])] == [("noor",)]
    assert adopted.payload == ceremony.payload


def test_without_a_workspace_a_statement_must_follow_the_one_before(
    ws: Workspace, tmp_path: Path
) -> None:
    first_anchor(ws)
    ceremony = renew_anchor(ws, NOW)
    document = json.loads(export(ws, ceremony, []))
    statement = document["signed"][FIELD]
    file = tmp_path / "recovery-2.json"
    for change, said in (
        ({"sha256": "0" * 64}, "names two primary roots for epoch 0"),
        ({"epoch": 2}, "recovery-2 is of epoch 2, expected 0 or 1"),
        ({"epoch": "x"}, "epoch"),
    ):
        document["signed"][FIELD] = {**statement, **change}
        file.write_text(json.dumps(document))
        with pytest.raises(NotTrustedError, match=said):
            read_portable(file)
    document["signed"][FIELD] = statement
    file.write_text(json.dumps(document))
    assert read_portable(file).before is not None


def test_people_are_told_what_it_does_to_the_fleet(ws: Workspace) -> None:
    first = statement_about(ws.roots()[0])
    lines = review_ceremony(ws, init_anchor(ws, NOW), open_memory(ws)).changes
    assert lines[0].startswith("recovery version 1 (the first), good until 2036")
    assert lines[1] == (
        f"the anchor begins with epoch 0: the root with sha256 {first.sha256}, {first.length} bytes"
    )
    assert lines[2].startswith("role recovery: 2 of noor (")
    assert sum("noor" in line for line in lines) == 1, "four times the same role is told once"


def test_an_anchor_that_waits_is_not_the_root_in_force(ws: Workspace) -> None:
    """Attack: whoever holds recovery keys only would say who signs targets."""
    waiting = init_anchor(ws, NOW)
    assert open_ceremonies(ws) == [waiting]
    assert root_in_force(ws) == ws.newest_root()


def test_the_policy_looks_at_the_anchor_where_it_has_one(ws: Workspace) -> None:
    first_anchor(ws)
    assert [each.text for each in findings(ws, NOW) if "recovery 1" in each.text] == []
    path = ws.directory / "policy.toml"
    sound = path.read_text()
    path.write_text(sound.replace('"noor", "otto", "pia"', '"noor", "otto", "carol"'))
    (said,) = [
        each.text
        for each in findings(Workspace.open(ws.directory), NOW)
        if "recovery 1" in each.text
    ]
    assert "recovery 1 is 2 of noor, otto, pia; the policy expects 2 of carol, noor, otto" in said
    path.write_text(sound.partition("# The recovery anchor")[0])
    without = Workspace.open(ws.directory)
    assert without.policy.recovery is None
    assert [each.text for each in findings(without, NOW) if "recovery 1" in each.text] == []
    enforce(without, NOW)
