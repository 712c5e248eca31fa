"""policy.toml and keys/*.toml: every mistake, at once, with its place."""

from __future__ import annotations

from datetime import date
from importlib.resources import files
from typing import TYPE_CHECKING

import pytest

from keys_policy.load import PolicyError, load_keyring, load_policy, parse_key, parse_policy
from keys_policy.model import RolePolicy
from tests.keys_policy.sample import KEYRING

if TYPE_CHECKING:
    from pathlib import Path

LAB = files("keys_policy.examples").joinpath("lab.toml").read_text()


def test_a_policy_is_read() -> None:
    policy = parse_policy(LAB)
    assert policy.lab
    assert policy.roles["channel"] == RolePolicy(2, ("rita", "sam", "tess"), 365, 60)
    assert list(policy.roles_of("publisher")) == ["snapshot", "timestamp"]


def test_a_role_of_a_product_follows_its_template_unless_it_has_its_own_section() -> None:
    own = '\n[roles.gateway-builds]\nthreshold = 1\nkeys = ["tess"]\nexpiry_days = 9\n'
    policy = parse_policy(LAB + own)
    assert policy.role("gateway-builds", "builds").keys == ("tess",)
    assert policy.role("router-builds", "builds").keys == ("ci",)
    with pytest.raises(KeyError):
        policy.role("router-builds")


MISTAKES = [
    ("not TOML", "= 1", "policy.toml: not TOML"),
    ("no schema", LAB.replace("schema = 1", ""), "policy.toml: schema is missing"),
    ("another schema", LAB.replace("schema = 1", "schema = 2"), "schema: expected a whole number"),
    ("unknown field", "colour = 1\n" + LAB, "policy.toml: colour is not known"),
    ("unknown scale", 'scale = "army"\n' + LAB, "scale: expected one of team, maker, found 'army'"),
    ("lab is no boolean", LAB.replace("lab = true", "lab = 1"), "lab: expected true or false"),
    ("unknown algorithm", 'algorithms = ["dsa"]\n' + LAB, "algorithms: expected names among"),
    (
        "a threshold of zero",
        LAB.replace("threshold = 2", "threshold = 0", 1),
        "policy.toml: roles.root.threshold: expected a whole number from 1 to 100, found 0",
    ),
    ("a true threshold", LAB.replace("threshold = 2", "threshold = true", 1), "found True"),
    ("no threshold", LAB.replace("threshold = 2", "", 1), "roles.root.threshold is missing"),
    (
        "keys is text",
        LAB.replace('["ci"]', '"ci"'),
        "roles.builds.keys: expected a list of strings",
    ),
    ("a key twice", LAB.replace('["ci"]', '["ci", "ci"]'), "expected each name once"),
    ("for ever", LAB.replace("expiry_days = 7", "expiry_days = 99999"), "timestamp.expiry_days"),
    ("a role is text", LAB + '\n[roles]\nbuilds = "x"\n', "policy.toml: not TOML"),
    (
        "a required role is missing",
        LAB.replace("[roles.hold]", "[roles.a-b]"),
        "roles.hold is missing",
    ),
    ("a role nobody knows", LAB + "\n[roles.extra]\nthreshold = 1\n", "roles.extra is not a role"),
    ("no roles", "schema = 1\n", "policy.toml: roles is missing"),
    ("roles is text", 'schema = 1\nroles = "x"\n', "policy.toml: roles: expected tables"),
    (
        "a role is a number",
        "schema = 1\n[roles]\nroot = 1\n",
        "policy.toml: roles.root is not a table",
    ),
    ("a name is a number", LAB.replace("scale", "scale") + "\nscale2 = 1\n", "scale2 is not known"),
]


@pytest.mark.parametrize(
    ("text", "message"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES]
)
def test_a_mistake_names_its_place(text: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text)
    assert message in str(caught.value)


def test_all_mistakes_are_told_together() -> None:
    text = LAB.replace("threshold = 2", "threshold = 0").replace(
        "expiry_days = 7", 'expiry_days = "7"'
    )
    with pytest.raises(PolicyError) as caught:
        parse_policy(text)
    assert len(caught.value.problems) == 5


