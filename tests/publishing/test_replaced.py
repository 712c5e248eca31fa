"""Every timestamp that was live comes into history: those of refreshes by way of the storage."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest
from tuf.api.metadata import Root, Snapshot, Timestamp

from client_reference.errors import ExitCode, RetryLaterError
from repo_tools.metadata.edits import next_timestamp
from repo_tools.metadata.repository import parse, sha256
from repo_tools.publishing.journal import Journal, load_journal, write_journal
from repo_tools.publishing.live import metadata_path
from repo_tools.publishing.online import OnlineKeys
from repo_tools.publishing.replaced import (
    keep,
    refresh_name,
    refresh_paths,
    replaced_path,
    take,
    take_before,
    taken_since,
    was_live,
)
from repo_tools.reporting.refreshes import in_words, runs
from repo_tools.signing.secrets import open_secrets
from tests.publishing.conftest import stranded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.publishing.lab import Lab


def _live(lab: Lab) -> bytes:
    return (lab.repository / "metadata/timestamp.json").read_bytes()


def _refresh(lab: Lab, times: int) -> tuple[Lab, list[bytes]]:
    """The lab some hours later, and each timestamp that was live meanwhile."""
    seen = []
    for _ in range(times):
        lab = lab.later(hours=1)
        lab.ok("refresh")
        seen.append(_live(lab))
    return lab, seen


def _taken(lab: Lab) -> list[bytes]:
    return [path.read_bytes() for path in refresh_paths(lab.workspace)]


def _refused(lab: Lab, text: str) -> None:
    done = lab.run("history", "--verify")
    assert done.code == ExitCode.NOT_TRUSTED
    assert text in done.out


@pytest.fixture
def refreshed(following: Lab) -> Lab:
    """1.0 was published and refreshed three times, then 1.1 was published."""
    lab, _ = _refresh(following, 3)
    lab.ok("publish")
    return lab


def test_the_next_publish_takes_every_refresh_and_names_it(following: Lab) -> None:
    """The storage keeps a timestamp when a refresh replaces it; the last one is at hand."""
    lab, seen = _refresh(following, 3)
    kept = [lab.repository / replaced_path(version) for version in (2, 3)]
    assert [path.read_bytes() for path in kept] == seen[:-1]
    assert not (lab.repository / replaced_path(1)).exists()  # a record of a publish has it
    lab.ok("publish")
    assert _taken(lab) == seen
    assert not (lab.repository / replaced_path(4)).exists()
    record = json.loads((lab.directory / "history/000005.json").read_bytes())
    assert record["refreshes"] == [path.name for path in refresh_paths(lab.workspace)]
    shutil.rmtree(lab.repository)
    said = lab.ok("history", "--verify").out
    assert "verified: 2 published states, 3 refreshes, " in said
    assert "nothing was kept" not in said


def test_the_first_record_names_none_and_the_next_ones_only_what_is_new(refreshed: Lab) -> None:
    lab, _ = _refresh(refreshed, 1)
    lab.ship("1.2")
    records = [
        json.loads(path.read_bytes())["refreshes"]
        for path in sorted(lab.workspace.history.glob("*.json"))
    ]
    assert [[name.partition("-")[0] for name in names] for names in records] == [
        [],
        ["000002", "000003", "000004"],
        ["000006"],
    ]


def test_history_says_how_often_and_whose_keys(refreshed: Lab) -> None:
    said = refreshed.ok("history").out
    assert (
        "2026-03-02T07:00:00Z  refreshed 3 times until 2026-03-02T09:00:00Z: timestamp 2 to 4\n"
        "  signed by publisher\n"
    ) in said
    assert said.index("000001.json") < said.index("refreshed 3 times") < said.index("000005.json")
    assert "refreshed" in refreshed.ok("history", "timestamp").out
    assert "refreshed" not in refreshed.ok("history", "targets").out
    told = refreshed.ok("--json", "history").json["refreshed"]
    assert [(each["version"], each["snapshot"], each["signed_by"]) for each in told] == [
        (version, 1, ["publisher"]) for version in (2, 3, 4)
    ]
    assert told[0]["when"] == "2026-03-02T07:00:00Z"


def test_one_refresh_is_told_as_one(following: Lab) -> None:
    lab, _ = _refresh(following, 1)
    lab.ok("publish")
    assert "2026-03-02T07:00:00Z  refreshed: timestamp 2\n" in lab.ok("history").out


def test_a_snapshot_that_a_refresh_made_is_taken_and_proven(following: Lab) -> None:
    lab = following.later(days=25)
    lab.ok("refresh")
    lab, seen = _refresh(lab, 1)
    live = parse(seen[0], Timestamp, "timestamp").signed.snapshot_meta
    assert live.version == 2
    snapshot = (lab.repository / metadata_path("snapshot", 2)).read_bytes()
    for path in lab.repository.glob("metadata/*.snapshot.json"):
        if not path.name.startswith("2."):
            path.unlink()
    lab.ok("publish")
    kept = lab.directory / "history/objects" / sha256(snapshot)
    assert kept.read_bytes() == snapshot
    told = "refreshed: timestamp 2\n  signed by publisher\n  snapshot 2, signed by publisher\n"
    assert told in lab.ok("history", "snapshot").out
    (renewed,) = lab.ok("--json", "history", "snapshot").json["refreshed"]
    assert renewed["snapshot_signed_by"] == ["publisher"]
    assert "timestamp 2 to 3\n  signed by publisher\n  snapshot 2, signed" in lab.ok("history").out
    shutil.rmtree(lab.repository)
    lab.ok("history", "--verify")
    kept.unlink()
    _refused(lab, f"history/objects/{sha256(snapshot)} is missing")


def test_without_the_snapshot_the_timestamp_is_taken_and_that_shows(following: Lab) -> None:
    lab = following.later(days=25)
    lab.ok("refresh")
    old = (lab.repository / metadata_path("snapshot", 2)).read_bytes()
    lab = lab.later(days=25)
    lab.ok("refresh")
    (lab.repository / metadata_path("snapshot", 2)).write_bytes(b"{}")
    ws = lab.workspace
    take(ws, ws.storage(), _live(lab), print)
    assert [parse(each, Timestamp, "t").signed.version for each in _taken(lab)] == [2, 3]
    _refused(lab, f"history/objects/{sha256(old)} is missing")
    assert "snapshot 2, signed by nobody known: it is not here" in lab.ok("history").out
    (lab.repository / metadata_path("snapshot", 2)).unlink()
    for path in refresh_paths(ws):
        path.unlink()
    take(ws, ws.storage(), _live(lab), print)
    assert len(_taken(lab)) == 2


def test_a_refresher_without_records_keeps_what_a_publish_made_too(following: Lab) -> None:
    """It may have a workspace of before that publish."""
    ws = following.workspace
    path = following.repository / replaced_path(1)
    keep(ws, ws.storage(), _live(following), print)
    assert not path.exists()
    record = ws.history / "000001.json"
    whole = record.read_bytes()
    # "another": a record of that version, of a fork.
    for text in (b"{}", b"no JSON", b'{"timestamp": []}', b'{"timestamp": {"sha256": "0"}}'):
        record.write_bytes(text)
        keep(ws, ws.storage(), _live(following), print)
        assert path.read_bytes() == _live(following)
        path.unlink()
    record.unlink()
    keep(ws, ws.storage(), _live(following), print)
    assert path.read_bytes() == _live(following)
    record.write_bytes(whole)


def test_a_name_that_somebody_took_stops_no_refresh_and_is_not_believed(following: Lab) -> None:
    """Attack: other bytes lie where a refresh wants to keep what it replaces."""
    lab, seen = _refresh(following, 1)
    (lab.repository / replaced_path(2)).write_bytes(b"{}")
    lab, more = _refresh(lab, 2)
    assert "metadata/2.timestamp.json is not what was live" in _told(lab, seen[0])
    lab.ok("publish")
    assert _taken(lab) == more
    assert "nothing was kept of timestamp 2: " in lab.ok("history", "--verify").out


def _told(lab: Lab, timestamp: bytes) -> str:
    lines: list[str] = []
    keep(lab.workspace, lab.workspace.storage(), timestamp, lines.append)
    return "\n".join(lines)


def test_what_does_not_verify_is_not_taken(following: Lab) -> None:
    """A timestamp under another version, with another's signature, too long, or none at all."""
    lab, seen = _refresh(following, 3)
    ws, place = lab.workspace, lab.repository / replaced_path(2)
    forged = json.loads(seen[0])
    forged["signed"]["expires"] = "2099-01-01T00:00:00Z"
    for data, why in (
        (seen[1], "does not verify"),
        (json.dumps(forged).encode(), "does not verify"),
        (b"{}", "does not verify"),
        (seen[0] + b" " * 70_000, "longer than"),
    ):
        place.write_bytes(data)
        lines: list[str] = []
        take(ws, ws.storage(), seen[-1], lines.append)
        assert f"{replaced_path(2)} is not taken into history" in lines[0]
        assert why in lines[0]
        assert seen[0] not in _taken(lab)
        for path in refresh_paths(ws):
            path.unlink()
    place.write_bytes(seen[0])
    lab.ok("publish")
    assert _taken(lab) == seen


