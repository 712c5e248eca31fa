"""The ceremony: several people sign one thing, each on their own machine with only their own key.

A ceremony is a directory in git, `ceremonies/<role>-<N>/`:

* `payload.json`, what is signed, readable; signatures cover its canonical form (TUF 4.2.1);
* `base.json`, version and digest of the predecessor of *this* role and nothing else, so that new
  builds, refreshes and other ceremonies leave collected signatures intact;
* `<keyid>.sig.json`, one file for each signature, so that they never conflict in git;
* `targets/<path>`, target files that it carries, such as the release manifest.

It exists when `payload.json` does: that file is written last and removed first. Rules:

* a signature counts only after it has verified, each time it is read; one that does not is
  reported with the key that it claims, and ignored;
* a root, of the repository or of the recovery anchor, needs the threshold of its predecessor and
  its own (TUF 5.3.4); any other role needs that of the newest role that delegates to it, signed or
  still waiting;
* at the threshold the role goes to `staged/`, but never before the role that delegates to it;
* signatures that would be lost are named, and only the caller may say that they are;
* what a ceremony holds may be written by a stranger: a key is the one that its id names, a carried
  file is one that the payload signs, and only files of these names are ever removed.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Signature
from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import Root, Targets

from client_reference.errors import (
    ActionRequiredError,
    ConfigurationError,
    NotTrustedError,
    RefusedError,
)
from client_reference.nearest import did_you_mean
from client_reference.trust.recovery import check_follows, read_statement
from client_reference.trust.verified import rotated
from keys_policy.checks import derived_keyid
from repo_tools.files import TEMPORARY_SUFFIX, remove_file, replace_file
from repo_tools.git import has_conflict
from repo_tools.gone import gone_keys
from repo_tools.metadata.anchor import names
from repo_tools.metadata.edits import assemble as assemble_metadata
from repo_tools.metadata.edits import signed_bytes
from repo_tools.metadata.repository import parse, sha256
from repo_tools.metadata.roles import RECOVERY, TOP_LEVEL, check_delegations, check_leaf
from repo_tools.publishing.bridge import Passage, passage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from tuf.api.metadata import Key

    from repo_tools.workspace import Workspace

__all__ = [
    "Base",
    "Ceremony",
    "CeremonyStatus",
    "DiscardedSignaturesError",
    "Quorum",
    "abandon",
    "add_signature",
    "assemble",
    "carried",
    "check_ceremony",
    "check_member",
    "check_paths",
    "check_startable",
    "find_ceremony",
    "finish",
    "finish_complete",
    "members",
    "open_ceremonies",
    "predecessor",
    "signature_path",
    "start_ceremony",
    "status",
    "tidy",
]

Signable: TypeAlias = Root | Targets

_SIGNATURE = ".sig.json"

# Roles whose metadata are root files, with the command that publishes what is staged of them.
_ROOTS: Mapping[str, str] = {Root.type: "firmroot publish", RECOVERY: "firmroot anchor publish"}


class DiscardedSignaturesError(ActionRequiredError):
    """Going on would discard signatures that people have given."""


@dataclass(frozen=True)
class Base:
    """The predecessor that a ceremony replaces; version 0 and no digest where there is none."""

    version: int
    sha256: str


@dataclass(frozen=True)
class Ceremony:
    """One open ceremony.

    Attributes:
        directory: where it lives.
        role: what is being replaced.
        base: by which it expects it.
        signed: the new content.
        carries: target files that will be published with it, by target path.
    """

    directory: Path
    role: str
    base: Base
    signed: Signable
    carries: Mapping[str, Path] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Such as `gateway-stable-3`."""
        return self.directory.name

    @property
    def tuf_role(self) -> str:
        """What TUF calls the role: the recovery anchor is a root as well."""
        return Root.type if isinstance(self.signed, Root) else self.role

    @property
    def version(self) -> int:
        """The version that it makes."""
        return self.signed.version

    @property
    def payload(self) -> bytes:
        """The bytes that signatures cover."""
        return signed_bytes(self.signed)


