"""Pure: what a ceremony changes, in sentences for the people who are asked to sign it.

Everything that the signature covers and that differs from the predecessor is told; a field that
this module does not know is told by name, so that nothing passes unseen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuf.api.metadata import Root, Targets

from client_reference.errors import FirmrootError
from client_reference.manifest import GroupWave, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tuf.api.metadata import Role

    from client_reference.manifest import Manifest, Wave

__all__ = ["describe_change", "describe_manifest"]


def describe_change(
    role: str,
    before: Root | Targets | None,
    after: Root | Targets,
    carries: Mapping[str, bytes],
    name_of: Callable[[str], str],
) -> list[str]:
    """One sentence for each difference.

    Args:
        role: what is being signed.
        before: its predecessor, or None.
        after: its new content.
        carries: target files that come with it, by path.
        name_of: what people call a key id.
    """
    since = f"version {before.version}" if before else "nothing before"
    lines = [
        f"{role} version {after.version} (replaces {since}), good until {after.expires:%Y-%m-%d}"
    ]
    old_roles, new_roles = _roles(before), _roles(after)
    lines.extend(_role_changes(old_roles, new_roles, name_of))
    if isinstance(after, Targets):
        lines.extend(_target_changes(before if isinstance(before, Targets) else None, after))
    lines.extend(_other_fields(before, after))
    for path, data in carries.items():
        lines.extend(f"  {line}" for line in _describe_file(path, data))
    if len(lines) == 1 and before is not None:
        lines.append("nothing but version and expiry changes")
    return lines


def _roles(signed: Root | Targets | None) -> Mapping[str, Role]:
    if signed is None:
        return {}
    if isinstance(signed, Root):
        return signed.roles
    return (signed.delegations.roles or {}) if signed.delegations else {}


def _role_changes(
    before: Mapping[str, Role], after: Mapping[str, Role], name_of: Callable[[str], str]
) -> Iterator[str]:
    for name in before.keys() - after.keys():
        yield f"removes role {name}"
    for name, role in after.items():
        keys = sorted(name_of(keyid) for keyid in role.keyids)
        if name not in before:
            yield f"role {name}: {role.threshold} of {', '.join(keys)}{_paths(role)}"
            continue
        old = before[name]
        for keyid in sorted(set(role.keyids) - set(old.keyids)):
            yield f"role {name}: adds key {name_of(keyid)}"
        for keyid in sorted(set(old.keyids) - set(role.keyids)):
            yield f"role {name}: removes key {name_of(keyid)}"
        if role.threshold != old.threshold:
            yield f"role {name}: threshold {old.threshold} becomes {role.threshold}"
        if _paths(role) != _paths(old):
            yield f"role {name}: speaks now for{_paths(role).removeprefix(' for')}"


def _paths(role: Role) -> str:
    paths = getattr(role, "paths", None)
    return f" for {', '.join(paths)}" if paths else ""


def _target_changes(before: Targets | None, after: Targets) -> Iterator[str]:
    old = before.targets if before else {}
    for path in sorted(old.keys() - after.targets.keys()):
        yield f"removes target {path}"
    for path, target in after.targets.items():
        if old.get(path) != target:
            verb = "changes" if path in old else "adds"
            yield f"{verb} target {path}: {target.length} bytes, {_digest(target.hashes)}"


def _digest(hashes: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value[:16]}..." for name, value in sorted(hashes.items()))


_TOLD = frozenset({"version", "expires", "keys", "roles", "delegations", "targets"})


def _other_fields(before: Root | Targets | None, after: Root | Targets) -> Iterator[str]:
    old = before.to_dict() if before else {}
    new = after.to_dict()
    for name in sorted((old.keys() | new.keys()) - _TOLD):
        if name not in new:
            yield f"removes {name}"
        elif old.get(name) != new[name] and (before is not None or name.startswith("x-")):
            yield f"{name}: {new[name]}"


def _describe_file(path: str, data: bytes) -> Sequence[str]:
    if not path.startswith("channels/"):
        return [f"{path}: {data.decode(errors='replace').strip()}"]
    try:
        return describe_manifest(parse(data))
    except FirmrootError as error:
        return [f"{path} is not a release manifest that devices read: {error.message}"]


def describe_manifest(manifest: Manifest) -> list[str]:
    """A release manifest, one line for each release and payload."""
    name, least = f"{manifest.product}/{manifest.channel}", manifest.minimum_sequence
    lines = [f"{name}: devices install nothing below sequence {least}"]
    for release in manifest.releases:
        start = release.rollout.start
        paused = ", paused" if release.rollout.paused else ""
        lines.append(
            f"offers {release.version} (sequence {release.sequence}) "
            f"from {start:%Y-%m-%d %H:%M} UTC{paused}"
        )
        lines.extend(f"  {_wave(wave)}" for wave in release.rollout.waves)
        lines.extend(
            f"  {', '.join(payload.hardware)} by {payload.handler}: {payload.artifact.path}, "
            f"{payload.artifact.length} bytes, sha256 {payload.artifact.sha256[:16]}..."
            for payload in release.payloads
        )
    lines.extend(
        f"withdrawn: {each.version} (sequence {each.sequence}): {each.reason}"
        for each in manifest.withdrawn
    )
    lines.extend(
        f"{each.version} (sequence {each.sequence}) needs {', '.join(each.needs)}, "
        "which this firmroot does not know"
        for each in manifest.unsupported
    )
    return lines


def _wave(wave: Wave) -> str:
    if isinstance(wave, GroupWave):
        return f"after {wave.after_hours} h: groups {', '.join(wave.groups)}"
    return f"after {wave.after_hours} h: {wave.permille / 10:g} % of devices"
