"""Taking over a repository that others made, without breaking the devices that use it.

`inspect` reads what is live and says what can be kept and what cannot; it writes nothing. `adopt`
makes a workspace of it: their root chain, their public keys, their roles with their thresholds, and
as the last word of the others their root and targets role (`repo_tools.metadata.adopted`). Nothing
changes in the storage until the next root and targets role are signed by their keys and published:
clients go on from the root that they have, and find every old target where it was.

A repository is adopted where it is. What the publisher's own rules or a firmroot device could not
go on with is refused with the reason and what to do about it, before anything is written.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import tomlkit
from tuf.api.metadata import Root, Targets

from client_reference.errors import ConfigurationError, NotFoundError, NotTrustedError, RefusedError
from client_reference.trust.verified import first_root
from keys_policy.checks import KEY_CHECKS, Severity, public_bytes
from keys_policy.model import ALGORITHMS, TEMPLATES
from repo_tools.creation import appear, draft_of, write_files
from repo_tools.files import replace_file
from repo_tools.metadata.adopted import Adopted, section_of
from repo_tools.metadata.edits import format_time
from repo_tools.metadata.repository import RepositoryState, parse, sha256
from repo_tools.metadata.roles import RECOVERY, TOP_LEVEL
from repo_tools.publishing.artifacts import stored_name
from repo_tools.publishing.journal import kept_path
from repo_tools.publishing.live import MAX_METADATA, metadata_path, read_live
from repo_tools.signing.keyring import add_public
from repo_tools.signing.rules import findings
from repo_tools.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from typing import Any

    from tuf.api.metadata import Key

    from keys_policy.checks import Finding
    from repo_tools.publishing.live import Readable
    from repo_tools.storage.protocol import Storage

__all__ = ["KeyPlan", "Obstacle", "Plan", "adopt", "check_rules", "inspect", "missing_bytes"]

_OWNERS = ("x-tuf-on-ci-keyowner", "x-keyowner")
"""Fields in which other tools say whose key it is."""
_EXPIRY_DAYS, _SIGNING_DAYS = 365, 60
"""Of adopted delegated roles: nothing signed says how long they were good for."""


@dataclass(frozen=True)
class Obstacle:
    """Why this repository cannot be adopted as it is.

    Attributes:
        id: of the kind.
        found: what is there.
        fix: what its owners can do, with the tool that they have.
    """

    id: str
    found: str
    fix: str


@dataclass(frozen=True)
class KeyPlan:
    """A key of theirs, and what it will be called.

    Attributes:
        name: in `keys/`.
        key: as it is in their metadata, under its own id.
        roles: in which it has a say.
    """

    name: str
    key: Key
    roles: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What is there, and what would become of it.

    Attributes:
        state: verified, with the whole chain of roots.
        adopted: their last root and targets role; None if that cannot be said.
        keys: by the order of their roles.
        obstacles: everything that stands against it; nothing is written while there is any.
        notes: what whoever adopts should know.
    """

    state: RepositoryState
    adopted: Adopted | None = None
    keys: tuple[KeyPlan, ...] = ()
    obstacles: tuple[Obstacle, ...] = ()
    notes: tuple[str, ...] = field(default=())


def inspect(source: Readable, trusted: bytes | None, now: datetime) -> Plan:
    """Read what is live there, and judge it. Writes nothing.

    Args:
        source: the repository, with `metadata/` and `targets/` in it.
        trusted: a root that is known to be theirs; None to take version 1 as it is there.
        now: the time.

    Raises:
        NotTrustedError: it is not signed by that root, or damaged.
        RetryLaterError: it does not answer.
    """
    chain, obstacles = _chain(source)
    if trusted is not None and chain and trusted not in chain:
        raise NotTrustedError(
            f"the root that you trust, sha256 {sha256(trusted)[:16]}, is not one of the "
            f"{len(chain)} versions there",
            "this is another repository, or somebody forked it: ask its owners",
        )
    if obstacles:
        return Plan(RepositoryState(roots=chain), obstacles=tuple(obstacles))
    try:
        live = read_live(source, chain[0])
    except NotTrustedError as error:
        return Plan(RepositoryState(roots=chain), obstacles=(_unread(error),))
    state, root = live.state, parse(live.state.roots[-1], Root, "root").signed
    if live.tag is None or state.targets is None:
        nothing = Obstacle(
            "nothing-live",
            f"root {root.version} is there, and no metadata/timestamp.json",
            "name the storage that devices are served from, with metadata/ and targets/ in it",
        )
        return Plan(state, obstacles=(nothing,))
    adopted = Adopted(root, state.targets)
    return Plan(
        state,
        adopted,
        _keys(adopted),
        tuple(_obstacles(state, adopted, now)),
        tuple(_notes(state, adopted)),
    )


