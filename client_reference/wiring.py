"""From a configuration to a machine: where the parts are joined and the clock is read, once.

A device is alone: what it can do without is said and left out, what it cannot is an error here,
before anything is fetched.
"""

from __future__ import annotations

import random
import sys
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from client_reference import config as configuration
from client_reference import factory as factories
from client_reference import identity, refused, report
from client_reference.config import DEFAULT_PATH, Proxy, Reboot, TlsRoots
from client_reference.errors import ConfigurationError, FirmrootError
from client_reference.install.handlers import open_installer
from client_reference.lifecycle import Boot
from client_reference.strictjson import format_time, parse_time
from client_reference.terminal import Bar, on_terminal
from client_reference.transport.bundle import BundleFile
from client_reference.transport.cache import TargetCache
from client_reference.transport.fetch import Certificate, HttpFetcher, Roots, Settings
from client_reference.transport.memory import Memory
from client_reference.trust.clock import Freshness
from client_reference.trust.selftest import check_key_types
from client_reference.trust.state import MemoryStore
from client_reference.trust.store import SqliteStore, StoreLostError
from client_reference.trust.updater import initial_state
from client_reference.trust.uptime import Uptime
from client_reference.trust.verified import BadSignatureError, MalformedError, first_root
from client_reference.update import Identified, Machine, Restart
from client_reference.values import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from client_reference.config import DeviceConfig
    from client_reference.install.handlers import Installer
    from client_reference.terminal import Run
    from client_reference.transport.fetch import Ambient
    from client_reference.transport.policy import Mirror
    from client_reference.transport.proxy import ProxyServer
    from client_reference.trust.anchor import Probe, RecoveryAnchor
    from client_reference.trust.state import DeviceState, Image
    from client_reference.update import Checked

__all__ = [
    "LAB_NOW",
    "Wired",
    "configured",
    "credentials_header",
    "descends",
    "factory_state",
    "giving_up",
    "identified",
    "is_lab",
    "on_a_copy",
    "read_clock",
    "recovery_asked",
    "refused_by_request",
    "transport_settings",
    "wired",
]

LAB_NOW = "FIRMROOT_LAB_NOW"
BUNDLE = "ca-bundle.pem"
UPTIME = "uptime.json"
MEMORY = "transport.json"
REFUSED = "rejected.json"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_MAX_HEADER = 8192
_DAY = 86_400


@frozen
class Wired:
    """A machine with its parts that only the command line looks at."""

    run: Run
    machine: Machine
    fetcher: HttpFetcher
    bar: Bar
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
def wired(run: Run) -> Iterator[Wired]:
    """Everything for one cycle, the store locked."""
    config = configured(run)
    with ExitStack() as stack:
        store = stack.enter_context(SqliteStore(config.trust.state))
        state = _state(run, config, store)
        memory = Memory(config.download.directory / MEMORY, state.trust.timestamp)
        transport = transport_settings(run, config)
        fetcher = stack.enter_context(HttpFetcher(transport, run.ambient, memory))
        # Whatever comes of it: what was met on the way is said, what worked is remembered.
        stack.callback(fetcher.remember)
        stack.callback(_warn_transport, run, fetcher)
        uptime = Uptime(config.trust.state / UPTIME)
        lead = uptime.lead()
        stack.callback(_note_floor, store, uptime, lead.floor)
        mirrors = TargetCache(fetcher, config.download.directory / "targets")
        anchor = None
        if config.repository.recovery and state.trust.recovery_root is not None:
            urls = _recovery_urls(config, transport, (fetcher, run.ambient), stack)
            anchor = _anchor(run, config, store, mirrors, urls)
        bar = Bar(shown=on_terminal() and not run.options.json)
        stack.callback(bar.finish)
        installer = open_installer(config.install)
        machine = Machine(
            identified=identified(config),
            store=store,
            mirrors=mirrors,
            installer=installer,
            now=read_clock(run, state),
            largest=config.download.quota if config.install.handler == "command" else sys.maxsize,
            progress=bar.show,
            bundle=BundleFile(config.trust.state / BUNDLE),
            renewed=lambda: fetcher.use_roots(transport_settings(run, config).roots),
            lead=lead,
            anchor=anchor,
            refusing=lambda digest: refused.note(config.trust.state / REFUSED, digest),
            recall=lambda image, why: _recall(run, installer, image, why),
        )
        try:
            yield Wired(run, machine, fetcher, bar, _restart(run, config))
        except BadSignatureError:
            # A library too old for a key type looks like an attack; say which it is.
            check_key_types()
            raise


