"""`doctor` sees what an update would meet: disk, programs, offer, mirrors, clock."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from client_reference import doctor
from client_reference.errors import ExitCode
from tests.power.recorder import read_tree
from tests.simulators.anchor import AnchorSimulator
from tests.simulators.certificates import make_authority
from tests.simulators.device import DeviceOnDisk, Publisher
from tests.simulators.mirror import Mirror, Trouble
from tests.simulators.repository import RepositorySimulator

if TYPE_CHECKING:
    from pathlib import Path

    from client_reference.manifest import Release
    from tests.simulators.device import Output

DEAD = "http://127.0.0.1:9/"


@pytest.fixture
def ready(publisher: Publisher, device: DeviceOnDisk) -> DeviceOnDisk:
    """An initialised device, and release 1.0."""
    publisher.release("1.0", 1, b"an image" * 100)
    assert device.run("init").code == 0
    return device


def lines(said: Output, severity: str) -> list[str]:
    return [line[9:] for line in said.out.splitlines() if line.startswith(f"{severity:<8} ")]


def told(said: Output, severity: str, words: str) -> None:
    assert any(words in line for line in lines(said, severity)), said.out


# The state directory


def not_writable(monkeypatch: pytest.MonkeyPatch, *places: Path) -> None:
    """As another user finds them; the tests may run as root, whom no permission stops."""
    real = os.access

    def access(path: Path, mode: int, **options: bool) -> bool:
        return not (path in places and mode & os.W_OK) and real(path, mode, **options)

    monkeypatch.setattr("os.access", access)


def volume(monkeypatch: pytest.MonkeyPatch, at: Path, **changes: int) -> None:
    """A file system as `statvfs` tells it."""
    real = os.statvfs
    names = ["f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree"]
    names += ["f_favail", "f_flag", "f_namemax"]

    def statvfs(path: Path) -> os.statvfs_result:
        found = real(path)
        if path != at:
            return found
        return os.statvfs_result([changes.get(name, getattr(found, name)) for name in names])

    monkeypatch.setattr("os.statvfs", statvfs)


def test_a_state_that_cannot_be_written_is_an_error(
    ready: DeviceOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = ready.directory / "state"
    for place in (state, state / "a.db", state / "b.db"):
        with monkeypatch.context() as patch:
            not_writable(patch, place)
            said = ready.run("doctor")
        told(said, "error", f"store: {place} cannot be written by user {os.geteuid()}: ")
        assert said.code == ExitCode.REFUSED
    assert ready.run("doctor").code == 0


def test_the_place_where_init_will_make_the_state_is_looked_at(
    device: DeviceOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    not_writable(monkeypatch, device.directory)
    said = device.run("doctor")
    told(said, "error", f"store: {device.directory} cannot be written by user {os.geteuid()}: ")


FILE_SYSTEMS = {
    "read-only": ({"f_flag": os.ST_RDONLY}, "is on a file system that is mounted read-only"),
    "full": ({"f_bavail": 1, "f_frsize": 4096}, "is on a full file system: 4.0 KiB free, a change"),
    "without inodes": ({"f_favail": 0, "f_files": 9}, "is on a file system without a free inode"),
}


@pytest.mark.parametrize("sentence", FILE_SYSTEMS)
def test_a_file_system_that_takes_no_state_is_an_error(
    ready: DeviceOnDisk, monkeypatch: pytest.MonkeyPatch, sentence: str
) -> None:
    changes, words = FILE_SYSTEMS[sentence]
    state = ready.directory / "state"
    with monkeypatch.context() as patch:
        volume(patch, state, **changes)
        said = ready.run("doctor")
    told(said, "error", f"store: {state} {words}")
    assert said.code == ExitCode.REFUSED
    assert ready.run("update").code == 0


# The programs of a command


def for_the_command(release: Release) -> Release:
    payloads = tuple(replace(one, handler="command") for one in release.payloads)
    return replace(release, payloads=payloads)


def test_a_program_that_cannot_be_run_is_named_before_anything_is_downloaded(
    publisher: Publisher, mirror: Mirror, device: DeviceOnDisk
) -> None:
    publisher.release("1.0", 1, b"an image" * 100, for_the_command, handler="command")
    plain = device.directory / "install.sh"
    plain.write_text("#!/bin/sh\ntrue\n")
    root = publisher.repo.files["metadata/1.root.json"]

    def with_commands(run: str, confirm: str, reboot: str) -> Output:
        install = (
            f'handler = "command"\n[install.command]\nrun = ["{run}", "{{path}}"]\n'
            f'confirm = ["{confirm}"]\nreboot = ["{reboot}"]'
        )
        device.make(root, [mirror.url], install=install)
        return device.run("doctor")

    device.make(root, [mirror.url])
    assert device.run("init").code == 0
    said = with_commands("no-such-program", str(plain), f"{device.directory}/none")
    assert said.code == ExitCode.USAGE
    told(said, "error", "installer: run: there is no program no-such-program")
    told(said, "error", f"installer: confirm: {plain} is not executable")
    told(said, "error", f"installer: reboot: there is no program {device.directory}/none")
    plain.chmod(0o755)
    said = with_commands(str(plain), "true", "true")
    assert (said.code, lines(said, "error")) == (0, [])
    assert device.run("update").code == 0


def test_an_automatic_restart_that_nothing_does_is_a_warning(
    publisher: Publisher, mirror: Mirror, device: DeviceOnDisk
) -> None:
    publisher.release("1.0", 1, b"an image" * 100, for_the_command, handler="command")
    root = publisher.repo.files["metadata/1.root.json"]
    install = '[install.command]\nrun = ["true", "{path}"]'
    words = "installer: nothing here may restart the device"
    device.make(root, [mirror.url], install=f'handler = "command"\n{install}')
    device.run("init")
    told(device.run("doctor"), "warning", words)
    device.make(root, [mirror.url], install=f'handler = "command"\nreboot = "ask"\n{install}')
    assert words not in device.run("doctor").out


# What the repository offers


def other_hardware(ready: DeviceOnDisk) -> None:
    text = ready.config.read_text().replace("literal:acme,gw-2", "literal:acme,gw-9")
    ready.config.write_text(text)


def other_handler(ready: DeviceOnDisk) -> None:
    command = '[install]\nhandler = "command"\n[install.command]\nrun = ["true", "{path}"]\n'
    ready.config.write_text(ready.config.read_text().split("[install]")[0] + command)


def other_channel(ready: DeviceOnDisk) -> None:
    ready.config.write_text(ready.config.read_text().replace('"stable"', '"stabel"'))


NOTHING = {
    "hardware": (other_hardware, "no release of the channel has a payload for this hardware"),
    "handler": (other_handler, "it needs the handler slot, this device has command"),
    "channel": (other_channel, "the repository has no channel gateway/stabel"),
}


@pytest.mark.parametrize("before", [(), ("update", "confirm")], ids=["new", "after an update"])
@pytest.mark.parametrize("sentence", NOTHING)
def test_a_device_for_which_nothing_is_offered_is_told(
    ready: DeviceOnDisk, sentence: str, before: tuple[str, ...]
) -> None:
    change, words = NOTHING[sentence]
    assert all(ready.run(command).code == 0 for command in before)
    kept = ready.config.read_text()
    change(ready)
    said = ready.run("doctor")
    told(said, "error", words)
    assert said.code == ExitCode.USAGE
    ready.config.write_text(kept)
    assert ready.run("doctor").code == 0


def test_a_newest_release_for_other_hardware_is_no_error_where_an_older_fits(
    publisher: Publisher, ready: DeviceOnDisk
) -> None:
    def elsewhere(release: Release) -> Release:
        payloads = tuple(replace(one, hardware=("acme,gw-3",)) for one in release.payloads)
        return replace(release, payloads=payloads)

    ready.run("update")
    ready.run("confirm")
    publisher.release("1.1", 2, b"other" * 9, elsewhere, hardware=frozenset({"acme,gw-3"}))
    said = ready.run("doctor")
    assert said.code == 0
    told(said, "ok", "next check: 1.1 (sequence 2) is not installed: it has no payload")


def test_a_channel_to_which_nothing_was_promoted_is_a_warning(device: DeviceOnDisk) -> None:
    assert device.run("init").code == 0
    said = device.run("doctor")
    assert said.code == 0
    told(said, "warning", "next check: nothing was promoted to gateway/stable yet")


# The next check is a check


def test_a_mirror_that_lies_does_not_spoil_the_prediction(
    publisher: Publisher, ready: DeviceOnDisk, mirror: Mirror
) -> None:
    files = dict(publisher.repo.files) | {"metadata/timestamp.json": b'{"signed": {}}'}
    with Mirror(files) as liar:
        root = publisher.repo.files["metadata/1.root.json"]
        ready.make(root, [liar.url, mirror.url])
        before = read_tree(ready.directory)
        said = ready.run("doctor")
        assert read_tree(ready.directory) == before
        assert ready.run("check").code == 0
    told(said, "ok", "next check: would install 1.0")
    assert said.code == 0


def test_what_this_boot_knows_of_time_is_in_the_prediction(
    publisher: Publisher, ready: DeviceOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.repo.timestamp.unrecognized_fields["x-firmroot-issued"] = "2031-05-01T00:00:00Z"
    publisher.repo.publish("timestamp")
    assert ready.run("check").code == 0
    ready.now = "1970-01-01T00:00:00Z"
    assert ready.run("doctor").code == 0
    real = time.clock_gettime  # a boot of ten years
    monkeypatch.setattr("time.clock_gettime", lambda clock: real(clock) + 10 * 365 * 86_400)
    checked, said = ready.run("check"), ready.run("doctor")
    assert checked.code == said.code == ExitCode.NOT_TRUSTED
    told(said, "error", "next check: ")
    told(said, "error", "expired")


def test_a_trial_keeps_the_next_release_waiting(publisher: Publisher, ready: DeviceOnDisk) -> None:
    ready.run("update")
    publisher.release("1.1", 2, b"newer" * 100)
    said = ready.run("doctor")
    told(
        said, "warning", "next check: 1.1 waits: 1.0 is on trial until it is confirmed or rejected"
    )
    assert "would install" not in said.out
    assert ready.run("confirm").code == 0
    told(ready.run("doctor"), "ok", "next check: would install 1.1")


def test_a_release_that_is_only_staged_keeps_nothing_waiting(ready: DeviceOnDisk) -> None:
    ready.run("update", "--download-only")
    said = ready.run("doctor")
    told(said, "ok", "installer: release 1.0 is staged: the next update goes on with it")
    told(said, "ok", "next check: would install 1.0")


def test_a_re_rooting_is_part_of_the_prediction(
    publisher: Publisher, mirror: Mirror, device: DeviceOnDisk
) -> None:
    publisher.release("1.0", 1, b"an image" * 100)
    root = publisher.repo.files["metadata/1.root.json"]
    anchor = AnchorSimulator(root)
    with Mirror(anchor.files) as rescue:
        urls = f'recovery = ["{rescue.url}"]'
        device.make(root, [mirror.url], recovery_root=anchor.files["1.root.json"], repository=urls)
        assert device.run("init").code == 0
        second = Publisher(RepositorySimulator(epoch=1))
        second.release("2.0", 5, b"another image" * 100)
        anchor.re_root(second.repo)
        rescue.files = anchor.files
        mirror.files = second.repo.files
        before = read_tree(device.directory)
        said = device.run("doctor")
        assert read_tree(device.directory) == before
        told(said, "ok", "next check: would install 2.0")
        told(said, "warning", "next check: the recovery anchor re-rooted this device: epoch 0")
        assert device.run("update").code == 0


# Mirrors


def test_one_dead_mirror_of_two_is_a_warning(ready: DeviceOnDisk, mirror: Mirror) -> None:
    root = (ready.directory / "factory/root.json").read_bytes()
    ready.make(root, [DEAD, mirror.url])
    said = ready.run("doctor")
    assert (said.code, lines(said, "error")) == (0, [])
    told(said, "warning", f"{DEAD}: ")
    ready.make(root, [DEAD, "http://127.0.0.1:10/"])
    said = ready.run("doctor")
    assert said.code == ExitCode.RETRY_LATER
    told(said, "error", f"{DEAD}: ")
    told(said, "error", "no mirror answers")


# Before init


def test_before_init_everything_is_examined_as_init_would_have_it(
    publisher: Publisher, device: DeviceOnDisk, mirror: Mirror
) -> None:
    publisher.release("1.0", 1, b"an image" * 100)
    device.run("status")  # the simulator's own files are there
    before = read_tree(device.directory)
    said = device.run("doctor")
    assert said.code == ExitCode.ACTION_REQUIRED
    (missing,) = lines(said, "error")
    assert missing.startswith("store: there is no trust state in ")
    assert f"run `firmroot-device --config {device.config} init`" in missing
    told(said, "warning", f"{mirror.url}: answers with ")
    told(said, "ok", "clock: ")
    told(said, "ok", "next check: would install 1.0")
    assert read_tree(device.directory) == before
    (device.directory / "factory/root.json").unlink()
    said = device.run("doctor")
    told(said, "error", "root.json cannot be read")
    assert sum("root.json cannot be read" in line for line in lines(said, "error")) == 1
    told(said, "warning", f"{mirror.url}: answers with ")


# Suppositions


def test_a_time_beyond_all_dates_is_refused_with_the_largest(ready: DeviceOnDisk) -> None:
    said = ready.run("doctor", "--shelf", "9999y")
    assert said.code == ExitCode.USAGE
    found = re.search(r"--shelf is '9999y', expected at most ([0-9]+)y", said.err)
    assert found is not None, said.err
    assert ready.run("doctor", "--shelf", f"{found[1]}y").code == 0
    said = ready.run("doctor", "--shelf", f"{int(found[1]) + 1}y")
    assert "expected at most " in said.err
    assert "bug" not in said.err


def test_a_far_floor_is_examined(ready: DeviceOnDisk) -> None:
    with suppress(FileNotFoundError):
        for file in (ready.directory / "state").iterdir():
            file.unlink()
    floors = ready.directory / "factory/floors.json"
    floors.write_text(floors.read_text().replace("2031-01-01T00", "9999-12-31T23"))
    assert ready.run("init").code == 0
    for more in ((), ("--shelf", "5y"), ("--clock", "1970"), ("--clock", "9999-12-31")):
        said = ready.run("doctor", *more)
        assert said.code in {0, ExitCode.NOT_TRUSTED}, said.err
        assert "bug" not in said.out + said.err
        told(said, "warning", "clock: ")


def test_a_clock_of_1970_beside_a_shelf_is_what_the_clock_says_then(ready: DeviceOnDisk) -> None:
    ready.run("update")
    said = ready.run("doctor", "--clock", "1970", "--shelf", "5y")
    told(said, "warning", "clock: this device's clock says 1970-01-01T00:00:00Z")
    assert said.code == 0


@pytest.mark.parametrize("degraded", ["allow", "forbid"])
def test_a_clock_of_1970_breaks_tls_as_it_would(
    publisher: Publisher, device: DeviceOnDisk, tmp_path: Path, degraded: str
) -> None:
    publisher.release("1.0", 1, b"an image" * 100)
    authority = make_authority(tmp_path)
    root = publisher.repo.files["metadata/1.root.json"]
    with Mirror(publisher.repo.files, authority.good) as secure:
        device.make(root, [secure.url], tls=f'roots = "private"\ndegraded = "{degraded}"')
        (device.directory / "factory/ca-bundle.pem").write_bytes(authority.bundle.read_bytes())
        assert device.run("init").code == 0
        told(device.run("doctor"), "ok", f"{secure.url}: answers over verified TLS")
        said = device.run("doctor", "--clock", "1970")
        why = f"{secure.url}: its certificate is valid from 20"
        assert "answers over verified TLS" not in said.out
        if degraded == "allow":
            assert said.code == 0
            told(said, "warning", why)
            told(said, "warning", "updates go on over degraded transport")
            told(said, "ok", "next check: would install 1.0")
            told(said, "warning", "certificates: ")
        else:
            assert said.code == ExitCode.RETRY_LATER
            told(said, "error", why)
            told(said, "error", 'tls.degraded = "forbid"')
            told(said, "error", "next check: ")
            assert "would install" not in said.out
        told(said, "warning", "freshness unproven")


def test_a_mirror_that_is_gone_has_no_certificate_to_judge(
    publisher: Publisher, device: DeviceOnDisk, mirror: Mirror
) -> None:
    root = publisher.repo.files["metadata/1.root.json"]
    device.make(root, ["https://127.0.0.1:9/", mirror.url])
    device.run("init")
    mirror.trouble = Trouble(times=0)
    said = device.run("doctor", "--clock", "1970")
    told(said, "warning", "https://127.0.0.1:9/: ")


# The boot record


def test_a_boot_record_that_a_restart_loses_is_a_warning(
    ready: DeviceOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Partitions are in /dev, and what lies beside them there is gone after a restart."""
    assert ready.run("update").code == 0
    assert "which a restart loses" not in ready.run("doctor").out
    monkeypatch.setattr(doctor, "_DEVICES", ready.directory / "slots")
    told(ready.run("doctor"), "warning", "slots/boot.json, which a restart loses")
    (ready.directory / "data").mkdir()
    for name in ("A.img", "B.img"):
        (ready.directory / "data" / name).symlink_to(ready.directory / "slots" / name)
    (ready.directory / "slots" / "boot.json").rename(ready.directory / "data" / "boot.json")
    ready.config.write_text(ready.config.read_text().replace("slots/", "data/"))
    assert "which a restart loses" not in ready.run("doctor").out
    assert ready.run("confirm").code == 0
    assert ready.slot("B") == b"an image" * 100
