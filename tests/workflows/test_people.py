"""Several people, each with a clone of their own and only their own key, meet in git alone.

Real git, a bare repository in the middle, and a storage that only the publisher writes to.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from client_reference.selection import DevicePosition
from client_reference.transport.fetcher import DirectoryFetcher
from client_reference.trust.updater import Floors
from repo_tools.cli.main import main
from repo_tools.publishing.rehearse import Device, meet
from tests.people import PEOPLE

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Person:
    """Somebody with a clone, and with the passphrase of one key."""

    name: str
    clone: Path

    def git(self, *arguments: str) -> str:
        environment = {
            **os.environ,
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
            **{
                f"GIT_{who}_{what}": f"{self.name}{ending}"
                for who in ("AUTHOR", "COMMITTER")
                for what, ending in (("NAME", ""), ("EMAIL", "@acme.example"))
            },
        }
        done = subprocess.run(
            ["git", "-C", str(self.clone), *arguments],
            env=environment,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{self.name}: git {arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def pull(self) -> None:
        """Merge what the others pushed; a conflict fails the test."""
        self.git("pull", "--quiet", "--no-rebase", "--no-edit")

    def push(self, message: str) -> None:
        """Share everything that git keeps."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        self.pull()
        self.git("push", "--quiet")

    def firmroot(self, *arguments: str | Path, code: int = 0) -> str:
        """One command with this person's passphrase; everything that it said."""
        said = io.StringIO()
        secret = self.clone.parent / f"{self.name}.passphrase"
        secret.write_text(f"the passphrase of {self.name}\n")
        with (
            patch.dict(os.environ, {"FIRMROOT_PASSPHRASE_FILE": str(secret)}),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
        ):
            found = main(["-C", str(self.clone), "--yes", *map(str, arguments)])
        assert found == code, f"{self.name}: {arguments}: {found}\n{said.getvalue()}"
        return said.getvalue()


@dataclass(frozen=True)
class Company:
    """All of them, and the storage that devices read."""

    people: dict[str, Person]
    storage: Path

    def __getitem__(self, name: str) -> Person:
        return self.people[name]

    def device(self, root: bytes) -> str:
        """What a device with that factory root does now."""
        position = DevicePosition("gateway", "stable", ("acme,gw-2",), "slot", "one")
        device = Device("one", position, root, Floors(0, 0, 0), promised=False)
        return meet(device, DirectoryFetcher(self.storage), datetime.now(UTC))[1]


@pytest.fixture
def company(tmp_path: Path) -> Company:
    """Ten people who have made their keys and agreed on the policy; nothing is signed."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    origin, storage = tmp_path / "origin.git", tmp_path / "storage"
    subprocess.run(["git", "init", "--quiet", "--bare", "-b", "main", str(origin)], check=True)
    people = {name: Person(name, tmp_path / name) for name in PEOPLE}
    founder = people["alice"]
    founder.clone.mkdir()
    founder.firmroot("init", ".", "--storage", f"file://{storage}")
    founder.git("init", "--quiet", "-b", "main")
    founder.git("remote", "add", "origin", str(origin))
    founder.git("add", "--all")
    founder.git("commit", "--quiet", "-m", "A workspace")
    founder.git("push", "--quiet", "-u", "origin", "main")
    for person in people.values():
        if person is not founder:
            subprocess.run(["git", "clone", "-q", str(origin), str(person.clone)], check=True)
        person.pull()
        roles = [word for role in PEOPLE[person.name] for word in ("--role", role)]
        person.firmroot("key", "new", person.name, *roles)
        person.push(f"The key of {person.name}")
    founder.pull()
    founder.firmroot("product", "add", "gateway", "--hardware", "acme,gw-2")
    founder.firmroot("ceremony", "start", "root")
    founder.push("The first root and targets")
    return Company(people, storage)


def _sign_apart(company: Company, names: tuple[str, ...]) -> None:
    """Everybody signs in their own clone before anybody has seen another's signature."""
    for name in names:
        company[name].pull()
    for name in names:
        company[name].firmroot("sign")
    for name in names:
        company[name].push(f"Signed by {name}")


def _publish(company: Company, message: str) -> str:
    publisher = company["publisher"]
    publisher.pull()
    said = publisher.firmroot("publish")
    publisher.push(message)
    return said


