"""The package of the refresh function: what is locked; the same sources give the same bytes."""

from __future__ import annotations

import os
import re
import zipfile
from typing import TYPE_CHECKING

from scripts.refresher_package import LOCK, TOP, write

if TYPE_CHECKING:
    from pathlib import Path


def pinned(file: Path) -> dict[str, str]:
    """The version of each library, by name."""
    return dict(re.findall(r"^([\w.-]+)==([\w.]+)", file.read_text(), re.MULTILINE))


def test_what_is_deployed_is_what_is_tested() -> None:
    deployed = pinned(LOCK)
    assert {"boto3", "botocore", "cryptography", "securesystemslib", "tuf"} <= set(deployed)
    tested = {**pinned(TOP / "requirements/dev.txt"), **pinned(TOP / "requirements/services.txt")}
    assert deployed.items() <= tested.items()
    # Every one with hashes, or pip would refuse them all.
    assert LOCK.read_text().count("--hash=sha256:") >= len(deployed)


def lay_out(top: Path, age: int, names: list[str]) -> Path:
    for name in names:
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
        path.chmod(0o600)
        os.utime(path, (age, age))
    return top


def test_the_same_sources_give_the_same_bytes(tmp_path: Path) -> None:
    names = ["b/__init__.py", "a.py", "b/x.so"]
    one = write(lay_out(tmp_path / "one", 1_000_000_000, names), tmp_path / "one.zip")
    two = write(lay_out(tmp_path / "two", 1_700_000_000, names[::-1]), tmp_path / "two.zip")
    assert one == two
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        modes = {each.filename: each.external_attr >> 16 for each in archive.infolist()}
    # Lambda runs it as another user.
    assert modes == {"a.py": 0o644, "b/__init__.py": 0o644, "b/x.so": 0o755}
    (tmp_path / "two/a.py").write_bytes(b"changed")
    assert write(tmp_path / "two", tmp_path / "three.zip") != one
