"""The TUF client workflow: a store, a fetcher and the checks of `verified`, in this order.

    root chain (5.3) -> timestamp (5.4) -> snapshot (5.5) -> targets (5.6) -> delegated on demand

Rules:
 * Accepted bytes are durable before a request is made because of them (5.3.8, 5.4.5, 5.5.7, 5.6.6);
   leaf roles, on whose stored files no rule rests, share one transaction at the end (`keep`).
   Root links are the exception: up to 64 of them share one transaction.
 * Who missed roots asks for them one by one (5.3.3) until one is there; then the root-chain bundle
   may bring the rest (`rootchain`), every link verified all the same. Which bundle is the newest,
   only the timestamp says, and before the last root it cannot be verified: a hint that may cost
   requests, nothing else. Whatever is wrong with a bundle, the single files remain.
 * What fails to verify is discarded; what was accepted before it stays, and is committed.
 * A bad signature below the root asks once more for a newer root: keys may have changed while this
   very refresh was under way. If there is none, it was what it looks like.
 * Only "not there" (`NotFoundError`) for the next root ends the root chain; every other failure is
   a failure of the refresh. There is no cap on the number of links: no attacker without the root
   keys can lengthen the chain, and a shelf device must never stop half way.
 * A link with other timestamp or snapshot keys clears timestamp and snapshot (5.3.11), so that
   versions which a thief pushed forward are forgotten; other timestamp keys also take the time
   floor back (`clock`). Both are in the transaction of that link, before the expiry of the last
   link is looked at (5.3.10).
 * Stored files are verified again, under the metadata in hand, before they are used. The root is
   not: whoever can write the store can write another root.
 * Of a role in hash bins (TAP 15) exactly one is loaded, the one of the path that is asked for, and
   only if the role's own keys sign it: bins are a role in pieces, never a way to another key.
 * A check that brings nothing new commits nothing.
 * An epoch above 0 has its metadata under `metadata/eE/`; a device whose epoch was left meanwhile
   commits nothing of the old one.
 * `now` is given once; the floor may raise it, nothing reads a clock.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from client_reference.errors import (
    ConfigurationError,
    LocalFailureError,
    NotFoundError,
    NotTrustedError,
    RetryLaterError,
    shortened,
)
from client_reference.trust import clock, verified
from client_reference.trust.state import DeviceState, InstallState, TrustState
from client_reference.values import frozen

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from tuf.api.metadata import DelegatedRole, MetaFile, SuccinctRoles, T, TargetFile

    from client_reference.transport.fetcher import Fetcher
    from client_reference.trust.rootchain import Bundle
    from client_reference.trust.state import Store

__all__ = [
    "EpochEndedError",
    "Floors",
    "Hints",
    "Limits",
    "Updater",
    "bin_prefix",
    "initial_state",
    "lacking",
    "read_hints",
]

M = TypeVar("M", Timestamp, Snapshot, Targets)

ROOT_BATCH = 64
MAX_VISITED_ROLES = 32
# Fields of `timestamp.signed`, see `Hints`.
ROOT = "x-firmroot-root"
EPOCH = "x-firmroot-epoch"


class EpochEndedError(RetryLaterError):
    """The recovery anchor re-rooted this device meanwhile: what was begun must begin again."""


@frozen
class Limits:
    """Bytes of one metadata file at most; they bound memory, not trust.

    A timestamp with three ML-DSA-65 signatures needs more than the 16 KiB of other clients.
    """

    root: int = 512_000
    timestamp: int = 65_536
    snapshot: int = 2_000_000
    targets: int = 5_000_000


_LIMITS = Limits()


@frozen
class Floors:
    """What the running image carries: nothing older is believed.

    Attributes:
        time: Unix seconds.
        minimum_sequence: of a release that may be installed.
        epoch: of the recovery anchor.
        reset: version of `targets` up to which sequence resets are in `minimum_sequence`.
    """

    time: int
    minimum_sequence: int
    epoch: int
    reset: int = 0


@frozen
class Hints:
    """What the online key says about the root chain. Hints, never floors (design 4).

    Attributes:
        root: newest root version, or None if the timestamp does not say.
        epoch: newest epoch of the recovery anchor, or None.
    """

    root: int | None
    epoch: int | None


def bin_prefix(role: str) -> str:
    """How the hash bins of a role are called, before the number: `gateway_` for `gateway-builds`.

    No role that `targets` names has an underscore. Short: the snapshot has it once for each bin.
    """
    return f"{role.removesuffix('-builds')}_"


def initial_state(root: bytes, floors: Floors, recovery_root: bytes | None = None) -> DeviceState:
    """The state of a device that has only what its image carries.

    Raises:
        MalformedError, BadSignatureError: a root is not a root signed by itself.
        MalformedJsonError, MismatchError: the recovery root does not speak for this root.
    """
    state = DeviceState(
        trust=TrustState(
            factory_sha256=hashlib.sha256(root).hexdigest(),
            root=root,
            root_version=verified.first_root(root).version,
            time_floor=floors.time,
            factory_floor=floors.time,
            epoch=floors.epoch,
        ),
        install=InstallState(confirmed_sequence=floors.minimum_sequence, reset=floors.reset),
    )
    if recovery_root is None:
        return state
    from client_reference.trust import recovery  # noqa: PLC0415 # only then

    anchor = recovery.first_anchor(recovery_root)
    recovery.check_origin(anchor, floors.epoch, root)
    return recovery.renewed(state, anchor)


class Updater:
    """One cycle of one device: `refresh` once, then ask for roles and targets.

    Args:
        store: entered, and initialised with `initial_state`.
        fetcher: untrusted bytes.
        now: aware UTC reading of the system clock.
        limits: see `Limits`.
        lead: what this boot knows beyond the stored floor.
        before_root: called once, before the first new root of a refresh is accepted. What it
            raises ends the refresh, with nothing changed.

    Raises:
        ConfigurationError: the store is empty.
        MalformedError: the stored root cannot be read.
    """

    def __init__(
        self,
        store: Store,
        fetcher: Fetcher,
        now: datetime,
        limits: Limits = _LIMITS,
        lead: clock.Lead | None = None,
        before_root: Callable[[], object] | None = None,
    ) -> None:
        state = store.load()
        if state is None:
            raise ConfigurationError(
                "the trust store is empty, expected a factory root",
                "run `firmroot-device init`",
            )
        self._store = store
        self._fetcher = fetcher
        self._now = now
        self._limits = limits
        self._lead = lead
        self._before_root = before_root
        # Each epoch of the recovery anchor has a place of its own (design 7).
        epoch = state.trust.epoch
        self._metadata = f"metadata/e{epoch}/" if epoch else "metadata/"
        self._state = state
        self._trust = state.trust
        self._new_roots: list[bytes] = []
        self._forget_reset = False
        self._root = verified.read(Root, Root.type, state.trust.root).signed
        self._timestamp: Timestamp | None = None
        self._snapshot: Snapshot | None = None
        # By (role, delegator): a role that two delegators name is verified for each of them.
        self._targets: dict[tuple[str, str], Targets] = {}

    @property
    def state(self) -> DeviceState:
        """The last committed state."""
        return self._state

    @property
    def effective_now(self) -> datetime:
        """The time by which expiry and waves are judged."""
        return clock.effective_now(self._now, self._trust.time_floor, self._lead)

    @property
    def freshness(self) -> clock.Freshness:
        """Whether the system clock agrees with verified evidence."""
        return clock.freshness(self._now, self._trust.time_floor)

    @property
    def root(self) -> Root:
        """The newest accepted root."""
        return self._root

    @property
    def timestamp(self) -> Timestamp:
        """The accepted timestamp, after `refresh`."""
        return _refreshed(self._timestamp)

    @property
    def snapshot(self) -> Snapshot:
        """The accepted snapshot, after `refresh`."""
        return _refreshed(self._snapshot)

    @property
    def targets(self) -> Targets:
        """The accepted top-level targets, after `refresh`."""
        return _refreshed(self._targets.get((Targets.type, Root.type)))

    @property
    def hints(self) -> Hints:
        """What the accepted timestamp says about root and epoch, after `refresh`."""
        return read_hints(self.timestamp)

    @property
    def missing_root(self) -> int | None:
        """A root version that the accepted timestamp announces and no mirror asked so far has.

        A mirror that lost `N+1.root.json` says "not there", as it does when there is no newer root.
        """
        announced = self.hints.root
        return announced if announced is not None and announced > self._root.version else None

    def finds_next_root(self) -> bool:
        """Whether who is asked now has the next root: one request, of which nothing is kept.

        A root that is announced and was not there may be looked for where a whole check would cost
        more than an announcement by an online key is worth.
        """
        path = f"{self._metadata}{self._root.version + 1}.root.json"
        try:
            verified.next_root(self._root, self._fetcher.fetch(path, self._limits.root))
        except (NotTrustedError, RetryLaterError):
            return False
        return True

    def refresh(self) -> None:
        """Bring the four top-level roles up to date.

        Raises:
            NotTrustedError: a file did not verify (the subclasses of `verified` say how).
            NotFoundError, RetryLaterError: a file could not be had.
            LocalFailureError: the store could not make a step durable.
            EpochEndedError: the device was re-rooted meanwhile.
        """
        try:
            self._refresh_root()
            try:
                self._refresh_below_root()
            except verified.BadSignatureError:
                if not self._is_outdated():
                    raise
                self._refresh_below_root()
            clock.check_issued(self.timestamp, self._root, self.snapshot, self.targets)
            floor = clock.raised(self._trust.time_floor, self.timestamp)
            if floor != self._trust.time_floor:
                self._trust = replace(self._trust, time_floor=floor)
        finally:
            self._commit()

    def _refresh_below_root(self) -> None:
        self._refresh_timestamp()
        self._refresh_snapshot()
        self._load_targets(Targets.type, self._root, Root.type)

    def _is_outdated(self) -> bool:
        """Whether there is a newer root by now; it is accepted then.

        A slow device was told "no newer root", and meanwhile one came and the old signatures went.
        Whoever provokes this gains one request.
        """
        before = self._root.version
        try:
            self._refresh_root()
        except EpochEndedError:
            raise  # the signature was judged by a root that counts no more
        except RetryLaterError:
            pass
        return self._root.version > before

    def keep(self) -> None:
        """Make durable what was accepted of leaf roles since `refresh`.

        They are a cache: the snapshot fixes their versions, and no rule rests on the stored file.
        So one transaction does for all of them.

        Raises:
            LocalFailureError: the store could not.
        """
        self._commit()

    def role(self, name: str) -> Targets | None:
        """Metadata of a role that `targets` itself delegates to, or None if it does not exist yet.

        Raises:
            DelegationError: the role delegates further, but for hash bins that its own keys sign
                (`_check_bins`). A leaf that delegates could lend its paths to a key that no
                ceremony saw (design 4, shadowing).
            NotTrustedError, RetryLaterError, LocalFailureError: as `refresh`.

        It is stored with the next `keep`.
        """
        if self._delegation(name) is None or f"{name}.json" not in self.snapshot.meta:
            return None
        role = self._load_targets(name, self.targets, Targets.type)
        if role.delegations is not None and role.delegations.roles:
            raise verified.DelegationError(
                f"{name} delegates to other roles, expected a leaf role",
                "ask the publisher: firmroot follows no delegation of a delegated role",
            )
        if role.delegations is not None and role.delegations.succinct_roles is not None:
            self._check_bins(name, role)
        return role

    def target(self, role: str, path: str) -> TargetFile | None:
        """What `role` says about one target path, if the delegation gives it that path.

        A role with hash bins (TAP 15) says it in the one bin of that path; no other is loaded.

        Raises:
            As `role`.
        """
        delegation = self._delegation(role)
        if delegation is None or not delegation.is_delegated_path(path):
            return None
        metadata = self.role(role)
        if metadata is None:
            return None
        bins = metadata.delegations.succinct_roles if metadata.delegations is not None else None
        if bins is None:
            return metadata.targets.get(path)
        home = bins.get_role_for_target(path)
        if f"{home}.json" not in self.snapshot.meta:
            return None  # nothing was ever put into it
        found = self._load_targets(home, metadata, role)
        if found.delegations is not None:
            raise verified.DelegationError(
                f"{home} delegates to other roles, expected a hash bin",
                "ask the publisher: firmroot follows no delegation of a hash bin",
            )
        self._keep_one_bin(bins, home)
        return found.targets.get(path)

    def _check_bins(self, name: str, role: Targets) -> None:
        """The hash bins of a role are the role itself in pieces, and nothing else.

        Attack: whoever has the role's key names another key for the bins, which outlives the
        rotation of the stolen one; names bins after other roles; or says of one path one thing
        itself and another in a bin, so that two clients read two things.
        """
        delegations, outer = role.delegations, self.targets.delegations
        own = self._delegation(name)
        if delegations is None or delegations.succinct_roles is None:
            raise AssertionError("asked about bins of a role that has none")
        if outer is None or own is None:
            raise AssertionError("asked about a role that targets does not name")
        bins = delegations.succinct_roles
        problem = ""
        if role.targets:
            problem = "lists target files beside its hash bins"
        elif bins.name_prefix != bin_prefix(name):
            problem = f"calls its hash bins {shortened(bins.name_prefix)}, not {bin_prefix(name)}"
        elif (
            bins.threshold != own.threshold
            or set(bins.keyids) != set(own.keyids)
            or any(delegations.keys.get(each) != outer.keys.get(each) for each in own.keyids)
        ):
            problem = "gives its hash bins other keys or another threshold than it has itself"
        if problem:
            raise verified.DelegationError(
                f"{name} {problem}",
                "ask the publisher: hash bins are signed by the keys that targets names for the "
                "role, and named after it",
            )

    def _keep_one_bin(self, bins: SuccinctRoles, home: str) -> None:
        """What is stored of a role's bins is what was asked for last: a device needs one."""
        others = [
            each for each in self._trust.roles if each != home and bins.is_delegated_role(each)
        ]
        if others:
            left = {role: data for role, data in self._trust.roles.items() if role not in others}
            self._trust = replace(self._trust, roles=left)

    def find(self, path: str) -> TargetFile | None:
        """The search through all delegations, in pre-order, of any TUF client (5.6.7).

        Not for device code, which names the role that it asks.

        Raises:
            NotTrustedError, RetryLaterError, LocalFailureError: as `refresh`.
        """
        to_visit: list[tuple[str, Root | Targets, str]] = [(Targets.type, self._root, Root.type)]
        visited: set[str] = set()
        try:
            while to_visit and len(visited) <= MAX_VISITED_ROLES:
                name, delegator, delegator_name = to_visit.pop()
                if name in visited:
                    continue
                metadata = self._load_targets(name, delegator, delegator_name)
                if path in metadata.targets:
                    return metadata.targets[path]
                visited.add(name)
                children = []
                if metadata.delegations is not None:
                    for child, terminating in metadata.delegations.get_roles_for_target(path):
                        children.append((child, metadata, name))
                        if terminating:
                            to_visit = []
                            break
                to_visit.extend(reversed(children))
        finally:
            self._commit()
        return None

    def fetch_target(self, target: TargetFile, max_length: int) -> bytes:
        """A small target file, whole and verified (5.7).

        Args:
            target: from `target` or `find`.
            max_length: bytes that the caller is ready to hold.

        Raises:
            MismatchError: it is longer than `max_length`, or not the file that was signed for.
            NotFoundError, RetryLaterError: it could not be had.
        """
        if target.length > max_length:
            raise verified.MismatchError(
                f"{target.path} has {target.length} bytes, expected at most {max_length}",
                "ask the publisher to make it shorter; nothing of it was fetched",
            )
        try:
            data = self._fetcher.fetch(self.target_location(target), target.length)
        except NotFoundError as error:
            raise lacking(target.path, error) from error
        verified.check_target(target, data)
        return data

    def target_location(self, target: TargetFile) -> str:
        """Where a repository keeps a target file: hash-prefixed in a consistent snapshot (6.2)."""
        if not self._root.consistent_snapshot:
            return f"targets/{target.path}"
        digest = target.hashes.get("sha256") or next(iter(target.hashes.values()))
        directory, slash, name = target.path.rpartition("/")
        return f"targets/{directory}{slash}{digest}.{name}"

    def _refresh_root(self) -> None:
        asked_for_bundle = False
        while True:
            version = self._root.version + 1
            try:
                data = self._fetcher.fetch(
                    f"{self._metadata}{version}.root.json", self._limits.root
                )
            except NotFoundError:
                break
            self._accept_root(data)
            if not asked_for_bundle:
                asked_for_bundle = True
                self._commit()
                try:
                    self._take_bundles()
                except EpochEndedError:
                    raise
                except (NotTrustedError, RetryLaterError):
                    pass  # the single files remain
        self._commit()
        verified.check_expiry(Root.type, self._root, self.effective_now)

    def _take_bundles(self) -> None:
        """Accept what root-chain bundles hold beyond the root in hand.

        Raises:
            NotTrustedError, RetryLaterError: one could not be had or has a bad link; the links
                before it were accepted.
        """
        newest = self._announced_root()
        if newest is None or newest <= self._root.version:
            return
        last = self._fetch_bundle(newest)
        for end in last.blocks:
            if end > self._root.version:
                self._accept_links(self._fetch_bundle(end))
            if end > self._root.version:
                return  # a mirror could name blocks without links for ever
        self._accept_links(last)

    def _announced_root(self) -> int | None:
        """What a timestamp that nobody has verified says about the newest root."""
        data = self._fetcher.fetch(f"{self._metadata}timestamp.json", self._limits.timestamp)
        return read_hints(verified.read(Timestamp, Timestamp.type, data).signed).root

    def _fetch_bundle(self, version: int) -> Bundle:
        from client_reference.trust import rootchain  # noqa: PLC0415 # most checks find no new root

        path = f"{self._metadata}{rootchain.location(version)}"
        return rootchain.parse(self._fetcher.fetch(path, rootchain.MAX_BUNDLE))

    def _accept_links(self, bundle: Bundle) -> None:
        while (data := bundle.links.get(self._root.version + 1)) is not None:
            self._accept_root(data)

    def _accept_root(self, data: bytes) -> None:
        """The next link, verified."""
        root = verified.next_root(self._root, data)
        if self._before_root is not None:
            ask, self._before_root = self._before_root, None
            ask()
        trust = replace(self._trust, root=data, root_version=root.version)
        other_timestamp_keys = verified.rotated(self._root, root, Timestamp.type)
        if other_timestamp_keys or verified.rotated(self._root, root, Snapshot.type):
            trust = replace(trust, timestamp=None, snapshot=None)
        if other_timestamp_keys:
            trust = replace(trust, time_floor=clock.reset(trust.factory_floor, root))
        if verified.rotated(self._root, root, Targets.type):
            # Attack: a thief of `targets` says a reset of the last version that there is, and no
            # honest one would ever be newer (`trust.reset`).
            self._forget_reset = True
        self._root = root
        self._trust = trust
        self._new_roots.append(data)
        if len(self._new_roots) == ROOT_BATCH:
            self._commit()

    def _refresh_timestamp(self) -> None:
        trusted = self._rollback_base(Timestamp, self._trust.timestamp)
        data = self._fetcher.fetch(f"{self._metadata}timestamp.json", self._limits.timestamp)
        try:
            timestamp = verified.accept_timestamp(self._root, data, trusted, self.effective_now)
        except verified.BadSignatureError as error:
            if self._is_of_the_root_before(data):
                raise verified.ReplacedKeysError(error, self._root.version) from error
            raise
        clock.check_issued(timestamp, self._root)
        self._timestamp = timestamp
        if timestamp is not trusted:
            self._trust = replace(self._trust, timestamp=data)

    def _is_of_the_root_before(self, timestamp: bytes) -> bool:
        """Whether the keys of the root before the one in hand signed a timestamp."""
        for data in self._store.root_chain()[-2:-1]:
            with suppress(NotTrustedError):
                root = verified.first_root(bytes(data))
                verified.authentic(Timestamp, root, Timestamp.type, timestamp)
                return True
        return False

    def _refresh_snapshot(self) -> None:
        timestamp, stored, now = self.timestamp, self._trust.snapshot, self.effective_now
        if stored is not None:
            with suppress(NotTrustedError):
                self._snapshot = verified.accept_snapshot(self._root, timestamp, stored, None, now)
                return
        trusted = self._rollback_base(Snapshot, stored)
        data = self._fetch_metadata(Snapshot.type, timestamp.snapshot_meta, self._limits.snapshot)
        snapshot = verified.accept_snapshot(self._root, timestamp, data, trusted, now)
        listed = {
            name: role
            for name, role in self._trust.roles.items()
            if f"{name}.json" in snapshot.meta
        }
        self._snapshot = snapshot
        self._trust = replace(self._trust, snapshot=data, roles=listed)

    def _rollback_base(self, kind: type[T], stored: bytes | None) -> T | None:
        """Stored metadata that the root in hand still signs for, expired or not."""
        if stored is not None:
            with suppress(NotTrustedError):
                return verified.authentic(kind, self._root, kind.type, stored)
        return None

    def _without_unverifiable(self, trust: TrustState) -> TrustState:
        """A new root forgets what its keys do not vouch for, whatever the comparison of keys said.

        Attack: versions that a thief pushed forward outlive the rotation (design 4, fast-forward).
        """
        if self._rollback_base(Timestamp, trust.timestamp) is None:
            trust = replace(trust, timestamp=None)
        if self._rollback_base(Snapshot, trust.snapshot) is None:
            trust = replace(trust, snapshot=None)
        return trust

    def _load_targets(self, role: str, delegator: Root | Targets, delegator_name: str) -> Targets:
        place = (role, delegator_name)
        if place in self._targets:
            return self._targets[place]
        snapshot, stored, now = self.snapshot, self._trust.roles.get(role), self.effective_now
        if stored is not None:
            with suppress(NotTrustedError):
                self._targets[place] = verified.accept_targets(
                    delegator, role, snapshot, stored, now
                )
                return self._targets[place]
        data = self._fetch_metadata(role, verified.listed(snapshot, role), self._limits.targets)
        self._targets[place] = verified.accept_targets(delegator, role, snapshot, data, now)
        self._trust = replace(self._trust, roles={**self._trust.roles, role: data})
        return self._targets[place]

    def _delegation(self, role: str) -> DelegatedRole | None:
        delegations = self.targets.delegations
        return None if delegations is None else (delegations.roles or {}).get(role)

    def _fetch_metadata(self, role: str, meta: MetaFile, limit: int) -> bytes:
        """A file that metadata above name; what of these was accepted is durable first."""
        if role in {Snapshot.type, Targets.type}:
            self._commit()
        prefix = f"{meta.version}." if self._root.consistent_snapshot else ""
        length = limit if meta.length is None else min(meta.length, limit)
        try:
            return self._fetcher.fetch(
                f"{self._metadata}{prefix}{quote(role, safe='')}.json", length
            )
        except NotFoundError as error:
            raise lacking(f"version {meta.version} of {role}", error) from error

    def _commit(self) -> None:
        if self._trust is self._state.trust:
            return
        # Somebody else may have moved the install state since: only trust is ours.
        stored = self._store.load()
        if stored is None:
            raise LocalFailureError(
                "the trust store was emptied during the check", "run `firmroot-device init`"
            )
        if self._new_roots:
            self._trust = self._without_unverifiable(self._trust)
        if stored.trust.epoch != self._trust.epoch:
            raise EpochEndedError(
                f"this device is in epoch {stored.trust.epoch} now, the check began in epoch "
                f"{self._trust.epoch}",
                "run the same command again",
            )
        # The recovery anchor is not this class's: it may have been renewed since.
        self._trust = replace(
            self._trust,
            recovery_root=stored.trust.recovery_root,
            recovery_version=stored.trust.recovery_version,
        )
        state = stored.with_trust(self._trust)
        if self._forget_reset:
            state = state.with_install(replace(state.install, reset=0))
            self._forget_reset = False
        self._store.commit(state, self._new_roots)
        self._new_roots = []
        self._state = state


def lacking(what: str, error: NotFoundError) -> NotFoundError:
    """What to say of a file that is not there although it must be: signed metadata name it."""
    hint = (
        "it was not copied there yet, or is withheld: try again later or with another mirror; "
        "if no mirror has it, the publisher must look: `firmroot verify`"
    )
    return NotFoundError(
        f"the mirror lacks {shortened(what)}, which signed metadata list: {error.message}",
        f"{hint}. {error.hint}" if error.hint else hint,
    )


def _refreshed(metadata: M | None) -> M:
    if metadata is None:
        raise RuntimeError("asked before refresh() succeeded")
    return metadata


def read_hints(timestamp: Timestamp) -> Hints:
    """What a timestamp says about root and epoch; what is no number there says nothing."""
    fields = timestamp.unrecognized_fields
    return Hints(_number(fields.get(ROOT)), _number(fields.get(EPOCH)))


def _number(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None
