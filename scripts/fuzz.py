"""Coverage-guided fuzzing of every parser of remote bytes: targets of `tests/fuzz`, under atheris.

Each target runs in a process of its own, from its committed corpus, with bounds on memory and on
the time of one input. What it grows goes to a temporary directory, or to the one that --corpus
names and the next run starts from; the committed corpus is never written. A finding is an input: it
goes to the directory that --artifacts names, what it led to is printed, and the exit code is 1.

    python scripts/fuzz.py --all --seconds 60           every target, a minute each
    python scripts/fuzz.py --target metadata            one
    python scripts/fuzz.py --target metadata --replay FILE...   once more, without atheris

atheris is a development dependency of its own (`sh scripts/bootstrap fuzz`); it has wheels for
Linux on x86-64. Where there is none this says so, and the exit code is 2.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.fuzz import CORPUS, TARGETS, runner  # noqa: E402 # only now can it be found

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# The terminal is what this script is for.
# ruff: noqa: T201

MISSING = 2
FOUND = 1
LATE = 120
"""Seconds after its time at which a run is ended: it starts slowly on a busy machine."""

_STATE = re.compile(r"^#(\d+)\s+\w+\s+cov: (\d+) ft: (\d+) corp: (\d+)/", re.MULTILINE)
_EXECUTIONS = re.compile(r"^stat::number_of_executed_units:\s*(\d+)", re.MULTILINE)
_PEAK = re.compile(r"^stat::peak_rss_mb:\s*(\d+)", re.MULTILINE)
_RAISED = re.compile(r"=== Uncaught Python exception: ===\n(.*?)\n==\d+==", re.DOTALL)
_KINDS = {"crash": "raised", "timeout": "took too long", "oom": "took too much memory"}


class MissingError(Exception):
    """atheris is not installed, or there is none for this Python."""


@dataclass(frozen=True)
class Bounds:
    """What a run may take.

    Attributes:
        seconds: of the whole run.
        executions: of the whole run; -1: as many as there is time for. 0 replays the corpus only.
        input_seconds: of one input.
        memory: MiB, resident.
        seed: of the fuzzer's choices, not 0. With it a run of so many executions repeats itself.
    """

    seconds: int = 60
    executions: int = -1
    input_seconds: int = 10
    memory: int = 512
    seed: int = 1


@dataclass(frozen=True)
class Outcome:
    """One run of one target.

    Attributes:
        target: its name.
        executions: inputs tried.
        edges: branches that the target and the traced packages took.
        features: what libFuzzer tells inputs apart by.
        corpus: inputs worth keeping.
        seconds: the whole run, start included.
        peak: MiB, resident.
        findings: the inputs that led to something.
        told: what the first finding led to, or why the run failed. Empty: it is well.
    """

    target: str
    executions: int
    edges: int
    features: int
    corpus: int
    seconds: float
    peak: int
    findings: tuple[Path, ...]
    told: str

    def __str__(self) -> str:
        verdict = "FOUND" if self.findings else "FAILED" if self.told else "nothing found"
        return (
            f"{self.target:<12} {self.executions:>9} executions  {self.edges:>5} edges  "
            f"{self.features:>6} features  corpus {self.corpus:>4}  {self.peak:>4} MiB  "
            f"{self.seconds:>5.0f} s  {verdict}"
        )


def require_atheris() -> None:
    """Raise MissingError, with what to do, where there is no atheris."""
    if importlib.util.find_spec("atheris") is None:
        here = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
        raise MissingError(
            f"atheris is not installed for {here}: nothing was fuzzed\n"
            "hint: sh scripts/bootstrap fuzz   (Linux on x86-64, Python 3.11 to 3.14)"
        )


def fuzz(
    target: str, bounds: Bounds, artifacts: Path, *, grown: Path | None = None, root: Path = ROOT
) -> Outcome:
    """Run one target.

    Args:
        target: name in `tests.fuzz.TARGETS`.
        bounds: see there.
        artifacts: existing directory for findings.
        grown: directory for what the run keeps; None: thrown away.
        root: the tree whose parsers and targets are run.
    """
    # A name says whose finding it is: several targets share the directory.
    prefix = artifacts / f"{target}-"
    before = set(artifacts.glob(f"{target}-*"))
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as work:
        kept = grown / target if grown else Path(work) / "grown"
        kept.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            *("-m", "tests.fuzz", target),
            f"-max_total_time={bounds.seconds}",
            f"-runs={bounds.executions}",
            f"-timeout={bounds.input_seconds}",
            f"-rss_limit_mb={bounds.memory}",
            f"-seed={bounds.seed}",
            f"-artifact_prefix={prefix}",
            "-print_final_stats=1",
            str(kept),
            str(root / CORPUS.relative_to(ROOT) / target),
        ]
        said, code = _run(command, root, Path(work), bounds.seconds + LATE)
    findings = tuple(sorted(set(artifacts.glob(f"{target}-*")) - before))
    states = _STATE.findall(said)
    _, edges, features, corpus = (int(n) for n in states[-1]) if states else (0, 0, 0, 0)
    counted, peak = _EXECUTIONS.search(said), _PEAK.search(said)
    return Outcome(
        target=target,
        executions=int(counted[1] if counted else states[-1][0] if states else 0),
        edges=edges,
        features=features,
        corpus=corpus,
        seconds=time.monotonic() - begun,
        peak=int(peak[1]) if peak else 0,
        findings=findings,
        told=_told(said, code, findings),
    )


def _run(command: Sequence[str], root: Path, work: Path, limit: int) -> tuple[str, int]:
    """What it printed and its exit code. Files that a target leaves when it dies are in `work`."""
    log = work / "log"
    # A shell between: libFuzzer takes the peak memory of whoever starts it for its own, since
    # `ru_maxrss` survives `exec`.
    between = ("/bin/sh", "-c", '"$@"; exit $?', "sh")
    with log.open("wb") as output:
        child = subprocess.Popen(  # noqa: S603 # this project's own module
            [*between, *command],
            start_new_session=True,
            cwd=root,
            env=os.environ
            | {"TMPDIR": str(work), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            code = child.wait(limit)
        except subprocess.TimeoutExpired:
            code = MISSING
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    return log.read_text("utf-8", errors="replace"), code


def _told(said: str, code: int, findings: Sequence[Path]) -> str:
    if code == 0 and not findings:
        return ""
    raised = _RAISED.search(said)
    if raised:
        return raised[1].strip()
    for finding in findings:
        for kind, words in _KINDS.items():
            if f"-{kind}-" in finding.name:
                return f"an input {words}:\n{_last_lines(said)}"
    return f"exit code {code}:\n{_last_lines(said)}"


def _last_lines(said: str) -> str:
    return "\n".join(said.strip().splitlines()[-30:])


def fuzz_all(
    targets: Sequence[str],
    bounds: Bounds,
    artifacts: Path,
    *,
    jobs: int = 1,
    grown: Path | None = None,
) -> Iterator[Outcome]:
    """Run targets, so many at once; outcomes come in the order of `targets`."""
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(lambda name: fuzz(name, bounds, artifacts, grown=grown), targets)


def replay(target: str, files: Sequence[Path]) -> None:
    """Run inputs once more, without atheris: what they lead to is raised."""
    run = runner(target)
    for file in files:
        run(file.read_bytes())
        print(f"{file}: nothing found")


@contextmanager
def _kept(named: Path | None) -> Iterator[Path]:
    """A directory for findings: the named one, or a temporary one that is left if it has any."""
    place = (named or Path(tempfile.mkdtemp(prefix="fuzz-findings-"))).resolve()
    place.mkdir(parents=True, exist_ok=True)
    yield place
    if named is None and not any(place.iterdir()):
        shutil.rmtree(place)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 1 if something was found, 2 without atheris."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--target", choices=TARGETS, action="append", help="may be given twice")
    which.add_argument("--all", action="store_true", help="every target")
    which.add_argument("--list", action="store_true", help="name the targets, run nothing")
    parser.add_argument("--seconds", type=int, default=60, help="of each target (60)")
    parser.add_argument("--jobs", type=int, default=1, help="targets at once (1)")
    parser.add_argument("--seed", type=int, default=1, help="of the fuzzer's choices (1)")
    parser.add_argument("--timeout", type=int, default=10, help="seconds of one input (10)")
    parser.add_argument("--memory", type=int, default=512, help="MiB of one target (512)")
    parser.add_argument("--artifacts", type=Path, help="directory for findings (temporary)")
    parser.add_argument("--corpus", type=Path, help="directory for what grows (thrown away)")
    parser.add_argument(
        "--replay", type=Path, nargs="+", metavar="FILE", help="inputs to run again"
    )
    chosen = parser.parse_args(arguments)
    if chosen.list:
        for name, target in TARGETS.items():
            print(f"{name:<12} {target.about}")
        return 0
    targets = list(chosen.target or TARGETS)
    if chosen.replay:
        for target in targets:
            replay(target, chosen.replay)
        return 0
    try:
        require_atheris()
    except MissingError as error:
        print(f"error: {error}", file=sys.stderr)
        return MISSING
    bounds = Bounds(
        seconds=chosen.seconds,
        input_seconds=chosen.timeout,
        memory=chosen.memory,
        seed=chosen.seed,
    )
    bad = 0
    with _kept(chosen.artifacts) as artifacts:
        grown = chosen.corpus.resolve() if chosen.corpus else None
        for outcome in fuzz_all(targets, bounds, artifacts, jobs=chosen.jobs, grown=grown):
            print(outcome, flush=True)
            bad += bool(outcome.told)
            if outcome.told:
                print(outcome.told)
            for finding in outcome.findings:
                print(f"again: python scripts/fuzz.py --target {outcome.target} --replay {finding}")
    return FOUND if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
