from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from client_reference import manifest as manifests
from client_reference.errors import NotTrustedError, RefusedError
from client_reference.manifest import (
    Artifact,
    Delta,
    GroupWave,
    Hold,
    Manifest,
    Meaning,
    Payload,
    Release,
    Rollout,
    ShareWave,
    Source,
    UnsupportedRelease,
    UnsupportedSchemaError,
    Withdrawn,
    parse,
    parse_hold,
    parse_meaning,
    serialize,
    serialize_hold,
)
from client_reference.strictjson import MalformedJsonError

SHA = "3b1f" * 16
FULL: dict[str, Any] = {
    "schema": [1, 0],
    "product": "gateway",
    "channel": "stable",
    "minimum_sequence": 30,
    "releases": [
        {
            "version": "3.1.0",
            "sequence": 47,
            "needs": [],
            "from": {"minimum_sequence": 40},
            "stone": True,
            "severity": "security",
            "notes": "https://acme.example/n/3.1.0",
            "rollout": {
                "start": "2026-03-02T06:00:00Z",
                "seed": "9f2c61d04ab87e35",
                "paused": False,
                "waves": [
                    {"after_hours": 0, "groups": ["pilot"]},
                    {"after_hours": 24, "permille": 10},
                    {"after_hours": 72, "permille": 1000},
                ],
            },
            "payloads": [
                {
                    "hardware": ["acme,gw-2"],
                    "handler": "slot",
                    "artifact": {
                        "path": "builds/gateway/3.1.0/gw2.ext4",
                        "length": 335544320,
                        "sha256": SHA,
                    },
                    "deltas": [
                        {
                            "codec": "zstd-segments-1",
                            "source": {"length": 314572800, "sha256": SHA},
                            "artifact": {
                                "path": "builds/gateway/3.1.0/gw2-0d62.delta",
                                "length": 16777216,
                                "sha256": SHA,
                            },
                        }
                    ],
                }
            ],
        }
    ],
    "withdrawn": [
        {
            "version": "3.0.9",
            "sequence": 46,
            "since": "2026-02-20T11:30:00Z",
            "reason": "modem hangs",
        }
    ],
}


def edited(path: str, value: object = ...) -> bytes:
    """The full manifest with one value replaced, or removed."""
    document = json.loads(json.dumps(FULL))
    *outer, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    place = document
    for key in outer:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(document).encode()


def test_everything_in_a_manifest_is_read() -> None:
    artifact = Artifact("builds/gateway/3.1.0/gw2.ext4", 335544320, SHA)
    delta = Artifact("builds/gateway/3.1.0/gw2-0d62.delta", 16777216, SHA)
    assert parse(json.dumps(FULL).encode()) == Manifest(
        product="gateway",
        channel="stable",
        minimum_sequence=30,
        releases=(
            Release(
                version="3.1.0",
                sequence=47,
                from_sequence=40,
                stone=True,
                severity="security",
                notes="https://acme.example/n/3.1.0",
                rollout=Rollout(
                    start=datetime(2026, 3, 2, 6, tzinfo=UTC),
                    seed="9f2c61d04ab87e35",
                    paused=False,
                    waves=(GroupWave(0, ("pilot",)), ShareWave(24, 10), ShareWave(72, 1000)),
                ),
                payloads=(
                    Payload(
                        ("acme,gw-2",),
                        "slot",
                        artifact,
                        (Delta("zstd-segments-1", Source(314572800, SHA), delta),),
                    ),
                ),
            ),
        ),
        withdrawn=(
            Withdrawn("3.0.9", 46, datetime(2026, 2, 20, 11, 30, tzinfo=UTC), "modem hangs"),
        ),
    )


def test_what_is_written_is_read_back_the_same() -> None:
    manifest = parse(json.dumps(FULL).encode())
    data = serialize(manifest)
    assert parse(data) == manifest
    assert serialize(parse(data)) == data
    assert data.endswith(b"}\n")
    assert json.loads(data) == FULL


