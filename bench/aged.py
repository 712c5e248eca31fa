"""A repository with a long root chain, and devices that are far behind or know its newest root."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from bench.repository import Repository
from tests.simulators.device import Publisher

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ROOTS", "NewestFirst", "make_aged"]

ROOTS = 120


class NewestFirst(Repository):
    """The same repository as a device meets it that was made yesterday."""

    @property
    def root(self) -> Path:
        """Its newest root."""
        return self.directory / "metadata" / f"{ROOTS}.root.json"


def make_aged(scratch: Path, exported: Path) -> tuple[Repository, NewestFirst]:
    """Write a repository of `ROOTS` roots, each with other timestamp keys, and two exports.

    Args:
        scratch: where.
        exported: a lab's factory export, whose configuration is taken.
    """
    publisher = Publisher()
    publisher.release("1.0", 1, b"image" * 1000)
    repo = publisher.repo
    for _ in range(ROOTS - 1):
        repo.rotate("timestamp")
        repo.publish("root")
    repo.announce()
    directory = scratch / "aged"
    repo.save(directory)
    image = next(path for path in repo.files if path.endswith(".img"))
    files = {n: repo.files[f"metadata/{n}.root.json"] for n in (1, ROOTS)}
    first, newest = (_export(scratch / f"aged-{n}", exported, files[n]) for n in files)
    return Repository(directory, first, image), NewestFirst(directory, newest, image)


def _export(directory: Path, exported: Path, root: bytes) -> Path:
    """A factory export with another root."""
    (directory / "factory").mkdir(parents=True)
    text = re.sub(r"(?m)^recovery = .*\n", "", (exported / "device.toml").read_text())
    (directory / "device.toml").write_text(text)
    (directory / "factory" / "root.json").write_bytes(root)
    floors = {
        "epoch": 0,
        "minimum_sequence": 0,
        "product": "gateway",
        "schema": 1,
        "time": "2026-01-01T00:00:00Z",
    }
    (directory / "factory" / "floors.json").write_text(json.dumps(floors))
    return directory
