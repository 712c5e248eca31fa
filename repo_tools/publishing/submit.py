"""Handing signed work to the publisher, without any online key.

What is staged below `targets` is examined as the publisher will, made anew where this machine can
do that and must (`rebase`), and put into the inbox: the hash bins of a product, with their builds
role if that changes, as one submission. What was handed in is remembered before the
first byte goes up (`.firmroot/submitted/ID.json`): a run that was killed anywhere finishes, or
finds everything there, when it is run again. What is live by now is cleared from this machine.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tuf.api.metadata import Targets

from client_reference.errors import (
    ActionRequiredError,
    ConfigurationError,
    LockedError,
    NotFoundError,
    NotTrustedError,
    RefusedError,
)
from client_reference.trust.verified import BadSignatureError
from repo_tools.files import replace_file
from repo_tools.metadata.bins import builds_of, is_bin
from repo_tools.metadata.repository import parse, sha256
from repo_tools.publishing import inbox
from repo_tools.publishing.examine import check_file, delegated, examine, is_builds, is_live
from repo_tools.publishing.inbox import Submission, parse_bin_list, parse_submission
from repo_tools.publishing.journal import settle
from repo_tools.publishing.live import read_bins
from repo_tools.publishing.plan import StaleError
from repo_tools.publishing.prepare import is_stored, next_targets, read_base
from repo_tools.publishing.rebase import rebase_bins, rebase_builds
from repo_tools.publishing.renewal import rebase_whole
from repo_tools.signing.rules import templates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime
    from pathlib import Path

    from client_reference.errors import FirmrootError
    from repo_tools.metadata.repository import RepositoryState
    from repo_tools.publishing.examine import Examined
    from repo_tools.publishing.rebase import Rebased
    from repo_tools.signing.secrets import Secrets
    from repo_tools.storage.protocol import Storage
    from repo_tools.workspace import Workspace

__all__ = [
    "BY_GIT",
    "Fate",
    "Handed",
    "Standing",
    "handed_in",
    "handed_in_digests",
    "signers",
    "standings",
    "submit",
]

_NAMES = 3
"""How many more names are tried where somebody else's bytes lie under one."""
BY_GIT = ("root", "targets")
"""Roles that come to the publisher with the policy and the keys that they put into force."""


class Fate(enum.Enum):
    """Where a submission is."""

    HANDED_IN = "handed in"
    ALREADY_THERE = "already there"
    WAITS = "waits"
    UNFINISHED = "unfinished"
    PUBLISHED = "published"
    REFUSED = "refused"


@dataclass(frozen=True)
class Standing:
    """What became of one submission so far."""

    id: str
    role: str
    version: int
    fate: Fate
    reason: str = ""
    hint: str = ""
    bins: int = 0
    """Hash bins that go with it."""


@dataclass(frozen=True)
class Handed:
    """What one run did.

    Attributes:
        standings: of everything that is staged and goes this way.
        rebased: builds roles that were made anew.
        by_git: staged roles that do not go this way.
    """

    standings: tuple[Standing, ...]
    rebased: tuple[Rebased, ...]
    by_git: tuple[str, ...]


