"""What a new epoch takes over from the one before, without believing the root that was lost.

Whoever stole a threshold of root can publish anything under it. So nothing is taken from what is
live: people's roles come from git, where they were reviewed, and a builds role only if its bytes
are those that this workspace recorded in `history/` when it published them. Target files have no
epoch; they are named by their hashes. Each role is signed again under the new root, by the same
people as ever, who see what they sign.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from tuf.api.metadata import Targets

from client_reference.errors import ConfigurationError, NotFoundError, NotTrustedError
from client_reference.trust.verified import check_target
from repo_tools.metadata.bins import builds_of, is_bin
from repo_tools.metadata.repository import RepositoryState, parse, sha256
from repo_tools.metadata.roles import builds_role
from repo_tools.publishing.artifacts import stored_name
from repo_tools.publishing.journal import records
from repo_tools.publishing.live import MAX_METADATA, metadata_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tuf.api.metadata import TargetFile

    from repo_tools.workspace import Workspace

__all__ = ["carried_files", "earlier", "inherited_builds", "inherited_role", "primary_root"]


def primary_root(ws: Workspace) -> bytes | None:
    """The root that the epoch starts from: published, else signed; None while it is neither."""
    return next(iter(ws.roots()), None) or ws.staged_role("root")


def earlier(ws: Workspace) -> Iterator[Workspace]:
    """The workspace in each epoch before, newest first."""
    before = ws.before()
    while before is not None:
        yield before
        before = before.before()


def inherited_role(ws: Workspace, role: str) -> Targets | None:
    """What people signed last for a role in an earlier epoch, None if they never did."""
    for before in earlier(ws):
        if (data := before.published_role(role)) is not None:
            return parse(data, Targets, role).signed
    return None


def carried_files(ws: Workspace, signed: Targets) -> dict[str, bytes]:
    """The target files of an inherited role, by target path.

    Raises:
        NotTrustedError: one is not the file that was signed.
        NotFoundError, RetryLaterError: the storage does not have it, or does not answer.
    """
    storage = ws.storage()
    found = {}
    for path, target in signed.targets.items():
        stored = stored_name(path, target.hashes["sha256"])
        found[path] = storage.read(stored, target.length).data
        check_target(target, found[path])
    return found


def inherited_builds(ws: Workspace, product: str) -> Mapping[str, TargetFile]:
    """The artifacts of a product that this workspace published, or staged here, in earlier epochs.

    Raises:
        NotTrustedError: the storage no longer has the bytes that were published.
        ConfigurationError: a record of `history/` is damaged.
    """
    role = builds_role(product)
    for before in earlier(ws):
        found: dict[str, TargetFile] = {}
        for name in (role, *_bins_before(before, role)):
            if (data := _recorded(before, name)) is not None:
                found |= parse(data, Targets, name).signed.targets
            if (data := before.staged_role(name)) is not None:
                staged = RepositoryState(roles={name: data}).role(name)
                found |= staged.targets if staged is not None else {}
        if found:
            return found
    return {}


def _bins_before(ws: Workspace, role: str) -> list[str]:
    """The hash bins of a builds role that were ever published here, or are staged."""
    names = set(ws.staged_roles())
    for path in records(ws):
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            names.update(json.loads(path.read_bytes())["roles"])
    return sorted(name for name in names if is_bin(name) and builds_of(name) == role)


def _recorded(ws: Workspace, role: str) -> bytes | None:
    """A builds role, or a bin, as this workspace published it last; the record names its bytes."""
    for path in reversed(records(ws)):
        try:
            facts: Mapping[str, Any] | None = json.loads(path.read_bytes())["roles"].get(role)
            if facts is None:
                continue
            version, digest = int(facts["version"]), str(facts["sha256"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(
                f"history/{path.name} is damaged: {error!r}", "take it from git"
            ) from error
        place = metadata_path(role, version)
        try:
            data = ws.storage().read(place, MAX_METADATA).data
        except NotFoundError:
            data = b""
        if sha256(data) != digest:
            raise NotTrustedError(
                f"{place} in {ws.storage().url} is not what this workspace published "
                f"(sha256 {digest}, history/{path.name})",
                "restore that file from a mirror or a backup, then run the command again",
            )
        return data
    return None
