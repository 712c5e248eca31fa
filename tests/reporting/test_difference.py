"""What people are told before they sign."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from tuf.api.metadata import TargetFile, Targets

from client_reference.manifest import (
    Artifact,
    GroupWave,
    Manifest,
    Payload,
    Release,
    Rollout,
    ShareWave,
    UnsupportedRelease,
    Withdrawn,
    serialize,
)
from repo_tools.metadata.edits import manifest_targets, next_root, next_targets, renewed
from repo_tools.reporting.difference import describe_change, describe_manifest
from tests.keys_policy.sample import KEYRING, POLICY, policy_with

NOW = datetime(2026, 3, 2, 6, 0, tzinfo=UTC)
PATH = "channels/gateway/stable.json"
MANIFEST = Manifest(
    "gateway",
    "stable",
    30,
    (
        Release(
            "3.1",
            47,
            Rollout(
                NOW,
                "9f2c61d04ab87e35",
                paused=True,
                waves=(GroupWave(0, ("pilot",)), ShareWave(24, 15)),
            ),
            (Payload(("acme,gw-2",), "slot", Artifact("builds/gateway/3.1/gw", 99, "ab" * 32)),),
        ),
    ),
    (Withdrawn("3.0", 46, NOW, "modem hangs"),),
)


def name_of(keyid: str) -> str:
    return next((name for name, holder in KEYRING.items() if holder.key.keyid == keyid), keyid[:8])


def test_a_first_root_tells_every_role() -> None:
    root = next_root(POLICY, KEYRING, None, NOW, lab=True)
    lines = describe_change("root", None, root, {}, name_of)
    assert lines == [
        "root version 1 (replaces nothing before), good until 2027-03-02",
        "role root: 2 of alice, bob, carol",
        "role targets: 2 of alice, bob, carol",
        "role snapshot: 1 of publisher",
        "role timestamp: 1 of publisher",
        "x-firmroot-issued: 2026-03-02T06:00:00Z",
        "x-firmroot-lab: True",
    ]


def test_a_rotation_tells_keys_and_threshold() -> None:
    root = next_root(POLICY, KEYRING, None, NOW, lab=False)
    rules = replace(POLICY.roles["root"], keys=("alice", "bob", "rita", "sam"), threshold=3)
    after = next_root(policy_with(root=rules), KEYRING, root, NOW, lab=False)
    lines = describe_change("root", root, after, {}, name_of)
    assert lines[0].startswith("root version 2 (replaces version 1)")
    assert sorted(lines[1:]) == [
        "role root: adds key rita",
        "role root: adds key sam",
        "role root: removes key carol",
        "role root: threshold 2 becomes 3",
    ]


def test_a_field_that_nobody_knows_is_told() -> None:
    root = next_root(POLICY, KEYRING, None, NOW, lab=True)
    after = renewed(root, POLICY.roles["root"], NOW)
    del after.unrecognized_fields["x-firmroot-lab"]
    after.unrecognized_fields["x-odd"] = 1
    after.consistent_snapshot = False
    assert describe_change("root", root, after, {}, name_of)[1:] == [
        "consistent_snapshot: False",
        "removes x-firmroot-lab",
        "x-odd: 1",
    ]


def test_a_new_product_and_a_removed_one_are_told() -> None:
    before = next_targets(POLICY, KEYRING, {"a": ["x"]}, None, NOW)
    after = next_targets(POLICY, KEYRING, {"b": ["x"]}, before, NOW)
    lines = describe_change("targets", before, after, {}, name_of)
    assert {f"removes role a-{name}" for name in ("x", "x-hold", "builds")} <= set(lines)
    assert "role b-builds: 1 of ci for builds/b/*/*" in lines


def test_a_changed_path_is_told() -> None:
    before = next_targets(POLICY, KEYRING, {"a": ["x"]}, None, NOW)
    after = renewed(before, POLICY.roles["targets"], NOW)
    assert after.delegations is not None
    (after.delegations.roles or {})["a-x"].paths = ["channels/a/*"]
    lines = describe_change("targets", before, after, {}, name_of)
    assert lines[1:] == ["role a-x: speaks now for channels/a/*"]


def test_a_renewal_says_that_nothing_changes() -> None:
    targets = next_targets(POLICY, KEYRING, {"a": ["x"]}, None, NOW)
    again = renewed(targets, POLICY.roles["targets"], NOW)
    assert describe_change("targets", targets, again, {}, name_of)[1:] == [
        "nothing but version and expiry changes"
    ]


def test_a_promotion_tells_the_manifest() -> None:
    data = serialize(MANIFEST)
    rules = POLICY.roles["channel"]
    after = manifest_targets("gateway-stable", None, PATH, data, rules, NOW)
    lines = describe_change("gateway-stable", None, after, {PATH: data}, name_of)
    assert lines[1].startswith(f"adds target {PATH}: {len(data)} bytes, sha256 ")
    assert lines[2:] == [f"  {line}" for line in describe_manifest(MANIFEST)]
    second = manifest_targets("gateway-stable", after, PATH, b"other", rules, NOW)
    assert describe_change("gateway-stable", after, second, {}, name_of)[1].startswith(
        f"changes target {PATH}: 5 bytes"
    )
    empty = Targets(3, expires=NOW)
    assert f"removes target {PATH}" in describe_change("x", second, empty, {}, name_of)


def test_a_manifest_is_told_whole() -> None:
    assert describe_manifest(MANIFEST) == [
        "gateway/stable: devices install nothing below sequence 30",
        "offers 3.1 (sequence 47) from 2026-03-02 06:00 UTC, paused",
        "  after 0 h: groups pilot",
        "  after 24 h: 1.5 % of devices",
        f"  acme,gw-2 by slot: builds/gateway/3.1/gw, 99 bytes, sha256 {'ab' * 8}...",
        "withdrawn: 3.0 (sequence 46): modem hangs",
    ]
    newer = replace(MANIFEST, releases=(), unsupported=(UnsupportedRelease("4", 50, ("x",)),))
    assert describe_manifest(newer)[-1] == (
        "4 (sequence 50) needs x, which this firmroot does not know"
    )


def test_a_carried_file_that_devices_could_not_read_is_told() -> None:
    after = Targets(1, expires=NOW, targets={PATH: TargetFile.from_data(PATH, b"x", ["sha256"])})
    lines = describe_change("gateway-stable", None, after, {PATH: b"x"}, name_of)
    assert lines[-1].startswith(f"  {PATH} is not a release manifest that devices read")
    held = describe_change("h", None, after, {"holds/a": b'{"sequences": [1]}\n'}, name_of)
    assert held[-1] == '  holds/a: {"sequences": [1]}'
