"""What the policy forbids stops plan, sign and publish; what it only warns of stops nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import tomlkit

from client_reference.errors import ExitCode
from keys_policy.checks import Shipped
from repo_tools.metadata.roles import RECOVERY
from repo_tools.publishing.factory import load_registry
from repo_tools.signing.rules import shipped
from tests.publishing.lab import PRODUCT

if TYPE_CHECKING:
    from tests.publishing.lab import Lab


def edit(lab: Lab, before: str, after: str, count: int = 1) -> str:
    """Change policy.toml; returns what it was."""
    file = lab.directory / "policy.toml"
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after, count))
    return text


@pytest.mark.parametrize("command", [("plan",), ("sign",), ("publish",)], ids=" ".join)
def test_a_lead_time_that_cannot_be_kept_stops_every_command(
    command: tuple[str, ...], following: Lab
) -> None:
    following.ok("ceremony", "start", "root")
    sound = edit(following, "schema = 1", "schema = 1\nlead_days = 3650")
    before = following.tree()
    done = following.run(*command)
    assert done.code == ExitCode.REFUSED
    assert "policy.toml: roles.root: signing_days " in done.err
    assert "a ceremony takes 3650 [lead-time]" in done.err
    assert "Raise signing_days of the role in policy.toml" in done.err
    assert "firmroot policy explain lead-time" in done.err
    assert following.tree() == before
    (following.directory / "policy.toml").write_text(sound)
    following.ok(*command)


def test_five_mistakes_are_reported_at_once_with_file_place_and_fix(live: Lab) -> None:
    edit(live, "schema = 1", 'schema = 1\nlead_days = 3650\nalgorithms = ["rsa", "ed25519"]')
    edit(live, "[roles.targets]\n", '[roles.targets]\nalgorithms = ["rsa"]\n')
    edit(live, "[roles.root]\n", "[roles.root]\nrotation_days = 1\ncustodies = 2\n")
    edit(live, 'keys = ["ci"]', 'keys = ["ci", "rita"]')
    done = live.later(days=3).run("--json", "policy", "check")
    assert done.code == ExitCode.REFUSED
    found: dict[str, tuple[str, str, str]] = {}
    for each in json.loads(done.out)["findings"]:
        found.setdefault(each["id"], (each["file"], each["detail"], each["fix"]))
    expected = {
        "lead-time": ("policy.toml", "roles.root: signing_days", "Raise signing_days"),
        "algorithm": ("policy.toml", "roles.targets: alice is ed25519", "Replace the key"),
        "key-age": (
            "keys/alice.toml",
            "keys/alice.toml: made 2026-03-02, 3 days ago",
            "firmroot rotate KEY",
        ),
        "distinct-custody": ("policy.toml", "roles.root: its keys are kept in 1", "Give the role"),
        "builds-channel": ("policy.toml", "rita is in roles.builds and in", "Make another key"),
    }
    assert set(expected) <= set(found)
    for name, (file, detail, fix) in expected.items():
        assert found[name][0] == file
        assert found[name][1].startswith(detail)
        assert found[name][2].startswith(fix)
    told = live.later(days=3).run("policy", "check").out
    assert "error: policy.toml: roles.targets: alice is ed25519 ed25519 [algorithm]\n  " in told
    assert "audit: keys/alice.toml: made 2026-03-02" in told


def test_mistakes_of_shape_and_of_sense_are_reported_in_one_run(live: Lab) -> None:
    sound = edit(live, "[roles.timestamp]\n", "[roles.timestamp]\ncolour = 1\n")
    policy = tomlkit.parse((live.directory / "policy.toml").read_text()).unwrap()
    roles = policy["roles"]
    roles["targets"]["expiry_days"] = "365"
    roles["root"]["threshold"] = 3
    roles["channel"]["keys"].append("ci")
    roles["snapshot"]["signing_days"] = 4000
    (live.directory / "policy.toml").write_text(tomlkit.dumps(policy))
    done = live.run("--json", "policy", "check")
    assert done.code == ExitCode.USAGE
    found = json.loads(done.out)["findings"]
    expected = [
        (
            "shape",
            "roles.targets.expiry_days: expected a whole number from 1 to 36500, found '365'",
            "Set expiry_days to a whole number from 1 to 36500, without quotes.",
        ),
        ("shape", "roles.timestamp.colour is not known", "Remove colour."),
        ("threshold-spare", "roles.root: all 3 keys must sign", "Add another key"),
        ("builds-channel", "ci is in roles.builds and in roles.channel", "Make another key"),
        ("signing-period", "roles.snapshot: signing begins 4000 days", "Make signing_days"),
    ]
    for name, detail, fix in expected:
        (one,) = [each for each in found if each["detail"].startswith(detail)]
        assert (one["id"], one["file"], one["severity"]) == (name, "policy.toml", "error")
        assert one["fix"].startswith(fix)
    assert not [each for each in found if each["detail"].startswith("roles.targets: signing")]
    done = live.run("policy", "check")
    assert done.code == ExitCode.USAGE
    for _, detail, fix in expected:
        assert f"error: policy.toml: {detail}" in done.out
        assert f"\n  {fix}" in done.out
    (live.directory / "policy.toml").write_text(sound)
    sensible = json.loads(live.run("--json", "policy", "check").out)["findings"]
    assert {each["severity"] for each in sensible} == {"audit"}, "it is a lab, and nothing else"


def test_of_a_section_that_is_not_there_nothing_else_is_said(live: Lab) -> None:
    text = (live.directory / "policy.toml").read_text().replace("lead_days = 0", "lead_days = 14")
    (live.directory / "policy.toml").write_text(text.replace("[roles.hold]", "[roles.hodl]"))
    found = json.loads(live.run("--json", "policy", "check").out)["findings"]
    details = [each["detail"] for each in found if "roles.h" in each["detail"]]
    assert [each.split(":")[0] for each in details] == [
        "roles.hold is missing",
        "roles.hodl is not a role",
    ]


def test_a_damaged_key_file_hides_no_other_mistake_and_makes_none(live: Lab) -> None:
    """Its key may be what the signed root has, and its holder somebody else than the others."""
    (live.directory / "keys/alice.toml").write_text("=")
    (live.directory / "keys/bob.toml").write_text("schema = 1\nholder = 1\n")
    edit(live, 'keys = ["ci"]', 'keys = ["ci", "rita"]')
    done = live.run("--json", "policy", "check")
    assert done.code == ExitCode.USAGE
    found = [each for each in json.loads(done.out)["findings"] if each["severity"] == "error"]
    assert {(each["file"], each["id"]) for each in found} == {
        ("keys/alice.toml", "shape"),
        ("keys/bob.toml", "shape"),
        ("policy.toml", "builds-channel"),
    }
    (live.directory / "policy.toml").write_text("= 1")
    found = json.loads(live.run("--json", "policy", "check").out)["findings"]
    assert [each["detail"].split(":")[0] for each in found if each["file"] == "policy.toml"] == [
        "not TOML"
    ]


@pytest.mark.parametrize(("field", "wrong"), [("keyid", "ab" * 32), ("scheme", "rsassa-pkcs1v15")])
def test_a_key_file_that_is_wrong_is_mended_as_the_finding_says(
    live: Lab, field: str, wrong: str
) -> None:
    file = live.directory / "keys/bob.toml"
    whole = tomlkit.parse(file.read_text())
    file.write_text(tomlkit.dumps({**whole, field: wrong}))
    found = json.loads(live.run("--json", "policy", "check").out)["findings"]
    fixes = [each["fix"] for each in found if each["file"] == "keys/bob.toml"]
    assert any(
        each.startswith("Remove keys/") and "then import the key again: firmroot key import" in each
        for each in fixes
    )
    file.unlink()
    live.ok("key", "import", str(live.directory / ".firmroot/keys/bob.pem"), "--name", "bob")
    assert tomlkit.parse(file.read_text())[field] == whole[field]
    live.ok("sign")


AHEAD = "root {}: root is 2 of alice, bob, carol; the policy expects 2 of alice, bob, carol, dave"


def test_a_policy_that_is_ahead_stops_no_ceremony_and_no_build(live: Lab) -> None:
    live.ok("ceremony", "start", "root")
    live.ok("sign", "--key", "bob")
    (given,) = (live.directory / "ceremonies/root-2").glob("*.sig.json")
    told = live.ok("key", "new", "dave", "--role", "root").out
    foretold, _, after = told.partition("dave: made")
    assert "dave will sign nothing for root before the next root names it" in foretold
    assert "(firmroot ceremony start root); root-2 is open and goes on without it" in foretold
    assert "next: firmroot sign" in after
    assert live.run("ceremony", "finish").code == ExitCode.ACTION_REQUIRED
    live.add("1.1")
    live.ok("publish")
    assert given.exists()
    found = live.run("policy", "check").out
    assert f"warning: {AHEAD.format(2)} [policy-ahead]" in found
    assert "firmroot ceremony start ROLE, with the root or targets" in found
    live.ok("sign", "--key", "alice")
    live.ok("publish")
    status = live.ok("status").out
    assert f"policy: {AHEAD.format(2)} [policy-ahead]" in status
    assert "next: firmroot ceremony start root  (root 2: root is 2 of alice, bob, carol" in status
    live.ok("ceremony", "start", "root")
    live.ok("sign")
    live.ok("publish")
    assert "policy-ahead" not in live.run("policy", "check").out


def test_a_policy_that_is_ahead_stops_no_channel(live: Lab) -> None:
    live.ok("key", "new", "dave", "--role", "root")
    live.add("1.1")
    live.promote("1.1")
    live.ok("sign")
    live.ok("publish")
    status = live.ok("status").out
    assert "next: firmroot ceremony start root  (root 1: root is 2 of alice, bob, carol" in status


@pytest.mark.parametrize(
    ("before", "after"),
    [(', "carol"', ""), ("threshold = 2", "threshold = 3")],
    ids=["a key was removed", "the threshold went up"],
)
def test_what_asks_for_less_than_the_policy_is_neither_signed_nor_published(
    before: str, after: str, following: Lab
) -> None:
    following.ok("ceremony", "start", "root")
    following.ok("sign", "--key", "bob")
    following.ok("key", "new", "dave", "--role", "targets")
    path = following.directory / "policy.toml"
    head, marker, rest = path.read_text().partition("[roles.targets]")
    assert before in rest
    path.write_text(head + marker + rest.replace(before, after, 1))
    for command in ("sign", "publish"):
        done = following.run(command)
        assert done.code == ExitCode.REFUSED
        assert "root 2: targets is 2 of alice, bob, carol; the policy expects" in done.err
        assert "[policy-binds]" in done.err
    following.ok("ceremony", "start", "root", "--discard-signatures", "root")
    following.ok("sign")
    following.ok("publish")


def test_an_old_key_fails_the_check_but_stops_nobody(following: Lab) -> None:
    edit(following, "[roles.timestamp]\n", "[roles.timestamp]\nrotation_days = 1\n")
    later = following.later(days=2)
    done = later.run("policy", "check")
    assert done.code == ExitCode.REFUSED
    assert "keys/publisher.toml: made 2026-03-02, 2 days ago" in done.out
    later.ok("publish")


def test_the_registry_says_what_was_shipped(live: Lab) -> None:
    export = load_registry(live.workspace)[0]
    root = live.workspace.newest_root()
    assert root is not None
    trusted = {name: frozenset(role.keyids) for name, role in root.roles.items()}
    assert shipped(live.workspace) == (
        Shipped(export.id, export.client_version, export.count, trusted),
    )
    live.ok("--yes", "factory", "retire", export.id)
    assert shipped(live.workspace) == ()


def test_an_export_is_born_with_the_anchor_that_there_was(live: Lab) -> None:
    live.ok("anchor", "init")
    live.ok("sign")
    live.ok("anchor", "publish")
    live.ok("factory", "export", PRODUCT, "--to", live.directory.parent / "anchored")
    anchor = live.workspace.newest_recovery()
    assert anchor is not None
    older, newer = shipped(live.workspace)
    assert RECOVERY not in older.trusted
    assert newer.trusted[RECOVERY] == frozenset(anchor.roles["root"].keyids)


def test_a_damaged_registry_is_for_publish_to_refuse(live: Lab) -> None:
    (live.directory / "factory/registry.toml").write_text("=")
    assert shipped(live.workspace) == ()
    live.run("policy", "check")
    assert live.run("publish").code == ExitCode.USAGE


def test_devices_with_an_older_client_are_counted(live: Lab) -> None:
    registry = live.directory / "factory/registry.toml"
    version = load_registry(live.workspace)[0].client_version
    text = registry.read_text().replace(f'client_version = "{version}"', 'client_version = "0.0.9"')
    registry.write_text(text.replace("count = 0", "count = 500"))
    done = live.run("policy", "check")
    assert (
        "warning: policy.toml: roles.root: alice is ed25519, which clients read since" in done.out
    )
    assert f"500 devices ({load_registry(live.workspace)[0].id})" in done.out
    live.add("1.1")
    live.promote("1.1")
    live.ok("publish")


def test_a_key_that_was_rotated_away_is_still_trusted_by_devices(live: Lab) -> None:
    assert "[retired-keys]" not in live.run("policy", "check").out
    live.ok("--yes", "rotate", "carol")
    live.ok("sign")
    live.ok("publish")
    done = live.run("policy", "check")
    assert "warning: carol (" in done.out
    assert "an unknown number of devices" in done.out
    assert PRODUCT in done.out
    assert "[retired-keys]" in done.out
