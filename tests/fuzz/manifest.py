"""The release manifest: `manifest.parse`."""

from __future__ import annotations

from client_reference import manifest
from client_reference.strictjson import MAX_INTEGER, MalformedJsonError
from tests.fuzz.refusals import only


def run(data: bytes) -> None:
    with only(MalformedJsonError, manifest.UnsupportedSchemaError):
        _judge(manifest.parse(data))


def _judge(read: manifest.Manifest) -> None:
    sequences = [each.sequence for each in read.releases]
    sequences += [each.sequence for each in read.unsupported]
    assert len(set(sequences)) == len(sequences)
    assert all(1 <= each <= MAX_INTEGER for each in sequences)
    for release in read.releases:
        shares = [w.permille for w in release.rollout.waves if isinstance(w, manifest.ShareWave)]
        assert shares == sorted(shares)
        assert all(share <= 1000 for share in shares)
        for payload in release.payloads:
            artifacts = [payload.artifact, *(delta.artifact for delta in payload.deltas)]
            for artifact in artifacts:
                assert artifact.path.startswith(f"builds/{read.product}/")
                assert artifact.path.isprintable()
                assert not {"", ".", ".."} & set(artifact.path.split("/"))
                assert 1 <= artifact.length <= MAX_INTEGER
    if not read.unsupported:
        assert manifest.parse(manifest.serialize(read)) == read
