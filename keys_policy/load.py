"""`policy.toml` and `keys/<name>.toml` into values, with every mistake reported at once.

This checks shape only: types, names, unknown fields, keys that do not exist. Whether a policy is
wise is for `keys_policy.checks`.
"""

from __future__ import annotations

import difflib
import tomllib
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from securesystemslib.signer import Key, SSlibKey

from keys_policy.model import (
    ALGORITHMS,
    NAME,
    OPTIONAL_ROLES,
    REQUIRED_ROLES,
    KeyHolder,
    Policy,
    RolePolicy,
    Scale,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

__all__ = ["PolicyError", "load_keyring", "load_policy", "parse_key", "parse_policy"]

_DAYS = range(1, 36_501)  # a century: devices outlive guesses, numbers do not run away


class PolicyError(ValueError):
    """A file of the policy is wrong.

    Attributes:
        problems: one sentence for each mistake, beginning with the file and the place in it.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class _Table:
    """One TOML table while it is read: takes fields out, collects what is wrong."""

    def __init__(self, source: str, path: str, table: object, problems: list[str]) -> None:
        self._where = f"{source}: {path}".rstrip(": ")
        self._prefix = f"{source}: {path}." if path else f"{source}: "
        self.problems = problems
        self._known: list[str] = []
        if isinstance(table, dict):
            self._left: dict[str, Any] = dict(table)
        else:
            self._left = {}
            problems.append(f"{self._where} is not a table")

    def wrong(self, name: str, expected: str, found: object) -> None:
        self.problems.append(f"{self._prefix}{name}: expected {expected}, found {found!r}")

    def take(self, name: str, default: object = None) -> Any:  # noqa: ANN401  a TOML value
        self._known.append(name)
        if name in self._left:
            return self._left.pop(name)
        if default is None:
            self.problems.append(f"{self._prefix}{name} is missing")
        return default

    def integer(self, name: str, allowed: Collection[int], default: int | None = None) -> int:
        value = self.take(name, default)
        if value is not None and (type(value) is not int or value not in allowed):
            self.wrong(name, f"a whole number from {min(allowed)} to {max(allowed)}", value)
        return value if type(value) is int else 1

    def text(self, name: str, default: str | None = None) -> str:
        value = self.take(name, default)
        if value is not None and not isinstance(value, str):
            self.wrong(name, "a string", value)
        return value if isinstance(value, str) else ""

    def choice(self, name: str, allowed: Collection[str], default: str) -> str:
        value = self.text(name, default)
        if value not in allowed:
            self.wrong(name, f"one of {', '.join(allowed)}", value)
        return value

    def boolean(self, name: str, *, default: bool) -> bool:
        value = self.take(name, default)
        if not isinstance(value, bool):
            self.wrong(name, "true or false", value)
        return value is True

    def texts(self, name: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        value = self.take(name, default)
        if value is None:
            return ()
        if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
            self.wrong(name, "a list of strings", value)
            return ()
        if len(set(value)) != len(value):
            self.wrong(name, "each name once", value)
        return tuple(value)

    def day(self, name: str) -> date | None:
        """A date without a time, if there is one."""
        value = self.take(name, "")
        if isinstance(value, date) and not isinstance(value, datetime):
            return value
        if value != "":
            self.wrong(name, "a date such as 2026-03-02, without quotes", value)
        return None

    def end(self) -> None:
        self.problems.extend(
            f"{self._prefix}{name} is not known{_did_you_mean(name, self._known)}"
            for name in self._left
        )


# As `client_reference.nearest`, which this package may not import.
def _did_you_mean(found: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(found, sorted(set(known)), n=1, cutoff=0.7)
    return f"; did you mean {near[0]}?" if near else ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError([f"{path}: cannot be read: {error}"]) from error


def _toml(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError([f"{source}: not TOML: {error}"]) from error


def load_policy(path: Path, keyring: Mapping[str, KeyHolder] | None = None) -> Policy:
    """Read `policy.toml`. Raises as `parse_policy`."""
    return parse_policy(_read(path), path.name, keyring)


def parse_policy(
    text: str, source: str = "policy.toml", keyring: Mapping[str, KeyHolder] | None = None
) -> Policy:
    """Read a policy.

    Args:
        text: TOML.
        source: name of the file, for messages.
        keyring: if given, every key that a role names must be in it.

    Raises:
        PolicyError: with every mistake that was found.
    """
    problems: list[str] = []
    top = _Table(source, "", _toml(text, source), problems)
    top.integer("schema", (1,))
    scale = top.choice("scale", (Scale.TEAM, Scale.MAKER), Scale.TEAM)
    algorithms = top.texts("algorithms", tuple(ALGORITHMS))
    _check_algorithms(top, algorithms)
    until = _until(top, source, problems)
    lead_days = top.integer("lead_days", range(3_651), 0)
    lab = top.boolean("lab", default=False)
    sections = top.take("roles")
    top.end()
    roles = {}
    if isinstance(sections, dict):
        roles = {name: _role(source, name, table, problems) for name, table in sections.items()}
        problems.extend(
            f"{source}: roles.{name} is missing" for name in REQUIRED_ROLES if name not in roles
        )
        problems.extend(
            f"{source}: roles.{name} is not a role: expected {', '.join(REQUIRED_ROLES)}, "
            f"{', '.join(OPTIONAL_ROLES)} or the role of a product such as gateway-builds"
            for name in roles
            if name not in {*REQUIRED_ROLES, *OPTIONAL_ROLES} and not _is_product_role(name)
        )
    elif sections is not None:
        top.wrong("roles", "tables", sections)
    if keyring is not None:
        problems.extend(
            f"{source}: roles.{name}.keys: there is no keys/{key}.toml{_did_you_mean(key, keyring)}"
            for name, rules in roles.items()
            for key in rules.keys
            if key not in keyring
        )
    if problems:
        raise PolicyError(problems)
    return Policy(roles, algorithms, scale, lab, source, until, lead_days)


def _until(top: _Table, source: str, problems: list[str]) -> dict[str, date]:
    table = _Table(source, "algorithms_until", top.take("algorithms_until", {}), problems)
    found = {name: table.day(name) for name in ALGORITHMS}
    table.end()
    return {name: day for name, day in found.items() if day is not None}


def _is_product_role(name: str) -> bool:
    return NAME.fullmatch(name) is not None and "-" in name


def _check_algorithms(table: _Table, names: Iterable[str]) -> None:
    for name in names:
        if name not in ALGORITHMS:
            table.wrong("algorithms", f"names among {', '.join(ALGORITHMS)}", name)


def _role(source: str, name: str, value: object, problems: list[str]) -> RolePolicy:
    table = _Table(source, f"roles.{name}", value, problems)
    rules = RolePolicy(
        threshold=table.integer("threshold", range(1, 101)),
        keys=table.texts("keys"),
        expiry_days=table.integer("expiry_days", _DAYS),
        signing_days=table.integer("signing_days", range(36_501), 0),
        hybrid_left=table.integer("hybrid_left", range(101), 0),
        custodies=table.integer("custodies", range(1, 101), 1),
        rotation_days=table.integer("rotation_days", range(36_501), 0),
        algorithms=table.texts("algorithms", ()),
    )
    _check_algorithms(table, rules.algorithms)
    table.end()
    return rules


def load_keyring(directory: Path) -> dict[str, KeyHolder]:
    """Read every `keys/<name>.toml`.

    Raises:
        PolicyError: with every mistake in every file.
    """
    problems: list[str] = []
    keyring = {}
    for path in sorted(directory.glob("*.toml")):
        try:
            keyring[path.stem] = parse_key(_read(path), path.stem, f"keys/{path.name}")
        except PolicyError as error:
            problems.extend(error.problems)
    if problems:
        raise PolicyError(problems)
    return keyring


def parse_key(text: str, name: str, source: str) -> KeyHolder:
    """Read the public half of a key.

    Raises:
        PolicyError: with every mistake that was found.
    """
    problems: list[str] = []
    table = _Table(source, "", _toml(text, source), problems)
    if NAME.fullmatch(name) is None:
        problems.append(f"{source}: expected a file name of small letters, digits and '-'")
    table.integer("schema", (1,))
    holder = table.text("holder", name)
    custody = table.text("custody", "file")
    contact, place, made = table.text("contact", ""), table.text("place", ""), table.day("made")
    keyid, keytype, scheme, public = (
        table.text(each) for each in ("keyid", "keytype", "scheme", "public")
    )
    table.end()
    if (keytype, scheme) not in ALGORITHMS.values() and not problems:
        known = ", ".join(f"{kind} with {scheme}" for kind, scheme in ALGORITHMS.values())
        problems.append(f"{source}: keytype {keytype!r} with scheme {scheme!r}: expected {known}")
    if problems:
        raise PolicyError(problems)
    key: Key = SSlibKey(keyid, keytype, scheme, {"public": public})
    return KeyHolder(name, holder, custody, key, contact, place, made)
