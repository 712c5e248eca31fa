"""What is known about firmware before and after a publish, and what is told about it."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from repo_tools.publishing.firmware import read_builds
from tests.publishing.lab import HARDWARE, PRODUCT, Lab

if TYPE_CHECKING:
    from pathlib import Path


def states(lab: Lab) -> list[tuple[str, str]]:
    rows = lab.ok("--json", "firmware", "list").json["firmware"]
    return [(row["version"], row["state"]) for row in rows]


def test_what_another_machine_published_first_of_all_is_seen(
    ready: Lab, moments: dict[str, Lab]
) -> None:
    """Its root is here, signed and not known to be published."""
    assert states(ready) == [("1.0", "waits for publish")]
    shutil.copytree(moments["live"].repository, ready.repository, dirs_exist_ok=True)
    assert states(ready) == [("1.0", "published")]


def test_before_any_root_is_signed_there_is_no_firmware(new: Lab) -> None:
    (new.directory / "staged/root.json").unlink()
    builds = read_builds(new.workspace, new.workspace.storage(), PRODUCT)
    assert (builds.live, builds.staged, builds.version) == (None, None, 0)


def test_what_another_tool_signed_without_a_meaning_takes_no_sequence(following: Lab) -> None:
    staged = following.directory / ".firmroot/staged/gateway-builds.json"
    document = json.loads(staged.read_bytes())
    bare = {"length": 1, "hashes": {"sha256": "00" * 32}}
    document["signed"]["targets"]["builds/gateway/0.9/notes"] = bare
    staged.write_text(json.dumps(document))
    builds = read_builds(following.workspace, following.workspace.storage(), PRODUCT)
    assert "builds/gateway/0.9/notes" in builds.targets
    assert "sequence 3" in following.add("1.2").out


@pytest.mark.parametrize("declared", [True, False])
def test_an_unknown_product_is_told_those_that_there_are(
    new: Lab, tmp_path: Path, *, declared: bool
) -> None:
    config = new.directory / "firmroot.toml"
    if not declared:
        config.write_text(config.read_text().partition("[products")[0])
    file = tmp_path / "gw2.img"
    file.write_bytes(b"firmware")
    done = new.run("firmware", "add", file, "-p", "router", "-V", "1", "--hardware", HARDWARE)
    assert done.code == 2
    there = PRODUCT if declared else "none"
    assert f"there is no product 'router'; there is: {there}\n" in done.err


def test_bytes_that_wait_already_are_not_written_again(following: Lab) -> None:
    outbox = following.directory / ".firmroot/outbox"
    before = {path: path.stat().st_ino for path in outbox.rglob("*") if path.is_file()}
    assert before
    assert "is there already" in following.add("1.1").out
    assert {path: path.stat().st_ino for path in outbox.rglob("*") if path.is_file()} == before
