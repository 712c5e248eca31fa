"""Checks that look at shipped devices: what their clients read, trust and have room for."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from tuf.ngclient.config import UpdaterConfig

from client_reference.trust.updater import Limits
from keys_policy import model
from keys_policy.checks import Evidence, Severity, Shipped, run_checks
from keys_policy.model import ALGORITHM_SINCE, ALGORITHMS, RolePolicy
from keys_policy.sizes import LIMITS, LIMITS_ELSEWHERE, estimate
from repo_tools.metadata.edits import next_root
from tests.keys_policy.sample import KEYRING, POLICY, holder, policy_with

if TYPE_CHECKING:
    from keys_policy.model import Policy

NOW = datetime(2026, 3, 2, tzinfo=UTC)
ROOT = next_root(POLICY, KEYRING, None, NOW, lab=False)
TRUSTED = {name: frozenset(role.keyids) for name, role in ROOT.roles.items()}
EVIDENCE = Evidence(POLICY, KEYRING, {"root": ROOT}, now=NOW)
EXPORT = Shipped("gateway-stable-1", "0.1.0", 120, TRUSTED)


def found(evidence: Evidence) -> list[tuple[str, Severity, str]]:
    return [(each.check.id, each.severity, each.detail) for each in run_checks(evidence)]


def test_every_algorithm_says_since_when_clients_read_it() -> None:
    assert set(ALGORITHM_SINCE) == set(ALGORITHMS)


def test_an_algorithm_that_is_newer_than_a_shipped_client(monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = {**KEYRING, "rita": holder("rita", "ml-dsa-65")}
    since = {**ALGORITHM_SINCE, "ml-dsa-65": "0.10.0"}
    for name, version in since.items():
        monkeypatch.setitem(model.ALGORITHM_SINCE, name, version)
    older = replace(EXPORT, id="gateway-stable-2", client="0.9", count=30)
    newer = replace(EXPORT, client="0.10.0")
    evidence = replace(EVIDENCE, keyring=keyring, shipped=(newer, EXPORT, older))
    assert found(evidence) == [
        (
            "client-reads",
            Severity.WARNING,
            (
                "roles.channel: rita is ml-dsa-65, which clients read since 0.10.0; 150 devices "
                "(gateway-stable-1, gateway-stable-2) have older ones, the oldest 0.1.0"
            ),
        )
    ]
    assert found(replace(evidence, shipped=(newer,))) == []
    assert found(replace(evidence, keyring=KEYRING)) == []


def test_a_client_of_which_nobody_knows_the_version_reads_nothing() -> None:
    details = [
        each for _, _, each in found(replace(EVIDENCE, shipped=(replace(EXPORT, client="?"),)))
    ]
    assert len(details) == sum(len(rules.keys) for rules in POLICY.roles.values())


def test_retired_keys_that_shipped_devices_trust() -> None:
    old = holder("carol-2020").key.keyid
    roots = TRUSTED["root"] - {KEYRING["carol"].key.keyid} | {old}
    born = replace(EXPORT, trusted={**TRUSTED, "root": roots})
    also = replace(born, id="gateway-beta-1", count=0)
    keyring = {**KEYRING, "carol-2020": holder("carol-2020")}
    evidence = replace(EVIDENCE, keyring=keyring, shipped=(EXPORT, born, also))
    assert found(evidence) == [
        (
            "retired-keys",
            Severity.WARNING,
            (
                f"carol-2020 ({old[:8]}) is no key of root any more, but at least 120 devices "
                "(gateway-stable-1, gateway-beta-1) were made to trust it there, and do until they "
                "see a root without it"
            ),
        )
    ]
    (only,) = found(replace(EVIDENCE, shipped=(also,)))
    assert f"unknown key ({old[:8]}) is no key of root any more, but an unknown number" in only[2]
    assert found(replace(EVIDENCE, shipped=(EXPORT,))) == []
    assert found(replace(evidence, signed={})) == []


def test_a_retired_key_that_is_destroyed_is_nobodys_any_more() -> None:
    day = date(2026, 2, 1)
    gone = replace(holder("carol-2020"), destroyed=day)
    roots = TRUSTED["root"] | {gone.key.keyid}
    born = replace(EXPORT, trusted={**TRUSTED, "root": roots})
    evidence = replace(EVIDENCE, keyring={**KEYRING, gone.name: gone}, shipped=(born,))
    assert found(evidence) == []
    keyring = {**KEYRING, "carol": replace(KEYRING["carol"], destroyed=day)}
    roles = [name for name, rules in POLICY.roles.items() if "carol" in rules.keys]
    assert found(replace(EVIDENCE, keyring=keyring)) == [
        (
            "destroyed-keys",
            Severity.ERROR,
            f"keys/carol.toml: destroyed 2026-02-01, but carol is in roles.{role}",
        )
        for role in roles
    ]
    assert roles


def test_a_stolen_key_has_no_role() -> None:
    keyid = KEYRING["carol"].key.keyid
    roles = [name for name, rules in POLICY.roles.items() if "carol" in rules.keys]
    assert found(replace(EVIDENCE, stolen=frozenset({keyid}))) == [
        (
            "stolen-keys",
            Severity.ERROR,
            f"roles.{role}: carol is in other hands, as gone.toml says",
        )
        for role in roles
    ]
    assert roles
    assert found(replace(EVIDENCE, stolen=frozenset({"ab" * 32}))) == []


def test_retired_keys_below_root_are_named_once_with_their_roles() -> None:
    old = holder("publisher-2020").key.keyid
    born = replace(
        EXPORT,
        trusted={**TRUSTED, "snapshot": frozenset({old}), "timestamp": frozenset({old})},
    )
    (only,) = found(replace(EVIDENCE, shipped=(born,)))
    assert only[0] == "retired-keys"
    names = ", ".join(name for name in TRUSTED if name in {"snapshot", "timestamp"})
    assert f"({old[:8]}) is no key of {names} any more, but 120 devices" in only[2]


def test_retired_keys_of_the_anchor_lead_devices_to_another_root() -> None:
    old = holder("noor-2020").key.keyid
    born = replace(EXPORT, trusted={**TRUSTED, "recovery": frozenset({old})})
    # The anchor of today: any root with keys of its own.
    anchor = next_root(POLICY, KEYRING, None, NOW, lab=False)
    evidence = replace(EVIDENCE, signed={"root": ROOT, "recovery": anchor}, shipped=(born,))
    (only,) = [each for each in found(evidence) if each[0] == "retired-keys"]
    assert f"({old[:8]}) is no key of recovery any more, but 120 devices" in only[2]
    assert "until they see a recovery root without it" in only[2]
    same = replace(born, trusted={**TRUSTED, "recovery": frozenset(anchor.roles["root"].keyids)})
    assert "retired-keys" not in {each[0] for each in found(replace(evidence, shipped=(same,)))}


def test_the_limits_are_those_of_the_clients() -> None:
    assert dict(LIMITS) == {name: getattr(Limits(), name) for name in LIMITS}
    theirs = UpdaterConfig()
    assert dict(LIMITS_ELSEWHERE) == {
        name: getattr(theirs, f"{name}_max_length") for name in LIMITS
    }


def quantum(role: str, count: int) -> Evidence:
    names = tuple(f"q{number}" for number in range(count))
    keyring = {**KEYRING, **{name: holder(name, "ml-dsa-65") for name in names}}
    rules = replace(POLICY.roles[role], keys=names)
    return Evidence(policy_with(**{role: rules}), keyring)


def test_a_timestamp_that_is_longer_than_clients_read() -> None:
    assert found(quantum("timestamp", 1)) == []
    assert found(quantum("timestamp", 2)) == [
        (
            "signed-size-elsewhere",
            Severity.WARNING,
            (
                "roles.timestamp: its keys and signatures take about 28672 bytes; python-tuf stops "
                "reading at 16384"
            ),
        )
    ]
    assert found(quantum("timestamp", 5)) == [
        (
            "signed-size",
            Severity.ERROR,
            (
                "roles.timestamp: its keys and signatures take about 69580 bytes; devices that "
                "were shipped stop reading at 65536"
            ),
        )
    ]


def test_a_root_with_very_many_keys() -> None:
    assert found(quantum("root", 20)) == []
    assert [each for each, _, _ in found(quantum("root", 40))] == ["signed-size"]


def test_a_thousand_products_are_not_too_many() -> None:
    delegated = {
        f"p{number}-{kind}": template
        for number in range(1000)
        for kind, template in (("builds", "builds"), ("stable", "channel"), ("stable-hold", "hold"))
    }
    assert found(replace(EVIDENCE, delegated=delegated)) == []


def test_the_estimate_is_a_little_above_what_is_signed() -> None:
    names = ("a", "b", "c")
    keyring = {**KEYRING, **{name: holder(name, "ml-dsa-65") for name in names}}
    rules = RolePolicy(2, names, 365, 60)
    policy = policy_with(root=rules, targets=rules)
    root = next_root(policy, keyring, None, NOW, lab=False)
    signature = {"keyid": "0" * 64, "sig": "0" * 2 * 3309}
    signed = {"signatures": [signature] * len(names) * 2, "signed": root.to_dict()}
    size = len(json.dumps(signed))
    listed = [keyring[name] for name in (*names, "publisher")]
    assert size < estimate([keyring[name] for name in names], listed, 4, 8) < size + 5_000


def size_of(role: str, policy: Policy = POLICY) -> int:
    """What the checks take a role to be long, as their message says it."""
    keyring = {**KEYRING, "tim": holder("tim"), "eve": holder("eve")}
    with patch.dict("keys_policy.checks.LIMITS", {role: 0}):
        said = run_checks(Evidence(policy, keyring))
    [detail] = [each.detail for each in said if each.check.id == "signed-size"]
    return int(detail.partition(" take about ")[2].partition(" ")[0])


@pytest.mark.parametrize("role", ["root", "targets", "snapshot", "timestamp"])
def test_what_is_just_as_long_as_clients_read_is_read(role: str) -> None:
    size = size_of(role)

    def said(ours: int, elsewhere: int) -> list[str]:
        with (
            patch.dict("keys_policy.checks.LIMITS", {role: ours}),
            patch.dict("keys_policy.checks.LIMITS_ELSEWHERE", {role: elsewhere}),
        ):
            return [each.check.id for each in run_checks(Evidence(POLICY, KEYRING))]

    assert said(size, size) == []
    assert said(size - 1, size - 1) == ["signed-size"]
    assert said(size, size - 1) == ["signed-size-elsewhere"]


def test_a_role_is_as_long_as_the_keys_that_it_lists() -> None:
    more = policy_with(channel=RolePolicy(2, ("rita", "sam", "tess", "tim"), 90, 30))
    assert size_of("targets", more) > size_of("targets")
    assert size_of("root", more) == size_of("root")
    # The keys of the anchor are in none of these, and those of root not in targets.
    for other in (
        policy_with(recovery=RolePolicy(2, ("tim", "eve"), 3650, 0)),
        policy_with(root=RolePolicy(2, ("alice", "bob", "carol", "tim"), 365, 60)),
    ):
        assert size_of("targets", other) == size_of("targets")
