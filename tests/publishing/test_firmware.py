"""What is known about firmware before and after a publish, and what is told about it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Targets

from client_reference.errors import ActionRequiredError, NotTrustedError
from repo_tools.metadata.bins import Release, bins_of, delegating, listed_bins
from repo_tools.metadata.edits import DROPPED_FIELD, without
from repo_tools.metadata.repository import RepositoryState, parse
from repo_tools.publishing import firmware
from repo_tools.publishing.cache import NO_CACHE
from repo_tools.publishing.firmware import (
    Builds,
    Near,
    begun,
    left_out,
    open_signers,
    read_builds,
    stage_bins,
    write_role,
)
from repo_tools.publishing.live import read_bins
from repo_tools.signing.secrets import Secrets
from tests.publishing.lab import HARDWARE, NOW, PRODUCT, Lab, entry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from securesystemslib.signer import Signer

    from keys_policy.model import KeyHolder


def states(lab: Lab) -> list[tuple[str, str]]:
    rows = lab.ok("--json", "firmware", "list").json["firmware"]
    return [(row["version"], row["state"]) for row in rows]


def test_what_another_machine_published_first_of_all_is_seen(
    ready: Lab, moments: dict[str, Lab]
) -> None:
    """Its root is here, signed and not known to be published."""
    assert states(ready) == [("1.0", "waits for publish")]
    shutil.copytree(moments["live"].repository, ready.repository, dirs_exist_ok=True)
    assert states(ready) == [("1.0", "published")]


def test_before_any_root_is_signed_there_is_no_firmware(new: Lab) -> None:
    (new.directory / "staged/root.json").unlink()
    builds = read_builds(new.workspace, new.workspace.storage(), PRODUCT)
    assert (builds.live, builds.staged, builds.version) == (None, None, 0)


def test_what_another_tool_signed_without_a_meaning_takes_no_sequence(following: Lab) -> None:
    staged = following.directory / ".firmroot/staged/gateway-builds.json"
    document = json.loads(staged.read_bytes())
    bare = {"length": 1, "hashes": {"sha256": "00" * 32}}
    document["signed"]["targets"]["builds/gateway/0.9/notes"] = bare
    staged.write_text(json.dumps(document))
    builds = read_builds(following.workspace, following.workspace.storage(), PRODUCT)
    assert "builds/gateway/0.9/notes" in builds.targets
    assert "sequence 3" in following.add("1.2").out


@pytest.mark.parametrize("declared", [True, False])
def test_an_unknown_product_is_told_those_that_there_are(
    new: Lab, tmp_path: Path, *, declared: bool
) -> None:
    config = new.directory / "firmroot.toml"
    if not declared:
        config.write_text(config.read_text().partition("[products")[0])
    file = tmp_path / "gw2.img"
    file.write_bytes(b"firmware")
    done = new.run("firmware", "add", file, "-p", "router", "-V", "1", "--hardware", HARDWARE)
    assert done.code == 2
    there = PRODUCT if declared else "none"
    assert f"there is no product 'router'; there is: {there}\n" in done.err


def test_bytes_that_wait_already_are_not_written_again(following: Lab) -> None:
    outbox = following.directory / ".firmroot/outbox"
    before = {path: path.stat().st_ino for path in outbox.rglob("*") if path.is_file()}
    assert before
    assert "is there already" in following.add("1.1").out
    assert {path: path.stat().st_ino for path in outbox.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("suffix", [".img", ".segments"])
@pytest.mark.parametrize("left", [None, 10])
def test_what_waits_and_was_damaged_is_mended_by_adding_it_again(
    following: Lab, suffix: str, left: int | None
) -> None:
    """A publish that refuses it says so; it must be true."""
    (waits,) = (following.directory / ".firmroot/outbox").rglob("*" + suffix)
    whole = waits.read_bytes()
    waits.write_bytes(whole[:left])
    if left is None:
        waits.unlink()
    following.ok("channel", "promote", f"{PRODUCT}@1.1", "--to", "stable")
    following.ok("sign")
    done = following.run("publish")
    assert done.code == 5
    assert "add" in done.err
    assert "is there already" in following.add("1.1").out
    assert waits.read_bytes() == whole
    following.ok("publish")


def _read(lab: Lab, near: Near = firmware.NEAR, product: str = PRODUCT) -> Builds:
    return read_builds(lab.workspace, lab.workspace.storage(), product, near)


def _signers(lab: Lab) -> list[tuple[Signer, KeyHolder]]:
    ws = lab.workspace
    return open_signers(ws, PRODUCT, Secrets(ws.lab_passphrase.read_bytes().strip()))


def _path(version: str, name: str = "firmware.img") -> str:
    return f"builds/{PRODUCT}/{version}/{name}"


def _home(builds: Builds, path: str) -> str:
    bins = builds.bins
    assert bins is not None
    return bins.get_role_for_target(path)


def test_nobody_here_vouches_again_for_what_the_next_version_leaves_out(live: Lab) -> None:
    builds = _read(live)
    assert set(builds.targets) == {_path("1.0"), _path("1.0") + ".segments"}
    assert builds.live is not None
    less = without(builds.live, ["1.0"])
    less.version = 2
    write_role(live.workspace, f"{PRODUCT}-builds", less, _signers(live))
    builds = _read(live)
    assert not builds.targets
    assert _path("1.0") in builds.known


def test_a_channel_that_waits_is_no_piece_of_a_product_of_its_name(following: Lab) -> None:
    assert f"{PRODUCT}-stable" in following.workspace.staged_roles()
    assert not _read(following, product=f"{PRODUCT}-stable").pieces


def test_a_bin_that_waits_is_a_piece_of_its_own_product_only(binned: Lab) -> None:
    binned.add("1.1")
    builds = _read(binned)
    assert set(builds.pieces) == {_home(builds, _path("1.1"))}
    assert not _read(binned, product="sensor").pieces


# Hash bins: which of them are read.

NEWEST = Release("1.640", 640, ("a.img", "b", "c"))
OLDER = Release("1.639", 639, ("d", "e"))
WANTED: dict[str, tuple[Near, tuple[Release, ...], set[str] | None]] = {
    "of the newest release one": (Near(), (NEWEST, OLDER), {"1.640/a.img"}),
    "of a version all its files": (
        Near(versions=("1.639",)), (NEWEST, OLDER), {"1.640/a.img", "1.639/d", "1.639/e"},
    ),
    "of the newest all its files, if that is the version": (
        Near(versions=("1.640",)), (NEWEST, OLDER), {"1.640/a.img", "1.640/b", "1.640/c"},
    ),
    "of a path": (Near(paths=(_path("9", "x"),)), (NEWEST, OLDER), {"1.640/a.img", "9/x"}),
    "of every release of the index": (
        Near(recent=True),
        (NEWEST, OLDER),
        {"1.640/a.img", "1.640/b", "1.640/c", "1.639/d", "1.639/e"},
    ),
    "every one, for who asks so": (Near(every=True), (NEWEST, OLDER), None),
    "every one, if there is no index": (Near(), (), None),
}  # fmt: skip


def test_no_bin_is_read_that_nobody_asked_for(
    binned_moments: dict[str, Lab], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = binned_moments["many"].copy(tmp_path / "acme")
    asked: list[str] = []
    caches: list[object] = []

    def recorded(storage: Any, state: Any, names: Any, cache: Any) -> RepositoryState:  # noqa: ANN401  as they came
        asked[:], caches[:] = names, [cache]
        return read_bins(storage, state, asked, cache)

    monkeypatch.setattr(firmware, "read_bins", recorded)
    for case, (near, index, files) in WANTED.items():
        monkeypatch.setattr(firmware, "read_index", lambda *_, index=index: index)
        builds = _read(lab, near)
        bins = bins_of(builds.live)
        assert bins is not None
        every = listed_bins(builds.state.parsed_snapshot(), bins)
        homes = {bins.get_role_for_target(f"builds/{PRODUCT}/{each}") for each in files or ()}
        assert set(asked) == (set(every) if files is None else homes), case
        assert (caches == [NO_CACHE]) == near.every, f"{case}: who asks for all trusts no cache"
        assert all(path.startswith("builds/") for path in builds.known), case


LIES: dict[str, Callable[[str], Release]] = {
    "a sequence that no builder gave": lambda _: Release("1.0", 999, ("firmware.img",)),
    "a file that its bin does not list": lambda home: Release("8", 2, (_named("8", home),)),
    "a file of a bin that was never written": lambda _: Release("7", 2, ("firmware.img",)),
}
_BINS = delegating(PRODUCT, 64, [CryptoSigner.generate_ed25519().public_key], 1, NOW)


def _named(version: str, home: str) -> str:
    """The name of a file of that version for which that bin speaks."""
    bins = bins_of(_BINS)
    assert bins is not None
    names = (f"{number}.img" for number in range(10_000))
    return next(n for n in names if bins.get_role_for_target(_path(version, n)) == home)


@pytest.mark.parametrize("case", LIES)
def test_the_newest_release_of_the_index_is_not_believed_with(
    case: str, binned: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thief of the snapshot's key would write the last sequence that there is."""
    builds = _read(binned)
    lie = LIES[case](_home(builds, _path("1.0")))
    with monkeypatch.context() as patched:
        patched.setattr(firmware, "read_index", lambda *_: (lie,))
        with pytest.raises(NotTrustedError, match=f"sequence {lie.sequence}, and no builder said"):
            _read(binned)
    assert "sequence 2" in binned.add("1.1").out


