"""The error boundary, the help of every command, and what global options promise."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from unittest.mock import patch

import click
import pytest

from client_reference.errors import (
    ActionRequiredError,
    ConfigurationError,
    ExitCode,
    LockedError,
    NotFoundError,
    NotTrustedError,
    RefusedError,
    RetryLaterError,
)
from repo_tools.cli.context import Context, Printer
from repo_tools.cli.main import COMMANDS, cli, main
from repo_tools.files import DiskFullError

if TYPE_CHECKING:
    from collections.abc import Iterator


def walk(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    yield " ".join(path), command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None, f"{name} is in the table and does not exist"
            yield from walk(found, (*path, name))


EVERY = dict(walk(cli))
LEAVES = {path: command for path, command in EVERY.items() if not isinstance(command, click.Group)}


@pytest.mark.parametrize("path", EVERY)
def test_every_command_has_help_with_an_example(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*path.split(), "--help"]) == ExitCode.DONE
    text = capsys.readouterr().out
    assert EVERY[path].help
    example = text.partition("Example:\n")[2].strip().splitlines()
    assert example, f"firmroot {path} --help has no example"
    assert any(f"firmroot {path}".strip() in line for line in example)
    for parameter in EVERY[path].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{parameter.name} of {path} has no help"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_of_commands_is_whole(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    assert f"  {name} " in capsys.readouterr().out
    assert COMMANDS[name][1].endswith(".")
    assert EVERY[name].name == name


def test_help_imports_no_command() -> None:
    script = (
        "import sys; from repo_tools.cli.main import main; main(['--help']); "
        "print([m for m in ('tuf', 'cryptography', 'tomlkit', 'starlette') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def raising(error: BaseException) -> click.Command:
    def fail() -> NoReturn:
        raise error

    return click.Command("fails", callback=fail)


ENDINGS = [
    ("bad input", ConfigurationError("found x", "do y"), 2, "error: found x\nhint: do y\n"),
    ("no hint", ConfigurationError("found x"), 2, "error: found x\n"),
    ("somebody must act", ActionRequiredError("a"), 3, "error: a\n"),
    ("later", RetryLaterError("a"), 4, "error: a\n"),
    ("not there", NotFoundError("a"), 4, "error: a\n"),
    ("refused", RefusedError("a"), 5, "error: a\n"),
    ("not trusted", NotTrustedError("a"), 6, "error: a\n"),
    ("locked", LockedError("a"), 7, "error: a\n"),
    ("disk full, ours", DiskFullError("a"), 4, "error: a\n"),
    ("disk full", OSError(errno.ENOSPC, "No space left on device"), 4, "error: the disk is full: "),
    ("over quota", OSError(errno.EDQUOT, "Quota"), 4, "error: the disk is full: "),
    (
        "no permission",
        PermissionError(errno.EACCES, "Permission denied", "x"),
        2,
        "error: [Errno 13] Permission denied: 'x'\nhint: check the path and its permissions\n",
    ),
    (
        "Ctrl-C",
        KeyboardInterrupt(),
        130,
        "error: interrupted; nothing was left half-written\n",
    ),
    ("an answer is refused", click.Abort(), 130, "error: interrupted"),
    (
        "a bug",
        ZeroDivisionError("by zero"),
        1,
        "error: this is a bug in firmroot: ZeroDivisionError: by zero\nhint: run it with -v",
    ),
    ("usage", click.UsageError("wrong"), 2, "error: wrong\nhint: firmroot fails --help\n"),
]


@pytest.mark.parametrize(
    ("error", "code", "text"), [row[1:] for row in ENDINGS], ids=[row[0] for row in ENDINGS]
)
def test_every_error_has_its_message_hint_and_code(
    error: BaseException, code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with patch.object(cli, "get_command", lambda *_: raising(error)):
        assert main(["fails"]) == code
    captured = capsys.readouterr()
    assert captured.err.lstrip("\n").startswith(text)
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_errors_are_json_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    with patch.object(cli, "get_command", lambda *_: raising(RefusedError("a", "b"))):
        assert main(["--json", "fails"]) == 5
    assert json.loads(capsys.readouterr().err) == {"error": "a", "hint": "b", "exit_code": 5}


def test_the_traceback_of_a_bug_needs_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    with patch.object(cli, "get_command", lambda *_: raising(ZeroDivisionError())):
        assert main(["-v", "fails"]) == 1
    assert "Traceback" in capsys.readouterr().err
    with patch.object(cli, "get_command", lambda *_: raising(RefusedError("a"))):
        assert main(["-v", "fails"]) == 5
    assert "Traceback" not in capsys.readouterr().err


HOSTILE = "\x1b[2J\x1b[Hroot 2: nothing changes\x9b8m\r"


def test_errors_never_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with patch.object(cli, "get_command", lambda *_: raising(RefusedError(HOSTILE, HOSTILE))):
        assert main(["fails"]) == ExitCode.REFUSED
    shown = r"\x1b[2J\x1b[Hroot 2: nothing changes\x9b8m\r"
    assert capsys.readouterr().err == f"error: {shown}\nhint: {shown}\n"
    with patch.object(cli, "get_command", lambda *_: raising(ZeroDivisionError(HOSTILE))):
        assert main(["-v", "fails"]) == ExitCode.BUG
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert not {"\x1b", "\x9b", "\r"}.intersection(err)


@pytest.mark.parametrize("as_json", [False, True], ids=["lines", "JSON"])
def test_output_never_controls_the_terminal(
    capsys: pytest.CaptureFixture[str], *, as_json: bool
) -> None:
    printer = Printer(json=as_json)
    printer.say(f"a\n\tb {HOSTILE}")
    printer.result({"a": HOSTILE})
    out = capsys.readouterr().out
    assert not {"\x1b", "\x9b", "\r"}.intersection(out)
    if as_json:
        assert json.loads(out) == {"a": HOSTILE}
    else:
        assert out == "a\n\tb \\x1b[2J\\x1b[Hroot 2: nothing changes\\x9b8m\\r\n"


class Screen:
    """What a terminal of so many columns shows of what is written to it."""

    def __init__(self) -> None:
        self.lines, self.at = [""], 0

    def show(self, written: str) -> list[str]:
        for each in written:
            if each == "\n":
                self.lines.append("")
            if each in "\r\n":
                self.at = 0
                continue
            line = self.lines[-1].ljust(self.at)
            self.lines[-1] = line[: self.at] + each + line[self.at + 1 :]
            self.at += 1
        return [line.rstrip() for line in self.lines]


def a_context(*, as_json: bool = False, verbose: bool = False) -> Context:
    printer = Printer(json=as_json)
    return Context(
        Path(), datetime.now(UTC), json=as_json, yes=False, verbose=verbose, printer=printer
    )


def test_long_work_is_told_on_one_line_of_a_terminal_and_leaves_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "20")
    ours, screen = a_context(), Screen()

    def shown() -> list[str]:
        """Both streams are the same terminal; each step is looked at before the next."""
        found = capsys.readouterr()
        return screen.show(found.err + found.out)

    with ours.steps() as progress:
        progress("upload metadata/2.snapshot.json")
        assert shown() == ["upload metadata/2.s"]
        progress("commit\x1b[2J")
        assert shown() == [r"commit\x1b[2J"]
        ours.printer.say("refused")
        assert shown() == ["refused", ""]
        progress("upload x")
        assert shown() == ["refused", "upload x"]
        with patch("click.prompt", return_value="secret"):
            assert ours._ask_passphrase("Passphrase of ci") == "secret"
        assert shown() == ["refused", ""]
        progress("upload y")
    assert shown() == ["refused", ""]
    with contextlib.suppress(RefusedError), ours.steps() as progress:
        progress("upload z")
        raise RefusedError("no")
    assert shown() == ["refused", ""]


@pytest.mark.parametrize(
    ("terminal", "as_json", "verbose", "out"),
    [
        (False, False, False, ""),
        (True, True, False, ""),
        (True, True, True, ""),
        (True, False, True, "upload x\n"),
        (False, False, True, "upload x\n"),
    ],
)
def test_elsewhere_steps_are_lines_if_they_are_asked_for(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    out: str,
    *,
    terminal: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    with a_context(as_json=as_json, verbose=verbose).steps() as progress:
        progress("upload x")
    assert capsys.readouterr() == (out, "")


def test_an_exit_code_of_a_command_is_kept() -> None:
    def leave() -> None:
        click.get_current_context().exit(3)

    with patch.object(cli, "get_command", lambda *_: click.Command("x", callback=leave)):
        assert main(["x"]) == 3


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nix"], "No such command 'nix'"),
        (["init"], "Missing argument 'DIR'"),
        (["key", "new", "a", "--type", "dsa"], "'dsa' is not one of"),
        (["status", "--nix"], "No such option"),
    ],
)
def test_wrong_usage_names_the_help(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert text in err
    assert "--help" in err


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["sign", "--yes"], "--yes sign"),
        (["-v", "status", "-C", "acme"], "-C DIR status"),
        (["status", "-v"], "-v status"),
        (["status", "--verbose"], "--verbose status"),
        (["channel", "list", "--yes"], "--yes channel list"),
    ],
)
def test_options_of_the_program_stand_before_the_command(
    arguments: list[str], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert "is an option of firmroot itself, not of " in err
    assert err.endswith(f"hint: before the command: firmroot {command}\n")


def test_json_after_the_command_is_answered_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--json"]) == ExitCode.USAGE
    found = json.loads(capsys.readouterr().err)
    assert found["hint"] == "before the command: firmroot --json status"
    assert main(["--no"]) == ExitCode.USAGE, "before a command it is any mistake"
    assert "No such option" in capsys.readouterr().err


NO_WORKSPACE_NEEDED = {"init", "adopt", "demo", "policy explain"}


@pytest.mark.parametrize("path", sorted(set(LEAVES) - NO_WORKSPACE_NEEDED))
def test_ctrl_c_in_every_command_ends_in_the_same_words(
    path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["-C", str(tmp_path), *path.split(), *_arguments(LEAVES[path], tmp_path)]
    with patch("repo_tools.workspace.Workspace.open", side_effect=KeyboardInterrupt):
        assert main(arguments) == ExitCode.INTERRUPTED, path
    assert "interrupted; nothing was left half-written" in capsys.readouterr().err


def _arguments(command: click.Command, directory: Path) -> list[str]:
    """Something for everything that a command requires."""
    given: list[str] = []
    (directory / "file").touch()
    for parameter in command.params:
        if not parameter.required:
            continue
        value = str(directory / "file") if isinstance(parameter.type, click.Path) else "gateway@1"
        if isinstance(parameter.type, click.IntRange):
            value = "1"
        given += [parameter.opts[0], value] if isinstance(parameter, click.Option) else [value]
    return given


@pytest.mark.parametrize("path", sorted(set(LEAVES) - NO_WORKSPACE_NEEDED))
def test_outside_a_workspace_every_command_says_so(
    path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["-C", str(tmp_path), *path.split(), *_arguments(LEAVES[path], tmp_path)])
    err = capsys.readouterr().err
    assert code == ExitCode.USAGE, err
    assert "is not a firmroot workspace: it has no firmroot.toml" in err
    assert "firmroot init DIR" in err


def test_the_installed_command_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from repo_tools.cli.main import run; run()", "status"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    assert done.returncode == ExitCode.USAGE
    assert done.stderr.startswith("error: ")
