"""The workspace: every mistake in its files with its place, and what is newest."""

from __future__ import annotations

import shutil
import stat
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import ConfigurationError, LockedError, NotTrustedError
from repo_tools.creation import LAB_KEYS, create_lab, create_workspace
from repo_tools.metadata.edits import is_lab_root
from repo_tools.storage.epoch import EpochStorage
from repo_tools.storage.local import LocalStorage
from repo_tools.workspace import Product, Workspace
from tests.signing.team import NOW, PASSPHRASE, publish_by_hand
from tests.simulators.disk import names

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("workspace") / "acme"
    return create_lab(directory, "repository", PASSPHRASE, NOW).directory


@pytest.fixture
def ws(_made: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(_made, tmp_path / "acme")
    return Workspace.open(tmp_path / "acme")


# Making one.


def test_a_lab_has_every_key_and_a_signed_root(ws: Workspace) -> None:
    assert sorted(ws.keyring) == sorted(LAB_KEYS) == sorted(ws.key_uris())
    root = ws.newest_root()
    assert root is not None
    assert is_lab_root(root)
    assert (root.version, f"{root.expires:%Y-%m-%d}") == (1, "2027-03-02")
    assert ws.config.lab
    assert ws.config.online == {"publisher": "file:.firmroot/keys/publisher.pem"}
    assert "/.firmroot/" in (ws.directory / ".gitignore").read_text().splitlines()


def test_private_files_are_private(ws: Workspace) -> None:
    for name in ("lab-passphrase", "keys.toml", "keys/alice.pem"):
        assert stat.S_IMODE((ws.private / name).stat().st_mode) == 0o600, name
    assert stat.S_IMODE(ws.private.stat().st_mode) == 0o700


def test_a_workspace_without_keys_explains_its_policy(tmp_path: Path) -> None:
    ws = create_workspace(tmp_path / "acme", "file:///srv/firmware")
    assert ws.keyring == {}
    assert not ws.config.lab
    assert "# Who may sign what." in (tmp_path / "acme/policy.toml").read_text()
    assert ws.storage().url == "file:///srv/firmware"
    assert names(tmp_path) == ["acme"]


def test_an_empty_directory_is_good_enough(tmp_path: Path) -> None:
    (tmp_path / "acme").mkdir()
    create_workspace(tmp_path / "acme", "repository")
    assert "firmroot.toml" in names(tmp_path / "acme")


def test_a_directory_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "file"):
        with pytest.raises(ConfigurationError, match="exists and is not an empty directory"):
            create_workspace(place, "repository")
    assert names(tmp_path) == ["file"]


