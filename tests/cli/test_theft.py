"""What somebody with a stolen key can have signed: shown, and left out where nobody needs it."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import ConfigurationError, ExitCode
from repo_tools.gone import gone_keys, remember_gone
from repo_tools.publishing.bridge import Gone
from tests.publishing.lab import HARDWARE, PRODUCT, Lab

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def _live(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """1.0 is offered; 6.6 is in the builds role and nowhere else."""
    lab = Lab(tmp_path_factory.mktemp("theft") / "acme")
    lab.init()
    lab.ok("product", "add", PRODUCT, "--hardware", HARDWARE)
    lab.ship("1.0")
    lab.add("6.6")
    lab.ok("publish")
    return lab


@pytest.fixture
def lab(_live: Lab, tmp_path: Path) -> Lab:
    root = (_live.repository / "metadata/1.root.json").read_bytes()
    (tmp_path / "factory-root.json").write_bytes(root)
    return _live.copy(tmp_path / "acme")


def builds(lab: Lab) -> set[str]:
    return {line.split()[0] for line in lab.ok("firmware", "list").out.splitlines() if "@" in line}


def test_what_a_builder_can_have_built_is_listed_before_it_is_signed_again(lab: Lab) -> None:
    said = lab.ok("recover", "stolen-key", "ci").out
    assert "stolen     gateway-builds: its thief signs it" in said
    assert "signed again gateway@1.0 (sequence 1), offered on stable" in said
    assert "signed again gateway@6.6 (sequence 2), no channel offers it" in said
    assert "--drop REF" in said


def test_what_no_channel_offers_may_be_dropped(lab: Lab) -> None:
    said = lab.ok("recover", "stolen-key", "ci", "--drop", f"{PRODUCT}@6.6").out
    assert "dropped      gateway@6.6 (sequence 2)" in said
    lab.ok("sign")
    lab.ok("publish")
    assert builds(lab) == {f"{PRODUCT}@1.0"}
    assert lab.fresh_device()[1] == "installs 1.0"
    lab.ship("1.1")
    assert lab.fresh_device()[1] == "installs 1.1"


@pytest.mark.parametrize(
    ("ref", "code", "message"),
    [
        ("gateway@1.0", 5, "gateway@1.0 cannot be dropped: stable offers it"),
        ("gateway@6.7", 2, "gateway@6.7 is not what this key built; that is: gateway@1.0"),
    ],
)
def test_what_cannot_be_dropped_is_told(ref: str, code: int, message: str, lab: Lab) -> None:
    policy = (lab.directory / "policy.toml").read_bytes()
    done = lab.run("rotate", "ci", "--compromised", "--drop", ref)
    assert done.code == code
    assert message in done.err
    assert (lab.directory / "policy.toml").read_bytes() == policy
    assert not gone_keys(lab.workspace)


@pytest.mark.parametrize("version", ["1.0", "6.6"])
def test_what_is_offered_live_or_on_its_way_cannot_be_dropped(version: str, lab: Lab) -> None:
    """The next manifest alone says nothing of devices; the live one nothing of what is signed."""
    lab.ok("channel", "promote", f"{PRODUCT}@6.6", "--to", "stable")
    assert lab.ok("channel", "diff", f"{PRODUCT}/stable").out == "+ 6.6\n- 1.0\n"
    done = lab.run("rotate", "ci", "--compromised", "--drop", f"{PRODUCT}@{version}")
    assert done.code == 5
    assert f"{PRODUCT}@{version} cannot be dropped: stable offers it" in done.err


def test_dropping_needs_a_thief(lab: Lab) -> None:
    assert lab.run("rotate", "ci", "--drop", f"{PRODUCT}@6.6").code == 2


def test_the_power_of_a_key_is_told_for_each_role(lab: Lab) -> None:
    said = lab.ok("rotate", "alice", "--compromised").out
    for role in ("root", "targets"):
        assert (
            f"stolen     {role}: with 1 more key(s) its thief signs it; what is live carries its "
            "signature"
        ) in said
    assert "signed again gateway@" not in said, "alice builds nothing"


def test_thieves_with_a_threshold_of_root_are_told_apart(lab: Lab) -> None:
    remember_gone(lab.workspace, "bob", Gone.STOLEN)
    said = lab.ok("rotate", "alice", "--compromised").out
    assert (
        "stolen     root: its thief signs it; no rotation ends that: docs/runbooks/lost-root.md"
    ) in said
    assert "stolen     targets: its thief signs it; what is live carries" in said


def test_a_root_of_which_too_few_keys_are_left_is_not_rotated(lab: Lab) -> None:
    lab.ok("recover", "lost-key", "alice")
    before = lab.tree()
    done = lab.run("recover", "lost-key", "bob", "--discard-signatures", "root")
    assert done.code == ExitCode.REFUSED
    assert "root 1 is followed by what 2 of its keys sign" in done.err
    assert "there are left: carol; no rotation helps" in done.err
    assert "without a recovery anchor only a copy of a key helps" in done.err
    made = {"keys/bob-2.toml", ".firmroot/keys/bob-2.pem", ".firmroot/keys.toml"}
    after = lab.tree()
    assert {each for each in after if after[each] != before.get(each)} <= made
    # Her copy is found: it signs once more.
    lab.ok("rotate", "bob")
    lab.ok("sign")
    lab.ok("publish")
    assert lab.fresh_device()[1] == "installs 1.0"


# gone.toml.


def test_what_is_gone_is_remembered_and_what_was_stolen_stays_stolen(lab: Lab) -> None:
    ws = lab.workspace
    assert gone_keys(ws) == {}
    remember_gone(ws, "alice", Gone.LOST)
    remember_gone(ws, "bob", Gone.LOST)
    remember_gone(ws, "alice", Gone.STOLEN)
    remember_gone(ws, "alice", Gone.LOST)
    assert gone_keys(ws) == {
        ws.keyring["alice"].key.keyid: Gone.STOLEN,
        ws.keyring["bob"].key.keyid: Gone.LOST,
    }
    path = lab.directory / "gone.toml"
    lines = [line for line in path.read_text().splitlines() if "{" in line]
    assert len(lines) == 2, "one line each: git merges two, or a person does"
    for damaged in ('alice = "borrowed"', "alice = 3", 'alice = { name = "alice" }', 'x = ["y"]'):
        path.write_text(f"[keys]\n{damaged}\n")
        with pytest.raises(ConfigurationError, match=r"gone\.toml cannot be read"):
            gone_keys(ws)


def test_a_file_that_remembers_names_is_read_and_goes_on_with_key_ids(lab: Lab) -> None:
    ws, path = lab.workspace, lab.directory / "gone.toml"
    alice, bob = (ws.keyring[name].key.keyid for name in ("alice", "bob"))
    path.write_text('schema = 1\n\n[keys]\nalice = "stolen"\n')
    remember_gone(ws, "alice", Gone.LOST)
    assert gone_keys(ws) == {alice: Gone.STOLEN}
    remember_gone(ws, "bob", Gone.LOST)
    assert gone_keys(ws) == {alice: Gone.STOLEN, bob: Gone.LOST}
    assert set(tomllib.loads(path.read_text())["keys"]) == {alice, bob}


def test_a_stolen_key_does_not_come_back_under_another_name(lab: Lab) -> None:
    """Attack: nor once somebody has removed its file."""
    lab.ok("recover", "stolen-key", "sam")
    lab.ok("sign")
    lab.ok("publish")
    keys = lab.directory / "keys"
    text = (keys / "sam.toml").read_text()
    (keys / "sam.toml").unlink()
    (keys / "tom.toml").write_text(text.replace('"sam"', '"tom"'))
    policy = lab.directory / "policy.toml"
    before = policy.read_text()
    policy.write_text(before.replace('"sam-2"', '"tom"'))
    assert policy.read_text() != before
    done = lab.run("policy", "check")
    assert "roles.channel: tom is in other hands, as gone.toml says" in done.out
    policy.write_text(before)
    (keys / "tom.toml").unlink()
    # Whoever has a new key under the old name is not the thief.
    (lab.directory / ".firmroot/keys/sam.pem").unlink()
    lab.ok("key", "new", "sam")
    policy.write_text(before.replace('"sam-2"', '"sam"'))
    assert "in other hands" not in lab.run("policy", "check").out


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("rotate", "bob"), {}),
        (("recover", "lost-key", "bob"), {"bob": Gone.LOST}),
        (("recover", "stolen-key", "bob"), {"bob": Gone.STOLEN}),
        (("rotate", "bob", "--compromised"), {"bob": Gone.STOLEN}),
    ],
)
def test_each_command_remembers_what_it_was_told(
    command: tuple[str, ...], expected: dict[str, Gone], lab: Lab
) -> None:
    lab.ok(*command)
    ws = lab.workspace
    names = {ws.key_name(keyid).split()[0]: how for keyid, how in gone_keys(ws).items()}
    assert names == expected


# The steps that are shown, and who must sign.


def test_a_stolen_key_never_comes_back(lab: Lab) -> None:
    """Attack: whoever has it waits until somebody takes the key for the holder's other one."""
    lab.ok("recover", "stolen-key", "sam")
    lab.ok("recover", "lost-key", "tess")
    policy = lab.directory / "policy.toml"
    before = policy.read_text()
    for old in ("sam-2", "oncall-1"):
        done = lab.run("rotate", old, "--to", "sam")
        assert done.code == ExitCode.REFUSED
        assert "sam is in other hands, as gone.toml says [stolen-keys]" in done.err
        assert "It never comes back; its holder makes another" in done.err
        assert policy.read_text() == before
    policy.write_text(before.replace('"sam-2"', '"sam"'))
    for command in ("sign", "publish"):
        done = lab.run(command)
        assert done.code == ExitCode.REFUSED
        assert "[stolen-keys]" in done.err
    lab.ok("recover", "stolen-key", "sam", "--to", "sam-2")
    lab.ok("rotate", "tess-2", "--to", "tess")  # lost and found is another matter
    lab.ok("sign")
    lab.ok("publish")


