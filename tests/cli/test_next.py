"""What commands say at their end: the same next command everywhere, and what git does not have."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Self

import pytest

from client_reference.errors import ExitCode
from repo_tools.cli.main import main
from repo_tools.storage.local import LocalStorage
from tests.cli.terminal import Terminal
from tests.publishing.lab import HARDWARE, Lab, image

if TYPE_CHECKING:
    from pathlib import Path

KEYS = {
    "alice": ("root", "targets"),
    "rita": ("channel",),
    "oncall": ("hold",),
    "ci": ("builds",),
    "publisher": ("snapshot", "timestamp"),
}
FIRST_ROOT = "firmroot ceremony start root  (there is no root yet)"
SHARE = "not in git yet; share it: git -C "


class Company(Terminal):
    """One small company, and its clones."""

    def next(self) -> str:
        """The next command and its reason, as `status` says it."""
        return self("status").splitlines()[-1].removeprefix("next: ")

    def clone(self, name: str) -> Self:
        """What `git clone` gives: nothing that git ignores."""
        there = self.directory.parent / name
        ignored = shutil.ignore_patterns(".firmroot", "repository")
        shutil.copytree(self.directory, there, ignore=ignored)
        return self.at(there)

    def git(self, *words: str) -> None:
        who = {
            f"GIT_{role}_{what}": "x@acme.example"
            for role in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        }
        subprocess.run(
            ["git", "-C", str(self.directory), *words],
            check=True,
            capture_output=True,
            env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, **who},
        )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of one person with a key for everything."""
    top = tmp_path_factory.mktemp("maker")
    (top / "passphrase").write_text("correct horse battery\n")
    os.environ["FIRMROOT_PASSPHRASE_FILE"] = str(top / "passphrase")
    try:
        assert main(["init", str(top / "acme")]) == 0
        policy = top / "acme/policy.toml"
        text = policy.read_text().replace('scale = "team"', 'scale = "maker"')
        policy.write_text(text.replace("threshold = 2", "threshold = 1"))
        for name, roles in KEYS.items():
            given = [word for role in roles for word in ("--role", role)]
            assert main(["-C", str(top / "acme"), "key", "new", name, *given]) == 0
    finally:
        del os.environ["FIRMROOT_PASSPHRASE_FILE"]
    return top


