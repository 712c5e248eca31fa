"""A root that needs three of five people, each in a home of their own with nothing but their key.

The office has the workspace, the channel's keys and the online keys. It sends the ceremony as a
file, on two USB sticks, or as a commit; what comes back is merged in any order. By each of these
ways the same story is told: one refuses, one signature arrives damaged, carol's key is replaced,
and meanwhile the business goes on: firmware is built and published, and the timestamp is refreshed.

How the keys are kept is for the tests to say: `test_ceremonies` has files of several kinds,
`test_custody` a token as well.
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
from typing import TYPE_CHECKING, TypeAlias
from unittest.mock import patch

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ecdsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
    load_ssh_public_key,
)

from client_reference.errors import ExitCode
from client_reference.selection import DevicePosition
from client_reference.transport.fetcher import DirectoryFetcher
from client_reference.trust.updater import Floors
from repo_tools.cli.main import main
from repo_tools.publishing.rehearse import Device, meet
from repo_tools.signing.keyfiles import generate, write_private
from tests.people import PEOPLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

PASSPHRASE = b"correct horse battery"
FIVE = ("alice", "bob", "carol", "dave", "erin")
OFFICE = {name: roles for name, roles in PEOPLE.items() if "root" not in roles}
EXPECTED = ("--accept-unusual", "same-person")
"""Carol's old key goes and a new one of hers comes: everybody is asked, and knows it from her."""

Custody: TypeAlias = "Callable[[Path, str], str]"
"""Makes a key in a home, with its public half beside it; the URI by which it is used there."""


def encrypted_file(algorithm: str, place: str) -> Custody:
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


def openssh(home: Path, name: str) -> str:
    """An encrypted file of OpenSSH, of `ssh-keygen` where it is installed."""
    (home / ".ssh").mkdir(exist_ok=True)
    file = home / f".ssh/{name}"
    if program := shutil.which("ssh-keygen"):
        # One round of its key derivation: how long guessing takes is not what is tested.
        line = [program, "-q", "-t", "ecdsa", "-b", "256", "-a", "1", "-N", PASSPHRASE.decode()]
        subprocess.run([*line, "-f", str(file)], check=True)
        public = load_ssh_public_key(file.with_suffix(".pub").read_bytes())
    else:
        private = generate_ecdsa(SECP256R1())
        form = PrivateFormat.OpenSSH
        file.write_bytes(
            private.private_bytes(Encoding.PEM, form, BestAvailableEncryption(PASSPHRASE))
        )
        public = private.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (home / f"{name}.pub.pem").write_bytes(pem)
    return f"ssh:.ssh/{name}"


class Terminal(io.StringIO):
    """Somebody at a terminal, with what they type."""

    def isatty(self) -> bool:
        """It is one."""
        return True


