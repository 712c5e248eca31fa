"""`firmroot plan`, `publish` and `refresh`: from what is signed to what is live."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from client_reference.errors import ExitCode
from client_reference.transport.fetch import Ambient, HttpFetcher, Settings
from client_reference.transport.policy import parse_mirror
from repo_tools.cli.context import Context, example, passphrase_option
from repo_tools.cli.durations import parse_duration
from repo_tools.cli.main import exit_code
from repo_tools.files import DiskFullError
from repo_tools.metadata.bins import is_bin, told
from repo_tools.publishing.edges import AwaitedEdges, NoEdges
from repo_tools.publishing.intake import plan_with_inbox, publish_with_inbox
from repo_tools.publishing.online import OnlineKeys
from repo_tools.publishing.prepare import check_stranding
from repo_tools.publishing.publish import NothingToDo, make_record
from repo_tools.publishing.refresh import LostRace, Refreshed
from repo_tools.publishing.refresh import refresh as refresh_online
from repo_tools.publishing.watch import check_people, endings, write_metrics
from repo_tools.storage.epoch import EpochFetcher

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from repo_tools.publishing.edges import Edges
    from repo_tools.publishing.intake import Verdict
    from repo_tools.publishing.publish import Published, Waiting
    from repo_tools.publishing.rehearse import Rehearsal
    from repo_tools.workspace import Workspace

__all__ = ["plan", "publish", "refresh"]

_stranding = click.option(
    "--accept-stranded",
    "accepted",
    multiple=True,
    metavar="ID",
    help="Publish although this factory export would be left behind; may be repeated.",
)


_jump = click.option(
    "--accept-jump",
    is_flag=True,
    help="Go on from live versions that moved further ahead than anybody publishes.",
)


@click.command(epilog=example("firmroot plan"))
@_jump
@_stranding
@passphrase_option
@click.pass_obj
def plan(
    context: Context, accepted: tuple[str, ...], descriptor: int | None, *, accept_jump: bool
) -> None:
    """Show what publish would do: every object, who signed it, what devices will do."""
    ws = context.workspace()
    keys = OnlineKeys(ws, context.secrets(ws, descriptor))
    with ws.lock():
        _show_plan(context, ws, keys, accepted, accept_jump=accept_jump)


def _show_plan(
    context: Context,
    ws: Workspace,
    keys: OnlineKeys,
    accepted: tuple[str, ...],
    *,
    accept_jump: bool,
) -> None:
    found, verdicts = plan_with_inbox(
        ws,
        ws.storage(),
        keys,
        context.now,
        accepted=frozenset(accepted),
        accept_jump=accept_jump,
        tell=lambda verdict: _say_verdict(context, verdict),
    )
    if isinstance(found, NothingToDo):
        _say_nothing_to_do(context, found, verdicts)
        return
    record = make_record(ws, found.plan, context.now)
    for upload in (*found.plan.uploads, found.plan.root, found.plan.root_chain):
        if upload is None:
            continue
        context.printer.say(f"create   {upload.path}  {upload.length} bytes")
    context.printer.say(f"replace  metadata/timestamp.json  {len(found.plan.timestamp)} bytes")
    for role, facts in record["roles"].items():
        context.printer.say(f"signed   {role} {facts['version']}: {', '.join(facts['signed_by'])}")
    _say_held(context, found.plan.admitted.waiting)
    _say_rehearsal(context, found.rehearsal)
    check_stranding(found, frozenset(accepted))
    context.printer.say("next: firmroot publish")
    context.printer.result(
        {
            "record": record,
            "waiting": dict(found.plan.admitted.waiting),
            "inbox": [_facts(each) for each in verdicts],
            "rehearsal": _rehearsal_rows(found.rehearsal),
        }
    )


def _say_rehearsal(context: Context, rehearsal: Rehearsal) -> None:
    for name, row in rehearsal.devices().items():
        context.printer.say(f"device   {name}: {row.outcome.value}, {row.detail}")
    context.printer.say(
        f"rehearsed {len(rehearsal.rows)} cases, {len(rehearsal.stranded())} devices stranded"
    )


def _rehearsal_rows(rehearsal: Rehearsal) -> list[dict[str, Any]]:
    return [
        {
            "device": row.device,
            "cached": row.cached.value,
            "moment": row.moment.value,
            "clock": row.clock.value,
            "outcome": row.outcome.value,
            "detail": row.detail,
        }
        for row in rehearsal.rows
    ]


def _say_verdict(context: Context, verdict: Verdict) -> None:
    """One line on what becomes of a submission, and one on what its submitter should do."""
    what = f"{verdict.role} {verdict.version}" if verdict.role else "garbage"
    why = f": {verdict.reason}" if verdict.reason else ""
    context.printer.say(f"inbox    {what} ({verdict.id[:8]}): {verdict.outcome.value}{why}")


def _facts(verdict: Verdict) -> dict[str, Any]:
    return {**vars(verdict), "outcome": verdict.outcome.value}


def _say_nothing_to_do(context: Context, found: NothingToDo, verdicts: Iterable[Verdict]) -> None:
    what = (
        "nothing else that is signed can go yet"
        if found.held
        else "everything that is signed is live"
    )
    context.printer.say(f"nothing to publish: {what}")
    _say_held(context, found.held)
    _say_waiting(context, found.waiting)
    following = context.say_next()
    context.printer.result(
        {
            "published": False,
            "waiting": [vars(each) for each in found.waiting],
            "held": dict(found.held),
            "inbox": [_facts(each) for each in verdicts],
            "next": following,
        }
    )


def _say_held(context: Context, held: Mapping[str, str]) -> None:
    for role, why in held.items():
        context.printer.say(f"waits    {role}: {why}")


def _say_waiting(context: Context, waiting: Iterable[Waiting]) -> None:
    for each in waiting:
        context.printer.say(
            f"still waits: {each.name}, {each.needed} more of {', '.join(each.missing)}"
        )


@click.command(epilog=example("firmroot publish", "firmroot publish --dry-run"))
@click.option("--dry-run", is_flag=True, help="As plan: show it and stop.")
@click.option(
    "--resume/--no-resume",
    default=True,
    show_default=True,
    help="Go on with what an interrupted publish signed; always safe.",
)
@click.option(
    "--wait/--no-wait",
    default=None,
    help="Whether caches stand before the storage, and a root with other keys waits for them; "
    "only a lab is without by default.",
)
@_jump
@_stranding
@passphrase_option
@click.pass_obj
def publish(
    context: Context,
    accepted: tuple[str, ...],
    descriptor: int | None,
    *,
    dry_run: bool,
    resume: bool,
    wait: bool | None,
    accept_jump: bool,
) -> None:
    """Rehearse what is signed with every device there is, then make it visible.

    What builders and release managers handed in (firmroot submit) is verified and goes along.
    Interrupted anywhere, devices see the old state or the new one; run it again and it finishes.
    """
    ws = context.workspace()
    keys = OnlineKeys(ws, context.secrets(ws, descriptor))
    if wait is None:
        wait = not ws.config.lab
    with ws.lock(), _edges(context, ws, wait=wait) as edges:
        if dry_run:
            _show_plan(context, ws, keys, accepted, accept_jump=accept_jump)
            return
        with context.steps() as progress:
            found, verdicts = publish_with_inbox(
                ws,
                ws.storage(),
                keys,
                context.now,
                accepted=frozenset(accepted),
                resume=resume,
                accept_jump=accept_jump,
                edges=edges,
                progress=progress,
                tell=lambda verdict: _say_verdict(context, verdict),
            )
    if isinstance(found, NothingToDo):
        _say_nothing_to_do(context, found, verdicts)
        return
    _say_published(context, found, verdicts)


@contextmanager
def _edges(context: Context, ws: Workspace, *, wait: bool) -> Iterator[Edges]:
    """What stands between the storage and the devices: whatever is behind the public URLs."""
    if not wait:
        yield NoEdges()
        return
    ambient = Ambient(time.monotonic, time.sleep, random.random)
    with ExitStack() as stack:
        probes = {
            url: EpochFetcher(
                stack.enter_context(HttpFetcher(Settings((parse_mirror(url),)), ambient)), ws.epoch
            )
            for url in ws.config.urls
        }
        yield AwaitedEdges(probes, time.sleep, context.printer.say)


def _say_published(context: Context, published: Published, verdicts: Iterable[Verdict]) -> None:
    prepared, record = published.prepared, published.record
    versions = {role: facts["version"] for role, facts in record["roles"].items()}
    binned = [role for role in versions if is_bin(role)]
    named = [f"{role} {version}" for role, version in versions.items() if not is_bin(role)]
    one = len(binned) == 1
    named += [f"{binned[0]} {versions[binned[0]]}" if one else told(binned)] if binned else []
    changed = ", ".join(named)
    context.printer.say(f"published timestamp {record['timestamp']['version']}: {changed}")
    held = prepared.plan.admitted.waiting
    _say_held(context, held)
    _say_rehearsal(context, prepared.rehearsal)
    context.printer.say("verified as a device from the storage")
    _say_waiting(context, published.waiting)
    following = context.say_next(live=prepared.plan.candidate)
    context.printer.result(
        {
            "published": True,
            "record": record,
            "held": dict(held),
            "inbox": [_facts(each) for each in verdicts],
            "rehearsal": _rehearsal_rows(prepared.rehearsal),
            "next": following,
        }
    )


@click.command(
    epilog=example("firmroot refresh", "firmroot refresh --metrics /var/lib/metrics/firmroot.prom")
)
@click.option(
    "--metrics",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Leave a text file for Prometheus, however it ends.",
)
@click.option(
    "--fail-within",
    default="7d",
    show_default=True,
    metavar="TIME",
    help="End with exit code 3 if what people sign expires within that time.",
)
@_jump
@_stranding
@passphrase_option
@click.pass_obj
def refresh(
    context: Context,
    accepted: tuple[str, ...],
    descriptor: int | None,
    metrics: Path | None,
    fail_within: str,
    *,
    accept_jump: bool,
) -> None:
    """Sign timestamp anew, and snapshot where it is due, before they expire.

    For a job (`infra/systemd`). Whoever loses the race against a publish is done as well. What
    people sign it cannot renew: it fails before that expires, and says who must act.
    """
    ws: Workspace | None = None
    code: int = ExitCode.BUG
    try:
        ws = context.workspace()
        within = parse_duration(fail_within)
        keys = OnlineKeys(ws, context.secrets(ws, descriptor))
        with ws.lock(), context.steps() as progress:
            found = refresh_online(
                ws,
                ws.storage(),
                keys,
                context.now,
                accepted=frozenset(accepted),
                accept_jump=accept_jump,
                progress=progress,
            )
        _say_refreshed(context, found)
        check_people(endings(ws, context.now, within), now=context.now)
        code = ExitCode.DONE
    except BaseException as error:
        code = exit_code(error)
        raise
    finally:
        if metrics is not None:
            # A file that cannot be written does not hide why the run failed.
            with suppress(OSError, DiskFullError) if code else nullcontext():
                write_metrics(metrics, ws, context.now, code)


def _say_refreshed(context: Context, found: Refreshed | LostRace) -> None:
    if isinstance(found, LostRace):
        context.printer.say(f"nothing to do: {found.reason}")
        following = context.say_next(wrote=False)
        context.printer.result({"refreshed": False, "reason": found.reason, "next": following})
        return
    state, base = found.prepared.plan.candidate, found.prepared.plan.admitted.base
    timestamp, snapshot = state.parsed_timestamp(), state.parsed_snapshot()
    expires: dict[str, str] = {}
    for signed in (timestamp, snapshot):
        if signed is not None:
            same = signed.type == "snapshot" and state.snapshot == base.snapshot
            expires[signed.type] = f"{signed.expires:%Y-%m-%dT%H:%M:%SZ}"
            context.printer.say(
                f"{signed.type} {signed.version}: {'stays as it is' if same else 'signed'}, "
                f"good until {expires[signed.type]}"
            )
    following = context.say_next()
    context.printer.result({"refreshed": True, "expires": expires, "next": following})
