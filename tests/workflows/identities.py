"""A company of machines that have one key each, no git between them but where a test says so."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from client_reference.selection import DevicePosition
from client_reference.transport.fetcher import DirectoryFetcher
from client_reference.trust.updater import Floors
from repo_tools.cli.main import main
from repo_tools.publishing.rehearse import Device, meet
from repo_tools.workspace import Workspace
from tests.people import PEOPLE

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["KEYS", "Company", "Machine", "found"]

PASSPHRASE = "correct horse battery\n"
KEYS = {**PEOPLE, "ci-2": ("builds",)}
LABELS = ("-p", "gateway", "--hardware", "acme,gw-2")


@dataclass(frozen=True)
class Machine:
    """A clone, and at most one private key."""

    directory: Path

    @property
    def workspace(self) -> Workspace:
        return Workspace.open(self.directory)

    @property
    def staged(self) -> Path:
        """The builds role that waits here."""
        return self.directory / ".firmroot/staged/gateway-builds.json"

    @contextlib.contextmanager
    def environment(self) -> Any:  # noqa: ANN401  an iterator
        """The variables with which a command of this machine runs."""
        secret = self.directory.parent / "passphrase"
        with patch.dict(os.environ, {"FIRMROOT_PASSPHRASE_FILE": str(secret)}):
            yield

    def __call__(self, *words: str | Path, code: int = 0) -> str:
        """One command; everything that it said."""
        said = io.StringIO()
        with (
            self.environment(),
            # Where a bridge waits for caches: there are none.
            patch("repo_tools.cli.publish.time.sleep", lambda _: None),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
        ):
            found = main(["-C", str(self.directory), "--yes", *map(str, words)])
        assert found == code, f"{self.directory.name}: {words}: {found}\n{said.getvalue()}"
        return said.getvalue()

    def json(self, *words: str | Path, code: int = 0) -> Any:  # noqa: ANN401  whatever it printed
        """One command under `--json`."""
        return json.loads(self("--json", *words, code=code))

    def build(self, version: str, data: bytes = b"", **labels: str) -> None:
        """Add firmware under a version."""
        file = self.directory.parent / labels.pop("name", "gw2.img")
        file.write_bytes(data or f"firmware {version}".encode())
        self("firmware", "add", file, "-V", version, *LABELS)

    def submit(self, *words: str, code: int = 0) -> str:
        return self("submit", *words, code=code)

    def submission(self) -> str:
        """The id of what this machine handed in last."""
        found: str = self.json("submit")["submissions"][0]["id"]
        return found


@dataclass(frozen=True)
class Company:
    """Machines by name, and the storage between them."""

    top: Path

    def __getitem__(self, name: str) -> Machine:
        return Machine(self.top / name)

    @property
    def storage(self) -> Path:
        return self.top / "storage"

    @property
    def inbox(self) -> Path:
        return self.storage / "inbox"

    def copy(self, top: Path) -> Company:
        """The same company, elsewhere."""
        shutil.copytree(self.top, top)
        return Company(top)

    def tree(self) -> dict[str, bytes]:
        """Every file but locks."""
        return {
            str(path.relative_to(self.top)): path.read_bytes()
            for path in sorted(self.top.rglob("*"))
            if path.is_file() and not path.name.startswith(".") and path.name != "lock"
        }

    def share(self, name: str, *others: str) -> None:
        """What git brings from one clone to others: ceremonies."""
        for other in others:
            there = self.top / other / "ceremonies"
            shutil.rmtree(there, ignore_errors=True)
            shutil.copytree(self.top / name / "ceremonies", there)

    def promote(self, version: str) -> Machine:
        """Two release managers offer a version, each with their own key; the second one has it."""
        rita, sam = self["rita"], self["sam"]
        rita("channel", "promote", f"gateway@{version}", "--to", "stable")
        rita("sign")
        self.share("rita", "sam")
        sam("sign")
        shutil.rmtree(rita.directory / "ceremonies")
        return sam

    def ship(self, version: str, builder: str = "ci") -> None:
        """An honest round, from a file to live."""
        self[builder].build(version)
        self[builder].submit()
        self["publisher"]("publish")
        for name in ("rita", "sam"):  # as `git pull`: what is live is the base of what they sign
            self[name].submit()
        self.promote(version).submit()
        self["publisher"]("publish")
        for name in ("rita", "sam", builder):  # what they handed in is live: they take that over
            self[name].submit()
        assert self.device() == f"installs {version}"

    def device(self) -> str:
        """What a device that left the factory with the first root does now."""
        position = DevicePosition("gateway", "stable", ("acme,gw-2",), "slot", "one")
        root = (self.storage / "metadata/1.root.json").read_bytes()
        device = Device("one", position, root, Floors(0, 0, 0), promised=False)
        return meet(device, DirectoryFetcher(self.storage), datetime.now(UTC))[1]


def found(top: Path, storage: str = "../storage") -> Company:
    """Everybody has a machine with one key; root and targets are live."""
    company = Company(top)
    top.mkdir()
    (top / "passphrase").write_text(PASSPHRASE)
    office = company["office"]
    office.directory.mkdir()
    office("init", ".")
    config = office.directory / "firmroot.toml"
    config.write_text(
        config.read_text().replace('storage = "repository"', f'storage = "{storage}"')
    )
    assert office.workspace.config.storage == storage
    for name, roles in KEYS.items():
        office("key", "new", name, *(word for role in roles for word in ("--role", role)))
    office("product", "add", "gateway", "--hardware", "acme,gw-2")
    office("ceremony", "start", "root")
    office("sign")
    ignored = shutil.ignore_patterns(".firmroot")
    for name in ("rita", "sam", "ci", "ci-2", "oncall-1", "publisher"):
        machine = company[name]
        shutil.copytree(office.directory, machine.directory, ignore=ignored)
        keys = machine.directory / ".firmroot/keys"
        keys.mkdir(parents=True)
        shutil.move(office.directory / f".firmroot/keys/{name}.pem", keys)
        machine.workspace.add_key_uri(name, f"file:.firmroot/keys/{name}.pem")
    company["publisher"]("publish")
    for name in ("rita", "sam", "ci", "ci-2", "oncall-1"):  # git pull
        for part in ("metadata", "history"):
            shutil.copytree(
                company["publisher"].directory / part,
                company[name].directory / part,
                dirs_exist_ok=True,
            )
        shutil.rmtree(company[name].directory / "staged")
    return company
