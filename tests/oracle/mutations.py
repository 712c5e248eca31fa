"""What can happen to a repository between two checks of a device.

HONEST mutations are what a repository does in its life. An ATTACK happens to a copy: a mirror or a
thief serves it once, then the honest repository goes on. DIFFERENCES are the cases in which this
client and `tuf.ngclient` are meant to differ, each with its reason.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner, SSlibKey

from client_reference.trust.clock import ISSUED
from client_reference.trust.verified import (
    BadSignatureError,
    MalformedError,
    MismatchError,
)
from tests.simulators.repository import SECONDS, RepositorySimulator

if TYPE_CHECKING:
    from collections.abc import Callable

    from client_reference.errors import FirmrootError

    Step = Callable[[RepositorySimulator], object]

LEAF = "gateway-stable"
PATH = "channels/gateway/stable.json"
LIFETIMES = {"root": 400, "targets": 300, "snapshot": 60, "timestamp": 20, LEAF: 200}
"""Days; so that time alone ends one role after the other."""


def new_repository() -> RepositorySimulator:
    repo = RepositorySimulator()
    repo.delegate(LEAF, [PATH], keys=2, threshold=2)
    repo.add_target(LEAF, PATH, b"{}")
    for _ in range(3):  # so that there are older versions of everything
        publish(repo, LEAF, "targets")
    return repo


def publish(repo: RepositorySimulator, *roles: str) -> None:
    """New versions, valid from the repository's `now`, of roles and of what follows them."""
    for role in {*roles, "snapshot", "timestamp"} if set(roles) - {"root"} else set(roles):
        if role in LIFETIMES:
            repo.signed[role].expires = repo.later(days=LIFETIMES[role])
    repo.publish(*roles)


# Honest


def rotate(*rotated: str, then: tuple[str, ...]) -> Step:
    def mutate(repo: RepositorySimulator) -> None:
        old = list(repo.signers["root"])
        for role in rotated:
            repo.rotate(role, "targets")
        publish(repo, *then)
        if "root" in rotated:
            for keyid in old:
                del repo.signers["root"][keyid]

    return mutate


def several_roots(repo: RepositorySimulator) -> None:
    for _ in range(3):
        rotate("root", then=("root",))(repo)


def second_signer(role: str, *then: str) -> Step:
    """One key more, and the threshold raised to all of them."""

    def mutate(repo: RepositorySimulator) -> None:
        repo.add_key(role, "targets")
        above = repo.targets if role == LEAF else repo.root
        delegation = above.get_delegated_role(role)
        delegation.threshold = len(delegation.keyids)
        publish(repo, *then)

    return mutate


def fast_forward_recovery(repo: RepositorySimulator) -> None:
    """Versions start again from 1 under new online keys."""
    repo.rotate("timestamp")
    repo.rotate("snapshot")
    repo.timestamp.version = repo.snapshot.version = repo.targets.version = 0
    publish(repo, "root")
    for _ in range(2):
        publish(repo, "targets")


def new_delegation(repo: RepositorySimulator) -> None:
    name = f"extra-{repo.targets.version}"
    repo.delegate(name, [f"{name}/*"])
    repo.signed[name].expires = repo.later(days=1000)
    publish(repo, name, "targets")


def without_hashes(repo: RepositorySimulator) -> None:
    repo.hashes = not repo.hashes
    publish(repo, LEAF, "targets")


def new_manifest(repo: RepositorySimulator) -> None:
    repo.add_target(LEAF, PATH, f'{{"n": {repo.role(LEAF).version}}}'.encode())
    publish(repo, LEAF)


def unknown_fields(repo: RepositorySimulator) -> None:
    repo.timestamp.unrecognized_fields["x-somebody"] = {"b": [1, 2], "a": None}
    publish(repo, "timestamp")


def one_signature_too_bad(repo: RepositorySimulator) -> None:
    """A bad signature beside enough good ones does no harm."""
    publish(repo, "timestamp")
    document = json.loads(repo.files["metadata/timestamp.json"])
    document["signatures"].append({"keyid": "00" * 32, "sig": "ab"})
    repo.files["metadata/timestamp.json"] = json.dumps(document).encode()


