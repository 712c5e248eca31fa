"""What of a submission is live already, and what is not."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    SuccinctRoles,
    TargetFile,
    Targets,
)

from client_reference.errors import ActionRequiredError, RefusedError
from client_reference.manifest import MAX_MANIFEST, Hold, serialize_hold
from client_reference.payload.segments import SUFFIX
from client_reference.trust.verified import BadSignatureError
from repo_tools.metadata.bins import FIELD, bins_of, is_bin
from repo_tools.metadata.edits import assemble
from repo_tools.metadata.repository import RepositoryState, parse, sha256
from repo_tools.publishing.binned import StaleError
from repo_tools.publishing.examine import (
    Examined,
    check_file,
    delegated,
    examine,
    is_builds,
    is_live,
)
from repo_tools.publishing.firmware import open_signers, write_role
from repo_tools.publishing.inbox import Submission
from repo_tools.publishing.live import read_bins
from repo_tools.publishing.plan import MAX_JUMP
from repo_tools.publishing.prepare import read_base
from repo_tools.publishing.renewal import convert
from repo_tools.publishing.submit import signers
from repo_tools.signing.secrets import Secrets
from tests.publishing.lab import NOW, PRODUCT, entry

if TYPE_CHECKING:
    from tests.publishing.lab import Lab

BUILDS, STABLE = f"{PRODUCT}-builds", f"{PRODUCT}-stable"


@pytest.fixture(scope="module")
def _published(
    moments: dict[str, Lab], tmp_path_factory: pytest.TempPathFactory
) -> RepositoryState:
    lab = moments["next"].copy(tmp_path_factory.mktemp("published") / "acme")
    lab.ok("publish")
    return read_base(lab.workspace, lab.workspace.storage()).state


@pytest.fixture
def state(_published: RepositoryState) -> RepositoryState:
    """1.0 and 1.1 are live, each role in its second version."""
    return replace(_published)


def made(state: RepositoryState, role: str, version: int, *, only: str = "") -> bytes:
    """A role with what is live, or some of it, that expires on another day."""
    live = state.role(role)
    assert live is not None
    targets = {path: each for path, each in live.targets.items() if only in path}
    return assemble(Targets(version, expires=live.expires - timedelta(1), targets=targets), [])


def test_a_role_that_was_never_published_is_not_live(state: RepositoryState) -> None:
    assert not is_live(RepositoryState(), BUILDS, state.roles[BUILDS])


@pytest.mark.parametrize("role", [BUILDS, STABLE])
def test_the_same_content_is_live_whatever_its_signatures(
    state: RepositoryState, role: str
) -> None:
    live = state.role(role)
    assert live is not None
    assert is_live(state, role, assemble(live, []))


def test_builds_are_live_if_what_is_live_has_them_and_is_no_older(state: RepositoryState) -> None:
    assert is_live(state, BUILDS, made(state, BUILDS, 2))
    assert is_live(state, BUILDS, made(state, BUILDS, 1, only="/1.0/"))
    assert not is_live(state, BUILDS, made(state, BUILDS, 3)), "it renews them"
    live = state.role(BUILDS)
    assert live is not None
    for path in (f"builds/{PRODUCT}/1.2/x.img", f"builds/{PRODUCT}/1.0/firmware.img"):
        targets = live.targets | {path: entry(path, "1.2", 3)}
        other = Targets(2, expires=live.expires, targets=targets)
        assert not is_live(state, BUILDS, assemble(other, []))


def test_a_role_in_bins_is_live_to_the_letter_or_not_at_all(binned: Lab) -> None:
    """It says nothing itself: that an older one says nothing else does not make its bins live."""
    state = read_base(binned.workspace, binned.workspace.storage()).state
    live = state.role(BUILDS)
    assert live is not None
    assert is_live(state, BUILDS, assemble(live, []))
    live.expires -= timedelta(1)
    assert not is_live(state, BUILDS, assemble(live, []))


def test_what_people_sign_is_live_to_the_letter_or_not_at_all(state: RepositoryState) -> None:
    """An older channel with the same manifest is no submission that has been published."""
    assert not is_live(state, STABLE, made(state, STABLE, 1))
    assert not is_live(state, STABLE, made(state, STABLE, 2))


def submission(state: RepositoryState, role: str, data: bytes) -> Submission:
    """As an honest submitter says it."""
    version = parse(data, Targets, role).signed.version
    return Submission(role, version, len(data), sha256(data), sha256(state.roles[role]), 0)


def test_what_is_live_has_its_end_already(state: RepositoryState) -> None:
    data = state.roles[BUILDS]
    found = examine(state, submission(state, BUILDS, data), data, 0, NOW, None)
    assert (found.live, found.new) == (True, {})


def test_whose_keys_sign_a_bin_is_said_of_its_role(binned: Lab) -> None:
    ws = binned.workspace
    state = read_base(ws, ws.storage()).state
    assert delegated(state, f"{PRODUCT}_-0a").name == BUILDS
    assert signers(ws, f"{PRODUCT}_-0a") == signers(ws, BUILDS) == "ci"
    assert signers(ws, "sensor-builds") == "nobody that this clone knows"


def test_only_what_is_new_is_looked_for(following: Lab) -> None:
    """A repository has years of artifacts, and a submission brings one."""
    ws = following.workspace
    state = read_base(ws, ws.storage()).state
    data = ws.staged_roles()[BUILDS]
    found = examine(state, submission(state, BUILDS, data), data, 0, NOW, None)
    assert {each.path.split("/")[2] for each in found.new.values()} == {"1.1"}
    assert not found.handover


def test_what_a_cut_puts_into_bins_is_stored_already(live: Lab) -> None:
    ws = live.workspace
    convert(ws, PRODUCT, 16, Secrets(ws.lab_passphrase.read_bytes().strip()), live.now)
    state, staged = read_base(ws, ws.storage()).state, ws.staged_roles()
    [home] = [name for name in staged if is_bin(name)]
    work = replace(submission(state, BUILDS, staged[home]), role=home, base="")
    above = parse(staged[BUILDS], Targets, BUILDS).signed
    assert examine(state, work, staged[home], 0, live.now, None, above).new == {}


def test_a_role_in_bins_goes_over_with_the_targets_role_that_names_its_keys(binned: Lab) -> None:
    (old,) = binned.workspace.policy.role(BUILDS, "builds").keys
    binned.ok("rotate", old)
    binned.ok("sign")
    ws = binned.workspace
    state = read_base(ws, ws.storage()).state
    data = ws.staged_roles()[BUILDS]
    work = submission(state, BUILDS, data)
    following = parse(ws.staged_roles()["targets"], Targets, "targets").signed
    assert examine(state, work, data, 0, NOW, following).handover
    with pytest.raises(BadSignatureError):
        examine(state, work, data, 0, NOW, None)


def signed_by_builder(lab: Lab, role: str, signed: Targets) -> bytes:
    """What whoever has the builder's key can sign."""
    ws = lab.workspace
    secrets = Secrets(ws.lab_passphrase.read_bytes().strip())
    write_role(ws, role, signed, open_signers(ws, PRODUCT, secrets))
    return ws.staged_roles()[role]


