"""The journal: when what was signed is used again, and what a commit leaves in the workspace."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    SuccinctRoles,
    Targets,
    Timestamp,
)

from client_reference.errors import RefusedError, RetryLaterError
from repo_tools.metadata.edits import ISSUED_FIELD, format_time
from repo_tools.metadata.repository import RepositoryState, sha256
from repo_tools.publishing.journal import (
    FRESH,
    MAX_JUMP,
    Journal,
    check_jump,
    high_water,
    people_roles,
    record_path,
    records,
)
from repo_tools.publishing.live import HighWater
from repo_tools.publishing.online import OnlineKeys
from repo_tools.publishing.plan import Admitted
from repo_tools.publishing.prepare import read_base
from repo_tools.publishing.publish import publish
from repo_tools.signing.secrets import open_secrets
from repo_tools.storage.local import LocalStorage
from tests.publishing.lab import NOW

if TYPE_CHECKING:
    from datetime import datetime

    from tests.publishing.lab import Lab


# When what was signed is used again.


def _journal(issued: datetime) -> Journal:
    """A publish of root `root` and role `p-stable` over the timestamp with tag `tag`."""
    timestamp = Timestamp(
        version=2, expires=NOW, unrecognized_fields={ISSUED_FIELD: format_time(issued)}
    )
    return Journal(
        base="tag",
        root=sha256(b"root"),
        roles={"p-stable": sha256(b"stable")},
        snapshot=b"",
        timestamp=Metadata(timestamp).to_bytes(),
        record=None,
    )


SAME = Admitted(RepositoryState(roots=(b"root",)), roles={"p-stable": b"stable"})
AGAIN = {
    "the same, at once": (SAME, "tag", NOW, True),
    "the same, just before it is an hour old": (SAME, "tag", NOW - FRESH, True),
    "the same, more than an hour later": (SAME, "tag", NOW - FRESH - timedelta(seconds=1), False),
    "signed in what is now the future": (SAME, "tag", NOW + timedelta(seconds=1), False),
    "somebody else published meanwhile": (SAME, "other", NOW, False),
    "another root goes with it": (replace(SAME, root=b"next"), "tag", NOW, False),
    "a root follows it, whose keys sign as well": (
        replace(SAME, following=b"next"),
        "tag",
        NOW,
        False,
    ),
    "other bytes of a role": (replace(SAME, roles={"p-stable": b"2"}), "tag", NOW, False),
    "one role more": (replace(SAME, roles={**SAME.roles, "p-hold": b"h"}), "tag", NOW, False),
}


@pytest.mark.parametrize("case", AGAIN)
def test_what_was_signed_is_used_again_only_for_the_same_work(case: str) -> None:
    admitted, tag, issued, fits = AGAIN[case]
    assert _journal(issued).fits(admitted, tag, NOW) is fits


# What a commit leaves in the workspace.


def test_the_workspace_remembers_what_it_saw_live(following: Lab) -> None:
    following.ok("publish")
    workspace = following.workspace
    state = read_base(workspace, workspace.storage()).state
    assert high_water(workspace) == HighWater.of(state)
    assert high_water(workspace).marks["timestamp"].version == 2


def test_git_has_the_newest_roles_of_people_and_no_builds(following: Lab) -> None:
    following.ok("publish")
    tree = following.tree()
    kept = {path.removeprefix("metadata/") for path in tree if path.startswith("metadata/")}
    assert kept == {"root/1.json", "targets.json", "gateway-stable.json"}
    assert tree["metadata/gateway-stable.json"] == tree["repository/metadata/2.gateway-stable.json"]


def test_what_is_not_live_yet_still_waits(following: Lab) -> None:
    other = following.directory / "staged/gateway-other.json"
    other.write_bytes((following.directory / "staged/gateway-stable.json").read_bytes())
    waits = following.directory / ".firmroot/outbox/targets/builds/gateway/2.0/ab.firmware.img"
    waits.parent.mkdir(parents=True)
    waits.write_bytes(b"not signed yet")
    # As many as there ever were versions, and each command would look into each.
    (following.workspace.outbox / "targets/builds/gateway/0.1").mkdir()
    following.ok("publish")
    left = [path for path in following.workspace.outbox.rglob("*") if path.is_dir()]
    assert sorted(left) == sorted(waits.parents)[-4:]
    assert following.workspace.staged_roles().keys() == {"gateway-other"}
    assert list(following.workspace.staged_targets().values()) == [waits]


def test_history_keeps_what_changed_and_the_manifest_but_no_firmware(following: Lab) -> None:
    before = following.tree()
    following.ok("publish")
    after = following.tree()
    kept = {path: data for path, data in after.items() if path.startswith("history/objects/")}
    stored = "repository/metadata/"
    written = [
        data
        for path, data in after.items()
        if path.startswith(stored) and data != before.get(path) and "/root-chain/" not in path
    ]
    (manifest,) = (
        data
        for path, data in after.items()
        if path.startswith("repository/targets/channels/") and path not in before
    )
    new = {path: data for path, data in kept.items() if path not in before}
    assert len(written) == 4, "timestamp, snapshot, builds and channel"
    assert sorted(new.values()) == sorted([*written, manifest])
    assert all(path == f"history/objects/{sha256(data)}" for path, data in new.items())


def test_versions_that_nobody_can_have_made_are_refused(
    live: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next signature would make them the newest that were ever live."""
    workspace = live.workspace
    state = read_base(workspace, workspace.storage()).state
    mark = high_water(workspace).marks["timestamp"]

    def found(version: int) -> HighWater:
        return HighWater({"timestamp": replace(mark, version=version), "p-new": mark})

    monkeypatch.setattr(HighWater, "of", lambda _: found(mark.version + MAX_JUMP + 1))
    with pytest.raises(RefusedError, match="live timestamp has version 100002, and version 1 was"):
        check_jump(workspace, state)
    monkeypatch.setattr(HighWater, "of", lambda _: found(mark.version + MAX_JUMP))
    check_jump(workspace, state)


