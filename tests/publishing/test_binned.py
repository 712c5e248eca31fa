"""Pure rules of hash bins on the release side, each by itself."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import pytest
from tuf.api.metadata import SuccinctRoles, Targets

from client_reference.errors import ActionRequiredError, ExitCode, RefusedError
from repo_tools.metadata.bins import FIELD, Release, bins_of, is_bin
from repo_tools.metadata.edits import without
from repo_tools.metadata.repository import RepositoryState, parse
from repo_tools.publishing.binned import (
    TakenSequenceError,
    _check_keys,
    artifact,
    check_loaded,
    check_releases,
    next_index,
)
from repo_tools.publishing.firmware import Near, open_signers, read_builds, write_role
from repo_tools.publishing.live import read_bins
from repo_tools.publishing.plan import Admitted
from repo_tools.publishing.prepare import read_base
from repo_tools.signing.secrets import Secrets
from tests.publishing.lab import PRODUCT, entry

if TYPE_CHECKING:
    from tests.publishing.lab import Lab

PATH = f"builds/{PRODUCT}/1.0/firmware.img"


def test_a_bin_that_nobody_read_is_not_taken_for_one_that_does_not_exist(binned: Lab) -> None:
    """A release of years ago would be free to be given again."""
    storage = binned.workspace.storage()
    state = read_base(binned.workspace, storage).state
    bins = bins_of(state.role(f"{PRODUCT}-builds"))
    assert bins is not None
    home = bins.get_role_for_target(PATH)
    with pytest.raises(AssertionError, match=f"{home} is live and was not read"):
        artifact(state, PRODUCT, PATH)
    other = next(name for name in bins.get_roles() if name != home)
    check_loaded(state, other)
    state = read_bins(storage, state, [home])
    assert artifact(state, PRODUCT, PATH) is not None
    assert artifact(state, "sensor", PATH) is None


@pytest.mark.parametrize("says", ["nothing", "another meaning"])
def test_bins_that_do_not_say_what_the_role_in_one_piece_says_are_not_published(
    live: Lab, says: str
) -> None:
    """An artifact would be gone for every device and its sequence free, or be another one."""
    live.ok("product", "bins", PRODUCT, "--number", "16")
    ws = live.workspace
    [home] = [name for name in ws.staged_roles() if is_bin(name)]
    whole = parse(ws.staged_roles()[home], Targets, home).signed
    assert set(whole.targets) == {PATH}
    wrong = Targets(expires=whole.expires)
    if says != "nothing":
        wrong.targets = {PATH: deepcopy(whole.targets[PATH])}
        wrong.targets[PATH].unrecognized_fields["custom"]["version"] = "1.1"
    secrets = Secrets(ws.lab_passphrase.read_bytes().strip())
    write_role(ws, home, wrong, open_signers(ws, PRODUCT, secrets))
    done = live.run("publish")
    assert done.code == ExitCode.REFUSED
    assert f"the hash bins of {PRODUCT}-builds do not have {PATH} as it is live" in done.err
    assert "run the command that made them again" in done.err
    write_role(ws, home, whole, open_signers(ws, PRODUCT, secrets))
    live.ok("publish")
    assert live.fresh_device()[1] == "installs 1.0"


def test_the_number_of_bins_never_changes(binned: Lab) -> None:
    ws = binned.workspace
    builds = read_base(ws, ws.storage()).state.role(f"{PRODUCT}-builds")
    bins = bins_of(builds)
    assert builds is not None
    assert builds.delegations is not None
    assert bins is not None
    builds.version = 2
    more = SuccinctRoles(list(bins.keyids), bins.threshold, 7, bins.name_prefix)
    builds.delegations.succinct_roles = more
    secrets = Secrets(ws.lab_passphrase.read_bytes().strip())
    write_role(ws, f"{PRODUCT}-builds", builds, open_signers(ws, PRODUCT, secrets))
    done = binned.run("publish")
    assert done.code == ExitCode.REFUSED
    assert f"{PRODUCT}-builds has 128 hash bins, and 64 are live" in done.err
    assert f"remove .firmroot/staged/{PRODUCT}-builds.json" in done.err
    (ws.memory / f"staged/{PRODUCT}-builds.json").unlink()
    binned.ship("1.1")
    assert binned.fresh_device()[1] == "installs 1.1"


def test_two_products_with_bins_go_together(binned: Lab) -> None:
    binned.ok("product", "add", "sensor", "--hardware", "s-1", "--expect", "5000")
    binned.ok("sign")
    binned.ok("publish")
    file = binned.directory.parent / "s.img"
    file.write_bytes(b"sensor")
    binned.ok("firmware", "add", file, "-p", "sensor", "-V", "1", "--hardware", "s-1")
    binned.add("1.1")
    said = binned.ok("publish").out
    assert "sensor-builds 1" in said
    listed = [line.split()[0] for line in binned.ok("firmware", "list").out.splitlines() if line]
    assert {each for each in listed if "@" in each} == {
        f"{PRODUCT}@1.0",
        f"{PRODUCT}@1.1",
        "sensor@1",
    }


SEQUENCES = {
    "the first one": ((), {"1.0": 1}, ""),
    "any number is free where nothing is live": ((), {"1.0": 7}, ""),
    "above what is live": ((("1.0", 3),), {"1.1": 4}, ""),
    "a hole is left": ((("1.0", 3),), {"1.1": 9}, ""),
    "another file of what is live": ((("1.0", 3), ("1.1", 4)), {"1.0": 3}, ""),
    "what is live, under another number": ((("1.0", 3),), {"1.0": 4}, "3 is the one of that"),
    "the number of what is live": ((("1.0", 3),), {"1.1": 3}, "3 is the highest that is live"),
    "below what is live": ((("1.0", 3),), {"1.1": 2}, "3 is the highest that is live"),
    "one number for two": ((("1.0", 3),), {"1.1": 4, "1.2": 4}, "which is not free"),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_sequence_is_of_one_version_and_above_what_is_live(name: str) -> None:
    live, new, refused = SEQUENCES[name]
    index = [Release(version, sequence, ()) for version, sequence in live]
    targets = {each: entry(each, each, sequence) for each, sequence in new.items()}
    if not refused:
        found = check_releases(PRODUCT, index, targets)
        assert {each.version: each.sequence for each in found} == new
        return
    with pytest.raises(TakenSequenceError, match=refused):
        check_releases(PRODUCT, index, targets)


def test_an_index_is_not_made_from_bins_that_nobody_read(binned: Lab) -> None:
    binned.add("1.1")
    ws, storage = binned.workspace, binned.workspace.storage()
    base = read_base(ws, storage).state
    [role] = ws.staged_roles()
    admitted = Admitted(base, roles=ws.staged_roles())
    assert [each[0] for each in next_index(admitted)[PRODUCT]] == ["1.1", "1.0"]
    snapshot = base.parsed_snapshot()
    assert snapshot is not None
    [home] = [name for each in snapshot.meta if is_bin(name := each.removesuffix(".json"))]
    admitted = Admitted(base, roles={home: ws.staged_roles()[role]})
    with pytest.raises(AssertionError, match=f"{home} is live and was not read"):
        next_index(admitted)


def test_what_is_left_out_on_purpose_leaves_the_index(binned: Lab) -> None:
    ws, storage = binned.workspace, binned.workspace.storage()
    base = read_base(ws, storage).state
    bins = bins_of(base.role(f"{PRODUCT}-builds"))
    assert bins is not None
    home = bins.get_role_for_target(PATH)
    base = read_bins(storage, base, [home])
    live = base.role(home)
    assert live is not None
    secrets = Secrets(ws.lab_passphrase.read_bytes().strip())
    for signed, left in ((live, [["1.0", 1, ["firmware.img"]]]), (without(live, ["1.0"]), [])):
        signed.version = 2
        write_role(ws, home, signed, open_signers(ws, PRODUCT, secrets))
        assert next_index(Admitted(base, roles=ws.staged_roles())).get(PRODUCT, []) == left


def test_a_product_in_one_piece_has_no_index(following: Lab) -> None:
    following.ok("publish")
    snapshot = read_base(following.workspace, following.workspace.storage()).state.parsed_snapshot()
    assert snapshot is not None
    assert PRODUCT not in snapshot.unrecognized_fields.get(FIELD, {})


def test_what_is_live_in_a_bin_is_known_and_goes_on_from_there(binned: Lab) -> None:
    builds = read_builds(binned.workspace, binned.workspace.storage(), PRODUCT, Near(every=True))
    [live] = builds.loaded
    assert PATH in live.targets
    assert set(builds.known) == set(builds.targets) == {PATH}


@pytest.mark.parametrize("new", [(), ("builds",), ("targets",), ("builds", "targets")])
def test_who_must_sign_again_is_told_only_where_targets_alone_brings_other_keys(
    new: tuple[str, ...],
) -> None:
    """Bins that are new have the keys that somebody chose for them: that is no accident of time."""
    above = f"{PRODUCT}-builds"
    admitted = Admitted(
        RepositoryState(), roles={each.replace("builds", above): b"" for each in new}
    )
    expected = ActionRequiredError if new == ("targets",) else RefusedError
    with pytest.raises(expected):
        _check_keys(admitted, above, Targets(), Targets())
