"""The durable trust store: two SQLite copies of one `DeviceState`, and a lock.

The directory holds `a.db`, `b.db` and `lock`. Rules, in the order in which the code needs them:

* A copy is believed only if its digest verifies. The digest covers schema, generation number,
  every part and the running hash of the root chain: SQLite has no page checksums, and a page that
  was torn, flipped or lost must not pass for state.
* The copies are written one after the other, `a.db` first, each in its own transaction, so that at
  every instant at least one of them is whole. `commit` returns when both are durable, and nothing
  is acted on before.
* The intact copy with the highest generation is the truth. A cut between the two copies leaves the
  newer one in one copy only: what it holds was verified before it came here, so `load` completes
  that commit, durably, before it returns. Going back instead would let one lost write lower an
  accepted version.
* A damaged copy is built anew from the other before `load` returns. With both gone, `load` raises
  `StoreLostError`, and the next `commit` starts the store again.
* Root files are only ever appended, and all dropped at once when another epoch begins
  (`begin_again`), in the transaction that stores its state. A start reads the running hash, not
  the chain; `root_chain` verifies the whole.
* The digest's framing never changes and the schema only grows. A newer schema is an error, never
  "damage": the newer client's state must not be thrown away by the older one.
* Reading makes no write-class system call: rollback journal, not WAL; no pragma that writes; a lock
  file that is made once and locked through a read-only descriptor.
* Journal mode DELETE needs `synchronous = EXTRA`: anything less leaves the removal of the journal,
  which *is* the commit, in an unsynced directory.

Physical replay of both copies together is not detected (design 6).
"""

from __future__ import annotations

import dataclasses
import enum
import errno
import fcntl
import hashlib
import os
import sqlite3
from contextlib import closing, contextmanager, suppress
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from client_reference.durable import make_private_directory
from client_reference.errors import ConfigurationError, LocalFailureError, LockedError
from client_reference.trust import record
from client_reference.values import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    from client_reference.trust.state import DeviceState

__all__ = ["SCHEMA", "SqliteStore", "StoreLostError"]

SCHEMA = 1
_COPIES = ("a.db", "b.db")
_LOCK = "lock"
_LOCKS = Path("/proc/locks")
_BUSY_SECONDS = 2.0  # how long a reader without the lock waits for a writer's transaction
# What the sqlite3 module raises besides its own errors when a file is full of nonsense; a message
# of SQLite that quotes such bytes is one of them.
_UNREADABLE = (MemoryError, OverflowError, UnicodeError)
_TABLES = (
    """CREATE TABLE generation (
        only_one INTEGER PRIMARY KEY CHECK (only_one = 0), number INTEGER NOT NULL,
        chain_length INTEGER NOT NULL, chain BLOB NOT NULL, digest BLOB NOT NULL)""",
    "CREATE TABLE part (name TEXT PRIMARY KEY, content BLOB NOT NULL)",
    "CREATE TABLE root (position INTEGER PRIMARY KEY, content BLOB NOT NULL)",
    f"PRAGMA user_version = {SCHEMA}",
)


class StoreLostError(LocalFailureError):
    """Neither copy of the state can be read. The caller starts again from the factory root."""


class _DamagedError(Exception):
    """One copy does not hold what it must; it never leaves this module."""


@frozen
class _Generation:
    """What one copy holds: the numbered whole of the state, and the summary of its root chain."""

    number: int = 0
    parts: Mapping[str, bytes] = field(default_factory=dict)
    chain_length: int = 0
    chain: bytes = bytes(32)

    def digest(self, schema: int = SCHEMA) -> bytes:
        """SHA-256 over the whole content. This framing is the same in every schema."""
        whole = hashlib.sha256(b"firmroot trust store\0" + self.chain)
        for number in (schema, self.number, self.chain_length, len(self.parts)):
            whole.update(number.to_bytes(8, "big"))
        for name in sorted(self.parts):
            for content in (name.encode(), self.parts[name]):
                whole.update(len(content).to_bytes(8, "big"))
                whole.update(content)
        return whole.digest()

    def with_roots(self, roots: Sequence[bytes]) -> _Generation:
        """The same with more roots in the chain."""
        chain = self.chain
        for root in roots:
            chain = hashlib.sha256(chain + hashlib.sha256(root).digest()).digest()
        return dataclasses.replace(self, chain=chain, chain_length=self.chain_length + len(roots))


