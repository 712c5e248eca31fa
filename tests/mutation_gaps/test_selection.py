"""Rules of the selection that only the mutation check found untested."""

from __future__ import annotations

from client_reference.selection import Reason, Skip, select
from tests.test_selection import DEVICE, NOW, manifest, release


def test_a_stone_that_was_reached_is_not_taken_again() -> None:
    offered = manifest(
        release(45, stone=True), release(60, from_sequence=50), release(55, from_sequence=50)
    )
    chosen = select(offered, frozenset(), DEVICE, NOW)
    assert not isinstance(chosen, Skip)
    assert chosen.release.sequence == 45


def test_of_two_releases_out_of_reach_the_newest_is_named() -> None:
    offered = manifest(release(60, from_sequence=50), release(55, from_sequence=50))
    chosen = select(offered, frozenset(), DEVICE, NOW)
    assert isinstance(chosen, Skip)
    assert chosen.reason is Reason.UNREACHABLE
    assert chosen.detail.startswith("v60 ")
