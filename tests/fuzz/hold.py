"""The hold file: `manifest.parse_hold`."""

from __future__ import annotations

from client_reference import manifest
from client_reference.strictjson import MAX_INTEGER, MalformedJsonError
from tests.fuzz.refusals import only


def run(data: bytes) -> None:
    with only(MalformedJsonError, manifest.UnsupportedSchemaError):
        hold = manifest.parse_hold(data)
        assert all(1 <= sequence <= MAX_INTEGER for sequence in hold.sequences)
        assert manifest.parse_hold(manifest.serialize_hold(hold)) == hold
