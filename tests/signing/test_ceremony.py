"""The ceremony: what counts as a signature, when a threshold is reached, what is never lost."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from securesystemslib.signer import Signature
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Root, TargetFile, Targets

from client_reference.errors import (
    ActionRequiredError,
    ConfigurationError,
    NotTrustedError,
    RefusedError,
)
from repo_tools.files import create_file
from repo_tools.gone import remember_gone
from repo_tools.metadata.edits import manifest_targets, next_root, renewed
from repo_tools.metadata.repository import parse, sha256
from repo_tools.publishing.bridge import Gone
from repo_tools.signing.ceremony import (
    CeremonyStatus,
    DiscardedSignaturesError,
    abandon,
    add_signature,
    assemble,
    carried,
    check_ceremony,
    check_member,
    find_ceremony,
    finish,
    finish_complete,
    open_ceremonies,
    predecessor,
    proven,
    signature_path,
    start_ceremony,
    status,
    tidy,
)
from repo_tools.signing.ceremony.chronicle import record_paths
from repo_tools.signing.start import start_root, start_targets
from repo_tools.workspace import Occasion, Workspace
from tests.signing.team import NOW, clone, give, make_lab, publish_by_hand, signature_of
from tests.simulators.disk import names, recorded

if TYPE_CHECKING:
    from pathlib import Path

    from repo_tools.signing.ceremony import Ceremony

CHANNEL = "gateway-stable"
MANIFEST = "channels/gateway/stable.json"


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lab(tmp_path_factory.mktemp("team") / "acme").directory


@pytest.fixture
def ws(_made: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(_made, tmp_path / "acme")
    return Workspace.open(tmp_path / "acme")


@pytest.fixture
def targets(ws: Workspace) -> Ceremony:
    return start_targets(ws, ws.config.products, NOW)


def promotion(ws: Workspace, data: bytes = b"{}", role: str = CHANNEL) -> Ceremony:
    before = predecessor(ws, role)
    previous = None if before is None else parse(before, Targets, role).signed
    rules = ws.policy.role(role, "channel")
    signed = manifest_targets(role, previous, MANIFEST, data, rules, NOW)
    return start_ceremony(ws, role, signed, {MANIFEST: data})


def live(ws: Workspace, *roles: Ceremony) -> None:
    """Sign, finish and publish these."""
    for ceremony in roles:
        people = ("rita", "sam") if ceremony.role == CHANNEL else ("alice", "bob")
        give(ws, ceremony, *people)
        finish(ws, ceremony)
    publish_by_hand(ws)


# Files and their order.


def test_the_payload_is_written_last_since_it_makes_the_ceremony(ws: Workspace) -> None:
    start_targets(ws, ws.config.products, NOW)
    with recorded() as calls:
        promotion(ws)
    named = [call for call in calls if call.startswith("rename")]
    assert named == ["rename stable.json", "rename base.json", "rename payload.json"]


def test_the_payload_goes_first_when_a_ceremony_ends(ws: Workspace, targets: Ceremony) -> None:
    give(ws, targets, "alice")
    with recorded() as calls:
        abandon(targets)
    assert calls[:2] == ["unlink payload.json", f"sync directory {targets.name}"]
    assert not targets.directory.exists()


def test_what_is_signed_is_readable_and_its_base_is_named(ws: Workspace, targets: Ceremony) -> None:
    live(ws, targets)
    again = start_targets(ws, ws.config.products, NOW)
    base = json.loads((again.directory / "base.json").read_text())
    assert again.name == "targets-2"
    assert base == {
        "role": "targets",
        "version": 1,
        "sha256": sha256(predecessor(ws, "targets") or b""),
    }
    assert (again.directory / "payload.json").read_text().count("\n") > 50


def test_what_never_became_a_ceremony_is_tidied_up(ws: Workspace) -> None:
    create_file(ws.ceremonies / "targets-1" / "base.json", b"{}")
    create_file(ws.ceremonies / "targets-1" / "targets" / "a", b"")
    assert open_ceremonies(ws) == []
    tidy(ws)
    assert names(ws.ceremonies) == []


def test_other_files_beside_the_ceremonies_are_left_alone(ws: Workspace) -> None:
    create_file(ws.ceremonies / ".gitkeep", b"")
    tidy(ws)
    assert names(ws.ceremonies) == [".gitkeep"]


# What counts.


def test_a_threshold_is_counted_in_keys(ws: Workspace, targets: Ceremony) -> None:
    before = status(ws, targets)
    assert (before.signed, before.missing, before.complete) == (
        (),
        ("alice", "bob", "carol"),
        False,
    )
    give(ws, targets, "alice")
    one = status(ws, targets)
    assert (one.signed, one.missing, one.complete) == (("alice",), ("bob", "carol"), False)
    assert one.quorums[0].needed == 1
    assert assemble(ws, targets) is None
    give(ws, targets, "carol")
    two = status(ws, targets)
    assert (two.signed, two.missing, two.complete) == (("alice", "carol"), (), True)
    assert two.quorums[0].needed == 0


def test_the_same_key_twice_counts_once(ws: Workspace, targets: Ceremony) -> None:
    give(ws, targets, "alice", "alice")
    source = signature_path(targets, ws.keyring["alice"].key.keyid)
    create_file(targets.directory / "copy.sig.json", source.read_bytes())
    found = status(ws, targets)
    assert found.signed == ("alice",)
    assert found.problems == ("a second signature of alice, in copy.sig.json",)


def test_a_signature_over_other_bytes_is_named_and_ignored(
    ws: Workspace, targets: Ceremony
) -> None:
    wrong = signature_of(ws, "alice", b"something else")
    content = {"keyid": wrong.keyid, "sig": wrong.signature}
    create_file(signature_path(targets, wrong.keyid), json.dumps(content).encode())
    found = status(ws, targets)
    assert found.signed == ()
    assert found.problems == (
        "a signature that claims to be by alice does not verify over targets-1",
    )


def test_a_signature_of_a_stranger_is_named_and_ignored(ws: Workspace, targets: Ceremony) -> None:
    content = {"keyid": "ab" * 32, "sig": "00"}
    create_file(signature_path(targets, "ab" * 32), json.dumps(content).encode())
    found = status(ws, targets)
    assert found.problems == ("a signature of unknown key abababab, which is not in role targets",)


def test_a_wrong_signature_under_another_name_is_no_second_one(
    ws: Workspace, targets: Ceremony
) -> None:
    wrong = signature_of(ws, "alice", b"something else")
    content = {"keyid": wrong.keyid, "sig": wrong.signature}
    create_file(targets.directory / "x.sig.json", json.dumps(content).encode())
    assert status(ws, targets).problems == (
        "a signature that claims to be by alice does not verify over targets-1",
    )


@pytest.mark.parametrize("data", [b"not JSON", b"[]", b'{"keyid": "x"}'])
def test_what_is_not_a_signature_file_is_named_and_ignored(
    ws: Workspace, targets: Ceremony, data: bytes
) -> None:
    create_file(targets.directory / "x.sig.json", data)
    assert status(ws, targets).problems[0].startswith("x.sig.json is not a signature file")


def test_a_wrong_signature_is_not_even_kept(ws: Workspace, targets: Ceremony) -> None:
    with pytest.raises(RefusedError, match="claims to be by alice does not verify"):
        add_signature(ws, targets, signature_of(ws, "alice", b"other"))
    with pytest.raises(RefusedError, match="of rita, which is not in role targets"):
        add_signature(ws, targets, signature_of(ws, "rita", targets.payload))
    assert names(targets.directory) == ["base.json", "payload.json"]


def test_a_key_that_is_not_in_the_role_is_told_its_roles(ws: Workspace, targets: Ceremony) -> None:
    check_member(ws, targets, "alice")
    with pytest.raises(RefusedError) as caught:
        check_member(ws, targets, "rita")
    assert caught.value.message == "key rita is not in role targets; it is in: channel"
    assert caught.value.hint == "firmroot ceremony show targets names the keys that may sign"


def test_a_key_that_is_in_no_role_is_told_so(ws: Workspace, targets: Ceremony) -> None:
    assert targets
    policy = ws.directory / "policy.toml"
    policy.write_text(policy.read_text().replace('["alice", ', '["rita", '))
    ws = Workspace.open(ws.directory)
    with pytest.raises(RefusedError, match="alice is not in role gateway-stable; it is in: none"):
        check_member(ws, promotion(ws), "alice")


def test_a_payload_changed_after_signing_loses_its_signatures(
    ws: Workspace, targets: Ceremony
) -> None:
    give(ws, targets, "alice", "bob")
    payload = targets.directory / "payload.json"
    payload.write_text(payload.read_text().replace("2027", "2099"))
    found = status(ws, find_ceremony(ws, "targets"))
    assert found.signed == ()
    assert len(found.problems) == 2


# Roots need two thresholds.


def rotated(ws: Workspace) -> Workspace:
    """The policy says dave in the place of alice; dave's key is that of tess."""
    policy = ws.directory / "policy.toml"
    text = policy.read_text().replace('["alice", "bob", "carol"]', '["tess", "bob", "carol"]', 1)
    policy.write_text(text)
    return Workspace.open(ws.directory)


