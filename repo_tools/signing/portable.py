"""A ceremony as one portable file, for a machine without network, git or workspace.

The file carries everything that a signer must see: the content, the whole metadata that it
replaces and that says who may sign, target files, signatures so far, and who is said to hold which
key. `pack` writes it from a workspace; `read_portable` judges it on a machine that has nothing
else. Rules:

* what is for people only (the words, what changes, who signs) is never read back: the reader works
  it out again from the content;
* names are what the sender says; a key is the one that its id names;
* each root must be signed by the threshold of the root before it and its own (TUF 5.3.4), so a
  chain that leads from what this signer knows proves itself;
* nothing of the file becomes a file name before it has the form of a name.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from securesystemslib.signer import Signature
from tuf.api.metadata import Root, Targets

from client_reference.errors import ConfigurationError, NotTrustedError, RefusedError
from client_reference.trust.recovery import check_follows, read_statement
from keys_policy.checks import derived_keyid
from keys_policy.model import NAME
from repo_tools.metadata.edits import signed_bytes
from repo_tools.metadata.roles import RECOVERY
from repo_tools.signing.ceremony.electorate import Electorate, is_signed
from repo_tools.signing.ceremony.guards import check_alone, check_carried, keys_of
from repo_tools.signing.ceremony.reading import ROOTS, parse_role
from repo_tools.signing.unusual import Person
from repo_tools.signing.words import fingerprint

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from repo_tools.signing.ceremony.electorate import Quorum
    from repo_tools.signing.ceremony.reading import Signable

__all__ = ["FORMAT", "MAX_FILE", "Portable", "pack", "read_json", "read_portable", "signatures_in"]

FORMAT = "firmroot-ceremony"
_VERSION = 1
# A hundred roots with post-quantum keys and a manifest are a tenth of it.
MAX_FILE = 64 << 20


@dataclass(frozen=True)
class Portable:
    """One ceremony, and all that is needed to judge it.

    Attributes:
        role: what is being replaced.
        signed: the new content.
        carries: target files that come with it, by target path.
        roots: of a root, or of the recovery anchor: the chain before it, oldest first.
        predecessor: of any other role: what it replaces.
        delegators: of any other role: what says who may sign, each with the name by which people
            know it; it may still wait for signatures.
        people: whose each key is said to be, by key id.
        signatures: given so far; none of them has been verified.
    """

    role: str
    signed: Signable
    carries: Mapping[str, bytes] = field(default_factory=dict)
    roots: Sequence[bytes] = ()
    predecessor: bytes | None = None
    delegators: Sequence[tuple[str, Root | Targets]] = ()
    people: Mapping[str, Person] = field(default_factory=dict)
    signatures: Sequence[Signature] = ()

    @property
    def name(self) -> str:
        """Such as `root-3`; also the start of file names."""
        return f"{self.role}-{self.signed.version}"

    @property
    def payload(self) -> bytes:
        """The bytes that signatures cover."""
        return signed_bytes(self.signed)

    @property
    def words(self) -> str:
        """The fingerprint to read aloud."""
        return fingerprint(self.role, self.payload)

    @property
    def before(self) -> Signable | None:
        """The content that it replaces, as the sender says."""
        data = self.roots[-1] if self.roots else self.predecessor
        return None if data is None else parse_role(data, self.role, f"before {self.name}")

    def version(self, number: int) -> Signable | None:
        """The content that an earlier version had, as the sender says; None if it does not."""
        if 0 < number <= len(self.roots):
            return parse_role(self.roots[number - 1], self.role, self.role)
        before = self.before
        return before if before is not None and before.version == number else None

    @property
    def electorate(self) -> Electorate:
        """Who may sign."""
        found: list[tuple[str, Root | Targets]]
        if isinstance(self.signed, Root):
            before = self.before
            found = [] if before is None else [("the root before", before)]
            found.append(("the new root", self.signed))
        else:
            found = list(self.delegators)
        tuf_role = Root.type if isinstance(self.signed, Root) else self.role
        return Electorate(self.name, self.role, tuf_role, self.payload, found, self.name_of)

    @property
    def proven(self) -> bool:
        """Whether the predecessor has the signatures that rule over it.

        A chain of roots has, or it would not have been read.
        """
        if self.role in ROOTS:
            return True
        if self.predecessor is None:
            return False
        data = self.predecessor
        return any(is_signed(delegator, self.role, data) for _, delegator in self.delegators)

    def name_of(self, keyid: str) -> str:
        """What the sender calls a key."""
        person = self.people.get(keyid)
        return person.name if person is not None else f"unknown key {keyid[:8]}"

    def count(self) -> tuple[tuple[Quorum, ...], tuple[str, ...]]:
        """What each delegator asks for, and the signatures that are ignored, with why."""
        voters = self.electorate
        problems = [voters.problem(each) for each in self.signatures]
        ignored = tuple(problem for problem in problems if problem is not None)
        return voters.quorums(self.signatures), ignored


# Writing.


def pack(portable: Portable, changes: Sequence[str]) -> bytes:
    """The file.

    Args:
        portable: all that it says.
        changes: what it changes, in sentences, for who has nothing to read it with.
    """
    quorums, _ = portable.count()
    document = {
        FORMAT: _VERSION,
        "ceremony": portable.name,
        "read-aloud": portable.words,
        "what-changes": list(changes),
        "who-signs": [
            {
                "for": each.delegator,
                "needed": each.threshold,
                "signed": list(each.signed),
                "missing": list(each.missing),
            }
            for each in quorums
        ],
        "role": portable.role,
        "people": {
            keyid: {"name": who.name, "holder": who.holder, "contact": who.contact}
            for keyid, who in sorted(portable.people.items())
        },
        "signed": portable.signed.to_dict(),
        "targets": {
            path: base64.b64encode(data).decode() for path, data in portable.carries.items()
        },
        "signatures": [each.to_dict() for each in portable.signatures],
        "roots": [data.decode() for data in portable.roots],
        "predecessor": _text(portable.predecessor),
        "delegators": [
            {"title": title, "signed": delegator.to_dict()}
            for title, delegator in portable.delegators
        ],
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode()


# Reading.


def read_json(path: Path, what: str) -> dict[str, Any]:
    """A file that is one JSON object.

    Args:
        path: of the file.
        what: it should be, for the message.

    Raises:
        ConfigurationError: it cannot be read, or is something else.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            raise ConfigurationError(f"{path} is not {what}: it is longer than {MAX_FILE} bytes")
        document = json.loads(data)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} is not {what}: {error}") from error
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path} is not {what}: expected a JSON object")
    return document


