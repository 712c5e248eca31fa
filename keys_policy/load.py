"""`policy.toml` and `keys/<name>.toml` into values, with every mistake reported at once.

This checks shape only: types, names, unknown fields, keys that do not exist. Whether a policy is
wise is for `keys_policy.checks`.

Whoever mends a policy wants to know all that is wrong, of shape and of sense. So what is misshapen
can be read twice (`read_rules`): once as the least that could have been meant there, once as the
most. What the checks find in both does not depend on it.
"""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
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
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

__all__ = [
    "Mistake",
    "PolicyError",
    "Reading",
    "did_you_mean",
    "load_keyring",
    "load_policy",
    "parse_key",
    "parse_policy",
    "read_rules",
]

_DAYS = range(1, 36_501)  # a century: devices outlive guesses, numbers do not run away


@dataclass(frozen=True)
class Mistake:
    """One thing that is misshapen.

    Attributes:
        file: where.
        detail: the place in the file, what was expected and what was found.
        fix: what to do.
    """

    file: str
    detail: str
    fix: str

    @property
    def text(self) -> str:
        """The detail, with the file before it."""
        return f"{self.file}: {self.detail}"


class PolicyError(ValueError):
    """A file of the policy is wrong.

    Attributes:
        mistakes: all of them.
    """

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("; ".join(self.problems))

    @property
    def problems(self) -> list[str]:
        """One sentence for each mistake, beginning with the file and the place in it."""
        return [each.text for each in self.mistakes]


@dataclass(frozen=True)
class Reading:
    """What could be read of a policy and its keys.

    Attributes:
        mistakes: everything that is misshapen.
        guesses: policy and keyring with the least, and with the most, that could have been meant
            where a mistake is.
        gaps: there are keys of which nothing could be read.
    """

    mistakes: tuple[Mistake, ...]
    guesses: tuple[tuple[Policy, dict[str, KeyHolder]], ...]
    gaps: bool


