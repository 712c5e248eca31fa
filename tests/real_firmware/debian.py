"""Two consecutive firmware images of one kind, out of arm64 Debian packages.

Packages are fetched with apt into a private root of its own: own lists, own cache, architecture
arm64, and the sources of the machine itself, read when the test runs. Nothing is installed. Old
versions disappear from archives: the pinned pair is taken if it is there, otherwise the two newest
versions that the suites still offer.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FIRMWARE", "Firmware", "ImageFile", "UnavailableError", "consecutive"]

APT_SOURCES = Path("/etc/apt")
# Where the archive of the machine's own suite offers one version only, its neighbours are asked.
SUITES = ("bullseye", "bookworm", "trixie")
TIMEOUT = 300


class UnavailableError(Exception):
    """The packages cannot be had on this machine; says why."""


@dataclass(frozen=True)
class Firmware:
    """A kind of real firmware.

    Attributes:
        package: Debian package, arm64.
        member: the image within it.
        pinned: the pair of package versions to prefer, older first.
    """

    package: str
    member: str
    pinned: tuple[str, str]


@dataclass(frozen=True)
class ImageFile:
    """One image on this machine's disk, and the package version that it is from."""

    path: Path
    version: str


FIRMWARE = {
    "grub": Firmware(
        "grub-efi-arm64-bin",
        "usr/lib/grub/arm64-efi/monolithic/grubaa64.efi",
        ("2.06-13+deb12u1", "2.06-13+deb12u2"),
    ),
    "u-boot": Firmware(
        "u-boot-rpi",
        "usr/lib/u-boot/rpi_arm64/u-boot.bin",
        ("2023.01+dfsg-2+deb12u3", "2025.01-3+deb13u1"),
    ),
}