def submit(
    ws: Workspace,
    storage: Storage,
    secrets: Secrets,
    now: datetime,
    *,
    again: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Handed:
    """Hand in what is staged. The caller holds the workspace's lock.

    Args:
        ws: the workspace.
        storage: with the inbox.
        secrets: of builds keys, where builds must be made anew.
        now: the time.
        again: hand in once more what was refused.
        progress: told each step.

    Raises:
        ActionRequiredError: nothing is live yet, or somebody must sign again; says who.
        RefusedError: the publisher would refuse it.
        NotTrustedError, RetryLaterError, LockedError: as `read_base` and `hand_in`.
    """
    state = _live(ws, storage)
    rebased = [
        each
        for product in ws.config.products
        for rebase in (rebase_whole, rebase_builds, rebase_bins)
        if (each := rebase(ws, storage, state, product, secrets, now)) is not None
    ]
    found: list[Standing] = []
    staged = ws.staged_roles()
    # What was made anew may have bins that are live and were not staged here before.
    state = read_bins(storage, state, filter(is_bin, staged))
    new = {}
    for role, data in staged.items():
        if role in BY_GIT:
            continue
        if is_live(state, role, data):
            found.append(Standing("", role, _version(role, data), Fate.PUBLISHED))
        else:
            new[role] = data
    found += [
        _hand_in(ws, storage, state, parts, now, again=again, progress=progress)
        for parts in _together(new)
    ]
    _tidy(ws, state)
    published = {*state.roots, state.roles["targets"]}
    by_git = tuple(
        role for role, data in staged.items() if role in BY_GIT and data not in published
    )
    return Handed(tuple(found), tuple(rebased), by_git)


def _together(new: Mapping[str, bytes]) -> list[dict[str, bytes]]:
    """What makes a submission each: a role, and after it the hash bins that go with it.

    What goes with a builds role is nothing without it; and bins alone are one builder's releases,
    whose sequences follow each other: half of them could not be published later.
    """
    found = {role: {role: data} for role, data in new.items() if not is_bin(role)}
    first: dict[str, str] = {}
    for role in sorted(filter(is_bin, new)):
        above = builds_of(role)
        head = above if above in new else first.setdefault(above, role)
        found.setdefault(head, {})[role] = new[role]
    return list(found.values())


def _live(ws: Workspace, storage: Storage) -> RepositoryState:
    """What is live; without it there is nothing to hold a signature against.

    Raises:
        ActionRequiredError: nothing is.
    """
    live = read_base(ws, storage)
    if live.tag is None:
        raise ActionRequiredError(
            "nothing is published yet: the first publish, of root and targets, comes before any "
            "submission",
            "where the online keys are: firmroot publish",
        )
    return live.state


def _hand_in(
    ws: Workspace,
    storage: Storage,
    state: RepositoryState,
    parts: Mapping[str, bytes],
    now: datetime,
    *,
    again: bool,
    progress: Callable[[str], None],
) -> Standing:
    """Hand in one submission.

    Args:
        parts: a role, and after it the hash bins that go with it.
        ws: as the others, of `submit`.
        storage: likewise.
        state: what is live.
        now: likewise.
        again: likewise.
        progress: likewise.
    """
    role, *_ = parts
    _check_lineage(ws, state, role, parts[role])
    pieces = {name: _submission(ws, state, name, data) for name, data in parts.items()}
    following, above = next_targets(ws, state), None
    objects: dict[str, bytes | Path] = {}
    for name, piece in pieces.items():
        try:
            found = examine(state, piece, parts[name], ws.epoch, now, following, above)
        except BadSignatureError as error:
            raise _badly_signed(ws, state, piece, error) from error
        if not is_bin(name):
            above = found.signed
        objects |= {piece.sha256: parts[name], **_files(ws, storage, name, found)}
    first = pieces.pop(role)
    listed = b""
    if pieces:
        listed = inbox.bin_list(pieces)
        first = replace(first, bins=sha256(listed))
        objects[first.bins] = listed
    standing = _put(ws, storage, first, listed, objects, again=again, progress=progress)
    return replace(standing, bins=len(pieces))


def _put(
    ws: Workspace,
    storage: Storage,
    first: Submission,
    listed: bytes,
    objects: Mapping[str, bytes | Path],
    *,
    again: bool,
    progress: Callable[[str], None],
) -> Standing:
    """Put a submission into the inbox, under the first of its names that is free.

    Args:
        first: its first attempt.
        listed: the list of its hash bins; empty if there are none.
        objects: its bytes by digest.
        ws: as the others, of `submit`.
        storage: likewise.
        again: likewise.
        progress: likewise.

    Raises:
        LockedError: somebody else's bytes lie under every name that was tried.
    """
    role, version = first.role, first.version
    before = sum(each.sha256 == first.sha256 for each in handed_in(ws).values())
    for left in reversed(range(before + _NAMES)):
        submission, refused = _attempt(storage, first, again=again)
        identity = submission.id
        if refused is not None:
            return Standing(identity, role, version, Fate.REFUSED, refused.reason, refused.hint)
        if listed:
            replace_file(ws.memory / "submitted" / f"{identity}.bins", listed)
        replace_file(ws.memory / "submitted" / f"{identity}.json", submission.to_json())
        progress(f"hand in {role} {version} as {identity}")
        try:
            if inbox.hand_in(storage, submission, objects, progress):
                return Standing(identity, role, version, Fate.HANDED_IN)
        except LockedError as error:
            # Attack: who can write to the inbox puts other bytes under a name of this submission,
            # and nobody could hand it in any more.
            if not left:
                raise LockedError(
                    error.message,
                    "who can write to the inbox put it there: find out who; firmroot submit tries "
                    "other names, and firmroot gc removes what lies under these",
                ) from error
            first = replace(submission, attempt=submission.attempt + 1)
            continue
        break
    waits = inbox.read_note(storage, identity)
    reason, hint = ("", "") if waits is None else (waits.reason, waits.hint)
    return Standing(identity, role, version, Fate.ALREADY_THERE, reason, hint)


def _submission(ws: Workspace, state: RepositoryState, role: str, data: bytes) -> Submission:
    """What is said of a role that is handed in for the first time."""
    live = state.roles.get(role)
    return Submission(
        role=role,
        version=_version(role, data),
        length=len(data),
        sha256=sha256(data),
        base="" if live is None else sha256(live),
        epoch=ws.epoch,
    )


def _badly_signed(
    ws: Workspace, state: RepositoryState, submission: Submission, error: BadSignatureError
) -> ActionRequiredError:
    """Who must sign; or what must come first, where the policy gives the role other keys."""
    role = submission.role
    live = [ws.key_name(keyid) for keyid in delegated(state, role).keyids]
    hint = f"they sign it again: {_signing_again(state, role)}"
    template = templates(ws).get(role)
    if template is not None and set(ws.policy.role(role, template).keys) != set(live):
        hint = (
            f"its keys change to {signers(ws, role)}: once the targets role that says so is signed "
            "and on this machine (firmroot sign; git pull): firmroot submit"
        )
    return ActionRequiredError(
        f"{error.message}: {role} {submission.version} is not signed by the keys that the live "
        f"targets role names, {' or '.join(live)}",
        hint,
    )


def signers(ws: Workspace, role: str) -> str:
    """Whose keys sign a role, for a message; nothing where the policy does not have it yet."""
    role = builds_of(role) if is_bin(role) else role
    template = templates(ws).get(role)
    if template is None:
        return "nobody that this clone knows"
    return " or ".join(ws.policy.role(role, template).keys)


def _signing_again(state: RepositoryState, role: str) -> str:
    if is_builds(delegated(state, role)):
        return "firmroot firmware add FILE, then: firmroot submit"
    return "git pull, then the change again (firmroot channel ...); firmroot sign; firmroot submit"


def _check_lineage(ws: Workspace, state: RepositoryState, role: str, data: bytes) -> None:
    """What people signed was made from what their clone believes to be live.

    Raises:
        StaleError: something else is; says who must sign again.
    """
    live = state.roles.get(role)
    known = ws.published_role(role)
    if is_builds(delegated(state, role)) or live == known:
        return
    ours = {each.sha256 for each in handed_in(ws).values()}
    version = parse(data, Targets, role).signed.version
    if live is not None and sha256(live) in ours and version > _version(role, live):
        return
    raise StaleError(
        f"{role} {version} was made from {_named(role, known)}, and {_named(role, live)} is live: "
        f"it must be signed again, by {signers(ws, role)}",
        _signing_again(state, role),
    )


def _version(role: str, data: bytes) -> int:
    return parse(data, Targets, role).signed.version


def _named(role: str, data: bytes | None) -> str:
    return "nothing" if data is None else f"version {_version(role, data)}"


def _files(ws: Workspace, storage: Storage, role: str, found: Examined) -> dict[str, bytes | Path]:
    """The files that go with a role, by digest.

    Raises:
        RefusedError: one is neither here nor in the storage.
    """
    waiting = ws.staged_targets()
    files: dict[str, bytes | Path] = {}
    for stored, target in found.new.items():
        if stored in waiting:
            if target.path.startswith(("channels/", "holds/")):
                check_file(role, target.path, waiting[stored].read_bytes())
            files[target.hashes["sha256"]] = waiting[stored]
        elif not is_stored(storage, stored):
            raise RefusedError(
                f"{target.path} is signed, but its bytes are neither here nor in the storage",
                "hand it in on the machine where it was added, or add the same file here again",
            )
    return files


def _attempt(
    storage: Storage, first: Submission, *, again: bool
) -> tuple[Submission, inbox.Answer | None]:
    """The attempt that is not answered yet; or the last one that was refused, and why."""
    submission = first
    while (answer := inbox.read_answer(storage, submission.id)) is not None:
        following = replace(submission, attempt=submission.attempt + 1)
        last = inbox.read_answer(storage, following.id) is None and not inbox.is_there(
            storage, following
        )
        # It is not live: an answer that says so is not believed.
        if last and answer.outcome == "refused" and not again:
            return submission, answer
        submission = following
    return submission, None


def _tidy(ws: Workspace, state: RepositoryState) -> None:
    """Clear what is live from this machine, and keep what is live as the base of the next change.

    Not while something that people signed is under way: what it was made from would be forgotten.
    """
    staged = {path.stem: path.read_bytes() for path in ws.staged.glob("*.json")}
    published = {state.roots[-1], *state.roles.values()}
    if all(data in published for data in staged.values()):
        settle(ws, state)


def handed_in(ws: Workspace) -> dict[str, Submission]:
    """What was handed in from this machine, by id.

    Raises:
        NotTrustedError: a file of it is damaged.
    """
    found: dict[str, Submission] = {}
    for path in sorted((ws.memory / "submitted").glob("*.json")):
        try:
            found[path.stem] = parse_submission(path.read_bytes())
        except NotTrustedError as error:
            raise _damaged(path, error) from error
    return found


def _damaged(path: Path, error: FirmrootError) -> NotTrustedError:
    return NotTrustedError(
        f".firmroot/submitted/{path.name} is damaged: {error.message}",
        "remove it: what it names is in the inbox or not, as before",
    )


def handed_in_digests(ws: Workspace) -> frozenset[str]:
    """SHA-256 of every role that was handed in from this machine, hash bins included.

    Raises:
        NotTrustedError: a file that says so is damaged.
    """
    found: set[str] = set()
    for identity, each in handed_in(ws).items():
        found.add(each.sha256)
        path = ws.memory / "submitted" / f"{identity}.bins"
        if not path.exists():
            continue
        try:
            found.update(piece.sha256 for piece in parse_bin_list(path.read_bytes(), each))
        except (NotTrustedError, RefusedError) as error:
            raise _damaged(path, error) from error
    return frozenset(found)


def standings(
    ws: Workspace, storage: Storage, identities: Iterable[str] = ()
) -> tuple[Standing, ...]:
    """What became of submissions: the newest of each role of this machine, or those named.

    The live state is believed, an answer is only told.

    Raises:
        ConfigurationError: no submission is named so.
        ActionRequiredError, NotTrustedError, RetryLaterError: as `read_base`.
    """
    state = _live(ws, storage)
    known = handed_in(ws)
    newest: dict[str, tuple[int, int, str]] = {}
    for identity, each in known.items():
        place = (each.version, each.attempt, identity)
        newest[each.role] = max(newest.get(each.role, place), place)
    named = list(identities) or [identity for *_, identity in newest.values()]
    wanted = {identity: _find(identity, known, storage) for identity in named}
    return tuple(
        _standing(storage, state, identity, submission)
        for identity, submission in sorted(
            wanted.items(), key=lambda each: (each[1].role, each[1].version) if each[1] else ("", 0)
        )
    )


def _find(identity: str, known: Mapping[str, Submission], storage: Storage) -> Submission | None:
    if identity in known:
        return known[identity]
    if not inbox.is_id(identity):
        raise ConfigurationError(
            f"{identity!r} is not the id of a submission: 64 hex digits were expected",
            "firmroot submit --status",
        )
    try:
        return inbox.read_submission(storage, identity)
    except NotFoundError:
        if inbox.read_answer(storage, identity) is None:
            raise ConfigurationError(
                f"there is no submission {identity}", "firmroot submit --status"
            ) from None
        return None


def _standing(
    storage: Storage, state: RepositoryState, identity: str, submission: Submission | None
) -> Standing:
    role, version = (submission.role, submission.version) if submission else ("", 0)
    live = state.roles.get(role)
    # While it is in the inbox, hash bins that go with it may not be live.
    if (
        submission is not None
        and live is not None
        and sha256(live) == submission.sha256
        and not (submission.bins and inbox.is_there(storage, submission))
    ):
        return Standing(identity, role, version, Fate.PUBLISHED)
    answer = inbox.read_answer(storage, identity)
    if answer is not None:
        fate = Fate.PUBLISHED if answer.outcome == "published" else Fate.REFUSED
        role, version = role or answer.role, version or answer.version
        return Standing(identity, role, version, fate, answer.reason, answer.hint)
    if submission is not None and not inbox.is_there(storage, submission):
        return Standing(
            identity,
            role,
            version,
            Fate.UNFINISHED,
            "it is not in the inbox: handing it in was interrupted, or it was removed",
            "firmroot submit",
        )
    note = inbox.read_note(storage, identity)
    reason, hint = ("for the publisher", "") if note is None else (note.reason, note.hint)
    return Standing(identity, role, version, Fate.WAITS, reason, hint)
