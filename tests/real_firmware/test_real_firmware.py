"""Two consecutive versions of real firmware, from the file to the confirmed slot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.field import lab, new_device, required, serving
from tests.real_firmware import debian
from tests.real_firmware.made import consecutive_images

if TYPE_CHECKING:
    from pathlib import Path

# Sizes of the real ones: several segments with a short last one, and a file below one segment.
MADE = {"like grub, 4.3 MB": 4_358_144, "like u-boot, 0.6 MB": 602_504}


def walk(scratch: Path, older: Path, newer: Path) -> None:
    """Ship and install the older, then the newer; each slot holds exactly what was shipped."""
    release = lab(scratch)
    release.ship(older, "1.0")
    with serving(release) as url:
        device = new_device(release, scratch / "device", url)
        device.run("update")
        assert device.slot("B") == older.read_bytes()
        device.run("confirm")
        release.ship(newer, "1.1")
        device.run("update")
        assert device.slot("A") == newer.read_bytes()
        assert device.slot("B") == older.read_bytes()
        device.run("confirm")
        status = device.run("status")
        assert status["installed"]["version"] == "1.1"
        assert status["phase"] == "idle"


@pytest.mark.parametrize("size", MADE.values(), ids=MADE)
def test_images_made_here_reach_the_device(tmp_path: Path, size: int) -> None:
    older, newer = tmp_path / "older.img", tmp_path / "newer.img"
    for path, content in zip((older, newer), consecutive_images("made", size), strict=True):
        path.write_bytes(content)
    walk(tmp_path, older, newer)


@pytest.mark.services
@pytest.mark.parametrize("name", debian.FIRMWARE)
def test_consecutive_debian_packages_reach_the_device(tmp_path: Path, name: str) -> None:
    firmware = debian.FIRMWARE[name]
    try:
        older, newer = debian.consecutive(firmware)
    except debian.UnavailableError as error:
        pytest.skip(required(f"no real {name}, images made here are used instead: {error}"))
    print(f"\n{firmware.package}: {older.version} -> {newer.version}")
    walk(tmp_path, older.path, newer.path)


def test_made_images_are_the_same_everywhere() -> None:
    assert consecutive_images("made", 10_000) == consecutive_images("made", 10_000)
    older, newer = consecutive_images("made", 1 << 20)
    assert len(older) == 1 << 20
    shared = {older[i : i + 4096] for i in range(0, len(older), 4096)}
    assert sum(newer.count(block) > 0 for block in shared) > 0.8 * len(shared)


DEB822 = """Types: deb deb-src
URIs: mirror+file:/etc/apt/mirrors/debian.list
Suites: bookworm bookworm-updates
Architectures: amd64
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg"""


def test_sources_of_the_machine_are_widened_to_neighbouring_suites() -> None:
    stanza = debian._with_neighbours(DEB822)
    assert "Suites: bookworm bookworm-updates bullseye trixie" in stanza
    assert "Architectures" not in stanza
    assert stanza.count("Types:") == 1
    assert "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg" in stanza


def test_sources_that_are_not_debian_are_left_out() -> None:
    assert debian._with_neighbours(DEB822.replace("bookworm", "nodistro")) == ""
    assert debian._lines_with_neighbours("deb cdrom:/ nodistro main") == []


def test_one_line_sources_are_understood() -> None:
    line = "deb [arch=amd64 signed-by=/k.gpg] copy:/srv/debian bookworm main contrib"
    assert debian._lines_with_neighbours(line) == [
        f"deb [signed-by=/k.gpg] copy:/srv/debian {suite} main" for suite in debian.SUITES
    ]


VERSIONS = {
    "the pinned pair, when it is there": (["1", "2", "3"], ("1", "2")),
    "else the two newest": (["2", "3", "4"], ("3", "4")),
}


@pytest.mark.parametrize(("offered", "pair"), VERSIONS.values(), ids=VERSIONS)
def test_which_versions_are_taken(offered: list[str], pair: tuple[str, str]) -> None:
    firmware = debian.Firmware("p", "m", ("1", "2"))
    assert debian._pair(firmware, offered) == pair


def test_one_version_is_not_enough() -> None:
    with pytest.raises(debian.UnavailableError, match="two needed"):
        debian._pair(debian.Firmware("p", "m", ("1", "2")), ["2"])


def test_a_failing_apt_says_what_it_said() -> None:
    with pytest.raises(debian.UnavailableError, match="dpkg-deb"):
        debian._run("dpkg-deb", "--extract", "/nowhere.deb", "/nowhere")
