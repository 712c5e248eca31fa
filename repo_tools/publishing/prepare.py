"""From a workspace and its storage to a rehearsed plan. Reads and signs, writes nothing.

What `publish`, `refresh` and `plan` have in common: read the live state and hold it against what
was live before, admit what is staged, sign snapshot and timestamp, rehearse.
"""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from tuf.api.metadata import Root, Snapshot, Targets

from client_reference.errors import (
    ActionRequiredError,
    ConfigurationError,
    FirmrootError,
    NotFoundError,
    NotTrustedError,
    RefusedError,
)
from client_reference.manifest import MAX_MANIFEST
from client_reference.manifest import parse as parse_manifest
from client_reference.selection import DevicePosition
from client_reference.trust.updater import Floors
from client_reference.trust.verified import (
    BadSignatureError,
    authentic,
    first_root,
    next_root,
    read,
)
from repo_tools.gone import gone_keys
from repo_tools.metadata.bins import is_bin
from repo_tools.metadata.edits import next_snapshot, next_timestamp
from repo_tools.metadata.repository import RepositoryState, parse
from repo_tools.publishing.artifacts import stored_name
from repo_tools.publishing.binned import artifact, next_index, offered_bins
from repo_tools.publishing.bridge import Passage, check_bridged, check_sizes, is_bridged, passage
from repo_tools.publishing.cache import Cache
from repo_tools.publishing.factory import devices, future_devices
from repo_tools.publishing.following import lead
from repo_tools.publishing.journal import committed, high_water, people_roles
from repo_tools.publishing.live import (
    MAX_METADATA,
    TIMESTAMP,
    metadata_objects,
    metadata_path,
    read_bins,
    read_live,
    root_chain_object,
)
from repo_tools.publishing.plan import (
    Plan,
    Upload,
    admit,
    admit_delegators,
    check_delegated,
    metadata_uploads,
    new_targets,
)
from repo_tools.publishing.rehearse import Device, Views, first_expiry, rehearse
from repo_tools.signing.ceremony import open_ceremonies
from repo_tools.signing.ceremony import status as ceremony_status
from repo_tools.signing.ceremony.guards import check_alone
from repo_tools.storage.epoch import EpochStorage, epoch_path
from repo_tools.storage.local import LocalStorage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from client_reference.manifest import Manifest
    from repo_tools.publishing.live import Live
    from repo_tools.publishing.online import OnlineKeys
    from repo_tools.publishing.plan import Admitted
    from repo_tools.publishing.rehearse import Rehearsal
    from repo_tools.storage.protocol import Storage
    from repo_tools.workspace import Workspace

_OURS = ("metadata/", "targets/", "inbox/", "gc/")
_NAMED = 3
_LOOK = 1000
"""Objects that are looked at; one page of a listing."""

__all__ = [
    "Prepared",
    "Signed",
    "Step",
    "StorageElsewhereError",
    "StrandedError",
    "admit_staged",
    "check_present",
    "check_root_good",
    "check_stranding",
    "following_root",
    "is_stored",
    "next_step",
    "next_targets",
    "old_clients",
    "prepare",
    "read_base",
    "sign_online",
    "with_offered",
]

_SMALL = ("channels/", "holds/", "trust/")


class StrandedError(RefusedError):
    """Devices would be left behind, and nobody said that they may."""


class StorageElsewhereError(ConfigurationError):
    """A storage that is a directory, and not on this machine: nothing says that data were lost."""


@dataclass(frozen=True)
class Signed:
    """The online roles of a candidate."""

    snapshot: bytes
    timestamp: bytes


@dataclass(frozen=True)
class Prepared:
    """A plan, and what every device would do with it."""

    plan: Plan
    rehearsal: Rehearsal


