"""What an adopted repository keeps: each thing that may not change, changed, and refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from securesystemslib.signer import SSlibKey
from tuf.api.metadata import Delegations, Root, TargetFile, Targets

from client_reference.errors import ConfigurationError, RefusedError
from keys_policy.checks import CHECKS, Evidence, run_checks
from keys_policy.model import KeyHolder, RolePolicy
from repo_tools.metadata.adopted import Adopted
from repo_tools.metadata.edits import next_targets
from repo_tools.metadata.repository import parse
from repo_tools.signing.ceremony.guards import check_alone
from tests.keys_policy.sample import KEYRING, POLICY
from tests.simulators.foreign import Foreign, make

if TYPE_CHECKING:
    from collections.abc import Callable

    from keys_policy.model import Policy

NOW = datetime(2026, 3, 2, 6, 0, tzinfo=UTC)
PRODUCTS = {"gateway": ["stable"]}


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Foreign:
    return make(tmp_path_factory.mktemp("foreign") / "theirs", now=NOW)


@pytest.fixture
def adopted(theirs: Foreign) -> Adopted:
    root = parse(theirs.roots[-1], Root, "root").signed
    return Adopted(root, Targets.from_dict(theirs.targets.to_dict()))


def rules_of(adopted: Adopted) -> tuple[Policy, dict[str, KeyHolder]]:
    """A policy with sections for their delegated roles, and a keyring with their keys."""
    keyring = dict(KEYRING)
    sections = dict(POLICY.roles)
    for role in adopted.roles:
        keyids = adopted.delegations[role.name].keyids
        for keyid in keyids:
            keyring[f"k{keyid[:6]}"] = KeyHolder(keyid[:6], "x", "file", adopted.keys[keyid])
        sections[role.template] = RolePolicy(1, tuple(f"k{each[:6]}" for each in keyids), 100, 10)
    return replace(POLICY, roles=sections), keyring


def next_of(adopted: Adopted, products: dict[str, list[str]] | None = None) -> Targets:
    policy, keyring = rules_of(adopted)
    return next_targets(
        policy, keyring, products or PRODUCTS, adopted.targets, NOW, adopted=adopted
    )


def test_the_next_targets_role_has_theirs_first_and_ours_after(adopted: Adopted) -> None:
    made = next_of(adopted)
    assert made.version == adopted.targets.version + 1
    assert made.targets == adopted.targets.targets
    assert made.delegations is not None
    assert made.delegations.roles is not None
    assert list(made.delegations.roles) == [
        "plugins",
        "extras",
        "gateway-stable",
        "gateway-stable-hold",
        "gateway-builds",
    ]
    for name, before in adopted.delegations.items():
        after = made.delegations.roles[name]
        assert (after.paths, after.terminating, after.keyids, after.threshold) == (
            before.paths,
            before.terminating,
            before.keyids,
            before.threshold,
        )
        assert made.delegations.keys[after.keyids[0]].keyval == adopted.keys[after.keyids[0]].keyval
    check_alone("targets", made, adopted)


def test_without_adoption_nothing_of_this_may_be_signed(adopted: Adopted) -> None:
    with pytest.raises(RefusedError, match="plugins is not terminating"):
        check_alone("targets", next_of(adopted))


def test_a_product_may_not_take_the_name_of_a_role(adopted: Adopted) -> None:
    delegations = adopted.targets.delegations
    assert delegations is not None
    assert delegations.roles is not None
    role = delegations.roles.pop("extras")
    role.name = "gateway-builds"
    delegations.roles["gateway-builds"] = role
    with pytest.raises(ConfigurationError, match="'gateway-builds' stands for an adopted role"):
        next_of(adopted)


def _roles(targets: Targets) -> Delegations:
    assert targets.delegations is not None
    return targets.delegations


def _reorder(targets: Targets) -> None:
    delegations = _roles(targets)
    assert delegations.roles is not None
    delegations.roles["plugins"] = delegations.roles.pop("plugins")


def _drop_role(targets: Targets) -> None:
    delegations = _roles(targets)
    assert delegations.roles is not None
    del delegations.roles["extras"]


def _set(name: str, **fields: object) -> Callable[[Targets], None]:
    def change(targets: Targets) -> None:
        delegations = _roles(targets)
        assert delegations.roles is not None
        for field, value in fields.items():
            setattr(delegations.roles[name], field, value)

    return change


CHANGES: dict[str, tuple[Callable[[Targets], object], str]] = {
    "nothing": (lambda _: None, ""),
    "a file is gone": (lambda t: t.targets.pop("notes.txt"), "other target files than those"),
    "a file has other bytes": (
        lambda t: t.targets.update({"notes.txt": TargetFile.from_data("notes.txt", b"x")}),
        "other target files than those",
    ),
    "there is one file more": (
        lambda t: t.targets.update({"more": TargetFile.from_data("more", b"x")}),
        "other target files than those",
    ),
    "a role is gone": (_drop_role, "expected the adopted roles plugins, extras first"),
    "the order is another": (_reorder, "expected the adopted roles plugins, extras first"),
    "a role has another path": (
        _set("extras", paths=["extras/*", "plugins/*"]),
        "the adopted role extras speaks for other paths than before",
    ),
    "a role terminates now": (
        _set("plugins", terminating=True),
        "the adopted role plugins speaks for other paths than before",
    ),
    "a role of ours does not terminate": (
        _set("gateway-stable", terminating=False),
        "the delegation to gateway-stable is not terminating",
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_in_what_is_to_be_signed(case: str, adopted: Adopted) -> None:
    change, message = CHANGES[case]
    made = next_of(adopted)
    change(made)
    if not message:
        check_alone("targets", made, adopted)
        return
    with pytest.raises(RefusedError, match=message):
        check_alone("targets", made, adopted)


def test_a_key_has_the_id_that_it_had_and_no_other_key_may(adopted: Adopted) -> None:
    keyid, key = next(
        (keyid, key) for keyid, key in adopted.keys.items() if key.unrecognized_fields
    )
    plain = SSlibKey(keyid, key.keytype, key.scheme, key.keyval)
    other = next(each for each in adopted.keys.values() if each.keyval != key.keyval)
    assert adopted.vouches(keyid, plain)
    assert not adopted.vouches(keyid, SSlibKey(keyid, other.keytype, other.scheme, other.keyval))
    assert not adopted.vouches("0" * 64, plain)


def test_the_policy_judges_what_is_adopted_as_it_was(adopted: Adopted) -> None:
    policy, keyring = rules_of(adopted)
    evidence = Evidence(
        policy,
        keyring,
        {"targets": next_of(adopted), "root": adopted.root},
        delegated={
            **{role.name: role.template for role in adopted.roles},
            "gateway-stable": "channel",
            "gateway-stable-hold": "hold",
            "gateway-builds": "builds",
        },
        adopted=frozenset(adopted.delegations),
        adopted_keys=adopted.keys,
    )
    about = {"keyid-derived", "delegations", "threshold-two", "threshold-spare", "section-used"}
    assert about <= {check.id for check in CHECKS}
    assert {each.check.id for each in run_checks(evidence)} & about == set()
    stranger = replace(evidence, adopted=frozenset(), adopted_keys={})
    assert {each.check.id for each in run_checks(stranger)} & about == {
        "keyid-derived",
        "delegations",
    }
    misspelt = replace(policy, roles={**policy.roles, "adopted-plugin": policy.roles["builds"]})
    found = run_checks(replace(evidence, policy=misspelt))
    assert {each.check.id for each in found} & about == {"section-used"}
