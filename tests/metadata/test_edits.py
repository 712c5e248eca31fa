"""The next version of each role."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from client_reference.errors import ConfigurationError, RefusedError
from keys_policy.model import RolePolicy
from repo_tools.metadata.edits import (
    MAX_VERSION,
    add_artifacts,
    assemble,
    is_lab_root,
    manifest_targets,
    next_root,
    next_snapshot,
    next_targets,
    next_timestamp,
    renewed,
    signed_bytes,
)
from repo_tools.metadata.repository import sha256
from repo_tools.signing.keyfiles import generate, public_key
from tests.keys_policy.sample import KEYRING, POLICY

NOW = datetime(2026, 3, 2, 6, 0, 0, 999, tzinfo=UTC)
WHOLE = NOW.replace(microsecond=0)
RULES = RolePolicy(1, ("ci",), 10, 2)
PRODUCTS = {"gateway": ["stable"]}


def file_of(path: str, data: bytes = b"x", **custom: object) -> TargetFile:
    target = TargetFile.from_data(path, data, ["sha256"])
    if custom:
        target.unrecognized_fields["custom"] = custom
    return target


def bytes_of(signed: Targets | Snapshot) -> bytes:
    return assemble(signed, [])


def test_a_root_puts_the_policy_into_force() -> None:
    root = next_root(POLICY, KEYRING, None, NOW, lab=False)
    assert (root.version, root.expires) == (1, WHOLE + timedelta(days=365))
    assert root.consistent_snapshot is True
    assert root.unrecognized_fields == {"x-firmroot-issued": "2026-03-02T06:00:00Z"}
    for name in ("root", "targets", "snapshot", "timestamp"):
        rules = POLICY.roles[name]
        assert root.roles[name].threshold == rules.threshold
        assert root.roles[name].keyids == [KEYRING[key].key.keyid for key in rules.keys]
    assert set(root.keys) == {KEYRING[n].key.keyid for n in ("alice", "bob", "carol", "publisher")}


def test_a_lab_root_says_so() -> None:
    assert is_lab_root(next_root(POLICY, KEYRING, None, NOW, lab=True))
    assert not is_lab_root(next_root(POLICY, KEYRING, None, NOW, lab=False))


def test_versions_rise_by_one() -> None:
    root = next_root(POLICY, KEYRING, None, NOW, lab=False)
    assert next_root(POLICY, KEYRING, root, NOW, lab=False).version == 2
    targets = next_targets(POLICY, KEYRING, PRODUCTS, None, NOW)
    assert next_targets(POLICY, KEYRING, PRODUCTS, targets, NOW).version == 2


def test_the_last_version_has_no_successor() -> None:
    last = Targets(version=MAX_VERSION - 1, expires=NOW)
    assert renewed(last, RULES, NOW).version == 2**53 - 1
    last.version = MAX_VERSION
    with pytest.raises(RefusedError, match=f"version {2**53 - 1}, the last one"):
        renewed(last, RULES, NOW)


def test_targets_delegates_what_policy_and_products_ask_for() -> None:
    targets = next_targets(POLICY, KEYRING, PRODUCTS, None, NOW)
    assert targets.delegations is not None
    roles = targets.delegations.roles or {}
    assert list(roles) == ["gateway-stable", "gateway-stable-hold", "gateway-builds"]
    assert all(role.terminating for role in roles.values())
    assert roles["gateway-stable"].threshold == 2
    assert roles["gateway-builds"].keyids == [KEYRING["ci"].key.keyid]
    assert targets.targets == {}
    assert targets.expires == WHOLE + timedelta(days=365)


def test_a_section_of_a_roles_own_goes_before_its_template() -> None:
    own = replace(POLICY, roles={**POLICY.roles, "gateway-builds": replace(RULES, keys=("tess",))})
    targets = next_targets(
        replace(own, roles={**own.roles, "channel": RolePolicy(1, ("rita", "sam"), 9, 1)}),
        KEYRING,
        PRODUCTS,
        None,
        NOW,
    )
    assert targets.get_delegated_role("gateway-builds").keyids == [KEYRING["tess"].key.keyid]


def test_device_tls_is_delegated_if_the_policy_has_it() -> None:
    tls = replace(POLICY, roles={**POLICY.roles, "device-tls": POLICY.roles["root"]})
    targets = next_targets(tls, KEYRING, PRODUCTS, None, NOW)
    assert targets.delegations is not None
    assert "device-tls" in (targets.delegations.roles or {})


def test_guards_hold_before_anything_is_signed() -> None:
    with pytest.raises(ConfigurationError, match="'a-b-c' would stand for"):
        next_targets(POLICY, KEYRING, {"a-b": ["c"], "a": ["b-c"]}, None, NOW)
    shared = replace(POLICY, roles={**POLICY.roles, "builds": replace(RULES, keys=("rita",))})
    with pytest.raises(RefusedError, match="gateway-stable and gateway-builds share the key"):
        next_targets(shared, KEYRING, PRODUCTS, None, NOW)


def test_artifacts_are_added_to_what_is_there() -> None:
    first = add_artifacts("gateway-builds", None, [file_of("builds/a")], RULES, NOW)
    second = add_artifacts("gateway-builds", first, [file_of("builds/b")], RULES, NOW)
    assert sorted(second.targets) == ["builds/a", "builds/b"]
    assert (second.version, second.expires) == (2, WHOLE + timedelta(days=10))
    assert list(first.targets) == ["builds/a"], "the predecessor is not changed"
    again = add_artifacts("gateway-builds", second, [file_of("builds/a")], RULES, NOW)
    assert again.targets == second.targets


@pytest.mark.parametrize(
    "other",
    [file_of("builds/a", b"other"), file_of("builds/a", version="2")],
    ids=["bytes", "meaning"],
)
def test_a_published_path_never_changes(other: TargetFile) -> None:
    first = add_artifacts("gateway-builds", None, [file_of("builds/a")], RULES, NOW)
    with pytest.raises(RefusedError, match="builds/a is published already"):
        add_artifacts("gateway-builds", first, [other], RULES, NOW)


def test_a_builds_role_that_delegates_is_not_continued() -> None:
    leaf = Targets(expires=NOW, delegations=Delegations({}, {}))
    with pytest.raises(RefusedError, match="gateway-builds delegates"):
        add_artifacts("gateway-builds", leaf, [], RULES, NOW)
    with pytest.raises(RefusedError, match="gateway-stable delegates"):
        manifest_targets("gateway-stable", leaf, "channels/a", b"", RULES, NOW)


def test_a_channel_speaks_for_its_manifest_alone() -> None:
    path = "channels/gateway/stable.json"
    first = manifest_targets("gateway-stable", None, path, b"1", RULES, NOW)
    second = manifest_targets("gateway-stable", first, path, b"2", RULES, NOW)
    assert second.version == 2
    assert second.targets[path].hashes == {"sha256": sha256(b"2")}
    stray = Targets(expires=NOW, targets={"builds/x": file_of("builds/x")})
    with pytest.raises(RefusedError, match=f"speaks for builds/x, expected {path} alone"):
        manifest_targets("gateway-stable", stray, path, b"1", RULES, NOW)


def test_a_snapshot_has_length_and_hash_of_every_role() -> None:
    data = bytes_of(Targets(version=4, expires=NOW))
    snapshot = next_snapshot(None, {"targets": data}, RULES, NOW)
    assert snapshot.meta == {"targets.json": MetaFile(4, len(data), {"sha256": sha256(data)})}
    second = next_snapshot(snapshot, {"a": data}, RULES, NOW)
    assert sorted(second.meta) == ["a.json", "targets.json"], "what was listed stays listed"
    assert second.version == 2
    assert sorted(snapshot.meta) == ["targets.json"]


def test_a_snapshot_never_goes_back() -> None:
    new = bytes_of(Targets(version=4, expires=NOW))
    snapshot = next_snapshot(None, {"targets": new}, RULES, NOW)
    assert next_snapshot(snapshot, {"targets": new}, RULES, NOW).version == 2
    newer = bytes_of(Targets(version=5, expires=NOW))
    assert next_snapshot(snapshot, {"targets": newer}, RULES, NOW).meta["targets.json"].version == 5
    with pytest.raises(RefusedError, match="targets version 3 is older than version 4"):
        next_snapshot(snapshot, {"targets": bytes_of(Targets(3, expires=NOW))}, RULES, NOW)
    other = bytes_of(Targets(4, expires=NOW + timedelta(days=1)))
    with pytest.raises(RefusedError, match="targets version 4 is live with other bytes"):
        next_snapshot(snapshot, {"targets": other}, RULES, NOW)


def test_a_timestamp_carries_its_hints() -> None:
    snapshot = bytes_of(Snapshot(version=7, expires=NOW))
    first = next_timestamp(None, snapshot, 3, RULES, NOW)
    assert first.snapshot_meta == MetaFile(7, len(snapshot), {"sha256": sha256(snapshot)})
    assert first.unrecognized_fields == {
        "x-firmroot-issued": "2026-03-02T06:00:00Z",
        "x-firmroot-root": 3,
        "x-firmroot-epoch": 0,
    }
    assert next_timestamp(first, snapshot, 3, RULES, NOW, epoch=2).version == 2


def test_a_renewal_changes_version_expiry_and_issue_only() -> None:
    root = next_root(POLICY, KEYRING, None, NOW, lab=True)
    later = NOW + timedelta(days=400)
    again = renewed(root, RULES, later)
    assert (again.version, again.expires) == (2, WHOLE + timedelta(days=410))
    assert again.unrecognized_fields["x-firmroot-issued"] == "2027-04-06T06:00:00Z"
    assert is_lab_root(again)
    assert (again.keys, again.roles) == (root.keys, root.roles)
    targets = renewed(Targets(expires=NOW, targets={"a": file_of("a")}), RULES, later)
    assert list(targets.targets) == ["a"]
    assert targets.unrecognized_fields == {}


@pytest.mark.parametrize("algorithm", ["ed25519", "ecdsa-p256", "ecdsa-p384", "rsa", "ml-dsa-65"])
def test_what_is_assembled_verifies(algorithm: str) -> None:
    private = generate(algorithm)
    key = public_key(private)
    root = next_root(POLICY, KEYRING, None, NOW, lab=False)
    root.add_key(key, "root")
    root.roles["root"].threshold = 1
    data = assemble(root, [CryptoSigner(private, key).sign(signed_bytes(root))])
    again = Metadata[Root].from_bytes(data)
    again.verify_delegate("root", again)
    assert assemble(again.signed, again.signatures.values()) == data, "signed bytes are stable"


def test_what_cannot_be_read_back_is_not_written() -> None:
    class Odd(Timestamp):
        asked = 0

        def to_dict(self) -> dict[str, object]:
            self.asked += 1
            return {**super().to_dict(), "x-asked": self.asked}

    with pytest.raises(RefusedError, match="reading it back gives other bytes"):
        assemble(Odd(expires=NOW), [])
