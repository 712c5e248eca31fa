"""Clients that we did not write, each as one function: refresh and download these targets.

Both keep their metadata between calls, as a device would, and raise what the client raises.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tuf.ngclient.updater import Updater

__all__ = ["TUF_JS", "MissingError", "install_tuf_js", "ngclient", "tuf_js"]

# Asks for Node.js 22.22 or 24.15; runs on 18 and 20 as well.
TUF_JS = "6.0.2"
HERE = Path(__file__).parent


class MissingError(Exception):
    """tuf-js cannot be had on this machine; says why."""


def ngclient(directory: Path, url: str, root: bytes, targets: list[str]) -> list[bytes]:
    """`tuf.ngclient`: the content of each target."""
    metadata, files = directory / "metadata", directory / "targets"
    for each in (metadata, files):
        each.mkdir(parents=True, exist_ok=True)
    updater = Updater(
        str(metadata), f"{url}metadata/", str(files), f"{url}targets/", bootstrap=root
    )
    updater.refresh()
    found = []
    for name in targets:
        info = updater.get_targetinfo(name)
        assert info is not None, f"{name}: ngclient does not find it"
        found.append(Path(updater.download_target(info)).read_bytes())
    return found


def install_tuf_js() -> Path:
    """The `node_modules` of tuf-js, installed once into the user's cache.

    Raises:
        MissingError: no Node.js, or npm cannot install it.
    """
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise MissingError("Node.js and npm are not installed")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    prefix = base / "firmroot" / f"tuf-js-{TUF_JS}"
    modules = prefix / "node_modules"
    if not (modules / "tuf-js" / "package.json").is_file():
        prefix.mkdir(parents=True, exist_ok=True)
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(prefix)]
        done = subprocess.run(
            [npm, "install", *options, f"tuf-js@{TUF_JS}"],
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
        )
        if done.returncode != 0:
            raise MissingError(f"npm install tuf-js@{TUF_JS}: {done.stderr.strip()[-500:]}")
    return modules


def tuf_js(
    modules: Path, directory: Path, url: str, root: bytes, targets: list[str]
) -> list[bytes]:
    """tuf-js: the content of each target."""
    metadata, files = directory / "metadata", directory / "targets"
    for each in (metadata, files):
        each.mkdir(parents=True, exist_ok=True)
    if not (metadata / "root.json").exists():
        (metadata / "root.json").write_bytes(root)
    script = [HERE / "refresh.cjs", modules, metadata, files, url, *targets]
    done = subprocess.run(
        ["node", *map(str, script)], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return [(files / str(index)).read_bytes() for index in range(len(targets))]
