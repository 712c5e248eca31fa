"""Bins and their index, without a repository around them."""

from __future__ import annotations

import copy
import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    MetaFile,
    Snapshot,
    SuccinctRoles,
    TargetFile,
    Targets,
)

from client_reference.errors import ConfigurationError, NotTrustedError, RefusedError
from client_reference.payload.segments import SUFFIX
from repo_tools.metadata.bins import (
    FIELD,
    MAX_BINS,
    RECENT,
    Release,
    as_field,
    bin_of,
    bins_of,
    bits,
    builds_of,
    check_bins,
    delegating,
    files_of,
    is_bin,
    listed_bins,
    read_index,
    sizes,
    told,
    with_releases,
)
from repo_tools.metadata.edits import assemble, next_snapshot
from tests.simulators.repository import RepositorySimulator

if TYPE_CHECKING:
    from collections.abc import Callable

    from tuf.api.metadata import Key

NOW = datetime(2026, 3, 2, 6, 0, tzinfo=UTC)
BUILDS = "gateway-builds"


@pytest.fixture
def key() -> Key:
    return RepositorySimulator().new_signer().public_key


@pytest.fixture
def outer(key: Key) -> Targets:
    role = DelegatedRole(BUILDS, [key.keyid], 1, terminating=True, paths=["builds/gateway/*/*"])
    return Targets(expires=NOW, delegations=Delegations({key.keyid: key}, {BUILDS: role}))


@pytest.fixture
def builds(key: Key) -> Targets:
    return delegating("gateway", 16, [key], 1, NOW)


def test_bins_of_the_role_itself_are_accepted(builds: Targets, outer: Targets) -> None:
    check_bins(BUILDS, builds, outer)
    path = "builds/gateway/1/a"
    assert bin_of(builds, path) == f"gateway_-{hashlib.sha256(path.encode()).hexdigest()[0]}"
    assert bin_of(outer, "builds/gateway/1/a") is None


def _beside(builds: Targets) -> None:
    builds.targets["builds/gateway/1/a"] = TargetFile.from_data("builds/gateway/1/a", b"x")


def _prefix(builds: Targets) -> None:
    _bins(builds).name_prefix = "gateway"


def _threshold(builds: Targets) -> None:
    _bins(builds).threshold = 2


def _keyids(builds: Targets) -> None:
    _bins(builds).keyids = []


def _key(builds: Targets) -> None:
    assert builds.delegations is not None
    (keyid,) = builds.delegations.keys
    other = RepositorySimulator().new_signer().public_key
    assert other.keyid == keyid  # the simulator counts from one
    other.keyval = {"public": "ab" * 32}
    builds.delegations.keys = {keyid: other}


def _roles(builds: Targets) -> None:
    builds.delegations = Delegations(
        {}, {"x": DelegatedRole("x", [], 1, terminating=True, paths=[])}
    )


def _bins(builds: Targets) -> SuccinctRoles:
    found = bins_of(builds)
    assert found is not None
    return found


WRONG: dict[str, tuple[Callable[[Targets], None], str]] = {
    "targets beside": (_beside, "lists target files beside its hash bins"),
    "other names": (_prefix, "only 'gateway_' may be"),
    "another threshold": (_threshold, "other keys, or another threshold"),
    "other key ids": (_keyids, "other keys, or another threshold"),
    "another key under the id": (_key, "other keys, or another threshold"),
    "other roles": (_roles, "delegates to other roles"),
}


@pytest.mark.parametrize("sentence", WRONG)
def test_bins_that_are_anything_else_are_refused(
    builds: Targets, outer: Targets, sentence: str
) -> None:
    change, message = WRONG[sentence]
    before = copy.deepcopy(builds)
    change(builds)
    with pytest.raises(RefusedError, match=message):
        check_bins(BUILDS, builds, outer)
    check_bins(BUILDS, before, outer)


def test_a_channel_has_no_bins(builds: Targets, outer: Targets, key: Key) -> None:
    role = DelegatedRole("gateway-stable", [key.keyid], 1, terminating=True, paths=["x"])
    assert outer.delegations is not None
    assert outer.delegations.roles is not None
    outer.delegations.roles["gateway-stable"] = role
    with pytest.raises(RefusedError, match="has hash bins called"):
        check_bins("gateway-stable", builds, outer)


