"""Starts `firmroot`, so that Ctrl-C is understood even while the program is being loaded."""

from __future__ import annotations

from client_reference.__main__ import begin, hide_sdks, leave_when_interrupted

__all__ = ["run"]


def run() -> None:
    """Entry point of the `firmroot` command."""
    leave_when_interrupted()
    hide_sdks()
    from repo_tools.cli.main import run as start  # noqa: PLC0415 - loading takes a moment

    begin()
    start()


if __name__ == "__main__":
    run()
