"""The handler `command`: the verified image, as a whole file, is given to a local program.

Such as `["rauc", "install", "{path}"]`. The argument vectors come from `device.toml` alone, never
from the network, and no shell is involved. The file lies in a private directory (0700, 0600) and
is hashed, through the descriptor that wrote it, immediately before the program gets its path: what
was verified is what is installed. The program owns the slots and makes its own boot decisions.

Nobody here can see which image runs. What can be seen is whether the device has restarted: before
the program gets the image, the boot is noted beside it, and in that same boot nothing is confirmed.
Attack on itself: a health check that calls `confirm` too early would keep an image that never ran,
and raise the anti-rollback floor to it. Without the kernel's boot id no image is handed over, so
that it is missed on the bench, and none is confirmed; one is rejected all the same. A note that is
gone (a directory in memory) means a restart.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from client_reference.durable import (
    SPARE,
    free_bytes,
    make_private_directory,
    read_back_sha256,
    replace_file,
    sha256_of,
    sync_directory,
    write_at,
)
from client_reference.errors import (
    ActionRequiredError,
    ConfigurationError,
    FirmrootError,
    ImageGoneError,
    LocalFailureError,
)
from client_reference.install.handlers import Withdrawal
from client_reference.trust.uptime import BOOT_ID
from client_reference.values import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from client_reference.trust.state import Image

__all__ = ["CommandFailedError", "CommandInstaller", "Commands"]

_CHUNK = 1024 * 1024
_TAIL = 2000  # bytes of the program's complaint that go into the message
_TICK = 0.2  # seconds between looks at a program that says nothing
_GRACE = 5.0  # seconds between asking a program to end and ending it
_PATH = "{path}"
_NOTE = "activated"
_MOST = 256  # bytes of a boot id


class CommandFailedError(LocalFailureError):
    """The program could not be run, took too long or said no."""


@frozen
class Commands:
    """The argument vectors of `[install.command]`.

    Attributes:
        run: installs; one element is `{path}`.
        confirm, reject: mark the trial as good or bad; empty where the program needs none.
        reboot: restarts the device; empty where the owner does that.
    """

    run: Sequence[str]
    confirm: Sequence[str] = ()
    reject: Sequence[str] = ()
    reboot: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse vectors that cannot work.

        Raises:
            ConfigurationError: `run` does not take the path as one element of its own.
        """
        if list(self.run).count(_PATH) != 1 or self.run[0] == _PATH:
            raise ConfigurationError(
                f"[install.command] run is {list(self.run)}; it needs {_PATH} once, as an argument"
                " of its own",
                'write it as run = ["rauc", "install", "{path}"]',
            )


