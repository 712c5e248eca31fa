"""Replays a recording up to every call, as a power cut or a kill would leave it.

A `Volume` follows two versions of every file and directory: what a running process sees, and what
the medium is sure to hold. A file's bytes are sure after fsync of the file, a name after fsync of
its directory; nothing else is. What happens to the rest is what the models differ in:

| model | names not synced | bytes not synced |
|---|---|---|
| KILL | there | there |
| LOST | gone back | gone |
| BYTES_LOST | there (a journalling file system commits them early) | gone |
| NAMES_LOST | gone back | there |
| ZEROED | there | the length is there, the bytes are zero |
| REORDERED | there | of one file only, or only the last write |
| TORN | there, and gone back | the last write stops at a 512-byte sector, or starts at one |
"""

from __future__ import annotations

import enum
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.power.recorder import (
    Call,
    Create,
    Link,
    MakeDirectory,
    Mark,
    Open,
    Recording,
    Remove,
    Rename,
    Resize,
    Sync,
    Write,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

__all__ = ["ALL", "Cut", "Model", "Tree", "cuts", "write_tree"]

SECTOR = 512
Tree = dict[str, bytes | None]


class Model(enum.Enum):
    """What becomes of the changes that were not synced."""

    KILL = "kill"
    LOST = "lost"
    BYTES_LOST = "bytes lost"
    NAMES_LOST = "names lost"
    ZEROED = "zeroed"
    REORDERED = "reordered"
    TORN = "torn"


ALL = tuple(Model)


@dataclass(frozen=True)
class Cut:
    """One state in which a device may find itself after a cut.

    Attributes:
        index: calls that were made.
        model: what became of the rest.
        marks: what the process had said before.
        tree: every file and directory.
    """

    index: int
    model: Model
    marks: tuple[str, ...]
    tree: Tree = field(repr=False)


def cuts(recording: Recording, models: Iterable[Model] = ALL) -> Iterator[Cut]:
    """Every distinct state after every prefix of the calls, the empty and the whole included."""
    wanted, volume = tuple(models), Volume(recording.before)
    marks: tuple[str, ...] = ()
    seen: set[tuple[object, ...]] = set()
    for index, call in enumerate((None, *recording.calls)):
        if isinstance(call, Mark):
            marks = (*marks, call.text)
        elif call is not None:
            volume.apply(call)
        for model in wanted:
            for tree in volume.after_cut(model):
                signature = (marks, *sorted(tree.items()))
                if signature not in seen or index == len(recording.calls):
                    seen.add(signature)
                    yield Cut(index, model, marks, tree)


def write_tree(tree: Mapping[str, bytes | None], root: Path) -> None:
    """Put a tree into an empty directory."""
    for path, content in sorted(tree.items()):
        if content is None:
            (root / path).mkdir(parents=True, exist_ok=True)
        else:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)


