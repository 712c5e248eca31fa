"""Pure: the TUF client workflow as a chain of checks: bytes in, verified metadata or an error out.

No file, network or clock: `updater` fetches, stores and knows the order of requests; this module
decides what is believed. Numbers are clauses of the TUF specification 1.0.33.

Reading (`read`), before anything else:
 * UTF-8 JSON of one document; no name twice in an object, no fraction, no integer beyond 2^53-1, no
   nesting beyond 64. Two parsers must never see two different files behind one signature.
 * The type is the one asked for (4.3). What is verified is the canonical form of the document as
   it was read, so that fields unknown to this client stay covered by the signature.
 * A key of a type that this client does not verify is kept as a key that never verifies; it does
   not make the file unreadable.

Signatures (`authentic`): the threshold of the delegator counts distinct public keys, not key ids,
and a key id with two signatures refuses the file (4.2.1).

Root (`first_root`, `next_root`):
 1. signed by a threshold of the trusted root and by a threshold of itself (5.3.4)
 2. version exactly one higher (5.3.5)
 3. expiry of links is not looked at (5.3.6); the last one is checked once, with `check_expiry`
    (5.3.10), after `rotated` (5.3.11) had its effect on the state

Timestamp (`accept_timestamp`): signature (5.4.2); version not lower (5.4.3.1), equal keeps the
trusted file; version of its snapshot not lower (5.4.3.2); not expired (5.4.4).

Snapshot (`accept_snapshot`): length and hashes where the timestamp has them (5.5.2); signature
(5.5.3); version as in the timestamp (5.5.4); no role missing and no version lower than in the
trusted snapshot (5.5.5); not expired (5.5.6).

Targets and delegated roles (`accept_targets`): listed in the snapshot; length and hashes where the
snapshot has them (5.6.2); signature of the delegator in hand (5.6.3); version as in the snapshot
(5.6.4); not expired (5.6.5).

Bytes that were stored earlier pass the same functions again before they are used. Stored bytes that
expired may still serve as `trusted`, the base of rollback checks, through `authentic`.

Target files (`check_target`): length and every hash, one of them strong (5.7.3).
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, NoReturn, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.formats import encode_canonical
from tuf.api.metadata import (
    Key,
    LengthOrHashMismatchError,
    Metadata,
    MetaFile,
    Root,
    Signature,
    Snapshot,
    T,
    TargetFile,
    Targets,
    Timestamp,
)

from client_reference.errors import ExitCode, FirmrootError, NotTrustedError, shortened
from client_reference.values import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

__all__ = [
    "SUPPORTED_KEYS",
    "BadSignatureError",
    "DelegationError",
    "ExpiredError",
    "MalformedError",
    "MismatchError",
    "ReplacedKeysError",
    "RollbackError",
    "accept_snapshot",
    "accept_targets",
    "accept_timestamp",
    "authentic",
    "check_expiry",
    "check_target",
    "first_root",
    "listed",
    "next_root",
    "read",
    "rotated",
]

MAX_INTEGER = 2**53 - 1
MAX_NESTING = 64
MAX_INTEGER_DIGITS = len(str(-MAX_INTEGER))
SECONDS = "%Y-%m-%dT%H:%M:%SZ"

SUPPORTED_KEYS = frozenset(
    {
        ("ed25519", "ed25519"),
        ("ecdsa", "ecdsa-sha2-nistp256"),
        ("ecdsa", "ecdsa-sha2-nistp384"),
        ("rsa", "rsassa-pss-sha256"),
        ("ml-dsa", "ml-dsa-65/1"),
    }
)
"""Key types that this client verifies; `selftest` has a known answer for each."""

OLDER_SPELLINGS = {
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256"): "ecdsa",
    ("ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384"): "ecdsa",
}
"""Key types before specification 1.0.20; still in production roots."""

STRONG_HASHES = frozenset({"sha256", "sha384", "sha512", "blake2b-256"})


_UNSIGNED = (
    "if the repository is yours, see who signed with `firmroot status`; "
    "otherwise another mirror may have the honest file"
)
_UNSIGNED_TIMESTAMP = (
    "the mirror may withhold a newer root, which has other timestamp keys, or be of another "
    "repository: ask another mirror, check repository.mirrors. If the repository is yours, see "
    "who signed with `firmroot status`"
)
_ANOTHER_FILE = (
    "the mirror serves another file under this name; another mirror may have the right one"
)
_ASK = "another mirror may have a newer state; if none has, ask the publisher"


class MalformedError(NotTrustedError):
    """The bytes are no metadata of the type asked for."""


class BadSignatureError(NotTrustedError):
    """Fewer good signatures than the delegator asks for.

    Attributes:
        role: whose metadata it is.
        needed: threshold of the delegator.
        got: distinct keys that signed well.
        unusable: key ids that no signature can be verified with here.

    Args:
        name: what the message calls the file, if not by its role.
        of: whose keys were asked for, for the message.
    """

    def __init__(
        self,
        role: str,
        needed: int,
        got: int,
        unusable: Sequence[str] = (),
        *,
        name: str = "",
        of: str = "",
    ) -> None:
        named = shortened(", ".join(unusable))
        unread = f"; these keys cannot be used here: {named}" if unusable else ""
        keys = "1 key" if got == 1 else f"{got} keys"
        super().__init__(
            f"{name or role} has good signatures of {keys}{of}, {needed} "
            f"{'is' if needed == 1 else 'are'} needed{unread}",
            _UNSIGNED_TIMESTAMP if role == Timestamp.type else _UNSIGNED,
        )
        self.role = role
        self.needed = needed
        self.got = got
        self.unusable = tuple(unusable)


class ReplacedKeysError(BadSignatureError):
    """What the keys before a change of keys signed is still there, and nothing of the new ones.

    So it looks in the middle of a cut (design 8), through a stale cache, and when somebody
    withholds what is new. Nothing is accepted; it is to be tried again.
    """

    exit_code = ExitCode.RETRY_LATER

    def __init__(self, error: BadSignatureError, version: int) -> None:
        super().__init__(error.role, error.needed, error.got, error.unusable)
        FirmrootError.__init__(
            self,
            f"{error.role} is still signed with the keys before root {version}: the publisher is "
            "in the middle of a change of keys, or a mirror withholds what came after it",
            "try again later; if it stays so, the publisher must run `firmroot publish`",
        )


class RollbackError(NotTrustedError):
    """Metadata are older than what was trusted before."""


class ExpiredError(NotTrustedError):
    """Metadata verify but are no longer valid.

    Attributes:
        role: whose metadata they are.
        expires: aware UTC time at which they ended.
    """

    def __init__(self, role: str, expires: datetime, now: datetime) -> None:
        # `refresh` signs what is signed online; a root that has ended takes its holders.
        renewal = "firmroot recover expired-root" if role == Root.type else "firmroot refresh"
        more = ", and have it signed again if its keys are offline"
        if role in {Root.type, Timestamp.type, Snapshot.type}:
            more = ""
        super().__init__(
            f"{role} expired at {expires.strftime(SECONDS)}, it is {now.strftime(SECONDS)} here",
            "your clock or a frozen mirror: set the clock if it is wrong; if it is right, the "
            f"publisher must run `{renewal}`{more}. What was trusted before is kept",
        )
        self.role = role
        self.expires = expires


class MismatchError(NotTrustedError):
    """Version, length or hash are not what the metadata above says."""


class DelegationError(NotTrustedError):
    """A delegation that firmroot does not follow (design 4, shadowing)."""


class UnknownKey(Key):
    """A key of a type that this client does not verify."""

    @classmethod
    def from_dict(cls, keyid: str, key_dict: dict[str, Any]) -> UnknownKey:
        """Keep every field as it was read."""
        fields = dict(key_dict)
        return cls(keyid, fields.pop("keytype"), fields.pop("scheme"), fields.pop("keyval"), fields)

    def to_dict(self) -> dict[str, Any]:
        """Give every field back as it was read."""
        return {
            "keytype": self.keytype,
            "scheme": self.scheme,
            "keyval": self.keyval,
            **self.unrecognized_fields,
        }

    def verify_signature(self, signature: Signature, data: bytes) -> NoReturn:
        """Never verifies."""
        del data
        raise UnverifiedSignatureError(
            f"{signature.keyid}: {self.keytype}/{self.scheme} is not verified by this client"
        )


@frozen
class Unverified(Generic[T]):
    """A well-formed file whose signatures nobody has looked at.

    Attributes:
        signed: what it says.
        payload: canonical bytes that signatures are made over.
        signatures: by key id.
    """

    signed: T
    payload: bytes
    signatures: dict[str, Signature]


# What was read already, while somebody asked for that: see `reading_once`.
_readings: dict[tuple[type, bytes], Unverified[Any]] | None = None


@contextmanager
def reading_once() -> Iterator[None]:
    """Within this, the same bytes are parsed once; signatures are checked each time.

    For a rehearsal, in which a hundred devices read the same snapshot. What was read is shared:
    nobody may change it. Not for a device.
    """
    global _readings  # noqa: PLW0603 # a parameter would go through every function of the client
    before, _readings = _readings, {}
    try:
        yield
    finally:
        _readings = before


def read(kind: type[T], role: str, data: bytes) -> Unverified[T]:
    """Parse one metadata file strictly.

    Args:
        kind: the type that the file must have.
        role: its name, for messages.
        data: the file.

    Raises:
        MalformedError: it breaks a rule of "Reading" above.
    """
    if _readings is not None and (known := _readings.get((kind, data))) is not None:
        return known
    try:
        document = _parse(data)
        signed = document["signed"]
        payload = encode_canonical(signed).encode()  # type: ignore[union-attr] # None only with a callback
        unknown = _take_unknown_keys(signed)
        metadata = Metadata[T].from_dict(document)
    except Exception as error:  # hostile input reaches more than the documented types
        raise MalformedError(
            f"{role} is not valid TUF metadata: {shortened(error) or type(error).__name__}",
            "it was damaged, or something that is no repository answered; another mirror may help",
        ) from error
    if not isinstance(metadata.signed, kind):
        raise MalformedError(
            f"{role} has the type {metadata.signed.type}, expected {kind.type} (4.3)",
            _ANOTHER_FILE,
        )
    _give_back_keys(metadata.signed, unknown)
    found = Unverified(metadata.signed, payload, metadata.signatures)
    if _readings is not None:
        _readings[kind, data] = found
    return found


def authentic(kind: type[T], delegator: Root | Targets, role: str, data: bytes) -> T:
    """What a file says, once a threshold of its delegator's keys signed it.

    Raises:
        MalformedError: see `read`.
        BadSignatureError: below the threshold.
        DelegationError: the delegator does not know this role.
    """
    file = read(kind, role, data)
    _check_signatures(delegator, role, file)
    return file.signed


def first_root(data: bytes) -> Root:
    """A root that is trusted because it was put here; it must at least be signed by itself (5.2).

    Raises:
        MalformedError, BadSignatureError: see `read` and `authentic`.
    """
    file = read(Root, "root", data)
    _check_signatures(file.signed, Root.type, file)
    return file.signed


def next_root(trusted: Root, data: bytes, name: str = "root") -> Root:
    """The link after `trusted`, whatever its expiry (5.3.4 to 5.3.6).

    Args:
        trusted: the link before.
        data: the file.
        name: of the chain, for messages.

    Raises:
        MalformedError, BadSignatureError: see `read` and `authentic`.
        MismatchError: it is not the next version.
    """
    place = f"{name} {trusted.version + 1}"
    file = read(Root, place, data)
    _check_signatures(trusted, Root.type, file, place, f" of {name} {trusted.version}")
    _check_signatures(file.signed, Root.type, file, place, " of its own")
    if file.signed.version != trusted.version + 1:
        raise MismatchError(
            f"{name} has version {file.signed.version}, expected {trusted.version + 1} (5.3.5)",
            _ANOTHER_FILE,
        )
    return file.signed


def rotated(old: Root, new: Root, role: str) -> bool:
    """Whether the keys or the threshold of `role` differ between two roots (5.3.11)."""
    before, after = old.get_delegated_role(role), new.get_delegated_role(role)
    return (
        before.threshold != after.threshold
        or set(before.keyids) != set(after.keyids)
        or any(old.keys.get(keyid) != new.keys.get(keyid) for keyid in before.keyids)
    )


def check_expiry(role: str, signed: Root | Timestamp | Snapshot | Targets, now: datetime) -> None:
    """Refuse what has ended (5.3.10, 5.4.4, 5.5.6, 5.6.5).

    Raises:
        ExpiredError: `now` is at or after its expiry.
    """
    if signed.is_expired(now):
        raise ExpiredError(role, signed.expires, now)


def accept_timestamp(
    root: Root, data: bytes, trusted: Timestamp | None, now: datetime
) -> Timestamp:
    """The timestamp to go on with: the new one, or `trusted` itself if the version is the same.

    Raises:
        MalformedError, BadSignatureError: see `authentic`.
        RollbackError: it, or the snapshot it names, is older than what is trusted.
        ExpiredError: the one to go on with has ended.
    """
    new = authentic(Timestamp, root, Timestamp.type, data)
    if trusted is not None:
        _check_not_older("timestamp", new.version, trusted.version, "5.4.3.1")
        if new.version == trusted.version:
            new = trusted
        _check_not_older(
            "the timestamp's snapshot",
            new.snapshot_meta.version,
            trusted.snapshot_meta.version,
            "5.4.3.2",
        )
    check_expiry(Timestamp.type, new, now)
    return new


def accept_snapshot(
    root: Root, timestamp: Timestamp, data: bytes, trusted: Snapshot | None, now: datetime
) -> Snapshot:
    """The snapshot that the timestamp names.

    Raises:
        MalformedError, BadSignatureError: see `authentic`.
        MismatchError: length, hash or version are not the timestamp's.
        RollbackError: a role is missing or older than in `trusted`.
        ExpiredError: it has ended.
    """
    meta = timestamp.snapshot_meta
    _check_bytes(Snapshot.type, meta, data)
    new = authentic(Snapshot, root, Snapshot.type, data)
    _check_version(Snapshot.type, new.version, meta, "5.5.4")
    if trusted is not None:
        for name, before in trusted.meta.items():
            after = new.meta.get(name)
            if after is None:
                raise RollbackError(
                    f"{shortened(name)} is missing from the new snapshot (5.5.5)", _ASK
                )
            _check_not_older(f"{name} in the snapshot", after.version, before.version, "5.5.5")
    check_expiry(Snapshot.type, new, now)
    return new


def accept_targets(
    delegator: Root | Targets, role: str, snapshot: Snapshot, data: bytes, now: datetime
) -> Targets:
    """The metadata of targets or a delegated role that the snapshot names.

    Raises:
        MalformedError, BadSignatureError, DelegationError: see `authentic`.
        MismatchError: not in the snapshot, or length, hash or version are not the snapshot's.
        ExpiredError: they have ended.
    """
    meta = listed(snapshot, role)
    _check_bytes(role, meta, data)
    new = authentic(Targets, delegator, role, data)
    _check_version(role, new.version, meta, "5.6.4")
    check_expiry(role, new, now)
    return new


def listed(snapshot: Snapshot, role: str) -> MetaFile:
    """What the snapshot says about a role.

    Raises:
        MismatchError: nothing.
    """
    meta = snapshot.meta.get(f"{role}.json")
    if meta is None:
        raise MismatchError(f"{role} is delegated but not listed in the snapshot (5.6.1)", _ASK)
    return meta


def check_target(target: TargetFile, data: bytes) -> None:
    """Length and every hash of a target file (5.7.3).

    Raises:
        MismatchError: they differ, or no strong hash is listed.
    """
    _check_bytes(target.path, target, data)


def _check_not_older(what: str, found: int, trusted: int, clause: str) -> None:
    if found < trusted:
        raise RollbackError(
            f"{shortened(what)} has version {found}, expected at least {trusted} ({clause})",
            "the mirror serves an old state; another one may be current",
        )


def _check_version(role: str, found: int, meta: MetaFile, clause: str) -> None:
    if found != meta.version:
        raise MismatchError(
            f"{role} has version {found}, expected {meta.version} ({clause})", _ANOTHER_FILE
        )


def _check_bytes(name: str, expected: MetaFile | TargetFile, data: bytes) -> None:
    # Weak hashes beside a strong one are checked too; alone they would let a forger choose.
    if expected.hashes is not None and not STRONG_HASHES & expected.hashes.keys():
        weak = shortened(", ".join(expected.hashes))
        raise MismatchError(
            f"{shortened(name)} is listed with weak hashes only: {weak}",
            f"ask the publisher to list it with one of {', '.join(sorted(STRONG_HASHES))}",
        )
    try:
        expected.verify_length_and_hashes(data)
    except LengthOrHashMismatchError as error:
        raise MismatchError(
            f"{shortened(name)} is not the file that was signed for: {shortened(error)}",
            "it was damaged or replaced on the way; another mirror may help",
        ) from error


def _check_signatures(
    delegator: Root | Targets, role: str, file: Unverified[T], name: str = "", of: str = ""
) -> None:
    try:
        result = delegator.get_verification_result(role, file.payload, file.signatures)
    except ValueError as error:
        raise DelegationError(f"{role} is not delegated: {error}") from error
    # The specification counts key ids. One holder listed under two ids must not count twice.
    signed = len({_public_bytes(key) for key in result.signed.values()})
    if signed < result.threshold:
        unusable = [keyid for keyid, key in result.unsigned.items() if _public_bytes(key) is None]
        raise BadSignatureError(role, result.threshold, signed, unusable, name=name, of=of)


def _public_bytes(key: Key) -> bytes | None:
    """A public key by value, however it is written; None if it cannot be used here."""
    if isinstance(key, UnknownKey):
        return None
    public = key.keyval["public"]
    try:
        if key.keytype == "ed25519":
            return bytes.fromhex(public)
        return load_pem_public_key(public.encode()).public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
    except (ValueError, UnsupportedAlgorithm):
        return None


def _parse(data: bytes) -> dict[str, Any]:
    document = json.loads(
        data.decode("utf-8"),
        object_pairs_hook=_unique_names,
        parse_int=_bounded_integer,
        parse_float=_no_fraction,
        parse_constant=_no_fraction,
    )
    level = [document]
    for _ in range(MAX_NESTING):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return _integers_are_integers(document)
    raise ValueError(f"nested deeper than {MAX_NESTING}")


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise ValueError("the same name twice in one object")
    return unique


def _bounded_integer(digits: str) -> int:
    if len(digits) > MAX_INTEGER_DIGITS or abs(int(digits)) > MAX_INTEGER:
        raise ValueError("an integer beyond 2^53-1")
    return int(digits)


def _no_fraction(literal: str) -> NoReturn:
    raise ValueError(f"a number that is no integer: {literal[:20]}")


def _integers_are_integers(document: Any) -> dict[str, Any]:  # noqa: ANN401 # any JSON value
    """Refuse `true` where a version belongs: Python would count it as 1."""
    if not isinstance(document, dict) or not isinstance(document.get("signed"), dict):
        raise TypeError("expected an object with an object `signed`")
    if type(document["signed"].get("version")) is not int:
        raise TypeError("expected an integer `version`")
    return document


def _key_table(signed: dict[str, Any]) -> dict[str, Any]:
    if signed.get("_type") == Root.type:
        return cast("dict[str, Any]", signed["keys"])
    if signed.get("_type") == Targets.type and "delegations" in signed:
        return cast("dict[str, Any]", signed["delegations"]["keys"])
    return {}


def _take_unknown_keys(signed: dict[str, Any]) -> dict[str, UnknownKey]:
    """Remove keys that this client does not verify; tuf refuses the whole file for one of them."""
    unknown = {}
    table = _key_table(signed)
    for keyid, key in list(table.items()):
        pair = (key["keytype"], key["scheme"])
        if pair in OLDER_SPELLINGS:
            # The library announces the end of these and warns at each use.
            key["keytype"] = OLDER_SPELLINGS[pair]
        elif pair not in SUPPORTED_KEYS:
            unknown[keyid] = UnknownKey.from_dict(keyid, table.pop(keyid))
    return unknown


def _give_back_keys(signed: object, unknown: dict[str, UnknownKey]) -> None:
    if isinstance(signed, Root):
        signed.keys.update(unknown)
    elif isinstance(signed, Targets) and signed.delegations is not None:
        signed.delegations.keys.update(unknown)
