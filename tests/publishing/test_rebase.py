"""A builder who lost the race: when builds are made anew, and when they stand as they are."""

from __future__ import annotations

import shutil
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from tuf.api.metadata import TargetFile, Targets

from client_reference.errors import ExitCode
from client_reference.trust.verified import authentic
from repo_tools.metadata.bins import bins_of
from repo_tools.metadata.edits import without
from repo_tools.metadata.repository import parse
from repo_tools.publishing.firmware import open_signers, write_role
from repo_tools.publishing.live import read_bins
from repo_tools.publishing.prepare import read_base
from repo_tools.publishing.rebase import (
    Rebased,
    numbered,
    rebase_bins,
    renumbered,
    sequences,
)
from repo_tools.signing.secrets import Secrets
from tests.publishing.lab import NOW, PRODUCT, entry

if TYPE_CHECKING:
    from pathlib import Path

    from repo_tools.metadata.repository import RepositoryState
    from tests.publishing.lab import Lab

large = pytest.mark.services  # beside the other lives of a repository in bins
BUILDS = f"{PRODUCT}-builds"


def segments_of(path: str) -> TargetFile:
    """The list of its segments."""
    target = TargetFile.from_data(f"{path}.segments", b"s", ["sha256"])
    target.unrecognized_fields["custom"] = {"segments-of": path}
    return target


def table(*targets: TargetFile) -> dict[str, TargetFile]:
    return {each.path: each for each in targets}


def test_a_version_that_is_live_keeps_its_sequence_and_a_new_one_gets_a_free_one() -> None:
    live = table(entry("a", "1.0", 3), segments_of("a"), TargetFile.from_data("bare", b"x"))
    again = table(entry("b", "1.0", 7), segments_of("b"), TargetFile.from_data("bare2", b"x"))
    assert sequences(live, again) == {"1.0": 3}
    assert sequences(live, table(entry("c", "2.0", 9))) == {"2.0": 9}
    assert sequences(live, table(entry("c", "2.0", 3), entry("d", "2.1", 4))) == {
        "2.0": 4,
        "2.1": 5,
    }
    assert renumbered(again, {"1.0": 3}) == {"1.0": (7, 3)}
    assert renumbered(again, {"1.0": 7}) == {}
    assert numbered(again["b"], {"1.0": 3}).custom == entry("b", "1.0", 3).custom
    for plain in (segments_of("b"), TargetFile.from_data("bare", b"x")):
        assert (numbered(plain, {}).custom or None) == plain.custom


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


def test_bins_that_were_signed_together_with_their_role_are_signed_so_again(
    binned: Lab, tmp_path: Path
) -> None:
    ours, rival = shared(binned, tmp_path)
    ours.add("1.1")
    ours.ok("ceremony", "start", BUILDS)
    rival.add("1.2")
    rival.ok("publish")
    done = ours.run("publish")
    assert done.code == ExitCode.ACTION_REQUIRED
    assert "on the builder's machine: firmroot ceremony start gateway-builds" in done.err
    ours.ok("ceremony", "start", BUILDS)
    ours.ok("publish")
    said = ours.ok("firmware", "list").out
    assert "gateway@1.2  sequence 2  published" in said
    assert "gateway@1.1  sequence 3  published" in said