def signatures_in(document: Mapping[str, Any]) -> list[Signature]:
    """The signatures that a ceremony's file has collected.

    Raises:
        TypeError: they are not signatures.
        KeyError: likewise.
    """
    return [Signature(str(each["keyid"]), str(each["sig"])) for each in document["signatures"]]


def read_portable(path: Path, among: Collection[str] | None = None) -> Portable:
    """Read a ceremony's file and judge it, before anything of it is shown or signed.

    Args:
        path: of the file.
        among: the roles that there are, if this is known.

    Raises:
        ConfigurationError: it is not such a file.
        NotTrustedError: metadata in it cannot be read, or a link of the chain does not verify.
        RefusedError: it breaks a guard, or does not follow what it says to replace.
    """
    document = read_json(path, "an exported ceremony")
    if document.get(FORMAT) != _VERSION:
        raise ConfigurationError(
            f"{path} is not an exported ceremony that this firmroot reads: {FORMAT} is "
            f"{document.get(FORMAT)!r}, expected {_VERSION}",
            "make one with: firmroot ceremony export ROLE --to FILE",
        )
    try:
        role = str(document["role"])
        if among is not None and role not in among:
            raise RefusedError(
                f"{path} is a ceremony of {role!r}; the roles that people sign here are: "
                f"{', '.join(among)}",
                "take the workspace as it is in git (git pull), or find out who wrote the file",
            )
        found = _read(document, role, str(path))
    except (KeyError, TypeError, AttributeError, ValueError, binascii.Error) as error:
        raise ConfigurationError(
            f"{path} is not an exported ceremony: {error!r}",
            "make one with: firmroot ceremony export ROLE --to FILE",
        ) from error
    _judge(found)
    return found


