"""A directory of firmware in one go: every name looked at first, one signature each, resumed."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from tuf.api.metadata import Targets

from client_reference.errors import ConfigurationError
from repo_tools.metadata.bins import bins_of
from repo_tools.metadata.edits import without
from repo_tools.metadata.repository import parse
from repo_tools.publishing import bulk
from repo_tools.publishing.artifacts import copy_in
from repo_tools.publishing.bulk import find
from repo_tools.publishing.firmware import open_signers, write_role
from repo_tools.publishing.live import read_bins
from repo_tools.publishing.prepare import read_base
from repo_tools.publishing.rehearse import Outcome
from repo_tools.signing.secrets import Secrets
from repo_tools.workspace import Workspace
from tests.publishing.lab import HARDWARE, PRODUCT, Lab, image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

large = pytest.mark.services  # whole lives of a repository, beside the large matrices
VERSIONS = [f"2.{number}" for number in range(12)]


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    """A dozen releases; one is longer than a segment."""
    top = tmp_path / "releases"
    for version in VERSIONS:
        (top / version).mkdir(parents=True)
        length = 1_200_000 if version == "2.11" else 700
        (top / version / "gw.img").write_bytes(image(version, length))
    return top


def _import(lab: Lab, directory: Path) -> str:
    return lab.ok("firmware", "import", directory, "-p", PRODUCT, "--hardware", HARDWARE).out


def _ship(lab: Lab) -> None:
    lab.ok("publish")
    lab.promote("2.11")
    assert "0 devices stranded" in lab.ok("publish").out
    lab.ok("verify")
    assert lab.fresh_device() == (Outcome.UPDATES, "installs 2.11")


@large
def test_a_directory_is_imported_into_bins_each_signed_once(
    binned_moments: dict[str, Lab], tmp_path: Path, releases: Path
) -> None:
    lab = binned_moments["live"].copy(tmp_path / "acme")
    root = (lab.directory / "metadata/root/1.json").read_bytes()
    (tmp_path / "factory-root.json").write_bytes(root)
    said = _import(lab, releases)
    assert "12 artifacts of 12 releases added" in said
    staged = sorted(path.stem for path in (lab.workspace.memory / "staged").glob("*.json"))
    assert f"signed: {len(staged)} of" in said
    assert all("_" in name for name in staged)
    # Whatever bin it lies in: the order of their names is none of releases.
    assert f"next: firmroot channel promote {PRODUCT}@2.11 --to stable" in said
    listed = lab.ok("--json", "firmware", "list").json["firmware"]
    sequences = {each["version"]: each["sequence"] for each in listed}
    assert [sequences[each] for each in VERSIONS] == list(range(2, 14)), "2.10 comes after 2.9"
    _ship(lab)
    looks = patch.object(
        Workspace, "staged_targets", autospec=True, side_effect=Workspace.staged_targets
    )
    with looks as looked:
        again = _import(lab, releases)
    assert "0 artifacts of 0 releases added, 0 bytes; 12 were there already" in again
    assert looked.call_count <= 2, "not one look at all that waits for each file"


@large
def test_a_directory_is_imported_into_a_role_in_one_file(live: Lab, releases: Path) -> None:
    assert "12 artifacts of 12 releases added" in _import(live, releases)
    _ship(live)


@large
def test_an_interrupted_import_goes_on_with_the_next_file(live: Lab, releases: Path) -> None:
    copied: list[Path] = []
    original = copy_in

    def dies(source: Path, *arguments: object) -> object:
        if len(copied) == 5:
            raise KeyboardInterrupt
        copied.append(source)
        return original(source, *arguments)  # type: ignore[arg-type]  # passed on as they are

    with patch.object(bulk, "copy_in", dies):
        done = live.run("firmware", "import", releases, "-p", PRODUCT, "--hardware", HARDWARE)
    assert done.code == 130
    assert not list((live.workspace.memory / "staged").glob("*.json")), "nothing was signed"
    (releases / "2.0" / "gw.img").write_bytes(image("changed since", 700))
    with patch.object(bulk, "copy_in", wraps=original) as again:
        assert "12 artifacts of 12 releases added" in _import(live, releases)
    # The first file changed, and seven were not copied yet.
    assert [call.args[0].parent.name for call in again.call_args_list] == ["2.0", *VERSIONS[5:]]
    _ship(live)


@large
def test_a_file_that_changed_right_after_its_copy_is_read_again(live: Lab, releases: Path) -> None:
    original = copy_in

    @contextmanager
    def overtaken(source: Path, *more: object) -> Iterator[object]:
        with original(source, *more) as incoming:  # type: ignore[arg-type]  # passed on as they are
            if source.parent.name == "2.3":
                source.write_bytes(image("changed since", 700))
            yield incoming

    with (
        patch.object(bulk, "copy_in", overtaken),
        patch.object(bulk, "stage_flat", side_effect=KeyboardInterrupt),
    ):
        done = live.run("firmware", "import", releases, "-p", PRODUCT, "--hardware", HARDWARE)
    assert done.code == 130
    for read in (["2.3"], []):  # what was noted is noted again as it was
        with (
            patch.object(bulk, "copy_in", wraps=original) as again,
            patch.object(bulk, "stage_flat", side_effect=KeyboardInterrupt),
        ):
            live.run("firmware", "import", releases, "-p", PRODUCT, "--hardware", HARDWARE)
        assert [call.args[0].parent.name for call in again.call_args_list] == read
    _import(live, releases)
    _ship(live)


@large
def test_a_copy_that_was_lost_meanwhile_is_made_again(live: Lab, releases: Path) -> None:
    with patch.object(bulk, "stage_flat", side_effect=KeyboardInterrupt):
        done = live.run("firmware", "import", releases, "-p", PRODUCT, "--hardware", HARDWARE)
    assert done.code == 130
    for path in (live.workspace.outbox / "targets/builds" / PRODUCT / "2.3").iterdir():
        path.unlink()
    for path in (live.workspace.outbox / "targets/builds" / PRODUCT / "2.11").glob("*.segments"):
        path.write_bytes(b"half")
    _import(live, releases)
    _ship(live)


def test_every_name_that_is_wrong_is_named_and_nothing_is_copied(live: Lab, releases: Path) -> None:
    (releases / "stray.img").write_bytes(b"x")
    (releases / "2.0" / "deeper").mkdir()
    (releases / "2.0" / "deeper" / "a.img").write_bytes(b"x")
    (releases / "2.0" / "-a.img").write_bytes(b"x")
    (releases / "2.0" / "empty.img").touch()
    (releases / "2.0" / "link.img").symlink_to("gw.img")
    (releases / "no version").mkdir()
    (releases / "no version" / "a.img").write_bytes(b"x")
    done = live.run("firmware", "import", releases, "-p", PRODUCT, "--hardware", HARDWARE)
    assert done.code == 2
    for name in (
        "stray.img",
        "deeper/a.img",
        "-a.img",
        "empty.img",
        "link.img",
        "no version/a.img",
    ):
        assert f"{name}: " in done.err
    assert "6 of 18 files cannot be imported" in done.err
    assert not live.workspace.outbox.exists() or not list(live.workspace.outbox.rglob("*.img"))


def test_what_a_link_or_a_pipe_leads_to_is_not_imported(releases: Path) -> None:
    """A link to a directory would be passed over without a word, with all that is in it."""
    (releases / "3.0").symlink_to("2.0")
    os.mkfifo(releases / "2.0" / "pipe.img")
    with pytest.raises(ConfigurationError) as caught:
        find(releases, PRODUCT, frozenset({HARDWARE}), "slot")
    for name in ("3.0", "2.0/pipe.img"):
        assert f"\n       {name}: expected a regular file VERSION/FILE" in caught.value.message
    (releases / "3.0").unlink()
    (releases / "2.0" / "pipe.img").unlink()
    assert len(find(releases, PRODUCT, frozenset({HARDWARE}), "slot")) == 12


@pytest.mark.parametrize("wrong", [20, 21, 23])
def test_of_names_that_are_wrong_twenty_are_named_and_the_others_counted(
    tmp_path: Path, wrong: int
) -> None:
    for number in range(wrong):
        (tmp_path / f"stray-{number}").write_bytes(b"x")
    with pytest.raises(ConfigurationError, match=f"{wrong} of {wrong} files") as caught:
        find(tmp_path, PRODUCT, frozenset({HARDWARE}), "slot")
    assert caught.value.message.count("expected a regular file") == 20
    rest = caught.value.message.partition("stray-19: expected a regular file VERSION/FILE")[2]
    assert rest == (f"\n       and {wrong - 20} more" if wrong > 20 else "")


def test_a_directory_for_hardware_that_nobody_has_is_not_copied(live: Lab, releases: Path) -> None:
    done = live.run("firmware", "import", releases, "-p", PRODUCT, "--hardware", "acme,gw-9")
    assert (done.code, "gateway has no hardware acme,gw-9" in done.err) == (2, True)
    assert not live.workspace.outbox.exists() or not list(live.workspace.outbox.rglob("*.img"))


def test_a_directory_that_is_none_or_has_nothing_is_refused(tmp_path: Path) -> None:
    for path, message in ((tmp_path / "none", "is not a directory"), (tmp_path, "no file below")):
        with pytest.raises(ConfigurationError, match=message):
            find(path, PRODUCT, frozenset({HARDWARE}), "slot")


def test_two_files_of_a_version_are_for_one_board_and_nothing_is_copied(
    live: Lab, releases: Path
) -> None:
    """Of a directory as large as a life of releases, the last one would be told after hours."""
    for name in ("other.img", "z.img"):
        (releases / "2.11" / name).write_bytes(b"x")
    done = live.run("firmware", "import", releases, "-p", PRODUCT, "--hardware", HARDWARE)
    assert (done.code, "2 of 14 files cannot be imported" in done.err) == (2, True)
    for name in ("other.img", "z.img"):
        said = f"2.11/{name}: gw.img of this version is for the same hardware already"
        assert said in done.err
        (releases / "2.11" / name).unlink()
    assert not live.workspace.outbox.exists() or not list(live.workspace.outbox.rglob("*.img"))
    assert len(find(releases, PRODUCT, frozenset({HARDWARE}), "slot")) == 12


@large
def test_a_file_for_a_board_that_has_one_in_that_version_is_refused(
    live: Lab, releases: Path
) -> None:
    _import(live, releases)
    (releases / "2.4" / "gw.img").rename(releases / "2.4" / "other.img")
    done = live.run("firmware", "import", releases, "-p", PRODUCT, "--hardware", HARDWARE)
    assert (done.code, "gateway@2.4 already has" in done.err) == (5, True)
    (releases / "2.4" / "other.img").unlink()
    _import(live, releases)
    _ship(live)


@large
def test_a_file_for_another_board_gets_the_sequence_that_its_version_has(
    live: Lab, tmp_path: Path
) -> None:
    live.ok("product", "add", PRODUCT, "--hardware", "acme,gw-3")
    for version in ("1.0", "1.1"):
        (tmp_path / "more" / version).mkdir(parents=True)
        (tmp_path / "more" / version / "gw3.img").write_bytes(image(version, 700))
    live.ok("firmware", "import", tmp_path / "more", "-p", PRODUCT, "--hardware", "acme,gw-3")
    listed = live.ok("--json", "firmware", "list").json["firmware"]
    assert sorted((each["version"], each["sequence"]) for each in listed) == [
        ("1.0", 1),
        ("1.0", 1),
        ("1.1", 2),
    ]


@large
def test_a_signed_file_whose_copy_was_lost_is_copied_again(live: Lab, releases: Path) -> None:
    _import(live, releases)
    for path in (live.workspace.outbox / "targets/builds" / PRODUCT).rglob("*"):
        if path.is_file():
            path.unlink()
    assert "12 were there already" in _import(live, releases)
    _ship(live)


@large
@pytest.mark.parametrize("lost", ["the end of the copy", "nothing"])
def test_what_was_copied_is_taken_up_whole(live: Lab, releases: Path, lost: str) -> None:
    with patch.object(bulk, "stage_flat", side_effect=KeyboardInterrupt):
        done = live.run("firmware", "import", releases, "-p", PRODUCT, "--hardware", HARDWARE)
    assert done.code == 130
    [copy] = (live.workspace.outbox / "targets/builds" / PRODUCT / "2.11").glob("*.gw.img")
    whole = copy.read_bytes()
    copy.write_bytes(whole[:-1] if lost != "nothing" else whole)
    with patch.object(bulk, "copy_in", wraps=copy_in) as again:
        _import(live, releases)
    assert again.call_count == (lost != "nothing")
    builds = live.workspace.staged_roles()[f"{PRODUCT}-builds"]
    assert f"builds/{PRODUCT}/2.11/gw.img.segments".encode() in builds
    assert copy.read_bytes() == whole
    _ship(live)


@large
def test_a_role_in_one_piece_stays_one_though_the_product_is_to_have_bins(
    live: Lab, releases: Path
) -> None:
    """A role that is live is cut by a command of its own, with every artifact."""
    config = live.directory / "firmroot.toml"
    text = config.read_text()
    section = f"[products.{PRODUCT}]\n"
    assert section in text
    config.write_text(text.replace(section, f"{section}bins = 64\n"))
    _import(live, releases)
    builds = live.workspace.staged_roles()[f"{PRODUCT}-builds"]
    assert f"builds/{PRODUCT}/2.11/gw.img.segments".encode() in builds
    _ship(live)


@large
def test_a_version_that_was_left_out_on_purpose_comes_back_with_its_sequence(
    binned: Lab, tmp_path: Path
) -> None:
    """What is left out no longer says which number it had; the index does."""
    path = f"builds/{PRODUCT}/1.0/firmware.img"
    ws = binned.workspace
    base = read_base(ws, ws.storage()).state
    bins = bins_of(base.role(f"{PRODUCT}-builds"))
    assert bins is not None
    home = bins.get_role_for_target(path)
    live = read_bins(ws.storage(), base, [home]).role(home)
    assert live is not None
    left = without(live, ["1.0"])
    left.version = 2
    secrets = Secrets(ws.lab_passphrase.read_bytes().strip())
    write_role(ws, home, left, open_signers(ws, PRODUCT, secrets))
    (tmp_path / "again/1.0").mkdir(parents=True)
    (tmp_path / "again/1.0/mended.img").write_bytes(image("mended", 700))
    _import(binned, tmp_path / "again")
    found = [
        (path, (target.custom or {})["sequence"])
        for role, data in ws.staged_roles().items()
        for path, target in parse(data, Targets, role).signed.targets.items()
    ]
    assert found == [(f"builds/{PRODUCT}/1.0/mended.img", 1)]
