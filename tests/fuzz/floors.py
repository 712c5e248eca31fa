"""The floors of a factory export: `factory.load`."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, cast

from client_reference import factory
from client_reference.errors import ConfigurationError
from client_reference.manifest import NAME
from client_reference.strictjson import MAX_INTEGER
from tests.fuzz.honest import repository
from tests.fuzz.refusals import only

if TYPE_CHECKING:
    from pathlib import Path


class Shelf(dict[str, bytes]):
    """A directory, as far as it is read here. A real one is a hundred times slower."""

    def __truediv__(self, name: str) -> Book:
        return Book(name, self.get(name))


class Book:
    """A file of it."""

    def __init__(self, name: str, data: bytes | None) -> None:
        self._name, self._data = name, data

    def exists(self) -> bool:
        return self._data is not None

    def __str__(self) -> str:
        return self._name

    def open(self, mode: str) -> io.BytesIO:
        assert mode == "rb"
        assert self._data is not None
        return io.BytesIO(self._data)


def run(data: bytes) -> None:
    root = repository().files["metadata/1.root.json"]
    shelf = Shelf({"root.json": root, "floors.json": data})
    with only(ConfigurationError):
        loaded = factory.load(cast("Path", shelf))
        assert loaded.root == root
        assert 0 <= loaded.floors.minimum_sequence <= MAX_INTEGER
        assert 0 <= loaded.floors.epoch <= MAX_INTEGER
        assert NAME.fullmatch(loaded.product)
