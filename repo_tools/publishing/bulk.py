"""A directory of firmware in one go: `DIR/VERSION/FILE`, copied, measured, and signed once.

For a product that comes from elsewhere with years of releases. The rules:

* every name is looked at before anything is copied, and all that are wrong are named together;
* versions get their sequences in the order of their names, numbers in them counted as numbers;
* each hash bin that anything falls into is signed once, at the end; so is a role in one file;
* what was copied is noted: an import that was interrupted goes on with the next file, and files
  that are signed already are found to be there. A file that changed meanwhile is read again.
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from client_reference.errors import ConfigurationError
from client_reference.payload.segments import SUFFIX
from repo_tools.files import remove_file
from repo_tools.metadata.repository import sha256
from repo_tools.publishing.artifacts import (
    AlreadyAdded,
    Incoming,
    Labels,
    copy_in,
    judge,
    stored_name,
)
from repo_tools.publishing.firmware import (
    Near,
    begun,
    binned_target,
    check_declared,
    flat_targets,
    is_at_hand,
    open_signers,
    read_builds,
    stage_bins,
    stage_flat,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from tuf.api.metadata import TargetFile

    from repo_tools.publishing.firmware import Builds
    from repo_tools.signing.secrets import Secrets
    from repo_tools.storage.protocol import Storage
    from repo_tools.workspace import Workspace

__all__ = ["Found", "Imported", "find", "import_directory"]

_NAMED = 20
"""Wrong names in one message."""


@dataclass(frozen=True)
class Found:
    """A file of a directory that can be imported."""

    source: Path
    labels: Labels
    length: int


@dataclass(frozen=True)
class Imported:
    """What became of a directory.

    Attributes:
        new: artifacts that were signed.
        there: artifacts that were there before.
        releases: versions among the new ones.
        length: bytes of the new ones.
        signed: roles that were signed for them.
    """

    new: int
    there: int
    releases: int
    length: int
    signed: tuple[str, ...]


def find(
    directory: Path, product: str, hardware: frozenset[str], handler: str
) -> tuple[Found, ...]:
    """Every file below a directory, in the order of versions.

    Raises:
        ConfigurationError: there is none, or names cannot be published; all of them are named.
    """
    if not directory.is_dir():
        raise ConfigurationError(
            f"{directory} is not a directory", "it holds one directory for each version"
        )
    found: list[Found] = []
    wrong: list[str] = []
    first: dict[str, str] = {}
    for path in sorted(directory.rglob("*"), key=lambda each: _natural(directory, each)):
        if path.is_dir() and not path.is_symlink():
            continue
        name = path.relative_to(directory)
        try:
            each = _look(path, name.parts, product, hardware, handler)
        except ConfigurationError as error:
            wrong.append(f"{name}: {error.message}")
            continue
        other = first.setdefault(each.labels.version, path.name)
        if other == path.name:
            found.append(each)
        else:
            # One import has one hardware: `judge` would refuse it, after everything before it.
            wrong.append(f"{name}: {other} of this version is for the same hardware already")
    if wrong:
        more = f"\n       and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise ConfigurationError(
            f"{len(wrong)} of {len(found) + len(wrong)} files cannot be imported:\n       "
            + "\n       ".join(wrong[:_NAMED])
            + more,
            "rename or move them; nothing was copied",
        )
    if not found:
        raise ConfigurationError(
            f"there is no file below {directory}", "expected files such as 1.0/image.img"
        )
    return tuple(found)


def _look(
    path: Path, parts: Sequence[str], product: str, hardware: frozenset[str], handler: str
) -> Found:
    match parts:
        case [version, name] if path.is_file() and not path.is_symlink():
            labels = Labels(product, version, hardware, handler, name)
        case _:
            raise ConfigurationError("expected a regular file VERSION/FILE")
    if not (length := path.stat().st_size):
        raise ConfigurationError("it is empty")
    return Found(path, labels, length)


def _natural(directory: Path, path: Path) -> list[tuple[int, int, str]]:
    """1.10 after 1.9."""
    pieces = re.findall(r"\d+|\D+", path.relative_to(directory).as_posix())
    return [(0, int(each), "") if each.isdecimal() else (1, 0, each) for each in pieces]


def import_directory(
    ws: Workspace,
    storage: Storage,
    files: Sequence[Found],
    secrets: Secrets,
    now: datetime,
    progress: Callable[[int], None] = lambda _: None,
) -> Imported:
    """Add files of one product, as `find` gave them. The caller holds the workspace's lock.

    Raises:
        As `add_firmware`. What was copied before stays, and is not copied again.
    """
    product = files[0].labels.product
    check_declared(ws, files[0].labels)
    signers = open_signers(ws, product, secrets)
    versions = dict.fromkeys(each.labels.version for each in files)
    near = Near(paths=tuple(each.labels.path for each in files), versions=tuple(versions))
    builds = read_builds(ws, storage, product, near)
    known, notes = _Known(builds), _Notes(ws)
    new: list[tuple[Labels, Incoming, int]] = []
    there = 0
    for each in files:
        labels = each.labels
        with notes.copied(each, progress) as incoming:
            verdict = judge(
                labels, incoming, known.beside(labels.version), known.given(labels.version)
            )
            if isinstance(verdict, AlreadyAdded):
                there += 1
                if not is_at_hand(ws, storage, labels.path, incoming):
                    notes.keep(each, incoming)
                continue
            notes.keep(each, incoming)
            known.add(flat_targets(labels, incoming, verdict.sequence)[0])
            new.append((labels, incoming, verdict.sequence))
    signed: tuple[str, ...] = ()
    if new:
        builds = begun(ws, product, builds, signers, now)
        if builds.bins is None:
            flat = [target for each in new for target in flat_targets(*each)]
            signed = stage_flat(ws, product, builds, flat, signers, now)
        else:
            signed = stage_bins(
                ws, product, builds, [binned_target(*each) for each in new], signers, now
            )
    notes.forget()
    releases = {labels.version for labels, _, _ in new}
    length = sum(incoming.length for _, incoming, _ in new)
    return Imported(len(new), there, len(releases), length, signed)


class _Known:
    """What is signed already, and what this import adds, by version."""

    def __init__(self, builds: Builds) -> None:
        self._targets: dict[str, dict[str, TargetFile]] = {}
        self._given = dict(builds.given)
        for target in builds.targets.values():
            self.add(target)

    def add(self, target: TargetFile) -> None:
        """One more artifact."""
        custom = target.custom or {}
        if "sequence" in custom:
            version = str(custom["version"])
            self._targets.setdefault(version, {})[target.path] = target
            self._given[version] = int(custom["sequence"])

    def beside(self, version: str) -> Mapping[str, TargetFile]:
        """The artifacts of one version, without a look at all the others."""
        return self._targets.get(version, {})

    def given(self, version: str) -> Mapping[str, int]:
        """The sequence of a version, or the highest there is."""
        if version in self._given:
            return {version: self._given[version]}
        return {"": max(self._given.values(), default=0)}


class _Notes:
    """What an import has copied, one line for each file: an interrupted one goes on from there."""

    def __init__(self, ws: Workspace) -> None:
        self._outbox = ws.outbox
        self._file = ws.memory / "import.jsonl"
        self._known: dict[str, dict[str, Any]] = {}
        self._marks: dict[str, list[int]] = {}
        with contextlib.suppress(FileNotFoundError):
            for line in self._file.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):  # cut off
                    note = json.loads(line)
                    self._known[note["source"]] = note

    @contextlib.contextmanager
    def copied(self, each: Found, progress: Callable[[int], None]) -> Iterator[Incoming]:
        """A file as it was copied before, or copied now. Raises as `copy_in`."""
        if (before := self._before(each)) is not None:
            progress(each.length)
            yield before
            return
        # Taken before the copy: what changes in the file from here on is read by the next import.
        with contextlib.suppress(OSError):
            self._marks[str(each.source.absolute())] = _mark(each.source)
        with copy_in(each.source, self._outbox, progress) as incoming:
            yield incoming

    def _before(self, each: Found) -> Incoming | None:
        note = self._known.get(str(each.source.absolute()))
        if note is None or note.get("mark") != _mark(each.source):
            return None
        copy = self._outbox / stored_name(each.labels.path, str(note["sha256"]))
        segments = b""
        if digest := note.get("segments"):
            listed = self._outbox / stored_name(each.labels.path + SUFFIX, str(digest))
            with contextlib.suppress(FileNotFoundError):
                segments = listed.read_bytes()
            if sha256(segments) != digest:
                return None
        if not copy.is_file() or copy.stat().st_size != each.length:
            return None
        return Incoming(copy, each.length, str(note["sha256"]), segments)

    def keep(self, each: Found, incoming: Incoming) -> None:
        """Give a copy its name in the outbox, and note it."""
        if incoming.copy != self._outbox / stored_name(each.labels.path, incoming.sha256):
            incoming.keep(self._outbox, each.labels.path)
        source = str(each.source.absolute())
        before = self._known.get(source, {}).get("mark")
        note = {
            "source": source,
            "mark": self._marks.get(source, before),
            "sha256": incoming.sha256,
            "segments": sha256(incoming.segments) if incoming.segments else "",
        }
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(note) + "\n")

    def forget(self) -> None:
        """Everything is signed."""
        remove_file(self._file)


def _mark(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns]
