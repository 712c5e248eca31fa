"""One update of one device, as a sequence of calls; everything it needs is passed in.

    observe the boot -> refresh -> sequence reset -> manifest, hold -> select -> builds role agrees
    -> WRITING -> slot unbootable -> verified segments -> read back -> STAGED
    -> boot loader armed -> TRIAL -> reboot -> (new system) confirm

Each step is durable before the next begins, and each may be repeated: a power cut anywhere is
healed by running the same command again.

Guards: the configuration names product and channel, and those fix the roles that are asked: a
manifest comes from `P-CHANNEL` only, a hold from `P-CHANNEL-hold`, an artifact from `P-builds`,
never from a search (shadowing). The builds role must mean by an artifact what the manifest means
by it (meaning). An artifact longer than a segment must have its list of segments (segments).

The recovery anchor, where a device has one, is asked on the occasions of `trust.anchor`; when it
re-roots the device, the check begins again under the new epoch, in the same command.

`evaluate` is the whole decision without a device; the release side rehearses every publish with it.
"""

from __future__ import annotations

import enum
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, TypeVar

from tuf.api.metadata import Snapshot, TargetFile, Targets, Timestamp

from client_reference import lifecycle
from client_reference.errors import (
    ActionRequiredError,
    FirmrootError,
    ImageGoneError,
    LocalFailureError,
    NotFoundError,
    NotTrustedError,
    RefusedError,
    RetryLaterError,
)
from client_reference.manifest import (
    MAX_HOLD,
    MAX_MANIFEST,
    Hold,
    parse,
    parse_hold,
    parse_meaning,
    segments_digest,
)
from client_reference.payload.download import Download, whole_segments
from client_reference.payload.segments import (
    LONGEST,
    SUFFIX,
    has_segments,
    list_length,
    parse_segments,
)
from client_reference.selection import DevicePosition, Reason, Selection, Skip, Waves, select
from client_reference.transport.fetcher import Fetcher
from client_reference.trust import clock, verified
from client_reference.trust.state import Image, Phase
from client_reference.trust.updater import EpochEndedError, Updater, lacking
from client_reference.values import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from client_reference.install.handlers import Installer
    from client_reference.lifecycle import Boot, Observation
    from client_reference.manifest import Manifest
    from client_reference.payload.segments import Segments
    from client_reference.transport.bundle import BundleFile
    from client_reference.trust.anchor import RecoveryAnchor
    from client_reference.trust.state import DeviceState, InstallState, Store, TrustState

__all__ = [
    "Agreed",
    "Checked",
    "DisagreementError",
    "Identified",
    "Machine",
    "Mirrors",
    "Outcome",
    "Restart",
    "Result",
    "Stop",
    "UnknownTrialError",
    "agreed_target",
    "anchored",
    "before_root",
    "check",
    "confirm",
    "evaluate",
    "refreshed",
    "reject",
    "update",
    "verify_chain",
]

TLS_ROLE = "device-tls"
TLS_BUNDLE = "trust/ca-bundle.pem"
MAX_BUNDLE = 1_048_576
RESET = "x-firmroot-sequence-reset"  # as `trust.reset`, which a check without one does not load
_STOPPED = frozenset({Reason.HELD, Reason.WITHDRAWN})
_ASK = "only what builder and release managers agree on is installed; ask the publisher"

T = TypeVar("T")
E = TypeVar("E", bound=FirmrootError)


class DisagreementError(NotTrustedError):
    """Two roles that must agree do not: an artifact, or what it is for (Guard: meaning)."""


class UnknownTrialError(RefusedError):
    """The boot loader tries a slot of which the trust state knows nothing; nothing changed."""


class Mirrors(Fetcher, Protocol):
    """A fetcher that can turn away from a mirror whose bytes did not verify."""

    def another_way(self, why: str = "") -> bool:
        """Ask that mirror once more past its caches, then others; whether a way is left.

        Args:
            why: what was wrong with what it sent.
        """

    def every_mirror(self) -> None:
        """Take back those that were given up."""


