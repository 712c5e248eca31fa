"""What bytes are believed: the rules of `trust.verified`, one table for each of its paragraphs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, mldsa, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp

from client_reference.trust import verified
from client_reference.trust.verified import (
    BadSignatureError,
    DelegationError,
    ExpiredError,
    MalformedError,
    MismatchError,
    RollbackError,
)
from tests.simulators.repository import NOW, RepositorySimulator

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

    from client_reference.errors import NotTrustedError

    Case = tuple[str, Callable[[RepositorySimulator], object], type[NotTrustedError] | None]


@pytest.fixture
def repo() -> RepositorySimulator:
    repo = RepositorySimulator()
    repo.delegate("leaf", ["leaf/*"])
    repo.publish("leaf", "targets")
    return repo


def document(repo: RepositorySimulator, role: str = "timestamp") -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(repo.sign(role))
    return parsed


def with_signed(repo: RepositorySimulator, **fields: Any) -> bytes:  # noqa: ANN401 # any JSON value
    parsed = document(repo)
    parsed["signed"].update(fields)
    return json.dumps(parsed).encode()


def nested(depth: int) -> Any:  # noqa: ANN401 # any JSON value
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


# Reading

UNREADABLE: list[tuple[str, Callable[[RepositorySimulator], bytes], str]] = [
    ("nothing", lambda _: b"", "Expecting value"),
    ("truncated", lambda r: r.sign("timestamp")[:-5], "delimiter|Expecting|Unterminated"),
    ("followed by more", lambda r: r.sign("timestamp") + b"{}", "Extra data"),
    ("a web page", lambda _: b"<html>login</html>", "Expecting value"),
    ("not UTF-8", lambda r: r.sign("timestamp").replace(b"timestamp", b"\xff\xfe"), "utf-8"),
    ("UTF-16", lambda r: r.sign("timestamp").decode().encode("utf-16"), "utf-8"),
    ("a byte order mark", lambda r: b"\xef\xbb\xbf" + r.sign("timestamp"), "BOM"),
    ("a list", lambda _: b"[]", "expected an object"),
    ("no signed part", lambda _: b'{"signatures": []}', "expected an object"),
    ("a signed part that is a list", lambda _: b'{"signed": [1]}', "expected an object"),
    ("no signatures", lambda r: json.dumps({"signed": document(r)["signed"]}).encode(), "sign"),
    (
        "a name twice in an object",
        lambda r: r.sign("timestamp").replace(b'"version":2', b'"version":2,"version":2', 1),
        "same name twice",
    ),
    (
        "a name twice beside the signed part",
        lambda r: r.sign("timestamp").replace(b'{"signatures"', b'{"signatures":[],"signatures"'),
        "same name twice",
    ),
    ("a fraction", lambda r: with_signed(r, x=1.5), "no integer: 1.5"),
    ("an exponent", lambda r: with_signed(r, x=0).replace(b'"x": 0', b'"x": 1e3'), "no integer"),
    ("not a number", lambda r: with_signed(r, x=float("nan")), "no integer: NaN"),
    ("infinity", lambda r: with_signed(r, x=float("inf")), "no integer: Infinity"),
    ("an integer of 2^53", lambda r: with_signed(r, x=2**53), "beyond 2"),
    ("an integer of -2^53", lambda r: with_signed(r, x=-(2**53)), "beyond 2"),
    (
        "an integer of 10000 digits",
        lambda r: with_signed(r).replace(b": 2", b": 2" + b"9" * 9999),
        "beyond 2",
    ),
    ("nested too deep", lambda r: with_signed(r, x=nested(63)), "deeper than 64"),
    ("nested beyond the parser", lambda _: b"[" * 100_000 + b"]" * 100_000, "recursion|Stack"),
    ("a lone surrogate", lambda r: with_signed(r, x="\ud800"), "surrogates"),
    ("a version that is true", lambda r: with_signed(r, version=True), "integer `version`"),
    ("a version that is text", lambda r: with_signed(r, version="2"), "integer `version`"),
    ("a version of zero", lambda r: with_signed(r, version=0), "version must be > 0"),
    ("another major specification", lambda r: with_signed(r, spec_version="2.0.0"), "spec_version"),
    ("fractional seconds", lambda r: with_signed(r, expires="2031-01-01T00:00:00.5Z"), "time data"),
    ("an unknown type", lambda r: with_signed(r, _type="mirrors"), "mirrors"),
    ("another type", lambda r: r.sign("snapshot"), "has the type snapshot, expected timestamp"),
    ("a type that is a list", lambda r: with_signed(r, _type=[]), "metadata"),
    ("no version of the snapshot", lambda r: with_signed(r, meta={"snapshot.json": {}}), "version"),
]


@pytest.mark.parametrize(
    ("make", "words"), [c[1:] for c in UNREADABLE], ids=[c[0] for c in UNREADABLE]
)
def test_what_is_no_strict_metadata_is_malformed(
    repo: RepositorySimulator, make: Callable[[RepositorySimulator], bytes], words: str
) -> None:
    with pytest.raises(MalformedError, match=words):
        verified.read(Timestamp, "timestamp", make(repo))


def test_an_error_does_not_quote_a_whole_file(repo: RepositorySimulator) -> None:
    parsed = document(repo, "root")
    parsed["signed"]["expires"] = "x" * 9000
    with pytest.raises(MalformedError) as caught:
        verified.read(Root, "root", json.dumps(parsed).encode())
    assert "xxx…" in caught.value.message
    assert len(caught.value.message) < 300


def test_an_error_does_not_name_a_thousand_keys(repo: RepositorySimulator) -> None:
    signer, *_ = repo.signers["root"].values()
    for number in range(100):
        key = SSlibKey(f"{number:064}", "rsa", "rsassa-pss-sha256", {"public": "no key"})
        repo.root.add_key(key, "root")
    repo.root.roles["root"].threshold = 2
    with pytest.raises(BadSignatureError, match=r"cannot be used here: 000.*…$") as caught:
        verified.first_root(repo.sign("root"))
    assert len(caught.value.unusable) == 100
    assert len(caught.value.message) < 400
    assert signer.public_key.keyid not in caught.value.unusable


def test_the_largest_integer_and_the_deepest_nesting_are_read(repo: RepositorySimulator) -> None:
    data = with_signed(repo, x=nested(62), y=2**53 - 1, z=-(2**53) + 1)
    signed = verified.read(Timestamp, "timestamp", data).signed
    assert signed.unrecognized_fields["y"] == 2**53 - 1


def test_a_field_called_delegations_means_nothing_outside_targets(
    repo: RepositorySimulator,
) -> None:
    repo.timestamp.unrecognized_fields["delegations"] = "none of ours"
    timestamp = verified.read(Timestamp, "timestamp", repo.sign("timestamp")).signed
    assert timestamp.unrecognized_fields["delegations"] == "none of ours"


def test_a_field_called_keys_means_nothing_outside_root_and_delegations(
    repo: RepositorySimulator,
) -> None:
    repo.timestamp.unrecognized_fields["keys"] = {"a": {"keytype": "x", "scheme": "y"}}
    repo.role("leaf").unrecognized_fields["keys"] = ["not a table"]
    data = repo.sign("timestamp")
    assert verified.authentic(Timestamp, repo.root, "timestamp", data).unrecognized_fields["keys"]
    assert verified.authentic(Targets, repo.targets, "leaf", repo.sign("leaf"))


def test_two_signatures_of_one_key_id_are_malformed(repo: RepositorySimulator) -> None:
    parsed = document(repo)
    parsed["signatures"] *= 2
    with pytest.raises(MalformedError, match="Multiple signatures"):
        verified.read(Timestamp, "timestamp", json.dumps(parsed).encode())


def test_fields_that_nobody_knows_stay_covered_by_the_signature(repo: RepositorySimulator) -> None:
    repo.timestamp.unrecognized_fields["future"] = {"b": [1, "é"], "a": None}
    data = repo.sign("timestamp")
    assert verified.authentic(Timestamp, repo.root, "timestamp", data).unrecognized_fields["future"]
    parsed = json.loads(data)
    del parsed["signed"]["future"]
    with pytest.raises(BadSignatureError):
        verified.authentic(Timestamp, repo.root, "timestamp", json.dumps(parsed).encode())


def test_the_encoding_of_the_file_does_not_matter_only_what_it_says(
    repo: RepositorySimulator,
) -> None:
    data = json.dumps(document(repo), indent=7, ensure_ascii=True).encode()
    assert verified.authentic(Timestamp, repo.root, "timestamp", data).version == 2


# Signatures


def spoil(repo: RepositorySimulator, role: str, *keyids: str) -> bytes:
    """The role with some signatures exchanged for others that look alike."""
    metadata = Metadata.from_bytes(repo.sign(role))
    for keyid in keyids:
        metadata.signatures[keyid].signature = "ab" * 64
    return metadata.to_bytes()


THRESHOLDS = [
    # keys, threshold, good signatures, bad signatures, accepted
    (1, 1, 1, 0, True),
    (1, 1, 0, 1, False),
    (1, 1, 0, 0, False),
    (3, 2, 2, 0, True),
    (3, 2, 2, 1, True),
    (3, 2, 3, 0, True),
    (3, 2, 1, 0, False),
    (3, 2, 1, 2, False),
    (2, 3, 2, 0, False),
]


@pytest.mark.parametrize(
    ("keys", "threshold", "good", "bad", "accepted"),
    THRESHOLDS,
    ids=[f"{g}-good-{b}-bad-of-{k}-at-{t}" for k, t, g, b, _ in THRESHOLDS],
)
def test_a_threshold_of_good_signatures_is_needed(
    repo: RepositorySimulator, *, keys: int, threshold: int, good: int, bad: int, accepted: bool
) -> None:
    for _ in range(keys - 1):
        repo.add_key("timestamp")
    repo.root.roles["timestamp"].threshold = threshold
    for keyid in list(repo.signers["timestamp"])[good + bad :]:
        del repo.signers["timestamp"][keyid]
    data = spoil(repo, "timestamp", *list(repo.signers["timestamp"])[:bad])
    if accepted:
        assert verified.authentic(Timestamp, repo.root, "timestamp", data).version == 2
        return
    with pytest.raises(BadSignatureError) as caught:
        verified.authentic(Timestamp, repo.root, "timestamp", data)
    assert (caught.value.role, caught.value.needed, caught.value.got) == (
        "timestamp",
        threshold,
        good,
    )


P256 = ec.SECP256R1()

TWINS: list[tuple[str, Callable[[], PrivateKeyTypes], Callable[[str], str]]] = [
    ("ed25519", Ed25519PrivateKey.generate, str),
    ("ed25519 in capitals", Ed25519PrivateKey.generate, str.upper),
    ("ecdsa", lambda: ec.generate_private_key(P256), str),
    (
        "ecdsa in other lines",
        lambda: ec.generate_private_key(P256),
        lambda pem: pem.replace("\n", "\r\n"),
    ),
]


@pytest.mark.parametrize(("make", "spelling"), [c[1:] for c in TWINS], ids=[c[0] for c in TWINS])
def test_one_key_under_two_ids_counts_once(
    repo: RepositorySimulator,
    make: Callable[[], PrivateKeyTypes],
    spelling: Callable[[str], str],
) -> None:
    private = make()
    signer = CryptoSigner(private)
    key = signer.public_key
    public = spelling(key.keyval["public"])
    twin = CryptoSigner(private, SSlibKey("twin", key.keytype, key.scheme, {"public": public}))
    repo.root.roles["timestamp"].keyids.clear()
    repo.signers["timestamp"].clear()
    for one in (signer, twin):
        repo.add_key("timestamp", signer=one)
    assert verified.authentic(Timestamp, repo.root, "timestamp", repo.sign("timestamp"))
    repo.root.roles["timestamp"].threshold = 2
    with pytest.raises(BadSignatureError, match="good signatures of 1 key, 2 are needed"):
        verified.authentic(Timestamp, repo.root, "timestamp", repo.sign("timestamp"))
    repo.add_key("timestamp")
    assert verified.authentic(Timestamp, repo.root, "timestamp", repo.sign("timestamp"))


KEY_TYPES: dict[str, Callable[[], CryptoSigner]] = {
    "ed25519": CryptoSigner.generate_ed25519,
    "ecdsa P-256": CryptoSigner.generate_ecdsa,
    "ecdsa P-384": lambda: CryptoSigner(ec.generate_private_key(ec.SECP384R1())),
    "rsa 3072": lambda: CryptoSigner(rsa.generate_private_key(65537, 3072)),
    "ml-dsa-65": lambda: CryptoSigner(mldsa.MLDSA65PrivateKey.generate()),
}


@pytest.mark.parametrize("make", KEY_TYPES.values(), ids=KEY_TYPES.keys())
def test_every_supported_key_type_counts(
    repo: RepositorySimulator, make: Callable[[], CryptoSigner]
) -> None:
    signer = make()
    repo.add_key("timestamp", signer=signer)
    repo.root.roles["timestamp"].threshold = 2
    assert verified.authentic(Timestamp, repo.root, "timestamp", repo.sign("timestamp"))
    with pytest.raises(BadSignatureError):
        verified.authentic(
            Timestamp, repo.root, "timestamp", spoil(repo, "timestamp", signer.public_key.keyid)
        )


def rename_keytype(data: bytes, keyid: str, keytype: str, scheme: str) -> bytes:
    parsed = json.loads(data)
    parsed["signed"]["keys"][keyid].update(keytype=keytype, scheme=scheme)
    return json.dumps(parsed).encode()


@pytest.mark.parametrize(
    ("keytype", "scheme"),
    [("sphincs", "shake-256f"), ("rsa", "pgp+rsa-pkcsv1.5"), ("ed25519", "ed25519ph")],
)
def test_a_key_of_an_unknown_type_never_counts_and_does_no_harm(
    repo: RepositorySimulator, keytype: str, scheme: str
) -> None:
    keyid = next(iter(repo.signers["timestamp"]))
    data = rename_keytype(repo.sign("root"), keyid, keytype, scheme)
    root = verified.read(Root, "root", data).signed
    assert root.keys[keyid].keytype == keytype
    assert root.to_dict()["keys"][keyid] == json.loads(data)["signed"]["keys"][keyid]
    with pytest.raises(BadSignatureError) as caught:
        verified.authentic(Timestamp, root, "timestamp", repo.sign("timestamp"))
    assert caught.value.unusable == (keyid,)
    assert keyid in caught.value.message
    assert verified.authentic(Snapshot, root, "snapshot", repo.sign("snapshot"))


def test_an_unknown_key_type_of_a_delegation_does_no_harm(repo: RepositorySimulator) -> None:
    repo.delegate("other", ["other/*"])
    parsed = document(repo, "targets")
    keyid = next(iter(repo.signers["leaf"]))
    parsed["signed"]["delegations"]["keys"][keyid]["keytype"] = "sphincs"
    targets = verified.read(Targets, "targets", json.dumps(parsed).encode()).signed
    assert targets.to_dict() == parsed["signed"]
    with pytest.raises(BadSignatureError):
        verified.authentic(Targets, targets, "leaf", repo.sign("leaf"))
    repo.role("other").version = 1
    assert verified.authentic(Targets, targets, "other", repo.sign("other"))


def test_the_older_spelling_of_an_ecdsa_key_type_verifies(repo: RepositorySimulator) -> None:
    signer = CryptoSigner.generate_ecdsa()
    repo.add_key("timestamp", signer=signer)
    repo.root.roles["timestamp"].threshold = 2
    keyid = signer.public_key.keyid
    scheme = signer.public_key.scheme
    root = verified.read(Root, "root", rename_keytype(repo.sign("root"), keyid, scheme, scheme))
    assert verified.authentic(Timestamp, root.signed, "timestamp", repo.sign("timestamp"))


def test_a_key_that_is_no_key_never_counts(repo: RepositorySimulator) -> None:
    keyid = next(iter(repo.signers["timestamp"]))
    repo.root.keys[keyid].keyval["public"] = "not hex"
    with pytest.raises(BadSignatureError) as caught:
        verified.authentic(Timestamp, repo.root, "timestamp", repo.sign("timestamp"))
    assert caught.value.unusable == (keyid,)


def test_a_key_that_only_did_not_sign_is_not_called_unusable(repo: RepositorySimulator) -> None:
    idle = CryptoSigner.generate_ed25519()
    repo.add_key("timestamp", signer=idle)
    repo.root.roles["timestamp"].threshold = 2
    data = json.loads(repo.sign("timestamp"))
    kept = [each for each in data["signatures"] if each["keyid"] != idle.public_key.keyid]
    data["signatures"] = kept
    with pytest.raises(BadSignatureError) as caught:
        verified.authentic(Timestamp, repo.root, "timestamp", json.dumps(data).encode())
    assert (caught.value.got, caught.value.unusable) == (1, ())


def test_a_role_that_is_not_delegated_is_refused(repo: RepositorySimulator) -> None:
    with pytest.raises(DelegationError, match="stranger"):
        verified.authentic(Targets, repo.targets, "stranger", repo.sign("leaf"))


# Root


def test_a_first_root_must_be_signed_by_itself(repo: RepositorySimulator) -> None:
    assert verified.first_root(repo.sign("root")).version == 1
    repo.signers["root"].clear()
    with pytest.raises(BadSignatureError):
        verified.first_root(repo.sign("root"))


def test_a_first_root_may_have_expired(repo: RepositorySimulator) -> None:
    repo.root.expires = repo.later(days=-1)
    assert verified.first_root(repo.sign("root"))


def unsigned_by_old(repo: RepositorySimulator) -> None:
    old = list(repo.signers["root"])
    repo.rotate("root")
    for keyid in old:
        del repo.signers["root"][keyid]


def unsigned_by_new(repo: RepositorySimulator) -> None:
    old = dict(repo.signers["root"])
    repo.rotate("root")
    repo.signers["root"] = old


LINKS: list[Case] = [
    ("the same keys", lambda _: None, None),
    ("rotated, signed by both", lambda r: r.rotate("root"), None),
    ("expired", lambda r: setattr(r.root, "expires", r.later(days=-1)), None),
    ("rotated, not signed by the old keys", unsigned_by_old, BadSignatureError),
    ("rotated, not signed by the new keys", unsigned_by_new, BadSignatureError),
    ("a version skipped", lambda r: setattr(r.root, "version", 3), MismatchError),
    ("the same version", lambda r: setattr(r.root, "version", 1), MismatchError),
]


@pytest.mark.parametrize(("change", "error"), [c[1:] for c in LINKS], ids=[c[0] for c in LINKS])
def test_a_link_of_the_root_chain(
    repo: RepositorySimulator,
    change: Callable[[RepositorySimulator], object],
    error: type[NotTrustedError] | None,
) -> None:
    trusted = verified.first_root(repo.sign("root"))
    repo.root.version += 1
    change(repo)
    if error is None:
        assert verified.next_root(trusted, repo.sign("root")).version == 2
        return
    with pytest.raises(error):
        verified.next_root(trusted, repo.sign("root"))


def exchange_behind_the_id(repo: RepositorySimulator) -> None:
    key = repo.root.keys[repo.root.roles["timestamp"].keyids[0]]
    key.keyval = dict(repo.new_signer().public_key.keyval)


ROTATIONS: list[tuple[str, Callable[[RepositorySimulator], object], bool]] = [
    ("nothing", lambda _: None, False),
    ("other root keys", lambda r: r.rotate("root"), False),
    ("other snapshot keys", lambda r: r.rotate("snapshot"), False),
    ("another key", lambda r: r.rotate("timestamp"), True),
    ("one key more", lambda r: r.add_key("timestamp"), True),
    ("another threshold", lambda r: setattr(r.root.roles["timestamp"], "threshold", 2), True),
    ("another key behind the same id", exchange_behind_the_id, True),
    ("the other order", lambda r: r.root.roles["timestamp"].keyids.reverse(), False),
]


@pytest.mark.parametrize(
    ("change", "differs"), [c[1:] for c in ROTATIONS], ids=[c[0] for c in ROTATIONS]
)
def test_whether_timestamp_keys_were_rotated(
    repo: RepositorySimulator, change: Callable[[RepositorySimulator], object], *, differs: bool
) -> None:
    repo.add_key("timestamp")
    old = verified.first_root(repo.sign("root"))
    change(repo)
    assert verified.rotated(old, verified.first_root(repo.sign("root")), "timestamp") is differs


def test_metadata_end_at_the_second_that_they_name(repo: RepositorySimulator) -> None:
    repo.root.expires = NOW
    verified.check_expiry("root", repo.root, repo.later(seconds=-1))
    with pytest.raises(
        ExpiredError, match="root expired at 2031-05-14T12:00:00Z, it is 2031-05-14T12:00:00Z"
    ):
        verified.check_expiry("root", repo.root, NOW)


HINTS = [
    ("root", "the publisher must run `firmroot recover expired-root`. What"),
    ("timestamp", "the publisher must run `firmroot refresh`. What"),
    ("snapshot", "the publisher must run `firmroot refresh`. What"),
    ("targets", "must run `firmroot refresh`, and have it signed again if its keys are offline. "),
    ("gateway-stable", "`firmroot refresh`, and have it signed again if its keys are offline. "),
]


@pytest.mark.parametrize(("role", "command"), HINTS)
def test_what_has_ended_names_the_command_that_renews_it(role: str, command: str) -> None:
    assert command in ExpiredError(role, NOW, NOW).hint


# Timestamp


def timestamp(
    version: int, snapshot: int, days: float = 1
) -> Callable[[RepositorySimulator], None]:
    def change(repo: RepositorySimulator) -> None:
        repo.timestamp.version = version
        repo.timestamp.snapshot_meta.version = snapshot
        repo.timestamp.expires = repo.later(days=days)

    return change


TIMESTAMPS: list[Case] = [
    ("newer", timestamp(6, 6), None),
    ("newer, same snapshot", timestamp(6, 5), None),
    ("older", timestamp(4, 5), RollbackError),
    ("newer, older snapshot", timestamp(6, 4), RollbackError),
    ("expired", timestamp(6, 6, -1), ExpiredError),
]


@pytest.mark.parametrize(
    ("change", "error"), [c[1:] for c in TIMESTAMPS], ids=[c[0] for c in TIMESTAMPS]
)
def test_a_new_timestamp(
    repo: RepositorySimulator,
    change: Callable[[RepositorySimulator], None],
    error: type[NotTrustedError] | None,
) -> None:
    timestamp(5, 5)(repo)
    trusted = verified.accept_timestamp(repo.root, repo.sign("timestamp"), None, NOW)
    change(repo)
    if error is None:
        new = verified.accept_timestamp(repo.root, repo.sign("timestamp"), trusted, NOW)
        assert new.version == 6
        return
    with pytest.raises(error):
        verified.accept_timestamp(repo.root, repo.sign("timestamp"), trusted, NOW)


def test_a_timestamp_of_the_same_version_leaves_the_trusted_one(repo: RepositorySimulator) -> None:
    timestamp(5, 5)(repo)
    trusted = verified.accept_timestamp(repo.root, repo.sign("timestamp"), None, NOW)
    timestamp(5, 9)(repo)
    assert verified.accept_timestamp(repo.root, repo.sign("timestamp"), trusted, NOW) is trusted
    timestamp(5, 3)(repo)
    assert verified.accept_timestamp(repo.root, repo.sign("timestamp"), trusted, NOW) is trusted


def test_the_trusted_timestamp_is_refused_when_it_has_ended_itself(
    repo: RepositorySimulator,
) -> None:
    timestamp(5, 5, days=1)(repo)
    trusted = verified.accept_timestamp(repo.root, repo.sign("timestamp"), None, NOW)
    timestamp(5, 5, days=9)(repo)
    with pytest.raises(ExpiredError):
        verified.accept_timestamp(repo.root, repo.sign("timestamp"), trusted, repo.later(days=2))


# Snapshot and targets


def change_hash(repo: RepositorySimulator, role: str, algorithm: str, digest: str) -> None:
    meta = (
        repo.timestamp.snapshot_meta if role == "snapshot" else repo.snapshot.meta[f"{role}.json"]
    )
    meta.hashes = {**(meta.hashes or {}), algorithm: digest}


def drop_length(repo: RepositorySimulator, role: str, length: int | None) -> None:
    meta = (
        repo.timestamp.snapshot_meta if role == "snapshot" else repo.snapshot.meta[f"{role}.json"]
    )
    meta.length = length


def only_weak_hash(repo: RepositorySimulator) -> None:
    repo.timestamp.snapshot_meta.hashes = {"md5": "0" * 32}


def unsigned(role: str) -> Callable[[RepositorySimulator], None]:
    def change(repo: RepositorySimulator) -> None:
        repo.signers[role].clear()
        repo.write(role)

    return change


def ended(role: str) -> Callable[[RepositorySimulator], None]:
    def change(repo: RepositorySimulator) -> None:
        repo.signed[role].expires = repo.later(days=-1)
        repo.write(role)

    return change


def other_version(role: str, version: int) -> Callable[[RepositorySimulator], None]:
    """The file says another version than the metadata above it."""

    def change(repo: RepositorySimulator) -> None:
        old = repo.signed[role].version
        repo.signed[role].version = version
        repo.write(role)
        meta = (
            repo.timestamp.snapshot_meta
            if role == "snapshot"
            else repo.snapshot.meta[f"{role}.json"]
        )
        meta.version = old

    return change


def meta(name: str, version: int | None) -> Callable[[RepositorySimulator], None]:
    def change(repo: RepositorySimulator) -> None:
        if version is None:
            del repo.snapshot.meta[name]
        else:
            repo.snapshot.meta[name].version = version
        repo.write("snapshot")

    return change


SNAPSHOTS: list[Case] = [
    ("as named", lambda _: None, None),
    ("without a length", lambda r: drop_length(r, "snapshot", None), None),
    ("a higher version of a role", meta("leaf.json", 9), None),
    ("another sha256", lambda r: change_hash(r, "snapshot", "sha256", "0" * 64), MismatchError),
    ("another sha512 too", lambda r: change_hash(r, "snapshot", "sha512", "0"), MismatchError),
    ("an unknown hash too", lambda r: change_hash(r, "snapshot", "sha9", "0"), MismatchError),
    ("a weak hash only", only_weak_hash, MismatchError),
    ("another length", lambda r: drop_length(r, "snapshot", 10), MismatchError),
    ("not signed", unsigned("snapshot"), BadSignatureError),
    ("another version", other_version("snapshot", 7), MismatchError),
    ("a role missing", meta("leaf.json", None), RollbackError),
    ("targets missing", meta("targets.json", None), RollbackError),
    ("an older version of a role", meta("leaf.json", 4), RollbackError),
    ("expired", ended("snapshot"), ExpiredError),
]


@pytest.mark.parametrize(
    ("change", "error"), [c[1:] for c in SNAPSHOTS], ids=[c[0] for c in SNAPSHOTS]
)
def test_a_new_snapshot(
    repo: RepositorySimulator,
    change: Callable[[RepositorySimulator], object],
    error: type[NotTrustedError] | None,
) -> None:
    repo.snapshot.meta["leaf.json"].version = 5
    trusted = verified.authentic(Snapshot, repo.root, "snapshot", repo.write("snapshot"))
    change(repo)
    data = repo.files[repo.location("snapshot")]
    for base in (trusted, None):
        if error is None or (base is None and error is RollbackError):
            assert verified.accept_snapshot(repo.root, repo.timestamp, data, base, NOW)
        else:
            with pytest.raises(error):
                verified.accept_snapshot(repo.root, repo.timestamp, data, base, NOW)


ROLES: list[Case] = [
    ("as listed", lambda _: None, None),
    ("not listed", meta("leaf.json", None), MismatchError),
    ("another sha256", lambda r: change_hash(r, "leaf", "sha256", "0" * 64), MismatchError),
    ("another length", lambda r: drop_length(r, "leaf", 10), MismatchError),
    ("not signed", unsigned("leaf"), BadSignatureError),
    ("another version", other_version("leaf", 7), MismatchError),
    ("expired", ended("leaf"), ExpiredError),
]


@pytest.mark.parametrize(("change", "error"), [c[1:] for c in ROLES], ids=[c[0] for c in ROLES])
def test_a_delegated_role(
    repo: RepositorySimulator,
    change: Callable[[RepositorySimulator], object],
    error: type[NotTrustedError] | None,
) -> None:
    change(repo)
    data = repo.files[repo.location("leaf")]
    if error is None:
        assert verified.accept_targets(repo.targets, "leaf", repo.snapshot, data, NOW)
        return
    with pytest.raises(error):
        verified.accept_targets(repo.targets, "leaf", repo.snapshot, data, NOW)


# Target files

X256 = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"

FILES: list[tuple[str, dict[str, str], bool]] = [
    ("the right sha256", {"sha256": X256}, True),
    ("another sha256", {"sha256": "0" * 64}, False),
    ("a weak hash only", {"md5": "9dd4e461268c8034f5c8564e155c67a6"}, False),
    (
        "a wrong weak hash beside the right sha256",
        {"sha256": X256, "md5": "0" * 32},
        False,
    ),
    (
        "an unknown hash beside the right sha256",
        {"sha256": X256, "x": "0"},
        False,
    ),
]


@pytest.mark.parametrize(("hashes", "good"), [c[1:] for c in FILES], ids=[c[0] for c in FILES])
def test_a_target_file(*, hashes: dict[str, str], good: bool) -> None:
    if good:
        verified.check_target(TargetFile(1, hashes, "x"), b"x")
        return
    with pytest.raises(MismatchError):
        verified.check_target(TargetFile(1, hashes, "x"), b"x")


def test_a_target_file_of_another_length_is_refused() -> None:
    target = TargetFile.from_data("x", b"x")
    target.length = 2
    with pytest.raises(MismatchError, match="length 1 does not match"):
        verified.check_target(target, b"x")


@pytest.mark.parametrize(
    ("needed", "got", "told"),
    [
        (1, 0, "good signatures of 0 keys of root 2, 1 is needed"),
        (2, 1, "good signatures of 1 key of root 2, 2 are needed"),
    ],
)
def test_what_lacks_signatures_is_named_and_counted(needed: int, got: int, told: str) -> None:
    error = BadSignatureError("root", needed, got, name="root 3", of=" of root 2")
    assert error.message == f"root 3 has {told}"
    assert error.role == "root"


def test_a_timestamp_that_nobody_signed_may_be_signed_by_keys_of_a_root_that_is_withheld() -> None:
    assert "may withhold a newer root" in BadSignatureError("timestamp", 1, 0).hint
    assert "newer root" not in BadSignatureError("snapshot", 1, 0).hint


def test_a_rehearsal_parses_the_same_bytes_once_and_nobody_else_does() -> None:
    files = RepositorySimulator().files
    timestamp, snapshot = files["metadata/timestamp.json"], files["metadata/1.snapshot.json"]
    with verified.reading_once():
        once = verified.read(Timestamp, "timestamp", timestamp)
        assert verified.read(Timestamp, "timestamp", timestamp) is once
        assert verified.read(Snapshot, "snapshot", snapshot) is not once
        # What it is asked to be counts, too.
        with pytest.raises(MalformedError, match="has the type timestamp, expected snapshot"):
            verified.read(Snapshot, "snapshot", timestamp)
        with verified.reading_once():
            assert verified.read(Timestamp, "timestamp", timestamp) is not once
        assert verified.read(Timestamp, "timestamp", timestamp) is once
    assert verified.read(Timestamp, "timestamp", timestamp) is not once
    assert verified.read(Timestamp, "timestamp", timestamp) is not verified.read(
        Timestamp, "timestamp", timestamp
    )
