"""How a row is written: the data as a decorator, the mutation as the function under it.

    @NAMED.row("an older timestamp is replayed", "TUF: rollback",
               does=RollbackError, says="timestamp has version")
    def rollback_timestamp(scene: Scene) -> None:
        scene.serve(scene.first)

The function's name is the row's id. Stolen keys are positional, after the source: `"timestamp"` for
all keys of a role, `"gateway-stable:1"` for one of them. Without `back` the honest people exchange
the keys that were stolen; if none were, their next answer is enough.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from client_reference.selection import Reason
from tests.attacks.scene import Attack, Back, Ending, Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from client_reference.errors import FirmrootError

__all__ = ["FALLS", "HONEST", "ONLINE", "UNHARMED", "Chapter", "Mutation", "exchanged"]

Does: TypeAlias = "type[FirmrootError] | Reason | Ending"
Mutation: TypeAlias = "Callable[[Scene], None]"

UNHARMED = Ending.UNHARMED
FALLS = Ending.FALLS
ONLINE = ("snapshot", "timestamp")
HONEST = Back("the next honest answer")
TOP_LEVEL = ("root", "targets", "snapshot", "timestamp")


@dataclass
class Chapter:
    """Rows under one heading of the page.

    Attributes:
        title: the heading.
        rows: in the order in which they are written.
    """

    title: str
    rows: list[Attack] = field(default_factory=list)

    def row(
        self,
        name: str,
        source: str,
        *keys: str,
        does: Does,
        says: str,
        means: str = "network",
        back: Back | None = None,
        writes: bool = False,
    ) -> Callable[[Mutation], Mutation]:
        """Make a row of the function below. See the module and `Attack`."""

        def add(mutate: Mutation) -> Mutation:
            self.add(
                mutate.__name__.replace("_", "-"),
                mutate,
                name,
                source,
                *keys,
                does=does,
                says=says,
                means=means,
                back=back,
                writes=writes,
            )
            return mutate

        return add

    def add(
        self,
        name_of_row: str,
        mutate: Mutation,
        name: str,
        source: str,
        *keys: str,
        does: Does,
        says: str,
        means: str = "network",
        back: Back | None = None,
        writes: bool = False,
    ) -> None:
        """A row whose mutation is used by several rows."""
        if isinstance(does, Reason):
            ending, error, reason = Ending.WAITS, None, does
        elif isinstance(does, Ending):
            ending, error, reason = does, None, None
        else:
            ending, error, reason = Ending.REFUSES, does, None
        self.rows.append(
            Attack(
                id=name_of_row,
                name=name,
                source=source,
                keys=keys,
                means=means,
                mutate=mutate,
                ending=ending,
                error=error,
                reason=reason,
                says=says,
                back=back or exchanged(*keys),
                writes=writes,
            )
        )


def exchanged(*keys: str) -> Back:
    """The honest people let other keys speak for the roles of these."""
    roles = [key.partition(":")[0] for key in keys]
    if not roles:
        return HONEST

    def step(scene: Scene) -> None:
        repo = scene.honest.repo
        delegated = [role for role in roles if role not in TOP_LEVEL]
        for role in roles:
            repo.rotate(role, "targets")
        repo.publish("root")
        repo.publish(*delegated, "targets")

    return Back(f"other keys for {_listed(roles)}", step)


def _listed(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