class Restart(enum.Enum):
    """Who restarts the device into a release that is ready."""

    NOW = "now"
    LATER = "later"


class Stop(enum.Enum):
    """How far an update goes."""

    AFTER_STAGING = "after staging"
    NEVER = "never"


class Outcome(enum.Enum):
    """What an update came to; the values are part of `--json`."""

    NOTHING = "nothing"
    STAGED = "staged"
    READY = "ready"
    REBOOTING = "rebooting"


@frozen
class Identified:
    """Who the device is, and what its owner rejected, for `DevicePosition`. See there."""

    product: str
    channel: str
    hardware: tuple[str, ...]
    handler: str
    device_id: str
    groups: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()

    def position(self, install: InstallState, epoch: int = 0) -> DevicePosition:
        """Where this device stands with what it has installed, in an epoch of the anchor."""
        current = install.current
        doubted = ""
        if current is not None and (current.epoch, current.reset) != (epoch, install.reset):
            doubted = current.sha256
        return DevicePosition(
            product=self.product,
            channel=self.channel,
            hardware=self.hardware,
            handler=self.handler,
            device_id=self.device_id,
            groups=self.groups,
            installed_sequence=current.sequence if current else None,
            confirmed_sequence=install.confirmed_sequence,
            rejected=install.rejected,
            refused=self.refused,
            doubted=doubted,
        )


@frozen
class Machine:
    """The device and its surroundings during one cycle.

    Attributes:
        identified: who it is.
        store: entered and initialised.
        mirrors: untrusted bytes.
        installer: where images go.
        now: aware UTC reading of the system clock, read once.
        largest: bytes of the largest artifact that may be kept.
        progress: called with (bytes in place, bytes of the whole).
        lead: what this boot knows beyond the stored time floor.
        bundle: where a published CA bundle is kept; None if this device does not want one.
        renewed: called when a new bundle has taken the place of the old one.
        anchor: the recovery anchor; None if this device has none.
        refusing: called with the digest of a payload that somebody rejects, before it counts.
        recall: called with an image that is whole, has not run and may not start any more, and with
            the reason; whether it was taken back from where the device boots.
    """

    identified: Identified
    store: Store
    mirrors: Mirrors
    installer: Installer
    now: datetime
    largest: int
    progress: Callable[[int, int], None]
    bundle: BundleFile | None = None
    renewed: Callable[[], None] = lambda: None
    lead: clock.Lead | None = None
    anchor: RecoveryAnchor | None = None
    refusing: Callable[[str], None] = lambda _: None
    recall: Callable[[Image, str], bool] = lambda _, __: False


@frozen
class Checked:
    """What a check found.

    Attributes:
        decision: install this, or nothing and why.
        updater: refreshed; it knows versions and freshness.
        boot: what the last boot turned out to mean.
        install: the install state now.
        notice: what became of a new CA bundle; empty if there is none.
    """

    decision: Selection | Skip
    updater: Updater
    boot: Boot
    install: InstallState
    notice: str = ""


@frozen
class Result:
    """What an update came to. `image` is the one that is staged or ready, if any."""

    outcome: Outcome
    checked: Checked | None
    image: Image | None = None


@frozen
class Agreed:
    """An artifact that channel and builds role agree on, and its list of segments if it has one."""

    artifact: TargetFile
    segments: TargetFile | None


def refreshed(updater: Updater, store: Store, product: str) -> InstallState:
    """Refresh, and follow a sequence reset that `targets` has for this product.

    Returns:
        the install state, durable: what is decided next rests on it.

    Raises:
        NotTrustedError: something did not verify, or this product's reset is malformed.
        RetryLaterError: something could not be had.
        LocalFailureError: the store could not keep what was accepted.
    """
    updater.refresh()
    state = _load_from(store)
    if RESET not in updater.targets.unrecognized_fields:
        return state.install
    from client_reference.trust.reset import followed, read_reset  # noqa: PLC0415 # rare

    install = followed(state.install, read_reset(updater.targets, product))
    if install is not state.install:
        store.commit(state.with_install(install))
    return install


