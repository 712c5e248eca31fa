"""Factory exports: what is written, what is registered, and when an export is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from client_reference.config import load as load_config
from client_reference.errors import ConfigurationError
from client_reference.factory import load as load_factory
from repo_tools.publishing.factory import (
    Target,
    device_toml,
    devices,
    load_registry,
    make_package,
    write_package,
)
from tests.publishing.lab import HARDWARE, PRODUCT

if TYPE_CHECKING:
    from tests.publishing.lab import Lab


def test_an_export_is_what_the_device_reads(live: Lab, tmp_path: Path) -> None:
    done = live.ok("factory", "export", PRODUCT, "--to", tmp_path / "out")
    assert "LAB export, never for devices in the field" in done.out
    config = load_config(tmp_path / "out/device.toml")
    assert (config.repository.product, config.repository.channel) == (PRODUCT, "stable")
    assert config.identity.hardware.value == HARDWARE
    born = load_factory(tmp_path / "out/factory")
    assert born.root == live.tree()["metadata/root/1.json"]
    assert born.floors.minimum_sequence == 0
    floors = json.loads((tmp_path / "out/factory/floors.json").read_bytes())
    assert floors["time"] == "2026-03-02T06:00:00Z", "when the live timestamp was issued"


def test_the_floor_is_signed_evidence_not_the_clock(live: Lab, tmp_path: Path) -> None:
    live.later(days=2).ok("factory", "export", PRODUCT, "--to", tmp_path / "out")
    floors = json.loads((tmp_path / "out/factory/floors.json").read_bytes())
    assert floors["time"] == "2026-03-02T06:00:00Z"


def test_the_same_export_twice_is_one_entry_with_a_higher_count(live: Lab, tmp_path: Path) -> None:
    for _ in range(2):
        live.ok("factory", "export", PRODUCT, "--to", tmp_path / "out", "--count", "500")
    entries = load_registry(live.workspace)
    assert [(entry.count, entry.root_version, entry.retired) for entry in entries] == [
        (1000, 1, "")
    ]
    assert entries[0].hardware == (HARDWARE,)
    assert live.ok("--json", "factory", "list").json["exports"][0]["count"] == 1000


def test_another_export_is_another_entry_and_both_are_rehearsed(live: Lab, tmp_path: Path) -> None:
    live.ok(
        "factory",
        *("export", PRODUCT, "--to", tmp_path / "out", "--server", "https://fw.acme.example"),
    )
    text = (tmp_path / "out/device.toml").read_text()
    assert tomllib.loads(text)["repository"]["mirrors"] == ["https://fw.acme.example/"]
    assert len({device.name for device in devices(live.workspace)}) == 2


def test_the_floor_of_a_channel_goes_into_the_image(following: Lab, tmp_path: Path) -> None:
    following.ok("channel", "minimum", f"{PRODUCT}@1.1", "--on", "stable")
    following.ok("sign")
    following.ok("publish")
    following.ok("factory", "export", PRODUCT, "--to", tmp_path / "out")
    assert load_factory(tmp_path / "out/factory").floors.minimum_sequence == 2


def test_a_retired_export_is_listed_and_not_rehearsed(live: Lab) -> None:
    name = load_registry(live.workspace)[0].id
    assert live.run("factory", "retire", name).code == 3, "without a terminal nothing asks"
    live.ok("--yes", "factory", "retire", name)
    assert devices(live.workspace) == ()
    assert "retired 2026-03-02" in live.ok("factory", "list").out
    live.later(days=1).ok("--yes", "factory", "retire", name)
    assert load_registry(live.workspace)[0].retired == "2026-03-02"
    done = live.run("--yes", "factory", "retire", "nothing")
    assert done.code == 2
    assert "there is no factory export 'nothing'" in done.err


def test_nothing_published_nothing_exported(ready: Lab, tmp_path: Path) -> None:
    done = ready.run("factory", "export", PRODUCT, "--to", tmp_path / "out")
    assert done.code == 3
    assert "nothing is published yet" in done.err
    assert not (tmp_path / "out").exists()


def test_a_channel_without_release_is_not_exported(live: Lab, tmp_path: Path) -> None:
    live.ok("product", "add", PRODUCT, "--channel", "beta")
    live.ok("sign")
    live.ok("publish")
    done = live.run("factory", "export", PRODUCT, "--to", tmp_path / "out", "--channel", "beta")
    assert done.code == 3
    assert "nothing is published on gateway/beta yet" in done.err
    done = live.run("factory", "export", PRODUCT, "--to", tmp_path / "out", "--channel", "gamma")
    assert done.code == 2
    assert "there is no channel gateway/gamma; there is: gateway/stable, gateway/beta" in done.err


def test_a_root_near_its_end_warns_and_one_past_it_is_refused(live: Lab, tmp_path: Path) -> None:
    near = live.later(days=340)
    near.ok("refresh")
    done = near.ok("factory", "export", PRODUCT, "--to", tmp_path / "near")
    assert "warning: root 1 expires on 2027-03-02" in done.err
    past = live.later(days=365)
    done = past.run("factory", "export", PRODUCT, "--to", tmp_path / "past")
    assert done.code == 5
    assert "root 1 expired on 2027-03-02" in done.err


def test_a_directory_with_something_else_is_left_alone(live: Lab, tmp_path: Path) -> None:
    (tmp_path / "out/factory").mkdir(parents=True)
    (tmp_path / "out/factory/root.json").write_bytes(b"mine")
    done = live.run("factory", "export", PRODUCT, "--to", tmp_path / "out")
    assert done.code == 2
    assert "exists and is not part of this export" in done.err
    assert not (tmp_path / "out/device.toml").exists()


def test_a_server_must_be_a_url(live: Lab, tmp_path: Path) -> None:
    done = live.run("factory", "export", PRODUCT, "--to", tmp_path / "o", "--server", "fw.example")
    assert done.code == 2
    assert "'fw.example' is not the URL of a server" in done.err


DAMAGE = {
    "a file of an export is gone": ("factory/{id}/factory/floors.json", None),
    "a file of an export is damaged": ("factory/{id}/factory/floors.json", "{"),
    "the registry is not TOML": ("factory/registry.toml", "= ="),
    "the registry lost a field": ("factory/registry.toml", "[[export]]\nid = 'x'\n"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_without_knowing_its_devices_nobody_publishes(case: str, following: Lab) -> None:
    place, text = DAMAGE[case]
    path = following.directory / place.format(id=load_registry(following.workspace)[0].id)
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(ConfigurationError):
        devices(following.workspace)
    done = following.run("publish")
    assert done.code == 2
    assert "git" in done.err


@pytest.mark.parametrize("case", ["the whole registry", "a retired entry"])
def test_an_export_that_the_registry_lost_stops_a_publish(
    case: str, following: Lab, tmp_path: Path
) -> None:
    other = ("--server", "https://fw.acme.example", "--to", tmp_path / "out")
    following.ok("factory", "export", PRODUCT, *other)
    registry = following.directory / "factory/registry.toml"
    whole = registry.read_text()
    first, second = (each.id for each in load_registry(following.workspace))
    following.ok("--yes", "factory", "retire", second)
    if case == "the whole registry":
        registry.unlink()
        lost = sorted((first, second))
    else:
        registry.write_text(whole[: whole.rindex("[[export]]")])
        lost = [second]
    done = following.run("publish")
    assert done.code == 2
    assert f"does not name {', '.join(lost)}, whose files are in factory/" in done.err
    assert "git checkout factory/registry.toml" in done.err
    registry.write_text(whole)
    following.ok("publish")


def test_what_the_last_commit_registers_is_not_forgotten_with_its_files(following: Lab) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=t", "-c", "user.email=t@localhost")
        subprocess.run(
            ["git", "-C", str(following.directory), *identity, *arguments],
            check=True,
            capture_output=True,
        )

    git("init", "--quiet")
    git("add", "--all", ".")
    git("commit", "--quiet", "--no-gpg-sign", "-m", "an export")
    (export,) = load_registry(following.workspace)
    (following.directory / "factory/registry.toml").unlink()
    shutil.rmtree(following.directory / "factory" / export.id)
    done = following.run("publish")
    assert done.code == 2
    assert f"does not name {export.id}, which the last commit registers" in done.err
    assert "git checkout factory/registry.toml" in done.err
    git("checkout", "factory")
    following.ok("publish")


def test_an_export_that_was_killed_is_finished_by_running_it_again(
    live: Lab, tmp_path: Path
) -> None:
    registry = live.directory / "factory/registry.toml"
    before = registry.read_text()
    arguments = ("--server", "https://fw.acme.example", "--to", tmp_path / "out")
    live.ok("factory", "export", PRODUCT, *arguments)
    after = registry.read_text()
    registry.write_text(before)  # its files are there, its entry is not
    assert live.run("publish").code == 2
    live.ok("factory", "export", PRODUCT, *arguments)
    assert registry.read_text() == after


@pytest.mark.parametrize("handler", ["slot", "command"])
@pytest.mark.parametrize("kind", ["lab", "production"])
def test_every_configuration_that_is_written_can_be_read(
    handler: str, kind: str, tmp_path: Path
) -> None:
    target = Target(PRODUCT, "stable", (HARDWARE,), handler, ("https://fw.acme.example/",))
    (tmp_path / "device.toml").write_text(device_toml(target, lab=kind == "lab"))
    config = load_config(tmp_path / "device.toml")
    assert config.install.handler == handler
    lab = kind == "lab"
    assert config.identity.hardware.kind == ("literal" if lab else "device-tree")
    assert (config.identity.device_id.value == "lab") is lab
    top = tmp_path if lab else Path("/data")
    if handler == "slot":
        assert config.install.slots == {slot: top / f"slots/{slot}.img" for slot in ("A", "B")}
    assert config.trust.state == top / ("state" if lab else "firmroot")


@pytest.mark.parametrize("urls", [(), ("https://one.example/", "https://two.example/")])
def test_a_device_is_told_where_the_recovery_anchor_is(
    urls: tuple[str, ...], tmp_path: Path
) -> None:
    target = Target(PRODUCT, "stable", (HARDWARE,), "slot", ("https://fw.acme.example/",), urls)
    (tmp_path / "device.toml").write_text(device_toml(target, lab=True))
    found = load_config(tmp_path / "device.toml").repository.recovery
    assert tuple(each.url for each in found) == urls


def test_what_begins_with_a_dot_is_no_export(live: Lab) -> None:
    """Somebody's editor, or a killed export: git and this registry know nothing of it."""
    before = load_registry(live.workspace)
    (live.directory / "factory/.trash").mkdir()
    assert load_registry(live.workspace) == before
    live.ok("refresh")


@pytest.mark.parametrize("reset", [0, 7])
def test_a_device_is_born_behind_the_reset_that_its_export_names(
    live: Lab, tmp_path: Path, reset: int
) -> None:
    """Or its first check would obey an old reset and lower the floor that it was born with."""
    root = live.tree()["metadata/root/1.json"]
    package = make_package(PRODUCT, root, "2026-03-02T06:00:00Z", 3, "", reset=reset)
    write_package(package, tmp_path / "out")
    floors = load_factory(tmp_path / "out/factory").floors
    assert (floors.reset, floors.minimum_sequence) == (reset, 3)
    assert (b"reset" in package.files["factory/floors.json"]) is bool(reset)
