"""What a rotation needs, as a table."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from client_reference.errors import ConfigurationError, RefusedError
from repo_tools.metadata.edits import next_root, next_targets
from repo_tools.metadata.rotation import plan_rotation, replace_key, roles_held
from tests.keys_policy.sample import KEYRING, POLICY

NOW = datetime(2026, 3, 2, tzinfo=UTC)

# key, compromised -> new root, new targets, snapshot key too, online
TABLE = [
    ("a lost root key", "alice", False, (True, True, False, False)),
    ("a stolen root and targets key", "alice", True, (True, True, True, False)),
    ("a stolen online key", "publisher", True, (True, False, False, True)),
    ("an online key in time", "publisher", False, (True, False, False, True)),
    ("a lost CI key", "ci", False, (False, True, False, False)),
    ("a stolen CI key", "ci", True, (False, True, True, False)),
    ("a stolen release manager's key", "rita", True, (False, True, True, False)),
]


@pytest.mark.parametrize(
    ("key", "compromised", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_what_has_to_change(key: str, compromised: bool, expected: tuple[bool, ...]) -> None:  # noqa: FBT001  a row
    found = plan_rotation(POLICY, key, "new", [], compromised=compromised)
    assert (found.root, found.targets, found.snapshot, found.online) == expected
    assert found.sections == tuple(POLICY.roles_of(key))
    assert list(found.policy.roles_of(key)) == []
    assert list(found.policy.roles_of("new")) == list(found.sections)


def test_a_key_of_snapshot_itself_needs_no_second_rotation() -> None:
    both = replace_key(POLICY, "ci", "publisher")
    assert not plan_rotation(both, "publisher", "new", [], compromised=True).snapshot


def test_a_key_that_moves_no_versions_of_roles_leaves_the_snapshot_key_alone() -> None:
    timestamp = replace(POLICY.roles["timestamp"], keys=("clock",))
    policy = replace(POLICY, roles={**POLICY.roles, "timestamp": timestamp})
    assert not plan_rotation(policy, "clock", "new", [], compromised=True).snapshot


def test_an_interrupted_rotation_is_taken_up_again() -> None:
    after = replace_key(POLICY, "ci", "new")
    held = ["gateway-builds"]
    found = plan_rotation(after, "ci", "new", held, compromised=False)
    assert (found.sections, found.root, found.targets) == ((), False, True)
    found = plan_rotation(after, "ci", "new", ["root", "targets"], compromised=False)
    assert (found.root, found.targets) == (True, True)


def test_held_roles_are_found_in_what_is_signed() -> None:
    root = next_root(POLICY, KEYRING, None, NOW, lab=False)
    targets = next_targets(POLICY, KEYRING, {"gateway": ["stable"]}, None, NOW)
    keyid = {name: holder.key.keyid for name, holder in KEYRING.items()}
    assert list(roles_held(keyid["alice"], root, targets)) == ["root", "targets"]
    assert list(roles_held(keyid["rita"], root, targets)) == ["gateway-stable"]
    assert list(roles_held(keyid["rita"], None, None)) == []
    targets.delegations = None
    assert list(roles_held(keyid["rita"], None, targets)) == []


def test_a_key_takes_its_place_in_the_list() -> None:
    assert replace_key(POLICY, "bob", "new").roles["root"].keys == ("alice", "new", "carol")
    assert replace_key(POLICY, "bob", None).roles["root"].keys == ("alice", "carol")
    assert replace_key(POLICY, "bob", "alice").roles["root"].keys == ("alice", "carol")


def test_what_cannot_be_rotated_is_told() -> None:
    with pytest.raises(ConfigurationError, match="key nobody is in no role"):
        plan_rotation(POLICY, "nobody", "new", [], compromised=False)
    with pytest.raises(ConfigurationError, match="alice cannot take its own place"):
        plan_rotation(POLICY, "alice", "alice", [], compromised=False)
    with pytest.raises(RefusedError) as caught:
        plan_rotation(POLICY, "ci", None, [], compromised=False)
    assert caught.value.message == "without ci role builds has 0 keys, below its threshold 1"
    assert plan_rotation(POLICY, "alice", None, [], compromised=False).new is None