RELEASE = "releases.0"
PAYLOAD = "releases.0.payloads.0"
WAVES = "releases.0.rollout.waves"
MALFORMED: dict[str, tuple[bytes, str, str]] = {
    "no product": (edited("product"), "manifest.product", "a value"),
    "a product that is a number": (edited("product", 7), "manifest.product", "text"),
    "a product with a slash": (edited("product", "a/b"), "manifest.product", "of the form"),
    "a channel with capitals": (edited("channel", "Stable"), "manifest.channel", "of the form"),
    "a schema that is no list": (edited("schema", 1), "manifest.schema", "an array"),
    "a schema of three numbers": (edited("schema", [1, 0, 0]), "manifest.schema", "[major"),
    "releases that are an object": (edited("releases", {}), "manifest.releases", "an array"),
    "a minimum that is true": (edited("minimum_sequence", True), "minimum_sequence", "integer"),  # noqa: FBT003 # JSON
    "a sequence of zero": (edited(f"{RELEASE}.sequence", 0), "releases[0].sequence", "from 1"),
    "a sequence of 2^53": (edited(f"{RELEASE}.sequence", 2**53), "[0].sequence", "2^53-1"),
    "a negative sequence": (edited(f"{RELEASE}.sequence", -1), "[0].sequence", "2^53-1"),
    "a sequence that is a float": (edited(f"{RELEASE}.sequence", 1.0), "[0].sequence", "integer"),
    "a version with a slash": (edited(f"{RELEASE}.version", "1/2"), "[0].version", "of the form"),
    "a version that climbs": (edited(f"{RELEASE}.version", ".."), "[0].version", "of the form"),
    "needs that are a text": (edited(f"{RELEASE}.needs", "x"), "[0].needs", "an array"),
    "a need twice": (edited(f"{RELEASE}.needs", ["a", "a"]), "[0].needs", "no item twice"),
    "from without a minimum": (edited(f"{RELEASE}.from", {}), "from.minimum_sequence", "a value"),
    "a stone of 1": (edited(f"{RELEASE}.stone", 1), "[0].stone", "true or false"),
    "notes that steer a terminal": (edited(f"{RELEASE}.notes", "\x1b[2J"), "notes", "control"),
    "notes that turn the text": (edited(f"{RELEASE}.notes", "a\u202eb"), "notes", "control"),
    "endless notes": (edited(f"{RELEASE}.notes", "n" * 1025), "notes", "at most 1024"),
    "no rollout": (edited(f"{RELEASE}.rollout"), "[0].rollout", "a value"),
    "a start without a zone": (
        edited(f"{RELEASE}.rollout.start", "2026-03-02T06:00:00"),
        "rollout.start",
        "YYYY-MM-DD",
    ),
    "a start on 30 February": (
        edited(f"{RELEASE}.rollout.start", "2026-02-30T06:00:00Z"),
        "rollout.start",
        "YYYY-MM-DD",
    ),
    "a start at the end of time": (
        edited(f"{RELEASE}.rollout.start", "9999-12-31T06:00:00Z"),
        "rollout.start",
        "before the year 10000",
    ),
    "a short seed": (edited(f"{RELEASE}.rollout.seed", "9f"), "rollout.seed", "of the form"),
    "paused by a text": (edited(f"{RELEASE}.rollout.paused", "no"), "paused", "true or false"),
    "a wave of groups and a share": (
        edited(WAVES, [{"after_hours": 0, "groups": ["a"], "permille": 1}]),
        "waves[0]",
        "either groups or permille",
    ),
    "a wave of neither": (edited(WAVES, [{"after_hours": 0}]), "waves[0]", "either groups or"),
    "a share above all": (
        edited(WAVES, [{"after_hours": 0, "permille": 1001}]),
        "permille",
        "from 0 to 1000",
    ),
    "a share that falls": (
        edited(WAVES, [{"after_hours": 0, "permille": 20}, {"after_hours": 1, "permille": 10}]),
        "waves[1].permille",
        "from 20",
    ),
    "hours that fall": (
        edited(WAVES, [{"after_hours": 5, "permille": 1}, {"after_hours": 4, "permille": 2}]),
        "waves[1].after_hours",
        "from 5",
    ),
    "a wave in a hundred years": (
        edited(WAVES, [{"after_hours": 876_000, "permille": 1}]),
        "after_hours",
        "to 87600",
    ),
    "no payload": (edited(f"{RELEASE}.payloads", []), "[0].payloads", "at least one"),
    "no hardware": (edited(f"{PAYLOAD}.hardware", []), "hardware", "at least one"),
    "hardware with a glob": (edited(f"{PAYLOAD}.hardware", ["acme,*"]), "hardware[0]", "form"),
    "one hardware id twice": (edited(f"{PAYLOAD}.hardware", ["a", "a"]), "hardware", "twice"),
    "two payloads for one id and handler": (
        edited(f"{RELEASE}.payloads", FULL["releases"][0]["payloads"] * 2),
        "[0].payloads",
        "once",
    ),
    "a handler that is a command": (edited(f"{PAYLOAD}.handler", "sh -c"), "handler", "form"),
    "an artifact of another product": (
        edited(f"{PAYLOAD}.artifact.path", "builds/other/1/x"),
        "artifact.path",
        "builds/gateway/",
    ),
    "an artifact that climbs out": (
        edited(f"{PAYLOAD}.artifact.path", "builds/gateway/../x"),
        "artifact.path",
        "builds/gateway/",
    ),
    "an artifact one level deeper": (
        edited(f"{PAYLOAD}.artifact.path", "builds/gateway/1/x/y"),
        "artifact.path",
        "builds/gateway/",
    ),
    "an empty artifact": (edited(f"{PAYLOAD}.artifact.length", 0), "artifact.length", "from 1"),
    "a hash in capitals": (edited(f"{PAYLOAD}.artifact.sha256", SHA.upper()), "sha256", "form"),
    "a delta without a source": (edited(f"{PAYLOAD}.deltas.0.source"), "deltas[0].source", "value"),
    "one sequence twice": (
        edited("releases", FULL["releases"] * 2),
        "manifest.releases",
        "each sequence once",
    ),
    "one withdrawn twice": (
        edited("withdrawn", FULL["withdrawn"] * 2),
        "manifest.withdrawn",
        "each sequence once",
    ),
    "withdrawn without a reason": (edited("withdrawn.0.reason"), "withdrawn[0].reason", "value"),
    "an array": (b"[]", "manifest", "an object"),
    "nothing at all": (b"", "manifest", "a complete JSON document"),
    "a truncated document": (json.dumps(FULL).encode()[:-3], "manifest", "a complete JSON"),
    "a web page": (b"<html>", "manifest", "a complete JSON document"),
    "one byte too many": (b" " * (manifests.MAX_MANIFEST + 1), "manifest", "at most 262144"),
}


