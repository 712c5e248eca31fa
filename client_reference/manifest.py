"""Pure: the release manifest, the hold file and the meaning of an artifact; strict and versioned.

A release manifest is what release managers sign: which releases of a product a channel offers, to
which hardware, in which waves. The release side builds `Manifest` values and calls `serialize`; the
device calls `parse` on verified bytes and decides with `client_reference.selection`.

Rules (docs/format.md has them all):

* An unknown optional field is ignored, so it must not be a constraint; a constraint is listed in
  `needs`, and a release with an unknown need is kept apart in `unsupported`: nothing else of it is
  read, since its other fields may have a shape that this version does not know.
* `schema` is [major, minor]: any minor is accepted, another major is refused.
* Everything that is read is checked: types, ranges, forms, uniqueness. The first thing that is
  wrong ends the reading, with its path.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, TypeAlias

from client_reference import strictjson
from client_reference.errors import RefusedError
from client_reference.strictjson import Json, MalformedJsonError, Node, format_time
from client_reference.values import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

__all__ = [
    "HANDLER",
    "HARDWARE",
    "MAX_HOLD",
    "MAX_MANIFEST",
    "NAME",
    "SCHEMA",
    "SUPPORTED_NEEDS",
    "VERSION",
    "Artifact",
    "Delta",
    "GroupWave",
    "Hold",
    "Manifest",
    "Meaning",
    "Payload",
    "Release",
    "Rollout",
    "ShareWave",
    "Source",
    "UnsupportedRelease",
    "UnsupportedSchemaError",
    "Wave",
    "Withdrawn",
    "parse",
    "parse_hold",
    "parse_meaning",
    "segments_digest",
    "serialize",
    "serialize_hold",
]

SCHEMA = (1, 0)
MAX_MANIFEST = 262_144
MAX_HOLD = 65_536
SUPPORTED_NEEDS: frozenset[str] = frozenset()

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
"""Products, channels and groups."""
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,63}")
"""A release label; also a path segment."""
HARDWARE = re.compile(r"[A-Za-z0-9][A-Za-z0-9,._+:/-]{0,127}")
"""One hardware id. It has no wildcard characters (interfaces, manifest rule 10)."""
HANDLER = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
"""The name of an entry of the device's table of handlers."""

