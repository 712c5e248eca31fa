"""Starts `firmroot`, so that Ctrl-C is understood even while the program is being loaded."""

from __future__ import annotations

import sys

from client_reference.__main__ import hide_sdks

__all__ = ["run"]

INTERRUPTED = 130  # `ExitCode.INTERRUPTED`, without loading what defines it


def run() -> None:
    """Entry point of the `firmroot` command."""
    hide_sdks()
    try:
        from repo_tools.cli.main import run as start  # noqa: PLC0415 - loading takes a moment
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted; nothing was begun\n")
        sys.exit(INTERRUPTED)
    start()


if __name__ == "__main__":
    run()
