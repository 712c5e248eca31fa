"""Standard output that takes nothing: named as what it is, and what was done is done."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import ExitCode
from repo_tools.cli.main import main
from tests.publishing.lab import PRODUCT

if TYPE_CHECKING:
    from tests.publishing.lab import Lab

ROOT = Path(__file__).parents[2]


def into_a_full_disk(lab: Lab, *words: str) -> str:
    """Run one command whose standard output takes nothing; returns what it says beside it."""
    err = io.StringIO()
    with (
        Path("/dev/full").open("w") as full,
        lab.environment(),
        contextlib.redirect_stdout(full),
        contextlib.redirect_stderr(err),
    ):
        assert main(["-C", str(lab.directory), *words]) == ExitCode.USAGE, err.getvalue()
        assert sys.stdout is full
    return err.getvalue()


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["lines", "JSON"])
def test_a_publish_whose_words_nobody_takes_is_published(
    ready: Lab, options: tuple[str, ...]
) -> None:
    said = into_a_full_disk(ready, *options, "publish")
    assert "standard output cannot be written: [Errno 28] No space left on device" in said
    assert "what the command did is kept" in said
    assert "disk is full" not in said
    assert (ready.repository / "metadata/timestamp.json").exists()
    assert ready.fresh_device()[1] == "installs 1.0"


def test_every_command_says_it(ready: Lab) -> None:
    told = "error: standard output cannot be written: "
    assert into_a_full_disk(ready, "product", "add", "other", "--hardware", "x").startswith(told)
    assert "other" in ready.ok("product", "list").out
    assert into_a_full_disk(ready, "sign").startswith(told)
    assert into_a_full_disk(ready, "status").startswith(told)
    assert into_a_full_disk(ready, "--help").startswith(told)
    assert PRODUCT in ready.ok("status").out


def test_the_interpreter_has_nothing_to_add(ready: Lab) -> None:
    command = [sys.executable, "-m", "repo_tools", "-C", str(ready.directory), "status"]
    with Path("/dev/full").open("w") as full, ready.environment():
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.stderr.splitlines()[0].startswith(b"error: standard output cannot be written: ")
    assert len(done.stderr.splitlines()) == 2, done.stderr
    assert done.returncode == ExitCode.USAGE


def unread() -> io.TextIOWrapper:
    """A pipe whose reader has gone, and which keeps nothing back."""
    reader, writer = os.pipe()
    os.close(reader)
    return io.TextIOWrapper(io.FileIO(writer, "w"), write_through=True)


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["lines", "JSON"])
def test_a_publish_whose_reader_has_gone_goes_on(ready: Lab, options: tuple[str, ...]) -> None:
    """`firmroot publish | head -1`."""
    err = io.StringIO()
    with (
        unread() as stream,
        ready.environment(),
        contextlib.redirect_stdout(stream),
        contextlib.redirect_stderr(err),
    ):
        assert main(["-C", str(ready.directory), *options, "publish"]) == 0, err.getvalue()
        assert main(["-C", str(ready.directory), *options, "product", "show", "none"]) != 0
    assert ready.fresh_device()[1] == "installs 1.0"
