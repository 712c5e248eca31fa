"""Whose code a process runs: where each module that it has loaded lies.

A function of a cloud sees its package, the standard library, and whatever its runtime has
installed. What signs must be what was locked with hashes and packaged, so a library that came from
anywhere else ends the run, however well it works.

* A name that the package has must come from the package.
* What is neither of the package nor of the standard library must have been there before the
  function began: that is the runtime's own, and is named.
* The program itself (`__main__`) is the runtime's, under whatever second name it has.
* A module without a file was made in memory, or is part of the interpreter; it is as good as what
  made it.
"""

from __future__ import annotations

import contextlib
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client_reference.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

__all__ = ["Survey", "check", "packaged_names", "standard_places", "survey", "without_others"]

_INSTALLED = frozenset({"site-packages", "dist-packages"})
"""Folders beside the standard library that are not it."""


@dataclass(frozen=True)
class Survey:
    """Where the modules of a process lie.

    Attributes:
        package: how many are of the package.
        standard: how many are of the standard library, or part of the interpreter.
        runtime: those that the runtime had loaded before; names.
        foreign: those that must not be there; name and file.
    """

    package: int
    standard: int
    runtime: tuple[str, ...]
    foreign: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """For a report."""
        return {
            "package": self.package,
            "standard": self.standard,
            "runtime": list(self.runtime),
            "foreign": list(self.foreign),
        }


def packaged_names(package: Path) -> frozenset[str]:
    """The modules at the top of a package: folders, sources, extensions."""
    return frozenset(
        entry.name.partition(".")[0]
        for entry in package.iterdir()
        if entry.is_dir() or entry.suffix in {".py", ".so"}
    )


def standard_places() -> tuple[Path, ...]:
    """Where the standard library of this interpreter is."""
    found = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")]
    return tuple(dict.fromkeys(found))


def _is_standard(path: Path, places: Collection[Path]) -> bool:
    return any(
        path.is_relative_to(place) and not _INSTALLED.intersection(path.relative_to(place).parts)
        for place in places
    )


def survey(
    modules: Mapping[str, object],
    package: Path,
    before: Collection[str],
    *,
    places: Collection[Path],
    names: Collection[str],
) -> Survey:
    """Say of each module where it lies.

    Args:
        modules: by name, as `sys.modules`; one that is None is hidden, and no module.
        package: the folder of the package.
        before: names of modules that were there when the function began.
        places: of the standard library.
        names: those at the top of the package.
    """
    ours = standard = 0
    runtime: list[str] = []
    foreign: list[str] = []
    for name, module in sorted(modules.items()):
        if module is None or module is modules.get("__main__"):
            continue
        files = _files(module)
        if not files or all(_is_standard(path, places) for path in files):
            standard += 1
        elif all(path.is_relative_to(package) for path in files):
            ours += 1
        elif name in before and name.partition(".")[0] not in names:
            runtime.append(name)
        else:
            foreign.append(f"{name} ({files[0]})")
    return Survey(ours, standard, tuple(runtime), tuple(foreign))


def _files(module: object) -> list[Path]:
    """The file of a module, or the folders of a package that has none."""
    file = getattr(module, "__file__", None)
    if isinstance(file, str):
        return [Path(file).resolve()]
    return [Path(each).resolve() for each in getattr(module, "__path__", ())]


def check(found: Survey) -> None:
    """Refuse to go on with code that was not packaged.

    Raises:
        RefusedError: names it.
    """
    if found.foreign:
        raise RefusedError(
            "code is loaded that is not of this package, the standard library or the runtime: "
            + ", ".join(found.foreign),
            "make the package anew (scripts/refresher_package.py) and deploy it",
        )


@contextlib.contextmanager
def without_others(package: Path, places: Collection[Path]) -> Iterator[None]:
    """In the block only the package and the standard library are found.

    The runtime's own places come back afterwards: it may still load something of its own.
    """
    kept = sys.path[:]
    sys.path[:] = [
        str(package),
        *(each for each in kept if each and _is_standard(Path(each).resolve(), places)),
    ]
    try:
        yield
    finally:
        sys.path[:] = kept
