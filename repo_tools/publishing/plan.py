"""Pure: from what is live and what is staged to exactly the objects that a publish would write.

`admit` decides which staged roles may go with this publish, and says why the others wait. Then the
online roles are signed, and a `Plan` says what is written in which order. The rules:

* a staged role is newer than the live one, made from it, and signed as its delegator *in the
  candidate* demands; one that is live already is done; one whose base is no longer live is refused,
  never merged: signatures cover what people saw;
* a builds role never forgets an artifact that is live;
* every role that the candidate delegates to must still verify under the candidate's keys;
* every artifact that a new role names for the first time has its bytes here or in the storage;
* what bins of a builds role may do together: `repo_tools.publishing.binned`;
* upload order: targets, delegated roles, targets role, snapshot, root, the root-chain bundle that
  holds it; the timestamp commits.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tuf.api.metadata import Root, Snapshot, Targets

from client_reference.errors import ActionRequiredError, NotTrustedError, RefusedError
from client_reference.trust.verified import (
    BadSignatureError,
    DelegationError,
    authentic,
    first_root,
    next_root,
    read,
)
from repo_tools.metadata.bins import bins_of, builds_of, files_of, is_bin
from repo_tools.metadata.edits import dropped_paths
from repo_tools.metadata.repository import sha256
from repo_tools.publishing.artifacts import stored_name
from repo_tools.publishing.binned import StaleError, check_admitted, check_loaded
from repo_tools.publishing.live import metadata_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tuf.api.metadata import TargetFile

    from repo_tools.metadata.repository import RepositoryState

__all__ = [
    "MAX_JUMP",
    "Admitted",
    "Plan",
    "StaleError",
    "Upload",
    "admit",
    "admit_delegators",
    "check_delegated",
    "check_keeps_artifacts",
    "metadata_uploads",
    "new_targets",
]


MAX_JUMP = 1000
"""Versions that a role may have been signed between two publishes."""


@dataclass(frozen=True)
class Upload:
    """One object to create.

    Attributes:
        path: in the storage.
        source: its bytes, or the file that holds them.
        length: bytes.
        sha256: hex digest.
    """

    path: str
    source: bytes | Path
    length: int
    sha256: str

    @classmethod
    def of(cls, path: str, data: bytes) -> Upload:
        """An object that is at hand as bytes."""
        return cls(path, data, len(data), sha256(data))


@dataclass(frozen=True)
class Admitted:
    """Which staged roles go with this publish.

    Attributes:
        base: the verified live state.
        root: the next root, None if it does not change.
        roles: new bytes of `targets` and delegated roles, by role name.
        done: staged roles that are live already, byte for byte.
        waiting: why each other staged role cannot go yet.
        following: a root that is signed and goes live only after this publish, which is the bridge
            to it: the online roles are signed for its keys as well (`bridge`).
    """

    base: RepositoryState
    root: bytes | None = None
    roles: Mapping[str, bytes] = field(default_factory=dict)
    done: tuple[str, ...] = ()
    waiting: Mapping[str, str] = field(default_factory=dict)
    following: bytes | None = None

    @property
    def signing_roots(self) -> tuple[bytes, ...]:
        """The roots whose keys sign snapshot and timestamp; every threshold must be met."""
        newest = self.candidate.roots[-1:]
        return newest if self.following is None else (*newest, self.following)

    @property
    def changes(self) -> bool:
        """Whether there is anything to publish."""
        return self.root is not None or bool(self.roles)

    @property
    def candidate(self) -> RepositoryState:
        """The state with these changes, before snapshot and timestamp are made anew."""
        added = () if self.root is None else (self.root,)
        return replace(
            self.base, roots=self.base.roots + added, roles={**self.base.roles, **self.roles}
        )


@dataclass(frozen=True)
class Plan:
    """Everything that a publish writes, in order.

    Attributes:
        admitted: what it is made of.
        candidate: the complete state afterwards.
        uploads: objects to create before the root: targets, delegated roles, targets, snapshot.
        root: the next root as an object, None if it does not change.
        root_chain: the bundle of the newest root, None if it is stored. After the root: a rival's
            root would have taken the name of a bundle with a root that never came to be.
        timestamp: the bytes that commit it.
        base_tag: of the `timestamp.json` that they replace.
        bridged: what is live before the root serves devices that have it as well, so that there is
            time for caches between the root and the new timestamp.
    """

    admitted: Admitted
    candidate: RepositoryState
    uploads: tuple[Upload, ...]
    root: Upload | None
    root_chain: Upload | None
    timestamp: bytes
    base_tag: str | None
    bridged: bool = False


def admit(
    base: RepositoryState,
    staged: Mapping[str, bytes],
    known: Mapping[str, bytes | None],
    coming: Targets | None = None,
) -> Admitted:
    """Decide which staged roles may be published now.

    Args:
        base: the verified live state; empty before the first publish.
        staged: signed roles by name, `root` included.
        known: for each staged role that people sign, what the workspace believes to be live.
        coming: the next targets role, which waits for signatures; what is signed with keys that it
            brings waits with it.

    Raises:
        StaleError: the live role moved on since a staged one was made.
        NotTrustedError: a staged role is damaged.
        ActionRequiredError: a role that stays must be signed again first.
    """
    admitted = admit_delegators(base, staged, known)
    rest = {role: data for role, data in staged.items() if role not in {Root.type, Targets.type}}
    for role, data in sorted(rest.items(), key=lambda each: (is_bin(each[0]), each[0])):
        above = builds_of(role) if is_bin(role) else Targets.type
        if (delegator := admitted.candidate.role(above)) is None:
            waits = f"no {above} role is published or staged that delegates to it"
            admitted = replace(admitted, waiting={**admitted.waiting, role: waits})
        else:
            check_loaded(base, role)
            admitted = _admit_role(admitted, delegator, role, data, known, coming)
    check_admitted(admitted)
    return admitted


def admit_delegators(
    base: RepositoryState, staged: Mapping[str, bytes], known: Mapping[str, bytes | None]
) -> Admitted:
    """The same for root and `targets` alone, whatever has to go with them.

    Args:
        base: as `admit`.
        staged: likewise.
        known: likewise.

    Raises:
        StaleError, NotTrustedError, ActionRequiredError: as `admit`.
    """
    admitted = Admitted(base)
    if (data := staged.get(Root.type)) is not None:
        admitted = _admit_root(admitted, data)
    if (data := staged.get(Targets.type)) is not None:
        root = read(Root, Root.type, admitted.candidate.roots[-1]).signed
        admitted = _admit_role(admitted, root, Targets.type, data, known)
    return admitted


def _admit_root(admitted: Admitted, data: bytes) -> Admitted:
    if data in admitted.base.roots:
        return replace(admitted, done=(*admitted.done, "root"))
    trusted = first_root(admitted.base.roots[-1]) if admitted.base.roots else None
    version = read(Root, "the staged root", data).signed.version
    live_version = trusted.version if trusted is not None else 0
    if version != live_version + 1:
        raise _stale("root", version, live_version)
    if trusted is None:
        first_root(data)
    else:
        next_root(trusted, data)
    return replace(admitted, root=data)


def _admit_role(
    admitted: Admitted,
    delegator: Root | Targets,
    role: str,
    data: bytes,
    known: Mapping[str, bytes | None],
    coming: Targets | None = None,
) -> Admitted:
    live = admitted.base.roles.get(role)
    if data == live:
        return replace(admitted, done=(*admitted.done, role))
    version = read(Targets, role, data).signed.version
    live_version = 0 if live is None else read(Targets, role, live).signed.version
    if version <= live_version or known.get(role, live) != live:
        raise _stale(role, version, live_version)
    if version > live_version + MAX_JUMP:
        raise RefusedError(
            f"staged {role} has version {version}, live is {live_version}: "
            f"expected at most {MAX_JUMP} more",
            "whoever moves a version forward that far may want to exhaust it (design 4)",
        )
    try:
        signed = authentic(Targets, delegator, role, data)
    except DelegationError:
        above = builds_of(role) if is_bin(role) else Targets.type
        waits = (
            f"the {above} role does not delegate to it; if it never will, remove it from staged/"
        )
        return replace(admitted, waiting={**admitted.waiting, role: waits})
    except BadSignatureError as error:
        if coming is not None and _is_authentic(coming, role, data):
            waits = f"it has keys of targets {coming.version}, which waits for signatures"
            return replace(admitted, waiting={**admitted.waiting, role: waits})
        raise ActionRequiredError(
            f"staged {role} {version} is not signed by the keys that the new "
            f"{'root' if role == 'targets' else 'targets'} names for it: {error.message}",
            f"sign it again: firmroot ceremony start {role}",
        ) from error
    if role not in known and bins_of(signed) is None:
        check_keeps_artifacts(role, signed, admitted.base.role(role))
    return replace(admitted, roles={**admitted.roles, role: data})


def _is_authentic(delegator: Targets, role: str, data: bytes) -> bool:
    try:
        authentic(Targets, delegator, role, data)
    except (BadSignatureError, DelegationError):
        return False
    return True


def check_keeps_artifacts(role: str, signed: Targets, live: Targets | None) -> None:
    """A builds role is signed by one machine alone: it may add to what is live, nothing else.

    What it leaves out on purpose it says (`edits.DROPPED_FIELD`); the rehearsal finds out whether a
    device needs it.

    Raises:
        StaleError: something is missing, or says something else.
    """
    dropped = dropped_paths(signed)
    for path, target in (live.targets if live is not None else {}).items():
        if signed.targets.get(path) != target and path not in dropped:
            raise StaleError(
                f"staged {role} {signed.version} does not have {path} as it is live: "
                "somebody else added firmware meanwhile",
                "firmroot submit makes what waits here anew on what is live; or "
                f"remove .firmroot/staged/{role}.json and add the firmware again",
            )


def _stale(role: str, staged: int, live: int) -> StaleError:
    return StaleError(
        f"staged {role} has version {staged}, but version {live} is live: "
        "what it was made from is no longer live",
        "take the live state (git pull), then make the change again and sign it; "
        f"what is staged now: staged/{role}.json",
    )


def check_delegated(candidate: RepositoryState) -> None:
    """Every role of a candidate verifies under the keys that the candidate names for it.

    Raises:
        ActionRequiredError: a role must be signed again, with the keys that hold it now.
        NotTrustedError: there is no targets role.
    """
    root = read(Root, "root", candidate.roots[-1]).signed
    if (data := candidate.roles.get("targets")) is None:
        raise NotTrustedError("the candidate has no targets role")
    _check_still_signed(root, "targets", data)
    targets = read(Targets, "targets", data).signed
    delegated = targets.delegations.roles if targets.delegations else None
    for role in delegated or ():
        if role in candidate.roles:
            _check_still_signed(targets, role, candidate.roles[role])
    for role, bin_ in candidate.roles.items():
        if is_bin(role) and (above := candidate.role(builds_of(role))) is not None:
            _check_still_signed(above, role, bin_)


def _check_still_signed(delegator: Root | Targets, role: str, data: bytes) -> None:
    try:
        authentic(Targets, delegator, role, data)
    except BadSignatureError as error:
        raise ActionRequiredError(
            f"live {role} would no longer be signed by the keys that hold it: {error.message}",
            "it goes in the same publish, signed with the new keys: "
            f"firmroot ceremony start {role}; if they are on another machine, also there: "
            "firmroot submit",
        ) from error


def new_targets(admitted: Admitted) -> Iterator[tuple[str, TargetFile]]:
    """Target files that new roles name and live ones did not, with their storage paths."""
    for role, data in sorted(admitted.roles.items()):
        before = admitted.base.role(role)
        known = before.targets if before is not None else {}
        for path, target in sorted(read(Targets, role, data).signed.targets.items()):
            if known.get(path) is None or known[path].hashes != target.hashes:
                for file in files_of(target):
                    yield stored_name(file.path, file.hashes["sha256"]), file


def metadata_uploads(roles: Mapping[str, bytes], snapshot: bytes | None) -> Iterator[Upload]:
    """New metadata in upload order: bins, delegated roles, `targets`, snapshot.

    Args:
        roles: the roles that are new.
        snapshot: the snapshot if it is, else None.
    """
    for role in sorted(roles, key=lambda each: (each == "targets", not is_bin(each), each)):
        version = read(Targets, role, roles[role]).signed.version
        yield Upload.of(metadata_path(role, version), roles[role])
    if snapshot is not None:
        version = read(Snapshot, "snapshot", snapshot).signed.version
        yield Upload.of(metadata_path("snapshot", version), snapshot)
