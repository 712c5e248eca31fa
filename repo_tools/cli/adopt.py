"""`firmroot adopt`: take over a repository that another tool made."""

from __future__ import annotations

import random
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from client_reference.errors import ConfigurationError, RefusedError
from client_reference.transport.fetch import Ambient, HttpFetcher, Settings
from client_reference.transport.policy import parse_mirror
from repo_tools.adoption import adopt as make
from repo_tools.adoption import check_rules, inspect, missing_bytes
from repo_tools.cli.context import Context, example
from repo_tools.creation import POLICIES
from repo_tools.git import reminder
from repo_tools.metadata.edits import format_time
from repo_tools.metadata.repository import sha256
from repo_tools.publishing.verify import Reader
from repo_tools.storage.local import LocalStorage

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any

    from repo_tools.adoption import Plan
    from repo_tools.publishing.live import Readable
    from repo_tools.storage.protocol import Storage

__all__ = ["adopt"]

_MOST_SHOWN = 10


@click.command(
    epilog=example(
        "firmroot adopt --plan https://fw.acme.example/",
        "firmroot adopt /srv/tuf acme --root shipped-root.json",
        "firmroot adopt s3://acme-fw/prefix acme --policy maker",
    )
)
@click.argument("source", metavar="SOURCE")
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option("--plan", "only_plan", is_flag=True, help="Show what would be done; writes nothing.")
@click.option(
    "--root",
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A root that your devices have; without it version 1 is taken as it is there.",
)
@click.option(
    "--policy",
    type=click.Choice(POLICIES),
    default=POLICIES[0],
    show_default=True,
    help="The rules for everything that is not there yet.",
)
@click.pass_obj
def adopt(
    context: Context,
    source: str,
    directory: Path | None,
    *,
    only_plan: bool,
    root: Path | None,
    policy: str,
) -> None:
    """Take over a repository made by tuftool, tuf-on-ci, python-tuf or another TUF tool.

    SOURCE is its storage, with metadata/ and targets/ in it: a folder, file:///... or s3://...;
    with --plan also the URL that devices have. DIR becomes a workspace with its root chain, its
    public keys and thresholds; its targets and delegations stay as they are. Nothing changes for
    devices until a root and a targets role signed by the old keys are published.
    """
    if only_plan == (directory is not None):
        raise click.UsageError("give either DIR, or --plan to look only")
    trusted = root.read_bytes() if root is not None else None
    place, storage = _open(source)
    with place as readable:
        plan = inspect(readable, trusted, context.now)
    _say(context, plan, pinned=trusted is not None)
    missing = missing_bytes(storage, plan.state) if storage is not None else ()
    for path in missing[:_MOST_SHOWN]:
        context.printer.say(f"missing    {path}: its bytes are not below targets/ by their hash")
    document = _document(plan, missing)
    if plan.obstacles or missing:
        context.printer.result(document)
        first = plan.obstacles[0] if plan.obstacles else None
        raise RefusedError(
            f"this repository cannot be adopted as it is: {first.found}"
            if first is not None
            else f"the bytes of {len(missing)} targets are missing, the first: {missing[0]}",
            first.fix
            if first is not None
            else "put them back under their hash, as consistent snapshots have them, then adopt",
        )
    check_rules(plan, policy, context.now)
    if directory is None:
        context.printer.say(f"next: firmroot adopt {source} DIR")
        context.printer.result(document)
        return
    if storage is None:
        raise ConfigurationError(
            f"{source} is where devices read; a workspace must be able to write",
            "name its storage: a folder, file:///... or s3://...; from here: firmroot adopt --plan",
        )
    context.confirm(
        f"Make {directory} the workspace that publishes to {storage.url}, trusting root 1 with "
        f"sha256 {sha256(plan.state.roots[0])[:16]}?"
    )
    directory = context.directory / directory
    make(directory, storage.url, plan, policy, context.now)
    following = f"firmroot -C {directory} key new NAME --role builds"
    context.printer.say(f"{directory}: a workspace; nothing changed in {storage.url}")
    context.printer.say("docs/runbooks/adopt.md has the steps from here to the first publish")
    context.printer.say(f"next: {following}")
    if not context.json:
        context.printer.say(reminder(directory) or f"keep it in git: git init {directory}")
    context.printer.result({**document, "directory": str(directory), "next": following})


def _open(source: str) -> tuple[AbstractContextManager[Readable], Storage | None]:
    """What is there to read, and the storage if it can be written as well."""
    scheme, separator, rest = source.partition("://")
    storage: Storage
    if scheme in {"http", "https"} and separator:
        ambient = Ambient(time.monotonic, time.sleep, random.random)
        return _Web(HttpFetcher(Settings((parse_mirror(source),)), ambient)), None
    if scheme == "s3" and separator:
        from repo_tools.storage.s3 import S3Storage  # noqa: PLC0415 # for those who have one

        storage = S3Storage(source)
    elif not separator or (scheme == "file" and rest.startswith("/")):
        path = Path(rest if separator else source).absolute()
        if not path.is_dir():
            raise ConfigurationError(
                f"SOURCE is {source!r}, and there is no such folder",
                "name the folder that has metadata/ and targets/ in it",
            )
        # As a workspace reads it: without escapes, also where there is a space in it.
        storage = LocalStorage(path, f"file://{path}")
    else:
        raise ConfigurationError(
            f"SOURCE is {source!r}; expected a folder, file:///..., s3://... or https://...",
            "firmroot adopt --help",
        )
    return nullcontext(storage), storage


class _Web:
    """A repository over HTTP, until the end of the block."""

    def __init__(self, fetcher: HttpFetcher) -> None:
        self._fetcher = fetcher

    def __enter__(self) -> Readable:
        return Reader(self._fetcher)

    def __exit__(self, *_: object) -> None:
        self._fetcher.close()


def _say(context: Context, plan: Plan, *, pinned: bool) -> None:
    say = context.printer.say
    if plan.state.roots:
        how = "one of them is the root you trust" if pinned else "taken as it is there: compare it"
        say(
            f"roots      {len(plan.state.roots)} versions, root 1 has sha256 "
            f"{sha256(plan.state.roots[0])} ({how})"
        )
    for name, signed in plan.state.newest().items() if plan.adopted is not None else ():
        say(f"live       {name} version {signed.version}, until {format_time(signed.expires)}")
    if plan.adopted is not None:
        for role, rule in plan.adopted.root.roles.items():
            say(f"keeps      {role}: {rule.threshold} of {len(rule.keyids)} keys")
    for each in plan.keys:
        say(
            f"key        {each.name}: {each.key.keytype} {each.key.keyid[:8]}, in "
            f"{', '.join(each.roles)}"
        )
    for note in plan.notes:
        say(f"note       {note}")
    for obstacle in plan.obstacles:
        say(f"refused    {obstacle.id}: {obstacle.found}")
        say(f"           fix: {obstacle.fix}")


def _document(plan: Plan, missing: tuple[str, ...]) -> dict[str, Any]:
    return {
        "adoptable": not plan.obstacles and not missing,
        "roots": len(plan.state.roots),
        "first_root": sha256(plan.state.roots[0]) if plan.state.roots else "",
        "keys": [
            {"name": each.name, "keyid": each.key.keyid, "roles": list(each.roles)}
            for each in plan.keys
        ],
        "notes": list(plan.notes),
        "obstacles": [vars(each) for each in plan.obstacles],
        "missing": list(missing),
    }
