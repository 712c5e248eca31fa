"""Which staged roles may be published: pure cases over hand-made metadata."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Role,
    Root,
    TargetFile,
    Targets,
)

from client_reference.errors import ActionRequiredError, NotTrustedError, RefusedError
from client_reference.trust.verified import read
from keys_policy.model import RolePolicy
from repo_tools.metadata.bins import bins_of, delegating
from repo_tools.metadata.edits import assemble, next_snapshot, signed_bytes, without
from repo_tools.metadata.repository import RepositoryState, sha256
from repo_tools.publishing.plan import (
    MAX_JUMP,
    Admitted,
    StaleError,
    admit,
    check_delegated,
    metadata_uploads,
    new_targets,
)
from tests.publishing.lab import NOW, entry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tuf.api.metadata import Key, Snapshot

ROOT, OTHER, TARGETS, CHANNEL, BUILDER = (CryptoSigner.generate_ed25519() for _ in range(5))
LATER = NOW.replace(year=2030)


def _sign(signed: Root | Targets | Snapshot, *signers: CryptoSigner) -> bytes:
    payload = signed_bytes(signed)
    return assemble(signed, [signer.sign(payload) for signer in signers])


def _root(
    version: int, signers: Sequence[CryptoSigner] = (ROOT,), holder: CryptoSigner = ROOT
) -> bytes:
    keys: dict[str, Key] = {key.public_key.keyid: key.public_key for key in (holder, TARGETS)}
    roles = {
        "root": Role([holder.public_key.keyid], 1),
        "targets": Role([TARGETS.public_key.keyid], 1),
        "snapshot": Role([TARGETS.public_key.keyid], 1),
        "timestamp": Role([TARGETS.public_key.keyid], 1),
    }
    return _sign(Root(version=version, expires=LATER, keys=keys, roles=roles), *signers)


def _targets(
    version: int,
    channel: CryptoSigner = CHANNEL,
    *,
    names: Sequence[str] = ("p-stable", "p-builds"),
) -> bytes:
    holders = {"p-stable": channel, "p-builds": BUILDER}
    paths = {"p-stable": ["channels/p/stable.json"], "p-builds": ["builds/p/*/*"]}
    roles = {
        name: DelegatedRole(
            name, [holders[name].public_key.keyid], 1, terminating=True, paths=paths[name]
        )
        for name in names
    }
    keys: dict[str, Key] = {
        holders[name].public_key.keyid: holders[name].public_key for name in names
    }
    return _sign(
        Targets(version=version, expires=LATER, delegations=Delegations(keys, roles)), TARGETS
    )


def _leaf(version: int, signer: CryptoSigner, **files: bytes) -> bytes:
    targets = {
        path: TargetFile.from_data(path, data, ["sha256"])
        for path, data in ((name.replace("__", "/"), data) for name, data in files.items())
    }
    return _sign(Targets(version=version, expires=LATER, targets=targets), signer)


MANIFEST = _leaf(1, CHANNEL, channels__p__stable=b"one")
BUILDS = _leaf(1, BUILDER, builds__p__1__a=b"a")
LIVE = RepositoryState(
    roots=(_root(1),), roles={"targets": _targets(1), "p-stable": MANIFEST, "p-builds": BUILDS}
)
KNOWN = {"targets": LIVE.roles["targets"], "p-stable": MANIFEST}


def test_a_successor_is_admitted() -> None:
    following = _leaf(2, CHANNEL, channels__p__stable=b"two")
    admitted = admit(LIVE, {"p-stable": following}, KNOWN)
    assert admitted.roles == {"p-stable": following}
    assert admitted.changes
    assert admitted.candidate.roles["p-stable"] == following
    assert [path for path, _ in new_targets(admitted)] == [
        f"targets/channels/p/{sha256(b'two')}.stable"
    ]


def test_what_is_live_byte_for_byte_is_done() -> None:
    admitted = admit(LIVE, {**LIVE.roles, "root": LIVE.roots[0]}, KNOWN)
    assert set(admitted.done) == {"root", "targets", "p-stable", "p-builds"}
    assert not admitted.changes


def test_before_the_first_publish_everything_is_new() -> None:
    staged = {**LIVE.roles, "root": LIVE.roots[0]}
    admitted = admit(RepositoryState(), staged, dict.fromkeys(KNOWN))
    assert admitted.root == LIVE.roots[0]
    assert admitted.roles == LIVE.roles
    assert admitted.candidate.roots == LIVE.roots


STALE = {
    "a role with the version of the live one": {
        "p-stable": _leaf(1, CHANNEL, channels__p__stable=b"x")
    },
    "targets with the version of the live ones": {"targets": _targets(1, names=("p-stable",))},
    "a root with the version of the live one": {"root": _root(1, holder=OTHER, signers=(OTHER,))},
    "a root two versions on": {"root": _root(3)},
    "builds that forget a live artifact": {"p-builds": _leaf(2, BUILDER, builds__p__2__b=b"b")},
    "builds that change a live artifact": {"p-builds": _leaf(2, BUILDER, builds__p__1__a=b"b")},
}


@pytest.mark.parametrize("case", STALE)
def test_what_does_not_follow_the_live_state_is_stale(case: str) -> None:
    with pytest.raises(StaleError):
        admit(LIVE, STALE[case], KNOWN)


def test_a_role_made_from_something_that_is_no_longer_live_is_stale() -> None:
    # Another workspace published version 2; ours was made from version 1, as version 3.
    live = LIVE.with_roles({"p-stable": _leaf(2, CHANNEL, channels__p__stable=b"theirs")})
    ours = _leaf(3, CHANNEL, channels__p__stable=b"ours")
    with pytest.raises(StaleError, match="version 3, but version 2 is live"):
        admit(live, {"p-stable": ours}, KNOWN)


def test_versions_that_were_signed_and_never_published_may_be_skipped() -> None:
    following = _leaf(1 + MAX_JUMP, CHANNEL, channels__p__stable=b"two")
    assert admit(LIVE, {"p-stable": following}, KNOWN).changes


def test_a_version_that_is_far_ahead_is_refused() -> None:
    following = _leaf(2 + MAX_JUMP, CHANNEL, channels__p__stable=b"two")
    with pytest.raises(RefusedError, match="expected at most 1000 more"):
        admit(LIVE, {"p-stable": following}, KNOWN)


def test_a_role_without_delegation_waits() -> None:
    admitted = admit(LIVE, {"p-beta": _leaf(1, CHANNEL)}, KNOWN)
    assert admitted.waiting == {
        "p-beta": "the targets role does not delegate to it; if it never will, "
        "remove it from staged/"
    }
    assert not admitted.changes


def test_a_role_waits_for_the_first_targets() -> None:
    staged = {"root": LIVE.roots[0], "p-builds": BUILDS}
    admitted = admit(RepositoryState(), staged, {})
    assert admitted.waiting == {
        "p-builds": "no targets role is published or staged that delegates to it"
    }


def test_the_delegation_of_the_candidate_counts_not_the_live_one() -> None:
    staged = {
        "targets": _targets(2, OTHER),
        "p-stable": _leaf(2, OTHER, channels__p__stable=b"two"),
    }
    assert set(admit(LIVE, staged, KNOWN).roles) == {"targets", "p-stable"}
    staged["p-stable"] = _leaf(2, CHANNEL, channels__p__stable=b"two")
    with pytest.raises(ActionRequiredError, match="not signed by the keys that the new targets"):
        admit(LIVE, staged, KNOWN)


UNSIGNED = {
    "a root that its predecessor did not sign": {"root": _root(2, signers=(OTHER,), holder=OTHER)},
    "a root that did not sign itself": {"root": _root(2, signers=(ROOT,), holder=OTHER)},
    "a first root that did not sign itself": {"root": _root(1, signers=(ROOT,), holder=OTHER)},
    "a role that is not metadata": {"p-stable": b"<html>"},
}


@pytest.mark.parametrize("case", UNSIGNED)
def test_what_does_not_verify_is_not_admitted(case: str) -> None:
    base = RepositoryState() if "first" in case else LIVE
    with pytest.raises(NotTrustedError):
        admit(base, UNSIGNED[case], KNOWN)


def test_a_root_signed_by_both_is_admitted() -> None:
    following = _root(2, signers=(ROOT, OTHER), holder=OTHER)
    admitted = admit(LIVE, {"root": following}, KNOWN)
    assert admitted.root == following
    assert admitted.changes
    assert admitted.candidate.roots == (*LIVE.roots, following)


def test_a_live_role_must_still_verify_under_the_candidate() -> None:
    check_delegated(LIVE)
    check_delegated(LIVE.with_roles({"targets": _leaf(2, TARGETS)}))
    with pytest.raises(ActionRequiredError, match="live p-stable would no longer be signed"):
        check_delegated(LIVE.with_roles({"targets": _targets(2, OTHER)}))
    alien = replace(LIVE, roles={**LIVE.roles, "targets": _leaf(2, OTHER)})
    with pytest.raises(ActionRequiredError, match="live targets would no longer be signed"):
        check_delegated(alien)
    with pytest.raises(NotTrustedError, match="no targets role"):
        check_delegated(RepositoryState(roots=LIVE.roots))


def test_leaves_are_uploaded_before_targets_and_the_snapshot_last() -> None:
    rules = RolePolicy(1, ("x",), 30, 0)
    snapshot = next_snapshot(None, LIVE.roles, rules, NOW)
    uploads = metadata_uploads(LIVE.roles, _sign(snapshot, TARGETS))
    assert [upload.path for upload in uploads] == [
        "metadata/1.p-builds.json",
        "metadata/1.p-stable.json",
        "metadata/1.targets.json",
        "metadata/1.snapshot.json",
    ]
    assert list(metadata_uploads({}, None)) == []


def test_targets_that_are_live_are_not_uploaded_again() -> None:
    both = _leaf(2, BUILDER, builds__p__1__a=b"a", builds__p__2__b=b"b")
    admitted = Admitted(LIVE, roles={"p-builds": both})
    assert [target.path for _, target in new_targets(admitted)] == ["builds/p/2/b"]


def test_a_root_that_follows_signs_what_the_bridge_publishes() -> None:
    following = _root(2, signers=(ROOT, OTHER), holder=OTHER)
    assert Admitted(LIVE).signing_roots == LIVE.roots
    assert Admitted(LIVE, following=following).signing_roots == (*LIVE.roots, following)


def test_what_has_the_keys_of_targets_that_wait_for_signatures_waits_with_them() -> None:
    coming = read(Targets, "targets", _targets(2, OTHER)).signed
    theirs = _leaf(2, OTHER, channels__p__stable=b"two")
    admitted = admit(LIVE, {"p-stable": theirs}, KNOWN, coming)
    assert admitted.waiting == {"p-stable": "it has keys of targets 2, which waits for signatures"}
    assert not admitted.changes
    with pytest.raises(ActionRequiredError, match="is not signed by the keys"):
        admit(LIVE, {"p-stable": theirs}, KNOWN)
    nobody = _leaf(2, ROOT, channels__p__stable=b"two")
    with pytest.raises(ActionRequiredError, match="is not signed by the keys"):
        admit(LIVE, {"p-stable": nobody}, KNOWN, coming)


def test_builds_may_leave_out_what_they_say_that_they_leave_out() -> None:
    one, two = entry("builds/p/1/a", "1", 1), entry("builds/p/2/a", "2", 2)
    both = Targets(version=1, expires=LATER, targets={one.path: one, two.path: two})
    live = LIVE.with_roles({"p-builds": _sign(both, BUILDER)})
    less = without(both, ["1"])
    less.version = 2
    assert admit(live, {"p-builds": _sign(less, BUILDER)}, KNOWN).changes
    # What it leaves out beside that was lost in a race.
    del less.targets[two.path]
    with pytest.raises(StaleError, match="does not have builds/p/2/a as it is live"):
        admit(live, {"p-builds": _sign(less, BUILDER)}, KNOWN)


# Hash bins.


def _cut(version: int = 1, signer: CryptoSigner = BUILDER) -> bytes:
    """The builds role of `p` in two bins, which `signer` signs."""
    signed = delegating("p", 2, [signer.public_key], 1, LATER)
    signed.version = version
    return _sign(signed, BUILDER)


def _home(path: str) -> str:
    bins = bins_of(read(Targets, "p-builds", _cut()).signed)
    assert bins is not None
    return bins.get_role_for_target(path)


def _bin(version: int, *paths: str, signer: CryptoSigner = BUILDER) -> bytes:
    targets = {path: entry(path, path.split("/")[2], int(path.split("/")[2])) for path in paths}
    return _sign(Targets(version=version, expires=LATER, targets=targets), signer)


FIRST = "builds/p/1/a"
HOME = _home(FIRST)
AWAY = ({"p_-0", "p_-1"} - {HOME}).pop()
BINNED = LIVE.with_roles({"p-builds": _cut()})


def test_a_bin_is_admitted_as_its_builds_role_delegates_to_it() -> None:
    admitted = admit(BINNED, {HOME: _bin(1, FIRST)}, KNOWN)
    assert set(admitted.roles) == {HOME}
    with pytest.raises(ActionRequiredError, match=f"staged {HOME} 1 is not signed by the keys"):
        admit(BINNED, {HOME: _bin(1, FIRST, signer=CHANNEL)}, KNOWN)


def test_a_bin_waits_for_a_builds_role_that_has_bins() -> None:
    bare = RepositoryState(roots=LIVE.roots, roles={"targets": _targets(1)})
    assert admit(bare, {HOME: _bin(1, FIRST)}, KNOWN).waiting == {
        HOME: "no p-builds role is published or staged that delegates to it"
    }
    assert admit(LIVE, {HOME: _bin(1, FIRST)}, KNOWN).waiting == {
        HOME: "the p-builds role does not delegate to it; if it never will, remove it from staged/"
    }


def test_a_bin_that_lists_what_another_speaks_for_is_not_admitted() -> None:
    with pytest.raises(RefusedError, match=f"{AWAY} lists {FIRST}, which is for {HOME} to say"):
        admit(BINNED, {AWAY: _bin(1, FIRST)}, KNOWN)


def test_a_bin_that_is_live_and_was_not_read_is_not_taken_for_a_new_one() -> None:
    """Its version and its artifacts would be anybody's."""
    rules = RolePolicy(1, ("x",), 30, 0)
    roles = {**BINNED.roles, HOME: _bin(1, FIRST)}
    snapshot = _sign(next_snapshot(None, roles, rules, NOW), TARGETS)
    following = _bin(2, FIRST)
    with pytest.raises(AssertionError, match=f"{HOME} is live and was not read"):
        admit(replace(BINNED, snapshot=snapshot), {HOME: following}, KNOWN)
    read_too = replace(BINNED, snapshot=snapshot, roles=roles)
    assert admit(read_too, {HOME: following}, KNOWN).roles == {HOME: following}


def test_a_builds_role_is_cut_into_bins_with_every_artifact() -> None:
    flat = Targets(version=1, expires=LATER, targets={FIRST: entry(FIRST, "1", 1)})
    live = LIVE.with_roles({"p-builds": _sign(flat, BUILDER)})
    admitted = admit(live, {"p-builds": _cut(2), HOME: _bin(1, FIRST)}, KNOWN)
    assert set(admitted.roles) == {"p-builds", HOME}
    with pytest.raises(StaleError):
        admit(live, {"p-builds": _cut(2), HOME: _bin(1)}, KNOWN)


def test_a_live_bin_must_still_verify_under_its_builds_role() -> None:
    check_delegated(BINNED.with_roles({HOME: _bin(1, FIRST)}))
    with pytest.raises(ActionRequiredError, match=f"live {HOME} would no longer be signed"):
        check_delegated(BINNED.with_roles({HOME: _bin(1, FIRST, signer=CHANNEL)}))


def test_a_product_called_like_a_channel_role_does_not_speak_for_that_channel() -> None:
    builds = _sign(delegating("p-stable", 2, [BUILDER.public_key], 1, LATER), BUILDER)
    check_delegated(LIVE.with_roles({"p-stable-builds": builds}))
