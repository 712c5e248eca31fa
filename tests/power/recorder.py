"""Records what a real process does to a directory tree, system call by system call.

`record` runs a command under strace and returns, in order, every call that changes the tree, with
descriptors resolved to files and offsets followed. It never guesses: a call that touches the tree
and that it does not know, or that changes files behind its back (a shared writable mapping,
io_uring), fails the recording.

A line `MARK text` that the process writes to its standard output becomes a `Mark` between the
calls: "from here on I told the world that ...".
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = [
    "Call",
    "Create",
    "Link",
    "MakeDirectory",
    "Mark",
    "Open",
    "Recording",
    "Remove",
    "Rename",
    "Resize",
    "Sync",
    "UnknownCallError",
    "Write",
    "read_tree",
    "record",
    "require_strace",
]


class UnknownCallError(AssertionError):
    """The process touched the tree in a way that the recorder cannot replay."""


@dataclass(frozen=True)
class Create:
    """A regular file was opened with O_CREAT; it may have been there before."""

    path: str


@dataclass(frozen=True)
class Write:
    """Bytes were written. `file` is the path by which the file was opened, `opened` which time."""

    file: int
    offset: int | None  # None: at the end (O_APPEND)
    data: bytes = field(repr=False)
    durable: bool = False  # O_SYNC or O_DSYNC


@dataclass(frozen=True)
class Resize:
    """A file was truncated or extended."""

    file: int
    length: int
    only_grow: bool = False


@dataclass(frozen=True)
class Sync:
    """A file, a directory or (file None) everything was made durable."""

    file: int | None


@dataclass(frozen=True)
class Open:
    """A file or directory of the tree was opened and is `file` from now on."""

    file: int
    path: str


@dataclass(frozen=True)
class MakeDirectory:
    """A directory was made."""

    path: str


@dataclass(frozen=True)
class Remove:
    """A name was removed."""

    path: str


@dataclass(frozen=True)
class Rename:
    """A name was moved, replacing what was there."""

    source: str
    target: str


@dataclass(frozen=True)
class Link:
    """A second name was given."""

    source: str
    target: str


@dataclass(frozen=True)
class Mark:
    """The process said so on its standard output."""

    text: str


Call = Create | Write | Resize | Sync | Open | MakeDirectory | Remove | Rename | Link | Mark


@dataclass(frozen=True)
class Recording:
    """What was there before, what was done, and how the process ended."""

    before: Mapping[str, bytes | None]
    calls: Sequence[Call]
    exit_code: int
    output: str


def require_strace() -> None:
    """Skip, or on CI fail, the test where strace is missing or may not trace."""
    if shutil.which("strace"):
        probe = subprocess.run(["strace", "-o", os.devnull, "true"], check=False)
        if probe.returncode == 0:
            return
    reason = "strace is missing, or the kernel forbids it: the power-cut matrix was not run"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def read_tree(root: Path) -> dict[str, bytes | None]:
    """Every file (its bytes) and directory (None) below `root`, by relative path."""
    return {
        path.relative_to(root).as_posix(): None if path.is_dir() else path.read_bytes()
        for path in sorted(root.rglob("*"))
    }


def record(
    argv: Sequence[str],
    tree: Path,
    *,
    env: Mapping[str, str] | None = None,
    inject: Sequence[str] = (),
) -> Recording:
    """Run `argv` and record what it does to `tree`.

    Args:
        argv: absolute program and its arguments; paths into the tree must be absolute.
        tree: an existing directory.
        env: the whole environment of the process; None for this one's.
        inject: strace `--inject` expressions, such as `pwrite64:error=ENOSPC:when=3+`.
    """
    tree = tree.resolve()
    before = read_tree(tree)
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "strace"
        command = ["strace", "-f", "-y", "-xx", "-s", str(1 << 26), "-o", str(log)]
        command += ["--seccomp-bpf", "-e", "trace=!" + ",".join(_NEVER_CHANGES)]
        command += [word for rule in inject for word in ("-e", f"inject={rule}")]
        done = subprocess.run(
            [*command, "--", *argv],
            check=False,
            cwd="/",
            env=None if env is None else dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        calls = tuple(_Reader(str(tree)).calls(_lines(log)))
    return Recording(before, calls, done.returncode, done.stdout)


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Calls that cannot change a file and would only swell the log. Everything else is traced, so that
# an unknown call that names the tree is seen.
_NEVER_CHANGES = _names("""
    read pread64 readv preadv getdents64 poll ppoll select pselect6 epoll_wait epoll_pwait futex brk
    mprotect munmap madvise rt_sigaction rt_sigprocmask rt_sigreturn clock_nanosleep getrandom
    newfstatat fstat stat lstat statx access faccessat2 readlink recvfrom sendto