class _Dying(LocalStorage):
    """The connection breaks after the commit, before anybody knows of it."""

    def replace(self, path: str, data: bytes, tag: str | None) -> str:
        """See `Storage.replace`."""
        super().replace(path, data, tag)
        raise RetryLaterError(f"{path}: the storage does not answer")


def test_a_publish_that_died_after_its_commit_still_leaves_its_record(following: Lab) -> None:
    workspace = following.workspace
    keys = OnlineKeys(workspace, open_secrets(None, {}, None, workspace.lab_passphrase))
    with pytest.raises(RetryLaterError):
        publish(workspace, _Dying(following.repository), keys, following.now)
    assert "history/000002.json" not in following.tree()
    later = following.later(hours=3)
    assert "nothing to publish" in later.ok("publish").out
    record = json.loads(later.tree()["history/000002.json"])
    assert record["when"] == "2026-03-02T06:00:00Z"
    assert later.workspace.staged_roles() == {}
    assert ".firmroot/publish.json" not in later.tree()


# Which roles people sign.


def _state(*roles: DelegatedRole, succinct: SuccinctRoles | None = None) -> RepositoryState:
    """Targets with these delegations, and every role that they name."""
    named = {role.name: role for role in roles}
    delegations = Delegations({}, None if succinct else named, succinct)
    targets = Metadata(Targets(version=1, expires=NOW, delegations=delegations)).to_bytes()
    return RepositoryState(roles={"targets": targets, **dict.fromkeys(named, b"")})


BUILDS = DelegatedRole("p-builds", [], 1, terminating=True, paths=["builds/p/*/*"])
CHANNEL = DelegatedRole("p-stable", [], 1, terminating=True, paths=["channels/p/stable.json"])
HASHED = DelegatedRole("hashed", [], 1, terminating=True, path_hash_prefixes=["ab"])
SUCCINCT = SuccinctRoles([], 1, 2, "bin")
PEOPLE = {
    "everything but builds": (_state(BUILDS, CHANNEL), ("targets", "p-stable")),
    "no hash bin either": (_state(BUILDS).with_roles({"p_-0": b""}), ("targets",)),
    "a role that is delegated by hashes of paths": (_state(HASHED), ("targets", "hashed")),
    "targets that delegates to hash bins": (_state(succinct=SUCCINCT), ("targets",)),
}


@pytest.mark.parametrize("case", PEOPLE)
def test_people_sign(case: str) -> None:
    state, roles = PEOPLE[case]
    assert people_roles(state) == roles


def test_people_sign_targets_that_delegates_to_nobody() -> None:
    targets = Metadata(Targets(version=1, expires=NOW)).to_bytes()
    assert people_roles(RepositoryState(roles={"targets": targets})) == ("targets",)


def test_records_are_in_the_order_of_versions_that_outgrow_their_names(live: Lab) -> None:
    """Every five minutes a refresh: in ten years a timestamp has seven digits."""
    ws = live.workspace
    whole = (ws.history / "000001.json").read_bytes()
    for version in (999_999, 1_000_000):
        record_path(ws, version).write_bytes(whole)
    assert [path.name for path in records(ws)] == ["000001.json", "999999.json", "1000000.json"]
