"""`firmroot key list`: of a workspace, or of a token or service.

The latter must run where the libraries of a workspace are not installed: whoever signs a file with
a token looks up the number of the key there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from client_reference.errors import ConfigurationError
from repo_tools.cli.context import Context, example
from repo_tools.signing.services import KINDS, discover

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keys_policy.model import KeyHolder
    from repo_tools.workspace import Workspace

__all__ = ["facts", "list_keys"]


@click.command("list", epilog=example("firmroot key list", "firmroot key list hsm:"))
@click.argument("uri", required=False)
@click.pass_obj
def list_keys(context: Context, uri: str | None) -> None:
    """List keys, their holders and roles, and which are on this machine.

    With URI, the keys of a token or service instead: hsm:, awskms: or hv:.
    """
    if uri is not None:
        _list_found(context, uri)
        return
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
    context.printer.result({name: facts(ws, each, uris) for name, each in ws.keyring.items()})


def _list_found(context: Context, uri: str) -> None:
    if uri.partition(":")[0] not in KINDS:
        raise ConfigurationError(
            f"{uri!r} is no place that can be asked for keys",
            f"one of {', '.join(f'{scheme}:' for scheme, kind in KINDS.items() if kind.find)}",
        )
    found = discover(uri)
    for each in found:
        context.printer.say(f"{each.uri:40} {each.about}")
    if found and not (context.directory / "firmroot.toml").exists():
        context.printer.say(f"next: firmroot sign FILE --key '{found[0].uri}' --as NAME")
    elif found:
        context.printer.say(f"next: firmroot key import '{found[0].uri}' --name NAME --role ROLE")
    else:
        context.printer.say("no key that can sign here")
    context.printer.result({each.uri: each.about for each in found})


def facts(ws: Workspace, each: KeyHolder, uris: Mapping[str, str]) -> dict[str, str | list[str]]:
    """Everything that is known about a key; `uris` are those of this machine."""
    return {
        "name": each.name,
        "holder": each.holder,
        "custody": each.custody,
        "contact": each.contact,
        "place": each.place,
        "made": str(each.made or ""),
        "destroyed": str(each.destroyed or ""),
        "keyid": each.key.keyid,
        "keytype": each.key.keytype,
        "scheme": each.key.scheme,
        "public": str(each.key.keyval["public"]),
        "roles": list(ws.policy.roles_of(each.name)),
        "private": uris.get(each.name, "not on this machine"),
    }
