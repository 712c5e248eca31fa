"""The publish: everything create-only, then one object replaced if nobody was faster.

In the order of design 8; `timestamp.json` is the commit point. A publish that was killed anywhere
is finished by running it again, because of three things:

* what is about to be uploaded is written to a journal first, so the next run uploads the same
  bytes (signatures of some algorithms differ each time);
* everything up to the commit only creates objects that no device asks for, except a new root, from
  which on the next run can only roll forward;
* what the workspace must remember about a commit (`settle`) is repeated until it is done, and the
  journal is removed last.

A lost race is rebased: only online roles are signed anew, never what people signed.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tuf.api.metadata import Metadata, Root, Timestamp

from client_reference.errors import (
    ActionRequiredError,
    FirmrootError,
    LockedError,
    NotFoundError,
    NotTrustedError,
)
from client_reference.trust.state import MemoryStore
from client_reference.trust.updater import Floors, Updater, initial_state
from repo_tools.metadata.edits import format_time
from repo_tools.metadata.repository import parse, sha256
from repo_tools.metadata.roles import RECOVERY
from repo_tools.publishing.abandoned import take_over, way_out
from repo_tools.publishing.cache import Cache
from repo_tools.publishing.collect import check_no_sweep
from repo_tools.publishing.edges import NoEdges
from repo_tools.publishing.journal import (
    Journal,
    check_jump,
    load_journal,
    records,
    settle,
    write_journal,
)
from repo_tools.publishing.live import MAX_METADATA, TIMESTAMP, metadata_objects, metadata_path
from repo_tools.publishing.prepare import (
    Signed,
    admit_staged,
    check_root_good,
    check_stranding,
    next_step,
    prepare,
    read_base,
    sign_online,
)
from repo_tools.publishing.recovery import check_epoch
from repo_tools.publishing.replaced import take, take_before, taken_since, was_live
from repo_tools.reporting.situation import next_step as say_next
from repo_tools.reporting.status import renewal_command
from repo_tools.signing.ceremony import (
    finish_complete,
    open_ceremonies,
    record_paths,
    status,
    tidy,
)
from repo_tools.signing.rules import enforce
from repo_tools.storage.overlay import OverlayStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from repo_tools.metadata.repository import RepositoryState
    from repo_tools.publishing.edges import Edges
    from repo_tools.publishing.live import Live
    from repo_tools.publishing.online import OnlineKeys
    from repo_tools.publishing.plan import Plan
    from repo_tools.publishing.prepare import Prepared
    from repo_tools.storage.protocol import Storage
    from repo_tools.workspace import Workspace

__all__ = [
    "NothingToDo",
    "Published",
    "Waiting",
    "commit",
    "finish_interrupted",
    "plan_publish",
    "publish",
    "waiting",
]

# One race can be lost twice: first for the snapshot's name, then for the timestamp.
_ATTEMPTS = 3
NO_EDGES = NoEdges()


@dataclass(frozen=True)
class Waiting:
    """A ceremony that keeps a role from being published."""

    name: str
    role: str
    needed: int
    missing: tuple[str, ...]


@dataclass(frozen=True)
class NothingToDo:
    """Everything that is signed and may go is live.

    Attributes:
        waiting: ceremonies that are still open.
        held: why each staged role cannot go yet.
    """

    waiting: tuple[Waiting, ...]
    held: Mapping[str, str]


@dataclass(frozen=True)
class Published:
    """What is live now.

    Attributes:
        prepared: the plan that was carried out.
        record: as in `history/`.
        waiting: ceremonies that are still open.
    """

    prepared: Prepared
    record: Mapping[str, Any]
    waiting: tuple[Waiting, ...]


def publish(  # noqa: PLR0913  each is a decision of the caller
    workspace: Workspace,
    storage: Storage,
    keys: OnlineKeys,
    now: datetime,
    *,
    accepted: frozenset[str] = frozenset(),
    resume: bool = True,
    accept_jump: bool = False,
    edges: Edges = NO_EDGES,
    progress: Callable[[str], None] = lambda _: None,
) -> Published | NothingToDo:
    """Make live what is signed. The caller holds the workspace's lock.

    A root that gives online roles or `targets` other keys takes two commits, a bridge and then the
    root, with waits (`bridge`); interrupted anywhere, the next run goes on with what is missing.

    Args:
        workspace: where the signed roles are.
        storage: where they go.
        keys: of snapshot and timestamp.
        now: the time.
        accepted: factory exports that may be stranded, by id.
        resume: use what an interrupted publish signed; otherwise sign it anew.
        accept_jump: the versions that are live moved far ahead, and the caller says they may.
        edges: what stands between the storage and devices.
        progress: told each step in a few words.

    Raises:
        ActionRequiredError: a signature is missing, and nothing else can go.
        RefusedError: a device would be stranded, or a staged role is stale.
        NotTrustedError: the storage was tampered with.
        LockedError: somebody else was faster, each time.
        RetryLaterError: the storage failed; run it again.
    """
    tidy(workspace)
    losses = 0
    while True:
        found = plan_publish(
            workspace,
            storage,
            keys,
            now,
            # What was signed when a race was lost has a name that somebody else's snapshot has.
            resume=resume and not losses,
            accept_jump=accept_jump,
            step_over=losses > 0,
        )
        if isinstance(found, NothingToDo):
            return found
        check_stranding(found, accepted)
        take_before(workspace, progress)
        take(workspace, storage, found.plan.admitted.base.timestamp, progress)
        record = make_record(workspace, found.plan, now)
        try:
            if found.plan.bridged and found.plan.root is not None:
                # Attack, or an unlucky cache: a device gets the new root and an older timestamp,
                # which only the old keys signed. Also after an interruption, whenever that was.
                edges.wait(TIMESTAMP, found.plan.admitted.base.timestamp or b"")
            commit(workspace, storage, found.plan, now, record, progress, edges)
        except LockedError as error:
            losses += 1
            taken = take_over(workspace, storage, found.plan.admitted)
            if losses == _ATTEMPTS and taken:
                raise LockedError(error.message, way_out(taken)) from error
            if losses == _ATTEMPTS:
                raise
            progress("somebody else published meanwhile; starting again from what is live now")
            continue
        if found.plan.admitted.following is None:
            return Published(found, record, waiting(workspace))
        progress("the bridge to the next root is live")


def plan_publish(
    workspace: Workspace,
    storage: Storage,
    keys: OnlineKeys,
    now: datetime,
    *,
    resume: bool = True,
    accept_jump: bool = False,
    step_over: bool = True,
) -> Prepared | NothingToDo:
    """What a publish would do now. Changes nothing that anybody sees, nor what is signed.

    Asks the policy first, since git may hold what somebody signed without asking it; then stages
    ceremonies that have their signatures, and ends what an interrupted publish began.

    Raises:
        As `publish`.
    """
    enforce(workspace, now)
    finish_complete(workspace)
    check_epoch(workspace)
    if not workspace.roots() and workspace.staged_role("root") is None:
        raise _missing_signatures(workspace, now)
    # `commit` asks for a newer root before it replaces the timestamp, and then we begin again here.
    later = workspace.is_large and not step_over and load_journal(workspace) is None
    live = read_base(workspace, storage, root_later=later)
    if not accept_jump:
        check_jump(workspace, live.state)
    finish_interrupted(workspace, storage, live)
    admitted = admit_staged(workspace, live.state)
    if later and (admitted.root is not None or not admitted.changes):
        live = read_base(workspace, storage)
        admitted = admit_staged(workspace, live.state)
    if admitted.done and not live.root_ahead:
        settle(workspace, live.state)
    if not admitted.changes and not live.root_ahead:
        open_now = waiting(workspace)
        if open_now and not admitted.done:
            raise _missing_signatures(workspace, now)
        _check_good(live.state, now)
        return NothingToDo(open_now, admitted.waiting)
    if admitted.candidate.targets is None:
        raise _missing_signatures(workspace, now)
    check_root_good(workspace, admitted.candidate, now)
    journal = load_journal(workspace)
    step = next_step(workspace, live, admitted, now)
    if resume and journal is not None and journal.fits(step.admitted, live.tag, now):
        signed = Signed(journal.snapshot, journal.timestamp)
    else:
        signed = sign_online(workspace, storage, step.admitted, keys, now, step_over=step_over)
    return prepare(workspace, storage, live, step.admitted, signed, now, bridged=step.bridged)


def _check_good(state: RepositoryState, now: datetime) -> None:
    """With nothing new to publish, what is live must still be good.

    Raises:
        ActionRequiredError: something has expired; says what signs it again.
    """
    expired = {role: each for role, each in state.newest().items() if each.expires <= now}
    if not expired:
        return
    named = ", ".join(
        f"{role} {each.version} on {each.expires:%Y-%m-%d}" for role, each in expired.items()
    )
    command = renewal_command(expired, root_expired="root" in expired)
    raise ActionRequiredError(
        f"nothing new is signed, and what is live has expired: {named}",
        command if command == "firmroot refresh" else f"{command}; firmroot sign; firmroot publish",
    )


def finish_interrupted(workspace: Workspace, storage: Storage, live: Live) -> None:
    """A publish that was killed after its commit still owes the workspace what it remembers.

    Also if somebody else's refresh or publish has followed it: otherwise nothing would ever say who
    published that. And of what it took from the inbox (`intake`): the copies are here until it is
    answered.
    """
    journal = load_journal(workspace)
    if journal is None:
        return
    state = live.state
    if journal.timestamp != state.timestamp:
        if journal.record is None or not was_live(workspace, storage, journal.timestamp):
            return
        state = _as_published(storage, journal, journal.record, state)
    taken = tuple(sorted((workspace.memory / "inbox").glob("*")))
    settle(replace(workspace, taken=taken), state, journal.record)


def _as_published(
    storage: Storage, journal: Journal, record: Mapping[str, Any], newer: RepositoryState
) -> RepositoryState:
    """What a publish made live that something newer has followed.

    A role that the storage no longer has leaves its record without it; `history --verify` says so.
    """
    roles = dict(newer.roles)
    for role in journal.roles:
        path = metadata_path(role, record["roles"][role]["version"])
        with contextlib.suppress(NotFoundError):
            data = storage.read(path, MAX_METADATA).data
            if sha256(data) == journal.roles[role]:
                roles[role] = data
    return replace(
        newer,
        roots=newer.roots[: record["root"]],
        timestamp=journal.timestamp,
        snapshot=journal.snapshot,
        roles=roles,
    )


def waiting(workspace: Workspace) -> tuple[Waiting, ...]:
    """Open ceremonies of what is published here, and who they wait for."""
    found: list[Waiting] = []
    for ceremony in open_ceremonies(workspace):
        if ceremony.role == RECOVERY:
            continue  # `anchor publish` waits for it
        current = status(workspace, ceremony)
        needed = max((quorum.needed for quorum in current.quorums), default=0)
        found.append(Waiting(ceremony.name, ceremony.role, needed, current.missing))
    return tuple(found)


def _missing_signatures(workspace: Workspace, now: datetime) -> ActionRequiredError:
    open_now = waiting(workspace)
    following = say_next(workspace, now).next_step
    if not open_now:
        return ActionRequiredError(
            "nothing is signed that could be published: a root and a targets role are needed",
            following,
        )
    lines = "; ".join(
        f"{each.name} needs {each.needed} more signature(s), from: {', '.join(each.missing)}"
        if each.needed
        else f"{each.name} waits for the role that delegates to it"
        for each in open_now
    )
    return ActionRequiredError(f"nothing can be published: {lines}", following)


def commit(
    workspace: Workspace,
    storage: Storage,
    plan: Plan,
    now: datetime,
    record: Mapping[str, Any] | None,
    progress: Callable[[str], None],
    edges: Edges = NO_EDGES,
) -> None:
    """Carry a plan out: steps 4 to 7 of design 8.

    Args:
        workspace: what remembers it.
        storage: where the objects go.
        plan: what to write.
        now: when devices would read it.
        record: for `history/`; a refresh leaves none.
        progress: told each step.
        edges: what stands between the storage and devices.

    Raises:
        As `publish`.
    """
    if record is not None:
        check_no_sweep(storage)
    write_journal(workspace, Journal.of(plan, record))
    for upload in plan.uploads:
        progress(f"upload {upload.path}")
        storage.create(upload.path, upload.source, upload.sha256)
    _check_base(storage, plan)
    for last in (plan.root, plan.root_chain):
        if last is not None:
            progress(f"upload {last.path}")
            storage.create(last.path, last.source, last.sha256)
    if plan.bridged:
        newest = plan.candidate.roots[-1]
        edges.wait(metadata_path("root", len(plan.candidate.roots)), newest)
    progress("commit metadata/timestamp.json")
    storage.replace(TIMESTAMP, plan.timestamp, plan.base_tag)
    ends = [upload for upload in (plan.root, plan.root_chain) if upload is not None]
    Cache.of(workspace).keep([*plan.uploads, *ends])
    settle(workspace, plan.candidate, record)
    progress("verify as a device")
    _verify_as_device(storage, plan, now)


def make_record(workspace: Workspace, plan: Plan, now: datetime) -> Mapping[str, Any]:
    """What `history/` keeps about a publish: when and why, what, and who signed.

    It names the record before it, the ceremonies that ended since and the timestamps that were live
    in between, each by digest.
    """
    candidate = plan.candidate
    files = {"timestamp": plan.timestamp, "snapshot": candidate.snapshot or b""}
    if candidate.roots[-1] not in workspace.roots():
        files["root"] = candidate.roots[-1]
    files |= plan.admitted.roles
    roles = {role: _describe(workspace, data) for role, data in files.items()}
    return {
        "schema": 1,
        "when": format_time(now),
        "why": workspace.occasion.why if workspace.occasion is not None else "",
        "root": len(candidate.roots),
        "timestamp": roles.pop("timestamp"),
        "roles": roles,
        "previous": _previous(workspace),
        "ceremonies": _ceremonies(workspace),
        "refreshes": taken_since(workspace),
        "objects": [
            {"path": upload.path, "length": upload.length, "sha256": upload.sha256}
            for upload in plan.uploads
            if upload.path.startswith("targets/")
        ],
    }


def _previous(workspace: Workspace) -> Mapping[str, str] | None:
    """The newest record so far: one that is removed or changed later is missed by its follower."""
    for path in reversed(records(workspace)):
        return {"name": path.name, "sha256": sha256(path.read_bytes())}
    return None


def _ceremonies(workspace: Workspace) -> list[str]:
    """Records of ceremonies that no record of a publish names yet; a name carries a digest."""
    named: set[str] = set()
    for path in records(workspace):
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            named.update(json.loads(path.read_bytes())["ceremonies"])
    return [path.name for path in record_paths(workspace) if path.name not in named]


def _describe(workspace: Workspace, data: bytes) -> Mapping[str, Any]:
    """One role of a record; the signers are those whose signatures it carries."""
    metadata: Metadata[Root] = Metadata.from_bytes(data)
    return {
        "version": metadata.signed.version,
        "sha256": sha256(data),
        "signed_by": sorted(workspace.key_name(keyid) for keyid in metadata.signatures),
    }


def _check_base(storage: Storage, plan: Plan) -> None:
    """The last look before the new root: from there on there is no way back.

    A root of somebody else counts too: a timestamp without its keys, committed after it, would stop
    every device. A rival's timestamp stops a root; where there is none, ours would not replace it.
    """
    found = plan.base_tag
    if plan.root is not None:
        try:
            found = storage.read(TIMESTAMP, MAX_METADATA).tag
        except NotFoundError:
            found = None
    if found != plan.base_tag or _is_followed(storage, plan):
        raise LockedError(
            "somebody else published meanwhile; nothing of this publish became visible",
            "run the command again; it starts from what is live now",
        )


def _is_followed(storage: Storage, plan: Plan) -> bool:
    """Whether a root is there after the one that this plan is made for."""
    try:
        storage.read(metadata_path("root", len(plan.candidate.roots) + 1), MAX_METADATA)
    except NotFoundError:
        return False
    return True


class _Committed:
    """What a device fetches of a commit: what can have gone wrong is asked of the storage.

    The storage has checked the digest of each object that it created; what it makes of the one that
    is replaced, and of a new root, it is asked.
    """

    def __init__(self, storage: Storage, plan: Plan) -> None:
        candidate = plan.candidate
        known: dict[str, bytes] = {
            metadata_path("root", number): data for number, data in enumerate(candidate.roots, 1)
        }
        if plan.root is not None:
            known.pop(plan.root.path)
        known |= metadata_objects(replace(candidate, roots=()))
        known.pop(TIMESTAMP, None)
        self._overlay = OverlayStorage(storage, known)
        self._following = metadata_path("root", len(candidate.roots) + 1)

    def fetch(self, path: str, max_length: int) -> bytes:
        """One whole object. See `Fetcher.fetch`."""
        if path == self._following:  # asked for a moment ago, when the base was looked at
            raise NotFoundError(f"{path} is not there")
        return self._overlay.fetch(path, max_length)

    def stream(self, path: str, offset: int, length: int) -> Iterator[bytes]:
        """Part of an object. See `Fetcher.stream`."""
        return self._overlay.stream(path, offset, length)


def _verify_as_device(storage: Storage, plan: Plan, now: datetime) -> None:
    """A device with the oldest root reads, from the storage itself, what was just committed.

    Raises:
        NotTrustedError: it does not; says what it saw.
    """
    first = plan.candidate.roots[0]
    store = MemoryStore(initial_state(first, Floors(time=0, minimum_sequence=0, epoch=0)))
    updater = Updater(store, _Committed(storage, plan), now)
    try:
        updater.refresh()
    except FirmrootError as error:
        raise NotTrustedError(
            f"published, but a device that reads it back fails: {error.message}",
            "the storage damages or withholds objects: firmroot verify",
        ) from error
    expected = parse(plan.timestamp, Timestamp, "timestamp").signed.version
    if updater.timestamp.version < expected:
        raise NotTrustedError(
            f"published timestamp {expected}, but a device reads {updater.timestamp.version}",
            "the storage serves an old copy: firmroot verify",
        )
