"""A repository of many artifacts, made in seconds: what `firmware add` would take days for.

    python -m bench.many DIRECTORY --targets 1000000 --bins 4096

A lab workspace whose first artifact, channel and export are made by firmroot's own commands. Then
the other artifacts are written into their hash bins as text, and the lab's own keys sign the bins,
a snapshot and a timestamp. Only the bytes of those artifacts are missing: nobody fetches them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from array import array
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tuf.api.metadata import MetaFile, Root

from repo_tools.metadata.bins import RECENT, Release, as_field, bins_of, listed_bins
from repo_tools.metadata.edits import next_snapshot, next_timestamp
from repo_tools.metadata.repository import parse
from repo_tools.publishing.firmware import open_signers
from repo_tools.publishing.live import TIMESTAMP, metadata_path, read_bins, read_live
from repo_tools.publishing.online import OnlineKeys
from repo_tools.signing.secrets import Secrets
from repo_tools.signing.signers import sign
from repo_tools.workspace import Workspace

if TYPE_CHECKING:
    from tuf.api.metadata import SuccinctRoles

    from repo_tools.publishing.live import Live

__all__ = ["PRODUCT", "begin", "fill", "firmroot"]

# The terminal is what this program is for.
# ruff: noqa: T201

PRODUCT, HARDWARE, FILE = "node", "acme,gw-2", "a.img"


def firmroot(directory: Path, *arguments: str) -> str:
    """Run one of firmroot's own commands in a workspace.

    Raises:
        RuntimeError: it failed.
    """
    inside = ("-C", str(directory)) if arguments[0] != "init" else ()
    line = [sys.executable, "-c", "from repo_tools.cli.main import run; run()", *inside, *arguments]
    done = subprocess.run(  # noqa: S603 - our own command
        line, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if done.returncode != 0:
        raise RuntimeError(f"firmroot {' '.join(arguments)}: {done.returncode}\n{done.stderr}")
    return done.stdout


def begin(directory: Path, bins: int, product: str = PRODUCT) -> None:
    """A lab with one release that is live and exported, its builds in hash bins, or in one file."""
    image = directory.parent / "a.img"
    image.write_bytes(b"the first firmware\n" * 100)
    firmroot(directory, "init", str(directory), "--lab")
    firmroot(directory, "product", "add", product, "--hardware", HARDWARE)
    if bins:
        firmroot(directory, "product", "bins", product, "--number", str(bins))
    labels = ("-p", product, "-V", "1.1", "--hardware", HARDWARE)
    firmroot(directory, "firmware", "add", str(image), *labels)
    firmroot(directory, "channel", "promote", f"{product}@1.1", "--to", "stable")
    firmroot(directory, "sign")
    firmroot(directory, "publish")
    firmroot(directory, "factory", "export", product, "--to", str(directory.parent / "factory"))


def fill(directory: Path, targets: int, product: str = PRODUCT) -> None:
    """Publish artifacts beside the one that is there, until there are so many.

    Args:
        directory: of a workspace whose builds are in bins, as `begin` makes it.
        targets: how many in all; the first is there.
        product: whose they are.
    """
    ws = Workspace.open(directory)
    secrets = Secrets(ws.lab_passphrase.read_bytes().strip())
    storage, top = ws.storage(), directory / "repository"
    live = read_live(storage, ws.roots()[-1])
    role = f"{product}-builds"
    builds = live.state.role(role)
    bins = bins_of(builds)
    if builds is None or bins is None:
        raise RuntimeError(f"{role} has no hash bins")
    known = set(listed_bins(live.state.parsed_snapshot(), bins))
    ((signer, holder), *_) = open_signers(ws, product, secrets)
    expires = f"{builds.expires:%Y-%m-%dT%H:%M:%SZ}"
    versions: dict[str, int] = {}
    for name, numbers in _spread(bins, product, targets).items():
        first = read_bins(storage, live.state, [name]).role(name) if name in known else None
        entries = {_path(product, number): _entry(product, number) for number in numbers}
        if first is not None:
            text = {path: _canonical(each.to_dict()) for path, each in first.targets.items()}
            entries |= text
        versions[name] = first.version + 1 if first is not None else 1
        listed = ",".join(f'"{path}":{entries[path]}' for path in sorted(entries))
        payload = (
            f'{{"_type":"targets","expires":"{expires}","spec_version":"{builds.spec_version}",'
            f'"targets":{{{listed}}},"version":{versions[name]}}}'
        )
        signature = _canonical(sign(signer, holder, payload.encode()).to_dict())
        data = f'{{"signatures":[{signature}],"signed":{payload}}}'.encode()
        (top / metadata_path(name, versions[name])).write_bytes(data)
    _commit(ws, live, versions, targets, product)


def _commit(ws: Workspace, live: Live, versions: dict[str, int], last: int, product: str) -> None:
    """A snapshot and a timestamp for these bins."""
    now, state = datetime.now(UTC).replace(microsecond=0), live.state
    keys = OnlineKeys(ws, Secrets(ws.lab_passphrase.read_bytes().strip()))
    index = [Release(_version(n), n, (FILE,)) for n in range(last, max(last - RECENT, 1), -1)]
    unsigned = next_snapshot(
        state.parsed_snapshot(), {}, ws.policy.role("snapshot"), now, as_field({product: index})
    )
    unsigned.meta.update({f"{name}.json": MetaFile(number) for name, number in versions.items()})
    roots = [parse(state.roots[-1], Root, "root").signed]
    snapshot = keys.sign(roots, unsigned)
    timestamp = next_timestamp(
        state.parsed_timestamp(), snapshot, 1, ws.policy.role("timestamp"), now
    )
    top = ws.directory / "repository"
    (top / metadata_path("snapshot", unsigned.version)).write_bytes(snapshot)
    ws.storage().replace(TIMESTAMP, keys.sign(roots, timestamp), live.tag)


def _spread(bins: SuccinctRoles, product: str, last: int) -> dict[str, array[int]]:
    """The numbers of the artifacts from the second on, by bin."""
    names = list(bins.get_roles())
    found = [array("L") for _ in names]
    shift = 32 - bins.bit_length
    for number in range(2, last + 1):
        digest = hashlib.sha256(_path(product, number).encode()).digest()
        found[int.from_bytes(digest[:4]) >> shift].append(number)
    return {name: numbers for name, numbers in zip(names, found, strict=True) if numbers}


def _canonical(document: object) -> str:
    return json.dumps(document, separators=(",", ":"), sort_keys=True)


def _version(number: int) -> str:
    return f"1.{number}"


def _path(product: str, number: int) -> str:
    return f"builds/{product}/{_version(number)}/{FILE}"


def _entry(product: str, number: int) -> str:
    """What a bin says of an artifact, as `firmware add` would have it; canonical."""
    digest = hashlib.sha256(number.to_bytes(8)).hexdigest()
    return (
        f'{{"custom":{{"handler":"slot","hardware":["{HARDWARE}"],"product":"{product}",'
        f'"sequence":{number},"version":"{_version(number)}"}},'
        f'"hashes":{{"sha256":"{digest}"}},"length":1900}}'
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.many", description=__doc__)
    parser.add_argument("directory", type=Path, help="of the workspace to make")
    parser.add_argument("--targets", type=int, required=True)
    parser.add_argument("--bins", type=int, required=True)
    parser.add_argument("--product", default=PRODUCT)
    arguments = parser.parse_args()
    start = time.perf_counter()
    begin(arguments.directory, arguments.bins, arguments.product)
    fill(arguments.directory, arguments.targets, arguments.product)
    print(f"{arguments.targets} targets, {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