@contextmanager
def giving_up(run: Run) -> Iterator[tuple[Machine, Restart]]:
    """A machine that goes back to the release before, and asks nobody; the store locked.

    What a new system cannot be without, its credentials, CA bundle or identity, may be what is
    wrong with it: that must not keep it running.
    """
    config = configured(run)
    with ExitStack() as stack:
        store = stack.enter_context(SqliteStore(config.trust.state))
        state = _state(run, config, store)
        mirrors = HttpFetcher(Settings(config.repository.mirrors), run.ambient)
        where = config.repository
        machine = Machine(
            identified=Identified(where.product, where.channel, (), config.install.handler, ""),
            store=store,
            mirrors=stack.enter_context(mirrors),
            installer=open_installer(config.install),
            now=read_clock(run, state),
            largest=0,
            progress=lambda _done, _whole: None,
            refusing=lambda digest: refused.note(config.trust.state / REFUSED, digest),
        )
        yield machine, _restart(run, config)


def _restart(run: Run, config: DeviceConfig) -> Restart:
    stays = config.reboot is Reboot.ASK or getattr(run.options, "no_reboot", False)
    return Restart.LATER if stays else Restart.NOW


@contextmanager
def on_a_copy(
    config: DeviceConfig, state: DeviceState, settings: Settings, ambient: Ambient, now: datetime
) -> Iterator[tuple[Machine, list[str]]]:
    """The machine of a check that changes nothing on the device, and what such a check warns of.

    It works on a copy of the state in memory and keeps nothing of what it fetches.
    """
    memory = Memory(config.download.directory / MEMORY, state.trust.timestamp)
    told: list[str] = []
    with ExitStack() as stack:
        fetcher = stack.enter_context(HttpFetcher(settings, ambient, memory))
        store = MemoryStore(state)
        anchor = None
        if config.repository.recovery and state.trust.recovery_root is not None:
            from client_reference.trust.anchor import RecoveryAnchor  # noqa: PLC0415 # as `_anchor`

            urls = _recovery_urls(config, settings, (fetcher, ambient), stack)
            product = config.repository.product
            anchor = RecoveryAnchor(store, urls, fetcher, product, due=True, tell=told.append)
        machine = Machine(
            identified=identified(config),
            store=store,
            mirrors=fetcher,
            installer=open_installer(config.install),
            now=now,
            largest=sys.maxsize,
            progress=lambda _done, _whole: None,
            lead=Uptime(config.trust.state / UPTIME).lead(),
            anchor=anchor,
            recall=lambda image, why: _look(told, image, why),
        )
        yield machine, told


def _recall(run: Run, installer: Installer, image: Image, why: str) -> bool:
    """Take back an image that may not start any more, and say so; whether that was possible."""
    withdrawal = installer.withdraw(image)
    text = f"release {image.version} {why}: {withdrawal.told}"
    if text not in run.warnings:  # a check may begin again, with the next mirror
        run.warn(text)
    return withdrawal.done


def _look(told: list[str], image: Image, why: str) -> bool:
    """What `_recall` would do, and leave it."""
    text = f"release {image.version} {why}: the next check gives it up"
    if text not in told:
        told.append(text)
    return False


def configured(run: Run, *, silent: bool = False) -> DeviceConfig:
    """The configuration that this run is about. What is odd in it is said, if not `silent`."""
    config = configuration.load(Path(run.options.config or DEFAULT_PATH))
    for warning in () if silent else config.warnings:
        run.warn(warning)
    return config


