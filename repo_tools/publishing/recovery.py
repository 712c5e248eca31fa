"""The recovery storage: publishing the anchor there, and auditing it.

It holds the chain of recovery roots as `N.root.json`, and for each epoch after the first the
primary root that it starts from as `eE/1.root.json`. Everything in it is created once. The rules:

* nothing of an epoch is published before the anchor, signed to its threshold, has named its root;
* the anchor is published after that: devices that follow it find a live repository there;
* `N.root.json` is what devices act on, so the root that it names is there before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tuf.api.metadata import Root

from client_reference.errors import (
    ActionRequiredError,
    FirmrootError,
    NotFoundError,
    RefusedError,
)
from client_reference.trust.recovery import first_root_path, link_path, read_statement
from repo_tools.files import remove_file, replace_file
from repo_tools.metadata.anchor import names, walk
from repo_tools.metadata.repository import parse, sha256
from repo_tools.metadata.roles import RECOVERY
from repo_tools.publishing.following import first_roots, lead, signed_chain
from repo_tools.publishing.inherit import earlier, primary_root
from repo_tools.publishing.live import MAX_METADATA
from repo_tools.publishing.prepare import read_base
from repo_tools.signing.ceremony import finish, open_ceremonies
from repo_tools.storage.protocol import AccessDeniedError, Created

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from client_reference.trust.recovery import Statement
    from repo_tools.publishing.rehearse import Lead
    from repo_tools.storage.protocol import Storage
    from repo_tools.workspace import Workspace

__all__ = ["Problem", "audit_anchor", "check_epoch", "live_lead", "publish_anchor"]


def check_epoch(ws: Workspace) -> None:
    """Refuse to publish into an epoch whose root the anchor has not named, or into one that ended.

    Raises:
        ActionRequiredError: the re-rooting is not finished.
        RefusedError: the workspace is in another epoch than the anchor, or from another root.
    """
    anchor = ws.newest_recovery()
    named = read_statement(anchor) if anchor is not None else None
    reached = named.epoch if named is not None else 0
    if named is not None and ws.epoch == reached + 1:
        raise ActionRequiredError(
            f"epoch {ws.epoch} has begun, and the anchor has not named its root yet: no device "
            "would come here",
            "firmroot anchor re-root, then: firmroot sign",
        )
    if ws.epoch != reached:
        raise RefusedError(
            f"firmroot.toml says epoch {ws.epoch}, the recovery anchor says {reached}",
            "take firmroot.toml and metadata/recovery from git; only anchor re-root changes epochs",
        )
    first = primary_root(ws)
    if named is not None and first is not None and not names(named, first):
        raise RefusedError(
            f"the anchor says that epoch {named.epoch} starts from the root with sha256 "
            f"{named.sha256}, this workspace starts from {sha256(first)}",
            "take metadata/ from git as it was; devices would be led to another repository",
        )


def publish_anchor(ws: Workspace) -> tuple[tuple[int, ...], Statement]:
    """Write the chain to the recovery storage, and what was staged to git's copy of the chain.

    Killed anywhere and run again, it finishes; versions that the storage lost are put back. The
    caller holds the workspace's lock.

    Returns:
        the versions that were not there before, and the newest statement.

    Raises:
        ActionRequiredError: nothing is signed, or the primary repository is not live yet.
        NotTrustedError: the chain does not verify.
        LockedError: another object is in the place of one of these.
    """
    for ceremony in open_ceremonies(ws):
        if ceremony.role == RECOVERY:
            finish(ws, ceremony)
    staged = ws.staged_role(RECOVERY)
    chain = signed_chain(ws)
    if not chain:
        raise ActionRequiredError("there is no recovery anchor yet", "firmroot anchor init")
    newest = walk(chain)[-1].statement
    storage = ws.recovery_storage()
    if staged is not None:
        check_epoch(ws)
        _check_live(ws)
    for epoch, root in first_roots(ws, newest.epoch):
        storage.create(first_root_path(epoch), root, sha256(root))
    new = tuple(
        version
        for version, data in enumerate(chain, 1)
        if storage.create(link_path(version), data, sha256(data)) is Created.NEW
    )
    if staged is not None:
        replace_file(ws.anchor / f"{len(chain)}.json", staged)
        remove_file(ws.staged / f"{RECOVERY}.json")
    if ws.config.lab:
        _forget_replaced(ws, chain)
    return new, newest


def _forget_replaced(ws: Workspace, chain: Sequence[bytes]) -> None:
    """A lab forgets where recovery keys are that the newest recovery root has replaced."""
    *before, newest = (
        set(parse(data, Root, RECOVERY).signed.roles[Root.type].keyids) for data in chain
    )
    for name in ws.own_key_uris():
        key = ws.keyring.get(name)
        replaced = key is not None and any(key.key.keyid in each - newest for each in before)
        if replaced and not any(ws.policy.roles_of(name)):
            ws.remove_key_uri(name)


def _check_live(ws: Workspace) -> None:
    """Devices act on the anchor at once: what it names must be there."""
    if read_base(ws, ws.storage()).tag is None:
        raise ActionRequiredError(
            f"epoch {ws.epoch} is not live: devices would be sent where nothing is",
            "firmroot publish, then: firmroot anchor publish",
        )


@dataclass(frozen=True)
class Problem:
    """What is wrong with the published anchor.

    Attributes:
        serious: devices could be led elsewhere, or could not follow.
        detail: what was found and what was expected.
    """

    serious: bool
    detail: str


def audit_anchor(ws: Workspace) -> Iterator[Problem]:
    """Hold the recovery storage against the chain of git. Changes nothing."""
    chain = ws.recovery_roots()
    if not chain:
        text = "there is none: devices that are made now can never be re-rooted"
        yield Problem(serious=False, detail=f"{text}; firmroot anchor init")
        return
    try:
        newest = walk(chain)[-1].statement
        yield from _audit_statement(ws, newest)
        yield from _audit_chain(ws.recovery_storage(), chain)
        yield from _audit_roots(ws, newest.epoch)
    except AccessDeniedError as error:
        # It is in another account: who publishes need not be able to read there.
        text = f"not looked at: {error.message}"
        yield Problem(serious=False, detail=f"{text}; who may read it runs firmroot verify")
    except FirmrootError as error:
        yield Problem(serious=True, detail=error.message)


def live_lead(ws: Workspace) -> Lead:
    """Where devices are led by what is in the recovery storage now, and by what is yet to come.

    What git has as published counts only as far as the storage shows it. A version that is signed
    and not yet published counts as if it were there: a re-rooting that is under way strands nobody.

    Raises:
        NotTrustedError: the chain of git does not verify.
        RetryLaterError, ConfigurationError: the storage cannot be asked.
    """
    planned, chain = lead(ws), ws.recovery_roots()
    if not chain:
        return planned
    published = {link_path(version) for version in range(1, len(chain) + 1)}
    named = first_roots(ws, walk(chain)[-1].statement.epoch)
    published |= {first_root_path(epoch) for epoch, _ in named}
    storage, files = ws.recovery_storage(), dict(planned.files)
    for path in published:
        found = _find(storage, path)
        if found is not None:
            files[path] = found
        else:
            files.pop(path, None)
    return replace(planned, files=files)


def _audit_statement(ws: Workspace, statement: Statement) -> Iterator[Problem]:
    """The newest statement is about the primary root of its epoch."""
    for view in (ws, *earlier(ws)):
        if view.epoch == statement.epoch:
            root = primary_root(view)
            if root is None or not names(statement, root):
                text = f"names sha256 {statement.sha256} as the first root of epoch {view.epoch}"
                found = "there is none" if root is None else f"it is {sha256(root)}"
                yield Problem(serious=True, detail=f"{text}; {found}")
            return
    text = f"is at epoch {statement.epoch}, firmroot.toml says {ws.epoch}"
    yield Problem(serious=True, detail=text)


def _audit_chain(storage: Storage, chain: tuple[bytes, ...]) -> Iterator[Problem]:
    """Every version is there as git has it, and nobody has published another one after them."""
    for version, data in enumerate(chain, 1):
        found = _find(storage, link_path(version))
        if found is None:
            text = f"{link_path(version)} is not in {storage.url}: devices that need it stay behind"
            yield Problem(serious=True, detail=f"{text}; firmroot anchor publish")
        elif found != data:
            text = f"{link_path(version)} in {storage.url} is not metadata/recovery/{version}.json"
            yield Problem(serious=True, detail=text)
    if (found := _find(storage, link_path(len(chain) + 1))) is not None:
        text = f"{link_path(len(chain) + 1)} in {storage.url} is not known to git: "
        try:
            walk((*chain, found))
        except FirmrootError as error:
            yield Problem(serious=True, detail=f"{text}{error.message}")
        else:
            text += "it is signed, devices follow it; git is behind, or the keys were stolen"
            yield Problem(serious=True, detail=text)


def _audit_roots(ws: Workspace, newest: int) -> Iterator[Problem]:
    """The primary roots of later epochs are beside the chain."""
    storage = ws.recovery_storage()
    for epoch, root in first_roots(ws, newest):
        if _find(storage, first_root_path(epoch)) != root:
            text = f"{first_root_path(epoch)} in {storage.url} is not the first root of that epoch"
            yield Problem(serious=True, detail=text)


def _find(storage: Storage, path: str) -> bytes | None:
    try:
        return storage.read(path, MAX_METADATA).data
    except NotFoundError:
        return None
