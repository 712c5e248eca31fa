"""The store on a whole and on a damaged disk: the last accepted state, or a clear error."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from client_reference.errors import (
    ConfigurationError,
    FirmrootError,
    LocalFailureError,
    LockedError,
)
from client_reference.trust import record
from client_reference.trust import store as store_module
from client_reference.trust.state import (
    DeviceState,
    Image,
    InstallState,
    MemoryStore,
    Phase,
    TrustState,
)
from client_reference.trust.store import SCHEMA, SqliteStore, StoreLostError
from tests.power.checks import FULL, workspace
from tests.power.drivers import EPOCH, ROOT, chain, root_file, state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

LAST = 4
A, B = "a.db", "b.db"


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where a store may be; on a file system without a medium, syncs being tested elsewhere."""
    with workspace() as root:
        yield root / "state"


@pytest.fixture
def filled(directory: Path) -> Path:
    """A store with the states 0 to LAST."""
    fill(directory)
    return directory


def fill(directory: Path, last: int = LAST) -> None:
    with SqliteStore(directory) as store:
        for number in range(last + 1):
            known = len(store.root_chain())
            store.commit(state(number), chain(number)[known:])


def loaded(directory: Path) -> DeviceState | None:
    with SqliteStore(directory) as store:
        return store.load()


def peeked(directory: Path) -> DeviceState | None:
    return SqliteStore(directory).peek()