@pytest.mark.parametrize("sentence", MALFORMED)
def test_a_malformed_manifest_is_refused_by_path(sentence: str) -> None:
    data, path, expected = MALFORMED[sentence]
    with pytest.raises(MalformedJsonError) as caught:
        parse(data)
    assert path in caught.value.path
    assert expected in caught.value.expected
    assert caught.value.message.startswith("manifest")
    assert isinstance(caught.value, NotTrustedError)


def test_a_manifest_of_the_largest_size_is_read() -> None:
    data = json.dumps(FULL).encode()
    assert parse(data.ljust(manifests.MAX_MANIFEST)) == parse(data)


def test_optional_fields_may_be_absent() -> None:
    document = json.loads(json.dumps(FULL))
    del document["withdrawn"]
    for name in ("needs", "from", "stone", "severity", "notes"):
        del document["releases"][0][name]
    del document["releases"][0]["rollout"]["paused"]
    del document["releases"][0]["payloads"][0]["deltas"]
    release = parse(json.dumps(document).encode()).releases[0]
    assert (release.needs, release.from_sequence, release.stone) == ((), 0, False)
    assert (release.severity, release.notes, release.rollout.paused) == ("", "", False)


@pytest.mark.parametrize("path", ["future", f"{RELEASE}.future", f"{PAYLOAD}.artifact.future"])
def test_an_unknown_field_is_ignored(path: str) -> None:
    assert parse(edited(path, {"any": ["thing"]})) == parse(json.dumps(FULL).encode())


