"""What this signer signed last, kept on the signer's own machine and nowhere else.

One JSON file: below `.firmroot/` of the workspace, which git ignores, or without a workspace in the
user's own data directory (XDG). It is never taken from what another side sends, and never sent: the
difference that a signer sees is to what *they* know, not to what somebody tells them was before.

In a workspace an entry belongs to a role. The user's file serves several repositories, and a sender
must not choose which of them is compared: there an entry belongs to a role *and* the signer's key.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client_reference.errors import ConfigurationError, NotTrustedError
from repo_tools.files import replace_file
from repo_tools.signing.ceremony.reading import parse_role
from repo_tools.signing.unusual import Known, Person, offered

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from tuf.api.metadata import Root, Targets

__all__ = ["FILE", "KnownGood", "user_file"]

FILE = "known-good.json"


def user_file(environment: Mapping[str, str]) -> Path:
    """The user's own file, for signing without a workspace.

    Args:
        environment: of the process; `XDG_DATA_HOME`, else `HOME` is looked at.

    Raises:
        ConfigurationError: neither says where.
    """
    if (base := environment.get("XDG_DATA_HOME", "")).startswith("/"):
        return Path(base) / "firmroot" / FILE
    if home := environment.get("HOME"):
        return Path(home) / ".local/share/firmroot" / FILE
    raise ConfigurationError(
        "neither XDG_DATA_HOME nor HOME says where to keep what you signed last",
        "set HOME to a directory that stays",
    )


@dataclass
class KnownGood:
    """The file, read; `keep` and `record_tested` write it.

    Attributes:
        path: of the file.
        by_key: entries belong to a role and a key, not to a role alone.
    """

    path: Path
    by_key: bool
    _entries: dict[str, Any] = field(default_factory=dict, repr=False)
    _tested: dict[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, path: Path, *, by_key: bool) -> KnownGood:
        """Read what there is; a file that is not there is empty.

        Raises:
            NotTrustedError: it is damaged. It is not passed over: it may have been damaged to make
                a change look small.
        """
        try:
            document = json.loads(path.read_bytes())
            entries, tested = dict(document["signed"]), dict(document["tested"])
        except FileNotFoundError:
            return cls(path, by_key)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _damaged(path, error) from error
        return cls(path, by_key, entries, tested)

    def last(self, role: str, keyids: Iterable[str], asked: Root | Targets) -> Known | None:
        """What was signed last of a role, before what is asked for now; the newest version of it.

        Args:
            role: of which.
            keyids: with one of these keys, where entries belong to keys.
            asked: what is to be signed; who has signed exactly this looks at it once more.

        Raises:
            NotTrustedError: the file is damaged.
        """
        found = []
        for place in sorted(self._places(role, keyids)):
            entry = self._entries.get(place)
            if entry is not None and self._is_about(entry, asked):
                entry = entry.get("earlier")
            if entry is not None:
                found.append(self._known(role, entry))
        return max(found, key=lambda known: known.signed.version, default=None)

    def has_signed(self, role: str, keyids: Iterable[str], asked: Root | Targets) -> bool:
        """Whether exactly this was signed last. Arguments are those of `last`."""
        entries = map(self._entries.get, self._places(role, keyids))
        return any(self._is_about(entry, asked) for entry in entries)

    def _is_about(self, entry: Any, signed: Root | Targets) -> bool:  # noqa: ANN401  JSON
        return isinstance(entry, dict) and entry.get("content") == signed.to_dict()

    def _known(self, role: str, entry: Any) -> Known:  # noqa: ANN401  JSON
        try:
            people = {keyid: Person(*map(str, who)) for keyid, who in entry["people"].items()}
            data = json.dumps({"signatures": [], "signed": entry["content"]}).encode()
            files = frozenset(map(str, entry["files"]))
            return Known(parse_role(data, role, str(self.path)), people, str(entry["when"]), files)
        except (KeyError, TypeError, AttributeError, NotTrustedError) as error:
            raise _damaged(self.path, error) from error

    def _places(self, role: str, keyids: Iterable[str]) -> set[str]:
        return {f"{role} {keyid}" for keyid in keyids} if self.by_key else {role}

    @property
    def tested(self) -> frozenset[str]:
        """SHA-256 of what was recorded as tested on this machine."""
        return frozenset(self._tested)

    def record_tested(self, digests: Iterable[str], now: datetime) -> None:
        """Remember what somebody tested here."""
        new = {digest: f"{now:%Y-%m-%d}" for digest in digests if digest not in self._tested}
        if new:
            self._tested.update(new)
            self._write()

    def keep(
        self,
        role: str,
        keyids: Iterable[str],
        signed: Root | Targets,
        people: Mapping[str, Person],
        carries: Mapping[str, bytes],
        now: datetime,
    ) -> None:
        """Remember what was just signed with these keys."""
        content = {
            "content": signed.to_dict(),
            "people": {
                keyid: [person.name, person.holder, person.contact]
                for keyid, person in people.items()
            },
            "files": sorted(offered(carries)),
            "when": f"{now:%Y-%m-%d}",
        }
        for place in self._places(role, keyids):
            before = self._entries.get(place)
            if before is not None and self._is_about(before, signed):
                continue
            if before is not None:
                before = {name: value for name, value in before.items() if name != "earlier"}
            self._entries[place] = {**content, "earlier": before}
        self._write()

    def _write(self) -> None:
        document = {"schema": 1, "signed": self._entries, "tested": self._tested}
        data = json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"
        replace_file(self.path, data, mode=0o600)


def _damaged(path: Path, error: Exception) -> NotTrustedError:
    return NotTrustedError(
        f"{path}, which remembers what you signed last, is damaged: {error!r}",
        "find out why. Without the file (move it away) the next difference is to what the other "
        "side says was before, so look at everything",
    )
