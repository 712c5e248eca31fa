"""What is signed, or waits to be, lets no two roles speak for one target."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from tuf.api.metadata import Delegations, SuccinctRoles, Targets

from keys_policy.checks import MENDED, Evidence, Severity, run_checks
from repo_tools.metadata.edits import next_targets
from tests.keys_policy.sample import KEYRING, POLICY

if TYPE_CHECKING:
    from collections.abc import Callable

    from tuf.api.metadata import DelegatedRole

    Roles = dict[str, DelegatedRole]

NOW = datetime(2026, 3, 2, tzinfo=UTC)
DELEGATED = {"gateway-stable": "channel", "gateway-stable-hold": "hold", "gateway-builds": "builds"}


def sound() -> Targets:
    return next_targets(POLICY, KEYRING, {"gateway": ["stable"]}, None, NOW)


def details(evidence: Evidence) -> list[str]:
    found = [each for each in run_checks(evidence) if each.check.id == "delegations"]
    assert all(each.severity is Severity.ERROR for each in found)
    return [each.detail for each in found]


def _not_terminating(roles: Roles) -> Roles:
    roles["gateway-stable"].terminating = False
    return roles


def _overlapping(roles: Roles) -> Roles:
    roles["gateway-builds"].paths = ["channels/*"]
    return roles


def _builds_first(roles: Roles) -> Roles:
    return {"gateway-builds": roles["gateway-builds"], **roles}


BROKEN: dict[Callable[[Roles], Roles], list[str]] = {
    _not_terminating: ["targets 1: the delegation to gateway-stable is not terminating"],
    _overlapping: ["targets 1: gateway-stable and gateway-builds both speak for"],
    _builds_first: ["targets 1: gateway-builds is listed before channels, holds roles"],
}


@pytest.mark.parametrize("edit", BROKEN, ids=lambda each: each.__name__)
def test_a_delegation_that_shadows_is_found(edit: Callable[[Roles], Roles]) -> None:
    broken = sound()
    assert broken.delegations is not None
    assert broken.delegations.roles is not None
    broken.delegations.roles = edit(broken.delegations.roles)
    evidence = Evidence(POLICY, KEYRING, {"targets": broken}, delegated=DELEGATED)
    found = details(evidence)
    assert len(found) == len(BROKEN[edit])
    assert found[0].startswith(BROKEN[edit][0])
    waiting = replace(evidence, signed={}, pending={"targets": broken})
    assert details(waiting) == found
    mended = replace(evidence, pending={"targets": sound()})
    assert details(mended) == [], "its successor is judged in its place"


def test_sound_delegations_pass() -> None:
    targets = sound()
    assert details(Evidence(POLICY, KEYRING, {"targets": targets}, delegated=DELEGATED)) == []
    assert details(Evidence(POLICY, KEYRING, {"targets": Targets(expires=NOW)})) == []


def test_only_targets_delegates() -> None:
    leaf = Targets(expires=NOW, delegations=Delegations({}, {}))
    waiting = Evidence(POLICY, KEYRING, pending={"gateway-stable": leaf}, delegated=DELEGATED)
    assert details(waiting) == ["gateway-stable 1 delegates to other roles; only targets may"]


def test_targets_has_no_bins() -> None:
    bins = Targets(
        expires=NOW, delegations=Delegations({}, None, SuccinctRoles([], 1, 2, "gateway"))
    )
    assert details(Evidence(POLICY, KEYRING, {"targets": bins})) == [
        "targets 1 delegates to hash bins; only builds roles may"
    ]


def test_a_new_ceremony_mends_it() -> None:
    assert "delegations" in MENDED
