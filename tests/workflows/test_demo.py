"""`firmroot demo` with a user's own two files. With files that it makes, `.ci/run` runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FIRMROOT = Path(sys.executable).parent / "firmroot"


def demo(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [FIRMROOT, "demo", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "HOME": str(cwd), "LANG": "C.UTF-8"},
        check=False,
    )


# CI has a tier that tells the story with files of its own; this is the one with a user's.
@pytest.mark.services
def test_the_story_holds_with_the_files_of_a_user(tmp_path: Path) -> None:
    (tmp_path / "old.img").write_bytes(os.urandom(40_000))
    (tmp_path / "new.img").write_bytes(os.urandom(1_300_000))
    done = demo("old.img", "new.img", "--keep", "kept", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    scenes = re.findall(r"^(\d+)\. ", done.stdout, re.MULTILINE)
    assert scenes == [str(number) for number in range(1, 12)]
    held = done.stdout.count("✓")
    assert held >= 16
    assert f"{held} statements held" in done.stdout
    assert "\x1b[" not in done.stdout, "no colour where there is no terminal"
    assert (tmp_path / "kept" / "acme" / "repository" / "metadata" / "timestamp.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["one.img"], "give two firmware files", id="one file"),
        pytest.param(["no.img", "no.img"], "cannot be read: No such file", id="no such files"),
        pytest.param(["one.img", "one.img"], "have the same content", id="one file twice"),
        pytest.param(["one.img", "copy.img"], "have the same content", id="a file and its copy"),
        pytest.param(["one.img", "empty.img"], "empty.img is empty", id="an empty file"),
        pytest.param(["--keep", "."], "exists, expected a new directory", id="a taken directory"),
    ],
)
def test_what_it_cannot_tell_it_says(tmp_path: Path, arguments: list[str], says: str) -> None:
    for name, data in (("one.img", b"1"), ("copy.img", b"1"), ("empty.img", b"")):
        (tmp_path / name).write_bytes(data)
    done = demo(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