def _state(run: Run, config: DeviceConfig, store: SqliteStore) -> DeviceState:
    """What is stored. Without it the device begins with what its image carries, and says so.

    A device is alone: that its state was never made, or was lost or deleted, must not end updates.
    """
    try:
        state = store.load()
        lost = f"there is no trust state in {config.trust.state}"
    except StoreLostError as error:
        state, lost = None, error.message
    if state is None:
        state = factory_state(config, config.trust.factory)
        store.commit(state)
        run.warn(f"{lost}; started from the factory root and its floors")
    elif config.repository.recovery and state.trust.recovery_root is None:
        state = _with_anchor(config, store, state)
    return state


def factory_state(config: DeviceConfig, directory: Path) -> DeviceState:
    """The state of a new device, its root verified, its key types proven to work here."""
    export = factories.load(directory)
    if export.product != config.repository.product:
        raise ConfigurationError(
            f"{directory} is the factory export of {export.product!r}, the configuration says "
            f"{config.repository.product!r}",
            "correct repository.product, or put the right export there",
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


def descends(stored: DeviceState, factory: DeviceState, store: SqliteStore) -> bool:
    """Whether the stored trust grew from this factory root, or went through it."""
    if stored.trust.factory_sha256 == factory.trust.factory_sha256:
        return True  # the stored chain may be shorter: damage can cost it its first links
    if stored.trust.recovery_root is not None and stored.trust.epoch != factory.trust.epoch:
        return True  # only the recovery anchor decides between epochs, never an image
    return factory.trust.root in [bytes(link) for link in store.root_chain()]


def _with_anchor(config: DeviceConfig, store: SqliteStore, state: DeviceState) -> DeviceState:
    """A device that was made without a recovery anchor, and runs an image that carries one.

    It takes the anchor from an image of its own chain only, so of its epoch. Whatever is wrong with
    that image stops nothing: the stored state needs none.
    """
    if not _can_be_seen(config.trust.factory / "recovery-root.json"):
        return state
    try:
        factory = factory_state(config, config.trust.factory)
    except FirmrootError:
        return state
    if not descends(state, factory, store):
        return state
    trust = replace(
        state.trust,
        recovery_root=factory.trust.recovery_root,
        recovery_version=factory.trust.recovery_version,
    )
    store.commit(state.with_trust(trust))
    return state.with_trust(trust)


def identified(config: DeviceConfig) -> Identified:
    """Who the device is, read from where the configuration says.

    Raises:
        ConfigurationError: it cannot be read there.
    """
    return Identified(
        product=config.repository.product,
        channel=config.repository.channel,
        hardware=identity.hardware(config.identity.hardware),
        handler=config.install.handler,
        device_id=identity.device_id(config.identity.device_id),
        groups=config.identity.groups,
        refused=refused_by_request(config),
    )


def refused_by_request(config: DeviceConfig) -> tuple[str, ...]:
    """Digests of payloads that somebody rejected here, as far as is known."""
    return refused.noted(config.trust.state / REFUSED)


def transport_settings(run: Run, config: DeviceConfig) -> Settings:
    """How the mirrors are asked. An accepted CA bundle takes the place of the image's.

    Raises:
        ConfigurationError: a bundle or the credentials that the configuration names are not there.
    """
    accepted, carried = bundles = (config.trust.state / BUNDLE, config.trust.factory / BUNDLE)
    bundle = accepted if accepted.exists() else carried if _can_be_seen(carried) else None
    image = carried if bundle == accepted and _can_be_seen(carried) else None
    if config.tls.roots is TlsRoots.SYSTEM:
        bundle = image = None
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
        roots=Roots(config.tls.roots is not TlsRoots.PRIVATE, bundle, image),
        credentials=None if credentials is None else credentials_header(credentials),
        certificate=None
        if certificate is None
        else Certificate(certificate, config.repository.client_key),
        proxy=_proxy(run, config),
        minimum_rate=config.download.minimum_rate,
    )


def _can_be_seen(carried: Path) -> bool:
    """Whether a file of the image is there. A directory that nobody may enter ends no updates."""
    with suppress(OSError):
        return carried.exists()
    return False


