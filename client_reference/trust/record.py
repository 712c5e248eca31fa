"""Pure: `DeviceState` as named byte strings, the form in which the store keeps it.

Metadata stay the exact bytes that were verified, one part each; everything else is one small JSON
part. A field that is added to `TrustState` or `InstallState` with a default needs no change here: a
record without it reads as the default. The reverse holds too: what a newer client of the same
schema added is kept, so that an older one that was rolled back to does not lose it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from client_reference.trust.state import DeviceState, Image, InstallState, Phase, TrustState

__all__ = ["decode", "encode"]

_FACTS = "facts"
_BYTES = "trust."
_TRUST_FIELDS = frozenset(field.name for field in dataclasses.fields(TrustState))
_INSTALL_FIELDS = frozenset(field.name for field in dataclasses.fields(InstallState))
_IMAGE_FIELDS = frozenset(field.name for field in dataclasses.fields(Image))


def encode(state: DeviceState, previous: Mapping[str, bytes]) -> dict[str, bytes]:
    """The parts of a state.

    Args:
        state: what to keep.
        previous: the parts that were stored before; what this client does not know of them stays.
    """
    parts = {name: part for name, part in previous.items() if not _is_known(name)}
    facts: dict[str, object] = {}
    for name in sorted(_TRUST_FIELDS):
        value = getattr(state.trust, name)
        if isinstance(value, bytes):
            parts[_BYTES + name] = value
        elif isinstance(value, Mapping):
            parts.update({f"{_BYTES}{name}/{key}": part for key, part in value.items()})
        elif value is not None:
            facts[name] = value
    before = json.loads(previous.get(_FACTS, b"{}"))
    record = {
        **before,
        "trust": _unknown(before.get("trust", {}), _TRUST_FIELDS) | facts,
        "install": _unknown(before.get("install", {}), _INSTALL_FIELDS) | _install(state.install),
    }
    parts[_FACTS] = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    return parts


def decode(parts: Mapping[str, bytes]) -> DeviceState:
    """The state that was encoded.

    Raises:
        ValueError, KeyError, TypeError: the parts, whose digest was good, mean nothing to this
            client: a newer one wrote them.
    """
    facts = json.loads(parts[_FACTS])
    trust: dict[str, Any] = _only(facts["trust"], _TRUST_FIELDS)
    for name, part in parts.items():
        if not _is_known(name):
            continue
        field, slash, key = name.removeprefix(_BYTES).partition("/")
        if slash:
            trust.setdefault(field, {})[key] = part
        else:
            trust[field] = part
    install: dict[str, Any] = _only(facts["install"], _INSTALL_FIELDS)
    install["phase"] = Phase(install["phase"])
    for name in ("current", "candidate"):
        install[name] = _image(install[name]) if install[name] else None
    install["rejected"] = tuple(install["rejected"])
    install["known"] = tuple(_image(image) for image in install["known"])
    return DeviceState(TrustState(**trust), InstallState(**install))


def _is_known(part: str) -> bool:
    field = part.removeprefix(_BYTES).partition("/")[0]
    return part.startswith(_BYTES) and field in _TRUST_FIELDS


def _install(install: InstallState) -> dict[str, object]:
    return dataclasses.asdict(install) | {"phase": install.phase.value}


def _image(record: Mapping[str, Any]) -> Image:
    return Image(**_only(record, _IMAGE_FIELDS))


def _only(record: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name in names}


def _unknown(record: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in names}
