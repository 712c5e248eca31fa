"""The inbox by itself: what is where, what is whole, and whose turn it is."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from datetime import UTC, datetime
from stat import S_ISDIR
from typing import TYPE_CHECKING, Self
from unittest.mock import patch

import pytest
from tuf.api.metadata import TargetFile, Targets

from client_reference.errors import LockedError, NotTrustedError, RefusedError
from client_reference.payload.segments import SEGMENT, SUFFIX
from client_reference.strictjson import MalformedJsonError
from repo_tools.metadata.bins import MAX_BINS
from repo_tools.publishing import inbox, intake
from repo_tools.publishing.examine import Examined
from repo_tools.publishing.inbox import Answer, Listing, Submission
from repo_tools.publishing.prepare import read_base
from repo_tools.storage.local import LocalStorage

if TYPE_CHECKING:
    from pathlib import Path

    from tests.publishing.lab import Lab

NOW = datetime(2026, 3, 2, 6, 0, tzinfo=UTC)
METADATA, IMAGE = b"metadata", b"image"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


WORK = Submission("gateway-builds", 2, len(METADATA), sha256(METADATA), "", 0)
OBJECTS = {sha256(METADATA): METADATA, sha256(IMAGE): IMAGE}
REFUSED = Answer("refused", "gateway-builds", 2, "bad", "mend it", "2026-03-02T06:00:00Z")


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "repository")


def test_what_was_handed_in_is_there_once_and_whole(storage: LocalStorage) -> None:
    assert inbox.list_inbox(storage) == Listing((), frozenset(), (), (), ())
    assert inbox.hand_in(storage, WORK, OBJECTS) is True
    assert inbox.hand_in(storage, WORK, OBJECTS) is False
    assert inbox.list_inbox(storage).pending == (WORK.id,)
    assert inbox.read_submission(storage, WORK.id) == WORK
    assert inbox.is_there(storage, WORK)
    again = replace(WORK, attempt=2)
    assert again.id != WORK.id
    assert not inbox.is_there(storage, again)
    for digest, data in OBJECTS.items():
        assert storage.read(inbox.object_path(WORK.id, digest), 99).data == data


def test_whoever_hands_in_a_lot_is_told_how_far_it_is(storage: LocalStorage) -> None:
    objects = {sha256(bytes([n])): bytes([n]) for n in range(7)}
    said: list[str] = []
    with patch.object(inbox, "_STEP", 3):
        inbox.hand_in(storage, WORK, objects, said.append)
    start = "hand in gateway-builds: "
    assert said == [f"{start}3 of 7 objects", f"{start}6 of 7 objects"]


def test_the_document_is_written_last(storage: LocalStorage) -> None:
    """A submitter who is interrupted left no submission, and finishes later."""
    create = storage.create

    def dies(path: str, source: bytes | Path, digest: str) -> object:
        if path.endswith("submission.json"):
            raise KeyboardInterrupt
        return create(path, source, digest)

    with patch.object(storage, "create", dies), pytest.raises(KeyboardInterrupt):
        inbox.hand_in(storage, WORK, OBJECTS)
    found = inbox.list_inbox(storage)
    assert (found.pending, found.unfinished) == ((), (WORK.id,))
    assert inbox.hand_in(storage, WORK, OBJECTS) is True
    assert inbox.list_inbox(storage).unfinished == ()


def test_nobody_writes_over_a_submission(storage: LocalStorage) -> None:
    inbox.hand_in(storage, WORK, OBJECTS)
    path = inbox.object_path(WORK.id, sha256(IMAGE))
    with pytest.raises(LockedError):
        storage.create(path, b"other", sha256(b"other"))
    # Whoever was first with other bytes under that name has not made it that submission.
    squatted = replace(WORK, attempt=2)
    place = f"inbox/submissions/{squatted.id}/submission.json"
    storage.create(place, WORK.to_json(), sha256(WORK.to_json()))
    with pytest.raises(LockedError):
        inbox.hand_in(storage, squatted, OBJECTS)
    with pytest.raises(NotTrustedError, match="expected its name"):
        inbox.read_submission(storage, squatted.id)
    assert inbox.hand_in(storage, replace(WORK, attempt=3), OBJECTS) is True


def test_the_first_answer_stays_and_the_newest_note(storage: LocalStorage) -> None:
    inbox.hand_in(storage, WORK, OBJECTS)
    waits = replace(REFUSED, outcome="waits", reason="for a build")
    inbox.note(storage, WORK.id, waits)
    assert inbox.list_inbox(storage).noted == {WORK.id}
    with patch.object(storage, "remove", side_effect=AssertionError):
        inbox.note(storage, WORK.id, replace(waits, when="2026-03-03T06:00:00Z"))
    inbox.note(storage, WORK.id, replace(waits, reason="for a device\nor two"))
    found = inbox.read_note(storage, WORK.id)
    assert found is not None
    assert found.reason == "for a device\nor two"
    inbox.answer(storage, WORK.id, REFUSED)
    inbox.answer(storage, WORK.id, replace(REFUSED, reason="late"))
    assert inbox.read_answer(storage, WORK.id) == REFUSED


def test_what_is_answered_is_cleared(storage: LocalStorage) -> None:
    inbox.hand_in(storage, WORK, OBJECTS)
    inbox.note(storage, WORK.id, replace(REFUSED, outcome="waits"))
    inbox.answer(storage, WORK.id, REFUSED)
    assert inbox.list_inbox(storage).leftovers == (WORK.id,)
    inbox.clear(storage, WORK.id)
    inbox.clear(storage, WORK.id)
    assert list(storage.paths("inbox/")) == [f"inbox/answers/{WORK.id}.json"]
    assert inbox.list_inbox(storage) == Listing((), frozenset(), (), (), ())
    # A note of another publisher who was at work meanwhile goes as well.
    inbox.note(storage, WORK.id, replace(REFUSED, outcome="waits"))
    assert inbox.list_inbox(storage).leftovers == (WORK.id,)


def test_the_document_is_removed_last(storage: LocalStorage) -> None:
    inbox.hand_in(storage, WORK, OBJECTS)
    removed: list[str] = []
    with patch.object(storage, "remove", removed.append):
        inbox.clear(storage, WORK.id)
    assert [path.rpartition("/")[2] for path in removed] == [
        *sorted(OBJECTS),
        "submission.json",
        f"{WORK.id}.json",
    ]


def test_what_is_nobodys_is_left_alone(storage: LocalStorage) -> None:
    odd = [
        "inbox/x",
        "inbox/answers/x.json",
        f"inbox/submissions/{'0' * 64}/../x".replace("../", "dir/"),
        f"inbox/submissions/{'0' * 63}/submission.json",
        f"inbox/submissions/{'0' * 64}/x",
        f"inbox/others/{'0' * 64}/submission.json",
        f"inbox/others/{'0' * 64}.json",
        f"inbox/waiting/{'A' * 64}.json",
    ]
    for path in odd:
        storage.create(path, b"x", sha256(b"x"))
    found = inbox.list_inbox(storage)
    assert found == Listing((), frozenset(), (), (), tuple(sorted(odd)))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"x" * 65_537, "longer than"),
        (b"{}", "is damaged"),
        (b'{"outcome": "taken"}', "is damaged"),
        (REFUSED.to_json().replace(b"bad", b"b" * 2001), "at most 2000 characters"),
        (REFUSED.to_json().replace(b'"bad"', b"5"), "at most 2000 characters"),
    ],
)
def test_an_answer_that_is_damaged_is_told_as_refused(
    storage: LocalStorage, data: bytes, says: str
) -> None:
    storage.create(f"inbox/answers/{WORK.id}.json", data, sha256(data))
    found = inbox.read_answer(storage, WORK.id)
    assert found is not None
    assert found.outcome == "refused"
    assert says in found.reason


def test_a_long_reason_is_cut_and_read_again(storage: LocalStorage) -> None:
    inbox.answer(storage, WORK.id, replace(REFUSED, reason="x" * 5000, hint="y" * 5000))
    found = inbox.read_answer(storage, WORK.id)
    assert found is not None
    assert (found.outcome, found.reason, found.hint) == ("refused", "x" * 2000, "y" * 2000)


def test_new_ones_go_first_and_those_that_wait_take_turns() -> None:
    ids = [sha256(bytes([n])) for n in range(40)]
    new, noted = sorted(ids[:3]), ids[3:]
    listing = Listing(tuple(sorted(ids)), frozenset(noted), (), (), ())
    with patch.object(intake, "BATCH", 13):
        first = intake.batch(listing, NOW)
        later = intake.batch(listing, NOW.replace(hour=7))
    assert first[:3] == later[:3] == new
    assert len(first) == len(later) == 13
    assert set(first[3:]) != set(later[3:]), "nobody can choose to stand before the others"
    assert set(first[3:]) <= set(noted)


def test_builds_go_before_what_offers_them_and_the_newest_of_a_role_first(tmp_path: Path) -> None:
    """Whatever the channels are called: `gateway-beta` comes before `gateway-builds` in a list."""
    roles = ("gateway-beta", "gateway_-0a", "gateway-builds", "gateway_-0b")
    work = [replace(WORK, role=role, version=n) for role in roles for n in (2, 3)]
    items = {
        each.id: intake._Item(each.id, each, tmp_path, False, {each.role: each.version})  # noqa: FBT003
        for each in work
    }
    judges = intake._Judges(*[None] * 5)  # type: ignore[arg-type]  # of what is in its items only

    def judge(_: object, identity: str, *, fetch: bool) -> intake._Item:
        assert fetch
        return items[identity]

    with patch.object(intake._Judges, "_judge", judge):
        found = judges.gather(items)
    assert [(each.submission.role, each.submission.version) for each in found] == [
        (role, version)
        for role in ("gateway-builds", "gateway_-0a", "gateway_-0b", "gateway-beta")
        for version in (3, 2)
    ]


def test_of_two_that_bring_the_same_the_one_with_more_bins_comes_first(tmp_path: Path) -> None:
    def item(identity: str, **bins: int) -> intake._Item:
        brings = {WORK.role: WORK.version, **bins}
        return intake._Item(identity, WORK, tmp_path, handover=False, brings=brings)

    one, more, newer = item("a", x=2), item("more", x=2, y=1), item("newer", x=4)
    assert sorted([one, more, newer], key=intake._order) == [newer, more, one]


def test_of_several_the_ones_that_bring_the_same_are_found(tmp_path: Path) -> None:
    """Whatever comes after them."""

    def item(identity: str, *brings: str) -> intake._Item:
        return intake._Item(identity, WORK, tmp_path, False, dict.fromkeys(brings, 1))  # noqa: FBT003

    one, two, three = item("one", "a", "b"), item("two", "b"), item("three", "c")
    judges = intake._Judges(*[None] * 5)  # type: ignore[arg-type]  # of its verdicts only
    with patch.object(intake, "_with", lambda *_: None):
        chosen = intake._choose(None, [one, two, three], lambda _: None, judges)  # type: ignore[arg-type]
    assert chosen == [one, three]
    [said] = judges.verdicts
    assert (said.id, said.outcome) == ("two", intake.Outcome.WAITS)
    assert said.reason == "version 2 of gateway-builds goes first"


HOME = replace(WORK, role="gateway_-0a", base="b" * 64)
OTHER = replace(WORK, role="gateway_-0b", version=7)


def test_the_list_of_bins_is_read_as_it_was_written(storage: LocalStorage) -> None:
    listed = inbox.bin_list({each.role: each for each in (HOME, OTHER)})
    work = replace(WORK, attempt=3, epoch=2, bins=sha256(listed))
    inbox.hand_in(storage, work, {**OBJECTS, work.bins: listed})
    assert inbox.read_submission(storage, work.id) == work
    expected = tuple(replace(each, attempt=3, epoch=2) for each in (HOME, OTHER))
    assert inbox.read_bin_list(storage, work.id, work) == expected
    assert inbox.read_bin_list(storage, WORK.id, WORK) == ()
    (storage.root / inbox.object_path(work.id, work.bins)).write_bytes(listed + b" ")
    with pytest.raises(NotTrustedError, match=f"the list of hash bins of {WORK.role} has sha256"):
        inbox.read_bin_list(storage, work.id, work)


@pytest.mark.parametrize("work", [WORK, HOME])
@pytest.mark.parametrize(
    "name", ["gateway-builds", "gateway-beta", "sensor_-0a", "gateway_-0a/x", "../gateway_-0a"]
)
def test_only_bins_of_the_same_builds_role_go_with_it(work: Submission, name: str) -> None:
    """Attack: a list that names a role of others, or a path."""
    listed = inbox.bin_list({name: OTHER})
    with pytest.raises(RefusedError, match="only hash bins of gateway-builds go with it"):
        inbox.parse_bin_list(listed, work)
    assert inbox.parse_bin_list(inbox.bin_list({OTHER.role: OTHER}), work) == (OTHER,)


def test_a_role_is_not_listed_beside_itself() -> None:
    with pytest.raises(RefusedError, match="handed in together with 'gateway_-0a'"):
        inbox.parse_bin_list(inbox.bin_list({HOME.role: HOME}), HOME)


def test_a_list_has_bins_and_no_more_than_there_can_be() -> None:
    wrong = [b'{"schema": 1, "bins": []}', inbox.bin_list({})]
    wrong.append(inbox.bin_list({f"gateway_-{n:04x}": OTHER for n in range(MAX_BINS + 1)}))
    for data in wrong:
        with pytest.raises(MalformedJsonError, match="1 to 16384 hash bins"):
            inbox.parse_bin_list(data, WORK)
    most = inbox.bin_list({f"{'p' * 32}_-{n:04x}": HOME for n in range(MAX_BINS)})
    work = replace(WORK, role=f"{'p' * 32}-builds")
    assert len(inbox.parse_bin_list(most, work)) == MAX_BINS


def test_before_the_first_publish_nobody_is_answered(ready: Lab) -> None:
    """There is nothing yet to hold a signature against."""
    storage = ready.workspace.storage()
    inbox.hand_in(storage, WORK, OBJECTS)
    assert "inbox" not in ready.ok("publish").out
    assert inbox.list_inbox(storage).pending == (WORK.id,)
    assert f"gateway-builds 2 ({WORK.id[:8]}): refused: " in ready.ok("publish").out
    assert ready.fresh_device()[1] == "installs 1.0"


def test_what_is_live_is_answered_so_while_something_newer_is_staged(following: Lab) -> None:
    storage, role = following.workspace.storage(), WORK.role
    data = read_base(following.workspace, storage).state.roles[role]
    work = replace(WORK, version=1, length=len(data), sha256=sha256(data))
    inbox.hand_in(storage, work, {work.sha256: data})
    assert f"{role} 1 ({work.id[:8]}): published" in following.ok("publish").out
    assert following.fresh_device()[1] == "installs 1.1"


# The copy of a file that was handed in

SEGMENT_ = bytes(range(256)) * (SEGMENT // 256)
LONG = SEGMENT_ + b"the second segment"


class Endless:
    """A file of the inbox that does not end."""

    def __init__(self) -> None:
        self.read_so_far = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self, size: int) -> bytes:
        self.read_so_far += size
        assert self.read_so_far <= 4 * SEGMENT, "whoever reads on fills the disk"
        return b"x" * size


def copy(
    storage: LocalStorage, where: Path, data: bytes, signed: bytes = LONG, listed: object = None
) -> Path:
    """Copy what lies in the inbox, and what is signed may be something else."""
    if data and not list(storage.paths("inbox/")):
        storage.create("inbox/file", data, sha256(data))
    target = TargetFile.from_data("builds/p/1/a.img", signed, ["sha256"])
    role = Targets()
    if isinstance(listed, str):
        target.unrecognized_fields["custom"] = {"segments": listed}
    elif isinstance(listed, bytes):
        beside = TargetFile.from_data(target.path + SUFFIX, listed, ["sha256"])
        role.targets[beside.path] = beside
    final = where / "targets/a.img"
    assert intake._copy(storage, "inbox/file", target, Examined(role, {}), final) is bool(data)
    return final


def segments(data: bytes) -> bytes:
    pieces = (data[at : at + SEGMENT] for at in range(0, len(data), SEGMENT))
    return b"".join(hashlib.sha256(piece).digest() for piece in pieces)


@pytest.mark.parametrize("listed", [None, segments(LONG), sha256(segments(LONG))])
def test_a_file_is_copied_if_it_is_what_is_signed(
    storage: LocalStorage, tmp_path: Path, listed: object
) -> None:
    assert copy(storage, tmp_path, LONG, listed=listed).read_bytes() == LONG


@pytest.mark.parametrize("listed", [b"another list", sha256(b"another list")])
def test_a_file_whose_list_of_segments_is_another_is_refused(
    storage: LocalStorage, tmp_path: Path, listed: object
) -> None:
    """No device could install it."""
    with pytest.raises(RefusedError, match="is not the list of its segments"):
        copy(storage, tmp_path, LONG, listed=listed)
    assert not list(tmp_path.rglob("a.img"))


@pytest.mark.parametrize("data", [LONG[:-1], LONG + b"x", SEGMENT_, SEGMENT_ + b"x"])
def test_a_file_of_another_length_is_refused(
    storage: LocalStorage, tmp_path: Path, data: bytes
) -> None:
    signed = SEGMENT_ if data == SEGMENT_ + b"x" else LONG
    with pytest.raises(NotTrustedError, match=f"expected {len(signed)} bytes"):
        copy(storage, tmp_path, data, signed)
    assert not list(tmp_path.rglob("a.img"))


def test_a_file_that_does_not_end_is_not_read_to_its_end(
    storage: LocalStorage, tmp_path: Path
) -> None:
    with (
        patch.object(storage, "open", lambda _: Endless()),
        pytest.raises(NotTrustedError, match="expected"),
    ):
        copy(storage, tmp_path, LONG)


def test_a_file_that_is_not_there_leaves_nothing(storage: LocalStorage, tmp_path: Path) -> None:
    assert not copy(storage, tmp_path, b"").exists()


def test_a_file_is_on_disk_before_it_has_its_name_and_its_name_before_it_counts(
    storage: LocalStorage, tmp_path: Path
) -> None:
    events: list[tuple[bool, bool]] = []
    final = tmp_path / "targets/a.img"
    storage.create("inbox/file", LONG, sha256(LONG))
    sync = os.fsync

    def synced(descriptor: int) -> None:
        events.append((S_ISDIR(os.fstat(descriptor).st_mode), final.exists()))
        sync(descriptor)

    with patch("os.fsync", synced):
        copy(storage, tmp_path, LONG)
    # Directories that are made on the way are synced before it.
    assert events[-2:] == [(False, False), (True, True)]