# Hash bins: how they are written.


def test_a_role_that_has_bins_from_the_start_is_written_once(new: Lab) -> None:
    new.ok("product", "bins", PRODUCT, "--number", "64")
    new.add("1.0")
    role = new.directory / f".firmroot/staged/{PRODUCT}-builds.json"
    before = role.read_bytes()
    builds = _read(new)
    home = _home(builds, _path("1.0"))
    later = new.later(hours=1)
    file = new.directory.parent / _named("1.1", home)
    file.write_bytes(b"the next one")
    later.ok("firmware", "add", file, "-p", PRODUCT, "-V", "1.1", "--hardware", HARDWARE)
    assert role.read_bytes() == before
    piece = _read(later).pieces[home]
    assert set(piece.targets) == {_path("1.0"), _path("1.1", file.name)}, "neither is forgotten"
    assert piece.version == 2
    assert piece.expires == parse(before, Targets, PRODUCT).signed.expires
    later.promote("1.1")
    later.ok("publish")
    assert later.fresh_device()[1] == "installs 1.1"


def test_bins_begin_only_where_there_is_nothing_yet(binned: Lab) -> None:
    ws, builds = binned.workspace, _read(binned)
    target = entry(_path("0.9"), "0.9", 1)
    for there in (builds, replace(builds, live=None, staged=builds.live)):
        assert begun(ws, PRODUCT, there, [], binned.now) == there
    carried = Builds(None, None, {target.path: target})
    assert begun(ws, PRODUCT, carried, [], binned.now) == carried
    assert ws.staged_roles() == {}
    first = begun(ws, PRODUCT, Builds(None, None), _signers(binned), binned.now)
    assert first.bins is not None
    assert set(ws.staged_roles()) == {f"{PRODUCT}-builds"}


