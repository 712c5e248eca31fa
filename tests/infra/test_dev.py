"""The services by hand: what is printed leads to them, and Ctrl-C ends them."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.simulators.seaweed import find_weed
from tests.simulators.services import needed

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.services

TOP = Path(__file__).parent.parent.parent


@pytest.fixture
def started(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """SeaweedFS and OpenBao, and every line up to the last one."""
    find_weed()
    needed("bao", "sh scripts/bootstrap services")
    process = subprocess.Popen(
        ["sh", str(TOP / "infra/dev/services"), "s3", "vault"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        start_new_session=True,
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line.rstrip("\n"))
        if line.startswith("# ready"):
            break
    try:
        yield process, said
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def test_what_is_printed_leads_to_them_and_ctrl_c_ends_them(
    started: tuple[subprocess.Popen[str], list[str]], tmp_path: Path
) -> None:
    process, said = started
    exported = [shlex.split(line)[1] for line in said if line.startswith("export ")]
    environment = dict(each.split("=", 1) for each in exported)
    commands = [line.partition(": ")[2] for line in said if line.startswith(("# s3", "# vault"))]
    company = tmp_path / "company"
    company.mkdir()
    for line, where in ((f"{commands[0]} --lab", company), (commands[1], company / "acme")):
        program, *words = shlex.split(line)
        assert program == "firmroot"
        done = subprocess.run(
            [sys.executable, "-m", "repo_tools", *words],
            cwd=where,
            env={**os.environ, **environment, "PYTHONPATH": str(TOP)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (line, done.stderr)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=30) == 0
    left = [path.name for path in tmp_path.iterdir() if path.name.startswith(("s3-", "vault-"))]
    assert left == [], "their data go with them"
