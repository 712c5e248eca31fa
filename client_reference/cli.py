"""`firmroot-device`: the commands and their exit codes.

A command parses, calls and prints (`terminal`); what it works on is put together in `wiring`. Every
error reaches `main`, which turns it into a message, a hint and an exit code; there is no traceback
without -v.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from client_reference import report, update, wiring
from client_reference.config import DEFAULT_PATH
from client_reference.errors import (
    ActionRequiredError,
    ConfigurationError,
    ExitCode,
    FirmrootError,
)
from client_reference.install.handlers import open_installer
from client_reference.lifecycle import observe_boot, unknown_trial
from client_reference.selection import Selection, Waves
from client_reference.terminal import Run, called, complain, failure_of, runnable, tell
from client_reference.transport.fetch import Ambient
from client_reference.trust.selftest import check_key_types
from client_reference.trust.state import Phase
from client_reference.trust.store import SqliteStore, StoreLostError
from client_reference.update import Outcome, Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType

    from client_reference.config import DeviceConfig
    from client_reference.install.handlers import Installer
    from client_reference.strictjson import Json
    from client_reference.trust.state import DeviceState
    from client_reference.update import Result
    from client_reference.wiring import Wired

__all__ = ["main", "run"]

_AMBIENT = Ambient(time.monotonic, time.sleep, random.random)


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are errors like all others, and that guesses no option.

    A script that abbreviates would break, or mean something else, with the next version.
    """

    def __init__(self, **named: Any) -> None:  # noqa: ANN401 # as argparse declares them
        super().__init__(**named | {"allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        raise ConfigurationError(message, f"{self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="firmroot-device",
        description="Firmware updates that outlive certificates, clocks and keys: the device side.",
        epilog="Example:\n  firmroot-device --config device/device.toml update",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="F", help=f"configuration; {DEFAULT_PATH} if not given")
    parser.add_argument("-v", "--verbose", action="store_true", help="show more; tracebacks")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="print it")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(
        call: Callable[[Run], int], name: str, about: str, example: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=about,
            description=about,
            epilog=f"Example:\n  firmroot-device {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(call=call)
        return sub

    sub = command(
        _init, "init", "Trust the factory root, once.", "init --factory /usr/share/firmroot"
    )
    sub.add_argument("--factory", metavar="DIR", help="the factory export; trust.factory otherwise")
    sub = command(_check, "check", "Look for an update; install nothing.", "check --explain")
    sub.add_argument("--explain", action="store_true", help="say why for every release")
    sub.add_argument("--exit-code", action="store_true", help="exit with 10 if there is an update")
    sub = command(_update, "update", "Install what the channel offers.", "update --no-reboot")
    sub.add_argument("--download-only", action="store_true", help="write it, but do not switch")
    sub.add_argument("--ignore-wave", action="store_true", help="do not wait for its turn")
    sub.add_argument("--no-reboot", action="store_true", help="leave the restart to somebody else")
    command(_confirm, "confirm", "Keep the release that is on trial.", "confirm")
    sub = command(_reject, "reject", "Go back to the release before.", "reject --no-reboot")
    sub.add_argument("--no-reboot", action="store_true", help="leave the restart to somebody else")
    sub = command(
        _doctor, "doctor", "What could keep this device from updating.", "doctor --shelf 5y"
    )
    sub.add_argument("--shelf", metavar="TIME", help="suppose that it lay on a shelf: 5y, 90d")
    sub.add_argument("--clock", metavar="TIME", help="suppose that its clock says 1970, 2040-01-31")
    sub.add_argument("--archive", metavar="FILE", help="write what support needs into a .tar.gz")
    command(_status, "status", "What this device trusts, runs and waits for.", "--json status")
    return parser


class _ShowVersion(argparse.Action):
    """The version is looked up only when somebody asks for it."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version  # noqa: PLC0415 # slow, and rarely asked for

        print(f"firmroot-device {version('firmroot')}")  # noqa: T201 # what was asked for
        parser.exit()


def _init(run: Run) -> int:
    config = wiring.configured(run)
    directory = Path(run.options.factory) if run.options.factory else config.trust.factory
    state = wiring.factory_state(config, directory)
    wiring.identified(config)  # on the bench, not with the first update in the field
    with SqliteStore(config.trust.state) as store:
        try:
            stored = store.load()
        except StoreLostError as error:
            run.warn(f"{error.message}; starting again from the factory root")
            stored = None
        if stored is None:
            store.commit(state)
        elif not wiring.descends(stored, state, store):
            raise ConfigurationError(
                f"this device already trusts root version {stored.trust.root_version} of another "
                f"chain, expected the one of {directory}",
                f"to make it forget everything, remove {config.trust.state} first",
            )
    if config.repository.recovery and (stored or state).trust.recovery_root is None:
        run.warn(
            "repository.recovery is set, but this device has no recovery root: it asks nobody; "
            "the factory export needs a recovery-root.json"
        )
    try:
        check_key_types()
    except ConfigurationError as error:
        # Nothing that this root needs; what a later root may need is better known today.
        run.warn(f"{error.message}: a repository that begins to use such keys ends updates here")
    done = "initialised" if stored is None else "initialised before; nothing changed"
    version = (stored or state).trust.root_version
    if wiring.is_lab(state):
        run.warn(f"this is a LAB repository: {report.LAB_MEANS}")
    if plain := report.without_tls(config.repository.mirrors):
        run.warn(plain)
    run.say(f"{done}: {config.repository.product}/{config.repository.channel}, root {version}")
    run.say(f"next: {run.program} update")
    run.result({"initialised": stored is None, "root": version, "lab": wiring.is_lab(state)})
    return ExitCode.DONE


def _check(run: Run) -> int:
    with wiring.wired(run) as machine:
        checked = update.check(machine.machine)
        machine.warn(checked)
        run.say(*report.check_lines(checked.decision, explain=run.options.explain))
        following: str | None = None
        trial = checked.install.candidate if checked.install.phase is Phase.TRIAL else None
        unknown = unknown_trial(checked.install, machine.machine.installer.trial())
        available = isinstance(checked.decision, Selection) and trial is None and not unknown
        if unknown:
            run.say(f"slot {unknown} is on trial, and this device has no record of what is in it")
            following = f"{run.program} reject"
        elif trial is not None:
            run.say(
                f"{trial.version} is on trial: until it is confirmed or rejected nothing starts"
            )
            pending = machine.machine.installer.boot_pending()
            following = "restart the device" if pending else f"{run.program} confirm"
        elif available:
            following = f"{run.program} update"
        if following is not None:
            run.say(f"next: {following}")
        run.result(report.check_document(checked, machine.fetcher, machine.probe))
        on_trial = {"trial": report.image_document(trial), "unknown_trial": unknown or None}
        run.result(on_trial | {"next": following})
    if available and run.options.exit_code:
        return ExitCode.UPDATE_AVAILABLE
    return ExitCode.DONE


def _update(run: Run) -> int:
    waves = Waves.IGNORE if run.options.ignore_wave else Waves.OBEY
    stop = Stop.AFTER_STAGING if run.options.download_only else Stop.NEVER
    with wiring.wired(run) as machine:
        result = update.update(machine.machine, waves, stop, machine.restart)
        machine.bar.finish()
        if result.checked is not None:
            machine.warn(result.checked)
        run.say(*_update_lines(run, machine, result))
        document: dict[str, Json] = {"outcome": result.outcome.value}
        if result.checked is not None:
            document |= report.check_document(result.checked, machine.fetcher, machine.probe)
        run.result(document | {"image": report.image_document(result.image)})
    return ExitCode.DONE


def _update_lines(run: Run, machine: Wired, result: Result) -> list[str]:
    image = result.image
    if image is None:
        decision = result.checked.decision if result.checked else None
        return report.check_lines(decision, explain=run.options.verbose) if decision else []
    name = f"{image.version} (sequence {image.sequence})"
    slot = f" in slot {image.slot}" if image.slot else ""
    if result.outcome is Outcome.STAGED:
        return [f"{name} is written and verified{slot}", f"next: {run.program} update"]
    if result.outcome is Outcome.READY:
        return [f"{name} boots next{slot}", "next: restart the device"]
    if image.slot and machine.machine.installer.running() == image.slot:
        return [f"{name} runs on trial{slot}", f"next: {run.program} confirm"]
    return [f"restarting into {name}{slot}", f"next, once it runs: {run.program} confirm"]


def _confirm(run: Run) -> int:
    with wiring.wired(run) as machine:
        image = update.confirm(machine.machine)
    if image is None:
        run.say("nothing is on trial: there is nothing to confirm")
    else:
        name = f"{image.version} (sequence {image.sequence})"
        run.say(f"confirmed: {name} is this device's release now")
    run.result({"confirmed": report.image_document(image)})
    return ExitCode.DONE


def _reject(run: Run) -> int:
    with wiring.giving_up(run) as (machine, restart):
        result = update.reject(machine, restart)
    if result.image is None:
        run.say("given up: the trial of which this device has no record; an update may follow")
    else:
        run.say(f"rejected: {result.image.version} is not tried again on this device")
    if result.outcome is Outcome.READY:
        run.say("next: restart the device")
    run.result({"rejected": report.image_document(result.image), "outcome": result.outcome.value})
    return ExitCode.DONE


def _peeked(run: Run, config: DeviceConfig, installer: Installer) -> DeviceState:
    """What is stored, or what to do without it."""
    try:
        state = SqliteStore(config.trust.state).peek()
        missing = f"this device has no trust state in {config.trust.state} yet"
    except StoreLostError as error:
        state, missing = None, error.message
        if not installer.trial():
            raise
    if state is not None:
        return state
    if slot := installer.trial():
        raise ActionRequiredError(
            f"{missing}; slot {slot} is on trial, and nothing is stored about what is in it",
            f"run `{run.program} reject`: it goes back to the release before and begins from the "
            "factory root; what nobody knows cannot be confirmed",
        )
    raise ActionRequiredError(missing, f"run `{run.program} init`")


def _status(run: Run) -> int:
    config = wiring.configured(run)
    installer = open_installer(config.install)
    state = _peeked(run, config, installer)
    running, pending = installer.running(), installer.boot_pending()
    install = observe_boot(state.install, running, pending=pending).state
    failures, fork = wiring.recovery_asked(config)
    standing = report.Standing(
        product=config.repository.product,
        channel=config.repository.channel,
        state=state,
        install=install,
        running=running,
        pending=pending,
        now=wiring.read_clock(run, state),
        program=run.program,
        mirrors=config.repository.mirrors,
        recovery=config.repository.recovery,
        unknown=unknown_trial(install, installer.trial()),
        refused=wiring.refused_by_request(config),
        recovery_failures=failures,
        recovery_fork=fork,
    )
    run.say(*report.status_lines(standing))
    run.result(report.status_document(standing))
    return ExitCode.DONE


def _doctor(run: Run) -> int:
    from client_reference import archive, doctor  # noqa: PLC0415 # rare, and it imports much

    config = wiring.configured(run, silent=True)  # the findings say what is odd in it
    store = SqliteStore(config.trust.state)
    now, shelf = _reading(run, config, store), timedelta()
    if run.options.shelf:
        now, shelf = doctor.after(now, run.options.shelf), doctor.duration(run.options.shelf)
    if run.options.clock:
        now = doctor.moment(run.options.clock)  # it is what the clock says after the shelf
    patient = doctor.Patient(
        config=config,
        store=store,
        settings=lambda: wiring.transport_settings(run, config),
        ambient=run.ambient,
        identified=lambda: wiring.identified(config),
        begin=lambda: wiring.factory_state(config, config.trust.factory),
        machine=lambda state, settings: wiring.on_a_copy(config, state, settings, run.ambient, now),
        now=now,
        supposed=bool(run.options.clock),
        shelf=shelf,
    )
    findings = doctor.examine(patient)
    for finding in findings:
        run.say(f"{finding.severity.value:<8} {finding.subject}: {finding.detail}")
    if run.options.archive:
        archive.write(Path(run.options.archive), config, store, findings)
        run.say(f"written: {run.options.archive}; it holds no secret, and the id of this device")
    run.result({"findings": [finding.document() for finding in findings]})
    return doctor.exit_code(findings)


def _reading(run: Run, config: DeviceConfig, store: SqliteStore) -> datetime:
    """What the clock says, by what is stored or by what the device would begin with."""
    for trusted in (store.peek, lambda: wiring.factory_state(config, config.trust.factory)):
        with suppress(FirmrootError):
            state = trusted()
            if state is not None:
                break
    else:
        return datetime.now(UTC)
    return wiring.read_clock(run, state)


def main(
    arguments: Sequence[str], environment: Mapping[str, str], ambient: Ambient = _AMBIENT
) -> int:
    """Run one command.

    Args:
        arguments: without the name of the program.
        environment: of the process.
        ambient: clock for waiting, randomness, names and patience of the transport.

    Returns:
        the exit code; message and hint of an error were written to standard error.
    """
    run: Run | None = None
    try:
        options = _parser().parse_args(arguments)
        run = Run(options, environment, ambient)
        code = int(options.call(run))
        run.finish()
        return code  # noqa: TRY300 # what cannot be printed is an error like others
    except BrokenPipeError:
        # Whoever read standard output has gone; nothing is left to say, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 # this is the error boundary
        failure = failure_of(error)
        if {"-v", "--verbose"}.intersection(arguments):
            import traceback  # noqa: PLC0415 # only for those who ask

            traceback.print_exc()
    program = called(None) if run is None else run.program
    message, hint = runnable(failure.message, program), runnable(failure.hint, program)
    if "--json" in arguments:
        document: dict[str, Json] = {"error": message, "hint": hint, "exit_code": failure.code}
        if run is not None:
            document |= {"warnings": [*run.warnings], **run.around}
        complain(json.dumps(document, indent=1, sort_keys=True))
    else:
        tell("error", message)
        if hint:
            tell("hint", hint)
    return failure.code


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def run() -> NoReturn:
    """Entry point of `firmroot-device`. A service manager's SIGTERM counts as Ctrl-C."""
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(main(sys.argv[1:], os.environ))