def test_a_role_that_gives_its_bins_another_threshold_is_refused(binned: Lab) -> None:
    """Attack: what the bins say outlives the rotation of the stolen key."""
    state = read_base(binned.workspace, binned.workspace.storage()).state
    role = state.role(BUILDS)
    assert role is not None
    bins = bins_of(role)
    assert bins is not None
    role.version = 2
    honest = signed_by_builder(binned, BUILDS, role)
    assert examine(state, submission(state, BUILDS, honest), honest, 0, NOW, None).new == {}
    bins.keyids = [*bins.keyids, "0" * 64]
    bins.threshold = 2
    evil = signed_by_builder(binned, BUILDS, role)
    with pytest.raises(RefusedError, match="gives its hash bins other keys, or another"):
        examine(state, submission(state, BUILDS, evil), evil, 0, NOW, None)


def test_a_bin_that_takes_the_sequence_of_what_is_live_is_refused(binned: Lab) -> None:
    state = read_base(binned.workspace, binned.workspace.storage()).state
    role = state.role(BUILDS)
    bins = bins_of(role)
    assert role is not None
    assert bins is not None
    path = f"builds/{PRODUCT}/7.0/firmware.img"
    home = bins.get_role_for_target(path)
    for sequence in (1, 2):
        signed = Targets(expires=role.expires, targets={path: entry(path, "7.0", sequence)})
        data = signed_by_builder(binned, home, signed)
        work = Submission(home, 1, len(data), sha256(data), "", 0)
        if sequence == 2:
            assert len(examine(state, work, data, 0, NOW, None).new) == 1
            continue
        with pytest.raises(StaleError, match="has sequence 1, which is not free"):
            examine(state, work, data, 0, NOW, None)


