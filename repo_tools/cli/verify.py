"""`firmroot verify`: audit a repository as a device and as an auditor, and what serves it."""

from __future__ import annotations

import random
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from client_reference.errors import (
    ActionRequiredError,
    ConfigurationError,
    FirmrootError,
    NotTrustedError,
)
from client_reference.transport.fetch import Ambient, HttpFetcher, Settings
from client_reference.transport.fetcher import DirectoryFetcher
from client_reference.transport.policy import parse_mirror
from repo_tools.cli.context import Context, example
from repo_tools.cli.places import open_place
from repo_tools.cli.verify_through import Asked, mirrors_of_devices, verify_through
from repo_tools.publishing.factory import devices, future_devices
from repo_tools.publishing.following import lead
from repo_tools.publishing.prepare import check_present
from repo_tools.publishing.recovery import audit_anchor, live_lead
from repo_tools.publishing.verify import Audit, Finding, Severity, audit, meet_devices
from repo_tools.storage.epoch import EpochFetcher
from repo_tools.storage.overlay import OverlayStorage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from client_reference.transport.fetcher import Fetcher
    from repo_tools.publishing.rehearse import Lead
    from repo_tools.workspace import Workspace

__all__ = ["verify"]


@click.command(
    epilog=example(
        "firmroot verify",
        "firmroot verify https://fw.acme.example/ --as-device",
        "firmroot verify --through https://fw.acme.example/ --artifacts",
        "firmroot verify --mirrors",
    )
)
@click.argument("place", metavar="[URL|PATH]", required=False)
@click.option("--as-device", is_flag=True, help="Only what devices do; reads no artifacts.")
@click.option("--every-bin", is_flag=True, help="Read every hash bin, not a sample of them.")
@click.option(
    "--through",
    "urls",
    metavar="URL",
    multiple=True,
    help="Also judge what serves it: caches, headers, plain HTTP. Reads no artifacts.",
)
@click.option("--mirrors", is_flag=True, help="The same, through every mirror that devices have.")
@click.option("--artifacts", is_flag=True, help="With these two: read every artifact, whole.")
@click.option(
    "--ca-bundle",
    "bundle",
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="With these two: authorities of your own, as devices have them in trust/.",
)
@click.option(
    "--credentials",
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="With these two: a header for artifacts, as devices have it.",
)
@click.pass_obj
def verify(  # noqa: PLR0913  each is a decision of the caller
    context: Context,
    place: str | None,
    *,
    as_device: bool,
    every_bin: bool,
    urls: tuple[str, ...],
    mirrors: bool,
    artifacts: bool,
    bundle: Path | None,
    credentials: Path | None,
) -> None:
    """Audit a live repository: this workspace's storage, or what is at a URL or path.

    URL is https://..., file:///... or s3://..., such as a mirror, and PATH a folder.
    Trusts what the workspace trusts: its roots, and those of every factory export.

    Through a CDN or another mirror, its headers are judged as well: exit code 6 if bytes are not
    trusted, 5 if the rules for caches and public objects are broken, 4 if it does not answer.
    """
    ws = context.workspace()
    roots = ws.roots()
    if not roots:
        raise ActionRequiredError(
            "nothing is published yet: there is nothing to verify", "firmroot publish"
        )
    if urls or mirrors:
        if place is not None or as_device:
            raise ConfigurationError(
                "--through and --mirrors name what is looked at: no URL or PATH, no --as-device",
                "firmroot verify --through URL",
            )
        every = dict.fromkeys((*urls, *(mirrors_of_devices(ws) if mirrors else ())))
        verify_through(context, ws, Asked(tuple(every), artifacts, bundle, credentials))
        return
    if artifacts or bundle or credentials:
        raise ConfigurationError(
            "--artifacts, --ca-bundle and --credentials go with --through URL or --mirrors",
            "firmroot verify without them reads every artifact of the storage",
        )
    if place is None:
        check_present(ws, ws.storage())
    with _reach(ws, place) as whole:
        fetcher = EpochFetcher(whole, ws.epoch)
        known = (*devices(ws), *future_devices(ws, roots[-1]))
        findings = [*meet_devices(known, whole, context.now, _lead(ws, place))]
        if not as_device:
            adopted = ws.adopted()
            about = Audit(fetcher, roots, ws.policy, context.now, adopted, every_bin=every_bin)
            findings += audit(about)
    if place is None and not as_device:
        findings += _anchor(ws)
    for finding in findings:
        context.printer.say(f"{finding.severity.value:8} {finding.subject}: {finding.detail}")
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    context.printer.result(
        {
            "trusted": not errors,
            "findings": [
                {**vars(finding), "severity": finding.severity.value} for finding in findings
            ],
        }
    )
    if errors:
        raise NotTrustedError(
            f"{len(errors)} of {len(findings)} findings are errors; the first: "
            f"{errors[0].subject}: {errors[0].detail}",
            "publish nothing before it is understood",
        )
    context.printer.say("trusted: everything that is live verifies")


def _lead(ws: Workspace, place: str | None) -> Lead:
    """The recovery anchor as devices find it now; as git has it where it cannot be asked."""
    if place is None:
        with suppress(FirmrootError):  # `_anchor` says what is wrong with it
            return live_lead(ws)
    return lead(ws)


def _anchor(ws: Workspace) -> Iterator[Finding]:
    """The recovery storage of this workspace; a re-rooting that is under way is no error."""
    problems = list(audit_anchor(ws))
    for each in problems:
        yield Finding(Severity.ERROR if each.serious else Severity.WARNING, "anchor", each.detail)
    if not problems:
        yield Finding(Severity.FINE, "anchor", f"{len(ws.recovery_roots())} versions, published")


def _reach(ws: Workspace, place: str | None) -> AbstractContextManager[Fetcher]:
    """The repository there."""
    if place is None:
        return nullcontext(OverlayStorage(ws.whole_storage(), {}))
    if place.startswith(("http://", "https://")):
        ambient = Ambient(time.monotonic, time.sleep, random.random)
        return HttpFetcher(Settings((parse_mirror(place),)), ambient)
    if "://" in place:
        return nullcontext(OverlayStorage(open_place(place, "PATH", " or https://..."), {}))
    return nullcontext(DirectoryFetcher(Path(place)))
