"""The test vectors of docs/format.md, against the code."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from client_reference import manifest, rollout
from client_reference.payload import segments
from keys_policy.model import ALGORITHMS
from repo_tools.publishing.artifacts import stored_name
from tests.docs.pages import DOCS, vectors

if TYPE_CHECKING:
    from collections.abc import Callable

Vector: TypeAlias = dict[str, Any]

VECTORS = vectors(DOCS / "format.md")


def _stored_path(vector: Vector) -> None:
    assert stored_name(vector["path"], vector["sha256"]) == vector["stored"]


def _algorithms(vector: Vector) -> None:
    assert {name: list(pair) for name, pair in ALGORITHMS.items()} == vector


def _meaning(vector: Vector) -> None:
    assert manifest.parse_meaning(vector, "builds/gateway/1.1/new.img").custom() == vector


def _segments(vector: Vector) -> None:
    whole = bytes(vector["length"])
    pieces = [whole[i : i + segments.SEGMENT] for i in range(0, len(whole), segments.SEGMENT)]
    listed = bytes.fromhex("".join(vector["digests"]))
    assert segments.hash_segments(pieces) == listed
    assert segments.list_length(len(whole)) == len(listed) == vector["list length"]
    assert len(segments.parse_segments(listed, len(whole))) == len(pieces)


def _manifest(vector: Vector) -> None:
    read = manifest.parse(json.dumps(vector).encode())
    assert json.loads(manifest.serialize(read)) == vector


def _position(vector: Vector) -> None:
    seed, positions = vector["seed"], vector["positions"]
    assert {id_: rollout.position(seed, id_) for id_ in positions} == positions


def _hold(vector: Vector) -> None:
    read = manifest.parse_hold(json.dumps(vector).encode())
    assert json.loads(manifest.serialize_hold(read)) == vector


CHECKS: dict[str, Callable[[Vector], None]] = {
    "stored path": _stored_path,
    "algorithms": _algorithms,
    "meaning": _meaning,
    "segments": _segments,
    "manifest": _manifest,
    "position": _position,
    "hold": _hold,
}


@pytest.mark.parametrize("name", VECTORS)
def test_a_vector_is_what_the_code_does(name: str) -> None:
    CHECKS[name](json.loads(VECTORS[name]))


def test_every_check_has_its_vector() -> None:
    assert set(CHECKS) == set(VECTORS)
