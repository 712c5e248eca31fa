"""Setting up says plainly what is missing, and touches nothing then."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOOLS = ("sh", "cat", "cksum", "tr", "dirname", "env")

NO_VENV = """#!/bin/sh
case "$*" in
  *ensurepip*) exit 1 ;;
  *"print("*) echo 3.11 ;;
esac
exit 0
"""
TOO_OLD = """#!/bin/sh
case "$*" in
  --version) echo "Python 3.9.2"; exit 0 ;;
esac
exit 1
"""


def bootstrap(tmp_path: Path, python3: str | None) -> subprocess.CompletedProcess[str]:
    """Run the script where PATH has a few tools and that python3, nothing else."""
    for name in ("scripts", "requirements"):
        shutil.copytree(ROOT / name, tmp_path / "project" / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "project")
    path = tmp_path / "bin"
    path.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found
        (path / tool).symlink_to(found)
    if python3 is not None:
        (path / "python3").write_text(python3, "utf-8")
        (path / "python3").chmod(0o755)
    return subprocess.run(
        ["sh", "scripts/bootstrap", "release"],
        cwd=tmp_path / "project",
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("python3", "says"),
    [
        pytest.param(NO_VENV, "apt-get install python3.11-venv", id="no venv: names the package"),
        pytest.param(TOO_OLD, "found Python 3.9.2; firmroot needs Python 3.11", id="too old"),
        pytest.param(None, "found no python3; firmroot needs Python 3.11", id="no python at all"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, python3: str | None, says: str) -> None:
    done = bootstrap(tmp_path, python3)
    assert done.returncode == 2
    assert says in done.stderr
    assert not (tmp_path / "project" / ".venv").exists()


NO_WHEEL = """#!/bin/sh
case "$*" in
  *fuzz.txt*) echo "ERROR: No matching distribution found for atheris" >&2; exit 1 ;;
  -c*) echo "Python 3.19.0 on Linux riscv64" ;;
esac
exit 0
"""
STAMP = "cat requirements/build.txt requirements/dev.txt pyproject.toml scripts/bootstrap"


def test_where_there_is_no_atheris_it_says_so_and_leaves_the_rest(tmp_path: Path) -> None:
    project = tmp_path / "project"
    for name in ("scripts", "requirements"):
        shutil.copytree(ROOT / name, project / name)
    shutil.copy(ROOT / "pyproject.toml", project)
    python = project / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(NO_WHEEL, "utf-8")
    python.chmod(0o755)
    stamp = f"{STAMP} | cksum | tr -d ' ' > .venv/.firmroot-dev"
    subprocess.run(["sh", "-c", stamp], cwd=project, check=True)
    done = subprocess.run(
        ["sh", "scripts/bootstrap", "fuzz"],
        cwd=project,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "atheris could not be installed for Python 3.19.0 on Linux riscv64" in done.stderr
    assert "hint: it has wheels for Linux on x86-64 and Python 3.11 to 3.14" in done.stderr
    assert sorted(path.name for path in (project / ".venv").iterdir()) == [".firmroot-dev", "bin"]


def test_an_unknown_tier_is_a_usage_error() -> None:
    done = subprocess.run(
        ["sh", "scripts/bootstrap", "everything"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "usage:" in done.stderr