class _Condition(enum.Enum):
    INTACT = enum.auto()
    ABSENT = enum.auto()
    EMPTY = enum.auto()  # a file without content: the first commit did not get past its start
    NEWER = enum.auto()
    DAMAGED = enum.auto()


@frozen
class _Finding:
    """What was found in the place of one copy."""

    condition: _Condition
    generation: _Generation = _Generation()
    detail: str = ""
    schema: int = 0


class SqliteStore:
    """Implements `client_reference.trust.state.Store` in a directory of its own.

    Args:
        directory: made (0700) when the store is first entered; on a file system that no update
            overwrites.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._paths = tuple(directory / name for name in _COPIES)
        self._lock: int | None = None
        self._base: _Generation | None = None

    def __enter__(self) -> Self:
        """Take the lock, or raise `LockedError` saying who holds it."""
        with _local_failures(self._directory):
            make_private_directory(self._directory)
            self._lock = _take_lock(self._directory / _LOCK)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release the lock."""
        if self._lock is not None:
            os.close(self._lock)
        self._lock = self._base = None

    def load(self) -> DeviceState | None:
        """The last committed state, in both copies; None if there never was one.

        Raises:
            StoreLostError: both copies are damaged; the next `commit` starts the store again.
            ConfigurationError: a newer firmroot wrote the state.
            LocalFailureError: a copy cannot be read or restored for a reason that may pass.
            LockedError: a program that knows nothing of the lock is writing to a copy.
        """
        if self._lock is None:
            raise RuntimeError("the store is used outside its `with` block")
        if self._base is not None and self._base.number:
            # Under the lock nobody else writes: what was read or committed here is what is there.
            return self._decode(self._base)
        self._base = None
        with _local_failures(self._directory):
            findings = [_examine(path, "rw") for path in self._paths]
            try:
                best = self._choose(findings)
            except StoreLostError:
                self._base = _Generation()
                raise
            if best is None:
                self._base = _Generation()
                return None
            state = self._decode(best)
            self._base = self._restore(best, findings)
        return state

    def peek(self) -> DeviceState | None:
        """The last committed state for display: without the lock, without repairing anything.

        Raises as `load`.
        """
        with _local_failures(self._directory):
            best = self._choose([_examine(path, "ro") for path in self._paths])
        return None if best is None else self._decode(best)

    def copies(self) -> Mapping[str, str]:
        """What is wrong with each copy, by file name; empty text for one that is whole.

        For display: without the lock, without repairing anything.

        Raises:
            LocalFailureError, LockedError: as `load`.
        """
        with _local_failures(self._directory):
            found = {path.name: _examine(path, "ro") for path in self._paths}
        newest = max(finding.generation.number for finding in found.values())
        return {
            name: ""
            if finding.condition is _Condition.INTACT and finding.generation.number == newest
            else finding.detail or finding.condition.name.lower().replace("intact", "older")
            for name, finding in found.items()
        }

    def peek_chain(self) -> Sequence[bytes]:
        """Every accepted root for display, the factory root first: without lock and repair.

        Raises:
            LocalFailureError: no copy has a whole chain.
        """
        with _local_failures(self._directory):
            best = self._choose([_examine(path, "ro") for path in self._paths])
            if best is None:
                return ()
            for path in self._paths:
                with suppress(_DamagedError):
                    return _read_chain(path, best, "ro")
        raise LocalFailureError(
            f"no copy in {self._directory} has the whole root chain",
            "the next command that writes begins it again at the newest root; trust is kept",
        )

    def commit(self, state: DeviceState, new_roots: Sequence[bytes] = ()) -> None:
        """Make `state` durable in both copies before returning. See `Store.commit`.

        The first commit begins the root chain, with the state's root unless `new_roots` says
        otherwise. A commit that changes nothing writes nothing: a root comes with a state.

        Raises:
            LocalFailureError: it is not durable in both copies. The caller keeps the state before;
                a later `load` finds that, or, if only the second copy failed, the new one.
        """
        base = self._known()
        if not base.number:
            new_roots = new_roots or (state.trust.root,)
        known_root = new_roots[-1] if new_roots else base.parts["trust.root"]
        if known_root != state.trust.root:
            raise LocalFailureError("the last new root is not the state's root")
        new = dataclasses.replace(base, parts=record.encode(state, base.parts))
        if new == base:
            return
        new = dataclasses.replace(new, number=base.number + 1).with_roots(new_roots)
        self._replace(base, new, new_roots)

    def begin_again(self, state: DeviceState) -> None:
        """Make `state` durable in both copies, the root chain beginning anew with its root.

        Raises as `commit`.
        """
        base = self._known()
        roots = (state.trust.root,)
        new = _Generation(base.number + 1, record.encode(state, base.parts)).with_roots(roots)
        self._replace(base, new, roots)

    def _replace(self, base: _Generation, new: _Generation, new_roots: Sequence[bytes]) -> None:
        self._base = None
        with _local_failures(self._directory):
            for path in self._paths:
                self._write(path, base, new, new_roots)
        self._base = new

    def root_chain(self) -> Sequence[bytes]:
        """Every accepted root of this epoch, oldest first, verified against the running hash.

        Should damage have cost both copies a root, the chain begins again at the newest one.
        """
        base = self._known()
        with _local_failures(self._directory):
            for path in self._paths if base.number else ():
                with suppress(_DamagedError):
                    return _read_chain(path, base)
        return (base.parts["trust.root"],) if base.number else ()

    def _known(self) -> _Generation:
        """What both copies hold, read if it was not yet."""
        if self._base is None:
            self.load()
        return self._base or _Generation()

    def _choose(self, findings: Sequence[_Finding]) -> _Generation | None:
        """The newest intact generation; None if there never was one."""
        newer = [finding for finding in findings if finding.condition is _Condition.NEWER]
        # A flipped bit can make one copy claim any schema; a digest, or two copies, cannot err.
        if any(finding.detail == "" for finding in newer) or len(newer) == len(findings):
            raise ConfigurationError(
                f"{self._directory} has schema {newer[0].schema}, this firmroot knows {SCHEMA}",
                "install the firmroot that wrote it, or a later one",
            )
        intact = [f.generation for f in findings if f.condition is _Condition.INTACT]
        if intact:
            return max(intact, key=lambda generation: generation.number)
        first, second = (finding.condition for finding in findings)
        # The second copy is made when the first is durable, so this was never more than a start.
        if second is _Condition.ABSENT and first in {_Condition.ABSENT, _Condition.EMPTY}:
            return None
        details = "; ".join(
            f"{path.name}: {finding.detail or finding.condition.name.lower()}"
            for path, finding in zip(self._paths, findings, strict=True)
        )
        raise StoreLostError(
            f"both copies of the trust state in {self._directory} are unreadable ({details})",
            "run `firmroot-device init`: it starts again from the factory root and its floors",
        )

    def _decode(self, generation: _Generation) -> DeviceState:
        try:
            return record.decode(generation.parts)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(
                f"the state in {self._directory} is whole, but not of this firmroot: {error!r}",
                "install the firmroot that wrote it, or a later one",
            ) from error

    def _restore(self, best: _Generation, findings: Sequence[_Finding]) -> _Generation:
        """Bring every copy to the chosen generation; returns what both then hold."""
        stale = [p for p, f in zip(self._paths, findings, strict=True) if f.generation != best]
        if not stale:
            return best
        whole = [path for path in self._paths if path not in stale]
        try:
            roots = _read_chain(whole[0], best)
        except _DamagedError:
            # Old roots are history, the state is trust: the chain begins again, the state stays.
            roots = (best.parts["trust.root"],)
            best = _Generation(best.number + 1, best.parts).with_roots(roots)
            stale += whole
        for path in stale:
            _rebuild(path, best, roots)
        return best

    def _write(
        self, path: Path, base: _Generation, new: _Generation, roots: Sequence[bytes]
    ) -> None:
        """Bring one copy from `base` to `new`, building it anew if it is not what it was."""
        try:
            if base.number:
                _update(path, base, new, roots)
                return
        except _DamagedError:
            if not _begins(new, roots):
                other = next(other for other in self._paths if other != path)
                held = _examine(other, "rw").generation
                roots = _read_chain(other, held) + (() if held == new else tuple(roots))
        _rebuild(path, new, roots)


