"""The recovery anchor, walked link by link from an honest first one (`trust.recovery`).

The links stand one after the other with `SEPARATOR` between them; the first byte of each chooses
who signs it again: bit 0 nobody, bits 1 to 4 one recovery key each. Bit 7: it is judged as the
first link of an image instead.
"""

from __future__ import annotations

import functools
import re
from contextlib import suppress

from tuf.api.metadata import Root

from client_reference.errors import NotTrustedError
from client_reference.strictjson import MAX_INTEGER
from client_reference.trust import recovery, verified
from client_reference.trust.recovery import Anchor, Stay, Walk
from tests.fuzz import SEPARATOR
from tests.fuzz.honest import anchor, have_signed, listed, repository, signed_again
from tests.fuzz.refusals import only

MOST_LINKS = 8
AS_IT_IS, OF_AN_IMAGE = 1, 1 << 7


def run(data: bytes) -> None:
    trusted, links = _first(), []
    with only(NotTrustedError):
        for link in data.split(SEPARATOR)[:MOST_LINKS]:
            choice, text = link[0] if link else AS_IT_IS, link[1:]
            if not choice & AS_IT_IS:
                keys = anchor().keys
                text = signed_again(text, [one for i, one in enumerate(keys) if choice & (2 << i)])
            if choice & OF_AN_IMAGE:
                _judge(recovery.first_anchor(text))
                continue
            trusted = _step(trusted, text)
            links.append(trusted)
    decision = recovery.decide(_first(), 0, [Walk(links), Walk(links[:1])])
    assert isinstance(decision, Stay) == (not links)


@functools.cache
def _first() -> Anchor:
    return recovery.first_anchor(anchor().links[0])


def _step(trusted: Anchor, text: bytes) -> Anchor:
    link = recovery.next_anchor(trusted, text)
    assert link.version == trusted.version + 1
    before, after = trusted.statement, link.statement
    assert after.epoch - before.epoch in {0, 1}
    if after.epoch == before.epoch:
        assert after == before, "what an epoch begins with changed within it"
    _judge(link)
    _signed_for(link, trusted.root)
    return link


def _judge(link: Anchor) -> None:
    """What must be true of every recovery root that is accepted."""
    said = link.statement
    assert 0 <= said.epoch <= MAX_INTEGER
    assert 1 <= said.length <= recovery.MAX_ROOT
    assert re.fullmatch("[0-9a-f]{64}", said.sha256)
    assert all(
        type(each) is int and 0 <= each <= MAX_INTEGER for each in said.minimum_sequence.values()
    )
    assert recovery.stored_anchor(link.data) == link
    _signed_for(link, link.root)
    with suppress(NotTrustedError):
        recovery.primary_root(said, repository().files["metadata/1.root.json"])


def _signed_for(link: Anchor, judge: Root) -> None:
    file = verified.read(Root, "recovery root", link.data)
    signatures = [one.signature for one in file.signatures.values()]
    found = have_signed(listed(judge, anchor().keys), signatures, file.payload)
    needed = judge.roles["root"].threshold
    assert found >= needed, f"accepted with {found} of {needed} signatures"
