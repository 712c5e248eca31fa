"""The policy binds what is signed: every role that root and targets name is held against it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from securesystemslib.signer import SSlibKey
from tuf.api.metadata import Delegations, SuccinctRoles

from keys_policy.checks import AHEAD, BINDS, Evidence, Severity, derived_keyid, run_checks
from repo_tools.metadata.edits import next_root, next_targets, renewed
from tests.keys_policy.sample import KEYRING, POLICY, holder, policy_with

if TYPE_CHECKING:
    from tuf.api.metadata import Root, Targets

    from keys_policy.model import Policy, RolePolicy

NOW = datetime(2026, 3, 2, tzinfo=UTC)
DELEGATED = {"gateway-stable": "channel", "gateway-stable-hold": "hold", "gateway-builds": "builds"}
LOWER = {name: replace(POLICY.roles[name], threshold=1) for name in ("root", "targets", "channel")}
FEWER = replace(POLICY.roles["channel"], keys=("rita", "sam", "oncall"))


def root_of(policy: Policy) -> Root:
    return next_root(policy, KEYRING, None, NOW, lab=False)


def targets_of(policy: Policy, channel: str = "stable") -> Targets:
    return next_targets(policy, KEYRING, {"gateway": [channel]}, None, NOW)


def binding(evidence: Evidence) -> list[str]:
    found = [each for each in run_checks(evidence) if each.check.id == BINDS]
    assert all(each.severity is Severity.ERROR for each in found)
    return [each.detail for each in found]


ROOM = {**KEYRING, "dave": holder("dave"), "eve": holder("eve")}
MORE = replace(POLICY.roles["root"], keys=("alice", "bob", "carol", "dave", "eve"))
DIFFERENCES = [
    ("nothing differs", POLICY.roles["root"], POLICY.roles["root"], None),
    ("somebody joined", POLICY.roles["root"], MORE, AHEAD),
    ("the threshold went down", replace(MORE, threshold=3), MORE, AHEAD),
    ("the threshold went up", POLICY.roles["root"], replace(MORE, threshold=3), BINDS),
    ("somebody left", MORE, replace(MORE, keys=MORE.keys[:4]), BINDS),
    (
        "somebody left and the threshold went down",
        replace(MORE, threshold=3),
        replace(MORE, keys=MORE.keys[:4]),
        BINDS,
    ),
]


@pytest.mark.parametrize(
    ("signed", "wanted", "check"), [row[1:] for row in DIFFERENCES], ids=[r[0] for r in DIFFERENCES]
)
def test_only_what_asks_for_less_than_the_policy_stops(
    signed: RolePolicy, wanted: RolePolicy, check: str | None
) -> None:
    root = next_root(policy_with(root=signed), ROOM, None, NOW, lab=False)
    evidence = Evidence(policy_with(root=wanted), ROOM, now=NOW)
    for each in (
        replace(evidence, signed={"root": root}),
        replace(evidence, pending={"root": root}),
    ):
        found = run_checks(each)
        expected = [] if check is None else [(check, check == BINDS)]
        assert [(one.check.id, one.severity is Severity.ERROR) for one in found] == expected


CASES = [
    (
        "root signs itself with one key",
        root_of(policy_with(root=LOWER["root"])),
        "root 1: root is 1 of alice, bob, carol; the policy expects 2 of alice, bob, carol",
    ),
    (
        "root lets one key sign targets",
        root_of(policy_with(targets=LOWER["targets"])),
        "root 1: targets is 1 of alice, bob, carol; the policy expects 2 of alice, bob, carol",
    ),
    (
        "one key speaks for a channel",
        targets_of(policy_with(channel=LOWER["channel"])),
        (
            "targets 1: gateway-stable is 1 of rita, sam, tess; "
            "the policy expects 2 of rita, sam, tess"
        ),
    ),
    (
        "another key speaks for a channel",
        targets_of(policy_with(channel=FEWER)),
        (
            "targets 1: gateway-stable is 2 of oncall, rita, sam; "
            "the policy expects 2 of rita, sam, tess"
        ),
    ),
]


@pytest.mark.parametrize(
    ("found", "detail"), [row[1:] for row in CASES], ids=[row[0] for row in CASES]
)
def test_what_differs_from_the_policy_is_found(found: Root | Targets, detail: str) -> None:
    evidence = Evidence(POLICY, KEYRING, delegated=DELEGATED, now=NOW)
    roles = {found.type: found}
    assert binding(replace(evidence, signed=roles)) == [detail]
    assert binding(replace(evidence, pending=roles)) == [detail]


def test_a_role_that_no_product_has_is_found() -> None:
    targets = targets_of(POLICY, "nightly")
    evidence = Evidence(POLICY, KEYRING, {"targets": targets}, delegated=DELEGATED)
    assert binding(evidence) == [
        (
            "targets 1: gateway-nightly is 2 of rita, sam, tess; "
            "expected no such role, since no product has it"
        ),
        (
            "targets 1: gateway-nightly-hold is 1 of oncall; "
            "expected no such role, since no product has it"
        ),
    ]


def test_a_role_of_people_that_delegates_is_found() -> None:
    """Whoever may write to git would have them delegate what the policy does not know."""
    evidence = Evidence(POLICY, KEYRING, {}, {"gateway-stable": targets_of(POLICY)}, DELEGATED)
    assert binding(evidence) == []
    loose = targets_of(policy_with(channel=LOWER["channel"]))
    assert len(binding(replace(evidence, pending={"gateway-stable": loose}))) == 1


def test_hash_bins_name_no_role() -> None:
    targets = targets_of(POLICY)
    bins = SuccinctRoles([], 1, 4, "bin")
    targets.delegations = Delegations({}, succinct_roles=bins)
    assert binding(Evidence(POLICY, KEYRING, {"targets": targets}, delegated=DELEGATED)) == []


def test_what_waits_stands_for_what_it_replaces() -> None:
    old, new = root_of(policy_with(root=LOWER["root"])), root_of(POLICY)
    assert binding(Evidence(POLICY, KEYRING, {"root": old}, {"root": new}, now=NOW)) == []
    assert len(binding(Evidence(POLICY, KEYRING, {"root": new}, {"root": old}, now=NOW))) == 1


def test_a_recovery_may_sign_again_what_has_expired_as_it_was() -> None:
    live = root_of(policy_with(root=LOWER["root"]))
    late = live.expires + timedelta(days=1)
    again = renewed(live, POLICY.roles["root"], late)
    evidence = Evidence(POLICY, KEYRING, {"root": again}, now=late, live={"root": live})
    assert binding(evidence) == []
    assert binding(replace(evidence, now=live.expires)) == [], "good until is not good at"
    assert len(binding(replace(evidence, now=NOW))) == 1, "it has not expired"
    assert len(binding(replace(evidence, now=None))) == 1, "nobody knows the time"
    assert len(binding(replace(evidence, live={}))) == 1, "it is not what was live"
    assert len(binding(replace(evidence, signed={"root": live}))) == 1, "it is not signed again"
    again.roles["timestamp"].keyids = [KEYRING["rita"].key.keyid]
    assert len(binding(evidence)) == 2, "it is not as it was"


def test_a_key_exchanged_in_metadata_is_found() -> None:
    root = root_of(POLICY)
    alice, other = KEYRING["alice"].key, holder("stranger").key
    root.keys[alice.keyid] = SSlibKey(alice.keyid, "ed25519", "ed25519", dict(other.keyval))
    for evidence in (
        Evidence(POLICY, KEYRING, {"root": root}),
        Evidence(POLICY, KEYRING, {}, {"root": root}),
    ):
        details = [each.detail for each in run_checks(evidence)]
        assert details == [f"root 1: keyid {alice.keyid[:8]}, its key gives {other.keyid[:8]}"]


def test_a_key_id_covers_the_scheme() -> None:
    key = KEYRING["alice"].key
    other = SSlibKey(key.keyid, "ed25519", "other", dict(key.keyval))
    assert derived_keyid(key) == key.keyid
    assert derived_keyid(other) != key.keyid