def test_a_hole_ends_neither_what_is_before_it_nor_what_is_after(following: Lab) -> None:
    lab, seen = _refresh(following, 6)
    for version in (4, 5):
        (lab.repository / replaced_path(version)).unlink()
    lab.ok("publish")
    assert _taken(lab) == [seen[0], seen[1], seen[4], seen[5]]
    assert "nothing was kept of timestamp 4 to 5: " in lab.ok("history", "--verify").out


class _Counting:
    """A storage that counts what is asked for."""

    def __init__(self, lab: Lab) -> None:
        self._storage = lab.workspace.storage()
        self.asked: list[str] = []

    def read(self, path: str, max_length: int) -> object:
        self.asked.append(path)
        return self._storage.read(path, max_length)


def test_holes_and_what_somebody_put_there_hide_nothing_between_them(following: Lab) -> None:
    """An older firmroot and this one refresh in turns; a thief writes two names."""
    lab, seen = _refresh(following, 9)
    for version in (2, 4, 8):
        (lab.repository / replaced_path(version)).unlink()
    for version in (3, 9):
        (lab.repository / replaced_path(version)).write_bytes(b"{}")
    lab.ok("publish")
    assert _taken(lab) == [seen[3], seen[4], seen[5], seen[8]]
    said = lab.ok("history", "--verify").out
    assert "nothing was kept of timestamp 2 to 4, 8 to 9: " in said


