"""Names that an upload has which nobody published.

Whoever uploads `N.ROLE.json` and dies for good before the commit leaves a name that no other bytes
can ever have (storage is create-only). Nobody may wait for the clean-up, months later:

 * The same content with other signatures is as good as what is here, and is taken over.
 * A snapshot steps over it (`prepare`), since whoever publishes can sign the next version.
 * A builds role is made anew with a higher version where its key is (`rebase`), and so are bins.
 * What people signed stays theirs. Two contents of one version are told, with the way out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuf.api.metadata import Targets

from client_reference.errors import FirmrootError, NotFoundError
from client_reference.trust.verified import authentic, read
from repo_tools.files import replace_file
from repo_tools.metadata.bins import builds_of, is_bin
from repo_tools.metadata.repository import parse
from repo_tools.publishing.live import MAX_METADATA, metadata_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tuf.api.metadata import Root

    from repo_tools.publishing.live import Readable
    from repo_tools.publishing.plan import Admitted
    from repo_tools.workspace import Workspace

__all__ = ["other_upload", "take_over", "way_out"]


def other_upload(storage: Readable, role: str, data: bytes) -> bytes | None:
    """Other bytes under the name that a signed role is to have; None if it is free, or its own."""
    name = metadata_path(role, parse(data, Targets, role).signed.version)
    try:
        there = storage.read(name, MAX_METADATA).data
    except NotFoundError:
        return None
    return None if there == data else there


def take_over(ws: Workspace, storage: Readable, admitted: Admitted) -> tuple[str, ...]:
    """Stage what was uploaded with the same content, instead of what is here.

    Args:
        ws: the workspace; the caller holds its lock.
        storage: what was to be published to.
        admitted: what was to be published, and could not.

    Returns:
        the roles whose names other contents have.
    """
    taken = []
    for role, data in admitted.roles.items():
        there = other_upload(storage, role, data)
        if there is None:
            continue
        places = (ws.staged / f"{role}.json", ws.memory / "staged" / f"{role}.json")
        here = [path for path in places if path.exists()]
        if here and _is_as_good(admitted, role, data, there):
            replace_file(here[0], there)
        else:
            taken.append(role)
    return tuple(taken)


def _is_as_good(admitted: Admitted, role: str, ours: bytes, there: bytes) -> bool:
    """Whether an upload says the same, and is signed well."""
    try:
        if read(Targets, role, there).payload != read(Targets, role, ours).payload:
            return False
        # Attack: whoever can write to the storage puts the payload there with signatures that are
        # none, and what people signed here would be gone.
        candidate = admitted.candidate
        above: Root | Targets | None = candidate.targets
        if role == Targets.type:
            above = candidate.root
        elif is_bin(role):
            above = candidate.role(builds_of(role))
        if above is None:
            return False
        authentic(Targets, above, role, there)
    except FirmrootError:
        return False
    return True


def way_out(roles: Sequence[str]) -> str:
    """What to do about roles whose names are taken."""
    if all(is_bin(role) or role.endswith("-builds") for role in roles):
        return (
            "if somebody else is at work, run the command again; if they gave up, firmroot submit "
            "makes it anew with a higher version, and then: firmroot publish"
        )
    return (
        "two contents have one version: ask the others who hold these keys, and publish theirs; "
        "what nobody publishes is removed by firmroot gc at the end of its window"
    )