def test_a_role_names_only_keys_that_are_there() -> None:
    keyring = dict.fromkeys(("alice", "bob", "carol"), KEYRING["alice"])
    with pytest.raises(PolicyError) as caught:
        parse_policy(LAB, keyring=keyring)
    assert "policy.toml: roles.builds.keys: there is no keys/ci.toml" in caught.value.problems
    assert not any("alice" in problem for problem in caught.value.problems)


def key_file(**changes: object) -> str:
    key = KEYRING["alice"].key
    fields = {
        "schema": 1,
        "keyid": key.keyid,
        "keytype": key.keytype,
        "scheme": key.scheme,
        "public": key.keyval["public"],
        **changes,
    }
    return "".join(f"{name} = {value!r}\n" for name, value in fields.items())


def test_a_key_is_read() -> None:
    holder = parse_key(key_file(holder="Alice A.", custody="safe"), "alice", "keys/alice.toml")
    assert (holder.name, holder.holder, holder.custody) == ("alice", "Alice A.", "safe")
    assert holder.key == KEYRING["alice"].key
    assert parse_key(key_file(), "alice", "x").holder == "alice"
    assert (holder.contact, holder.place, holder.made) == ("", "", None)
    more = (
        key_file(contact="alice@acme.example", place="safe 2")
        + "made = 2026-03-02\ndestroyed = 2027-01-31\n"
    )
    holder = parse_key(more, "alice", "keys/alice.toml")
    assert (holder.contact, holder.place) == ("alice@acme.example", "safe 2")
    assert (holder.made, holder.destroyed) == (date(2026, 3, 2), date(2027, 1, 31))


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (key_file(keytype="dsa"), "alice", "keytype 'dsa' with scheme 'ed25519': expected ed25519"),
        (key_file(extra=1), "alice", "keys/alice.toml: extra is not known"),
        (key_file(made="2026-03-02"), "alice", "made: expected a date such as 2026-03-02"),
        (key_file() + "made = 2026-03-02T00:00:00Z\n", "alice", "made: expected a date such as"),
        (key_file(public=1), "alice", "public: expected a string, found 1"),
        (key_file(), "Alice", "expected a file name of small letters"),
        ("schema = 1\n", "alice", "keys/alice.toml: keyid is missing"),
    ],
)
def test_a_mistake_in_a_key_names_its_place(text: str, name: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_key(text, name, "keys/alice.toml")
    assert message in str(caught.value)


def test_mistakes_of_all_key_files_are_told_together(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("=")
    (tmp_path / "b.toml").write_bytes(b"\xff")
    with pytest.raises(PolicyError) as caught:
        load_keyring(tmp_path)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "keys/a.toml",
        str(tmp_path / "b.toml"),
    ]


def test_a_policy_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        load_policy(tmp_path / "policy.toml")


def test_five_mistakes_are_told_at_once() -> None:
    text = "schema = 1\nalgoritms = []\n" + "".join(
        f"[roles.{name}]\nthreshold = 2\nkeys = ['{key}']\nexpiry_days = {days}\n"
        for name, key, days in (
            ("root", "alcie", 365),
            ("targets", "alice", 0),
            ("snapshot", "alice", 9),
            ("timestamp", "alice", "'9'"),
            ("builds", "alice", 9),
            ("channel", "alice", 9),
        )
    )
    with pytest.raises(PolicyError) as caught:
        parse_policy(text, keyring={"alice": KEYRING["alice"]})
    assert sorted(caught.value.problems) == [
        "policy.toml: algoritms is not known; did you mean algorithms?",
        "policy.toml: roles.hold is missing",
        "policy.toml: roles.root.keys: there is no keys/alcie.toml; did you mean alice?",
        "policy.toml: roles.targets.expiry_days: expected a whole number from 1 to 36500, found 0",
        (
            "policy.toml: roles.timestamp.expiry_days: expected a whole number from 1 to 36500, "
            "found '9'"
        ),
    ]