class Bins:
    """A clone that has builds in hash bins, and a rival; what is staged is written by hand."""

    def __init__(self, lab: Lab, top: Path) -> None:
        self.ours, self.rival = shared(lab, top)
        builds = read_base(lab.workspace, lab.workspace.storage()).state.role(BUILDS)
        found = bins_of(builds)
        assert found is not None
        self.bins = found
        [self.home] = [name for name in found.get_roles() if self.live(name)]
        self.before, self.after = min(found.get_roles()), max(found.get_roles())
        assert self.before < self.home < self.after

    @property
    def state(self) -> RepositoryState:
        """What is live, with all bins."""
        storage = self.ours.workspace.storage()
        state = read_base(self.ours.workspace, storage).state
        return read_bins(storage, state, self.bins.get_roles())

    def live(self, name: str) -> Targets | None:
        """A bin that is live; None if nothing was ever put into it."""
        return self.state.role(name)

    def inside(self, name: str, sequence: int = 3) -> TargetFile:
        """An artifact whose bin that is."""
        paths = (f"builds/{PRODUCT}/7.{each}/firmware.img" for each in range(10_000))
        path = next(each for each in paths if self.bins.get_role_for_target(each) == name)
        return entry(path, path.split("/")[2], sequence)

    def next(self, name: str, *targets: TargetFile) -> Targets:
        """The next version of a bin, with these as well."""
        live = self.live(name)
        if live is None:
            return Targets(expires=NOW + timedelta(days=300), targets=table(*targets))
        there = live.targets | table(*targets)
        return Targets(live.version + 1, expires=live.expires, targets=there)

    def stage(self, name: str, signed: Targets) -> None:
        ws = self.ours.workspace
        secrets = Secrets(ws.lab_passphrase.read_bytes().strip())
        write_role(ws, name, signed, open_signers(ws, PRODUCT, secrets))

    def outrun(self) -> str:
        """The rival publishes an artifact in the bin that is live; the path."""
        versions = (f"8.{each}" for each in range(10_000))
        path = f"builds/{PRODUCT}/{{}}/firmware.img".format
        goal = next(v for v in versions if self.bins.get_role_for_target(path(v)) == self.home)
        self.rival.add(goal)
        self.rival.ok("publish")
        assert self.next(self.home).version == 3
        return path(goal)

    def rebase(self) -> Rebased | None:
        ws = self.ours.workspace
        secrets = Secrets(ws.lab_passphrase.read_bytes().strip())
        return rebase_bins(ws, ws.storage(), self.state, PRODUCT, secrets, self.ours.now)

    def staged(self) -> dict[str, int]:
        """The version of each bin that is staged."""
        roles = self.ours.workspace.staged_roles().items()
        return {name: parse(data, Targets, name).signed.version for name, data in roles}

    def paths(self, name: str) -> set[str]:
        """What a staged bin lists."""
        data = self.ours.workspace.staged_role(name)
        assert data is not None
        return set(parse(data, Targets, name).signed.targets)


@pytest.fixture
def bins(binned: Lab, tmp_path: Path) -> Bins:
    return Bins(binned, tmp_path)


@large
@pytest.mark.parametrize("beside", ["", "before", "after"])
def test_a_bin_into_which_somebody_else_put_something_is_made_anew(bins: Bins, beside: str) -> None:
    """Whatever else is staged, and wherever that stands in the list."""
    mine = bins.inside(bins.home, 4)  # free, whatever the rival gets: the bin alone is the reason
    bins.stage(bins.home, bins.next(bins.home, mine))
    other = getattr(bins, beside) if beside else ""
    if other:
        bins.stage(other, bins.next(other, bins.inside(other, 5)))
    theirs = bins.outrun()
    made = bins.rebase()
    assert made is not None
    assert bins.staged()[bins.home] == 3
    assert {mine.path, theirs} < bins.paths(bins.home)
    assert not other or bins.paths(other) == {bins.inside(other).path}
    assert bins.rebase() is None, "now it stands"
    role, data = bins.state.role(BUILDS), bins.ours.workspace.staged_role(bins.home)
    assert role is not None
    assert data is not None
    assert mine.path in authentic(Targets, role, bins.home, data).targets, "and is signed"


@large
def test_a_bin_with_a_high_version_that_lacks_what_is_live_is_made_anew(bins: Bins) -> None:
    mine = bins.inside(bins.home, 4)
    high = bins.next(bins.home, mine)
    high.version = 5
    bins.stage(bins.home, high)
    theirs = bins.outrun()
    assert bins.rebase() is not None
    assert bins.staged() == {bins.home: 6}
    assert {mine.path, theirs} < bins.paths(bins.home)