def run(
    place: Path,
    home: Path,
    *words: str | Path,
    code: int = 0,
    types: str | None = None,
    plugged: Mapping[str, str] | None = None,
) -> str:
    """One command in a directory, by somebody with this home; everything that it said.

    Args:
        place: the directory.
        home: what they have.
        words: of the command.
        code: with which it must end.
        types: what they answer; None where there is no terminal.
        plugged: the variables that lead to their token.
    """
    said = io.StringIO()
    secret = home / "passphrase"
    environment = {"FIRMROOT_PASSPHRASE_FILE": str(secret), "HOME": str(home), "XDG_DATA_HOME": ""}
    with (
        contextlib.chdir(place),
        patch.dict(os.environ, {**environment, **(plugged or {})}),
        patch("sys.stdin", io.StringIO() if types is None else Terminal(types)),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        found = main([*map(str, words)])
    assert found == code, f"{words}: {found}\n{said.getvalue()}"
    return said.getvalue()


PLUGGED = "token.json"
"""In the home of who has a token: the variables that lead to it, as JSON."""


@dataclass(frozen=True)
class Home:
    """One of the five; nobody else sees this directory."""

    name: str
    directory: Path
    uri: str

    def run(self, place: Path, *words: str | Path, code: int = 0, types: str | None = None) -> str:
        """A command of theirs, with their token plugged in, if they have one."""
        variables = self.directory / PLUGGED
        plugged = json.loads(variables.read_text()) if variables.exists() else None
        return run(place, self.directory, *words, code=code, types=types, plugged=plugged)

    def sign(self, file: Path, *words: str, code: int = 0) -> str:
        """Sign a file that somebody put here."""
        there = file.relative_to(self.directory)
        return self.run(self.directory, "--yes", "sign", there, *self._key, *words, code=code)

    def refuses(self, file: Path) -> None:
        """Look at such a file to the end, and answer no."""
        before = sorted(self.directory.rglob("*"))
        there = file.relative_to(self.directory)
        said = self.run(
            self.directory, "sign", there, *self._key, *EXPECTED,
            code=ExitCode.ACTION_REQUIRED, types="n\n",
        )  # fmt: skip
        assert f"Sign 1 time(s), with {self.name}?" in said
        assert "stopped: the answer was no; nothing was changed" in said
        assert sorted(self.directory.rglob("*")) == before

    @property
    def _key(self) -> tuple[str, ...]:
        # A token does not say whose key it holds before its PIN is given.
        me = ("--as", self.name) if self.uri.startswith("hsm:") else ()
        return ("--key", self.uri, *me)

    @property
    def uri_anywhere(self) -> str:
        """The URI of the key, for use in another directory."""
        scheme, _, place = self.uri.partition(":")
        return self.uri if scheme == "hsm" else f"{scheme}:{self.directory / place}"

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

    def copy(self, top: Path) -> Team:
        """Everything once more, elsewhere."""
        shutil.copytree(self.top, top)
        copied = Team(top)
        assert copied.device() == "installs 1.0"
        return copied

    def firmroot(self, *words: str | Path, code: int = 0) -> str:
        """A command of the office."""
        return run(self.office, self.top, "--yes", *words, code=code)

    @contextlib.contextmanager
    def nobody_but(self, name: str) -> Iterator[Home]:
        """Where one of the five is: neither the office nor another home is in reach."""
        home = self.home(name)
        away = [self.office, *(each for each in home.directory.parent.iterdir())]
        away.remove(home.directory)
        for each in away:
            each.rename(each.with_name(f"{each.name}, far away"))
        try:
            yield home
        finally:
            for each in away:
                each.with_name(f"{each.name}, far away").rename(each)

    def takes_in(self, name: str, custody: Custody) -> None:
        """Somebody makes a key at home and hands in its public half."""
        directory = self.top / "homes" / name.partition("-")[0]
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "passphrase").write_bytes(PASSPHRASE)
        (directory / f"{name}.uri").write_text(custody(directory, name))
        holder = name.partition("-")[0]
        file = directory / f"{name}.pub.pem"
        kept = "hsm" if self.home(name).uri.startswith("hsm:") else "file"
        about = ("--name", name, "--holder", holder, "--custody", kept)
        self.firmroot("key", "import", file, *about)

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

    def signed(self, role: str, code: int = ExitCode.ACTION_REQUIRED) -> list[str]:
        """Who has signed, as the office counts."""
        said = self.firmroot("--json", "ceremony", "status", role, code=code)
        found: list[str] = json.loads(said)["ceremonies"][0]["signed"]
        return sorted(found)

    def device(self) -> str:
        """What a device that left the factory with the first root does now."""
        position = DevicePosition("gateway", "stable", ("acme,gw-2",), "slot", "one")
        root = (self.office / "metadata/root/1.json").read_bytes()
        device = Device("one", position, root, Floors(0, 0, 0), promised=False)
        return meet(device, DirectoryFetcher(self.office / "repository"), datetime.now(UTC))[1]

    def replaces_carol(self, custody: Custody) -> None:
        """Carol has a new key; the next root drops the old one, and waits for signatures."""
        self.takes_in("carol-2", custody)
        policy = self.office / "policy.toml"
        policy.write_text(policy.read_text().replace('"carol"', '"carol-2"'))
        self.firmroot("ceremony", "start", "root")

    def goes_on(self) -> None:
        """A build goes live, and a refresh, and neither costs a signature."""
        before = self.signed("root")
        self.ship("1.1")
        timestamps = self.office / "repository/metadata/timestamp.json"
        shipped = timestamps.read_bytes()
        self.firmroot("refresh")
        assert timestamps.read_bytes() != shipped
        assert self.device() == "installs 1.1"
        assert self.signed("root") == before

    def ends(self, *signers: str) -> None:
        """The root has its signatures, of these: it goes live, and a device follows and updates."""
        self.firmroot("ceremony", "finish", "root")
        assert "root 2" in self.firmroot("publish", "--no-wait")
        root = json.loads((self.office / "metadata/root/2.json").read_bytes())
        keys = json.loads(self.firmroot("--json", "key", "list"))
        names = {keys[name]["keyid"]: name for name in keys}
        assert sorted(names[each["keyid"]] for each in root["signatures"]) == sorted(signers)
        self.ship("1.2")
        assert self.device() == "installs 1.2"