def evaluate(
    updater: Updater, device: DevicePosition, waves: Waves = Waves.OBEY
) -> Selection | Skip:
    """What a device would do now: manifest, hold, selection, agreement of the roles.

    Args:
        updater: over the device's store and a fetcher, `refreshed`.
        device: who asks, as that left it.
        waves: see `select`.

    Raises:
        NotTrustedError: something did not verify, or two roles disagree.
        RetryLaterError: something could not be had.
        LocalFailureError: the store could not keep what was accepted.
    """
    manifest = _manifest(updater, device)
    if manifest is None:
        return _no_manifest(updater, device)
    held = _held(updater, device)
    decision = select(manifest, held, device, updater.effective_now, waves)
    if isinstance(decision, Selection):
        agreed_target(updater, device.product, decision)
    return decision


def _manifest(updater: Updater, device: DevicePosition) -> Manifest | None:
    path = f"channels/{device.product}/{device.channel}.json"
    target = updater.target(f"{device.product}-{device.channel}", path)
    if target is None:
        return None
    manifest = parse(updater.fetch_target(target, MAX_MANIFEST))
    _require_about(path, (manifest.product, manifest.channel), device)
    return manifest


def _no_manifest(updater: Updater, device: DevicePosition) -> Skip:
    """A channel that does not exist would look like "no update" for ever: say what exists."""
    from client_reference.nearest import did_you_mean  # noqa: PLC0415 # rare

    delegations = updater.targets.delegations
    roles = (delegations.roles or {}) if delegations else {}
    name = f"{device.product}/{device.channel}"
    if f"{device.product}-{device.channel}" in roles:
        return Skip(Reason.NO_CHANNEL, f"nothing was promoted to {name} yet")
    paths = [path for role in roles.values() for path in role.paths or ()]
    channels = [
        path.removeprefix("channels/").removesuffix(".json")
        for path in paths
        if path.startswith("channels/")
    ]
    own = [each for each in channels if each.startswith(f"{device.product}/")]
    key, there = ("channel", own) if own else ("product", channels)
    return Skip(
        Reason.NO_CHANNEL,
        f"likely a mistake in repository.{key} of device.toml: the repository has no channel "
        f"{name}, it has: {', '.join(there) or 'none'}{did_you_mean(name, there)}",
    )


def _held(updater: Updater, device: DevicePosition) -> frozenset[int]:
    path = f"holds/{device.product}/{device.channel}.json"
    target = updater.target(f"{device.product}-{device.channel}-hold", path)
    if target is None:
        return frozenset()
    hold: Hold = parse_hold(updater.fetch_target(target, MAX_HOLD))
    _require_about(path, (hold.product, hold.channel), device)
    return hold.sequences


def _require_about(path: str, found: tuple[str, str], device: DevicePosition) -> None:
    if found != (device.product, device.channel):
        raise DisagreementError(
            f"{path} is about {'/'.join(found)}, expected {device.product}/{device.channel}", _ASK
        )


def agreed_target(updater: Updater, product: str, selection: Selection) -> Agreed:
    """The builds role's entry for what was selected, equal to the manifest in all it says.

    Raises:
        DisagreementError: it has none, or says something else.
        MalformedJsonError: its `custom` cannot be read.
        RefusedError: it is longer than `LONGEST`.
    """
    wanted, release, payload = selection.payload.artifact, selection.release, selection.payload
    role = f"{product}-builds"
    target = updater.target(role, wanted.path)
    if target is None:
        raise DisagreementError(
            f"the channel offers {wanted.path}, which the role {role} does not list", _ASK
        )
    means = parse_meaning(target.custom, wanted.path)
    for what, found, said in (
        ("length", target.length, wanted.length),
        ("sha256", target.hashes.get("sha256"), wanted.sha256),
        ("product", means.product, product),
        ("hardware", sorted(means.hardware), sorted(payload.hardware)),
        ("version", means.version, release.version),
        ("sequence", means.sequence, release.sequence),
        ("handler", means.handler, payload.handler),
    ):
        if found != said:
            raise DisagreementError(
                f"{wanted.path}: the role {role} says {what} {found}, the channel says {said}", _ASK
            )
    return Agreed(target, _segments_target(updater, role, target))