def read_base(workspace: Workspace, storage: Storage, *, root_later: bool = False) -> Live:
    """The verified live state with the whole root chain, no older than anything known of it.

    Args:
        workspace: what is known.
        storage: the origin.
        root_later: see `read_live`.

    Attack: whoever can write to the storage puts an old state back. What this machine saw stops
    it, and what git knows stops it for who has seen nothing yet: a fresh clone, a refresher on CI.

    Raises:
        ActionRequiredError: no root was ever signed.
        StorageElsewhereError: this clone does not have the storage.
        RefusedError: nothing was published yet, and the storage is not free for it.
        NotTrustedError: the storage was tampered with or rolled back, or is of somebody else.
        RetryLaterError: the storage does not answer.
    """
    known = workspace.roots()
    trusted = known[-1] if known else workspace.staged_role("root")
    if trusted is None:
        raise ActionRequiredError(
            "there is no root yet: nobody can trust this repository",
            "firmroot status says who must sign; then: firmroot sign",
        )
    cache = Cache.of(workspace)
    try:
        live = read_live(storage, trusted, cache, root_later=root_later)
    except NotTrustedError as error:
        if known:
            raise
        _check_staged_root(trusted)
        raise NotTrustedError(
            f"{storage.url} holds a repository that this workspace has not published: "
            f"{error.message}",
            "correct `storage` in firmroot.toml: a bucket, prefix or directory of its own",
        ) from error
    if live.tag is not None:
        state = replace(live.state, roots=known[:-1] + live.state.roots)
    elif known:
        check_present(workspace, storage)
        raise NotTrustedError(
            f"this workspace has published before, and {storage.url} has no {TIMESTAMP}",
            "check `storage` in firmroot.toml; if the storage was lost, restore it from a mirror",
        )
    else:
        state = RepositoryState()
        if not workspace.epoch:
            _check_free(storage)
    high_water(workspace).check(state)
    committed(workspace).check(state)
    if known and not cache.knows_stored(known[-1]):
        _check_newest_root(storage, known[-1], len(known))
        cache.note_stored(known[-1])
    # What waits is held against what is live; of hash bins, only of those that it changes.
    state = read_bins(storage, state, filter(is_bin, _waiting_roles(workspace)), cache)
    return replace(live, state=state)


def _waiting_roles(workspace: Workspace) -> Iterator[str]:
    """Names of roles that are staged here or were taken from the inbox."""
    for directory in (*workspace.taken, workspace.memory / "staged"):
        yield from (path.stem for path in sorted(directory.glob("*.json")))


def _check_staged_root(data: bytes) -> None:
    """The first root is the workspace's own: what is wrong with it is no storage's fault.

    Raises:
        NotTrustedError: it was changed after it was signed.
    """
    try:
        first_root(data)
    except NotTrustedError as error:
        raise NotTrustedError(
            f"staged/root.json is not what was signed: {error.message}",
            "take it from git again: git checkout HEAD -- staged/root.json",
        ) from error


def _check_free(storage: Storage) -> None:
    """A first publish goes where nothing is, or what an interrupted one left.

    A prefix that was forgotten would put a repository into the middle of other people's objects,
    and everything that is public there beside it.

    Raises:
        RefusedError: something else is there; names some of it.
    """
    looked = itertools.islice(storage.paths(""), _LOOK)
    others = [path for path in looked if not path.startswith(_OURS)]
    if others:
        raise RefusedError(
            f"{storage.url} holds other things than a repository: {', '.join(others[:_NAMED])}"
            f"{' ...' if len(others) > _NAMED else ''}; expected nothing, or {', '.join(_OURS)}",
            "give the repository a place of its own: correct `storage` in firmroot.toml, such as "
            "s3://BUCKET/firmware; or remove what is there",
        )


def check_present(workspace: Workspace, storage: Storage) -> None:
    """Tell a clone that never had the storage from a storage that is gone.

    Only where this machine has never seen it: where it has, a directory that is gone is an alarm.

    Raises:
        StorageElsewhereError: what was published is in a directory that is not here.
    """
    if isinstance(storage, EpochStorage):
        storage = storage.whole
    if not workspace.roots() or not isinstance(storage, LocalStorage) or storage.root.exists():
        return
    if high_water(workspace).marks:
        return
    inside = storage.root.is_relative_to(workspace.directory)
    if inside:
        where = f"the storage {storage.url}/ is a folder of the workspace and not in git"
        copy = f"copy {storage.url}/ from the clone that published"
    else:
        where = f"the storage {storage.url} is not on this machine"
        copy = "mount or copy it from the machine that published"
    raise StorageElsewhereError(
        f"this clone does not have the storage: {where}; what was published is where it was",
        f"{copy}; better, take one that every clone reaches and name it in firmroot.toml: "
        'storage = "file:///..."',
    )