def test_people_with_one_key_each_bring_firmware_to_a_device(
    company: Company, tmp_path: Path
) -> None:
    # Who is not in a role cannot sign it.
    company["rita"].pull()
    said = company["rita"].firmroot("sign", "--key", "rita", code=5)
    assert "key rita is not in role" in said

    # One signature of two is not enough, and the publisher's machine says whose is missing.
    company["alice"].pull()
    company["alice"].firmroot("sign")
    company["alice"].push("Signed by alice")
    company["publisher"].pull()
    said = company["publisher"].firmroot("publish", code=3)
    assert "root-1 needs 1 more signature(s), from: bob, carol" in said
    assert "targets-1 needs 1 more signature(s), from: bob, carol" in said
    assert not company.storage.exists()

    # Bob completes it; who has no online key cannot publish; the publisher can.
    _sign_apart(company, ("bob",))
    company["alice"].pull()
    said = company["alice"].firmroot("publish", code=3)
    assert "this machine cannot sign as publisher" in said
    assert "published timestamp 1: snapshot 1, root 1, targets 1" in _publish(company, "Root 1")
    root = (company.storage / "metadata/1.root.json").read_bytes()

    # The builder signs alone; nobody installs what was not promoted.
    (tmp_path / "gw2.img").write_bytes(b"firmware 1.0")
    company["ci"].pull()
    company["ci"].firmroot(
        *("firmware", "add", tmp_path / "gw2.img", "-p", "gateway", "-V", "1.0"),
        *("--hardware", "acme,gw-2"),
    )
    assert "gateway-builds 1  handed in" in company["ci"].firmroot("submit")
    assert "gateway-builds 1" in _publish(company, "Builds of gateway")
    assert "nothing was promoted" in company.device(root)

    # Two of three release managers, apart: neither sees the other's signature before the merge.
    company["rita"].pull()
    company["rita"].firmroot("channel", "promote", "gateway@1.0", "--to", "stable")
    company["rita"].push("Promote gateway 1.0")
    _sign_apart(company, ("rita",))
    company["publisher"].pull()
    said = company["publisher"].firmroot("publish", code=3)
    assert "gateway-stable-1 needs 1 more signature(s), from: sam, tess" in said
    _sign_apart(company, ("tess",))
    assert "gateway-stable 1" in _publish(company, "gateway 1.0 on stable")
    assert company.device(root) == "installs 1.0"

    # Everybody's clone agrees with what is live, and nothing waits anywhere.
    for person in company.people.values():
        person.pull()
        assert not list((person.clone / "ceremonies").glob("*/payload.json"))
        assert (person.clone / "metadata/root/1.json").read_bytes() == root
        assert not list((person.clone / "staged").glob("*.json"))


def test_signatures_given_at_the_same_time_merge_without_conflict(company: Company) -> None:
    _sign_apart(company, ("alice", "bob", "carol"))
    said = _publish(company, "Root 1")
    assert "published timestamp 1" in said
    history = (company["publisher"].clone / "history/000001.json").read_text()
    assert all(f'"{name}"' in history for name in ("alice", "bob", "carol"))

    # A new root, signed apart by two of them while a third changes something else.
    company["alice"].pull()
    company["alice"].firmroot("ceremony", "start", "root")
    company["alice"].push("Renew the root")
    company["carol"].pull()
    company["carol"].firmroot("product", "add", "router", "--hardware", "acme,rt-1")
    _sign_apart(company, ("alice", "bob"))
    company["carol"].push("A router")
    said = _publish(company, "Root 2")
    assert "root 2" in said
    assert "still waits: targets-2, 2 more of alice, bob, carol" in said


# Two at once: each machine has a clone of its own, so no lock is between them.


CONFLICT = re.compile(r"<<<<<<< [^\n]*\n(.*?)=======\n(.*?)>>>>>>> [^\n]*\n", re.DOTALL)


def _standby(company: Company) -> Person:
    """A second machine that publishes, with a key of its own; root, targets and 1.0 are live."""
    standby = Person("standby", company["publisher"].clone.parent / "standby")
    alice = company["alice"]
    alice.git("clone", "-q", alice.git("remote", "get-url", "origin").strip(), str(standby.clone))
    standby.firmroot("key", "new", "standby", "--role", "snapshot", "--role", "timestamp")
    standby.firmroot("ceremony", "start", "root")
    standby.push("A machine that stands by")
    _sign_apart(company, ("alice", "bob"))
    _publish(company, "Root 1")
    company["ci"].pull()
    (file := company.storage.parent / "gw2.img").write_bytes(b"firmware 1.0")
    labels = ("-p", "gateway", "-V", "1.0", "--hardware", "acme,gw-2")
    company["ci"].firmroot("firmware", "add", file, *labels)
    company["ci"].firmroot("submit")
    _publish(company, "Builds of gateway")
    company["rita"].pull()
    company["rita"].firmroot("channel", "promote", "gateway@1.0", "--to", "stable")
    company["rita"].push("Promote gateway 1.0")
    _sign_apart(company, ("rita", "tess"))
    _publish(company, "gateway 1.0 on stable")
    standby.pull()
    return standby


def _conflicts(person: Person) -> list[str]:
    """Merge what the others pushed; the files that git could not merge."""
    with pytest.raises(AssertionError, match="CONFLICT"):
        person.pull()
    return person.git("diff", "--name-only", "--diff-filter=U").split()


def _put_together(file: Path, text: str | None = None) -> None:
    """Somebody resolves a conflict: both sides, or what they wrote."""
    both = CONFLICT.sub(lambda found: text or found[1] + found[2], file.read_text())
    file.write_text(both)