def _segments_target(updater: Updater, role: str, artifact: TargetFile) -> TargetFile | None:
    if not has_segments(artifact.length):
        return None
    if artifact.length > LONGEST:
        raise RefusedError(
            f"{artifact.path} has {artifact.length} bytes, firmroot installs at most {LONGEST}",
            "ask the publisher: no device can hold the list of its segments",
        )
    path = artifact.path + SUFFIX
    expected = list_length(artifact.length)
    if (digest := segments_digest(artifact.custom, artifact.path)) is not None:
        # In a hash bin: a target of its own would lie in another one.
        return TargetFile(expected, {"sha256": digest}, path)
    target = updater.target(role, path)
    if target is None or target.length != expected:
        found = "nothing" if target is None else f"{target.length} bytes"
        raise DisagreementError(
            f"{path}: the role {role} lists {found}, expected {expected} bytes of segment hashes",
            _ASK,
        )
    if target.custom != {"segments-of": artifact.path}:
        raise DisagreementError(f"{path} is not marked as the segments of {artifact.path}", _ASK)
    return target


def check(machine: Machine, waves: Waves = Waves.OBEY) -> Checked:
    """Look for an update; nothing on the device changes but the trust store. Raises as `evaluate`.

    One exception: an image that waits to be booted is taken back if its epoch has ended, even if
    the next cannot begin yet, or if it was put on hold or withdrawn.

    A mirror whose bytes do not verify, or that lacks an object, is left for the next one, as long
    as there is one.
    """
    sought: set[int] = set()
    with _heed_end(machine):
        return anchored(machine.anchor, machine.mirrors, lambda: _offered(machine, waves, sought))


def _offered(machine: Machine, waves: Waves, sought: set[int]) -> Checked:
    """One check, and the anchor asked before anybody hears of a release that is to be installed."""
    checked = _check(machine, waves, sought)
    if machine.anchor is not None and isinstance(checked.decision, Selection):
        _begin_again_if(rerooted=machine.anchor.before_install())
    return checked


def _check(machine: Machine, waves: Waves, sought: set[int]) -> Checked:
    """One check; again with another mirror if this one lacks a root that it announces itself.

    The announcement comes from an online key, so it may cost one request for each way to a mirror,
    once in a cycle, and nothing else: if no mirror has that root, or none of the others works, the
    last good answer stands, and no mirror is worse for it.

    Args:
        machine: see there.
        waves: see `select`.
        sought: versions of the root after which nobody had the next, in this cycle.
    """
    found = _check_once(machine, waves)
    while found.updater.missing_root is not None and found.updater.root.version not in sought:
        if not machine.mirrors.another_way():
            sought.add(found.updater.root.version)
            machine.mirrors.every_mirror()
        elif found.updater.finds_next_root():
            try:
                found = _check_once(machine, waves)
            except EpochEndedError:
                raise  # what was found belongs to an epoch that has ended
            except (NotTrustedError, RetryLaterError):
                continue
    return found


def _check_once(machine: Machine, waves: Waves) -> Checked:
    updater = Updater(
        machine.store,
        machine.mirrors,
        machine.now,
        lead=machine.lead,
        before_root=before_root(machine.anchor),
    )
    before = updater.state.trust
    observation = _settle(machine, updater.state)
    install = refreshed(updater, machine.store, machine.identified.product)
    position = machine.identified.position(install, before.epoch)
    decision = evaluate(updater, position, waves)
    _heed_epoch(machine, updater, before)
    install = _heed_stop(machine, decision, install)
    notice = _renew_bundle(machine, updater)
    updater.keep()
    return Checked(decision, updater, observation.boot, install, notice)


