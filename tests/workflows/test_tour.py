"""The README's tour, run word for word by a shell, as a newcomer would."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent
PORT = 8080  # the tour names it


def tour() -> str:
    """The console block under the heading "The tour"."""
    text = (ROOT / "README.md").read_text("utf-8")
    section = text.split("## The tour", 1)[1]
    block = re.search(r"```console\n(.*?)```", section, re.DOTALL)
    assert block
    return block.group(1)


@pytest.fixture
def port_8080() -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            reason = f"port {PORT}, which the tour names, is in use on this machine"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)


@pytest.mark.usefixtures("port_8080")
def test_the_tour_of_the_readme_runs_word_for_word(tmp_path: Path) -> None:
    old = os.urandom(3 << 20)
    (tmp_path / "old.img").write_bytes(old)
    new = old[: 1 << 20] + os.urandom(3 << 20)
    (tmp_path / "new.img").write_bytes(new)
    shell = shutil.which("bash")
    assert shell
    with (tmp_path / "out").open("wb") as log:
        process = subprocess.Popen(
            [shell, "-eu", "-c", tour()],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(tmp_path), "LANG": "C.UTF-8"},
        )
    try:
        code = process.wait(120)
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # the server that the tour left in the background
    out = (tmp_path / "out").read_text("utf-8")
    assert code == 0, out
    assert "Traceback" not in out

    status = subprocess.run(
        [BIN / "firmroot-device", "--config", "device/device.toml", "--json", "status"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(status.stdout)
    assert said["installed"]["version"] == "1.0"
    assert said["candidate"]["version"] == "1.1"
    assert said["phase"] == "trial"
    slots = tmp_path / "device" / "slots"
    assert (slots / "B.img").read_bytes()[: len(old)] == old
    assert (slots / "A.img").read_bytes()[: len(new)] == new
