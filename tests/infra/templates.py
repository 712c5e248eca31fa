"""Templates of CloudFormation as values: short forms of functions written out."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.simulators.services import missing

if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORY = Path(__file__).parent.parent.parent / "infra/aws"
NAMES = ("repository", "refresher", "recovery")


@functools.cache
def load(name: str) -> dict[str, Any]:
    """A template of `infra/aws`; not to be changed."""
    try:
        import yaml
    except ImportError:
        missing("PyYAML is not installed: sh scripts/bootstrap services")

    class Loader(yaml.SafeLoader):  # type: ignore[misc] # no types in every environment
        """Knows `!Sub` and its like."""

    def function(loader: Any, tag: str, node: Any) -> dict[str, Any]:  # noqa: ANN401 # of the library
        construct = {
            yaml.ScalarNode: loader.construct_scalar,
            yaml.SequenceNode: lambda each: loader.construct_sequence(each, deep=True),
            yaml.MappingNode: lambda each: loader.construct_mapping(each, deep=True),
        }[type(node)]
        return {tag if tag in {"Ref", "Condition"} else f"Fn::{tag}": construct(node)}

    Loader.add_multi_constructor("!", function)
    with (DIRECTORY / f"{name}.yaml").open() as file:
        found: dict[str, Any] = yaml.load(file, Loader)  # noqa: S506 # a safe one, with functions
    return found


def of_type(template: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    """The properties of every resource of a type, by name."""
    return {
        name: each["Properties"]
        for name, each in template["Resources"].items()
        if each["Type"] == kind
    }


def statements(policy: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The statements of a policy by their `Sid`; a conditional one as if it held."""
    return {each["Sid"]: each for each in _plain(policy["PolicyDocument"]["Statement"])}


def _plain(found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for each in found:
        yield each["Fn::If"][1] if "Fn::If" in each else each


def texts(value: Any) -> list[str]:  # noqa: ANN401 # one, several, functions
    """Resources or actions as plain text, without the functions around them."""
    listed = value if isinstance(value, list) else [value]
    return [str(next(iter(each.values()))) if isinstance(each, dict) else each for each in listed]


__all__ = ["DIRECTORY", "NAMES", "load", "of_type", "statements", "texts"]
