"""Pure: the next version of each role, from its predecessor and what should change.

Every function returns unsigned metadata. The rules:

* versions rise by exactly one and stay below 2^53, where every JSON reader is exact (design 4,
  guard fast-forward);
* expiry comes from the policy and `now`, in whole seconds of UTC;
* what a path meant when it was published, it means for ever (guard meaning);
* `signed_bytes` is what is signed, and `assemble` proves that what is written parses back to it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Key,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import CanonicalJSONSerializer, JSONSerializer

from client_reference.errors import ConfigurationError, RefusedError
from client_reference.trust.reset import FIELD, Reset, read_resets
from repo_tools.metadata.repository import parse, sha256
from repo_tools.metadata.roles import (
    TOP_LEVEL,
    check_delegations,
    check_leaf,
    check_names,
    delegated_roles,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from securesystemslib.signer import Signature
    from tuf.api.metadata import Signed

    from keys_policy.model import KeyHolder, Policy, RolePolicy
    from repo_tools.metadata.adopted import Adopted

__all__ = [
    "DROPPED_FIELD",
    "EPOCH_FIELD",
    "ISSUED_FIELD",
    "LAB_FIELD",
    "MAX_VERSION",
    "ROOT_FIELD",
    "add_artifacts",
    "as_field",
    "assemble",
    "dropped_paths",
    "expiry",
    "format_time",
    "is_lab_root",
    "manifest_targets",
    "next_root",
    "next_snapshot",
    "next_targets",
    "next_timestamp",
    "next_version",
    "renewed",
    "signed_bytes",
    "without",
]

MAX_VERSION = 2**53 - 1

# In `root.signed`: the keys of this root were made for trying out, by one machine, all at once.
LAB_FIELD = "x-firmroot-lab"
# In `root.signed` and `timestamp.signed`: when it was made. Evidence for a device's clock floor.
ISSUED_FIELD = "x-firmroot-issued"
# In `timestamp.signed`: hints about the newest root version and the recovery epoch.
ROOT_FIELD = "x-firmroot-root"
EPOCH_FIELD = "x-firmroot-epoch"
# In a builds role's `signed`: paths that this version leaves out on purpose.
DROPPED_FIELD = "x-firmroot-dropped"

T = TypeVar("T", Root, Timestamp, Snapshot, Targets)


def format_time(moment: datetime) -> str:
    """A time as every file of ours writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def is_lab_root(root: Root) -> bool:
    """Whether a root says that its keys were made for trying out."""
    return root.unrecognized_fields.get(LAB_FIELD) is True


def signed_bytes(signed: Signed) -> bytes:
    """The canonical bytes that a signature covers (TUF 4.2.1)."""
    return CanonicalJSONSerializer().serialize(signed)


def assemble(signed: Signed, signatures: Iterable[Signature]) -> bytes:
    """The metadata file, ready to be published.

    Raises:
        RefusedError: reading the file back does not give the bytes that were signed.
    """
    given = {signature.keyid: signature for signature in signatures}
    metadata: Metadata[Any] = Metadata(signed, given)
    data = metadata.to_bytes(JSONSerializer(compact=True))
    again: Metadata[Any] = Metadata.from_bytes(data)
    if again.signed_bytes != signed_bytes(signed):
        raise RefusedError(f"{signed.type} cannot be written: reading it back gives other bytes")
    return data


def renewed(previous: T, rules: RolePolicy, now: datetime) -> T:
    """The same content, as the next version with a fresh expiry."""
    fields = previous.to_dict()
    fields["version"] = next_version(previous)
    fields["expires"] = format_time(expiry(rules, now))
    if ISSUED_FIELD in fields:
        fields[ISSUED_FIELD] = format_time(now)
    return type(previous).from_dict(fields)