def found(top: Path, custodies: Sequence[Custody]) -> Team:
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


# What every way has in common


def damaged(signature: Path, to: Path) -> Path:
    """A copy of a signature with one digit wrong."""
    fields = json.loads(signature.read_text())
    first = "0" if fields["sig"][0] != "0" else "1"
    to.write_text(json.dumps({**fields, "sig": first + fields["sig"][1:]}))
    return to


def merge_alike(team: Team, files: Sequence[Path], every: int, good: int) -> None:
    """In whatever order files come, the office ends with the same good signatures."""
    results = []
    for order in itertools.islice(itertools.permutations(files), 0, None, every):
        again = Team(team.top / "again")
        shutil.copytree(team.office, again.office)
        shutil.copy(team.top / "passphrase", again.top)
        again.firmroot("ceremony", "merge", *order)
        kept = again.office / "ceremonies/root-2"
        results.append({path.name: path.read_bytes() for path in kept.glob("*.sig.json")})
        shutil.rmtree(again.top)
    assert len(results) > 1
    assert len(results[0]) == good
    assert all(each == results[0] for each in results)


def by_mail(team: Team) -> None:
    """Everybody gets a copy of the file, and sends a signature back."""
    file = team.export("root", team.top / "root-2.json")

    # Erin is first, and stops: carol's old key goes and a new one of hers comes. Carol confirms it.
    with team.nobody_but("erin") as erin:
        copy = erin.receives(file)
        said = erin.sign(copy, code=ExitCode.ACTION_REQUIRED)
        assert "compared with version 1, which you signed here on" in said
        assert "a key of carol goes" in said
        erin.sign(copy, *EXPECTED)
    team.firmroot("ceremony", "merge", erin.directory / "root-2.erin.sig.json")
    assert team.signed("root") == ["erin"]
    with team.nobody_but("bob") as bob:
        bob.refuses(bob.receives(file))
    team.goes_on()

    # The others sign one after the other. The last is here first; alice's arrives damaged.
    sent = {}
    for name in ("alice", "dave", "carol", "carol-2"):
        with team.nobody_but(name) as home:
            assert f"your key: {name}" in home.sign(home.receives(file), *EXPECTED)
            sent[name] = home.directory / f"root-2.{name}.sig.json"
    spoilt = damaged(sent["alice"], team.top / "spoilt.json")
    merge_alike(team, [*sent.values(), spoilt], every=50, good=5)
    said = team.firmroot("ceremony", "merge", sent["carol-2"], spoilt, sent["dave"])
    assert "spoilt.json: ignored: a signature that claims to be by alice" in said
    assert team.signed("root") == ["carol-2", "dave", "erin"]

    # The new root has three of its own, and a key of the old one is still needed.
    said = team.firmroot("ceremony", "status", "root", code=ExitCode.ACTION_REQUIRED)
    assert "1 more of alice, bob, carol\n" in said
    team.firmroot("ceremony", "finish", "root", code=ExitCode.ACTION_REQUIRED)
    team.firmroot("ceremony", "merge", sent["carol"])
    said = team.firmroot("ceremony", "merge", sent["alice"], spoilt, sent["alice"])
    assert "signature of alice added" in said
    assert "signature of alice is here already" in said
    team.ends("alice", "carol", "carol-2", "dave", "erin")