def test_a_jump_of_versions_costs_a_few_questions(following: Lab) -> None:
    """Nobody asks for each of a hundred thousand versions that were jumped over."""
    ws = following.workspace
    keys = OnlineKeys(ws, open_secrets(None, {}, None, ws.lab_passphrase))
    state = ws.storage()
    root = parse(ws.roots()[0], Root, "root").signed
    snapshot = state.read(metadata_path("snapshot", 1), 1 << 20).data
    signed = next_timestamp(None, snapshot, 1, ws.policy.role("timestamp"), following.now)
    signed.version = 90_000
    counting = _Counting(following)
    take(ws, counting, keys.sign([root], signed), print)  # type: ignore[arg-type]
    few = (*range(2, 10), *range(89_999, 89_991, -1))
    assert counting.asked == [replaced_path(version) for version in few]
    assert len(_taken(following)) == 1


def test_it_is_told_how_far_it_is(following: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repo_tools.publishing.replaced._TOLD", 2)
    lab, seen = _refresh(following, 5)
    lines: list[str] = []
    take(lab.workspace, lab.workspace.storage(), seen[-1], lines.append)
    assert lines == ["take refreshes into history: 2", "take refreshes into history: 4"]


def test_nothing_is_taken_where_nothing_was_published(live: Lab) -> None:
    """Without a record nobody knows from which version on; what is adopted is another's."""
    ws, counting = live.workspace, _Counting(live)
    (ws.history / "notes.json").write_text("{}")
    take(ws, counting, _live(live), print)  # type: ignore[arg-type]
    take(ws, counting, None, print)  # type: ignore[arg-type]
    assert taken_since(ws) == []
    (ws.history / "000001.json").unlink()
    take(ws, counting, _live(live), print)  # type: ignore[arg-type]
    assert counting.asked == []
    assert _taken(live) == []


def test_what_is_taken_already_is_not_asked_for_again(following: Lab) -> None:
    """A publish that was killed, or a clean-up, took it before."""
    lab, seen = _refresh(following, 3)
    take(lab.workspace, lab.workspace.storage(), seen[-1], print)
    counting = _Counting(lab)
    take(lab.workspace, counting, seen[-1], print)  # type: ignore[arg-type]
    assert counting.asked == []
    lab.ok("publish")
    assert _taken(lab) == seen


def test_a_clean_up_takes_before_it_removes(following: Lab) -> None:
    """History keeps the snapshots of refreshes, so that the storage need not."""
    lab = following
    for _ in range(4):
        lab = lab.later(days=25)
        lab.ok("refresh")
    snapshots = sorted(lab.repository.glob("metadata/*.snapshot.json"))
    assert len(snapshots) == 5
    for path in lab.repository.rglob("*"):
        os.utime(path, (0, 0))
    said = lab.ok("--yes", "gc", "--older", "30d").out
    assert "history/ has 5 refreshes more" in said
    assert "commit and push it" in said
    assert len(list(lab.repository.glob("metadata/*.snapshot.json"))) < len(snapshots)
    assert (lab.repository / replaced_path(2)).exists()
    said = lab.ok("history", "--verify").out
    assert "1 published states, 5 refreshes" in said
    lab.ok("publish")
    assert "2 published states, 5 refreshes" in lab.ok("history", "--verify").out


def test_what_a_record_has_is_not_named_by_the_next_one(following: Lab) -> None:
    """Another clone had taken it before the record came by git."""
    lab, _ = _refresh(following, 1)
    ws = lab.workspace
    there = ws.history / "refreshes" / refresh_name(1, sha256(_live(following)))
    there.parent.mkdir()
    there.write_bytes((ws.history / "objects" / _recorded(ws.history / "000001.json")).read_bytes())
    there = there.rename(there.with_name(refresh_name(1, sha256(there.read_bytes()))))
    assert taken_since(ws) == []
    lab.ok("publish")
    record = json.loads((ws.history / "000003.json").read_bytes())
    assert [name[:6] for name in record["refreshes"]] == ["000002"]
    assert "2 published states, 1 refreshes" in lab.ok("history", "--verify").out


def _recorded(path: Path) -> str:
    return str(json.loads(path.read_bytes())["timestamp"]["sha256"])


# Tampering.


def test_a_refresh_that_was_removed_edited_renamed_or_added_is_named(refreshed: Lab) -> None:
    two, three = refresh_paths(refreshed.workspace)[:2]
    data = two.read_bytes()
    two.unlink()
    _refused(refreshed, f"history/refreshes/{two.name} is missing: 000005.json was made after it")
    edited = json.loads(data)
    edited["signed"]["expires"] = "2099-01-01T00:00:00Z"
    two.write_text(json.dumps(edited))
    _refused(refreshed, f"history/refreshes/{two.name} was changed: its name is of other bytes")
    _refused(refreshed, f"history/refreshes/{two.name}: timestamp has good signatures of 0 keys")
    two.write_bytes(b"{")
    done = refreshed.run("history")
    assert done.code == ExitCode.NOT_TRUSTED
    assert f"take it from git: history/refreshes/{two.name}" in done.err
    two.write_bytes(data)
    spaced = three.read_bytes() + b" "
    added = three.with_name(refresh_name(3, sha256(spaced)))
    added.write_bytes(spaced)
    _refused(refreshed, f"history/refreshes/{added.name} was added: no record after it names it")
    _refused(refreshed, "another timestamp of version 3 was live as well")
    added.unlink()
    refreshed.ok("history", "--verify")


def _sign(
    lab: Lab,
    change: Callable[[Snapshot, Timestamp], None] = lambda *_: None,
    **named: dict[str, str] | None,
) -> bytes:
    """What a thief of the online keys makes of what is live."""
    ws = lab.workspace
    keys = OnlineKeys(ws, open_secrets(None, {}, None, ws.lab_passphrase))
    roots = [parse(ws.roots()[-1], Root, "root").signed]
    before = parse(_live(lab), Timestamp, "timestamp").signed
    snapshot = parse(
        ws.storage().read(metadata_path("snapshot", before.snapshot_meta.version), 1 << 20).data,
        Snapshot,
        "snapshot",
    ).signed
    snapshot.version += 1
    data = keys.sign(roots, snapshot)
    timestamp = next_timestamp(before, data, 1, ws.policy.role("timestamp"), lab.now)
    change(snapshot, timestamp)
    data = keys.sign(roots, snapshot)
    timestamp.snapshot_meta.length = len(data)
    timestamp.snapshot_meta.hashes = named.get("hashes", {"sha256": sha256(data)})
    (ws.history / "objects" / sha256(data)).write_bytes(data)
    signed = keys.sign(roots, timestamp)
    place = ws.history / "refreshes" / refresh_name(timestamp.version, sha256(signed))
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(signed)
    return signed


def test_a_refresh_that_changed_more_than_times_is_named(live: Lab) -> None:
    def another_role(snapshot: Snapshot, _: Timestamp) -> None:
        snapshot.meta["gateway-builds.json"].version += 1

    _sign(live, another_role)
    _refused(live, "snapshot 2 has another gateway-builds, and no record says who published that")


def test_a_refresh_that_says_a_root_of_nowhere_is_named(live: Lab) -> None:
    for number in (2, 0, "1"):

        def another_root(_: Snapshot, timestamp: Timestamp, number: object = number) -> None:
            timestamp.unrecognized_fields["x-firmroot-root"] = number

        signed = _sign(live, another_root)
        _refused(live, f"it was made under root {number}, which metadata/root does not have")
        (live.workspace.history / "refreshes" / refresh_name(2, sha256(signed))).unlink()
    live.ok("history", "--verify")


@pytest.mark.parametrize("hashes", [None, {"sha256": "../../keys/alice.toml"}])
def test_a_thief_s_timestamp_that_names_no_snapshot_stops_nobody(
    live: Lab, hashes: dict[str, str] | None
) -> None:
    signed = _sign(live, hashes=hashes)
    for path in refresh_paths(live.workspace):
        path.unlink()
    take(live.workspace, live.workspace.storage(), signed, print)
    assert _taken(live) == [signed]
    _refused(live, "it names its snapshot by no digest")


def test_what_followed_a_state_that_does_not_verify_is_not_told_as_well(refreshed: Lab) -> None:
    first = json.loads((refreshed.directory / "history/000001.json").read_bytes())
    path = refreshed.directory / "history/objects" / first["timestamp"]["sha256"]
    path.unlink()
    done = refreshed.run("--json", "history", "--verify")
    assert [each for each in done.json["problems"] if "refreshes/" in each] == []
    assert len(done.json["problems"]) == 1


def test_a_publish_after_a_refresh_is_no_older_than_that(refreshed: Lab) -> None:
    """The state before a record is the last refresh, not the record before."""
    record = refreshed.directory / "history/000005.json"
    facts = json.loads(record.read_bytes())
    four = refresh_paths(refreshed.workspace)[-1]
    facts["timestamp"] |= {"version": 4, "sha256": sha256(four.read_bytes())}
    shutil.copy(four, refreshed.directory / "history/objects" / sha256(four.read_bytes()))
    record.write_text(json.dumps(facts))
    _refused(refreshed, "history/000005.json: ")


def test_a_timestamp_of_keys_that_a_root_took_away_is_neither_taken_nor_believed(
    following: Lab, tmp_path: Path
) -> None:
    """Attack: a thief of a replaced publisher's key puts one where a refresh wants to keep its."""
    lab = following.later(hours=1)
    thief = lab.copy(tmp_path / "thief" / "acme")

    def versions(snapshot: Snapshot, timestamp: Timestamp) -> None:
        snapshot.version = timestamp.snapshot_meta.version = 2
        timestamp.version = 3

    forged = _sign(thief, versions)
    lab.ok("--yes", "rotate", "publisher", "--compromised")
    lab.ok("sign")
    lab.ok("publish")
    (lab.repository / replaced_path(3)).write_bytes(forged)
    lab, seen = _refresh(lab, 2)
    lab.add("1.2")
    lab.ok("publish")
    assert _taken(lab) == seen[1:]
    (planted,) = refresh_paths(thief.workspace)
    shutil.copy(planted, lab.workspace.history / "refreshes")
    _refused(
        lab, f"history/refreshes/{planted.name}: it was made under root 1, and root 2 was live"
    )


# Two clones.


def test_what_another_clone_published_is_taken_until_its_record_comes(
    live: Lab, tmp_path: Path
) -> None:
    here, there = live, live.copy(tmp_path / "there" / "acme")
    shutil.rmtree(there.repository)
    there.repository.symlink_to(here.repository)
    there.ship("1.1")
    here.add("1.2")
    here.ok("publish")
    (name,) = (path.name for path in refresh_paths(here.workspace))
    assert name.startswith("000002-")
    _refused(here, f"history/refreshes/{name}: snapshot 2 has another gateway-")
    for kind in ("", "objects", "ceremonies"):
        for path in (there.directory / "history" / kind).glob("*"):
            if path.is_file():
                shutil.copy(path, here.directory / "history" / kind)
    assert "refreshed" not in here.ok("history").out
    assert name not in here.run("history", "--verify").out


@pytest.mark.parametrize(
    ("versions", "words"),
    [((), ""), ((3,), ""), ((3, 4, 5), ""), ((1, 3), "2"), ((1, 4, 5, 9), "2 to 3, 6 to 8")],
)
def test_missing_versions_in_words(versions: tuple[int, ...], words: str) -> None:
    assert in_words(list(runs(versions))) == words


@pytest.mark.parametrize("followed_by", ["refresh", "publish"])
def test_a_publish_that_was_killed_gets_its_record_although_somebody_has_followed(
    following: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, followed_by: str
) -> None:
    """Killed after its commit; a refresh runs elsewhere before it is run again."""
    here, there = following, following.copy(tmp_path / "there" / "acme")
    shutil.rmtree(there.repository)
    there.repository.symlink_to(here.repository)
    with monkeypatch.context() as patched:
        patched.setattr("repo_tools.publishing.publish.settle", _die)
        assert here.run("publish").code == ExitCode.RETRY_LATER
    assert not (here.workspace.history / "000002.json").exists()
    if followed_by == "publish":
        shutil.rmtree(there.directory / "staged")
        there.add("1.2")
        there.ok("publish")
        shutil.copytree(there.directory / "history", here.directory / "history", dirs_exist_ok=True)
    else:
        there.later(hours=1).ok("refresh")
    here = here.later(hours=2)
    here.ok("publish")
    here.add("1.3")
    here.ok("publish")
    told = here.ok("--json", "history", "--verify").json
    assert "000002.json" in [each["name"] for each in told["published"]]
    assert len(told["refreshed"]) == (1 if followed_by == "refresh" else 0)


def test_a_publish_that_never_was_live_gets_no_record(following: Lab) -> None:
    """It lost the race for its version: the name in the storage is of another timestamp."""
    lab, seen = _refresh(following, 2)
    ws = lab.workspace
    assert was_live(ws, ws.storage(), seen[0])
    assert not was_live(ws, ws.storage(), seen[0] + b" ")
    assert not was_live(ws, ws.storage(), seen[1])


def _die(*_: object) -> None:
    raise RetryLaterError("killed", "run it again")


# Epochs.


@pytest.mark.parametrize("stolen", [False, True])
def test_what_was_live_last_in_an_epoch_is_taken_by_the_next_one(
    at: Callable[[str], Lab], *, stolen: bool
) -> None:
    """No publish of its own will. What a thief made live there at last is not believed."""
    ended, lab = at("anchored"), at("staged")
    accepted = stranded(lab)
    shutil.rmtree(ended.repository)
    ended.repository.symlink_to(lab.repository)
    seen = []
    for _ in range(3):
        ended = ended.later(hours=1)
        ended.ok("refresh", *accepted)
        seen.append(_live(ended))
    if stolen:
        (lab.repository / "metadata/timestamp.json").write_bytes(b"{}")
    lab.ok("publish", *accepted)
    before = lab.workspace.before()
    assert before is not None
    assert [path.read_bytes() for path in refresh_paths(before)] == seen[: 2 if stolen else 3]
    # Attack: what a thief of the keys of that epoch goes on to sign there is nobody's history.
    if not stolen:
        ended.later(hours=1).ok("refresh", *accepted)
    take_before(lab.workspace, print)
    assert len(refresh_paths(before)) == (2 if stolen else 3)
    assert f"2 published states, {2 if stolen else 3} refreshes" in _proof(lab)


@pytest.mark.parametrize("live", [False, True])
def test_an_epoch_before_that_left_no_record_stops_no_publish(
    at: Callable[[str], Lab], *, live: bool
) -> None:
    """A clone without it, or a primary that never published: nobody knows from where on."""
    lab = at("staged")
    before = lab.workspace.before()
    assert before is not None
    for path in before.history.glob("*.json"):
        path.unlink()
    if not live:
        (lab.repository / "metadata/timestamp.json").write_bytes(b"{}")
    take_before(lab.workspace, print)
    assert refresh_paths(before) == []
    lab.ok("publish", *stranded(lab))


def _proof(lab: Lab) -> str:
    shutil.rmtree(lab.repository)
    return lab.ok("history", "--verify").out


def test_a_refresh_that_was_killed_and_followed_owes_nothing(following: Lab) -> None:
    lab, seen = _refresh(following, 2)
    ws = lab.workspace
    write_journal(ws, Journal("", "", {}, b"", seen[0], None))
    lab.ok("publish")
    assert load_journal(ws) is None
    assert _taken(lab) == seen
    lab.ok("history", "--verify")
