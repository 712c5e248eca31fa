"""Adding firmware: from a file to a signed entry of the product's builds role, ready to publish.

The builder's key signs at once; nothing is visible before a release manager promotes it and the
publisher publishes. The order makes a kill harmless: the bytes are in the outbox before the role
that names them is staged, and adding the same file again finishes or finds it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tuf.api.metadata import TargetFile, Targets

from client_reference.errors import ActionRequiredError, ConfigurationError, NotFoundError
from client_reference.install.handlers import HANDLERS
from client_reference.nearest import did_you_mean
from client_reference.payload.segments import SUFFIX
from repo_tools.files import replace_file
from repo_tools.metadata.edits import add_artifacts, assemble, dropped_paths, signed_bytes, without
from repo_tools.metadata.repository import RepositoryState, parse
from repo_tools.metadata.roles import builds_role
from repo_tools.publishing.artifacts import AlreadyAdded, copy_in, judge, stored_name
from repo_tools.publishing.inherit import inherited_builds
from repo_tools.publishing.plan import StaleError
from repo_tools.publishing.prepare import read_base
from repo_tools.signing.signers import open_signer, sign

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from securesystemslib.signer import Signer

    from keys_policy.model import KeyHolder
    from repo_tools.publishing.artifacts import Incoming, Labels
    from repo_tools.signing.secrets import Secrets
    from repo_tools.storage.protocol import Storage
    from repo_tools.workspace import Workspace

__all__ = ["Added", "Builds", "add_firmware", "open_signers", "read_builds"]


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
class Builds:
    """A product's builds role as this machine sees it.

    Attributes:
        live: what is published, None if nothing is.
        staged: what this machine signed and did not publish, None if nothing.
        inherited: artifacts of the epoch before, while this one has no builds role.
    """

    live: Targets | None
    staged: Targets | None
    inherited: Mapping[str, TargetFile] = field(default_factory=dict)

    @property
    def waiting(self) -> list[TargetFile]:
        """What the next version has beside what is live."""
        staged = self.staged.targets if self.staged is not None else {}
        return list({**self.inherited, **staged}.values())

    @property
    def dropped(self) -> frozenset[str]:
        """Paths that the next version leaves out on purpose: nobody here vouches for them again."""
        return frozenset() if self.staged is None else dropped_paths(self.staged)

    @property
    def known(self) -> Mapping[str, TargetFile]:
        """Every target of either, by path."""
        found = dict(self.inherited)
        for role in (self.staged, self.live):
            if role is not None:
                found |= role.targets
        return found

    @property
    def targets(self) -> Mapping[str, TargetFile]:
        """The same without what is dropped: what the next version has."""
        return {path: each for path, each in self.known.items() if path not in self.dropped}

    @property
    def version(self) -> int:
        """The highest version that was ever signed here or published."""
        return max(
            (role.version for role in (self.live, self.staged) if role is not None), default=0
        )


def read_builds(
    workspace: Workspace, storage: Storage, product: str, *, anew: bool = False
) -> Builds:
    """What is live and what waits on this machine.

    Args:
        workspace: of this machine.
        storage: with what is live.
        product: whose builds.
        anew: what waits will be made anew, with sequences that are free.

    Raises:
        StaleError: what waits here gives a sequence that somebody else's live release has.
        NotTrustedError, RetryLaterError: as `read_base`.
    """
    role = builds_role(product)
    rooted = bool(workspace.roots()) or workspace.staged_role("root") is not None
    state = read_base(workspace, storage).state if rooted else RepositoryState()
    live, staged = state.role(role), workspace.staged_role(role)
    builds = Builds(
        live,
        None if staged is None else parse(staged, Targets, role).signed,
        {} if live is not None else inherited_builds(workspace, product),
    )
    if not anew:
        _check_sequences(role, builds)
    return builds


def _check_sequences(role: str, builds: Builds) -> None:
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
    _check_declared(workspace, labels)
    builds = read_builds(workspace, storage, labels.product)
    signers = open_signers(workspace, labels.product, secrets)
    with copy_in(source, workspace.outbox, progress) as incoming:
        verdict = judge(labels, incoming, builds.targets)
        if isinstance(verdict, AlreadyAdded):
            if not _is_at_hand(workspace, storage, stored_name(labels.path, incoming.sha256)):
                incoming.keep(workspace.outbox, labels.path)
        else:
            incoming.keep(workspace.outbox, labels.path)
            targets = _targets(labels, incoming, verdict.sequence)
            _stage(workspace, labels.product, builds, targets, signers, now)
        return Added(
            path=labels.path,
            sequence=verdict.sequence,
            length=incoming.length,
            sha256=incoming.sha256,
            new=not isinstance(verdict, AlreadyAdded),
        )


def _check_declared(workspace: Workspace, labels: Labels) -> None:
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


def _is_at_hand(workspace: Workspace, storage: Storage, stored: str) -> bool:
    if stored in workspace.staged_targets():
        return True
    try:
        with storage.open(stored):
            return True
    except NotFoundError:
        return False


def _targets(labels: Labels, incoming: Incoming, sequence: int) -> list[TargetFile]:
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


def _stage(
    workspace: Workspace,
    product: str,
    builds: Builds,
    targets: Sequence[TargetFile],
    signers: Sequence[tuple[Signer, KeyHolder]],
    now: datetime,
) -> None:
    """Sign what is live, what waited already and what is new, as one next version."""
    role = builds_role(product)
    rules = workspace.policy.role(role, "builds")
    signed = add_artifacts(role, builds.live, [*builds.waiting, *targets], rules, now)
    # Attack: what a thief built comes back with the next honest build.
    signed = without(signed, (), builds.dropped)
    # Above what was staged before as well: an interrupted publish may have uploaded that.
    signed.version = builds.version + 1
    payload = signed_bytes(signed)
    data = assemble(signed, [sign(signer, holder, payload) for signer, holder in signers])
    replace_file(workspace.memory / "staged" / f"{role}.json", data)
