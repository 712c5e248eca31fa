"""A machine that has a ceremony's file, a key and a small install, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from client_reference.errors import ExitCode
from repo_tools.signing.start import start_root
from repo_tools.workspace import Workspace
from tests.cli.terminal import Terminal
from tests.signing.team import NOW, PASSPHRASE, clone, make_lab, publish_by_hand

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

# What a signer's machine must not need; the process below cannot import it.
ABSENT = (
    "boto3",
    "starlette",
    "uvicorn",
    "tomlkit",
    "repo_tools.workspace",
    "repo_tools.storage",
    "repo_tools.publishing",
)
PROCESS = """
import sys
from importlib.abc import MetaPathFinder


class Absent(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if any(name == each or name.startswith(each + ".") for each in {absent!r}):
            raise ModuleNotFoundError("blocked: " + name, name=name)
        return None


sys.meta_path.insert(0, Absent())
from repo_tools.cli.main import run
run()
"""


# What is in the extra `release` and not in `signer`.
LIBRARIES = ("boto3", "starlette", "uvicorn", "tomlkit")


class Stick:
    """A USB stick in somebody's machine: files, a home, and commands in a process of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        (directory / "passphrase").write_bytes(PASSPHRASE)

    def __call__(
        self,
        *words: str,
        code: int = 0,
        absent: tuple[str, ...] = ABSENT,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        done = subprocess.run(
            [sys.executable, "-c", PROCESS.format(absent=absent), *words],
            cwd=self.directory,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.directory / "home"),
                "FIRMROOT_PASSPHRASE_FILE": "passphrase",
                "PYTHONPATH": os.pathsep.join(sys.path),
                **(environment or {}),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ws = make_lab(tmp_path_factory.mktemp("apart") / "acme")
    publish_by_hand(ws)
    start_root(ws, NOW)
    return ws.directory


@pytest.fixture
def ws(_made: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(_made, tmp_path / "acme")
    return Workspace.open(tmp_path / "acme")


@pytest.fixture
def run(
    ws: Workspace,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Terminal:
    """The workspace of whoever looks after the ceremony, who has alice's key."""
    monkeypatch.delenv("FIRMROOT_LAB_NOW", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    (tmp_path / "passphrase").write_bytes(PASSPHRASE)
    monkeypatch.setenv("FIRMROOT_PASSPHRASE_FILE", str(tmp_path / "passphrase"))
    theirs = clone(ws, tmp_path / "clone", "alice")
    return Terminal(theirs.directory, capsys)


@pytest.fixture
def stick(ws: Workspace, run: Terminal, tmp_path: Path) -> Stick:
    made = Stick(tmp_path / "stick")
    run("ceremony", "export", "root", "--to", str(made.directory / "root-2.json"))
    shutil.copy(ws.directory / ".firmroot/keys/bob.pem", made.directory)
    return made


def change(stick: Stick, edit: Callable[[dict[str, Any]], None]) -> None:
    path = stick.directory / "root-2.json"
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def test_a_small_install_is_enough_to_read_and_sign(
    ws: Workspace, run: Terminal, stick: Stick
) -> None:
    words = json.loads(run("--json", "ceremony", "show", "root"))["words"]
    said = stick("ceremony", "show", "./root-2.json")
    assert "root version 2 (replaces version 1), good until" in said
    assert "you have signed nothing of this here before" in said
    assert "root-2: 2 needed by the root before, signed by nobody" in said
    assert f"  may sign: bob ({ws.keyring['bob'].key.keyid[:8]})" in said
    assert f"read aloud: {words}" in said
    assert "to sign it: firmroot sign root-2.json --key file:KEY.pem" in said

    said = stick("--yes", "sign", "root-2.json", "--key", "file:bob.pem")
    assert f"read aloud: {words}" in said
    assert "send it back for: firmroot ceremony merge root-2.bob.sig.json" in said
    assert "root-2: signature of bob added" in run(
        "ceremony", "merge", str(stick.directory / "root-2.bob.sig.json")
    )
    assert (stick.directory / "home/.local/share/firmroot/known-good.json").exists()


@pytest.mark.parametrize(
    "words",
    [("ceremony", "list"), ("ceremony", "status"), ("key", "new", "eve"), ("key", "list")],
    ids=" ".join,
)
def test_what_a_small_install_cannot_do_says_how_to_get_it(
    stick: Stick, words: tuple[str, ...]
) -> None:
    said = stick(*words, code=ExitCode.USAGE, absent=LIBRARIES)
    assert "error: this needs tomlkit, which is not installed" in said
    assert "hint: pip install 'firmroot[release]'" in said


def test_a_small_install_asks_a_token_for_its_keys(stick: Stick) -> None:
    """Nothing of a workspace is imported; here it is the token's library that is not there."""
    said = stick(
        "key",
        "list",
        "hsm:",
        code=ExitCode.USAGE,
        environment={"PYKCS11LIB": str(stick.directory / "none.so")},
    )
    assert "none.so" in said or "firmroot[hsm]" in said
    said = stick("key", "list", "nowhere:", code=ExitCode.USAGE)
    assert "'nowhere:' is no place that can be asked for keys" in said


def test_nothing_is_signed_unasked_or_with_another_key(ws: Workspace, stick: Stick) -> None:
    said = stick("sign", "root-2.json", "--key", "file:bob.pem", code=ExitCode.ACTION_REQUIRED)
    assert "there is no terminal: Sign 1 time(s), with bob?" in said
    said = stick("--yes", "sign", "root-2.json", code=ExitCode.USAGE)
    assert "there is no workspace here, so the key must be named" in said
    shutil.copy(ws.directory / ".firmroot/keys/rita.pem", stick.directory)
    said = stick("--yes", "sign", "root-2.json", "--key", "file:rita.pem", code=ExitCode.REFUSED)
    assert "which has no say in root-2" in said
    assert list(stick.directory.glob("*.sig.json")) == []


def test_what_is_unusual_is_not_signed_by_yes_alone(stick: Stick) -> None:
    def lower(document: dict[str, Any]) -> None:
        document["signed"]["roles"]["root"]["threshold"] = 1

    change(stick, lower)
    words = ("--yes", "sign", "root-2.json", "--key", "file:bob.pem")
    said = stick(*words, code=ExitCode.ACTION_REQUIRED)
    assert "UNUSUAL: the threshold of root goes down, from 2 to 1 [threshold-falls]" in said
    assert "run it again with --accept-unusual threshold-falls" in said
    assert list(stick.directory.glob("*.sig.json")) == []
    stick(*words, "--accept-unusual", "threshold-falls")
    assert (stick.directory / "root-2.bob.sig.json").exists()


def test_text_of_a_stranger_does_not_reach_the_terminal(stick: Stick) -> None:
    def spoil(document: dict[str, Any]) -> None:
        for who in document["people"].values():
            who.update(holder="\x1b[2Jmallory\u202e", contact="\r\x07x")
        document["signed"]["roles"]["root"]["x-note"] = "\x1b]0;title\x07"

    change(stick, spoil)
    for words in (
        ("ceremony", "show", "./root-2.json"),
        ("--yes", "sign", "root-2.json", "--key", "file:bob.pem"),
    ):
        said = stick(*words)
        assert r"\x1b[2Jmallory\u202e" in said
        assert not {"\x1b", "\u202e", "\r", "\x07"} & set(said)


# In a workspace.


def test_who_is_missing_is_asked_by_name(run: Terminal) -> None:
    run("--yes", "sign")
    said = run("ceremony", "status", "root", code=ExitCode.ACTION_REQUIRED)
    assert "  ask bob to run: git pull && firmroot sign --key bob" in said.replace(" (bob)", "")
    assert "or by file: firmroot ceremony export root --to root-2.json; send it" in said
    assert "they run: firmroot sign root-2.json --key file:KEY.pem" in said
    said = run("--json", "ceremony", "status", "root", code=ExitCode.ACTION_REQUIRED)
    asked = json.loads(said)["ceremonies"][0]["ask"]
    assert [each["key"] for each in asked] == ["bob", "carol"]
    assert asked[0]["holder"] == "bob"


def test_a_merge_in_which_nothing_counts_fails_and_a_mixed_one_does_not(
    run: Terminal, stick: Stick
) -> None:
    stick("--yes", "sign", "root-2.json", "--key", "file:bob.pem")
    good = stick.directory / "root-2.bob.sig.json"
    bad = stick.directory / "bad.json"
    bad.write_text(json.dumps({**json.loads(good.read_text()), "sig": "00"}))
    said = run("ceremony", "merge", str(bad), code=ExitCode.REFUSED)
    assert "bad.json: ignored: a signature that claims to be by bob does not verify" in said
    said = run("ceremony", "merge", str(bad), str(good))
    assert "root-2: signature of bob added" in said
    assert "bad.json: ignored" in said
    assert "signature of bob is here already" in run("ceremony", "merge", str(good))


def test_the_person_of_a_clone_is_stopped_as_well(run: Terminal) -> None:
    run("--yes", "sign")
    memory = run.directory / ".firmroot/known-good.json"
    document = json.loads(memory.read_text())
    document["signed"]["root"]["content"]["expires"] = "2099-01-01T00:00:00Z"
    memory.write_text(json.dumps(document))
    for path in run.directory.glob("ceremonies/root-2/*.sig.json"):
        path.unlink()
    said = run("--yes", "sign", code=ExitCode.ACTION_REQUIRED)
    assert "you signed another content as version 2" in said
    run("--yes", "sign", "--accept-unusual", "second-content", "--accept-unusual", "expiry-falls")
    assert len(list(run.directory.glob("ceremonies/root-2/*.sig.json"))) == 1


def test_in_a_workspace_keys_have_names(run: Terminal) -> None:
    said = run("--yes", "sign", "--as", "alice", code=ExitCode.USAGE)
    assert "here keys have names" in said
    assert "firmroot sign --key alice" in said


def test_who_is_there_is_asked_before_signatures_are_lost(
    run: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("--yes", "sign")
    policy = run.directory / "policy.toml"
    policy.write_text(policy.read_text().replace("expiry_days = 730", "expiry_days = 700", 1))
    asked: list[str] = []
    answers = [False, True, False, True]

    def answer(question: str, **_: object) -> bool:
        asked.append(question)
        return answers.pop(0)

    there = {"sys.stdin": SimpleNamespace(isatty=lambda: True), "click.confirm": answer}
    with monkeypatch.context() as patched:
        for name, value in there.items():
            patched.setattr(name, value)
        run("ceremony", "start", "root", code=ExitCode.ACTION_REQUIRED)
        assert list(run.directory.glob("ceremonies/root-2/*.sig.json"))
        run("ceremony", "start", "root")
        assert not list(run.directory.glob("ceremonies/root-2/*.sig.json"))
    run("--yes", "sign", "--accept-unusual", "second-content", "--accept-unusual", "expiry-falls")
    with monkeypatch.context() as patched:
        for name, value in there.items():
            patched.setattr(name, value)
        run("ceremony", "abandon", "root", code=ExitCode.ACTION_REQUIRED)
        assert (run.directory / "ceremonies/root-2").exists()
        run("ceremony", "abandon", "root")
    assert not (run.directory / "ceremonies/root-2").exists()
    assert len(asked) == 4
    assert all("root-2 has been signed by alice" in question for question in asked)


def test_signatures_are_not_discarded_unasked(run: Terminal) -> None:
    run("--yes", "sign")
    said = run("--yes", "ceremony", "abandon", "root", code=ExitCode.ACTION_REQUIRED)
    assert "root-2 has been signed by alice; that would be discarded" in said
    assert "--discard-signatures root" in said
    policy = run.directory / "policy.toml"
    policy.write_text(policy.read_text().replace("expiry_days = 730", "expiry_days = 700", 1))
    said = run("--yes", "ceremony", "start", "root", code=ExitCode.ACTION_REQUIRED)
    assert "root-2 has been signed by alice; changing it would discard what they signed" in said
    run("ceremony", "abandon", "root", "--discard-signatures", "root")
    assert not (run.directory / "ceremonies/root-2").exists()
