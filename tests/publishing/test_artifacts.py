"""Firmware files on their way into the outbox: what is accepted, measured and refused."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import resource
import signal
from typing import TYPE_CHECKING, Any

import pytest
from tuf.api.metadata import TargetFile

from client_reference.errors import ConfigurationError, FirmrootError, RefusedError
from client_reference.payload.segments import SEGMENT, hash_segments
from repo_tools.publishing.artifacts import (
    AlreadyAdded,
    Incoming,
    Labels,
    NewArtifact,
    copy_in,
    judge,
    stored_name,
)
from tests.publishing.lab import HARDWARE, PRODUCT, image
from tests.simulators.disk import recorded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.publishing.lab import Lab


def _labels(version: str = "1.0", **other: Any) -> Labels:  # noqa: ANN401  any field
    fields = {
        "product": PRODUCT,
        "version": version,
        "hardware": frozenset({HARDWARE}),
        "handler": "slot",
        "filename": "gw2.img",
    }
    return Labels(**{**fields, **other})


def _files(outbox: Path) -> list[str]:
    return sorted(str(path.relative_to(outbox)) for path in outbox.rglob("*") if path.is_file())


# Copying and measuring.

LENGTHS = {
    "one byte": 1,
    "one byte less than a segment": SEGMENT - 1,
    "exactly one segment": SEGMENT,
    "one byte more than a segment": SEGMENT + 1,
    "exactly three segments": 3 * SEGMENT,
    "three segments and a rest": 3 * SEGMENT + 7,
}


@pytest.mark.parametrize("case", LENGTHS)
def test_a_file_is_measured_in_whole_and_in_segments(case: str, tmp_path: Path) -> None:
    data = os.urandom(LENGTHS[case])
    (tmp_path / "gw2.img").write_bytes(data)
    seen: list[int] = []
    with copy_in(tmp_path / "gw2.img", tmp_path / "outbox", seen.append) as incoming:
        kept = incoming.keep(tmp_path / "outbox", "builds/gateway/1.0/gw2.img")
    assert incoming.length == sum(seen) == len(data)
    assert incoming.sha256 == hashlib.sha256(data).hexdigest()
    pieces = [data[start : start + SEGMENT] for start in range(0, len(data), SEGMENT)]
    expected = hash_segments(pieces) if len(data) > SEGMENT else b""
    assert incoming.segments == expected
    assert _files(tmp_path / "outbox") == sorted(kept)
    assert (tmp_path / "outbox" / kept[0]).read_bytes() == data
    assert [(tmp_path / "outbox" / each).read_bytes() for each in kept[1:]] == (
        [expected] if expected else []
    )


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    with (tmp_path / "big.img").open("wb") as file:
        file.truncate(64 * SEGMENT)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with copy_in(tmp_path / "big.img", tmp_path / "outbox"):
        pass
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024


def test_what_is_not_kept_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "gw2.img").write_bytes(b"firmware")
    with copy_in(tmp_path / "gw2.img", tmp_path / "outbox"):
        pass
    assert _files(tmp_path / "outbox") == []


def test_a_copy_is_durable_before_and_after_it_gets_its_name(tmp_path: Path) -> None:
    (tmp_path / "gw2.img").write_bytes(os.urandom(SEGMENT + 1))
    (tmp_path / "outbox/targets/builds/gateway/1.0").mkdir(parents=True)
    with recorded() as calls, copy_in(tmp_path / "gw2.img", tmp_path / "outbox") as incoming:
        copy, segments = incoming.keep(tmp_path / "outbox", "builds/gateway/1.0/gw2.img")
    assert calls == [
        "sync file",
        f"rename {copy.rpartition('/')[2]}",
        "sync directory 1.0",
        "sync file",
        f"rename {segments.rpartition('/')[2]}",
        "sync directory 1.0",
    ]


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _shrink(path: Path) -> None:
    os.truncate(path, 2 * SEGMENT)


def _rewrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"x")
    os.utime(path, ns=(1, 1))


def _replace(path: Path) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(path.read_bytes())
    times = path.stat()
    os.utime(fresh, ns=(times.st_atime_ns, times.st_mtime_ns))
    fresh.replace(path)


CHANGES: dict[str, Callable[[Path], None]] = {
    "it grows": _grow,
    "it shrinks": _shrink,
    "bytes that were read are rewritten": _rewrite,
    "another file takes its name": _replace,
    "it is removed": lambda path: path.unlink(),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_file_that_changes_while_it_is_read_is_refused(case: str, tmp_path: Path) -> None:
    source = tmp_path / "gw2.img"
    source.write_bytes(os.urandom(3 * SEGMENT))
    pieces: list[int] = []

    def change_after_first_piece(length: int) -> None:
        if not pieces:
            CHANGES[case](source)
        pieces.append(length)

    with (
        pytest.raises(RefusedError, match="changed while it was read") as caught,
        copy_in(source, tmp_path / "outbox", change_after_first_piece),
    ):
        pytest.fail("the file was accepted")
    assert "nothing was added" in caught.value.hint
    assert _files(tmp_path / "outbox") == []


def test_a_file_that_shrank_and_grew_again_before_anybody_looked_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "gw2.img"
    source.write_bytes(os.urandom(3 * SEGMENT))
    times = source.stat()
    sync = os.fsync

    def grow_again(descriptor: int) -> None:
        os.truncate(source, 3 * SEGMENT)
        os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
        sync(descriptor)

    (tmp_path / "outbox").mkdir()
    monkeypatch.setattr(os, "fsync", grow_again)
    with (
        pytest.raises(RefusedError, match=f"at first, {2 * SEGMENT} read"),
        copy_in(source, tmp_path / "outbox", lambda _: os.truncate(source, 2 * SEGMENT)),
    ):
        pytest.fail("the file was accepted")


def test_a_command_that_meets_a_changing_file_adds_nothing(
    live: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "gw2.img"
    source.write_bytes(image("1.5"))
    sync, seconds = os.fsync, itertools.count(1)

    def touch(descriptor: int) -> None:
        os.utime(source, (1, next(seconds)))
        sync(descriptor)

    before = live.tree()
    monkeypatch.setattr(os, "fsync", touch)
    done = live.run("firmware", "add", source, "-p", PRODUCT, "-V", "1.5", "--hardware", HARDWARE)
    assert done.code == 5
    assert "changed while it was read" in done.err
    assert live.tree() == before


WRONG_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "it is empty": (lambda path: path.write_bytes(b""), "is empty"),
    "it is not there": (lambda _: None, "cannot be read: No such file or directory"),
    "it is a directory": (lambda path: path.mkdir(), "is a directory"),
    "it is a pipe, which would block": (os.mkfifo, "is not a regular file"),
}


@pytest.mark.parametrize("case", WRONG_FILES)
def test_only_a_file_with_content_is_firmware(case: str, tmp_path: Path) -> None:
    make, message = WRONG_FILES[case]
    make(tmp_path / "gw2.img")
    with (
        pytest.raises(ConfigurationError, match=message) as caught,
        copy_in(tmp_path / "gw2.img", tmp_path / "outbox"),
    ):
        pytest.fail("the file was accepted")
    assert ("firmware import" in caught.value.hint) == (case == "it is a directory")


def test_a_full_disk_is_named_and_nothing_is_half_written(live: Lab, tmp_path: Path) -> None:
    source = tmp_path / "gw2.img"
    source.write_bytes(image("1.5", 3 * SEGMENT))
    before = live.tree()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2 * SEGMENT, 2 * SEGMENT))
            done = live.run(
                "firmware", "add", source, "-p", PRODUCT, "-V", "1.5", "--hardware", HARDWARE
            )
            (tmp_path / "said").write_text(done.err)
            code = done.code
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
    said = (tmp_path / "said").read_text()
    assert f"no room for a copy of {3 * SEGMENT} bytes" in said
    assert "free some space and run the command again; nothing was added" in said
    assert live.tree() == before
    live.ok("firmware", "add", source, "-p", PRODUCT, "-V", "1.5", "--hardware", HARDWARE)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_fails_while_copying_is_no_bug(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gw2.img").write_bytes(b"firmware")

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    (tmp_path / "outbox").mkdir()
    monkeypatch.setattr(os, "fsync", fail)
    with (
        pytest.raises(FirmrootError) as caught,
        copy_in(tmp_path / "gw2.img", tmp_path / "outbox"),
    ):
        pytest.fail("the copy was accepted")
    assert caught.value.exit_code == 4
    assert os.strerror(code) in caught.value.message
    assert _files(tmp_path / "outbox") == []


# Labels.

WRONG_LABELS: dict[str, tuple[dict[str, Any], str]] = {
    "a version with a slash": ({"version": "1/0"}, "is not a version label"),
    "a version that climbs": ({"version": ".."}, "is not a version label"),
    "a version that is too long": ({"version": "1" * 65}, "is not a version label"),
    "a file name with a space": ({"filename": "gw 2.img"}, "cannot be published"),
    "a hidden file": ({"filename": ".img"}, "cannot be published"),
    "a file named as a segment list": ({"filename": "gw2.segments"}, "ends in .segments"),
    "a product in capitals": ({"product": "Gateway"}, "is not a product name"),
    "a handler with a dot": ({"handler": "a.b"}, "is not a handler"),
    "no hardware": ({"hardware": frozenset()}, "no hardware id"),
    "hardware with a wildcard": ({"hardware": frozenset({"acme,*"})}, "is not a hardware id"),
}


@pytest.mark.parametrize("case", WRONG_LABELS)
def test_labels_that_could_mean_something_else_are_refused(case: str) -> None:
    fields, message = WRONG_LABELS[case]
    with pytest.raises(ConfigurationError, match=message):
        _labels(**fields)


def test_the_digest_stands_before_the_name_in_the_storage() -> None:
    assert stored_name("builds/p/1/f.img", "ab") == "targets/builds/p/1/ab.f.img"
    assert stored_name("f.img", "ab") == "targets/ab.f.img"


# Judging.


def _incoming(data: bytes, tmp_path: Path) -> Incoming:
    return Incoming(tmp_path / "copy", len(data), hashlib.sha256(data).hexdigest(), b"")


def _signed(labels: Labels, data: bytes, sequence: int) -> dict[str, TargetFile]:
    target = TargetFile(
        len(data),
        {"sha256": hashlib.sha256(data).hexdigest()},
        labels.path,
        {"custom": labels.meaning(sequence).custom()},
    )
    return {labels.path: target}


def test_the_first_sequence_is_one_and_the_next_follows_the_highest(tmp_path: Path) -> None:
    incoming = _incoming(b"new", tmp_path)
    assert judge(_labels(), incoming, {}) == NewArtifact(1)
    signed = _signed(_labels("1.0"), b"a", 7) | _signed(_labels("0.9"), b"b", 3)
    assert judge(_labels("1.1"), incoming, signed) == NewArtifact(8)


def test_sequences_of_the_index_are_known_without_their_targets(tmp_path: Path) -> None:
    incoming, given = _incoming(b"new", tmp_path), {"1.0": 7, "0.9": 3}
    assert judge(_labels("0.9"), incoming, {}, given) == NewArtifact(3)
    assert judge(_labels("1.1"), incoming, {}, given) == NewArtifact(8)


def test_a_second_file_of_a_version_shares_its_sequence(tmp_path: Path) -> None:
    signed = _signed(_labels("1.0"), b"a", 7) | _signed(_labels("2.0"), b"b", 9)
    other = _labels("1.0", hardware=frozenset({"acme,gw-3"}), filename="gw3.img")
    assert judge(other, _incoming(b"c", tmp_path), signed) == NewArtifact(7)
    handler = _labels("1.0", handler="command", filename="gw2.raucb")
    assert judge(handler, _incoming(b"c", tmp_path), signed) == NewArtifact(7)


def test_the_same_bytes_and_labels_again_are_found(tmp_path: Path) -> None:
    signed = _signed(_labels(), b"same", 7)
    assert judge(_labels(), _incoming(b"same", tmp_path), signed) == AlreadyAdded(7)


REFUSED = {
    "other bytes under the same path": (_labels(), b"0ther", "never changes bytes"),
    "longer bytes under the same path": (_labels(), b"other!", "never changes bytes"),
    "other hardware for the same bytes": (
        _labels(hardware=frozenset({"acme,gw-3"})),
        b"other",
        "other labels",
    ),
    "another handler for the same bytes": (_labels(handler="command"), b"other", "other labels"),
    "a second file for the same hardware": (
        _labels(filename="again.img"),
        b"again",
        "already has builds/gateway/1.0/gw2.img for hardware acme,gw-2",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_was_signed_about_a_path_never_changes(case: str, tmp_path: Path) -> None:
    labels, data, message = REFUSED[case]
    with pytest.raises(RefusedError, match=message):
        judge(labels, _incoming(data, tmp_path), _signed(_labels(), b"other", 7))


LIES: dict[str, tuple[dict[str, Any], str]] = {
    "another length of the same bytes": ({"length": 9}, "never changes bytes"),
    "a sequence that is no number": ({"sequence": "7"}, "other labels"),
}


@pytest.mark.parametrize("case", LIES)
def test_what_is_signed_wrongly_is_not_signed_again(case: str, tmp_path: Path) -> None:
    lie, message = LIES[case]
    signed = _signed(_labels(), b"other", 7)
    (there,) = signed.values()
    there.length = lie.get("length", there.length)
    there.unrecognized_fields["custom"]["sequence"] = lie.get("sequence", 7)
    with pytest.raises(RefusedError, match=message):
        judge(_labels(), _incoming(b"other", tmp_path), signed)


def test_files_that_are_no_firmware_have_no_say(tmp_path: Path) -> None:
    signed = _signed(_labels("1.0"), b"a", 7)
    for path, fields in (("a.segments", {"custom": {"segments-of": "a"}}), ("b", {})):
        signed[path] = TargetFile(1, {"sha256": "00" * 32}, path, fields)
    assert judge(_labels("1.1"), _incoming(b"new", tmp_path), signed) == NewArtifact(8)


# The command.


def test_adding_twice_says_so_and_changes_nothing(live: Lab) -> None:
    before = live.tree()
    done = live.add("1.0")
    assert "is there already as gateway@1.0: sequence 1" in done.out
    assert live.tree() == before


def test_other_bytes_under_a_published_version_are_refused(live: Lab, tmp_path: Path) -> None:
    before = live.tree()
    (tmp_path / "firmware.img").write_bytes(b"something else")
    done = live.run(
        "firmware",
        *("add", tmp_path / "firmware.img", "-p", PRODUCT, "-V", "1.0", "--hardware", HARDWARE),
    )
    assert done.code == 5
    assert "a published path never changes bytes" in done.err
    assert live.tree() == before


def test_several_additions_before_a_publish_are_all_published(live: Lab) -> None:
    for version in ("1.1", "1.2", "1.3"):
        live.add(version)
    rows = live.ok("--json", "firmware", "list").json["firmware"]
    assert [(row["version"], row["sequence"], row["state"]) for row in rows] == [
        ("1.0", 1, "published"),
        ("1.1", 2, "waits for publish"),
        ("1.2", 3, "waits for publish"),
        ("1.3", 4, "waits for publish"),
    ]
    live.promote("1.3")
    live.ok("publish")
    assert live.fresh_device()[1] == "installs 1.3"


def test_lost_outbox_bytes_come_back_by_adding_the_file_again(following: Lab) -> None:
    for path in (following.directory / ".firmroot/outbox").rglob("*.img"):
        path.unlink()
    assert following.run("publish").code == 5
    following.add("1.1")
    following.ok("publish")
    assert following.fresh_device()[1] == "installs 1.1"


UNDECLARED = {
    "an unknown product": (("-p", "router", "-V", "1", "--hardware", HARDWARE), "no product"),
    "undeclared hardware": (
        ("-p", PRODUCT, "-V", "1", "--hardware", "acme,gw-9"),
        "gateway has no hardware acme,gw-9; it has: acme,gw-2",
    ),
    "a handler that no device has": (
        ("-p", PRODUCT, "-V", "1", "--hardware", HARDWARE, "--handler", "slots"),
        "devices have no handler 'slots'",
    ),
}


@pytest.mark.parametrize("case", UNDECLARED)
def test_only_declared_products_and_hardware_get_firmware(
    case: str, live: Lab, tmp_path: Path
) -> None:
    arguments, message = UNDECLARED[case]
    (tmp_path / "gw2.img").write_bytes(b"firmware")
    done = live.run("firmware", "add", tmp_path / "gw2.img", *arguments)
    assert done.code == 2
    assert message in done.err


def test_without_the_builders_key_nothing_is_copied(live: Lab, tmp_path: Path) -> None:
    keys = live.directory / ".firmroot/keys.toml"
    lines = keys.read_text().splitlines(keepends=True)
    keys.write_text("".join(line for line in lines if not line.startswith("ci ")))
    (tmp_path / "gw2.img").write_bytes(b"firmware")
    done = live.run(
        "firmware",
        *("add", tmp_path / "gw2.img", "-p", PRODUCT, "-V", "2", "--hardware", HARDWARE),
    )
    assert done.code == 3
    assert "gateway-builds needs 1 signature(s) of ci; this machine has" in done.err


def test_firmware_of_another_machine_that_was_published_first_is_noticed(
    live: Lab, tmp_path: Path
) -> None:
    live.add("1.1")
    other = live.copy(tmp_path / "elsewhere" / "acme")
    # The other machine gives the same sequence to another version, and publishes first.
    (other.directory / ".firmroot/staged/gateway-builds.json").unlink()
    other.add("1.2")
    other.ok("publish")
    for name in ("repository", "metadata"):
        (live.directory / name).rename(tmp_path / f"old-{name}")
        (other.directory / name).rename(live.directory / name)
    (tmp_path / "firmware.img").write_bytes(image("1.1"))
    done = live.run(
        "firmware",
        *("add", tmp_path / "firmware.img", "-p", PRODUCT, "-V", "1.1", "--hardware", HARDWARE),
    )
    assert done.code == 5
    assert "sequence 2 is 1.1 and 1.2" in done.err or "sequence 2 is 1.2 and 1.1" in done.err
    assert "remove .firmroot/staged/gateway-builds.json" in done.err
    (live.directory / ".firmroot/staged/gateway-builds.json").unlink()
    live.add("1.1")
    live.ok("publish")
    rows = live.ok("--json", "firmware", "list").json["firmware"]
    assert [(row["version"], row["sequence"]) for row in rows] == [
        ("1.0", 1),
        ("1.2", 2),
        ("1.1", 3),
    ]
