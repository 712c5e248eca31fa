"""What must hold of a ceremony before anybody signs it: git may contain what a stranger wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import Root, Targets

from client_reference.errors import RefusedError
from client_reference.trust.recovery import check_follows, read_statement
from keys_policy.checks import derived_keyid
from repo_tools.metadata.anchor import names
from repo_tools.metadata.repository import parse, sha256
from repo_tools.metadata.roles import RECOVERY, check_delegations, check_leaf
from repo_tools.signing.ceremony.reading import parse_role, predecessor, targets_in_force

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tuf.api.metadata import Key

    from repo_tools.metadata.adopted import Adopted
    from repo_tools.signing.ceremony.reading import Ceremony, Signable
    from repo_tools.workspace import Workspace

__all__ = [
    "carried",
    "check_alone",
    "check_carried",
    "check_ceremony",
    "check_content",
    "check_path",
    "check_paths",
    "keys_of",
]


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
    check_content(ws, ceremony, _files(ceremony))
    check_paths(ws, ceremony.role, ceremony.signed)


def carried(ceremony: Ceremony) -> dict[str, bytes]:
    """The files that a ceremony carries, by target path.

    Raises:
        RefusedError: they are not those that are to be signed.
    """
    carries = _files(ceremony)
    check_carried(ceremony.name, ceremony.role, ceremony.signed, carries)
    return carries


def _files(ceremony: Ceremony) -> dict[str, bytes]:
    return {path: file.read_bytes() for path, file in ceremony.carries.items()}


def check_content(ws: Workspace, ceremony: Ceremony, carries: Mapping[str, bytes]) -> None:
    """The guards on its content, whatever is in force. Raises as `check_ceremony`."""
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
    adopted = ws.adopted()
    if adopted is not None and role in adopted.delegations:
        _check_unchanged(ws, role, signed, carries)
    else:
        check_carried(ceremony.name, ceremony.role, ceremony.signed, carries)
    check_alone(role, signed, adopted)
    if role == RECOVERY and isinstance(signed, Root):
        _check_anchor(ws, signed)


def _check_unchanged(
    ws: Workspace, role: str, signed: Signable, carries: Mapping[str, bytes]
) -> None:
    """An adopted role is signed again as it is: what is new goes through products.

    Raises:
        RefusedError: its target files are not those of the version before.
    """
    before = predecessor(ws, role)
    known = parse(before, Targets, role).signed.targets if before is not None else {}
    if carries or not isinstance(signed, Targets) or signed.targets != known:
        raise RefusedError(
            f"{role} version {signed.version} is adopted, and speaks for other files than before",
            "it can be signed again as it is: firmroot ceremony start; new files are firmware of a "
            "product",
        )


def check_alone(role: str, signed: Signable, adopted: Adopted | None = None) -> None:
    """The guards that the content alone can break.

    Args:
        role: what is signed.
        signed: its content.
        adopted: what was there before `firmroot adopt`.

    Raises:
        RefusedError: it does.
    """
    if isinstance(signed, Root):
        if not signed.consistent_snapshot:
            raise RefusedError("the root turns consistent snapshots off; they are required")
        roles = [(set(each.keyids), each.threshold) for each in signed.roles.values()]
        if role == RECOVERY and any(each != roles[0] for each in roles):
            raise RefusedError(f"{RECOVERY} {signed.version} gives its roles different keys")
        return
    if role == "targets":
        check_delegations(signed.delegations, adopted.delegations if adopted is not None else None)
        if signed.targets != (adopted.files if adopted is not None else {}):
            raise RefusedError(
                "targets names target files itself; it may only delegate"
                if adopted is None
                else "targets names other target files than those that were adopted"
            )
        return
    check_leaf(role, signed)


def _check_anchor(ws: Workspace, signed: Root) -> None:
    """A recovery root sends the whole fleet somewhere: only to a root that this workspace has.

    Raises:
        RefusedError: its statement is about another root.
        NotTrustedError: it has no statement, or one that does not follow its predecessor's.
    """
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
    adopted = ws.adopted()
    if (before := predecessor(ws, role)) is not None:
        known = {**keys_of(parse_role(before, role, role)), **known}
    for keyid, key in keys_of(signed).items():
        name = f"{role} version {signed.version}: {ws.key_name(keyid)} ({keyid[:8]})"
        vouched = adopted is not None and adopted.vouches(keyid, key)
        if not vouched and derived_keyid(key) != keyid:
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


def keys_of(signed: Signable) -> Mapping[str, Key]:
    """The keys that a content brings, by id."""
    if isinstance(signed, Root):
        return signed.keys
    return signed.delegations.keys if signed.delegations else {}


def check_carried(name: str, role: str, signed: Signable, carries: Mapping[str, bytes]) -> None:
    """Carried are exactly the target files that are signed, under paths that stay inside.

    Args:
        name: of the ceremony.
        role: what is signed.
        signed: the content.
        carries: by target path.

    Raises:
        RefusedError: they are not.
    """
    again = f"start it again: firmroot ceremony abandon {role}, then redo the change"
    targets = signed.targets if isinstance(signed, Targets) else {}
    for path in (*targets, *carries):
        check_path(path)
    if role != "targets":  # which has a message of its own for target files
        for path, target in targets.items():
            try:
                target.verify_length_and_hashes(carries.get(path, b""))
            except LengthOrHashMismatchError as error:
                raise RefusedError(
                    f"{name} carries another {path} than the one that is to be signed", again
                ) from error
    for path in carries:
        if path not in targets:
            raise RefusedError(f"{name} carries {path}, which it does not sign", again)


def check_path(path: str) -> None:
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
    if not isinstance(signed, Targets) or role == Targets.type:
        return  # what targets itself may name, `check_alone` says
    targets = targets_in_force(ws)
    delegations = targets.delegations if targets else None
    delegated = (delegations.roles or {}).get(role) if delegations else None
    for path in signed.targets:
        if delegated is None or not delegated.is_delegated_path(path):
            raise RefusedError(f"{role} may not speak for {path}")
