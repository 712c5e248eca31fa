"""Firmware files on their way into a repository: copied once, measured, judged, kept in an outbox.

A file is read exactly once, in constant memory, into a private copy while its digest and those of
its 1 MiB segments are computed: what is signed is what was copied, whatever becomes of the source.
The rules:

* a file that changes while it is read is refused, and nothing of it is kept;
* the copy is durable before anything that names it is signed;
* a published path never changes its bytes, nor what is signed about them (design 4, guard meaning);
* a sequence belongs to one version of one product, for ever (interfaces, manifest rule 1).
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from client_reference.errors import (
    ConfigurationError,
    FirmrootError,
    RefusedError,
    RetryLaterError,
)
from client_reference.manifest import HANDLER, HARDWARE, NAME, VERSION, Meaning
from client_reference.payload.segments import SEGMENT, SUFFIX, has_segments
from repo_tools.files import DiskFullError, make_directory, replace_file, sync_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tuf.api.metadata import TargetFile

__all__ = [
    "AlreadyAdded",
    "Incoming",
    "Labels",
    "NewArtifact",
    "check_filename",
    "check_hardware",
    "check_version",
    "copy_in",
    "judge",
    "stored_name",
    "target_path",
]

_FILENAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_ATTEMPT = ".incoming"


@dataclass(frozen=True)
class Labels:
    """What the builder says about a file, before its bytes are known."""

    product: str
    version: str
    hardware: frozenset[str]
    handler: str
    filename: str

    def __post_init__(self) -> None:
        _check("product name", self.product, NAME, "lower-case letters, digits and single dashes")
        check_version(self.version)
        check_filename(self.filename)
        _check("handler", self.handler, HANDLER, "lower-case letters, digits and single dashes")
        if not self.hardware:
            raise ConfigurationError("no hardware id is given", "name them: --hardware acme,gw-2")
        for identity in self.hardware:
            _check("hardware id", identity, HARDWARE, "letters, digits or , . _ + : / -")

    def meaning(self, sequence: int) -> Meaning:
        """What the builds role will say about the file (design 4, guard meaning)."""
        return Meaning(self.product, self.hardware, self.version, sequence, self.handler)

    @property
    def path(self) -> str:
        """Its target path."""
        return target_path(self.product, self.version, self.filename)


@dataclass(frozen=True)
class Incoming:
    """A private copy of a firmware file, durable but under no name yet.

    Attributes:
        copy: where the bytes are; the file vanishes unless `keep` is called.
        length: bytes.
        sha256: hex digest of the whole.
        segments: the 32-byte digests of its 1 MiB segments in a row; empty for a single segment.
    """

    copy: Path
    length: int
    sha256: str
    segments: bytes

    def keep(self, outbox: Path, path: str) -> tuple[str, ...]:
        """Give the copy, and its segment list, their names in the outbox (storage layout).

        Args:
            outbox: the directory that mirrors a storage.
            path: the target path of the artifact.

        Returns:
            the storage paths of what now waits there.
        """
        name, *listed = self.stored(path)
        kept = outbox / name
        make_directory(kept.parent)
        self.copy.replace(kept)
        sync_directory(kept.parent)
        for each in listed:
            replace_file(outbox / each, self.segments)
        return (name, *listed)

    def stored(self, path: str) -> dict[str, str]:
        """Storage paths and digests of the artifact at a target path and of its segment list."""
        stored = {stored_name(path, self.sha256): self.sha256}
        if self.segments:
            digest = hashlib.sha256(self.segments).hexdigest()
            stored[stored_name(path + SUFFIX, digest)] = digest
        return stored


@dataclass(frozen=True)
class NewArtifact:
    """The file is new: sign it with this sequence."""

    sequence: int


@dataclass(frozen=True)
class AlreadyAdded:
    """The very same bytes and labels are signed already, under this sequence."""

    sequence: int


def _check(what: str, value: str, pattern: re.Pattern[str], expected: str) -> None:
    if not pattern.fullmatch(value):
        raise ConfigurationError(f"{value!r} is not a {what}: {expected} were expected")


def check_version(version: str) -> str:
    """A version label: never compared, but part of paths."""
    if not VERSION.fullmatch(version):
        raise ConfigurationError(
            f"{version!r} is not a version label: 1 to 64 letters, digits or . _ + ~ -, "
            "and a letter or digit first were expected",
            "for example: firmroot firmware add FILE -p PRODUCT -V 1.0.3 --hardware ID",
        )
    return version


def check_filename(name: str) -> str:
    """The name under which an artifact is published."""
    if not _FILENAME.fullmatch(name):
        raise ConfigurationError(
            f"the file name {name!r} cannot be published: 1 to 128 letters, digits or . _ + -, "
            "and a letter or digit first were expected",
            "copy or link the file under a plain name and add that",
        )
    if name.endswith(SUFFIX):
        raise ConfigurationError(
            f"the file name {name!r} ends in {SUFFIX}, the name of a segment list",
            "copy or link the file under another name and add that",
        )
    return name


def target_path(product: str, version: str, filename: str) -> str:
    """Where a builds role speaks about a file."""
    return f"builds/{product}/{version}/{filename}"


def stored_name(path: str, sha256: str) -> str:
    """The storage path of a target (TUF consistent snapshots: the digest before the base name)."""
    directory, _, name = path.rpartition("/")
    return f"targets/{directory}/{sha256}.{name}" if directory else f"targets/{sha256}.{name}"


@contextmanager
def copy_in(
    source: Path, outbox: Path, progress: Callable[[int], None] = lambda _: None
) -> Iterator[Incoming]:
    """Copy and measure a firmware file; the copy is gone afterwards unless it was kept.

    Args:
        source: the file.
        outbox: the directory that mirrors a storage; the caller holds the workspace's lock.
        progress: told the number of bytes after each piece.

    Raises:
        ConfigurationError: it is not a readable regular file, or it is empty.
        RefusedError: it changed while it was read.
        RetryLaterError: the disk is full, or failed.
    """
    make_directory(outbox)
    attempt = outbox / _ATTEMPT
    try:
        with _open_firmware(source) as file:
            yield _copy(file, source, attempt, progress)
    finally:
        attempt.unlink(missing_ok=True)


@contextmanager
def _open_firmware(source: Path) -> Iterator[BinaryIO]:
    """Open a regular file; a pipe or a device would block, or never be the same twice."""
    try:
        regular = stat.S_ISREG(source.stat().st_mode)
        file = source.open("rb") if regular else None
    except OSError as error:
        raise ConfigurationError(
            f"{source} cannot be read: {error.strerror}", "check the path and its permissions"
        ) from error
    if file is None:
        directory = source.is_dir()
        raise ConfigurationError(
            f"{source} is {'a directory' if directory else 'not a regular file'}",
            "a directory of releases, VERSION/FILE: firmroot firmware import"
            if directory
            else "name the firmware image itself",
        )
    with file:
        yield file


def _copy(file: BinaryIO, source: Path, attempt: Path, progress: Callable[[int], None]) -> Incoming:
    before = os.fstat(file.fileno())
    if before.st_size == 0:
        raise ConfigurationError(f"{source} is empty", "name the firmware image itself")
    whole, segments, length = hashlib.sha256(), bytearray(), 0
    try:
        with attempt.open("wb", buffering=0) as copy:
            while segment := file.read(SEGMENT):
                _write_all(copy.fileno(), segment)
                whole.update(segment)
                segments += hashlib.sha256(segment).digest()
                length += len(segment)
                progress(len(segment))
            os.fsync(copy.fileno())
    except OSError as error:
        raise _storage_failure(error, attempt, before.st_size) from error
    _check_unchanged(file, source, before, length)
    return Incoming(
        copy=attempt,
        length=length,
        sha256=whole.hexdigest(),
        segments=bytes(segments) if has_segments(length) else b"",
    )


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _storage_failure(error: OSError, attempt: Path, needed: int) -> FirmrootError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return DiskFullError(
            f"no room for a copy of {needed} bytes in {attempt.parent}: {error.strerror}",
            "free some space and run the command again; nothing was added",
        )
    return RetryLaterError(
        f"the copy into {attempt.parent} failed: {error.strerror}",
        "nothing was added; run the command again when the disk is well",
    )


def _check_unchanged(file: BinaryIO, source: Path, before: os.stat_result, length: int) -> None:
    """The same file, by name and by descriptor, as when reading began."""
    try:
        named: os.stat_result | None = source.stat()
    except OSError:
        named = None
    after = os.fstat(file.fileno())
    same = named is not None and _mark(before) == _mark(after) == _mark(named)
    if not same or length != before.st_size:
        raise RefusedError(
            f"{source} changed while it was read: {before.st_size} bytes at first, "
            f"{length} read, {after.st_size} at the end",
            "wait until whoever writes it is done, then add it again; nothing was added",
        )


def _mark(status: os.stat_result) -> tuple[int, ...]:
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
    )


def judge(
    labels: Labels,
    incoming: Incoming,
    signed: Mapping[str, TargetFile],
    given: Mapping[str, int] | None = None,
) -> NewArtifact | AlreadyAdded:
    """Pure: may these bytes be signed under these labels, and with which sequence?

    Args:
        labels: what the builder says.
        incoming: what was measured.
        signed: every target of the product's builds role, live and staged; of a role in hash bins
            those of this path, of this version and of the newest release.
        given: sequences by version that are known without their targets.

    Raises:
        RefusedError: the path is taken by other bytes or labels, or another artifact of this
            version is already meant for the same hardware and handler.
    """
    if (there := signed.get(labels.path)) is not None:
        return _same_again(labels, incoming, there)
    check_hardware(labels, signed)
    known = dict(given or {})
    if labels.version in known:
        return NewArtifact(known[labels.version])
    return NewArtifact(_sequence(labels.version, signed, max(known.values(), default=0)))


def check_hardware(labels: Labels, signed: Mapping[str, TargetFile]) -> None:
    """Pure: no two artifacts of a version are for the same hardware and handler.

    Args:
        labels: of one artifact.
        signed: the others.

    Raises:
        RefusedError: another one is.
    """
    for path, target in signed.items():
        custom = _custom(target)
        if custom.get("version") != labels.version or custom.get("handler") != labels.handler:
            continue
        if shared := sorted(labels.hardware.intersection(custom.get("hardware", ()))):
            raise RefusedError(
                f"{labels.product}@{labels.version} already has {path} for hardware "
                f"{', '.join(shared)} and handler {labels.handler!r}",
                "a device could not know which to install: use a new version, "
                "or leave that hardware out",
            )


def _same_again(labels: Labels, incoming: Incoming, there: TargetFile) -> AlreadyAdded:
    found = there.hashes.get("sha256")
    if there.length != incoming.length or found != incoming.sha256:
        raise RefusedError(
            f"{labels.path} was added with other bytes (sha256 {found}, now {incoming.sha256}); "
            "a published path never changes bytes",
            "give the new build a new version",
        )
    custom = _custom(there)
    sequence = custom.get("sequence")
    custom.pop("segments", None)  # part of what a bin says about the bytes
    if not isinstance(sequence, int) or custom != labels.meaning(sequence).custom():
        raise RefusedError(
            f"{labels.path} was added with other labels: {custom}",
            "what was signed about published bytes never changes: use a new version",
        )
    return AlreadyAdded(sequence)


def _custom(target: TargetFile) -> dict[str, Any]:
    return dict(target.custom or {})


def _sequence(version: str, signed: Mapping[str, TargetFile], highest: int = 0) -> int:
    """The version's own sequence if it has one (several payloads), else the product's next."""
    for target in signed.values():
        custom = _custom(target)
        if (sequence := custom.get("sequence")) is None:
            continue
        if custom.get("version") == version:
            return int(sequence)
        highest = max(highest, int(sequence))
    return highest + 1
