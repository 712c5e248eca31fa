"""A device whose TLS is broken still updates, says so, and receives its new CA bundle."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from client_reference.durable import SPARE
from client_reference.payload.segments import SEGMENT
from client_reference.update import TLS_BUNDLE, TLS_ROLE
from tests.simulators.certificates import Authority, make_authority
from tests.simulators.mirror import Mirror, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulators.device import DeviceOnDisk, Publisher

IMAGE = bytes(SEGMENT + 1)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


def publish_bundle(publisher: Publisher, data: bytes) -> None:
    if TLS_ROLE not in publisher.repo.signed:
        publisher.repo.delegate(TLS_ROLE, [TLS_BUNDLE])
    publisher.repo.add_target(TLS_ROLE, TLS_BUNDLE, data)
    publisher.repo.publish(TLS_ROLE, "targets")


def test_a_dead_ca_is_replaced_by_a_signed_target(
    publisher: Publisher, device: DeviceOnDisk, authority: Authority
) -> None:
    publisher.release("1.0", 1, IMAGE)
    publish_bundle(publisher, authority.bundle.read_bytes())
    with Mirror(publisher.repo.files, authority.good) as mirror:
        root = publisher.repo.files["metadata/1.root.json"]
        device.make(root, [mirror.url])
        device.run("init")
        first = device.run("update")
        assert first.code == 0
        assert device.slot("B") == IMAGE
        assert f"degraded transport: {mirror.url} was read over unverified TLS" in first.err
        assert "a new CA bundle was accepted" in first.err
        device.run("confirm")
        mirror.seen.clear()
        second = device.run("check")
        assert second.code == 0
        assert "degraded" not in second.err
        assert "CA bundle" not in second.err
        assert not any("ca-bundle" in path for path in mirror.paths)


def test_a_newer_bundle_replaces_the_older(
    publisher: Publisher, device: DeviceOnDisk, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = make_authority(tmp_path / "other").bundle.read_bytes()
    publish_bundle(publisher, authority.bundle.read_bytes())
    device.run("init")
    device.run("check")
    publish_bundle(publisher, other)
    assert "a new CA bundle was accepted" in device.run("check").err
    assert (device.directory / "state" / "ca-bundle.pem").read_bytes() == other


def test_a_bundle_may_have_comments_in_any_language(
    publisher: Publisher, device: DeviceOnDisk, authority: Authority
) -> None:
    bundle = "# Főtanúsítvány\n".encode() + authority.bundle.read_bytes()
    publish_bundle(publisher, bundle)
    device.run("init")
    said = device.run("check")
    assert said.code == 0
    assert "a new CA bundle was accepted" in said.err
    assert (device.directory / "state" / "ca-bundle.pem").read_bytes() == bundle


NO_BUNDLES = {
    "text": b"no certificates",
    "bytes": b"\xff\xfe",
    "nothing": b"",
    "half a certificate": b"-----BEGIN CERTIFICATE-----\nMIIB",
    "text in another language": "# Főtanúsítvány".encode(),
}


@pytest.mark.parametrize("sentence", NO_BUNDLES)
def test_what_is_no_bundle_stops_no_update(
    publisher: Publisher, device: DeviceOnDisk, authority: Authority, sentence: str
) -> None:
    publisher.release("1.0", 1, IMAGE)
    publish_bundle(publisher, authority.bundle.read_bytes())
    device.run("init")
    device.run("check")
    publish_bundle(publisher, NO_BUNDLES[sentence])
    said = device.run("update")
    assert said.code == 0
    assert "a new CA bundle could not be had: the published CA bundle holds no" in said.err
    kept = device.directory / "state" / "ca-bundle.pem"
    assert kept.read_bytes() == authority.bundle.read_bytes()


def test_a_bundle_that_is_not_served_stops_no_update(
    publisher: Publisher, device: DeviceOnDisk, authority: Authority
) -> None:
    publisher.release("1.0", 1, IMAGE)
    publish_bundle(publisher, authority.bundle.read_bytes())
    for path in [path for path in publisher.repo.files if "ca-bundle" in path]:
        del publisher.repo.files[path]
    device.run("init")
    said = device.run("update")
    assert said.code == 0
    assert "a new CA bundle could not be had" in said.err


def garbage(publisher: Publisher) -> None:
    publish_bundle(publisher, b"no certificate")


def not_served(publisher: Publisher) -> None:
    garbage(publisher)
    for path in [path for path in publisher.repo.files if "ca-bundle" in path]:
        del publisher.repo.files[path]


def role_that_does_not_verify(publisher: Publisher) -> None:
    garbage(publisher)
    publisher.repo.files[publisher.repo.location(TLS_ROLE)] += b" "


@pytest.mark.parametrize(
    ("publish", "trouble"),
    [
        (garbage, {"flip": 3}),
        (not_served, {"status": 404}),
        (role_that_does_not_verify, {"flip": 3}),
    ],
)
def test_a_bundle_that_nobody_has_leaves_every_mirror_to_what_follows(
    publisher: Publisher,
    device: DeviceOnDisk,
    publish: Callable[[Publisher], None],
    trouble: dict[str, int],
) -> None:
    """Attack: the first mirror lies about the image; the second one was given up already."""
    publisher.release("1.0", 1, b"image")
    publish(publisher)
    with Mirror(publisher.repo.files) as first, Mirror(publisher.repo.files) as second:
        first.trouble = Trouble("gw2.img", **trouble)  # type: ignore[arg-type] # fields of it
        device.make(publisher.repo.files["metadata/1.root.json"], [first.url, second.url])
        device.run("init")
        said = device.run("update")
        assert said.code == 0
        assert said.err.count("a new CA bundle could not be had") == 1
        assert device.slot("B") == b"image"
        second.trouble = first.trouble
        assert device.run("confirm").code == 0
        publisher.release("1.1", 2, b"next")
        assert device.run("update").code == (4 if "status" in trouble else 6), "and it ends"
        first.trouble = second.trouble = Trouble(times=0)
        assert device.run("update").code == 0


def test_a_bundle_is_taken_from_its_own_role_only(
    publisher: Publisher, device: DeviceOnDisk, authority: Authority
) -> None:
    publisher.release("1.0", 1, IMAGE)
    delegations = publisher.repo.targets.delegations
    assert delegations is not None
    assert delegations.roles is not None
    delegations.roles["gateway-builds"].paths = ["*", "trust/*"]
    publisher.repo.add_target("gateway-builds", TLS_BUNDLE, authority.bundle.read_bytes())
    publisher.repo.publish("gateway-builds", "targets")
    device.run("init")
    device.run("check")
    assert not (device.directory / "state" / "ca-bundle.pem").exists()


@pytest.mark.parametrize("trouble", [{"status": 404}, {"flip": 40}])
def test_a_first_mirror_alone_does_not_keep_a_bundle_away(
    publisher: Publisher, device: DeviceOnDisk, authority: Authority, trouble: dict[str, int]
) -> None:
    publisher.release("1.0", 1, IMAGE)
    publish_bundle(publisher, authority.bundle.read_bytes())
    with Mirror(publisher.repo.files) as first, Mirror(publisher.repo.files) as second:
        first.trouble = Trouble("ca-bundle.pem", **trouble)  # type: ignore[arg-type] # fields of it
        device.make(publisher.repo.files["metadata/1.root.json"], [first.url, second.url])
        device.run("init")
        said = device.run("update")
        assert said.code == 0
        assert "a new CA bundle was accepted" in said.err
        assert len([path for path in first.paths if "ca-bundle" in path]) == 2, "once past caches"


def test_a_bundle_that_leaves_the_store_no_room_stops_no_update(
    publisher: Publisher,
    mirror: Mirror,
    device: DeviceOnDisk,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or the store could change no more, and nothing that is published later would help."""
    data = authority.bundle.read_bytes()
    publisher.release("1.0", 1, IMAGE)
    publish_bundle(publisher, data)
    device.run("init")
    state = device.directory / "state"
    (state / "ca-bundle.pem.trial").write_bytes(data)  # a cut left it
    room = len(data) - 1
    real = os.statvfs

    def statvfs(path: Path) -> os.statvfs_result:
        fields = list(real(path))
        fields[1], fields[4] = 1, SPARE + room  # f_frsize, f_bavail
        return os.statvfs_result(fields)

    monkeypatch.setattr(os, "statvfs", statvfs)
    said = device.run("update")
    assert said.code == 0, said.err
    assert device.slot("B") == IMAGE
    assert (
        f"a new CA bundle could not be kept: it has {len(data)} bytes, {state} has room for {room};"
        " free some space"
    ) in said.err
    assert not any("ca-bundle" in path for path in mirror.paths)
    assert not [path for path in state.iterdir() if "ca-bundle" in path.name]
    room += 1
    assert "a new CA bundle was accepted" in device.run("check").err
    assert (state / "ca-bundle.pem").read_bytes() == data


