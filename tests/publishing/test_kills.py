"""Killed at every file operation and run again, a command finishes its job, byte for byte.

`FIRMROOT_KILLS=full` kills at each operation (minutes); otherwise at a spread of them.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.publishing.conftest import LOST, stranded
from tests.publishing.kills import count_operations, run_killed
from tests.publishing.lab import HARDWARE, PRODUCT, image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.publishing.lab import Lab

FULL = os.environ.get("FIRMROOT_KILLS") == "full"
SPREAD = 10

CASES = {
    "the first publish": ("ready", ("publish",), {"nothing", "1.0"}),
    "a publish onto a live state": ("refreshed, next", ("publish",), {"1.0", "1.1"}),
    "a refresh": ("refreshed", ("refresh",), {"1.0"}),
    "signing": ("unsigned", ("sign",), {"1.0"}),
    "adding firmware": ("live", ("firmware", "add", "{file}", "-p", PRODUCT), {"1.0"}),
    "handing in": ("next", ("submit",), {"1.0"}),
    "a publish of what was handed in": ("handed in", ("publish",), {"1.0", "1.1"}),
    "a factory export": ("live", ("factory", "export", PRODUCT, "--to", "{out}"), {"1.0"}),
    "a publish with a new root": ("rotated", ("publish",), {"1.0"}),
    "a publish over a bridge": ("bridge", ("publish",), {"1.0"}),
    "beginning an epoch": (
        "lost",
        ("anchor", "re-root", *(word for name in LOST for word in ("--without", name))),
        {"1.0"},
    ),
    "sending the fleet to an epoch": ("named", ("anchor", "publish"), {"1.0"}),
}

HANDED = {"handing in", "a publish of what was handed in"}

# What a second run rightly does once more: a refresh that was committed is refreshed again, and the
# one before it is kept.
AGAIN = {"a refresh": (".firmroot/high-water.json", "repository/metadata/timestamp.json")}
KEPT = {"a refresh": "repository/metadata/4.timestamp.json"}


def _points(count: int, spread: int = SPREAD) -> list[int]:
    if FULL or count <= spread:
        return list(range(1, count + 1))
    return sorted({1 + round(step * (count - 1) / (spread - 1)) for step in range(spread)})


def _prepare(moments: dict[str, Lab], moment: str, top: Path) -> Lab:
    sources = {
        "unsigned": "live",
        "rotated": "live",
        "bridge": "live",
        "lost": "anchored",
        "named": "staged",
        "handed in": "next",
        "refreshed": "live",
        "refreshed, next": "next",
    }
    source = sources.get(moment, moment)
    lab = moments[source].copy(top / "start" / "acme")
    if moment in STEPS:
        STEPS[moment](lab)
    return lab


def _refreshed(lab: Lab) -> None:
    for _ in range(2):
        lab.ok("refresh")


def _unsigned(lab: Lab) -> None:
    lab.add("1.1")
    lab.ok("channel", "promote", f"{PRODUCT}@1.1", "--to", "stable")


def _rotated(lab: Lab) -> None:
    lab.ok("ceremony", "start", "root")
    lab.ok("sign")


def _bridge(lab: Lab) -> None:
    for name in ("publisher", "alice"):
        lab.ok("rotate", name)
    lab.ok("sign")


def _lost(lab: Lab) -> None:
    lab.ok("--yes", "factory", "retire", stranded(lab)[1])
    for name in ("ada", "ben", "cleo"):
        lab.ok("key", "new", name, "--role", "root", "--role", "targets")


def _handed_in(lab: Lab) -> None:
    lab.ok("submit")
    for place in ("staged", ".firmroot/staged", ".firmroot/outbox"):
        shutil.rmtree(lab.directory / place)


def _named(lab: Lab) -> None:
    lab.ok("publish", *stranded(lab))


STEPS: dict[str, Callable[[Lab], None]] = {
    "refreshed": _refreshed,
    "refreshed, next": _refreshed,
    "unsigned": _unsigned,
    "rotated": _rotated,
    "bridge": _bridge,
    "lost": _lost,
    "handed in": _handed_in,
    "named": _named,
}


def _offered(lab: Lab) -> str:
    """The release that a fresh device would install now."""
    if not (lab.repository / "metadata/timestamp.json").exists():
        return "nothing"
    outcome, detail = lab.fresh_device()
    assert outcome.value == "updates", f"a device met {outcome.value}: {detail}"
    return detail.removeprefix("installs ")


# Cheap enough only for the long tests.
LONG = {"a publish over a bridge"}


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[pytest.mark.long] if case in LONG else []) for case in CASES],
)
def test_a_killed_command_run_again_finishes(
    case: str,
    moments: dict[str, Lab],
    anchor_moments: dict[str, Lab],
    tmp_path: Path,
) -> None:
    moment, template, allowed = CASES[case]
    start = _prepare({**anchor_moments, **moments}, moment, tmp_path)
    root = (moments["live"].directory / "metadata/root/1.json").read_bytes()
    (tmp_path / "firmware.img").write_bytes(image("1.2"))
    options = ("-V", "1.2", "--hardware", HARDWARE) if "{file}" in template else ()

    def command(top: Path) -> tuple[str, ...]:
        places = {"{file}": str(tmp_path / "firmware.img"), "{out}": str(top / "out")}
        return (*(places.get(word, word) for word in template), *options)

    def fresh(name: str) -> Lab:
        top = tmp_path / name
        shutil.rmtree(top, ignore_errors=True)
        top.mkdir()
        (top / "factory-root.json").write_bytes(root)
        return start.copy(top / "acme")

    reference = fresh("reference")
    count = count_operations(reference, *command(tmp_path / "reference"))
    expected = reference.tree()
    points = _points(count, SPREAD // 2 if case in HANDED else SPREAD)
    for point in points:
        lab = fresh("trial")
        run_killed(lab, point, *command(tmp_path / "trial"))
        where = f"{case}, killed at operation {point} of {count}"
        assert _offered(lab) in allowed, where
        done = lab.run(*command(tmp_path / "trial"))
        assert done.code == 0, f"{where}: {done}"
        left = [path for path in (tmp_path / "trial").rglob(".*.tmp") if "inbox" not in path.parts]
        assert not left, f"{where}: {left}"
        found = lab.tree()
        if case in AGAIN:
            found |= {path: expected[path] for path in AGAIN[case]}
            found.pop(KEPT[case], None)
        assert found.keys() == expected.keys(), f"{where}: {found.keys() ^ expected.keys()}"
        assert found == expected, f"{where}: {[k for k in found if found[k] != expected[k]]}"
    if case in HANDED:  # what is half-written in the inbox goes with the next commit
        lab.ok("refresh")
        assert not list((tmp_path / "trial").rglob(".*.tmp"))
    print(f"{case}: killed at {len(points)} of {count} operations")