def _check_newest_root(storage: Storage, root: bytes, version: int) -> None:
    """Who follows the chain from git would not notice that devices no longer can."""
    path = metadata_path("root", version)
    try:
        found = storage.read(path, MAX_METADATA).data
    except NotFoundError:
        found = b""
    if found != root:
        raise NotTrustedError(
            f"{path} in {storage.url} is {'not the one of' if found else 'missing; it is in'} "
            f"metadata/root/{version}.json, which was live before",
            "find out who removed or replaced it, then put the file of git there again",
        )


def admit_staged(workspace: Workspace, base: RepositoryState) -> Admitted:
    """What of the staged work may be published on that base. Raises as `plan.admit`."""
    people = [path.stem for path in workspace.staged.glob("*.json")]
    known = {role: workspace.published_role(role) for role in people}
    # `intake` has seen that what it took is made from what is live.
    taken = {path.stem for top in workspace.taken for path in top.glob("*.json")}
    known |= {role: base.roles[role] for role in taken.intersection(people_roles(base))}
    opened = (each.signed for each in open_ceremonies(workspace) if each.role == Targets.type)
    coming = next((each for each in opened if isinstance(each, Targets)), None)
    return admit(base, workspace.staged_roles(), known, coming)


def next_targets(workspace: Workspace, base: RepositoryState) -> Targets | None:
    """The targets role that is signed and goes with the next publish; verified as that will do.

    None also where it may not go: the publish says why.
    """
    above = (Root.type, Targets.type)
    staged = {role: data for role, data in workspace.staged_roles().items() if role in above}
    known = {role: workspace.published_role(role) for role in staged}
    try:
        admitted = admit_delegators(base, staged, known)
    except FirmrootError:
        return None
    return admitted.candidate.targets if Targets.type in admitted.roles else None


def check_root_good(workspace: Workspace, candidate: RepositoryState, now: datetime) -> None:
    """With an expired root every device is stranded (TUF 5.3.10), and nobody must accept that.

    Raises:
        ActionRequiredError: it has expired; says where the next one is.
    """
    root = candidate.root
    if root is None or root.expires > now:
        return
    found = f"root {root.version} has expired on {root.expires:%Y-%m-%d}"
    if (data := workspace.staged_role(Root.type)) is not None:
        version = parse(data, Root, "staged root").signed.version
        raise ActionRequiredError(f"{found}; root {version} is signed", "firmroot publish")
    for ceremony in open_ceremonies(workspace):
        if ceremony.role == Root.type:
            missing = " or ".join(ceremony_status(workspace, ceremony).missing)
            raise ActionRequiredError(
                f"{found}; {ceremony.name} waits for {missing or 'its publish'}",
                "firmroot sign, then: firmroot publish",
            )
    raise ActionRequiredError(
        f"{found}: no device accepts anything until it is signed again",
        "firmroot recover expired-root",
    )


@dataclass(frozen=True)
class Step:
    """The next of the commits that it takes until everything admitted is live.

    Attributes:
        admitted: what this one publishes.
        bridged: see `Plan`.
    """

    admitted: Admitted
    bridged: bool = False


def next_step(workspace: Workspace, live: Live, admitted: Admitted, now: datetime) -> Step:
    """A bridge first, if the root that is admitted needs one; see `bridge`.

    Raises:
        ActionRequiredError: `targets` is not signed for both roots.
    """
    if admitted.base.timestamp is None:
        return Step(admitted)
    if admitted.root is None:
        return Step(admitted, bridged=_is_crossed(live))
    old, new = (read(Root, "root", each).signed for each in admitted.candidate.roots[-2:])
    if passage(old, new, gone_keys(workspace), now) is not Passage.BRIDGE:
        return Step(admitted)
    others = replace(admitted, root=None, following=admitted.root)
    if not admitted.roles and is_bridged(admitted.base, (old, new)):
        return Step(admitted, bridged=True)
    check_bridged(others.candidate.roles["targets"], old, new)
    return Step(others)


