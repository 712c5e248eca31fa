"""Pure: a builds role in hash bins (TAP 15), and the short index of its newest releases.

`P-builds` then names no artifact itself: it delegates to `P_-000` ... `P_-fff`, and the digest of a
path says which of them speaks for it. One more artifact changes one bin, whatever their number, and
a device loads one. The rules:

* the bins are the role in pieces: the same keys, the same threshold, names after the role (the
  device refuses anything else, `client_reference.trust.updater`);
* a bin ends when the role ends: one file says when all of them must be signed again, so the role
  changes only together with every bin;
* the snapshot lists a bin by its version alone: 4,096 digests would be half a megabyte that every
  device fetches. What a bin says is what a builds key signed for that version;
* the list of segment hashes of an artifact is named in its `custom`: as a target of its own it
  would lie in another bin;
* the snapshot carries an index of the newest releases: sequence and files by version. It is a hint
  of an online key; whoever gives a sequence looks the newest up in its bin, which a builder signed.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuf.api.metadata import Delegations, SuccinctRoles, TargetFile, Targets

from client_reference.errors import ConfigurationError, NotTrustedError, RefusedError
from client_reference.manifest import parse_meaning, segments_digest
from client_reference.payload.segments import SUFFIX, list_length
from client_reference.trust.updater import bin_prefix
from repo_tools.metadata.roles import builds_role

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from tuf.api.metadata import Key, Snapshot

__all__ = [
    "FIELD",
    "MAX_BINS",
    "MIN_BINS",
    "RECENT",
    "Release",
    "Sizes",
    "as_field",
    "bin_of",
    "bins_of",
    "bits",
    "builds_of",
    "check_bins",
    "delegating",
    "files_of",
    "indexed",
    "is_bin",
    "listed_bins",
    "number_for",
    "read_index",
    "sizes",
    "spread",
    "told",
    "with_releases",
]

FIELD = "x-firmroot-releases"
RECENT = 32
"""Releases of a product in the index: so many back, files can be added to a version."""
MIN_BINS, MAX_BINS = 2, 16_384
"""The snapshot of more would be longer than clients read."""
_BIN = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*_-[0-9a-f]{1,4}")
# Of what `firmware add` writes; one digit of a version more or less.
_ENTRY = 255
_LISTED = 27
_TOLD = 3
_FEWEST = 256
"""Artifacts up to which one file is shorter than bins and their snapshot."""


@dataclass(frozen=True)
class Sizes:
    """What a choice of bins costs, in bytes.

    Attributes:
        number: of bins; 0 for one file.
        role: the file that lists an artifact, as long as artifacts are spread evenly.
        snapshot: what the bins add to the snapshot.
    """

    number: int
    role: int
    snapshot: int

    @property
    def device(self) -> int:
        """What a device fetches when one artifact was added; a publisher sends as much."""
        return self.role + self.snapshot


@dataclass(frozen=True)
class Release:
    """One line of the index.

    Attributes:
        version: label.
        sequence: of the product.
        files: names of its artifacts.
    """

    version: str
    sequence: int
    files: tuple[str, ...]


def sizes(product: str, artifacts: int, number: int) -> Sizes:
    """What it costs to have so many artifacts in so many bins."""
    listed = (_LISTED + len(bin_prefix(builds_role(product)))) * number
    return Sizes(number, _ENTRY * artifacts // max(number, 1), listed)


def number_for(product: str, artifacts: int) -> int:
    """The number of bins with which a device fetches least; 0 if one file is shortest."""
    if artifacts <= _FEWEST:
        return 0
    choices = [2**power for power in range(2, MAX_BINS.bit_length())]
    best = min((sizes(product, artifacts, each) for each in choices), key=lambda each: each.device)
    return best.number


def bits(number: int) -> int:
    """The bits of a path's digest that number so many bins.

    Raises:
        ConfigurationError: it is no power of two, or none that clients can read.
    """
    if not MIN_BINS <= number <= MAX_BINS or number.bit_count() != 1:
        raise ConfigurationError(
            f"{number} is not a number of hash bins: a power of two from 2 to {MAX_BINS} was "
            "expected",
            "firmroot product add NAME --expect ARTIFACTS chooses one",
        )
    return number.bit_length() - 1


def is_bin(role: str) -> bool:
    """Whether a role is a hash bin. No other name of ours has an underscore."""
    return _BIN.fullmatch(role) is not None


def builds_of(role: str) -> str:
    """The builds role of a bin."""
    return builds_role(role.partition("_")[0])


def told(roles: Iterable[str]) -> str:
    """Names of roles for a message; more than a few bins of one role are counted."""
    names = list(roles)
    count = Counter(builds_of(name) for name in names if is_bin(name))
    many = {above for above, number in count.items() if number > _TOLD}
    found = [name for name in names if not (is_bin(name) and builds_of(name) in many)]
    found += [f"{count[above]} hash bins of {above}" for above in sorted(many)]
    return ", ".join(found)


def bins_of(signed: Targets | None) -> SuccinctRoles | None:
    """How a builds role is cut into bins; None if it is in one piece."""
    return signed.delegations.succinct_roles if signed and signed.delegations else None


def bin_of(signed: Targets | None, path: str) -> str | None:
    """The bin that speaks for a path; None if the role is in one piece."""
    bins = bins_of(signed)
    return None if bins is None else bins.get_role_for_target(path)


def listed_bins(snapshot: Snapshot | None, bins: SuccinctRoles) -> list[str]:
    """The bins that anything was ever put into, in order."""
    names = (name.removesuffix(".json") for name in (snapshot.meta if snapshot else ()))
    return sorted(name for name in names if bins.is_delegated_role(name))


def delegating(
    product: str, number: int, keys: Sequence[Key], threshold: int, expires: datetime
) -> Targets:
    """A builds role, version 1, that has nothing but bins."""
    role = builds_role(product)
    bins = SuccinctRoles([key.keyid for key in keys], threshold, bits(number), bin_prefix(role))
    delegations = Delegations({key.keyid: key for key in keys}, succinct_roles=bins)
    return Targets(version=1, expires=expires, delegations=delegations)


def check_bins(role: str, signed: Targets, outer: Targets) -> None:
    """The guard on bins, as the device has it.

    Raises:
        RefusedError: the role delegates to anything but itself in pieces.
    """
    bins, delegations = bins_of(signed), signed.delegations
    own = (outer.delegations.roles or {}).get(role) if outer.delegations else None
    if bins is None or delegations is None or own is None or outer.delegations is None:
        problem = "delegates to other roles; only targets may"
    elif signed.targets:
        problem = "lists target files beside its hash bins"
    elif not role.endswith("-builds") or bins.name_prefix != bin_prefix(role):
        problem = f"has hash bins called {bins.name_prefix!r}; only {bin_prefix(role)!r} may be"
    elif (bins.threshold, set(bins.keyids)) != (own.threshold, set(own.keyids)) or any(
        delegations.keys.get(each) != outer.delegations.keys.get(each) for each in own.keyids
    ):
        problem = "gives its hash bins other keys, or another threshold, than targets gives it"
    else:
        return
    raise RefusedError(
        f"{role} {problem}",
        "somebody tried to let another key speak for this role: find out who",
    )


def spread(bins: SuccinctRoles, targets: Iterable[TargetFile]) -> dict[str, list[TargetFile]]:
    """Targets by the bin that speaks for them."""
    found: dict[str, list[TargetFile]] = {}
    for target in targets:
        found.setdefault(bins.get_role_for_target(target.path), []).append(target)
    return found


def files_of(target: TargetFile) -> Iterator[TargetFile]:
    """The files that stand behind a target: itself, and the list of segments that it names."""
    yield target
    if (digest := segments_digest(target.custom or {}, target.path)) is not None:
        yield TargetFile(list_length(target.length), {"sha256": digest}, target.path + SUFFIX)


# The index


def read_index(snapshot: Snapshot | None, product: str) -> tuple[Release, ...]:
    """The newest releases of a product, by falling sequence; a hint, see the module.

    Raises:
        NotTrustedError: it is misshapen.
    """
    table: Any = snapshot.unrecognized_fields.get(FIELD, {}) if snapshot else {}
    try:
        found = [
            Release(_text(version), _number(sequence), tuple(_text(each) for each in files))
            for version, sequence, files in table.get(product, ())
        ]
    except (TypeError, ValueError, AttributeError) as error:
        raise NotTrustedError(
            f"{FIELD} of the snapshot is no index of releases: {error}",
            "the publisher signed it: find out with what",
        ) from error
    return tuple(sorted(found, key=lambda each: -each.sequence))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, found {value!r}")
    return value


def _number(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"expected a whole number, found {value!r}")
    return value


def indexed(targets: Iterable[TargetFile]) -> tuple[Release, ...]:
    """The releases that artifacts make."""
    found: dict[tuple[str, int], list[str]] = {}
    for target in targets:
        if not target.path.endswith(SUFFIX):
            meaning = parse_meaning(target.custom, target.path)
            names = found.setdefault((meaning.version, meaning.sequence), [])
            names.append(target.path.rpartition("/")[2])
    return tuple(Release(*release, tuple(sorted(files))) for release, files in found.items())


def with_releases(
    index: Sequence[Release], releases: Iterable[Release], gone: Iterable[str] = ()
) -> tuple[Release, ...]:
    """The index with what a publish brings.

    Args:
        index: the one before.
        releases: with new artifacts.
        gone: versions that the builds role does not speak for any more.
    """
    found = {each.version: each for each in index if each.version not in set(gone)}
    for each in releases:
        before = found.get(each.version)
        files = {*each.files, *(before.files if before is not None else ())}
        found[each.version] = Release(each.version, each.sequence, tuple(sorted(files)))
    return tuple(sorted(found.values(), key=lambda each: -each.sequence)[:RECENT])


def as_field(index: Mapping[str, Sequence[Release]]) -> dict[str, Any]:
    """The index of every product, as the snapshot carries it."""
    return {
        product: [[each.version, each.sequence, list(each.files)] for each in releases]
        for product, releases in index.items()
        if releases
    }
