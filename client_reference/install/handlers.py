"""The protocol of an installer, and the one table of those that exist.

An installer brings verified bytes to where the device boots from. It decides nothing about trust:
only bytes whose segment verified reach `write`, and `finish` compares the whole with the signed
digest once more, on what the medium gives back. The order of calls is that of
`client_reference.lifecycle`; each call may be repeated after a power cut.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Protocol

from client_reference.errors import ConfigurationError
from client_reference.values import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from client_reference.trust.state import Image

__all__ = ["HANDLERS", "InstallSettings", "Installer", "Withdrawal", "open_installer"]


@frozen
class Withdrawal:
    """What became of an image that was to be taken back.

    Attributes:
        done: whether it is given up; otherwise only the owner can do it, and nothing has changed.
        told: what to say of it.
    """

    done: bool
    told: str


class Installer(Protocol):
    """Where images go. Every method raises `LocalFailureError` if the device itself fails."""

    @property
    def name(self) -> str:
        """The handler's name, as `device.toml` and the manifest spell it."""

    def running(self) -> str:
        """The slot that runs now; empty for handlers that own their slots."""

    def boot_pending(self) -> bool:
        """Whether an activated image waits for the boot that tries it first."""

    def trial(self) -> str:
        """The slot that runs without being confirmed, or is tried next; empty if none is.

        Empty as well for handlers that own their slots.
        """

    def begin(self, image: Image) -> Image:
        """Choose the place of an image and make it unbootable, durably, before the first write.

        Args:
            image: with `slot` empty for a new start; as it was returned here for a resume, which
                keeps what is written already.

        Returns:
            the image with its slot. Nothing has changed on the device if this raises.
        """

    def written(self, image: Image) -> int:
        """How many bytes from the start may be there already; the caller verifies them (`read`)."""

    def read(self, offset: int, length: int) -> bytes:
        """Bytes that are in place; fewer than `length` only at the end."""

    def write(self, offset: int, data: bytes) -> None:
        """Put verified bytes in place."""

    def finish(self, image: Image) -> None:
        """Make the whole durable, read it back from the medium, compare it with the signed digest.

        The image is still not bootable afterwards.

        Raises:
            ImageGoneError: the medium gave back something else.
        """

    def activate(self, image: Image) -> None:
        """Let the next boot be a trial of the image, durably.

        Raises:
            ImageGoneError: it is not there any more; the caller abandons it and starts again.
        """

    def reboot(self) -> None:
        """Restart into what was activated, or back."""

    def confirm(self, image: Image) -> None:
        """Let every later boot be of the image, durably. Not called while a boot is pending."""

    def reject(self, image: Image) -> None:
        """Let the next boot be of the image before, durably."""

    def withdraw(self, image: Image) -> Withdrawal:
        """The same of an image that is whole, perhaps activated, and was not seen to run."""


@frozen
class InstallSettings:
    """What `device.toml` says about installing, with absolute paths.

    Attributes:
        handler: a name in `HANDLERS`.
        directory: private to firmroot; a handler that hands over whole files keeps them here.
        slots: name to file or block device, in order.
        bootloader: what decides which slot boots.
        run, confirm, reject, reboot: argument vectors of the handler `command`.
        timeout: seconds that one command may take.
    """

    handler: str
    directory: Path
    slots: Mapping[str, Path] = field(default_factory=dict)
    bootloader: str = "file"
    run: Sequence[str] = ()
    confirm: Sequence[str] = ()
    reject: Sequence[str] = ()
    reboot: Sequence[str] = ()
    timeout: float = 1800.0


def _slot(settings: InstallSettings) -> Installer:
    from client_reference.install.bootloader import (  # noqa: PLC0415  loaded only where used
        open_bootloader,
    )
    from client_reference.install.slots import SlotInstaller  # noqa: PLC0415  likewise

    return SlotInstaller(settings.slots, open_bootloader(settings.bootloader, settings.slots))


def _command(settings: InstallSettings) -> Installer:
    from client_reference.install.command import (  # noqa: PLC0415  subprocess only where used
        CommandInstaller,
        Commands,
    )

    commands = Commands(settings.run, settings.confirm, settings.reject, settings.reboot)
    return CommandInstaller(settings.directory, commands, settings.timeout)


HANDLERS: Mapping[str, Callable[[InstallSettings], Installer]] = {
    "slot": _slot,
    "command": _command,
}


def open_installer(settings: InstallSettings) -> Installer:
    """The installer that the configuration names.

    Raises:
        ConfigurationError: there is no such handler, or its settings do not fit it.
    """
    try:
        factory = HANDLERS[settings.handler]
    except KeyError:
        raise ConfigurationError(
            f"[install] handler is {settings.handler!r}; this firmroot has {', '.join(HANDLERS)}",
            "correct [install] handler in device.toml",
        ) from None
    return factory(settings)
