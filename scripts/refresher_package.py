"""Makes the package of the refresh function: `python scripts/refresher_package.py FILE.zip`.

Whatever signs is in it: firmroot itself and the libraries of `requirements/refresher.txt`, of which
every hash is checked. Wheels only; nothing is built. Bytecode, times and order of files are left
out or fixed, so that the same sources and locks give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
OURS = ("client_reference", "keys_policy", "repo_tools")
LOCK = TOP / "requirements/refresher.txt"
MAX_UNPACKED = 250 << 20
"""Bytes that Lambda unpacks at most."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
# From Python 3.12 on, Lambda has glibc 2.34; wheels for older ones run there as well.
_TAGS = tuple(f"manylinux_2_{minor}" for minor in (34, 31, 28, 27, 17))
_FILE, _PROGRAM = 0o644, 0o755
_NOT_NEEDED = shutil.ignore_patterns("__pycache__", "*.pyc", "bin", "*.dist-info/RECORD")


def install(target: Path, python: str, machine: str) -> None:
    """Unpack the locked libraries, for another machine if `python` names one."""
    line = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    line += ["install", "--require-hashes", "--no-deps", "--only-binary", ":all:", "--no-compile"]
    line += ["--target", str(target), "--requirement", str(LOCK)]
    if python:
        line += ["--python-version", python, "--implementation", "cp"]
        for tag in (*_TAGS, "manylinux2014"):
            line += ["--platform", f"{tag}_{machine}"]
    subprocess.run(line, check=True)  # noqa: S603 # this interpreter's pip


def write(source: Path, file: Path) -> str:
    """Write the archive; returns the SHA-256 of its bytes."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for path in sorted(each for each in source.rglob("*") if each.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(source).as_posix(), _EPOCH)
            mode = _PROGRAM if path.suffix == ".so" else _FILE
            entry.external_attr = mode << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes())
    return hashlib.sha256(file.read_bytes()).hexdigest()


def make(file: Path, python: str = "", machine: str = "x86_64") -> str:
    """Make the package; returns the SHA-256 of its bytes."""
    with tempfile.TemporaryDirectory() as name:
        unpacked, package = Path(name) / "unpacked", Path(name) / "package"
        install(unpacked, python, machine)
        shutil.copytree(unpacked, package, ignore=_NOT_NEEDED)
        for ours in OURS:
            shutil.copytree(TOP / ours, package / ours, ignore=_NOT_NEEDED)
        size = sum(path.stat().st_size for path in package.rglob("*") if path.is_file())
        if size > MAX_UNPACKED:
            raise SystemExit(f"error: {size} bytes unpacked; Lambda takes {MAX_UNPACKED}")
        return write(package, file)


def main() -> None:
    """Parse, make, say."""
    parser = argparse.ArgumentParser(description="Make the package of the refresh function.")
    parser.add_argument("file", type=Path, metavar="FILE.zip")
    parser.add_argument("--python", default="", help="such as 3.13; this one if not given")
    parser.add_argument("--machine", default="x86_64", choices=("x86_64", "aarch64"))
    given = parser.parse_args()
    digest = make(given.file, given.python, given.machine)
    size = given.file.stat().st_size
    sys.stdout.write(f"{given.file}: {size} bytes, sha256 {digest}\n")
    sys.stdout.write(f"upload it as code/refresher-{digest[:12]}.zip\n")


if __name__ == "__main__":
    main()
