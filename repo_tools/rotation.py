"""Carrying out a rotation or a recovery: the policy, the ceremonies, what must be signed again.

Everything that may refuse is asked before the first file changes. Killed after that and run again,
it finishes, since the plan also looks at what is signed (`repo_tools.metadata.rotation`).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING

import tomlkit
from tuf.api.metadata import Root, Targets

from client_reference.errors import ActionRequiredError, ConfigurationError, RefusedError
from client_reference.nearest import did_you_mean
from keys_policy.model import ALGORITHMS
from repo_tools.anchor import renew_anchor, underway
from repo_tools.files import replace_file
from repo_tools.gone import gone_keys, remember_gone
from repo_tools.metadata.edits import next_root, renewed
from repo_tools.metadata.repository import parse
from repo_tools.metadata.roles import RECOVERY, builds_role
from repo_tools.metadata.rotation import plan_rotation, roles_held
from repo_tools.publishing.bridge import Gone, Passage, passage
from repo_tools.publishing.firmware import Near, read_builds
from repo_tools.publishing.online import is_here
from repo_tools.publishing.renewal import renew_builds
from repo_tools.signing.ceremony import (
    DiscardedSignaturesError,
    check_startable,
    open_ceremonies,
    predecessor,
    start_ceremony,
    status,
)
from repo_tools.signing.keyfiles import load_private, public_key
from repo_tools.signing.keyring import KEY_DIRECTORY, About, add_public, new_key, set_online
from repo_tools.signing.rules import enforce_sound, templates
from repo_tools.signing.signers import FILES
from repo_tools.signing.start import planned_targets, start_role, start_root, start_targets
from repo_tools.theft import versions_of
from repo_tools.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from datetime import datetime

    from keys_policy.model import KeyHolder, Policy
    from repo_tools.metadata.rotation import Rotation
    from repo_tools.signing.ceremony import Ceremony
    from repo_tools.signing.secrets import Secrets

__all__ = [
    "Outcome",
    "SequenceReset",
    "check_rotations",
    "find_key",
    "free_name",
    "is_replaced",
    "make_successor",
    "plan",
    "plan_sequence_reset",
    "prepare",
    "recover_expired_root",
    "reset_sequence",
    "rotate",
    "steps",
]


@dataclass(frozen=True)
class Outcome:
    """What was opened, what was signed, and what people must still do.

    Attributes:
        ceremonies: names of those that wait for signatures now.
        renewed: builds roles signed again with keys of this machine.
        left: one sentence for each thing that this machine cannot do.
    """

    ceremonies: tuple[str, ...]
    renewed: tuple[str, ...]
    left: tuple[str, ...]


def steps(
    ws: Workspace, rotations: Sequence[Rotation], gone: Gone | None, now: datetime
) -> list[str]:
    """What a rotation comes to, one sentence for each step, in their order. Changes nothing."""
    after = replace(ws, policy=rotations[-1].policy)
    found = []
    if any(each.root for each in rotations):
        live = parse(ws.roots()[-1], Root, "root").signed if ws.roots() else None
        planned = next_root(after.policy, ws.keyring, live, now, lab=ws.config.lab)
        old = live.roles["root"].threshold if live else 0
        found.append(
            f"a new root {planned.version}, signed by {planned.roles['root'].threshold} of its own "
            f"keys and {old} of those of the root before"
        )
    if any(each.targets for each in rotations):
        found.append("a new targets, signed by the people of that role")
        targets = planned_targets(after, ws.config.products, now)
        found.extend(f"{role}: signed again" for role in _outdated(after, targets))
    if any(each.root for each in rotations) and live is not None:
        keys = _gone_by_then(ws, rotations, gone)
        found.extend(_crossing(passage(live, planned, keys, now)))
    elif found:
        found.append("publish: in one commit, no device notices")
    if _renews_anchor(ws, rotations):
        found.extend(_anchor_steps(after))
    return found


def _renews_anchor(ws: Workspace, rotations: Sequence[Rotation]) -> bool:
    """Whether devices must learn other recovery keys, in a version of the anchor of its own."""
    wanted = any(each.recovery for each in rotations) and ws.policy.recovery is not None
    return wanted and bool(ws.recovery_roots()) and not underway(ws)


def _anchor_steps(after: Workspace) -> list[str]:
    data = after.recovery_roots()[-1]
    before = parse(data, Root, RECOVERY).signed
    made = (
        f"a new recovery root {before.version + 1}, signed by "
        f"{after.policy.role(RECOVERY).threshold} of its own keys and "
        f"{before.roles['root'].threshold} of those of the one before"
    )
    return [
        made,
        "anchor publish: devices learn the new keys from the recovery storage",
        "factory export: new devices have the new anchor; those on the shelf follow from theirs",
    ]


def _crossing(way: Passage) -> list[str]:
    match way:
        case Passage.BRIDGE:
            return [
                "publish, a bridge: timestamp, snapshot and targets, signed for both roots",
                "a wait for caches, then the new root",
                "a wait for caches, then timestamp and snapshot without the old signatures",
            ]
        case Passage.CUT:
            return [
                "publish, a cut: the new root",
                "at once a timestamp of the new keys alone; a device in between tries again",
            ]
    return ["publish: the new root, then a timestamp; no device notices"]


def find_key(ws: Workspace, name: str, hint: str = "firmroot key list") -> KeyHolder:
    """A key by name. Raises `ConfigurationError` with the names that there are."""
    if name not in ws.keyring:
        raise ConfigurationError(
            f"there is no key {name!r}; there are: {', '.join(ws.keyring) or 'none'}"
            f"{did_you_mean(name, ws.keyring)}",
            hint,
        )
    return ws.keyring[name]


def make_successor(
    ws: Workspace, old: str, passphrase: Callable[[str], bytes], made: date | None = None
) -> str:
    """Make a key in the place of another, of the same holder; found again if it was made before.

    Args:
        ws: the workspace; open it again afterwards.
        old: name of the key that goes.
        passphrase: gives the passphrase for a new key of that name.
        made: the day of today.
    """
    before = find_key(ws, old)
    stem, _, number = old.rpartition("-")
    base, count = (stem, int(number)) if stem and number.isdecimal() else (old, 1)
    name = f"{base}-{count + 1}"
    while name in ws.keyring and _is_used(ws, name):
        count += 1
        name = f"{base}-{count + 1}"
    if name not in ws.keyring:
        _make(ws, name, before, passphrase(name), made)
    return name


def _make(
    ws: Workspace, name: str, before: KeyHolder, passphrase: bytes, made: date | None
) -> None:
    """Make a key; one whose private half a killed run has left is completed, not made again."""
    place, about = f"{KEY_DIRECTORY}/{name}.pem", About(before.contact, made=made)
    if not (ws.directory / place).exists():
        new_key(ws, name, _algorithm(ws.policy, before, made), before.holder, passphrase, about)
        return
    key = public_key(load_private(ws.directory / place, passphrase))
    ws.add_key_uri(name, f"file:{place}")
    add_public(ws, name, key, before.holder, "file", about)


def _algorithm(policy: Policy, before: KeyHolder, today: date | None) -> str:
    """That of the key before, so that a hybrid role stays one; another where it has ended."""
    rules = [policy.roles[name] for name in policy.roles_of(before.name)]
    ends = policy.algorithms_until
    allowed = [
        name
        for name in policy.algorithms
        if (today is None or today < ends.get(name, date.max))
        and all(name in (each.algorithms or policy.algorithms) for each in rules)
    ]
    same = (before.key.keytype, before.key.scheme)
    allowed.sort(key=lambda name: ALGORITHMS[name] != same)
    return next(iter(allowed), policy.algorithms[0])


def free_name(ws: Workspace, old: str) -> str:
    """What the key that takes another's place may be called: `carol-2027` after `carol-2026`."""
    stem, _, number = old.rpartition("-")
    base, count = (stem, int(number)) if stem and number.isdecimal() else (old, 1)
    return next(
        name for each in itertools.count(count + 1) if (name := f"{base}-{each}") not in ws.keyring
    )


