"""The part of `firmroot verify` that looks through what serves a repository."""

from __future__ import annotations

import random
import time
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from client_reference.errors import (
    ConfigurationError,
    NotTrustedError,
    RefusedError,
    RetryLaterError,
)
from client_reference.transport.connect import Roots
from client_reference.transport.fetch import Ambient
from client_reference.wiring import credentials_header
from repo_tools.publishing.factory import devices, future_devices, load_registry
from repo_tools.publishing.following import lead
from repo_tools.publishing.through import Expected, look
from repo_tools.publishing.verify import Severity

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from repo_tools.cli.context import Context
    from repo_tools.publishing.edge_checks import EdgeFinding
    from repo_tools.publishing.through import Observed
    from repo_tools.workspace import Workspace

__all__ = ["Asked", "mirrors_of_devices", "verify_through"]

_BYTES = frozenset({"device", "metadata", "expiry", "targets"})
"""Checks that are about what was signed. The others are about how it is served."""


@dataclass(frozen=True)
class Asked:
    """What the command line says.

    Attributes:
        urls: of the mirrors, each once.
        artifacts: whether every artifact is read.
        bundle: authorities besides those of the system.
        credentials: a file with a header for artifacts.
    """

    urls: tuple[str, ...]
    artifacts: bool = False
    bundle: Path | None = None
    credentials: Path | None = None


def mirrors_of_devices(ws: Workspace) -> tuple[str, ...]:
    """Every mirror that a device may ask: of `firmroot.toml`, and of each export in service.

    Raises:
        ConfigurationError: there is none, or an export cannot be read.
    """
    found = list(ws.config.urls)
    for export in load_registry(ws):
        if export.retired:
            continue
        path = ws.directory / "factory" / export.id / "device.toml"
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
            found += table["repository"]["mirrors"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"{path} cannot be read: {error!r}", "git checkout factory/; or name --through URL"
            ) from error
    if not found:
        raise ConfigurationError(
            "no device has a mirror: firmroot.toml has no urls, and nothing was exported",
            "add urls = [...] to firmroot.toml, or name it: firmroot verify --through URL",
        )
    return tuple(dict.fromkeys(found))


def verify_through(context: Context, ws: Workspace, asked: Asked) -> None:
    """Look through each mirror, say what is found.

    Raises:
        NotTrustedError: bytes did not verify somewhere.
        RefusedError: all verify, and a mirror breaks the rules for what serves them.
        RetryLaterError: a mirror does not answer.
    """
    header = None
    if asked.credentials is not None:
        header = credentials_header(asked.credentials, "--credentials")
    roots = ws.roots()
    expected = Expected(
        roots=roots,
        policy=ws.policy,
        now=context.now,
        epoch=ws.epoch,
        devices=(*devices(ws), *future_devices(ws, roots[-1])),
        lead=lead(ws),
        storage=ws.whole_storage(),
        adopted=ws.adopted(),
        ca=Roots(system=True, bundle=asked.bundle),
        credentials=header,
        artifacts=asked.artifacts,
        tell=_Progress(context).tell if asked.artifacts else lambda _path, _number, _count: None,
    )
    seen = []
    for url in asked.urls:
        observed = look(url, expected, Ambient(time.monotonic, time.sleep, random.random))
        seen.append(observed)
        _say(context, observed)
    context.printer.result(_document(seen))
    _judge(seen)
    context.printer.say("every mirror keeps the rules, and everything that is live verifies")


class _Progress:
    """A line for each tenth of the artifacts."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._tenths = 0

    def tell(self, path: str, number: int, count: int) -> None:
        """The next target is read."""
        if number == 1:
            self._tenths = 0
        tenths = number * 10 // count
        if number == 1 or tenths > self._tenths or self._context.verbose:
            self._tenths = tenths
            self._context.printer.say(f"reading target {number} of {count}: {path}")


def _say(context: Context, observed: Observed) -> None:
    say = context.printer.say
    say(f"{observed.url} ({observed.caches or observed.trouble})")
    for finding in observed.findings:
        say(f"{finding.severity.value:8} {finding.check.id}: {finding.found}")
        if finding.severity is not Severity.FINE:
            say(f"{'':9}expected: {finding.check.expected}")
            say(f"{'':9}fix: {finding.check.fix}")
    if observed.trouble:
        say(f"error    answers: {observed.trouble}")


def _document(seen: Sequence[Observed]) -> dict[str, Any]:
    return {
        "trusted": not _errors(seen) and not any(each.trouble for each in seen),
        "mirrors": [
            {
                "url": each.url,
                "caches": each.caches,
                "trouble": each.trouble,
                "findings": [
                    {
                        "id": finding.check.id,
                        "severity": finding.severity.value,
                        "found": finding.found,
                        "expected": finding.check.expected,
                        "fix": finding.check.fix,
                    }
                    for finding in each.findings
                ],
            }
            for each in seen
        ],
    }


def _errors(seen: Sequence[Observed]) -> list[tuple[Observed, EdgeFinding]]:
    return [
        (each, finding)
        for each in seen
        for finding in each.findings
        if finding.severity is Severity.ERROR
    ]


def _judge(seen: Sequence[Observed]) -> None:
    errors = _errors(seen)
    # What is about bytes weighs most, and decides the exit code.
    errors.sort(key=lambda error: error[1].check.id not in _BYTES)
    if errors:
        observed, first = errors[0]
        text = (
            f"{len(errors)} findings are errors; the first: {observed.url}: {first.check.id}: "
            f"{first.found}"
        )
        if first.check.id in _BYTES:
            raise NotTrustedError(text, first.check.fix)
        raise RefusedError(text, first.check.fix)
    if silent := [each for each in seen if each.trouble]:
        raise RetryLaterError(
            f"{silent[0].url} does not answer: {silent[0].trouble}",
            "check the URL, and whether the CDN has it; then run the same command again",
        )
