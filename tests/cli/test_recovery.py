"""Rotation and recovery of a lab that is live, as devices then see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from repo_tools.publishing.rehearse import Outcome
from repo_tools.signing.ceremony import open_ceremonies
from repo_tools.workspace import Workspace
from tests.publishing.lab import HARDWARE, PRODUCT, Lab

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def _live(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    top = tmp_path_factory.mktemp("recovery")
    lab = Lab(top / "acme")
    lab.init()
    lab.ok("product", "add", PRODUCT, "--hardware", HARDWARE)
    lab.ship("1.0")
    lab.ok("factory", "export", PRODUCT, "--to", top / "device")
    return lab


@pytest.fixture
def lab(_live: Lab, tmp_path: Path) -> Lab:
    (tmp_path / "factory-root.json").write_bytes(
        (_live.directory / "metadata/root/1.json").read_bytes()
    )
    return _live.copy(tmp_path / "acme")


def roles(lab: Lab) -> dict[str, tuple[str, ...]]:
    policy = lab.workspace.policy
    return {name: rules.keys for name, rules in policy.roles.items()}


def test_a_lost_root_key_is_rotated_out(lab: Lab) -> None:
    (lab.directory / ".firmroot/keys/alice.pem").unlink()
    out = lab.ok("rotate", "alice").out
    assert "alice-2 takes the place of alice in: root, targets" in out
    assert roles(lab)["root"] == ("alice-2", "bob", "carol")
    assert "# A lab" in (lab.directory / "policy.toml").read_text()
    lab.ok("sign")
    lab.ok("publish")
    assert len(lab.workspace.roots()) == 2
    assert lab.fresh_device()[0] is Outcome.UPDATES


def test_a_stolen_ci_key_takes_the_snapshot_key_with_it(lab: Lab) -> None:
    out = lab.ok("rotate", "ci", "--compromised").out
    assert "publisher-2 takes the place of publisher in: snapshot, timestamp" in out
    assert "gateway-builds: signed again on this machine" in out
    assert sorted(lab.workspace.config.online) == ["publisher", "publisher-2"], "for the bridge"
    lab.ok("sign")
    lab.ok("publish")
    assert lab.fresh_device()[0] is Outcome.UPDATES


def test_an_online_key_is_replaced_without_hurry(lab: Lab) -> None:
    lab.ok("rotate", "publisher")
    assert sorted(lab.workspace.config.online) == ["publisher", "publisher-2"]
    lab.ok("sign")
    lab.ok("publish")
    assert lab.fresh_device()[0] is Outcome.UPDATES


def test_a_channel_that_loses_its_threshold_is_signed_again(lab: Lab) -> None:
    lab.ok("rotate", "rita")
    assert [each.name for each in open_ceremonies(lab.workspace)] == ["targets-2"]
    lab.ok("sign")
    lab.ok("publish")
    lab.ok("rotate", "sam")
    opened = [each.name for each in open_ceremonies(lab.workspace)]
    assert opened == ["targets-3", "gateway-stable-2"], "tess alone is not enough"
    lab.ok("sign")
    lab.ok("publish")
    assert lab.fresh_device()[0] is Outcome.UPDATES


def test_a_rotation_that_was_interrupted_is_taken_up_again(lab: Lab) -> None:
    from unittest.mock import patch

    with patch("repo_tools.rotation.start_root", side_effect=KeyboardInterrupt):
        assert lab.run("rotate", "alice").code == 130
    assert roles(lab)["root"] == ("alice-2", "bob", "carol")
    assert open_ceremonies(lab.workspace) == []
    lab.ok("rotate", "alice")
    assert [each.name for each in open_ceremonies(lab.workspace)] == ["root-2", "targets-2"]
    assert "alice-3" not in lab.workspace.keyring, "the successor was made already"


def test_a_rotation_with_the_snapshot_key_is_taken_up_again(lab: Lab) -> None:
    from unittest.mock import patch

    with patch("repo_tools.rotation.start_root", side_effect=KeyboardInterrupt):
        assert lab.run("rotate", "ci", "--compromised").code == 130
    lab.ok("rotate", "ci", "--compromised")
    assert [each.name for each in open_ceremonies(lab.workspace)] == ["root-2", "targets-2"]
    assert not {"ci-3", "publisher-3"}.intersection(lab.workspace.keyring)
    lab.ok("sign")
    lab.ok("publish")


def test_what_may_refuse_refuses_before_anything_is_written(lab: Lab) -> None:
    before = lab.tree()
    done = lab.run("rotate", "alice", "--remove")
    assert done.code == 5
    assert "roles.root: all 2 keys must sign, expected one to spare" in done.err
    assert lab.run("rotate", "nobody").code == 2
    assert lab.run("rotate", "ci", "--to", "ci").code == 2
    assert lab.run("rotate", "ci", "--to", "ci", "--remove").code == 2
    assert lab.run("rotate", "ci", "--to", "rita").code == 5
    assert lab.tree() == before


def test_a_rotation_discards_signatures_only_by_name(lab: Lab) -> None:
    lab.ok("ceremony", "start", "root")
    ws = lab.workspace
    ws.remove_key_uri("bob")
    ws.remove_key_uri("carol")
    lab.ok("sign")
    done = lab.run("rotate", "carol")
    assert done.code == 3
    assert "root-2 has been signed by alice" in done.err
    assert roles(lab)["root"] == ("alice", "bob", "carol")
    lab.ok("rotate", "carol", "--discard-signatures", "root")
    assert roles(lab)["root"] == ("alice", "bob", "carol-2")


def test_a_rotation_says_which_signatures_of_a_channel_it_drops(lab: Lab) -> None:
    """Of gateway-stable-2: what rita signed would not count, what sam signed still would."""
    uris = lab.workspace.key_uris()
    lab.ok("ceremony", "start", "gateway-stable")
    for name in ("sam", "tess"):
        lab.workspace.remove_key_uri(name)
    lab.ok("sign")
    before = lab.tree()
    done = lab.run("rotate", "rita")
    assert done.code == 3
    assert "gateway-stable-2 has been signed by rita" in done.err
    assert "--discard-signatures gateway-stable" in done.err
    assert policy_files(lab.tree()) == policy_files(before)
    for name in ("sam", "tess"):
        lab.workspace.add_key_uri(name, uris[name])
    lab.ok("rotate", "rita", "--discard-signatures", "gateway-stable")
    lab.ok("sign")
    lab.ok("publish")


def test_a_rotation_says_which_ceremony_of_a_channel_it_opens_anew(lab: Lab) -> None:
    """Without rita the live manifest has sam's signature alone; the open one is sam's as well."""
    uris = lab.workspace.key_uris()
    lab.workspace.remove_key_uri("tess")
    lab.ok("ceremony", "start", "gateway-stable")
    lab.ok("sign")
    lab.ok("publish")
    lab.ok("ceremony", "start", "gateway-stable")
    lab.workspace.remove_key_uri("rita")
    lab.ok("sign")
    before = lab.tree()
    for command in (("rotate",), ("recover", "lost-key"), ("recover", "stolen-key")):
        done = lab.run(*command, "rita")
        assert done.code == 3
        assert "gateway-stable-3 has been signed by sam; changing it would discard" in done.err
        assert "--discard-signatures gateway-stable" in done.err
    assert policy_files(lab.tree()) == policy_files(before)
    lab.ok("rotate", "rita", "--discard-signatures", "gateway-stable")
    lab.workspace.add_key_uri("tess", uris["tess"])
    lab.ok("sign")
    lab.ok("publish")


def policy_files(tree: dict[str, bytes]) -> dict[str, bytes]:
    """What a rotation changes: the policy and the ceremonies."""
    return {
        path: data for path, data in tree.items() if path.startswith(("policy.toml", "ceremonies/"))
    }


def test_an_expired_root_is_signed_again_with_everything_else(lab: Lab) -> None:
    done = lab.run("recover", "expired-root")
    assert done.code == 2
    assert "root 1 is good until 2027-03-02: nothing to recover" in done.err
    lab.ok("status", "--fail-within", "30d")
    later = lab.later(days=6 * 365)
    assert "EXPIRED" in later.ok("status").out
    assert later.run("status", "--fail-within", "30d").code == 3
    out = later.ok("recover", "expired-root").out
    assert "root-2: open" in out
    assert "gateway-builds: signed again on this machine" in out
    assert [each.name for each in open_ceremonies(later.workspace)] == [
        "root-2",
        "targets-2",
        "gateway-stable-2",
    ]
    later.ok("sign")
    later.ok("publish")
    assert later.fresh_device()[0] is Outcome.UPDATES
    assert "EXPIRED" not in later.ok("status").out


def test_recover_speaks_the_words_of_the_accident(lab: Lab) -> None:
    assert "bob-2 takes the place of bob" in lab.ok("recover", "lost-key", "bob").out
    lab.ok("sign")
    lab.ok("publish")
    assert "publisher-2 takes the place" in lab.ok("recover", "stolen-key", "rita").out


def test_builds_are_renewed_at_once(lab: Lab) -> None:
    out = lab.ok("ceremony", "start", "gateway-builds").out
    assert "gateway-builds 2: signed on this machine, staged" in out
    assert "next: firmroot publish" in out
    Workspace.open(lab.directory).remove_key_uri("ci")
    done = lab.run("ceremony", "start", "gateway-builds")
    assert done.code == 3
    assert "gateway-builds is signed by 1 of ci" in done.err


def test_status_cannot_look_and_says_so(lab: Lab) -> None:
    (lab.repository / "metadata/timestamp.json").write_bytes(b"<html>")
    found = lab.ok("--json", "status").json
    assert found["unread"]
    assert found["next"] == "firmroot verify"
    assert lab.run("status", "--fail-within", "1h").code == 3