_NEED = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")
_LABEL = re.compile(r"[a-z0-9-]{0,32}")
_SEED = re.compile(r"[0-9a-f]{16,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FILE = r"[A-Za-z0-9_][A-Za-z0-9._+~-]{0,127}"
_MAX_HOURS = 87_600
_ALL = 1000


class UnsupportedSchemaError(RefusedError):
    """The document has a major schema that this version does not read."""


@frozen
class Artifact:
    """A file of a builds role.

    Attributes:
        path: target path, `builds/PRODUCT/VERSION/FILE`.
        length: bytes, at least 1.
        sha256: hex digest of the whole file.
    """

    path: str
    length: int
    sha256: str


@frozen
class Source:
    """The bytes that a delta starts from (rule 9: a partition is longer than its image)."""

    length: int
    sha256: str


@frozen
class Delta:
    """A shorter way to the payload's artifact for a device that has `source`."""

    codec: str
    source: Source
    artifact: Artifact


@frozen
class Payload:
    """What one kind of hardware installs with one handler."""

    hardware: tuple[str, ...]
    handler: str
    artifact: Artifact
    deltas: tuple[Delta, ...] = ()


@frozen
class GroupWave:
    """Devices that name one of `groups` in their configuration, `after_hours` from the start."""

    after_hours: int
    groups: tuple[str, ...]


@frozen
class ShareWave:
    """All devices below a position of `permille` thousandths, `after_hours` from the start."""

    after_hours: int
    permille: int


Wave: TypeAlias = GroupWave | ShareWave


@frozen
class Rollout:
    """When which devices may start a release (`client_reference.rollout` decides).

    Attributes:
        start: aware UTC, whole seconds.
        seed: 16 to 64 hex digits; it shuffles the fleet anew for each release.
        paused: no device may start.
        waves: `after_hours` never falls; the shares' `permille` is cumulative and never falls.
    """

    start: datetime
    seed: str
    paused: bool
    waves: tuple[Wave, ...]


@frozen
class Release:
    """One release as a channel offers it.

    Attributes:
        version: a label, never compared (rule 2).
        sequence: its number, unique per product (rule 1).
        needs: abilities that a device must have; all are known here.
        from_sequence: the least running sequence that may install it directly.
        stone: a stepping stone, kept so that old devices can get further.
        severity: a label for people.
        notes: where the release notes are; may be empty.
        rollout: when.
        payloads: what, by hardware and handler.
    """

    version: str
    sequence: int
    rollout: Rollout
    payloads: tuple[Payload, ...]
    needs: tuple[str, ...] = ()
    from_sequence: int = 0
    stone: bool = False
    severity: str = ""
    notes: str = ""


@frozen
class UnsupportedRelease:
    """A release that needs more than this version has (rule 3)."""

    version: str
    sequence: int
    needs: tuple[str, ...]


@frozen
class Withdrawn:
    """A release that no device may start; devices on it move forward only (rule 6)."""

    version: str
    sequence: int
    since: datetime
    reason: str


@frozen
class Manifest:
    """What a channel says.

    Attributes:
        product: whose.
        channel: which.
        minimum_sequence: nothing below it may be installed, while this manifest is current.
        releases: sequences are unique; the order carries no meaning.
        withdrawn: sequences are unique.
        unsupported: releases that were not read; a manifest with any cannot be serialized.
    """

    product: str
    channel: str
    minimum_sequence: int
    releases: tuple[Release, ...]
    withdrawn: tuple[Withdrawn, ...] = ()
    unsupported: tuple[UnsupportedRelease, ...] = ()


@frozen
class Hold:
    """Sequences of a channel that may not start, by one key of those on call."""

    product: str
    channel: str
    sequences: frozenset[int]


@frozen
class Meaning:
    """What a builds role says its artifact is: the `custom` of a target (Guard: meaning)."""

    product: str
    hardware: frozenset[str]
    version: str
    sequence: int
    handler: str

    def custom(self) -> dict[str, Json]:
        """As the target's `custom`."""
        return {
            "handler": self.handler,
            "hardware": sorted(self.hardware),
            "product": self.product,
            "sequence": self.sequence,
            "version": self.version,
        }


def parse(data: bytes) -> Manifest:
    """Read a manifest.

    Args:
        data: verified bytes of `channels/PRODUCT/CHANNEL.json`.

    Raises:
        MalformedJsonError: something in it is wrong; the message has its path.
        UnsupportedSchemaError: its major schema is not 1.
    """
    document = strictjson.parse(data, MAX_MANIFEST, "manifest")
    _check_schema(document)
    product = document.member("product").text(NAME)
    releases, unsupported = _releases(document.member("releases"), product)
    withdrawn = document.find("withdrawn")
    manifest = Manifest(
        product=product,
        channel=document.member("channel").text(NAME),
        minimum_sequence=document.member("minimum_sequence").integer(),
        releases=releases,
        withdrawn=_withdrawn(withdrawn) if withdrawn else (),
        unsupported=unsupported,
    )
    sequences = [release.sequence for release in releases]
    sequences += [release.sequence for release in unsupported]
    _refuse_twice(document.member("releases"), "sequence", sequences)
    return manifest


def _check_schema(document: Node) -> None:
    schema = document.member("schema")
    numbers = [item.integer() for item in schema.items()]
    if len(numbers) != len(SCHEMA):
        raise schema.wrong("[major, minor]")
    if numbers[0] != SCHEMA[0]:
        raise UnsupportedSchemaError(
            f"{schema.path}: found major schema {numbers[0]}, expected {SCHEMA[0]}",
            "this firmroot is too old for that document, or the document is in the wrong place",
        )


def _refuse_twice(node: Node, what: str, values: Iterable[int | str]) -> None:
    seen: set[int | str] = set()
    for value in values:
        if value in seen:
            raise MalformedJsonError(node.path, f"{what} {value} twice", f"each {what} once")
        seen.add(value)


def _releases(
    node: Node, product: str
) -> tuple[tuple[Release, ...], tuple[UnsupportedRelease, ...]]:
    releases: list[Release] = []
    unsupported: list[UnsupportedRelease] = []
    for item in node.items():
        version = item.member("version").text(VERSION)
        sequence = item.member("sequence").integer(1)
        listed = item.find("needs")
        needs = listed.texts(_NEED) if listed else ()
        if unknown := tuple(need for need in needs if need not in SUPPORTED_NEEDS):
            unsupported.append(UnsupportedRelease(version, sequence, unknown))
        else:
            releases.append(_release(item, product, needs))
    return tuple(releases), tuple(unsupported)


def _release(node: Node, product: str, needs: tuple[str, ...]) -> Release:
    origin = node.find("from")
    stone = node.find("stone")
    severity = node.find("severity")
    notes = node.find("notes")
    return Release(
        version=node.member("version").text(VERSION),
        sequence=node.member("sequence").integer(1),
        rollout=_rollout(node.member("rollout")),
        payloads=_payloads(node.member("payloads"), product),
        needs=needs,
        from_sequence=origin.member("minimum_sequence").integer() if origin else 0,
        stone=stone.flag() if stone else False,
        severity=severity.text(_LABEL) if severity else "",
        notes=notes.text() if notes else "",
    )


def _rollout(node: Node) -> Rollout:
    paused = node.find("paused")
    rollout = Rollout(
        start=node.member("start").time(),
        seed=node.member("seed").text(_SEED),
        paused=paused.flag() if paused else False,
        waves=_waves(node.member("waves")),
    )
    try:
        rollout.start + timedelta(hours=_MAX_HOURS)
    except OverflowError as error:
        raise node.member("start").wrong("a time with all waves before the year 10000") from error
    return rollout


def _waves(node: Node) -> tuple[Wave, ...]:
    waves: list[Wave] = []
    hours, permille = 0, 0
    for item in node.items():
        hours = item.member("after_hours").integer(hours, _MAX_HOURS)
        groups, share = item.find("groups"), item.find("permille")
        if groups and not share:
            waves.append(GroupWave(hours, groups.texts(NAME)))
        elif share and not groups:
            permille = share.integer(permille, _ALL)
            waves.append(ShareWave(hours, permille))
        else:
            raise item.wrong("either groups or permille")
    return tuple(waves)


def _payloads(node: Node, product: str) -> tuple[Payload, ...]:
    payloads = tuple(_payload(item, product) for item in node.items())
    if not payloads:
        raise node.wrong("at least one payload")
    pairs = [f"{id_} with {payload.handler}" for payload in payloads for id_ in payload.hardware]
    _refuse_twice(node, "payload for", pairs)
    return payloads


def _payload(node: Node, product: str) -> Payload:
    hardware = node.member("hardware").texts(HARDWARE)
    if not hardware:
        raise node.member("hardware").wrong("at least one hardware id")
    deltas = node.find("deltas")
    return Payload(
        hardware=hardware,
        handler=node.member("handler").text(HANDLER),
        artifact=_artifact(node.member("artifact"), product),
        deltas=tuple(_delta(item, product) for item in deltas.items()) if deltas else (),
    )


def _delta(node: Node, product: str) -> Delta:
    source = node.member("source")
    return Delta(
        codec=node.member("codec").text(_NEED),
        source=Source(source.member("length").integer(1), source.member("sha256").text(_SHA256)),
        artifact=_artifact(node.member("artifact"), product),
    )


def _artifact(node: Node, product: str) -> Artifact:
    path = re.compile(f"builds/{product}/{VERSION.pattern}/{_FILE}")
    return Artifact(
        path=node.member("path").text(path, form=f"a path builds/{product}/VERSION/FILE"),
        length=node.member("length").integer(1),
        sha256=node.member("sha256").text(_SHA256),
    )


def _withdrawn(node: Node) -> tuple[Withdrawn, ...]:
    withdrawn = tuple(
        Withdrawn(
            version=item.member("version").text(VERSION),
            sequence=item.member("sequence").integer(1),
            since=item.member("since").time(),
            reason=item.member("reason").text(),
        )
        for item in node.items()
    )
    _refuse_twice(node, "sequence", [entry.sequence for entry in withdrawn])
    return withdrawn


def serialize(manifest: Manifest) -> bytes:
    """The one way in which a manifest is written.

    Raises:
        MalformedJsonError: the value breaks a rule of the format; no device would read it.
        RefusedError: part of it was not read, and would be lost.
    """
    if manifest.unsupported:
        names = ", ".join(release.version for release in manifest.unsupported)
        raise RefusedError(
            f"releases {names} of {manifest.product}/{manifest.channel} need a newer firmroot; "
            "writing the manifest with this one would drop them",
            "use the firmroot that promoted them, or a newer one",
        )
    data = strictjson.serialize(_document(manifest))
    parse(data)
    return data


def _document(manifest: Manifest) -> Mapping[str, Json]:
    return {
        "schema": list(SCHEMA),
        "product": manifest.product,
        "channel": manifest.channel,
        "minimum_sequence": manifest.minimum_sequence,
        "releases": [_release_document(release) for release in manifest.releases],
        "withdrawn": [
            {
                "version": entry.version,
                "sequence": entry.sequence,
                "since": format_time(entry.since),
                "reason": entry.reason,
            }
            for entry in manifest.withdrawn
        ],
    }


def _release_document(release: Release) -> Mapping[str, Json]:
    document: dict[str, Json] = {
        "version": release.version,
        "sequence": release.sequence,
        "needs": list(release.needs),
        "from": {"minimum_sequence": release.from_sequence},
        "severity": release.severity,
        "notes": release.notes,
        "rollout": {
            "start": format_time(release.rollout.start),
            "seed": release.rollout.seed,
            "paused": release.rollout.paused,
            "waves": [_wave_document(wave) for wave in release.rollout.waves],
        },
        "payloads": [_payload_document(payload) for payload in release.payloads],
    }
    if release.stone:
        document["stone"] = True
    return document


def _wave_document(wave: Wave) -> Mapping[str, Json]:
    if isinstance(wave, GroupWave):
        return {"after_hours": wave.after_hours, "groups": list(wave.groups)}
    return {"after_hours": wave.after_hours, "permille": wave.permille}


def _payload_document(payload: Payload) -> Mapping[str, Json]:
    document: dict[str, Json] = {
        "hardware": list(payload.hardware),
        "handler": payload.handler,
        "artifact": _artifact_document(payload.artifact),
    }
    if payload.deltas:
        document["deltas"] = [
            {
                "codec": delta.codec,
                "source": {"length": delta.source.length, "sha256": delta.source.sha256},
                "artifact": _artifact_document(delta.artifact),
            }
            for delta in payload.deltas
        ]
    return document


def _artifact_document(artifact: Artifact) -> Mapping[str, Json]:
    return {"path": artifact.path, "length": artifact.length, "sha256": artifact.sha256}


def parse_hold(data: bytes) -> Hold:
    """Read a hold file.

    Args:
        data: verified bytes of `holds/PRODUCT/CHANNEL.json`.

    Raises:
        MalformedJsonError: something in it is wrong; the message has its path.
        UnsupportedSchemaError: its major schema is not 1.
    """
    document = strictjson.parse(data, MAX_HOLD, "hold")
    _check_schema(document)
    return Hold(
        product=document.member("product").text(NAME),
        channel=document.member("channel").text(NAME),
        sequences=frozenset(item.integer(1) for item in document.member("sequences").items()),
    )


def serialize_hold(hold: Hold) -> bytes:
    """The one way in which a hold file is written. Raises as `serialize`."""
    document: Mapping[str, Json] = {
        "schema": list(SCHEMA),
        "product": hold.product,
        "channel": hold.channel,
        "sequences": sorted(hold.sequences),
    }
    data = strictjson.serialize(document)
    parse_hold(data)
    return data


def parse_meaning(custom: object, path: str) -> Meaning:
    """Read the `custom` of a builds target.

    Args:
        custom: as `tuf.api` gives it; None if the target has none.
        path: the target's path, for the error.

    Raises:
        MalformedJsonError: something in it is missing or wrong.
    """
    node = Node(custom, f"custom of {path}")
    return Meaning(
        product=node.member("product").text(NAME),
        hardware=frozenset(node.member("hardware").texts(HARDWARE)),
        version=node.member("version").text(VERSION),
        sequence=node.member("sequence").integer(1),
        handler=node.member("handler").text(HANDLER),
    )


def segments_digest(custom: object, path: str) -> str | None:
    """The SHA-256 of the list of segments, where an artifact names it itself (hash bins).

    Args:
        custom: as `tuf.api` gives it.
        path: of the artifact, for the error.

    Returns:
        hex digits; None if the list is a target of its own.

    Raises:
        MalformedJsonError: it is no digest.
    """
    found = Node(custom, f"custom of {path}").find("segments")
    return None if found is None else found.text(_SHA256)