@dataclass(eq=False)
class _File:
    """A regular file: what is seen, what is sure, and the changes in between."""

    seen: bytes = b""
    sure: bytes = b""
    pending: list[tuple[int, bytes] | int] = field(default_factory=list)

    def change(self, change: tuple[int, bytes] | int) -> None:
        self.seen = _changed(self.seen, change)
        self.pending.append(change)

    def sync(self) -> None:
        self.sure = self.seen
        self.pending = []

    def as_seen(self) -> bytes:
        return self.seen

    def as_sure(self) -> bytes:
        return self.sure

    def last_only(self) -> bytes:
        return _changed(self.sure, self.pending[-1]) if self.pending else self.sure

    def zeroed(self) -> bytes:
        return self.sure[: len(self.seen)].ljust(len(self.seen), b"\0")

    def torn(self) -> Iterator[bytes]:
        """The last write cut at its first, middle and last sector boundary, either half missing."""
        if not self.pending or isinstance(self.pending[-1], int):
            return
        before = self.sure
        for change in self.pending[:-1]:
            before = _changed(before, change)
        offset, data = self.pending[-1]
        first = SECTOR - offset % SECTOR
        boundaries = range(first, len(data), SECTOR)
        for at in {boundaries[i] for i in (0, len(boundaries) // 2, -1)} if boundaries else ():
            yield _changed(before, (offset, data[:at]))
            yield _changed(before, (offset + at, data[at:]))


@dataclass(eq=False)
class _Directory:
    """A directory: the names that are seen, and those that are sure."""

    seen: dict[str, _File | _Directory] = field(default_factory=dict)
    sure: dict[str, _File | _Directory] = field(default_factory=dict)

    def sync(self) -> None:
        self.sure = dict(self.seen)


class Volume:
    """A file system below one directory."""

    def __init__(self, before: Mapping[str, bytes | None]) -> None:
        self._root = _Directory()
        self._open: dict[int, _File | _Directory] = {}
        self._last: _File | None = None
        for path, content in sorted(before.items()):
            node = _Directory() if content is None else _File(content, content)
            directory, name = self._parent(path)
            directory.seen[name] = directory.sure[name] = node

    def apply(self, call: Call) -> None:
        """Follow one call."""
        self._last = None
        if isinstance(call, Open):
            self._open[call.file] = self._node(call.path)
        elif isinstance(call, Write | Resize | Sync):
            self._apply_to_bytes(call)
        elif not isinstance(call, Mark):
            self._apply_to_names(call)

    def _apply_to_bytes(self, call: Write | Resize | Sync) -> None:
        match call:
            case Write(file, offset, data, durable):
                node = self._last = self._file(file)
                node.change((len(node.seen) if offset is None else offset, data))
                if durable:
                    node.sync()
            case Resize(file, length, only_grow):
                node = self._file(file)
                if not (only_grow and length <= len(node.seen)):
                    node.change(length)
            case Sync(None):
                for each in self._all():
                    each.sync()
            case Sync(int(file)):
                self._open[file].sync()

    def _apply_to_names(self, call: Create | MakeDirectory | Remove | Rename | Link) -> None:
        match call:
            case Create(path):
                directory, name = self._parent(path)
                directory.seen.setdefault(name, _File())
            case MakeDirectory(path):
                directory, name = self._parent(path)
                directory.seen[name] = _Directory()
            case Remove(path):
                directory, name = self._parent(path)
                del directory.seen[name]
            case Rename(source, target):
                node = self._take(source)
                directory, name = self._parent(target)
                directory.seen[name] = node
            case Link(source, target):
                directory, name = self._parent(target)
                directory.seen[name] = self._node(source)

    def after_cut(self, model: Model) -> Iterator[Tree]:
        """What a cut now may leave, by one model."""
        simple = {
            Model.KILL: (_File.as_seen, False),
            Model.LOST: (_File.as_sure, True),
            Model.BYTES_LOST: (_File.as_sure, False),
            Model.NAMES_LOST: (_File.as_seen, True),
            Model.ZEROED: (_File.zeroed, False),
        }
        if model in simple:
            content, sure_names = simple[model]
            yield self._tree(content, sure_names=sure_names)
        elif model is Model.REORDERED:
            yield self._tree(_File.last_only)
            for lucky in self._all():
                if isinstance(lucky, _File) and lucky.pending:
                    yield self._tree(_File.as_sure, but=(lucky, lucky.seen))
        elif self._last is not None:
            for torn, sure_names in itertools.product(self._last.torn(), (False, True)):
                yield self._tree(_File.as_seen, sure_names=sure_names, but=(self._last, torn))

    def _tree(
        self,
        content: Callable[[_File], bytes],
        *,
        sure_names: bool = False,
        but: tuple[_File, bytes] | None = None,
    ) -> Tree:
        """Every path, with the content that `content` gives; `but` is one exception to it."""
        tree: Tree = {}

        def walk(directory: _Directory, prefix: str) -> None:
            names = directory.sure if sure_names else directory.seen
            for name, node in names.items():
                if isinstance(node, _File):
                    tree[prefix + name] = but[1] if but and node is but[0] else content(node)
                else:
                    tree[prefix + name] = None
                    walk(node, f"{prefix}{name}/")

        walk(self._root, "")
        return tree

    def _all(self) -> Iterator[_File | _Directory]:
        waiting: list[_File | _Directory] = [self._root]
        while waiting:
            node = waiting.pop()
            yield node
            if isinstance(node, _Directory):
                waiting.extend(node.seen.values())

    def _node(self, path: str) -> _File | _Directory:
        node: _File | _Directory = self._root
        for name in [] if path == "." else path.split("/"):
            assert isinstance(node, _Directory), path
            node = node.seen[name]
        return node

    def _parent(self, path: str) -> tuple[_Directory, str]:
        above, _, name = path.rpartition("/")
        node = self._node(above or ".")
        assert isinstance(node, _Directory), path
        return node, name

    def _take(self, path: str) -> _File | _Directory:
        directory, name = self._parent(path)
        return directory.seen.pop(name)

    def _file(self, file: int) -> _File:
        node = self._open[file]
        assert isinstance(node, _File), file
        return node


def _changed(content: bytes, change: tuple[int, bytes] | int) -> bytes:
    if isinstance(change, int):
        return content[:change].ljust(change, b"\0")
    offset, data = change
    return content[:offset].ljust(offset, b"\0") + data + content[offset + len(data) :]
