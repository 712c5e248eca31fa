"""What a signer's own machine remembers, and that nobody else can choose what is compared."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from client_reference.errors import ConfigurationError, NotTrustedError
from repo_tools.signing.known_good import KnownGood, user_file
from repo_tools.signing.unusual import Person
from tests.signing.team import NOW
from tests.signing.test_unusual import A, B, expires, root

PEOPLE = {A: Person("alice", "alice", "a@acme.example")}


def memory(tmp_path: Path, *, by_key: bool = True) -> KnownGood:
    return KnownGood.open(tmp_path / "deep" / "known-good.json", by_key=by_key)


def keep(tmp_path: Path, version: int, *keyids: str, by_key: bool = True) -> None:
    memory(tmp_path, by_key=by_key).keep("root", keyids, root(version), PEOPLE, {}, NOW)


def test_what_was_signed_is_remembered_for_its_owner_alone(tmp_path: Path) -> None:
    assert memory(tmp_path).last("root", [A], root(4)) is None
    keep(tmp_path, 3, A)
    last = memory(tmp_path).last("root", [A], root(4))
    assert last is not None
    assert (last.signed, last.people, last.when) == (root(3), PEOPLE, "2026-03-02")
    assert stat.S_IMODE(memory(tmp_path).path.stat().st_mode) == 0o600


def test_an_entry_belongs_to_a_key_where_there_is_no_workspace(tmp_path: Path) -> None:
    keep(tmp_path, 3, A)
    assert memory(tmp_path).last("root", [B], root(4)) is None
    assert memory(tmp_path).last("targets", [A], root(4)) is None
    keep(tmp_path, 5, B)
    last = memory(tmp_path).last("root", [A, B], root(9))
    assert last is not None
    assert last.signed.version == 5


def test_an_entry_belongs_to_a_role_in_a_workspace(tmp_path: Path) -> None:
    keep(tmp_path, 3, A, by_key=False)
    assert memory(tmp_path, by_key=False).last("root", (), root(4)) is not None
    assert memory(tmp_path, by_key=False).last("targets", (), root(4)) is None


def test_who_looks_again_at_what_they_signed_sees_what_it_changed(tmp_path: Path) -> None:
    keep(tmp_path, 3, A)
    assert memory(tmp_path).last("root", [A], root(3)) is None
    assert memory(tmp_path).has_signed("root", [A], root(3))
    assert not memory(tmp_path).has_signed("root", [A], root(4))
    assert not memory(tmp_path).has_signed("root", [B], root(3))
    for version in (4, 4, 5):
        keep(tmp_path, version, A)
    last = memory(tmp_path).last("root", [A], root(5))
    assert last is not None
    assert last.signed.version == 4
    other = memory(tmp_path).last("root", [A], root(5, expires("2026-01-01")))
    assert other is not None
    assert other.signed.version == 5


def test_what_was_tested_is_remembered(tmp_path: Path) -> None:
    memory(tmp_path).record_tested([], NOW)
    assert not memory(tmp_path).path.exists()
    memory(tmp_path).record_tested(["1" * 64], NOW)
    memory(tmp_path).record_tested(["1" * 64, "2" * 64], NOW)
    assert memory(tmp_path).tested == {"1" * 64, "2" * 64}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b'{"signed": {"root KEY": {}}, "tested": {}}',
        b'{"signed": {"root KEY": 1}, "tested": {}}',
        (
            b'{"signed": {"root KEY": {"content": {}, "people": {}, "files": [], "when": ""}},'
            b' "tested": {}}'
        ),
        (
            b'{"signed": {"root KEY": {"content": {}, "people": [], "files": [], "when": ""}},'
            b' "tested": {}}'
        ),
    ],
)
def test_a_damaged_memory_is_not_passed_over(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "deep" / "known-good.json"
    file.parent.mkdir()
    file.write_bytes(data.replace(b"KEY", A.encode()))
    with pytest.raises(NotTrustedError, match="remembers what you signed last, is damaged"):
        memory(tmp_path).last("root", [A], root(4))
    # Honest again.
    file.write_text(json.dumps({"signed": {}, "tested": {}}))
    assert memory(tmp_path).last("root", [A], root(4)) is None


def test_the_file_of_the_user_is_where_such_files_are() -> None:
    home = {"HOME": "/home/a"}
    assert user_file(home) == Path("/home/a/.local/share/firmroot/known-good.json")
    assert user_file({**home, "XDG_DATA_HOME": "/x"}) == Path("/x/firmroot/known-good.json")
    # The specification: a relative path is ignored.
    assert user_file({**home, "XDG_DATA_HOME": "x"}) == user_file(home)
    with pytest.raises(ConfigurationError, match="neither XDG_DATA_HOME nor HOME"):
        user_file({})
