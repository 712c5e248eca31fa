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
from typing import TYPE_CHECKING, NotRequired, TypeAlias, TypedDict, Unpack

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


class Said(TypedDict):
    """What a row says besides its name and source. See `Attack`."""

    does: Does
    says: str
    means: NotRequired[str]
    back: NotRequired[Back | None]
    writes: NotRequired[bool]


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
        self, name: str, source: str, *keys: str, **said: Unpack[Said]
    ) -> Callable[[Mutation], Mutation]:
        """Make a row of the function below. See the module and `Attack`."""

        def add(mutate: Mutation) -> Mutation:
            self.add(mutate.__name__.replace("_", "-"), mutate, name, source, *keys, **said)
            return mutate

        return add

    def add(
        self,
        name_of_row: str,
        mutate: Mutation,
        name: str,
        source: str,
        *keys: str,
        **said: Unpack[Said],
    ) -> None:
        """A row whose mutation is used by several rows."""
        does = said["does"]
        self.rows.append(
            Attack(
                id=name_of_row,
                name=name,
                source=source,
                keys=keys,
                means=said.get("means", "network"),
                mutate=mutate,
                ending=does
                if isinstance(does, Ending)
                else Ending.WAITS
                if isinstance(does, Reason)
                else Ending.REFUSES,
                error=does if isinstance(does, type) else None,
                reason=does if isinstance(does, Reason) else None,
                says=said["says"],
                back=said.get("back") or exchanged(*keys),
                writes=said.get("writes", False),
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
