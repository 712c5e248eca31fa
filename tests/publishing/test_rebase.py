"""A builder who lost the race: when builds are made anew, and when they stand as they are."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from client_reference.errors import ExitCode
from tests.publishing.lab import PRODUCT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.publishing.lab import Lab

BUILDS = f"{PRODUCT}-builds"


def shared(lab: Lab, top: Path) -> tuple[Lab, Lab]:
    """Two clones over one storage."""
    rival = lab.copy(top / "rival" / "acme")
    shutil.rmtree(rival.repository)
    rival.repository.symlink_to(lab.repository)
    return lab, rival


def test_builds_that_were_renewed_meanwhile_are_made_anew(live: Lab, tmp_path: Path) -> None:
    """Nothing of what is live is missing in them; their version is taken all the same."""
    ours, rival = shared(live, tmp_path)
    ours.add("1.1")
    rival.ok("ceremony", "start", BUILDS)
    rival.ok("publish")
    said = ours.ok("submit").out
    assert f"{BUILDS}: somebody else was published first; made anew on what is live as v" in said
    assert f"{BUILDS} 3  handed in" in said
    ours.ok("publish")
    said = ours.ok("firmware", "list").out
    assert "gateway@1.1  sequence 2  published" in said


def test_bins_that_were_signed_together_with_their_role_are_not_made_anew_one_by_one(
    binned: Lab, tmp_path: Path
) -> None:
    ours, rival = shared(binned, tmp_path)
    ours.add("1.1")
    ours.ok("ceremony", "start", BUILDS)
    rival.add("1.2")
    rival.ok("publish")
    done = ours.run("submit")
    assert done.code == ExitCode.REFUSED
    assert "gateway@1.1 has sequence 2, which is not free" in done.err
    assert "after removing .firmroot/staged/gateway_*.json" in done.err
    done = ours.run("publish")
    assert done.code == ExitCode.ACTION_REQUIRED
    assert "on the builder's machine: firmroot ceremony start gateway-builds" in done.err

    # What both say to do, done.
    for path in ours.directory.glob(".firmroot/staged/gateway_*.json"):
        path.unlink()
    ours.add("1.1")
    ours.ok("ceremony", "start", BUILDS)
    ours.ok("publish")
    said = ours.ok("firmware", "list").out
    assert "gateway@1.2  sequence 2  published" in said
    assert "gateway@1.1  sequence 3  published" in said
