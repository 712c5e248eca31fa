"""A root that needs three of five people, each in a home of their own with nothing but their key.

The office has the workspace, the channel's keys and the online keys. It sends the ceremony as a
file, on two USB sticks, or as a commit; what comes back is merged in any order. Meanwhile the
business goes on: firmware is built and published, and the timestamp is refreshed.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from client_reference.errors import ExitCode
from client_reference.selection import DevicePosition
from client_reference.transport.fetcher import DirectoryFetcher
from client_reference.trust.updater import Floors
from repo_tools.cli.main import main
from repo_tools.publishing.rehearse import Device, meet
from repo_tools.signing.keyfiles import generate, write_private

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

PASSPHRASE = b"correct horse battery"
FIVE = ("alice", "bob", "carol", "dave", "erin")
OFFICE = {
    "rita": ("channel",),
    "sam": ("channel",),
    "tess": ("channel",),
    "oncall-1": ("hold",),
    "oncall-2": ("hold",),
    "ci": ("builds",),
    "publisher": ("snapshot", "timestamp"),
}


def encrypted_file(algorithm: str, place: str) -> Callable[[Path, str], str]:
    """A way to keep a key: an encrypted PKCS#8 file, somewhere in the home of its holder."""

    def make(home: Path, name: str) -> str:
        private = generate(algorithm)
        file = home / place / f"{name}.pem"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_private(file, private, PASSPHRASE)
        public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (home / f"{name}.pub.pem").write_bytes(public)
        return f"file:{place}/{name}.pem"

    return make


# How people keep their keys: each makes one in a home, with its public half beside it, and says by
# which URI it is used there.
CUSTODY: list[Callable[[Path, str], str]] = [
    encrypted_file("ed25519", "keys"),
    encrypted_file("ecdsa-p256", "stick/in/the/safe"),
    encrypted_file("ml-dsa-65", "card"),
]


def run(place: Path, home: Path, *words: str | Path, code: int = 0) -> str:
    """One command in a directory, by somebody with this home; everything that it said."""
    said = io.StringIO()
    secret = home / "passphrase"
    environment = {"FIRMROOT_PASSPHRASE_FILE": str(secret), "HOME": str(home), "XDG_DATA_HOME": ""}
    with (
        contextlib.chdir(place),
        patch.dict(os.environ, environment),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        found = main([*map(str, words)])
    assert found == code, f"{words}: {found}\n{said.getvalue()}"
    return said.getvalue()


@dataclass(frozen=True)
class Home:
    """One of the five; nobody else sees this directory."""

    name: str
    directory: Path
    uri: str

    def sign(self, file: Path, *words: str, code: int = 0) -> str:
        """Sign a file that somebody put here."""
        before = ("--yes", "sign", file.relative_to(self.directory))
        # A token does not say whose key it holds before its PIN is given.
        me = ("--as", self.name) if self.uri.startswith("hsm:") else ()
        key = ("--key", self.uri, *me)
        return run(self.directory, self.directory, *before, *key, *words, code=code)

    def receives(self, file: Path) -> Path:
        """A copy of a file, as mail brings one."""
        copy = self.directory / file.name
        shutil.copy(file, copy)
        return copy


@dataclass(frozen=True)
class Team:
    """The office and the five."""

    top: Path

    @property
    def office(self) -> Path:
        return self.top / "office"

    def home(self, name: str) -> Home:
        """The home of one of the five, or of the key that replaces theirs."""
        directory = self.top / "homes" / name.partition("-")[0]
        return Home(name, directory, (directory / f"{name}.uri").read_text())

    def firmroot(self, *words: str | Path, code: int = 0) -> str:
        """A command of the office."""
        return run(self.office, self.top, "--yes", *words, code=code)

    def takes_in(self, name: str, custody: Callable[[Path, str], str]) -> None:
        """Somebody makes a key at home and hands in its public half."""
        directory = self.top / "homes" / name.partition("-")[0]
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "passphrase").write_bytes(PASSPHRASE)
        (directory / f"{name}.uri").write_text(custody(directory, name))
        holder = name.partition("-")[0]
        file = directory / f"{name}.pub.pem"
        self.firmroot("key", "import", file, "--name", name, "--holder", holder)

    def ship(self, version: str) -> None:
        """The office builds, promotes and publishes a release."""
        (self.top / "image").write_text(f"firmware {version}")
        self.firmroot(
            *("firmware", "add", self.top / "image", "-p", "gateway", "-V", version),
            *("--hardware", "acme,gw-2"),
        )
        self.firmroot("channel", "promote", f"gateway@{version}", "--to", "stable")
        self.firmroot("sign")
        self.firmroot("publish")

    def export(self, role: str, file: Path) -> Path:
        self.firmroot("ceremony", "export", role, "--to", file)
        return file

    def signed(self, role: str) -> list[str]:
        """Who has signed, as the office counts."""
        said = self.firmroot("--json", "ceremony", "status", role, code=ExitCode.ACTION_REQUIRED)
        found: list[str] = json.loads(said)["ceremonies"][0]["signed"]
        return sorted(found)

    def device(self) -> str:
        """What a device that left the factory with the first root does now."""
        position = DevicePosition("gateway", "stable", ("acme,gw-2",), "slot", "one")
        root = (self.office / "metadata/root/1.json").read_bytes()
        device = Device("one", position, root, Floors(0, 0, 0), promised=False)
        return meet(device, DirectoryFetcher(self.office / "repository"), datetime.now(UTC))[1]

    def replaces_carol(self) -> None:
        """Carol has a new key; the next root drops the old one, and waits for signatures."""
        self.takes_in("carol-2", CUSTODY[-1])
        policy = self.office / "policy.toml"
        policy.write_text(policy.read_text().replace('"carol"', '"carol-2"'))
        self.firmroot("ceremony", "start", "root")

    def ends(self, version: str) -> None:
        """The root has its signatures: it goes live, and a device follows and updates."""
        self.firmroot("ceremony", "finish", "root")
        assert "root 2" in self.firmroot("publish", "--no-wait")
        self.ship(version)
        assert self.device() == f"installs {version}"


