"""Prints the table of figures: ours beside `tuf.ngclient` and curl, interleaved, in one run."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench import upload
from bench.aged import ROOTS, make_aged
from bench.measure import CLIENTS, Command, Figures, measured, median, state_writes
from bench.repository import MIB, Device, Repository, make_repository
from bench.server import Server, make_certificates, serving

if TYPE_CHECKING:
    from collections.abc import Callable

# The terminal is what this program is for.
# ruff: noqa: T201

RUNS, QUICK_RUNS = 7, 5
IMAGE, QUICK_IMAGE = 300 * MIB, 32 * MIB
QUICK_UPLOAD = 64
CPU_TARGET, PEAK_TARGET = 1.0, 1.05
JUDGED = {"first start", "no-change check"}


@dataclass(frozen=True)
class Row:
    """One thing measured: ours and the peer's medians."""

    title: str
    peer_name: str
    ours: Figures
    peer: Figures
    our_writes: int | None = None
    peer_writes: int | None = None


@dataclass(frozen=True)
class Bench:
    """One transport: everything that is measured over it."""

    repository: Repository
    server: Server
    scratch: Path
    runs: int
    environment: tuple[tuple[str, str], ...]

    def ours(self, device: Device, *verb: str) -> Command:
        """A command of the device client."""
        arguments = (str(CLIENTS / "ours.py"), "--config", str(device.config), *verb)
        return Command(arguments, self.environment)

    def ngclient(self, directory: Path, root: Path | None = None) -> Command:
        """One refresh of the peer."""
        arguments = [str(CLIENTS / "ngclient.py"), str(directory), self.server.url]
        return Command([*arguments, *([str(root)] if root else [])], self.environment)

    def device(self) -> Device:
        """A device fresh from the factory."""
        return self.repository.device(self.scratch / "device", self.server.url)

    def run(self, *commands: Command) -> Figures:
        """Commands in a row."""
        total, *others = (measured(c, self.server, self.scratch) for c in commands)
        for figures in others:
            total = total.after(figures)
        return total

    def interleaved(
        self, ours: Callable[[], Figures], peer: Callable[[], Figures]
    ) -> tuple[Figures, Figures]:
        """Medians of both, run in turn so that a busy moment of the machine meets both."""
        ours(), peer()  # compiles `.pyc` and fills the page cache
        pairs = [(ours(), peer()) for _ in range(self.runs)]
        return median(a for a, _ in pairs), median(b for _, b in pairs)

    def first_start(self) -> Row:
        """Factory state to an accepted repository, in one process each.

        Ours proves its key types, begins the store, reads manifest, hold and builds role as well,
        and decides; the peer refreshes.
        """

        def ours() -> Figures:
            return self.run(self.ours(self.device(), "check"))

        return Row("first start", "ngclient", *self.interleaved(ours, self.first_refresh))

    def first_refresh(self) -> Figures:
        """The peer's first refresh, from its root."""
        directory = self.scratch / "ngclient"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        return self.run(self.ngclient(directory, self.repository.root))

    def no_change(self) -> Row:
        """Root and timestamp byte-identical to the stored ones."""
        device, directory = self.device(), self.scratch / "ngclient"
        self.run(self.ours(device, "init"), self.ours(device, "check"))
        self.first_refresh()
        check, refresh = self.ours(device, "check"), self.ngclient(directory)
        ours, peer = self.interleaved(lambda: self.run(check), lambda: self.run(refresh))
        return Row(
            "no-change check",
            "ngclient",
            ours,
            peer,
            state_writes(check, device.state, self.scratch),
            state_writes(refresh, directory, self.scratch),
        )

    def catch_up(self) -> Row:
        """From the first of many roots to the newest, in a device's first start."""

        def ours() -> Figures:
            return self.run(self.ours(self.device(), "check"))

        title = f"first start, {ROOTS} roots behind"
        return Row(title, "ngclient", *self.interleaved(ours, self.first_refresh))

    def beside(self, newest: Bench) -> tuple[Row, Row]:
        """A device that is far behind beside one that has the newest root: first start and next."""
        devices = {each: each.device() for each in (self, newest)}

        def first(of: Bench) -> Figures:
            place = self.scratch / f"device-{of.repository.factory.name}"
            devices[of] = of.repository.device(place, of.server.url)
            return of.run(of.ours(devices[of], "check"))

        def again(of: Bench) -> Figures:
            return of.run(of.ours(devices[of], "check"))

        def row(title: str, call: Callable[[Bench], Figures]) -> Row:
            pair = self.interleaved(lambda: call(self), lambda: call(newest))
            return Row(title, "newest root", *pair)

        return (
            row(f"first start, {ROOTS} roots behind", first),
            row("the start after it", again),
        )

    def download(self, size: int) -> Row:
        """The real update path into a slot (verified, synced, read back) beside curl to a file."""
        target = self.scratch / "curl.out"
        curl = Command(
            ["curl", "-sSf", "-o", str(target), f"{self.server.url}{self.repository.image}"],
            (("CURL_CA_BUNDLE", str(self.scratch / "ca.pem")),),
            python=False,
        )

        def ours() -> Figures:
            device = self.device()
            self.run(self.ours(device, "init"))
            return self.run(self.ours(device, "update"))

        def peer() -> Figures:
            target.unlink(missing_ok=True)
            return self.run(curl)

        return Row(f"update of {size // MIB} MiB", "curl", *self.interleaved(ours, peer))


