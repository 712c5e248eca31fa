"""`firmroot-device`: the only wiring, printing, clock reading, randomness and exit codes.

A command parses, calls and prints. Every error reaches `main`, which turns it into a message, a
hint and an exit code; there is no traceback without -v. Results go to standard output, everything
else to standard error; with --json each is one JSON object.
"""

from __future__ import annotations

import argparse
import errno
import gc
import json
import os
import random
import signal
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from client_reference import config as configuration
from client_reference import factory as factories
from client_reference import identity, report, update
from client_reference.config import DEFAULT_PATH, Proxy, Reboot, TlsRoots
from client_reference.errors import (
    ActionRequiredError,
    ConfigurationError,
    ExitCode,
    FirmrootError,
)
from client_reference.install.handlers import open_installer
from client_reference.lifecycle import Boot, observe_boot, unknown_trial
from client_reference.selection import Selection, Waves
from client_reference.strictjson import format_time, parse_time
from client_reference.transport.bundle import BundleFile
from client_reference.transport.cache import TargetCache
from client_reference.transport.fetch import Ambient, Certificate, HttpFetcher, Roots, Settings
from client_reference.transport.memory import Memory
from client_reference.trust.clock import Freshness
from client_reference.trust.selftest import check_key_types
from client_reference.trust.state import Phase
from client_reference.trust.store import SqliteStore, StoreLostError
from client_reference.trust.updater import initial_state
from client_reference.trust.uptime import Uptime
from client_reference.trust.verified import BadSignatureError, MalformedError, first_root
from client_reference.update import Checked, Identified, Machine, Outcome, Restart, Result, Stop
from client_reference.values import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import FrameType

    from client_reference.config import DeviceConfig
    from client_reference.strictjson import Json
    from client_reference.transport.policy import Mirror
    from client_reference.transport.proxy import ProxyServer
    from client_reference.trust.anchor import Probe, RecoveryAnchor
    from client_reference.trust.state import DeviceState

__all__ = ["main", "run"]

LAB_NOW = "FIRMROOT_LAB_NOW"
BUNDLE = "ca-bundle.pem"
UPTIME = "uptime.json"
MEMORY = "transport.json"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_BAR = 30
_MAX_HEADER = 8192
_DAY = 86_400
_COLOURS = {"error": "31", "warning": "33", "hint": "36"}


@frozen
class _Run:
    """One run of the command: its options, and the only ways to print."""

    options: argparse.Namespace
    environment: Mapping[str, str]
    ambient: Ambient

    @property
    def program(self) -> str:
        """How this command was called; what a hint begins with."""
        given = self.options.config
        return "firmroot-device" + (f" --config {given}" if given else "")

    def say(self, *lines: str) -> None:
        """Lines for people."""
        if not self.options.json:
            for line in lines:
                print(report.printable(line))  # noqa: T201 # what this command is for

    def result(self, document: Mapping[str, Json]) -> None:
        """One object for scripts."""
        if self.options.json:
            print(json.dumps(document, indent=1, sort_keys=True))  # noqa: T201 # likewise

    def warn(self, text: str) -> None:
        """What a person should know, whatever the outcome."""
        _tell("warning", text)