class _Table:
    """One TOML table while it is read: takes fields out, collects what is wrong.

    In the place of what is wrong it gives the least that could be meant, or the `most`.
    """

    def __init__(
        self, source: str, path: str, table: object, mistakes: list[Mistake], *, most: bool = False
    ) -> None:
        self._source = source
        self._path = path
        self._prefix = f"{path}." if path else ""
        self._mistakes = mistakes
        self._most = most
        self._known: list[str] = []
        if isinstance(table, dict):
            self._left: dict[str, Any] = dict(table)
        else:
            self._left = {}
            fix = f"Write it as a table: [{path}], with its fields below."
            mistakes.append(Mistake(source, f"{path} is not a table", fix))

    def tell(self, name: str, detail: str, fix: str) -> None:
        self._mistakes.append(Mistake(self._source, f"{self._prefix}{name}{detail}", fix))

    def wrong(self, name: str, expected: str, found: object, fix: str = "") -> None:
        fix = fix or f"Set {name} to {expected}."
        self.tell(name, f": expected {expected}, found {found!r}", fix)

    def take(self, name: str, default: object = None) -> Any:  # noqa: ANN401  a TOML value
        self._known.append(name)
        if name in self._left:
            return self._left.pop(name)
        if default is None:
            place = f"[{self._path}]" if self._path else "the top of the file"
            self.tell(name, " is missing", f"Add {name} to {place}.")
        return default

    def integer(self, name: str, allowed: Sequence[int], default: int | None = None) -> int:
        value = self.take(name, default)
        if type(value) is int and value in allowed:
            return value
        if value is not None:
            expected = f"a whole number from {min(allowed)} to {max(allowed)}"
            self.wrong(name, expected, value, f"Set {name} to {expected}, without quotes.")
        return allowed[-1] if self._most else allowed[0]

    def text(self, name: str, default: str | None = None) -> str:
        value = self.take(name, default)
        if value is not None and not isinstance(value, str):
            self.wrong(name, "a string", value, f"Set {name} to a string, in quotes.")
        return value if isinstance(value, str) else ""

    def choice(self, name: str, allowed: Sequence[str], default: str) -> str:
        value = self.text(name, default)
        if value in allowed:
            return value
        self.wrong(name, f"one of {', '.join(allowed)}", value)
        return allowed[-1] if self._most else allowed[0]

    def boolean(self, name: str, *, default: bool) -> bool:
        value = self.take(name, default)
        if isinstance(value, bool):
            return value
        self.wrong(name, "true or false", value, f"Set {name} to true or false, without quotes.")
        return self._most

    def texts(
        self, name: str, default: tuple[str, ...] | None = None, every: Iterable[str] = ()
    ) -> tuple[str, ...]:
        """A list of strings; `every` is the most that it can have."""
        value = self.take(name, default)
        if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
            found = tuple(dict.fromkeys(value))
            if len(found) != len(value):
                self.wrong(name, "each name once", value, "Remove what is there twice.")
            return found
        if value is not None:
            fix = f'Set {name} to a list of strings, such as ["alice", "bob"].'
            self.wrong(name, "a list of strings", value, fix)
        return tuple(every) if self._most else ()

    def algorithms(self, default: tuple[str, ...]) -> tuple[str, ...]:
        found = self.texts("algorithms", default, ALGORITHMS)
        unknown = [name for name in found if name not in ALGORITHMS]
        for name in unknown:
            self.wrong("algorithms", f"names among {', '.join(ALGORITHMS)}", name)
        if unknown and self._most:
            return tuple(ALGORITHMS)
        return tuple(name for name in found if name in ALGORITHMS)

    def day(self, name: str) -> date | None:
        """A date without a time, if there is one."""
        value = self.take(name, "")
        if isinstance(value, date) and not isinstance(value, datetime):
            return value
        if value == "":
            return None
        self.wrong(name, "a date such as 2026-03-02, without quotes", value)
        return date.max if self._most else None

    def end(self) -> None:
        for name in self._left:
            near = _nearest(name, self._known)
            fix = f"Rename it to {near}, or remove it." if near else f"Remove {name}."
            self.tell(name, f" is not known{did_you_mean(name, self._known)}", fix)


