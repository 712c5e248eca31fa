"""The publisher takes out of the inbox what may be published, and answers the rest.

Each submission is examined by itself (`examine`), its bytes are copied and hashed into a directory
of this machine, and all that is good is planned and rehearsed together. If that fails, it is tried
one by one: a bad submission is refused with its reason and never blocks a good one. Who is told:

* *refused*, for good: it is not signed, damaged, stale, or says what it may not say;
* *waits*, with a note: something else must come first (a build that a channel offers, an answer
  about a device that would be stranded), or its bytes are not all there;
* *published*: what it says is live. That is read from the live state and never from memory, so a
  publisher that was killed after its commit gives the same answer when it runs again.

What was answered is cleared. What fails without the submission too is nobody's fault but ours, and
is raised as it would be without an inbox.
"""

from __future__ import annotations

import enum
import hashlib
import os
import shutil
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tuf.api.metadata import Targets

from client_reference.errors import (
    ActionRequiredError,
    ConfigurationError,
    FirmrootError,
    LockedError,
    NotFoundError,
    NotTrustedError,
    RefusedError,
    RetryLaterError,
    shortened,
)
from client_reference.manifest import segments_digest
from client_reference.payload.segments import SEGMENT, SUFFIX
from client_reference.trust.updater import Limits
from client_reference.trust.verified import BadSignatureError, authentic
from repo_tools.files import (
    make_directory,
    replace_file,
    sync_directory,
    temporary_file,
    translate_disk_full,
)
from repo_tools.metadata.bins import is_bin
from repo_tools.metadata.edits import format_time
from repo_tools.metadata.repository import sha256
from repo_tools.publishing import inbox
from repo_tools.publishing.examine import check_file, examine
from repo_tools.publishing.journal import load_journal
from repo_tools.publishing.live import read_bins
from repo_tools.publishing.online import OnlineKeysMissingError
from repo_tools.publishing.plan import StaleError
from repo_tools.publishing.prepare import (
    Prepared,
    StrandedError,
    check_stranding,
    next_targets,
    read_base,
)
from repo_tools.publishing.publish import NO_EDGES, finish_interrupted, plan_publish
from repo_tools.publishing.publish import publish as publish_staged
from repo_tools.publishing.submit import signers
from repo_tools.signing.ceremony import finish_complete
from repo_tools.signing.rules import enforce
from repo_tools.signing.start import planned_targets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime
    from pathlib import Path

    from tuf.api.metadata import TargetFile

    from repo_tools.metadata.repository import RepositoryState
    from repo_tools.publishing.edges import Edges
    from repo_tools.publishing.examine import Examined
    from repo_tools.publishing.inbox import Submission
    from repo_tools.publishing.online import OnlineKeys
    from repo_tools.publishing.publish import NothingToDo, Published
    from repo_tools.storage.protocol import Storage
    from repo_tools.workspace import Workspace

__all__ = [
    "Intake",
    "Outcome",
    "Verdict",
    "batch",
    "plan_with_inbox",
    "publish_with_inbox",
    "take_in",
]

BATCH = 256
"""Submissions of one run: whoever floods the inbox does not keep a publisher for ever."""
_ROUNDS = 3
_SMALL = ("channels/", "holds/")
_BINS = "bins"
_STEP = 64
"""Hash bins between two reports of progress."""


class Outcome(enum.Enum):
    """What becomes of a submission."""

    PUBLISHED = "published"
    REFUSED = "refused"
    WAITS = "waits"
    TAKEN = "taken"
    """It goes with the publish in hand."""


@dataclass(frozen=True)
class Verdict:
    """What is said about one submission."""

    id: str
    role: str
    version: int
    outcome: Outcome
    reason: str = ""
    hint: str = ""

    def answer(self, now: datetime) -> inbox.Answer:
        """The same, as it is kept in the inbox."""
        return inbox.Answer(
            outcome=self.outcome.value,
            role=self.role,
            version=self.version,
            reason=self.reason,
            hint=self.hint,
            when=format_time(now),
        )


@dataclass(frozen=True)
class Intake:
    """What a run takes out of the inbox.

    Attributes:
        workspace: with what is taken as part of what is staged.
        verdicts: about every submission that was looked at.
        listing: of the inbox; None if nobody looked.
    """

    workspace: Workspace
    verdicts: tuple[Verdict, ...] = ()
    listing: inbox.Listing | None = None

    @property
    def taken(self) -> bool:
        """Whether anything goes with the publish in hand."""
        return any(each.outcome is Outcome.TAKEN for each in self.verdicts)