def by_sticks(team: Team) -> None:
    """Two sticks go from home to home, and nothing else is shared."""
    ways = {"first": ("dave", "alice", "carol"), "second": ("bob", "erin", "carol-2")}
    for stick in ways:
        (team.top / stick).mkdir()
        team.export("root", team.top / stick / "root-2.json")
    for stick, names in ways.items():
        for name in names:
            there = team.home(name).directory / "usb"
            shutil.move(team.top / stick, there)
            if name == "alice":  # the office cannot know how far the stick came
                team.goes_on()
            with team.nobody_but(name) as home:
                if name == "bob":
                    home.refuses(there / "root-2.json")
                else:
                    assert f"your key: {name}" in home.sign(there / "root-2.json", *EXPECTED)
            shutil.move(there, team.top / stick)
    assert team.signed("root") == []

    # The first stick is a bad one.
    alice = team.top / "first/root-2.alice.sig.json"
    damaged(alice, alice)
    first, second = (sorted((team.top / stick).glob("*.sig.json")) for stick in ways)
    assert [len(first), len(second)] == [3, 2]
    merge_alike(team, [*first, *second], every=50, good=4)
    team.firmroot("ceremony", "merge", *second)
    assert team.signed("root") == ["carol-2", "erin"]
    said = team.firmroot("ceremony", "merge", *reversed(first))
    assert f"{alice.name}: ignored: a signature that claims to be by alice" in said
    team.ends("carol", "carol-2", "dave", "erin")


# By git


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


def every_order(
    repository: Path, start: str, branches: frozenset[str], after: Mapping[str, frozenset[str]]
) -> tuple[set[str], int]:
    """Merge branches in all orders; the trees at the ends, and the number of orders.

    Orders that begin alike share their first merges. A conflict is an error of `git`.

    Args:
        repository: has all of them.
        start: the commit on which they are merged.
        branches: commits by name.
        after: a branch, and those that must have been merged before it.
    """
    if not branches:
        return {git(repository, "rev-parse", f"{start}^{{tree}}")}, 1
    trees, count = set(), 0
    for name in sorted(branches):
        if after.get(name, frozenset()) & branches:
            continue
        tree = git(repository, "merge-tree", "--write-tree", start, name)
        parents = ("-p", start, "-p", name)
        merged = git(repository, "commit-tree", tree, *parents, "-m", f"Merge {name}")
        found, orders = every_order(repository, merged, branches - {name}, after)
        trees |= found
        count += orders
    return trees, count


SIGNERS = ("alice", "carol", "carol-2", "dave", "erin")
"""The branches of those who sign; `damaged` is the first of two commits on alice's."""


def in_some_orders(office: Path) -> set[str]:
    """As somebody types it; the trees at the ends."""
    trees = set()
    for start, order in (
        ("waits", ("damaged", *SIGNERS, "main")),
        ("main", (*reversed(SIGNERS), "damaged")),
        ("waits", ("erin", "damaged", "main", "carol-2", "alice", "dave", "carol")),
    ):
        git(office, "switch", "--quiet", "--detach", start)
        for name in order:
            git(office, "merge", "--quiet", "--no-edit", name)
        trees.add(git(office, "rev-parse", "HEAD^{tree}"))
    git(office, "switch", "--quiet", "main")
    return trees