""")
# Calls on a file of the tree that leave content and names as they are. Modes, owners and times are
# not part of any promise that is tested here.
_HARMLESS = _names("""
    ioctl fcntl flock fadvise64 statfs fstatfs getxattr lgetxattr fgetxattr listxattr faccessat
    readlinkat sync_file_range fchown fchownat chown fchmod fchmodat chmod utimensat execve getcwd
""")
# Calls that matter even when they do not name the tree.
_BOOKKEEPING = _names("""
    close close_range dup dup2 dup3 fcntl clone clone3 fork vfork chdir fchdir sync write
    io_uring_setup
""")

_LINE = re.compile(r"(\d+)\s+(.*)", re.DOTALL)
_UNFINISHED = re.compile(r"(.*) <unfinished \.\.\.>$", re.DOTALL)
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>(.*)", re.DOTALL)
_CALL = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+|\?|0x[0-9a-f]+)(?:<(.*?)>)?(?: .*)?$", re.DOTALL)


def _lines(log: Path) -> Iterator[tuple[int, str]]:
    """Whole calls in the order in which they ended, with the thread that made them."""
    pending: dict[int, str] = {}
    for line in log.read_text(encoding="ascii").splitlines():
        matched = _LINE.match(line)
        if not matched:
            raise UnknownCallError(f"strace wrote {line[:200]!r}")
        thread, text = int(matched[1]), matched[2]
        if unfinished := _UNFINISHED.match(text):
            pending[thread] = unfinished[1]
        elif resumed := _RESUMED.match(text):
            yield thread, pending.pop(thread) + resumed[1]
        elif not text.startswith(("+++", "---")):
            yield thread, text


@dataclass
class _Handle:
    """An open file description: what `dup` and `fork` share."""

    file: int
    path: str
    offset: int = 0
    append: bool = False
    durable: bool = False


class _Reader:
    """Turns strace's lines into calls on the tree."""

    def __init__(self, tree: str) -> None:
        self._tree = tree
        self._needle = _hex(tree)
        self._tables: dict[int, dict[int, _Handle]] = {}
        self._first: dict[int, _Handle] | None = None
        self._opened = 0
        self._thread = 0

    def calls(self, lines: Iterator[tuple[int, str]]) -> Iterator[Call]:
        lines_ = list(lines)
        parents = self._parents(lines_)
        for thread, text in lines_:
            name = text.partition("(")[0]
            if name not in _BOOKKEEPING and self._needle not in text:
                continue
            matched = _CALL.match(text)
            if not matched:
                if text.rstrip().endswith("= ?") or "exit" in name:
                    continue
                raise UnknownCallError(f"cannot read {text[:200]!r}")
            result = matched[3]
            if result.startswith("-") or result == "?":
                continue
            if thread not in self._tables:
                self._tables[thread] = self._inherited(thread, parents)
            self._thread = thread
            yield from self._call(name, _arguments(matched[2]), int(result, 0), text)

    def _parents(self, lines: Sequence[tuple[int, str]]) -> dict[int, tuple[int, bool]]:
        parents = {}
        for thread, text in lines:
            if text.startswith(("clone", "fork", "vfork")):
                matched = _CALL.match(text)
                if matched and matched[3].isdigit():
                    parents[int(matched[3])] = (thread, "CLONE_FILES" in text)
        return parents

    def _inherited(
        self, thread: int, parents: Mapping[int, tuple[int, bool]]
    ) -> dict[int, _Handle]:
        if thread not in parents:
            return {}
        parent, shared = parents[thread]
        table = self._tables.setdefault(parent, {})
        return table if shared else dict(table)

    def _call(self, name: str, words: Sequence[str], result: int, text: str) -> Iterator[Call]:
        if name in _HANDLERS:
            yield from _HANDLERS[name](self, words, result)
        elif name not in _HARMLESS:
            raise UnknownCallError(f"{name} touched the tree and is not known: {text[:300]}")

    # What each call means. `words` are its arguments as strace wrote them.

    def _open(self, words: Sequence[str], result: int) -> Iterator[Call]:
        if len(words) > 1 and words[0].startswith(("AT_FDCWD", *"0123456789")):
            path, flags = self._at(words[0], words[1]), words[2]
        else:
            path, flags = self._at("", words[0]), words[1]
        if path is None:
            return
        given = set(flags.split("|"))
        if "O_TMPFILE" in given:
            raise UnknownCallError(f"O_TMPFILE in {path}")
        if "O_CREAT" in given:
            yield Create(path)
        self._opened += 1
        handle = _Handle(
            self._opened,
            path,
            append="O_APPEND" in given,
            durable=bool(given & {"O_SYNC", "O_DSYNC"}),
        )
        self._table[result] = handle
        yield Open(handle.file, path)
        if "O_TRUNC" in given:
            yield Resize(handle.file, 0)

    def _write(self, words: Sequence[str], result: int) -> Iterator[Call]:
        if words[0].startswith("1<") and (text := _bytes(words[1])).startswith(b"MARK "):
            yield Mark(text.decode().removeprefix("MARK ").strip())
            return
        handle = self._handle(words[0])
        if handle is None:
            return
        offset = None if handle.append else handle.offset
        handle.offset += result
        yield Write(handle.file, offset, _bytes(words[1])[:result], handle.durable)

    def _pwrite(self, words: Sequence[str], result: int) -> Iterator[Call]:
        handle = self._handle(words[0])
        if handle is not None:
            data = _bytes(words[1])[:result]
            yield Write(handle.file, int(words[3]), data, handle.durable)

    def _writev(self, words: Sequence[str], result: int) -> Iterator[Call]:
        handle = self._handle(words[0])
        if handle is None:
            return
        vectors = re.findall(r'iov_base="((?:\\x[0-9a-f]{2})*)"', words[1])
        data = b"".join(_bytes(f'"{vector}"') for vector in vectors)[:result]
        offset = None if handle.append else handle.offset
        handle.offset += result
        yield Write(handle.file, offset, data, handle.durable)

    def _lseek(self, words: Sequence[str], result: int) -> Iterator[Call]:
        handle = self._handle(words[0])
        if handle is not None:
            handle.offset = result
        yield from ()

    def _ftruncate(self, words: Sequence[str], _result: int) -> Iterator[Call]:
        handle = self._handle(words[0])
        if handle is not None:
            yield Resize(handle.file, int(words[1]))

    def _fallocate(self, words: Sequence[str], _result: int) -> Iterator[Call]:
        if words[1] != "0":
            raise UnknownCallError(f"fallocate with mode {words[1]}")
        handle = self._handle(words[0])
        if handle is not None:
            yield Resize(handle.file, int(words[2]) + int(words[3]), only_grow=True)

    def _fsync(self, words: Sequence[str], _result: int) -> Iterator[Call]:
        handle = self._handle(words[0])
        if handle is not None:
            yield Sync(handle.file)

    def _sync(self, _words: Sequence[str], _result: int) -> Iterator[Call]:
        yield Sync(None)

    def _mkdir(self, words: Sequence[str], _result: int) -> Iterator[Call]:
        if path := self._at("", words[0]):
            yield MakeDirectory(path)

    def _mkdirat(self, words: Sequence[str], _result: int) -> Iterator[Call]:
        if path := self._at(words[0], words[1]):
            yield MakeDirectory(path)

    def _unlink(self, words: Sequence[str], _result: int) -> Iterator[Call]:
        if path := self._at("", words[0]):
            yield Remove(path)

    def _unlinkat(self, words: Sequence[str], _result: int) -> Iterator[Call]:
        if path := self._at(words[0], words[1]):
            yield Remove(path)

    def _rename(self, words: Sequence[str], _result: int) -> Iterator[Call]:
        yield Rename(*self._both(("", words[0]), ("", words[1])))

    def _renameat(self, words: Sequence[str], _result: int) -> Iterator[Call]:
        if len(words) > 4 and words[4] not in {"0", "RENAME_NOREPLACE"}:
            raise UnknownCallError(f"renameat2 with {words[4]}")
        yield Rename(*self._both((words[0], words[1]), (words[2], words[3])))

    def _link(self, words: Sequence[str], _result: int) -> Iterator[Call]:
        yield Link(*self._both(("", words[0]), ("", words[1])))

    def _linkat(self, words: Sequence[str], _result: int) -> Iterator[Call]:
        yield Link(*self._both((words[0], words[1]), (words[2], words[3])))

    def _mmap(self, words: Sequence[str], _result: int) -> Iterator[Call]:
        inside = self._needle in words[4]
        if inside and "MAP_SHARED" in words[3] and "PROT_WRITE" in words[2]:
            raise UnknownCallError("a shared writable mapping of a file in the tree")
        yield from ()

    def _io_uring(self, _words: Sequence[str], _result: int) -> Iterator[Call]:
        raise UnknownCallError("io_uring changes files without system calls")

    def _chdir(self, _words: Sequence[str], _result: int) -> Iterator[Call]:
        raise UnknownCallError("a change of directory makes relative paths ambiguous")

    def _close(self, words: Sequence[str], _result: int) -> Iterator[Call]:
        self._table.pop(_number(words[0]), None)
        yield from ()

    def _close_range(self, words: Sequence[str], _result: int) -> Iterator[Call]:
        for number in list(self._table):
            if int(words[0]) <= number <= int(words[1]):
                del self._table[number]
        yield from ()

    def _dup(self, words: Sequence[str], result: int) -> Iterator[Call]:
        handle = self._table.get(_number(words[0]))
        self._table.pop(result, None)
        if handle is not None:
            self._table[result] = handle
        yield from ()

    def _fcntl(self, words: Sequence[str], result: int) -> Iterator[Call]:
        if words[1].startswith("F_DUPFD"):
            yield from self._dup(words, result)

    def _none(self, _words: Sequence[str], _result: int) -> Iterator[Call]:
        yield from ()

    @property
    def _table(self) -> dict[int, _Handle]:
        return self._tables[self._thread]

    def _handle(self, word: str) -> _Handle | None:
        """The open file behind `4</path>`; None if it is not of the tree."""
        if self._needle not in word:
            return None
        handle = self._table.get(_number(word))
        if handle is None:
            raise UnknownCallError(f"a descriptor of unknown origin: {_number(word)}")
        return handle

    def _both(self, source: tuple[str, str], target: tuple[str, str]) -> tuple[str, str]:
        first, second = self._at(*source), self._at(*target)
        if first is None or second is None:
            raise UnknownCallError("a name moves into the tree or out of it")
        return first, second

    def _at(self, base: str, word: str) -> str | None:
        """The path relative to the tree; None if it is not inside."""
        path = os.fsdecode(_bytes(word))
        if not path.startswith("/"):
            inside = re.search(r"<(.*)>", base)
            path = os.path.join(_text(inside[1]) if inside else "/", path)  # noqa: PTH118 text only
        relative = os.path.relpath(os.path.normpath(path), self._tree)
        return None if relative.startswith("..") else relative