def _begins(new: _Generation, roots: Sequence[bytes]) -> bool:
    """Whether the roots that come with a generation are its whole chain."""
    return new.chain_length == len(roots)


def _examine(path: Path, mode: str) -> _Finding:
    """Read and judge one copy, rolling back an interrupted transaction if `mode` is "rw"."""
    try:
        path.stat()
    except FileNotFoundError:
        return _Finding(_Condition.ABSENT)
    try:
        with _connection(path, mode) as db:
            return _read(db)
    except _DamagedError as error:
        return _Finding(_Condition.DAMAGED, detail=str(error))


def _read(db: sqlite3.Connection) -> _Finding:
    db.execute("BEGIN")
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    if not pages:
        return _Finding(_Condition.EMPTY)
    (schema,) = db.execute("PRAGMA user_version").fetchone()
    try:
        generation, digest = _read_generation(db)
        good = digest == generation.digest(schema)
    except (sqlite3.DatabaseError, _DamagedError, *_UNREADABLE):
        if schema <= SCHEMA:
            raise
        good = False
    if schema > SCHEMA:
        detail = "" if good else f"claims schema {schema}"
        return _Finding(_Condition.NEWER, detail=detail, schema=schema)
    if not good:
        raise _DamagedError("its digest does not match its content")
    return _Finding(_Condition.INTACT, generation)


