"""A team without a lab: keys, ceremonies and signatures by command line, machine by machine."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from client_reference.errors import ExitCode
from keys_policy.checks import CHECKS
from repo_tools.cli.main import main
from repo_tools.signing.keyfiles import generate, write_private
from repo_tools.signing.keyring import usual_holder
from repo_tools.workspace import Workspace
from tests.cli.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PEOPLE = {
    "alice": ("root", "targets"),
    "bob": ("root", "targets"),
    "carol": ("root", "targets"),
    "rita": ("channel",),
    "sam": ("channel",),
    "tess": ("channel",),
    "ci": ("builds",),
    "oncall": ("hold",),
    "publisher": ("snapshot", "timestamp"),
}


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with everybody's key, made by the commands that a person would use."""
    top = tmp_path_factory.mktemp("team")
    (top / "passphrase").write_text("correct horse battery\n")
    os.environ["FIRMROOT_PASSPHRASE_FILE"] = str(top / "passphrase")
    try:
        assert main(["init", str(top / "acme")]) == 0
        for name, roles in PEOPLE.items():
            given = [word for role in roles for word in ("--role", role)]
            assert main(["-C", str(top / "acme"), "key", "new", name, *given]) == 0
    finally:
        del os.environ["FIRMROOT_PASSPHRASE_FILE"]
    return top


