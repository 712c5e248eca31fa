"""Pure: what lets two roles speak for one target (design 4, guard on shadowing).

For what is about to be signed (`repo_tools.metadata.roles`) and for what is signed already (the
policy).
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tuf.api.metadata import DelegatedRole

__all__ = ["delegation_problems"]


def delegation_problems(roles: Sequence[DelegatedRole]) -> Iterator[str]:
    """Every rule that delegations, in the order of their list, break."""
    for role in roles:
        if not role.terminating:
            yield f"the delegation to {role.name} is not terminating"
        if not role.paths:
            yield f"the delegation to {role.name} does not name its paths"
    kinds = [_kind(role) for role in roles]
    for index, kind in enumerate(kinds):
        if kind == "builds" and (after := set(kinds[index:]) - {"builds"}):
            yield f"{roles[index].name} is listed before {', '.join(sorted(after))} roles"
    for one, other in combinations(roles, 2):
        if overlap := _overlap(one, other):
            yield f"{one.name} and {other.name} both speak for {overlap}"
        if {_kind(one), _kind(other)} == {"builds", "channels"} and (
            shared := set(one.keyids).intersection(other.keyids)
        ):
            yield f"{one.name} and {other.name} share the key {min(shared)[:8]}"


def _kind(role: DelegatedRole) -> str:
    """The first path segment, which the guard keeps disjoint between kinds of roles."""
    segments = {pattern.split("/", 1)[0] for pattern in role.paths or ()}
    return segments.pop() if len(segments) == 1 else "mixed"


def _overlap(one: DelegatedRole, other: DelegatedRole) -> str | None:
    """A pattern of one role that might match what the other speaks for.

    Compares what stands before the first wildcard, since to some clients `*` matches everything.
    """
    for left in one.paths or ():
        for right in other.paths or ():
            a, b = _literal(left), _literal(right)
            wild = (a != left and b.startswith(a)) or (b != right and a.startswith(b))
            if wild or left == right:
                return left
    return None


def _literal(pattern: str) -> str:
    return pattern[: min((pattern.find(c) for c in "*?[" if c in pattern), default=len(pattern))]