# What a builder may not say of a file

PLACE = f"builds/{PRODUCT}/1.1/"
NO_PLACE = {
    "a line break": PLACE + "a\nb.img",
    "a backslash": PLACE + "a\\b.img",
    "an empty segment": PLACE + "/b.img",
    "a step up": PLACE + "../b.img",
    "a step nowhere": PLACE + "./b.img",
}


def one_more(state: RepositoryState, target: TargetFile) -> bytes:
    """The live builds role and one entry, as nobody signed it: the file is judged after that."""
    live = state.role(BUILDS)
    assert live is not None
    targets = live.targets | {target.path: target}
    return assemble(Targets(live.version + 1, expires=live.expires, targets=targets), [])


def judged(state: RepositoryState, role: str, data: bytes, **other: str) -> Examined:
    """Examined as if its signatures were good."""
    work = replace(submission(state, role, data), **other)  # type: ignore[arg-type]  # fields
    signed = parse(data, Targets, role).signed
    with patch("repo_tools.publishing.examine.authentic", return_value=signed):
        return examine(state, work, data, 0, NOW, None)


@pytest.mark.parametrize("name", NO_PLACE)
def test_a_path_that_leads_elsewhere_is_refused(state: RepositoryState, name: str) -> None:
    with pytest.raises(RefusedError, match="expected segments with single '/' between them"):
        judged(state, BUILDS, one_more(state, entry(NO_PLACE[name], "1.1", 2)))


@pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 65, "A" * 64, "../" + "0" * 61])
def test_a_digest_that_is_none_is_refused(state: RepositoryState, digest: str) -> None:
    target = entry(PLACE + "b.img", "1.1", 2)
    target.hashes = {"sha256": digest} if digest else {"md5": "0" * 32}
    with pytest.raises(RefusedError, match="has no SHA-256 of 64 hex digits"):
        judged(state, BUILDS, one_more(state, target))


def test_a_manifest_may_have_so_many_bytes_and_not_one_more(state: RepositoryState) -> None:
    live = state.role(STABLE)
    assert live is not None
    [target] = live.targets.values()
    for length in (0, 1, MAX_MANIFEST, MAX_MANIFEST + 1):
        target.length = length
        data = assemble(Targets(3, expires=live.expires, targets=live.targets), [])
        if 0 < length <= MAX_MANIFEST:
            assert len(judged(state, STABLE, data).new) == 1
            continue
        with pytest.raises(RefusedError, match=f"has {length} bytes, expected 1 to"):
            judged(state, STABLE, data)


def test_what_was_made_from_something_else_is_stale(state: RepositoryState) -> None:
    target = entry(f"builds/{PRODUCT}/1.2/b.img", "1.2", 3)
    good = one_more(state, target)
    assert len(judged(state, BUILDS, good).new) == 1
    with pytest.raises(StaleError, match="version 2 is"):
        judged(state, BUILDS, good, base="0" * 64)
    live = state.role(BUILDS)
    assert live is not None
    same = Targets(2, expires=live.expires, targets=live.targets | {target.path: target})
    with pytest.raises(StaleError, match="version 2 is"):
        judged(state, BUILDS, assemble(same, []))