def test_a_root_needs_the_threshold_of_the_old_and_of_the_new(ws: Workspace) -> None:
    publish_by_hand(ws)
    ws = rotated(ws)
    root = start_root(ws, NOW)
    give(ws, root, "alice", "bob")
    half = status(ws, root)
    assert [(each.delegator, each.needed) for each in half.quorums] == [
        ("the root before", 0),
        ("the new root", 1),
    ]
    assert not half.complete
    assert half.missing == ("carol", "tess")
    with pytest.raises(ActionRequiredError, match=r"root-2 needs 1 more of: carol, tess"):
        finish(ws, root)
    give(ws, root, "tess")
    assert status(ws, root).complete


def test_the_new_threshold_alone_is_not_enough(ws: Workspace) -> None:
    publish_by_hand(ws)
    root = start_root(rotated(ws), NOW)
    give(ws, root, "tess", "carol")
    assert [each.needed for each in status(ws, root).quorums] == [1, 0]
    assert assemble(ws, root) is None


def test_a_staged_root_must_be_published_before_the_next(ws: Workspace) -> None:
    with pytest.raises(ActionRequiredError, match="root 1 is signed and not yet published"):
        start_root(ws, NOW)
    publish_by_hand(ws)
    assert start_root(ws, NOW).name == "root-2"