def _proxy(run: Run, config: DeviceConfig) -> Callable[[Mirror], ProxyServer | None]:
    """What each mirror is asked through."""
    choice = config.tls.proxy
    if not isinstance(choice, Proxy):
        return lambda _: choice
    if choice is Proxy.NONE or not any(run.environment.get(name) for name in PROXIES):
        return lambda _: None
    from client_reference.transport.proxy import environment_proxy  # noqa: PLC0415 # rare

    return lambda mirror: environment_proxy(run.environment, mirror)


def credentials_header(path: Path, where: str = "repository.credentials") -> tuple[str, str]:
    """The header in a file, as `Authorization: Bearer …`. Its value is never shown.

    Raises:
        ConfigurationError: there is none; `where` names what named the file.
    """
    try:
        with path.open(encoding="latin-1") as file:
            text = file.read(_MAX_HEADER).strip()
    except OSError as error:
        raise ConfigurationError(f"{where}: {path} cannot be read ({error.strerror})") from error
    name, colon, value = text.partition(":")
    if not colon or not name.isascii() or not name.replace("-", "").isalnum() or "\n" in text:
        raise ConfigurationError(
            f"{where}: {path} does not hold one header of the form NAME: VALUE"
        )
    return name, value.strip()


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
    run: Run,
    config: DeviceConfig,
    store: SqliteStore,
    mirrors: TargetCache,
    urls: Mapping[str, HttpFetcher],
) -> RecoveryAnchor:
    """The recovery anchor of a device that has one, asked about daily besides its occasions."""
    from client_reference.trust.anchor import RecoveryAnchor  # noqa: PLC0415 # only devices that have one
    from client_reference.trust.asked import PLACE, Asked, keep_asked  # noqa: PLC0415 # likewise

    place = config.download.directory / PLACE
    due = random.SystemRandom().random() * _DAY < config.check_every
    return RecoveryAnchor(
        store,
        urls,
        mirrors,
        config.repository.product,
        due=due,
        tell=run.warn,
        forget=BundleFile(config.trust.state / BUNDLE).forget,
        note=lambda failures, fork: keep_asked(place, Asked(failures, fork)),
    )


def recovery_asked(config: DeviceConfig) -> tuple[Mapping[str, str], str]:
    """What was wrong with a recovery URL when it was asked last, by URL, and the fork then seen."""
    if not config.repository.recovery:
        return {}, ""
    from client_reference.trust.asked import PLACE, read_asked  # noqa: PLC0415 # only devices that have one

    asked = read_asked(config.download.directory / PLACE)
    urls = [mirror.url for mirror in config.repository.recovery]
    return {url: asked.failures[url] for url in urls if url in asked.failures}, asked.fork


def _note_floor(store: SqliteStore, uptime: Uptime, noted: int) -> None:
    """A floor of which nothing is noted begins its lead now: it rose or fell, or the note is gone.

    Attack: a mirror that froze when the device was made never raises the floor of its image.
    """
    with suppress(FirmrootError):
        state = store.load()
        if state is not None and state.trust.time_floor != noted:
            uptime.keep(state.trust.time_floor)


def _warn_transport(run: Run, fetcher: HttpFetcher) -> None:
    # A mirror that is configured without TLS is named by `init` and `status`, not each time.
    for sentence in fetcher.fallen.values():
        run.warn(f"degraded transport: {sentence}; what is trusted rests on signatures")
    for sentence in fetcher.forbidden.values():
        run.warn(sentence)
    run.around["mirrors"] = dict(fetcher.failures)


def read_clock(run: Run, state: DeviceState) -> datetime:
    """The only reading of the clock. In a LAB the environment may set it."""
    injected = run.environment.get(LAB_NOW)
    if injected is None:
        return datetime.now(UTC)
    if not is_lab(state):
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


def is_lab(state: DeviceState) -> bool:
    """Whether the root that the device trusts is marked LAB."""
    return report.is_lab(state.trust.root)
