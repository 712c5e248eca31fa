"""`doctor`: what could keep this device from updating, now or after years on a shelf.

Each examination is a function that yields findings, and what stops it is one more. Nothing is
changed: the trust store is read, never repaired. It asks each mirror and each recovery URL on its
own, so that a healthy second one does not hide a sick first one. What the next check would find is
asked of the very code of `check`, on a copy of the state in memory. A device without a state is
examined with the one that it would begin with.

Not for machines: `check` and `status` decide and tell; this explains.
"""

from __future__ import annotations

import enum
import os
import re
import shutil
import stat
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from client_reference import factory as factories
from client_reference import report, update
from client_reference.config import Reboot
from client_reference.durable import free_bytes
from client_reference.errors import (
    ActionRequiredError,
    ConfigurationError,
    ExitCode,
    FirmrootError,
    NotFoundError,
)
from client_reference.install.bootloader import BOOT_RECORD
from client_reference.install.handlers import open_installer
from client_reference.lifecycle import observe_boot, unknown_trial
from client_reference.selection import Reason, Selection, Waves
from client_reference.strictjson import format_time
from client_reference.transport.connect import Connector
from client_reference.transport.fetch import HttpFetcher, Roots
from client_reference.transport.pace import Pace
from client_reference.transport.policy import Degraded
from client_reference.trust import clock, recovery
from client_reference.trust.anchor import walk_from
from client_reference.trust.asked import PLACE, read_asked
from client_reference.trust.clock import Freshness
from client_reference.trust.selftest import MINIMUM_VERSIONS, check_key_types, installed_version
from client_reference.trust.state import InstallState, Phase
from client_reference.trust.store import StoreLostError
from client_reference.trust.updater import initial_state
from client_reference.values import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from client_reference.config import DeviceConfig
    from client_reference.install.handlers import InstallSettings
    from client_reference.selection import Skip, Verdict
    from client_reference.strictjson import Json
    from client_reference.transport.fetch import Ambient, Settings
    from client_reference.transport.policy import Mirror
    from client_reference.trust.recovery import Anchor, Walk
    from client_reference.trust.state import DeviceState
    from client_reference.trust.store import SqliteStore
    from client_reference.update import Checked, Identified, Machine

__all__ = ["Finding", "Patient", "Severity", "after", "duration", "examine", "exit_code", "moment"]

_DAYS = {"d": 1, "w": 7, "y": 365}
_DURATION = re.compile(r"([1-9][0-9]{0,4})([dwy])")
_MOMENT = re.compile(r"([0-9]{4})(?:-([0-9]{2})-([0-9]{2}))?")
_DEVICES = Path("/dev")
_MOST = 65_536
_LOW = 64 * 1024 * 1024
_STATE_FILES = ("a.db", "b.db", "lock")
_CHANGE = 64 * 1024
"""Bytes that a change of the trust store takes besides a second of its larger copy."""
_FOREIGN = frozenset({Reason.HARDWARE, Reason.HANDLER})
_FITTING = frozenset({None, Reason.WAVE, Reason.PAUSED})


class Severity(enum.Enum):
    """What a finding means."""

    FINE = "ok"
    WARNING = "warning"
    ERROR = "error"


@frozen
class Finding:
    """One line.

    Attributes:
        severity: whether somebody must act.
        subject: what was looked at.
        detail: what was found; with a problem, what to do about it.
        code: of the error, if it is one.
    """

    severity: Severity
    subject: str
    detail: str
    code: ExitCode = ExitCode.DONE

    def document(self) -> Json:
        """For scripts."""
        return {"severity": self.severity.value, "subject": self.subject, "detail": self.detail}