HONEST: dict[str, Step] = {
    "nothing new": lambda _: None,
    "a new timestamp": lambda r: publish(r, "timestamp"),
    "a new snapshot": lambda r: publish(r, "snapshot"),
    "new targets": lambda r: publish(r, "targets"),
    "a new leaf": new_manifest,
    "a new root": lambda r: publish(r, "root"),
    "everything new": lambda r: publish(r, "root", LEAF, "targets"),
    "three roots, each with other keys": several_roots,
    "other root keys": rotate("root", then=("root",)),
    "other targets keys": rotate("targets", then=("root", "targets")),
    "other snapshot keys": rotate("snapshot", then=("root", "snapshot")),
    "other timestamp keys": rotate("timestamp", then=("root", "timestamp")),
    "other leaf keys": rotate(LEAF, then=(LEAF, "targets")),
    "one root key more": second_signer("root", "root"),
    "one targets key more": second_signer("targets", "root", "targets"),
    "one leaf key more": second_signer(LEAF, LEAF, "targets"),
    "versions that start again under new keys": fast_forward_recovery,
    "a new delegation": new_delegation,
    "hashes or none": without_hashes,
    "fields that nobody knows": unknown_fields,
    "a bad signature beside good ones": one_signature_too_bad,
}


# Attacks


def served(role: str, change: Step, *then: str) -> Step:
    """New versions after a change; the change may take signers away."""

    def mutate(repo: RepositorySimulator) -> None:
        for name in (role, *then):
            repo.signed[name].expires = repo.later(days=30)
        change(repo)
        repo.publish(role, *then)

    return mutate


def stranger(role: str) -> Step:
    def change(repo: RepositorySimulator) -> None:
        signer = repo.new_signer()
        repo.signers[role] = {signer.public_key.keyid: signer}

    return change


def one_signer_short(role: str) -> Step:
    def change(repo: RepositorySimulator) -> None:
        repo.signers[role].popitem()

    return change


def ended(role: str) -> Step:
    return lambda repo: setattr(repo.signed[role], "expires", repo.later(days=-1))


def back_to(role: str, version: int) -> Step:
    return lambda repo: setattr(repo.signed[role], "version", version)


def only_new_keys(repo: RepositorySimulator) -> None:
    old = list(repo.signers["root"])
    repo.rotate("root")
    for keyid in old:
        del repo.signers["root"][keyid]


def only_old_keys(repo: RepositorySimulator) -> None:
    old = dict(repo.signers["root"])
    repo.rotate("root")
    repo.signers["root"] = old


def skipped_root(repo: RepositorySimulator) -> None:
    place = repo.location("root", repo.root.version + 1)
    repo.root.version += 2
    repo.files[place] = repo.sign("root")


def forked_root(repo: RepositorySimulator) -> None:
    """A chain of one's own, from a root that devices do not have."""
    stranger("root")(repo)
    repo.rotate("root")
    publish(repo, "root")


def replaced(role: str, data: bytes) -> Step:
    def mutate(repo: RepositorySimulator) -> None:
        publish(repo, *(("root",) if role == "root" else (LEAF, "targets")))
        repo.files[repo.location(role)] = data

    return mutate


def lost(role: str) -> Step:
    def mutate(repo: RepositorySimulator) -> None:
        publish(repo, LEAF, "targets")
        del repo.files[repo.location(role)]

    return mutate


def wrong_hash(role: str) -> Step:
    def mutate(repo: RepositorySimulator) -> None:
        repo.hashes = True
        publish(repo, LEAF, "targets")
        meta = repo.timestamp.snapshot_meta
        if role != "snapshot":
            meta = repo.snapshot.meta[f"{role}.json"]
        meta.hashes = {"sha256": "0" * 64}
        if role != "snapshot":
            repo.write("snapshot")
        repo.write("timestamp")

    return mutate


def wrong_length(role: str) -> Step:
    """One byte more than the metadata above say."""

    def mutate(repo: RepositorySimulator) -> None:
        repo.hashes = True
        publish(repo, LEAF, "targets")
        repo.files[repo.location(role)] += b" "

    return mutate