def next_root(
    policy: Policy,
    keyring: Mapping[str, KeyHolder],
    previous: Root | None,
    now: datetime,
    *,
    lab: bool,
) -> Root:
    """The root that puts the policy into force."""
    keys: dict[str, Key] = {}
    roles: dict[str, Role] = {}
    for name in TOP_LEVEL:
        rules = policy.role(name)
        holders = [keyring[key] for key in rules.keys]
        keys.update((holder.key.keyid, holder.key) for holder in holders)
        roles[name] = Role([holder.key.keyid for holder in holders], rules.threshold)
    fields: dict[str, Any] = {ISSUED_FIELD: format_time(now)}
    if lab:
        fields[LAB_FIELD] = True
    return Root(
        version=next_version(previous),
        expires=expiry(policy.role("root"), now),
        keys=keys,
        roles=roles,
        consistent_snapshot=True,
        unrecognized_fields=fields,
    )


def next_targets(
    policy: Policy,
    keyring: Mapping[str, KeyHolder],
    products: Mapping[str, Sequence[str]],
    previous: Targets | None,
    now: datetime,
    resets: Mapping[str, int] | None = None,
    *,
    adopted: Adopted | None = None,
) -> Targets:
    """The top-level targets: all delegations that policy and products ask for.

    Sequence resets that the predecessor carries stay, for devices that come from the shelf; what
    was adopted stays for the clients that were there before.

    Args:
        policy: in force.
        keyring: its keys.
        products: with their channels.
        previous: the predecessor.
        now: the time.
        resets: new sequence resets, by product.
        adopted: what was there before `firmroot adopt`.

    Raises:
        ConfigurationError: names of products or channels collide.
        RefusedError: the delegations would break the guard on shadowing.
    """
    check_names(products)
    keys: dict[str, Key] = {}
    roles: dict[str, DelegatedRole] = {}
    theirs = adopted.roles if adopted is not None else ()
    device_tls = "device-tls" in policy.roles
    for delegated in delegated_roles(products, device_tls=device_tls, adopted=theirs):
        if delegated.name in roles:
            raise ConfigurationError(
                f"the role name {delegated.name!r} stands for an adopted role already",
                "choose another name for the product or the channel",
            )
        rules = policy.role(delegated.name, delegated.template)
        holders = [keyring[key] for key in rules.keys]
        keys.update((holder.key.keyid, holder.key) for holder in holders)
        roles[delegated.name] = DelegatedRole(
            delegated.name,
            [holder.key.keyid for holder in holders],
            rules.threshold,
            terminating=delegated.terminating,
            paths=list(delegated.patterns),
        )
    delegations = Delegations(keys, roles)
    check_delegations(delegations, adopted.delegations if adopted is not None else None)
    version = next_version(previous)
    carried = {} if previous is None else dict(read_resets(previous))
    carried |= {product: Reset(version, to) for product, to in (resets or {}).items()}
    return Targets(
        version=version,
        expires=expiry(policy.role("targets"), now),
        targets=dict(adopted.files) if adopted is not None else None,
        delegations=delegations,
        unrecognized_fields={FIELD: as_field(carried)} if carried else None,
    )


def as_field(resets: Mapping[str, Reset]) -> dict[str, Any]:
    """Sequence resets as `targets` carries them (`client_reference.trust.reset`)."""
    return {product: {"since": each.since, "to": each.to} for product, each in resets.items()}


def add_artifacts(
    role: str,
    previous: Targets | None,
    artifacts: Iterable[TargetFile],
    rules: RolePolicy,
    now: datetime,
) -> Targets:
    """A builds role that also speaks for these artifacts.

    Raises:
        RefusedError: a path is published with other bytes or another meaning, or the role
            delegates.
    """
    targets = dict(previous.targets) if previous else {}
    if previous is not None:
        check_leaf(role, previous)
    for artifact in artifacts:
        if targets.setdefault(artifact.path, artifact) != artifact:
            raise RefusedError(
                f"{artifact.path} is published already, with other bytes or another meaning",
                "a published path never changes: give the new build a new version",
            )
    return Targets(version=next_version(previous), expires=expiry(rules, now), targets=targets)