@frozen
class Patient:
    """The device, and what the examination supposes.

    Attributes:
        config: as it was read.
        store: not entered; it is only looked at.
        settings: of the transport, as an update would have them.
        ambient: see `transport.fetch`.
        identified: reads who the device is.
        begin: the state that a device without one begins with.
        machine: of a check on a copy of a state, and what such a check warns of.
        now: aware UTC; the reading that the examination supposes, shelf time included.
        supposed: whether that is another clock than this device has.
        shelf: how long the device lies on a shelf before it is asked.
    """

    config: DeviceConfig
    store: SqliteStore
    settings: Callable[[], Settings]
    ambient: Ambient
    identified: Callable[[], Identified]
    begin: Callable[[], DeviceState]
    machine: Callable[[DeviceState, Settings], AbstractContextManager[tuple[Machine, list[str]]]]
    now: datetime
    supposed: bool = False
    shelf: timedelta = timedelta()

    def stored(self) -> DeviceState:
        """What is stored.

        Raises:
            ActionRequiredError: nothing is.
            LocalFailureError: it cannot be read.
        """
        state = self.store.peek()
        if state is None:
            raise ActionRequiredError(
                f"there is no trust state in {self.config.trust.state} yet",
                "run `firmroot-device init`; what is said here is as it would then begin",
            )
        return state

    def state(self) -> DeviceState:
        """What is stored, or what the device begins with.

        Raises:
            ConfigurationError: a newer firmroot wrote it, or there is no factory export to begin
                with.
        """
        try:
            return self.stored()
        except (ActionRequiredError, StoreLostError):
            return self.begin()


