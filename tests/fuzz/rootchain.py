"""The root-chain bundle: `trust.rootchain.parse`, which believes nothing and verifies nothing."""

from __future__ import annotations

from client_reference.trust import rootchain
from client_reference.trust.verified import MalformedError
from tests.fuzz.refusals import only


def run(data: bytes) -> None:
    with only(MalformedError):
        bundle = rootchain.parse(data)
        versions = list(bundle.links)
        first = bundle.blocks[-1] + 1 if bundle.blocks else 1
        assert versions == list(range(first, first + len(versions)))
        assert list(bundle.blocks) == sorted(set(bundle.blocks))
        # There is one spelling: two readers never see different links in the same bytes.
        assert _written(bundle) == data


def _written(bundle: rootchain.Bundle) -> bytes:
    """By the description of the format, not by the code that makes bundles."""
    lines = b"firmroot-root-chain 1\nblocks" + b"".join(b" %d" % end for end in bundle.blocks)
    for version, root in bundle.links.items():
        lines += b"\n%d %d\n%b" % (version, len(root), root)
    return lines + b"\n"