@large
def test_a_bin_that_leaves_something_out_on_purpose_stands(bins: Bins) -> None:
    bins.stage(bins.home, without(bins.next(bins.home), ["1.0"]))
    assert bins.paths(bins.home) == set()
    assert bins.rebase() is None


@large
def test_a_bin_whose_version_a_renewal_has_taken_is_made_anew(bins: Bins) -> None:
    """Nothing of what is live is missing in it."""
    bins.stage(bins.home, bins.next(bins.home, bins.inside(bins.home)))
    bins.rival.ok("ceremony", "start", BUILDS)
    bins.rival.ok("publish")
    assert bins.rebase() is not None
    assert bins.staged() == {bins.home: 3}


@large
def test_a_bin_whose_version_is_of_the_past_is_made_anew(bins: Bins) -> None:
    """Also where a clean-up has removed what had that name, and nothing that is live is missing."""
    bins.stage(bins.home, bins.next(bins.home, bins.inside(bins.home, 4)))
    for _ in range(2):
        bins.rival.ok("ceremony", "start", BUILDS)
        bins.rival.ok("publish")
    (bins.ours.repository / f"metadata/2.{bins.home}.json").unlink()
    assert bins.rebase() is not None
    assert bins.staged() == {bins.home: 4}


@large
def test_a_sequence_that_somebody_else_took_in_another_bin_is_given_anew(bins: Bins) -> None:
    mine = bins.inside(bins.home, 2)
    bins.stage(bins.home, bins.next(bins.home, mine))
    versions = (f"9.{each}" for each in range(10_000))
    path = f"builds/{PRODUCT}/{{}}/firmware.img".format
    bins.rival.add(next(v for v in versions if bins.bins.get_role_for_target(path(v)) != bins.home))
    bins.rival.ok("publish")
    made = bins.rebase()
    assert made is not None
    assert made.renumbered == {mine.path.split("/")[2]: (2, 3)}


@large
def test_what_is_live_already_and_bins_of_another_product_stay_as_they_are(bins: Bins) -> None:
    """They wait for a publish to notice, and for their own turn."""
    ws = bins.ours.workspace
    live = bins.state.roles[bins.home]
    (ws.memory / "staged" / f"{bins.home}.json").write_bytes(live)
    assert bins.rebase() is None
    other = "sensor_-0"
    (ws.memory / "staged" / f"{other}.json").write_bytes(live)
    version = bins.staged()[other]
    (bins.ours.repository / f"metadata/{version}.{other}.json").write_bytes(b"{}")
    assert bins.rebase() is None
    assert set(bins.staged()) == {bins.home, other}


@large
def test_what_somebody_else_published_to_the_letter_is_not_signed_again(bins: Bins) -> None:
    theirs = bins.outrun()
    live = bins.live(bins.home)
    assert live is not None
    assert theirs in live.targets
    # Only the day is another one.
    later = live.expires + timedelta(days=1)
    bins.stage(bins.home, Targets(live.version, expires=later, targets=live.targets))
    assert bins.rebase() == Rebased(BUILDS, 0)
    assert bins.staged() == {}


@large
@pytest.mark.parametrize("taken", ["before", "home", "after"])
def test_one_bin_whose_name_somebody_took_has_all_made_anew(bins: Bins, taken: str) -> None:
    names = {each: getattr(bins, each) for each in ("before", "home", "after")}
    for sequence, name in enumerate(names.values(), start=3):
        bins.stage(name, bins.next(name, bins.inside(name, sequence)))
    given = {name: bins.next(name).version for name in names.values()}
    there = bins.ours.repository / f"metadata/{given[names[taken]]}.{names[taken]}.json"
    there.write_bytes(b"{}")
    assert bins.rebase() is not None
    assert bins.staged() == {name: version + 1 for name, version in given.items()}