def test_a_staged_root_that_is_published_is_in_nobodys_way(ws: Workspace) -> None:
    # A publish was killed when it had kept the root, and before it took it from `staged/`.
    root = (ws.staged / "root.json").read_bytes()
    publish_by_hand(ws)
    create_file(ws.staged / "root.json", root)
    assert start_root(ws, NOW).name == "root-2"


def test_targets_are_judged_by_the_root_that_waits(ws: Workspace) -> None:
    publish_by_hand(ws)
    policy = ws.directory / "policy.toml"
    policy.write_text(
        policy.read_text().replace('["alice", "bob", "carol"]', '["rita", "sam", "tess"]')
    )
    ws = Workspace.open(ws.directory)
    assert status(ws, start_targets(ws, ws.config.products, NOW)).missing == (
        "alice",
        "bob",
        "carol",
    )
    start_root(ws, NOW)
    found = status(ws, find_ceremony(ws, "targets"))
    assert {quorum.delegator: quorum.missing for quorum in found.quorums} == {
        "root": ("rita", "sam", "tess"),
        "root 1, until it is replaced": ("alice", "bob", "carol"),
    }, "devices that have root 1 must accept it too: a bridge"
    for name in ("alice", "bob"):
        remember_gone(ws, name, Gone.STOLEN)
    assert status(ws, find_ceremony(ws, "targets")).missing == ("rita", "sam", "tess"), "a cut"