def _is_used(ws: Workspace, name: str) -> bool:
    return name not in ws.key_uris() or any(ws.policy.roles_of(name)) or bool(_held(ws, name))


def is_replaced(ws: Workspace, name: str) -> bool:
    """Whether neither the policy nor what is signed gives a key a say any more."""
    return not any(ws.policy.roles_of(name)) and not _held(ws, name)


def _held(ws: Workspace, name: str) -> list[str]:
    """The roles, signed or waiting to be, in which a key has a say."""
    keyid = find_key(ws, name).key.keyid
    return list(roles_held(keyid, ws.newest_root(), ws.newest_targets(), ws.newest_recovery()))


def prepare(
    ws: Workspace,
    key: str,
    new: str | None,
    *,
    make: bool,
    compromised: bool,
    passphrase: Callable[[str], bytes],
    now: datetime,
) -> list[Rotation]:
    """Plan the rotation of a key, with those that it entails, and make missing successors.

    Args:
        ws: the workspace; open it again afterwards.
        key: name of the key that goes.
        new: name of its successor, if there is one already.
        make: make a successor for it.
        compromised: somebody else may have the key.
        passphrase: gives the passphrase for a new key of that name.
        now: when a successor is made.
    """
    if make:
        new = _successor(ws, key, passphrase, now)
    pairs = [(key, new)]
    rotations = plan(Workspace.open(ws.directory), pairs, compromised=compromised)
    if not rotations[0].snapshot:
        return rotations
    root = ws.newest_root()
    for keyid in root.roles["snapshot"].keyids if root else ():
        name = ws.key_name(keyid)
        # A key that has left the policy is one that an interrupted run has replaced.
        if _is_ours(ws, name) or not any(ws.policy.roles_of(name)):
            pairs.append((name, _successor(ws, name, passphrase, now)))
    return plan(Workspace.open(ws.directory), pairs, compromised=compromised)


