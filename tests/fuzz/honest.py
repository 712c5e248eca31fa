"""The repository that targets and seeds share, and its keys. The same bytes in every run."""

from __future__ import annotations

import functools
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner

from client_reference.trust.clock import ISSUED
from tests.simulators.anchor import AnchorSimulator
from tests.simulators.repository import SECONDS, RepositorySimulator

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tuf.api.metadata import Root

LEAF = "gateway-stable"
MANIFEST = "channels/gateway/stable.json"
BUILDS = "gateway-builds"
IMAGE = "builds/gateway/3.1.0/gw2.ext4"
ROLES = ("root", "timestamp", "snapshot", "targets")


@functools.cache
def repository() -> RepositorySimulator:
    """Root and targets need two signatures of two; four roots. Do not change it: `fork` first."""
    repo = RepositorySimulator()
    for role in ("root", "targets"):
        repo.add_key(role)
        repo.root.roles[role].threshold = 2
    repo.delegate(LEAF, [MANIFEST], threshold=2, keys=2)
    repo.delegate(BUILDS, ["builds/gateway/*/*"])
    repo.add_target(BUILDS, IMAGE, b"image", custom=MEANING)
    repo.add_target(LEAF, MANIFEST, b"{}")
    issued = repo.now.strftime(SECONDS)
    repo.timestamp.unrecognized_fields |= {
        ISSUED: issued,
        "x-firmroot-root": 4,
        "x-firmroot-epoch": 0,
    }
    repo.root.unrecognized_fields[ISSUED] = issued
    repo.publish("root", BUILDS, LEAF, "targets")
    repo.rotate("timestamp")
    repo.publish("root", "timestamp")
    repo.rotate("root")
    repo.publish("root")
    return repo


MEANING: dict[str, Any] = {
    "handler": "slot",
    "hardware": ["acme,gw-2"],
    "product": "gateway",
    "sequence": 47,
    "version": "3.1.0",
}


@dataclass(frozen=True)
class Anchored:
    """A recovery anchor.

    Attributes:
        links: every recovery root file, the first one first.
        keys: of everybody who ever signed one.
    """

    links: tuple[bytes, ...]
    keys: tuple[CryptoSigner, ...]


@functools.cache
def anchor() -> Anchored:
    """Three recovery roots, signed by two of two: epoch 0, then epoch 1, then other keys for it."""
    files = repository().files
    simulated = AnchorSimulator(files["metadata/1.root.json"], keys=2)
    signers = list(simulated.signers["root"].values())
    links = [simulated.newest()]
    links.append(simulated.re_root(files["metadata/4.root.json"], gateway=47))
    links.append(simulated.renew())
    signers += simulated.signers["root"].values()
    return Anchored(tuple(links), tuple(one for one in signers if isinstance(one, CryptoSigner)))


def keys(role: str) -> list[CryptoSigner]:
    """Everybody who signs a role; for root those of older roots too."""
    found = [one for one in repository().signers[role].values() if isinstance(one, CryptoSigner)]
    assert found
    return found


def signed_again(text: bytes, signers: Iterable[CryptoSigner]) -> bytes:
    """The document with good signatures in place of its own; itself if it is no document.

    No mutation of signed bytes ever has a good signature: this is how fuzzing gets past the check.
    """
    try:
        document = json.loads(text)
        payload = encode_canonical(document["signed"])
        assert payload is not None
        document["signatures"] = [signer.sign(payload.encode()).to_dict() for signer in signers]
        return json.dumps(document).encode()
    except Exception:  # noqa: BLE001 # whatever it is instead, the parser shall judge it
        return text


def verifies(signer: CryptoSigner, signature: str, payload: bytes) -> bool:
    """By the cryptographic library alone."""
    public = bytes.fromhex(signer.public_key.keyval["public"])
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(bytes.fromhex(signature), payload)
    except (InvalidSignature, ValueError, TypeError):
        return False  # TypeError: what is written there need not be a string
    return True


def listed(root: Root, signers: Iterable[CryptoSigner]) -> list[CryptoSigner]:
    """Those whose key a root lists for itself, however it is spelled there."""
    listed = (root.keys.get(keyid) for keyid in root.roles["root"].keyids)
    spelled = {key.keyval["public"] for key in listed if key is not None}
    found = set()
    for public in spelled:
        with suppress(ValueError, TypeError):
            found.add(bytes.fromhex(public))
    return [one for one in signers if bytes.fromhex(one.public_key.keyval["public"]) in found]


def have_signed(signers: Iterable[CryptoSigner], signatures: Iterable[str], payload: bytes) -> int:
    """How many of these keys signed, under whatever key ids."""
    written = list(signatures)
    return sum(any(verifies(one, each, payload) for each in written) for one in signers)
