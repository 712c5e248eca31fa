"""Pure: what a publish may do to builds roles in hash bins, and the index that it signs.

`plan.admit` judges each role by itself. What only shows in all of them together:

* a builds role with bins changes together with every bin: its keys, its expiry and its cut are
  theirs as well;
* a bin lists only paths that are its own: any other is one that no device would ever find;
* a new release has a sequence above every other, and a release of the index keeps its own. Two
  builders who never touched the same bin meet here: the second must take another sequence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuf.api.metadata import TargetFile, Targets

from client_reference.errors import ActionRequiredError, RefusedError
from client_reference.payload.segments import SUFFIX
from client_reference.trust.verified import read
from repo_tools.metadata.bins import (
    FIELD,
    as_field,
    bins_of,
    builds_of,
    check_bins,
    indexed,
    is_bin,
    listed_bins,
    read_index,
    with_releases,
)
from repo_tools.metadata.edits import DROPPED_FIELD
from repo_tools.metadata.roles import builds_role

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from tuf.api.metadata import SuccinctRoles

    from client_reference.manifest import Manifest
    from repo_tools.metadata.bins import Release
    from repo_tools.metadata.repository import RepositoryState
    from repo_tools.publishing.plan import Admitted

__all__ = [
    "StaleError",
    "TakenSequenceError",
    "artifact",
    "check_admitted",
    "check_loaded",
    "check_releases",
    "in_bin",
    "next_index",
    "offered_bins",
    "own_bins",
]


class StaleError(RefusedError):
    """A staged role was made from a base that is no longer live."""


class TakenSequenceError(StaleError):
    """Somebody else's release has the sequence of one that waits."""


def artifact(state: RepositoryState, product: str, path: str) -> TargetFile | None:
    """What the builds role of a product says about a path, itself or in its bin.

    Raises:
        AssertionError: nobody read that bin (`live.read_bins`).
    """
    role = builds_role(product)
    builds = state.role(role)
    if (bins := bins_of(builds)) is not None:
        name = bins.get_role_for_target(path)
        check_loaded(state, name)
        builds = state.role(name)
    return builds.targets.get(path) if builds is not None else None


def offered_bins(state: RepositoryState, manifests: Iterable[Manifest]) -> set[str]:
    """The hash bins to which manifests send devices."""
    return {
        bins.get_role_for_target(payload.artifact.path)
        for manifest in manifests
        if (bins := bins_of(state.role(builds_role(manifest.product)))) is not None
        for release in manifest.releases
        for payload in release.payloads
    }


def check_loaded(state: RepositoryState, name: str) -> None:
    """A bin that is live is never taken for one that does not exist.

    Raises:
        AssertionError: it was not read.
    """
    snapshot = state.parsed_snapshot() if name not in state.roles else None
    if snapshot is not None and f"{name}.json" in snapshot.meta:
        raise AssertionError(f"{name} is live and was not read")


def own_bins(role: str, bins: SuccinctRoles, signed: Targets) -> None:
    """A bin lists nothing that another bin speaks for.

    Raises:
        RefusedError: names what it lists.
    """
    for path in signed.targets:
        if (home := bins.get_role_for_target(path)) != role:
            raise RefusedError(
                f"{role} lists {path}, which is for {home} to say; no device would find it",
                "find out who wrote this: `firmroot firmware add` does not",
            )


def check_admitted(admitted: Admitted) -> None:
    """The rules of this module.

    Raises:
        TakenSequenceError: a release must have another sequence.
        ActionRequiredError: bins must be signed together with their role.
        RefusedError: a builds role delegates to somebody else, or a bin lists what is not its own.
    """
    base, candidate = admitted.base, admitted.candidate
    changed = {role for role in admitted.roles if is_bin(role)}
    outer = candidate.targets
    looked_at = {builds_of(role) for role in changed} | set(admitted.roles)
    if Targets.type in admitted.roles:  # it may give a builds role other keys
        looked_at |= set(candidate.roles)
    for above in sorted(looked_at):
        builds = candidate.role(above) if above in candidate.roles else None
        bins = bins_of(builds)
        if bins is None or builds is None or outer is None or not above.endswith("-builds"):
            continue
        _check_keys(admitted, above, builds, outer)
        if above in admitted.roles:
            _check_together(admitted, above, bins)
        mine = [role for role in changed if builds_of(role) == above]
        for role in mine:
            own_bins(role, bins, read(Targets, role, admitted.roles[role]).signed)
        product = above.removesuffix("-builds")
        flat = base.role(above)
        index: Sequence[Release] = read_index(base.parsed_snapshot(), product)
        if flat is not None and bins_of(flat) is None:
            _check_converted(above, flat, _all(admitted, mine))
            index = indexed(flat.targets.values())
        check_releases(product, index, _new(admitted, mine))


def _check_keys(admitted: Admitted, above: str, builds: Targets, outer: Targets) -> None:
    """Bins have the keys of their role; where targets changes those, all are signed again."""
    try:
        check_bins(above, builds, outer)
    except RefusedError as error:
        if above in admitted.roles or Targets.type not in admitted.roles:
            raise
        raise ActionRequiredError(
            f"targets gives {above} other keys or another threshold than its hash bins have",
            f"on the builder's machine: firmroot ceremony start {above}; it goes in the same "
            "publish",
        ) from error