def _is_crossed(live: Live) -> bool:
    """Whether an interrupted publish got as far as the root, over a bridge."""
    roots = [read(Root, "root", data).signed for data in live.state.roots[-2:]]
    return live.root_ahead and is_bridged(live.state, roots)


def following_root(workspace: Workspace, live: Live, now: datetime) -> bytes | None:
    """A root that is signed and has a bridge ahead of it: whoever refreshes signs for it too.

    Raises:
        NotTrustedError: it does not follow the live one.
    """
    staged = workspace.staged_role(Root.type)
    if staged is None or staged in live.state.roots:
        return None
    old = first_root(live.state.roots[-1])
    new = next_root(old, staged)
    wanted = passage(old, new, gone_keys(workspace), now) is Passage.BRIDGE
    return staged if wanted else None


def sign_online(
    workspace: Workspace,
    storage: Storage,
    admitted: Admitted,
    keys: OnlineKeys,
    now: datetime,
    *,
    step_over: bool = True,
) -> Signed:
    """Sign a snapshot, where it must change, and a timestamp for what was admitted.

    Args:
        workspace: with the policy.
        storage: the origin.
        admitted: what goes.
        keys: of both roles.
        now: the time.
        step_over: look for snapshots that somebody uploaded and never committed. Who does not is
            told by the upload that the name is taken, and looks then.

    Raises:
        ActionRequiredError: online keys are missing, or a live role must be signed again.
    """
    base, candidate = admitted.base, admitted.candidate
    check_delegated(candidate)
    roots = [read(Root, "root", data).signed for data in admitted.signing_roots]
    snapshot = base.snapshot
    if snapshot is None or admitted.changes or _must_renew(workspace, snapshot, roots, now):
        rules = workspace.policy.role("snapshot")
        before, index = base.parsed_snapshot(), next_index(admitted)
        unsigned = next_snapshot(before, admitted.roles, rules, now, index)
        if step_over:
            unsigned.version = _free_version(storage, unsigned.version)
        snapshot = keys.sign(roots, unsigned)
    timestamp = next_timestamp(
        base.parsed_timestamp(),
        snapshot,
        roots[0].version,
        workspace.policy.role("timestamp"),
        now,
        workspace.epoch,
    )
    return Signed(snapshot, keys.sign(roots, timestamp))


def _must_renew(
    workspace: Workspace, snapshot: bytes, roots: Sequence[Root], now: datetime
) -> bool:
    """Whether the live snapshot ends before the timestamp to be signed, or lacks signatures."""
    try:
        for root in roots:
            signed = authentic(Snapshot, root, "snapshot", snapshot)
    except BadSignatureError:
        return True
    days = workspace.policy.role("timestamp").expiry_days
    return signed.expires < now + timedelta(days=days)


def _free_version(storage: Storage, version: int) -> int:
    """Step over snapshots that somebody uploaded and never committed: they can never be replaced.

    If that somebody is still at work, only one of us will replace the timestamp.
    """
    while True:
        try:
            storage.read(metadata_path("snapshot", version), 1 << 30)
        except NotFoundError:
            return version
        version += 1