@pytest.fixture
def run(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Company:
    shutil.copytree(made / "acme", tmp_path / "acme")
    monkeypatch.setenv("FIRMROOT_PASSPHRASE_FILE", str(made / "passphrase"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (tmp_path / "gw2.img").write_bytes(image("1.0"))
    return Company(tmp_path / "acme", capsys)


@pytest.fixture
def live(run: Company) -> Company:
    """Firmware 1.0 is live; the storage is the default, which git ignores."""
    for words in (
        ("product", "add", "gateway", "--hardware", HARDWARE),
        ("ceremony", "start", "root"),
        ("--yes", "sign"),
        ("firmware", "add", run.directory.parent / "gw2.img", *_LABELS),
        ("channel", "promote", "gateway@1.0", "--to", "stable"),
        ("--yes", "sign"),
        ("publish",),
    ):
        run(*words)
    return run


_LABELS = ("-p", "gateway", "-V", "1.0", "--hardware", HARDWARE)


# The next command.


def test_every_command_names_the_same_next_step_in_the_same_words(run: Company) -> None:
    firmware = run.directory.parent / "gw2.img"
    for words, following in (
        (("product", "add", "gateway", "--hardware", HARDWARE), FIRST_ROOT),
        (("ceremony", "start", "root"), "firmroot sign  (root-1 waits for alice)"),
        (("--yes", "sign"), "firmroot publish  (root, targets: signed and staged)"),
        (("publish",), "firmroot firmware add FILE -p gateway -V VERSION --hardware ID  (there"),
        (("--yes", "sign"), "firmroot firmware add FILE -p gateway -V VERSION --hardware ID"),
        (("publish",), "firmroot firmware add FILE -p gateway -V VERSION --hardware ID"),
        (("firmware", "add", firmware, *_LABELS), "firmroot channel promote gateway@1.0 --to st"),
        (("channel", "promote", "gateway@1.0", "--to", "stable"), "firmroot sign  (gateway-st"),
        (("--yes", "sign"), "firmroot publish  (gateway-builds, gateway-stable: signed"),
        (("publish",), "firmroot factory export gateway --to DIR  (no device of gateway was made"),
    ):
        said = run(*words)
        assert f"next: {following}" in said, words
        status = run.next()
        assert status.startswith(following), words
        assert words[0] == "firmware" or f"next: {status}\n" in said, words
        assert json.loads(run("--json", "status"))["next"] == status.partition("  (")[0]
    run("factory", "export", "gateway", "--to", run.directory.parent / "out", *_SERVER)
    assert run.next().startswith("nothing to do  (timestamp is next, from ")


_SERVER = ("--server", "https://fw.acme.example/")


@pytest.mark.parametrize("steps", range(4))
def test_a_publish_that_cannot_go_yet_hints_at_what_status_says(run: Company, steps: int) -> None:
    for words in (
        ("product", "add", "gateway", "--hardware", HARDWARE),
        ("ceremony", "start", "root"),
        ("--yes", "sign", "--key", "rita"),
    )[:steps]:
        run(*words, code=ExitCode.REFUSED if "rita" in words else 0)
    said = run("publish", code=ExitCode.ACTION_REQUIRED)
    assert f"hint: {run.next()}\n" in said
    assert "published" not in (run.directory / "history").as_posix() + str(
        list(run.directory.glob("repository/metadata/*"))
    )


def test_others_are_named_by_a_machine_without_their_keys(run: Company) -> None:
    run("product", "add", "gateway", "--hardware", HARDWARE)
    run("ceremony", "start", "root")
    there = run.clone("elsewhere")
    following = "firmroot sign, by alice  (root-1 waits for them, in their clones or on a file: "
    assert there.next() == f"{following}firmroot ceremony export root --to FILE)"
    said = there("publish", code=ExitCode.ACTION_REQUIRED)
    assert f"hint: {there.next()}" in said
    run("--yes", "sign")
    signed = run.clone("after")
    assert signed.next() == (
        "firmroot publish  (root, targets: signed and staged; where the key publisher is)"
    )


def test_who_signs_need_not_reach_the_storage(
    live: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object) -> None:
        raise AssertionError("the storage was asked")

    with monkeypatch.context() as offline:
        offline.setattr(LocalStorage, "read", unreachable)
        assert "next: firmroot sign  (targets-2" in live("ceremony", "start", "targets")
    assert "next: firmroot publish  (targets: signed" in live("--yes", "sign")


def test_a_channel_waits_for_its_builder_not_for_devices_that_are_lost(live: Company) -> None:
    work = live.directory / ".firmroot"
    (live.directory.parent / "gw2.img").write_bytes(image("1.1"))
    labels = [word.replace("1.0", "1.1") for word in _LABELS]
    live("firmware", "add", live.directory.parent / "gw2.img", *labels)
    live("channel", "promote", "gateway@1.1", "--to", "stable")
    live("--yes", "sign")
    for part in ("staged", "outbox"):
        (work / part).rename(live.directory.parent / part)
    said = live("publish", code=ExitCode.ACTION_REQUIRED)
    assert "gateway-stable offers builds/gateway/1.1/gw2.img, and no builds role that lists" in said
    assert "hint: on the machine that ran `firmroot firmware add`: firmroot submit" in said
    assert "accept-stranded" not in said
    for part in ("staged", "outbox"):
        (live.directory.parent / part).rename(work / part)
    assert "published timestamp 2: snapshot 2, gateway-builds 2, gateway-st" in live("publish")


# Git.


@pytest.fixture
def tracked(run: Company) -> Company:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    run.git("init", "--quiet", "-b", "main")
    run.git("add", "--all")
    run.git("commit", "--quiet", "-m", "A workspace")
    return run


def test_a_command_that_wrote_ends_with_what_git_does_not_have(tracked: Company) -> None:
    out = tracked.directory.parent / "out"
    firmware = tracked.directory.parent / "gw2.img"
    for words, told in (
        (("status",), False),
        (("key", "new", "dave"), True),
        (("key", "list"), False),
        (("product", "add", "gateway", "--hardware", HARDWARE), True),
        (("ceremony", "start", "root"), True),
        (("ceremony", "show", "root"), False),
        (("--yes", "sign"), True),
        (("--yes", "sign"), False),
        (("publish",), True),
        (("refresh",), False),
        (("firmware", "add", firmware, *_LABELS), False),
        (("channel", "promote", "gateway@1.0", "--to", "stable"), True),
        (("--yes", "sign"), True),
        (("publish",), True),
        (("factory", "export", "gateway", "--to", out, *_SERVER), True),
        (("policy", "check"), False),
    ):
        said = tracked(*words)
        assert said.count("not in git yet") == told, f"{words}:\n{said}"
        if told:
            assert said.splitlines()[-1].startswith(f"{SHARE}{tracked.directory} add --all .")
        tracked.git("add", "--all")
        tracked.git("commit", "--quiet", "--allow-empty", "-m", " ".join(map(str, words)))


def test_a_workspace_in_a_work_tree_needs_no_other(tracked: Company) -> None:
    inner = tracked.directory / "inner"
    said = tracked("init", "inner")
    assert said.splitlines()[-1] == f"{SHARE}{inner} add --all . && git -C {inner} commit"
    assert "git init" not in said


def test_scripts_and_failures_are_not_reminded(tracked: Company) -> None:
    said = tracked("--json", "product", "add", "gateway", "--hardware", HARDWARE)
    assert json.loads(said)["next"] == "firmroot ceremony start root"
    assert "not in git" not in tracked("publish", code=ExitCode.ACTION_REQUIRED)


def test_a_lab_shares_with_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    lab = Lab(tmp_path / "acme")
    lab.init()
    run = Company(lab.directory, capsys)
    run.git("init", "--quiet")
    said = lab.ok("product", "add", "gateway", "--hardware", HARDWARE).out
    assert "next: firmroot sign" in said
    assert "git" not in said


# A clone without the storage.


def test_a_clone_without_the_storage_says_so_and_what_to_do(live: Company) -> None:
    there = live.clone("fresh")
    told = (
        "this clone does not have the storage: the storage repository/ is a folder of the "
        "workspace and not in git; what was published is where it was"
    )
    for words in (
        ("verify",),
        ("publish",),
        ("refresh",),
        ("serve", "--port", "0"),
        ("firmware", "list"),
        ("channel", "show", "gateway/stable"),
        ("ceremony", "start", "gateway-stable"),
    ):
        said = there(*words, code=ExitCode.USAGE)
        assert f"error: {told}\n" in said, words
        assert "hint: copy repository/ from the clone that published; better, take one that" in said
        assert 'storage = "file:///..."' in said
    assert f"live: could not be looked at: {told}" in there("status")
    assert there.next().startswith("firmroot verify  (the live repository cannot be looked at")
    shutil.copytree(live.directory / "repository", there.directory / "repository")
    assert "trusted: everything that is live verifies" in there("verify")


def test_a_shared_storage_that_is_not_mounted_is_named(live: Company) -> None:
    there = live.clone("fresh")
    mount = live.directory.parent / "mount"
    config = there.directory / "firmroot.toml"
    text = config.read_text()
    config.write_text(text.replace('storage = "repository"', f'storage = "file://{mount}"'))
    said = there("verify", code=ExitCode.USAGE)
    assert f"the storage file://{mount} is not on this machine" in said
    assert "hint: mount or copy it" in said
    shutil.copytree(live.directory / "repository", mount)
    assert "trusted" in there("verify")


def test_a_storage_that_this_machine_saw_and_that_is_gone_is_an_alarm(live: Company) -> None:
    (live.directory / "repository").rename(live.directory.parent / "taken")
    said = live("publish", code=ExitCode.NOT_TRUSTED)
    assert "this workspace has published before, and repository has no metadata/timestamp" in said
    assert "this clone does not have" not in said
    (live.directory.parent / "taken").rename(live.directory / "repository")
    assert "everything that is signed is live" in live("publish")


def test_an_empty_storage_is_an_alarm_in_a_fresh_clone_too(live: Company) -> None:
    there = live.clone("fresh")
    (there.directory / "repository").mkdir()
    assert "has no metadata/timestamp.json" in there("publish", code=ExitCode.NOT_TRUSTED)
    shutil.copytree(
        live.directory / "repository", there.directory / "repository", dirs_exist_ok=True
    )
    assert "everything that is signed is live" in there("publish")


def test_init_says_that_the_default_storage_is_in_one_clone_only(
    run: Company, tmp_path: Path
) -> None:
    assert "its storage repository/ is a folder that git does not keep" in run("init", "a")
    shared = run("init", "b", "--storage", f"file://{tmp_path}/fw")
    assert "git does not keep" not in shared
    assert f"keep it in git: git init {run.directory / 'b'}" in shared
    run("init", "c", "--storage", "fw")
    assert (run.directory / "c/.gitignore").read_text().splitlines()[-1] == "/fw/"
    assert "/repository/" in (run.directory / "a/.gitignore").read_text()


# Names.


def test_firmware_for_no_handler_is_refused(live: Company, tmp_path: Path) -> None:
    (tmp_path / "other.img").write_bytes(b"other")
    words = ["firmware", "add", str(tmp_path / "other.img"), "-p", "gateway", "-V", "2.0"]
    words += ["--hardware", HARDWARE, "--handler"]
    said = live(*words, "slots", code=ExitCode.USAGE)
    assert "devices have no handler 'slots'; they have: slot, command; did you mean slot?" in said
    assert "gateway@2.0" not in live("firmware", "list")
    assert "they have: slot, command\n" in live(*words, "foo", code=ExitCode.USAGE)
    assert "added as gateway@2.0" in live(*words, "command")


NEAR = {
    "a command": (("statsu",), "status"),
    "a product of new firmware": (
        ("firmware", "add", "{firmware}", "-p", "gatewy", "-V", "2", "--hardware", HARDWARE),
        "gateway",
    ),
    "hardware of new firmware": (
        ("firmware", "add", "{firmware}", "-p", "gateway", "-V", "2", "--hardware", "acme,gw2"),
        HARDWARE,
    ),
    "a product to list": (("firmware", "list", "-p", "gatway"), "gateway"),
    "a product to show": (("firmware", "show", "gatway@1.0"), "gateway"),
    "a release to show": (("firmware", "show", "gateway@v1.0"), "1.0"),
    "a release to promote": (("channel", "promote", "gateway@1.0.", "--to", "stable"), "1.0"),
    "a product to promote": (
        ("channel", "promote", "getaway@1.0", "--to", "stable"),
        "gateway/stable",
    ),
    "a channel to promote to": (
        ("channel", "promote", "gateway@1.0", "--to", "stabel"),
        "gateway/stable",
    ),
    "a channel to show": (("channel", "show", "gateway/tsable"), "gateway/stable"),
    "a channel to compare": (("channel", "diff", "gatway/stable"), "gateway/stable"),
    "a release to hold": (("channel", "hold", "gateway@1.0a", "--on", "stable"), "1.0"),
    "a channel of an export": (
        ("factory", "export", "gateway", "--to", "{out}", "--channel", "stble", *_SERVER),
        "gateway/stable",
    ),
    "a product of an export": (
        ("factory", "export", "gatewy", "--to", "{out}", *_SERVER),
        "gateway/stable",
    ),
    "a key to show": (("key", "show", "alcie"), "alice"),
    "a key to test": (("key", "test", "publishr"), "publisher"),
    "a key to rotate": (("rotate", "alise", "--remove"), "alice"),
    "a key to sign with": (("sign", "--key", "rta"), "rita"),
    "a role of a new key": (("key", "new", "eve", "--role", "chanel"), "channel"),
    "a role to start": (("ceremony", "start", "gateway-stabel"), "gateway-stable"),
    "a ceremony to show": (("ceremony", "show", "tragets"), "targets"),
    "a check to explain": (("policy", "explain", "treshold-spare"), "threshold-spare"),
}


@pytest.fixture(scope="module")
def open_targets(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Firmware 1.0 is live, and a ceremony of targets is open."""
    top = tmp_path_factory.mktemp("near")
    shutil.copytree(made / "acme", top / "acme")
    (top / "gw2.img").write_bytes(image("1.0"))
    os.environ["FIRMROOT_PASSPHRASE_FILE"] = str(made / "passphrase")
    try:
        for words in (
            ("product", "add", "gateway", "--hardware", HARDWARE),
            ("ceremony", "start", "root"),
            ("--yes", "sign"),
            ("firmware", "add", str(top / "gw2.img"), *_LABELS),
            ("channel", "promote", "gateway@1.0", "--to", "stable"),
            ("--yes", "sign"),
            ("publish",),
            ("ceremony", "start", "targets"),
        ):
            assert main(["-C", str(top / "acme"), *words]) == 0, words
    finally:
        del os.environ["FIRMROOT_PASSPHRASE_FILE"]
    return top


@pytest.mark.parametrize("case", NEAR)
def test_a_near_miss_is_named_wherever_a_name_is_given(
    open_targets: Path, run: Company, case: str
) -> None:
    words, meant = NEAR[case]
    there = Company(open_targets / "acme", run.capsys)
    places = {"{firmware}": open_targets / "gw2.img", "{out}": open_targets / "out"}
    said = there(*(places.get(word, word) for word in words), code=ExitCode.USAGE)
    assert f"; did you mean {meant}?" in said


def test_an_export_to_retire_that_is_mistyped_is_named(live: Company) -> None:
    out = live.directory.parent / "out"
    name = json.loads(live("--json", "factory", "export", "gateway", "--to", out, *_SERVER))["id"]
    said = live("--yes", "factory", "retire", name[:-1], code=ExitCode.USAGE)
    assert f"there is no factory export '{name[:-1]}'; did you mean {name}?" in said
    assert f"{name} is retired" in live("--yes", "factory", "retire", name)


# Exports.


def test_a_real_export_says_where_its_files_go(live: Company) -> None:
    out = live.directory.parent / "out"
    said = live("factory", "export", "gateway", "--to", out, *_SERVER)
    assert f"next: copy {out / 'factory'}/ into the image as /usr/share/firmroot/\n" in said
    assert f"{out / 'device.toml'} as /etc/firmroot/device.toml" in said
    assert "then, once at the first boot: firmroot-device init\n" in said
    assert "--config" not in said
    found = json.loads(live("--json", "factory", "export", "gateway", "--to", out, *_SERVER))
    assert found["next"].startswith(f"copy {out / 'factory'}/ into the image")
