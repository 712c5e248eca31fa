"""`firmroot key new | import | show | test`: the keys of a workspace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from client_reference.errors import ConfigurationError
from client_reference.nearest import did_you_mean
from keys_policy.model import ALGORITHMS, CUSTODIES, ONLINE_ROLES, RECOVERY
from repo_tools.cli.context import Context, example, passphrase_option
from repo_tools.cli.key_list import facts as facts_of
from repo_tools.signing.ceremony import open_ceremonies
from repo_tools.signing.keyfiles import is_private, load_public
from repo_tools.signing.keyring import (
    About,
    add_public,
    add_to_roles,
    import_private,
    new_key,
    usual_holder,
)
from repo_tools.signing.openssh import is_openssh
from repo_tools.signing.services import KINDS
from repo_tools.signing.signers import FILES, open_signer

if TYPE_CHECKING:
    from datetime import datetime

    from keys_policy.model import KeyHolder
    from repo_tools.workspace import Workspace

__all__ = ["import_", "new", "show", "test"]


_holder_option = click.option(
    "--holder", help="Who has the private key; the name without its year if not given."
)
_contact_option = click.option("--contact", default="", help="How to reach the holder.")
_place_option = click.option("--place", default="", help="Where the private key lies.")
_role_option = click.option(
    "--role", "roles", multiple=True, help="Add it to this role of policy.toml; may be repeated."
)


@click.command(
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
@_contact_option
@_place_option
@_role_option
@passphrase_option
@click.pass_obj
def new(
    context: Context,
    name: str,
    algorithm: str,
    holder: str | None,
    contact: str,
    place: str,
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
    _foretell(context, ws, name, roles)
    passphrase = context.new_passphrase(ws, descriptor, name)
    about = About(contact, place, context.now.date())
    with ws.lock():
        made = new_key(ws, name, algorithm, holder or usual_holder(name), passphrase, about)
        add_to_roles(context.workspace(missing_keys=True), name, roles)
    _report(context, made, roles, "made")


@click.command(
    "import",
    epilog=example(
        "firmroot key import /media/usb/alice.pem --name alice",
        "firmroot key import bob-public.pem --name bob --holder 'Bob Brown'",
        "firmroot key import 'hsm:2?label=acme-root' --name carol --role root",
    ),
)
@click.argument("source", metavar="FILE|URI")
@click.option("--name", help="What to call it; the name of the file if not given.")
@_holder_option
@click.option(
    "--custody",
    type=click.Choice(CUSTODIES),
    default="file",
    show_default=True,
    help="What keeps the private half, for a public key.",
)
@_contact_option
@_place_option
@click.option("--made", type=click.DateTime(["%Y-%m-%d"]), help="When it was made; today if not.")
@_role_option
@passphrase_option
@click.pass_obj
def import_(  # noqa: PLR0913, PLR0917  one for each option
    context: Context,
    source: str,
    name: str | None,
    holder: str | None,
    custody: str,
    contact: str,
    place: str,
    made: datetime | None,
    roles: tuple[str, ...],
    descriptor: int | None,
) -> None:
    """Bring in a key: from a file, a token, a KMS or Vault.

    A private key stays where it is; this machine remembers the place. A FILE is PEM, public or
    private and encrypted, or a private key of OpenSSH. A URI is hsm:NUMBER?label=TOKEN (PKCS#11),
    awskms:KEY, hv:KEY (Vault transit), or, not tested here, gcpkms:KEY and azurekms:VAULT/KEY; a
    test signature shows that it works.
    """
    ws = context.workspace(missing_keys=True)
    _check_roles(ws, roles)
    scheme, _, path = source.partition(":")
    about = About(contact, place, (made or context.now).date())
    service, file = scheme in KINDS, Path(path if scheme in FILES else source)
    if path and not service and scheme not in FILES and not file.exists():
        known = ", ".join(f"{each}:" for each in (*FILES, *KINDS))
        raise ConfigurationError(
            f"{source!r} is neither a file nor a key URI: those begin with {known}",
            "a token: hsm:NUMBER?label=TOKEN (firmroot key list hsm:); Vault or OpenBao: hv:KEY",
        )
    if service and not name:
        raise ConfigurationError(f"{source} has no name of its own", "give it one with --name")
    name = name or file.stem
    holder = holder or usual_holder(name)
    _foretell(context, ws, name, roles)
    with ws.lock():
        if service or is_private(file):
            uri = source if service else f"{_form(file)}:{file.absolute()}"
            key = import_private(ws, name, uri, holder, context.secrets(ws, descriptor), about)
        else:
            key = add_public(ws, name, load_public(file), holder, custody, about)
        add_to_roles(context.workspace(missing_keys=True), name, roles)
    _report(context, key, roles, "imported")


def _form(file: Path) -> str:
    return "ssh" if is_openssh(file) else "file"


@click.command(epilog=example("firmroot key show alice"))
@click.argument("name")
@click.pass_obj
def show(context: Context, name: str) -> None:
    """Show everything that is known about a key."""
    ws = context.workspace(missing_keys=True)
    facts = facts_of(ws, _find(ws, name), ws.key_uris())
    for field, value in facts.items():
        text = ", ".join(value) if isinstance(value, list) else value
        context.printer.say(f"{field:8} {text}")
    context.printer.result(facts)


@click.command(epilog=example("firmroot key test alice"))
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


def _foretell(context: Context, ws: Workspace, name: str, roles: tuple[str, ...]) -> None:
    """Before a key is made: for which roles it does not count until people have signed."""
    signed = {"root": ws.newest_root(), "targets": ws.newest_targets()}
    opened = {each.role: each.name for each in open_ceremonies(ws)}
    for delegator, newest in signed.items():
        waits = [role for role in roles if role != RECOVERY and _delegator(role) == delegator]
        if not waits or (newest is None and delegator not in opened):
            continue
        without = (
            f"; {opened[delegator]} is open and goes on without it" if delegator in opened else ""
        )
        context.printer.say(
            f"{name} will sign nothing for {', '.join(waits)} before the next {delegator} names it "
            f"(firmroot ceremony start {delegator}){without}; until then policy.toml is ahead, "
            "and all else goes on"
        )


def _delegator(role: str) -> str:
    return "root" if role in {"root", "targets", *ONLINE_ROLES} else "targets"


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
