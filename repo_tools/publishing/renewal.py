"""Signing a builds role again: with fresh expiry, or with the key that has taken another's place.

Builds roles are signed by machines at once, without a ceremony; the result waits in the outbox of
this machine for the next publish, like added firmware.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuf.api.metadata import TargetFile, Targets

from client_reference.errors import ActionRequiredError, ConfigurationError, RefusedError
from client_reference.payload.segments import SUFFIX
from repo_tools.files import remove_file, replace_file
from repo_tools.metadata.bins import (
    bins_of,
    builds_of,
    delegating,
    listed_bins,
    spread,
)
from repo_tools.metadata.edits import (
    add_artifacts,
    assemble,
    dropped_paths,
    expiry,
    signed_bytes,
    without,
)
from repo_tools.metadata.repository import parse
from repo_tools.metadata.roles import builds_role
from repo_tools.products import set_bins
from repo_tools.publishing.abandoned import other_upload
from repo_tools.publishing.binned import in_bin
from repo_tools.publishing.examine import delegated
from repo_tools.publishing.factory import load_registry
from repo_tools.publishing.firmware import (
    Near,
    left_out,
    open_signers,
    read_builds,
    write_role,
)
from repo_tools.publishing.live import read_bins
from repo_tools.publishing.rebase import (
    Rebased,
    check_handover,
    numbered,
    renumbered,
    sequences,
)
from repo_tools.signing.signers import open_signer, sign

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from securesystemslib.signer import Signer
    from tuf.api.metadata import SuccinctRoles

    from keys_policy.model import KeyHolder
    from repo_tools.metadata.repository import RepositoryState
    from repo_tools.publishing.firmware import Builds
    from repo_tools.publishing.live import Readable
    from repo_tools.signing.secrets import Secrets
    from repo_tools.workspace import Workspace

__all__ = ["FIRST_CLIENT", "check_clients", "convert", "cut", "rebase_whole", "renew_builds"]

FIRST_CLIENT = (0, 1, 0)
"""The first client that reads hash bins."""


def renew_builds(
    ws: Workspace, product: str, secrets: Secrets, now: datetime, drop: Collection[str] = ()
) -> Rebased:
    """Sign everything that the role says already as its next version.

    Args:
        ws: the workspace.
        product: whose builds.
        secrets: passphrases.
        now: the time.
        drop: versions to leave out; the caller has made sure that nothing needs them.

    Returns:
        the version, and releases whose sequence somebody else's got first.

    Raises:
        ConfigurationError: no firmware was ever added.
        ActionRequiredError: too few of its keys are on this machine.
    """
    role = builds_role(product)
    rules, uris = ws.policy.role(role, "builds"), ws.key_uris()
    builds = read_builds(ws, ws.storage(), product, Near(every=True), anew=True)
    if not builds.targets:
        raise ConfigurationError(
            f"{role} has no content yet, so there is nothing to renew", "firmroot firmware add FILE"
        )
    mine = [ws.keyring[name] for name in rules.keys if name in uris]
    if len(mine) < rules.threshold:
        raise ActionRequiredError(
            f"{role} is signed by {rules.threshold} of {', '.join(rules.keys)}, and this machine "
            f"has the private keys of: {', '.join(each.name for each in mine) or 'none'}",
            f"on the builder's machine: firmroot ceremony start {role}",
        )
    if (bins := builds.bins) is not None or (builds.inherited and ws.config.products[product].bins):
        opened = [
            (open_signer(uris[each.name], each, secrets, ws.directory), each) for each in mine
        ]
        # What is live has the last word: another number would move every artifact.
        bins = bins_of(builds.live) or bins
        number = bins.number_of_bins if bins is not None else ws.config.products[product].bins
        return cut(ws, product, builds, number, opened, now, drop)
    live = builds.live.targets if builds.live is not None else {}
    gone = {path for path, each in live.items() if (each.custom or {}).get("version") in drop}
    gone |= builds.dropped
    gone |= (left := left_out(ws, builds.live, builds.staged))
    new = {
        each.path: each
        for each in builds.waiting
        if live.get(each.path) != each and each.path not in left
    }
    given = sequences({path: each for path, each in live.items() if path not in gone}, new)
    targets = [numbered(each, given) for each in new.values()]
    signed = without(add_artifacts(role, builds.live, targets, rules, now), drop, builds.dropped)
    # Above what was staged before as well: an interrupted publish may have uploaded that.
    signed.version = builds.version + 1
    payload = signed_bytes(signed)
    signatures = [
        sign(open_signer(uris[each.name], each, secrets, ws.directory), each, payload)
        for each in mine
    ]
    replace_file(ws.memory / "staged" / f"{role}.json", assemble(signed, signatures))
    return Rebased(role, signed.version, renumbered(new, given))


def rebase_whole(
    ws: Workspace,
    storage: Readable,
    state: RepositoryState,
    product: str,
    secrets: Secrets,
    now: datetime,
) -> Rebased | None:
    """A builds role that waits here with all of its hash bins, made anew on what is live.

    Args:
        ws: as `rebase.rebase_builds`.
        storage: likewise.
        state: likewise, with the bins that are staged here.
        product: likewise.
        secrets: likewise.
        now: likewise.

    Returns:
        None if it still stands on what is live, or none waits.

    Raises:
        ActionRequiredError: the key is not here.
        RefusedError: the role's keys change, and something is live that nobody here has signed.
    """
    role = builds_role(product)
    files = {
        name: data for name, data in ws.staged_roles().items() if role in {name, builds_of(name)}
    }
    data = files.get(role)
    if data is None or data == state.roles.get(role):
        return None
    parts = {name: parse(each, Targets, name).signed for name, each in files.items()}
    if bins_of(parts[role]) is None:
        return None
    if _stands(ws, storage, state, role, files, parts):
        return None
    names = {ws.key_name(keyid) for keyid in delegated(state, role).keyids}
    if names != set(ws.policy.role(role, "builds").keys):
        signed = {path for each in parts.values() for path in each.targets}
        gone = frozenset().union(*map(dropped_paths, parts.values()))
        live = _live_artifacts(storage, state, role)
        known = {path: each for path, each in live.items() if path not in gone}
        check_handover(ws, state, role, signed, known)
    return renew_builds(ws, product, secrets, now)


def _live_artifacts(
    storage: Readable, state: RepositoryState, role: str
) -> Mapping[str, TargetFile]:
    """Everything that a builds role says, as bins say it."""
    live = state.role(role)
    if (bins := bins_of(live)) is None:
        return _binned(_said(live))
    names = listed_bins(state.parsed_snapshot(), bins)
    every = read_bins(storage, state, names)
    return {path: each for name in names for path, each in _said(every.role(name)).items()}


def _said(signed: Targets | None) -> Mapping[str, TargetFile]:
    return signed.targets if signed is not None else {}


def _binned(targets: Mapping[str, TargetFile]) -> dict[str, TargetFile]:
    """Artifacts of a role in one file as bins have them; those of bins as they are."""
    return {
        path: in_bin(each, targets) for path, each in targets.items() if not path.endswith(SUFFIX)
    }


def _stands(
    ws: Workspace,
    storage: Readable,
    state: RepositoryState,
    role: str,
    files: Mapping[str, bytes],
    parts: Mapping[str, Targets],
) -> bool:
    """Whether parts of a builds role have all that is live, as newer versions whose names are free.

    Args:
        ws: the workspace.
        storage: where they are to go.
        state: what is live, with these bins.
        role: the builds role.
        files: it and its bins, as they are staged.
        parts: the same, read.
    """
    before = {}
    if (bins := bins_of(state.role(role))) is None:
        before = _binned(_said(state.role(role)))
    elif not _same_cut(bins, bins_of(parts[role])):
        return False
    else:
        for name in listed_bins(state.parsed_snapshot(), bins):
            if name not in parts:
                return False
            before |= _said(state.role(name))
    dropped = frozenset().union(*map(dropped_paths, parts.values()))
    signed = {path: each for part in parts.values() for path, each in part.targets.items()}
    if any(signed.get(path) != each for path, each in before.items() if path not in dropped):
        return False
    if any(
        not left_out(ws, state.role(name), part).isdisjoint(signed) for name, part in parts.items()
    ):
        return False
    versions = {name: there.version for name in parts if (there := state.role(name)) is not None}
    if any(parts[name].version <= version for name, version in versions.items()):
        return False
    return all(other_upload(storage, name, data) is None for name, data in files.items())


def cut(
    ws: Workspace,
    product: str,
    builds: Builds,
    number: int,
    signers: Sequence[tuple[Signer, KeyHolder]],
    now: datetime,
    drop: Collection[str] = (),
) -> Rebased:
    """Sign a builds role, and every artifact of it, as hash bins.

    For the change from one file to bins, and for a role in bins that is signed again: its bins end
    with it and have its keys, so all of them go together.

    Args:
        ws: the workspace; the caller holds its lock.
        product: whose builds.
        builds: with every bin.
        number: of bins.
        signers: of the role.
        now: the time.
        drop: versions to leave out.

    Returns:
        the version, and releases whose sequence somebody else's got first.

    Raises:
        RefusedError: a path is published with other bytes or another meaning.
    """
    role, rules = builds_role(product), ws.policy.role(builds_role(product), "builds")
    keys = [ws.keyring[name].key for name in rules.keys]
    signed = delegating(product, number, keys, rules.threshold, expiry(rules, now))
    signed.version = builds.version + 1
    bins = bins_of(signed)
    if bins is None:
        raise AssertionError("what was cut has bins")
    there: dict[str, TargetFile] = {}
    for part in (builds.live, *builds.loaded):
        there |= _said(part)
    live, waiting = _binned(there), _binned(builds.inherited)
    for part in (builds.staged, *builds.pieces.values()):
        waiting |= _binned(_said(part))
    gone = left_out(ws, builds.live, builds.staged)
    for name, part in builds.pieces.items():
        gone |= left_out(ws, builds.state.role(name), part)
    waiting = {path: each for path, each in waiting.items() if path not in gone}
    given = sequences(live, waiting)
    # Both, where one path has two contents: that is refused below.
    whole = [*live.values(), *(numbered(each, given) for each in waiting.values())]
    # Of another cut, nothing but their content stays.
    ours = builds.pieces if _same_cut(bins, bins_of(builds.staged)) else {}
    homes = {name: list[TargetFile]() for name in (*ours, *_live_bins(builds))}
    homes |= spread(bins, whole)
    for name, targets in sorted(homes.items()):
        versions = [builds.state.role(name), builds.pieces.get(name)]
        piece = add_artifacts(name, None, targets, rules, now)
        piece = without(piece, drop, builds.dropped)
        piece.version = max((each.version for each in versions if each), default=0) + 1
        piece.expires = signed.expires
        write_role(ws, name, piece, signers)
    write_role(ws, role, signed, signers)
    for name in builds.pieces.keys() - homes.keys():
        remove_file(ws.memory / "staged" / f"{name}.json")
    return Rebased(role, signed.version, renumbered(waiting, given))


def _same_cut(bins: SuccinctRoles, other: SuccinctRoles | None) -> bool:
    return other is not None and other.bit_length == bins.bit_length


def convert(ws: Workspace, product: str, number: int, secrets: Secrets, now: datetime) -> int:
    """Cut the builds of a product into bins: what is there at once, what comes from now on.

    Returns:
        the version of the builds role; 0 if there is no firmware yet.

    Raises:
        RefusedError: they are in bins already, or a device in the field cannot read them.
        ActionRequiredError: the builder's key is not on this machine.
    """
    builds = read_builds(ws, ws.storage(), product, Near(every=True))
    if (bins := builds.bins) is not None:
        raise RefusedError(
            f"{product} has {bins.number_of_bins} hash bins",
            "their number stays: another one would move every artifact, and devices fetch the "
            "bin of one",
        )
    check_clients(ws)
    if not builds.targets:
        set_bins(ws, product, number)
        return 0
    signers = open_signers(ws, product, secrets)
    version = cut(ws, product, builds, number, signers, now).version
    set_bins(ws, product, number)
    return version


def check_clients(ws: Workspace) -> None:
    """Every client that was shipped can read hash bins.

    Raises:
        RefusedError: names the exports whose client cannot.
    """
    unable = [
        f"{each.id} (client {each.client_version})"
        for each in load_registry(ws)
        if not each.retired and not _reads_bins(each.client_version)
    ]
    if unable:
        raise RefusedError(
            f"these devices have a client that reads no hash bins: {', '.join(unable)}",
            "bring them to a client of version 0.1.0 or newer first, or retire "
            "them: firmroot factory retire ID",
        )


def _reads_bins(client: str) -> bool:
    """Whether a client of that version does; one that says no version does not."""
    numbers = client.split("+", maxsplit=1)[0].split(".")
    known = all(each.isdecimal() for each in numbers)
    return known and tuple(map(int, numbers)) >= FIRST_CLIENT


def _live_bins(builds: Builds) -> list[str]:
    bins = bins_of(builds.live)
    return [] if bins is None else listed_bins(builds.state.parsed_snapshot(), bins)
