"""`firmroot refresh` where no disk stays: the workspace comes as one file, and so does its memory.

The state storage, which is not the repository's, has

    workspace.tar.gz                what git has, made by `git archive`: one file, so that policy,
                                    keys and root chain are always of one commit
    refresher/high-water.json       what the job saw live (epoch E > 0: refresher/eE/...)

The high-water mark never goes back, is written with a condition, and is outside what the thief of
a publisher's storage can write. A journal is not kept: a renewal that was cut off is signed anew,
under the next free version.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from client_reference.errors import (
    ActionRequiredError,
    ConfigurationError,
    ExitCode,
    FirmrootError,
    LockedError,
    NotFoundError,
    RetryLaterError,
)
from repo_tools.publishing.live import HighWater

if TYPE_CHECKING:
    from collections.abc import Callable

    from repo_tools.storage.protocol import Storage

__all__ = ["MEMORY", "WORKSPACE", "Job"]

WORKSPACE = "workspace.tar.gz"
MEMORY = "refresher/"
MAX_ARCHIVE = 64 << 20
MAX_UNPACKED = 256 << 20
MAX_FILES = 100_000
MAX_MARK = 1 << 20
_MARK = re.compile(r"(?:e[1-9]\d{0,8}/)?high-water\.json")
_ATTEMPTS = 3


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        state: where workspace and memory are.
        fail_within: as `firmroot refresh --fail-within`.
        command: runs `firmroot` with these words and says how it ended.
    """

    state: Storage
    fail_within: str
    command: Callable[[list[str]], int]

    def run(self) -> tuple[int, str]:
        """Renew, and remember.

        Returns:
            the exit code, and what the run left for monitors; the message of an error was written
            to standard error.
        """
        top = Path(tempfile.mkdtemp(prefix="firmroot-"))
        metrics = top / "metrics"
        code: int = ExitCode.BUG
        try:
            code = self._run(top / "workspace", metrics)
        except FirmrootError as error:
            code = error.exit_code
            report = {"error": error.message, "hint": error.hint, "exit_code": code}
            sys.stderr.write(json.dumps(report) + "\n")
        finally:
            text = metrics.read_text(encoding="ascii") if metrics.exists() else ""
            shutil.rmtree(top, ignore_errors=True)
        return code, text

    def _run(self, workspace: Path, metrics: Path) -> int:
        unpack(self._archive(), workspace)
        private = workspace / ".firmroot"
        recall(self.state, private)
        words = ["-C", str(workspace), "--json", "refresh"]
        words += ["--fail-within", self.fail_within, "--metrics", str(metrics)]
        code = self.command(words)
        # Also after a run that failed: people's roles may end while timestamp was renewed.
        remember(self.state, private)
        return code

    def _archive(self) -> bytes:
        try:
            return self.state.read(WORKSPACE, MAX_ARCHIVE).data
        except NotFoundError as error:
            raise ActionRequiredError(
                f"{WORKSPACE} is not in {self.state.url}: nobody has said what to refresh",
                f"git archive --format=tar.gz HEAD | aws s3 cp - {self.state.url}/{WORKSPACE}",
            ) from error


def unpack(data: bytes, workspace: Path) -> None:
    """Lay out a workspace from what `git archive` made.

    Raises:
        ConfigurationError: it is no such archive, or brings what only a machine may know.
    """
    workspace.mkdir()
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
            members, size = [], 0
            for member in archive:
                members.append(member)
                size += member.size
                if len(members) > MAX_FILES or size > MAX_UNPACKED:
                    raise ConfigurationError(f"{WORKSPACE} is larger than any workspace")
                # A mark or a key that came by git would be everybody's word.
                if ".firmroot" in Path(member.name).parts:
                    raise ConfigurationError(
                        f"{WORKSPACE} has {member.name}, which belongs to one machine",
                        "take .firmroot out of git, and make the archive with git archive",
                    )
            archive.extractall(workspace, members, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ConfigurationError(
            f"{WORKSPACE} is not what git archive makes: {error}",
            "git archive --format=tar.gz HEAD",
        ) from error


def recall(state: Storage, private: Path) -> None:
    """Bring back what the runs before saw live, of every epoch."""
    for path in state.paths(MEMORY):
        name = path.removeprefix(MEMORY)
        if _MARK.fullmatch(name):
            target = private / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(state.read(path, MAX_MARK).data)


def remember(state: Storage, private: Path) -> None:
    """Keep what this run saw live, unless somebody has kept something newer.

    Raises:
        RetryLaterError: others write at the same moment, again and again.
    """
    for path in sorted(private.rglob("high-water.json")):
        _raise_mark(state, MEMORY + path.relative_to(private).as_posix(), path.read_bytes())


def _raise_mark(state: Storage, path: str, data: bytes) -> None:
    seen = HighWater.from_json(data)
    for _ in range(_ATTEMPTS):
        before, tag = HighWater(), None
        with contextlib.suppress(NotFoundError):
            blob = state.read(path, MAX_MARK)
            before, tag = HighWater.from_json(blob.data), blob.tag
        raised = before.raised(seen)
        if raised == before:
            return
        with contextlib.suppress(LockedError):
            state.replace(path, raised.to_json(), tag)
            return
    raise RetryLaterError(f"{path} in {state.url} changes all the time", "run it again")
