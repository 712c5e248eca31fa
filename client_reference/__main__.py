"""Starts `firmroot-device`, so that Ctrl-C is understood even while the program is being loaded."""

from __future__ import annotations

import sys

__all__ = ["run"]

INTERRUPTED = 130  # `ExitCode.INTERRUPTED`, without loading what defines it


def run() -> None:
    """Entry point of the `firmroot-device` command."""
    try:
        from client_reference.cli import run as start  # noqa: PLC0415 - loading takes a moment
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted; nothing was begun\n")
        sys.exit(INTERRUPTED)
    start()


if __name__ == "__main__":
    run()
