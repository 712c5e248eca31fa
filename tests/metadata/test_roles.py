"""Role names and the guard on shadowing, as tables."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tuf.api.metadata import DelegatedRole, Delegations, SuccinctRoles, Targets

from client_reference.errors import ConfigurationError, RefusedError
from repo_tools.metadata.roles import check_delegations, check_leaf, check_names, delegated_roles

NOW = datetime(2026, 3, 2, tzinfo=UTC)


def test_delegations_are_listed_channels_and_holds_first_builds_last() -> None:
    roles = delegated_roles({"a": ["x", "y"], "b": ["x"]}, device_tls=True)
    assert [role.name for role in roles] == [
        "a-x",
        "a-x-hold",
        "a-y",
        "a-y-hold",
        "b-x",
        "b-x-hold",
        "device-tls",
        "a-builds",
        "b-builds",
    ]
    assert {role.name: role.patterns for role in roles if role.name.startswith("b")} == {
        "b-x": ("channels/b/x.json",),
        "b-x-hold": ("holds/b/x.json",),
        "b-builds": ("builds/b/*/*",),
    }
    assert "device-tls" not in {role.name for role in delegated_roles({}, device_tls=False)}


BAD_NAMES = [
    ("a product and channel make another's role", {"a-b": ["c"], "a": ["b-c"]}, "'a-b-c' would"),
    ("a channel called builds", {"a": ["builds"]}, "cannot be called 'builds'"),
    ("a channel called hold", {"a": ["hold"]}, "cannot be called 'hold'"),
    ("a channel named as another's hold", {"a": ["b", "b-hold"]}, "'a-b-hold' would stand for"),
    ("the role of the CA bundle", {"device": ["tls"]}, "'device-tls' would stand for"),
    ("builds of one are a channel of another", {"a": ["b-builds"], "a-b": ["c"]}, "'a-b-builds'"),
    ("a channel twice", {"a": ["b", "b"]}, "channel a/b and for channel a/b"),
    ("capital letters", {"A": ["b"]}, "'A' is not a name"),
    ("a path", {"a": ["../b"]}, "'../b' is not a name"),
    ("two dashes", {"a--b": ["c"]}, "'a--b' is not a name"),
    ("nothing", {"": ["c"]}, "'' is not a name"),
]


@pytest.mark.parametrize(
    ("products", "message"), [row[1:] for row in BAD_NAMES], ids=[row[0] for row in BAD_NAMES]
)
def test_names_that_would_make_two_roles_one_are_refused(
    products: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_names(products)
    assert message in caught.value.message


def test_plain_names_are_fine() -> None:
    check_names({"gateway": ["stable", "beta"], "gw-2": ["stable"]})


def role(name: str, *paths: str, keys: str = "k", terminating: bool = True) -> DelegatedRole:
    keyids = [key * 64 for key in keys]
    return DelegatedRole(name, keyids, 1, terminating=terminating, paths=list(paths))


CHANNEL, BUILDS = role("c", "channels/a/c.json"), role("b", "builds/a/*/*", keys="b")
BAD_DELEGATIONS = [
    (
        "not terminating",
        [role("c", "channels/a/c.json", terminating=False)],
        "the delegation to c is not terminating",
    ),
    ("no paths", [role("c")], "the delegation to c does not name its paths"),
    (
        "paths by hash prefix",
        [DelegatedRole("c", [], 1, terminating=True, path_hash_prefixes=["ab"])],
        "the delegation to c does not name its paths",
    ),
    ("builds before channels", [BUILDS, CHANNEL], "b is listed before channels roles"),
    (
        "builds and channel share a key",
        [CHANNEL, role("b", "builds/a/*/*", keys="bk")],
        "c and b share the key kkkkkkkk",
    ),
    (
        "one path for two roles",
        [CHANNEL, role("d", "channels/a/c.json")],
        "c and d both speak for channels/a/c.json",
    ),
    (
        "a wildcard over another role",
        [role("d", "channels/*"), CHANNEL],
        "d and c both speak for channels/*",
    ),
    (
        "a wildcard over another role, listed later",
        [CHANNEL, role("d", "channels/*")],
        "c and d both speak for channels/a/c.json",
    ),
    (
        "a wildcard that crosses slashes for some clients",
        [role("b", "builds/a/*/*"), role("d", "builds/a/x/y")],
        "b and d both speak for builds/a/*/*",
    ),
    ("a question mark", [role("d", "channels/a/?.json"), CHANNEL], "d and c both speak for"),
    ("a set of letters", [role("d", "channels/a/[c].json"), CHANNEL], "d and c both speak for"),
]


@pytest.mark.parametrize(
    ("roles", "message"),
    [row[1:] for row in BAD_DELEGATIONS],
    ids=[row[0] for row in BAD_DELEGATIONS],
)
def test_shadowing_is_refused(roles: list[DelegatedRole], message: str) -> None:
    with pytest.raises(RefusedError) as caught:
        check_delegations(Delegations({}, {each.name: each for each in roles}))
    assert message in caught.value.message


def test_disjoint_delegations_pass() -> None:
    hold = role("h", "holds/a/c.json", keys="b")
    second = role("b2", "builds/ab/*/*", keys="b")
    roles = [CHANNEL, hold, BUILDS, second]
    check_delegations(Delegations({}, {each.name: each for each in roles}))
    check_delegations(None)


def test_a_path_that_another_begins_with_is_another_path() -> None:
    longer, longest = role("l", "channels/a/c.json.old"), role("m", "channels/a/c.json.old.old")
    roles = [longer, CHANNEL, longest]
    check_delegations(Delegations({}, {each.name: each for each in roles}))


def test_targets_has_no_hash_bins() -> None:
    bins = SuccinctRoles([], 1, 2, "bin")
    with pytest.raises(RefusedError, match="hash bins"):
        check_delegations(Delegations({}, None, bins))


def test_a_leaf_delegates_nothing() -> None:
    check_leaf("b", Targets(expires=NOW))
    with pytest.raises(RefusedError, match="b delegates to other roles"):
        check_leaf("b", Targets(expires=NOW, delegations=Delegations({}, {})))
