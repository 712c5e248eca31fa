"""The commands of the runbooks for keys, in this process: as a shell would, and much cheaper.

`test_commands` runs the same pages in a real shell, with the long tests.
"""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from repo_tools.cli.main import main
from tests.docs.pages import DOCS, IN_PROCESS, IN_SERVICES, console, prepare

if TYPE_CHECKING:
    from collections.abc import Iterator


def commands(page: Path) -> Iterator[list[str]]:
    for line in console(page).splitlines():
        for command in line.split(" && "):
            yield shlex.split(command)


def run(words: list[str]) -> None:
    match words:
        case ["firmroot", *rest]:
            assert main(rest) == 0, words
        case ["cd", where]:
            os.chdir(where)
        case ["rm", file]:
            Path(file).unlink()
        case ["rm", "-r", *files]:
            for each in map(Path, files):
                shutil.rmtree(each) if each.is_dir() else each.unlink()
        case ["cp", "-r", source, copy]:
            shutil.copytree(source, copy)
        case ["cp", source, copy]:
            shutil.copy(source, copy)
        case ["export", assignment]:
            name, _, value = assignment.partition("=")
            os.environ[name] = value
        case _:
            raise AssertionError(f"the page has a command that this test does not know: {words}")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.services] if name in IN_SERVICES else [])
        for name in IN_PROCESS
    ],
)
def test_commands_of_a_runbook_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for image, size in (("old.img", 70_000), ("new.img", 80_000)):
        (tmp_path / image).write_bytes(os.urandom(size))
    prepare(name, tmp_path)
    monkeypatch.chdir(tmp_path)
    with patch.dict(os.environ):
        for words in commands(DOCS / "runbooks" / f"{name}.md"):
            run(words)