# As `client_reference.nearest`, which this package may not import.
def _nearest(found: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(found, sorted(set(known)), n=1, cutoff=0.7)
    return near[0] if near else ""


def did_you_mean(found: str, known: Iterable[str]) -> str:
    """The end of a message about a name that is nearly one of these; empty if none is near."""
    near = _nearest(found, known)
    return f"; did you mean {near}?" if near else ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fix = "Take the file from git again, or correct its permissions."
        raise PolicyError([Mistake(str(path), f"cannot be read: {error}", fix)]) from error


def _toml(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        if any(line.startswith("<<<<<<< ") for line in text.splitlines()):
            fix = "Put together what both sides wanted, remove the marks, then: git add."
            detail = "has the marks of a git conflict: two people changed it at once"
            raise PolicyError([Mistake(source, detail, fix)]) from error
        fix = "Correct the line that is named."
        raise PolicyError([Mistake(source, f"not TOML: {error}", fix)]) from error


def read_rules(directory: Path) -> Reading:
    """Read `policy.toml` and `keys/*.toml` of a workspace, as far as that goes."""
    mistakes: list[Mistake] = []

    def table(path: Path, source: str) -> dict[str, Any] | None:
        try:
            return _toml(_read(path), source)
        except PolicyError as error:
            mistakes.extend(error.mistakes)
            return None

    files = {
        path.stem: table(path, f"keys/{path.name}")
        for path in sorted((directory / "keys").glob("*.toml"))
    }
    top = table(directory / "policy.toml", "policy.toml")
    least = _guess(files, top, mistakes, most=False)
    most = _guess(files, top, [], most=True)
    return Reading(tuple(mistakes), (least, most), bool(most[1].keys() - least[1].keys()))


def _guess(
    files: Mapping[str, dict[str, Any] | None],
    top: dict[str, Any] | None,
    mistakes: list[Mistake],
    *,
    most: bool,
) -> tuple[Policy, dict[str, KeyHolder]]:
    keyring = {}
    for name, table in files.items():
        if table is not None:
            holder = _key(table, name, f"keys/{name}.toml", mistakes, most=most)
            if holder is not None:
                keyring[name] = holder
    # Of a file that is not TOML, one mistake is told, and not that all its fields are missing.
    told = [] if top is None else mistakes
    policy = _policy(top or {}, "policy.toml", files.keys(), told, most=most)
    if most:
        named = {name for rules in policy.roles.values() for name in rules.keys}
        keyring |= {name: _somebody(name) for name in sorted(named - keyring.keys())}
    return policy, keyring


def _somebody(name: str) -> KeyHolder:
    """A key of which nothing is known: its holder and custody may be unlike all others."""
    key = SSlibKey("0" * 64, "ed25519", "ed25519", {"public": "0" * 64})
    return KeyHolder(name, f"holder of {name}", f"custody of {name}", key)


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
    mistakes: list[Mistake] = []
    names = None if keyring is None else keyring.keys()
    policy = _policy(_toml(text, source), source, names, mistakes)
    if mistakes:
        raise PolicyError(mistakes)
    return policy


def _policy(
    table: dict[str, Any],
    source: str,
    names: Collection[str] | None,
    mistakes: list[Mistake],
    *,
    most: bool = False,
) -> Policy:
    """The policy; every role that must be there is."""
    top = _Table(source, "", table, mistakes, most=most)
    top.integer("schema", (1,))
    scale = top.choice("scale", (Scale.TEAM, Scale.MAKER), Scale.TEAM)
    algorithms = top.algorithms(tuple(ALGORITHMS))
    until = _until(top, source, mistakes, most=most)
    lead_days = top.integer("lead_days", range(3_651), 0)
    lab = top.boolean("lab", default=False)
    sections = top.take("roles")
    top.end()
    if sections is not None and not isinstance(sections, dict):
        top.wrong("roles", "tables", sections, "Write each role as a table: [roles.root].")
    elif sections is not None:
        for name in REQUIRED_ROLES:
            if name not in sections:
                top.tell(f"roles.{name}", " is missing", f"Add a table [roles.{name}].")
    found = sections if isinstance(sections, dict) else {}
    every = names or ()
    roles = {
        name: _role(source, name, each, mistakes, every, most=most) for name, each in found.items()
    }
    for name in [each for each in roles if not _is_role(each)]:
        expected = (
            f" is not a role: expected {', '.join(REQUIRED_ROLES)}, {', '.join(OPTIONAL_ROLES)} "
            "or the role of a product such as gateway-builds"
        )
        top.tell(f"roles.{name}", expected, "Rename it to one of them, or remove it.")
        del roles[name]
    for name in REQUIRED_ROLES:
        if name not in roles:
            # Of a section that is not there, no field has its default either.
            fields = {"signing_days": _DAYS[-1]} if most else {}
            roles[name] = _role(source, name, fields, [], every, most=most)
    _check_names(top, roles, names)
    return Policy(roles, algorithms, scale, lab, source, until, lead_days)


def _check_names(
    top: _Table, roles: Mapping[str, RolePolicy], names: Collection[str] | None
) -> None:
    if names is None:
        return
    for role, rules in roles.items():
        for key in rules.keys:
            if key not in names:
                near = _nearest(key, names)
                fix = f"Write {near}, or make it" if near else "Make it"
                top.tell(
                    f"roles.{role}.keys",
                    f": there is no keys/{key}.toml{did_you_mean(key, names)}",
                    f"{fix}: firmroot key new {key}; or take it out of the list.",
                )


def _until(top: _Table, source: str, mistakes: list[Mistake], *, most: bool) -> dict[str, date]:
    found = top.take("algorithms_until", {})
    table = _Table(source, "algorithms_until", found, mistakes, most=most)
    days = {name: table.day(name) for name in ALGORITHMS}
    table.end()
    return {name: day for name, day in days.items() if day is not None}


def _is_role(name: str) -> bool:
    return name in {*REQUIRED_ROLES, *OPTIONAL_ROLES} or _is_product_role(name)


def _is_product_role(name: str) -> bool:
    return NAME.fullmatch(name) is not None and "-" in name


def _role(
    source: str,
    name: str,
    value: object,
    mistakes: list[Mistake],
    every: Iterable[str],
    *,
    most: bool,
) -> RolePolicy:
    table = _Table(source, f"roles.{name}", value, mistakes, most=most)
    rules = RolePolicy(
        threshold=table.integer("threshold", range(1, 101)),
        keys=table.texts("keys", every=every),
        expiry_days=table.integer("expiry_days", _DAYS),
        signing_days=table.integer("signing_days", range(36_501), 0),
        hybrid_left=table.integer("hybrid_left", range(101), 0),
        custodies=table.integer("custodies", range(1, 101), 1),
        rotation_days=table.integer("rotation_days", range(36_501), 0),
        algorithms=table.algorithms(()),
    )
    table.end()
    return rules


def load_keyring(directory: Path) -> dict[str, KeyHolder]:
    """Read every `keys/<name>.toml`.

    Raises:
        PolicyError: with every mistake in every file.
    """
    mistakes: list[Mistake] = []
    keyring = {}
    for path in sorted(directory.glob("*.toml")):
        try:
            keyring[path.stem] = parse_key(_read(path), path.stem, f"keys/{path.name}")
        except PolicyError as error:
            mistakes.extend(error.mistakes)
    if mistakes:
        raise PolicyError(mistakes)
    return keyring


def parse_key(text: str, name: str, source: str) -> KeyHolder:
    """Read the public half of a key.

    Raises:
        PolicyError: with every mistake that was found.
    """
    mistakes: list[Mistake] = []
    holder = _key(_toml(text, source), name, source, mistakes)
    if mistakes or holder is None:
        raise PolicyError(mistakes)
    return holder


def _key(
    fields: dict[str, Any], name: str, source: str, mistakes: list[Mistake], *, most: bool = False
) -> KeyHolder | None:
    """The key; None if who has which key cannot be read."""
    before = len(mistakes)
    if NAME.fullmatch(name) is None:
        expected = "expected a file name of small letters, digits and '-'"
        mistakes.append(Mistake(source, expected, "Rename the file, and the key in policy.toml."))
    table = _Table(source, "", fields, mistakes, most=most)
    holder = table.text("holder", name)
    custody = table.text("custody", "file")
    keyid, keytype, scheme, public = (
        table.text(each) for each in ("keyid", "keytype", "scheme", "public")
    )
    if (keytype, scheme) not in ALGORITHMS.values() and len(mistakes) == before:
        known = ", ".join(f"{kind} with {scheme}" for kind, scheme in ALGORITHMS.values())
        detail = f"keytype {keytype!r} with scheme {scheme!r}: expected {known}"
        again = f"firmroot key import FILE --name {name}"
        fix = f"Remove {source}, then import the key again: {again}."
        mistakes.append(Mistake(source, detail, fix))
    readable = len(mistakes) == before
    table.integer("schema", (1,))
    contact, place = table.text("contact", ""), table.text("place", "")
    made, destroyed = table.day("made"), table.day("destroyed")
    table.end()
    if not readable:
        return None
    key: Key = SSlibKey(keyid, keytype, scheme, {"public": public})
    return KeyHolder(name, holder, custody, key, contact, place, made, destroyed)
