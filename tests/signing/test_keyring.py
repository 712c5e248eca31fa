"""Keys get a name once, and their public halves are written for people to review."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from securesystemslib.signer import SSlibKey

from client_reference.errors import ConfigurationError
from repo_tools.signing.keyfiles import generate, public_key, write_private
from repo_tools.signing.keyring import add_public, add_to_roles, import_private, new_key
from repo_tools.signing.secrets import Secrets
from repo_tools.workspace import Workspace
from tests.signing.team import PASSPHRASE, clone, make_lab

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lab(tmp_path_factory.mktemp("keyring") / "acme").directory


@pytest.fixture
def ws(_made: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(_made, tmp_path / "acme")
    return Workspace.open(tmp_path / "acme")


def tree(ws: Workspace) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in ws.directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("algorithm", ["ed25519", "ecdsa-p256"])
def test_a_new_key_is_found_again_and_its_public_half_is_readable(
    ws: Workspace, algorithm: str
) -> None:
    allowed = replace(ws, policy=replace(ws.policy, algorithms=("ed25519", "ecdsa-p256")))
    made = new_key(allowed, "dora", algorithm, "Dora", PASSPHRASE)
    again = Workspace.open(ws.directory)
    assert again.keyring["dora"] == made
    assert again.key_uris()["dora"] == "file:.firmroot/keys/dora.pem"
    text = (ws.directory / "keys/dora.toml").read_text()
    assert 'holder = "Dora"\n' in text
    lines = text.partition("public = ")[2].splitlines()
    if algorithm == "ed25519":
        assert len(lines) == 1
    else:
        assert lines[:2] == ['"""-----BEGIN PUBLIC KEY-----', lines[1]]
        assert "\\n" not in text


def test_a_kind_of_key_that_the_policy_does_not_allow_is_not_made(ws: Workspace) -> None:
    narrow = replace(ws, policy=replace(ws.policy, algorithms=("ed25519",)))
    before = tree(ws)
    with pytest.raises(ConfigurationError, match="does not allow ecdsa-p256 keys, only ed25519"):
        new_key(narrow, "dora", "ecdsa-p256", "Dora", PASSPHRASE)
    assert tree(ws) == before
    new_key(narrow, "dora", "ed25519", "Dora", PASSPHRASE)


WRONG_NAMES = {"alice": "there is a key alice already", "Dora Smith": "is not a name for a key"}


@pytest.mark.parametrize("name", WRONG_NAMES)
def test_a_wrong_name_is_refused_before_anything_is_written(
    ws: Workspace, tmp_path: Path, name: str
) -> None:
    """Alice's private key is on another machine: no file is in the way."""
    far = clone(ws, tmp_path / "far", "bob")
    stick = tmp_path / "stick.pem"
    private = generate("ed25519")
    write_private(stick, private, PASSPHRASE)
    before = tree(far)
    with pytest.raises(ConfigurationError, match=WRONG_NAMES[name]):
        new_key(far, name, "ed25519", "Dora", PASSPHRASE)
    with pytest.raises(ConfigurationError, match=WRONG_NAMES[name]):
        import_private(far, name, f"file:{stick}", "Dora", Secrets(PASSPHRASE))
    if name not in far.keyring:  # nobody is asked for a passphrase or PIN for nothing
        with pytest.raises(ConfigurationError, match=WRONG_NAMES[name]):
            import_private(far, name, f"file:{tmp_path}/none", "Dora", Secrets(PASSPHRASE))
    with pytest.raises(ConfigurationError, match=WRONG_NAMES[name]):
        add_public(far, name, public_key(private), "Dora", "file")
    assert tree(far) == before
    import_private(far, "dora", f"file:{stick}", "Dora", Secrets(PASSPHRASE))
    assert Workspace.open(far.directory).key_uris()["dora"] == f"file:{stick}"


def test_a_key_that_is_known_is_brought_to_another_machine(ws: Workspace, tmp_path: Path) -> None:
    far = clone(ws, tmp_path / "far", "bob")
    stick = tmp_path / "alice.pem"
    shutil.copy(ws.directory / ".firmroot/keys/alice.pem", stick)
    lab = (ws.directory / ".firmroot/lab-passphrase").read_bytes().strip()
    assert "alice" not in far.key_uris()
    found = import_private(far, "alice", f"file:{stick}", "Somebody", Secrets(lab))
    assert found == ws.keyring["alice"], "what people say of it stays"
    again = Workspace.open(far.directory)
    assert again.key_uris()["alice"] == f"file:{stick}"
    assert again.keyring == far.keyring


def test_a_name_that_somebody_took_meanwhile_is_told(ws: Workspace) -> None:
    key = public_key(generate("ed25519"))
    add_public(ws, "dora", public_key(generate("ed25519")), "Dora", "file")
    with pytest.raises(ConfigurationError, match=r"keys/dora\.toml exists"):
        add_public(ws, "dora", key, "Dora", "file")


def test_one_key_has_one_name(ws: Workspace) -> None:
    with pytest.raises(ConfigurationError, match="this key is here already, as alice"):
        add_public(ws, "alice-again", ws.keyring["alice"].key, "Alice", "file")
    assert "alice-again" not in Workspace.open(ws.directory).keyring


def test_a_kind_of_key_that_no_device_reads_is_refused(ws: Workspace) -> None:
    good = public_key(generate("ed25519"))
    odd = SSlibKey(good.keyid, "ed25519", "ed25519-of-tomorrow", good.keyval)
    with pytest.raises(ConfigurationError, match="ed25519 key with ed25519-of-tomorrow is not"):
        add_public(ws, "dora", odd, "Dora", "file")
    add_public(ws, "dora", good, "Dora", "file")


def test_a_key_gets_its_place_in_a_role_once(ws: Workspace) -> None:
    new_key(ws, "dora", "ed25519", "Dora", PASSPHRASE)
    ws = Workspace.open(ws.directory)
    online = ws.config.online
    for _ in range(2):
        add_to_roles(ws, "dora", ["root", "targets"])
    again = Workspace.open(ws.directory)
    assert again.policy.roles["root"].keys == ("alice", "bob", "carol", "dora")
    assert list(again.policy.roles_of("dora")) == ["root", "targets"]
    assert again.config.online == online, "a key of people is not for the publisher"


def test_an_online_role_tells_the_publisher_where_its_key_is(ws: Workspace) -> None:
    new_key(ws, "robot", "ed25519", "Robot", PASSPHRASE)
    add_public(ws, "far", public_key(generate("ed25519")), "Robot", "hsm")
    ws = Workspace.open(ws.directory)
    before = ws.config.online
    add_to_roles(ws, "robot", ["timestamp"])
    ws = Workspace.open(ws.directory)
    assert ws.config.online == {**before, "robot": "file:.firmroot/keys/robot.pem"}
    add_to_roles(ws, "far", ["snapshot"])
    again = Workspace.open(ws.directory)
    assert again.config.online == ws.config.online, "its private half is not on this machine"
    assert "far" in again.policy.roles["snapshot"].keys


def test_a_role_that_the_policy_has_not_changes_nothing(ws: Workspace) -> None:
    before = tree(ws)
    with pytest.raises(ConfigurationError, match="the policy has no role 'roots'; it has root"):
        add_to_roles(ws, "alice", ["channel", "roots"])
    assert tree(ws) == before