def duration(text: str) -> timedelta:
    """How long a device lies on a shelf, as `5y`, `6w` or `90d`.

    Raises:
        ConfigurationError: it is none.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ConfigurationError(f"--shelf is {text!r}, expected such as 5y, 6w or 90d")
    return timedelta(days=int(match[1]) * _DAYS[match[2]])


def moment(text: str) -> datetime:
    """What a clock may say, as `1970` or `2040-01-31`.

    Raises:
        ConfigurationError: it is none.
    """
    match = _MOMENT.fullmatch(text)
    try:
        if match is not None:
            year, month, day = (int(part or 1) for part in match.groups())
            return datetime(year, month, day, tzinfo=UTC)
    except ValueError:
        pass
    raise ConfigurationError(f"--clock is {text!r}, expected such as 1970 or 2040-01-31")


def after(reading: datetime, text: str) -> datetime:
    """What a clock says that goes on while the device lies on a shelf.

    Args:
        reading: when it is laid there.
        text: how long, see `duration`.

    Raises:
        ConfigurationError: it is no duration, or no date is so far away.
    """
    shelf = duration(text)
    most = datetime.max.replace(tzinfo=UTC) - reading
    if shelf > most:
        raise ConfigurationError(
            f"--shelf is {text!r}, expected at most {most.days // 365}y: no date is after 9999"
        )
    return reading + shelf


def examine(patient: Patient) -> tuple[Finding, ...]:
    """Every finding, in the order in which an update would meet the problem.

    What several examinations fail of is said once: a store that is not there ends four of them.
    """
    said: set[str] = set()
    return tuple(finding for rule in _RULES for finding in _guarded(rule, patient, said))


def exit_code(findings: Sequence[Finding]) -> ExitCode:
    """That of the first error; done if there is none."""
    return next((f.code for f in findings if f.severity is Severity.ERROR), ExitCode.DONE)


def _guarded(
    rule: Callable[[Patient], Iterator[Finding]], patient: Patient, said: set[str]
) -> Iterator[Finding]:
    subject = rule.__name__.strip("_").replace("_", " ")
    try:
        yield from rule(patient)
    except FirmrootError as error:
        if error.message in said:
            return
        said.add(error.message)
        hint = f": {error.hint}" if error.hint else ""
        yield Finding(Severity.ERROR, subject, f"{error.message}{hint}", error.exit_code)
    except OSError as error:
        yield Finding(Severity.ERROR, subject, str(error), ExitCode.USAGE)


def _configuration(patient: Patient) -> Iterator[Finding]:
    config = patient.config
    for warning in config.warnings:
        yield Finding(Severity.WARNING, "configuration", warning)
    followed = f"{config.repository.product}/{config.repository.channel}"
    yield Finding(Severity.FINE, "configuration", f"{config.path}: follows {followed}")


def _identity(patient: Patient) -> Iterator[Finding]:
    """Who the device is, from where the configuration says."""
    found = patient.identified()
    text = f"{found.device_id}, {' '.join(found.hardware)}"
    yield Finding(Severity.FINE, "identity", text)


def _signatures(patient: Patient) -> Iterator[Finding]:
    """Known answers: a library too old makes a good signature look like an attack."""
    del patient
    check_key_types()
    libraries = ", ".join(f"{name} {installed_version(name)}" for name in MINIMUM_VERSIONS)
    yield Finding(Severity.FINE, "signatures", f"all key types verify here ({libraries})")


def _factory(patient: Patient) -> Iterator[Finding]:
    """What the device begins with again should it lose its store."""
    directory = patient.config.trust.factory
    export = factories.load(directory)
    if export.product != patient.config.repository.product:
        raise ConfigurationError(
            f"{directory} is the export of {export.product!r}, the configuration says "
            f"{patient.config.repository.product!r}",
            "correct repository.product, or put the right export there",
        )
    factories.require_roots(directory, export)
    state = initial_state(export.root, export.floors, export.recovery_root)
    yield Finding(Severity.FINE, "factory", f"{directory}: root {state.trust.root_version}")
    if report.is_lab(export.root):
        text = "LAB: the keys of this root protect nothing; never for devices in the field"
        yield Finding(Severity.WARNING, "factory", text)


def _store(patient: Patient) -> Iterator[Finding]:
    """Where it lies, both copies, the chain and what was accepted."""
    yield from _takes_changes(patient.config.trust.state)
    state = patient.stored()
    for name, problem in patient.store.copies().items():
        if problem:
            text = f"copy {name} is not whole ({problem}); the next command restores it"
            yield Finding(Severity.WARNING, "store", text)
    chain = patient.store.peek_chain()
    update.verify_chain(chain, state.trust.root_version)
    where = patient.config.trust.state
    text = f"{where}: root {state.trust.root_version}, {len(chain)} links verified"
    yield Finding(Severity.FINE, "store", text)


def _takes_changes(directory: Path) -> Iterator[Finding]:
    """Whether this user can write the trust store, or make it; nothing is tried out."""
    place = _nearest(directory)
    volume = os.statvfs(place)
    # Who may not enter the directory may not even ask what is in it.
    entered = os.access(place, os.R_OK | os.W_OK | os.X_OK)
    names = _STATE_FILES if entered else ()
    there = [path for name in names if (path := directory / name).exists()]
    free = volume.f_bavail * volume.f_frsize
    least = _CHANGE + max((path.stat().st_size for path in there), default=0)
    locked = [] if entered else [place]
    locked += [each for each in there if not os.access(each, os.R_OK | os.W_OK)]
    if not place.is_dir():
        text = f"{place} is no directory: correct trust.state, or remove it"
    elif volume.f_flag & os.ST_RDONLY:
        text = f"{place} is on a file system that is mounted read-only: mount it writable, or "
        text += "correct trust.state"
    elif locked:
        text = f"{locked[0]} cannot be written by user {os.geteuid()}: run this as its owner, or "
        text += "give it to this user"
    elif free < least:
        text = f"{place} is on a full file system: {report.size(free)} free, a change takes "
        text += f"{report.size(least)}; free some space there"
    elif volume.f_files and not volume.f_favail:
        text = f"{place} is on a file system without a free inode: remove some files there"
    else:
        return
    yield Finding(Severity.ERROR, "store", text, ExitCode.REFUSED)


def _clock(patient: Patient) -> Iterator[Finding]:
    state = patient.state()
    floor, expires = state.trust.time_floor, report.timestamp_expires(state)
    proven = format_time(datetime.fromtimestamp(floor, UTC))
    said = f"this device's clock says {format_time(patient.now)}, evidence proves {proven}"
    if clock.freshness(patient.now, floor) is Freshness.UNPROVEN:
        text = (
            f"{said}: updates go on, freshness unproven; set the clock if it is behind, else the "
            "evidence is wrong"
        )
        yield Finding(Severity.WARNING, "clock", text)
    elif expires is not None and clock.ended(patient.now, expires) and not patient.shelf:
        # After years on a shelf that is as it should be.
        yield Finding(Severity.WARNING, "clock", f"{said}; {report.outlived(expires)}")
    else:
        yield Finding(Severity.FINE, "clock", said)


def _installer(patient: Patient) -> Iterator[Finding]:
    settings = patient.config.install
    installer = open_installer(settings)
    running = installer.running()
    for name, path in settings.slots.items():
        here = _nearest(path)
        if here != path and _DEVICES in path.parents:
            text = f"{name} is {path}, expected a block device: there is none"
            yield Finding(Severity.ERROR, "slots", text, ExitCode.REFUSED)
        elif not os.access(here, os.W_OK):
            text = f"{name} is {path}, and {here} cannot be written"
            yield Finding(Severity.ERROR, "slots", text, ExitCode.REFUSED)
    if (record := _volatile_record(settings)) is not None:
        text = f"the boot record is {record}, which a restart loses: then every command waits for "
        text += "somebody to say which slot runs; name the slots by links in a directory that "
        text += "survives restarts"
        yield Finding(Severity.WARNING, "slots", text)
    if settings.handler == "command":
        yield from _programs(settings)
        if patient.config.reboot is Reboot.AUTOMATIC and not settings.reboot:
            text = "nothing here may restart the device into a new release: set [install.command] "
            text += 'reboot, or [install] reboot = "ask" if somebody else does it'
            yield Finding(Severity.WARNING, "installer", text)
    where = f", slot {running} runs" if running else ""
    yield Finding(Severity.FINE, "installer", f"handler {settings.handler}{where}")
    install = patient.state().install
    observed = observe_boot(install, running, pending=installer.boot_pending()).state
    if unknown := unknown_trial(observed, installer.trial()):
        text = f"slot {unknown} is on trial, and this device has no record of what is in it: "
        text += "run `firmroot-device reject`"
        yield Finding(Severity.ERROR, "installer", text, ExitCode.REFUSED)
    yield from _candidate(observed)


def _volatile_record(settings: InstallSettings) -> Path | None:
    """The boot record, if it is where the kernel makes all files anew at each boot."""
    if settings.handler != "slot":
        return None
    directory = next(iter(settings.slots.values())).parent
    return directory / BOOT_RECORD if _DEVICES in (directory, *directory.parents) else None


def _programs(settings: InstallSettings) -> Iterator[Finding]:
    """The programs of `[install.command]`: one that is missing is met after the download."""
    vectors = {
        "run": settings.run,
        "confirm": settings.confirm,
        "reject": settings.reject,
        "reboot": settings.reboot,
    }
    for name, vector in vectors.items():
        if not vector or shutil.which(vector[0]) is not None:
            continue
        program = vector[0]
        here = "/" in program and Path(program).exists()
        text = f"{program} is not executable" if here else f"there is no program {program}"
        text = f"{name}: {text}: install it, or correct [install.command] in device.toml"
        yield Finding(Severity.ERROR, "installer", text, ExitCode.USAGE)


def _candidate(install: InstallState) -> Iterator[Finding]:
    if install.candidate is None:
        return
    name = f"release {install.candidate.version}"
    if install.phase is Phase.TRIAL:
        text = f"{name} is on trial: nothing new starts until it is confirmed or rejected"
        yield Finding(Severity.WARNING, "installer", text)
    else:
        text = f"{name} is {install.phase.value}: the next update goes on with it"
        yield Finding(Severity.FINE, "installer", text)


def _nearest(path: Path) -> Path:
    """The path, or the nearest directory above it that is there."""
    return next(place for place in (path, *path.parents) if place.exists())


def _space(patient: Patient) -> Iterator[Finding]:
    config = patient.config
    needed = {config.trust.state: _LOW, config.download.directory: config.download.quota}
    if config.install.handler == "slot":
        needed[config.download.directory] = _LOW  # images go into the slots
    for directory, least in needed.items():
        volume = os.statvfs(_nearest(directory))
        free = volume.f_bavail * volume.f_frsize
        text = f"{directory}: {report.size(free)} free"
        if free < least:
            text += f", expected {report.size(least)} at least"
            yield Finding(Severity.WARNING, "space", text)
        else:
            yield Finding(Severity.FINE, "space", text)


def _certificates(patient: Patient) -> Iterator[Finding]:
    """The private CA bundle, when the device is asked."""
    bundle = patient.settings().roots.bundle
    if bundle is None:
        return
    spans = _spans(bundle.read_bytes())
    if not spans:
        text = f"{bundle} holds no certificate: verified TLS fails, trust does not rest on it"
        yield Finding(Severity.WARNING, "certificates", text)
        return
    valid = sum(first <= patient.now < end for first, end in spans)
    last = format_time(max(end for _, end in spans))
    then = f"valid at {format_time(patient.now)}" if patient.supposed else "still valid"
    text = f"{bundle}: {valid} of {len(spans)} {then}, the last until {last}"
    fine = valid == len(spans)
    yield Finding(Severity.FINE if fine else Severity.WARNING, "certificates", text)
    if not valid:
        yield _without_tls(patient, "no certificate of the private bundle is valid then")


def _spans(data: bytes) -> list[tuple[datetime, datetime]]:
    """From when and until when certificates are valid, PEM or one in DER; empty if it is none."""
    from cryptography import x509  # noqa: PLC0415 # rarely used

    with suppress(ValueError):
        pem = b"-----BEGIN" in data
        read = x509.load_pem_x509_certificates
        found = read(data) if pem else [x509.load_der_x509_certificate(data)]
        return [(each.not_valid_before_utc, each.not_valid_after_utc) for each in found]
    return []


def _without_tls(patient: Patient, why: str) -> Finding:
    config = patient.config
    if config.tls.degraded is Degraded.FORBID:
        text = f'{why}, and tls.degraded = "forbid": this device does not update any more'
        return Finding(Severity.ERROR, "transport", text, ExitCode.RETRY_LATER)
    kept = ", without credentials" if config.repository.credentials is not None else ""
    text = f"{why}: updates go on over degraded transport{kept}, trust rests on signatures"
    return Finding(Severity.WARNING, "transport", text)


def _mirrors(patient: Patient) -> Iterator[Finding]:
    """Each mirror alone. One that fails is a warning as long as another one works."""
    settings = patient.settings()
    found = [_ask(patient, settings, mirror) for mirror in settings.mirrors]
    alive = any(finding.severity is not Severity.ERROR for finding in found)
    for finding in found:
        sick = alive and finding.severity is Severity.ERROR
        yield replace(finding, severity=Severity.WARNING) if sick else finding
    if not alive:
        text = "no mirror answers: nothing can be checked"
        yield Finding(Severity.ERROR, "mirrors", text, ExitCode.RETRY_LATER)


def _ask(patient: Patient, settings: Settings, mirror: Mirror) -> Finding:
    alone, why = _then(patient, replace(settings, mirrors=(mirror,)), mirror)
    if why and settings.degraded is Degraded.FORBID:
        return replace(_without_tls(patient, why), subject=mirror.url)
    with HttpFetcher(alone, patient.ambient) as fetcher:
        try:
            data = fetcher.fetch(_timestamp(patient), _MOST)
        except NotFoundError:
            text = "answers, and has no repository: correct its URL, or publish there"
            return Finding(Severity.ERROR, mirror.url, text, ExitCode.RETRY_LATER)
        except FirmrootError as error:
            return Finding(Severity.ERROR, mirror.url, error.message, error.exit_code)
        if why:
            return replace(_without_tls(patient, why), subject=mirror.url)
        if fetcher.degraded:
            text = f"answers with {len(data)} bytes, {'; '.join(fetcher.degraded.values())}"
            return Finding(Severity.WARNING, mirror.url, text)
    return Finding(Severity.FINE, mirror.url, f"answers over verified TLS, {len(data)} bytes")


def _then(patient: Patient, settings: Settings, *mirrors: Mirror) -> tuple[Settings, str]:
    """How mirrors are asked with the clock that is supposed, and why their TLS fails then.

    Python's TLS reads the system's clock and no other. So the certificate that a mirror shows is
    held against the supposed clock here; where it would fail, no authority is believed, and the
    transport does what it does when verified TLS fails. Empty where TLS works.
    """
    secure = [mirror for mirror in mirrors if mirror.scheme == "https"]
    if not patient.supposed:
        return settings, ""
    why = {mirror: text for mirror in secure if (text := _outlives(patient, settings, mirror))}
    if not why:
        return settings, ""
    if len(why) == len(secure):
        return replace(settings, roots=Roots(system=False)), "; ".join(why.values())
    # They would be asked last, after those whose TLS works.
    return replace(settings, mirrors=tuple(one for one in mirrors if one not in why)), ""


def _outlives(patient: Patient, settings: Settings, mirror: Mirror) -> str:
    """Why the certificate of a mirror does not verify with the supposed clock; empty if it may."""
    ambient = patient.ambient
    patience = ambient.patience
    connector = Connector(
        ambient.monotonic, patience, ambient.resolve, settings.proxy, settings.roots, None
    )
    try:
        pace = Pace(ambient.monotonic, settings.minimum_rate, patience.grace)
        spans = _spans(connector.shown(mirror, pace))
    except FirmrootError:
        return ""  # the transport itself says what is wrong with it
    for first, end in spans:
        if not first <= patient.now < end:
            valid = f"from {format_time(first)} to {format_time(end)}"
            return f"its certificate is valid {valid}, the clock says {format_time(patient.now)}"
    return ""


def _timestamp(patient: Patient) -> str:
    """Where the epoch that the device is in has its timestamp."""
    epoch = 0
    with suppress(FirmrootError):
        epoch = patient.state().trust.epoch
    return f"metadata/e{epoch}/timestamp.json" if epoch else "metadata/timestamp.json"


def _recovery_anchor(patient: Patient) -> Iterator[Finding]:
    """Each recovery URL alone: whether it answers, and what it says of the epoch here.

    What cannot be asked stops no update, so it is no error; two primary roots for one epoch are.
    """
    urls, trust = patient.config.repository.recovery, patient.state().trust
    if trust.recovery_root is None:
        if urls:
            text = (
                "repository.recovery is set, and this device has no recovery root: it asks nobody"
            )
            yield Finding(Severity.WARNING, "recovery anchor", text)
        return
    if not urls:
        text = f"recovery root {trust.recovery_version} is trusted, and repository.recovery names "
        text += "no URL: if a threshold of root is lost or stolen, this device stays behind"
        yield Finding(Severity.WARNING, "recovery anchor", text)
        return
    trusted = recovery.stored_anchor(trust.recovery_root)
    settings = patient.settings()
    walks = []
    for mirror in urls:
        # As an update asks: what identifies or authorises this device is for its mirrors only.
        alone = replace(settings, mirrors=(mirror,), credentials=None, certificate=None)
        alone, _ = _then(patient, alone, mirror)
        finding, walk = _ask_anchor(patient, alone, mirror, trusted)
        if walk is not None:
            walks.append(walk)
        yield finding
    decision = recovery.decide(trusted, trust.epoch, walks)
    if isinstance(decision, recovery.Fork):
        text = f"{decision.error.message}: {decision.error.hint}"
        yield Finding(Severity.ERROR, "recovery anchor", text, ExitCode.NOT_TRUSTED)
    elif isinstance(decision, recovery.Reroot):
        text = f"epoch {decision.anchor.statement.epoch} has begun, this device is in epoch "
        text += f"{trust.epoch}: the next `firmroot-device update` follows"
        yield Finding(Severity.WARNING, "recovery anchor", text)
    elif not walks:
        text = "no recovery URL has it: updates go on, a re-rooting would not be heard"
        yield Finding(Severity.WARNING, "recovery anchor", text)
    noted = read_asked(patient.config.download.directory / PLACE).fork
    if noted and not isinstance(decision, recovery.Fork) and len(walks) < len(urls):
        text = f"when an update asked last, with more answers than now: {noted}"
        yield Finding(Severity.WARNING, "recovery anchor", text)


def _ask_anchor(
    patient: Patient, settings: Settings, mirror: Mirror, trusted: Anchor
) -> tuple[Finding, Walk | None]:
    """What one recovery URL is like, and shows; None if it does not even have the trusted link."""
    here = recovery.link_path(trusted.version)
    with HttpFetcher(settings, patient.ambient) as fetcher:
        try:
            same = fetcher.fetch(here, recovery.MAX_ROOT) == trusted.data
        except NotFoundError:
            text = f"answers, and has no {here}: correct its URL, or publish there"
            return Finding(Severity.WARNING, mirror.url, text), None
        except FirmrootError as error:
            return Finding(Severity.WARNING, mirror.url, error.message), None
        if not same:
            text = f"its {here} is not the one that this device trusts"
            return Finding(Severity.WARNING, mirror.url, text), None
        walk, failure = walk_from(trusted, fetcher)
        newest = walk.links[-1] if walk.links else trusted
        text = f"recovery root {newest.version}, epoch {newest.statement.epoch}"
        problems = [*([failure] if failure else []), *fetcher.degraded.values()]
    if problems:
        return Finding(Severity.WARNING, mirror.url, f"{text}; {'; '.join(problems)}"), walk
    return Finding(Severity.FINE, mirror.url, text), walk


def _next_check(patient: Patient) -> Iterator[Finding]:
    """What the next check would find: a check, on a copy of what is stored."""
    if patient.shelf:
        yield from _after_the_shelf(patient)
        return
    settings = patient.settings()
    settings, _ = _then(patient, settings, *settings.mirrors)
    with patient.machine(patient.state(), settings) as (machine, told):
        checked = update.check(machine)
        yield from (Finding(Severity.WARNING, "next check", text) for text in told)
        yield from _outcome(patient, machine, checked)
    if (missing := checked.updater.missing_root) is not None:
        text = f"root {missing} is announced, the mirrors have {checked.updater.root.version}"
        yield Finding(Severity.WARNING, "next check", text)


def _outcome(patient: Patient, machine: Machine, checked: Checked) -> Iterator[Finding]:
    decision = checked.decision
    if not isinstance(decision, Selection):
        yield _nothing(machine, checked, decision)
        return
    version, candidate = decision.release.version, checked.install.candidate
    if unknown := unknown_trial(checked.install, machine.installer.trial()):
        text = f"{version} waits: slot {unknown} is on trial, and nothing is stored about it"
        yield Finding(Severity.WARNING, "next check", text)
    elif checked.install.phase is Phase.TRIAL and candidate is not None:
        text = f"{version} waits: {candidate.version} is on trial until it is confirmed or rejected"
        yield Finding(Severity.WARNING, "next check", text)
    else:
        yield Finding(Severity.FINE, "next check", f"would install {version}")
    yield from _room(patient, version, decision.payload.artifact.length)


def _nothing(machine: Machine, checked: Checked, skip: Skip) -> Finding:
    """Nothing to install now; an error if there never will be anything for this device."""
    severity, text = Severity.FINE, skip.detail
    if skip.reason is Reason.NO_CHANNEL:
        ours = machine.identified
        delegations = checked.updater.targets.delegations
        roles = (delegations.roles or {}) if delegations else {}
        there = f"{ours.product}-{ours.channel}" in roles
        severity = Severity.WARNING if there else Severity.ERROR
    elif skip.reason is Reason.NOTHING_OFFERED:
        severity = Severity.WARNING
    elif (foreign := _foreign(machine, checked)) is not None:
        severity = Severity.ERROR
        what = "hardware" if foreign.reason is Reason.HARDWARE else "handler"
        text = f"no release of the channel has a payload for this {what} ({foreign.version}: "
        text += f"{foreign.detail}): correct identity.hardware or install.handler in "
        text += "device.toml, or ask the publisher"
    code = ExitCode.USAGE if severity is Severity.ERROR else ExitCode.DONE
    return Finding(severity, "next check", text, code)


def _foreign(machine: Machine, checked: Checked) -> Verdict | None:
    """A release that is not for this device, if even one that has nothing yet finds no other."""
    position = machine.identified.position(InstallState())
    verdicts = update.evaluate(checked.updater, position, Waves.OBEY).verdicts
    if any(verdict.reason in _FITTING for verdict in verdicts):
        return None
    return next((verdict for verdict in verdicts if verdict.reason in _FOREIGN), None)


def _room(patient: Patient, version: str, length: int) -> Iterator[Finding]:
    """Where the next release goes, and whether it fits; the slot that runs is written after it."""
    settings = patient.config.install
    needs = f"release {version} has {length} bytes"
    running = open_installer(settings).running()
    for name, path in settings.slots.items():
        here = _nearest(path)
        if here != path and _DEVICES in path.parents:
            continue  # `installer` says it
        room = _bytes_for(path, here)
        text = f"{needs}, slot {name} has room for {room}"
        if length <= room:
            yield Finding(Severity.FINE, "slots", text)
        elif name == running:
            text += ": it is written with the release after that; free some space there"
            yield Finding(Severity.WARNING, "slots", text)
        else:
            text += ": free some space there, or ask for a smaller image"
            yield Finding(Severity.ERROR, "slots", text, ExitCode.REFUSED)
    if settings.handler == "command" and length > (quota := patient.config.download.quota):
        text = f"{needs}, download.quota allows {quota}: raise it in device.toml"
        yield Finding(Severity.ERROR, "space", text, ExitCode.REFUSED)


def _bytes_for(path: Path, here: Path) -> int:
    """How long an image a slot may hold: a file grows, a block device does not."""
    descriptor = os.open(here, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if here != path:
            return free_bytes(descriptor)
        size = os.lseek(descriptor, 0, os.SEEK_END)
        return size + free_bytes(descriptor) if stat.S_ISREG(os.fstat(descriptor).st_mode) else size
    finally:
        os.close(descriptor)


def _after_the_shelf(patient: Patient) -> Iterator[Finding]:
    """What will have ended by then, and that a device gets over it."""
    state = patient.state()
    expired = report.expired(state, patient.now)
    years = patient.shelf.days / 365
    if "root" in expired:
        text = f"after {years:.1f} years root {state.trust.root_version} has expired: the device "
        yield Finding(Severity.FINE, "root", text + "walks from it to the newest, expired or not")
    others = ", ".join(name for name in expired if name != "root")
    if others:
        text = f"{others} have expired: the first check fetches newer ones, as long as somebody "
        yield Finding(Severity.FINE, "metadata", text + "publishes them")


_RULES: Sequence[Callable[[Patient], Iterator[Finding]]] = (
    _configuration,
    _identity,
    _signatures,
    _factory,
    _store,
    _clock,
    _installer,
    _space,
    _certificates,
    _mirrors,
    _recovery_anchor,
    _next_check,
)