def _renew_bundle(machine: Machine, updater: Updater) -> str:
    """Take a new CA bundle, if the role that speaks for it has one. Its failure stops nothing."""
    if machine.bundle is None:
        return ""
    while True:
        try:
            target = updater.target(TLS_ROLE, TLS_BUNDLE)
            if target is None or target.hashes.get("sha256") == machine.bundle.sha256():
                return ""
            machine.bundle.require_room(target.length)
            machine.bundle.keep(updater.fetch_target(target, MAX_BUNDLE))
        except EpochEndedError:
            raise
        except LocalFailureError as error:
            hint = f"; {error.hint}" if error.hint else ""
            return f"a new CA bundle could not be kept: {error}{hint}"
        except (NotTrustedError, RetryLaterError) as error:
            if not machine.mirrors.another_way(error.message):
                return f"a new CA bundle could not be had: {error}"
        else:
            machine.renewed()
            return "a new CA bundle was accepted; it serves from now on"


def anchored(anchor: RecoveryAnchor | None, mirrors: Mirrors, step: Callable[[], T]) -> T:
    """A step with each mirror, begun again whenever the recovery anchor re-rooted the device.

    That the anchor is asked once in a cycle is what ends this loop. Raises as `step`.
    """
    if anchor is not None:
        anchor.at_start()
    while True:
        try:
            return _with_each_mirror(mirrors, step)
        except EpochEndedError:
            mirrors.every_mirror()
        except (NotTrustedError, RetryLaterError):
            if anchor is None or not anchor.after_failure():
                raise
            mirrors.every_mirror()


def before_root(anchor: RecoveryAnchor | None) -> Callable[[], None] | None:
    """What an `Updater` calls before it accepts a new root."""
    return None if anchor is None else lambda: _begin_again_if(rerooted=anchor.before_root())


def _heed_epoch(machine: Machine, updater: Updater, before: TrustState) -> None:
    """A higher epoch that a new timestamp speaks of: a hint, good for one question.

    Only a timestamp that was not there before is heard, or its thief could have every check of
    every device ask.
    """
    if machine.anchor is None or updater.state.trust.timestamp == before.timestamp:
        return
    if (updater.hints.epoch or 0) > before.epoch:
        _begin_again_if(rerooted=machine.anchor.announced())


def _heed_stop(machine: Machine, decision: Selection | Skip, install: InstallState) -> InstallState:
    """What waits to be booted and was put on hold, or withdrawn, since is given up.

    Stopping needs one key. Whoever restarts the device would start it all the same.
    """
    image = install.candidate
    if image is None or not machine.installer.boot_pending():
        return install
    stopped = (
        verdict.detail
        for verdict in decision.verdicts
        if verdict.sequence == image.sequence and verdict.reason in _STOPPED
    )
    why = next(stopped, "")
    if not why:
        return install
    return _take_back(machine, install.phase, image, f"may not start, {why}")


@contextmanager
def _heed_end(machine: Machine) -> Iterator[None]:
    """If an epoch is over and the next cannot begin, what waits to be booted is given up as well.

    Attack: a thief of its keys had it armed, and withholds the first root of the next epoch.
    """
    try:
        yield
    except RetryLaterError:
        install = _load(machine).install
        image = install.candidate
        over = machine.anchor.over if machine.anchor is not None else ""
        if over and image is not None and machine.installer.boot_pending():
            _take_back(machine, install.phase, image, f"may not start: {over}")
        raise


def _take_back(machine: Machine, phase: Phase, image: Image, why: str) -> InstallState:
    if phase is Phase.TRIAL:
        _commit(machine, lifecycle.recalled)
    if phase is Phase.WRITING or machine.recall(image, why):
        _commit(machine, lifecycle.abandon)
    return _load(machine).install


def _begin_again_if(*, rerooted: bool) -> None:
    if rerooted:
        raise EpochEndedError("the recovery anchor began another epoch")