def other_version_than_named(role: str) -> Step:
    def mutate(repo: RepositorySimulator) -> None:
        publish(repo, LEAF, "targets")
        place, version = repo.location(role), repo.signed[role].version
        repo.signed[role].version += 5
        data = repo.sign(role)
        repo.note(role, data)
        meta = repo.timestamp.snapshot_meta
        if role != "snapshot":
            meta = repo.snapshot.meta[f"{role}.json"]
        meta.version = version
        repo.files[place] = data
        if role != "snapshot":
            repo.write("snapshot")
        repo.write("timestamp")

    return mutate


def dropped_role(repo: RepositorySimulator) -> None:
    del repo.snapshot.meta[f"{LEAF}.json"]
    publish(repo, "snapshot")


def two_signatures_of_one_key(repo: RepositorySimulator) -> None:
    publish(repo, "timestamp")
    document = json.loads(repo.files["metadata/timestamp.json"])
    document["signatures"] *= 2
    repo.files["metadata/timestamp.json"] = json.dumps(document).encode()


def tampered(role: str) -> Step:
    def mutate(repo: RepositorySimulator) -> None:
        repo.hashes = False
        publish(repo, *(("root",) if role == "root" else (LEAF, "targets")))
        place = repo.location(role)
        repo.files[place] = repo.files[place].replace(b"1.0.31", b"1.0.32")

    return mutate


def without_a_signature(role: str) -> Step:
    return lambda repo: repo.signers[role].clear()


def another_type(repo: RepositorySimulator) -> None:
    """Signed by the right key, but it is a snapshot."""
    repo.signers["snapshot"] = dict(repo.signers["timestamp"])
    publish(repo, "snapshot")
    repo.files["metadata/timestamp.json"] = repo.files[repo.location("snapshot")]


ATTACKS: dict[str, Step] = {
    "a root signed by strangers": served("root", stranger("root")),
    "a root not signed by the old keys": served("root", only_new_keys),
    "a root not signed by its own keys": served("root", only_old_keys),
    "a root that skips a version": skipped_root,
    "a forked root": forked_root,
    "a root changed on the way": tampered("root"),
    "a root that has ended": served("root", ended("root")),
    "a web page in the place of a root": replaced("root", b"<html></html>"),
    "a root without end": replaced("root", b" " * 600_000),
    "a timestamp signed by strangers": served("timestamp", stranger("timestamp")),
    "a timestamp without signatures": served("timestamp", without_a_signature("timestamp")),
    "a timestamp changed on the way": tampered("timestamp"),
    "an older timestamp": served("timestamp", back_to("timestamp", 0)),
    "a timestamp that has ended": served("timestamp", ended("timestamp")),
    "no timestamp": lost("timestamp"),
    "a timestamp of two signatures of one key": two_signatures_of_one_key,
    "a timestamp of another type": another_type,
    "a truncated timestamp": replaced("timestamp", b'{"signatures": ['),
    "an older snapshot": served("snapshot", back_to("snapshot", 0)),
    "a snapshot signed by strangers": served("snapshot", stranger("snapshot"), "timestamp"),
    "a snapshot that has ended": served("snapshot", ended("snapshot"), "timestamp"),
    "a snapshot of another hash": wrong_hash("snapshot"),
    "a snapshot of another length": wrong_length("snapshot"),
    "a snapshot of another version": other_version_than_named("snapshot"),
    "a snapshot without the leaf": dropped_role,
    "no snapshot": lost("snapshot"),
    "older targets": served("targets", back_to("targets", 0)),
    "targets signed by strangers": served("targets", stranger("targets")),
    "targets that have ended": served("targets", ended("targets")),
    "targets of another hash": wrong_hash("targets"),
    "targets of another length": wrong_length("targets"),
    "targets of another version": other_version_than_named("targets"),
    "targets changed on the way": tampered("targets"),
    "no targets": lost("targets"),
    "a leaf signed by one of two": served(LEAF, one_signer_short(LEAF)),
    "a leaf signed by strangers": served(LEAF, stranger(LEAF)),
    "a leaf that has ended": served(LEAF, ended(LEAF)),
    "a leaf of another hash": wrong_hash(LEAF),
    "a leaf of another version": other_version_than_named(LEAF),
    "an older leaf": served(LEAF, back_to(LEAF, 0)),
    "no leaf": lost(LEAF),
}
"""None of them is accepted whole."""


