"""Publishing through the command line: what goes live, what waits, what is refused, and how."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import tomllib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import ActionRequiredError, ExitCode, LockedError, NotTrustedError
from repo_tools.publishing.journal import committed, settle
from repo_tools.publishing.online import OnlineKeys
from repo_tools.publishing.prepare import read_base
from repo_tools.publishing.publish import plan_publish, publish
from repo_tools.publishing.refresh import LostRace, refresh
from repo_tools.signing.secrets import open_secrets
from repo_tools.signing.signers import sign
from repo_tools.storage.local import LocalStorage
from tests.publishing.lab import HARDWARE, PRODUCT, Lab

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.synchronize import Barrier
    from pathlib import Path

    from securesystemslib.signer import Signature, Signer

    from keys_policy.model import KeyHolder
    from repo_tools.storage.protocol import Created


def _keys(lab: Lab) -> OnlineKeys:
    workspace = lab.workspace
    return OnlineKeys(workspace, open_secrets(None, {}, None, workspace.lab_passphrase))


def _timestamp(lab: Lab) -> dict[str, object]:
    signed = json.loads((lab.repository / "metadata/timestamp.json").read_bytes())["signed"]
    assert isinstance(signed, dict)
    return signed


# What goes live.


def test_the_first_publish_makes_everything_live_and_leaves_nothing_staged(ready: Lab) -> None:
    done = ready.ok("publish")
    assert "published timestamp 1: snapshot 1, root 1, targets 1" in done.out
    assert "0 devices stranded" in done.out
    assert ready.fresh_device()[1] == "installs 1.0"
    assert ready.workspace.staged_roles() == {}
    assert ready.workspace.staged_targets() == {}
    tree = ready.tree()
    assert tree["metadata/root/1.json"] == tree["repository/metadata/1.root.json"]
    assert tree["metadata/targets.json"] == tree["repository/metadata/1.targets.json"]
    assert tree["metadata/gateway-stable.json"] == tree["repository/metadata/1.gateway-stable.json"]
    assert "metadata/gateway-builds.json" not in tree, "the origin is the truth about builds"
    assert ".firmroot/publish.json" not in tree


def test_a_publish_leaves_a_record_of_what_and_who(following: Lab) -> None:
    following.ok("publish")
    record = json.loads(following.tree()["history/000002.json"])
    assert record["when"] == "2026-03-02T06:00:00Z"
    assert record["timestamp"]["version"] == 2
    assert record["roles"].keys() == {"snapshot", "gateway-builds", "gateway-stable"}
    assert record["roles"]["gateway-stable"]["signed_by"] == ["rita", "sam", "tess"]
    assert [each["path"].rsplit(".", 1)[1] for each in record["objects"]] == [
        "img",
        "segments",
        "json",
    ]


def test_with_nothing_new_it_says_so_and_changes_nothing(live: Lab) -> None:
    before = live.tree()
    done = live.ok("publish")
    assert "nothing to publish: everything that is signed is live" in done.out
    assert live.tree() == before


def test_the_timestamp_tells_devices_time_root_and_epoch(live: Lab) -> None:
    signed = _timestamp(live)
    assert signed["x-firmroot-issued"] == "2026-03-02T06:00:00Z"
    assert (signed["x-firmroot-root"], signed["x-firmroot-epoch"]) == (1, 0)


def test_a_plan_shows_every_object_and_changes_nothing_that_anybody_sees(following: Lab) -> None:
    before = following.tree()
    for command in (("plan",), ("publish", "--dry-run")):
        done = following.ok(*command)
        assert "create   metadata/2.gateway-builds.json" in done.out
        assert "create   metadata/2.snapshot.json" in done.out
        assert "replace  metadata/timestamp.json" in done.out
        assert "signed   gateway-stable 2: rita, sam, tess" in done.out
        assert "updates, installs 1.1" in done.out
        assert following.tree() == before


def test_a_plan_tidies_nothing_and_a_publish_does(following: Lab) -> None:
    left = following.directory / "ceremonies" / "root-9" / "base.json"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"{}")
    following.ok("plan")
    following.ok("publish", "--dry-run")
    assert left.exists()
    following.ok("publish")
    assert not left.parent.exists()


@pytest.mark.parametrize("command", ["plan", "publish"])
def test_what_the_policy_does_not_allow_is_not_published(following: Lab, command: str) -> None:
    path = following.directory / "policy.toml"
    section, marker, rest = path.read_text().partition("[roles.channel]")
    assert '"tess"' in rest
    path.write_text(section + marker + rest.replace('"tess"', '"alice"', 1))
    before = following.tree()
    done = following.run(command)
    assert done.code == ExitCode.REFUSED
    assert (
        "gateway-stable is 2 of rita, sam, tess; the policy expects 2 of alice, rita," in done.err
    )
    assert "policy-binds" in done.err
    assert following.tree() == before


def test_objects_are_created_leaves_first_and_the_root_last(ready: Lab) -> None:
    lines = ready.ok("-v", "publish").out.splitlines()
    steps = [line.split("/", 1)[-1] for line in lines if line.startswith(("upload", "commit"))]
    metadata = [step for step in steps if step.endswith(".json") and "/" not in step]
    assert metadata == [
        "1.gateway-builds.json",
        "1.gateway-stable.json",
        "1.targets.json",
        "1.snapshot.json",
        "1.root.json",
        "timestamp.json",
    ]
    assert steps.pop(-2) == "root-chain/1", "it says what is there already"
    assert all(step.startswith(("builds/", "channels/")) for step in steps[: -len(metadata)])


def test_a_role_that_targets_does_not_delegate_to_yet_waits(live: Lab) -> None:
    workspace = live.workspace
    extra = (workspace.metadata / "gateway-stable.json").read_bytes()
    (live.directory / "staged").mkdir(exist_ok=True)
    (live.directory / "staged/gateway-other.json").write_bytes(extra)
    found = plan_publish(workspace, workspace.storage(), _keys(live), live.now)
    assert type(found).__name__ == "NothingToDo"
    why = "waits    gateway-other: the targets role does not delegate to it; if it never will, "
    for command in ("plan", "publish"):
        done = live.ok(command)
        assert "nothing to publish: nothing else that is signed can go yet" in done.out
        assert f"{why}remove it from staged/" in done.out
    assert live.ok("--json", "publish").json["held"].keys() == {"gateway-other"}


def test_a_role_that_waits_is_named_beside_what_goes(following: Lab) -> None:
    staged = following.directory / "staged"
    shutil.copy(staged / "gateway-stable.json", staged / "evil.json")
    assert "waits    evil: the targets role does not delegate" in following.ok("plan").out
    done = following.ok("publish")
    assert "published timestamp 2" in done.out
    assert "waits    evil: the targets role does not delegate" in done.out


EXPIRED = {
    "the timestamp": (8, "timestamp 1 on 2026-03-09", "firmroot refresh"),
    "root": (
        366,
        "root 1 on 2027-03-02",
        "firmroot recover expired-root; firmroot sign; firmroot publish",
    ),
}


@pytest.mark.parametrize("case", EXPIRED)
def test_with_nothing_new_and_something_expired_it_says_who_must_act(case: str, live: Lab) -> None:
    days, named, command = EXPIRED[case]
    for words in (("publish",), ("plan",)):
        done = live.later(days=days).run(*words)
        assert done.code == 3
        assert "nothing new is signed, and what is live has expired: " in done.err
        assert named in done.err
        assert f"hint: {command}\n" in done.err


def test_roles_of_people_that_expired_under_a_good_root_need_a_ceremony(live: Lab) -> None:
    renewed = live.later(days=200)
    for words in (("ceremony", "start", "root"), ("sign",), ("publish",)):
        renewed.ok(*words)
    done = live.later(days=366).run("publish")
    assert done.code == 3
    roles = ("targets", "gateway-stable", "gateway-builds")
    assert all(f"{role} 1 on 2027-03-02" in done.err for role in roles)
    assert f"hint: firmroot ceremony start {' '.join(roles)}; firmroot sign" in done.err
    assert "root 2" not in done.err


ROOT_EXPIRED = "error: root 1 has expired on 2027-03-02"


def test_with_an_expired_root_the_next_step_is_named_and_nobody_is_stranded(live: Lab) -> None:
    late = live.later(days=366)
    before = late.tree()

    def stopped(command: str, found: str, hint: str) -> None:
        done = late.run(command)
        assert done.code == ExitCode.ACTION_REQUIRED, done
        assert f"{ROOT_EXPIRED}{found}" in done.err
        assert f"hint: {hint}\n" in done.err
        assert "strand" not in done.out + done.err

    stopped("refresh", ": no device accepts anything", "firmroot recover expired-root")
    assert late.tree() == before
    late.ok("recover", "expired-root")
    for command in ("refresh", "publish", "plan"):
        waits = "; root-2 waits for alice or bob or carol"
        stopped(command, waits, "firmroot sign, then: firmroot publish")
    late.ok("sign")
    stopped("refresh", "; root 2 is signed", "firmroot publish")
    late.ok("publish")
    assert late.fresh_device()[1] == "installs 1.0"
    late.ok("refresh")


def test_new_work_cannot_be_published_under_an_expired_root(following: Lab) -> None:
    late = following.later(days=366)
    done = late.run("publish")
    assert done.code == ExitCode.ACTION_REQUIRED
    assert ROOT_EXPIRED in done.err
    assert "hint: firmroot recover expired-root\n" in done.err
    exactly = following.later(days=365)
    assert "root 1 has expired" in exactly.run("refresh").err
    exactly.ok("recover", "expired-root")


def test_what_is_good_until_now_is_expired(live: Lab) -> None:
    live.later(days=6, hours=23).ok("publish")
    assert live.later(days=7).run("publish").code == 3


# Who must act.


def test_a_missing_signature_names_role_people_and_command(new: Lab) -> None:
    done = new.run("publish")
    assert done.code == 3
    assert "targets-1 needs 2 more signature(s), from: alice, bob, carol" in done.err
    assert "firmroot sign" in done.err
    assert not new.repository.exists()


def test_without_a_root_everything_waits_for_it(new: Lab) -> None:
    (new.directory / "staged/root.json").unlink()
    workspace = new.workspace
    storage = workspace.storage()
    with pytest.raises(ActionRequiredError, match="targets-1 waits for the role that delegates"):
        plan_publish(workspace, storage, _keys(new), new.now)
    with pytest.raises(ActionRequiredError, match="there is no root yet"):
        refresh(workspace, storage, _keys(new), new.now)


def test_signed_roles_go_and_an_open_ceremony_is_named(following: Lab) -> None:
    following.ok("channel", "hold", f"{PRODUCT}@1.1", "--on", "stable")
    done = following.ok("publish")
    assert "published timestamp 2" in done.out
    assert "still waits: gateway-stable-hold-1, 1 more of oncall-1, oncall-2" in done.out


def test_without_the_online_key_it_names_role_and_key(following: Lab) -> None:
    for name in ("firmroot.toml", ".firmroot/keys.toml"):
        path = following.directory / name
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if not line.startswith("publisher")))
    done = following.run("publish")
    assert done.code == 3
    assert "snapshot needs 1 signature(s), and this machine cannot sign as publisher" in done.err


def test_an_online_key_that_is_elsewhere_is_named(following: Lab) -> None:
    (following.directory / ".firmroot/keys/publisher.pem").unlink()
    done = following.run("publish")
    assert done.code == 3
    assert "snapshot needs 1 signature(s), and this machine cannot sign as publisher" in done.err


def test_an_online_key_that_is_no_file_is_asked_for(following: Lab) -> None:
    config = following.directory / "firmroot.toml"
    text = config.read_text()
    assert '"file:.firmroot/keys/publisher.pem"' in text
    config.write_text(text.replace('"file:.firmroot/keys/publisher.pem"', '"token:publisher"'))
    mine = following.directory / ".firmroot/keys.toml"
    lines = mine.read_text().splitlines(keepends=True)
    mine.write_text("".join(line for line in lines if not line.startswith("publisher")))
    done = following.run("publish")
    assert done.code == 2
    assert "'token:publisher' is not a key URI" in done.err


def test_each_online_key_signs_once(live: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    # A key in a token may ask for a touch each time.
    state = read_base(live.workspace, live.workspace.storage()).state
    root, snapshot = state.root, state.parsed_snapshot()
    assert root is not None
    assert snapshot is not None
    signed: list[str] = []

    def counted(signer: Signer, holder: KeyHolder, payload: bytes) -> Signature:
        signed.append(holder.name)
        return sign(signer, holder, payload)

    monkeypatch.setattr("repo_tools.publishing.online.sign", counted)
    _keys(live).sign([root, root], snapshot)
    assert signed == ["publisher"]


def test_a_role_that_changed_hands_must_be_signed_again(live: Lab) -> None:
    keyring = live.workspace.keyring
    policy = live.directory / "policy.toml"
    text = policy.read_text()
    table = tomllib.loads(text)["roles"]["channel"]
    assert set(table["keys"]) == {"rita", "sam", "tess"}
    assert set(keyring) >= {"rita", "sam", "tess", "oncall-1"}
    live.ok("key", "new", "uma", "--passphrase-fd", _passphrase_fd(live))
    live.ok("key", "new", "vera", "--passphrase-fd", _passphrase_fd(live))
    policy.write_text(_replace_list(text, "channel", ["uma", "vera", "tess"]))
    live.ok("ceremony", "start", "targets")
    live.ok("sign")
    done = live.run("publish")
    assert done.code == 3
    assert "live gateway-stable would no longer be signed by the keys that hold it" in done.err


def _passphrase_fd(lab: Lab) -> str:
    return str(os.open(lab.workspace.lab_passphrase, os.O_RDONLY))


def _replace_list(text: str, section: str, keys: list[str]) -> str:
    head, marker, tail = text.partition(f"[roles.{section}]")
    assert marker, text
    before, _, after = tail.partition("keys = [")
    return f"{head}{marker}{before}keys = {json.dumps(keys)}{after.partition(']')[2]}"


# What is not believed.


@pytest.mark.parametrize("command", ["publish", "refresh"])
def test_an_object_that_was_cut_off_is_named(live: Lab, command: str) -> None:
    path = live.repository / "metadata/timestamp.json"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    done = live.later(days=3).run(command)
    assert done.code == ExitCode.NOT_TRUSTED
    assert "metadata/timestamp.json is damaged, or is not what was published: " in done.err
    assert "hint: restore it from a mirror or a backup, then run the command again" in done.err
    path.write_bytes(whole)
    live.later(days=3).ok(command)


PLANTED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "the root before it": (bytes, "root has version 1, expected 2"),
    "signed by nobody": (
        lambda root: root.replace(b'"version":1', b'"version":2'),
        "root 2 has good signatures of 0 keys of root 1",
    ),
    "garbage": (lambda _: b"{", "root 2 is not valid TUF metadata"),
}


@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_root_is_no_object_to_restore(case: str, live: Lab) -> None:
    make, message = PLANTED[case]
    metadata = live.repository / "metadata"
    planted = metadata / "2.root.json"
    planted.write_bytes(make((metadata / "1.root.json").read_bytes()))
    for command in ("publish", "refresh"):
        done = live.later(days=3).run(command)
        assert done.code == ExitCode.NOT_TRUSTED
        assert f"metadata/2.root.json does not follow root 1: {message}" in done.err
        _, _, hint = done.err.partition("hint: ")
        assert "docs/runbooks/planted-root.md" in hint
        assert "if there is no metadata/root/2.json" in hint
    planted.unlink()
    live.later(days=3).ok("refresh")


TAMPERED: dict[str, tuple[Callable[[Path], None], str]] = {
    "the timestamp is not signed": (
        lambda repo: _edit(repo / "metadata/timestamp.json", b'"version":1', b'"version":9'),
        "timestamp",
    ),
    "the snapshot is another one": (
        lambda repo: _edit(repo / "metadata/1.snapshot.json", b'"version":1', b'"version":9'),
        "snapshot",
    ),
    "targets were exchanged": (
        lambda repo: _edit(repo / "metadata/1.targets.json", b"builds", b"bu1lds"),
        "targets",
    ),
    "a delegated role was exchanged": (
        lambda repo: _edit(repo / "metadata/1.gateway-builds.json", b"1.0", b"1.9"),
        "gateway-builds",
    ),
    "a delegated role is missing": (
        lambda repo: (repo / "metadata/1.gateway-stable.json").unlink(),
        "metadata/1.gateway-stable.json is referenced by live metadata and is not in the storage",
    ),
    "the timestamp is gone": (
        lambda repo: (repo / "metadata/timestamp.json").unlink(),
        "has published before, and",
    ),
}


def _edit(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


@pytest.mark.parametrize("case", TAMPERED)
def test_a_tampered_storage_is_not_built_upon(case: str, following: Lab) -> None:
    damage, message = TAMPERED[case]
    damage(following.repository)
    before = following.tree()
    done = following.run("publish")
    assert done.code == 6, done
    assert message in done.err
    assert following.tree() == before


def test_a_storage_that_went_back_in_time_is_not_believed(following: Lab, tmp_path: Path) -> None:
    old = shutil.copytree(following.repository, tmp_path / "old")
    following.ok("publish")
    shutil.rmtree(following.repository)
    shutil.copytree(old, following.repository)
    done = following.run("publish")
    assert done.code == 6
    assert "version 2 was live before: a rollback of the storage" in done.err


def _clone(lab: Lab, directory: Path) -> Lab:
    """What git has, the keys of this machine, and the storage; no memory of what was live."""
    clone = lab.copy(directory / "acme")
    for name in ("high-water.json", "publish.json"):
        (clone.directory / ".firmroot" / name).unlink(missing_ok=True)
    return clone


def _put_back(lab: Lab, old: Path) -> None:
    """The storage is as it was before."""
    shutil.rmtree(lab.repository)
    shutil.copytree(old, lab.repository)


WRITERS = (("publish",), ("refresh",), ("plan",), ("factory", "export", PRODUCT, "--to", "out"))


@pytest.mark.parametrize("command", WRITERS, ids=lambda words: words[0])
def test_a_fresh_clone_does_not_believe_a_storage_that_went_back(
    command: tuple[str, ...], following: Lab, tmp_path: Path
) -> None:
    old = shutil.copytree(following.repository, tmp_path / "old")
    following.ok("publish")
    clone = _clone(following, tmp_path / "clone")
    _put_back(clone, old)
    before = clone.tree()
    done = clone.run(*command)
    assert done.code == 6, done
    assert "version 2 was live before: a rollback of the storage (history/000002.json)" in done.err
    assert clone.tree() == before, "nothing was signed, and git still has the newer role"


GIT_KNOWS: dict[str, tuple[tuple[str, ...], str]] = {
    "from its records alone": (
        ("metadata/targets.json", "metadata/gateway-stable.json"),
        "history",
    ),
    "from the roles of people alone": (("history/000002.json",), "metadata/gateway-stable.json"),
}


@pytest.mark.parametrize("case", GIT_KNOWS)
def test_git_knows_what_was_live(case: str, following: Lab, tmp_path: Path) -> None:
    gone, source = GIT_KNOWS[case]
    old = shutil.copytree(following.repository, tmp_path / "old")
    following.ok("publish")
    clone = _clone(following, tmp_path / "clone")
    for name in gone:
        (clone.directory / name).unlink()
    _put_back(clone, old)
    done = clone.run("refresh")
    assert done.code == 6, done
    assert f"a rollback of the storage ({source}" in done.err


def test_a_builds_role_that_went_back_is_known_from_the_records(
    following: Lab, tmp_path: Path
) -> None:
    # The attacker has the online keys as well: snapshot and timestamp are new, builds is old.
    following.ok("publish")
    clone = _clone(following, tmp_path / "clone")
    state = read_base(clone.workspace, clone.workspace.storage()).state
    old = (clone.repository / "metadata/1.gateway-builds.json").read_bytes()
    rolled = replace(state, roles={**state.roles, "gateway-builds": old})
    with pytest.raises(NotTrustedError, match=r"live gateway-builds has version 1.*history/000002"):
        committed(clone.workspace).check(rolled)


def test_a_clone_that_is_behind_goes_on_and_catches_up(following: Lab, tmp_path: Path) -> None:
    behind = _clone(following, tmp_path / "behind")
    following.ok("publish")
    _put_back(behind, following.repository)
    for path in ("staged", ".firmroot/staged", ".firmroot/outbox"):
        shutil.rmtree(behind.directory / path, ignore_errors=True)
    behind.ok("refresh")
    tree = behind.tree()
    assert tree["metadata/gateway-stable.json"] == tree["repository/metadata/2.gateway-stable.json"]
    assert behind.ok("--json", "verify").json["trusted"]


def test_what_git_brings_during_a_publish_is_not_taken_back(following: Lab) -> None:
    before = following.tree()["metadata/gateway-stable.json"]
    following.ok("publish")
    newer = following.tree()
    workspace = following.workspace
    state = read_base(workspace, workspace.storage()).state
    older = replace(state, roles={**state.roles, "gateway-stable": before})
    settle(workspace, older)
    assert following.tree() == newer


def test_a_storage_that_lost_the_newest_root_is_not_built_upon(live: Lab, tmp_path: Path) -> None:
    live.ok("ceremony", "start", "root")
    live.ok("sign")
    live.ok("publish")
    root = live.repository / "metadata/2.root.json"
    shutil.copy(root, tmp_path / "2.root.json")
    for lost in (root.unlink, lambda: root.write_bytes(b"{}")):
        lost()
        done = live.run("refresh")
        assert done.code == 6, done
        assert "metadata/2.root.json" in done.err
        assert "metadata/root/2.json, which was live before" in done.err
    shutil.copy(tmp_path / "2.root.json", root)
    live.ok("refresh")


def test_another_timestamp_of_the_same_version_is_a_fork(live: Lab, tmp_path: Path) -> None:
    other = live.copy(tmp_path / "other")
    other.now = live.later(hours=1).now
    live.ok("refresh")
    other.ok("refresh")
    shutil.copy(
        other.repository / "metadata/timestamp.json", live.repository / "metadata/timestamp.json"
    )
    done = live.run("publish")
    assert done.code == 6
    assert "live timestamp version 2 is not the one that was live before" in done.err


# Rivals.


def test_a_stale_base_is_refused_and_named(following: Lab, tmp_path: Path) -> None:
    rival = _sharing(following, tmp_path)
    rival.ok("publish")
    following.directory.joinpath("staged").mkdir(exist_ok=True)
    done = following.run("publish")
    assert done.code == 0, "byte for byte the same work is no rival"
    rival.ship("1.2")
    following.add("1.3")
    following.promote("1.3")
    done = following.run("publish")
    assert done.code == 5
    assert "gateway-stable" in done.err
    assert "no longer live" in done.err


def _sharing(lab: Lab, tmp_path: Path) -> Lab:
    """A second workspace that publishes to the same storage."""
    other = lab.copy(tmp_path / "other" / "acme")
    shutil.rmtree(other.repository)
    text = (other.directory / "firmroot.toml").read_text()
    text = text.replace('storage = "repository"', f'storage = "file://{lab.repository}"')
    (other.directory / "firmroot.toml").write_text(text)
    return other


def _race(lab: Lab, repository: Path, ready: Barrier, result: Path) -> None:
    """One publisher of a race: plans, waits until the other has planned too, commits."""
    with lab.environment(), lab.workspace.lock():
        storage = _WaitingStorage(repository, ready)
        try:
            found = publish(lab.workspace, storage, _keys(lab), lab.now)
            outcome = type(found).__name__
        except LockedError as error:
            outcome = f"LockedError {error.exit_code.value}"
    result.write_text(outcome)


class _WaitingStorage(LocalStorage):
    """The first upload waits for the other publisher."""

    def __init__(self, root: Path, ready: Barrier) -> None:
        super().__init__(root)
        self._ready: Barrier | None = ready

    def create(self, path: str, source: bytes | Path, sha256: str) -> Created:
        """See `Storage.create`."""
        if self._ready is not None:
            self._ready.wait(20)
            self._ready = None
        return super().create(path, source, sha256)


def test_of_two_publishers_one_wins_and_no_work_is_lost(following: Lab, tmp_path: Path) -> None:
    # Each has something of its own: one a promotion, the other a hold on another role.
    rival = _sharing(following, tmp_path)
    for path in ("staged", ".firmroot/staged", ".firmroot/outbox", "ceremonies"):
        shutil.rmtree(rival.directory / path, ignore_errors=True)
    rival.ok("channel", "hold", f"{PRODUCT}@1.0", "--on", "stable")
    rival.ok("sign")
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    results = [tmp_path / f"result-{index}" for index in (0, 1)]
    children = [
        context.Process(target=_race, args=(lab, following.repository, barrier, result))
        for lab, result in zip((following, rival), results, strict=True)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    outcomes = [result.read_text() for result in results]
    assert outcomes == ["Published", "Published"], "the loser rebased what it signs itself"
    assert _timestamp(following)["version"] == 3
    names = {path.name for path in (following.repository / "metadata").iterdir()}
    assert {"2.gateway-stable.json", "2.gateway-builds.json", "1.gateway-stable-hold.json"} <= names
    done = following.ok("--json", "verify")
    assert done.json["trusted"]
    listed = json.loads((following.repository / "metadata/3.snapshot.json").read_bytes())
    versions = {name: meta["version"] for name, meta in listed["signed"]["meta"].items()}
    assert versions == {
        "gateway-builds.json": 2,
        "gateway-stable-hold.json": 1,
        "gateway-stable.json": 2,
        "targets.json": 1,
    }


class _LosingStorage(LocalStorage):
    """Somebody else replaces the timestamp just before this publisher does, each time."""

    def replace(self, path: str, data: bytes, tag: str | None) -> str:
        """Lose."""
        del path, data, tag
        raise LockedError("metadata/timestamp.json changed since it was read")


def test_who_loses_every_time_gets_the_error_and_nothing_is_visible(following: Lab) -> None:
    workspace = following.workspace
    before = (following.repository / "metadata/timestamp.json").read_bytes()
    with pytest.raises(LockedError) as caught:
        publish(workspace, _LosingStorage(following.repository), _keys(following), following.now)
    assert caught.value.exit_code == 7
    assert (following.repository / "metadata/timestamp.json").read_bytes() == before
    assert following.fresh_device()[1] == "installs 1.0"


def test_a_refresh_that_loses_is_done(live: Lab) -> None:
    workspace = live.workspace
    storage = _LosingStorage(live.repository)
    assert isinstance(refresh(workspace, storage, _keys(live), live.now), LostRace)


def test_a_base_that_moves_before_the_root_keeps_the_root_back(live: Lab, tmp_path: Path) -> None:
    rival = _sharing(live, tmp_path)
    live.ok("ceremony", "start", "root")
    live.ok("sign")

    class Moving(LocalStorage):
        """A rival refreshes whenever a snapshot was uploaded."""

        def create(self, path: str, source: bytes | Path, sha256: str) -> Created:
            found = super().create(path, source, sha256)
            if "snapshot" in path:
                rival.ok("refresh")
            return found

    with pytest.raises(LockedError, match="nothing of this publish became visible"):
        publish(live.workspace, Moving(live.repository), _keys(live), live.now)
    assert not (live.repository / "metadata/2.root.json").exists()


def test_an_abandoned_snapshot_of_somebody_else_is_stepped_over(following: Lab) -> None:
    (following.repository / "metadata/2.snapshot.json").write_bytes(b"{}")
    following.ok("publish")
    snapshot = _timestamp(following)["meta"]
    assert snapshot["snapshot.json"]["version"] == 3  # type: ignore[index]
    assert following.fresh_device()[1] == "installs 1.1"


def test_an_abandoned_role_of_somebody_else_is_a_rival(following: Lab) -> None:
    (following.repository / "metadata/2.gateway-stable.json").write_bytes(b"{}")
    done = following.run("publish")
    assert done.code == 7
    assert "2.gateway-stable.json exists" in done.err
    assert "ask the others who hold these keys" in done.err


def test_a_builds_role_whose_name_somebody_took_and_left_is_made_anew(following: Lab) -> None:
    """They died after the upload, for good: nobody waits for the clean-up, months later."""
    (following.repository / "metadata/2.gateway-builds.json").write_bytes(b"{}")
    done = following.run("publish")
    assert done.code == 7
    assert "2.gateway-builds.json exists" in done.err
    assert "firmroot submit makes it anew with a higher version" in done.err
    following.ok("submit")
    following.ok("publish")
    assert (following.repository / "metadata/3.gateway-builds.json").exists()
    assert following.fresh_device()[1] == "installs 1.1"


def test_the_first_builds_role_whose_name_was_taken_is_made_anew(new: Lab) -> None:
    new.ok("sign")
    new.ok("publish")
    new.add("1.0")
    (new.repository / "metadata/1.gateway-builds.json").write_bytes(b"{}")
    assert new.run("publish").code == 7
    new.ok("submit")
    new.ok("publish")
    new.promote("1.0")
    new.ok("publish")
    assert new.fresh_device()[1] == "installs 1.0"


@pytest.mark.parametrize("spoilt", [False, True], ids=["signed well", "the signatures are none"])
def test_what_says_the_same_is_taken_over_if_it_is_signed(following: Lab, *, spoilt: bool) -> None:
    """A rival completed the same ceremony with other signatures, uploaded it and died."""
    staged = following.directory / "staged/gateway-stable.json"
    ours = staged.read_bytes()
    document = json.loads(ours)
    if spoilt:
        for signature in document["signatures"]:
            signature["sig"] = "00" * 64
    theirs = json.dumps(document, indent=3).encode()
    taken = following.repository / "metadata/2.gateway-stable.json"
    taken.write_bytes(theirs)
    done = following.run("publish")
    if spoilt:
        assert (done.code, staged.read_bytes()) == (7, ours)
        taken.unlink()
        following.ok("publish")
    assert done.code in {0, 7}
    assert taken.read_bytes() == (ours if spoilt else theirs)
    assert following.fresh_device()[1] == "installs 1.1"


def test_one_publisher_at_a_time_in_a_workspace(following: Lab) -> None:
    with following.workspace.lock():
        done = following.run("publish")
    assert done.code == 7
    assert "another firmroot command is at work" in done.err


# Artifacts.


def test_an_artifact_whose_bytes_are_nowhere_is_named(following: Lab) -> None:
    for path in (following.directory / ".firmroot/outbox").rglob("*.img"):
        path.unlink()
    done = following.run("publish")
    assert done.code == 5
    assert "builds/gateway/1.1/firmware.img is signed, but its bytes are neither here" in done.err


def test_an_artifact_that_changed_in_the_outbox_is_not_uploaded(following: Lab) -> None:
    for path in (following.directory / ".firmroot/outbox").rglob("*.img"):
        path.write_bytes(b"something else")
    done = following.run("publish")
    assert done.code == 5
    assert "expected sha256" in done.err
    assert following.fresh_device()[1] == "installs 1.0"


# Refresh.


def test_a_refresh_renews_the_timestamp_and_leaves_no_record(live: Lab) -> None:
    later = live.later(days=3)
    said = later.ok("refresh").out.splitlines()
    assert said[:2] == [
        "timestamp 2: signed, good until 2026-03-12T06:00:00Z",
        "snapshot 1: stays as it is, good until 2026-04-01T06:00:00Z",
    ]
    assert said[2].startswith("next: nothing to do  (timestamp is next, from 2026-03-10")
    assert len(said) == 3
    signed = _timestamp(live)
    assert (signed["version"], signed["expires"]) == (2, "2026-03-12T06:00:00Z")
    assert "history/000002.json" not in live.tree()
    assert not (live.repository / "metadata/2.snapshot.json").exists()


def test_a_refresh_renews_a_snapshot_that_would_end_first(live: Lab) -> None:
    assert "\nsnapshot 2: signed, good until " in live.later(days=25).ok("refresh").out
    assert (live.repository / "metadata/2.snapshot.json").exists()
    assert live.later(days=31).fresh_device()[1] == "installs 1.0"


def test_a_refresh_keeps_a_snapshot_that_ends_with_the_timestamp(live: Lab) -> None:
    live.later(days=23).ok("refresh")
    assert _timestamp(live)["expires"] == "2026-04-01T06:00:00Z", "30 days, like the snapshot"
    assert not (live.repository / "metadata/2.snapshot.json").exists()


def test_a_refresh_revives_what_had_expired(live: Lab) -> None:
    late = live.later(days=60)
    assert late.fresh_device()[0].value == "stranded"
    late.ok("refresh")
    assert late.fresh_device()[1] == "installs 1.0"


def test_nothing_is_refreshed_before_the_first_publish(ready: Lab) -> None:
    done = ready.run("refresh")
    assert done.code == 3
    assert "nothing is published yet" in done.err


# Stranding.


def test_a_publish_that_would_strand_a_factory_export_is_refused_by_name(live: Lab) -> None:
    export = live.ok("--json", "factory", "list").json["exports"][0]["id"]
    renewed = live.later(days=200)
    for words in (("ceremony", "start", "root"), ("sign",), ("publish",)):
        renewed.ok(*words)
    live.ok("product", "add", "other", "--hardware", HARDWARE)
    live.ok("sign")
    # Long after what people signed expired, only refreshed roles do not help.
    late = live.later(days=366)
    done = late.run("publish")
    assert done.code == 5
    assert f"\n  {export}: with factory state, now, clock good: " in done.err
    assert f"--accept-stranded {export}" in done.err
    assert _timestamp(live)["version"] == 2
    named = late.run("publish", "--accept-stranded", export)
    others = '--accept-stranded "next export of gateway/stable"'
    assert others in named.err, "the others are still to be named"
    assert export not in named.err


def test_a_recovery_root_that_waits_is_none_of_its_business(live: Lab) -> None:
    live.ok("anchor", "init")
    assert "recovery-1" in live.ok("ceremony", "list").out
    live.ok("ceremony", "start", "targets")
    for command in ("plan", "publish"):
        said = live.run(command)
        assert "targets-2" in said.out + said.err
        assert "recovery-1" not in said.out + said.err


@pytest.mark.parametrize("command", ["refresh", "publish"])
def test_live_versions_that_jumped_are_not_gone_on_from_unless_somebody_says_so(
    following: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    other = following.copy(tmp_path / "other")
    for minutes in (1, 2):
        other.later(minutes=minutes).ok("refresh")
    shutil.rmtree(following.repository)
    shutil.copytree(other.repository, following.repository)
    timestamp = following.repository / "metadata/timestamp.json"
    before = timestamp.read_bytes()
    later = following.later(minutes=3)
    monkeypatch.setattr("repo_tools.publishing.journal.MAX_JUMP", 1)
    done = later.run(command)
    assert done.code == ExitCode.REFUSED
    assert "timestamp has version 3, and version 1 was live before" in done.err
    assert timestamp.read_bytes() == before
    later.ok(command, "--accept-jump")
    assert timestamp.read_bytes() != before


def test_as_many_versions_as_refreshers_can_make_are_no_jump(
    following: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = following.copy(tmp_path / "other")
    for minutes in (1, 2):
        other.later(minutes=minutes).ok("refresh")
    shutil.rmtree(following.repository)
    shutil.copytree(other.repository, following.repository)
    monkeypatch.setattr("repo_tools.publishing.journal.MAX_JUMP", 2)
    following.later(minutes=3).ok("refresh")
