"""The `custom` of a builds target: `manifest.parse_meaning` on what `trust.verified.read` gives.

The input is the `custom`, as text.
"""

from __future__ import annotations

from tuf.api.metadata import Targets

from client_reference import manifest
from client_reference.strictjson import MAX_INTEGER, MalformedJsonError
from client_reference.trust import verified
from tests.fuzz.honest import IMAGE
from tests.fuzz.refusals import only

FILE = (
    b'{"signatures": [], "signed": {"_type": "targets", "expires": "2032-05-13T12:00:00Z",'
    b' "spec_version": "1.0.31", "version": 1, "targets": {"%s": {"length": 5, "hashes":'
    b' {"sha256": "6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d"},'
    b' "custom": %s}}}}'
)


def run(data: bytes) -> None:
    with only(MalformedJsonError, verified.MalformedError):
        targets = verified.read(Targets, "builds", FILE % (IMAGE.encode(), data)).signed
        for path, target in targets.targets.items():
            meaning = manifest.parse_meaning(target.custom, path)
            assert meaning.hardware is not None
            assert 1 <= meaning.sequence <= MAX_INTEGER
            assert manifest.parse_meaning(meaning.custom(), path) == meaning
