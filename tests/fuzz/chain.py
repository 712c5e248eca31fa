"""A chain of roots, walked link by link from an honest first one (`trust.verified.next_root`).

The links stand one after the other with `SEPARATOR` between them; the first byte of each chooses
which root keys sign it again: bit 0 none at all, bits 1 to 4 one key each.
"""

from __future__ import annotations

import functools

from tuf.api.metadata import Root

from client_reference.errors import NotTrustedError
from client_reference.trust import clock, verified
from tests.fuzz import SEPARATOR
from tests.fuzz.honest import ROLES, have_signed, keys, listed, repository, signed_again
from tests.fuzz.refusals import only

MOST_LINKS = 8
AS_IT_IS = 1


def run(data: bytes) -> None:
    trusted = _first()
    with only(NotTrustedError):
        for link in data.split(SEPARATOR)[:MOST_LINKS]:
            trusted = _step(trusted, link)


@functools.cache
def _first() -> Root:
    return verified.first_root(repository().files["metadata/1.root.json"])


def _step(trusted: Root, link: bytes) -> Root:
    choice, text = link[0] if link else AS_IT_IS, link[1:]
    pool = keys(Root.type)
    if not choice & AS_IT_IS:
        text = signed_again(text, [one for i, one in enumerate(pool) if choice & (2 << i)])
    root = verified.next_root(trusted, text)
    assert root.version == trusted.version + 1
    file = verified.read(Root, "root", text)
    signatures = [each.signature for each in file.signatures.values()]
    for judge in (trusted, root):
        ours, needed = listed(judge, pool), judge.roles["root"].threshold
        found = have_signed(ours, signatures, file.payload)
        assert found >= needed, f"accepted with {found} of {needed} signatures"
    for role in ROLES:
        verified.rotated(trusted, root, role)
    assert clock.reset(0, root) >= 0
    return root