class CommandInstaller:
    """Collects the image in a private file and hands it over.

    Args:
        directory: of the file; made private if it is not there.
        commands: what to run.
        timeout: seconds that one command may take.
        boot_id: a file with a name that no other boot has; the kernel's if None.
    """

    name = "command"

    def __init__(
        self, directory: Path, commands: Commands, timeout: float, boot_id: Path | None = None
    ) -> None:
        self._directory = directory / "install"
        self._commands = commands
        self._timeout = timeout
        self._boot_id = boot_id or BOOT_ID
        self._file: int | None = None

    def running(self) -> str:
        """Empty: the program owns the slots."""
        return ""

    def boot_pending(self) -> bool:
        """Whether the device is still in the boot in which the program got the image.

        False where that cannot be told, or `update` would restart such a device for ever.
        """
        noted = self._noted()
        return bool(noted) and noted == self._boot()

    def trial(self) -> str:
        """Empty: likewise."""
        return ""

    def begin(self, image: Image) -> Image:
        """Open the private file of an image; files of other images go. See `Installer.begin`."""
        self._close()
        with _failures(self._directory):
            make_private_directory(self._directory)
            self._directory.chmod(0o700)
            for other in self._directory.iterdir():
                if other != self._path(image):
                    other.unlink()
            self._file = os.open(self._path(image), os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
            os.fchmod(self._file, 0o600)
            sync_directory(self._directory)
            room = os.fstat(self._file).st_size + max(free_bytes(self._file) - SPARE, 0)
        if image.length > room:
            raise LocalFailureError(
                f"release {image.version} has {image.length} bytes, {self._directory} has room"
                f" for {room}",
                "free some space on its file system",
            )
        return image

    def written(self, image: Image) -> int:
        """How much of the file may be the image's start. See `Installer.written`."""
        with self._begun() as descriptor:
            return min(image.length, os.fstat(descriptor).st_size)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes that are in the file."""
        with self._begun() as descriptor:
            return os.pread(descriptor, length, offset)

    def write(self, offset: int, data: bytes) -> None:
        """Put verified bytes into the file."""
        with self._begun() as descriptor:
            write_at(descriptor, offset, data)

    def finish(self, image: Image) -> None:
        """Sync the file and compare the whole with the signed digest."""
        with self._begun() as descriptor:
            os.ftruncate(descriptor, image.length)
            found = read_back_sha256(descriptor, image.length)
        self._close()
        if found != image.sha256:
            raise self._not_verified(found, image)

    def activate(self, image: Image) -> None:
        """Run the program on the verified file.

        A reboot may lie between `finish` and now, and the file is what will boot: it is hashed
        again, to its very end.

        Raises:
            ImageGoneError: it is not there any more, or not what was verified.
            CommandFailedError: the program failed; the message ends with what it complained of.
            LocalFailureError: this boot cannot be told from the next one.
        """
        path = self._path(image)
        with _failures(self._directory):
            try:
                descriptor = os.open(path, os.O_RDONLY | _FLAGS)
            except FileNotFoundError as error:
                raise ImageGoneError(
                    f"the staged image {path} is gone", "run the update again"
                ) from error
            try:
                found = sha256_of(descriptor, os.fstat(descriptor).st_size)
            finally:
                os.close(descriptor)
        if found != image.sha256:
            raise self._not_verified(found, image)
        boot = self._boot()
        if not boot:
            raise self._no_boot_id("after a restart nobody could tell that there was one")
        with _failures(self._directory):
            replace_file(self._directory / _NOTE, boot)
        try:
            run(
                [str(path) if word == _PATH else word for word in self._commands.run],
                self._timeout,
            )
        except FirmrootError:
            self._forget_boot()
            raise

    def reboot(self) -> None:
        """Restart the device.

        Raises:
            ActionRequiredError: no command for it is configured.
        """
        if not self._commands.reboot:
            raise ActionRequiredError(
                "the image is installed and boots next, but nothing here may restart the device",
                "restart it, or set [install.command] reboot in device.toml",
            )
        run(self._commands.reboot, self._timeout)

    def confirm(self, image: Image) -> None:
        """Tell the program that the trial went well, and drop the file.

        Raises:
            LocalFailureError: nobody can tell whether the device has restarted since.
        """
        if self._noted() and not self._boot():
            raise self._no_boot_id("nobody can tell whether the device has restarted")
        self._conclude(self._commands.confirm, image)

    def reject(self, image: Image) -> None:
        """Tell the program that the trial failed, and drop the file.

        One that the program never got is no trial: nothing is said of it. Before the restart the
        program would take what runs for what failed (`rauc status mark-bad booted`), and mark the
        good system.

        Raises:
            ActionRequiredError: the program got it, and the device has not restarted since.
        """
        command = self._commands.reject
        if command and self.boot_pending():
            raise ActionRequiredError(
                f"release {image.version} boots next and does not run yet; {command[0]} would "
                "give up the system that runs now",
                f"restart the device first, or take it back with {command[0]} by hand",
            )
        given = bool(self._noted()) or not self._path(image).exists()
        self._conclude(command if given else (), image)

    def withdraw(self, image: Image) -> Withdrawal:
        """Drop the file; what the program got, only its owner can take back in this boot.

        Its `reject` would give up the system that runs. After a restart nobody here can tell which
        system that is, so neither `reject` nor `confirm` is called. See `Installer.withdraw`.
        """
        program = self._commands.run[0]
        if self.boot_pending():
            told = (
                f"{program} has it, and it boots next: do not restart this device before an "
                f"update has put another release in its place, or take it back with {program} "
                "by hand"
            )
            return Withdrawal(done=False, told=told)
        told = "it was given up, and is not booted"
        if self._noted():
            told = (
                f"{program} had it when this device restarted, so it may be what runs now; it is "
                "given up here and was not confirmed: an update puts another release in its place"
            )
        self._conclude((), image)
        return Withdrawal(done=True, told=told)

    def _conclude(self, command: Sequence[str], image: Image) -> None:
        if command:
            run(command, self._timeout)
        with _failures(self._directory):
            self._path(image).unlink(missing_ok=True)
        self._forget_boot()

    def _noted(self) -> bytes:
        """The boot in which an image was given to the program; empty if nothing is noted."""
        with _failures(self._directory), suppress(FileNotFoundError):
            return _read(self._directory / _NOTE)
        return b""

    def _boot(self) -> bytes:
        """The name of this boot; empty if it cannot be read."""
        with suppress(OSError):
            return _read(self._boot_id)
        return b""

    def _forget_boot(self) -> None:
        with _failures(self._directory):
            (self._directory / _NOTE).unlink(missing_ok=True)

    def _no_boot_id(self, so: str) -> LocalFailureError:
        return LocalFailureError(
            f"{so}: there is no boot id in {self._boot_id}", "mount /proc, and try again"
        )

    def _not_verified(self, found: str, image: Image) -> ImageGoneError:
        return ImageGoneError(
            f"{self._path(image)} has SHA-256 {found}, release {image.version} has {image.sha256}",
            "run the update again; if it happens again the medium is failing",
        )

    def _path(self, image: Image) -> Path:
        return self._directory / image.sha256

    @contextmanager
    def _begun(self) -> Iterator[int]:
        """The descriptor of the file that is being written."""
        if self._file is None:
            raise RuntimeError("no image was begun")
        with _failures(self._directory):
            yield self._file

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None


# A link that somebody put in the file's place must not lead to another file.
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MOST).strip()


def run(argv: Sequence[str], timeout: float) -> None:
    """Run a program without a shell, with nothing on its standard input.

    Raises:
        ConfigurationError: there is no such program.
        CommandFailedError: it failed, or took longer than `timeout` seconds and was ended.
    """
    try:
        process = subprocess.Popen(  # noqa: S603  device.toml's own vector, no shell
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise ConfigurationError(
            f"{argv[0]} cannot be run: {error.strerror or error}",
            "install it, or correct [install.command] in device.toml",
        ) from error
    with process:
        try:
            tail = _tail(process, time.monotonic() + timeout)
        except BaseException:
            _end(process)
            raise
        if tail is None:
            _end(process)
            raise CommandFailedError(
                f"{argv[0]} did not end within {timeout:g} s and was stopped",
                "run it by hand to see where it hangs",
            )
        code = process.wait()
    if code:
        complaint = tail.decode(errors="replace").strip() or "it said nothing"
        raise CommandFailedError(
            f"{argv[0]} failed with exit code {code}: {complaint}", "run it by hand to see why"
        )


def _tail(process: subprocess.Popen[bytes], deadline: float) -> bytes | None:
    """The end of what a program says until it ends; None if that is after the deadline."""
    watched = [process.stderr.fileno()] if process.stderr else []
    tail = b""
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select(watched, [], [], min(left, _TICK))
        chunk = os.read(ready[0], _CHUNK) if ready else b""
        tail = (tail + chunk)[-_TAIL:]
        if ready and not chunk:
            watched = []
        # A daemon that it left behind may hold the pipe open for ever.
        if not chunk and process.poll() is not None:
            return tail
    return None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program and everything that it started."""
    for number, patience in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, None)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            return


@contextmanager
def _failures(directory: Path) -> Iterator[None]:
    """The boundary to the operating system."""
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        raise LocalFailureError(
            f"the image in {directory} failed: {error}",
            "free some space there and run the update again" if full else "check its permissions",
        ) from error