def test_an_unknown_minor_schema_is_read() -> None:
    assert parse(edited("schema", [1, 9])).product == "gateway"


def test_another_major_schema_is_refused() -> None:
    with pytest.raises(UnsupportedSchemaError, match="found major schema 2, expected 1"):
        parse(edited("schema", [2, 0]))


def test_a_release_with_an_unknown_need_is_kept_apart_whatever_its_shape() -> None:
    release = {"version": "9", "sequence": 90, "needs": ["quantum"], "payloads": "a new shape"}
    manifest = parse(edited("releases", [release, *FULL["releases"]]))
    assert [one.version for one in manifest.releases] == ["3.1.0"]
    assert manifest.unsupported == (UnsupportedRelease("9", 90, ("quantum",)),)
    with pytest.raises(RefusedError, match="releases 9 of gateway/stable need a newer firmroot"):
        serialize(manifest)


def test_a_need_that_this_client_supports_keeps_no_release_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(manifests, "SUPPORTED_NEEDS", frozenset({"quantum"}))
    needy = {**FULL["releases"][0], "version": "9", "sequence": 90, "needs": ["quantum"]}
    later = {"version": "10", "sequence": 100, "needs": ["quantum", "warp"]}
    manifest = parse(edited("releases", [later, needy, *FULL["releases"]]))
    assert [one.version for one in manifest.releases] == ["9", "3.1.0"]
    assert manifest.releases[0].needs == ("quantum",)
    assert manifest.unsupported == (UnsupportedRelease("10", 100, ("warp",)),)


def test_a_manifest_that_no_device_would_read_is_not_written() -> None:
    manifest = parse(json.dumps(FULL).encode())
    with pytest.raises(MalformedJsonError, match="of the form"):
        serialize(replace(manifest, product="No Product"))


def test_a_hold_file_is_written_and_read() -> None:
    hold = Hold("gateway", "stable", frozenset({48, 47}))
    data = serialize_hold(hold)
    assert parse_hold(data) == hold
    assert json.loads(data)["sequences"] == [47, 48]


HOLDS = {
    "no sequences": ({"schema": [1, 0], "product": "a", "channel": "b"}, "hold.sequences"),
    "a sequence as text": (
        {"schema": [1, 0], "product": "a", "channel": "b", "sequences": ["1"]},
        "hold.sequences[0]",
    ),
    "no channel": ({"schema": [1, 0], "product": "a", "sequences": []}, "hold.channel"),
}


@pytest.mark.parametrize("sentence", HOLDS)
def test_a_malformed_hold_file_is_refused(sentence: str) -> None:
    document, path = HOLDS[sentence]
    with pytest.raises(MalformedJsonError) as caught:
        parse_hold(json.dumps(document).encode())
    assert caught.value.path == path


def test_a_hold_file_of_another_major_schema_is_refused() -> None:
    with pytest.raises(UnsupportedSchemaError):
        parse_hold(b'{"schema": [2, 0]}')


def test_the_meaning_of_an_artifact_is_written_and_read() -> None:
    meaning = Meaning("gateway", frozenset({"b", "a"}), "1.0", 7, "slot")
    assert meaning.custom()["hardware"] == ["a", "b"]
    assert parse_meaning(meaning.custom(), "builds/gateway/1.0/x") == meaning


@pytest.mark.parametrize("missing", ["product", "hardware", "version", "sequence", "handler"])
def test_a_meaning_without_a_field_is_refused(missing: str) -> None:
    custom = dict(Meaning("gateway", frozenset({"a"}), "1.0", 7, "slot").custom())
    del custom[missing]
    with pytest.raises(MalformedJsonError, match=f"custom of p.{missing}: found nothing"):
        parse_meaning(custom, "p")


def test_an_artifact_without_a_meaning_is_refused() -> None:
    with pytest.raises(MalformedJsonError, match="custom of p: found null, expected an object"):
        parse_meaning(None, "p")
