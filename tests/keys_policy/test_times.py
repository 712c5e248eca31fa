"""Checks that look at days: age of keys, ends of algorithms, time for a ceremony."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import pytest

from keys_policy.checks import Evidence, Severity, run_checks
from keys_policy.load import PolicyError, parse_policy
from keys_policy.model import Policy, RolePolicy
from tests.keys_policy.sample import KEYRING, POLICY, holder, policy_with
from tests.keys_policy.test_load import LAB

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keys_policy.model import KeyHolder

NOW = datetime(2026, 3, 2, tzinfo=UTC)
KEYS = ("alice", "bob", "carol")


def found(
    policy: Policy, keyring: Mapping[str, KeyHolder] = KEYRING, now: datetime | None = NOW
) -> list[tuple[str, Severity, str]]:
    findings = run_checks(Evidence(policy, keyring, now=now))
    return [(each.check.id, each.severity, each.detail) for each in findings]


def aged(made: date | None) -> dict[str, KeyHolder]:
    young = {name: replace(each, made=NOW.date()) for name, each in KEYRING.items()}
    return {**young, "bob": replace(KEYRING["bob"], made=made)}


def test_a_key_that_is_older_than_its_rotation_period() -> None:
    policy = policy_with(root=RolePolicy(2, KEYS, 365, 60, rotation_days=365))
    assert found(policy, aged(date(2025, 3, 2))) == []
    assert found(policy, aged(date(2025, 3, 1))) == [
        (
            "key-age",
            Severity.AUDIT,
            "keys/bob.toml: made 2025-03-01, 366 days ago; roles.root.rotation_days allows 365",
        )
    ]
    assert found(policy, aged(date(2025, 3, 1)), now=None) == []
    assert found(POLICY, aged(date(1999, 1, 1))) == [], "nobody asked for a rotation"


def test_a_key_of_which_nobody_knows_the_age() -> None:
    policy = policy_with(root=RolePolicy(2, KEYS, 365, 60, rotation_days=365))
    assert [detail for _, _, detail in found(policy, aged(None))] == [
        "keys/bob.toml: made is missing; roles.root.rotation_days 365 cannot be judged"
    ]
    assert found(policy, aged(None), now=None) == []


def test_a_ceremony_that_would_begin_too_late() -> None:
    assert found(replace(POLICY, lead_days=30)) == []
    assert found(replace(POLICY, lead_days=31)) == [
        (
            "lead-time",
            Severity.ERROR,
            "roles.channel: signing_days 30, but lead_days says that a ceremony takes 31",
        )
    ]


def test_machines_and_the_anchor_need_no_lead_time() -> None:
    anchor = RolePolicy(2, ("rita", "sam", "tess"), 3650, 0)
    policy = replace(
        policy_with(recovery=anchor, builds=RolePolicy(1, ("ci",), 365, 0)), lead_days=30
    )
    assert "lead-time" not in {check for check, _, _ in found(policy)}


def test_an_algorithm_that_a_role_does_not_allow() -> None:
    policy = policy_with(root=RolePolicy(2, KEYS, 365, 60, algorithms=("ed25519",)))
    assert found(policy) == []
    keyring = {**KEYRING, "bob": holder("bob", "ecdsa-p256")}
    assert found(policy, keyring) == [
        ("algorithm", Severity.ERROR, "roles.root: bob is ecdsa ecdsa-sha2-nistp256")
    ]
    allowed = policy_with(root=RolePolicy(2, KEYS, 365, 60, algorithms=("ed25519", "ecdsa-p256")))
    assert found(allowed, keyring) == []
    narrow = replace(allowed, algorithms=("ed25519",))
    assert "algorithm" in {check for check, _, _ in found(narrow, keyring)}


def test_an_algorithm_that_has_ended_or_ends_before_its_signatures() -> None:
    keyring = {**KEYRING, "rita": holder("rita", "ecdsa-p256")}

    def until(day: date) -> Policy:
        return replace(POLICY, algorithms_until={"ecdsa-p256": day})

    assert found(until(date(2026, 3, 2)), keyring) == [
        (
            "algorithm-until",
            Severity.ERROR,
            "roles.channel: rita is ecdsa-p256, which algorithms_until ends 2026-03-02",
        )
    ]
    assert found(until(date(2026, 3, 3)), keyring) == [
        (
            "algorithm-ending",
            Severity.WARNING,
            (
                "roles.channel: rita is ecdsa-p256, which algorithms_until ends 2026-03-03; "
                "what it signs today is good until 2026-05-31"
            ),
        )
    ]
    assert found(until(date(2026, 5, 31)), keyring) == []
    assert found(until(date(2020, 1, 1)), keyring, now=None) == []
    assert found(until(date(2020, 1, 1))) == [], "no key of that kind"


def test_the_fields_are_read() -> None:
    role = 'rotation_days = 700\nalgorithms = ["ed25519"]\n'
    text = "lead_days = 14\n" + LAB.replace("[roles.root]\n", f"[roles.root]\n{role}")
    policy = parse_policy(text + "\n[algorithms_until]\nrsa = 2030-01-01\n")
    assert (policy.lead_days, policy.algorithms_until) == (14, {"rsa": date(2030, 1, 1)})
    assert policy.roles["root"].rotation_days == 700
    assert policy.roles["root"].algorithms == ("ed25519",)
    assert parse_policy(LAB).algorithms_until == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lead_days = -1\n" + LAB, "policy.toml: lead_days: expected a whole number from 0"),
        (LAB + "\n[algorithms_until]\nrsa = 2030\n", "algorithms_until.rsa: expected a date"),
        (LAB + "\n[algorithms_until]\nesa = 2030-01-01\n", "algorithms_until.esa is not known"),
        ("algorithms_until = 1\n" + LAB, "policy.toml: algorithms_until is not a table"),
        (
            LAB.replace("[roles.root]\n", '[roles.root]\nalgorithms = ["dsa"]\n'),
            "roles.root.algorithms: expected names among ed25519",
        ),
    ],
)
def test_a_mistake_names_its_place(text: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text)
    assert message in str(caught.value)
