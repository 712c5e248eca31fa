"""What a script gets: everything in the JSON, hints that run as printed, options spelt out."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.simulators.device import LAB_NOW, DeviceOnDisk, Publisher
from tests.simulators.mirror import Mirror, Trouble

if TYPE_CHECKING:
    from tests.simulators.device import Output

ROOT = Path(__file__).parents[2]
DEAD = "http://127.0.0.1:9/"


@pytest.fixture
def ready(publisher: Publisher, device: DeviceOnDisk) -> DeviceOnDisk:
    """An initialised device, and release 1.0."""
    publisher.release("1.0", 1, b"an image" * 100)
    assert device.run("init").code == 0
    return device


def as_json(device: DeviceOnDisk, *arguments: str) -> Output:
    return device.run(*arguments, before=("--json",))


# Everything is in the JSON


def test_warnings_are_in_the_json_and_in_the_log(ready: DeviceOnDisk) -> None:
    ready.now = "1970-01-01T00:00:00Z"
    assert "warning: freshness unproven" in ready.run("check").err
    said = as_json(ready, "check")
    (warning,) = said.json["warnings"]
    assert warning.startswith("freshness unproven: ")
    assert said.err == f"warning: {warning}\n"
    ready.now = LAB_NOW
    assert as_json(ready, "check").json["warnings"] == []


def test_an_error_is_one_object_with_the_warnings_before_it(
    ready: DeviceOnDisk, mirror: Mirror
) -> None:
    for file in (ready.directory / "state").glob("*.db"):
        file.unlink()
    mirror.trouble = Trouble(status=503)
    said = as_json(ready, "check")
    assert said.out == ""
    error = json.loads(said.err)
    assert error["exit_code"] == said.code == 4
    assert any("started from the factory root" in each for each in error["warnings"])
    assert "answered 503" in error["mirrors"][mirror.url]
    mirror.trouble = Trouble(times=0)
    assert as_json(ready, "check").json["mirrors"] == {}


def test_mirrors_that_failed_or_were_refused_are_named(
    publisher: Publisher, ready: DeviceOnDisk, mirror: Mirror
) -> None:
    forged = json.loads(publisher.repo.files["metadata/timestamp.json"])
    forged["signed"]["version"] += 9
    files = dict(publisher.repo.files) | {"metadata/timestamp.json": json.dumps(forged).encode()}
    root = publisher.repo.files["metadata/1.root.json"]
    with Mirror(files) as liar, Mirror({}) as empty:
        ready.make(root, [DEAD, liar.url, empty.url, mirror.url])
        said = as_json(ready, "check")
    assert said.code == 0
    assert set(said.json["mirrors"]) == {DEAD, liar.url, empty.url}
    assert "refused" in said.json["mirrors"][DEAD]
    assert "good signatures of 0 keys" in said.json["mirrors"][liar.url]
    assert "answers 404" in said.json["mirrors"][empty.url]


def test_a_trial_is_in_the_check(publisher: Publisher, ready: DeviceOnDisk) -> None:
    found = as_json(ready, "check").json
    assert (found["trial"], found["unknown_trial"]) == (None, None)
    assert found["next"] == f"firmroot-device --config {ready.config} update"
    ready.run("update")
    publisher.release("1.1", 2, b"newer" * 100)
    found = as_json(ready, "check").json
    assert found["update"]["version"] == "1.1"
    assert found["trial"]["version"] == "1.0"
    assert found["next"] == f"firmroot-device --config {ready.config} confirm"
    for file in (ready.directory / "state").glob("*.db"):
        file.unlink()
    found = as_json(ready, "check").json
    assert (found["trial"], found["unknown_trial"]) == (None, "B")
    assert found["next"] == f"firmroot-device --config {ready.config} reject"
    ready.run("reject")
    ready.run("update")
    ready.run("confirm")
    assert as_json(ready, "check").json["next"] is None


def test_the_findings_of_doctor_are_no_warnings_twice(ready: DeviceOnDisk) -> None:
    said = as_json(ready, "doctor")
    assert said.json["warnings"] == []
    assert said.err == ""


# Options


@pytest.mark.parametrize(
    "line",
    [
        ("--js", "check"),
        ("--verb", "status"),
        ("check", "--expl"),
        ("update", "--no-re"),
        ("doctor", "--she", "5y"),
        ("init", "--fact", "factory"),
    ],
)
def test_an_option_is_never_guessed(ready: DeviceOnDisk, line: tuple[str, ...]) -> None:
    said = ready.run(*line[1:], before=line[:1]) if line[0][0] == "-" else ready.run(*line)
    assert said.code == 2
    assert "--help" in said.err


# Hints


def test_a_hinted_command_names_the_configuration_that_was_given(
    publisher: Publisher, mirror: Mirror, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device = DeviceOnDisk(tmp_path / 'owner\'s "device"', capsys)
    device.make(publisher.repo.files["metadata/1.root.json"], [mirror.url])
    publisher.release("1.0", 1, b"an image" * 100)
    program = f"firmroot-device --config {shlex.quote(str(device.config))}"
    assert f"run `{program} init`" in device.run("status").err
    assert f"next: {program} update" in device.run("init").out
    device.run("update")
    failed = device.run("update")
    assert f"hint: run `{program} confirm` if it works, `{program} reject` if it does" in failed.err
    error = json.loads(as_json(device, "update").err)
    hinted = error["hint"].split("`")[1]
    assert hinted == f"{program} confirm"
    status = as_json(device, "status").json["next"]
    assert status == hinted
    words = shlex.split(status)
    assert device.run(words[-1]).code == 0
    assert words[1:3] == ["--config", str(device.config)]


# Standard output


def test_a_full_standard_output_is_named_as_what_it_is(ready: DeviceOnDisk) -> None:
    command = [sys.executable, "-m", "client_reference", "--config", str(ready.config)]
    for options in ([], ["--json"]):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(  # this project's own command
                [*command, *options, "check"],
                cwd=ROOT,
                env={**os.environ, "FIRMROOT_LAB_NOW": LAB_NOW},
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert "standard output cannot be written" in done.stderr
        assert "disk is full" not in done.stderr
        assert "Exception ignored" not in done.stderr
        assert done.returncode == 2
    assert ready.run("status").code == 0
