"""What can go wrong, grouped by what the caller must do next.

One hierarchy for both halves of firmroot: the release side imports it. Every error says what was
found and what was expected (`message`) and what to do about it (`hint`, usually the next command).
A command line catches `FirmrootError` once and exits with its `exit_code`; anything else that
escapes is a bug of ours (exit code 1).

Errors of other libraries are translated at one boundary per library, `raise ... from error`.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = [
    "ActionRequiredError",
    "ConfigurationError",
    "ExitCode",
    "FirmrootError",
    "ImageGoneError",
    "LocalFailureError",
    "LockedError",
    "NotFoundError",
    "NotTrustedError",
    "RefusedError",
    "RetryLaterError",
    "shortened",
]

_SHOWN = 200


class ExitCode(IntEnum):
    """Exit codes of `firmroot` and `firmroot-device`; scripts depend on them."""

    DONE = 0
    BUG = 1
    USAGE = 2
    ACTION_REQUIRED = 3
    RETRY_LATER = 4
    REFUSED = 5
    NOT_TRUSTED = 6
    LOCKED = 7
    UPDATE_AVAILABLE = 10
    INTERRUPTED = 130


def shortened(text: object) -> str:
    """What others wrote, for a message.

    Attack: an error that quotes the whole of a hostile file fills the log of a device.
    """
    whole = str(text)
    return whole if len(whole) <= _SHOWN else f"{whole[:_SHOWN]}…"


class FirmrootError(Exception):
    """Base of every error that firmroot raises on purpose.

    Args:
        message: what was found and what was expected, in one sentence.
        hint: what to do next; names a command where there is one. May be empty.
    """

    exit_code: ExitCode = ExitCode.BUG

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigurationError(FirmrootError):
    """Fix the command, the configuration or the input file, then run it again."""

    exit_code = ExitCode.USAGE


class ActionRequiredError(FirmrootError):
    """A person must act first: a signature, a passphrase or an answer is missing."""

    exit_code = ExitCode.ACTION_REQUIRED


class RetryLaterError(FirmrootError):
    """Nothing is wrong here; the network or another machine failed. Keep state, try again."""

    exit_code = ExitCode.RETRY_LATER


class NotFoundError(RetryLaterError):
    """The other side says that the object is not there (HTTP 403 or 404, a missing file).

    The core knows no HTTP codes: a transport raises this and nothing else for "not there", so that
    "no newer root" is never confused with "could not ask".
    """


class RefusedError(FirmrootError):
    """Policy, or the safety of a device, forbids it: it would strand, downgrade or expose."""

    exit_code = ExitCode.REFUSED


class LocalFailureError(RefusedError):
    """This device's own disk, slot or store failed; only such failures may cause a rollback."""


class ImageGoneError(LocalFailureError):
    """What was written is not there (any more). It is not bootable; the image is written again."""


class NotTrustedError(FirmrootError):
    """Bytes did not verify. They are discarded; the state that was trusted before is kept."""

    exit_code = ExitCode.NOT_TRUSTED


class LockedError(FirmrootError):
    """Somebody else is at work on the same state, or won a race."""

    exit_code = ExitCode.LOCKED
