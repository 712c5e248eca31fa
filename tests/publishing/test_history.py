"""`firmroot history`: what was published is said, and what was tampered with is named."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.publishing.lab import Lab


@pytest.fixture
def two(following: Lab) -> Lab:
    """A workspace that published twice."""
    following.ok("publish")
    return following


def test_it_says_who_signed_what(two: Lab) -> None:
    said = two.ok("history").out
    assert "000001.json" in said
    assert "000002.json" in said
    assert "gateway-stable 2, signed by" in said
    assert "000001.json" not in two.ok("history", "gateway@1.1").out
    assert "000002.json" not in two.ok("history", "targets").out
    assert "000002.json" in two.ok("history", "gateway/stable").out
    assert two.run("history", "gateway@9").code == ExitCode.USAGE


def test_what_is_recorded_verifies_without_the_storage_also_after_a_refresh(two: Lab) -> None:
    later = two.later(days=-1)
    later.ok("refresh")
    later.repository.rename(later.directory / "away")
    assert "verified: 2 recorded states; 0 older records" in later.ok("history", "--verify").out


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))


def _refused(lab: Lab, text: str) -> None:
    done = lab.run("history", "--verify")
    assert done.code == ExitCode.NOT_TRUSTED
    assert text in done.out


def test_a_removed_record_is_named_and_given_back_all_verifies(two: Lab) -> None:
    path = two.directory / "history/000001.json"
    data = path.read_bytes()
    path.unlink()
    _refused(two, "history/000001.json is missing: 000002.json was made after it")
    path.write_bytes(data)
    two.ok("history", "--verify")


def test_the_newest_record_removed_is_missed_by_what_people_signed(two: Lab) -> None:
    (two.directory / "history/000002.json").unlink()
    _refused(two, "no record says how metadata/gateway-stable.json (version 2) came to be live")


def test_an_edited_record_is_named(two: Lab) -> None:
    _edit(two.directory / "history/000001.json", when="2020-01-01T00:00:00Z")
    _refused(two, "history/000001.json is not the one that 000002.json was made after")


def test_a_record_that_names_another_signer_is_named(two: Lab) -> None:
    path = two.directory / "history/000002.json"
    roles = json.loads(path.read_bytes())["roles"]
    roles["gateway-stable"]["signed_by"] = ["mallory"]
    _edit(path, roles=roles)
    _refused(two, "history/000002.json: gateway-stable was signed by")


def test_changed_and_missing_bytes_are_named(two: Lab) -> None:
    record = json.loads((two.directory / "history/000002.json").read_bytes())
    path = two.directory / f"history/metadata/{record['timestamp']['sha256']}.json"
    path.write_bytes(path.read_bytes() + b" ")
    _refused(two, f"history/000002.json: history/metadata/{path.name} was changed")
    path.unlink()
    _refused(two, f"history/000002.json: history/metadata/{path.name} is missing")


def test_an_older_record_is_shown_and_said_to_hold_less(two: Lab) -> None:
    path = two.directory / "history/000002.json"
    record = json.loads(path.read_bytes())
    del record["state"], record["previous"]
    path.write_text(json.dumps(record))
    assert "an older record" in two.ok("history").out
    assert "1 recorded states; 1 older records" in two.ok("history", "--verify").out


def test_a_rotation_verifies_with_the_key_that_is_gone_and_the_new_one(live: Lab) -> None:
    live.ok("rotate", "alice")
    live.ok("sign")
    live.ok("publish")
    said = live.ok("history", "--verify", "root").out
    assert "root 2, signed by alice" in said
    assert "0 older records" in said


def test_an_epoch_has_records_of_its_own_that_verify(at: Callable[[str], Lab]) -> None:
    there = at("there")
    assert "verified: 1 recorded states" in there.ok("history", "--verify").out
