"""The line on what git does not have yet."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from repo_tools.git import reminder, sentence

SHARE = "not in git yet; share it: "

LEAK = (
    "git would take .firmroot/, which holds private keys: put the line /.firmroot/ back into "
    ".gitignore before you commit"
)

SAID = {
    "nothing has changed": ("## main\0", "", ""),
    "nothing has changed since the last push": ("## main...origin/main [ahead 1]\0", "", ""),
    "a new file": ("## main\0?? keys/a.toml\0", "", f"{SHARE}git add --all . && git commit"),
    "a file of a branch that is pushed": (
        "## main...origin/main\0 M policy.toml\0",
        "",
        f"{SHARE}git add --all . && git commit && git push",
    ),
    "a file that was renamed": (
        "## main\0R  new\0old\0",
        "",
        f"{SHARE}git add --all . && git commit",
    ),
    "before the first commit, elsewhere, in a folder with a space": (
        "## No commits yet on main\0?? x\0",
        "a b",
        f"{SHARE}git -C 'a b' add --all . && git -C 'a b' commit",
    ),
    "private keys that git would take": (
        "## main\0?? acme/.firmroot/\0?? acme/keys/\0",
        "",
        LEAK,
    ),
    "a file that only sounds private": (
        "## main\0?? a.firmroot\0",
        "",
        f"{SHARE}git add --all . && git commit",
    ),
}


@pytest.mark.parametrize("case", SAID)
def test_what_git_says_becomes_one_line(case: str) -> None:
    porcelain, directory, line = SAID[case]
    assert sentence(porcelain, directory) == line


def test_outside_a_work_tree_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "file").write_text("x")
    assert reminder(tmp_path) == ""


def test_without_git_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert reminder(tmp_path) == ""


def test_a_real_work_tree_is_asked_about_its_workspace_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    environment = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": os.devnull,
        **{f"GIT_{who}_NAME": "x" for who in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{who}_EMAIL": "x@acme.example" for who in ("AUTHOR", "COMMITTER")},
    }

    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True, env=environment)

    acme = tmp_path / "acme"
    acme.mkdir()
    git("init", "--quiet")
    (tmp_path / "elsewhere").write_text("not of the workspace")
    assert reminder(acme) == ""
    (acme / "policy.toml").write_text("schema = 1\n")
    assert reminder(acme) == f"{SHARE}git -C {acme} add --all . && git -C {acme} commit"
    monkeypatch.chdir(acme)
    assert reminder(Path()) == f"{SHARE}git add --all . && git commit"
    git("add", "acme")
    git("commit", "--quiet", "-m", "all of it")
    assert reminder(acme) == ""
    (acme / "policy.toml").unlink()
    assert reminder(acme).startswith(SHARE), "what was removed is to be shared too"
