"""What was ever published and every ceremony that ended, by whom and why; and the proof of it.

A record of a publish names the record before it, the metadata that it changed and the ceremonies
that ended since, each by digest; `history/objects/` has the bytes. So each state is put together
and verified again from the first root on, with the checks of the device's own code and without a
network, and what changed is told from the bytes themselves. Rules:

* records only add up: one that lacks a field, names no predecessor, or is not the one that its
  follower was made after, is a problem;
* who signed is what the bytes say, not what the record says;
* a ceremony's record shows each signature that had verified; it must verify still.

A refresh leaves its timestamp, which the next publish takes (`publishing.replaced`) and names.
Whoever may write to the whole of git can remove the newest records; newer files in `metadata/` then
have none, but if only builds were new, nothing here misses them. When something was is as its
publisher said.
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Signature
from tuf.api.metadata import Root, Targets

from client_reference.errors import FirmrootError, NotFoundError, NotTrustedError
from repo_tools.metadata.anchor import walk
from repo_tools.metadata.bins import is_bin
from repo_tools.metadata.edits import signed_bytes
from repo_tools.metadata.repository import parse, sha256
from repo_tools.publishing.journal import read_kept, records
from repo_tools.publishing.live import HighWater, Mark, metadata_path, read_bins, read_live
from repo_tools.publishing.replaced import refresh_name
from repo_tools.reporting.difference import describe_change
from repo_tools.reporting.refreshes import (
    Refresh,
    Renewals,
    check_refresh,
    read_refreshes,
    runs,
)
from repo_tools.signing.ceremony import DIGITS, Ending, record_paths
from repo_tools.signing.ceremony.guards import keys_of
from repo_tools.signing.ceremony.reading import parse_role
from repo_tools.storage.protocol import Blob

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tuf.api.metadata import Key

    from repo_tools.metadata.repository import RepositoryState
    from repo_tools.workspace import Workspace

__all__ = [
    "Changes",
    "History",
    "Publication",
    "Rite",
    "anchor_problems",
    "changes",
    "problems",
    "read_history",
]

Changes: TypeAlias = "Mapping[tuple[str, str], tuple[str, ...]]"
"""What each publish changed in each role, in sentences, by name of the record and role."""

_TIMESTAMP, _SNAPSHOT = "timestamp", "snapshot"

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class _Record:
    """A file of `history/`.

    Attributes:
        name: of the file.
        digest: of the file.
        facts: what it says.
    """

    name: str
    digest: str
    facts: Mapping[str, Any]

    @property
    def when(self) -> str:
        """As the machine that wrote it said, UTC."""
        return str(self.facts["when"])


@dataclass(frozen=True)
class Publication(_Record):
    """One publish."""

    @property
    def roles(self) -> Mapping[str, Mapping[str, Any]]:
        """Version, digest and signers of each role that it changed; the timestamp is the last."""
        return {**self.facts["roles"], _TIMESTAMP: self.facts[_TIMESTAMP]}

    def about(self, reference: str | None) -> bool:
        """Whether it changed a role, a channel (`gateway/stable`) or a build (`gateway@1.1`)."""
        if reference is None:
            return True
        product, at, version = reference.partition("@")
        if at:
            start = f"targets/builds/{product}/{version}/"
            return any(each["path"].startswith(start) for each in self.facts["objects"])
        return _role(reference) in self.roles

    def lines(self, changed: Changes, reference: str | None = None) -> Iterator[str]:
        """Who signed what, and what was new; told in full where it is asked for."""
        why = f": {self.facts['why']}" if self.facts["why"] else ""
        yield f"{self.when}  published, {self.name}{why}"
        for role, each in self.roles.items():
            yield f"  {role} {each['version']}, signed by {', '.join(each['signed_by'])}"
            if reference is not None and role == _role(reference):
                yield from (f"    {line}" for line in changed.get((self.name, role), ()))
        for each in self.facts["objects"]:
            yield f"  new {each['path']} ({each['length']} bytes)"


@dataclass(frozen=True)
class Rite(_Record):
    """One ceremony that ended."""

    @property
    def signed_by(self) -> tuple[str, ...]:
        """Names of the keys that had signed, as they were called then."""
        names = (name for quorum in self.facts["quorums"] for name in quorum["signed"])
        return tuple(dict.fromkeys(str(name) for name in names))

    def about(self, reference: str | None) -> bool:
        """Whether it was of that role or channel."""
        return reference is None or _role(reference) == self.facts["role"]

    def lines(self) -> Iterator[str]:
        """How it ended, who had signed, and why it was."""
        facts = self.facts
        why = f": {facts['why']}" if facts["why"] else ""
        yield f"{self.when}  ceremony {facts['ceremony']} {facts['ending']}{why}"
        yield f"  signed by {', '.join(self.signed_by) or 'nobody'}"
        if facts.get("ended-because"):
            yield f"  ended because: {facts['ended-because']}"
        for line in facts["ignored"]:
            yield f"  ignored: {line}"


@dataclass(frozen=True)
class History:
    """All records of one epoch, each kind from the oldest on.

    Attributes:
        publications: one for each publish.
        rites: one for each ceremony that ended.
        refreshes: timestamps that were live between publishes.
    """

    publications: tuple[Publication, ...]
    rites: tuple[Rite, ...]
    refreshes: tuple[Refresh, ...] = ()

    def about(self, reference: str | None) -> tuple[Publication | Rite | Renewals, ...]:
        """What is about a reference, in the order of its times; ceremonies come before."""
        found: list[Publication | Rite | Renewals] = [
            *(each for each in self.rites if each.about(reference)),
            *(each for each in self.publications if each.about(reference)),
            *self._renewals_about(reference),
        ]
        return tuple(sorted(found, key=lambda each: each.when))

    def states(self) -> Sequence[Publication | Refresh]:
        """Everything that was live, from the oldest on; each has a timestamp of its own."""
        return sorted((*self.publications, *self.between()), key=_version_of)

    def between(self) -> Iterator[Refresh]:
        """Refreshes, without what another clone published: taken until its record came by git."""
        known = {str(each.roles[_TIMESTAMP]["sha256"]) for each in self.publications}
        return (each for each in self.refreshes if each.digest not in known)

    def missing(self) -> Sequence[tuple[int, int]]:
        """First and last version of timestamps of which nothing was kept."""
        return tuple(runs([_version_of(each) for each in self.states()]))

    def _renewals_about(self, reference: str | None) -> Iterator[Renewals]:
        if reference in {None, _TIMESTAMP}:
            yield from self._renewals()
        elif reference == _SNAPSHOT:
            for each in self._renewals():
                if each.snapshots:
                    yield Renewals(each.snapshots, each.snapshots)

    def _renewals(self) -> Iterator[Renewals]:
        some: list[Refresh] = []
        new: list[Refresh] = []
        listed = 0
        for state in self.states():
            if isinstance(state, Refresh):
                some.append(state)
                if state.signed.snapshot_meta.version != listed:
                    new.append(state)
                listed = state.signed.snapshot_meta.version
                continue
            if some:
                yield Renewals(some, new)
                some, new = [], []
            listed = int(state.roles[_SNAPSHOT]["version"])
        if some:
            yield Renewals(some, new)


def _version_of(state: Publication | Refresh) -> int:
    """Of its timestamp; a record has it in its name, and its content is held against that order."""
    if isinstance(state, Refresh):
        return state.signed.version
    digits = state.name.removesuffix(".json")
    return int(digits if digits.isdecimal() else state.roles[_TIMESTAMP]["version"])


def _role(reference: str) -> str:
    return reference.replace("/", "-")


# Reading.


def read_history(workspace: Workspace) -> History:
    """Every record of this epoch.

    Raises:
        NotTrustedError: one cannot be read; names it.
    """
    return History(
        tuple(_read_publication(path) for path in records(workspace)),
        tuple(_read_rite(path) for path in record_paths(workspace)),
        read_refreshes(workspace),
    )


def _read_publication(path: Path) -> Publication:
    data = path.read_bytes()
    try:
        record = Publication(path.name, sha256(data), json.loads(data))
        list(record.lines({}))
        _expect(record.facts, root=int, previous=(dict, type(None)), ceremonies=list)
        if record.facts["previous"] is not None:
            _expect(record.facts["previous"], name=str, sha256=str)
        for kind in ("ceremonies", "refreshes"):
            if not all(isinstance(name, str) for name in record.facts.get(kind, [])):
                raise TypeError(kind)  # noqa: TRY301  told below, with what else is damaged
        for each in record.roles.values():
            if _DIGEST.fullmatch(each["sha256"]) is None:  # it names a file of history/objects
                raise ValueError(each["sha256"])  # noqa: TRY301  as above
        _claimed(record)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(f"history/{path.name}", error) from error
    return record


def _read_rite(path: Path) -> Rite:
    data = path.read_bytes()
    try:
        rite = Rite(path.name, sha256(data), json.loads(data))
        list(rite.lines())
        _expect(rite.facts, role=str, signed=dict, signatures=list)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(f"history/ceremonies/{path.name}", error) from error
    return rite


def _expect(facts: Mapping[str, Any], **kinds: type | tuple[type, ...]) -> None:
    for name, kind in kinds.items():
        if not isinstance(facts[name], kind):
            raise TypeError(name)


def _damaged(name: str, error: Exception) -> NotTrustedError:
    return NotTrustedError(f"{name} is damaged: {error!r}", f"take it from git: {name}")


# What changed.


def changes(workspace: Workspace, found: History) -> Changes:
    """What each publish changed in the roles that people and builders sign.

    Told as far as the bytes are there; `problems` says which are not.
    """
    told: dict[tuple[str, str], tuple[str, ...]] = {}
    before: dict[str, Root | Targets] = {}
    for record in found.publications:
        for role, each in record.roles.items():
            if role in {_TIMESTAMP, _SNAPSHOT}:
                continue
            data = _bytes_of(workspace, role, each)
            if data is None:
                continue
            after = parse_role(data, role, role)
            lines = describe_change(
                role, before.get(role), after, _carried(workspace, after), workspace.key_name
            )
            told[record.name, role] = tuple(lines)
            before[role] = after
    return told


def _bytes_of(workspace: Workspace, role: str, facts: Mapping[str, Any]) -> bytes | None:
    if role == "root":
        return dict(enumerate(workspace.roots(), start=1)).get(facts["version"])
    with contextlib.suppress(NotTrustedError):
        return read_kept(workspace, facts["sha256"])
    return None


def _carried(workspace: Workspace, signed: Root | Targets) -> dict[str, bytes]:
    if isinstance(signed, Root):
        return {}
    found = {}
    for path, target in signed.targets.items():
        with contextlib.suppress(NotTrustedError):
            found[path] = read_kept(workspace, target.hashes["sha256"])
    return found


# The proof.


def anchor_problems(workspace: Workspace, rites: Iterable[Rite]) -> Iterator[str]:
    """What is wrong with the chain of recovery roots; its first one is trusted, and nothing else.

    Args:
        workspace: in any epoch.
        rites: ceremonies of all epochs.
    """
    chain = workspace.recovery_roots()
    try:
        walk(chain)
    except FirmrootError as error:
        yield f"metadata/recovery: {error.message}"
        return
    recorded = [
        rite.facts["signed"] for rite in rites if rite.facts["ending"] == Ending.SIGNED.value
    ]
    for version, data in enumerate(chain, start=1):
        if json.loads(data)["signed"] not in recorded:
            yield f"no record says who signed metadata/recovery/{version}.json"


def problems(workspace: Workspace, found: History) -> Iterator[str]:
    """What is not as it was recorded, each by the name of its record.

    Args:
        workspace: its first root is trusted, and nothing else.
        found: its records.
    """
    yield from _broken_links(found)
    yield from _missing_files(found)
    yield from _renamed_files(found)
    yield from _unproven(workspace, found)
    keys = _known_keys(workspace, found)
    for rite in found.rites:
        for problem in _wrong_signatures(workspace, rite, keys):
            yield f"history/ceremonies/{rite.name}: {problem}"
    yield from _without_record(workspace, found)


def _unproven(workspace: Workspace, found: History) -> Iterator[str]:
    """States that do not verify, or are older than the one before."""
    before: RepositoryState | None = None
    kept: dict[str, str] = {}
    for each in found.states():
        if isinstance(each, Refresh):
            if before is None:
                continue  # what is wrong with the state before it is said already
            try:
                before = check_refresh(workspace, each, before)
            except FirmrootError as error:
                yield f"history/refreshes/{each.name}: {error.message}"
            continue
        kept |= {metadata_path(role, one["version"]): one["sha256"] for role, one in _files(each)}
        try:
            before = _verified(workspace, each, kept, before)
        except FirmrootError as error:
            yield f"history/{each.name}: {error.message}"


def _files(record: Publication) -> Iterator[tuple[str, Mapping[str, Any]]]:
    return ((role, each) for role, each in record.roles.items() if role != "root")


def _broken_links(found: History) -> Iterator[str]:
    digests = {record.name: record.digest for record in found.publications}
    for number, record in enumerate(found.publications):
        previous = record.facts["previous"]
        if previous is None:
            if number:
                yield f"history/{record.name} names no record before it, and it is not the first"
        elif previous["name"] not in digests:
            yield f"history/{previous['name']} is missing: {record.name} was made after it"
        elif digests[previous["name"]] != previous["sha256"]:
            yield f"history/{previous['name']} is not the one that {record.name} was made after"


def _missing_files(found: History) -> Iterator[str]:
    """What a record names, and what must be named by one, each by its name."""
    there = {f"ceremonies/{rite.name}" for rite in found.rites}
    there |= {f"refreshes/{each.name}" for each in found.refreshes}
    named: set[str] = set()
    for record in found.publications:
        for kind in ("ceremonies", "refreshes"):
            for name in record.facts.get(kind, []):
                named.add(f"{kind}/{name}")
                if f"{kind}/{name}" not in there:
                    yield f"history/{kind}/{name} is missing: {record.name} was made after it"
    newest = max(map(_version_of, found.publications), default=0)
    for each in found.between():
        if each.signed.version < newest and f"refreshes/{each.name}" not in named:
            yield f"history/refreshes/{each.name} was added: no record after it names it"


def _renamed_files(found: History) -> Iterator[str]:
    for rite in found.rites:
        if not rite.name.endswith(f"-{rite.digest[:DIGITS]}.json"):
            yield f"history/ceremonies/{rite.name} was changed: its name is of other bytes"
    for each in found.refreshes:
        if each.name != refresh_name(each.signed.version, each.digest):
            yield f"history/refreshes/{each.name} was changed: its name is of other bytes"


def _without_record(workspace: Workspace, found: History) -> Iterator[str]:
    marks = HighWater()
    for record in found.publications:
        marks = marks.raised(_claimed(record))
    for path in sorted(workspace.metadata.glob("*.json")):
        mark = Mark.of(path.read_bytes(), f"metadata/{path.name}")
        if marks.marks.get(path.stem) != mark:
            yield f"no record says how {mark.source} (version {mark.version}) came to be live"
    recorded = {
        record.roles["root"]["sha256"] for record in found.publications if "root" in record.roles
    }
    adopted = workspace.adopted()
    theirs = adopted.root.version if adopted is not None else 0
    for version, data in enumerate(workspace.roots(), start=1):
        if version > theirs and sha256(data) not in recorded:
            yield f"no record says how metadata/root/{version}.json came to be live"


def _claimed(record: Publication) -> HighWater:
    return HighWater.from_json(json.dumps({"roles": dict(record.roles)}).encode())


def _verified(
    workspace: Workspace,
    record: Publication,
    kept: Mapping[str, str],
    before: RepositoryState | None,
) -> RepositoryState:
    """A state that verifies, is what the record says, and is no older than `before`."""
    roots = workspace.roots()[: record.facts["root"]]
    if len(roots) != record.facts["root"]:
        raise NotTrustedError(f"root {record.facts['root']} is missing in metadata/root")
    storage = _Kept(workspace, roots, kept)
    # Of hash bins those that this publish changed: a record holds no others.
    state = read_bins(storage, read_live(storage, roots[0]).state, filter(is_bin, record.roles))
    mark = HighWater.of(state)
    for role, claimed in _claimed(record).marks.items():
        if mark.marks.get(role) != claimed:
            raise NotTrustedError(f"{role} is not the one that was live")
    if before is not None:
        HighWater.of(before).check(state)
    for role, data in (("root", roots[-1]), *_below(workspace, record)):
        if role in record.roles:
            _check_signers(workspace, role, data, record.roles[role]["signed_by"])
    return state


def _below(workspace: Workspace, record: Publication) -> Iterator[tuple[str, bytes]]:
    return ((role, read_kept(workspace, each["sha256"])) for role, each in _files(record))


def _check_signers(workspace: Workspace, role: str, data: bytes, said: list[str]) -> None:
    """Attack: a record is edited to name another signer. Verified bytes say who it was."""
    keyids = {str(signature["keyid"]) for signature in json.loads(data)["signatures"]}
    # Nobody here may have known the key then, or may know it any more.
    wrong = [
        name
        for name, unknown in ((workspace.key_name(i), f"unknown key {i[:8]}") for i in keyids)
        if name != unknown and name not in said and unknown not in said
    ]
    if wrong or len(keyids) != len(said):
        raise NotTrustedError(
            f"{role} was signed by {', '.join(sorted(map(workspace.key_name, keyids)))}, "
            f"and the record says {', '.join(said)}"
        )


def _known_keys(workspace: Workspace, found: History) -> dict[str, Key]:
    """Every public key that a root, a delegation or this workspace ever named, by key id."""
    keys = {holder.key.keyid: holder.key for holder in workspace.keyring.values()}
    signed: list[Root | Targets] = [
        parse(data, Root, "root").signed
        for data in (*workspace.roots(), *workspace.recovery_roots())
    ]
    for record in found.publications:
        facts = record.roles.get(Targets.type)
        if facts is not None and (data := _bytes_of(workspace, Targets.type, facts)) is not None:
            signed.append(parse(data, Targets, Targets.type).signed)
    for each in signed:
        keys.update(keys_of(each))
    return keys


def _wrong_signatures(workspace: Workspace, rite: Rite, keys: Mapping[str, Key]) -> Iterator[str]:
    """Signatures of a record that prove nothing."""
    role = str(rite.facts["role"])
    try:
        data = json.dumps({"signatures": [], "signed": rite.facts["signed"]}).encode()
        signed = parse_role(data, role, role)
        given = [Signature(str(s["keyid"]), str(s["sig"])) for s in rite.facts["signatures"]]
    except (FirmrootError, KeyError, TypeError) as error:
        yield f"its content is not of a {role}: {error}"
        return
    if f"{role}-{signed.version}" != rite.facts["ceremony"]:
        yield f"it holds {role} version {signed.version}"
    payload, among = signed_bytes(signed), {**keys, **keys_of(signed)}
    for signature in given:
        key = among.get(signature.keyid)
        if key is None:
            yield f"nothing here knows the key {signature.keyid[:8]} that signed it"
            continue
        try:
            key.verify_signature(signature, payload)
        except UnverifiedSignatureError:
            yield f"the signature of {workspace.key_name(signature.keyid)} does not verify"
    if len(given) < len(rite.signed_by):
        yield f"it names {len(rite.signed_by)} signers and has {len(given)} signatures"


@dataclass(frozen=True)
class _Kept:
    """What was live at one record, to be read like a storage.

    Attributes:
        workspace: where the bytes are.
        roots: those that were live.
        digests: of every other object that had been published until then, by storage path.
    """

    workspace: Workspace
    roots: tuple[bytes, ...]
    digests: Mapping[str, str]

    def read(self, path: str, max_length: int) -> Blob:
        """The object of that path then. Raises as `Storage.read`."""
        del max_length
        for number, data in enumerate(self.roots, start=1):
            if path == metadata_path("root", number):
                return Blob(data, sha256(data))
        digest = self.digests.get(path)
        if digest is None:
            raise NotFoundError(f"no record says how {path} came to be live")
        return Blob(read_kept(self.workspace, digest), digest)