@pytest.mark.services
def test_two_machines_that_recover_at_once_are_led_back_to_one_root(company: Company) -> None:
    standby, publisher = _standby(company), company["publisher"]
    root = (company.storage / "metadata/1.root.json").read_bytes()
    for each in (publisher, standby):
        each.firmroot("key", "new", f"{each.name}-2")
        said = each.firmroot("recover", "stolen-key", each.name, "--to", f"{each.name}-2")
        assert "publish, a cut: the new root" in said
    standby.push("The key of standby is stolen")
    publisher.git("add", "--all")
    publisher.git("commit", "--quiet", "-m", "The key of publisher is stolen")
    assert _conflicts(publisher) == [
        "ceremonies/root-2/payload.json",
        "firmroot.toml",
        "gone.toml",
        "policy.toml",
    ]
    # Each file is named until it is put together; nothing is signed or published meanwhile.
    marks = "has the marks of a git conflict"
    clone = publisher.clone
    assert f"firmroot.toml {marks}" in publisher.firmroot("status", code=2)
    uri = "file:.firmroot/keys/{0}.pem"
    names = ("publisher-2", "standby-2")
    uris = "".join(f'{name} = "{uri.format(name)}"\n' for name in names)
    _put_together(clone / "firmroot.toml", uris)
    assert f"policy.toml: {marks}" in publisher.firmroot("publish", code=2)
    _put_together(clone / "policy.toml", 'keys = ["publisher-2", "standby-2"]\n')
    said = publisher.firmroot("publish", code=6)
    assert f"ceremonies/root-2/payload.json {marks}" in said
    assert "git checkout --theirs ceremonies/root-2" in said
    publisher.git("checkout", "--quiet", "--theirs", "ceremonies/root-2")
    said = publisher.firmroot("recover", "stolen-key", "publisher", "--to", "publisher-2", code=2)
    assert f"gone.toml {marks}" in said
    _put_together(clone / "gone.toml")

    # That ceremony is one side's: nobody signs half a recovery, and starting it anew mends it.
    publisher.push("Both")
    said = publisher.firmroot("status", code=0)
    assert "root 2: snapshot is 1 of publisher, standby-2; the policy expects" in said
    assert "next: firmroot ceremony start root" in said
    company["alice"].pull()
    company["alice"].firmroot("sign", code=5)
    publisher.firmroot("ceremony", "start", "root")
    publisher.push("The root of both")
    _sign_apart(company, ("alice", "bob"))
    for each in (publisher, standby):
        each.pull()
    # Whoever is second finds it done, and takes the record from git.
    assert "root 2" in standby.firmroot("publish")
    assert "everything that is signed is live" in publisher.firmroot("publish")
    assert "git pull" in publisher.firmroot("history", "--verify", code=6)
    standby.push("Root 2")
    publisher.push("Root 2, as well")
    publisher.firmroot("history", "--verify")
    live = json.loads((company.storage / "metadata/2.root.json").read_bytes())["signed"]
    assert len(live["roles"]["timestamp"]["keyids"]) == 2
    assert not set(live["roles"]["timestamp"]["keyids"]) & {
        json.loads(standby.firmroot("--json", "key", "list"))[name]["keyid"]
        for name in ("publisher", "standby")
    }
    assert company.device(root) == "installs 1.0"


@pytest.mark.services
def test_two_machines_that_make_a_key_of_one_name_use_neither_by_mistake(company: Company) -> None:
    standby, publisher = _standby(company), company["publisher"]
    for each in (publisher, standby):  # either of them sees to it, when the publisher's key is lost
        each.firmroot("key", "new", "publisher-2")
        each.firmroot("recover", "lost-key", "publisher", "--to", "publisher-2")
    publisher.push("The key of publisher is lost")
    standby.git("add", "--all")
    standby.git("commit", "--quiet", "-m", "The key of publisher is lost")
    assert _conflicts(standby) == ["ceremonies/root-2/payload.json", "keys/publisher-2.toml"]
    assert "keys/publisher-2.toml: has the marks of a git" in standby.firmroot("status", code=2)
    standby.git("checkout", "--quiet", "--theirs", "keys/publisher-2.toml", "ceremonies/root-2")
    standby.push("That of the publisher")
    _sign_apart(company, ("alice", "bob"))
    for each in (publisher, standby):
        each.pull()
    # The machine whose key lost does not sign with it; its own one still does.
    said = standby.firmroot("publish", code=2)
    assert "publisher-2.pem is not the private key of publisher-2" in said
    assert "if another one was made under its name elsewhere, move this file away" in said
    assert "root 2" in publisher.firmroot("publish", "--no-wait")
    publisher.push("Root 2")
    (standby.clone / ".firmroot/keys/publisher-2.pem").rename(standby.clone / ".firmroot/mine.pem")
    standby.push("What the publish that was refused had found complete")
    assert ": signed, good until" in standby.firmroot("refresh")
