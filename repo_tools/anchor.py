"""The ceremonies of the recovery anchor: setting it up, renewing it, re-rooting the fleet.

A re-rooting goes through these steps; each command does what is due and says what comes next, and
killed anywhere it is run again:

1. the workspace enters the next epoch (`epoch` in `firmroot.toml`, which is what commits the step).
   Every epoch has places of its own, so what the old one published stays as it is in git;
2. ceremonies open for a new root with the keys that the policy names, for `targets`, and for what
   people signed before; builds are signed again by their builder;
3. once the new root is signed, the ceremony of the recovery root that names it opens;
4. `publish` makes the new epoch live, `anchor publish` sends the fleet there.

Not here: which devices follow (`repo_tools.publishing.following`) and the recovery storage
(`repo_tools.publishing.recovery`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import tomlkit
from tuf.api.metadata import Root

from client_reference import manifest as formats
from client_reference.errors import (
    ActionRequiredError,
    ConfigurationError,
    NotFoundError,
    RefusedError,
)
from client_reference.trust.recovery import read_statement
from repo_tools.files import replace_file
from repo_tools.metadata.anchor import next_recovery, statement_about
from repo_tools.metadata.edits import is_lab_root, renewed
from repo_tools.metadata.repository import parse
from repo_tools.metadata.roles import RECOVERY, builds_role, channel_role, manifest_path
from repo_tools.metadata.rotation import replace_key
from repo_tools.publishing.inherit import carried_files, inherited_role, primary_root
from repo_tools.publishing.renewal import renew_builds
from repo_tools.signing.ceremony import (
    check_startable,
    open_ceremonies,
    predecessor,
    start_ceremony,
)
from repo_tools.signing.rules import enforce_sound, templates
from repo_tools.signing.start import start_root, start_targets
from repo_tools.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from datetime import datetime

    from tuf.api.metadata import Role

    from client_reference.trust.recovery import Statement
    from keys_policy.model import Policy, RolePolicy
    from repo_tools.signing.ceremony import Ceremony
    from repo_tools.signing.secrets import Secrets

__all__ = [
    "Opened",
    "begin_epoch",
    "check_begin",
    "describe_anchor",
    "init_anchor",
    "least_offered",
    "least_sequences",
    "open_epoch",
    "renew_anchor",
    "underway",
    "without_keys",
]


@dataclass(frozen=True)
class Opened:
    """What a step of a re-rooting did.

    Attributes:
        ceremonies: that wait for signatures now, and did not before.
        builds: builds roles that were signed on this machine.
        left: one sentence for each thing that this machine cannot do.
        statement: of the recovery root that waits for signatures, None before its step.
    """

    ceremonies: tuple[str, ...]
    builds: tuple[str, ...]
    left: tuple[str, ...]
    statement: Statement | None


def init_anchor(ws: Workspace, now: datetime, *, discard_signatures: bool = False) -> Ceremony:
    """Open the first recovery root, which names the root that devices leave the factory with.

    Raises:
        ConfigurationError: there is an anchor already, or the policy names no keys for it.
        ActionRequiredError: there is no root yet.
        FirmrootError: as `start_ceremony`.
    """
    _rules(ws)
    if (known := ws.newest_recovery()) is not None:
        raise ConfigurationError(
            f"there is an anchor already, version {known.version}",
            "to give it other keys: firmroot anchor renew",
        )
    first = primary_root(ws)
    if first is None:
        raise ActionRequiredError(
            "there is no root yet that the anchor could name",
            "firmroot ceremony start root, then: firmroot sign",
        )
    statement = statement_about(first, ws.epoch)
    return _start(ws, statement, now, discard_signatures=discard_signatures)


def renew_anchor(ws: Workspace, now: datetime, *, discard_signatures: bool = False) -> Ceremony:
    """Open the next recovery root, with the same statement and the keys of the policy.

    Raises:
        ActionRequiredError: there is no anchor, or a re-rooting is under way.
        FirmrootError: as `start_ceremony`.
    """
    _rules(ws)
    before = _published(ws)
    if underway(ws):
        raise ActionRequiredError(
            f"epoch {ws.epoch} has begun: its statement is the next version of the anchor",
            "firmroot anchor re-root",
        )
    statement = read_statement(before)
    return _start(ws, statement, now, discard_signatures=discard_signatures)


def _rules(ws: Workspace) -> RolePolicy:
    if (rules := ws.policy.recovery) is None:
        raise ConfigurationError(
            f"policy.toml names no keys in roles.{RECOVERY}: expected those of other people than "
            "root's",
            f"firmroot key new NAME --role {RECOVERY}",
        )
    return rules


def _published(ws: Workspace) -> Root:
    """The newest recovery root that devices can know."""
    if (data := predecessor(ws, RECOVERY)) is None:
        raise ActionRequiredError(
            "no recovery anchor is published", "firmroot anchor init, sign, anchor publish"
        )
    return parse(data, Root, RECOVERY).signed


def _start(
    ws: Workspace, statement: Statement, now: datetime, *, discard_signatures: bool
) -> Ceremony:
    before = predecessor(ws, RECOVERY)
    previous = None if before is None else parse(before, Root, RECOVERY).signed
    first = primary_root(ws)
    lab = first is not None and is_lab_root(parse(first, Root, "root").signed)
    signed = next_recovery(ws.policy, ws.keyring, previous, statement, now, lab=lab)
    return start_ceremony(ws, RECOVERY, signed, discard_signatures=discard_signatures)


def describe_anchor(ws: Workspace) -> tuple[str, tuple[str, str] | None]:
    """Where the anchor stands in one line, and the command that is due with its reason."""
    anchor = ws.newest_recovery()
    if anchor is None:
        if any(each.role == RECOVERY for each in open_ceremonies(ws)):
            return "not signed yet", None
        text = "none; devices that are made now can never be re-rooted: firmroot anchor init"
        return text, None
    statement = read_statement(anchor)
    role = anchor.roles[Root.type]
    keys = ", ".join(sorted(ws.key_name(keyid) for keyid in role.keyids))
    line = f"version {anchor.version}, epoch {statement.epoch}, {role.threshold} of {keys}"
    if ws.staged_role(RECOVERY) is not None:
        return f"{line}; signed, not yet published", (
            "firmroot anchor publish",
            "the recovery root is signed and not published",
        )
    if underway(ws):
        line += f"; epoch {ws.epoch} has begun"
        if primary_root(ws) is not None:
            return line, ("firmroot anchor re-root", "the anchor must name the new root")
    elif _names_others(ws, role) and not any(e.role == RECOVERY for e in open_ceremonies(ws)):
        return line, ("firmroot anchor renew", "the policy gives the recovery root other keys")
    return line, None


def _names_others(ws: Workspace, role: Role) -> bool:
    """Whether the policy was changed since, or a rotation interrupted."""
    if (rules := ws.policy.recovery) is None:
        return False
    wanted = {ws.keyring[name].key.keyid for name in rules.keys}
    return (rules.threshold, wanted) != (role.threshold, set(role.keyids))


# Re-rooting.


def underway(ws: Workspace) -> bool:
    """Whether an epoch has begun that the published anchor does not name yet."""
    data = predecessor(ws, RECOVERY)
    return data is not None and (
        ws.epoch > read_statement(parse(data, Root, RECOVERY).signed).epoch
    )


def without_keys(ws: Workspace, names: Collection[str]) -> Policy:
    """The policy without keys that are lost or stolen; one that has gone already stays away.

    Raises:
        ConfigurationError: there is no such key.
    """
    policy = ws.policy
    for name in names:
        if name not in ws.keyring:
            raise ConfigurationError(f"--without {name}: there is no such key", "firmroot key list")
        policy = replace_key(policy, name, None)
    return policy


def check_begin(ws: Workspace, policy: Policy, now: datetime, *, discard_signatures: bool) -> None:
    """Everything that may refuse, before the next epoch begins.

    Args:
        ws: the workspace, in the epoch that ends.
        policy: that the new root will put into force.
        now: the time.
        discard_signatures: signatures over an open recovery root may be lost.

    Raises:
        ActionRequiredError: no anchor is published, or a signed version of it is not.
        PolicyViolationError: the policy breaks a rule.
        RefusedError: who held the old root could sign the new one.
    """
    _rules(ws)
    _published(ws)
    check_startable(ws, RECOVERY, discard_signatures=discard_signatures)
    enforce_sound(replace(ws, policy=policy), now)
    data = next(reversed(ws.roots()), None)
    if data is None:
        raise ActionRequiredError("nothing is published that could be left", "firmroot publish")
    old = set(parse(data, Root, "root").signed.roles[Root.type].keyids)
    rules = policy.role(Root.type)
    stay = [name for name in rules.keys if ws.keyring[name].key.keyid in old]
    if len(stay) >= rules.threshold:
        raise RefusedError(
            f"{rules.threshold} of {', '.join(stay)} could sign the new root, and they hold the "
            "old one: whoever has those keys would have the new repository too",
            "make new keys (firmroot key new NAME --role root --role targets), then name those "
            f"that are lost or stolen: firmroot anchor re-root --without {stay[0]}",
        )


def begin_epoch(ws: Workspace, policy: Policy) -> Workspace:
    """Enter the next epoch, as `check_begin` allowed. The caller holds the lock.

    Returns:
        the workspace, in its new epoch.
    """
    if policy != ws.policy:
        _write_policy(ws, policy)
    path = ws.directory / "firmroot.toml"
    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    if "epoch" in document:
        document["epoch"] = ws.epoch + 1
    else:
        # Before the first table: a key after one would belong to it.
        first = tomlkit.document()
        first.add(tomlkit.comment("How often the fleet was re-rooted; anchor re-root writes it."))
        first["epoch"] = ws.epoch + 1
        document = tomlkit.parse(tomlkit.dumps(first) + tomlkit.dumps(document))
    replace_file(path, tomlkit.dumps(document).encode())
    return Workspace.open(ws.directory, occasion=ws.occasion)


def _write_policy(ws: Workspace, policy: Policy) -> None:
    path = ws.directory / "policy.toml"
    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    sections = document["roles"]
    for name, rules in policy.roles.items():
        if rules != ws.policy.roles[name]:
            sections[name]["keys"] = list(rules.keys)
    replace_file(path, tomlkit.dumps(document).encode())


def open_epoch(
    ws: Workspace, secrets: Secrets, minimum: Mapping[str, int], now: datetime
) -> Opened:
    """Open whatever the new epoch still needs; what is open, signed or live stays as it is.

    Args:
        ws: the workspace, in the epoch that has begun.
        secrets: for the builder's key, if it is here.
        minimum: least sequence by product, where it should not be `least_offered`.
        now: the time.
    """
    opened = [each.name for each in _open_roles(ws, now)]
    builds: list[str] = []
    left: list[str] = []
    for product in ws.config.products:
        if ws.staged_role(builds_role(product)) is None:
            _sign_builds(ws, product, secrets, now, builds, left)
    statement = _statement(ws, minimum)
    if statement is not None:
        opened.append(_start(ws, statement, now, discard_signatures=False).name)
    return Opened(tuple(opened), tuple(builds), tuple(left), statement)


def _open_roles(ws: Workspace, now: datetime) -> Iterator[Ceremony]:
    """Root, targets and what people signed in the epoch before, each unless it has begun."""
    waiting = {each.role for each in open_ceremonies(ws)}

    def begun(role: str) -> bool:
        return role in waiting or ws.staged_role(role) is not None

    if not begun("root") and not ws.roots():
        yield start_root(ws, now)
    for role, kind in {"targets": "targets", **templates(ws)}.items():
        if kind == "builds" or begun(role) or ws.published_role(role) is not None:
            continue
        if role == "targets":
            yield start_targets(ws, ws.config.products, now)
        elif (before := inherited_role(ws, role)) is not None:
            signed = renewed(before, ws.policy.role(role, kind), now)
            signed.version = 1
            yield start_ceremony(ws, role, signed, carried_files(ws, signed))


def _sign_builds(
    ws: Workspace,
    product: str,
    secrets: Secrets,
    now: datetime,
    builds: list[str],
    left: list[str],
) -> None:
    if ws.roots():
        return  # the epoch is live, or on its way
    try:
        renew_builds(ws, product, secrets, now)
    except ConfigurationError:
        return  # no firmware was added yet
    except ActionRequiredError as error:
        left.append(f"{error.message}; {error.hint}")
    else:
        builds.append(builds_role(product))


def _statement(ws: Workspace, minimum: Mapping[str, int]) -> Statement | None:
    """What the anchor must say next: None before the new root is signed, or if it says it already.

    A statement that waits for signatures stays as it is.
    """
    first = primary_root(ws)
    waits = any(each.role == RECOVERY for each in open_ceremonies(ws))
    if first is None or waits or ws.staged_role(RECOVERY) is not None or not underway(ws):
        return None
    return statement_about(first, ws.epoch, least_sequences(ws, minimum))


def least_sequences(ws: Workspace, minimum: Mapping[str, int]) -> dict[str, int]:
    """For each product what was named, else what its channels still offer.

    Raises:
        ConfigurationError: there is no such product.
    """
    if unknown := sorted(minimum.keys() - ws.config.products.keys()):
        raise ConfigurationError(
            f"--minimum {unknown[0]}: there is no such product; "
            f"there is: {', '.join(ws.config.products) or 'none'}",
            "firmroot product list",
        )
    found = {
        product: minimum[product] if product in minimum else least_offered(ws, product)
        for product in ws.config.products
    }
    return {product: least for product, least in found.items() if least}


def least_offered(ws: Workspace, product: str) -> int:
    """The lowest sequence that any channel of a product still offered; 0 if none offered any.

    Higher would strand devices before a stepping stone, lower would open releases that no channel
    offers any more.

    Raises:
        ConfigurationError: a manifest is not in the storage.
    """
    found = []
    for channel in ws.config.products[product].channels:
        signed = inherited_role(ws, channel_role(product, channel))
        path = manifest_path(product, channel)
        if signed is None or path not in signed.targets:
            continue
        try:
            manifest = formats.parse(carried_files(ws, signed)[path])
        except NotFoundError as error:
            raise ConfigurationError(
                f"the manifest of {product}/{channel} is gone: {error.message}",
                f"restore it from a mirror, or say it: --minimum {product}=SEQUENCE",
            ) from error
        offered = [release.sequence for release in manifest.releases]
        found.append(max(manifest.minimum_sequence, min(offered, default=0)))
    return min(found, default=0)