@dataclass(frozen=True)
class _Item:
    """A submission that is good by itself, its bytes at hand.

    Attributes:
        id: its name.
        submission: what it says.
        place: where its bytes are.
        handover: it goes with the next targets role alone.
        brings: versions of roles that it would make live, by name; of two that bring one role, one
            goes.
    """

    id: str
    submission: Submission
    place: Path
    handover: bool
    brings: Mapping[str, int]


@dataclass
class _Judges:
    """One look at the inbox: what is live, what targets comes next, and what was said so far."""

    workspace: Workspace
    storage: Storage
    state: RepositoryState
    now: datetime
    following: Targets | None
    progress: Callable[[str], None] = lambda _: None
    verdicts: list[Verdict] = field(default_factory=list)

    def say(
        self, identity: str, submission: Submission | None, outcome: Outcome, error: FirmrootError
    ) -> None:
        role, version = (submission.role, submission.version) if submission else ("", 0)
        self.verdicts.append(Verdict(identity, role, version, outcome, error.message, error.hint))

    def gather(self, pending: Iterable[str], *, fetch: bool = True) -> list[_Item]:
        """Examine each by itself; builds first, and of one role the newest first."""
        found = [self._judge(each, fetch=fetch) for each in pending]
        return sorted((item for item in found if item is not None), key=_order)

    def _judge(self, identity: str, *, fetch: bool) -> _Item | None:
        """Examine one; None if something was said about it, or it is gone.

        Raises:
            RetryLaterError, ConfigurationError, OSError: the storage or this disk fails; that is
                no submitter's fault.
        """
        submission: Submission | None = None
        try:
            submission = inbox.read_submission(self.storage, identity)
            return self._look(identity, submission, fetch=fetch)
        except NotFoundError as error:
            if submission is not None:  # else another publisher has answered it, and cleared it
                missing = ActionRequiredError(
                    f"its bytes are not all there: {error.message}",
                    "whoever handed it in runs firmroot submit again",
                )
                self.say(identity, submission, Outcome.WAITS, missing)
        except (RetryLaterError, ConfigurationError, OSError):
            raise
        except FirmrootError as error:
            waits = isinstance(error, ActionRequiredError)
            outcome = Outcome.WAITS if waits else Outcome.REFUSED
            self.say(identity, submission, outcome, self._told(error))
        except Exception as error:  # noqa: BLE001  hostile input must not stop the others
            bug = f"this is a bug in firmroot: {type(error).__name__}: {shortened(error)}"
            self.say(identity, submission, Outcome.WAITS, NotTrustedError(bug, "report it"))
        return None

    def _told(self, error: FirmrootError) -> FirmrootError:
        """The error with what its submitter can do about it."""
        if not isinstance(error, BadSignatureError):
            return error
        names = signers(self.workspace, error.role)
        return NotTrustedError(
            error.message,
            f"{error.role} is signed by {names}; if its keys change, the targets role that says so "
            "must be with the publisher first (git pull), then: firmroot submit --again",
        )

    def _look(self, identity: str, submission: Submission, *, fetch: bool) -> _Item | None:
        place = _place(self.workspace, identity)
        if fetch:
            for before in place.glob("*.json"):
                before.unlink()  # a look before this one found less of it live
        data, found = self._examined(identity, submission)
        brings = self._look_at_bins(identity, submission, found, place, fetch=fetch)
        if found.live and not brings:
            done = Verdict(identity, submission.role, submission.version, Outcome.PUBLISHED)
            self.verdicts.append(done)
            return None
        if fetch:
            # What is staged is whole or not there at all: the bins lie elsewhere until all of them
            # have been read, and the role is written last.
            for name in brings:
                (place / _BINS / f"{name}.json").replace(place / f"{name}.json")
        if not found.live:
            brings[submission.role] = found.signed.version
            if fetch:
                self._take(identity, submission, data, found, place)
        return _Item(identity, submission, place, found.handover, brings)

    def _look_at_bins(
        self, identity: str, submission: Submission, found: Examined, place: Path, *, fetch: bool
    ) -> dict[str, int]:
        """Versions of the hash bins that go with a role and are not live, by name."""
        above = None if is_bin(submission.role) else found.signed
        brings: dict[str, int] = {}
        for number, each in enumerate(inbox.read_bin_list(self.storage, identity, submission)):
            if number % _STEP == 0:
                self.progress(f"look at {submission.role} in the inbox, hash bin {number + 1}")
            data, piece = self._examined(identity, each, above)
            if piece.live:
                continue
            brings[each.role] = piece.signed.version
            if fetch:
                self._take(identity, each, data, piece, place, place / _BINS)
        return brings

    def _take(
        self,
        identity: str,
        submission: Submission,
        data: bytes,
        found: Examined,
        place: Path,
        roles: Path | None = None,
    ) -> None:
        self._check_own(submission, data)
        _unpack(self.storage, identity, submission, data, found, place, roles or place)

    def _examined(
        self, identity: str, submission: Submission, above: Targets | None = None
    ) -> tuple[bytes, Examined]:
        """A role of a submission, and what is to be said about it by itself.

        Args:
            identity: of the submission.
            submission: what it says of the role.
            above: the builds role that goes with a hash bin; None if that is live.
        """
        role, limit = submission.role, Limits().targets
        if submission.length > limit:
            raise RefusedError(
                f"{role} {submission.version} has {submission.length} bytes; every "
                f"client that was shipped stops reading at {limit}"
            )
        path = inbox.object_path(identity, submission.sha256)
        data = self.storage.read(path, submission.length).data
        # Reads nothing of a role that is no bin.
        state = read_bins(self.storage, self.state, [role])
        epoch = self.workspace.epoch
        try:
            found = examine(state, submission, data, epoch, self.now, self.following, above)
        except BadSignatureError as error:
            raise self._awaited(role, data) or error from None
        return data, found

    def _awaited(self, role: str, data: bytes) -> ActionRequiredError | None:
        """Why a role waits that the keys of the policy have signed, and no signed targets names."""
        ws = self.workspace
        try:
            authentic(Targets, planned_targets(ws, ws.config.products, self.now), role, data)
        except FirmrootError:
            return None
        return ActionRequiredError(
            f"{role} is signed with new keys, and the targets role that names them is not signed "
            "yet or not with the publisher",
            "firmroot sign, by the people of targets; then git pull here",
        )

    def _check_own(self, submission: Submission, data: bytes) -> None:
        """Two versions of one role cannot go together; the workspace's own goes first."""
        own = replace(self.workspace, taken=()).staged_role(submission.role)
        if own is not None and own != data:
            raise ActionRequiredError(
                f"another {submission.role} is staged in the publisher's workspace and goes first"
            )