def in_all_orders(office: Path) -> set[str]:
    """All of them; the trees at the ends."""
    signers = frozenset(SIGNERS)
    # Two commits of alice's, in this order, and four of others: 6! / 2 orders.
    first = {"alice": frozenset({"damaged"})}
    trees, orders = every_order(office, "main", signers | {"damaged"}, first)
    assert orders == 360
    # The same where what went on meanwhile comes last.
    last = {"main": signers}
    found, orders = every_order(office, "waits", signers | {"main"}, last)
    assert orders == 120
    return trees | found


def signs_on_a_branch(team: Team, name: str) -> None:
    """One clones, signs, commits and pushes; what alice commits is damaged, and bob refuses."""
    home = team.home(name)
    clone = home.directory / f"clone-{name}"
    git(team.top, "clone", "--quiet", "-b", "main", str(team.office), str(clone))
    git(clone, "switch", "--quiet", "-c", name)
    line = ("sign", "--key", home.uri_anywhere, *EXPECTED)
    with team.nobody_but(name):
        if name == "bob":
            said = home.run(clone, *line, code=ExitCode.ACTION_REQUIRED, types="n\n")
            assert "stopped: the answer was no; nothing was changed" in said
            assert not git(clone, "status", "--porcelain")
            return
        home.run(clone, "--yes", *line)
        (signature,) = git(clone, "ls-files", "--others", "--exclude-standard").split()
        if name == "alice":
            damaged(clone / signature, clone / signature)
        git(clone, "add", "--all")
        git(clone, "commit", "--quiet", "-m", f"Signed by {name}")
    git(clone, "push", "--quiet", "origin", name)


def by_git(team: Team, orders: Sequence[Callable[[Path], set[str]]]) -> None:
    """Everybody has a clone and pushes a branch; these are merged in such orders."""
    office = team.office
    git(office, "init", "--quiet", "-b", "main")
    git(office, "add", "--all")
    git(office, "commit", "--quiet", "-m", "Root 2 waits for signatures")
    git(office, "tag", "waits")
    for name in FIVE:
        signs_on_a_branch(team, name)
    signs_on_a_branch(team, "carol-2")
    git(office, "tag", "damaged", "alice")
    found = git(office, "branch", "--format=%(refname:short)").split()
    assert sorted(found) == sorted(("main", *SIGNERS))

    # Meanwhile main moves on: a release is published, and a refresh is done.
    team.goes_on()
    git(office, "add", "--all")
    git(office, "commit", "--quiet", "-m", "gateway 1.1 on stable")

    # Alice hears that her signature is damaged, and signs again upon it.
    git(office, "switch", "--quiet", "--detach", "main")
    for name in ("alice", "erin", "dave"):
        git(office, "merge", "--quiet", "--no-edit", name)
    assert team.signed("root") == ["dave", "erin"]
    said = team.firmroot("ceremony", "status", "root", code=ExitCode.ACTION_REQUIRED)
    assert "ignored: a signature that claims to be by alice" in said
    git(office, "switch", "--quiet", "main")
    with team.nobody_but("alice") as alice:
        clone = alice.directory / "clone-alice"
        alice.run(clone, "--yes", "sign", "--key", alice.uri_anywhere, *EXPECTED)
        git(clone, "commit", "--quiet", "--all", "-m", "Signed by alice, once more")
    git(clone, "push", "--quiet", "origin", "alice")

    trees = set().union(*(merge(office) for merge in orders))
    for name in SIGNERS:
        git(office, "merge", "--quiet", "--no-edit", name)
    assert trees == {git(office, "rev-parse", "HEAD^{tree}")}
    team.ends(*SIGNERS)
