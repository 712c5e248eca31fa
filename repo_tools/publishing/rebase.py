"""A builder who lost the race: the firmware of this machine, made anew on what is live.

Builds roles only: one machine signs them, and they only ever add. What is kept are the files and
their labels; a sequence that somebody else's release got first is given anew. What people signed
is never made anew by a machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tuf.api.metadata import TargetFile, Targets

from client_reference.errors import ActionRequiredError, RefusedError
from client_reference.payload.segments import SUFFIX
from repo_tools.files import remove_file
from repo_tools.metadata.bins import bins_of, builds_of, is_bin, read_index
from repo_tools.metadata.edits import add_artifacts, dropped_paths, without
from repo_tools.metadata.repository import parse
from repo_tools.metadata.roles import builds_role
from repo_tools.publishing.abandoned import other_upload
from repo_tools.publishing.examine import delegated
from repo_tools.publishing.firmware import Builds, left_out, open_signers, stage_bins, write_role
from repo_tools.publishing.plan import StaleError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from repo_tools.metadata.repository import RepositoryState
    from repo_tools.publishing.live import Readable
    from repo_tools.signing.secrets import Secrets
    from repo_tools.workspace import Workspace

__all__ = [
    "Rebased",
    "check_handover",
    "numbered",
    "rebase_bins",
    "rebase_builds",
    "renumbered",
    "sequences",
]


@dataclass(frozen=True)
class Rebased:
    """A builds role that was made anew.

    Attributes:
        role: which.
        version: its new one; 0 if nothing was left to say that is not live.
        renumbered: releases that have another sequence now: the old and the new one, by version.
    """

    role: str
    version: int
    renumbered: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def sentences(self) -> list[str]:
        """What follows for each release that was renumbered."""
        return [
            f"{version} has sequence {sequence} now, not {before}: a channel that was to offer "
            "it must be promoted again"
            for version, (before, sequence) in self.renumbered.items()
        ]


def rebase_builds(
    ws: Workspace,
    storage: Readable,
    state: RepositoryState,
    product: str,
    secrets: Secrets,
    now: datetime,
) -> Rebased | None:
    """Make the staged builds role of a product anew, if it was not made from what is live.

    Also if an upload has its name that nobody published (`abandoned`). Not a role in hash bins:
    those are `renewal.rebase_whole` and `rebase_bins`.

    Args:
        ws: the workspace; the caller holds its lock.
        storage: what it is to be published to.
        state: the verified live state.
        product: whose builds.
        secrets: of the builds keys.
        now: the time.

    Returns:
        None if it still stands on what is live.

    Raises:
        ActionRequiredError: the key is not here; says who must do it.
        RefusedError: a path or a release was published with other bytes meanwhile.
    """
    role = builds_role(product)
    data, live = ws.staged_role(role), state.role(role)
    if data is None or data == state.roles.get(role):
        return None
    staged = parse(data, Targets, role).signed
    if bins_of(staged) is not None:
        return None
    if bins_of(live) is not None:
        raise StaleError(
            f"{role} {staged.version} is one file, and meanwhile the builds are in hash bins",
            f"remove .firmroot/staged/{role}.json and add the firmware of this machine again "
            "(firmroot firmware add), then: firmroot submit",
        )
    dropped = dropped_paths(staged)
    there, version = ({}, 0) if live is None else (live.targets, live.version)
    wanted = {path: each for path, each in there.items() if path not in dropped}
    kept = all(staged.targets.get(path) == target for path, target in wanted.items())
    gone = left_out(ws, live, staged)
    stale = not kept or staged.version <= version or not gone.isdisjoint(staged.targets)
    if not stale and other_upload(storage, role, data) is None:
        return None
    rules = ws.policy.role(role, "builds")
    changes = {ws.key_name(keyid) for keyid in delegated(state, role).keyids} != set(rules.keys)
    if changes:
        check_handover(ws, state, role, staged.targets, wanted)
    new = {
        path: each
        for path, each in staged.targets.items()
        if there.get(path) != each and path not in gone
    }
    if not new and not changes and len(wanted) == len(there):
        remove_file(ws.memory / "staged" / f"{role}.json")
        return Rebased(role, 0)
    try:
        signers = open_signers(ws, product, secrets)
    except ActionRequiredError as error:
        names = " or ".join(rules.keys)
        why = "has a name that somebody else's upload has"
        if stale:
            why = f"was made from what is no longer live (version {version} is)"
        raise ActionRequiredError(
            f"{role} {staged.version} {why}, and it must be signed again by {names}: "
            f"{error.message}",
            f"where the key {names} is, add the firmware again (firmroot firmware add), then: "
            "firmroot submit",
        ) from error
    given = sequences(wanted, new)
    targets = [numbered(each, given) for each in new.values()]
    signed = without(add_artifacts(role, live, targets, rules, now), (), dropped)
    signed.version = max(version, staged.version) + 1
    write_role(ws, role, signed, signers)
    return Rebased(role, signed.version, renumbered(new, given))


def rebase_bins(
    ws: Workspace,
    storage: Readable,
    state: RepositoryState,
    product: str,
    secrets: Secrets,
    now: datetime,
) -> Rebased | None:
    """The same for a builds role in hash bins: those of this machine, made anew on what is live.

    Of a role that waits itself, `renewal.rebase_whole` has seen before that all of its bins stand.

    Args:
        ws: as `rebase_builds`.
        storage: likewise.
        state: likewise, with the bins that are staged here.
        product: likewise.
        secrets: likewise.
        now: likewise.

    Raises:
        ActionRequiredError, RefusedError: as `rebase_builds`.
    """
    role = builds_role(product)
    live = state.role(role)
    if bins_of(live) is None:
        return None
    files = {
        name: data
        for name, data in ws.staged_roles().items()
        if is_bin(name) and builds_of(name) == role and data != state.roles.get(name)
    }
    pieces = {name: parse(data, Targets, name).signed for name, data in files.items()}
    new: dict[str, TargetFile] = {}
    stands = True
    for name, staged in pieces.items():
        there = state.role(name)
        before = there.targets if there is not None else {}
        version = there.version if there is not None else 0
        left = left_out(ws, there, staged)
        new |= {
            path: each
            for path, each in staged.targets.items()
            if before.get(path) != each and path not in left
        }
        gone = dropped_paths(staged)
        kept = all(staged.targets.get(p) == each for p, each in before.items() if p not in gone)
        stands = stands and kept and staged.version > version and left.isdisjoint(staged.targets)
        stands = stands and other_upload(storage, name, files[name]) is None
    index = read_index(state.parsed_snapshot(), product)
    taken = {each.version: each.sequence for each in index}
    given = _sequences_after(taken, new)
    wanted = _by_version(new)
    if stands and given == wanted:
        return None
    signers = open_signers(ws, product, secrets) if new else []
    for name in pieces:
        remove_file(ws.memory / "staged" / f"{name}.json")
    if not new:
        return Rebased(role, 0)
    # Above what was staged before as well: an interrupted publish may have uploaded that.
    used = {
        name: Targets(
            version=each.version,
            expires=each.expires,
            unrecognized_fields=dict(each.unrecognized_fields),
        )
        for name, each in pieces.items()
    }
    builds = Builds(live, None, {}, state, used, index)
    stage_bins(ws, product, builds, [numbered(each, given) for each in new.values()], signers, now)
    version = max(each.version for each in pieces.values()) + 1
    return Rebased(role, version, renumbered(new, given))


def check_handover(
    ws: Workspace,
    state: RepositoryState,
    role: str,
    signed: Collection[str],
    live: Mapping[str, TargetFile],
) -> None:
    """A builds role whose keys change may be made anew by a machine.

    Args:
        ws: the workspace.
        state: the verified live state.
        role: which.
        signed: paths that the next key has signed.
        live: what is live.

    Raises:
        StaleError: this clone does not know yet whose keys they are.
        RefusedError: something is live that was not there when the next key signed.
    """
    _check_known(ws, state, role)
    _check_seen(role, signed, live)


def _check_known(ws: Workspace, state: RepositoryState, role: str) -> None:
    """Other keys than the policy's hold a role: is the policy ahead of what is live, or behind?

    Raises:
        StaleError: behind; this clone has yet to learn whose keys they are.
    """
    live, newest = state.role("targets"), ws.newest_targets()
    known = newest.version if newest is not None else 0
    if live is not None and live.version > known:
        raise StaleError(
            f"targets {live.version} is live and gives {role} other keys; this clone knows targets "
            f"{known}",
            "git pull, then: firmroot submit",
        )


def _check_seen(role: str, signed: Collection[str], live: Mapping[str, TargetFile]) -> None:
    """While the role's keys change, a machine vouches for nothing that its people have not seen.

    Attack: a thief of the key that goes has one more build published, and lets the next key sign
    it.

    Raises:
        RefusedError: something is live that was not there when the next key signed.
    """
    unseen = [path for path in live if path not in signed]
    if unseen:
        refs = dict.fromkeys(
            f"{role.removesuffix('-builds')}@{(live[path].custom or {}).get('version')}"
            for path in unseen
            if not path.endswith(SUFFIX)
        )
        drop = "".join(f" --drop {ref}" for ref in refs)
        raise RefusedError(
            f"{role} changes its keys, and meanwhile {', '.join(unseen)} went live with the old "
            "ones: not signed again without a look at it",
            f"compare it with what you built; if it is yours: firmroot ceremony start {role}; if "
            f"it is not: firmroot ceremony start {role}{drop}; then: firmroot submit",
        )


def _by_version(targets: Mapping[str, TargetFile]) -> dict[str, int]:
    """The sequence of each version that is named."""
    return {
        str(custom["version"]): int(custom["sequence"])
        for path, target in targets.items()
        if not path.endswith(SUFFIX) and (custom := dict(target.custom or {}))
    }


def sequences(live: Mapping[str, TargetFile], new: Mapping[str, TargetFile]) -> dict[str, int]:
    """A sequence for each new version: its own if it is free and the highest, else the next one."""
    return _sequences_after(_by_version(live), new)


def _sequences_after(taken: Mapping[str, int], new: Mapping[str, TargetFile]) -> dict[str, int]:
    highest = max(taken.values(), default=0)
    given: dict[str, int] = {}
    for version, sequence in sorted(_by_version(new).items(), key=lambda each: each[1]):
        if version in taken:
            given[version] = taken[version]
            continue
        highest = max(sequence, highest + 1)
        given[version] = highest
    return given


def numbered(target: TargetFile, given: Mapping[str, int]) -> TargetFile:
    """The same entry, with the sequence of its version."""
    custom = dict(target.custom or {})
    if "sequence" in custom:
        custom["sequence"] = given[str(custom["version"])]
    return TargetFile(target.length, dict(target.hashes), target.path, {"custom": custom})


def renumbered(
    new: Mapping[str, TargetFile], given: Mapping[str, int]
) -> dict[str, tuple[int, int]]:
    """The old and the new sequence of each version whose one changes."""
    before = _by_version(new)
    return {
        version: (before[version], sequence)
        for version, sequence in given.items()
        if before[version] != sequence
    }