def test_without_a_root_nobody_can_sign_targets(ws: Workspace, targets: Ceremony) -> None:
    (ws.staged / "root.json").unlink()
    found = status(ws, targets)
    assert (found.complete, found.missing) == (False, ())
    assert found.problems == ("there is no root role yet that says who signs targets",)
    with pytest.raises(ActionRequiredError, match="no root role yet that says who signs targets"):
        finish(ws, targets)
    with pytest.raises(RefusedError, match="of alice, which is not in role targets"):
        give(ws, targets, "alice")


def test_without_targets_nobody_can_sign_a_channel(ws: Workspace) -> None:
    channel = promotion(ws)
    assert status(ws, channel).problems == (
        f"there is no targets role yet that says who signs {CHANNEL}",
    )
    with pytest.raises(RefusedError, match=f"{CHANNEL} may not speak for {MANIFEST}"):
        check_ceremony(ws, channel)


def test_a_role_that_nobody_delegates_has_no_signers(ws: Workspace, targets: Ceremony) -> None:
    assert targets
    stray = promotion(ws, role="router-stable")
    with pytest.raises(ConfigurationError, match="nobody delegates to a role 'router-stable'"):
        status(ws, stray)


# Finishing.


def test_at_the_threshold_role_and_targets_are_staged(ws: Workspace, targets: Ceremony) -> None:
    channel = promotion(ws, b'{"a": 1}')
    give(ws, targets, "alice", "bob")
    give(ws, channel, "rita", "sam")
    assert [path.name for path in finish_complete(ws)] == ["targets.json", f"{CHANNEL}.json"]
    assert open_ceremonies(ws) == []
    staged = Metadata[Targets].from_bytes((ws.staged / f"{CHANNEL}.json").read_bytes())
    assert len(staged.signatures) == 2
    assert staged.signed_bytes == channel.payload
    digest = sha256(b'{"a": 1}')
    stored = ws.staged_targets()[f"targets/channels/gateway/{digest}.stable.json"]
    assert stored.read_bytes() == b'{"a": 1}'


def test_target_files_are_staged_before_the_role_that_names_them(
    ws: Workspace, targets: Ceremony
) -> None:
    live(ws, targets)
    channel = promotion(ws)
    give(ws, channel, "rita", "sam")
    with recorded() as calls:
        finish(ws, channel)
    order = [call for call in calls if call.startswith(("rename", "unlink payload"))]
    assert order == [
        f"rename {sha256(b'{}')}.stable.json",
        f"rename {CHANNEL}.json",
        "unlink payload.json",
    ]


def test_a_channel_waits_for_the_targets_that_delegate_to_it(
    ws: Workspace, targets: Ceremony
) -> None:
    channel = promotion(ws)
    give(ws, channel, "rita", "sam")
    assert finish_complete(ws) == []
    with pytest.raises(ActionRequiredError, match="targets-1, which delegates to it, is not"):
        finish(ws, channel)
    give(ws, targets, "alice", "bob")
    assert len(finish_complete(ws)) == 2


def test_what_is_good_for_both_targets_waits_for_none(ws: Workspace, targets: Ceremony) -> None:
    """A hold takes one key, also while people sign the next targets; a new key counts with it."""
    give(ws, targets, "alice", "bob")
    finish(ws, targets)
    roles = ws.policy.roles
    section = replace(roles["channel"], keys=("alice", "rita", "sam"))
    ahead = replace(ws, policy=replace(ws.policy, roles={**roles, "channel": section}))
    start_targets(ahead, ahead.config.products, NOW)
    channel = promotion(ws)
    give(ws, channel, "alice", "rita")
    assert finish_complete(ws) == []
    with pytest.raises(ActionRequiredError, match="targets-2, which delegates to it, is not"):
        finish(ws, channel)
    give(ws, channel, "sam")
    assert [path.name for path in finish_complete(ws)] == [f"{CHANNEL}.json"]


