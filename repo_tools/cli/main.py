"""`firmroot`: global options, the table of commands, and the one place where errors are caught.

Commands are loaded when they are called: `firmroot --help` imports none of them. A command parses,
calls and prints; it reads no clock (`Context.now` is the only reading) and lets every error through
to `run`, which turns it into a message, a hint and an exit code.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from client_reference.errors import ConfigurationError, ExitCode, FirmrootError
from repo_tools.cli.context import Context, Printer, example
from repo_tools.cli.lazy import LazyGroup
from repo_tools.cli.output import OutputError, named_output
from repo_tools.reporting.visible import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["COMMANDS", "cli", "exit_code", "main", "run"]

LAB_NOW = "FIRMROOT_LAB_NOW"

# Command -> (module:attribute, line of `firmroot --help`). The line stands here so that help needs
# no import.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "init": ("repo_tools.cli.init:init", "Make a workspace."),
    "adopt": ("repo_tools.cli.adopt:adopt", "Take over a repository of another tool."),
    "status": ("repo_tools.cli.status:status", "Who must act next, and what expires when."),
    "sign": ("repo_tools.cli.sign:sign", "Sign everything that waits for your keys."),
    "plan": ("repo_tools.cli.publish:plan", "Show what publish would do."),
    "publish": ("repo_tools.cli.publish:publish", "Rehearse, then make staged work visible."),
    "submit": ("repo_tools.cli.submit:submit", "Hand signed work to the publisher."),
    "refresh": ("repo_tools.cli.publish:refresh", "Renew snapshot and timestamp."),
    "verify": ("repo_tools.cli.verify:verify", "Audit a repository as device and as auditor."),
    "gc": ("repo_tools.cli.gc:gc", "Remove what nobody needs from the storage."),
    "mirror": ("repo_tools.cli.mirror:mirror", "Copy what is live to another place."),
    "history": ("repo_tools.cli.history:history", "Who signed what when, and the proof."),
    "serve": ("repo_tools.cli.serve:serve", "Serve the repository for trying out."),
    "product": ("repo_tools.cli.product:product", "Products and their channels."),
    "key": ("repo_tools.cli.keys:key", "Keys and their holders."),
    "policy": ("repo_tools.cli.policy:policy", "Check and explain the policy."),
    "firmware": ("repo_tools.cli.firmware:firmware", "Firmware files and their releases."),
    "channel": ("repo_tools.cli.channel:channel", "What devices on a channel should run."),
    "ceremony": ("repo_tools.cli.ceremony:ceremony", "Signing by several people."),
    "rotate": ("repo_tools.cli.rotate:rotate", "Replace or remove a key."),
    "recover": ("repo_tools.cli.recover:recover", "The way back from an accident."),
    "anchor": ("repo_tools.cli.anchor:anchor", "The second root, if the first is lost."),
    "factory": ("repo_tools.cli.factory:factory", "What a device is born with."),
    "demo": ("repo_tools.cli.demo:demo", "The whole story on this terminal, in half a minute."),
}


# Options that stand before the command, each with the word that follows it.
_OF_THE_PROGRAM: Mapping[str, tuple[str, ...]] = {
    "-C": ("DIR",),
    "-v": (),
    "--verbose": (),
    "--json": (),
    "--yes": (),
    "--why": ("TEXT",),
}
LONGEST_WHY = 400

# What the extra `release` has and the extra `signer` has not.
_OF_A_WORKSPACE = frozenset({"starlette", "tomlkit", "uvicorn"})


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=example("firmroot init acme --lab", "firmroot -C acme status"),
)
@click.option(
    "-C",
    "directory",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="The workspace; the current directory if not given.",
)
@click.option("-v", "--verbose", is_flag=True, help="Show more, and the traceback of a bug.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, also for errors.")
@click.option("--yes", is_flag=True, help="Go on without asking, where that is safe.")
@click.option(
    "--why",
    default="",
    metavar="TEXT",
    help="The reason, kept with what this command starts or publishes (firmroot history).",
)
@click.version_option(package_name="firmroot", prog_name="firmroot")
@click.pass_context
def cli(
    context: click.Context, directory: Path, *, verbose: bool, as_json: bool, yes: bool, why: str
) -> None:
    """Firmware updates that outlive certificates, clocks and keys."""
    _check_why(why)
    now, lab_time = _read_clock(directory, context.invoked_subcommand or "")
    printer = Printer(json=as_json)
    context.obj = Context(directory, now, as_json, yes, verbose, printer, lab_time, why)


def _check_why(why: str) -> None:
    if len(why) > LONGEST_WHY or visible(why, keep="") != why:
        raise ConfigurationError(
            f"--why: expected one line of at most {LONGEST_WHY} characters that print, "
            f"found {len(why)}: {visible(why, keep='')[:60]!r}",
            "say it in a line, and where the rest can be read",
        )


def _read_clock(directory: Path, command: str) -> tuple[datetime, bool]:
    """The time, and whether it was injected: a lab may travel in time, nobody else.

    `init` makes the root that must be LAB, and so decides itself.
    """
    injected = os.environ.get(LAB_NOW)
    if injected is None:
        return datetime.now(UTC).replace(microsecond=0), False
    try:
        now = datetime.strptime(injected, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise ConfigurationError(
            f"{LAB_NOW} is {injected!r}, expected such as 2032-01-01T00:00:00Z"
        ) from error
    if command != "init":
        from keys_policy.model import Policy  # noqa: PLC0415  tuf is not for --help
        from repo_tools.metadata.edits import is_lab_root  # noqa: PLC0415  likewise
        from repo_tools.workspace import Workspace  # noqa: PLC0415  likewise

        # The time does not depend on the policy, and `policy check` judges one that is damaged.
        root = Workspace.open_with(directory, Policy({}), {}).ruling_root()
        if root is None or not is_lab_root(root):
            raise ConfigurationError(
                f"{LAB_NOW} is set, but the root of this workspace is not marked LAB",
                f"unset {LAB_NOW}; only workspaces made by `firmroot init --lab` may set the time",
            )
    return now, True


@dataclass(frozen=True)
class _Failure:
    """How a run ended, if not well."""

    message: str
    hint: str
    code: int


def _failure(error: BaseException) -> _Failure:
    """What an error means to the user; the table of everything that may escape a command."""
    match error:
        case FirmrootError():
            return _Failure(error.message, error.hint, error.exit_code)
        case click.Abort() | KeyboardInterrupt():
            text = "interrupted; nothing was left half-written"
            return _Failure(text, "", ExitCode.INTERRUPTED)
        case click.ClickException():
            return _wrong_usage(error)
        case ModuleNotFoundError(name=str(name)) if name.partition(".")[0] in _OF_A_WORKSPACE:
            text = (
                f"this needs {name.partition('.')[0]}, which is not installed; what works without "
                "it: sign FILE, ceremony show FILE, key list hsm:"
            )
            return _Failure(text, "pip install 'firmroot[release]'", ExitCode.USAGE)
        case OSError():
            return _of_the_system(error)
        case _:
            text = f"this is a bug in firmroot: {type(error).__name__}: {error}"
            return _Failure(text, "run it with -v and report the traceback", ExitCode.BUG)


def exit_code(error: BaseException) -> int:
    """How a command ends that this escapes from; for one that tells others before it ends."""
    return _failure(error).code


def _of_the_system(error: OSError) -> _Failure:
    if isinstance(error, OutputError):
        hint = "give it a place that takes it; what the command did is kept: `firmroot status`"
        return _Failure(str(error), hint, ExitCode.USAGE)
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        hint = "free some space, then run the same command again"
        text = f"the disk is full: {error}; nothing was half-written"
        return _Failure(text, hint, ExitCode.RETRY_LATER)
    return _Failure(str(error), "check the path and its permissions", ExitCode.USAGE)


def _wrong_usage(error: click.ClickException) -> _Failure:
    """What click did not understand; an option of the program may just stand too late."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    option = error.option_name if isinstance(error, click.NoSuchOption) else ""
    if context is not None and context.parent is not None and option in _OF_THE_PROGRAM:
        command = context.command_path.partition(" ")[2]
        shown = " ".join([option, *_OF_THE_PROGRAM[option]])
        return _Failure(
            f"{option} is an option of firmroot itself, not of {command}",
            f"before the command: firmroot {shown} {command}",
            ExitCode.USAGE,
        )
    place = context.command_path if context else "firmroot"
    return _Failure(error.format_message(), f"{place} --help", ExitCode.USAGE)


def main(arguments: list[str]) -> int:
    """Run one command.

    Returns:
        the exit code; message and hint of an error were written to standard error.
    """
    try:
        # What `click.Context.exit` was given, or whatever the command returned.
        with named_output():
            code = cli.main(arguments, prog_name="firmroot", standalone_mode=False)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  this is the error boundary
        failure = _failure(error)
        if failure.code == ExitCode.BUG and {"-v", "--verbose"}.intersection(arguments):
            click.echo(visible(traceback.format_exc()), err=True, nl=False)
    else:
        return code if isinstance(code, int) else ExitCode.DONE
    if "--json" in arguments:
        report = {"error": failure.message, "hint": failure.hint, "exit_code": failure.code}
        click.echo(json.dumps(report, indent=1, sort_keys=True), err=True)
    else:
        click.echo(visible(f"error: {failure.message}"), err=True)
        if failure.hint:
            click.echo(visible(f"hint: {failure.hint}"), err=True)
    return failure.code


def run() -> None:
    """Entry point of the `firmroot` command."""
    sys.exit(main(sys.argv[1:]))