def test_a_first_role_is_made_from_nothing(new: Lab) -> None:
    new.ok("sign")
    new.ok("publish")
    new.add("1.0")
    state = read_base(new.workspace, new.workspace.storage()).state
    data = new.workspace.staged_roles()[BUILDS]
    work = Submission(BUILDS, 1, len(data), sha256(data), "", 0)
    with pytest.raises(StaleError, match="version 0 is"):
        examine(state, replace(work, base="0" * 64), data, 0, NOW, None)
    assert len(examine(state, work, data, 0, NOW, None).new) == 2


def test_the_next_number_may_be_so_far_away_and_no_further(state: RepositoryState) -> None:
    """Attack: whoever has a builds key takes the last number that there is."""
    path = f"builds/{PRODUCT}/1.2/b.img"
    assert judged(state, BUILDS, one_more(state, entry(path, "1.2", 2 + MAX_JUMP))).new
    with pytest.raises(RefusedError, match=f"expected at most {MAX_JUMP} more"):
        judged(state, BUILDS, one_more(state, entry(path, "1.2", 3 + MAX_JUMP)))


def test_a_list_of_segments_belongs_to_an_artifact_that_has_some(state: RepositoryState) -> None:
    small = entry(f"builds/{PRODUCT}/1.2/b.img", "1.2", 3)
    listed = TargetFile.from_data(small.path + SUFFIX, b"s" * 32, ["sha256"])
    listed.unrecognized_fields["custom"] = {"segments-of": small.path}
    live = state.role(BUILDS)
    assert live is not None
    targets = live.targets | {small.path: small, listed.path: listed}
    data = assemble(Targets(3, expires=live.expires, targets=targets), [])
    with pytest.raises(RefusedError, match="belongs to no artifact of this role that has segments"):
        judged(state, BUILDS, data)


def test_what_a_bin_has_of_old_is_not_asked_for_a_free_sequence(binned: Lab) -> None:
    """The index of releases has the newest ones only."""
    ws = binned.workspace
    state = read_base(ws, ws.storage()).state
    bins = bins_of(state.role(BUILDS))
    assert bins is not None
    home = bins.get_role_for_target(f"builds/{PRODUCT}/1.0/firmware.img")
    state = read_bins(ws.storage(), state, [home])
    live, snapshot = state.role(home), state.parsed_snapshot()
    assert live is not None
    assert snapshot is not None
    snapshot.unrecognized_fields[FIELD] = {PRODUCT: [["9.9", 9, []]]}
    state = replace(state, snapshot=assemble(snapshot, []))
    live.version = 2
    data = signed_by_builder(binned, home, live)
    assert examine(state, submission(state, home, data), data, 0, NOW, None).new == {}


def test_an_artifact_of_a_bin_names_its_segments_itself(binned: Lab) -> None:
    binned.add("1.1")
    ws = binned.workspace
    state = read_base(ws, ws.storage()).state
    [(home, data)] = ws.staged_roles().items()
    state = read_bins(ws.storage(), state, [home])
    live = state.roles.get(home)
    work = Submission(home, 1, len(data), sha256(data), sha256(live) if live else "", 0)
    assert len(examine(state, work, data, 0, NOW, None).new) == 2
    unnamed = parse(data, Targets, home).signed
    path = f"builds/{PRODUCT}/1.1/firmware.img"
    del unnamed.targets[path].unrecognized_fields["custom"]["segments"]
    data = signed_by_builder(binned, home, unnamed)
    work = replace(work, length=len(data), sha256=sha256(data))
    with pytest.raises(RefusedError, match="bytes and no list of segments"):
        examine(state, work, data, 0, NOW, None)