def _chain(source: Readable) -> tuple[tuple[bytes, ...], list[Obstacle]]:
    """Every root from version 1 on, as far as it can be read."""
    chain: list[bytes] = []
    while True:
        path = metadata_path("root", len(chain) + 1)
        try:
            chain.append(source.read(path, MAX_METADATA).data)
        except NotFoundError:
            break
    if not chain:
        return (), [
            Obstacle(
                "root-chain",
                "there is no metadata/1.root.json",
                "every root from version 1 on must be there: put them back from a backup or a "
                "mirror; a repository with other paths needs metadata/ and targets/",
            )
        ]
    try:
        first_root(chain[0])
    except NotTrustedError as error:
        text = f"root 1 cannot be read by a device of ours: {error.message}"
        fix = (
            "a device walks from version 1 on: this format is older than TUF 1.0; begin a new "
            "repository, and lead your devices there with an image that carries its root"
        )
        return tuple(chain), [Obstacle("root-format", text, fix)]
    return tuple(chain), []


def _unread(error: NotTrustedError) -> Obstacle:
    return Obstacle(
        "unverified",
        error.message,
        "what is live must verify before it is taken over: mend it with the tool that made it; "
        "hash bins and key types that firmroot does not read cannot be adopted",
    )


def _obstacles(state: RepositoryState, adopted: Adopted, now: datetime) -> Iterator[Obstacle]:
    if not adopted.root.consistent_snapshot:
        yield Obstacle(
            "consistent-snapshot",
            f"root {adopted.root.version} has consistent_snapshot false",
            "turn it on in your tool, publish a root with it, and see that devices follow; then "
            "adopt",
        )
    yield from _key_obstacles(adopted)
    yield from _delegation_obstacles(state, adopted)
    for text in adopted.collisions():
        yield Obstacle(
            "collision",
            text,
            "publish these files under another path with your tool, and let devices move; or keep "
            "this repository, and begin a new one beside it",
        )
    for name, signed in state.newest().items():
        if signed.expires <= now:
            yield Obstacle(
                "expired",
                f"{name} version {signed.version} expired {signed.expires:%Y-%m-%d}",
                "sign it again with the tool that made it: a repository is adopted while its "
                "devices work",
            )
    for role in state.roles:
        signed_role = state.role(role)
        for path, target in signed_role.targets.items() if signed_role is not None else ():
            if "sha256" not in target.hashes:
                yield Obstacle(
                    "no-sha256",
                    f"{role}: {path} has the hashes {', '.join(sorted(target.hashes))}",
                    "sign it with sha256 beside them",
                )


def _key_obstacles(adopted: Adopted) -> Iterator[Obstacle]:
    seen: dict[bytes, str] = {}
    for keyid, key in adopted.keys.items():
        if (key.keytype, key.scheme) not in ALGORITHMS.values():
            yield Obstacle(
                "key-type",
                f"key {keyid[:8]} is {key.keytype} with {key.scheme}",
                "rotate it with your tool to one of: "
                + ", ".join(f"{kind} with {scheme}" for kind, scheme in ALGORITHMS.values()),
            )
            continue
        if (other := seen.setdefault(public_bytes(key), keyid)) != keyid:
            yield Obstacle(
                "one-key-two-ids",
                f"keys {other[:8]} and {keyid[:8]} are one public key",
                "a threshold would count it twice: remove one of the ids with your tool",
            )