def _is_ours(ws: Workspace, name: str) -> bool:
    """Whether this machine is the one to make a successor for a key.

    `[online]` of firmroot.toml names the publisher's key in every clone; its successor must not
    come into being on the builder's machine. Nor does a file take the place of a key in a token or
    a service, unasked.
    """
    uri = ws.key_uris().get(name)
    return uri is not None and is_here(ws, uri) and uri.partition(":")[0] in FILES


def _successor(
    ws: Workspace, old: str, passphrase: Callable[[str], bytes], now: datetime
) -> str | None:
    """None if an interrupted rotation has put one into the policy already."""
    find_key(ws, old)
    if not any(ws.policy.roles_of(old)):
        return None
    return make_successor(ws, old, passphrase, now.date())


def plan(
    ws: Workspace, pairs: Sequence[tuple[str, str | None]], *, compromised: bool
) -> list[Rotation]:
    """Plan rotations one after the other.

    Args:
        ws: the workspace.
        pairs: old key and its successor, or None to remove it.
        compromised: somebody else may have the old keys.
    """
    rotations: list[Rotation] = []
    policy = ws.policy
    for old, new in pairs:
        find_key(ws, old)
        if new is not None:
            find_key(ws, new, f"its holder makes it first: firmroot key new {new}; or take another")
        held = _held(ws, old)
        rotations.append(plan_rotation(policy, old, new, held, compromised=compromised))
        policy = rotations[-1].policy
    return rotations


def check_rotations(
    ws: Workspace,
    rotations: Sequence[Rotation],
    now: datetime,
    discard: Collection[str],
    gone: Gone | None = None,
) -> None:
    """Everything that may refuse, before anything is written.

    Args:
        ws: the workspace.
        rotations: as planned.
        now: the time.
        discard: roles whose collected signatures may be lost.
        gone: what became of the first key; None if nothing did.

    Raises:
        RefusedError: too few keys of root are left to sign the next one.
        PolicyViolationError: the policy afterwards would break a rule.
        DiscardedSignaturesError: signatures would be lost.
        ActionRequiredError: a signed root must be published first.
    """
    enforce_sound(replace(ws, policy=rotations[-1].policy), now, before=ws)
    for role, needed in (
        ("root", any(each.root for each in rotations)),
        ("targets", any(each.targets for each in rotations)),
        (RECOVERY, _renews_anchor(ws, rotations)),
    ):
        if needed:
            check_startable(ws, role, discard_signatures=role in discard)
    if gone is not None and any(each.root for each in rotations):
        _check_root_is_left(ws, _gone_by_then(ws, rotations, gone))
    if any(each.targets for each in rotations):
        _check_delegated(replace(ws, policy=rotations[-1].policy), now, discard)


