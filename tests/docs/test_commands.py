"""Every command that the pages of `docs/` show is run, page by page, top to bottom.

Blocks marked `console` are run, by a shell that stops at the first failure, in an empty directory
with two firmware files in it. `text` blocks are pictures; other kinds are files.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, IN_PROCESS, PAGES, console, kinds, prepare

BIN = Path(sys.executable).parent
KNOWN = {"console", "json", "text", "toml", ""}
WITH_COMMANDS = [
    pytest.param(page, marks=[pytest.mark.long] if page.stem in IN_PROCESS else [], id=page.name)
    for page in PAGES
    if console(page)
]


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_commands_of_a_page_run(tmp_path: Path, page: Path) -> None:
    for name, size in (("old.img", 3 << 20), ("new.img", 4 << 20)):
        (tmp_path / name).write_bytes(os.urandom(size))
    prepare(page.stem, tmp_path)
    shell = shutil.which("bash")
    assert shell
    done = subprocess.run(
        [shell, "-eu", "-o", "pipefail", "-c", console(page)],
        cwd=tmp_path,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,  # a bridge waits for caches, a minute each time
        env={"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(tmp_path), "LANG": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_a_page_has_only_blocks_that_are_run_or_marked_otherwise(page: Path) -> None:
    assert kinds(page) <= KNOWN


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = [part.split(")")[0] for part in page.read_text().split("](")[1:]]
    local = [target.split("#")[0] for target in targets if "://" not in target]
    assert [name for name in local if name and not (page.parent / name).exists()] == []
