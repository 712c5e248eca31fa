"""Where modules lie: what the package must bring, what the runtime may, and what nobody may."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from client_reference.errors import RefusedError
from repo_tools.cloud.imported import (
    Survey,
    check,
    packaged_names,
    standard_places,
    survey,
    without_others,
)

PACKAGE, STANDARD = Path("/var/task"), Path("/var/lang/lib/python3.13")
NAMES = frozenset({"boto3", "repo_tools"})


def module(file: str = "", *folders: str) -> ModuleType:
    made = ModuleType("it")
    if file:
        made.__file__ = file
    if folders:
        made.__path__ = list(folders)
    return made


# Sentence: (name, module, there before, where it lies).
CASES: dict[str, tuple[str, ModuleType | None, bool, str]] = {
    "of the package": ("boto3.session", module("/var/task/boto3/session.py"), False, "package"),
    "a folder of it": ("repo_tools", module("", "/var/task/repo_tools"), False, "package"),
    "of the standard library": ("json", module(f"{STANDARD}/json/__init__.py"), False, "standard"),
    "an extension of it": ("_ssl", module(f"{STANDARD}/lib-dynload/_ssl.so"), False, "standard"),
    "of the interpreter": ("builtins", module(), False, "standard"),
    "made in memory": ("boto3.six.moves", module(), False, "standard"),
    "hidden": ("hvac", None, False, "nowhere"),
    "the runtime's own": (
        "awslambdaric",
        module(f"{STANDARD}/site-packages/awslambdaric/__init__.py"),
        True,
        "runtime",
    ),
    "the runtime's, under a name of the package": (
        "boto3",
        module(f"{STANDARD}/site-packages/boto3/__init__.py"),
        True,
        "foreign",
    ),
    "a part of it, under a name of the package": (
        "boto3.session",
        module("/var/runtime/boto3/session.py"),
        True,
        "foreign",
    ),
    "installed beside the runtime, and loaded by the function": (
        "hvac",
        module(f"{STANDARD}/site-packages/hvac/__init__.py"),
        False,
        "foreign",
    ),
    "of Debian's Python": ("yaml", module(f"{STANDARD}/dist-packages/yaml.py"), False, "foreign"),
    "from a layer": ("extra", module("/opt/python/extra.py"), False, "foreign"),
    "a folder outside": ("extra", module("", "/opt/python/extra"), False, "foreign"),
    "beside the package": ("evil", module("/var/task-2/evil.py"), False, "foreign"),
    "half outside": ("extra", module("", "/var/task/x", "/opt/x"), False, "foreign"),
}


@pytest.mark.parametrize("sentence", CASES)
def test_each_module_is_told_apart(sentence: str) -> None:
    name, found, early, where = CASES[sentence]
    before = {name} if early else set[str]()
    told = survey({name: found}, PACKAGE, before, places=[STANDARD], names=NAMES)
    lists = {"package": told.package, "standard": told.standard}
    lists |= {"runtime": len(told.runtime), "foreign": len(told.foreign)}
    assert lists == {each: int(each == where) for each in lists}
    if where == "foreign":
        assert told.foreign[0].startswith(f"{name} (/")
        with pytest.raises(RefusedError) as refused:
            check(told)
        assert name in refused.value.message
    else:
        check(told)


def test_the_program_itself_is_the_runtimes_under_either_name() -> None:
    program = module("/tmp/worker.py")  # noqa: S108 # no file of that name is made
    modules = {"__main__": program, "__mp_main__": program}
    told = survey(modules, PACKAGE, (), places=[STANDARD], names=NAMES)
    assert told == Survey(0, 0, (), ())
    other = {"__main__": program, "__mp_main__": module("/tmp/worker.py")}  # noqa: S108 # likewise
    assert survey(other, PACKAGE, (), places=[STANDARD], names=NAMES).foreign


def test_what_a_package_has_at_its_top(tmp_path: Path) -> None:
    for name in ("six.py", "_cffi_backend.cpython-313.so", "README.txt"):
        (tmp_path / name).touch()
    (tmp_path / "boto3").mkdir()
    assert packaged_names(tmp_path) == {"six", "_cffi_backend", "boto3"}


def test_only_the_package_and_the_standard_library_are_found(tmp_path: Path) -> None:
    other, package = tmp_path / "other", tmp_path / "package"
    for folder, names in (
        (other, ("firmroot_it_a", "firmroot_it_b")),
        (package, ("firmroot_it_b",)),
    ):
        folder.mkdir()
        for name in names:
            (folder / f"{name}.py").write_text(f"where = {folder.name!r}\n")
    before = sys.path[:]
    sys.path[:0] = [str(other), ""]
    during = sys.path[:]
    try:
        with without_others(package, standard_places()):
            with pytest.raises(ModuleNotFoundError):
                importlib.import_module("firmroot_it_a")
            found = importlib.import_module("firmroot_it_b")
            importlib.import_module("colorsys")  # of the standard library, and hardly loaded before
        assert found.__file__ == str(package / "firmroot_it_b.py")
        assert sys.path == during
        importlib.import_module("firmroot_it_a")  # the runtime finds its own again
    finally:
        sys.path[:] = before


def test_this_process_tells_the_standard_library_from_what_is_installed() -> None:
    told = survey(
        {name: sys.modules[name] for name in ("json", "pytest", "sys")},
        PACKAGE,
        {"pytest"},
        places=standard_places(),
        names=(),
    )
    assert (told.standard, told.runtime, told.foreign) == (2, ("pytest",), ())
    assert told.facts()["runtime"] == ["pytest"]