def _gone_by_then(
    ws: Workspace, rotations: Sequence[Rotation], gone: Gone | None
) -> dict[str, Gone]:
    keys = dict(gone_keys(ws))
    if gone is not None:
        keys[find_key(ws, rotations[0].old).key.keyid] = gone
    return keys


def _check_root_is_left(ws: Workspace, gone: Mapping[str, Gone]) -> None:
    """A root is signed by a threshold of the one before it (TUF 5.3.4); a stolen key still can."""
    if not ws.roots():
        return
    live = parse(ws.roots()[-1], Root, "root").signed
    role = live.roles[Root.type]
    left = [keyid for keyid in role.keyids if gone.get(keyid) is not Gone.LOST]
    if len(left) < role.threshold:
        names = ", ".join(ws.key_name(keyid) for keyid in left) or "none"
        raise RefusedError(
            f"root {live.version} is followed by what {role.threshold} of its keys sign, and of "
            f"these there are left: {names}; no rotation helps",
            "the recovery anchor re-roots the fleet: docs/runbooks/lost-root.md"
            if ws.recovery_roots()
            else "without a recovery anchor only a copy of a key helps; if one is found: "
            "firmroot rotate KEY --to NEW",
        )


def _check_delegated(ws: Workspace, now: datetime, discard: Collection[str]) -> None:
    """The same of the roles that a new targets role delegates to; `ws` has the policy afterwards.

    Their ceremonies are opened anew (`_outdated`), or stay and no longer count a key that goes.
    """
    targets = planned_targets(ws, ws.config.products, now)
    for role in _outdated(ws, targets):
        check_startable(ws, role, discard_signatures=role in discard)
    for ceremony in open_ceremonies(ws):
        if ceremony.role not in templates(ws) or ceremony.role in discard:
            continue
        _, allowed = _keys(targets, ceremony.role)
        signed = status(ws, ceremony).signed
        lost = [name for name in signed if find_key(ws, name).key.keyid not in allowed]
        if lost:
            raise DiscardedSignaturesError(
                f"{ceremony.name} has been signed by {', '.join(lost)}; "
                "that would not count any more",
                f"finish it first (firmroot sign), or say so: --discard-signatures {ceremony.role}",
            )


def rotate(
    ws: Workspace,
    rotations: Sequence[Rotation],
    secrets: Secrets,
    now: datetime,
    *,
    gone: Gone | None = None,
    drop: Collection[str] = (),
) -> Outcome:
    """Carry out what was planned, checked and agreed to. The caller holds the lock.

    Args:
        ws: the workspace.
        rotations: the first is of the key that was asked for.
        secrets: passphrases.
        now: the time.
        gone: what became of that key; None if nothing did.
        drop: releases that no builds role shall speak for any more, such as `gateway@6.6`.
    """
    if gone is not None:
        # Before the policy: an interrupted run must not leave a bridge that a thief can walk.
        remember_gone(ws, rotations[0].old, gone)
    for rotation in rotations:
        # URIs first: once the policy has changed, a run that takes this up sees no successor.
        _write_uris(ws, rotation, gone=gone if rotation is rotations[0] else None)
        _write_policy(ws, rotation)
        ws = Workspace.open(ws.directory, occasion=ws.occasion)
    opened: list[Ceremony] = []
    if any(each.root for each in rotations):
        opened.append(start_root(ws, now, discard_signatures=True))
    left: list[str] = []
    done: list[str] = []
    if any(each.targets for each in rotations):
        opened.append(start_targets(ws, ws.config.products, now, discard_signatures=True))
        for role in _outdated(ws, planned_targets(ws, ws.config.products, now)):
            _renew(ws, role, secrets, now, opened, done, left, drop)
    if _renews_anchor(ws, rotations):
        opened.append(renew_anchor(ws, now, discard_signatures=True))
    elif any(each.recovery for each in rotations) and underway(ws):
        left.append("the statement of the new epoch names the new keys: firmroot anchor re-root")
    return Outcome(tuple(each.name for each in opened), tuple(done), tuple(left))