def test_a_bin_ends_with_its_role(binned: Lab) -> None:
    builds, signers = _read(binned), _signers(binned)
    assert builds.live is not None
    target, ends = entry(_path("1.1"), "1.1", 2), builds.live.expires
    with pytest.raises(ActionRequiredError, match="and its hash bins end with it"):
        stage_bins(binned.workspace, PRODUCT, builds, [target], signers, ends)
    before = ends - timedelta(seconds=1)
    (name,) = stage_bins(binned.workspace, PRODUCT, builds, [target], signers, before)
    assert _read(binned).pieces[name].expires == ends


def test_a_role_in_one_piece_has_no_bins_to_write(live: Lab) -> None:
    target = entry(_path("1.0", "b"), "1.0", 1)
    with pytest.raises(AssertionError, match="gateway has no hash bins"):
        stage_bins(live.workspace, PRODUCT, _read(live), [target], [], live.now)


def test_a_bin_that_was_not_read_is_not_written(binned: Lab) -> None:
    builds = _read(binned)
    home = _home(builds, _path("1.0"))
    target = entry(_path("1.0", _named("1.0", home)), "1.0", 1)
    rest = {name: data for name, data in builds.state.roles.items() if name != home}
    unread = replace(builds, state=replace(builds.state, roles=rest))
    with pytest.raises(AssertionError, match=f"{home} is live and was not read"):
        stage_bins(binned.workspace, PRODUCT, unread, [target], [], binned.now)
    signers = _signers(binned)
    assert stage_bins(binned.workspace, PRODUCT, builds, [target], signers, binned.now) == (home,)


class Bytes:
    """Of a workspace, whether the bytes of a target wait in it."""

    def __init__(self, *, wait: bool) -> None:
        self.wait = wait

    def waiting(self, _: str) -> str | None:
        """See `Workspace.waiting`."""
        return "outbox" if self.wait else None


@pytest.mark.parametrize(
    ("version", "has", "waits", "out"),
    [
        (3, True, True, {"old", "other"}),
        (2, True, True, {"old", "other"}),
        (4, True, True, {"other"}),
        (4, True, False, {"old", "other"}),
        (4, False, True, {"old", "other"}),
    ],
    ids=["as new", "older", "added again", "without its bytes", "not named"],
)
def test_what_was_dropped_elsewhere_is_news_only_if_it_was_added_on_top_of_that(
    version: int, out: set[str], *, has: bool, waits: bool
) -> None:
    """Attack: a thief's build was dropped, and comes back with what was signed here before."""
    paths = {name: f"builds/{PRODUCT}/{name}/firmware.img" for name in ("old", "other")}
    live = Targets(3, unrecognized_fields={DROPPED_FIELD: list(paths.values())})
    named = {paths["old"]: entry(paths["old"], "old", 7)} if has else {}
    staged = Targets(version, targets=named)
    ws: Any = Bytes(wait=waits)
    assert left_out(ws, live, staged) == {paths[name] for name in out}
    assert left_out(ws, None, staged) == left_out(ws, live, None) == frozenset()
