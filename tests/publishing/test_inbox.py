"""The inbox by itself: what is where, what is whole, and whose turn it is."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from client_reference.errors import LockedError, NotTrustedError
from repo_tools.publishing import inbox, intake
from repo_tools.publishing.inbox import Answer, Listing, Submission
from repo_tools.storage.local import LocalStorage

if TYPE_CHECKING:
    from pathlib import Path

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


def test_a_long_reason_is_cut() -> None:
    long = replace(REFUSED, reason="x" * 5000, hint="y" * 5000)
    assert len(long.to_json()) < 5000


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
    items = {each.id: intake._Item(each.id, each, tmp_path, handover=False) for each in work}
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
