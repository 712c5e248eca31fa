"""Starts `firmroot-device`, so that Ctrl-C is understood even while the program is being loaded."""

from __future__ import annotations

import gc
import sys

__all__ = ["SDKS", "hide_sdks", "run"]

INTERRUPTED = 130  # `ExitCode.INTERRUPTED`, without loading what defines it
SDKS = ("azure", "boto3", "botocore", "google", "hvac", "pkcs11", "sigstore")
"""What `securesystemslib.signer` imports if it is there, and a device never needs."""


def hide_sdks() -> None:
    """Let this process find none of them, if nothing has imported them yet.

    Only a program may do that, never a library.
    """
    for name in SDKS:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type] # "cannot be imported"


def run() -> None:
    """Entry point of the `firmroot-device` command."""
    hide_sdks()
    # What is loaded lives as long as the process: to search it for garbage, while it is loaded, in
    # the run and once more at exit, was a fifth of the CPU of a check that finds nothing new.
    gc.disable()
    try:
        from client_reference.cli import run as start  # noqa: PLC0415 - loading takes a moment
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted; nothing was begun\n")
        sys.exit(INTERRUPTED)
    gc.freeze()
    gc.enable()
    start()


if __name__ == "__main__":
    run()