def test_a_root_waits_for_nobody(ws: Workspace, targets: Ceremony) -> None:
    publish_by_hand(ws)
    root = start_root(ws, NOW)
    give(ws, root, "alice", "bob")
    assert finish(ws, root).name == "root.json"
    assert open_ceremonies(ws)[0].name == targets.name


def test_killed_after_staging_it_only_tidies_up(ws: Workspace, targets: Ceremony) -> None:
    give(ws, targets, "alice", "bob")
    kept = {path.name: path.read_bytes() for path in targets.directory.iterdir()}
    staged = finish(ws, targets).read_bytes()
    for name, data in kept.items():
        create_file(targets.directory / name, data)
    assert finish(ws, find_ceremony(ws, "targets")).read_bytes() == staged
    assert open_ceremonies(ws) == []


def test_missing_signatures_are_named(ws: Workspace, targets: Ceremony) -> None:
    give(ws, targets, "bob")
    with pytest.raises(ActionRequiredError) as caught:
        finish(ws, targets)
    assert caught.value.message == "targets-1 needs 1 more of: alice, carol"
    assert caught.value.hint == "they run: firmroot sign"


# Changing what is being signed.


def test_unsigned_content_may_change(ws: Workspace, targets: Ceremony) -> None:
    changed = renewed(parse_signed(targets), ws.policy.role("snapshot"), NOW)
    changed.version = 1
    first = start_ceremony(ws, "targets", changed)
    assert first.payload != targets.payload
    assert [each.payload for each in open_ceremonies(ws)] == [first.payload]


def parse_signed(ceremony: Ceremony) -> Targets:
    assert isinstance(ceremony.signed, Targets)
    return ceremony.signed


def test_collected_signatures_are_only_discarded_by_name(ws: Workspace, targets: Ceremony) -> None:
    give(ws, targets, "alice")
    empty = Targets(version=1, expires=NOW)
    with pytest.raises(DiscardedSignaturesError) as caught:
        start_ceremony(ws, "targets", empty)
    assert caught.value.message == (
        "targets-1 has been signed by alice; changing it would discard what they signed"
    )
    assert "--discard-signatures targets" in caught.value.hint
    assert status(ws, find_ceremony(ws, "targets")).signed == ("alice",)
    changed = start_ceremony(ws, "targets", empty, discard_signatures=True)
    assert names(changed.directory) == ["base.json", "payload.json"]


def test_the_same_content_again_keeps_the_signatures(ws: Workspace, targets: Ceremony) -> None:
    give(ws, targets, "alice")
    assert start_ceremony(ws, "targets", targets.signed).name == "targets-1"
    assert status(ws, targets).signed == ("alice",)


def test_other_ceremonies_leave_signatures_intact(ws: Workspace, targets: Ceremony) -> None:
    live(ws, targets)
    channel = promotion(ws)
    give(ws, channel, "rita")
    root = start_root(ws, NOW)
    live(ws, root)
    hold = manifest_targets(
        "gateway-stable-hold",
        None,
        "holds/gateway/stable.json",
        b"{}",
        ws.policy.role("hold"),
        NOW,
    )
    start_ceremony(ws, "gateway-stable-hold", hold, {"holds/gateway/stable.json": b"{}"})
    check_ceremony(ws, channel)
    assert status(ws, channel).signed == ("rita",)


def test_a_predecessor_that_changed_stops_everybody(ws: Workspace, targets: Ceremony) -> None:
    create_file(ws.metadata / "targets.json", b'"somebody published"')
    with pytest.raises(RefusedError, match="no longer the newest signed one"):
        check_ceremony(ws, targets)
    with pytest.raises(RefusedError, match="no longer the newest signed one"):
        finish(ws, targets)


def test_an_older_version_of_the_ceremony_goes(ws: Workspace, targets: Ceremony) -> None:
    kept = {path.name: path.read_bytes() for path in targets.directory.iterdir()}
    live(ws, targets)
    for name, data in kept.items():
        create_file(targets.directory / name, data)
    assert start_targets(ws, ws.config.products, NOW).name == "targets-2"
    assert [each.name for each in open_ceremonies(ws)] == ["targets-2"]