def _order(item: _Item) -> tuple[int, str, int, int, str]:
    """Of the same version of a role, the one with more and newer hash bins has the others in it."""
    role = item.submission.role
    rank = 0 if role.endswith("-builds") else 1 if is_bin(role) else 2
    return (rank, role, -item.submission.version, -sum(item.brings.values()), item.id)


def _place(ws: Workspace, identity: str) -> Path:
    return ws.memory / "inbox" / identity


def _unpack(
    storage: Storage,
    identity: str,
    submission: Submission,
    data: bytes,
    found: Examined,
    place: Path,
    roles: Path,
) -> None:
    """Copy what it brings, hashed on the way; the role is written last, into a folder for roles.

    Raises:
        NotTrustedError: a file is not the one that is signed.
        NotFoundError: a file is neither in the inbox nor in the storage.
    """
    for stored, target in found.new.items():
        digest = target.hashes["sha256"]
        final = place / stored
        if not final.exists() and not _copy(
            storage, inbox.object_path(identity, digest), target, found, final
        ):
            with storage.open(stored):
                continue  # an earlier publish was interrupted when it had uploaded it
        if target.path.startswith(_SMALL):
            check_file(submission.role, target.path, final.read_bytes())
    replace_file(roles / f"{submission.role}.json", data)


def _copy(storage: Storage, path: str, target: TargetFile, found: Examined, final: Path) -> bool:
    """Copy one file; False if it is not in the inbox."""
    make_directory(final.parent)
    whole, segments, length = hashlib.sha256(), bytearray(), 0
    with (
        translate_disk_full(final),
        temporary_file(final.parent, final.name) as (descriptor, temporary),
    ):
        try:
            with storage.open(path) as file:
                while length <= target.length and (piece := file.read(SEGMENT)):
                    length += len(piece)
                    whole.update(piece)
                    segments += hashlib.sha256(piece).digest()
                    view = memoryview(piece)
                    while view:
                        view = view[os.write(descriptor, view) :]
        except NotFoundError:
            return False
        if length != target.length or whole.hexdigest() != target.hashes["sha256"]:
            raise NotTrustedError(
                f"{target.path} has {length} bytes with sha256 {whole.hexdigest()}, expected "
                f"{target.length} bytes with {target.hashes['sha256']}",
                "hand it in again: firmroot submit --again",
            )
        listed = found.signed.targets.get(target.path + SUFFIX)
        expected = segments_digest(target.custom or {}, target.path)
        if listed is not None:
            expected = listed.hashes["sha256"]
        if expected is not None and sha256(bytes(segments)) != expected:
            raise RefusedError(
                f"{target.path}{SUFFIX} is not the list of its segments",
                "no device could install it: add the firmware again under a new version",
            )
        os.fsync(descriptor)
        temporary.replace(final)
        sync_directory(final.parent)
    return True