def found(top: Path, custodies: Sequence[Callable[[Path, str], str]]) -> Team:
    """The first root, signed by three of five at home, and release 1.0 live."""
    team = Team(top)
    team.top.mkdir()
    (team.top / "passphrase").write_bytes(PASSPHRASE)
    run(team.top, team.top, "init", "office")
    policy = team.office / "policy.toml"
    text = policy.read_text()
    for role in ("root", "targets"):
        start = text.index(f"[roles.{role}]")
        text = text[:start] + text[start:].replace("threshold = 2", "threshold = 3", 1)
    policy.write_text(text)
    for name, roles in OFFICE.items():
        team.firmroot("key", "new", name, *(word for role in roles for word in ("--role", role)))
    for name, custody in zip(FIVE, itertools.cycle(custodies)):
        team.takes_in(name, custody)
    text = policy.read_text()
    keys = json.dumps(FIVE)
    for role in ("root", "targets"):
        start = text.index(f"[roles.{role}]")
        text = text[:start] + text[start:].replace("keys = []", f"keys = {keys}", 1)
    policy.write_text(text)
    team.firmroot("product", "add", "gateway", "--hardware", "acme,gw-2")
    team.firmroot("ceremony", "start", "root")
    files = [team.export(role, team.top / f"{role}-1.json") for role in ("root", "targets")]
    for name in ("erin", "alice", "dave"):
        home = team.home(name)
        for file in files:
            home.sign(home.receives(file))
            team.firmroot("ceremony", "merge", *home.directory.glob(f"{file.stem}.*.sig.json"))
    team.firmroot("ceremony", "finish")
    team.firmroot("publish")
    team.ship("1.0")
    return team


@pytest.fixture(scope="module")
def _founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return found(tmp_path_factory.mktemp("ceremonies") / "acme", CUSTODY).top


@pytest.fixture
def team(_founded: Path, tmp_path: Path) -> Team:
    shutil.copytree(_founded, tmp_path / "acme")
    copied = Team(tmp_path / "acme")
    assert copied.device() == "installs 1.0"
    return copied


def test_three_of_five_sign_by_mail_while_the_business_goes_on(team: Team) -> None:
    team.replaces_carol()
    file = team.export("root", team.top / "root-2.json")

    # Erin is first, and stops: carol's old key goes and a new one of hers comes. Carol confirms it.
    erin = team.home("erin")
    said = erin.sign(erin.receives(file), code=ExitCode.ACTION_REQUIRED)
    assert "compared with version 1, which you signed here on" in said
    assert "a key of carol goes" in said
    expected = ("--accept-unusual", "same-person")
    erin.sign(erin.directory / "root-2.json", *expected)
    team.firmroot("ceremony", "merge", erin.directory / "root-2.erin.sig.json")
    assert team.signed("root") == ["erin"]

    # Bob looks at it and does not sign.
    bob = team.home("bob")
    copy = bob.receives(file)
    run(
        bob.directory,
        bob.directory,
        "sign",
        copy.name,
        "--key",
        bob.uri,
        *expected,
        code=ExitCode.ACTION_REQUIRED,
    )
    assert not list(bob.directory.glob("*.sig.json"))

    # A build goes live, and a refresh, and neither costs a signature.
    team.ship("1.1")
    team.firmroot("refresh")
    assert team.device() == "installs 1.1"
    assert team.signed("root") == ["erin"]

    # Alice's arrives damaged, before dave's; then whole, twice.
    for name in ("dave", "alice"):
        home = team.home(name)
        home.sign(home.receives(file), *expected)
    alice = team.home("alice").directory / "root-2.alice.sig.json"
    spoilt = team.top / "spoilt.json"
    spoilt.write_text(json.dumps({**json.loads(alice.read_text()), "sig": "00" * 64}))
    dave = team.home("dave").directory / "root-2.dave.sig.json"
    said = team.firmroot("ceremony", "merge", spoilt, dave)
    assert "spoilt.json: ignored: a signature that claims to be by alice" in said
    assert team.signed("root") == ["dave", "erin"]
    said = team.firmroot("ceremony", "status", "root", code=ExitCode.ACTION_REQUIRED)
    assert "1 more of alice, bob, carol" in said
    assert "1 more of alice, bob, carol-2" in said
    team.firmroot("ceremony", "merge", alice, alice)

    # Carol's old key is not needed any more, and her new one would count.
    carol = team.home("carol-2")
    carol.sign(carol.receives(file), *expected)
    team.firmroot("ceremony", "merge", carol.directory / "root-2.carol-2.sig.json")
    team.ends("1.2")