# Guards on what is signed.


def test_versions_rise_by_one(ws: Workspace) -> None:
    behind = "targets version 7 does not follow the newest that this workspace knows, none: it is "
    with pytest.raises(RefusedError, match=f"^{behind}behind") as found:
        start_ceremony(ws, "targets", Targets(version=7, expires=NOW))
    assert found.value.hint.startswith("git pull, then run it again")
    publish_by_hand(ws)
    root = parse(predecessor(ws, "root") or b"", Root, "root").signed
    with pytest.raises(RefusedError, match=r"^root version 1 does not follow version 1$") as found:
        start_ceremony(ws, "root", root)
    assert "pull" not in found.value.hint
    root.version = 3
    with pytest.raises(RefusedError, match="that this workspace knows, version 1: it is behind"):
        start_ceremony(ws, "root", root)
    assert start_root(ws, NOW).version == 2


def test_a_root_keeps_consistent_snapshots(ws: Workspace) -> None:
    publish_by_hand(ws)
    previous = parse(predecessor(ws, "root") or b"", Root, "root").signed
    root = next_root(ws.policy, ws.keyring, previous, NOW, lab=True)
    root.consistent_snapshot = False
    with pytest.raises(RefusedError, match="turns consistent snapshots off"):
        start_ceremony(ws, "root", root)


def test_targets_only_delegate(ws: Workspace) -> None:
    signed = Targets(1, expires=NOW, targets={"a": TargetFile.from_data("a", b"", ["sha256"])})
    with pytest.raises(RefusedError, match="may only delegate"):
        start_ceremony(ws, "targets", signed)


def test_targets_keep_the_guard_on_shadowing(ws: Workspace) -> None:
    loose = DelegatedRole("x", [], 1, terminating=False, paths=["builds/*/*"])
    signed = Targets(1, expires=NOW, delegations=Delegations({}, {"x": loose}))
    with pytest.raises(RefusedError, match="the delegation to x is not terminating"):
        start_ceremony(ws, "targets", signed)


def test_a_leaf_role_never_delegates(ws: Workspace) -> None:
    signed = Targets(1, expires=NOW, delegations=Delegations({}, {}))
    with pytest.raises(RefusedError, match="gateway-stable delegates to other roles"):
        start_ceremony(ws, CHANNEL, signed)


def test_a_carried_file_is_the_one_that_is_signed(ws: Workspace, targets: Ceremony) -> None:
    assert targets
    channel = promotion(ws)
    channel.carries[MANIFEST].write_bytes(b'{"evil": 1}')
    with pytest.raises(RefusedError, match=f"carries another {MANIFEST}"):
        check_ceremony(ws, find_ceremony(ws, CHANNEL))
    channel.carries[MANIFEST].unlink()
    with pytest.raises(RefusedError, match=f"carries another {MANIFEST}"):
        check_ceremony(ws, find_ceremony(ws, CHANNEL))


def test_what_a_ceremony_carries_is_read_only_as_it_is_to_be_signed(
    ws: Workspace, targets: Ceremony
) -> None:
    assert targets
    channel = promotion(ws)
    assert carried(channel) == {MANIFEST: b"{}"}
    channel.carries[MANIFEST].write_bytes(b'{"evil": 1}')
    with pytest.raises(RefusedError, match=f"carries another {MANIFEST}"):
        carried(channel)


def test_a_role_speaks_for_its_own_paths_only(ws: Workspace, targets: Ceremony) -> None:
    assert targets
    path = "builds/gateway/1.0/image"
    signed = manifest_targets(CHANNEL, None, path, b"", ws.policy.role("channel"), NOW)
    channel = start_ceremony(ws, CHANNEL, signed, {path: b""})
    with pytest.raises(RefusedError, match=f"gateway-stable may not speak for {path}"):
        check_ceremony(ws, channel)


