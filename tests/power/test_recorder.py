"""The recorder sees every change, and refuses what it cannot replay."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.power.checks import workspace
from tests.power.recorder import (
    Recording,
    Sync,
    UnknownCallError,
    Write,
    read_tree,
    record,
)
from tests.power.replay import Model, cuts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def tree() -> Iterator[Path]:
    with workspace() as root:
        (root / "old").write_bytes(b"old content")
        (root / "sub").mkdir()
        yield root


def run(tree: Path, program: str) -> Recording:
    return record([sys.executable, "-B", "-c", f"tree = {str(tree)!r}\n{program}"], tree)


PROGRAMS = {
    "buffered writes, appending and seeking": """
with open(tree + "/a", "wb") as f:
    f.write(b"x" * 10); f.flush(); f.seek(3); f.write(b"yy"); f.flush(); f.seek(0, 2); f.write(b"z")
with open(tree + "/a", "ab") as f:
    f.write(b"end")
""",
    "a file that is renamed and removed while it is open": """
import os
f = open(tree + "/a", "wb", buffering=0)
os.rename(tree + "/a", tree + "/b"); f.write(b"after the rename")
os.link(tree + "/b", tree + "/c"); os.unlink(tree + "/b"); f.write(b" and the removal")
""",
    "truncation, extension and vectors": """
import os
fd = os.open(tree + "/old", os.O_RDWR)
os.ftruncate(fd, 3); os.ftruncate(fd, 6); os.writev(fd, [b"ab", b"c"])
os.posix_fallocate(fd, 0, 20)
""",
    "directories": """
import os, pathlib
os.makedirs(tree + "/x/y"); pathlib.Path(tree + "/x/y/f").write_text("f")
os.rename(tree + "/x", tree + "/sub/z")
os.mkdir(tree + "/gone"); os.rmdir(tree + "/gone")
""",
    "a descriptor that a child and a thread share": """
import os, threading
fd = os.open(tree + "/shared", os.O_WRONLY | os.O_CREAT, 0o600)
other = os.dup(fd); os.write(fd, b"one "); os.write(other, b"two ")
if os.fork() == 0:
    os.write(fd, b"child "); os._exit(0)
os.wait(); os.write(fd, b"parent ")
t = threading.Thread(target=lambda: os.write(other, b"thread")); t.start(); t.join()
""",
    "an open that replaces what was there": """
open(tree + "/old", "wb").close()
open(tree + "/old", "r+b").write(b"new")
""",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_replayed_end_is_what_the_process_left(tree: Path, name: str) -> None:
    recording = run(tree, PROGRAMS[name])
    assert recording.exit_code == 0, recording.output
    *_, last = cuts(recording, [Model.KILL])
    assert last.tree == read_tree(tree)


UNKNOWN = {
    "a shared writable mapping": """
import mmap
f = open(tree + "/old", "r+b"); m = mmap.mmap(f.fileno(), 0)
""",
    "a copy inside the kernel": """
import os
a = os.open("/etc/passwd", os.O_RDONLY); b = os.open(tree + "/new", os.O_WRONLY | os.O_CREAT)
os.sendfile(b, a, 0, 10)
""",
    "a symbolic link": "import os; os.symlink('x', tree + '/link')",
    "a file without a name": "import os; os.open(tree, os.O_TMPFILE | os.O_RDWR)",
    "a change of directory": "import os; os.chdir(tree)",
    "a name that leaves the tree": "import os; os.rename(tree + '/old', tree + '-outside')",
    "a truncation by name": "import os; os.truncate(tree + '/old', 3)",
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_call_that_cannot_be_replayed_fails_the_recording(tree: Path, name: str) -> None:
    with pytest.raises(UnknownCallError):
        run(tree, UNKNOWN[name])


def test_reading_is_not_recorded_as_a_change(tree: Path) -> None:
    recording = run(tree, "open(tree + '/old').read(); import os; os.listdir(tree + '/sub')")
    assert not [call for call in recording.calls if isinstance(call, Write | Sync)]


SAVE = """
import os
fd = os.open(tree + "/new", os.O_WRONLY | os.O_CREAT, 0o600)
os.write(fd, b"n" * 1200)
{fsync_file}
os.rename(tree + "/new", tree + "/old")
{fsync_directory}
os.write(1, b"MARK saved\\n")
"""
FSYNC_FILE = "os.fsync(fd)"
FSYNC_DIRECTORY = "os.fsync(os.open(tree, os.O_RDONLY))"


@pytest.mark.parametrize(
    ("steps", "wrong"),
    [
        pytest.param((FSYNC_FILE, FSYNC_DIRECTORY), set(), id="with both syncs every cut is safe"),
        pytest.param(
            ("", FSYNC_DIRECTORY),
            {Model.LOST, Model.BYTES_LOST, Model.ZEROED, Model.TORN, Model.REORDERED},
            id="without the file's sync the bytes may be missing under the new name",
        ),
        pytest.param(
            (FSYNC_FILE, ""),
            {Model.LOST, Model.NAMES_LOST},
            id="without the directory's sync the old file may be back after the promise",
        ),
    ],
)
def test_each_model_shows_what_a_missing_sync_costs(
    tree: Path, steps: tuple[str, str], wrong: set[Model]
) -> None:
    recording = run(tree, SAVE.format(fsync_file=steps[0], fsync_directory=steps[1]))
    new = b"n" * 1200
    found = set()
    for model in Model:
        for cut in cuts(recording, [model]):
            allowed = {new} if cut.marks else {b"old content", new}
            if cut.tree["old"] not in allowed:
                found.add(model)
    assert found <= wrong
    assert bool(found) == bool(wrong)