def take_in(
    ws: Workspace,
    storage: Storage,
    now: datetime,
    trial: Callable[[Workspace], object],
    *,
    fetch: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> Intake:
    """Decide what of the inbox goes with a publish. Writes to this machine only.

    Args:
        ws: the workspace; the caller holds its lock.
        storage: with the inbox.
        now: the time.
        trial: plans and rehearses a publish of what a workspace has staged.
        fetch: copy what is good, and try it; otherwise only say what has an end already.
        progress: told now and then what is looked at.

    Raises:
        FirmrootError: as the trial, where the inbox is not to blame.
    """
    listing = inbox.list_inbox(storage)
    _forget(ws, listing.pending)
    if not listing.pending:
        return Intake(ws, (), listing)
    if fetch:
        # What people have signed may be what a submission goes with.
        enforce(ws, now)
        finish_complete(ws)
    live = read_base(ws, storage)
    if live.tag is None:
        return Intake(ws, (), listing)
    judges = _Judges(ws, storage, live.state, now, next_targets(ws, live.state), progress)
    items = judges.gather(batch(listing, now), fetch=fetch)
    chosen = _choose(ws, items, trial, judges) if fetch and items else []
    for each in chosen:
        role, version = each.submission.role, each.submission.version
        judges.verdicts.append(Verdict(each.id, role, version, Outcome.TAKEN))
    return Intake(_with(ws, chosen), tuple(judges.verdicts), listing)


def batch(listing: inbox.Listing, now: datetime) -> list[str]:
    """Which submissions to look at: new ones first, and those that wait in ever another order.

    Attack: a crowd that waits for ever keeps an honest one from its turn.
    """

    def turn(identity: str) -> tuple[bool, str]:
        noted = identity in listing.noted
        return noted, sha256(f"{format_time(now)}{identity}".encode()) if noted else identity

    return sorted(listing.pending, key=turn)[:BATCH]


def _with(ws: Workspace, items: Iterable[_Item]) -> Workspace:
    return replace(ws, taken=tuple(each.place for each in items))


def _choose(
    ws: Workspace,
    items: list[_Item],
    trial: Callable[[Workspace], object],
    judges: _Judges,
) -> list[_Item]:
    """The submissions that can be published together; the others are told why not."""
    roles = [role for each in items for role in each.brings]
    apart = len(set(roles)) == len(roles)
    if apart and _failure(trial, _with(ws, items)) is None:
        return items
    own = _failure(trial, ws)
    chosen = _handover(ws, items, trial)
    if chosen:
        own = None
    for each in items:
        if each in chosen:
            continue
        rival = next((one for one in chosen if one.brings.keys() & each.brings.keys()), None)
        if rival is not None:
            error: FirmrootError | None = ActionRequiredError(
                f"version {rival.submission.version} of {rival.submission.role} goes first"
            )
        else:
            error = _failure(trial, _with(ws, [*chosen, each]))
        if error is None:
            chosen.append(each)
            continue
        if own is not None and (type(own), own.message) == (type(error), error.message):
            raise error
        final = isinstance(error, (RefusedError, NotTrustedError)) and not isinstance(
            error, StrandedError
        )
        judges.say(each.id, each.submission, Outcome.REFUSED if final else Outcome.WAITS, error)
    return chosen


def _handover(
    ws: Workspace, items: Iterable[_Item], trial: Callable[[Workspace], object]
) -> list[_Item]:
    """Roles signed with new keys, if they can go with the targets role that names these.

    None of them can go without the others, whatever else is in the inbox.
    """
    found: dict[str, _Item] = {}
    for each in items:
        if each.handover:
            found.setdefault(each.submission.role, each)
    going = list(found.values())
    return going if going and _failure(trial, _with(ws, going)) is None else []


def _failure(trial: Callable[[Workspace], object], ws: Workspace) -> FirmrootError | None:
    """Why what a workspace has staged cannot be published; None if it can.

    Raises:
        FirmrootError: no submission can be the reason.
    """
    try:
        trial(ws)
    except (OnlineKeysMissingError, RetryLaterError, LockedError, ConfigurationError):
        raise
    except FirmrootError as error:
        return error
    return None


def _forget(ws: Workspace, pending: Iterable[str]) -> None:
    """Remove the copies of what is no longer in the inbox."""
    kept = set(pending)
    for place in sorted((ws.memory / "inbox").glob("*")):
        if place.name not in kept:
            shutil.rmtree(place)


def _trial(
    storage: Storage,
    keys: OnlineKeys,
    now: datetime,
    accepted: frozenset[str],
    *,
    accept_jump: bool,
) -> Callable[[Workspace], object]:
    """Plan and rehearse what a workspace has staged."""

    def trial(ws: Workspace) -> None:
        found = plan_publish(ws, storage, keys, now, accept_jump=accept_jump)
        if isinstance(found, Prepared):
            check_stranding(found, accepted)

    return trial


def plan_with_inbox(
    ws: Workspace,
    storage: Storage,
    keys: OnlineKeys,
    now: datetime,
    *,
    accepted: frozenset[str] = frozenset(),
    accept_jump: bool = False,
    tell: Callable[[Verdict], None] = lambda _: None,
) -> tuple[Prepared | NothingToDo, tuple[Verdict, ...]]:
    """What a publish would do with what is staged and what is in the inbox. See `plan_publish`.

    Nobody is answered.

    Args:
        tell: told each verdict.
        ws: as the others, of `plan_publish`.
        storage: likewise.
        keys: likewise.
        now: likewise.
        accepted: factory exports that may be stranded, by id.
        accept_jump: likewise.
    """
    trial = _trial(storage, keys, now, accepted, accept_jump=accept_jump)
    intake = take_in(ws, storage, now, trial)
    for verdict in intake.verdicts:
        tell(verdict)
    found = plan_publish(intake.workspace, storage, keys, now, accept_jump=accept_jump)
    return found, intake.verdicts


def publish_with_inbox(  # noqa: PLR0913  each is a decision of the caller
    ws: Workspace,
    storage: Storage,
    keys: OnlineKeys,
    now: datetime,
    *,
    accepted: frozenset[str] = frozenset(),
    resume: bool = True,
    accept_jump: bool = False,
    edges: Edges = NO_EDGES,
    progress: Callable[[str], None] = lambda _: None,
    tell: Callable[[Verdict], None] = lambda _: None,
) -> tuple[Published | NothingToDo, tuple[Verdict, ...]]:
    """Publish what is staged and what is good in the inbox, and answer. See `publish`.

    Killed anywhere and run again, it finishes.

    Args:
        tell: told each verdict; the refusals also where the publish then fails.
        ws: as the others, of `publish`.
        storage: likewise.
        keys: likewise.
        now: likewise.
        accepted: likewise.
        resume: likewise.
        accept_jump: likewise.
        edges: likewise.
        progress: likewise.
    """
    _finish_interrupted(ws, storage)
    trial = _trial(storage, keys, now, accepted, accept_jump=accept_jump)
    for left in reversed(range(_ROUNDS)):
        intake = take_in(ws, storage, now, trial, progress=progress)
        said = _answer(storage, intake, now, tell)
        try:
            found = publish_staged(
                intake.workspace,
                storage,
                keys,
                now,
                accepted=accepted,
                resume=resume,
                accept_jump=accept_jump,
                edges=edges,
                progress=progress,
            )
        except StaleError:
            # Another publisher was faster: what was made from the same base is stale now.
            if not intake.taken or not left:
                raise
            continue
        break
    if intake.taken:
        after = take_in(ws, storage, now, trial, fetch=False, progress=progress)
        said += _answer(storage, after, now, tell)
    return found, said


def _finish_interrupted(ws: Workspace, storage: Storage) -> None:
    """What a publish that was killed after its commit still owes `history/`, while it is here.

    An answer is given from the live state, and with it the copies of what was taken go.
    """
    if load_journal(ws) is not None:
        finish_interrupted(ws, storage, read_base(ws, storage))


def _answer(
    storage: Storage, intake: Intake, now: datetime, tell: Callable[[Verdict], None]
) -> tuple[Verdict, ...]:
    """Say what has been decided, and clear what has an end. Other publishers may do the same."""
    for each in intake.listing.leftovers if intake.listing else ():
        inbox.clear(storage, each)
    said = tuple(each for each in intake.verdicts if each.outcome is not Outcome.TAKEN)
    for verdict in said:
        if verdict.outcome is Outcome.WAITS:
            inbox.note(storage, verdict.id, verdict.answer(now))
        else:
            inbox.answer(storage, verdict.id, verdict.answer(now))
            inbox.clear(storage, verdict.id)
            shutil.rmtree(_place(intake.workspace, verdict.id), ignore_errors=True)
        tell(verdict)
    return said