def test_a_list_of_segments_says_whose_it_is_and_has_its_length(state: RepositoryState) -> None:
    large = entry(f"builds/{PRODUCT}/1.2/b.img", "1.2", 3, b"x" * (2 << 20))
    live = state.role(BUILDS)
    assert live is not None
    for length, whose in ((64, large.path), (64, "another"), (32, large.path)):
        listed = TargetFile.from_data(large.path + SUFFIX, b"s" * length, ["sha256"])
        listed.unrecognized_fields["custom"] = {"segments-of": whose}
        targets = live.targets | {large.path: large, listed.path: listed}
        data = assemble(Targets(3, expires=live.expires, targets=targets), [])
        if (length, whose) == (64, large.path):
            assert len(judged(state, BUILDS, data).new) == 2
            continue
        with pytest.raises(RefusedError, match="is not the list of segments of"):
            judged(state, BUILDS, data)


def test_a_builder_takes_nothing_away(state: RepositoryState) -> None:
    live = state.role(BUILDS)
    assert live is not None
    fewer = {path: each for path, each in live.targets.items() if "/1.0/" not in path}
    with pytest.raises(StaleError):
        judged(state, BUILDS, assemble(Targets(3, expires=live.expires, targets=fewer), []))


def test_a_hold_is_about_the_channel_whose_path_it_has() -> None:
    hold = serialize_hold(Hold(PRODUCT, "beta", frozenset({1})))
    check_file("x", f"holds/{PRODUCT}/beta.json", hold)
    with pytest.raises(RefusedError, match=f"what belongs into holds/{PRODUCT}/beta.json"):
        check_file("x", f"holds/{PRODUCT}/stable.json", hold)
    check_file("x", "builds/p/1/a.img", b"no matter")


# Who may sign


@pytest.mark.parametrize(
    "delegations", [None, Delegations({}, succinct_roles=SuccinctRoles([], 1, 1, "bin"))]
)
def test_a_role_that_targets_does_not_name_is_refused(
    state: RepositoryState, delegations: Delegations | None
) -> None:
    targets = assemble(Targets(delegations=delegations), [])
    alone = RepositoryState(roots=state.roots, roles={"targets": targets})
    data = state.roles[BUILDS]
    with pytest.raises(RefusedError, match="does not delegate to 'gateway-builds'"):
        examine(alone, submission(state, BUILDS, data), data, 0, NOW, None)


def test_signatures_of_nobody_do_not_get_better_by_what_comes_next(state: RepositoryState) -> None:
    data = made(state, BUILDS, 3)
    for following in (None, Targets()):
        with pytest.raises(BadSignatureError):
            examine(state, submission(state, BUILDS, data), data, 0, NOW, following)


def test_only_paths_of_builds_make_a_builds_role() -> None:
    for paths, found in ((["builds/p/*/*"], True), (["channels/p/x.json"], False), (None, False)):
        prefixes = ["00"] if paths is None else None
        way = DelegatedRole("p", [], 1, terminating=True, paths=paths, path_hash_prefixes=prefixes)
        assert is_builds(way) is found


def test_a_bin_of_a_product_in_one_piece_waits_for_its_role(state: RepositoryState) -> None:
    data = assemble(Targets(expires=NOW + timedelta(1)), [])
    work = Submission(f"{PRODUCT}_-0a", 1, len(data), sha256(data), "", 0)
    with pytest.raises(ActionRequiredError, match="is a hash bin, and gateway-builds has none"):
        examine(state, work, data, 0, NOW, None)


def test_a_bin_goes_over_with_its_role_and_the_targets_role_that_names_its_keys(
    binned: Lab,
) -> None:
    (old,) = binned.workspace.policy.role(BUILDS, "builds").keys
    binned.ok("rotate", old)
    binned.ok("sign")
    ws = binned.workspace
    state = read_base(ws, ws.storage()).state
    staged = ws.staged_roles()
    [home] = [name for name in staged if is_bin(name)]
    state = read_bins(ws.storage(), state, [home])
    work = submission(state, home, staged[home])
    above = parse(staged[BUILDS], Targets, BUILDS).signed
    coming = parse(staged["targets"], Targets, "targets").signed
    assert examine(state, work, staged[home], 0, NOW, coming, above).handover
    for following in (None, state.targets):
        with pytest.raises(RefusedError, match="gives its hash bins other keys"):
            examine(state, work, staged[home], 0, NOW, following, above)
