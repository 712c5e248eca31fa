"""A person at a terminal: commands in one directory, and what they said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self
from unittest.mock import patch

from repo_tools.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


class Terminal:
    """Commands in one clone, and what a person saw of them."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.capsys = capsys

    def __call__(self, *arguments: str | Path, code: int = 0) -> str:
        """Run one that ends with this code; returns standard output, and what stands beside it."""
        self.capsys.readouterr()
        # Where a bridge waits for caches: there are none.
        with patch("repo_tools.cli.publish.time.sleep", lambda _: None):
            found = main(["-C", str(self.directory), *map(str, arguments)])
        self.out, self.err = self.capsys.readouterr()
        assert found == code, f"{arguments}: {found}\n{self.out}{self.err}"
        return self.out + self.err

    def at(self, directory: Path) -> Self:
        """The same person in another clone."""
        return type(self)(directory, self.capsys)