def without(signed: Targets, versions: Collection[str], paths: Collection[str] = ()) -> Targets:
    """A builds role that does not speak for these versions and paths any more, and says so.

    The field tells a publisher that nobody lost them in a race (`DROPPED_FIELD`).
    """
    names = frozenset(versions)
    gone = {
        path
        for path, target in signed.targets.items()
        if path in paths or (target.custom or {}).get("version") in names
    }
    gone |= {
        path
        for path, target in signed.targets.items()
        if (target.custom or {}).get("segments-of") in gone
    }
    if not gone:
        return signed
    return Targets(
        version=signed.version,
        expires=signed.expires,
        targets={path: each for path, each in signed.targets.items() if path not in gone},
        unrecognized_fields={DROPPED_FIELD: sorted(gone)},
    )


def dropped_paths(signed: Targets) -> frozenset[str]:
    """The paths that a builds role leaves out on purpose (`without`)."""
    said = signed.unrecognized_fields.get(DROPPED_FIELD)
    return frozenset(said) if isinstance(said, list) else frozenset()


def manifest_targets(
    role: str,
    previous: Targets | None,
    path: str,
    data: bytes,
    rules: RolePolicy,
    now: datetime,
) -> Targets:
    """A channel or hold role: its one target is `data`.

    Raises:
        RefusedError: the role delegates, or speaks for something else.
    """
    if previous is not None:
        check_leaf(role, previous)
        if other := sorted(set(previous.targets) - {path}):
            raise RefusedError(f"{role} speaks for {other[0]}, expected {path} alone")
    return Targets(
        version=next_version(previous),
        expires=expiry(rules, now),
        targets={path: TargetFile.from_data(path, data, ["sha256"])},
    )


def next_snapshot(
    previous: Snapshot | None, roles: Mapping[str, bytes], rules: RolePolicy, now: datetime
) -> Snapshot:
    """A snapshot of these roles, with length and hash of each.

    Args:
        previous: what is live; what it lists stays listed (TUF 5.5.5).
        roles: bytes of `targets` and delegated roles that are new or should be listed.
        rules: of the snapshot role.
        now: the time.

    Raises:
        RefusedError: the version of a role would fall, or change its bytes.
    """
    meta = dict(previous.meta) if previous else {}
    for name, data in roles.items():
        entry = MetaFile(
            parse(data, Targets, name).signed.version, len(data), {"sha256": sha256(data)}
        )
        before = meta.get(f"{name}.json")
        if before is not None and entry.version < before.version:
            raise RefusedError(
                f"{name} version {entry.version} is older than version {before.version}, "
                "which is live"
            )
        if before is not None and entry.version == before.version and entry != before:
            raise RefusedError(f"{name} version {entry.version} is live with other bytes")
        meta[f"{name}.json"] = entry
    return Snapshot(version=next_version(previous), expires=expiry(rules, now), meta=meta)


def next_timestamp(
    previous: Timestamp | None,
    snapshot: bytes,
    root_version: int,
    rules: RolePolicy,
    now: datetime,
    epoch: int = 0,
) -> Timestamp:
    """The commit point: this snapshot is the truth from now on."""
    version = parse(snapshot, Snapshot, "snapshot").signed.version
    return Timestamp(
        version=next_version(previous),
        expires=expiry(rules, now),
        snapshot_meta=MetaFile(version, len(snapshot), {"sha256": sha256(snapshot)}),
        unrecognized_fields={
            ISSUED_FIELD: format_time(now),
            ROOT_FIELD: root_version,
            EPOCH_FIELD: epoch,
        },
    )


def next_version(previous: Signed | None) -> int:
    """One more than the predecessor, 1 without one. Raises `RefusedError` at the last number."""
    version = previous.version + 1 if previous else 1
    if version > MAX_VERSION:
        raise RefusedError(
            f"{previous.type if previous else 'metadata'} has version {version - 1}, the last one",
            "somebody moved it forward on purpose: restore metadata/timestamp.json in the storage "
            "from before, then rotate the keys of the role that signed it (--compromised)",
        )
    return version


def expiry(rules: RolePolicy, now: datetime) -> datetime:
    """When what is signed now ends, by the policy."""
    return now.replace(microsecond=0) + timedelta(days=rules.expiry_days)