def test_a_bridge_is_announced_step_by_step(lab: Lab) -> None:
    said = lab.ok("rotate", "publisher").out
    steps = [line.strip() for line in said.splitlines() if line.startswith("  ")]
    assert steps == [
        "1. a new root 2, signed by 2 of its own keys and 2 of those of the root before",
        "2. publish, a bridge: timestamp, snapshot and targets, signed for both roots",
        "3. a wait for caches, then the new root",
        "4. a wait for caches, then timestamp and snapshot without the old signatures",
    ]


def test_a_cut_is_announced_as_one(lab: Lab) -> None:
    said = lab.ok("recover", "stolen-key", "publisher").out
    assert "2. publish, a cut: the new root" in said
    assert "3. at once a timestamp of the new keys alone; a device in between tries again" in said


def test_a_rotation_below_targets_is_one_commit(lab: Lab) -> None:
    said = lab.ok("rotate", "rita").out
    assert "1. a new targets, signed by the people of that role" in said
    assert "2. publish: in one commit, no device notices" in said


def test_targets_of_a_bridge_need_the_keys_of_both_roots(lab: Lab) -> None:
    """alice and bob go: carol, alice and bob speak for the live root, the new ones for the next."""
    for name in ("alice", "bob"):
        lab.ok("rotate", name)
    uris = lab.workspace.key_uris()
    for name in ("alice", "bob"):
        lab.workspace.remove_key_uri(name)
    lab.run("sign")
    shown = lab.ok("ceremony", "show", "targets").out
    assert "1 more of alice, bob" in shown
    assert "by root 1, until it is replaced" in shown
    for name in ("alice", "bob"):
        lab.workspace.add_key_uri(name, uris[name])
    lab.ok("sign")
    lab.ok("publish")
    assert lab.fresh_device()[1] == "installs 1.0"


def test_targets_of_a_cut_need_the_new_keys_only(lab: Lab) -> None:
    for name in ("alice", "bob"):
        lab.ok("recover", "stolen-key", name, "--discard-signatures", "targets")
    shown = lab.ok("ceremony", "show", "targets").out
    assert "until it is replaced" not in shown
