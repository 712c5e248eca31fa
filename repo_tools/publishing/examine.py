"""Pure: whether a role that somebody handed in may be published on what is live.

The submitter asks before handing in, the publisher asks again and believes nothing. The rules:

* the role is one that the live `targets` delegates to, and a threshold of its keys signed it; or of
  the keys that the next `targets` gives it, which is signed and goes with it (a key that changes);
* it is made from what is live, and its version follows;
* it speaks for its own paths only, and delegates nothing;
* each new path is one that a repository can store: its digest names a file, its length is one that
  devices read;
* what it says about an artifact is what `firmware add` could have said: labels, path and sequence
  agree with each other and with everything that is live (design 4, guard on meaning).

The rehearsal judges what devices would do with it; that comes after.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from tuf.api.metadata import Targets

from client_reference.errors import (
    ActionRequiredError,
    ConfigurationError,
    NotTrustedError,
    RefusedError,
)
from client_reference.manifest import (
    MAX_HOLD,
    MAX_MANIFEST,
    parse,
    parse_hold,
    parse_meaning,
    segments_digest,
)
from client_reference.payload.segments import LONGEST, SUFFIX, has_segments, list_length
from client_reference.trust.verified import BadSignatureError, authentic, check_expiry, read
from repo_tools.metadata.bins import (
    bins_of,
    builds_of,
    check_bins,
    files_of,
    is_bin,
    read_index,
)
from repo_tools.metadata.repository import sha256
from repo_tools.metadata.roles import check_leaf, hold_path, manifest_path
from repo_tools.publishing.artifacts import Labels, check_hardware, stored_name
from repo_tools.publishing.binned import check_releases, in_bin, own_bins
from repo_tools.publishing.plan import MAX_JUMP, StaleError, check_keeps_artifacts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from tuf.api.metadata import DelegatedRole, TargetFile

    from client_reference.manifest import Meaning
    from repo_tools.metadata.bins import Release
    from repo_tools.metadata.repository import RepositoryState
    from repo_tools.publishing.inbox import Submission

__all__ = ["Examined", "check_file", "delegated", "examine", "is_builds", "is_live"]

MAX_BUNDLE = 1_048_576
"""Bytes of a CA bundle, as devices read it."""

_LONGEST = {"builds": LONGEST, "channels": MAX_MANIFEST, "holds": MAX_HOLD, "trust": MAX_BUNDLE}
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Examined:
    """A role that may go.

    Attributes:
        signed: what it says.
        new: the target files that it brings, by storage path.
        live: everything that it says is live already.
        handover: only the next targets role names the keys that signed it: they go together.
    """

    signed: Targets
    new: Mapping[str, TargetFile]
    live: bool = False
    handover: bool = False


def delegated(state: RepositoryState, role: str) -> DelegatedRole:
    """How `targets` delegates a role; a hash bin is part of its builds role.

    Raises:
        RefusedError: it does not.
    """
    return _delegation(state, builds_of(role) if is_bin(role) else role)[1]


def _delegation(state: RepositoryState, role: str) -> tuple[Targets, DelegatedRole]:
    """The role that delegates, and how."""
    targets = state.targets
    roles = _roles(targets)
    if targets is None or role not in roles:
        raise RefusedError(
            f"the live targets role does not delegate to {role!r}",
            "a new product or channel comes with targets: its publish goes first",
        )
    return targets, roles[role]


def is_live(state: RepositoryState, role: str, data: bytes) -> bool:
    """Whether all that a signed role says is live: itself, or a builds role that has more."""
    live = state.role(role)
    if live is None:
        return False
    if read(Targets, role, state.roles[role]).payload == read(Targets, role, data).payload:
        return True
    signed = read(Targets, role, data).signed
    if not is_builds(delegated(state, role)) or bins_of(signed) is not None:
        return False
    same = all(live.targets.get(path) == target for path, target in signed.targets.items())
    return same and live.version >= signed.version


def examine(
    state: RepositoryState,
    submission: Submission,
    data: bytes,
    epoch: int,
    now: datetime,
    following: Targets | None = None,
    above: Targets | None = None,
) -> Examined:
    """Judge a role by itself.

    Args:
        state: the verified live state.
        submission: what is said about it.
        data: its metadata.
        epoch: of the repository.
        now: the time.
        following: the next targets role, if one is signed; verified by the caller.
        above: of a hash bin, the builds role that goes with it; None if that is live.

    Raises:
        ActionRequiredError: there is no builds role for a hash bin.
        StaleError: what it was made from is no longer live.
        RefusedError: it says what it may not say.
        NotTrustedError: it is not signed by a threshold, damaged, or expired.
    """
    role = submission.role
    if submission.epoch != epoch:
        raise RefusedError(
            f"{role} was handed in for epoch {submission.epoch}; the repository is in epoch {epoch}"
        )
    if (found := sha256(data)) != submission.sha256:
        raise NotTrustedError(
            f"the metadata of {role} has sha256 {found}, expected {submission.sha256}",
            "hand it in again: firmroot submit --again",
        )
    if is_bin(role):
        signed, way, handover = _authentic_bin(state, following, above, role, data)
    else:
        signed, way, handover = _authentic(state, following, role, data)
    if is_live(state, role, data):
        return Examined(signed, {}, live=True)
    check_expiry(role, signed, now)
    _check_delegates(way, role, signed, following if handover else state.targets)
    _check_base(state, submission, signed)
    live = state.role(role)
    before = live.targets if live is not None else _before_the_cut(state, role, signed)
    new: dict[str, TargetFile] = {}
    for path, target in sorted(signed.targets.items()):
        if before.get(path) == target:
            continue
        _check_target(way, role, path, target)
        for file in files_of(target):
            new[stored_name(file.path, file.hashes["sha256"])] = file
    if is_builds(way):
        _check_artifacts(state, way, role, signed, live)
    return Examined(signed, new, handover=handover)


def _before_the_cut(state: RepositoryState, role: str, signed: Targets) -> Mapping[str, TargetFile]:
    """What a new hash bin has of a role in one file: their bytes are in the storage already."""
    data = state.roles.get(builds_of(role)) if is_bin(role) else None
    if data is None:
        return {}
    flat = _flat(data)
    return {
        path: in_bin(flat.targets[path], flat.targets)
        for path in signed.targets
        if path in flat.targets
    }


@lru_cache(maxsize=1)
def _flat(data: bytes) -> Targets:
    """A role in one file, which every bin of a cut asks for."""
    return read(Targets, Targets.type, data).signed


def _check_delegates(way: DelegatedRole, role: str, signed: Targets, outer: Targets | None) -> None:
    """Only a builds role delegates, and only to bins that its own keys sign."""
    binned = is_builds(way) and not is_bin(role) and bins_of(signed) is not None
    if binned and outer is not None:
        check_bins(role, signed, outer)
    else:
        check_leaf(role, signed)


def _check_artifacts(
    state: RepositoryState, way: DelegatedRole, role: str, signed: Targets, live: Targets | None
) -> None:
    product = way.name.removesuffix("-builds")
    index = read_index(state.parsed_snapshot(), product)
    before = live.targets if live is not None else {}
    _check_builds(signed, before, index)
    if is_bin(role):
        fresh = {path: each for path, each in signed.targets.items() if path not in before}
        check_releases(product, index, fresh)
    if bins_of(signed) is None:  # else `binned.check_admitted` sees the bins that go with it
        check_keeps_artifacts(role, signed, live)


def _authentic(
    state: RepositoryState, following: Targets | None, role: str, data: bytes
) -> tuple[Targets, DelegatedRole, bool]:
    """The role, the delegation that its signatures meet, and whether that is the next one.

    Attack: a thief of the key that goes signs once more. That meets the live role alone, and
    `plan.admit` holds it against the next one as soon as that goes.
    """
    targets, way = _delegation(state, role)
    try:
        return authentic(Targets, targets, role, data), way, False
    except BadSignatureError:
        if following is None or role not in _roles(following):
            raise
        return authentic(Targets, following, role, data), _roles(following)[role], True


def _authentic_bin(
    state: RepositoryState,
    following: Targets | None,
    above: Targets | None,
    role: str,
    data: bytes,
) -> tuple[Targets, DelegatedRole, bool]:
    """The same of a hash bin, which its builds role delegates to: that, or the one that goes along.

    Attack: a bin that the keys of no builds role signed, or that lists what another bin speaks for.
    """
    name = builds_of(role)
    targets, way = _delegation(state, name)
    builds = above or state.role(name)
    bins = bins_of(builds)
    if builds is None or bins is None:
        raise ActionRequiredError(
            f"{role} is a hash bin, and {name} has none that is live or was handed in with it",
            "where it was signed: firmroot submit hands in both",
        )
    try:
        check_bins(name, builds, targets)
        handover = False
    except RefusedError:
        if following is None:
            raise
        check_bins(name, builds, following)
        handover = True
    signed = authentic(Targets, builds, role, data)
    own_bins(role, bins, signed)
    return signed, way, handover


def _roles(targets: Targets | None) -> Mapping[str, DelegatedRole]:
    return (targets.delegations.roles if targets and targets.delegations else None) or {}


def _check_base(state: RepositoryState, submission: Submission, signed: Targets) -> None:
    role = submission.role
    live, version = state.roles.get(role), 0
    if live is not None:
        version = read(Targets, role, live).signed.version
    if (sha256(live) if live is not None else "") != submission.base or signed.version <= version:
        raise StaleError(
            f"{role} {signed.version} was made from what is no longer live; version {version} is",
            "run firmroot submit again: builds are made anew on what is live by themselves; what "
            "people signed must be signed again, and it says by whom",
        )


def _check_target(way: DelegatedRole, role: str, path: str, target: TargetFile) -> None:
    """One new path, and the file that it names.

    Attack: a path or a digest that leads out of the storage, a path of another role.
    """
    parts = path.split("/")
    if not path.isprintable() or "\\" in path or {"", ".", ".."}.intersection(parts):
        raise RefusedError(
            f"{role} names {path!r}: expected segments with single '/' between them",
            "find out who wrote this: somebody may want to write files elsewhere",
        )
    if not way.is_delegated_path(path):
        raise RefusedError(f"{role} may not speak for {path}; that is another role's")
    digest = target.hashes.get("sha256", "")
    if not _DIGEST.fullmatch(digest):
        raise RefusedError(f"{path} has no SHA-256 of 64 hex digits: {digest!r}")
    longest = _LONGEST.get(parts[0], 0)
    if not 0 < target.length <= longest:
        raise RefusedError(f"{path} has {target.length} bytes, expected 1 to {longest}")


def is_builds(way: DelegatedRole) -> bool:
    """Whether a role speaks for artifacts: one machine signs it, and it only ever adds."""
    return any(pattern.startswith("builds/") for pattern in way.paths or ())


def _check_builds(
    signed: Targets, live: Mapping[str, TargetFile], index: Sequence[Release]
) -> None:
    """What a builder says about files, against itself and against what is live.

    Attack: whoever has a builds key gives a published path other bytes, or takes the sequence of
    a release that is live, or leaves out the segment list of an artifact.
    """
    meanings: dict[str, Meaning] = {}
    for path, target in signed.targets.items():
        if path in live and live[path] != target:
            raise RefusedError(
                f"{path} is published with other bytes or another meaning",
                "a published path never changes: give the new build a new version",
            )
        if path.endswith(SUFFIX):
            _check_list(path, target, signed.targets)
        else:
            meanings[path] = parse_meaning(target.custom, path)
    _check_sequences(meanings.values(), live, max((each.sequence for each in index), default=0))
    # Only now can anything be told from labels: all of them have been read.
    for path, meaning in meanings.items():
        if path not in live:
            others = {each: other for each, other in signed.targets.items() if each != path}
            _check_labels(path, signed.targets[path], meaning, others)


def _check_sequences(
    meanings: Iterable[Meaning], live: Mapping[str, TargetFile], known: int
) -> None:
    """One sequence for each version, one version for each, and no jump.

    Attack: one sequence near the last number, and no later release could have a higher one.
    """
    versions: dict[int, str] = {}
    sequences: dict[str, int] = {}
    highest = max((known, *(int((each.custom or {}).get("sequence", 0)) for each in live.values())))
    for meaning in meanings:
        version, sequence = meaning.version, meaning.sequence
        if versions.setdefault(sequence, version) != version:
            raise StaleError(
                f"sequence {sequence} is given to {version} and to {versions[sequence]}",
                "firmroot submit gives the newer one another sequence",
            )
        if sequences.setdefault(version, sequence) != sequence:
            raise RefusedError(f"{version} has the sequences {sequence} and {sequences[version]}")
        if sequence > highest + MAX_JUMP:
            raise RefusedError(
                f"{version} has sequence {sequence}, and the highest that is live is {highest}: "
                f"expected at most {MAX_JUMP} more",
                "whoever moves a sequence forward that far may want to exhaust it (design 4)",
            )


def _check_labels(
    path: str, target: TargetFile, meaning: Meaning, others: Mapping[str, TargetFile]
) -> None:
    """A new artifact is labelled as `firmware add` would have done it."""
    try:
        labels = Labels(
            meaning.product,
            meaning.version,
            meaning.hardware,
            meaning.handler,
            path.rpartition("/")[2],
        )
    except ConfigurationError as error:
        raise RefusedError(f"{path}: {error.message}", error.hint) from error
    if labels.path != path:
        raise RefusedError(f"{path} is labelled as {labels.path}")
    listed = path + SUFFIX in others or segments_digest(target.custom, path) is not None
    if has_segments(target.length) and not listed:
        raise RefusedError(f"{path} has {target.length} bytes and no list of segments")
    check_hardware(labels, others)


def _check_list(path: str, target: TargetFile, targets: Mapping[str, TargetFile]) -> None:
    """A segment list belongs to an artifact beside it, and has the length that this one's has."""
    artifact = path.removesuffix(SUFFIX)
    if (there := targets.get(artifact)) is None or not has_segments(there.length):
        raise RefusedError(f"{path} belongs to no artifact of this role that has segments")
    if target.custom != {"segments-of": artifact} or target.length != list_length(there.length):
        raise RefusedError(f"{path} is not the list of segments of {artifact}")


def check_file(role: str, path: str, data: bytes) -> None:
    """What a manifest or a hold file says must be about the channel whose path it has.

    Raises:
        NotTrustedError: it is none.
        RefusedError: it is another channel's.
    """
    if path.startswith("channels/"):
        manifest = parse(data)
        expected = manifest_path(manifest.product, manifest.channel)
    elif path.startswith("holds/"):
        hold = parse_hold(data)
        expected = hold_path(hold.product, hold.channel)
    else:
        return
    if expected != path:
        raise RefusedError(f"{role} has in {path} what belongs into {expected}")