def _read(document: Mapping[str, Any], role: str, name: str) -> Portable:
    if NAME.fullmatch(role) is None:
        raise RefusedError(f"{role!r} is not the name of a role", "find out who wrote the file")
    carries = {
        str(target): base64.b64decode(content, validate=True)
        for target, content in document["targets"].items()
    }
    return Portable(
        role=role,
        signed=parse_role(_unsigned(document["signed"]), role, name),
        carries=carries,
        roots=tuple(str(each).encode() for each in document["roots"]),
        predecessor=_bytes(document["predecessor"]),
        delegators=tuple(_delegators(document["delegators"], role)),
        people=dict(_people(document["people"])),
        signatures=tuple(signatures_in(document)),
    )


def _bytes(value: object) -> bytes | None:
    return None if value is None else str(value).encode()


def _delegators(found: Iterable[Any], role: str) -> Iterable[tuple[str, Root | Targets]]:
    for each in found:
        title, kind = str(each["title"]), "root" if role == "targets" else "targets"
        yield title, parse_role(_unsigned(each["signed"]), kind, title)


def _unsigned(signed: object) -> bytes:
    return json.dumps({"signatures": [], "signed": signed}).encode()


def _people(people: Mapping[str, Any]) -> Iterable[tuple[str, Person]]:
    names: set[str] = set()
    for keyid, who in people.items():
        name = str(who["name"])
        if NAME.fullmatch(name) is None or name in names:
            raise RefusedError(
                f"{name!r} is not the name of one key", "find out who wrote the file"
            )
        names.add(name)
        yield keyid, Person(name, str(who["holder"]), str(who["contact"]))


def _judge(portable: Portable) -> None:
    """What holds of a ceremony in a workspace, as far as the file alone can prove it."""
    signed, role = portable.signed, portable.role
    _check_predecessor(portable)
    for keyid, key in keys_of(signed).items():
        if derived_keyid(key) != keyid:
            raise RefusedError(
                f"{portable.name}: {portable.name_of(keyid)} ({keyid[:8]}) is another public key "
                "than its key id says",
                "find out who wrote this",
            )
    check_carried(portable.name, role, signed, portable.carries)
    check_alone(role, signed)
    if isinstance(signed, Targets):
        _check_paths(portable, signed)
    portable.electorate.members()


def _check_predecessor(portable: Portable) -> None:
    """What comes before it, and who may sign, is told in the one way that its role has."""
    signed, role = portable.signed, portable.role
    if role in ROOTS:
        _check_chain(portable)
        if portable.predecessor is not None or portable.delegators:
            raise RefusedError(f"{portable.name} has a predecessor beside its chain of roots")
    elif portable.roots:
        raise RefusedError(f"{portable.name} has a chain of roots, and is none")
    elif not portable.delegators:
        raise RefusedError(f"{portable.name} does not say who may sign {role}")
    before = portable.before
    if signed.version != (expected := before.version + 1 if before is not None else 1):
        raise RefusedError(
            f"{portable.name} does not follow the version before it that is in the file: "
            f"expected version {expected}",
            "ask for another file: firmroot ceremony export ROLE --to FILE",
        )
    if role == RECOVERY and isinstance(signed, Root):
        statement = read_statement(signed)
        if isinstance(before, Root):
            check_follows(read_statement(before), statement, portable.name)


def _check_chain(portable: Portable) -> None:
    """Each root follows the one before it, with the thresholds of both (TUF 5.3.4)."""
    trusted: Signable | None = None
    for number, data in enumerate(portable.roots, start=1):
        root = parse_role(data, Root.type, f"{portable.role} {number}")
        if root.version != number:
            raise NotTrustedError(f"{portable.role} {root.version} stands where {number} should")
        if not all(is_signed(each, Root.type, data) for each in (root, trusted or root)):
            raise NotTrustedError(
                f"{portable.role} {number} in the file is not signed as it must be",
                "find out who wrote the file",
            )
        trusted = root


def _check_paths(portable: Portable, signed: Targets) -> None:
    roles = [
        (ruler.delegations.roles or {}).get(portable.role)
        for _, ruler in portable.delegators
        if isinstance(ruler, Targets) and ruler.delegations is not None
    ]
    for path in signed.targets:
        if not any(role is not None and role.is_delegated_path(path) for role in roles):
            raise RefusedError(f"{portable.role} may not speak for {path}")