def _delegation_obstacles(state: RepositoryState, adopted: Adopted) -> Iterator[Obstacle]:
    delegations = adopted.targets.delegations
    if delegations is not None and delegations.roles is None:
        yield Obstacle(
            "hash-bins",
            "targets delegates to succinct hash bins",
            "these cannot be kept yet: delegate by paths with your tool, then adopt",
        )
    for name, role in adopted.delegations.items():
        if role.path_hash_prefixes is not None or not role.paths:
            yield Obstacle(
                "hash-bins",
                f"the delegation to {name} is by path_hash_prefixes, or names no paths",
                "these cannot be kept yet: delegate by paths with your tool, then adopt",
            )
        signed = state.role(name)
        if signed is None:
            yield Obstacle(
                "unsigned-role",
                f"targets delegates to {name}, and the snapshot does not list it",
                "sign and publish it with your tool, or remove the delegation",
            )
        elif signed.delegations is not None:
            yield Obstacle(
                "nested",
                f"{name} delegates further",
                "only one level can be kept yet: let targets delegate to these roles itself",
            )


def _notes(state: RepositoryState, adopted: Adopted) -> Iterator[str]:
    if adopted.files:
        yield (
            f"targets itself names {len(adopted.files)} target files: they stay, unchanged, in "
            "every targets role to come"
        )
    for name, role in adopted.delegations.items():
        ends = "" if role.terminating else ", not terminating, which stays so"
        signed = state.role(name)
        count = len(signed.targets) if signed is not None else 0
        yield (
            f"{name} speaks for {', '.join(role.paths or ())} ({count} files){ends}: signed again "
            f"as it is with firmroot ceremony start {name}, by [roles.{section_of(name)}]"
        )
    yield "new files are firmware of products, for devices with firmroot; old paths get none"
    yield "stop the jobs of the other tool before the first publish: two writers undo each other"


def _keys(adopted: Adopted) -> tuple[KeyPlan, ...]:
    """Each key once, named after its owner if that is known, else after its first role."""
    roles: dict[str, list[str]] = {}
    for name in TOP_LEVEL:
        for keyid in adopted.root.roles[name].keyids:
            roles.setdefault(keyid, []).append(name)
    for name, role in adopted.delegations.items():
        for keyid in role.keyids:
            roles.setdefault(keyid, []).append(section_of(name))
    names: set[str] = set()
    found = []
    for keyid, each in roles.items():
        key = adopted.keys[keyid]
        owner = next((str(key.unrecognized_fields.get(field, "")) for field in _OWNERS), "")
        name = _free_name(re.sub(r"[^a-z0-9]+", "-", owner.lower()).strip("-") or each[0], names)
        names.add(name)
        found.append(KeyPlan(name, key, tuple(each)))
    return tuple(found)


def _free_name(wanted: str, taken: set[str]) -> str:
    if wanted not in {*taken, *TOP_LEVEL} and not wanted.startswith("adopted-"):
        return wanted
    return next(name for number in range(1, 10_000) if (name := f"{wanted}-{number}") not in taken)


def missing_bytes(storage: Storage, state: RepositoryState) -> tuple[str, ...]:
    """Targets whose bytes are not where a consistent snapshot has them; asks for each of them."""
    missing = []
    for role in state.roles:
        signed = state.role(role)
        for path, target in signed.targets.items() if signed is not None else ():
            try:
                with storage.open(stored_name(path, target.hashes["sha256"])):
                    pass
            except NotFoundError:
                missing.append(path)
    return tuple(missing)


def adopt(directory: Path, storage: str, plan: Plan, example: str, now: datetime) -> Workspace:
    """Make the workspace. It appears at once, or not at all.

    Args:
        directory: where; absent or empty.
        storage: as in `firmroot.toml`.
        plan: without obstacles.
        example: whose policy the rest of the rules comes from.
        now: the time.

    Raises:
        ConfigurationError: the directory is not empty.
        RefusedError: the rules of that policy forbid the keys and thresholds that are there.
    """
    draft = draft_of(directory)
    try:
        _build(draft, storage, plan, example, now)
        return appear(draft, directory)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def check_rules(plan: Plan, example: str, now: datetime) -> None:
    """Whether a workspace could be made of it; leaves nothing. Raises as `adopt`."""
    with tempfile.TemporaryDirectory(prefix="firmroot-adopt-") as directory:
        _build(Path(directory), "repository", plan, example, now)


