"""Adding firmware: from a file to a signed entry of the product's builds role, ready to publish.

The builder's key signs at once; nothing is visible before a release manager promotes it and the
publisher publishes. The order makes a kill harmless: the bytes are in the outbox before the role
that names them is staged, and adding the same file again finishes or finds it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tuf.api.metadata import TargetFile, Targets

from client_reference.errors import (
    ActionRequiredError,
    ConfigurationError,
    NotTrustedError,
)
from client_reference.install.handlers import HANDLERS
from client_reference.nearest import did_you_mean
from client_reference.payload.segments import SUFFIX
from repo_tools.files import replace_file
from repo_tools.metadata.bins import (
    bins_of,
    builds_of,
    delegating,
    is_bin,
    listed_bins,
    read_index,
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
from repo_tools.metadata.repository import RepositoryState, parse
from repo_tools.metadata.roles import builds_role
from repo_tools.publishing.artifacts import (
    AlreadyAdded,
    copy_in,
    judge,
    stored_name,
    target_path,
)
from repo_tools.publishing.binned import check_loaded, in_bin
from repo_tools.publishing.cache import NO_CACHE, Cache
from repo_tools.publishing.inherit import inherited_builds
from repo_tools.publishing.live import read_bins
from repo_tools.publishing.plan import StaleError
from repo_tools.publishing.prepare import is_stored, read_base
from repo_tools.signing.signers import open_signer, sign

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from securesystemslib.signer import Signer
    from tuf.api.metadata import SuccinctRoles

    from keys_policy.model import KeyHolder
    from repo_tools.metadata.bins import Release
    from repo_tools.publishing.artifacts import Incoming, Labels
    from repo_tools.signing.secrets import Secrets
    from repo_tools.storage.protocol import Storage
    from repo_tools.workspace import Workspace

__all__ = [
    "Added",
    "Builds",
    "Near",
    "add_firmware",
    "begun",
    "binned_target",
    "check_declared",
    "check_sequences",
    "flat_targets",
    "is_at_hand",
    "left_out",
    "open_signers",
    "read_builds",
    "stage_bins",
    "stage_flat",
    "write_role",
]


@dataclass(frozen=True)
class Added:
    """What became of a file.

    Attributes:
        path: its target path.
        sequence: of its release.
        length: bytes.
        sha256: hex digest.
        new: False if the same bytes and labels were there before.
    """

    path: str
    sequence: int
    length: int
    sha256: str
    new: bool


@dataclass(frozen=True)
class Near:
    """Which hash bins of a role somebody needs, beside the one of the newest release.

    Attributes:
        paths: of artifacts.
        versions: of releases of the index.
        recent: every release of the index.
        every: all there are; for what is rare.
    """

    paths: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    recent: bool = False
    every: bool = False


NEAR = Near(recent=True)


@dataclass(frozen=True)
class Builds:
    """A product's builds role as this machine sees it.

    Attributes:
        live: what is published, None if nothing is.
        staged: what this machine signed and did not publish, None if nothing.
        inherited: artifacts of the epoch before, while this one has no builds role.
        state: what is live, with the hash bins that were asked for.
        pieces: hash bins that this machine signed and did not publish, by name.
        index: the newest releases of a role in bins (`metadata.bins`).
    """

    live: Targets | None
    staged: Targets | None
    inherited: Mapping[str, TargetFile] = field(default_factory=dict)
    state: RepositoryState = field(default_factory=RepositoryState)
    pieces: Mapping[str, Targets] = field(default_factory=dict)
    index: tuple[Release, ...] = ()

    @property
    def bins(self) -> SuccinctRoles | None:
        """How the role is cut into bins; None if it is in one piece."""
        return bins_of(self.staged or self.live)

    @property
    def given(self) -> Mapping[str, int]:
        """Sequences by version, of the index."""
        return {each.version: each.sequence for each in self.index}

    @property
    def waiting(self) -> list[TargetFile]:
        """What the next version has beside what is live."""
        staged = self.staged.targets if self.staged is not None else {}
        return list({**self.inherited, **staged}.values())

    @property
    def dropped(self) -> frozenset[str]:
        """Paths that the next version leaves out on purpose: nobody here vouches for them again."""
        roles = (self.staged, *self.pieces.values())
        return frozenset().union(*(dropped_paths(role) for role in roles if role is not None))

    @property
    def known(self) -> Mapping[str, TargetFile]:
        """Every target of either, by path; of a role in bins, of those that were asked for."""
        found = dict(self.inherited)
        for role in (self.staged, *self.pieces.values(), self.live, *self.loaded):
            if role is not None:
                found |= role.targets
        return found

    @property
    def targets(self) -> Mapping[str, TargetFile]:
        """The same without what is dropped: what the next version has."""
        dropped = self.dropped
        return {path: each for path, each in self.known.items() if path not in dropped}

    @property
    def loaded(self) -> tuple[Targets, ...]:
        """The live bins that were asked for."""
        if (bins := bins_of(self.live)) is None:
            return ()
        names = [name for name in self.state.roles if bins.is_delegated_role(name)]
        return tuple(each for each in map(self.state.role, names) if each is not None)

    @property
    def version(self) -> int:
        """The highest version that was ever signed here or published."""
        return max(
            (role.version for role in (self.live, self.staged) if role is not None), default=0
        )


def read_builds(
    workspace: Workspace,
    storage: Storage,
    product: str,
    near: Near = NEAR,
    *,
    anew: bool = False,
) -> Builds:
    """What is live and what waits on this machine.

    Args:
        workspace: of this machine.
        storage: with what is live.
        product: whose builds.
        near: which hash bins are read, if the role has any; never more than it says.
        anew: what waits will be made anew, with sequences that are free.

    Raises:
        StaleError: what waits here gives a sequence that somebody else's live release has.
        NotTrustedError, RetryLaterError: as `read_base`.
    """
    role = builds_role(product)
    rooted = bool(workspace.roots()) or workspace.staged_role("root") is not None
    state = read_base(workspace, storage).state if rooted else RepositoryState()
    live, staged = state.role(role), workspace.staged_role(role)
    index = read_index(state.parsed_snapshot(), product)
    if (bins := bins_of(live)) is not None:
        wanted = _wanted(state, bins, product, index, near)
        state = read_bins(storage, state, wanted, NO_CACHE if near.every else Cache.of(workspace))
        _check_newest(state, bins, product, index)
    builds = Builds(
        live,
        None if staged is None else parse(staged, Targets, role).signed,
        {} if live is not None else inherited_builds(workspace, product),
        state,
        {
            name: parse(data, Targets, name).signed
            for name, data in workspace.staged_roles().items()
            if is_bin(name) and builds_of(name) == role
        },
        index,
    )
    if not anew:
        check_sequences(role, builds)
    return builds


def _wanted(
    state: RepositoryState,
    bins: SuccinctRoles,
    product: str,
    index: Sequence[Release],
    near: Near,
) -> Iterator[str]:
    """The bins to read: of a path, of a version, of the newest release, or every one."""
    if near.every or not index:
        yield from listed_bins(state.parsed_snapshot(), bins)
    for path in near.paths:
        yield bins.get_role_for_target(path)
    for each in index:
        if each == index[0] or near.recent or each.version in near.versions:
            for file in each.files:
                yield bins.get_role_for_target(target_path(product, each.version, file))
                if each.version not in near.versions and not near.recent:
                    break


def _check_newest(
    state: RepositoryState, bins: SuccinctRoles, product: str, index: Sequence[Release]
) -> None:
    """The newest sequence of the index is one that a builder gave.

    Attack: a thief of the snapshot's key writes the last sequence that there is into it, and
    whoever adds firmware next could only go beyond.

    Raises:
        NotTrustedError: the builds role does not say so.
    """
    for newest in index[:1]:
        for file in newest.files[:1]:
            path = target_path(product, newest.version, file)
            found = state.role(bins.get_role_for_target(path))
            target = found.targets.get(path) if found is not None else None
            custom = target.custom if target is not None else None
            if (custom or {}).get("sequence") != newest.sequence:
                raise NotTrustedError(
                    f"the snapshot says that {product}@{newest.version} has sequence "
                    f"{newest.sequence}, and no builder said so in {path}",
                    "who holds the snapshot's key wrote that: find out who",
                )


def check_sequences(role: str, builds: Builds) -> None:
    """Each sequence is one version's.

    Raises:
        StaleError: another machine gave it first.
    """
    versions: dict[int, str] = {}
    for target in builds.targets.values():
        custom = target.custom or {}
        if (sequence := custom.get("sequence")) is None:
            continue
        version = str(custom.get("version"))
        if versions.setdefault(sequence, version) != version:
            raise StaleError(
                f"sequence {sequence} is {version} and {versions[sequence]}: firmware was added "
                "on another machine and published first",
                "firmroot submit makes what waits here anew, with a sequence that is free; or "
                f"remove .firmroot/staged/{role}.json and add the firmware of this machine again",
            )


def add_firmware(
    workspace: Workspace,
    storage: Storage,
    source: Path,
    labels: Labels,
    secrets: Secrets,
    now: datetime,
    progress: Callable[[int], None] = lambda _: None,
) -> Added:
    """Add a firmware file. The caller holds the workspace's lock.

    Raises:
        ConfigurationError: product, hardware, labels or file are not as they must be.
        RefusedError: the file changed meanwhile, or its path is taken by other bytes.
        ActionRequiredError: this machine cannot sign for the builds role.
        RetryLaterError: the disk is full.
    """
    check_declared(workspace, labels)
    near = Near(paths=(labels.path,), versions=(labels.version,))
    builds = read_builds(workspace, storage, labels.product, near)
    signers = open_signers(workspace, labels.product, secrets)
    with copy_in(source, workspace.outbox, progress) as incoming:
        verdict = judge(labels, incoming, builds.targets, builds.given)
        if isinstance(verdict, AlreadyAdded):
            if not is_at_hand(workspace, storage, labels.path, incoming):
                incoming.keep(workspace.outbox, labels.path)
        else:
            incoming.keep(workspace.outbox, labels.path)
            builds = begun(workspace, labels.product, builds, signers, now)
            if builds.bins is None:
                targets = flat_targets(labels, incoming, verdict.sequence)
                stage_flat(workspace, labels.product, builds, targets, signers, now)
            else:
                target = binned_target(labels, incoming, verdict.sequence)
                stage_bins(workspace, labels.product, builds, [target], signers, now)
        return Added(
            path=labels.path,
            sequence=verdict.sequence,
            length=incoming.length,
            sha256=incoming.sha256,
            new=not isinstance(verdict, AlreadyAdded),
        )


def check_declared(workspace: Workspace, labels: Labels) -> None:
    """Refuse a product, a hardware id or a handler that nobody has.

    Raises:
        ConfigurationError: says which there are.
    """
    product = workspace.config.products.get(labels.product)
    if product is None:
        known = tuple(workspace.config.products)
        raise ConfigurationError(
            f"there is no product {labels.product!r}; there is: {', '.join(known) or 'none'}"
            f"{did_you_mean(labels.product, known)}",
            f"firmroot product add {labels.product} --hardware ID",
        )
    if unknown := sorted(labels.hardware - set(product.hardware)):
        raise ConfigurationError(
            f"{labels.product} has no hardware {', '.join(unknown)}; "
            f"it has: {', '.join(product.hardware)}{did_you_mean(unknown[0], product.hardware)}",
            f"firmroot product add {labels.product} --hardware {unknown[0]}",
        )
    if labels.handler not in HANDLERS:
        raise ConfigurationError(
            f"devices have no handler {labels.handler!r}; they have: {', '.join(HANDLERS)}"
            f"{did_you_mean(labels.handler, HANDLERS)}",
            "name one of them with --handler; no device would install this firmware",
        )


def open_signers(
    workspace: Workspace, product: str, secrets: Secrets
) -> list[tuple[Signer, KeyHolder]]:
    """Every builds key of this machine, opened before anything is copied.

    Raises:
        ActionRequiredError: there are too few.
    """
    role = builds_role(product)
    rules = workspace.policy.role(role, "builds")
    uris = workspace.key_uris()
    mine = [workspace.keyring[name] for name in rules.keys if name in uris]
    if len(mine) < rules.threshold:
        raise ActionRequiredError(
            f"{role} needs {rules.threshold} signature(s) of {', '.join(rules.keys)}; this machine "
            f"has the private keys of: {', '.join(holder.name for holder in mine) or 'none'}",
            "add firmware on the machine that builds it, or: firmroot key import",
        )
    return [
        (open_signer(uris[holder.name], holder, secrets, workspace.directory), holder)
        for holder in mine
    ]


def is_at_hand(workspace: Workspace, storage: Storage, path: str, incoming: Incoming) -> bool:
    """Whether all that belongs to an artifact waits here whole, or is in the storage.

    What was damaged here since is not: a publish refuses it and says to add the file again.
    """
    for stored, digest in incoming.stored(path).items():
        file = workspace.waiting(stored)
        if not (is_stored(storage, stored) if file is None else _is_whole(file, digest)):
            return False
    return True


def _is_whole(file: Path, digest: str) -> bool:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() == digest


def flat_targets(labels: Labels, incoming: Incoming, sequence: int) -> list[TargetFile]:
    """An artifact, and the list of its segments if it has any, as a role in one file has them."""
    custom = labels.meaning(sequence).custom()
    hashes = {"sha256": incoming.sha256}
    found = [TargetFile(incoming.length, hashes, labels.path, {"custom": custom})]
    if incoming.segments:
        found.append(
            TargetFile(
                len(incoming.segments),
                {"sha256": hashlib.sha256(incoming.segments).hexdigest()},
                labels.path + SUFFIX,
                {"custom": {"segments-of": labels.path}},
            )
        )
    return found


def binned_target(labels: Labels, incoming: Incoming, sequence: int) -> TargetFile:
    """An artifact as a hash bin has it."""
    whole, *lists = flat_targets(labels, incoming, sequence)
    return in_bin(whole, {each.path: each for each in lists})


def begun(
    workspace: Workspace,
    product: str,
    builds: Builds,
    signers: Sequence[tuple[Signer, KeyHolder]],
    now: datetime,
) -> Builds:
    """A builds role that has bins from its first artifact on, if the product is to have them.

    It is staged only together with that artifact's bin.
    """
    number = workspace.config.products[product].bins
    if not number or builds.live is not None or builds.staged is not None or builds.inherited:
        return builds
    rules = workspace.policy.role(builds_role(product), "builds")
    keys = [workspace.keyring[name].key for name in rules.keys]
    signed = delegating(product, number, keys, rules.threshold, expiry(rules, now))
    write_role(workspace, builds_role(product), signed, signers)
    return replace(builds, staged=signed)


def stage_bins(
    workspace: Workspace,
    product: str,
    builds: Builds,
    targets: Sequence[TargetFile],
    signers: Sequence[tuple[Signer, KeyHolder]],
    now: datetime,
) -> tuple[str, ...]:
    """Sign every bin that new artifacts touch, once, as its next version.

    Returns:
        the bins.

    Raises:
        ActionRequiredError: the builds role has ended, and its bins with it.
        RefusedError: as `add_artifacts`.
    """
    bins, above = builds.bins, builds.staged or builds.live
    if bins is None or above is None:
        raise AssertionError(f"{product} has no hash bins")
    role = builds_role(product)
    if above.expires <= now:
        raise ActionRequiredError(
            f"{role} has expired on {above.expires:%Y-%m-%d}, and its hash bins end with it",
            f"firmroot ceremony start {role}",
        )
    rules = workspace.policy.role(role, "builds")
    touched = spread(bins, targets)
    for name, new in touched.items():
        check_loaded(builds.state, name)
        live, waits = builds.state.role(name), builds.pieces.get(name)
        gone = left_out(workspace, live, waits)
        waiting = waits.targets.values() if waits is not None else ()
        kept = [each for each in waiting if each.path not in gone]
        signed = add_artifacts(name, live, [*kept, *new], rules, now)
        # Attack: what a thief built comes back with the next honest build.
        signed = without(signed, (), builds.dropped)
        # Above what was staged before as well: an interrupted publish may have uploaded that.
        signed.version = max((each.version for each in (live, waits) if each), default=0) + 1
        signed.expires = above.expires
        write_role(workspace, name, signed, signers)
    return tuple(touched)


def left_out(workspace: Workspace, live: Targets | None, staged: Targets | None) -> frozenset[str]:
    """Paths that are no news of this machine: the live version left them out on purpose.

    Attack: a thief's build was dropped elsewhere, and comes back with what was signed here before.
    Whoever wants one of them again adds it, on top of that version, and its bytes wait here.

    Args:
        workspace: of this machine.
        live: a builds role or a hash bin.
        staged: the same, as it waits here.
    """
    if live is None or staged is None:
        return frozenset()
    gone = dropped_paths(live)
    if staged.version <= live.version:
        return gone
    wanted = (staged.targets[path] for path in gone if path in staged.targets)
    again = {
        each.path
        for each in wanted
        if workspace.waiting(stored_name(each.path, each.hashes["sha256"])) is not None
    }
    return gone - again


def write_role(
    workspace: Workspace,
    role: str,
    signed: Targets,
    signers: Sequence[tuple[Signer, KeyHolder]],
) -> None:
    """Sign a role of this machine and stage it."""
    payload = signed_bytes(signed)
    data = assemble(signed, [sign(signer, holder, payload) for signer, holder in signers])
    replace_file(workspace.memory / "staged" / f"{role}.json", data)


def stage_flat(
    workspace: Workspace,
    product: str,
    builds: Builds,
    targets: Sequence[TargetFile],
    signers: Sequence[tuple[Signer, KeyHolder]],
    now: datetime,
) -> tuple[str, ...]:
    """Sign what is live, what waited already and what is new, as one next version.

    Returns:
        the role.
    """
    role = builds_role(product)
    rules = workspace.policy.role(role, "builds")
    gone = left_out(workspace, builds.live, builds.staged)
    waiting = [each for each in builds.waiting if each.path not in gone]
    signed = add_artifacts(role, builds.live, [*waiting, *targets], rules, now)
    # Attack: what a thief built comes back with the next honest build.
    signed = without(signed, (), builds.dropped)
    # Above what was staged before as well: an interrupted publish may have uploaded that.
    signed.version = builds.version + 1
    write_role(workspace, role, signed, signers)
    return (role,)