def _with_each_mirror(mirrors: Mirrors, step: Callable[[], T]) -> T:
    refused: FirmrootError | None = None
    while True:
        try:
            return step()
        except (NotTrustedError, NotFoundError) as error:
            # Where "not there" is an answer (the next root) it does not come this far; here a
            # mirror lacks what it must have.
            if not isinstance(refused, NotTrustedError):
                refused = error
            if not mirrors.another_way(error.message):
                raise refused from error
        except EpochEndedError:
            raise
        except RetryLaterError:
            # Attack: who lies and then hangs up would pass for a bad network.
            if refused is None:
                raise
            raise refused from None


def _observe(machine: Machine, state: DeviceState) -> Observation:
    """What the last boot meant, made durable."""
    installer = machine.installer
    observation = lifecycle.observe_boot(
        state.install, installer.running(), pending=installer.boot_pending()
    )
    if observation.state != state.install:
        machine.store.commit(state.with_install(observation.state))
    return observation


def _settle(machine: Machine, state: DeviceState) -> Observation:
    """The same, and what an ended epoch left to be booted is given up.

    Attack: a thief of that epoch's keys had it armed, and whoever restarts the device boots it. One
    that runs already is left to its verdict. It is abandoned, not rejected: the new epoch may list
    the same payload.
    """
    observation = _observe(machine, state)
    install = observation.state
    image = install.candidate
    if image is None or image.epoch == state.trust.epoch:
        return observation
    if install.phase is Phase.TRIAL and not machine.installer.boot_pending():
        return observation
    why = f"is of epoch {image.epoch}, which the recovery anchor has ended"
    return replace(observation, state=_take_back(machine, install.phase, image, why))


def update(machine: Machine, waves: Waves, stop: Stop, restart: Restart) -> Result:
    """Bring the device as far towards the newest release as it may go now.

    Raises:
        ActionRequiredError: a release is on trial; it must be confirmed or rejected first.
        UnknownTrialError: what runs is on trial and nobody knows what it is; it must be rejected.
        NotTrustedError, RetryLaterError: see `evaluate`; what was verified before is kept.
        LocalFailureError: store, slot or handler failed.
    """
    if stop is Stop.AFTER_STAGING:
        restart = Restart.LATER  # not even into what an earlier run armed
    with _heed_end(machine):
        return _bring_on(machine, waves, stop, restart)


def _bring_on(machine: Machine, waves: Waves, stop: Stop, restart: Restart) -> Result:
    """The whole update. Raises as `update`."""
    install = _settle(machine, _load(machine)).state
    if install.phase is Phase.TRIAL and machine.installer.boot_pending():
        _look_before_boot(machine, waves)
        install = _settle(machine, _load(machine)).state
    if install.phase is Phase.TRIAL:
        return _resume_trial(machine, install, restart)
    if unknown := lifecycle.unknown_trial(install, machine.installer.trial()):
        if machine.installer.running() == unknown:
            raise _unknown(unknown)
        machine.installer.reject(_nameless(unknown))  # armed by a state that was lost
    sought: set[int] = set()
    checked, image = anchored(
        machine.anchor, machine.mirrors, lambda: _check_and_stage(machine, waves, sought)
    )
    if image is None:
        return Result(Outcome.NOTHING, checked)
    if stop is Stop.AFTER_STAGING:
        return Result(Outcome.STAGED, checked, image)
    try:
        machine.installer.activate(image)
    except ImageGoneError:
        # Staged, then lost: the next run writes it again instead of failing for ever.
        _commit(machine, lifecycle.abandon)
        raise
    _commit(machine, lifecycle.activated)
    return Result(_restart(machine, restart), checked, image)


def _look_before_boot(machine: Machine, waves: Waves) -> None:
    """Check once more before an image is booted that an earlier run armed: it may be stopped now.

    That nobody answers, or that somebody lies, stops no restart: what was verified counts.
    """
    with suppress(NotTrustedError, RetryLaterError):
        check(machine, waves)
    if machine.anchor is not None and machine.anchor.before_install():
        machine.mirrors.every_mirror()


