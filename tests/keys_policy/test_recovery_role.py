"""The role of the recovery anchor: whose keys, how many, and what a person alone is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from keys_policy.checks import Evidence, Finding, Severity, run_checks
from keys_policy.model import Policy, RolePolicy, Scale
from repo_tools.metadata.anchor import next_recovery, statement_about
from repo_tools.metadata.edits import next_root
from tests.keys_policy.sample import KEYRING, holder, policy_with

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tuf.api.metadata import Root, Targets

NOW = datetime(2026, 3, 2, tzinfo=UTC)
NAMES = ("noor", "otto", "pia")
RING = {**KEYRING, **{name: holder(name) for name in (*NAMES, "quentin")}}
RULES = RolePolicy(2, NAMES, 3650, 0)
SOUND = policy_with(recovery=RULES)
STATEMENT = statement_about(b"root")


def found(
    policy: Policy,
    *,
    signed: Mapping[str, Root | Targets] | None = None,
    pending: Mapping[str, Root | Targets] | None = None,
) -> list[Finding]:
    return run_checks(Evidence(policy, RING, signed or {}, pending or {}, {}, NOW))


def anchor(policy: Policy = SOUND) -> Root:
    return next_recovery(policy, RING, None, STATEMENT, NOW, lab=False)


def told(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(each.check.id, each.detail) for each in findings]


def test_a_sound_anchor_has_no_findings() -> None:
    assert found(SOUND) == []
    assert found(SOUND, pending={"recovery": anchor()}) == []
    assert found(SOUND, signed={"recovery": anchor()}) == []


def test_a_section_without_keys_is_no_anchor_yet() -> None:
    policy = policy_with(recovery=replace(RULES, keys=()))
    assert policy.recovery is None
    assert found(policy) == []
    assert SOUND.recovery == RULES


BROKEN = {
    "root needs more": (
        policy_with(
            recovery=RULES,
            root=RolePolicy(3, ("alice", "bob", "carol", "rita"), 365, 60),
        ),
        [("recovery-threshold", "roles.recovery: threshold 2, root has 3")],
    ),
    "one key is enough": (
        policy_with(recovery=replace(RULES, threshold=1)),
        [
            ("threshold-two", "roles.recovery: threshold 1, expected at least 2"),
            ("recovery-threshold", "roles.recovery: threshold 1, root has 2"),
        ],
    ),
    "no key to spare": (
        policy_with(recovery=replace(RULES, keys=("noor", "otto"))),
        [("threshold-spare", "roles.recovery: all 2 keys must sign, expected one to spare")],
    ),
    "a key of a channel": (
        policy_with(recovery=replace(RULES, keys=(*NAMES, "rita"))),
        [("recovery-keys", "rita is in roles.recovery and in roles.channel")],
    ),
}


@pytest.mark.parametrize(("policy", "expected"), BROKEN.values(), ids=BROKEN)
def test_a_broken_rule_is_found(policy: Policy, expected: list[tuple[str, str]]) -> None:
    findings = found(policy)
    assert told(findings) == expected
    assert all(each.severity is Severity.ERROR for each in findings)


def test_who_holds_root_does_not_hold_the_anchor() -> None:
    ring = {**RING, "noor": replace(RING["noor"], holder="alice")}
    findings = run_checks(Evidence(SOUND, ring))
    assert [each.check.id for each in findings] == ["recovery-holders"]
    assert findings[0].severity is Severity.ERROR
    assert findings[0].detail.startswith("alice holds keys of root and of roles.recovery")


def test_a_maker_may_hold_both_and_is_told_what_that_costs() -> None:
    one = RolePolicy(1, ("alice",), 365, 60)
    policy = replace(
        policy_with(root=one, recovery=RolePolicy(1, ("noor",), 3650, 0)), scale=Scale.MAKER
    )
    ring = {**RING, "noor": replace(RING["noor"], holder="alice")}
    findings = [
        each for each in run_checks(Evidence(policy, ring)) if each.check.id.startswith("recovery-")
    ]
    assert [each.severity for each in findings] == [Severity.WARNING]
    assert "devices must be reflashed by hand" in findings[0].detail
    shared = replace(policy, roles={**policy.roles, "recovery": one})
    stops = [each for each in found(shared) if each.severity is Severity.ERROR]
    assert {each.check.id for each in stops} == {"recovery-keys"}, "the same key is never good"


def test_what_waits_is_what_the_policy_says() -> None:
    changed = policy_with(recovery=replace(RULES, keys=("noor", "otto", "quentin")))
    details = told(found(changed, pending={"recovery": anchor()}))
    assert {name for name, _ in details} == {"policy-binds"}
    assert details[0][1] == (
        "recovery 1: root is 2 of noor, otto, pia; the policy expects 2 of noor, otto, quentin"
    )
    assert found(changed, pending={"recovery": anchor(changed)}) == []


CHANGED = {
    "other keys": replace(RULES, keys=("noor", "otto", "quentin")),
    "another threshold": replace(RULES, threshold=3),
}


@pytest.mark.parametrize("rules", CHANGED.values(), ids=CHANGED)
def test_a_policy_that_is_ahead_of_the_anchor_is_a_warning(rules: RolePolicy) -> None:
    changed = policy_with(recovery=rules)
    (behind,) = [
        each
        for each in found(changed, signed={"recovery": anchor()})
        if each.check.id == "recovery-behind"
    ]
    assert behind.severity is Severity.WARNING
    assert "recovery 1 is 2 of noor, otto, pia; the policy expects" in behind.detail
    pending = {"recovery": anchor(changed)}
    findings = found(changed, signed={"recovery": anchor()}, pending=pending)
    assert not {each.check.id for each in findings} & {"recovery-behind", "policy-binds"}


def test_an_anchor_that_left_the_policy_is_judged_by_nothing() -> None:
    policy = policy_with(recovery=replace(RULES, keys=()))
    assert found(policy, signed={"recovery": anchor()}) == []


def test_an_anchor_does_not_expire_beyond_the_policy() -> None:
    root = anchor()
    root.expires = root.expires.replace(year=root.expires.year + 1)
    assert [name for name, _ in told(found(SOUND, pending={"recovery": root}))] == ["expiry"]


def test_root_is_judged_as_ever() -> None:
    root = next_root(SOUND, RING, None, NOW, lab=False)
    assert found(SOUND, pending={"root": root, "recovery": anchor()}) == []
