"""Which roots the recovery anchor leads to, and which chain of it is signed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repo_tools.publishing.following import first_roots, signed_chain
from repo_tools.publishing.inherit import primary_root

if TYPE_CHECKING:
    from pathlib import Path

    from tests.publishing.lab import Lab


def _write(path: Path, data: bytes) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return data


def test_the_chain_is_what_is_published_and_then_what_is_signed_each_once(live: Lab) -> None:
    ws = live.workspace
    assert signed_chain(ws) == ()
    second = _write(ws.staged / "recovery.json", b'"2"')
    first = _write(ws.anchor / "1.json", b'"1"')
    assert signed_chain(ws) == (first, second)
    _write(ws.anchor / "2.json", second)  # killed before it left the staged ones
    assert signed_chain(ws) == (first, second)
    (ws.staged / "recovery.json").unlink()
    assert signed_chain(ws) == (first, second)


def test_the_anchor_leads_to_the_first_root_of_every_epoch_but_the_first(live: Lab) -> None:
    now = live.workspace
    later = now.after()
    assert primary_root(now) is not None
    assert list(first_roots(now, 0)) == []
    assert list(first_roots(later, 1)) == [], "it has no root yet"
    signed = _write(later.staged / "root.json", b'"signed"')
    assert list(first_roots(later, 1)) == [(1, signed)]
    published = _write(later.metadata / "root/1.json", b'"published"')
    _write(later.metadata / "root/2.json", b'"the next one"')
    assert list(first_roots(later, 1)) == [(1, published)]
    assert list(first_roots(later.after(), 2)) == [(1, published)]
    assert list(first_roots(later.after(), 0)) == []