_HANDLERS: Mapping[str, Callable[[_Reader, Sequence[str], int], Iterator[Call]]] = {
    "open": _Reader._open,
    "openat": _Reader._open,
    "creat": lambda reader, words, result: reader._open(
        [words[0], "O_WRONLY|O_CREAT|O_TRUNC"], result
    ),
    "write": _Reader._write,
    "pwrite64": _Reader._pwrite,
    "writev": _Reader._writev,
    "lseek": _Reader._lseek,
    "ftruncate": _Reader._ftruncate,
    "fallocate": _Reader._fallocate,
    "fsync": _Reader._fsync,
    "fdatasync": _Reader._fsync,
    "sync": _Reader._sync,
    "syncfs": _Reader._sync,
    "mkdir": _Reader._mkdir,
    "mkdirat": _Reader._mkdirat,
    "unlink": _Reader._unlink,
    "rmdir": _Reader._unlink,
    "unlinkat": _Reader._unlinkat,
    "rename": _Reader._rename,
    "renameat": _Reader._renameat,
    "renameat2": _Reader._renameat,
    "link": _Reader._link,
    "linkat": _Reader._linkat,
    "mmap": _Reader._mmap,
    "io_uring_setup": _Reader._io_uring,
    "chdir": _Reader._chdir,
    "fchdir": _Reader._chdir,
    "close": _Reader._close,
    "close_range": _Reader._close_range,
    "dup": _Reader._dup,
    "dup2": _Reader._dup,
    "dup3": _Reader._dup,
    "fcntl": _Reader._fcntl,
    "clone": _Reader._none,
    "clone3": _Reader._none,
    "fork": _Reader._none,
    "vfork": _Reader._none,
}


def _hex(text: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(text))


def _bytes(word: str) -> bytes:
    """The bytes of `"\\x61\\x62"`."""
    if not (word.startswith('"') and word.endswith('"')):
        raise UnknownCallError(f"not a whole string: {word[:80]}")
    return bytes.fromhex(word[1:-1].replace("\\x", ""))


def _text(hexadecimal: str) -> str:
    return os.fsdecode(bytes.fromhex(hexadecimal.replace("\\x", "")))


def _number(word: str) -> int:
    return int(word.partition("<")[0])


def _arguments(text: str) -> list[str]:
    """Split at the commas that are in no bracket and no string (strings are hexadecimal)."""
    words, depth, start = [], 0, 0
    for match in re.finditer(r"[\[\]{}(),]", text):
        if match[0] in "[{(":
            depth += 1
        elif match[0] in "]})":
            depth -= 1
        elif depth == 0:
            words.append(text[start : match.start()].strip())
            start = match.end()
    return [*words, text[start:].strip()]