def _read_generation(db: sqlite3.Connection) -> tuple[_Generation, bytes]:
    rows = db.execute("SELECT number, chain_length, chain, digest FROM generation").fetchall()
    parts = db.execute("SELECT name, content FROM part").fetchall()
    expected = (int, int, bytes, bytes)
    if len(rows) != 1 or tuple(type(value) for value in rows[0]) != expected:
        raise _DamagedError("it has no generation record")
    if any((type(name), type(content)) != (str, bytes) for name, content in parts):
        raise _DamagedError("a part is not what a part must be")
    if len(dict(parts)) != len(parts):
        raise _DamagedError("a part is there twice")
    number, chain_length, chain, digest = rows[0]
    return _Generation(number, dict(parts), chain_length, chain), digest


def _read_chain(path: Path, generation: _Generation, mode: str = "rw") -> tuple[bytes, ...]:
    """The whole root chain of a copy, verified against the running hash."""
    with _connection(path, mode) as db:
        rows = db.execute("SELECT content FROM root ORDER BY position").fetchall()
    roots = tuple(root for (root,) in rows)
    if any(not isinstance(root, bytes) for root in roots):
        raise _DamagedError("a root is not what a root must be")
    counted = _Generation().with_roots(roots)
    if (counted.chain, counted.chain_length) != (generation.chain, generation.chain_length):
        raise _DamagedError("the root chain does not match its running hash")
    return roots


def _update(path: Path, base: _Generation, new: _Generation, roots: Sequence[bytes]) -> None:
    """Change one copy in one transaction, which ends only if the whole content is as it must be."""
    with _connection(path, "rw") as db:
        db.execute("BEGIN IMMEDIATE")
        _store(db, base, new, roots)
        # An index or free list that rotted unseen would have put the change in a wrong place.
        if _read_generation(db) != (new, new.digest()):
            raise _DamagedError("it did not take the change")
        db.execute("COMMIT")


def _rebuild(path: Path, new: _Generation, roots: Sequence[bytes]) -> None:
    """Make one copy anew. SQLite itself drops the journal of a file that is gone or empty."""
    path.unlink(missing_ok=True)
    try:
        with _connection(path, "rwc") as db:
            db.execute("BEGIN IMMEDIATE")
            for statement in _TABLES:
                db.execute(statement)
            _store(db, _Generation(), new, roots)
            db.execute("COMMIT")
    except _DamagedError as error:
        raise LocalFailureError(
            f"{path} cannot be made anew: {error}",
            f"check the file system of {path.parent}; the other copy has the state",
        ) from error


