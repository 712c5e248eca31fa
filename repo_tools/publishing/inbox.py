"""The inbox: signed work on its way to the publisher, on the storage and never served.

Whoever signs builds or channels puts a *submission* here and needs no online key; the publisher
alone takes it out (`intake`). Everything is create-only, so two submitters never overwrite each
other, and nothing here is truth: a publisher believes the signatures, never the submitter, and a
submitter believes the live state, never an answer. The layout, below `inbox/`:

* `submissions/ID/SHA256`: the bytes of a role, of the hash bins that go with it and of the target
  files that they bring; the list of those bins;
* `submissions/ID/submission.json`: which role, and what live state it is made for; written last,
  with it the submission exists. ID is its SHA-256, so the same work always has the same name;
* `waiting/ID.json`: why the publisher did not take it yet; goes when it does;
* `answers/ID.json`: what became of it, for good. What is answered is cleared.

Roles below `targets` go this way. Root and `targets` do not: they come by git with the policy and
the keys that they put into force, and a root is the one thing that cannot be taken back.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from client_reference import strictjson
from client_reference.errors import LockedError, NotFoundError, NotTrustedError, RefusedError
from repo_tools.metadata.bins import MAX_BINS, builds_of, is_bin
from repo_tools.metadata.repository import sha256
from repo_tools.storage.protocol import Created

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from repo_tools.storage.protocol import Storage

__all__ = [
    "INBOX",
    "Answer",
    "Listing",
    "Submission",
    "answer",
    "bin_list",
    "clear",
    "hand_in",
    "is_id",
    "is_there",
    "list_inbox",
    "note",
    "object_path",
    "parse_bin_list",
    "parse_submission",
    "read_answer",
    "read_bin_list",
    "read_note",
    "read_submission",
]

INBOX = "inbox/"
MAX_DOCUMENT = 65_536
"""Bytes of a submission or an answer."""
MAX_BIN_LIST = 8 * 1_048_576
"""Bytes of the list of hash bins of a submission: there are at most `MAX_BINS`."""

_SUBMISSIONS, _ANSWERS, _WAITING = f"{INBOX}submissions/", f"{INBOX}answers/", f"{INBOX}waiting/"
_DOCUMENT = "submission.json"
_ID = re.compile(r"[0-9a-f]{64}")
_ROLE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*(_-[0-9a-f]{1,4})?")
_OF_A_BIN = ("version", "length", "sha256", "base")
_SHORT = 2000
_STEP = 256
"""Objects between two reports of progress."""


@dataclass(frozen=True)
class Submission:
    """What a submitter says about the work; nothing of it is believed before it was verified.

    Attributes:
        role: whose next version it is.
        version: of that role.
        length: bytes of its metadata.
        sha256: hex digest of its metadata.
        base: hex digest of the live metadata that it replaces; empty if nothing is live.
        epoch: of the repository.
        attempt: counts how often the same work was handed in after it was refused.
        bins: hex digest of the list of hash bins that go with it (`bin_list`); empty if none do.
    """

    role: str
    version: int
    length: int
    sha256: str
    base: str
    epoch: int
    attempt: int = 1
    bins: str = ""

    def to_json(self) -> bytes:
        """The document."""
        said = {name: value for name, value in vars(self).items() if name != "bins" or value}
        return strictjson.serialize({"schema": 1, **said})

    @property
    def id(self) -> str:
        """Its name in the inbox."""
        return sha256(self.to_json())


@dataclass(frozen=True)
class Answer:
    """What became of a submission, or why it still waits.

    Attributes:
        outcome: `published` or `refused`; `waits` in a note.
        role: whose version it was, as far as that could be read.
        version: likewise.
        reason: for people.
        hint: what the submitter should do.
        when: `YYYY-MM-DDTHH:MM:SSZ`.
    """

    outcome: str
    role: str
    version: int
    reason: str
    hint: str
    when: str

    def to_json(self) -> bytes:
        """The document."""
        texts = {"reason": self.reason[:_SHORT], "hint": self.hint[:_SHORT]}
        return strictjson.serialize({"schema": 1, **vars(self), **texts})


@dataclass(frozen=True)
class Listing:
    """What is in the inbox, by name alone.

    Attributes:
        pending: ids of submissions without an answer, sorted.
        leftovers: ids that have an answer, and of which something is left.
        noted: those of them that were looked at before, and wait.
        unfinished: ids whose document was never written: a submitter was interrupted.
        strangers: objects that are no part of any submission.
    """

    pending: tuple[str, ...]
    noted: frozenset[str]
    leftovers: tuple[str, ...]
    unfinished: tuple[str, ...]
    strangers: tuple[str, ...]


def object_path(identity: str, digest: str) -> str:
    """Where the bytes with that digest are, of one submission."""
    return f"{_SUBMISSIONS}{identity}/{digest}"


def list_inbox(storage: Storage) -> Listing:
    """Look at the names. Raises as `Storage.paths`."""
    found: dict[str, set[str]] = {}
    said: dict[str, set[str]] = {"answers": set(), "waiting": set()}
    strangers: list[str] = []
    for path in storage.paths(INBOX):
        folder, _, name = path.removeprefix(INBOX).partition("/")
        identity, _, rest = name.partition("/")
        if folder == "submissions" and _ID.fullmatch(identity) and _is_part(rest):
            found.setdefault(identity, set()).add(rest)
        elif folder in said and _ID.fullmatch(name.removesuffix(".json")):
            said[folder].add(name.removesuffix(".json"))
        else:
            strangers.append(path)
    answered = said["answers"]
    whole = {identity for identity, names in found.items() if _DOCUMENT in names}
    return Listing(
        pending=tuple(sorted(whole - answered)),
        noted=frozenset(whole & said["waiting"] - answered),
        leftovers=tuple(sorted((found.keys() | said["waiting"]) & answered)),
        unfinished=tuple(sorted(found.keys() - whole - answered)),
        strangers=tuple(strangers),
    )


def _is_part(name: str) -> bool:
    return name == _DOCUMENT or _ID.fullmatch(name) is not None


def is_id(text: str) -> bool:
    """Whether a text has the form of an id."""
    return _ID.fullmatch(text) is not None


def is_there(storage: Storage, submission: Submission) -> bool:
    """Whether a submission was handed in completely."""
    try:
        return read_submission(storage, submission.id) == submission
    except NotFoundError:
        return False


def read_submission(storage: Storage, identity: str) -> Submission:
    """Read a submission.

    Raises:
        NotTrustedError: it is garbage, or another one than its name says.
        NotFoundError: there is none.
        RetryLaterError: the storage does not answer.
    """
    data = storage.read(f"{_SUBMISSIONS}{identity}/{_DOCUMENT}", MAX_DOCUMENT).data
    if sha256(data) != identity:
        raise NotTrustedError(
            f"submission {identity} has the SHA-256 {sha256(data)}, expected its name",
            "somebody else wrote it, or the storage damaged it; hand the work in again",
        )
    return parse_submission(data)


def parse_submission(data: bytes) -> Submission:
    """Pure: read the document.

    Raises:
        MalformedJsonError: it is none.
    """
    node = strictjson.parse(data, MAX_DOCUMENT, "submission")
    node.member("schema").integer(1, 1)
    bins = node.find("bins")
    return Submission(
        role=node.member("role").text(_ROLE),
        version=node.member("version").integer(1),
        length=node.member("length").integer(1),
        sha256=node.member("sha256").text(_ID),
        base=_digest_or_none(node.member("base")),
        epoch=node.member("epoch").integer(),
        attempt=node.member("attempt").integer(1),
        bins="" if bins is None else bins.text(_ID),
    )


def _digest_or_none(node: strictjson.Node) -> str:
    return node.text(_ID) if node.value else ""


def bin_list(bins: Mapping[str, Submission]) -> bytes:
    """The list of the hash bins that go with a role."""
    return strictjson.serialize(
        {
            "schema": 1,
            "bins": {
                name: {field: getattr(each, field) for field in _OF_A_BIN}
                for name, each in bins.items()
            },
        }
    )


def read_bin_list(
    storage: Storage, identity: str, submission: Submission
) -> tuple[Submission, ...]:
    """The hash bins that go with a role, each as a submission of its own, by name.

    Raises:
        NotTrustedError: the list is garbage, or another one than the submission says.
        RefusedError: it names what is no hash bin of this role, or too many of them.
        NotFoundError: there is none.
        RetryLaterError: the storage does not answer.
    """
    if not submission.bins:
        return ()
    data = storage.read(object_path(identity, submission.bins), MAX_BIN_LIST).data
    if sha256(data) != submission.bins:
        raise NotTrustedError(
            f"the list of hash bins of {submission.role} has sha256 {sha256(data)}, expected "
            f"{submission.bins}",
            "hand it in again: firmroot submit --again",
        )
    return parse_bin_list(data, submission)


def parse_bin_list(data: bytes, submission: Submission) -> tuple[Submission, ...]:
    """Pure: read the list. Raises as `read_bin_list`."""
    node = strictjson.parse(data, MAX_BIN_LIST, "bins")
    node.member("schema").integer(1, 1)
    bins = node.member("bins")
    names = sorted(bins.value) if isinstance(bins.value, dict) else []
    if not 0 < len(names) <= MAX_BINS:
        raise bins.wrong(f"an object of 1 to {MAX_BINS} hash bins")
    role = submission.role
    above = builds_of(role) if is_bin(role) else role
    found = []
    for name in names:
        if not is_bin(name) or builds_of(name) != above or name == role:
            raise RefusedError(
                f"{role} was handed in together with {name!r}; only hash bins of {above} go with it"
            )
        each = bins.member(name)
        found.append(
            Submission(
                role=name,
                version=each.member("version").integer(1),
                length=each.member("length").integer(1),
                sha256=each.member("sha256").text(_ID),
                base=_digest_or_none(each.member("base")),
                epoch=submission.epoch,
                attempt=submission.attempt,
            )
        )
    return tuple(found)


def hand_in(
    storage: Storage,
    submission: Submission,
    objects: Mapping[str, bytes | Path],
    progress: Callable[[str], None] = lambda _: None,
) -> bool:
    """Put a submission into the inbox. Killed anywhere and run again, it finishes.

    Args:
        storage: with the inbox.
        submission: what it is.
        objects: its bytes by digest, as bytes or as the file that holds them.
        progress: told now and then how far it is.

    Returns:
        whether it was not there before.

    Raises:
        LockedError: somebody put other bytes under its name.
        RetryLaterError: the storage failed; run it again.
    """
    for number, (digest, source) in enumerate(sorted(objects.items())):
        if number and number % _STEP == 0:
            progress(f"hand in {submission.role}: {number} of {len(objects)} objects")
        storage.create(object_path(submission.id, digest), source, digest)
    path = f"{_SUBMISSIONS}{submission.id}/{_DOCUMENT}"
    return storage.create(path, submission.to_json(), submission.id) is Created.NEW


def answer(storage: Storage, identity: str, found: Answer) -> None:
    """Say for good what became of a submission. The first answer stays."""
    data = found.to_json()
    with contextlib.suppress(LockedError):
        storage.create(f"{_ANSWERS}{identity}.json", data, sha256(data))


def note(storage: Storage, identity: str, found: Answer) -> None:
    """Say why a submission still waits; the newest note stays."""
    path, data = f"{_WAITING}{identity}.json", found.to_json()
    before = read_note(storage, identity)
    if before is not None and (before.reason, before.hint) == (found.reason, found.hint):
        return
    storage.remove(path)
    with contextlib.suppress(LockedError):
        storage.create(path, data, sha256(data))


def read_answer(storage: Storage, identity: str) -> Answer | None:
    """What became of a submission; None while nobody said so.

    Whoever can write there can say anything: it is shown, and nothing is done because of it.
    """
    return _read_answer(storage, f"{_ANSWERS}{identity}.json")


def read_note(storage: Storage, identity: str) -> Answer | None:
    """Why a submission waits; None if nobody said so."""
    return _read_answer(storage, f"{_WAITING}{identity}.json")


def _read_answer(storage: Storage, path: str) -> Answer | None:
    try:
        node = strictjson.parse(storage.read(path, MAX_DOCUMENT).data, MAX_DOCUMENT, path)
        return Answer(
            outcome=node.member("outcome").text(re.compile("published|refused|waits")),
            role=node.member("role").text(),
            version=node.member("version").integer(),
            reason=_lines(node.member("reason")),
            hint=_lines(node.member("hint")),
            when=node.member("when").text(),
        )
    except NotFoundError:
        return None
    except NotTrustedError as error:
        return Answer("refused", "", 0, f"{path} is damaged: {error.message}", "", "")


def _lines(node: strictjson.Node) -> str:
    """Text that may have several lines; whoever prints it shows control characters."""
    if not isinstance(node.value, str) or len(node.value) > _SHORT:
        raise node.wrong(f"text of at most {_SHORT} characters")
    return node.value


def clear(storage: Storage, identity: str) -> None:
    """Remove what is answered; killed anywhere and run again, it is gone."""
    top = f"{_SUBMISSIONS}{identity}/"
    document = top + _DOCUMENT
    storage.remove_all([path for path in storage.paths(top) if path != document])
    storage.remove(document)
    storage.remove(f"{_WAITING}{identity}.json")