def _outdated(ws: Workspace, targets: Targets) -> Iterator[str]:
    """Roles whose newest signatures no longer reach the threshold that the new targets asks for.

    Builds are not in git, so theirs are always signed again.
    """
    before = predecessor(ws, "targets")
    old = parse(before, Targets, "targets").signed if before else None
    for role, kind in templates(ws).items():
        if kind == "builds":
            if old is None or _keys(old, role) != _keys(targets, role):
                yield role
        elif (data := predecessor(ws, role)) is not None:
            metadata = parse(data, Targets, role)
            result = targets.get_verification_result(
                role, metadata.signed_bytes, metadata.signatures
            )
            if not result:
                yield role


def _keys(targets: Targets, role: str) -> tuple[int, frozenset[str]]:
    try:
        found = targets.get_delegated_role(role)
    except ValueError:
        return 0, frozenset()
    return found.threshold, frozenset(found.keyids)


def _renew(
    ws: Workspace,
    role: str,
    secrets: Secrets,
    now: datetime,
    opened: list[Ceremony],
    done: list[str],
    left: list[str],
    drop: Collection[str] = (),
) -> None:
    product = next((each for each in ws.config.products if builds_role(each) == role), None)
    if product is None:
        opened.append(start_role(ws, role, now, discard_signatures=True))
        return
    try:
        renew_builds(ws, product, secrets, now, versions_of(product, drop))
    except ConfigurationError:
        return  # no firmware was added yet, so there is nothing to sign again
    except ActionRequiredError as error:
        left.append(f"{error.message}; {error.hint}")
    else:
        done.append(role)


def _write_policy(ws: Workspace, rotation: Rotation) -> None:
    """Change the lists of keys, keeping everybody's comments."""
    path = ws.directory / "policy.toml"
    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    sections = document["roles"]
    for name in rotation.sections:
        sections[name]["keys"] = list(rotation.policy.roles[name].keys)
    replace_file(path, tomlkit.dumps(document).encode())


def _write_uris(ws: Workspace, rotation: Rotation, *, gone: Gone | None) -> None:
    """Tell `publish` about a new online key, and this machine about a key that is gone.

    A key that is replaced without hurry still signs for devices that trust the old root: online
    roles and `targets` over the bridge, and the next root itself; a recovery key the next recovery
    root. So a lab forgets a key of these only when a root without it is live
    (`repo_tools.publishing.journal.settle`, `.recovery.publish_anchor`), or at once if its file is
    lost.
    """
    uris = ws.key_uris()
    online = dict(ws.config.online)
    if rotation.online and rotation.new in uris:
        online[rotation.new] = uris[rotation.new]
    if gone is Gone.STOLEN:
        online.pop(rotation.old, None)
    if online != ws.config.online:
        set_online(ws, online)
    uri = ws.own_key_uris().get(rotation.old, "")
    lost = gone is Gone.LOST and not is_here(ws, uri)
    if lost or (ws.config.lab and not _signs_next_root(ws, rotation.old)):
        ws.remove_key_uri(rotation.old)


def _signs_next_root(ws: Workspace, name: str) -> bool:
    uri = ws.key_uris().get(name)
    if uri is None or not is_here(ws, uri):
        return False
    keyid = find_key(ws, name).key.keyid
    roots = (ws.staged_role("root"), next(reversed(ws.roots()), None))
    anchor = next(reversed(ws.recovery_roots()), None)
    if anchor is not None and keyid in parse(anchor, Root, RECOVERY).signed.roles["root"].keyids:
        return True
    return any(
        keyid in parse(data, Root, "root").signed.roles[role].keyids
        for data in roots
        if data
        for role in ("root", "targets")
    )


def _newest(ws: Workspace, role: str) -> Targets | None:
    """The newest signed version of a role; builds are not in git, so theirs is asked for."""
    for product in ws.config.products:
        if builds_role(product) == role:
            builds = read_builds(ws, ws.storage(), product)
            return builds.staged or builds.live
    data = predecessor(ws, role)
    return None if data is None else parse(data, Targets, role).signed


@dataclass(frozen=True)
class SequenceReset:
    """What a sequence reset would do, before anybody is asked.

    Attributes:
        product: whose devices.
        to: what they confirmed counts as no more than this.
        again: releases that may be installed again, oldest first.
    """

    product: str
    to: int
    again: tuple[str, ...]