def _check_converted(role: str, flat: Targets, found: Mapping[str, TargetFile]) -> None:
    """Cut into bins, a role says of each artifact what it said before.

    Raises:
        StaleError: something is missing, or says something else.
    """
    for path, target in flat.targets.items():
        if not path.endswith(SUFFIX) and not same_artifact(found.get(path), target, flat.targets):
            raise StaleError(
                f"the hash bins of {role} do not have {path} as it is live: somebody else added "
                "firmware meanwhile",
                "run the command that made them again",
            )


def same_artifact(
    binned: TargetFile | None, flat: TargetFile, targets: Mapping[str, TargetFile]
) -> bool:
    """Whether a bin says of an artifact what a role in one piece says, its segments included."""
    return binned == in_bin(flat, targets)


def in_bin(flat: TargetFile, targets: Mapping[str, TargetFile]) -> TargetFile:
    """An artifact as its bin has it, which names the list of segments in `custom`."""
    listed = targets.get(flat.path + SUFFIX)
    custom = dict(flat.custom or {})
    if listed is not None:
        custom["segments"] = listed.hashes["sha256"]
    return TargetFile(flat.length, dict(flat.hashes), flat.path, {"custom": custom})


def _check_together(admitted: Admitted, above: str, bins: SuccinctRoles) -> None:
    before = bins_of(admitted.base.role(above))
    if before is None:
        return
    if bins.bit_length != before.bit_length:
        raise RefusedError(
            f"{above} has {2**bins.bit_length} hash bins, and {2**before.bit_length} are live: "
            "another number would move every artifact",
            f"remove .firmroot/staged/{above}.json and its bins, then add the firmware again",
        )
    left = set(listed_bins(admitted.base.parsed_snapshot(), before)) - set(admitted.roles)
    if left:
        raise ActionRequiredError(
            f"{above} changes, and {len(left)} of its hash bins were not signed with it",
            f"on the builder's machine: firmroot ceremony start {above}",
        )


def check_releases(
    product: str, index: Sequence[Release], new: Mapping[str, TargetFile]
) -> tuple[Release, ...]:
    """The releases that new artifacts make, if their sequences are free.

    Raises:
        TakenSequenceError: one is not.
    """
    given = {each.version: each.sequence for each in index}
    highest = max(given.values(), default=0)
    found = indexed(new.values())
    taken: dict[int, str] = {}
    for release in found:
        version, sequence = release.version, release.sequence
        free = given[version] == sequence if version in given else sequence > highest
        if not free or taken.setdefault(sequence, version) != version:
            raise TakenSequenceError(
                f"{product}@{version} has sequence {sequence}, which is not free: "
                f"{given.get(version, highest)} is the "
                f"{'one of that version' if version in given else 'highest that is live'}",
                "firmware was added on another machine and published first: add it here again "
                f"after removing .firmroot/staged/{product}_*.json",
            )
    return found


def _new(admitted: Admitted, roles: Sequence[str]) -> dict[str, TargetFile]:
    """Artifacts that bins name for the first time."""
    found: dict[str, TargetFile] = {}
    for role in roles:
        check_loaded(admitted.base, role)
        live = admitted.base.role(role)
        before = live.targets if live is not None else {}
        now = read(Targets, role, admitted.roles[role]).signed.targets
        found |= {path: target for path, target in now.items() if path not in before}
    return found


def next_index(admitted: Admitted) -> Mapping[str, Any]:
    """The index of the next snapshot, for every product with bins."""
    candidate = admitted.candidate
    snapshot = admitted.base.parsed_snapshot()
    before: Mapping[str, Any] = snapshot.unrecognized_fields.get(FIELD, {}) if snapshot else {}
    products = dict.fromkeys((*before, *(_product(role) for role in admitted.roles)))
    index: dict[str, Sequence[Release]] = {}
    for product in products:
        if bins_of(candidate.role(builds_role(product))) is None:
            continue
        mine = [each for each in admitted.roles if is_bin(each) and _product(each) == product]
        index[product] = with_releases(
            read_index(snapshot, product),
            indexed(_new(admitted, mine).values()),
            _dropped(admitted, mine),
        )
    return as_field(index)


def _all(admitted: Admitted, roles: Sequence[str]) -> dict[str, TargetFile]:
    found: dict[str, TargetFile] = {}
    for role in roles:
        found |= read(Targets, role, admitted.roles[role]).signed.targets
    return found


def _dropped(admitted: Admitted, roles: Sequence[str]) -> set[str]:
    """Versions of which a bin leaves something out, on purpose."""
    found: set[str] = set()
    for role in roles:
        said = read(Targets, role, admitted.roles[role]).signed.unrecognized_fields
        for path in said.get(DROPPED_FIELD) or ():
            _, _, version, *_ = *str(path).split("/"), "", "", ""
            found.add(version)
    return found


def _product(role: str) -> str:
    return builds_of(role).removesuffix("-builds") if is_bin(role) else role.removesuffix("-builds")