def _build(draft: Path, storage: str, plan: Plan, example: str, now: datetime) -> None:
    """Every file of the workspace, in a directory that is not its place yet."""
    adopted = plan.adopted
    if plan.obstacles or adopted is None:
        raise RefusedError(
            "this repository cannot be adopted as it is", "firmroot adopt --plan says why"
        )
    write_files(draft, storage, example, lab=False)
    for version, data in enumerate(plan.state.roots, 1):
        replace_file(draft / f"metadata/root/{version}.json", data)
    replace_file(draft / "metadata/adopted/root.json", plan.state.roots[-1])
    for role, data in plan.state.roles.items():
        replace_file(draft / f"metadata/{role}.json", data)
    replace_file(draft / "metadata/adopted/targets.json", plan.state.roles[Targets.type])
    ws = Workspace.open(draft, missing_keys=True)
    for each in plan.keys:
        add_public(ws, each.name, each.key, each.name, "file")
        ws = Workspace.open(draft, missing_keys=True)
    _write_policy(draft, plan, adopted, example)
    ws = Workspace.open(draft, missing_keys=True)
    _check_policy(ws, now)
    _record(ws, plan.state, now)


def _record(ws: Workspace, state: RepositoryState, now: datetime) -> None:
    """The first record of `history/`: what the others had live. Nothing older is believed again."""
    live = {"timestamp": state.timestamp or b"", "snapshot": state.snapshot or b"", **state.roles}
    for data in live.values():
        replace_file(kept_path(ws, sha256(data)), data)
    roles = {role: _described(ws, data) for role, data in {**live, "root": state.roots[-1]}.items()}
    timestamp = roles.pop("timestamp")
    record = {
        "schema": 1,
        "when": format_time(now),
        "why": "adopted as it was live",
        "root": len(state.roots),
        "timestamp": timestamp,
        "roles": roles,
        "previous": None,
        "ceremonies": [],
        "objects": [],
    }
    data = json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n"
    replace_file(ws.history / f"{timestamp['version']:06d}.json", data)


def _described(ws: Workspace, data: bytes) -> dict[str, Any]:
    """One role, with those who signed it: whose signatures do not count are named as well."""
    document = json.loads(data)
    keyids = {str(signature["keyid"]) for signature in document["signatures"]}
    return {
        "version": document["signed"]["version"],
        "sha256": sha256(data),
        "signed_by": sorted(map(ws.key_name, keyids)),
    }


def _write_policy(draft: Path, plan: Plan, adopted: Adopted, example: str) -> None:
    """Their thresholds and keys in the place of those of the example, and their delegated roles."""
    text = files("keys_policy.examples").joinpath(f"{example}.toml").read_text(encoding="utf-8")
    document = tomlkit.parse(text)
    names = {each.key.keyid: each.name for each in plan.keys}
    sections = document["roles"]
    if not isinstance(sections, dict):
        raise ConfigurationError(f"the example {example} has no roles")
    for role in TOP_LEVEL:
        rule = adopted.root.roles[role]
        sections[role]["threshold"] = rule.threshold
        sections[role]["keys"] = [names[keyid] for keyid in rule.keyids]
    for name, delegated in adopted.delegations.items():
        table = tomlkit.table()
        table["threshold"] = delegated.threshold
        table["keys"] = [names[keyid] for keyid in delegated.keyids]
        table["expiry_days"], table["signing_days"] = _EXPIRY_DAYS, _SIGNING_DAYS
        table.comment(f"the delegated role {name}, as it was adopted")
        sections[section_of(name)] = table
    replace_file(draft / "policy.toml", tomlkit.dumps(document).encode())


def _check_policy(ws: Workspace, now: datetime) -> None:
    """What the policy says of their keys; that our own are still to be made is no matter.

    Raises:
        RefusedError: names each violation.
    """
    violations = [each for each in findings(ws, now) if _is_theirs(each)]
    if violations:
        details = "; ".join(f"{each.detail} [{each.check.id}]" for each in violations)
        raise RefusedError(
            f"the policy forbids what is there: {details}",
            f"{violations[0].check.fix} Do that with the tool that made it, then adopt; or choose "
            "a policy that allows it: --policy maker",
        )


def _is_theirs(finding: Finding) -> bool:
    if finding.severity is not Severity.ERROR:
        return False
    ours = (*TEMPLATES, RECOVERY)
    return not (
        finding.check.id in KEY_CHECKS
        and any(finding.detail.startswith(f"roles.{name}:") for name in ours)
    )
