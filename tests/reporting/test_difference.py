"""What people are told before they sign."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from securesystemslib.signer import SSlibKey
from tuf.api.metadata import TargetFile, Targets

from client_reference.manifest import (
    Artifact,
    Delta,
    GroupWave,
    Hold,
    Manifest,
    Payload,
    Release,
    Rollout,
    ShareWave,
    Source,
    UnsupportedRelease,
    Withdrawn,
    serialize,
    serialize_hold,
)
from repo_tools.metadata.edits import manifest_targets, next_root, next_targets, renewed
from repo_tools.reporting.difference import describe_change, describe_manifest
from tests.keys_policy.sample import KEYRING, POLICY, policy_with

if TYPE_CHECKING:
    from collections.abc import Callable

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


def known(*names: str) -> str:
    """Keys as people are shown them."""
    return ", ".join(f"{name} ({KEYRING[name].key.keyid[:8]})" for name in names)


def test_a_first_root_tells_every_role() -> None:
    root = next_root(POLICY, KEYRING, None, NOW, lab=True)
    lines = describe_change("root", None, root, {}, name_of)
    assert lines == [
        "root version 1 (the first), good until 2027-03-02",
        f"role root: 2 of {known('alice', 'bob', 'carol')}",
        f"role targets: 2 of {known('alice', 'bob', 'carol')}",
        f"role snapshot: 1 of {known('publisher')}",
        f"role timestamp: 1 of {known('publisher')}",
        'x-firmroot-issued: nothing -> "2026-03-02T06:00:00Z"',
        "x-firmroot-lab: nothing -> true",
    ]


def test_a_rotation_tells_keys_and_threshold() -> None:
    root = next_root(POLICY, KEYRING, None, NOW, lab=False)
    rules = replace(POLICY.roles["root"], keys=("alice", "bob", "rita", "sam"), threshold=3)
    after = next_root(policy_with(root=rules), KEYRING, root, NOW, lab=False)
    lines = describe_change("root", root, after, {}, name_of)
    assert lines[0].startswith("root version 2 (replaces version 1)")
    assert sorted(lines[1:]) == [
        f"role root: adds key {known('rita')}",
        f"role root: adds key {known('sam')}",
        f"role root: removes key {known('carol')}",
        "role root: threshold 2 becomes 3",
    ]


def test_a_field_that_nobody_knows_is_told() -> None:
    root = next_root(POLICY, KEYRING, None, NOW, lab=True)
    after = renewed(root, POLICY.roles["root"], NOW)
    del after.unrecognized_fields["x-firmroot-lab"]
    after.unrecognized_fields["x-odd"] = 1
    after.consistent_snapshot = False
    assert describe_change("root", root, after, {}, name_of)[1:] == [
        "consistent_snapshot: true -> false",
        "x-firmroot-lab: true -> nothing",
        "x-odd: nothing -> 1",
    ]


def test_a_new_product_and_a_removed_one_are_told() -> None:
    before = next_targets(POLICY, KEYRING, {"a": ["x"]}, None, NOW)
    after = next_targets(POLICY, KEYRING, {"b": ["x"]}, before, NOW)
    lines = describe_change("targets", before, after, {}, name_of)
    assert {f"removes role a-{name}" for name in ("x", "x-hold", "builds")} <= set(lines)
    assert f"role b-builds: 1 of {known('ci')} for builds/b/*/*" in lines


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
        "offers 3.1 (sequence 47) from 2026-03-02 06:00:00 UTC, paused, seed 9f2c61d04ab87e35",
        "  after 0 h: groups pilot",
        "  after 24 h: 1.5 % of devices",
        f"  acme,gw-2 by slot: builds/gateway/3.1/gw, 99 bytes, sha256 {'ab' * 8}...",
        "withdrawn: 3.0 (sequence 46) since 2026-03-02 06:00:00 UTC: modem hangs",
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
    assert held[-2].startswith("  holds/a is not a hold that devices read")


def test_a_hold_is_told_in_words_and_whole_where_words_leave_something_out() -> None:
    path, hold = "holds/gateway/stable.json", Hold("gateway", "stable", frozenset({2, 3}))
    after = Targets(1, expires=NOW)

    def told(path: str, data: bytes) -> list[str]:
        lines = describe_change("h", None, after, {path: data}, name_of, {2: "1.1"})
        return [line.strip() for line in lines if line.startswith("  ")]

    words = [
        "holds gateway@1.1 (sequence 2) on gateway/stable",
        "holds a release that is not live here (sequence 3) on gateway/stable",
    ]
    data = serialize_hold(hold)
    assert told(path, data) == words
    nothing = serialize_hold(Hold("gateway", "stable", frozenset()))
    assert told(path, nothing) == ["holds nothing any more on gateway/stable"]
    other = told("holds/gateway/beta.json", data)
    assert other[:2] == words
    assert other[2].startswith("holds/gateway/beta.json: {")
    more = json.dumps({**json.loads(data), "reason": "x"}).encode()
    assert told(path, more)[2] == f"{path}: {more.decode()}"


def changed(edit: Callable[[dict[str, Any]], None]) -> list[str]:
    """What is told of a targets role in which only this was edited."""
    before = next_targets(POLICY, KEYRING, {"a": ["x", "y"]}, None, NOW)
    document = renewed(before, POLICY.roles["targets"], NOW).to_dict()
    edit(document["delegations"])
    after = Targets.from_dict(document)
    return describe_change("targets", before, after, {}, name_of)[1:]


def _exchange(delegations: dict[str, Any]) -> None:
    public = SSlibKey("0", "ed25519", "ed25519", {"public": "ab" * 32}).to_dict()
    delegations["keys"][KEYRING["rita"].key.keyid] = public


def _extra(delegations: dict[str, Any]) -> None:
    key = KEYRING["alice"].key
    delegations["keys"][key.keyid] = key.to_dict()


def _release_key(delegations: dict[str, Any]) -> None:
    for role in delegations["roles"]:
        role["keyids"] = [each for each in role["keyids"] if each != KEYRING["tess"].key.keyid]


HIDDEN = [
    (
        "another key under the same id",
        _exchange,
        [f"key {known('rita')}: another public key under the same key id: "],
    ),
    ("a key that no role uses", _extra, [f"adds key {known('alice')}, which no role uses: "]),
    (
        "a key that no role uses any more",
        _release_key,
        [
            f"role a-x: removes key {known('tess')}",
            f"role a-y: removes key {known('tess')}",
            f"keeps key {known('tess')}, which no role uses now",
        ],
    ),
    (
        "the order of delegations",
        lambda each: each["roles"].reverse(),
        ["roles are asked in another order: a-builds, a-y-hold, a-y, a-x-hold, a-x"],
    ),
    (
        "a delegation that does not end the search",
        lambda each: each["roles"][0].update(terminating=False),
        ["delegations.roles.a-x.terminating: true -> false"],
    ),
    (
        "hash prefixes in the place of paths",
        lambda each: each["roles"][0].update(path_hash_prefixes=["ab"], paths=None),
        ["delegations.roles.a-x.path_hash_prefixes", "delegations.roles.a-x.paths"],
    ),
    (
        "a field of a key that nobody knows",
        lambda each: each["keys"][KEYRING["ci"].key.keyid].update({"x-odd": 1}),
        [f"key {known('ci')}: another public key under the same key id: "],
    ),
    (
        "a field of delegations that nobody knows",
        lambda each: each.update({"x-odd": {"a": 1, "b": [2]}}),
        ["delegations.x-odd.a: nothing -> 1", "delegations.x-odd.b: nothing -> [2]"],
    ),
    (
        "text that would clear the terminal",
        lambda each: each.update({"x-odd\x1b[2J\nfine": 1}),
        ["delegations.x-odd\\x1b[2J\\nfine: nothing -> 1"],
    ),
]


@pytest.mark.parametrize(
    ("edit", "told"), [row[1:] for row in HIDDEN], ids=[row[0] for row in HIDDEN]
)
def test_a_change_of_delegations_is_told(
    edit: Callable[[dict[str, Any]], None], told: list[str]
) -> None:
    lines = changed(edit)
    assert len(lines) == len(told)
    for line, beginning in zip(lines, told, strict=True):
        assert line.startswith(beginning)


def test_the_custom_of_a_target_is_told() -> None:
    before = Targets(1, expires=NOW, targets={"b": TargetFile.from_data("b", b"x", ["sha256"])})
    document = before.to_dict()
    document["targets"]["b"]["custom"] = {"sequence": 1}
    after = Targets.from_dict(document)
    assert describe_change("b", before, after, {}, name_of)[1:] == [
        "targets.b.custom.sequence: nothing -> 1"
    ]


def test_a_value_of_any_length_is_told_on_a_short_line() -> None:
    after = Targets(1, expires=NOW, unrecognized_fields={"x-long": "a" * 100_000})
    (line,) = describe_change("b", Targets(1, expires=NOW), after, {}, name_of)[1:]
    assert len(line) < 300
    assert "... (100002 characters, sha256 " in line


def test_values_that_python_takes_for_equal_are_told() -> None:
    before = Targets(1, expires=NOW, unrecognized_fields={"x-odd": 1})
    after = Targets(1, expires=NOW, unrecognized_fields={"x-odd": True})
    assert describe_change("b", before, after, {}, name_of)[1:] == ["x-odd: 1 -> true"]


def test_every_field_of_a_release_is_told() -> None:
    delta = Delta("zstd", Source(9, "cd" * 32), Artifact("builds/gateway/3.1/d", 5, "ef" * 32))
    release = MANIFEST.releases[0]
    payload = replace(release.payloads[0], deltas=(delta,))
    full = replace(
        release,
        payloads=(payload,),
        needs=("big-disk",),
        from_sequence=40,
        stone=True,
        severity="security",
        notes="https://acme.example/3.1",
    )
    lines = describe_manifest(replace(MANIFEST, releases=(full,)))
    assert lines[2:6] == [
        "  only for devices at sequence 40 or later",
        "  a stepping stone for devices that are far behind",
        "  severity: security",
        "  notes: https://acme.example/3.1",
    ]
    assert lines[6] == "  needs: big-disk"
    assert (
        f"    zstd delta from 9 bytes, sha256 {'cd' * 8}...: builds/gateway/3.1/d, 5 bytes, "
        f"sha256 {'ef' * 8}..."
    ) in lines


def test_fields_of_a_manifest_that_no_reader_knows_are_told() -> None:
    document = json.loads(serialize(MANIFEST))
    document["releases"][0]["rollout"]["x-odd"] = {"a": 1}
    document["schema"] = [1, 7]
    data = json.dumps(document).encode()
    after = Targets(1, expires=NOW, targets={PATH: TargetFile.from_data(PATH, data, ["sha256"])})
    lines = describe_change("gateway-stable", None, after, {PATH: data}, name_of)
    assert sorted(line for line in lines if "not read" in line) == [
        '  not read by this firmroot: releases.0.rollout.x-odd: {"a": 1}',
        "  not read by this firmroot: schema.1: 0 -> 7",
    ]
    whole = serialize(MANIFEST)
    assert not [x for x in describe_change("g", None, after, {PATH: whole}, name_of) if "not " in x]


# The sequence reset.


def _reset_targets(version: int, resets: object) -> Targets:
    fields = {"x-firmroot-sequence-reset": resets} if resets is not None else {}
    return Targets(version, expires=NOW, unrecognized_fields=fields)


def _told(before: object, after: object) -> list[str]:
    return describe_change(
        "targets", _reset_targets(4, before), _reset_targets(5, after), {}, name_of
    )[1:]


def test_a_sequence_reset_is_told_in_words() -> None:
    assert _told(None, {"gateway": {"since": 5, "to": 2}}) == [
        (
            "SEQUENCE RESET: every device of gateway that confirmed more goes back to sequence 2; "
            "releases from 2 on may be installed again"
        )
    ]


def test_a_sequence_reset_that_stays_is_not_told_again() -> None:
    same = {"gateway": {"since": 3, "to": 2}}
    assert _told(same, same) == ["nothing but version and expiry changes"]


def test_a_sequence_reset_that_goes_is_told() -> None:
    assert _told({"gateway": {"since": 3, "to": 2}}, None) == [
        "takes the sequence reset of gateway back: devices from the shelf miss it"
    ]


def test_a_sequence_reset_of_another_version_is_told() -> None:
    assert "it says version 4, not the version of this ceremony" in _told(
        None, {"gateway": {"since": 4, "to": 2}}
    )


def test_a_sequence_reset_that_no_device_follows_is_told_with_its_bytes() -> None:
    told = _told(None, {"gateway": {"since": 9, "to": 2}})
    assert told[0].startswith("NO DEVICE FOLLOWS THIS: targets 5 has a sequence reset")
    assert any("x-firmroot-sequence-reset" in line for line in told[1:])


def test_what_else_a_sequence_reset_says_is_told_raw() -> None:
    told = _told(None, {"gateway": {"since": 5, "to": 2, "also": "this"}})
    assert 'x-firmroot-sequence-reset.gateway.also: nothing -> "this"' in told
