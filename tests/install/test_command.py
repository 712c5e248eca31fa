"""The handler `command`: a real program gets a verified file, and its answer is believed."""

from __future__ import annotations

import errno
import hashlib
import os
import select
import shutil
import signal
import stat
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from client_reference.durable import SPARE
from client_reference.errors import (
    ActionRequiredError,
    ConfigurationError,
    ImageGoneError,
    LocalFailureError,
)
from client_reference.install.command import (
    CommandFailedError,
    CommandInstaller,
    Commands,
    run,
)
from client_reference.trust.state import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

NEW = b"a bundle " * 1000
IMAGE = Image(hashlib.sha256(NEW).hexdigest(), len(NEW), "1.1", 2)
SEVERAL = 20.0  # seconds; far more than any program here takes


class Device:
    """A directory, and a program that keeps a copy of the file that it is given."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "log"
        self.boot_id = directory / "boot_id"
        self.restart("first")
        self.program = self.script("installer", f'cp "$2" {directory}/got; echo "$@" > {self.log}')

    def script(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def restart(self, name: str) -> None:
        self.boot_id.write_text(f"{name}\n")

    def installer(
        self,
        *,
        confirm: Sequence[str] = (),
        reject: Sequence[str] = (),
        reboot: Sequence[str] = (),
        command: Sequence[str] | None = None,
    ) -> CommandInstaller:
        words = [str(self.program), "install", "{path}"] if command is None else command
        commands = Commands(words, confirm, reject, reboot)
        return CommandInstaller(self.directory / "cache", commands, SEVERAL, self.boot_id)

    @property
    def file(self) -> Path:
        return self.directory / "cache" / "install" / IMAGE.sha256


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def staged(installer: CommandInstaller) -> Image:
    image = installer.begin(IMAGE)
    installer.write(0, NEW[:4000])
    installer.write(4000, NEW[4000:])
    installer.finish(image)
    return image


def test_the_program_gets_the_verified_file_as_one_argument(device: Device) -> None:
    installer = device.installer()
    assert (installer.name, installer.running(), installer.boot_pending()) == ("command", "", False)
    image = staged(installer)
    assert not device.log.exists(), "nothing runs before activate"
    installer.activate(image)
    assert device.log.read_text() == f"install {device.file}\n"
    assert (device.directory / "got").read_bytes() == NEW


def test_an_image_waits_for_its_boot_until_the_boot_is_another(device: Device) -> None:
    installer = device.installer()
    image = staged(installer)
    assert not installer.boot_pending(), "nothing was given to the program yet"
    installer.activate(image)
    assert installer.boot_pending()
    assert device.installer().boot_pending(), "whoever asks"
    device.restart("second")
    assert not device.installer().boot_pending()


def test_the_boot_is_noted_before_the_program_runs(device: Device) -> None:
    # A program that restarts the device itself never comes back.
    note = device.file.with_name("activated")
    seen = device.directory / "seen"
    program = device.script("observer", f'cp "{note}" {seen} # "$1"')
    installer = device.installer(command=[str(program), "{path}"])
    installer.activate(staged(installer))
    assert seen.read_text() == "first"


def test_a_program_that_failed_leaves_nothing_to_wait_for(device: Device) -> None:
    installer = device.installer(command=["false", "{path}"])
    image = staged(installer)
    with pytest.raises(CommandFailedError):
        installer.activate(image)
    assert not installer.boot_pending()
    again = device.installer()
    again.activate(image)
    assert again.boot_pending()


@pytest.mark.parametrize("step", ["begin", "confirm", "reject"])
def test_what_ended_waits_for_no_boot(device: Device, step: str) -> None:
    installer = device.installer()
    image = staged(installer)
    installer.activate(image)
    getattr(installer, step)(image)
    assert not installer.boot_pending()


def test_a_directory_that_a_restart_empties_waits_for_no_boot(device: Device) -> None:
    installer = device.installer()
    installer.activate(staged(installer))
    shutil.rmtree(device.file.parent)
    assert not installer.boot_pending()


@pytest.mark.parametrize("found", ["", " \n", None])
def test_without_a_boot_id_nothing_is_handed_over(device: Device, found: str | None) -> None:
    installer = device.installer()
    image = staged(installer)
    device.boot_id.unlink()
    if found is not None:
        device.boot_id.write_text(found)
    with pytest.raises(LocalFailureError, match=f"restart.*{device.boot_id}") as caught:
        installer.activate(image)
    assert "/proc" in caught.value.hint
    assert not device.log.exists()
    device.restart("first")
    installer.activate(image)
    assert device.log.exists()


def test_without_a_boot_id_nothing_is_confirmed(device: Device) -> None:
    told = device.directory / "told"
    installer = device.installer(confirm=["touch", str(told)])
    image = staged(installer)
    installer.activate(image)
    device.boot_id.unlink()
    assert not installer.boot_pending(), "or `update` would restart the device for ever"
    with pytest.raises(LocalFailureError, match=f"whether.*restarted.*{device.boot_id}") as caught:
        installer.confirm(image)
    assert "/proc" in caught.value.hint
    assert not told.exists()
    assert device.file.exists()
    device.restart("second")
    installer.confirm(image)
    assert told.exists()


def test_without_a_boot_id_a_trial_is_rejected_all_the_same(device: Device) -> None:
    told = device.directory / "told"
    installer = device.installer(reject=["touch", str(told)])
    image = staged(installer)
    installer.activate(image)
    device.boot_id.unlink()
    installer.reject(image)
    assert told.exists()


def test_before_the_restart_no_program_is_told_that_what_runs_is_bad(device: Device) -> None:
    told = device.directory / "told"
    installer = device.installer(reject=["touch", str(told)])
    image = staged(installer)
    installer.activate(image)
    with pytest.raises(ActionRequiredError, match=r"touch would give up the system that runs"):
        installer.reject(image)
    assert not told.exists()
    assert device.file.exists()
    device.restart("second")
    installer.reject(image)
    assert told.exists()


def test_of_an_image_that_it_never_got_the_program_is_told_nothing(device: Device) -> None:
    told = device.directory / "told"
    installer = device.installer(reject=["touch", str(told)])
    image = staged(installer)
    installer.reject(image)
    assert not told.exists()
    assert not device.file.exists()


def test_without_a_command_an_image_is_rejected_before_the_restart(device: Device) -> None:
    installer = device.installer()
    image = staged(installer)
    installer.activate(image)
    installer.reject(image)
    assert not device.file.exists()


def test_the_boot_is_the_kernels(device: Device) -> None:
    commands = Commands(["true", "{path}"])
    installer = CommandInstaller(device.directory / "cache", commands, SEVERAL)
    installer.activate(staged(installer))
    noted = device.file.with_name("activated").read_text()
    assert noted == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert installer.boot_pending()


def test_nobody_else_can_reach_the_file(device: Device) -> None:
    device.file.parent.mkdir(parents=True, mode=0o777)
    device.file.parent.chmod(0o777)
    device.file.write_bytes(b"")
    device.file.chmod(0o666)
    staged(device.installer())
    assert stat.S_IMODE(device.file.stat().st_mode) == 0o600
    assert stat.S_IMODE(device.file.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("changed", [NEW[:-1] + b"?", NEW[:-1], NEW + b"?", b""])
def test_a_file_that_changed_after_it_was_verified_is_not_handed_over(
    device: Device, changed: bytes
) -> None:
    installer = device.installer()
    image = staged(installer)
    device.file.write_bytes(changed)
    with pytest.raises(ImageGoneError, match="has SHA-256"):
        installer.activate(image)
    assert not device.log.exists()


def test_a_staged_file_that_is_gone_says_so(device: Device) -> None:
    installer = device.installer()
    image = staged(installer)
    device.file.unlink()
    with pytest.raises(ImageGoneError, match="is gone") as caught:
        installer.activate(image)
    assert "again" in caught.value.hint


@pytest.mark.parametrize("step", ["begin", "activate"])
def test_a_link_in_place_of_the_file_is_not_followed(device: Device, step: str) -> None:
    installer = device.installer()
    if step == "activate":
        staged(installer)
        device.file.unlink()
    else:
        device.file.parent.mkdir(parents=True)
    elsewhere = device.directory / "elsewhere"
    elsewhere.write_bytes(NEW)
    device.file.symlink_to(elsewhere)
    with pytest.raises(LocalFailureError, match="symbolic link"):
        getattr(installer, step)(IMAGE)


def test_what_the_medium_gives_back_must_be_what_was_signed(device: Device) -> None:
    installer = device.installer()
    image = installer.begin(IMAGE)
    installer.write(0, NEW[:-1] + b"?")
    with pytest.raises(ImageGoneError, match="has SHA-256"):
        installer.finish(image)


def test_a_resume_finds_what_was_written_and_other_images_go(device: Device) -> None:
    first = device.installer()
    first.begin(IMAGE)
    first.write(0, NEW[:4000])
    (device.file.parent / ("0" * 64)).write_bytes(b"an older image")
    second = device.installer()
    assert second.begin(IMAGE) == IMAGE
    assert second.written(IMAGE) == 4000
    assert second.read(0, 9999) == NEW[:4000]
    assert [path.name for path in device.file.parent.iterdir()] == [IMAGE.sha256]
    second.write(4000, NEW[4000:] + b"too much")
    assert second.written(IMAGE) == len(NEW)
    second.finish(IMAGE)
    assert device.file.read_bytes() == NEW


def test_an_image_that_does_not_fit_is_refused_at_once(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = "client_reference.install.command.free_bytes"
    monkeypatch.setattr(where, lambda _: SPARE + len(NEW) - 1)
    with pytest.raises(LocalFailureError, match=f"has room for {len(NEW) - 1}") as caught:
        device.installer().begin(IMAGE)
    assert "free some space" in caught.value.hint
    # What the trust store needs to change is not there for an image.
    monkeypatch.setattr(where, lambda _: SPARE - 1)
    with pytest.raises(LocalFailureError, match="has room for 0"):
        device.installer().begin(IMAGE)
    monkeypatch.setattr(where, lambda _: SPARE + len(NEW))
    device.installer().begin(IMAGE)


def test_a_full_disk_says_what_to_do(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    installer = device.installer()
    installer.begin(IMAGE)

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(LocalFailureError, match="No space left") as caught:
        installer.write(0, NEW)
    assert "free some space" in caught.value.hint


def test_the_name_of_the_file_is_durable_before_its_first_byte(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    really = os.fsync

    def note(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        really(descriptor)

    installer = device.installer()
    device.file.parent.mkdir(parents=True)
    monkeypatch.setattr(os, "fsync", note)
    installer.begin(IMAGE)
    assert synced == [device.file.parent]


def test_a_directory_that_cannot_be_made_is_a_local_failure(device: Device) -> None:
    (device.directory / "cache").write_text("a file")
    with pytest.raises(LocalFailureError, match="File exists") as caught:
        device.installer().begin(IMAGE)
    assert "permissions" in caught.value.hint


def test_nothing_is_written_before_an_image_was_begun(device: Device) -> None:
    installer = device.installer()
    with pytest.raises(RuntimeError, match="no image was begun"):
        installer.write(0, NEW)
    staged(installer)
    with pytest.raises(RuntimeError, match="no image was begun"):
        installer.write(0, NEW)


def test_beginning_again_closes_the_file_that_was_open(device: Device) -> None:
    installer = device.installer()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        installer.begin(IMAGE)
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 1


@pytest.mark.parametrize("step", ["confirm", "reject"])
def test_the_verdict_is_told_and_the_file_goes(device: Device, step: str) -> None:
    told = device.directory / "told"
    tell = ["touch", str(told)]
    installer = device.installer(
        confirm=tell if step == "confirm" else [], reject=tell if step == "reject" else []
    )
    image = staged(installer)
    installer.activate(image)
    device.restart("second")
    getattr(installer, step)(image)
    assert told.exists()
    assert not device.file.exists()
    told.unlink()
    getattr(installer, step)(image)
    assert told.exists(), "after a cut the verdict is told again"


@pytest.mark.parametrize("step", ["confirm", "reject"])
def test_a_verdict_that_the_program_refuses_keeps_the_file(device: Device, step: str) -> None:
    installer = device.installer(confirm=["false"], reject=["false"])
    image = staged(installer)
    installer.activate(image)
    device.restart("second")
    with pytest.raises(CommandFailedError, match="false failed with exit code 1: it said nothing"):
        getattr(installer, step)(image)
    assert device.file.exists()


def test_a_program_without_a_verdict_needs_none(device: Device) -> None:
    installer = device.installer()
    installer.confirm(staged(installer))
    assert not device.file.exists()


def test_a_restart_is_the_configured_command_or_the_owners(device: Device) -> None:
    marker = device.directory / "rebooted"
    device.installer(reboot=["touch", str(marker)]).reboot()
    assert marker.exists()
    with pytest.raises(ActionRequiredError, match="may restart") as caught:
        device.installer().reboot()
    assert "reboot" in caught.value.hint


@pytest.mark.parametrize(
    "command",
    [[], ["{path}"], ["rauc", "install"], ["x", "{path}", "{path}"], ["x", "--file={path}"]],
)
def test_a_command_that_does_not_take_the_path_is_refused(
    device: Device, command: list[str]
) -> None:
    with pytest.raises(ConfigurationError, match=r"needs \{path\} once") as caught:
        device.installer(command=command)
    assert "rauc" in caught.value.hint


# What a program may do, and what is said about it.


def test_a_failure_ends_with_the_last_of_what_the_program_said(device: Device) -> None:
    noisy = device.script(
        "noisy", "yes nonsense | head -c 300000 >&2; echo slot is busy >&2; exit 3"
    )
    with pytest.raises(CommandFailedError, match=r"(?s)exit code 3: .*slot is busy$") as caught:
        run([str(noisy)], SEVERAL)
    assert len(caught.value.message) < 2200


def test_what_is_no_text_is_shown_all_the_same(device: Device) -> None:
    odd = device.script("odd", r"printf 'bad \377 byte' >&2; exit 1")
    with pytest.raises(CommandFailedError, match="bad \ufffd byte"):
        run([str(odd)], SEVERAL)


def test_a_program_that_succeeds_noisily_is_no_failure(device: Device) -> None:
    run([str(device.script("chatty", "yes | head -c 300000; echo warning >&2"))], SEVERAL)


def test_a_program_reads_nothing_from_the_terminal() -> None:
    run(["cat"], SEVERAL)


def test_a_missing_program_is_a_matter_of_configuration() -> None:
    with pytest.raises(ConfigurationError, match=r"no-such-program cannot be run: No such file"):
        run(["no-such-program", "x"], SEVERAL)


def test_a_program_that_a_signal_ended_failed() -> None:
    with pytest.raises(CommandFailedError, match="exit code -9"):
        run(["sh", "-c", "kill -9 $$"], SEVERAL)


def alive(pid_file: Path) -> bool:
    try:
        os.kill(int(pid_file.read_text()), 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid_file.read_text().strip()}/stat").read_text().rpartition(")")[2]
    return state.split()[0] != "Z"


def gone(pid_file: Path) -> bool:
    """Whether a process ends within a while."""
    deadline = time.monotonic() + SEVERAL
    while alive(pid_file) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid_file)


@pytest.mark.parametrize(
    "manner", ["exec sleep 100", "sleep 100", "exec 2>&-; sleep 100", "trap '' TERM; sleep 100"]
)
def test_a_program_that_hangs_is_ended_with_all_that_it_started(
    device: Device, manner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client_reference.install.command._GRACE", 0.2)
    hanging = device.script("hanging", f"echo $$ > {device.directory}/pid; {manner}")
    started = time.monotonic()
    with pytest.raises(CommandFailedError, match=r"did not end within 0\.5 s and was stopped"):
        run([str(hanging)], 0.5)
    assert time.monotonic() - started < SEVERAL
    assert gone(device.directory / "pid")


def test_a_daemon_that_keeps_the_pipe_is_not_waited_for(device: Device) -> None:
    leaving = device.script("leaving", f"sleep 100 & echo $! > {device.directory}/pid; exit 0")
    started = time.monotonic()
    run([str(leaving)], SEVERAL)
    assert time.monotonic() - started < SEVERAL / 2
    os.kill(int((device.directory / "pid").read_text()), signal.SIGKILL)


def test_a_program_that_closes_its_standard_error_is_still_waited_for(device: Device) -> None:
    quiet = device.script("quiet", f"exec 2>&-; sleep 0.5; touch {device.directory}/done; exit 4")
    with pytest.raises(CommandFailedError, match="exit code 4"):
        run([str(quiet)], SEVERAL)
    assert (device.directory / "done").exists()


def test_what_a_program_says_late_is_heard(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client_reference.install.command._TICK", 0.02)
    with pytest.raises(CommandFailedError, match="exit code 1: at last"):
        run([str(device.script("late", "sleep 0.3; echo at last >&2; exit 1"))], SEVERAL)


def test_what_a_program_said_is_heard_to_its_end_after_it_ended(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client_reference.install.command._CHUNK", 1)
    with pytest.raises(CommandFailedError, match=r"the end$"):
        run([str(device.script("wordy", "printf '%01900d the end' 0 >&2; exit 1"))], SEVERAL)


def test_a_closed_standard_error_is_not_asked_again(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    really = select.select

    def note(watched: list[int], *others: Any) -> Any:  # noqa: ANN401  as select
        asked.append(watched)
        return really(watched, *others)

    monkeypatch.setattr(select, "select", note)
    run([str(device.script("quiet", "exec 2>&-; sleep 0.5"))], SEVERAL)
    assert asked[0] != []
    assert asked[-1] == []


def test_ctrl_c_ends_the_program_too(device: Device) -> None:
    hanging = device.script("hanging", f"echo $$ > {device.directory}/pid; exec sleep 100")

    def interrupt() -> None:
        while not (device.directory / "pid").exists():
            time.sleep(0.02)
        signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run([str(hanging)], SEVERAL)
    thread.join()
    assert gone(device.directory / "pid")
