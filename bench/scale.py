"""One artifact more, in a repository of a thousand and of a million: `python -m bench.scale`.

Each row is a repository of so many targets in so many hash bins (`bench.many`), and the four
commands that add one artifact and bring it to a channel, each a whole cold process; then a device
that was there before, and one fresh from the factory, that find it. The first row is a repository
of one artifact: what the others cost more is what size costs.

The product has a name of four letters. Each letter more adds a byte for each bin to the snapshot.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.many import HARDWARE, PRODUCT, begin, fill
from bench.measure import CLIENTS, ROOT, Command, PeerFailedError, measured
from bench.repository import Device, Repository
from bench.server import serving
from repo_tools.metadata.bins import number_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.server import Server


__all__ = ["Cost", "Row", "missed", "row"]

# The terminal is what this program is for.
# ruff: noqa: T201

SIZES = (1_000, 10_000, 100_000, 1_000_000)
# What the issue of this part wants, of every row.
MAX_REQUESTS, MAX_UP, MAX_CPU, MAX_PEAK, MAX_DOWN = 10, 250_000, 0.5, 150.0, 200_000


@dataclass(frozen=True)
class Cost:
    """What one command used.

    Attributes:
        requests: to the storage, besides the artifact.
        up: bytes written to it, besides the artifact.
        down: bytes read from it.
        cpu: seconds.
        peak: `VmHWM`, MiB.
    """

    requests: int
    up: int
    down: int
    cpu: float
    peak: float


@dataclass(frozen=True)
class Row:
    """One repository.

    Attributes:
        targets: artifacts in it.
        bins: hash bins.
        commands: what each of the four costs, by its first words.
        device: bytes that a device fetches that was there before.
        gzip: the same, behind a CDN that compresses metadata.
        fresh: bytes that one fetches that has nothing.
        snapshot: bytes of the snapshot.
        cold: what the last command costs on a machine that has read nothing yet.
    """

    targets: int
    bins: int
    commands: dict[str, Cost]
    device: int
    gzip: int
    fresh: int
    snapshot: int
    cold: Cost

    @property
    def cpu(self) -> float:
        """Of all four commands."""
        return sum(each.cpu for each in self.commands.values())


def row(scratch: Path, targets: int, bins: int, runs: int = 1) -> Row:
    """Make a repository and add one artifact to it, `runs` times; the medians."""
    directory = scratch / "acme"
    begin(directory, bins)
    if targets > 1:
        fill(directory, targets)
    repository = Repository(directory / "repository", scratch / "factory", "")
    plainly = serving(repository.directory, scratch, tls=False)
    compressed = serving(repository.directory, scratch, tls=False, compressed=True)
    with plainly as server, compressed as cdn:
        _check(repository, scratch, server, "device")
        _check(repository, scratch, cdn, "behind-cdn")
        _add(directory, scratch, "warm")
        rounds = [_add(directory, scratch, f"new{number}") for number in range(runs)]
        cold = _add(directory, scratch, "cold", forget=True)["publish"]
        found = _check(repository, scratch, server, "device")
        gzip = _check(repository, scratch, cdn, "behind-cdn")
        fresh = _check(repository, scratch, server, "fresh")
    newest = max(
        (repository.directory / "metadata").glob("*.snapshot.json"),
        key=lambda path: int(path.name.partition(".")[0]),
    )
    return Row(
        targets,
        bins,
        {name: _median([each[name] for each in rounds]) for name in rounds[0]},
        found,
        gzip,
        fresh,
        newest.stat().st_size,
        cold,
    )


def _check(repository: Repository, scratch: Path, server: Server, name: str) -> int:
    """Bytes that a check of one device fetches; the device is made at its first."""
    place = scratch / name
    device = Device(place) if place.exists() else repository.device(place, server.url)
    client = (str(CLIENTS / "ours.py"), "--config", str(device.config), "check")
    return int(measured(Command(client), server, scratch).body_bytes)


def _add(directory: Path, scratch: Path, version: str, *, forget: bool = False) -> dict[str, Cost]:
    image = scratch / "b.img"
    image.write_bytes(os.urandom(1900))
    labels = ("-p", PRODUCT, "-V", version, "--hardware", HARDWARE)
    steps: Sequence[tuple[str, ...]] = (
        ("firmware", "add", str(image), *labels),
        ("channel", "promote", f"{PRODUCT}@{version}", "--to", "stable"),
        ("sign",),
        ("publish",),
    )
    costs: dict[str, Cost] = {}
    for step in steps:
        if forget:
            shutil.rmtree(directory / ".firmroot" / "cache", ignore_errors=True)
        costs[" ".join(step[:2] if len(step) > 1 else step)] = _cost(directory, scratch, step)
    return costs


def _cost(directory: Path, scratch: Path, step: Sequence[str]) -> Cost:
    """One command as a process of its own.

    Raises:
        PeerFailedError: it failed.
    """
    peak, requests = scratch / "peak", scratch / "requests"
    requests.write_text("")
    said = scratch / "said"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "BENCH_REPORT": str(peak),
        "BENCH_REQUESTS": str(requests),
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    line = [sys.executable, str(CLIENTS / "release.py"), "-C", str(directory), *step]
    with said.open("wb") as out:
        process = subprocess.Popen(  # noqa: S603 - our own command
            line, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise PeerFailedError(f"{' '.join(step)}: {said.read_text()[-2000:]}")
    asked = [each.split() for each in requests.read_text().splitlines()]
    counted = [(what, int(length)) for what, path, length in asked if "targets/builds/" not in path]
    return Cost(
        len(counted),
        sum(length for what, length in counted if what == "PUT"),
        sum(length for what, length in counted if what == "GET"),
        usage.ru_utime + usage.ru_stime,
        int(peak.read_text()) / 1024,
    )


def _median(costs: Sequence[Cost]) -> Cost:
    """The middle one by CPU; what is counted is the same in all."""
    return sorted(costs, key=lambda each: each.cpu)[len(costs) // 2]


def missed(one: Row, rows: Sequence[Row]) -> list[str]:
    """What is wanted of each row and not so."""
    found = []
    for each in rows:
        for name, cost in each.commands.items():
            more = cost.cpu - one.commands[name].cpu
            for what, value, most in (
                ("requests", cost.requests, MAX_REQUESTS),
                ("bytes up", cost.up, MAX_UP),
                ("s of CPU more than with one artifact", more, MAX_CPU),
                ("MiB at most", cost.peak, MAX_PEAK),
            ):
                if value > most:
                    found.append(f"{each.targets} targets, {name}: {value:.2f} {what} > {most}")
        if each.device > MAX_DOWN:
            found.append(f"{each.targets} targets: a device fetches {each.device} > {MAX_DOWN}")
    return found


def show(one: Row, rows: Sequence[Row]) -> None:
    """The table."""
    print(
        "  targets   bins  command          requests   up, kB  down, kB  CPU, s  more, s  peak, MiB"
    )
    for each in (one, *rows):
        for name, cost in each.commands.items():
            more = cost.cpu - one.commands[name].cpu
            print(
                f"{each.targets:>9}{each.bins:>7}  {name:16}{cost.requests:>9}"
                f"{cost.up / 1000:>9.1f}{cost.down / 1000:>10.1f}{cost.cpu:>8.2f}{more:>9.2f}"
                f"{cost.peak:>11.1f}"
            )
        print(
            f"{'':18}a device fetches {each.device / 1000:.1f} kB ({each.gzip / 1000:.1f} kB "
            f"behind a CDN that compresses), a fresh one "
            f"{each.fresh / 1000:.1f} kB; the snapshot has {each.snapshot / 1000:.1f} kB; publish "
            f"on a machine that has read nothing: {each.cold.requests} requests, "
            f"{each.cold.cpu:.2f} s"
        )


def main() -> int:
    """Run the command line; the exit code is 1 if a figure misses what is wanted of it."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--targets", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--bins", type=int, help="for all; otherwise as `product bins` chooses")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    arguments = parser.parse_args()
    rows = []
    for targets in (1, *arguments.targets):
        bins = arguments.bins or number_for(PRODUCT, targets)
        with tempfile.TemporaryDirectory(prefix="firmroot-scale-") as scratch:
            # The least repository is that of somebody who never heard of bins.
            rows.append(row(Path(scratch), targets, bins if targets > 1 else 0, arguments.runs))
            shutil.rmtree(scratch, ignore_errors=True)
    one, *others = rows
    show(one, others)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(each) for each in rows], indent=1) + "\n")
    problems = missed(one, others)
    for problem in problems:
        print(f"MISSED {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
