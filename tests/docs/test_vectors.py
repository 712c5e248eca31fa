"""The test vectors of docs/format.md, against the code."""

from __future__ import annotations

import hashlib
import json
import tomllib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from tuf.api.metadata import Root, Targets, Timestamp

from client_reference import config, manifest, rollout
from client_reference.config import DeviceConfig, Reboot
from client_reference.errors import NotTrustedError
from client_reference.install.bootloader import FileBootloader
from client_reference.payload import segments
from client_reference.trust import clock, recovery, reset, rootchain
from client_reference.trust.updater import read_hints
from keys_policy.model import ALGORITHMS
from repo_tools.metadata.anchor import as_field
from repo_tools.metadata.edits import as_field as resets_as_field
from repo_tools.publishing.artifacts import stored_name
from repo_tools.publishing.factory import make_package
from repo_tools.publishing.inbox import Submission, bin_list, parse_bin_list, parse_submission
from tests.docs.pages import DOCS, vectors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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


def _submission(vector: Vector) -> None:
    identity = vector.pop("id")
    found = parse_submission(json.dumps(vector).encode())
    assert found.id == identity
    assert json.loads(found.to_json()) == vector


def _bin_list(vector: Vector) -> None:
    work = Submission(vector.pop("of"), 1, 1, "0" * 64, "", 0)
    found = parse_bin_list(json.dumps(vector).encode(), work)
    assert json.loads(bin_list({each.role: each for each in found})) == vector


def _root_chain(vector: Vector) -> None:
    roots = [root.encode() for root in vector["roots"]]
    assert rootchain.make(roots).decode() == vector["bundle"]
    assert list(rootchain.parse(vector["bundle"].encode()).links.values()) == roots


def _manifest(vector: Vector) -> None:
    read = manifest.parse(json.dumps(vector).encode())
    assert json.loads(manifest.serialize(read)) == vector


def _position(vector: Vector) -> None:
    seed, positions = vector["seed"], vector["positions"]
    assert {id_: rollout.position(seed, id_) for id_ in positions} == positions


def _hold(vector: Vector) -> None:
    read = manifest.parse_hold(json.dumps(vector).encode())
    assert json.loads(manifest.serialize_hold(read)) == vector


def _floors(vector: Vector) -> None:
    time, minimum = vector["time"], vector["minimum_sequence"]
    package = make_package(vector["product"], b"", time, minimum, "")
    assert json.loads(package.files["factory/floors.json"]) == vector


def _timestamp_fields(vector: Vector) -> None:
    def timestamp(fields: Vector) -> Timestamp:
        expires = datetime.strptime(vector["expires"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        return Timestamp(1, expires=expires, unrecognized_fields=fields)

    for fields, means in vector["accepted"]:
        found = timestamp(fields)
        clock.check_issued(found)
        hints = read_hints(found)
        assert {"issued": clock.issued(found), "root": hints.root, "epoch": hints.epoch} == means
    for fields in vector["refused"]:
        with pytest.raises(NotTrustedError):
            clock.check_issued(timestamp(fields))


def _sequence_reset(vector: Vector) -> None:
    targets = Targets(5, unrecognized_fields={reset.FIELD: vector})
    assert resets_as_field(reset.read_resets(targets)) == vector


def _statement(vector: Vector) -> None:
    root = Root(unrecognized_fields={recovery.FIELD: vector})
    assert as_field(recovery.read_statement(root)) == vector


def _recovery_chain(vector: Vector) -> None:
    first, second = (json.dumps(link).encode() for link in vector["chain"])
    anchors = [recovery.first_anchor(first)]
    anchors.append(recovery.next_anchor(anchors[0], second))
    assert [anchor.statement.epoch for anchor in anchors] == [0, 1]
    for anchor, text in zip(anchors, vector["primary roots"], strict=True):
        named = (hashlib.sha256(text.encode()).hexdigest(), len(text))
        assert anchor.statement.primary == named
    assert anchors[1].statement.minimum_sequence == {"gateway": 12}
    decision = recovery.decide(anchors[0], 0, [recovery.Walk(anchors[1:])])
    assert decision == recovery.Reroot(anchors[1])


def _config(text: str, scratch: Path) -> DeviceConfig:
    path = scratch / "device.toml"
    path.write_text(text)
    return config.load(path)


def _slot_config(text: str, scratch: Path) -> None:
    loaded = _config(text, scratch)
    assert loaded.warnings == ()
    assert (loaded.install.handler, list(loaded.install.slots)) == ("slot", ["A", "B"])
    assert len(loaded.repository.mirrors) == len(loaded.repository.recovery) == 2


def _command_config(text: str, scratch: Path) -> None:
    whole = tomllib.loads(VECTORS["device.toml"])
    kept = VECTORS["device.toml"].split("[install]")[0]
    loaded = _config(kept + text, scratch)
    assert loaded.repository.product == whole["repository"]["product"]
    assert loaded.install.run == ("rauc", "install", "{path}")
    assert (loaded.reboot, loaded.warnings) == (Reboot.ASK, ())


def _boot_record(vector: Vector, scratch: Path) -> None:
    (scratch / "boot.json").write_text(json.dumps(vector))
    loader = FileBootloader(scratch / "boot.json", ("A", "B"))
    assert (loader.primary(), loader.running(), loader.trial()) == ("A", "B", "B")


CHECKS: dict[str, Callable[[Vector], None]] = {
    "stored path": _stored_path,
    "algorithms": _algorithms,
    "meaning": _meaning,
    "segments": _segments,
    "submission": _submission,
    "bin list": _bin_list,
    "root chain": _root_chain,
    "manifest": _manifest,
    "position": _position,
    "hold": _hold,
    "floors": _floors,
    "recovery chain": _recovery_chain,
    "sequence reset": _sequence_reset,
    "timestamp fields": _timestamp_fields,
    "statement": _statement,
}
FILES: dict[str, Callable[[str, Path], None]] = {
    "device.toml": _slot_config,
    "device.toml with a command": _command_config,
    "boot record": lambda text, scratch: _boot_record(json.loads(text), scratch),
}


@pytest.mark.parametrize("name", CHECKS)
def test_a_vector_is_what_the_code_does(name: str) -> None:
    CHECKS[name](json.loads(VECTORS[name]))


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_the_page_is_read(name: str, tmp_path: Path) -> None:
    FILES[name](VECTORS[name], tmp_path)


def test_every_vector_is_checked() -> None:
    assert {*CHECKS, *FILES} == set(VECTORS)