def plan_sequence_reset(
    ws: Workspace, product: str, to: int, discard: Collection[str]
) -> SequenceReset:
    """Everything that may refuse, before anything is written.

    Raises:
        ConfigurationError: there is no such product.
        RefusedError: nothing that was built would be left to install.
        DiscardedSignaturesError: signatures would be lost.
    """
    if product not in ws.config.products:
        raise ConfigurationError(
            f"there is no product {product!r}; there is: {', '.join(ws.config.products) or 'none'}"
            f"{did_you_mean(product, ws.config.products)}",
            "firmroot product list",
        )
    built = {
        int(custom["sequence"]): str(custom["version"])
        for target in read_builds(ws, ws.storage(), product, Near(every=True)).targets.values()
        if "sequence" in (custom := target.custom or {})
    }
    again = tuple(f"{built[each]} (sequence {each})" for each in sorted(built) if each >= to)
    if not again:
        raise RefusedError(
            f"no build of {product} has sequence {to} or more: its devices would find nothing",
            f"the newest has {max(built, default=0)}: firmroot firmware list",
        )
    check_startable(ws, "targets", discard_signatures="targets" in discard)
    return SequenceReset(product, to, again)


def reset_sequence(ws: Workspace, planned: SequenceReset, now: datetime) -> Outcome:
    """Open the `targets` that carries a reset. What waits to be signed in the open one stays."""
    ceremony = start_targets(
        ws,
        ws.config.products,
        now,
        discard_signatures=True,
        resets={planned.product: planned.to},
    )
    return Outcome((ceremony.name,), (), ())


def recover_expired_root(
    ws: Workspace, secrets: Secrets, now: datetime, discard: Collection[str] = ()
) -> Outcome:
    """Sign the newest root again as it is, with fresh expiry, and whatever else has expired.

    The keys and thresholds are those of the expired root, whatever the policy says meanwhile:
    a recovery changes one thing at a time. Devices follow, since only the last root of the chain
    must not have expired (TUF 5.3.10). A ceremony that is open and mends it already is left alone,
    so that running it again discards nothing.

    Args:
        ws: the workspace; the caller holds its lock.
        secrets: passphrases.
        now: the time.
        discard: roles whose collected signatures may be lost.

    Raises:
        ConfigurationError: there is no root, or it has not expired.
        DiscardedSignaturesError: signatures would be lost; nothing was changed.
    """
    before = predecessor(ws, "root")
    if before is None:
        raise ConfigurationError("no root is published yet", "firmroot status")
    root = parse(before, Root, "root").signed
    if root.expires > now:
        raise ConfigurationError(
            f"root {root.version} is good until {root.expires:%Y-%m-%d}: nothing to recover",
            "to sign it again all the same: firmroot ceremony start root",
        )
    newest = ws.newest_root()
    # Signed since, with other keys perhaps: it goes live with what else has expired.
    ready = newest is not None and newest.expires > now
    waiting = {each.role: each for each in open_ceremonies(ws)}
    again = renewed(root, ws.policy.role("root"), now)
    expired = _expired(ws, now)
    kept = [role for role in expired if role in waiting and waiting[role].signed.expires > now]
    if "root" in waiting and _is_renewal(waiting["root"].signed, again, now):
        kept.append("root")
    for role in (*(() if ready else ("root",)), *expired):
        if role not in kept:
            check_startable(ws, role, discard_signatures=role in discard)
    opened = [waiting[role] for role in kept]
    if "root" not in kept and not ready:
        opened.insert(0, start_ceremony(ws, "root", again, discard_signatures=True))
    done: list[str] = []
    left: list[str] = []
    for role in expired:
        if role not in kept:
            _renew(ws, role, secrets, now, opened, done, left)
    return Outcome(tuple(each.name for each in opened), tuple(done), tuple(left))


def _expired(ws: Workspace, now: datetime) -> list[str]:
    """The roles below root whose newest version has ended."""
    newest = {role: _newest(ws, role) for role in ("targets", *templates(ws))}
    return [role for role, each in newest.items() if each is not None and each.expires <= now]


def _is_renewal(waiting: Root | Targets, wanted: Root, now: datetime) -> bool:
    """Whether a ceremony that waits says the same as the one that would be started."""
    if not isinstance(waiting, Root) or waiting.expires <= now:
        return False
    return (waiting.version, waiting.keys, waiting.roles) == (
        wanted.version,
        wanted.keys,
        wanted.roles,
    )