def prepare(
    workspace: Workspace,
    storage: Storage,
    live: Live,
    admitted: Admitted,
    signed: Signed,
    now: datetime,
    *,
    bridged: bool = False,
) -> Prepared:
    """The plan for signed roles, rehearsed.

    Args:
        workspace: what is staged, and every export.
        storage: the origin.
        live: what it has.
        admitted: what is to be published.
        signed: the online roles for it.
        now: the time.
        bridged: see `Plan`.

    Raises:
        RefusedError: bytes that a new role names are neither here nor in the storage, or a file is
            longer than devices read.
        ActionRequiredError: a channel offers what was built on another machine.
    """
    candidate = with_offered(
        workspace,
        storage,
        replace(admitted.candidate, snapshot=signed.snapshot, timestamp=signed.timestamp),
    )
    root = None
    if admitted.root is not None:
        version = parse(admitted.root, Root, "root").signed.version
        root = Upload.of(metadata_path("root", version), admitted.root)
    snapshot = signed.snapshot if signed.snapshot != admitted.base.snapshot else None
    plan = Plan(
        admitted=admitted,
        candidate=candidate,
        uploads=(
            *_target_uploads(workspace, storage, admitted),
            *metadata_uploads(admitted.roles, snapshot),
        ),
        root=root,
        root_chain=_root_chain(storage, candidate, Cache.of(workspace)),
        timestamp=signed.timestamp,
        base_tag=live.tag,
        bridged=bridged,
    )
    check_sizes(candidate)
    _check_built(workspace, admitted, candidate)
    _check_adopted(workspace, admitted)
    known = (
        *devices(workspace),
        *future_devices(workspace, candidate.roots[-1]),
        *old_clients(workspace),
    )
    return Prepared(plan, rehearse(_views(workspace, storage, plan), known, now))


def _root_chain(storage: Storage, candidate: RepositoryState, cache: Cache) -> Upload | None:
    """The bundle of the newest root, if the storage does not have it."""
    path, data = root_chain_object(candidate)
    if not (cache.knows_stored(data) or is_stored(storage, path)):
        return Upload.of(path, data)
    cache.note_stored(data)
    return None


def _target_uploads(
    workspace: Workspace, storage: Storage, admitted: Admitted
) -> tuple[Upload, ...]:
    waiting = workspace.staged_targets()
    uploads: list[Upload] = []
    for path, target in new_targets(admitted):
        if path in waiting:
            digest = target.hashes["sha256"]
            uploads.append(Upload(path, waiting[path], target.length, digest))
        elif not is_stored(storage, path):
            raise RefusedError(
                f"{target.path} is signed, but its bytes are neither here nor in the storage",
                "where it was added: firmroot submit; or add the same file here again",
            )
    return tuple(uploads)


def is_stored(storage: Storage, path: str) -> bool:
    """Whether the storage has an object."""
    try:
        with storage.open(path):
            return True
    except NotFoundError:
        return False


def _views(workspace: Workspace, storage: Storage, plan: Plan) -> Views:
    """What devices see before, during and after the publish."""
    base, candidate = with_offered(workspace, storage, plan.admitted.base), plan.candidate
    after = _objects(workspace, storage, candidate)
    live: dict[str, bytes] = {}
    if base.timestamp is not None:
        live = _objects(workspace, storage, base)
    during = live | {path: data for path, data in after.items() if path != TIMESTAMP}
    ends = first_expiry(candidate)
    expires = first_expiry(base) if live else ends
    before, between, then = (
        {epoch_path(path, workspace.epoch): data for path, data in each.items()}
        for each in (live, during, after)
    )
    return Views(before, expires, between, then, ends, lead(workspace))


def _objects(workspace: Workspace, storage: Storage, state: RepositoryState) -> dict[str, bytes]:
    """Everything that a device fetches of a state in order to decide."""
    bundle = dict([root_chain_object(state)])
    return metadata_objects(state) | bundle | _small_targets(workspace, storage, state)


def with_offered(workspace: Workspace, storage: Storage, state: RepositoryState) -> RepositoryState:
    """The state with the hash bins that its channels send devices to, and no others."""
    manifests: list[Manifest] = []
    for stored, data in _small_targets(workspace, storage, state).items():
        with contextlib.suppress(NotTrustedError, RefusedError):  # devices will refuse it too
            if stored.startswith("targets/channels/"):
                manifests.append(parse_manifest(data))
    cache = Cache.of(workspace)
    return read_bins(storage, state, sorted(offered_bins(state, manifests)), cache)