def test_a_stranger_who_delegates_to_hash_bins_lets_nobody_speak(
    ws: Workspace, targets: Ceremony
) -> None:
    path = targets.directory / "payload.json"
    payload = json.loads(path.read_bytes())
    bins = {"keyids": [], "threshold": 1, "bit_length": 2, "name_prefix": "bin"}
    payload["delegations"] = {"keys": {}, "succinct_roles": bins}
    path.write_text(json.dumps(payload))
    with pytest.raises(RefusedError, match=f"{CHANNEL} may not speak for {MANIFEST}"):
        check_ceremony(ws, promotion(ws))


# Reading what a stranger may have written.


def test_a_renamed_ceremony_is_not_believed(ws: Workspace, targets: Ceremony) -> None:
    targets.directory.rename(targets.directory.with_name("targets-9"))
    with pytest.raises(NotTrustedError, match="targets-9 holds targets version 1"):
        open_ceremonies(ws)


@pytest.mark.parametrize(
    ("name", "data"),
    [("base.json", b"{}"), ("base.json", b"[]"), ("base.json", b"x"), ("payload.json", b'{"_ty')],
)
def test_a_damaged_ceremony_is_named(
    ws: Workspace, targets: Ceremony, name: str, data: bytes
) -> None:
    (targets.directory / name).write_bytes(data)
    with pytest.raises(NotTrustedError, match="targets-1"):
        open_ceremonies(ws)


def test_two_who_start_one_ceremony_are_told_how_to_go_on(ws: Workspace, targets: Ceremony) -> None:
    payload = targets.directory / "payload.json"
    ours = payload.read_bytes()
    payload.write_bytes(b"<<<<<<< HEAD\n" + ours + b"=======\n{}\n>>>>>>> theirs\n")
    match = "ceremonies/targets-1/payload.json has the marks of a git conflict"
    with pytest.raises(NotTrustedError, match=match) as found:
        open_ceremonies(ws)
    assert "git checkout --theirs ceremonies/targets-1 && git add" in found.value.hint
    payload.write_bytes(ours)
    assert [each.name for each in open_ceremonies(ws)] == ["targets-1"]


def test_the_payload_of_a_root_is_a_root(ws: Workspace, targets: Ceremony) -> None:
    base = targets.directory / "base.json"
    base.write_text(base.read_text().replace('"targets"', '"root"'))
    with pytest.raises(NotTrustedError, match="is targets metadata, expected root"):
        open_ceremonies(ws)


def test_an_unknown_ceremony_is_told_what_is_open(ws: Workspace, targets: Ceremony) -> None:
    assert find_ceremony(ws, "targets-1").name == find_ceremony(ws, "targets").name == targets.name
    with pytest.raises(ConfigurationError, match="no open ceremony 'root'; open: targets-1"):
        find_ceremony(ws, "root")
    abandon(targets)
    with pytest.raises(ConfigurationError, match="open: none"):
        find_ceremony(ws, "root")


def test_delegators_come_first(ws: Workspace, targets: Ceremony) -> None:
    publish_by_hand(ws)
    promotion(ws)
    start_root(ws, NOW)
    assert [each.role for each in open_ceremonies(ws)] == ["root", targets.role, CHANNEL]


# Several people.


def test_clones_with_one_key_each_merge_without_conflict(
    ws: Workspace, targets: Ceremony, tmp_path: Path
) -> None:
    """What git does with files that only one side has added: it takes both."""
    hers, his = clone(ws, tmp_path / "alice", "alice"), clone(ws, tmp_path / "bob", "bob")
    for theirs, name in ((hers, "alice"), (his, "bob")):
        add_signature(
            theirs, find_ceremony(theirs, "targets"), signature_of(ws, name, targets.payload)
        )
    ours = find_ceremony(hers, "targets")
    for path in find_ceremony(his, "targets").directory.iterdir():
        there = ours.directory / path.name
        assert not there.exists() or there.read_bytes() == path.read_bytes()
        shutil.copy(path, there)
    assert status(hers, ours).complete
    assert finish(hers, ours).exists()