def _tell(kind: str, text: str) -> None:
    coloured = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    label = f"\x1b[{_COLOURS[kind]}m{kind}\x1b[0m" if coloured else kind
    print(f"{label}: {report.printable(text)}", file=sys.stderr)  # noqa: T201 # the error boundary


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are errors like all others."""

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
        call: Callable[[_Run], int], name: str, about: str, example: str
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


def _init(run: _Run) -> int:
    config = _config(run)
    directory = Path(run.options.factory) if run.options.factory else config.trust.factory
    state = _factory_state(config, directory)
    _identified(config)  # on the bench, not with the first update in the field
    with SqliteStore(config.trust.state) as store:
        try:
            stored = store.load()
        except StoreLostError as error:
            run.warn(f"{error.message}; starting again from the factory root")
            stored = None
        if stored is None:
            store.commit(state)
        elif not _descends(stored, state, store):
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
    if _lab(state):
        run.warn(f"this is a LAB repository: {report.LAB_MEANS}")
    if plain := report.without_tls(config.repository.mirrors):
        run.warn(plain)
    run.say(f"{done}: {config.repository.product}/{config.repository.channel}, root {version}")
    run.say(f"next: {run.program} update")
    run.result({"initialised": stored is None, "root": version, "lab": _lab(state)})
    return ExitCode.DONE


def _descends(stored: DeviceState, factory: DeviceState, store: SqliteStore) -> bool:
    """Whether the stored trust grew from this factory root, or went through it."""
    if stored.trust.factory_sha256 == factory.trust.factory_sha256:
        return True  # the stored chain may be shorter: damage can cost it its first links
    if stored.trust.recovery_root is not None and stored.trust.epoch != factory.trust.epoch:
        return True  # only the recovery anchor decides between epochs, never an image
    return factory.trust.root in [bytes(link) for link in store.root_chain()]


def _factory_state(config: DeviceConfig, directory: Path) -> DeviceState:
    """The state of a new device, its root verified, its key types proven to work here."""
    export = factories.load(directory)
    if export.product != config.repository.product:
        raise ConfigurationError(
            f"{directory} is the factory export of {export.product!r}, the configuration says "
            f"{config.repository.product!r}",
            "correct repository.product, or name the right export with --factory",
        )
    try:
        return _checked_state(export)
    except BadSignatureError:
        check_key_types()
        raise
    except MalformedError:
        factories.require_roots(directory, export)
        raise


def _checked_state(export: factories.Factory) -> DeviceState:
    state = initial_state(export.root, export.floors, export.recovery_root)
    roots = [root for root in (export.root, export.recovery_root) if root is not None]
    keys = [key for root in roots for key in first_root(root).keys.values()]
    check_key_types({(key.keytype, key.scheme) for key in keys})
    return state


def _check(run: _Run) -> int:
    with _machine(run) as machine:
        checked = update.check(machine.machine)
        machine.warn(checked)
        run.say(*report.check_lines(checked.decision, explain=run.options.explain))
        trial = checked.install.candidate if checked.install.phase is Phase.TRIAL else None
        unknown = unknown_trial(checked.install, machine.machine.installer.trial())
        available = isinstance(checked.decision, Selection) and trial is None and not unknown
        if unknown:
            run.say(f"slot {unknown} is on trial, and this device has no record of what is in it")
            run.say(f"next: {run.program} reject")
        elif trial is not None:
            run.say(
                f"{trial.version} is on trial: until it is confirmed or rejected nothing starts"
            )
            run.say(f"next: {run.program} confirm")
        elif available:
            run.say(f"next: {run.program} update")
        run.result(report.check_document(checked, machine.fetcher, machine.probe))
    if available and run.options.exit_code:
        return ExitCode.UPDATE_AVAILABLE
    return ExitCode.DONE


def _update(run: _Run) -> int:
    waves = Waves.IGNORE if run.options.ignore_wave else Waves.OBEY
    stop = Stop.AFTER_STAGING if run.options.download_only else Stop.NEVER
    with _machine(run) as machine:
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


def _update_lines(run: _Run, machine: _Wired, result: Result) -> list[str]:
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


def _confirm(run: _Run) -> int:
    with _machine(run) as machine:
        image = update.confirm(machine.machine)
    if image is None:
        run.say("nothing is on trial: there is nothing to confirm")
    else:
        name = f"{image.version} (sequence {image.sequence})"
        run.say(f"confirmed: {name} is this device's release now")
    run.result({"confirmed": report.image_document(image)})
    return ExitCode.DONE


def _reject(run: _Run) -> int:
    with _machine(run) as machine:
        result = update.reject(machine.machine, machine.restart)
    if result.image is None:
        run.say("given up: the trial of which this device has no record; an update may follow")
    else:
        run.say(f"rejected: {result.image.version} is not tried again on this device")
    if result.outcome is Outcome.READY:
        run.say("next: restart the device")
    run.result({"rejected": report.image_document(result.image), "outcome": result.outcome.value})
    return ExitCode.DONE


def _status(run: _Run) -> int:
    config = _config(run)
    state = SqliteStore(config.trust.state).peek()
    if state is None:
        raise ActionRequiredError(
            f"this device has no trust state in {config.trust.state} yet",
            f"run `{run.program} init`",
        )
    installer = open_installer(config.install)
    running, pending = installer.running(), installer.boot_pending()
    install = observe_boot(state.install, running, pending=pending).state
    standing = report.Standing(
        product=config.repository.product,
        channel=config.repository.channel,
        state=state,
        install=install,
        running=running,
        pending=pending,
        now=_now(run, state),
        program=run.program,
        mirrors=config.repository.mirrors,
        recovery=config.repository.recovery,
        unknown=unknown_trial(install, installer.trial()),
    )
    run.say(*report.status_lines(standing))
    run.result(report.status_document(standing))
    return ExitCode.DONE


def _doctor(run: _Run) -> int:
    from client_reference import archive, doctor  # noqa: PLC0415 # rare, and it imports much

    config = _config(run)
    store = SqliteStore(config.trust.state)
    state = None
    with suppress(FirmrootError):
        state = store.peek()
    reading = _now(run, state) if state is not None else datetime.now(UTC)
    shelf = doctor.duration(run.options.shelf) if run.options.shelf else timedelta()
    supposed = doctor.moment(run.options.clock) if run.options.clock else reading
    patient = doctor.Patient(
        config=config,
        store=store,
        settings=lambda: _transport(run, config),
        ambient=run.ambient,
        identified=lambda: _identified(config),
        now=supposed + shelf,
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


@frozen
class _Wired:
    """A machine with its parts that only the command line looks at."""

    run: _Run
    machine: Machine
    fetcher: HttpFetcher
    bar: _Bar
    restart: Restart

    @property
    def probe(self) -> Probe | None:
        """What came of asking the recovery anchor; None if it was not asked."""
        return self.machine.anchor.probe if self.machine.anchor else None

    def warn(self, checked: Checked) -> None:
        """What was not as it should be on the way."""
        if checked.boot is Boot.ROLLED_BACK:
            self.run.warn("the release on trial did not come up; this is the one before it again")
        elif checked.boot is Boot.ABANDONED:
            self.run.warn("a slot that was not verified was booted by somebody; it is not used")
        if checked.notice:
            self.run.warn(checked.notice)
        if (missing := checked.updater.missing_root) is not None:
            self.run.warn(
                f"root {missing} is announced and no mirror has it, the newest here is "
                f"{checked.updater.root.version}; the publisher must look: firmroot verify"
            )
        if checked.updater.freshness is Freshness.UNPROVEN:
            self.run.warn(
                f"freshness unproven: this device's clock says {format_time(self.machine.now)}, "
                "signed evidence is later: set the clock if it is behind; if it is right, the "
                "publisher's evidence is wrong, and new timestamp keys take it back"
            )


@contextmanager
def _machine(run: _Run) -> Iterator[_Wired]:
    """Everything for one cycle, the store locked."""
    config = _config(run)
    with ExitStack() as stack:
        store = stack.enter_context(SqliteStore(config.trust.state))
        state = _state(run, config, store)
        memory = Memory(config.download.directory / MEMORY, state.trust.timestamp)
        transport = _transport(run, config)
        fetcher = stack.enter_context(HttpFetcher(transport, run.ambient, memory))
        # Whatever comes of it: what was met on the way is said, what worked is remembered.
        stack.callback(fetcher.remember)
        stack.callback(_warn_transport, run, fetcher)
        uptime = Uptime(config.trust.state / UPTIME)
        stack.callback(_note_floor, store, uptime, state.trust.time_floor)
        mirrors = TargetCache(fetcher, config.download.directory / "targets")
        anchor = None
        if config.repository.recovery and state.trust.recovery_root is not None:
            urls = _recovery_urls(config, transport, (fetcher, run.ambient), stack)
            anchor = _anchor(run, config, store, mirrors, urls)
        bar = _Bar(shown=sys.stderr.isatty() and not run.options.json)
        stack.callback(bar.finish)
        machine = Machine(
            identified=_identified(config),
            store=store,
            mirrors=mirrors,
            installer=open_installer(config.install),
            now=_now(run, state),
            largest=config.download.quota if config.install.handler == "command" else sys.maxsize,
            progress=bar.show,
            bundle=BundleFile(config.trust.state / BUNDLE),
            lead=uptime.lead(),
            anchor=anchor,
        )
        stays = config.reboot is Reboot.ASK or getattr(run.options, "no_reboot", False)
        try:
            yield _Wired(run, machine, fetcher, bar, Restart.LATER if stays else Restart.NOW)
        except BadSignatureError:
            # A library too old for a key type looks like an attack; say which it is.
            check_key_types()
            raise


def _note_floor(store: SqliteStore, uptime: Uptime, before: int) -> None:
    """A floor that rose or fell in this cycle begins its lead now."""
    with suppress(FirmrootError):
        state = store.load()
        if state is not None and state.trust.time_floor != before:
            uptime.keep(state.trust.time_floor)


def _warn_transport(run: _Run, fetcher: HttpFetcher) -> None:
    # A mirror that is configured without TLS is named by `init` and `status`, not each time.
    for sentence in fetcher.fallen.values():
        run.warn(f"degraded transport: {sentence}; what is trusted rests on signatures")
    for sentence in fetcher.forbidden.values():
        run.warn(sentence)


_AMBIENT = Ambient(time.monotonic, time.sleep, random.random)


def _recovery_urls(
    config: DeviceConfig,
    transport: Settings,
    books: tuple[HttpFetcher, Ambient],
    stack: ExitStack,
) -> Mapping[str, HttpFetcher]:
    """A fetcher for each recovery URL, that keeps its books with the primary's.

    What identifies or authorises this device is for the primary's mirrors only: it is left out.
    """
    fetcher, ambient = books
    fetchers = {}
    for url in config.repository.recovery:
        settings = replace(transport, mirrors=(url,), credentials=None, certificate=None)
        one = stack.enter_context(HttpFetcher(settings, ambient))
        one.traffic, one.degraded, one.fallen = fetcher.traffic, fetcher.degraded, fetcher.fallen
        fetchers[url.url] = one
    return fetchers


def _anchor(
    run: _Run,
    config: DeviceConfig,
    store: SqliteStore,
    mirrors: TargetCache,
    urls: Mapping[str, HttpFetcher],
) -> RecoveryAnchor:
    """The recovery anchor of a device that has one, asked about daily besides its occasions."""
    from client_reference.trust.anchor import RecoveryAnchor  # noqa: PLC0415 # only devices that have one

    due = random.SystemRandom().random() * _DAY < config.check_every
    return RecoveryAnchor(store, urls, mirrors, config.repository.product, due=due, tell=run.warn)


def _config(run: _Run) -> DeviceConfig:
    config = configuration.load(Path(run.options.config or DEFAULT_PATH))
    for warning in config.warnings:
        run.warn(warning)
    return config


def _state(run: _Run, config: DeviceConfig, store: SqliteStore) -> DeviceState:
    """What is stored. Without it the device begins with what its image carries, and says so.

    A device is alone: that its state was never made, or was lost or deleted, must not end updates.
    """
    try:
        state = store.load()
        lost = f"there is no trust state in {config.trust.state}"
    except StoreLostError as error:
        state, lost = None, error.message
    if state is None:
        state = _factory_state(config, config.trust.factory)
        store.commit(state)
        run.warn(f"{lost}; started from the factory root and its floors")
    elif config.repository.recovery and state.trust.recovery_root is None:
        state = _with_anchor(config, store, state)
    return state


def _with_anchor(config: DeviceConfig, store: SqliteStore, state: DeviceState) -> DeviceState:
    """A device that was made without a recovery anchor, and runs an image that carries one.

    It takes the anchor from an image of its own chain only, so of its epoch. Whatever is wrong with
    that image stops nothing: the stored state needs none.
    """
    if not (config.trust.factory / "recovery-root.json").exists():
        return state
    try:
        factory = _factory_state(config, config.trust.factory)
    except FirmrootError:
        return state
    if not _descends(state, factory, store):
        return state
    trust = replace(
        state.trust,
        recovery_root=factory.trust.recovery_root,
        recovery_version=factory.trust.recovery_version,
    )
    store.commit(state.with_trust(trust))
    return state.with_trust(trust)


def _identified(config: DeviceConfig) -> Identified:
    return Identified(
        product=config.repository.product,
        channel=config.repository.channel,
        hardware=identity.hardware(config.identity.hardware),
        handler=config.install.handler,
        device_id=identity.device_id(config.identity.device_id),
        groups=config.identity.groups,
    )


def _transport(run: _Run, config: DeviceConfig) -> Settings:
    bundles = (config.trust.state / BUNDLE, config.trust.factory / BUNDLE)
    bundle = next((path for path in bundles if path.exists()), None)
    if config.tls.roots is TlsRoots.SYSTEM:
        bundle = None
    elif config.tls.roots is TlsRoots.PRIVATE and bundle is None:
        raise ConfigurationError(
            f'tls.roots = "private", but there is neither {bundles[0]} nor {bundles[1]}',
            'put the CA bundle there, or set tls.roots = "system"',
        )
    credentials = config.repository.credentials
    certificate = config.repository.client_certificate
    return Settings(
        mirrors=config.repository.mirrors,
        degraded=config.tls.degraded,
        roots=Roots(system=config.tls.roots is not TlsRoots.PRIVATE, bundle=bundle),
        credentials=None if credentials is None else _credentials(credentials),
        certificate=None
        if certificate is None
        else Certificate(certificate, config.repository.client_key),
        proxy=_proxy(run, config),
        minimum_rate=config.download.minimum_rate,
    )


def _proxy(run: _Run, config: DeviceConfig) -> Callable[[Mirror], ProxyServer | None]:
    """What each mirror is asked through."""
    choice = config.tls.proxy
    if not isinstance(choice, Proxy):
        return lambda _: choice
    if choice is Proxy.NONE or not any(run.environment.get(name) for name in PROXIES):
        return lambda _: None
    from client_reference.transport.proxy import environment_proxy  # noqa: PLC0415 # rare

    return lambda mirror: environment_proxy(run.environment, mirror)


def _credentials(path: Path) -> tuple[str, str]:
    """The header in a file, as `Authorization: Bearer …`. Its value is never shown."""
    try:
        with path.open(encoding="latin-1") as file:
            text = file.read(_MAX_HEADER).strip()
    except OSError as error:
        raise ConfigurationError(
            f"repository.credentials: {path} cannot be read ({error.strerror})"
        ) from error
    name, colon, value = text.partition(":")
    if not colon or not name.isascii() or not name.replace("-", "").isalnum() or "\n" in text:
        raise ConfigurationError(
            f"repository.credentials: {path} does not hold one header of the form NAME: VALUE"
        )
    return name, value.strip()


def _now(run: _Run, state: DeviceState) -> datetime:
    """The only reading of the clock. In a LAB the environment may set it."""
    injected = run.environment.get(LAB_NOW)
    if injected is None:
        return datetime.now(UTC)
    if not _lab(state):
        raise ConfigurationError(
            f"{LAB_NOW} is set, but the root of this device is not marked LAB",
            f"unset {LAB_NOW}; only a LAB repository may set the time",
        )
    found = parse_time(injected)
    if found is None:
        raise ConfigurationError(
            f"{LAB_NOW} is {injected!r}, expected such as 2032-01-01T00:00:00Z"
        )
    return found


def _lab(state: DeviceState) -> bool:
    return report.is_lab(state.trust.root)


class _Bar:
    """A progress bar on a terminal, redrawn when the percentage changes."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._drawn = -1

    def show(self, done: int, whole: int) -> None:
        """Draw."""
        percent = done * 100 // whole
        if not self._shown or percent == self._drawn:
            return
        self._drawn = percent
        full = "#" * (percent * _BAR // 100)
        sys.stderr.write(f"\r[{full:<{_BAR}}] {percent:3} %  of {report.size(whole)}")
        sys.stderr.flush()

    def finish(self) -> None:
        """Leave the line, if there is one."""
        if self._drawn >= 0:
            sys.stderr.write("\n")
        self._drawn = -1


@frozen
class _Failure:
    message: str
    hint: str
    code: ExitCode


def _failure(error: BaseException) -> _Failure:
    """What an error means to the user; the table of all that may escape a command."""
    match error:
        case FirmrootError():
            return _Failure(error.message, error.hint, error.exit_code)
        case KeyboardInterrupt():
            return _Failure(
                "interrupted; what was done so far is kept",
                "run the same command again to go on",
                ExitCode.INTERRUPTED,
            )
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return _Failure(
                f"the disk is full: {error}",
                "free some space, then run the same command again",
                ExitCode.RETRY_LATER,
            )
        case OSError():
            return _Failure(str(error), "check the path and its permissions", ExitCode.USAGE)
        case _:
            return _Failure(
                f"this is a bug in firmroot: {type(error).__name__}: {error}",
                "run it with -v and report the traceback",
                ExitCode.BUG,
            )


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
    try:
        options = _parser().parse_args(arguments)
        return int(options.call(_Run(options, environment, ambient)))
    except BrokenPipeError:
        # Whoever read standard output has gone; nothing is left to say, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 # this is the error boundary
        failure = _failure(error)
        if {"-v", "--verbose"}.intersection(arguments):
            import traceback  # noqa: PLC0415 # only for those who ask

            traceback.print_exc()
    if "--json" in arguments:
        document = {"error": failure.message, "hint": failure.hint, "exit_code": failure.code}
        print(json.dumps(document, indent=1, sort_keys=True), file=sys.stderr)  # noqa: T201 # likewise
    else:
        _tell("error", failure.message)
        if failure.hint:
            _tell("hint", failure.hint)
    return failure.code


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def run() -> NoReturn:
    """Entry point of `firmroot-device`. A service manager's SIGTERM counts as Ctrl-C."""
    # What is loaded lives as long as the process: to search it for garbage, in the run and once
    # more at exit, was a sixth of the CPU of a check that finds nothing new.
    gc.freeze()
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(main(sys.argv[1:], os.environ))