def _small_targets(
    workspace: Workspace, storage: Storage, state: RepositoryState
) -> dict[str, bytes]:
    """Manifests and holds: what a device fetches in order to decide."""
    waiting, cache = workspace.staged_targets(), Cache.of(workspace)
    found: dict[str, bytes] = {}
    for role, data in state.roles.items():
        if is_bin(role):
            continue
        for path, target in parse(data, Targets, role).signed.targets.items():
            if not path.startswith(_SMALL):
                continue
            stored = stored_name(path, target.hashes["sha256"])
            if stored in waiting:
                found[stored] = workspace.staged_target(waiting[stored], target)
                continue
            try:
                digest = target.hashes["sha256"]
                found[stored] = cache.read(storage, stored, MAX_MANIFEST, digest)
            except NotFoundError:
                continue  # a device will miss it as well, and the rehearsal says so
    return found


def _check_built(workspace: Workspace, admitted: Admitted, candidate: RepositoryState) -> None:
    """A channel that offers what no builds role lists yet waits for its builder's work.

    The rehearsal would find it too, as devices that are stranded; nobody must accept that.

    Raises:
        ActionRequiredError: names what is missing.
    """
    waiting = workspace.staged_targets()
    for role, data in admitted.roles.items():
        for path, target in read(Targets, role, data).signed.targets.items():
            file = waiting.get(stored_name(path, target.hashes["sha256"]))
            if file is None or not path.startswith("channels/"):
                continue
            manifest = parse_manifest(workspace.staged_target(file, target))
            for offered in (p.artifact for r in manifest.releases for p in r.payloads):
                if artifact(candidate, manifest.product, offered.path) is None:
                    raise ActionRequiredError(
                        f"{role} offers {offered.path}, and no builds role that lists it is live "
                        "or on this machine",
                        "on the machine that ran `firmroot firmware add`: firmroot submit",
                    )


def _check_adopted(workspace: Workspace, admitted: Admitted) -> None:
    """What was there before `firmroot adopt` stays, for the clients that were.

    Raises:
        RefusedError: a target file or a delegation of theirs would go or change.
    """
    adopted, targets = workspace.adopted(), admitted.candidate.targets
    if adopted is None or targets is None:
        return
    check_alone(Targets.type, targets, adopted)
    for role in adopted.delegations:
        before, after = admitted.base.role(role), admitted.candidate.role(role)
        if before is not None and (after is None or after.targets != before.targets):
            raise RefusedError(
                f"the adopted role {role} would speak for other files than are live",
                f"sign it again as it is: firmroot ceremony start {role}",
            )


def old_clients(workspace: Workspace) -> tuple[Device, ...]:
    """Clients that were there before `firmroot adopt`, with the first root and with the last.

    They know no product: what they must be able to do is to follow.
    """
    adopted = workspace.adopted()
    if adopted is None:
        return ()
    position = DevicePosition("adopted", "none", ("none",), "slot", "adopted")
    floors = Floors(time=0, minimum_sequence=0, epoch=0)
    roots = workspace.roots()
    return tuple(
        Device(
            f"client from before adoption, root {version}",
            position,
            roots[version - 1],
            floors,
            promised=False,
        )
        for version in sorted({1, adopted.root.version})
    )


def check_stranding(prepared: Prepared, accepted: frozenset[str]) -> None:
    """Stop a publish that leaves a device behind, unless that device was named.

    Raises:
        StrandedError: names every factory export that would be stranded, and why.
    """
    stranded = prepared.rehearsal.stranded()
    open_cases = {name: row for name, row in stranded.items() if name not in accepted}
    if not open_cases:
        return
    cases = "".join(
        f"\n  {name}: with {row.cached.value} state, {row.moment.value}, clock {row.clock.value}: "
        f"{row.detail}"
        for name, row in open_cases.items()
    )
    named = " ".join(f"--accept-stranded {_quoted(name)}" for name in open_cases)
    raise StrandedError(
        f"this publish would strand {len(open_cases)} of the devices that were rehearsed:{cases}",
        f"mend what the reason names; if these devices are lost already: firmroot publish {named}",
    )


def _quoted(name: str) -> str:
    return f'"{name}"' if " " in name else name
