"""Pure: what a signer is shown before they sign, in a workspace and without one alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from repo_tools.metadata.edits import signed_bytes
from repo_tools.reporting.difference import describe_change
from repo_tools.signing.unusual import untested, unusual
from repo_tools.signing.words import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from repo_tools.signing.unusual import Look, Unusual

__all__ = ["Review", "review"]


@dataclass(frozen=True)
class Review:
    """One content, told to one signer.

    Attributes:
        changes: what signing it would change, from what this signer signed last.
        notes: what they should know.
        stops: what they should stop at.
        words: the fingerprint to read aloud.
    """

    changes: tuple[str, ...]
    notes: tuple[str, ...]
    stops: tuple[Unusual, ...]
    words: str

    @property
    def lines(self) -> list[str]:
        """All of it, a line each; the first is the title of the others."""
        stops = (f"UNUSUAL: {stop.detail} [{stop.id}]" for stop in self.stops)
        return [*self.changes, *stops, *self.notes]


def review(
    role: str,
    look: Look,
    name_of: Callable[[str], str],
    versions: Mapping[int, str] | None = None,
) -> Review:
    """Tell a signer what they are asked for.

    Args:
        role: what is being signed.
        look: at the content.
        name_of: what people call a key id.
        versions: live releases by sequence, if it is a hold.
    """
    changes = describe_change(role, look.old, look.signed, look.carries, name_of, versions)
    words = fingerprint(role, signed_bytes(look.signed))
    return Review(tuple(changes), tuple(_notes(look)), unusual(look), words)


def _notes(look: Look) -> list[str]:
    notes = []
    if look.again:
        notes.append("exactly this was signed here already")
    if look.known is None and not look.again:
        notes.append("you have signed nothing of this here before: compared with what came with it")
    if look.known is not None:
        last, when = look.known.signed.version, look.known.when
        notes.append(f"compared with version {last}, which you signed here on {when}")
        if (missed := look.signed.version - last - 1) > 0:
            notes.append(f"{missed} version(s) between were signed without you")
    if not look.tested:
        notes.extend(
            f"not recorded as tested here: {path} (--tested FILE records it)"
            for path in untested(look).values()
        )
    return notes
