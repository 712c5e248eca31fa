"""`firmroot key`: keys and their holders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from client_reference.errors import ConfigurationError
from client_reference.nearest import did_you_mean
from keys_policy.model import ALGORITHMS
from repo_tools.cli.context import Context, example, passphrase_option
from repo_tools.signing.keyfiles import is_private, load_public
from repo_tools.signing.keyring import (
    add_public,
    add_to_roles,
    import_private,
    new_key,
    usual_holder,
)
from repo_tools.signing.signers import open_signer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keys_policy.model import KeyHolder
    from repo_tools.workspace import Workspace

__all__ = ["key"]


@click.group(epilog=example("firmroot key new alice --role root --role targets"))
def key() -> None:
    """Keys and their holders."""


_holder_option = click.option(
    "--holder", help="Who has the private key; the name without its year if not given."
)
_role_option = click.option(
    "--role", "roles", multiple=True, help="Add it to this role of policy.toml; may be repeated."
)


@key.command(
    epilog=example(
        "firmroot key new alice --role root --role targets",
        "firmroot key new ci --type ecdsa-p256 --role builds --passphrase-fd 3 3<secret",
    )
)
@click.argument("name")
@click.option(
    "--type",
    "algorithm",
    type=click.Choice(tuple(ALGORITHMS)),
    default="ed25519",
    show_default=True,
    help="The kind of key.",
)
@_holder_option
@_role_option
@passphrase_option
@click.pass_obj
def new(
    context: Context,
    name: str,
    algorithm: str,
    holder: str | None,
    roles: tuple[str, ...],
    descriptor: int | None,
) -> None:
    """Make a key on this machine.

    The private half goes to .firmroot/keys, encrypted, and never into git; the public half to
    keys/NAME.toml. The passphrase is asked for, or read from a file descriptor or from the file
    that FIRMROOT_PASSPHRASE_FILE names.
    """
    ws = context.workspace(missing_keys=True)
    _check_roles(ws, roles)
    passphrase = context.new_passphrase(ws, descriptor, name)
    with ws.lock():
        made = new_key(ws, name, algorithm, holder or usual_holder(name), passphrase)
        add_to_roles(context.workspace(missing_keys=True), name, roles)
    _report(context, made, roles, "made")


@key.command(
    "import",
    epilog=example(
        "firmroot key import /media/usb/alice.pem --name alice",
        "firmroot key import bob-public.pem --name bob --holder 'Bob Brown'",
    ),
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--name", help="What to call it; the name of the file if not given.")
@_holder_option
@click.option("--custody", default="file", show_default=True, help="Where the private half is.")
@_role_option
@passphrase_option
@click.pass_obj
def import_(
    context: Context,
    file: Path,
    name: str | None,
    holder: str | None,
    custody: str,
    roles: tuple[str, ...],
    descriptor: int | None,
) -> None:
    """Bring in a key from a PEM file: public, or private and encrypted.

    A private key stays where it is; this machine remembers the place.
    """
    ws = context.workspace(missing_keys=True)
    _check_roles(ws, roles)
    name = name or file.stem
    holder = holder or usual_holder(name)
    with ws.lock():
        if is_private(file):
            passphrase = context.secrets(ws, descriptor).passphrase(name)
            made = import_private(ws, name, file, holder, passphrase)
        else:
            made = add_public(ws, name, load_public(file), holder, custody)
        add_to_roles(context.workspace(missing_keys=True), name, roles)
    _report(context, made, roles, "imported")


@key.command("list", epilog=example("firmroot key list"))
@click.pass_obj
def list_keys(context: Context) -> None:
    """List keys, their holders and roles, and which are on this machine."""
    ws = context.workspace(missing_keys=True)
    uris = ws.key_uris()
    for each in ws.keyring.values():
        roles = ", ".join(ws.policy.roles_of(each.name)) or "no role"
        here = f"  {uris[each.name]}" if each.name in uris else ""
        context.printer.say(
            f"{each.name:16} {each.key.keyid[:8]}  {each.key.scheme}  {roles}{here}"
        )
    if not ws.keyring:
        context.printer.say("no key yet; firmroot key new NAME --role ROLE")
    context.printer.result({name: _facts(ws, each, uris) for name, each in ws.keyring.items()})


@key.command(epilog=example("firmroot key show alice"))
@click.argument("name")
@click.pass_obj
def show(context: Context, name: str) -> None:
    """Show everything that is known about a key."""
    ws = context.workspace(missing_keys=True)
    facts = _facts(ws, _find(ws, name), ws.key_uris())
    for field, value in facts.items():
        text = ", ".join(value) if isinstance(value, list) else value
        context.printer.say(f"{field:8} {text}")
    context.printer.result(facts)


@key.command(epilog=example("firmroot key test alice"))
@click.argument("name")
@passphrase_option
@click.pass_obj
def test(context: Context, name: str, descriptor: int | None) -> None:
    """Make a test signature with a private key and verify it; nothing is written."""
    ws = context.workspace(missing_keys=True)
    holder = _find(ws, name)
    uris = ws.key_uris()
    if name not in uris:
        raise ConfigurationError(
            f"the private half of {name} is not on this machine",
            f"it is with {holder.holder}; to use it here: firmroot key import FILE",
        )
    open_signer(uris[name], holder, context.secrets(ws, descriptor), ws.directory)
    context.printer.say(f"{name}: signs, and its signature verifies ({holder.key.scheme})")
    context.printer.result({"name": name, "works": True})


def _find(ws: Workspace, name: str) -> KeyHolder:
    if name not in ws.keyring:
        raise ConfigurationError(
            f"there is no key {name!r}; there are: {', '.join(ws.keyring) or 'none'}"
            f"{did_you_mean(name, ws.keyring)}",
            "firmroot key list",
        )
    return ws.keyring[name]


def _check_roles(ws: Workspace, roles: tuple[str, ...]) -> None:
    for role in roles:
        if role not in ws.policy.roles:
            raise ConfigurationError(
                f"policy.toml has no role {role!r}; it has: {', '.join(ws.policy.roles)}"
                f"{did_you_mean(role, ws.policy.roles)}",
                "name one of them with --role",
            )


def _facts(ws: Workspace, each: KeyHolder, uris: Mapping[str, str]) -> dict[str, str | list[str]]:
    return {
        "name": each.name,
        "holder": each.holder,
        "custody": each.custody,
        "keyid": each.key.keyid,
        "keytype": each.key.keytype,
        "scheme": each.key.scheme,
        "public": str(each.key.keyval["public"]),
        "roles": list(ws.policy.roles_of(each.name)),
        "private": uris.get(each.name, "not on this machine"),
    }


def _report(context: Context, made: KeyHolder, roles: tuple[str, ...], verb: str) -> None:
    role = f" for {', '.join(roles)}" if roles else ""
    context.printer.say(
        f"{made.name}: {verb}{role}, key id {made.key.keyid[:8]}, holder {made.holder}"
    )
    following = context.say_next()
    context.printer.result(
        {
            "name": made.name,
            "keyid": made.key.keyid,
            "holder": made.holder,
            "roles": list(roles),
            "next": following,
        }
    )