def trace(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements of every connection from now on."""
    statements: list[str] = []
    connect = sqlite3.connect

    def traced(*words: object, **options: object) -> sqlite3.Connection:
        db: sqlite3.Connection = connect(*words, **options)  # type: ignore[call-overload]
        db.set_trace_callback(statements.append)
        return db

    monkeypatch.setattr(sqlite3, "connect", traced)
    return statements


def number_in(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        (number,) = db.execute("SELECT number FROM generation").fetchone()
        return int(number)


def test_a_new_store_is_empty_and_private(directory: Path) -> None:
    assert loaded(directory) is None
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert SqliteStore(directory).peek() is None
    assert not list(directory.glob("*.db*"))


def test_an_empty_store_is_empty_as_often_as_it_is_asked(directory: Path) -> None:
    with SqliteStore(directory) as store:
        assert [store.load(), store.load()] == [None, None]
        store.commit(state(0))
        assert store.load() == state(0)


def test_under_the_lock_a_state_is_read_once(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SqliteStore(filled) as store:
        first = store.load()
        with monkeypatch.context() as patch:
            patch.setattr(sqlite3, "connect", lambda *_, **__: pytest.fail("read again"))
            assert store.load() == first
        store.commit(state(LAST + 1))
        with monkeypatch.context() as patch:
            patch.setattr(sqlite3, "connect", lambda *_, **__: pytest.fail("read again"))
            assert store.load() == state(LAST + 1)


def test_every_fact_comes_back_as_it_was(directory: Path) -> None:
    image = Image("ab" * 32, 5, "1.0", 7, "B", epoch=4)
    trust = TrustState(
        factory_sha256="cd" * 32,
        root=b"\x00\xff root",
        root_version=3,
        timestamp=b"t",
        snapshot=None,
        roles={"targets": b"", "a/b": b"x", "ünïcode": b"y"},
        time_floor=2**53 - 1,
        epoch=4,
        recovery_root=b"\x00\xff recovery",
        recovery_version=6,
    )
    install = InstallState(Phase.TRIAL, image, image, 9, ("ef" * 32,), (image, image))
    with SqliteStore(directory) as store:
        store.commit(DeviceState(trust, install))
        assert store.load() == DeviceState(trust, install)
    assert loaded(directory) == DeviceState(trust, install)
    assert SqliteStore(directory).peek() == DeviceState(trust, install)


def test_every_number_of_the_trust_state_is_kept() -> None:
    numbers: dict[str, Any] = {f.name: 7 for f in dataclasses.fields(TrustState) if f.type == "int"}
    kept = TrustState(factory_sha256="", root=b"", **numbers)
    assert "time_floor" in numbers
    assert record.decode(record.encode(DeviceState(kept), {})).trust == kept


def test_both_copies_hold_each_commit(filled: Path) -> None:
    assert number_in(filled / A) == number_in(filled / B) == LAST + 1
    for copy in (A, B):
        with workspace() as other:
            shutil.copy(filled / copy, other / copy)
            assert loaded(other) == state(LAST)


def test_a_commit_writes_only_the_parts_that_changed(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SqliteStore(filled) as store:
        last = store.load()
        assert last is not None
        later = dataclasses.replace(last.trust, time_floor=last.trust.time_floor + 1)
        statements = trace(monkeypatch)
        store.commit(last.with_trust(later))
    assert len([text for text in statements if "INTO part" in text]) == 2, "one in each copy"


def test_what_a_state_does_not_have_any_more_is_gone(filled: Path) -> None:
    with SqliteStore(filled) as store:
        store.commit(state(LAST + 1))
        bare = state(LAST + 1)
        bare = bare.with_trust(dataclasses.replace(bare.trust, timestamp=None, roles={}))
        store.commit(bare)
    assert loaded(filled) == bare


def test_the_root_chain_grows_and_is_verified(filled: Path) -> None:
    with SqliteStore(filled) as store:
        assert list(store.root_chain()) == chain(LAST)
        store.commit(state(LAST + 1))
        assert list(store.root_chain()) == chain(LAST)
        several = [root_file(n) for n in (4, 5, 6)]
        new = state(LAST + 1)
        store.commit(new.with_trust(dataclasses.replace(new.trust, root=several[-1])), several)
        assert list(store.root_chain()) == [*chain(LAST), *several]


def test_the_first_commit_may_bring_more_than_one_root(directory: Path) -> None:
    with SqliteStore(directory) as store:
        store.commit(state(2), [root_file(1), root_file(2)])
        assert list(store.root_chain()) == chain(2)
    with SqliteStore(directory) as store:
        assert list(store.root_chain()) == chain(2)


# Another epoch of the recovery anchor.


def test_an_epoch_begins_with_a_chain_of_its_own(filled: Path) -> None:
    with SqliteStore(filled) as store:
        store.begin_again(state(EPOCH))
        assert store.load() == state(EPOCH)
        assert list(store.root_chain()) == chain(EPOCH) == [root_file(1, 1)]
        store.commit(state(EPOCH + 2), [root_file(2, 1)])
        assert list(store.root_chain()) == chain(EPOCH + 2)
    for copy in (A, B):
        with workspace() as other:
            shutil.copy(filled / copy, other / copy)
            with SqliteStore(other) as store:
                assert store.load() == state(EPOCH + 2)
                assert list(store.root_chain()) == chain(EPOCH + 2)
            with closing(sqlite3.connect(other / copy)) as db:
                assert db.execute("SELECT position FROM root").fetchall() == [(0,), (1,)]


def test_an_epoch_begins_in_the_copies_that_are_there(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SqliteStore(filled) as store:
        store.load()
        statements = trace(monkeypatch)
        store.begin_again(state(EPOCH))
    assert len([text for text in statements if text == "DELETE FROM root"]) == 2
    assert not [text for text in statements if "CREATE" in text], "no copy was built anew"


@pytest.mark.parametrize("number", [1, LAST])
def test_an_epoch_begins_on_a_chain_of_any_length(directory: Path, number: int) -> None:
    fill(directory, number)
    with SqliteStore(directory) as store:
        store.begin_again(state(EPOCH))
    with SqliteStore(directory) as store:
        assert (store.load(), list(store.root_chain())) == (state(EPOCH), chain(EPOCH))


def test_an_epoch_may_begin_in_an_empty_store(directory: Path) -> None:
    with SqliteStore(directory) as store:
        store.begin_again(state(EPOCH))
    with SqliteStore(directory) as store:
        assert (store.load(), list(store.root_chain())) == (state(EPOCH), chain(EPOCH))


@pytest.mark.parametrize("copies", [(A,), (B,), (A, B)])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE part SET content = X'00' WHERE name = 'facts'",
        "UPDATE part SET name = 'else' WHERE name = 'trust.root'",
    ],
)
def test_an_epoch_that_begins_over_damage_that_came_meanwhile_is_whole(
    filled: Path, copies: Sequence[str], statement: str
) -> None:
    with SqliteStore(filled) as store:
        store.load()
        for copy in copies:
            with closing(sqlite3.connect(filled / copy, isolation_level=None)) as db:
                db.execute(statement)
        store.begin_again(state(EPOCH))
        assert list(store.root_chain()) == chain(EPOCH)
    for copy in (A, B):
        with workspace() as other:
            shutil.copy(filled / copy, other / copy)
            with SqliteStore(other) as store:
                assert (store.load(), list(store.root_chain())) == (state(EPOCH), chain(EPOCH))


def test_a_cut_between_the_copies_of_a_new_epoch_is_completed(filled: Path) -> None:
    with workspace() as old:
        shutil.copy(filled / B, old / B)
        with SqliteStore(filled) as store:
            store.begin_again(state(EPOCH))
        shutil.copy(old / B, filled / B)
    with SqliteStore(filled) as store:
        assert store.load() == state(EPOCH)
    (filled / A).unlink()
    with SqliteStore(filled) as store:
        assert (store.load(), list(store.root_chain())) == (state(EPOCH), chain(EPOCH))


def test_a_record_from_before_there_was_an_anchor_reads_as_without_one() -> None:
    parts = record.encode(state(1), {})
    facts = json.loads(parts["facts"])
    del facts["trust"]["recovery_version"], facts["trust"]["epoch"]
    old = {name: part for name, part in parts.items() if name != "trust.recovery_root"}
    trust = record.decode(old | {"facts": json.dumps(facts).encode()}).trust
    assert (trust.recovery_root, trust.recovery_version, trust.epoch) == (None, 0, 0)


def test_a_store_in_memory_begins_an_epoch_too() -> None:
    store = MemoryStore(state(0))
    store.commit(state(2), [root_file(2)])
    assert list(store.root_chain()) == chain(2)
    store.begin_again(state(EPOCH))
    assert (store.load(), list(store.root_chain())) == (state(EPOCH), chain(EPOCH))
    assert store.commits == 2


def test_an_empty_store_has_no_root_chain(directory: Path) -> None:
    with SqliteStore(directory) as store:
        assert list(store.root_chain()) == []


@pytest.mark.parametrize(
    "new_roots",
    [pytest.param([], id="none is given"), pytest.param([b"another"], id="another is given")],
)
def test_a_root_that_the_chain_does_not_have_is_refused(
    filled: Path, new_roots: list[bytes]
) -> None:
    with SqliteStore(filled) as store:
        with pytest.raises(LocalFailureError, match="not the state's root"):
            store.commit(state(LAST + 2), new_roots)
        assert store.load() == state(LAST)


def test_a_start_after_a_thousand_roots_reads_none_of_them(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = [root_file(n) for n in range(1000)]
    with SqliteStore(directory) as store:
        first = state(0)
        store.commit(first.with_trust(dataclasses.replace(first.trust, root=roots[-1])), roots)
    statements = trace(monkeypatch)
    loaded(directory)
    assert statements
    assert not [text for text in statements if "FROM root" in text]


def test_a_commit_that_changes_nothing_writes_nothing(filled: Path) -> None:
    before = [(filled / copy).read_bytes() for copy in (A, B)]
    with SqliteStore(filled) as store:
        store.commit(state(LAST))
        store.commit(state(LAST), [state(LAST).trust.root])
        assert list(store.root_chain()) == chain(LAST), "no root twice"
    assert [(filled / copy).read_bytes() for copy in (A, B)] == before


def test_a_store_is_used_only_in_its_block(directory: Path) -> None:
    store = SqliteStore(directory)
    for use in (
        store.load,
        store.root_chain,
        lambda: store.commit(state(0)),
        lambda: store.begin_again(state(0)),
    ):
        with pytest.raises(RuntimeError, match="outside"):
            use()
    with store:
        pass
    with pytest.raises(RuntimeError, match="outside"):
        store.load()


# Two processes.


def test_a_second_process_is_told_who_holds_the_lock(filled: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from client_reference.trust.store import SqliteStore"
        "\nwith SqliteStore(Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(filled)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        holder.stdout.readline()
        try:
            with pytest.raises(LockedError) as caught, SqliteStore(filled):
                pass
            assert f"process {holder.pid} (" in caught.value.message
            assert str(filled) in caught.value.message
            assert "wait" in caught.value.hint
            assert SqliteStore(filled).peek() == state(LAST), "status needs no lock"
        finally:
            holder.stdin.close()
    assert loaded(filled) == state(LAST)


def test_the_same_process_does_not_take_the_lock_twice(filled: Path) -> None:
    with SqliteStore(filled):
        with pytest.raises(LockedError), SqliteStore(filled):
            pass
        with pytest.raises(LockedError), SqliteStore(filled):
            pass


def test_the_holder_is_who_holds_this_lock_and_no_other(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = (filled / "lock").stat()
    device = f"{os.major(lock.st_dev):02x}:{os.minor(lock.st_dev):02x}"
    listed = tmp_path / "locks"
    listed.write_text(
        f"1: FLOCK ADVISORY WRITE 1 {device}:{lock.st_ino + 1} 0 EOF\n"
        f"2: POSIX ADVISORY WRITE 1 {device}:{lock.st_ino} 0 EOF\n"
        f"3: FLOCK ADVISORY WRITE 0 {device}:{lock.st_ino} 0 EOF\n"
        f"4: FLOCK ADVISORY WRITE {os.getpid()} {device}:{lock.st_ino} 0 EOF\n"
    )
    monkeypatch.setattr("client_reference.trust.store._LOCKS", listed)
    with (
        SqliteStore(filled),
        pytest.raises(LockedError, match=rf"process {os.getpid()} \("),
        SqliteStore(filled),
    ):
        pass


def test_where_the_kernel_does_not_tell_the_holder_is_somebody(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client_reference.trust.store._LOCKS", filled / "no-such-file")
    with (
        SqliteStore(filled),
        pytest.raises(LockedError, match="another firmroot process"),
        SqliteStore(filled),
    ):
        pass


def test_a_program_that_knows_no_lock_is_waited_for_and_named(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client_reference.trust.store._BUSY_SECONDS", 0.05)
    with closing(sqlite3.connect(filled / A, isolation_level=None)) as browser:
        browser.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LockedError, match=r"a\.db is in use"):
            loaded(filled)
        browser.execute("ROLLBACK")
    assert loaded(filled) == state(LAST)


# Damage.


def other_database(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE generation (x)")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "short": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "text": lambda path: path.write_text("not a database"),
    "another database": other_database,
    "the first page torn": lambda path: path.write_bytes(
        path.read_bytes()[:3584] + bytes(512) + path.read_bytes()[4096:]
    ),
}


@pytest.mark.parametrize("copy", [A, B])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_copy_is_built_anew_from_the_other(filled: Path, copy: str, damage: str) -> None:
    DAMAGE[damage](filled / copy)
    assert SqliteStore(filled).peek() == state(LAST), "without repairing anything"
    with SqliteStore(filled) as store:
        assert store.load() == state(LAST)
        assert list(store.root_chain()) == chain(LAST)
    (other,) = {A, B} - {copy}
    (filled / other).unlink()
    assert loaded(filled) == state(LAST), "the repaired copy is whole"


@pytest.mark.parametrize("first", DAMAGE)
@pytest.mark.parametrize("second", DAMAGE)
def test_with_both_copies_damaged_the_store_is_lost_and_can_begin_again(
    filled: Path, first: str, second: str
) -> None:
    DAMAGE[first](filled / A)
    DAMAGE[second](filled / B)
    if first in {"missing", "empty"} and second == "missing":
        assert loaded(filled) is None
        return
    with SqliteStore(filled) as store:
        with pytest.raises(StoreLostError, match="both copies") as caught:
            store.load()
        assert "factory root" in caught.value.hint
        store.commit(state(0))
        assert store.load() == state(0)
        assert list(store.root_chain()) == chain(0)
    assert loaded(filled) == state(0)


def test_a_lost_store_says_what_is_wrong_with_each_copy(filled: Path) -> None:
    for copy, statement in (
        (A, "DELETE FROM generation"),
        (B, "UPDATE part SET content = X'00' WHERE name = 'facts'"),
    ):
        with closing(sqlite3.connect(filled / copy, isolation_level=None)) as db:
            db.execute(statement)
    with pytest.raises(StoreLostError) as caught:
        loaded(filled)
    assert "a.db: it has no generation record; b.db: its digest does not" in caught.value.message


def test_a_look_says_what_is_wrong_with_each_copy(filled: Path) -> None:
    store = SqliteStore(filled)
    assert store.copies() == {A: "", B: ""}
    with workspace() as old:
        fill(old, LAST - 1)
        shutil.copy(old / A, filled / A)
    assert store.copies() == {A: "older", B: ""}
    DAMAGE["half"](filled / B)
    (filled / A).unlink()
    found = store.copies()
    assert found[A] == "absent"
    assert found[B] not in {"", "older", "damaged"}, "what is wrong, not only that"


def test_a_look_at_the_root_chain_of_an_empty_store(directory: Path, filled: Path) -> None:
    assert len(SqliteStore(filled).peek_chain()) == len(chain(LAST))
    assert SqliteStore(directory / "another").peek_chain() == ()


def test_a_commit_without_a_load_does_not_overwrite_a_lost_store(filled: Path) -> None:
    for copy in (A, B):
        DAMAGE["half"](filled / copy)
    with SqliteStore(filled) as store, pytest.raises(StoreLostError):
        store.commit(state(0))


@pytest.mark.parametrize("copy", [A, B])
def test_the_newer_copy_wins_and_the_other_follows(filled: Path, copy: str) -> None:
    with workspace() as old:
        fill(old, LAST - 1)
        shutil.copy(old / copy, filled / copy)
    assert SqliteStore(filled).peek() == state(LAST)
    assert number_in(filled / copy) == LAST, "a look repairs nothing"
    with SqliteStore(filled) as store:
        assert store.load() == state(LAST)
    assert number_in(filled / A) == number_in(filled / B) == LAST + 1


def test_a_part_that_was_changed_with_sqlite_itself_is_damage(filled: Path) -> None:
    for statement in (
        "UPDATE generation SET number = 99",
        "UPDATE part SET content = X'00' WHERE name = 'trust.root'",
        "INSERT INTO part VALUES ('more', X'00')",
        "DELETE FROM part WHERE name = 'facts'",
        "UPDATE part SET name = 'else' WHERE name = 'facts'",
        "UPDATE part SET content = 'text' WHERE name = 'facts'",
        "UPDATE part SET name = X'00' WHERE name = 'facts'",
        "UPDATE generation SET digest = 'text'",
        "UPDATE generation SET number = 'text'",
        "UPDATE generation SET number = -1",
        "UPDATE generation SET chain_length = 1 << 62",
        "UPDATE generation SET chain = X''",
        "DELETE FROM generation",
        "DROP TABLE part",
    ):
        with closing(sqlite3.connect(filled / A, isolation_level=None)) as db:
            db.execute(statement)
        assert loaded(filled) == state(LAST), statement


def test_a_part_that_is_there_twice_is_damage(filled: Path) -> None:
    with closing(sqlite3.connect(filled / A, isolation_level=None)) as db:
        db.execute("ALTER TABLE part RENAME TO old")
        db.execute("CREATE TABLE part (name TEXT, content BLOB)")
        db.execute("INSERT INTO part SELECT * FROM old")
        db.execute("INSERT INTO part SELECT * FROM old")
    assert loaded(filled) == state(LAST)
    with closing(sqlite3.connect(filled / A)) as db:
        assert not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'old'").fetchall()


@pytest.mark.parametrize("copy", [A, B])
def test_a_copy_that_rots_after_the_load_is_rebuilt_by_the_commit(filled: Path, copy: str) -> None:
    new = state(LAST + 1)
    with SqliteStore(filled) as store:
        store.load()
        DAMAGE["half"](filled / copy)
        store.commit(new)
        assert list(store.root_chain()) == chain(LAST)
    for one in (A, B):
        with workspace() as other:
            shutil.copy(filled / one, other / one)
            assert loaded(other) == new


@pytest.mark.parametrize("copy", [A, B])
def test_a_copy_that_is_not_what_it_was_is_rebuilt_by_the_commit(filled: Path, copy: str) -> None:
    new = state(LAST + 2)
    with SqliteStore(filled) as store:
        store.load()
        with closing(sqlite3.connect(filled / copy, isolation_level=None)) as db:
            db.execute("INSERT INTO part VALUES ('more', X'00')")
        store.commit(new, chain(LAST + 2)[-1:])
        assert list(store.root_chain()) == chain(LAST + 2)
    for one in (A, B):
        with workspace() as other:
            shutil.copy(filled / one, other / one)
            with SqliteStore(other) as store:
                assert store.load() == new
                assert list(store.root_chain()) == chain(LAST + 2)


def rot_chain(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE root SET content = X'00' WHERE position = 1")


@pytest.mark.parametrize(
    "rot",
    [
        "UPDATE root SET content = X'00' WHERE position = 1",
        "UPDATE root SET content = 'text' WHERE position = 1",
        "DELETE FROM root WHERE position = 0",
        "DELETE FROM root",
        "UPDATE root SET position = 9 WHERE position = 0",
    ],
)
def test_a_root_chain_that_rotted_in_one_copy_is_read_from_the_other(
    filled: Path, rot: str
) -> None:
    with closing(sqlite3.connect(filled / A, isolation_level=None)) as db:
        db.execute(rot)
    with SqliteStore(filled) as store:
        assert store.load() == state(LAST)
        assert list(store.root_chain()) == chain(LAST)


def test_a_root_chain_that_rotted_everywhere_begins_at_the_newest_root(filled: Path) -> None:
    for copy in (A, B):
        rot_chain(filled / copy)
    with SqliteStore(filled) as store:
        assert store.load() == state(LAST)
        assert list(store.root_chain()) == chain(LAST)[-1:]


@pytest.mark.parametrize("copy", [A, B])
def test_a_rotted_chain_and_a_lost_copy_cost_history_but_no_state(filled: Path, copy: str) -> None:
    (other,) = {A, B} - {copy}
    rot_chain(filled / copy)
    (filled / other).unlink()
    with SqliteStore(filled) as store:
        assert store.load() == state(LAST)
        assert list(store.root_chain()) == chain(LAST)[-1:]
        store.commit(state(LAST + 2), chain(LAST + 2)[-1:])
        assert list(store.root_chain()) == chain(LAST + 2)[-2:]
    for one in (A, B):
        with workspace() as lone:
            shutil.copy(filled / one, lone / one)
            with SqliteStore(lone) as store:
                assert store.load() == state(LAST + 2)
                assert list(store.root_chain()) == chain(LAST + 2)[-2:]


def test_a_journal_beside_a_file_that_is_built_anew_does_no_harm(filled: Path) -> None:
    journal = filled / (A + "-journal")
    with closing(sqlite3.connect(filled / A, isolation_level=None)) as db:
        db.execute("PRAGMA cache_size = 1")
        db.execute("PRAGMA journal_mode = PERSIST")
        db.execute("BEGIN")
        db.execute("UPDATE part SET content = zeroblob(100000)")
        kept = journal.read_bytes()
        db.execute("ROLLBACK")
    (filled / A).unlink()
    journal.write_bytes(kept)
    assert loaded(filled) == state(LAST)
    (filled / B).unlink()
    assert loaded(filled) == state(LAST)


# A newer firmroot was here.


def with_schema(path: Path, schema: int, *, digest: bool) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        if digest:
            from client_reference.trust import store as module

            generation, _ = module._read_generation(db)
            db.execute("UPDATE generation SET digest = ?", (generation.digest(schema),))
        db.execute(f"PRAGMA user_version = {schema}")


@pytest.mark.parametrize("copies", [(A,), (B,), (A, B)])
def test_a_newer_schema_is_an_error_and_nothing_is_repaired(
    filled: Path, copies: tuple[str, ...]
) -> None:
    for copy in copies:
        with_schema(filled / copy, SCHEMA + 1, digest=True)
    before = {path: path.read_bytes() for path in filled.glob("*.db")}
    for look in (loaded, peeked):
        with pytest.raises(ConfigurationError, match=f"schema {SCHEMA + 1}.* knows {SCHEMA}"):
            look(filled)
    assert {path: path.read_bytes() for path in filled.glob("*.db")} == before


def test_a_newer_schema_in_both_copies_is_believed_even_if_all_else_is_new(filled: Path) -> None:
    for copy in (A, B):
        with_schema(filled / copy, SCHEMA + 1, digest=False)
        with closing(sqlite3.connect(filled / copy, isolation_level=None)) as db:
            db.execute("DROP TABLE part")
    with pytest.raises(ConfigurationError):
        loaded(filled)


@pytest.mark.parametrize("copy", [A, B])
def test_one_copy_that_only_claims_a_newer_schema_is_damage(filled: Path, copy: str) -> None:
    with_schema(filled / copy, SCHEMA + 7, digest=False)
    assert loaded(filled) == state(LAST)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda facts: facts.replace(b'"idle"', b'"dreaming"'), id="a phase"),
        pytest.param(lambda _: b"{}", id="no facts"),
        pytest.param(lambda _: b"[", id="no JSON"),
    ],
)
def test_whole_parts_that_mean_nothing_here_are_an_error_and_stay(
    filled: Path, change: Callable[[bytes], bytes]
) -> None:
    from client_reference.trust import store as module

    for copy in (A, B):
        with closing(sqlite3.connect(filled / copy, isolation_level=None)) as db:
            generation, _ = module._read_generation(db)
            parts = {**generation.parts, "facts": change(generation.parts["facts"])}
            changed = dataclasses.replace(generation, parts=parts)
            db.execute("UPDATE part SET content = ? WHERE name = 'facts'", (parts["facts"],))
            db.execute("UPDATE generation SET digest = ?", (changed.digest(),))
    for look in (loaded, peeked):
        with pytest.raises(ConfigurationError, match="whole, but not of this firmroot") as caught:
            look(filled)
        assert "install the firmroot" in caught.value.hint


def test_what_a_newer_client_added_is_kept_by_an_older_one() -> None:
    parts = record.encode(state(1), {})
    facts = parts["facts"].replace(b'"trust":{', b'"trust":{"later":1,')
    facts = facts.replace(b'"install":{', b'"install":{"later":2,').replace(b"{", b'{"new":3,', 1)
    added = parts | {
        "facts": facts,
        "trust.later": b"4",
        "recovery.root": b"5",
        "timestamp": b"6",  # a name of ours, but not in our place
    }
    assert record.decode(added) == state(1)
    kept = record.encode(state(2), added)
    assert record.decode(kept) == state(2)
    assert [kept[name] for name in ("trust.later", "recovery.root", "timestamp")] == [
        b"4",
        b"5",
        b"6",
    ]
    for text in (b'"later":1', b'"later":2', b'"new":3'):
        assert text in kept["facts"]


def test_what_this_client_knows_is_written_anew() -> None:
    parts = record.encode(state(1), {})
    odd = parts["facts"].replace(b'"trust":{', b'"trust":{"snapshot":7,')
    assert b'"snapshot"' not in record.encode(state(2), parts | {"facts": odd})["facts"]


# The file system.


def test_a_full_disk_is_a_local_failure_and_the_state_stays(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect

    def bounded(*words: object, **options: object) -> sqlite3.Connection:
        db: sqlite3.Connection = connect(*words, **options)  # type: ignore[call-overload]
        db.execute("PRAGMA max_page_count = 1")
        return db

    new = state(LAST + 1)
    big = new.with_trust(dataclasses.replace(new.trust, snapshot=bytes(200_000)))
    with SqliteStore(filled) as store:
        store.load()
        with monkeypatch.context() as patch:
            patch.setattr(sqlite3, "connect", bounded)
            with pytest.raises(LocalFailureError, match="file system is full") as caught:
                store.commit(big)
        assert "free some space" in caught.value.hint
        assert store.load() == state(LAST)
        store.commit(big)
    assert loaded(filled) == big


REFUSALS: dict[str, tuple[int, bool, type[FirmrootError]]] = {
    # What SQLite says, whether the file is accessible, and what is made of it.
    "a file that may not be opened": (sqlite3.SQLITE_CANTOPEN, False, LocalFailureError),
    "a thing that is no file": (sqlite3.SQLITE_CANTOPEN, True, StoreLostError),
    "no permission": (sqlite3.SQLITE_PERM, False, LocalFailureError),
    "a failing medium": (sqlite3.SQLITE_IOERR_FSYNC, True, LocalFailureError),
    "a sector that cannot be read": (sqlite3.SQLITE_IOERR_READ, True, StoreLostError),
    "a page that ends early": (sqlite3.SQLITE_IOERR_SHORT_READ, True, StoreLostError),
    "a file system that is read-only": (sqlite3.SQLITE_READONLY, True, LocalFailureError),
    "a journal for a reader": (sqlite3.SQLITE_READONLY_ROLLBACK, True, StoreLostError),
    "no memory": (sqlite3.SQLITE_NOMEM, True, LocalFailureError),
    "a writer": (sqlite3.SQLITE_BUSY, True, LockedError),
    "a writer in this process": (sqlite3.SQLITE_LOCKED, True, LockedError),
    "damage": (sqlite3.SQLITE_CORRUPT, True, StoreLostError),
    "another file": (sqlite3.SQLITE_NOTADB, True, StoreLostError),
}


@pytest.mark.parametrize(("code", "accessible", "kind"), REFUSALS.values(), ids=REFUSALS)
def test_only_damage_of_both_copies_is_a_lost_store(
    filled: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    accessible: bool,  # noqa: FBT001  a table
    kind: type[FirmrootError],
) -> None:
    def refuse(*_words: object, **_options: object) -> sqlite3.Connection:
        error = sqlite3.OperationalError("SQLite refuses")
        error.sqlite_errorcode = code
        raise error

    monkeypatch.setattr(sqlite3, "connect", refuse)
    monkeypatch.setattr("os.access", lambda *_: accessible)
    with pytest.raises(FirmrootError) as caught:
        peeked(filled)
    assert type(caught.value) is kind


def test_a_failed_commit_is_forgotten_by_the_store_too(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SqliteStore(filled) as store:
        store.load()
        with monkeypatch.context() as patch:
            patch.setattr(
                "client_reference.trust.store._update",
                lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")),
            )
            with pytest.raises(LocalFailureError, match="Input/output error"):
                store.commit(state(LAST + 1))
        store.commit(state(LAST + 1))
    assert loaded(filled) == state(LAST + 1)


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        pytest.param(errno.ENOSPC, "free some space", id="a full disk"),
        pytest.param(errno.EDQUOT, "free some space", id="a full quota"),
        pytest.param(errno.EIO, "[trust] state", id="a failing disk"),
    ],
)
def test_a_failure_of_the_file_system_says_what_to_do(
    filled: Path, monkeypatch: pytest.MonkeyPatch, number: int, hint: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr("client_reference.trust.store._update", refuse)
    with SqliteStore(filled) as store, pytest.raises(LocalFailureError) as caught:
        store.commit(state(LAST + 1))
    assert hint in caught.value.hint


def test_a_state_directory_that_is_a_file_is_a_local_failure(directory: Path) -> None:
    directory.write_text("a file")
    with pytest.raises(LocalFailureError, match="cannot be used") as caught, SqliteStore(directory):
        pass
    assert "[trust] state" in caught.value.hint


def test_a_directory_in_place_of_a_copy_is_damage_that_cannot_be_repaired(filled: Path) -> None:
    (filled / A).unlink()
    (filled / A).mkdir()
    assert SqliteStore(filled).peek() == state(LAST)
    with pytest.raises(LocalFailureError, match="directory"):
        loaded(filled)


# Random damage: 200 flips and cuts in `make test`, 1,000 each in the full matrix.
ROUNDS = 1000 if FULL else 200


@pytest.mark.parametrize("copies", [(A,), (B,), (A, B)], ids=["first", "second", "both"])
@pytest.mark.parametrize("kind", ["flipped bits", "truncation"])
def test_random_damage_never_lowers_what_was_accepted(
    filled: Path, copies: tuple[str, ...], kind: str
) -> None:
    randomness = random.Random(f"{kind} {copies}")
    whole = {copy: (filled / copy).read_bytes() for copy in (A, B)}
    lost = 0
    for _ in range(ROUNDS // 3 + 1):
        for copy in (A, B):
            content = bytearray(whole[copy])
            if copy in copies and kind == "truncation":
                del content[randomness.randrange(len(content)) :]
            elif copy in copies:
                for _ in range(randomness.choice([1, 2, 30])):
                    content[randomness.randrange(len(content))] ^= 1 << randomness.randrange(8)
            (filled / copy).write_bytes(content)
        try:
            found = loaded(filled)
        except StoreLostError:
            lost += 1
            continue
        assert found == state(LAST)
    assert lost == 0 or len(copies) == 2


def test_random_damage_of_every_other_file_is_no_error(filled: Path) -> None:
    randomness = random.Random("other files")
    for round_ in range(ROUNDS // 5):
        name = ("lock", A + "-journal", B + "-journal")[round_ % 3]
        (filled / name).write_bytes(randomness.randbytes(randomness.choice([0, 1, 512, 9000])))
        try:
            assert loaded(filled) == state(LAST)
        except FirmrootError as error:
            pytest.fail(f"{name}: {error.message}")


def test_a_copy_whose_journal_cannot_be_made_is_whole(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No inode is left: the copy must not be taken for a damaged one, and built anew in vain."""
    whole = (filled / A).read_bytes()

    def no_inode(path: Path, *_: object) -> None:
        error = sqlite3.OperationalError("unable to open database file")
        error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
        raise store_module._translated(error, path)

    with SqliteStore(filled) as store:
        assert store.load() == state(LAST)
        monkeypatch.setattr(store_module, "_update", no_inode)
        monkeypatch.setattr(store_module, "_takes_a_file", lambda _: False)
        with pytest.raises(LocalFailureError, match="unable to open database file"):
            store.commit(state(LAST + 1), chain(LAST + 1)[len(chain(LAST)) :])
    assert (filled / A).read_bytes() == whole
    monkeypatch.undo()
    with SqliteStore(filled) as store:
        assert store.load() == state(LAST)
        store.commit(state(LAST + 1), chain(LAST + 1)[len(chain(LAST)) :])
    assert loaded(filled) == state(LAST + 1)


def test_what_stands_in_the_place_of_a_journal_is_no_bug(filled: Path) -> None:
    journal = filled / f"{A}-journal"
    with SqliteStore(filled) as store:
        assert store.load() == state(LAST)
        journal.mkdir()
        with pytest.raises(LocalFailureError, match="cannot be made anew"):
            store.commit(state(LAST + 1), chain(LAST + 1)[len(chain(LAST)) :])
    journal.rmdir()
    assert loaded(filled) == state(LAST)


def test_whether_a_file_system_takes_a_file(tmp_path: Path) -> None:
    assert store_module._takes_a_file(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert not store_module._takes_a_file(tmp_path / "nowhere")