@pytest.mark.parametrize("number", [0, 1, 3, 100, -2, MAX_BINS * 2])
def test_a_number_that_is_none_of_bins_is_refused(number: int) -> None:
    with pytest.raises(ConfigurationError, match="is not a number of hash bins"):
        bits(number)


def test_the_snapshot_of_the_most_bins_is_one_that_clients_read() -> None:
    assert bits(2) == 1
    assert sizes("a" * 64, 1, 2 ** bits(MAX_BINS)).snapshot < 2_000_000


def test_bins_have_names_that_no_other_role_has() -> None:
    for name in ("gateway_-3f", "a-b_-0"):
        assert is_bin(name)
    for name in ("gateway-3f", "gateway_3f", "_-3f", "gateway_-x", "my_role"):
        assert not is_bin(name)
    assert builds_of("a-b_-0") == "a-b-builds"


def test_many_bins_are_counted_in_a_message() -> None:
    few = ["a-builds", "a_-1", "a_-2"]
    assert told(few) == "a-builds, a_-1, a_-2"
    many = [*few, "b_-0", *(f"a_-{number:x}" for number in range(3, 9)), "a-stable"]
    assert told(many) == "a-builds, b_-0, a-stable, 8 hash bins of a-builds"


def test_a_snapshot_lists_a_bin_by_its_version_and_other_roles_by_digest(builds: Targets) -> None:
    role, data = RepositorySimulator(), assemble(builds, [])
    rules = role  # only its days are looked at
    rules.expiry_days = 7  # type: ignore[attr-defined]  # stands for the rules of a policy
    found = next_snapshot(
        None,
        {BUILDS: data, "gateway_-3": data},
        rules,  # type: ignore[arg-type]
        NOW,
        as_field({"gateway": (Release("1.0", 1, ("a.img",)),)}),
    )
    assert found.meta["gateway_-3.json"] == MetaFile(1)
    assert found.meta[f"{BUILDS}.json"].hashes
    bins = bins_of(builds)
    assert bins is not None
    assert listed_bins(found, bins) == ["gateway_-3"]
    assert read_index(found, "gateway") == (Release("1.0", 1, ("a.img",)),)
    assert read_index(found, "other") == ()


@pytest.mark.parametrize(
    "field",
    [[], {"gateway": 1}, {"gateway": [["1", "1", []]]}, {"gateway": [["1", True, []]]},
     {"gateway": [["1", 1]]}, {"gateway": [[1, 1, []]]}, {"gateway": [["1", 1, [1]]]}],
)  # fmt: skip
def test_an_index_that_is_misshapen_is_said_to_be(field: object) -> None:
    snapshot = Snapshot(expires=NOW, unrecognized_fields={FIELD: field})
    with pytest.raises(NotTrustedError, match="is no index of releases"):
        read_index(snapshot, "gateway")


def test_the_index_keeps_the_newest_releases_and_joins_files_of_one() -> None:
    index = tuple(Release(str(n), n, ("a",)) for n in range(RECENT, 0, -1))
    more = [Release(str(RECENT), RECENT, ("b",)), Release("next", RECENT + 1, ("a",))]
    found = with_releases(index, more, gone=["7"])
    assert [each.version for each in found[:2]] == ["next", str(RECENT)]
    assert found[1].files == ("a", "b")
    assert len(found) == RECENT
    assert "7" not in {each.version for each in found}


def test_a_list_of_segments_that_a_target_names_is_a_file_of_it() -> None:
    path = "builds/gateway/1/a"
    target = TargetFile(2**20 + 1, {"sha256": "0" * 64}, path, {"custom": {"segments": "1" * 64}})
    whole, listed = files_of(target)
    assert whole is target
    assert (listed.path, listed.length) == (path + SUFFIX, 64)
    (alone,) = files_of(TargetFile(1, {"sha256": "0" * 64}, path))
    assert alone.path == path
