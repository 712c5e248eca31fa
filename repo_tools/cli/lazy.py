"""A group of commands that are imported when they are called, and not for their help."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import click

from client_reference.nearest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LazyGroup"]


class LazyGroup(click.Group):
    """Commands by name: `module:attribute`, and the line of the group's help."""

    def __init__(self, *args: Any, table: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:  # noqa: ANN401  click's own
        super().__init__(*args, **kwargs)
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table. `ctx` is click's and not needed."""
        del ctx
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command. `ctx` is click's and not needed.

        Raises:
            click.UsageError: there is no such command; names the nearest.
        """
        del ctx
        if cmd_name not in self._table:
            # click would look for near misses among commands that are loaded, and there are none.
            raise click.UsageError(
                f"No such command {cmd_name!r}{did_you_mean(cmd_name, self._table)}"
            )
        module, _, attribute = self._table[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{attribute} is not a command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table of commands, without importing them. `ctx` is click's and not needed."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self._table.items()])