def test_two_sticks_bring_the_signatures_and_nothing_else_is_shared(team: Team) -> None:
    team.replaces_carol()
    ways = {"first": ("dave", "alice"), "second": ("bob", "carol-2")}
    returned = []
    for stick, names in ways.items():
        (team.top / stick).mkdir()
        team.export("root", team.top / stick / "root-2.json")
        for name in names:
            home = team.home(name)
            there = home.directory / "usb"
            shutil.move(team.top / stick, there)
            expected = ("--accept-unusual", "same-person")
            said = home.sign(there / "root-2.json", *expected)
            assert f"your key: {name}" in said
            shutil.move(there, team.top / stick)
        returned.append(sorted((team.top / stick).glob("*.sig.json")))
    assert [len(files) for files in returned] == [2, 2]

    # In any order the office ends with the same files.
    found = []
    for order in itertools.islice(itertools.permutations([*returned[0], *returned[1]]), 0, None, 9):
        again = Team(team.top / "again")
        shutil.copytree(team.office, again.office)
        shutil.copy(team.top / "passphrase", again.top)
        again.firmroot("ceremony", "merge", *order)
        kept = again.office / "ceremonies/root-2"
        found.append({path.name: path.read_bytes() for path in kept.glob("*.sig.json")})
        shutil.rmtree(again.top)
    assert len(found[0]) == 4
    assert all(each == found[0] for each in found)
    team.firmroot("ceremony", "merge", *returned[1], *returned[0])
    team.ends("1.1")


def test_what_is_promoted_must_be_what_was_tested(team: Team) -> None:
    team.ship("1.1")  # nothing was ever recorded as tested here, so nobody is stopped
    (team.top / "image").write_text("firmware 1.2")
    (team.top / "tested").write_text("firmware 1.2, as it came from the laboratory")
    for words in (
        (
            "firmware",
            "add",
            team.top / "image",
            "-p",
            "gateway",
            "-V",
            "1.2",
            "--hardware",
            "acme,gw-2",
        ),
        ("channel", "promote", "gateway@1.2", "--to", "stable"),
    ):
        team.firmroot(*words)
    said = team.firmroot("sign", "--tested", team.top / "tested", code=ExitCode.ACTION_REQUIRED)
    assert "UNUSUAL: builds/gateway/1.2/image was not tested on this machine" in said
    assert "--accept-unusual untested" in said
    team.firmroot("sign", code=ExitCode.ACTION_REQUIRED)  # the record stays
    said = team.firmroot("sign", "--tested", team.top / "image")
    assert "UNUSUAL" not in said
    team.firmroot("publish")
    assert team.device() == "installs 1.2"


# By git.


def git(directory: Path, *words: str) -> str:
    environment = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        **{
            f"GIT_{who}_{what}": value
            for who in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", "somebody"), ("EMAIL", "somebody@acme.example"))
        },
    }
    done = subprocess.run(
        ["git", "-C", str(directory), *words],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"git {words}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def test_branches_of_git_merge_in_any_order_without_a_conflict(team: Team) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    team.replaces_carol()
    git(team.office, "init", "--quiet", "-b", "main")
    git(team.office, "add", "--all")
    git(team.office, "commit", "--quiet", "-m", "Root 2 waits for signatures")
    signers = ("alice", "dave", "erin", "carol-2")
    for name in signers:
        home = team.home(name)
        clone = home.directory / "clone"
        git(team.top, "clone", "--quiet", "-b", "main", str(team.office), str(clone))
        git(clone, "switch", "--quiet", "-c", name)
        uri = f"file:{home.directory}/{home.uri.removeprefix('file:')}"
        run(clone, home.directory, "--yes", "sign", "--key", uri, "--accept-unusual", "same-person")
        git(clone, "add", "--all")
        git(clone, "commit", "--quiet", "-m", f"Signed by {name}")
        git(clone, "push", "--quiet", "origin", name)

    # Meanwhile main moves on: a release is published, and a refresh is done.
    team.ship("1.1")
    team.firmroot("refresh")
    git(team.office, "add", "--all")
    git(team.office, "commit", "--quiet", "-m", "gateway 1.1 on stable")

    trees = set()
    for order in itertools.islice(itertools.permutations(signers), 0, None, 9):
        git(team.office, "switch", "--quiet", "--detach", "main")
        for name in order:
            git(team.office, "merge", "--quiet", "--no-edit", name)
        trees.add(git(team.office, "rev-parse", "HEAD^{tree}"))
    assert len(trees) == 1
    team.ends("1.2")
