"""Pure: what a ceremony changes, in sentences for the people who are asked to sign it.

Everything that the signature covers and that differs from the predecessor is told:

* what people know by name (keys, thresholds, delegations, targets) has a sentence of its own, which
  says which fields it tells;
* whatever else differs is told as `path: before -> after`, so that nothing passes unseen;
* a manifest or a hold is told whole, with whatever its reader left out;
* a recovery root is told as what it does to the fleet;
* a key is shown with the first eight digits of its id, since a name is only what people call it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias

from tuf.api.metadata import Root, Targets

from client_reference.errors import FirmrootError
from client_reference.manifest import GroupWave, parse, parse_hold, serialize, serialize_hold
from client_reference.trust.recovery import FIELD, read_statement
from client_reference.trust.reset import FIELD as RESETS
from client_reference.trust.reset import read_resets
from repo_tools.metadata.anchor import as_field
from repo_tools.metadata.repository import sha256
from repo_tools.metadata.roles import RECOVERY, hold_path
from repo_tools.reporting.visible import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from client_reference.manifest import Manifest, Payload, Release, Wave

__all__ = ["describe_change", "describe_manifest"]

Field: TypeAlias = tuple[str, ...]
Fact: TypeAlias = tuple[str, "Sequence[Field]"]
"""A sentence, and the fields that it tells; without a sentence, fields that others tell."""

_LONGEST = 160
_NOTHING = object()


def describe_change(
    role: str,
    before: Root | Targets | None,
    after: Root | Targets,
    carries: Mapping[str, bytes],
    name_of: Callable[[str], str],
    versions: Mapping[int, str] | None = None,
) -> list[str]:
    """One sentence for each difference, each on one line.

    Args:
        role: what is being signed.
        before: its predecessor, or None.
        after: its new content.
        carries: target files that come with it, by path.
        name_of: what people call a key id.
        versions: live releases by sequence, if it is a hold.
    """
    since = f"replaces version {before.version}" if before else "the first"
    lines = [f"{role} version {after.version} ({since}), good until {after.expires:%Y-%m-%d}"]
    new = _document(after)
    old = _document(before) if before is not None else _nothing_before(new)
    told: set[Field] = {("version",), ("expires",)}
    facts = [
        *_reset_facts(before, after),
        *_delegator_facts(old, new, name_of),
        *_target_facts(old, new),
    ]
    if role == RECOVERY and isinstance(after, Root):
        old, new = _as_anchor(old), _as_anchor(new)
        facts = [*_anchor_facts(before, after), *_delegator_facts(old, new, name_of)]
    for sentence, fields in facts:
        told.update(fields)
        lines.extend([sentence] if sentence else [])
    lines.extend(_difference(old, new, told))
    for path, data in carries.items():
        lines.extend(f"  {line}" for line in _describe_file(path, data, versions or {}))
    if len(lines) == 1 and before is not None:
        lines.append("nothing but version and expiry changes")
    return [visible(line, keep="") for line in lines]


# Documents: delegated roles by name, and their order apart.


def _document(signed: Root | Targets) -> dict[str, Any]:
    document = signed.to_dict()
    delegations = document.get("delegations")
    if delegations is not None and "roles" in delegations:
        roles = delegations["roles"]
        delegations["order"] = [role["name"] for role in roles]
        delegations["roles"] = {
            role["name"]: {name: value for name, value in role.items() if name != "name"}
            for role in roles
        }
    return document


def _nothing_before(new: Mapping[str, Any]) -> dict[str, Any]:
    """What a first version has in any case."""
    usual: dict[str, Any] = {
        "_type": new["_type"],
        "spec_version": Root().spec_version,
        "consistent_snapshot": True,
        "keys": {},
        "roles": {},
        "targets": {},
        "delegations": {"keys": {}, "roles": {}, "order": []},
    }
    return {name: value for name, value in usual.items() if name in new}


# The recovery anchor.


def _as_anchor(document: dict[str, Any]) -> dict[str, Any]:
    """The four roles of a recovery root as one, where they are alike."""
    roles = list(document["roles"].values())
    if not roles or any(not _same(each, roles[0]) for each in roles):
        return document
    return {**document, "roles": {RECOVERY: roles[0]}}


def _anchor_facts(before: Root | Targets | None, after: Root) -> Iterator[Fact]:
    """What devices will do about a primary root, in words; the rest is told field by field."""
    try:
        new = read_statement(after)
        old = read_statement(before) if isinstance(before, Root) else None
    except FirmrootError as error:
        yield f"NO DEVICE FOLLOWS THIS: {error.message}", []
        return
    if old is not None and old == new:
        yield f"devices stay in epoch {new.epoch}; only the keys of the anchor change", []
        return
    root = f"the root with sha256 {new.sha256}, {new.length} bytes"
    if old is None:
        yield f"the anchor begins with epoch {new.epoch}: {root}", []
    else:
        yield f"RE-ROOTS THE FLEET: every device leaves epoch {old.epoch} for {root}", []
        yield f"epoch {new.epoch} begins; nothing signed by the root before counts any more", []
    for product, least in sorted(new.minimum_sequence.items()):
        yield f"devices of {product} then install nothing below sequence {least}", []
    yield "", [(FIELD, name) for name in as_field(new)]


# The sequence reset.


def _reset_facts(before: Root | Targets | None, after: Root | Targets) -> Iterator[Fact]:
    """What devices will do about a sequence reset; whatever else is in the field is told raw."""
    if not isinstance(after, Targets):
        return
    try:
        new = read_resets(after)
        old = read_resets(before) if isinstance(before, Targets) else {}
    except FirmrootError as error:
        yield f"NO DEVICE FOLLOWS THIS: {error.message}", []
        return
    for product, reset in new.items():
        if reset != old.get(product):
            yield (
                (
                    f"SEQUENCE RESET: every device of {product} that confirmed more goes back to "
                    f"sequence {reset.to}; releases from {reset.to} on may be installed again"
                ),
                [(RESETS, product, name) for name in ("since", "to")],
            )
            if reset.since != after.version:
                yield f"it says version {reset.since}, not the version of this ceremony", []
    for product in old.keys() - new.keys():
        yield (
            (f"takes the sequence reset of {product} back: devices from the shelf miss it"),
            [(RESETS, product)],
        )


# Roles and keys.


def _delegator_facts(
    old: Mapping[str, Any], new: Mapping[str, Any], name_of: Callable[[str], str]
) -> Iterator[Fact]:
    where: Field = () if "roles" in new else ("delegations",)
    before, after = (each if "roles" in new else each.get("delegations", {}) for each in (old, new))
    old_roles, new_roles = before.get("roles", {}), after.get("roles", {})

    def called(keyid: str) -> str:
        name = name_of(keyid)
        return name if keyid[:8] in name else f"{name} ({keyid[:8]})"

    for name in sorted(old_roles.keys() - new_roles.keys()):
        yield f"removes role {name}", [(*where, "roles", name)]
    for name, role in new_roles.items():
        place = (*where, "roles", name)
        if name in old_roles:
            yield from _role_facts(name, place, old_roles[name], role, called)
        else:
            yield _new_role(name, place, role, called)
    yield from _key_facts((*where, "keys"), before, after, called)
    stay = [name for name in after.get("order", ()) if name in old_roles]
    if stay != [name for name in before.get("order", ()) if name in new_roles]:
        yield f"roles are asked in another order: {', '.join(new_roles)}", []
    yield "", [("delegations", "order")]


def _new_role(
    name: str, place: Field, role: Mapping[str, Any], called: Callable[[str], str]
) -> Fact:
    keys = ", ".join(sorted(map(called, role["keyids"])))
    fields = [(*place, each) for each in ("threshold", "keyids", "paths")]
    if role.get("terminating") is True:
        fields.append((*place, "terminating"))
    return f"role {name}: {role['threshold']} of {keys}{_paths(role)}", fields


def _role_facts(
    name: str,
    place: Field,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    called: Callable[[str], str],
) -> Iterator[Fact]:
    before, after = set(old["keyids"]), set(new["keyids"])
    for keyid in sorted(after - before):
        yield f"role {name}: adds key {called(keyid)}", [(*place, "keyids")]
    for keyid in sorted(before - after):
        yield f"role {name}: removes key {called(keyid)}", [(*place, "keyids")]
    if new["threshold"] != old["threshold"]:
        sentence = f"role {name}: threshold {old['threshold']} becomes {new['threshold']}"
        yield sentence, [(*place, "threshold")]
    if new.get("paths") and new["paths"] != old.get("paths"):
        sentence = f"role {name}: speaks now for{_paths(new).removeprefix(' for')}"
        yield sentence, [(*place, "paths")]


def _paths(role: Mapping[str, Any]) -> str:
    return f" for {', '.join(role['paths'])}" if role.get("paths") else ""


def _key_facts(
    place: Field,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    called: Callable[[str], str],
) -> Iterator[Fact]:
    """A key that comes or goes with a role is told there; here is what a role does not tell."""
    before, after = old.get("keys", {}), new.get("keys", {})
    used_before, used = _used(old), _used(new)
    for keyid, key in after.items():
        field = [(*place, keyid)]
        if keyid in before and key != before[keyid]:
            sentence = f"key {called(keyid)}: another public key under the same key id: "
            yield sentence + _short(before[keyid]) + " becomes " + _short(key), field
        elif keyid not in before and keyid not in used:
            yield f"adds key {called(keyid)}, which no role uses: {_short(key)}", field
        elif keyid in used_before - used:
            yield f"keeps key {called(keyid)}, which no role uses now", []
        elif keyid not in before and keyid not in used_before:
            yield "", field
    yield "", [(*place, keyid) for keyid in (before.keys() - after.keys()) & used_before - used]


def _used(delegator: Mapping[str, Any]) -> AbstractSet[str]:
    return {keyid for role in delegator.get("roles", {}).values() for keyid in role["keyids"]}


# Targets.


def _target_facts(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Fact]:
    before, after = old.get("targets", {}), new.get("targets", {})
    for path in sorted(before.keys() - after.keys()):
        yield f"removes target {path}", [("targets", path)]
    for path, target in after.items():
        was = before.get(path, {})
        if any(target[each] != was.get(each) for each in ("length", "hashes")):
            verb = "changes" if path in before else "adds"
            fields = [("targets", path, each) for each in ("length", "hashes")]
            digest = _digest(target["hashes"])
            yield f"{verb} target {path}: {target['length']} bytes, {digest}", fields


def _digest(hashes: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value[:16]}..." for name, value in sorted(hashes.items()))


# Whatever else differs.


def _difference(
    old: object, new: object, told: AbstractSet[Field] = frozenset(), place: Field = ()
) -> Iterator[str]:
    """Every field that differs and was not told, objects field by field."""
    if place in told or _same(old, new):
        return
    before = old if isinstance(old, dict) else {}
    after = new if isinstance(new, dict) else {}
    if (before or after) and all(each is _NOTHING or isinstance(each, dict) for each in (old, new)):
        for name in sorted(before.keys() | after.keys()):
            values = (before.get(name, _NOTHING), after.get(name, _NOTHING))
            yield from _difference(*values, told, (*place, name))
        return
    yield f"{'.'.join(place)}: {_short(old)} -> {_short(new)}"


def _same(old: object, new: object) -> bool:
    """Whether two values are written alike: to Python, 1, 1.0 and True are equal."""
    if old is _NOTHING or new is _NOTHING:
        return old is new
    return json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True)


def _short(value: object) -> str:
    """JSON on one line; what is too long for people keeps its length and digest."""
    if value is _NOTHING:
        return "nothing"
    text = json.dumps(value, sort_keys=True)
    if len(text) <= _LONGEST:
        return text
    digest = sha256(text.encode())[:16]
    return f"{text[:_LONGEST]}... ({len(text)} characters, sha256 {digest}...)"


# Carried files.


def _describe_file(path: str, data: bytes, versions: Mapping[int, str]) -> Iterator[str]:
    if path.startswith("holds/"):
        yield from _hold(path, data, versions)
        return
    if not path.startswith("channels/"):
        for line in data.decode(errors="replace").strip().splitlines():
            yield f"{path}: {line}"
        return
    try:
        manifest = parse(data)
    except FirmrootError as error:
        yield f"{path} is not a release manifest that devices read: {error.message}"
        return
    yield from describe_manifest(manifest)
    if not manifest.unsupported:
        # A reader passes over fields that it does not know; who signs must not.
        read, written = json.loads(serialize(manifest)), json.loads(data)
        yield from (f"not read by this firmroot: {line}" for line in _unread(read, written))


def _hold(path: str, data: bytes, versions: Mapping[int, str]) -> Iterator[str]:
    """A hold in words; whole as it is written if words would leave something out."""
    try:
        hold = parse_hold(data)
        plain = data == serialize_hold(hold) and path == hold_path(hold.product, hold.channel)
    except FirmrootError as error:
        yield f"{path} is not a hold that devices read: {error.message}"
        plain = False
    else:
        where = f"{hold.product}/{hold.channel}"
        for sequence in sorted(hold.sequences):
            version = versions.get(sequence)
            name = f"{hold.product}@{version}" if version else "a release that is not live here"
            yield f"holds {name} (sequence {sequence}) on {where}"
        if not hold.sequences:
            yield f"holds nothing any more on {where}"
    if not plain:
        for line in data.decode(errors="replace").strip().splitlines():
            yield f"{path}: {line}"


def _unread(read: object, written: object, place: Field = ()) -> Iterator[str]:
    """Fields that the reader passed over; of a list it leaves nothing out."""
    if isinstance(read, list) and isinstance(written, list) and len(read) == len(written):
        for index, (known, found) in enumerate(zip(read, written, strict=True)):
            yield from _unread(known, found, (*place, str(index)))
    elif isinstance(read, dict) and isinstance(written, dict):
        for name, value in written.items():
            if name in read:
                yield from _unread(read[name], value, (*place, name))
            else:
                yield f"{'.'.join((*place, name))}: {_short(value)}"
    else:
        yield from _difference(read, written, frozenset(), place)


def describe_manifest(manifest: Manifest) -> list[str]:
    """A release manifest whole: one line for each release, wave, payload and delta."""
    name, least = f"{manifest.product}/{manifest.channel}", manifest.minimum_sequence
    lines = [f"{name}: devices install nothing below sequence {least}"]
    for release in manifest.releases:
        lines.extend(_release(release))
    lines.extend(
        f"withdrawn: {each.version} (sequence {each.sequence}) "
        f"since {each.since:%Y-%m-%d %H:%M:%S} UTC: {each.reason}"
        for each in manifest.withdrawn
    )
    lines.extend(
        f"{each.version} (sequence {each.sequence}) needs {', '.join(each.needs)}, "
        "which this firmroot does not know"
        for each in manifest.unsupported
    )
    return lines


def _release(release: Release) -> Iterator[str]:
    rollout = release.rollout
    paused = ", paused" if rollout.paused else ""
    yield (
        f"offers {release.version} (sequence {release.sequence}) "
        f"from {rollout.start:%Y-%m-%d %H:%M:%S} UTC{paused}, seed {rollout.seed}"
    )
    if release.from_sequence:
        yield f"  only for devices at sequence {release.from_sequence} or later"
    if release.stone:
        yield "  a stepping stone for devices that are far behind"
    for label, value in (
        ("severity", release.severity),
        ("notes", release.notes),
        ("needs", ", ".join(release.needs)),
    ):
        if value:
            yield f"  {label}: {value}"
    for wave in rollout.waves:
        yield f"  {_wave(wave)}"
    for payload in release.payloads:
        yield from _payload(payload)


def _payload(payload: Payload) -> Iterator[str]:
    artifact = payload.artifact
    yield (
        f"  {', '.join(payload.hardware)} by {payload.handler}: {artifact.path}, "
        f"{artifact.length} bytes, sha256 {artifact.sha256[:16]}..."
    )
    for delta in payload.deltas:
        yield (
            f"    {delta.codec} delta from {delta.source.length} bytes, "
            f"sha256 {delta.source.sha256[:16]}...: {delta.artifact.path}, "
            f"{delta.artifact.length} bytes, sha256 {delta.artifact.sha256[:16]}..."
        )


def _wave(wave: Wave) -> str:
    if isinstance(wave, GroupWave):
        return f"after {wave.after_hours} h: groups {', '.join(wave.groups)}"
    return f"after {wave.after_hours} h: {wave.permille / 10:g} % of devices"