def test_a_signature_for_a_ceremony_that_ended_is_no_ceremony(
    ws: Workspace, targets: Ceremony
) -> None:
    keyid = ws.keyring["carol"].key.keyid
    live(ws, targets)
    create_file(targets.directory / f"{keyid}.sig.json", b"{}")
    assert open_ceremonies(ws) == []


def test_unreadable_signature_bytes_are_not_a_crash(ws: Workspace, targets: Ceremony) -> None:
    keyid = ws.keyring["alice"].key.keyid
    for text in ("", "zz", "00"):
        with pytest.raises(RefusedError):
            add_signature(ws, targets, Signature(keyid, text))


def test_what_nobody_has_to_sign_is_never_complete(targets: Ceremony) -> None:
    assert not CeremonyStatus(targets, (), (), ()).complete


def test_what_a_killed_write_left_is_not_carried(ws: Workspace, targets: Ceremony) -> None:
    assert targets
    channel = promotion(ws)
    create_file(channel.carries[MANIFEST].with_name(".stable.json.x.tmp"), b"half")
    assert list(find_ceremony(ws, CHANNEL).carries) == [MANIFEST]


def test_the_same_content_after_another_predecessor_starts_anew(
    ws: Workspace, targets: Ceremony
) -> None:
    live(ws, targets)
    first = start_targets(ws, ws.config.products, NOW)
    give(ws, first, "alice")
    published = ws.metadata / "targets.json"
    published.write_bytes(published.read_bytes() + b"\n")
    with pytest.raises(DiscardedSignaturesError):
        start_ceremony(ws, "targets", first.signed)
    again = start_ceremony(ws, "targets", first.signed, discard_signatures=True)
    assert again.payload == first.payload
    assert again.base != first.base
    assert status(ws, again).signed == ()


# What stays of it, and what came before it.


def test_why_it_was_begun_and_what_was_discarded_is_kept(ws: Workspace) -> None:
    ws = replace(ws, occasion=Occasion(NOW, "the factory asks"))
    first = start_targets(ws, ws.config.products, NOW)
    assert first.why == "the factory asks"
    start_targets(ws, ws.config.products, NOW.replace(hour=7))
    before = record_paths(ws)  # of the first root
    assert len(before) == 1, "nobody had signed these targets"
    give(ws, find_ceremony(ws, "targets"), "alice")
    start_targets(ws, ws.config.products, NOW, discard_signatures=True)
    (record,) = set(record_paths(ws)).difference(before)
    document = json.loads(record.read_bytes())
    assert (document["ending"], document["why"]) == ("replaced", "the factory asks")
    assert document["quorums"][0]["signed"] == ["alice"]


def test_without_a_reason_none_is_written(targets: Ceremony) -> None:
    assert targets.why == ""
    assert "why" not in json.loads((targets.directory / "base.json").read_bytes())


def test_a_predecessor_is_proven_by_the_signatures_that_it_has(
    ws: Workspace, targets: Ceremony
) -> None:
    assert not proven(ws, targets), "there is none"
    give(ws, targets, "alice", "bob")
    finish(ws, targets)
    again = start_targets(ws, ws.config.products, NOW)
    assert proven(ws, again)
    path = ws.staged / "targets.json"
    document = json.loads(path.read_bytes())
    path.write_text(json.dumps({**document, "signatures": document["signatures"][:1]}))
    assert not proven(ws, again)
    path.write_text(json.dumps(document))
    publish_by_hand(ws)
    assert proven(ws, start_root(ws, NOW)), "it was verified when it was published"


def test_a_root_that_leaves_the_keys_of_targets_asks_them_once(
    ws: Workspace, targets: Ceremony
) -> None:
    """Another key of snapshot needs a bridge, and targets none of it."""
    publish_by_hand(ws)
    policy = ws.directory / "policy.toml"
    policy.write_text(policy.read_text().replace('keys = ["publisher"]', 'keys = ["oncall-1"]'))
    ws = Workspace.open(ws.directory)
    start_root(ws, NOW)
    (quorum,) = status(ws, targets).quorums
    assert (quorum.delegator, quorum.missing) == ("root", ("alice", "bob", "carol"))