def test_an_interrupted_init_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    from unittest.mock import patch

    with (
        patch("repo_tools.creation.new_key", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        create_lab(tmp_path / "acme", "repository", PASSPHRASE, NOW)
    assert names(tmp_path) == []
    (tmp_path / ".acme.init").mkdir()
    (tmp_path / ".acme.init" / "left by a kill").touch()
    create_lab(tmp_path / "acme", "repository", PASSPHRASE, NOW)
    assert names(tmp_path) == ["acme"]
    assert "left by a kill" not in names(tmp_path / "acme")


def test_an_unknown_storage_is_refused_before_anything_exists(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="found 's4://bucket'"):
        create_workspace(tmp_path / "acme", "s4://bucket")
    assert names(tmp_path) == []


# Reading one.


MISTAKES = [
    ("not TOML", "= 1", "firmroot.toml: not TOML"),
    ("another schema", "schema = 2", "firmroot.toml: schema: this firmroot reads 1, found 2"),
    ("unknown field", "colour = 1", "firmroot.toml: colour is not known"),
    ("storage is a number", "storage = 1", "storage: expected a directory or URL, found 1"),
    ("urls is text", 'urls = "x"', "urls: expected a list of URLs, found 'x'"),
    (
        "a URL without scheme",
        'urls = ["fw.acme"]',
        "expected http(s)://.../, found 'fw.acme'",
    ),
    ("a URL is a number", "urls = [1]", "found 1"),
    ("lab is text", 'lab = "yes"', "lab: expected true or false, found 'yes'"),
    ("a key URI is a number", "[online]\na = 1", "online.a: expected a key URI, found 1"),
    ("a product is text", 'products = {a = "x"}', "products.a.hardware: expected a list"),
    ("no hardware", "[products.a]\nchannels = ['b']", "products.a.hardware: expected a list"),
    (
        "no channels",
        "[products.a]\nhardware = ['b']\nchannels = []",
        "products.a.channels: expected",
    ),
    ("a number for hardware", "[products.a]\nhardware = [1]\nchannels = ['b']", "found [1]"),
    (
        "an unknown field of a product",
        "[products.a]\nhardware = ['b']\nchannels = ['c']\nsize = 1",
        "firmroot.toml: products.a.size is not known",
    ),
    (
        "a name with a capital letter",
        "[products.A]\nhardware = ['b']\nchannels = ['c']",
        "products.A: 'A' is not a name",
    ),
    (
        "a channel that is a path",
        "[products.a]\nhardware = ['b']\nchannels = ['../c']",
        "products.a: '../c' is not a name",
    ),
]


@pytest.mark.parametrize(
    ("text", "message"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES]
)
def test_a_mistake_names_its_place(ws: Workspace, text: str, message: str) -> None:
    (ws.directory / "firmroot.toml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        Workspace.open(ws.directory)
    assert message in caught.value.message


def test_all_mistakes_are_told_together(ws: Workspace) -> None:
    (ws.directory / "firmroot.toml").write_text("a = 1\nb = 2\nlab = 3\n")
    with pytest.raises(ConfigurationError) as caught:
        Workspace.open(ws.directory)
    assert caught.value.message.count("firmroot.toml:") == 3


def test_mistakes_of_the_policy_become_one_error(ws: Workspace) -> None:
    policy = ws.directory / "policy.toml"
    policy.write_text(policy.read_text().replace("threshold = 2", "threshold = 0"))
    (ws.directory / "keys" / "ci.toml").unlink()
    with pytest.raises(ConfigurationError) as caught:
        Workspace.open(ws.directory)
    assert caught.value.message.count("threshold: expected a whole number") == 4
    assert "there is no keys/ci.toml" in caught.value.message
    assert caught.value.hint.endswith("firmroot policy check")


def test_commands_that_bring_keys_accept_that_keys_are_missing(ws: Workspace) -> None:
    (ws.directory / "keys" / "ci.toml").unlink()
    assert "ci" not in Workspace.open(ws.directory, missing_keys=True).keyring


def test_what_is_no_workspace_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Workspace.open(tmp_path)
    assert "is not a firmroot workspace" in caught.value.message
    assert "firmroot init DIR" in caught.value.hint
    (tmp_path / "firmroot.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match=r"firmroot\.toml cannot be read"):
        Workspace.open(tmp_path)


def test_products_are_read(ws: Workspace) -> None:
    with (ws.directory / "firmroot.toml").open("a") as file:
        file.write('[products.gw]\nhardware = ["acme,gw-2"]\nchannels = ["stable", "beta"]\n')
    products = Workspace.open(ws.directory).config.products
    assert products == {"gw": Product("gw", ("acme,gw-2",), ("stable", "beta"))}


@pytest.mark.parametrize(
    ("url", "fine"), [("file:///x", True), ("file://x", False), ("gs://b", False)]
)
def test_storages(ws: Workspace, url: str, fine: bool) -> None:  # noqa: FBT001  a row
    config = ws.directory / "firmroot.toml"
    config.write_text(config.read_text().replace('"repository"', f'"{url}"'))
    ws = Workspace.open(ws.directory)
    if fine:
        storage = ws.storage()
        assert isinstance(storage, LocalStorage)
        assert (str(storage.root), storage.url) == ("/x", url)
    else:
        with pytest.raises(
            ConfigurationError, match=r"expected a directory, file:///\.\.\. or s3://\.\.\."
        ):
            ws.storage()


def test_the_anchor_has_a_storage_of_its_own(ws: Workspace) -> None:
    """Who can write to the one that it is to replace must not be able to write to it."""
    assert ws.recovery_storage().url == "recovery", "a lab's own"
    config = ws.directory / "firmroot.toml"
    text = config.read_text()
    for line, message in (
        ('recovery_storage = "repository"', "which is also `storage`"),
        ('recovery_storage = "./repository/"', "which is also `storage`"),
        ('recovery_storage = "repository/rescue"', "which is one within the other"),
        ('recovery_storage = "."', "which is one within the other"),
        (f'recovery_storage = "file://{ws.directory}/repository"', "which is also `storage`"),
        ('recovery_storage = "gs://b"', "recovery_storage: expected a directory, file:///"),
        ("", "expected where the recovery anchor is published"),
    ):
        changed = text.replace('recovery_storage = "recovery"', line)
        config.write_text(changed if line else changed.replace("lab = true", "lab = false"))
        with pytest.raises(ConfigurationError, match=message):
            Workspace.open(ws.directory).recovery_storage()
    config.write_text(text.replace('"recovery"', '"file:///elsewhere"'))
    assert Workspace.open(ws.directory).recovery_storage().url == "file:///elsewhere"
    bucket = text.replace('storage = "repository"', 'storage = "s3://acme/fw"')
    for place in (
        "s3://acme/fw/",
        "s3://acme//fw",
        "s3://acme/fw/rescue",
        "s3://acme",
        "s3://acme/fw/rescue?roots=hold",
    ):
        config.write_text(bucket.replace('"recovery"', f'"{place}"'))
        with pytest.raises(ConfigurationError, match="who can write to one must not be able"):
            Workspace.open(ws.directory).recovery_storage()
    config.write_text(bucket.replace('"recovery"', '"s3://acme/fw-rescue"'))
    assert Workspace.open(ws.directory).recovery_storage().url == "s3://acme/fw-rescue"
    other = text.replace('"repository"', '"s3://acme/fw?endpoint=https://one.example"')
    config.write_text(other.replace('"recovery"', '"s3://acme/fw/x?endpoint=https://one.example/"'))
    with pytest.raises(ConfigurationError, match="one within the other with `storage`"):
        Workspace.open(ws.directory).recovery_storage()
    elsewhere = "s3://acme/fw/x?endpoint=https://two.example"
    config.write_text(other.replace('"recovery"', f'"{elsewhere}"'))
    assert Workspace.open(ws.directory).recovery_storage().url == elsewhere


def test_each_epoch_has_places_of_its_own(ws: Workspace) -> None:
    later = ws.after()
    assert later.epoch == 1
    for first, second in (
        (ws.metadata, later.metadata),
        (ws.staged, later.staged),
        (ws.ceremonies, later.ceremonies),
        (ws.history, later.history),
        (ws.memory, later.memory),
    ):
        assert second == first / "e1"
    assert later.anchor == ws.anchor == ws.directory / "metadata/recovery"
    assert (ws.before(), later.before()) == (None, ws)
    assert later.storage().url == ws.storage().url
    assert isinstance(later.storage(), EpochStorage)
    assert isinstance(later.whole_storage(), LocalStorage)


def test_while_an_epoch_has_no_root_the_one_before_rules(ws: Workspace) -> None:
    later = ws.after()
    assert later.newest_root() is None
    found = later.ruling_root()
    assert found is not None
    assert is_lab_root(found)
    (ws.staged / "root.json").unlink()
    assert later.ruling_root() is None


def test_what_stands_in_the_configuration_is_checked(ws: Workspace) -> None:
    config = ws.directory / "firmroot.toml"
    text = config.read_text()
    for line, message in (
        ("epoch = -1", "epoch: expected a whole number, found -1"),
        ("epoch = true", "epoch: expected a whole number, found True"),
        ('epoch = "1"', "epoch: expected a whole number, found '1'"),
    ):
        config.write_text(f"{line}\n{text}")
        with pytest.raises(ConfigurationError, match=message):
            Workspace.open(ws.directory)
    config.write_text(text.replace("recovery_urls = []", 'recovery_urls = ["ftp://x/"]'))
    with pytest.raises(ConfigurationError, match="recovery_urls: expected http"):
        Workspace.open(ws.directory)


# What is newest.


def test_staged_goes_before_published(ws: Workspace) -> None:
    assert ws.newest_targets() is None
    assert list(ws.staged_roles()) == ["root"]
    publish_by_hand(ws)
    assert ws.staged_roles() == {}
    assert len(ws.roots()) == 1
    assert ws.newest_root() is not None
    (ws.private / "staged").mkdir()
    (ws.private / "staged" / "gateway-builds.json").write_bytes(b"{}")
    assert ws.staged_role("gateway-builds") == b"{}"
    assert ws.published_role("gateway-builds") is None


CONFLICT = b"<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> origin/main\n"


@pytest.mark.parametrize("name", ["staged/root.json", "metadata/targets.json"])
def test_what_git_could_not_merge_is_named_with_the_way_out(ws: Workspace, name: str) -> None:
    path = ws.directory / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(CONFLICT)
    with pytest.raises(NotTrustedError, match=f"^{name} has the marks of a git conflict") as found:
        (ws.newest_root if path.stem == "root" else ws.newest_targets)()
    assert f"git checkout --theirs {name} && git add {name}" in found.value.hint


def test_what_is_cut_off_is_named(ws: Workspace) -> None:
    path = ws.metadata / "root" / "1.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(b'{"signatures": [')
    with pytest.raises(
        NotTrustedError, match=r"^metadata/root/1.json is damaged or cut off"
    ) as found:
        ws.roots()
    assert found.value.hint.endswith("git checkout HEAD -- metadata/root/1.json")
    builds = ws.private / "staged" / "gateway-builds.json"
    builds.parent.mkdir()
    builds.write_bytes(b"")
    match = r"^.firmroot/staged/gateway-builds.json is damaged or cut off \(0 bytes\)"
    with pytest.raises(NotTrustedError, match=match) as found:
        ws.staged_roles()
    assert found.value.hint == "remove it, and run again the command that made it"
    builds.unlink()
    assert "root" in ws.staged_roles()


def test_a_gap_in_the_root_chain_is_told(ws: Workspace) -> None:
    publish_by_hand(ws)
    (ws.metadata / "root" / "3.json").write_bytes(b"")
    (ws.metadata / "root" / "notes.json").write_bytes(b"")
    with pytest.raises(ConfigurationError, match=r"metadata/root has versions \[1, 3\]"):
        ws.roots()


def test_target_files_wait_in_two_places(ws: Workspace) -> None:
    for top, name in ((ws.outbox, "a"), (ws.staged, "b")):
        (top / "targets" / "x").mkdir(parents=True)
        (top / "targets" / "x" / name).touch()
        (top / "targets" / "x" / f".{name}.tmp").touch()
    assert sorted(ws.staged_targets()) == ["targets/x/a", "targets/x/b"]
    for name in ("a", "b", "c"):
        assert ws.waiting(f"targets/x/{name}") == ws.staged_targets().get(f"targets/x/{name}")
    (ws.staged / "targets" / "x" / "a").touch()
    assert ws.waiting("targets/x/a") == ws.staged_targets()["targets/x/a"]


# Keys of this machine.


def test_key_uris_are_remembered_and_forgotten(ws: Workspace) -> None:
    ws.add_key_uri("dave", "file:/x")
    assert ws.key_uris()["dave"] == "file:/x"
    ws.remove_key_uri("dave")
    ws.remove_key_uri("dave")
    assert "dave" not in ws.key_uris()
    assert stat.S_IMODE((ws.private / "keys.toml").stat().st_mode) == 0o600


@pytest.mark.parametrize(("text", "message"), [("=", "not TOML"), ("a = 1", "expected a key URI")])
def test_a_broken_list_of_keys_is_told(ws: Workspace, text: str, message: str) -> None:
    (ws.private / "keys.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        ws.key_uris()


def test_a_key_has_a_name_for_people(ws: Workspace) -> None:
    assert ws.key_name(ws.keyring["bob"].key.keyid) == "bob"
    assert ws.key_name("ab" * 32) == "unknown key abababab"


def test_one_command_at_a_time(ws: Workspace) -> None:
    with (
        ws.lock(),
        pytest.raises(LockedError, match="another firmroot command is at work"),
        ws.lock(),
    ):
        pass


def test_a_changing_command_begins_without_what_a_killed_one_left(ws: Workspace) -> None:
    places = (ws.directory, ws.private, ws.metadata, ws.outbox / "targets" / "builds")
    left = [place / ".a.json.abcdefgh.tmp" for place in places]
    others = [
        ws.directory / place / ".a.json.abcdefgh.tmp" for place in (".git", ws.config.storage)
    ]
    for path in (*left, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with ws.lock():
        assert not [path for path in left if path.exists()]
        assert all(path.exists() for path in others), "git and the storage look after their own"