def measure(runs: int, size: int) -> dict[str, list[Row]]:
    """Every row, by transport."""
    rows = {}
    with tempfile.TemporaryDirectory(prefix="firmroot-bench-") as directory:
        scratch = Path(directory)
        make_certificates(scratch)
        repository = make_repository(scratch, size)
        for tls in (False, True):
            name = "HTTPS" if tls else "HTTP"
            # Both clients take their CAs from OpenSSL's defaults, and this is where those look.
            trusted = (("SSL_CERT_FILE", str(scratch / "ca.pem")),) if tls else ()
            with serving(repository.directory, scratch, tls=tls) as server:
                bench = Bench(repository, server, scratch, runs, trusted)
                rows[name] = [
                    bench.first_start(),
                    bench.no_change(),
                    bench.download(size),
                ]
        behind, newest = make_aged(scratch, repository.factory)
        with serving(behind.directory, scratch, tls=False) as server:
            bench = Bench(behind, server, scratch, runs, ())
            rows["HTTP"] += [bench.catch_up(), *bench.beside(replace(bench, repository=newest))]
    return rows


def show(rows: dict[str, list[Row]]) -> None:
    """The table."""
    for transport, each in rows.items():
        for row in each:
            print(f"\n{row.title}, {transport}")
            print(f"  {'':22}{'ours':>12}{row.peer_name:>12}{'ratio':>8}")
            lines = [
                ("CPU, user + system", row.ours.cpu * 1000, row.peer.cpu * 1000, "ms"),
                ("wall", row.ours.wall * 1000, row.peer.wall * 1000, "ms"),
                ("peak RSS", row.ours.peak, row.peer.peak, "MiB"),
                ("requests", row.ours.requests, row.peer.requests, ""),
                ("bytes of bodies", row.ours.body_bytes, row.peer.body_bytes, ""),
            ]
            if row.our_writes is not None and row.peer_writes is not None:
                lines.append(("writes of state", row.our_writes, row.peer_writes, "calls"))
            for name, ours, peer, unit in lines:
                _line(name, ours, peer, unit)


def _line(name: str, ours: float, peer: float, unit: str) -> None:
    known = f"{peer:>12.1f}" if peer or name != "peak RSS" else f"{'-':>12}"
    ratio = f"{ours / peer:>8.2f}" if peer else f"{'-':>8}"
    print(f"  {name:22}{ours:>12.1f}{known}{ratio}  {unit}".rstrip())


def missed(rows: dict[str, list[Row]]) -> list[str]:
    """Targets that a row missed."""
    found = []
    for transport, each in rows.items():
        for row in each:
            if row.title not in JUDGED:
                continue
            for name, ratio, target in (
                ("CPU", row.ours.cpu / row.peer.cpu, CPU_TARGET),
                ("peak RSS", row.ours.peak / row.peer.peak, PEAK_TARGET),
            ):
                if ratio > target:
                    found.append(
                        f"{row.title}, {transport}: {name} is {ratio:.2f} of ngclient's, "
                        f"at most {target} wanted"
                    )
    return found


def main() -> int:
    """Run the command line; the exit code is 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small image and fewer runs")
    parser.add_argument("--runs", type=int, help=f"processes per figure ({RUNS})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    arguments = parser.parse_args()
    runs = arguments.runs or (QUICK_RUNS if arguments.quick else RUNS)
    size = QUICK_IMAGE if arguments.quick else IMAGE
    rows = measure(runs, size)
    print(f"medians of {runs} whole cold processes; Python {sys.version.split()[0]}")
    show(rows)
    if arguments.json:
        table = {transport: [asdict(row) for row in each] for transport, each in rows.items()}
        arguments.json.write_text(json.dumps({"runs": runs, "rows": table}, indent=1) + "\n")
    problems = missed(rows)
    if not upload.is_possible():
        print("\nupload to S3: SeaweedFS is not installed (sh scripts/bootstrap services)")
    elif not upload.show(
        upload_size := QUICK_UPLOAD if arguments.quick else upload.SIZE,
        upload.measure(upload_size, max(upload.PAIRS, arguments.runs or 0)),
    ):
        problems.append(f"upload to S3: less than {upload.TARGET} of the throughput of boto3")
    for problem in problems:
        print(f"MISSED {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
