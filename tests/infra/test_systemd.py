"""The service and the timer of the refresh job, as systemd reads them and as they are meant."""

from __future__ import annotations

import configparser
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from repo_tools.cli.publish import refresh

UNITS = Path(__file__).parent.parent.parent / "infra" / "systemd"
NAME = "firmroot-refresh"


class _Unit(configparser.RawConfigParser):
    def optionxform(self, optionstr: str) -> str:
        return optionstr


def _unit(kind: str) -> _Unit:
    # A service has several lines of one name, of which the last one is read here.
    found = _Unit(strict=False, delimiters=("=",), comment_prefixes=("#",))
    found.read_string((UNITS / f"{NAME}.{kind}").read_text())
    return found


def test_systemd_accepts_them(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed: the units were not verified by systemd")
    for file in UNITS.iterdir():
        text = file.read_text()
        # Whether the programs are where a package puts them is not asked here.
        text = text.replace("/usr/bin/firmroot", sys.executable)
        text = text.replace("/usr/bin/git", sys.executable)
        (tmp_path / file.name).write_text(text)
    done = subprocess.run(
        [program, "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    ours = [line for line in (done.stdout + done.stderr).splitlines() if NAME in line]
    assert ours == [], done
    broken = (UNITS / f"{NAME}.timer").read_text().replace("00/6", "wrong")
    (tmp_path / f"{NAME}.timer").write_text(broken)
    done = subprocess.run(
        [program, "verify", "--man=no", str(tmp_path / f"{NAME}.timer")],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert NAME in done.stderr, "it would not have told"


def test_the_service_runs_a_command_that_exists_with_options_that_exist() -> None:
    program, command, *words = shlex.split(_unit("service")["Service"]["ExecStart"])
    assert (Path(program).name, command) == ("firmroot", "refresh")
    context = refresh.make_context("refresh", words)
    assert context.params["fail_within"] == "14d"
    metrics = context.params["metrics"]
    assert metrics.suffix == ".prom", "the collector reads no other"
    writable = _unit("service")["Service"]["ReadWritePaths"].split()
    assert str(metrics.parent) in writable
    assert _unit("service")["Service"]["WorkingDirectory"] in writable


def test_the_timer_starts_it_often_enough_and_catches_up() -> None:
    timer = _unit("timer")
    assert "Unit" not in timer["Timer"], "by its name it starts the service of the same name"
    assert timer["Timer"]["OnCalendar"] == "*-*-* 00/6:00:00"
    assert timer["Timer"]["Persistent"] == "yes" or timer["Timer"]["Persistent"] == "true"
    assert timer["Install"]["WantedBy"] == "timers.target"
    assert "Install" not in _unit("service")


def test_its_clone_is_pulled_though_the_job_saw_it_live_before_it_was_pushed(
    tmp_path: Path,
) -> None:
    """A refresh writes the newest root and targets there, and git does not pull over them."""
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    git = ("git", "-c", "user.name=it", "-c", "user.email=it@acme.example")

    def commit(files: dict[str, str]) -> None:
        for name, text in files.items():
            (theirs / name).parent.mkdir(parents=True, exist_ok=True)
            (theirs / name).write_text(text)
        for words in (("add", "-A"), ("commit", "-q", "-m", "it")):
            subprocess.run([*git, *words], cwd=theirs, check=True)

    subprocess.run([*git, "init", "-q", str(theirs)], check=True)
    commit({".gitignore": "/.firmroot/\n", "metadata/targets.json": "1"})
    subprocess.run([*git, "clone", "-q", str(theirs), str(ours)], check=True)
    live = {"metadata/targets.json": "2", "metadata/root/2.json": "2"}
    seen = {**live, ".firmroot/high-water.json": "mark"}
    for name, text in seen.items():
        (ours / name).parent.mkdir(exist_ok=True)
        (ours / name).write_text(text)
    commit({**live, "policy.toml": "new"})
    lines = [
        line.partition("=")[2].removeprefix("-").replace("/usr/bin/git", "git")
        for line in (UNITS / f"{NAME}.service").read_text().splitlines()
        if line.startswith("ExecStartPre=")
    ]
    done = [
        subprocess.run(shlex.split(line), cwd=ours, check=False, capture_output=True, text=True)
        for line in lines
    ]
    assert done[-1].returncode == 0, done
    assert (ours / "policy.toml").read_text() == "new"
    assert {name: (ours / name).read_text() for name in seen} == seen