@dataclass(frozen=True)
class Quorum:
    """What one delegator asks for, by key name.

    Attributes:
        delegator: such as `root 3`.
        threshold: keys that must sign.
        signed: keys that have.
        missing: keys that may.
    """

    delegator: str
    threshold: int
    signed: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def needed(self) -> int:
        """How many more must sign."""
        return max(0, self.threshold - len(self.signed))


@dataclass(frozen=True)
class CeremonyStatus:
    """Who has signed, who is missing, and what is wrong.

    Attributes:
        ceremony: of which.
        quorums: all of them must be reached.
        signatures: those that verified.
        problems: signatures that were ignored, and why.
    """

    ceremony: Ceremony
    quorums: tuple[Quorum, ...]
    signatures: tuple[Signature, ...]
    problems: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every threshold is reached."""
        return bool(self.quorums) and not any(quorum.needed for quorum in self.quorums)

    @property
    def signed(self) -> tuple[str, ...]:
        """Names of the keys that have signed."""
        return tuple(dict.fromkeys(name for quorum in self.quorums for name in quorum.signed))

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the keys that can still bring it forward."""
        return tuple(
            dict.fromkeys(
                name for quorum in self.quorums if quorum.needed for name in quorum.missing
            )
        )


# Reading.


def open_ceremonies(ws: Workspace) -> list[Ceremony]:
    """Everything that waits for signatures, delegators before the roles that they delegate to."""
    found = [_load(path.parent) for path in sorted(ws.ceremonies.glob("*/payload.json"))]
    order = {"root": 0, "targets": 1}
    return sorted(found, key=lambda each: (order.get(each.role, 2), each.name))


def find_ceremony(ws: Workspace, name: str) -> Ceremony:
    """The open ceremony of a role, or of a name such as `root-3`.

    Raises:
        ConfigurationError: there is none.
    """
    ceremonies = open_ceremonies(ws)
    for ceremony in ceremonies:
        if name in {ceremony.role, ceremony.name}:
            return ceremony
    there = ", ".join(each.name for each in ceremonies) or "none"
    known = [known for each in ceremonies for known in (each.name, each.role)]
    raise ConfigurationError(
        f"there is no open ceremony {name!r}; open: {there}{did_you_mean(name, known)}",
        "firmroot ceremony list",
    )


def predecessor(ws: Workspace, role: str) -> bytes | None:
    """The newest bytes of a role that are signed to their threshold: staged, else published."""
    # A staged root must be published before the next: devices walk the chain one by one.
    if role == "root":
        return next(reversed(ws.roots()), None)
    if role == RECOVERY:
        return next(reversed(ws.recovery_roots()), None)
    return ws.staged_role(role) or ws.published_role(role)


