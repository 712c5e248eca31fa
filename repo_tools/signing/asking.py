"""Whom to ask for a signature that is missing, and the very words to send them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from repo_tools.signing.session import people_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from repo_tools.signing.ceremony import CeremonyStatus
    from repo_tools.workspace import Workspace

__all__ = ["Asked", "asking", "by_file"]


@dataclass(frozen=True)
class Asked:
    """Somebody whose signature is missing.

    Attributes:
        key: what people call the key.
        holder: who has it; empty if nobody here knows.
        contact: how to reach them; may be empty.
        command: what they run in their clone.
    """

    key: str
    holder: str
    contact: str
    command: str

    @property
    def line(self) -> str:
        """For people."""
        who = ", ".join(each for each in (self.holder, self.contact) if each)
        return f"ask {self.key}{f' ({who})' if who else ''} to run: {self.command}"


def asking(ws: Workspace, found: CeremonyStatus) -> Iterator[Asked]:
    """Everybody who can still bring a ceremony forward."""
    people = {who.name: who for who in people_of(ws).values()}
    for name in found.missing:
        who = people.get(name)
        holder, contact = (who.holder, who.contact) if who is not None else ("", "")
        yield Asked(name, holder, contact, f"git pull && firmroot sign --key {name}")


def by_file(found: CeremonyStatus) -> tuple[str, str]:
    """The command that writes the file for somebody without git, and what they run with it."""
    ceremony = found.ceremony
    file = f"{ceremony.name}.json"
    return (
        f"firmroot ceremony export {ceremony.role} --to {file}",
        f"firmroot sign {file} --key file:KEY.pem",
    )