def _resume_trial(machine: Machine, install: InstallState, restart: Restart) -> Result:
    """A cut between arming the boot loader and the reboot is finished; a running trial waits."""
    image = lifecycle.candidate(install)
    if machine.installer.boot_pending():
        return Result(_restart(machine, restart), None, image)
    raise ActionRequiredError(
        f"release {image.version} is on trial and not yet confirmed",
        "run `firmroot-device confirm` if it works, `firmroot-device reject` if it does not",
    )


def _unknown(slot: str) -> UnknownTrialError:
    return UnknownTrialError(
        f"slot {slot} is on trial in the boot loader, and this device has no record of what is in "
        "it: its trust state was lost during the trial, or the trial was given up before",
        "run `firmroot-device reject`: the device goes back to the release before, and can update",
    )


def _nameless(slot: str) -> Image:
    """What is in a slot of which nothing is known."""
    return Image("", 0, "", 0, slot)


def _check_and_stage(
    machine: Machine, waves: Waves, sought: set[int]
) -> tuple[Checked, Image | None]:
    checked = _offered(machine, waves, sought)
    decision = checked.decision
    if isinstance(decision, Skip):
        return checked, None
    artifact, release = decision.payload.artifact, decision.release
    epoch = checked.updater.state.trust.epoch
    image = Image(
        artifact.sha256,
        artifact.length,
        release.version,
        release.sequence,
        epoch=epoch,
        reset=checked.install.reset,
    )
    begun = checked.install.candidate
    if begun is not None and _same(begun, image):
        if checked.install.phase is Phase.STAGED:
            return checked, begun
        image = begun
    return checked, _stage(machine, checked.updater, decision, image)


def _same(begun: Image, image: Image) -> bool:
    """Whether they are one release; the slot is the device's own business."""
    return (begun.sha256, begun.sequence, begun.epoch, begun.reset) == (
        image.sha256,
        image.sequence,
        image.epoch,
        image.reset,
    )


def _stage(machine: Machine, updater: Updater, decision: Selection, image: Image) -> Image:
    """Write the selected artifact, from where an earlier run stopped."""
    if image.length > machine.largest:
        raise RefusedError(
            f"release {image.version} has {image.length} bytes, download.quota allows "
            f"{machine.largest}",
            "raise download.quota in the device configuration",
        )
    agreed = agreed_target(updater, machine.identified.product, decision)
    segments = _segments(updater, agreed)
    _commit(machine, lambda state: lifecycle.begin(state, image))
    placed = machine.installer.begin(image)
    if placed != image:
        _commit(machine, lambda state: lifecycle.begin(state, placed))
    download = Download(updater.target_location(agreed.artifact), image.sha256, segments)
    written = machine.installer.written(placed)
    try:
        download.run(machine.mirrors, machine.installer, written, machine.progress)
    except NotFoundError as error:
        raise _and_kept(lacking(agreed.artifact.path, error), placed) from error
    except (RetryLaterError, NotTrustedError) as error:
        _and_kept(error, placed)
        raise
    machine.installer.finish(placed)
    _commit(machine, lifecycle.stage)
    return placed


def _and_kept(error: E, placed: Image) -> E:
    """The same error; its hint says as well what a download that broke leaves behind."""
    where = f"slot {placed.slot}, which cannot boot" if placed.slot else "download.directory"
    kept = f"what was verified of release {placed.version} is kept in {where}; the system that runs"
    error.hint = f"{error.hint}; {kept} is untouched"
    return error


def _segments(updater: Updater, agreed: Agreed) -> Segments:
    artifact = agreed.artifact
    if agreed.segments is None:
        return whole_segments(artifact.hashes["sha256"], artifact.length)
    data = updater.fetch_target(agreed.segments, list_length(artifact.length))
    return parse_segments(data, artifact.length)


def _restart(machine: Machine, restart: Restart) -> Outcome:
    if restart is Restart.LATER:
        return Outcome.READY
    machine.installer.reboot()
    return Outcome.REBOOTING


