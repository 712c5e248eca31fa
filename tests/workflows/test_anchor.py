"""The recovery anchor of the release side, from its first root to a fleet that was re-rooted.

Everything goes through the command line, like a team would do it; what is published is then read
with the checks of the device's own code.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from client_reference.trust import verified
from repo_tools.metadata.anchor import walk
from repo_tools.metadata.repository import sha256
from tests.publishing.lab import HARDWARE, PRODUCT, Lab

if TYPE_CHECKING:
    from pathlib import Path

NEW_KEYS = ("ada", "ben", "cleo")
LOST = ("alice", "bob", "carol")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lab, str, bytes]:
    """1.0 is live, one export has the anchor, root is lost and the fleet was re-rooted."""
    lab = Lab(tmp_path_factory.mktemp("anchor") / "acme")
    lab.init()
    lab.ok("product", "add", PRODUCT, "--hardware", HARDWARE)
    lab.ok("anchor", "init")
    lab.add("1.0")
    lab.promote("1.0")
    lab.ok("publish")
    lab.ok("anchor", "publish")
    device = lab.directory.parent / "device"
    lab.ok("factory", "export", PRODUCT, "--to", device)
    lab.ship("1.1")
    old = lab.tree()
    for name in NEW_KEYS:
        lab.ok("key", "new", name, "--role", "root", "--role", "targets")
    lost = [word for name in LOST for word in ("--without", name)]
    first = lab.ok("anchor", "re-root", *lost)
    lab.ok("sign")
    lab.ok("anchor", "re-root")
    lab.ok("sign")
    lab.ok("publish")
    lab.ok("anchor", "publish")
    kept = {path: data for path, data in old.items() if path.startswith(("metadata/", "history/"))}
    assert {path: lab.tree()[path] for path in kept} == kept
    return lab, first.out, (device / "factory/recovery-root.json").read_bytes()


def test_the_published_anchor_leads_from_the_factory_to_the_new_root(
    told: tuple[Lab, str, bytes],
) -> None:
    lab, _, factory = told
    recovery = lab.directory / "recovery"
    chain = [factory]
    while (file := recovery / f"{len(chain) + 1}.root.json").exists():
        chain.append(file.read_bytes())
    links = walk(chain)
    assert [link.version for link in links] == [1, 2]
    statement = links[-1].statement
    assert statement.epoch == 1
    assert statement.minimum_sequence == {PRODUCT: 2}
    beside = (recovery / "e1/1.root.json").read_bytes()
    primary = (lab.repository / "metadata/e1/1.root.json").read_bytes()
    assert beside == primary
    assert (statement.sha256, statement.length) == (sha256(primary), len(primary))
    assert verified.first_root(primary).version == 1


def test_the_new_epoch_starts_every_version_again_and_says_so(
    told: tuple[Lab, str, bytes],
) -> None:
    lab, _, _ = told
    place = lab.repository / "metadata/e1"
    timestamp = json.loads((place / "timestamp.json").read_bytes())["signed"]
    assert (timestamp["version"], timestamp["x-firmroot-epoch"]) == (1, 1)
    assert sorted(path.name for path in place.iterdir()) == sorted(
        ["root-chain", "timestamp.json", "1.root.json", "1.snapshot.json", "1.targets.json"]
        + [f"1.{PRODUCT}-{role}.json" for role in ("stable", "builds")]
    )


def test_the_release_goes_on_in_the_new_epoch(told: tuple[Lab, str, bytes], tmp_path: Path) -> None:
    lab = told[0].copy(tmp_path / "acme")
    added = lab.add("1.2")
    assert "sequence 3" in added.out
    lab.promote("1.2")
    done = lab.ok("publish")
    assert f"{PRODUCT}-stable" in done.out
    assert "installs 1.2" in done.out
    assert "0 devices stranded" in done.out
    lab.ok("refresh")
    lab.ok("verify")
