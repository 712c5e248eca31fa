"""`@frozen` is a frozen dataclass: the cases run on both, side by side."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from client_reference.values import frozen

if TYPE_CHECKING:
    from collections.abc import Callable


def define(decorate: Callable[[type], type]) -> Any:  # noqa: ANN401  a class made here
    class Point:
        """A value."""

        x: int
        y: int = 2
        tags: list[str] = dataclasses.field(default_factory=list, compare=False)

        def __post_init__(self) -> None:
            if self.x < 0:
                raise ValueError("x")

        @property
        def sum(self) -> int:
            return self.x + self.y

    return decorate(Point)


BOTH = {"frozen": define(frozen), "dataclass": define(dataclasses.dataclass(frozen=True))}
both = pytest.mark.parametrize("kind", BOTH.values(), ids=BOTH)


@both
def test_fields_come_by_place_by_name_and_by_default(kind: Any) -> None:  # noqa: ANN401  either
    assert (kind(1).y, kind(1, 5).y, kind(x=1, y=6).y, kind(1).tags) == (2, 5, 6, [])
    assert kind(1).sum == 3
    assert kind(1).tags is not kind(1).tags


@both
@pytest.mark.parametrize(
    ("given", "named"),
    [((), {}), ((1, 2, [], 4), {}), ((1,), {"x": 1}), ((1,), {"z": 1})],
    ids=["one is missing", "one too many", "one twice", "one that does not exist"],
)
def test_wrong_arguments_are_a_type_error(
    kind: Any,  # noqa: ANN401  either
    given: tuple[Any, ...],
    named: dict[str, Any],
) -> None:
    with pytest.raises(TypeError):
        kind(*given, **named)


@both
def test_values_are_equal_by_the_fields_that_compare(kind: Any) -> None:  # noqa: ANN401  either
    assert kind(1, tags=["a"]) == kind(1, tags=["b"])
    assert hash(kind(1)) == hash(kind(1, 2))
    assert kind(1) != kind(2)
    assert kind(1) != (1, 2, [])
    assert kind(1) != define(frozen)(1)


@both
def test_values_do_not_change(kind: Any) -> None:  # noqa: ANN401  either
    one = kind(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.x = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        del one.x
    assert dataclasses.replace(one, x=3) == kind(3)
    assert dataclasses.asdict(one) == {"x": 1, "y": 2, "tags": []}


@both
def test_a_value_may_refuse_to_exist(kind: Any) -> None:  # noqa: ANN401  either
    with pytest.raises(ValueError, match="x"):
        kind(-1)


@both
def test_a_value_shows_its_fields(kind: Any) -> None:  # noqa: ANN401  either
    assert repr(kind(1)).endswith("Point(x=1, y=2, tags=[])")


def test_what_is_secret_is_not_shown() -> None:
    @frozen
    class Login:
        user: str
        password: str = dataclasses.field(default="", repr=False)

    assert repr(Login("me", "secret")).endswith("Login(user='me')")
