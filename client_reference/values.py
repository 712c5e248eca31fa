"""Pure: `@frozen`, a frozen dataclass that costs little to define.

`dataclasses.dataclass(frozen=True)` compiles six methods for each class whenever its module is
imported: 0.6 to 0.9 ms of CPU on a small machine. The client has some sixty values, so that was a
fifth of a check that finds nothing new. Here all values share methods that read the fields. What is
defined is a dataclass all the same: `dataclasses.replace`, `fields` and `asdict` work, and a type
checker sees one. Not there: ordering, `slots`, `InitVar`, keyword-only fields.
"""

from __future__ import annotations

from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields
from typing import Any, NoReturn, TypeVar, dataclass_transform

__all__ = ["frozen"]

C = TypeVar("C")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[C]) -> type[C]:
    """Make a class a frozen value, compared and hashed by its fields."""
    if cls.__doc__ is None:
        cls.__doc__ = cls.__name__  # or `dataclass` makes one from a signature, at a price
    cls = dataclass(init=False, repr=False, eq=False, match_args=False)(cls)
    for method in (_init, _repr, _eq, _hash, _setattr, _delattr):
        setattr(cls, f"_{method.__name__}__", method)
    return cls


def _init(self: Any, *given: Any, **named: Any) -> None:  # noqa: ANN401  any value of any class
    declared = fields(self)
    if len(given) > len(declared):
        raise TypeError(f"{type(self).__name__} takes {len(declared)} values, got {len(given)}")
    content = self.__dict__
    for each, argument in zip(declared, given, strict=False):
        content[each.name] = argument
    for each in declared[len(given) :]:
        if each.name in named:
            content[each.name] = named.pop(each.name)
        elif each.default is not MISSING:
            content[each.name] = each.default
        elif each.default_factory is not MISSING:
            content[each.name] = each.default_factory()
        else:
            raise TypeError(f"{type(self).__name__} needs {each.name!r}")
    if named:
        raise TypeError(f"{type(self).__name__} got {', '.join(named)} twice, or has no such field")
    if hasattr(self, "__post_init__"):
        self.__post_init__()


def _content(self: Any) -> tuple[Any, ...]:  # noqa: ANN401  likewise
    content = self.__dict__
    return tuple(content[each.name] for each in fields(self) if each.compare)


def _eq(self: object, other: object) -> bool:
    return _content(self) == _content(other) if type(other) is type(self) else NotImplemented


def _hash(self: object) -> int:
    return hash(_content(self))


def _repr(self: Any) -> str:  # noqa: ANN401  likewise
    content = self.__dict__
    shown = ", ".join(f"{each.name}={content[each.name]!r}" for each in fields(self) if each.repr)
    return f"{type(self).__qualname__}({shown})"


def _setattr(self: object, name: str, _: object) -> NoReturn:
    raise FrozenInstanceError(f"{type(self).__name__}.{name} cannot be changed")


def _delattr(self: object, name: str) -> NoReturn:
    raise FrozenInstanceError(f"{type(self).__name__}.{name} cannot be removed")
