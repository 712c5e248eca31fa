"""`firmroot key`: keys and their holders. The commands are imported when called."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from repo_tools.cli.context import example
from repo_tools.cli.lazy import LazyGroup

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["key"]

_COMMANDS: Mapping[str, tuple[str, str]] = {
    "new": ("repo_tools.cli.key:new", "Make a key on this machine."),
    "import": (
        "repo_tools.cli.key:import_",
        "Bring in a key: from a file, a token, a KMS or Vault.",
    ),
    "list": ("repo_tools.cli.key_list:list_keys", "List keys, here or of a token or service."),
    "show": ("repo_tools.cli.key:show", "Show everything that is known about a key."),
    "test": ("repo_tools.cli.key:test", "Make a test signature with a private key."),
}


@click.group(
    cls=LazyGroup,
    table=_COMMANDS,
    epilog=example("firmroot key new alice --role root --role targets"),
)
def key() -> None:
    """Keys and their holders."""
