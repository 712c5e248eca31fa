"""Starts `firmroot-device`, so that Ctrl-C is understood even while the program is being loaded."""

from __future__ import annotations

import gc
import os
import signal
import sys

__all__ = ["SDKS", "begin", "hide_sdks", "leave_when_interrupted", "run"]

INTERRUPTED = 130  # `ExitCode.INTERRUPTED`, without loading what defines it
SDKS = ("azure", "boto3", "botocore", "google", "hvac", "pkcs11", "sigstore")
"""What `securesystemslib.signer` imports if it is there, and a device never needs."""


def hide_sdks() -> None:
    """Let this process find none of them, if nothing has imported them yet.

    Only a program may do that, never a library.
    """
    for name in SDKS:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type] # "cannot be imported"


def leave_when_interrupted() -> None:
    """Let Ctrl-C end this process at once, until `begin`.

    An exception would be swallowed where it meets a callback of the import machinery, and the
    command would run. What ignores the signal goes on ignoring it.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def begin() -> None:
    """From here on Ctrl-C is an exception, and the command has something to say about it."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(_number: int, _frame: object) -> None:
    try:
        os.write(2, b"error: interrupted; nothing was begun\n")
    finally:
        os._exit(INTERRUPTED)


def run() -> None:
    """Entry point of the `firmroot-device` command."""
    leave_when_interrupted()
    hide_sdks()
    # What is loaded lives as long as the process: to search it for garbage, while it is loaded, in
    # the run and once more at exit, was a fifth of the CPU of a check that finds nothing new.
    gc.disable()
    from client_reference.cli import run as start  # noqa: PLC0415 - loading takes a moment

    gc.freeze()
    gc.enable()
    begin()
    start()


if __name__ == "__main__":
    run()