@pytest.mark.parametrize("suffix", [".trial", ".new"])
def test_a_disk_that_fills_up_under_a_bundle_stops_no_update_and_keeps_nothing_of_it(
    publisher: Publisher,
    device: DeviceOnDisk,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
) -> None:
    publisher.release("1.0", 1, IMAGE)
    publish_bundle(publisher, authority.bundle.read_bytes())
    device.run("init")
    place = device.directory / "state" / f"ca-bundle.pem{suffix}"
    really = os.fsync

    def full(path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    def sync(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink() == place:
            raise OSError(errno.ENOSPC, "No space left on device")
        really(descriptor)

    with monkeypatch.context() as patched:
        if suffix == ".trial":
            patched.setattr(Path, "write_bytes", full)
        else:
            patched.setattr(os, "fsync", sync)
        said = device.run("check")
    assert said.code == 0, said.err
    assert "a new CA bundle could not be kept: " in said.err
    assert "No space left on device" in said.err
    assert not [path for path in place.parent.iterdir() if "ca-bundle" in path.name]
    said = device.run("update")
    assert said.code == 0
    assert "a new CA bundle was accepted" in said.err


def test_a_factory_directory_that_nobody_may_enter_ends_no_updates(
    publisher: Publisher, device: DeviceOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bundle, and the anchor of a later image, are what a device can do without."""
    publisher.release("1.0", 1, b"image")
    device.config.write_text(
        device.config.read_text().replace(
            "[identity]", 'recovery = ["http://127.0.0.1:9/"]\n[identity]'
        )
    )
    assert device.run("init").code == 0
    real = Path.exists

    def exists(path: Path) -> bool:
        # The tests may run as root, whom no permission stops.
        if path.parent == device.directory / "factory":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "exists", exists)
    said = device.run("update")
    assert (said.code, device.slot("B")) == (0, b"image"), said.err
    text = device.config.read_text().replace("[tls]", '[tls]\nroots = "private"')
    device.config.write_text(text)
    assert device.run("check").code == 2