def _load(directory: Path) -> Ceremony:
    try:
        payload = (directory / "payload.json").read_bytes()
        base = json.loads((directory / "base.json").read_bytes())
        role, expected = str(base["role"]), Base(int(base["version"]), str(base["sha256"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotTrustedError(
            f"ceremony {directory.name} is damaged: {error!r}",
            "take its directory from git again, or end it by removing the directory",
        ) from error
    if has_conflict(payload):
        raise NotTrustedError(
            f"ceremonies/{directory.name}/payload.json has the marks of a git conflict: two people "
            "started it at once",
            "take one side's directory, and sign that: git checkout --theirs "
            f"ceremonies/{directory.name} && git add ceremonies/{directory.name}",
        )
    data = b'{"signatures": [], "signed": ' + payload + b"}"
    signed = _parse(data, role, f"ceremony {directory.name}")
    if directory.name != f"{role}-{signed.version}":
        raise NotTrustedError(
            f"ceremony {directory.name} holds {role} version {signed.version}: "
            "its directory was renamed, or its payload exchanged",
            "take its directory from git again",
        )
    top = directory / "targets"
    carries = {
        path.relative_to(top).as_posix(): path
        for path in sorted(top.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }
    return Ceremony(directory, role, expected, signed, carries)


def _parse(data: bytes, role: str, name: str) -> Signable:
    return parse(data, Root, name).signed if role in _ROOTS else parse(data, Targets, name).signed


# Writing.


def start_ceremony(
    ws: Workspace,
    role: str,
    signed: Signable,
    carries: Mapping[str, bytes] | None = None,
    *,
    discard_signatures: bool = False,
) -> Ceremony:
    """Open a ceremony, or change the open one of that role.

    Args:
        ws: the workspace; the caller holds its lock.
        role: name of the role.
        signed: its next version.
        carries: target files that are published with it, by target path.
        discard_signatures: the caller has said, by naming the role, that signatures over the
            content so far may be lost.

    Raises:
        DiscardedSignaturesError: there are such signatures, and it has not.
        RefusedError: the content breaks a guard or does not follow its predecessor.
        ActionRequiredError: a signed root must be published first.
    """
    before = predecessor(ws, role)
    base = Base(0, "")
    if before is not None:
        base = Base(_parse(before, role, role).version, sha256(before))
    ceremony = Ceremony(ws.ceremonies / f"{role}-{signed.version}", role, base, signed)
    files = {} if carries is None else carries
    _check_content(ws, ceremony, files)
    before_this = [each for each in open_ceremonies(ws) if each.role == role]
    for existing in before_this:
        if existing.payload == ceremony.payload and existing.base == base:
            return existing
    check_startable(ws, role, discard_signatures=discard_signatures)
    for existing in before_this:
        if existing.directory != ceremony.directory:
            abandon(existing)
    _write(ceremony, files)
    return _load(ceremony.directory)


def check_startable(ws: Workspace, role: str, *, discard_signatures: bool) -> None:
    """Whether a ceremony of a role could be opened or changed, before anything is written.

    Raises:
        DiscardedSignaturesError: signatures would be discarded, and that is not wanted.
        ActionRequiredError: a signed root must be published first.
    """
    staged = ws.staged_role(role) if role in _ROOTS else None
    if staged is not None and staged != predecessor(ws, role):
        version = parse(staged, Root, f"staged {role}").signed.version
        raise ActionRequiredError(
            f"{role} {version} is signed and not yet published; devices need every root in turn",
            _ROOTS[role],
        )
    for existing in open_ceremonies(ws):
        signed = status(ws, existing).signed if existing.role == role else ()
        if signed and not discard_signatures:
            raise DiscardedSignaturesError(
                f"{existing.name} has been signed by {', '.join(signed)}; "
                "changing it would discard what they signed",
                f"finish it first (firmroot sign), or say so: --discard-signatures {role}",
            )


def _write(ceremony: Ceremony, carries: Mapping[str, bytes]) -> None:
    """Carried files and base first, then the payload: with it the ceremony exists."""
    for path, data in carries.items():
        _check_path(path)
        replace_file(ceremony.directory / "targets" / path, data)
    base = {"role": ceremony.role, **vars(ceremony.base)}
    replace_file(ceremony.directory / "base.json", _readable(base))
    replace_file(ceremony.directory / "payload.json", _readable(ceremony.signed.to_dict()))
    for signature in ceremony.directory.glob(f"*{_SIGNATURE}"):
        remove_file(signature)


def _readable(value: Any) -> bytes:  # noqa: ANN401  any JSON value
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def abandon(ceremony: Ceremony) -> None:
    """End a ceremony without a result. Removing the payload ends it; the rest is tidying."""
    remove_file(ceremony.directory / "payload.json")
    _tidy(ceremony.directory)


def _tidy(directory: Path) -> None:
    """Remove what is left of a ceremony that ended, or that never began.

    Only regular files that a ceremony has; anything else is somebody's, and keeps its directory.
    """
    if directory.is_symlink():
        return
    top = directory / "targets"
    carried = [] if top.is_symlink() else list(top.rglob("*"))
    ours = {directory / "payload.json", directory / "base.json", *carried}
    ours.update(directory.glob(f"*{_SIGNATURE}"), directory.glob(f".*{TEMPORARY_SUFFIX}"))
    for path in ours:
        if path.is_file() and not path.is_symlink():
            path.unlink(missing_ok=True)
    for path in (*sorted(carried, reverse=True), top, directory):
        with contextlib.suppress(OSError):  # it is not empty, or not a directory
            path.rmdir()


# Guards on what is signed.


def check_ceremony(ws: Workspace, ceremony: Ceremony) -> None:
    """What must hold before anybody signs: git may contain what a stranger wrote.

    Raises:
        RefusedError: the content breaks a guard, or its predecessor has changed meanwhile.
    """
    before = predecessor(ws, ceremony.role)
    found = sha256(before) if before is not None else ""
    if found != ceremony.base.sha256:
        raise RefusedError(
            f"{ceremony.name} replaces {ceremony.role} version {ceremony.base.version}, "
            "but that is no longer the newest signed one",
            f"start it again: firmroot ceremony abandon {ceremony.role}, then redo the change",
        )
    _check_content(ws, ceremony, carried(ceremony))
    check_paths(ws, ceremony.role, ceremony.signed)


def carried(ceremony: Ceremony) -> dict[str, bytes]:
    """The files that a ceremony carries, by target path.

    Raises:
        RefusedError: they are not those that are to be signed.
    """
    carries = {path: file.read_bytes() for path, file in ceremony.carries.items()}
    _check_carries(ceremony, carries)
    return carries


def _check_content(ws: Workspace, ceremony: Ceremony, carries: Mapping[str, bytes]) -> None:
    signed, role = ceremony.signed, ceremony.role
    if signed.version > ceremony.base.version + 1:
        known = f"version {ceremony.base.version}" if ceremony.base.version else "none"
        raise RefusedError(
            f"{role} version {signed.version} does not follow the newest that this workspace "
            f"knows, {known}: it is behind, or a version was left out",
            "git pull, then run it again; versions rise by one (design 4, guard on fast-forward)",
        )
    if signed.version != ceremony.base.version + 1:
        raise RefusedError(
            f"{role} version {signed.version} does not follow version {ceremony.base.version}",
            "versions rise by one (design 4, guard on fast-forward)",
        )
    _check_keys(ws, role, signed)
    _check_carries(ceremony, carries)
    if isinstance(signed, Root):
        if not signed.consistent_snapshot:
            raise RefusedError("the root turns consistent snapshots off; they are required")
        if role == RECOVERY:
            _check_anchor(ws, signed)
        return
    if role == "targets":
        check_delegations(signed.delegations)
        if signed.targets:
            raise RefusedError("targets names target files itself; it may only delegate")
        return
    check_leaf(role, signed)


def _check_anchor(ws: Workspace, signed: Root) -> None:
    """A recovery root sends the whole fleet somewhere: only to a root that this workspace has.

    Raises:
        RefusedError: its roles are not all the same, or its statement is about another root.
        NotTrustedError: it has no statement, or one that does not follow its predecessor's.
    """
    roles = [(set(role.keyids), role.threshold) for role in signed.roles.values()]
    if any(each != roles[0] for each in roles):
        raise RefusedError(f"{RECOVERY} {signed.version} gives its roles different keys")
    statement = read_statement(signed)
    if (before := predecessor(ws, RECOVERY)) is not None:
        old = read_statement(parse(before, Root, RECOVERY).signed)
        check_follows(old, statement, f"{RECOVERY} {signed.version}")
    first = next(iter(ws.roots()), None) or ws.staged_role("root")
    if first is None or statement.epoch != ws.epoch or not names(statement, first):
        raise RefusedError(
            f"{RECOVERY} {signed.version} starts epoch {statement.epoch} from root sha256 "
            f"{statement.sha256}, {statement.length} bytes; the first root of epoch {ws.epoch} is "
            f"{'not signed yet' if first is None else 'sha256 ' + sha256(first)}",
            "find out who wrote this: it would lead every device to another repository",
        )


def _check_keys(ws: Workspace, role: str, signed: Signable) -> None:
    """A key id must not stand for another key than everybody takes it for.

    People read names, names come from key ids, and a signature is verified with the key that the
    payload puts under an id: a stranger who exchanges the keys would have his own signed unseen.
    """
    known = {holder.key.keyid: holder.key for holder in ws.keyring.values()}
    if (before := predecessor(ws, role)) is not None:
        known = {**_keys(_parse(before, role, role)), **known}
    for keyid, key in _keys(signed).items():
        name = f"{role} version {signed.version}: {ws.key_name(keyid)} ({keyid[:8]})"
        if derived_keyid(key) != keyid:
            raise RefusedError(
                f"{name} is another public key than its key id says", "find out who wrote this"
            )
        if keyid not in known:
            raise RefusedError(
                f"{name} is neither in keys/ nor in the version before",
                "bring in its public half first: firmroot key import FILE",
            )
        if key != known[keyid]:
            raise RefusedError(
                f"{name} is written otherwise than the key in keys/ or in the version before",
                "find out who wrote this, then start the ceremony again",
            )


def _keys(signed: Signable) -> Mapping[str, Key]:
    if isinstance(signed, Root):
        return signed.keys
    return signed.delegations.keys if signed.delegations else {}


def _check_carries(ceremony: Ceremony, carries: Mapping[str, bytes]) -> None:
    """Carried are exactly the target files that are signed, under paths that stay inside."""
    again = f"start it again: firmroot ceremony abandon {ceremony.role}, then redo the change"
    targets = ceremony.signed.targets if isinstance(ceremony.signed, Targets) else {}
    for path in (*targets, *carries):
        _check_path(path)
    if ceremony.role != "targets":  # which has a message of its own for target files
        for path, target in targets.items():
            try:
                target.verify_length_and_hashes(carries.get(path, b""))
            except LengthOrHashMismatchError as error:
                raise RefusedError(
                    f"{ceremony.name} carries another {path} than the one that is to be signed",
                    again,
                ) from error
    for path in carries:
        if path not in targets:
            raise RefusedError(f"{ceremony.name} carries {path}, which it does not sign", again)


def _check_path(path: str) -> None:
    """A target path becomes a file name: it must not lead out of the directory of its ceremony."""
    parts = path.split("/")
    if not path.isprintable() or "\\" in path or {"", ".", ".."}.intersection(parts):
        raise RefusedError(
            f"{path!r} is not a target path: expected segments with single '/' between them",
            "find out who wrote this: somebody may want to write files elsewhere",
        )


def check_paths(ws: Workspace, role: str, signed: Signable) -> None:
    """A delegated role speaks for its own paths only.

    Raises:
        RefusedError: nobody delegates one of its target paths to it.
    """
    if not isinstance(signed, Targets):
        return
    targets = _targets_in_force(ws)
    delegations = targets.delegations if targets else None
    delegated = (delegations.roles or {}).get(role) if delegations else None
    for path in signed.targets:
        if delegated is None or not delegated.is_delegated_path(path):
            raise RefusedError(f"{role} may not speak for {path}")


# Signatures.


def _targets_in_force(ws: Workspace) -> Targets | None:
    """The newest targets role, signed or still waiting."""
    for each in open_ceremonies(ws):
        if each.role == "targets" and isinstance(each.signed, Targets):
            return each.signed
    return ws.newest_targets()


def _root_in_force(ws: Workspace) -> Root | None:
    """The newest root, signed or still waiting."""
    for each in open_ceremonies(ws):
        if each.role == Root.type and isinstance(each.signed, Root):
            return each.signed
    return ws.newest_root()


def _delegators(ws: Workspace, ceremony: Ceremony) -> list[tuple[str, Root | Targets]]:
    """Whose thresholds must be reached, each with the name by which people know it."""
    found: list[tuple[str, Root | Targets | None]] = []
    if isinstance(ceremony.signed, Root):
        before = predecessor(ws, ceremony.role)
        old = None if before is None else parse(before, Root, ceremony.role).signed
        found = [("the root before", old), ("the new root", ceremony.signed)]
    elif ceremony.role in TOP_LEVEL:
        found = [("root", _root_in_force(ws)), *_bridged_from(ws)]
    else:
        found = [("targets", _targets_in_force(ws))]
    return [(title, delegator) for title, delegator in found if delegator is not None]


def _bridged_from(ws: Workspace) -> list[tuple[str, Root | Targets | None]]:
    """The live root, if devices that have it must accept the new `targets` too (design 8)."""
    following, live = _root_in_force(ws), next(reversed(ws.roots()), None)
    old = None if live is None else parse(live, Root, Root.type).signed
    if old is None or following is None or following.version != old.version + 1:
        return []
    if not rotated(old, following, Targets.type):
        return []
    # Expiry needs no look: whoever still has the keys of an expired root may as well sign.
    way = passage(old, following, gone_keys(ws), old.expires - timedelta(seconds=1))
    return [(f"root {old.version}, until it is replaced", old)] if way is Passage.BRIDGE else []


def members(ws: Workspace, ceremony: Ceremony) -> dict[str, Key]:
    """Every key whose signature counts for at least one of the thresholds."""
    found: dict[str, Key] = {}
    for _, delegator in _delegators(ws, ceremony):
        try:
            keyids = delegator.get_delegated_role(ceremony.tuf_role).keyids
        except ValueError as error:
            raise ConfigurationError(
                f"nobody delegates to a role {ceremony.role!r}",
                f"firmroot product list; to end the ceremony: firmroot ceremony abandon "
                f"{ceremony.role}",
            ) from error
        found.update({keyid: delegator.get_key(keyid) for keyid in keyids})
    return found


def check_member(ws: Workspace, ceremony: Ceremony, name: str) -> None:
    """Refuse a key that has no say in a ceremony.

    Raises:
        RefusedError: names the roles that the key does sign for.
    """
    if ws.keyring[name].key.keyid in members(ws, ceremony):
        return
    roles = ", ".join(ws.policy.roles_of(name)) or "none"
    raise RefusedError(
        f"key {name} is not in role {ceremony.role}; it is in: {roles}",
        f"firmroot ceremony show {ceremony.role} names the keys that may sign",
    )


def add_signature(ws: Workspace, ceremony: Ceremony, signature: Signature) -> None:
    """Keep a signature, after it has verified.

    Raises:
        RefusedError: its key is not in the role, or it does not verify.
    """
    allowed = members(ws, ceremony)
    if (problem := _problem(ws, allowed, ceremony, signature)) is not None:
        raise RefusedError(problem, f"firmroot ceremony show {ceremony.role}")
    data = {**signature.to_dict(), "role": ceremony.role, "version": ceremony.version}
    replace_file(signature_path(ceremony, signature.keyid), _readable(data))


def signature_path(ceremony: Ceremony, keyid: str) -> Path:
    """Where the signature of a key is kept."""
    return ceremony.directory / f"{keyid}{_SIGNATURE}"


def _problem(
    ws: Workspace, allowed: Mapping[str, Key], ceremony: Ceremony, signature: Signature
) -> str | None:
    """Why a signature does not count, or None."""
    claimed = ws.key_name(signature.keyid)
    key = allowed.get(signature.keyid)
    if key is None:
        return f"a signature of {claimed}, which is not in role {ceremony.role}"
    try:
        key.verify_signature(signature, ceremony.payload)
    except UnverifiedSignatureError:
        return f"a signature that claims to be by {claimed} does not verify over {ceremony.name}"
    return None


def _read_signatures(
    ws: Workspace, ceremony: Ceremony, allowed: Mapping[str, Key]
) -> tuple[list[Signature], list[str]]:
    good, problems = [], []
    for path in sorted(ceremony.directory.glob(f"*{_SIGNATURE}")):
        try:
            fields = json.loads(path.read_bytes())
            signature = Signature(str(fields["keyid"]), str(fields["sig"]))
        except (ValueError, KeyError, TypeError) as error:
            problems.append(f"{path.name} is not a signature file: {error!r}")
            continue
        problem = _problem(ws, allowed, ceremony, signature)
        if problem is None and path.name != f"{signature.keyid}{_SIGNATURE}":
            problem = f"a second signature of {ws.key_name(signature.keyid)}, in {path.name}"
        if problem is None:
            good.append(signature)
        else:
            problems.append(problem)
    return good, problems


def status(ws: Workspace, ceremony: Ceremony) -> CeremonyStatus:
    """Verify every signature file, and count."""
    allowed = members(ws, ceremony)
    signatures, problems = _read_signatures(ws, ceremony, allowed)
    given = {signature.keyid: signature for signature in signatures}
    quorums = []
    for title, delegator in _delegators(ws, ceremony):
        result = delegator.get_verification_result(ceremony.tuf_role, ceremony.payload, given)
        quorums.append(
            Quorum(
                title,
                result.threshold,
                _names(ws, result.signed),
                _names(ws, result.unsigned),
            )
        )
    if not quorums:
        missing = "root" if ceremony.role in TOP_LEVEL else "targets"
        problems.append(f"there is no {missing} role yet that says who signs {ceremony.role}")
    return CeremonyStatus(ceremony, tuple(quorums), tuple(signatures), tuple(problems))


def _names(ws: Workspace, keyids: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(ws.key_name(keyid) for keyid in keyids))


# Ending.


def assemble(ws: Workspace, ceremony: Ceremony) -> bytes | None:
    """The metadata file, or None while signatures are missing."""
    found = status(ws, ceremony)
    return assemble_metadata(ceremony.signed, found.signatures) if found.complete else None


def finish(ws: Workspace, ceremony: Ceremony) -> Path:
    """Stage a ceremony that has its signatures. Killed anywhere and run again, it finishes.

    Returns:
        the staged file.

    Raises:
        ActionRequiredError: signatures are missing, or its delegator must be signed first.
        RefusedError: the content breaks a guard.
    """
    if _is_staged(ws, ceremony):
        abandon(ceremony)
        return ws.staged / f"{ceremony.role}.json"
    check_ceremony(ws, ceremony)
    if (data := assemble(ws, ceremony)) is None:
        found = status(ws, ceremony)
        if not found.quorums:
            raise ActionRequiredError(f"{ceremony.name}: {found.problems[-1]}", "firmroot status")
        needed = max(quorum.needed for quorum in found.quorums)
        raise ActionRequiredError(
            f"{ceremony.name} needs {needed} more of: {', '.join(found.missing)}",
            "they run: firmroot sign",
        )
    if (waits := _waits_for(open_ceremonies(ws), ceremony)) is not None:
        raise ActionRequiredError(
            f"{ceremony.name} is signed, but {waits.name}, which delegates to it, is not",
            "firmroot sign",
        )
    if isinstance(ceremony.signed, Targets):
        for path, target in ceremony.signed.targets.items():
            stored = ws.staged / "targets" / target.get_prefixed_paths()[0]
            replace_file(stored, ceremony.carries[path].read_bytes())
    staged = ws.staged / f"{ceremony.role}.json"
    replace_file(staged, data)
    abandon(ceremony)
    return staged


def _is_staged(ws: Workspace, ceremony: Ceremony) -> bool:
    """Whether an earlier run was killed between staging and tidying."""
    staged = ws.staged_role(ceremony.role)
    if staged is None:
        return False
    return signed_bytes(_parse(staged, ceremony.role, ceremony.role)) == ceremony.payload


def _waits_for(ceremonies: Sequence[Ceremony], ceremony: Ceremony) -> Ceremony | None:
    """The open ceremony of the role that delegates to this one."""
    if ceremony.role in _ROOTS:
        return None
    delegator = "root" if ceremony.role in TOP_LEVEL else "targets"
    return next((each for each in ceremonies if each.role == delegator), None)


def finish_complete(ws: Workspace) -> list[Path]:
    """Stage everything that has its signatures, delegators first."""
    return [
        finish(ws, ceremony)
        for ceremony in open_ceremonies(ws)
        if status(ws, ceremony).complete and _waits_for(open_ceremonies(ws), ceremony) is None
    ]


def tidy(ws: Workspace) -> None:
    """Remove what is no ceremony any more, or never became one.

    A run was killed while it ended or began one, or a signature arrived by git when its ceremony
    had ended.
    """
    for directory in sorted(ws.ceremonies.glob("*")):
        if not (directory / "payload.json").exists():
            _tidy(directory)