def _store(
    db: sqlite3.Connection, base: _Generation, new: _Generation, roots: Sequence[bytes]
) -> None:
    db.executemany(
        "DELETE FROM part WHERE name = ?", [(name,) for name in base.parts.keys() - new.parts]
    )
    changed = [item for item in new.parts.items() if base.parts.get(item[0]) != item[1]]
    db.executemany("INSERT OR REPLACE INTO part VALUES (?, ?)", changed)
    if _begins(new, roots):
        db.execute("DELETE FROM root")
    first = new.chain_length - len(roots)
    db.executemany("INSERT INTO root VALUES (?, ?)", enumerate(roots, first))
    db.execute(
        "INSERT OR REPLACE INTO generation VALUES (0, ?, ?, ?, ?)",
        (new.number, new.chain_length, new.chain, new.digest()),
    )


@contextmanager
def _connection(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    """A connection with the journal and sync modes of this store; the boundary to sqlite3."""
    try:
        uri = f"{path.absolute().as_uri()}?mode={mode}"
        with closing(
            sqlite3.connect(uri, uri=True, isolation_level=None, timeout=_BUSY_SECONDS)
        ) as db:
            db.execute("PRAGMA synchronous = EXTRA")
            db.execute("PRAGMA temp_store = MEMORY")
            db.execute("PRAGMA trusted_schema = OFF")
            db.execute("PRAGMA cell_size_check = ON")
            yield db
    except sqlite3.Error as error:
        raise _translated(error, path) from error
    except _UNREADABLE as error:
        raise _DamagedError(f"unreadable: {error!r}") from error


def _translated(error: sqlite3.Error, path: Path) -> Exception:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    primary = code & 0xFF
    if primary in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return LockedError(
            f"{path} is in use by a program that does not take firmroot's lock",
            "close that program (an SQLite browser?) and run the command again",
        )
    if primary == sqlite3.SQLITE_FULL:
        return LocalFailureError(
            f"{path} cannot be written: the file system is full",
            f"free some space on the file system of {path.parent}; the state before is kept",
        )
    reading = {sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ}
    broken = primary in {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_NOMEM}
    if primary in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}:
        # Without room for one more file SQLite cannot make its journal: the copy itself is whole.
        broken = not os.access(path, os.R_OK | os.W_OK) or not _takes_a_file(path.parent)
    if broken and code not in reading and code != sqlite3.SQLITE_READONLY_ROLLBACK:
        return LocalFailureError(
            f"{path} cannot be used: {error}",
            f"check the file system of {path.parent} and its permissions",
        )
    return _DamagedError(str(error))


def _takes_a_file(directory: Path) -> bool:
    """Whether one more file can be made there: a file system may have no inode left."""
    trial = directory / "trial"
    try:
        os.close(os.open(trial, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        trial.unlink()
    except OSError:
        return False
    return True


@contextmanager
def _local_failures(directory: Path) -> Iterator[None]:
    """The boundary to the operating system."""
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        raise LocalFailureError(
            f"the trust state in {directory} cannot be used: {error}",
            "free some space there" if full else "check [trust] state, and who may write there",
        ) from error


def _take_lock(path: Path) -> int:
    """A descriptor that holds the lock. Read-only: taking it writes nothing, once it exists."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = _holder(os.fstat(descriptor))
        os.close(descriptor)
        raise LockedError(
            f"{holder} is at work on {path.parent}", "wait until it has finished, then try again"
        ) from error
    return descriptor


def _holder(lock: os.stat_result) -> str:
    """Who holds a lock, as far as the kernel tells: nobody had to write it down."""
    inode = f"{os.major(lock.st_dev):02x}:{os.minor(lock.st_dev):02x}:{lock.st_ino}"
    with suppress(OSError, ValueError):
        for line in _LOCKS.read_text(encoding="ascii").splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5] == inode and fields[4] != "0":
                argv = Path(f"/proc/{fields[4]}/cmdline").read_bytes().rstrip(b"\0")
                command = argv.replace(b"\0", b" ").decode(errors="replace")
                return f"process {fields[4]} ({command})"
    return "another firmroot process"