def confirm(machine: Machine) -> Image | None:
    """Keep the release on trial: it becomes the current one and raises the anti-rollback floor.

    A service calls this at every boot, so "nothing is on trial" is an answer and no error.

    Before that, and without any network, the stored root chain and metadata are verified again by
    this system's own client (design 10). Nothing that a network says can fail a confirm.

    Returns:
        the confirmed image, None if nothing is on trial.

    Raises:
        IllegalTransitionError: something else than the release on trial is running, or the device
            has not restarted into it.
        UnknownTrialError: the state has no record of the slot that is on trial.
        LocalFailureError: the stored state does not verify here, or the boot loader failed.
    """
    state = _load(machine)
    install = _observe(machine, state).state
    if unknown := lifecycle.unknown_trial(install, machine.installer.trial()):
        # Attack: to confirm what nobody can name keeps an image that no signature speaks for.
        raise _unknown(unknown)
    if install.phase is not Phase.TRIAL:
        return None
    confirmed = lifecycle.confirm(
        install,
        machine.installer.running(),
        state.trust.epoch,
        pending=machine.installer.boot_pending(),
    )
    _verify_stored(machine.store, state)
    image = lifecycle.candidate(install)
    machine.installer.confirm(image)
    _commit(machine, lambda _: confirmed)
    return image


def _verify_stored(store: Store, state: DeviceState) -> None:
    """Whether this system's client can still verify the root chain and read all that is stored.

    Neither time nor agreement between the stored files is asked for: a check during the trial that
    broke off half way, or met an expired repository, is no reason to roll back.
    """
    try:
        verify_chain(list(store.root_chain()), state.trust.root_version)
        _read_stored(state.trust)
    except NotTrustedError as error:
        raise LocalFailureError(
            f"this system cannot verify the stored trust state: {error}",
            "run `firmroot-device reject` to go back to the release before",
        ) from error


def verify_chain(chain: Sequence[bytes], version: int) -> None:
    """Verify a stored root chain, whatever its expiry.

    Raises:
        NotTrustedError: a link does not verify, or it does not end at `version`.
    """
    last = 0
    if chain:
        root = verified.first_root(chain[0])
        for link in chain[1:]:
            root = verified.next_root(root, link)
        last = root.version
    if last != version:
        raise NotTrustedError(f"the stored root chain ends at {last}, expected {version}")


def _read_stored(trust: TrustState) -> None:
    if trust.timestamp is not None:
        verified.read(Timestamp, Timestamp.type, trust.timestamp)
    if trust.snapshot is not None:
        verified.read(Snapshot, Snapshot.type, trust.snapshot)
    for name, data in trust.roles.items():
        verified.read(Targets, name, data)


def reject(machine: Machine, restart: Restart) -> Result:
    """Give up the release that is staged or on trial; it is not tried again here.

    A trial that the state has no record of is given up in the boot loader; the state keeps as it is
    and the result names no image: nobody knows what it was.

    Raises:
        IllegalTransitionError: there is none.
        LocalFailureError: the boot loader failed.
    """
    install = _observe(machine, _load(machine)).state
    if unknown := lifecycle.unknown_trial(install, machine.installer.trial()):
        runs = machine.installer.running() == unknown
        machine.installer.reject(_nameless(unknown))
        return Result(_restart(machine, restart) if runs else Outcome.NOTHING, None)
    rejected = lifecycle.reject(install)
    image = lifecycle.candidate(install)
    runs = bool(image.slot) and machine.installer.running() == image.slot
    machine.refusing(image.sha256)
    machine.installer.reject(image)
    _commit(machine, lambda _: rejected)
    return Result(_restart(machine, restart) if runs else Outcome.NOTHING, None, image)


def _load(machine: Machine) -> DeviceState:
    return _load_from(machine.store)


def _load_from(store: Store) -> DeviceState:
    state = store.load()
    if state is None:
        raise ActionRequiredError(
            "this device has no trust state yet", "run `firmroot-device init` first"
        )
    return state


def _commit(machine: Machine, transition: Callable[[InstallState], InstallState]) -> None:
    state = _load(machine)
    machine.store.commit(state.with_install(transition(state.install)))