# Exceptions


@dataclass(frozen=True)
class Difference:
    """A case in which the two clients are meant to differ.

    Attributes:
        mutate: leads there.
        ours: our error; None if we accept.
        reason: why we differ. `tuf.ngclient` does the opposite of us in each of them.
    """

    mutate: Step
    ours: type[FirmrootError] | None
    reason: str


def one_key_under_two_ids(repo: RepositorySimulator) -> None:
    private = Ed25519PrivateKey.generate()
    signer = CryptoSigner(private)
    key = signer.public_key
    twin = CryptoSigner(private, SSlibKey("twin", key.keytype, key.scheme, dict(key.keyval)))
    repo.root.roles["targets"].keyids.clear()
    repo.signers["targets"].clear()
    repo.add_key("targets", signer=signer)
    repo.add_key("targets", signer=twin)
    repo.root.roles["targets"].threshold = 2
    publish(repo, "root", "targets")


def unknown_key_type(repo: RepositorySimulator) -> None:
    later = repo.new_signer().public_key
    later.keytype = "sphincs"
    repo.root.add_key(later, "targets")
    publish(repo, "root")


def name_twice(repo: RepositorySimulator) -> None:
    publish(repo, "timestamp")
    data = repo.files["metadata/timestamp.json"]
    repo.files["metadata/timestamp.json"] = data.replace(b'"version":', b'"version":7,"version":')


def large_timestamp(repo: RepositorySimulator) -> None:
    repo.timestamp.unrecognized_fields["room-for"] = "three ML-DSA signatures" * 800
    publish(repo, "timestamp")


def another_hash_for_the_same_version(repo: RepositorySimulator) -> None:
    publish(repo, "timestamp")
    repo.timestamp.snapshot_meta.hashes = {"sha256": "0" * 64}
    repo.write("timestamp")


def partial_rotation(repo: RepositorySimulator) -> None:
    """The old key stays, a new one joins; the timestamp's versions start again."""
    repo.add_key("timestamp")
    repo.timestamp.version = 0
    publish(repo, "root", "timestamp")


def issued_at_its_end(repo: RepositorySimulator) -> None:
    end = repo.later(days=LIFETIMES["timestamp"])
    repo.timestamp.unrecognized_fields[ISSUED] = end.strftime(SECONDS)
    publish(repo, "timestamp")


def weak_hash_only(repo: RepositorySimulator) -> None:
    publish(repo, "snapshot")
    data = repo.files[repo.location("snapshot")]
    weak = hashlib.md5(data, usedforsecurity=False).hexdigest()
    repo.timestamp.snapshot_meta.hashes = {"md5": weak}
    repo.write("timestamp")


DIFFERENCES: dict[str, Difference] = {
    "one key under two ids": Difference(
        one_key_under_two_ids,
        BadSignatureError,
        "a threshold counts people; the specification counts key ids",
    ),
    "a key of an unknown type": Difference(
        unknown_key_type,
        None,
        "ngclient cannot read a root with one key of a type it does not know; a device must",
    ),
    "a name twice in an object": Difference(
        name_twice, MalformedError, "two parsers could see two files behind one signature"
    ),
    "a timestamp of more than 16 KiB": Difference(
        large_timestamp, None, "ML-DSA signatures need the room; our limit is 64 KiB"
    ),
    "another hash for the stored snapshot's version": Difference(
        another_hash_for_the_same_version,
        MismatchError,
        "ngclient does not compare stored snapshots with the timestamp's hash",
    ),
    "a timestamp key added, versions start again": Difference(
        partial_rotation,
        None,
        "5.3.11 asks to forget after every rotation; ngclient forgets what no longer verifies",
    ),
    "a timestamp issued when it ends": Difference(
        issued_at_its_end, MismatchError, "it would poison the time floor, which ngclient lacks"
    ),
    "a weak hash only": Difference(
        weak_hash_only, MismatchError, "ngclient takes any hash that hashlib knows, md5 included"
    ),
}
"""The named table of exceptions. One more follows from 5.3.11, see `forgotten` in the test."""
