"""`firmroot ceremony`: signing by several people. The commands are imported when called."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from repo_tools.cli.context import example
from repo_tools.cli.lazy import LazyGroup

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ceremony"]

# `show` must run where the libraries of a workspace are not installed.
_COMMANDS: Mapping[str, tuple[str, str]] = {
    "start": ("repo_tools.cli.ceremony_course:start", "Open the next version of roles."),
    "list": ("repo_tools.cli.ceremony_course:list_ceremonies", "List what waits for signatures."),
    "status": ("repo_tools.cli.ceremony_course:status", "Who has signed, and whom to ask."),
    "show": ("repo_tools.cli.ceremony_show:show", "What a ceremony changes, and who may sign."),
    "export": ("repo_tools.cli.ceremony_files:export", "Write a ceremony to one file."),
    "merge": ("repo_tools.cli.ceremony_files:merge", "Add signatures that came as files."),
    "finish": ("repo_tools.cli.ceremony_course:finish", "Stage what has all its signatures."),
    "abandon": ("repo_tools.cli.ceremony_course:abandon", "End a ceremony without a result."),
}


@click.group(
    cls=LazyGroup,
    table=_COMMANDS,
    epilog=example("firmroot ceremony start root targets", "firmroot ceremony status"),
)
def ceremony() -> None:
    """Signing by several people, each on their own machine with only their own key."""
