"""The course of a ceremony: it is started, changed, abandoned or finished.

Killed anywhere and run again, each of these finishes: the payload is written last and removed
first.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tuf.api.metadata import Root, Targets

from client_reference.errors import ActionRequiredError
from repo_tools.files import TEMPORARY_SUFFIX, remove_file, replace_file
from repo_tools.metadata.edits import signed_bytes
from repo_tools.metadata.repository import parse, sha256
from repo_tools.metadata.roles import delegator
from repo_tools.signing.ceremony.chronicle import Ending, keep_record
from repo_tools.signing.ceremony.electorate import is_signed
from repo_tools.signing.ceremony.guards import check_ceremony, check_content, check_path
from repo_tools.signing.ceremony.reading import (
    ROOTS,
    SIGNATURE,
    Base,
    Ceremony,
    load_ceremony,
    open_ceremonies,
    parse_role,
    predecessor,
    readable,
)
from repo_tools.signing.ceremony.signatures import assemble, status

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from repo_tools.signing.ceremony.reading import Signable
    from repo_tools.workspace import Workspace

__all__ = [
    "DiscardedSignaturesError",
    "abandon",
    "check_startable",
    "finish",
    "finish_complete",
    "start_ceremony",
    "tidy",
]


class DiscardedSignaturesError(ActionRequiredError):
    """Going on would discard signatures that people have given."""


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
        base = Base(parse_role(before, role, role).version, sha256(before))
    why = ws.occasion.why if ws.occasion is not None else ""
    ceremony = Ceremony(ws.ceremonies / f"{role}-{signed.version}", role, base, signed, why=why)
    files = {} if carries is None else carries
    check_content(ws, ceremony, files)
    before_this = [each for each in open_ceremonies(ws) if each.role == role]
    for existing in before_this:
        if existing.payload == ceremony.payload and existing.base == base:
            return existing
    check_startable(ws, role, discard_signatures=discard_signatures)
    for existing in before_this:
        if status(ws, existing).signed:
            keep_record(ws, existing, Ending.REPLACED)
        if existing.directory != ceremony.directory:
            abandon(existing)
    _write(ceremony, files)
    return load_ceremony(ceremony.directory)


def check_startable(ws: Workspace, role: str, *, discard_signatures: bool) -> None:
    """Whether a ceremony of a role could be opened or changed, before anything is written.

    Raises:
        DiscardedSignaturesError: signatures would be discarded, and that is not wanted.
        ActionRequiredError: a signed root must be published first.
    """
    staged = ws.staged_role(role) if role in ROOTS else None
    if staged is not None and staged != predecessor(ws, role):
        version = parse(staged, Root, f"staged {role}").signed.version
        raise ActionRequiredError(
            f"{role} {version} is signed and not yet published; devices need every root in turn",
            ROOTS[role],
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
        check_path(path)
        replace_file(ceremony.directory / "targets" / path, data)
    base = {"role": ceremony.role, **vars(ceremony.base)}
    if ceremony.why:
        base["why"] = ceremony.why
    replace_file(ceremony.directory / "base.json", readable(base))
    replace_file(ceremony.directory / "payload.json", readable(ceremony.signed.to_dict()))
    for signature in ceremony.directory.glob(f"*{SIGNATURE}"):
        remove_file(signature)


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
    ours.update(directory.glob(f"*{SIGNATURE}"), directory.glob(f".*{TEMPORARY_SUFFIX}"))
    for path in ours:
        if path.is_file() and not path.is_symlink():
            path.unlink(missing_ok=True)
    for path in (*sorted(carried, reverse=True), top, directory):
        with contextlib.suppress(OSError):  # it is not empty, or not a directory
            path.rmdir()


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
    if (waits := _waits_for(ws, ceremony)) is not None:
        raise ActionRequiredError(
            f"{ceremony.name} is signed, but {waits.name}, which delegates to it, is not",
            "firmroot sign",
        )
    if isinstance(ceremony.signed, Targets):
        for path, file in ceremony.carries.items():
            stored = ws.staged / "targets" / ceremony.signed.targets[path].get_prefixed_paths()[0]
            replace_file(stored, file.read_bytes())
    keep_record(ws, ceremony, Ending.SIGNED)
    staged = ws.staged / f"{ceremony.role}.json"
    replace_file(staged, data)
    abandon(ceremony)
    return staged


def _is_staged(ws: Workspace, ceremony: Ceremony) -> bool:
    """Whether an earlier run was killed between staging and tidying."""
    staged = ws.staged_role(ceremony.role)
    if staged is None:
        return False
    return signed_bytes(parse_role(staged, ceremony.role, ceremony.role)) == ceremony.payload


def _waits_for(ws: Workspace, ceremony: Ceremony) -> Ceremony | None:
    """The open ceremony of the role that delegates to this one, if it must be signed before.

    A hold takes one key, also in the weeks in which people sign the next targets: what is good for
    that and for the one before need not wait.
    """
    above = delegator(ceremony.role)
    waits = next((each for each in open_ceremonies(ws) if each.role == above), None)
    if waits is None or above != Targets.type:
        return waits
    newest, data = ws.newest_targets(), assemble(ws, ceremony)
    good = newest is not None and data is not None and is_signed(newest, ceremony.role, data)
    return None if good else waits


def finish_complete(ws: Workspace) -> list[Path]:
    """Stage everything that has its signatures, delegators first."""
    return [
        finish(ws, ceremony)
        for ceremony in open_ceremonies(ws)
        if status(ws, ceremony).complete and _waits_for(ws, ceremony) is None
    ]


def tidy(ws: Workspace) -> None:
    """Remove what is no ceremony any more, or never became one.

    A run was killed while it ended or began one, or a signature arrived by git when its ceremony
    had ended.
    """
    for directory in sorted(ws.ceremonies.glob("*")):
        if not (directory / "payload.json").exists():
            _tidy(directory)
