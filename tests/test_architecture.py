"""The import rule, the purity of pure modules, and the weight of the device."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {"client_reference", "keys_policy", "repo_tools", "tests", "bench"}
ALLOWED = {
    "client_reference": {"client_reference"},
    "keys_policy": {"keys_policy"},
    "repo_tools": {"repo_tools", "client_reference", "keys_policy"},
}
PURE = [
    "client_reference/errors.py",
    "client_reference/lifecycle.py",
    "client_reference/manifest.py",
    "client_reference/rollout.py",
    "client_reference/selection.py",
    "client_reference/transport/policy.py",
    "client_reference/trust/clock.py",
    "client_reference/trust/recovery.py",
    "client_reference/trust/state.py",
    "client_reference/trust/verified.py",
    "keys_policy/checks.py",
    "keys_policy/delegations.py",
    "keys_policy/model.py",
    "keys_policy/sizes.py",
    *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "repo_tools/metadata").glob("*.py")),
]
IMPURE_MODULES = {
    "http",
    "io",
    "logging",
    "os",
    "pathlib",
    "random",
    "secrets",
    "shutil",
    "socket",
    "sqlite3",
    "subprocess",
    "sys",
    "tempfile",
    "time",
    "urllib",
}
IMPURE_CALLS = {"open", "print", "input"}
CLOCK_CALLS = {"now", "utcnow", "today"}
# What the device may import from elsewhere; a cloud SDK or a web framework would be a mistake.
DEVICE_LIBRARIES = {"tuf", "securesystemslib", "cryptography"}


def modules_of(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports_of(path: Path) -> set[str]:
    """Every module named by an import, those for type checking and inside functions included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide which half is meant"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_only_what_the_rule_allows(package: str) -> None:
    seen = 0
    for path in modules_of(package):
        for name in imports_of(path):
            top = name.split(".")[0]
            if top in OURS:
                seen += 1
                assert top in ALLOWED[package], f"{path.relative_to(ROOT)} imports {name}"
    assert seen or package == "keys_policy"


@pytest.mark.parametrize("package", ALLOWED)
def test_no_private_name_of_a_library_is_imported(package: str) -> None:
    for path in modules_of(package):
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or not node.module:
                continue
            foreign = node.module.split(".")[0] not in OURS | {"__future__"}
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
            private = [n for n in names if n.startswith("_") and not n.startswith("__")]
            assert not (foreign and private), f"{path.relative_to(ROOT)} uses {private}"


def test_the_device_imports_only_the_libraries_of_the_base_install() -> None:
    for path in modules_of("client_reference"):
        for name in imports_of(path):
            top = name.split(".")[0]
            known = top in sys.stdlib_module_names or top in DEVICE_LIBRARIES | OURS
            assert known, f"{path.relative_to(ROOT)} imports {name}"
            assert not name.startswith("tuf.ngclient"), f"{path.relative_to(ROOT)}: the oracle"


def test_the_base_install_is_the_device_client_alone() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = {re.split(r"[<>=\[ ]", line)[0] for line in project["dependencies"]}
    assert names == DEVICE_LIBRARIES


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_touches_nothing_outside(name: str) -> None:
    path = ROOT / name
    tree = ast.parse(path.read_text("utf-8"))
    type_only: set[str] = set()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.If)
            and isinstance(node.test, ast.Name)
            and node.test.id == "TYPE_CHECKING"
        ):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Import):
                    type_only.update(alias.name for alias in inner.names)
                elif isinstance(inner, ast.ImportFrom):
                    type_only.add(inner.module or "")
    impure = {n for n in imports_of(path) - type_only if n.split(".")[0] in IMPURE_MODULES}
    impure -= {"urllib.parse"}  # string functions only
    assert not impure, f"{name} imports {impure}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name):
                assert called.id not in IMPURE_CALLS, f"{name}:{node.lineno} calls {called.id}"
            elif isinstance(called, ast.Attribute):
                assert called.attr not in CLOCK_CALLS, f"{name}:{node.lineno} reads a clock"


def test_the_device_command_loads_no_release_side_and_no_signer_sdk() -> None:
    code = (
        "import sys\n"
        "from client_reference.__main__ import hide_sdks\n"
        "hide_sdks()\n"
        "import client_reference.cli\n"
        "bad = {'repo_tools', 'keys_policy', 'boto3', 'click', 'starlette', 'tuf.ngclient'}\n"
        "print(sorted(name for name in bad if sys.modules.get(name)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


def test_the_locks_carry_hashes_and_name_no_host() -> None:
    for path in sorted((ROOT / "requirements").glob("*.txt")):
        text = path.read_text("utf-8")
        pins = re.findall(r"^[a-z0-9-]+==", text, re.MULTILINE)
        assert pins
        assert text.count("--hash=sha256:") >= len(pins)
        assert "://" not in text
    assert not (ROOT / "uv.lock").exists()
