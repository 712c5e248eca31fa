"""`firmroot init`: make a workspace."""

from __future__ import annotations

import secrets
from pathlib import Path

import click

from client_reference.errors import ConfigurationError
from repo_tools.cli.context import Context, example
from repo_tools.creation import LAB_KEYS, POLICIES, create_lab, create_workspace
from repo_tools.git import reminder

__all__ = ["init"]


@click.command(epilog=example("firmroot init acme --lab", "firmroot init acme --storage /srv/fw"))
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--storage",
    metavar="URL",
    default="repository",
    show_default=True,
    help="Where publish writes: a directory in the workspace, file:///... or s3://BUCKET/PREFIX.",
)
@click.option("--lab", is_flag=True, help="For trying out: make every key now, mark the root LAB.")
@click.option(
    "--policy",
    type=click.Choice(POLICIES),
    help="Rules to begin with: a team of people (the default), one maker, or a regulated fleet "
    "with hybrid post-quantum keys.",
)
@click.pass_obj
def init(context: Context, directory: Path, storage: str, policy: str | None, *, lab: bool) -> None:
    """Make a workspace.

    DIR must not exist yet, or be empty. Keep it in git: everything that people decide and sign is
    a file in it, everything private is below .firmroot, which git ignores.
    """
    if context.lab_time and not lab:
        raise ConfigurationError(
            "FIRMROOT_LAB_NOW is set, but this workspace will not be a lab",
            "unset it, or add --lab",
        )
    if lab and policy is not None:
        raise ConfigurationError(
            f"--lab has rules of its own, found --policy {policy}", "leave out one of the two"
        )
    directory = context.directory / directory
    if lab:
        create_lab(directory, storage, secrets.token_hex(16).encode(), context.now)
        context.printer.say(
            f"{directory}: a LAB workspace with {len(LAB_KEYS)} keys on this machine; never use it "
            "for devices in the field"
        )
        following = f"firmroot -C {directory} product add NAME --hardware ID"
    else:
        create_workspace(directory, storage, policy or POLICIES[0])
        context.printer.say(f"{directory}: a workspace without keys; its rules are in policy.toml")
        if "://" not in storage:
            context.printer.say(
                f"its storage {storage}/ is a folder that git does not keep: for several clones "
                'name one that all of them reach, storage = "file:///..." in firmroot.toml'
            )
        following = f"firmroot -C {directory} key new NAME --role root --role targets"
    context.printer.say(f"next: {following}")
    if not lab and not context.json:
        # In a work tree already, it is shared like everything else there.
        context.printer.say(reminder(directory) or f"keep it in git: git init {directory}")
    context.printer.result({"directory": str(directory), "lab": lab, "next": following})
