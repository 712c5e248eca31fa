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
from typing import TYPE_CHECKING

import pytest

from tests.simulators.seaweed import ACCESS, SECRET, seaweed

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    take(tour(), tmp_path, {})


@pytest.mark.services
@pytest.mark.usefixtures("port_8080")
def test_the_tour_on_s3_is_the_same_but_for_one_line(tmp_path: Path) -> None:
    lines = tour().splitlines()
    assert lines[0] == "firmroot init acme --lab && cd acme"
    with seaweed(tmp_path) as service:
        service.client().create_bucket(Bucket="firmware")
        url = f"s3://firmware/acme?endpoint={service.endpoint}"
        lines[0] = f"firmroot init acme --lab --storage '{url}' && cd acme"
        keys = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}
        out = take("\n".join(lines), tmp_path, {**keys, "AWS_REGION": "us-east-1"})
        assert f"serving {url} at http://127.0.0.1:{PORT}/" in out
        found = service.client().list_objects_v2(Bucket="firmware", Prefix="acme/")["Contents"]
    assert "acme/metadata/timestamp.json" in {each["Key"] for each in found}
    assert not (tmp_path / "acme" / "repository").exists()


def take(lines: str, tmp_path: Path, environment: Mapping[str, str]) -> str:
    """Run the tour, and look at what the device has; everything that was said."""
    old = os.urandom(3 << 20)
    (tmp_path / "old.img").write_bytes(old)
    new = old[: 1 << 20] + os.urandom(3 << 20)
    (tmp_path / "new.img").write_bytes(new)
    shell = shutil.which("bash")
    assert shell
    with (tmp_path / "out").open("wb") as log:
        process = subprocess.Popen(
            [shell, "-eu", "-c", lines],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={
                "PATH": f"{BIN}:{os.environ['PATH']}",
                "HOME": str(tmp_path),
                "LANG": "C.UTF-8",
                **environment,
            },
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
    return out