@pytest.fixture
def run(
    founded: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Terminal:
    shutil.copytree(founded / "acme", tmp_path / "acme")
    monkeypatch.setenv("FIRMROOT_PASSPHRASE_FILE", str(founded / "passphrase"))
    return Terminal(tmp_path / "acme", capsys)


@pytest.fixture
def clone(run: Terminal, tmp_path: Path) -> Callable[..., Terminal]:
    """What `git clone` gives somebody, and their own private keys."""

    def make(*names: str) -> Terminal:
        directory = tmp_path / "-".join(names)
        shutil.copytree(run.directory, directory, ignore=shutil.ignore_patterns(".firmroot"))
        for name in names:
            key = run.directory / ".firmroot/keys" / f"{name}.pem"
            Workspace.open(directory).add_key_uri(name, f"file:{key}")
        return run.at(directory)

    return make


def test_a_new_workspace_says_what_is_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Terminal(tmp_path, capsys)
    assert "next: firmroot -C" in run("init", "acme")
    run = run.at(tmp_path / "acme")
    status = run("status")
    assert "next: firmroot key new NAME --role root --role targets  (there is no key yet" in status
    assert (
        "policy: keys still to be made: root 3, targets 3, snapshot 1, timestamp 1, builds 1, "
        "channel 3, hold 1\n"
    ) in status
    err = run("ceremony", "start", "root", code=ExitCode.REFUSED)
    assert "roles.root: threshold 2 is above its 0 keys [threshold-reachable]" in err
    assert "hint: Add keys to the role in policy.toml (firmroot key new NAME --role ROLE)" in err


def test_keys_are_in_the_policy_and_online_uris_in_the_configuration(run: Terminal) -> None:
    ws = Workspace.open(run.directory)
    for name, roles in PEOPLE.items():
        assert tuple(ws.policy.roles_of(name)) == tuple(r for r in ws.policy.roles if r in roles)
    assert ws.config.online == {"publisher": "file:.firmroot/keys/publisher.pem"}
    assert "# Who may sign what." in (run.directory / "policy.toml").read_text()
    assert "publisher" in run("key", "list")
    assert json.loads(run("--json", "key", "show", "alice"))["roles"] == ["root", "targets"]
    assert "signs, and its signature verifies" in run("key", "test", "alice")
    assert run("policy", "check").splitlines()[-1] == f"{len(CHECKS)} checks, 0 finding(s)"


def test_two_people_sign_in_their_own_clones(run: Terminal, clone: Callable[..., Terminal]) -> None:
    assert "next: firmroot product add NAME --hardware ID" in run("status")
    run("ceremony", "start", "targets", "root")
    hers, his = clone("alice"), clone("bob")
    assert "next: firmroot sign  (root-1 waits for alice)" in hers("status")
    out = hers("--yes", "sign")
    assert "role root: 2 of alice (" in out
    assert "root-1: still waits for bob or carol" in out
    assert "next: firmroot sign, by bob or carol  (root-1 waits for them" in hers("status")
    his("--yes", "sign")
    for path in (his.directory / "ceremonies").rglob("*.sig.json"):
        shutil.copy(path, hers.directory / path.relative_to(his.directory))
    assert "signed by alice, bob" in hers("ceremony", "status")
    assert "root-1: staged as root.json" in hers("ceremony", "finish")
    assert sorted(Workspace.open(hers.directory).staged_roles()) == ["root", "targets"]
    assert "next: firmroot product add NAME" in hers("status")


def test_a_machine_without_network_signs_a_file(
    run: Terminal, clone: Callable[..., Terminal], tmp_path: Path
) -> None:
    run("ceremony", "start", "root")
    far = clone("carol")
    shutil.rmtree(far.directory / "ceremonies")
    run("ceremony", "export", "root", "--to", tmp_path / "root-1.json")
    assert "send it back" in far("--yes", "sign", tmp_path / "root-1.json")
    out = run("ceremony", "merge", tmp_path / "root-1.carol.sig.json")
    assert "root-1: signature of carol added" in out
    assert json.loads(run("--json", "ceremony", "list"))["ceremonies"][0]["signed"] == ["carol"]


def test_signing_asks_and_without_a_terminal_fails(run: Terminal) -> None:
    run("ceremony", "start", "root")
    err = run("sign", code=ExitCode.ACTION_REQUIRED)
    assert "this needs an answer and there is no terminal: Sign 3 time(s), with alice, bob" in err
    assert "run it again with --yes" in err
    assert json.loads(run("--json", "ceremony", "list"))["ceremonies"][0]["signed"] == []


def test_without_a_passphrase_the_options_are_named(
    run: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("ceremony", "start", "root")
    monkeypatch.delenv("FIRMROOT_PASSPHRASE_FILE")
    err = run("--yes", "sign", "--key", "alice", code=ExitCode.ACTION_REQUIRED)
    assert "the passphrase of alice is needed and there is no terminal to ask" in err
    assert "--passphrase-fd N" in err
    run("key", "new", "dave", code=ExitCode.ACTION_REQUIRED)


def test_a_wrong_passphrase_signs_nothing(run: Terminal) -> None:
    run("ceremony", "start", "root")
    reader, writer = os.pipe()
    os.write(writer, b"wrong wrong wrong\n")
    os.close(writer)
    err = run("--yes", "sign", "--passphrase-fd", str(reader), code=ExitCode.USAGE)
    os.close(reader)
    assert "wrong passphrase for" in err
    where = f"--passphrase-fd {reader}: correct that, or leave it to be asked"
    assert f"hint: nothing was signed; it is from {where}" in err
    assert "signed by nobody" in run("ceremony", "list")


def test_a_key_that_is_not_in_the_role_is_told_its_roles(run: Terminal) -> None:
    run("ceremony", "start", "root")
    err = run("--yes", "sign", "--key", "rita", code=ExitCode.REFUSED)
    assert "error: key rita is not in role root; it is in: channel" in err


def test_each_key_that_is_named_signs(
    run: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("ceremony", "start", "root")
    out = run("--yes", "sign", "--key", "carol", "--key", "bob")
    (line,) = [each for each in out.splitlines() if each.startswith("root-1: signed by ")]
    assert set(line.removeprefix("root-1: signed by ").split(", ")) == {"bob", "carol"}
    assert "root: has all its signatures, staged" in out
    run("ceremony", "start", "targets")
    file = tmp_path / "targets-1.json"
    run("ceremony", "export", "targets", "--to", file)
    keys = ("--key", "file:alice.pem", "--key", "file:bob.pem")
    monkeypatch.chdir(tmp_path)
    err = run.at(type(tmp_path)())("sign", file.name, *keys, code=2)
    assert "2 keys are named; without a workspace one signs at a time" in err


def test_missing_signatures_are_named(run: Terminal) -> None:
    run("ceremony", "start", "root")
    run("--yes", "sign", "--key", "bob")
    out = run("ceremony", "status", "root", code=ExitCode.ACTION_REQUIRED)
    assert "root-1: 2 needed by the new root, signed by bob; 1 more of alice, carol" in out
    err = run("ceremony", "finish", code=ExitCode.ACTION_REQUIRED)
    assert "root-1 needs 1 more of: alice, carol" in err
    assert "role root: 2 of alice (" in run("ceremony", "show", "root")


def test_nothing_to_finish_and_nothing_to_sign_is_said(run: Terminal) -> None:
    assert "no ceremony is open" in run("ceremony", "finish", code=ExitCode.ACTION_REQUIRED)
    assert "nothing waits for your keys" in run("--yes", "sign")
    assert "nothing waits for signatures" in run("ceremony", "list")


def test_signatures_are_discarded_only_by_name(run: Terminal) -> None:
    run("ceremony", "start", "targets", "root")
    run("--yes", "sign", "--key", "alice")
    err = run("--yes", "product", "add", "gw", "--hardware", "a", code=ExitCode.ACTION_REQUIRED)
    assert "targets-1 has been signed by alice; changing it would discard" in err
    assert Workspace.open(run.directory).config.products == {}
    run("product", "add", "gw", "--hardware", "a", "--discard-signatures", "targets")
    assert list(Workspace.open(run.directory).config.products) == ["gw"]
    err = run("--yes", "ceremony", "abandon", "root", code=ExitCode.ACTION_REQUIRED)
    assert "root-1 has been signed by alice; that would be discarded" in err
    run("ceremony", "abandon", "root", "--discard-signatures", "root")
    run("--yes", "ceremony", "abandon", "targets")
    assert "nothing waits for signatures" in run("ceremony", "list")


def test_products_keep_comments_and_grow(run: Terminal) -> None:
    run("product", "add", "gw", "--hardware", "a")
    run("product", "add", "gw", "--hardware", "b", "--channel", "beta")
    assert "gw  hardware a, b  channels stable, beta" in run("product", "list")
    assert "# Where devices fetch from" in (run.directory / "firmroot.toml").read_text()
    assert "--hardware" in run("product", "add", "new", code=ExitCode.USAGE)
    err = run("product", "add", "gw-beta", "--hardware", "a", "--channel", "hold", code=2)
    assert "cannot be called 'hold'" in err
    err = run("product", "add", "gw-b", "--hardware", "a", "--channel", "builds", code=2)
    assert list(Workspace.open(run.directory).config.products) == ["gw"]


def test_keys_come_from_files(run: Terminal, tmp_path: Path) -> None:
    write_private(tmp_path / "dave.pem", generate("ecdsa-p256"), b"correct horse battery")
    run("key", "import", tmp_path / "dave.pem", "--holder", "Dave D.")
    assert "ecdsa-sha2-nistp256" in run("key", "test", "dave")
    (tmp_path / "junk.pem").write_text("hello")
    assert "is not a key file" in run("key", "import", tmp_path / "junk.pem", code=2)
    err = run("key", "import", "pkcs11:token=acme", "--name", "eve", code=2)
    assert "'pkcs11:token=acme' is neither a file nor a key URI: those begin with file:," in err
    assert "firmroot key list hsm:" in err
    err = run("key", "import", tmp_path / "dave.pem", "--name", "eve", code=2)
    assert "this key is here already, as dave" in err
    assert "there is a key dave already" in run("key", "new", "dave", code=2)
    assert "'Dave' is not a name for a key" in run("key", "new", "Dave", code=2)
    assert "policy.toml has no role 'boss'" in run("key", "new", "x", "--role", "boss", code=2)
    assert "there is no key 'nobody'" in run("key", "show", "nobody", code=2)


def test_the_year_in_a_name_makes_nobody_another_holder(run: Terminal, tmp_path: Path) -> None:
    assert ", holder dora\n" in run("key", "new", "dora-2026", "--role", "root")
    write_private(tmp_path / "dora-2027.pem", generate("ed25519"), b"correct horse battery")
    assert ", holder dora\n" in run("key", "import", tmp_path / "dora-2027.pem")
    named = run("--json", "key", "new", "dora-2028", "--holder", "Dora's twin")
    assert json.loads(named)["holder"] == "Dora's twin"
    policy = run.directory / "policy.toml"
    keys = '["alice", "bob", "carol", "dora-2026"]'
    assert keys in policy.read_text()

    def holders(first: str, second: str) -> str:
        text = policy.read_text()
        two = text.replace(keys, f'["{first}", "{second}"]', 1)
        policy.write_text(two)
        try:
            return run("policy", "check", code=ExitCode.REFUSED)
        finally:
            policy.write_text(text)

    assert "1 holders: dora [distinct-holders]" in holders("dora-2026", "dora-2027")
    assert "[distinct-holders]" not in holders("alice", "dora-2027")


@pytest.mark.parametrize("command", [("rotate",), ("recover", "lost-key")], ids=" ".join)
def test_who_rotates_is_told_how_a_successor_is_made(run: Terminal, command: list[str]) -> None:
    run("key", "new", "dora-2026", "--role", "root")
    words = f"firmroot {' '.join(command)}"
    err = run(*command, "dora-2026", code=ExitCode.USAGE)
    assert "dora-2026 needs a successor, or none" in err
    assert "firmroot key new dora-2027 (without --role), then: " in err
    assert f"{words} dora-2026 --to dora-2027; " in err
    assert err.endswith("without a successor: firmroot rotate dora-2026 --remove\n")
    assert "key new alice-2 (without" in run(*command, "alice", code=ExitCode.USAGE)
    err = run(*command, "dora-2062", code=ExitCode.USAGE)
    assert "there is no key 'dora-2062'" in err
    assert "successor" not in err
    run("key", "new", "dora-2027")
    assert "key new dora-2028 (without" in run(*command, "dora-2026", code=ExitCode.USAGE)
    assert "place of dora-2026 in: root" in run("--yes", *command, "dora-2026", "--to", "dora-2027")


def test_a_successor_and_none_exclude_each_other(run: Terminal) -> None:
    err = run("rotate", "alice", "--to", "bob", "--remove", code=ExitCode.USAGE)
    assert "either --to bob, or --remove" in err


@pytest.mark.parametrize(
    ("name", "holder"),
    [
        ("alice", "alice"),
        ("alice-2026", "alice"),
        ("alice-2", "alice-2"),
        ("alice-12026", "alice-12026"),
        ("alice-1026", "alice-1026"),
        ("-2026", "-2026"),
    ],
)
def test_only_a_year_is_left_out_of_a_holder(name: str, holder: str) -> None:
    assert usual_holder(name) == holder


def test_a_public_key_alone_can_hold_a_role(clone: Callable[..., Terminal], tmp_path: Path) -> None:
    theirs = clone("alice")
    public = generate("ed25519").public_key()
    data = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "erin.pem").write_bytes(data)
    about = ("--contact", "erin@acme.example", "--place", "safe 2", "--made", "2025-01-31")
    erin = ("--role", "hold", "--custody", "hsm", *about)
    theirs("key", "import", tmp_path / "erin.pem", *erin)
    assert "the private half of erin is not on this machine" in theirs(
        "key", "test", "erin", code=2
    )
    assert json.loads(theirs("--json", "key", "show", "erin"))["custody"] == "hsm"
    shown = theirs("key", "show", "erin")
    assert "contact  erin@acme.example\nplace    safe 2\nmade     2025-01-31\n" in shown
    fred = ("--contact", "fred@acme.example", "--place", "at home", "--role", "root")
    theirs("key", "new", "fred", *fred)
    made = Workspace.open(theirs.directory).keyring["fred"]
    assert (made.contact, made.place) == ("fred@acme.example", "at home")
    assert made.made is not None
    theirs("ceremony", "start", "root")
    assert "fred@acme.example" in theirs("ceremony", "status", code=3)


def test_time_cannot_be_set_outside_a_lab(run: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRMROOT_LAB_NOW", "2032-01-01T00:00:00Z")
    err = run("status", code=ExitCode.USAGE)
    assert "FIRMROOT_LAB_NOW is set, but the root of this workspace is not marked LAB" in err
    assert "this workspace will not be a lab" in run("init", "other", code=ExitCode.USAGE)
    monkeypatch.setenv("FIRMROOT_LAB_NOW", "tomorrow")
    assert "expected such as 2032-01-01T00:00:00Z" in run("status", code=ExitCode.USAGE)


def test_checks_are_explained(run: Terminal) -> None:
    assert "why: A stolen CI key alone must ship nothing." in run(
        "policy", "explain", "builds-channel"
    )
    assert "there is no check 'nix'" in run("policy", "explain", "nix", code=2)
    assert len(json.loads(run("--json", "policy", "explain"))) == len(CHECKS)


def test_a_threshold_above_the_number_of_keys_stops_every_signature(run: Terminal) -> None:
    run("ceremony", "start", "root")
    policy = run.directory / "policy.toml"
    policy.write_text(policy.read_text().replace("threshold = 2", "threshold = 4", 1))
    for command in (["--yes", "sign"], ["ceremony", "start", "root"], ["ceremony", "finish"]):
        err = run(*command, code=ExitCode.REFUSED)
        assert "roles.root: threshold 4 is above its 3 keys" in err
    out = run("policy", "check", code=ExitCode.REFUSED)
    assert (
        "error: policy.toml: roles.root: threshold 4 is above its 3 keys [threshold-reachable]"
        in out
    )


def test_a_violation_that_no_key_mends_goes_to_the_policy(run: Terminal) -> None:
    policy = run.directory / "policy.toml"
    sound = policy.read_text()
    policy.write_text(sound.replace('"tess"]', '"tess", "ci"]'))
    status = run("status")
    assert "policy: " in status
    assert "keys still to be made" not in status
    assert "next: firmroot policy check  (" in status
    policy.write_text(sound.replace('"tess"]', "]"))
    status = run("status")
    assert "policy: keys still to be made: channel 1\n" in status
    assert "next: firmroot key new NAME --role channel  (keys are missing for channel)" in status
    policy.write_text(sound)
    assert "policy: " not in run("status")


def test_two_commands_at_once_are_told_apart(run: Terminal) -> None:
    with Workspace.open(run.directory).lock():
        err = run("ceremony", "start", "root", code=ExitCode.LOCKED)
    assert "another firmroot command is at work" in err


def test_a_monitor_understands_times(run: Terminal) -> None:
    assert "'soon' is not a time; expected such as 30d" in run(
        "status", "--fail-within", "soon", code=2
    )
    assert "next:" in run("status", "--fail-within", "36h")
