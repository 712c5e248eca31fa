"""Every check: what it finds, what it lets pass, and that it can be explained."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib.signer import SSlibKey
from tuf.api.metadata import DelegatedRole

from keys_policy.checks import (
    CHECKS,
    KEY_CHECKS,
    Evidence,
    Finding,
    Severity,
    missing_keys,
    run_checks,
)
from keys_policy.load import parse_policy
from keys_policy.model import CUSTODIES, KeyHolder, Policy, RolePolicy, Scale
from repo_tools.metadata.edits import next_root, next_targets
from tests.keys_policy.sample import KEYRING, POLICY, holder, policy_with

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tuf.api.metadata import Root, Targets

NOW = datetime(2026, 3, 2, tzinfo=UTC)
DELEGATED = {"gateway-stable": "channel", "gateway-stable-hold": "hold", "gateway-builds": "builds"}


def found(
    policy: Policy = POLICY,
    keyring: Mapping[str, KeyHolder] = KEYRING,
    *,
    signed: Mapping[str, Root | Targets] | None = None,
    pending: Mapping[str, Root | Targets] | None = None,
    now: datetime | None = NOW,
) -> list[Finding]:
    return run_checks(Evidence(policy, keyring, signed or {}, pending or {}, DELEGATED, now))


def ids(findings: list[Finding]) -> list[str]:
    return [each.check.id for each in findings]


def test_a_sound_policy_has_no_findings() -> None:
    root = next_root(POLICY, KEYRING, None, NOW, lab=False)
    targets = next_targets(POLICY, KEYRING, {"gateway": ["stable"]}, None, NOW)
    assert found(pending={"root": root, "targets": targets}) == []


MISSING: dict[str, tuple[Policy, dict[str, int]]] = {
    "none": (POLICY, {}),
    "one below the threshold, and one to spare": (
        policy_with(root=RolePolicy(2, ("alice",), 365, 60)),
        {"root": 2},
    ),
    "one to spare": (policy_with(channel=RolePolicy(2, ("rita", "sam"), 90, 30)), {"channel": 1}),
    "none to spare for who signs alone": (
        policy_with(hold=RolePolicy(1, (), 365, 60), timestamp=RolePolicy(1, (), 7, 2)),
        {"timestamp": 1, "hold": 1},
    ),
    "a product's own builds, which may sign alone": (
        policy_with(gateway_builds=RolePolicy(1, (), 365, 60)),
        {"gateway-builds": 1},
    ),
    "a maker spares nothing": (
        replace(policy_with(root=RolePolicy(1, (), 365, 60)), scale=Scale.MAKER),
        {"root": 1},
    ),
}


@pytest.mark.parametrize("case", MISSING)
def test_keys_that_are_missing_are_counted_as_the_checks_see_them(case: str) -> None:
    policy, missing = MISSING[case]
    assert missing_keys(policy) == missing
    errors = [each for each in found(policy) if each.severity is Severity.ERROR]
    assert bool(missing) == any(each.check.id in KEY_CHECKS for each in errors)


BROKEN = [
    (
        "threshold above the number of keys",
        policy_with(root=RolePolicy(4, ("alice", "bob", "carol"), 365, 60)),
        ["threshold-reachable"],
        "roles.root: threshold 4 is above its 3 keys",
    ),
    (
        "one key speaks for a channel",
        policy_with(channel=RolePolicy(1, ("rita", "sam"), 90, 30)),
        ["threshold-two"],
        "roles.channel: threshold 1, expected at least 2",
    ),
    (
        "one key speaks for a product's own channel",
        policy_with(gateway_stable=RolePolicy(1, ("rita", "sam"), 90, 30)),
        ["threshold-two"],
        "roles.gateway-stable: threshold 1, expected at least 2",
    ),
    (
        "no key to spare",
        policy_with(root=RolePolicy(2, ("alice", "bob"), 365, 60)),
        ["threshold-spare"],
        "roles.root: all 2 keys must sign, expected one to spare",
    ),
    (
        "an online key in an offline role",
        policy_with(root=RolePolicy(2, ("alice", "bob", "publisher"), 365, 60)),
        ["online-offline"],
        "publisher is in roles.root and in an online role",
    ),
    (
        "an online key in a hold role",
        policy_with(hold=RolePolicy(1, ("publisher",), 365, 60)),
        ["online-offline"],
        "publisher is in roles.hold and in an online role",
    ),
    (
        "builds and channel share a key",
        policy_with(channel=RolePolicy(2, ("rita", "sam", "ci"), 90, 30)),
        ["builds-channel"],
        "ci is in roles.builds and in roles.channel",
    ),
    (
        "builds and targets share a key",
        policy_with(targets=RolePolicy(2, ("alice", "bob", "ci"), 365, 60)),
        ["builds-channel"],
        "ci is in roles.targets and in roles.builds",
    ),
    (
        "a product's own builds share a key with channels",
        policy_with(gateway_builds=RolePolicy(1, ("rita",), 365, 60)),
        ["builds-channel"],
        "rita is in roles.channel and in roles.gateway-builds",
    ),
    (
        "signing begins before the signature does",
        policy_with(timestamp=RolePolicy(1, ("publisher",), 7, 7)),
        ["signing-period"],
        "roles.timestamp: signing begins 7 days before the end, but a signature is good for 7",
    ),
    (
        "a key type that the policy does not allow",
        replace(POLICY, algorithms=("rsa",)),
        ["algorithm"] * 13,
        "roles.root: alice is ed25519 ed25519",
    ),
]


@pytest.mark.parametrize(
    ("policy", "expected", "detail"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN]
)
def test_a_broken_rule_is_found(policy: Policy, expected: list[str], detail: str) -> None:
    findings = found(policy)
    assert ids(findings) == expected
    assert findings[0].detail == detail
    assert all(each.severity is Severity.ERROR for each in findings)


ALLOWED = [
    ("builds by one key", policy_with(gateway_builds=RolePolicy(1, ("ci",), 365, 60))),
    ("a hold by one key", policy_with(gateway_stable_hold=RolePolicy(1, ("oncall",), 365, 60))),
    ("builds may publish", policy_with(builds=RolePolicy(1, ("publisher",), 365, 60))),
    ("on-call may be the builder", policy_with(hold=RolePolicy(1, ("ci",), 365, 60))),
    ("as many keys as it needs online", policy_with(snapshot=RolePolicy(1, ("publisher",), 9, 0))),
]


@pytest.mark.parametrize("policy", [row[1] for row in ALLOWED], ids=[row[0] for row in ALLOWED])
def test_what_is_allowed_is_not_found(policy: Policy) -> None:
    assert found(policy) == []


def test_a_channel_is_a_channel_whatever_its_name_ends_in() -> None:
    policy = policy_with(gateway_night_hold=RolePolicy(1, ("rita", "sam"), 90, 30))
    assert run_checks(Evidence(policy, KEYRING)) == []
    delegated = {"gateway-night-hold": "channel"}
    assert ids(run_checks(Evidence(policy, KEYRING, delegated=delegated))) == ["threshold-two"]


def test_a_section_of_a_role_that_no_product_has_binds_nobody() -> None:
    policy = policy_with(gatewy_stable=RolePolicy(2, ("rita", "sam", "tess"), 30, 7))
    assert run_checks(Evidence(policy, KEYRING)) == [], "without products nothing can be said"
    (only,) = run_checks(Evidence(policy, KEYRING, delegated={"gateway-stable": "channel"}))
    assert (only.check.id, only.severity, only.file) == (
        "section-used",
        Severity.AUDIT,
        "policy.toml",
    )
    assert only.detail == (
        "roles.gatewy-stable: no product has such a role; did you mean gateway-stable?"
    )
    delegated = {"gatewy-stable": "channel"}
    assert run_checks(Evidence(policy, KEYRING, delegated=delegated)) == []


def test_several_keys_in_one_pocket_are_one_person() -> None:
    keyring = {
        **KEYRING,
        "bob": replace(KEYRING["bob"], holder="alice"),
        "carol": replace(KEYRING["carol"], holder="alice"),
    }
    findings = found(keyring=keyring)
    assert ids(findings) == ["distinct-holders"] * 2
    assert findings[0].detail == ("roles.root: threshold 2, but its keys have 1 holders: alice")


def test_two_keys_of_one_person_are_no_two_people_even_where_both_must_sign() -> None:
    policy = policy_with(root=RolePolicy(2, ("alice", "bob"), 365, 60))
    keyring = {**KEYRING, "bob": replace(KEYRING["bob"], holder="alice")}
    details = [each.detail for each in found(policy, keyring)]
    assert "roles.root: threshold 2, but its keys have 1 holders: alice" in details


def test_keys_are_kept_in_as_many_ways_as_the_role_asks() -> None:
    rules = RolePolicy(2, ("alice", "bob", "carol"), 365, 60, custodies=2)
    findings = found(policy_with(root=rules))
    assert [(each.check.id, each.detail) for each in findings] == [
        (
            "distinct-custody",
            "roles.root: its keys are kept in 1 ways: file; expected at least 2",
        )
    ]
    keyring = {**KEYRING, "bob": replace(KEYRING["bob"], custody="hsm")}
    assert found(policy_with(root=rules), keyring) == []


def test_a_custody_of_an_older_file_is_a_warning() -> None:
    for custody in CUSTODIES:
        assert found(keyring={**KEYRING, "bob": replace(KEYRING["bob"], custody=custody)}) == []
    findings = found(keyring={**KEYRING, "bob": replace(KEYRING["bob"], custody="a safe")})
    assert [(each.check.id, each.severity, each.detail) for each in findings] == [
        (
            "custody-known",
            Severity.WARNING,
            "keys/bob.toml: custody 'a safe', expected one of file, hsm, kms, vault",
        )
    ]


def test_a_maker_is_warned_not_stopped() -> None:
    one = RolePolicy(1, ("alice",), 365, 60)
    maker = replace(policy_with(root=one, targets=one, channel=one), scale=Scale.MAKER)
    findings = found(maker)
    assert set(ids(findings)) == {"threshold-two", "threshold-spare"}
    assert {each.severity for each in findings} == {Severity.WARNING}


def test_a_maker_is_still_stopped_by_everything_else() -> None:
    broken = policy_with(channel=RolePolicy(2, ("rita", "sam", "ci"), 90, 30))
    findings = found(replace(broken, scale=Scale.MAKER))
    assert [each.severity for each in findings] == [Severity.ERROR]


def test_one_public_key_under_two_key_ids() -> None:
    key = KEYRING["alice"].key
    second = SSlibKey("ab" * 32, key.keytype, key.scheme, {"public": key.keyval["public"].upper()})
    findings = found(keyring={**KEYRING, "eve": KeyHolder("eve", "eve", "file", second)})
    assert ids(findings) == ["duplicate-key", "keyid-derived"]
    assert f"{key.keyid[:8]} (keys/alice.toml) and abababab (keys/eve.toml)" in findings[0].detail


def test_one_public_key_under_two_spellings_of_pem() -> None:
    original = holder("pem", "ecdsa-p256")
    text = str(original.key.keyval["public"])
    other = SSlibKey("cd" * 32, "ecdsa", "ecdsa-sha2-nistp256", {"public": text.strip()})
    keyring = {**KEYRING, "pem": original, "other": KeyHolder("other", "x", "file", other)}
    assert "duplicate-key" in ids(found(keyring=keyring))


def test_one_key_under_two_names() -> None:
    findings = found(keyring={**KEYRING, "eve": replace(KEYRING["bob"], name="eve")})
    assert [(each.file, each.text) for each in findings] == [
        ("keys/eve.toml", "keys/eve.toml: one public key under two names: bob and eve")
    ]


def test_a_duplicate_hidden_in_metadata_is_found() -> None:
    root = next_root(POLICY, KEYRING, None, NOW, lab=False)
    key = KEYRING["alice"].key
    root.keys["ab" * 32] = SSlibKey("ab" * 32, key.keytype, key.scheme, dict(key.keyval))
    for where in ({"signed": {"root": root}}, {"pending": {"root": root}}):
        findings = found(**where)  # type: ignore[arg-type]  # one of two
        assert ids(findings) == ["duplicate-key", "keyid-derived"]
        # It is told at the file that somebody can edit, where there is one.
        assert findings[0].detail.startswith("keys/alice.toml: one public key under two key ids")
        [first] = [each for each in found(keyring={}, **where) if each.check.id == "duplicate-key"]  # type: ignore[arg-type]  # as above
        assert first.detail.startswith("one public key under two key ids")


def test_a_key_id_of_before_an_adoption_counts_for_the_key_that_it_had() -> None:
    """Attack: another key under the id that an old tool gave."""
    chosen, alice, bob = "ab" * 32, KEYRING["alice"].key, KEYRING["bob"].key
    keyring = {name: each for name, each in KEYRING.items() if name != "alice"}
    for key, named in ((alice, []), (bob, ["keyid-derived"])):
        root = next_root(POLICY, KEYRING, None, NOW, lab=False)
        del root.keys[alice.keyid]
        root.keys[chosen] = SSlibKey(chosen, key.keytype, key.scheme, dict(key.keyval))
        evidence = Evidence(POLICY, keyring, {"root": root}, adopted_keys={chosen: alice})
        said = [each for each in run_checks(evidence) if "abababab" in each.detail]
        assert [each for each in ids(said) if each == "keyid-derived"] == named


def test_a_role_of_before_an_adoption_goes_on_as_it_was() -> None:
    """One key signs it, an online one: so the devices in the field know it."""
    policy = policy_with(adopted_old=RolePolicy(1, ("publisher",), 365, 60))
    delegated = {**DELEGATED, "Old Role": "adopted-old"}
    assert run_checks(Evidence(policy, KEYRING, delegated=delegated, now=NOW)) == []
    assert ids(run_checks(Evidence(policy, KEYRING, delegated=DELEGATED, now=NOW))) == [
        "section-used"
    ]


def test_a_key_id_that_somebody_chose() -> None:
    key = KEYRING["alice"].key
    chosen = SSlibKey("ab" * 32, key.keytype, key.scheme, dict(key.keyval))
    findings = found(keyring={**KEYRING, "alice": replace(KEYRING["alice"], key=chosen)})
    assert [each.detail for each in findings] == [
        f"keys/alice.toml: keyid abababab, its key gives {key.keyid[:8]}"
    ]


@pytest.mark.parametrize(
    ("keytype", "scheme", "public"),
    [
        ("ed25519", "ed25519", "not hex"),
        ("ecdsa", "ecdsa-sha2-nistp256", "no PEM"),
        ("rsa", "rsassa-pss-sha256", "no PEM"),
        ("rsa", "rsassa-pss-sha256", str(holder("pem", "ecdsa-p256").key.keyval["public"])),
        (
            "rsa",
            "rsassa-pss-sha256",
            Ed25519PrivateKey.generate()
            .public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            .decode(),
        ),
    ],
)
def test_a_public_key_that_cannot_be_read(keytype: str, scheme: str, public: str) -> None:
    broken = KeyHolder(
        "eve", "eve", "file", SSlibKey("ab" * 32, keytype, scheme, {"public": public})
    )
    details = [each.detail for each in found(keyring={**KEYRING, "eve": broken})]
    assert details == [f"keys/eve.toml: the public key abababab cannot be read as {keytype}"]


@pytest.mark.parametrize("algorithm", ["ed25519", "ecdsa-p256", "ecdsa-p384", "ml-dsa-65"])
def test_every_algorithm_is_sound(algorithm: str) -> None:
    assert found(keyring={**KEYRING, "alice": holder("a", algorithm)}) == []


def test_rsa_keys_are_long_enough() -> None:
    key = SSlibKey.from_crypto(generate_private_key(65537, 2048).public_key())
    weak = KeyHolder("old", "old", "file", key)
    findings = found(keyring={**KEYRING, "old": weak})
    assert [each.detail for each in findings] == [
        "keys/old.toml: RSA key of 2048 bits, expected 3072"
    ]
    enough = SSlibKey.from_crypto(generate_private_key(65537, 3072).public_key())
    assert found(keyring={**KEYRING, "new": KeyHolder("new", "new", "file", enough)}) == []


def test_nothing_waits_for_signatures_beyond_the_policy() -> None:
    root = next_root(POLICY, KEYRING, None, NOW, lab=False)
    assert found(pending={"root": root}) == []
    root.expires += timedelta(seconds=1)
    findings = found(pending={"root": root})
    assert [each.detail for each in findings] == [
        "root 1 expires on 2027-03-02, the policy allows 2027-03-02"
    ]
    assert found(pending={"root": root}, now=None) == []
    assert found(signed={"root": root}) == [], "what is signed already must not stop its successor"


def test_a_root_that_ends_before_targets_is_a_warning() -> None:
    findings = found(policy_with(root=RolePolicy(2, ("alice", "bob", "carol"), 364, 60)))
    assert [(each.check.id, each.severity, each.detail) for each in findings] == [
        (
            "root-outlives-targets",
            Severity.WARNING,
            "roles.root: expiry_days 364, roles.targets has 365; expected at least 365",
        )
    ]
    assert found(policy_with(root=RolePolicy(2, ("alice", "bob", "carol"), 365, 60))) == []


def test_a_lab_is_audited_not_stopped() -> None:
    root = next_root(POLICY, KEYRING, None, NOW, lab=True)
    findings = found(replace(POLICY, lab=True), signed={"root": root})
    assert [each.detail for each in findings] == ["policy.toml: lab = true", "root 1 is marked LAB"]
    assert [each.file for each in findings] == ["policy.toml", ""]
    assert {each.severity for each in findings} == {Severity.AUDIT}
    assert ids(found(pending={"root": root})) == ["lab"]


def test_every_check_explains_itself_and_has_its_own_id() -> None:
    assert len({check.id for check in CHECKS}) == len(CHECKS)
    for check in CHECKS:
        assert check.what.endswith(".")
        assert check.why.endswith(".")
        assert check.fix.endswith(".")


@pytest.mark.parametrize(
    ("example", "scale"), [("team", "team"), ("maker", "maker"), ("lab", "team")]
)
def test_the_examples_are_policies(example: str, scale: str) -> None:
    text = files("keys_policy.examples").joinpath(f"{example}.toml").read_text()
    policy = parse_policy(text, example)
    assert policy.scale == scale
    expected = {"threshold-reachable"} if example != "lab" else {"lab"}
    stops = {each.check.id for each in found(policy, {}) if each.severity is not Severity.WARNING}
    assert expected <= stops <= expected | {"distinct-holders"}


def test_delegations_of_before_an_adoption_stay_as_devices_know_them() -> None:
    targets = next_targets(POLICY, KEYRING, {"gateway": ["stable"]}, None, NOW)
    assert targets.delegations is not None
    assert targets.delegations.roles is not None
    one = next(iter(targets.delegations.roles.values()))
    targets.delegations.roles["old"] = replace_role(one, "old")

    def said(*adopted: str) -> list[str]:
        evidence = Evidence(POLICY, KEYRING, {"targets": targets}, adopted=frozenset(adopted))
        return [each.detail for each in run_checks(evidence) if each.check.id == "delegations"]

    assert said(), "two roles for one path, and one that does not end the search"
    assert said("old") == []


def replace_role(role: DelegatedRole, name: str) -> DelegatedRole:
    """Another one for the same paths, that does not terminate."""
    return DelegatedRole(name, role.keyids, role.threshold, terminating=False, paths=role.paths)