def cache() -> Path:
    """Where images stay between runs."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "firmroot" / "real-firmware"


def consecutive(firmware: Firmware) -> tuple[ImageFile, ImageFile]:
    """Two images of consecutive versions, older first.

    Raises:
        UnavailableError: no two versions can be had here.
    """
    kept = [_cached(firmware, version) for version in firmware.pinned]
    if all(kept):
        older, newer = firmware.pinned
        return _file(firmware, older), _file(firmware, newer)
    older, newer = _pair(firmware, _private_root().versions(firmware.package))
    return _fetch(firmware, older), _fetch(firmware, newer)


def _pair(firmware: Firmware, offered: list[str]) -> tuple[str, str]:
    if set(firmware.pinned) <= set(offered):
        return firmware.pinned
    if len(offered) < 2:
        raise UnavailableError(f"the archives offer {offered} of {firmware.package}, two needed")
    return offered[-2], offered[-1]


def _file(firmware: Firmware, version: str) -> ImageFile:
    name = f"{firmware.package}_{version}_{Path(firmware.member).name}"
    return ImageFile(cache() / name, version)


def _cached(firmware: Firmware, version: str) -> bool:
    return _file(firmware, version).path.is_file()


def _fetch(firmware: Firmware, version: str) -> ImageFile:
    image = _file(firmware, version)
    if not image.path.is_file():
        with tempfile.TemporaryDirectory() as scratch:
            package = _private_root().download(firmware.package, version, Path(scratch))
            tree = Path(scratch) / "tree"
            _run("dpkg-deb", "--extract", str(package), str(tree))
            image.path.parent.mkdir(parents=True, exist_ok=True)
            partial = image.path.with_suffix(".partial")
            shutil.copyfile(tree / firmware.member, partial)
            partial.replace(image.path)
    return image


class PrivateRoot:
    """An apt that knows arm64 only and touches nothing of the machine's."""

    def __init__(self, directory: Path) -> None:
        for name in ("state", "lists/partial", "cache/archives/partial", "sources"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        (directory / "state" / "status").touch()
        self._options = [
            "-q",
            *_option("APT::Architecture", "arm64"),
            *_option("APT::Architectures::", "arm64"),
            *_option("APT::Sandbox::User", ""),
            *_option("Acquire::Languages", "none"),
            *_option("Acquire::Retries", "2"),
            *_option("Dir::State", str(directory / "state")),
            *_option("Dir::State::status", str(directory / "state" / "status")),
            *_option("Dir::State::lists", str(directory / "lists")),
            *_option("Dir::Cache", str(directory / "cache")),
            *_option("Dir::Etc::sourcelist", "/dev/null"),
            *_option("Dir::Etc::sourceparts", str(directory / "sources")),
        ]
        _copy_sources(directory / "sources")
        # An archive that lacks one of the suites is no failure as long as others answered.
        _run("apt-get", *self._options, "update", check=False)

    def versions(self, package: str) -> list[str]:
        """Every version offered, oldest first."""
        rows = _run("apt-cache", *self._options, "madison", package).splitlines()
        found = {row.split("|")[1].strip() for row in rows if row.count("|") >= 2}
        return sorted(found, key=functools.cmp_to_key(_compare))

    def download(self, package: str, version: str, into: Path) -> Path:
        """Fetch one package file; apt verifies it against the archive's signed lists."""
        _run("apt-get", *self._options, "download", f"{package}={version}", cwd=into)
        return next(into.glob("*.deb"))


@functools.cache
def _private_root() -> PrivateRoot:
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise UnavailableError("this machine has no apt-get and dpkg-deb")
    return PrivateRoot(cache() / "apt")


def _copy_sources(into: Path) -> None:
    """The machine's Debian sources, for every suite that this test looks into."""
    count = 0
    for path in sorted(APT_SOURCES.glob("sources.list.d/*.sources")):
        stanzas = [_with_neighbours(s) for s in re.split(r"\n\s*\n", path.read_text())]
        (into / path.name).write_text("\n\n".join(s for s in stanzas if s) + "\n")
        count += sum(bool(s) for s in stanzas)
    lines = []
    for path in (APT_SOURCES / "sources.list", *APT_SOURCES.glob("sources.list.d/*.list")):
        text = path.read_text() if path.is_file() else ""
        lines += [new for line in text.splitlines() for new in _lines_with_neighbours(line)]
    (into / "machine.list").write_text("\n".join([*lines, ""]))
    if not count and not lines:
        raise UnavailableError(f"no Debian archive is configured in {APT_SOURCES}")


def _with_neighbours(stanza: str) -> str:
    suites = re.search(r"^Suites:(.*)$", stanza, re.MULTILINE)
    if not suites or not (named := set(suites[1].split())) or not _is_debian(named):
        return ""
    if named & set(SUITES):
        named |= set(SUITES)
    stanza = re.sub(r"^(Architectures|Types):.*\n?", "", stanza, flags=re.MULTILINE)
    stanza = stanza.replace(suites[0], f"Suites: {' '.join(sorted(named))}")
    return "Types: deb\n" + stanza.strip("\n")


def _lines_with_neighbours(line: str) -> list[str]:
    match = re.match(r"deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+", line)
    if not match or not _is_debian({match["suite"]}):
        return []
    options = [o for o in (match["options"] or "").split() if not o.startswith("arch=")]
    head = f"deb [{' '.join(options)}]" if options else "deb"
    suites = SUITES if match["suite"] in SUITES else (match["suite"],)
    return [f"{head} {match['uri']} {suite} main" for suite in suites]


def _is_debian(suites: set[str]) -> bool:
    return any(suite.split("-")[0] in SUITES for suite in suites)


def _option(name: str, value: str) -> tuple[str, str]:
    return "-o", f"{name}={value}"


def _compare(left: str, right: str) -> int:
    if left == right:
        return 0
    command = ["dpkg", "--compare-versions", left, "lt", right]
    return -1 if subprocess.run(command, check=False).returncode == 0 else 1


def _run(*command: str, cwd: Path | None = None, check: bool = True) -> str:
    try:
        done = subprocess.run(
            command, cwd=cwd, check=check, capture_output=True, text=True, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"{command[0]} did not end within {TIMEOUT} s") from error
    except subprocess.CalledProcessError as error:
        raise UnavailableError(f"{command[0]}: {error.stderr.strip()[-500:]}") from error
    return done.stdout
