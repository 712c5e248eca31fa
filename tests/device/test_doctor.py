"""`doctor` finds what is wrong, says what to do, and touches nothing."""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from client_reference import doctor
from client_reference.doctor import duration, moment
from client_reference.errors import ConfigurationError, ExitCode
from tests.power.recorder import read_tree
from tests.simulators.anchor import AnchorSimulator
from tests.simulators.device import DeviceOnDisk, Publisher
from tests.simulators.mirror import Mirror, Trouble
from tests.simulators.repository import RepositorySimulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from client_reference.manifest import Release
    from tests.simulators.device import Output


@pytest.fixture
def ready(publisher: Publisher, device: DeviceOnDisk) -> DeviceOnDisk:
    """An initialised device, and release 1.0."""
    publisher.release("1.0", 1, b"an image" * 100)
    assert device.run("init").code == 0
    return device


def lines(said: Output, severity: str) -> list[str]:
    return [line[9:] for line in said.out.splitlines() if line.startswith(f"{severity:<8} ")]


def test_a_healthy_device_is_told_so_and_nothing_changes(ready: DeviceOnDisk) -> None:
    ready.run("update")
    ready.run("confirm")
    before = read_tree(ready.directory)
    said = ready.run("doctor")
    assert said.code == 0
    assert lines(said, "error") == []
    fine = "\n".join(lines(said, "ok"))
    for words in (
        "configuration: ",
        "signatures: all key types verify here (cryptography ",
        "factory: ",
        "store: ",
        "root 1, 1 links verified",
        "clock: this device's clock says 2031-05-14T12:00:00Z, evidence proves 2031-01-01",
        "installer: handler slot, slot B runs",
        "space: ",
        "next check: ",
    ):
        assert words in fine
    assert read_tree(ready.directory) == before


def damage(copy: str) -> Callable[[DeviceOnDisk, Mirror], None]:
    def change(device: DeviceOnDisk, _: Mirror) -> None:
        (device.directory / "state" / copy).write_bytes(b"rust" * 1000)

    return change


def both(device: DeviceOnDisk, mirror: Mirror) -> None:
    damage("a.db")(device, mirror)
    damage("b.db")(device, mirror)


def no_factory(device: DeviceOnDisk, _: Mirror) -> None:
    (device.directory / "factory" / "root.json").write_text("{}")


def another_product(device: DeviceOnDisk, _: Mirror) -> None:
    floors = device.directory / "factory" / "floors.json"
    floors.write_text(floors.read_text().replace("gateway", "toaster"))


def no_slots(device: DeviceOnDisk, _: Mirror) -> None:
    text = device.config.read_text().replace("slots/B.img", "/dev/disk/by-partlabel/none")
    device.config.write_text(text)


def small_disk(device: DeviceOnDisk, _: Mirror) -> None:
    text = device.config.read_text()
    text = text.replace("[download]", '[download]\nquota = "99999999GiB"')
    command = 'handler = "command"\n[install.command]\nrun = ["true", "{path}"]\n'
    device.config.write_text(text.split("[install]")[0] + "[install]\n" + command)


def not_there(_: DeviceOnDisk, mirror: Mirror) -> None:
    mirror.trouble = Trouble(status=404)


def portal(_: DeviceOnDisk, mirror: Mirror) -> None:
    mirror.trouble = Trouble(body=b"<html>", headers={"Content-Type": "text/html"})


def hidden_root(device: DeviceOnDisk, mirror: Mirror) -> None:
    del device
    files = dict(mirror.files)
    publisher = Publisher()
    publisher.release("1.0", 1, b"image")
    publisher.repo.timestamp.unrecognized_fields["x-firmroot-root"] = 9
    publisher.repo.publish("timestamp")
    files.update(publisher.repo.files)
    mirror.files = files


SICK = [
    ("one copy", damage("a.db"), "warning", "store: copy a.db is not whole", 0),
    ("the other copy", damage("b.db"), "warning", "store: copy b.db is not whole", 0),
    ("both copies", both, "error", "store: both copies of the trust state", 5),
    ("the factory root", no_factory, "error", "factory/root.json (2 bytes) is damaged", 2),
    ("the factory export", another_product, "error", "factory: ", 2),
    ("a slot", no_slots, "error", "slots: B is ", 5),
    ("the disk", small_disk, "warning", "space: ", 2),  # and nothing is offered for a command
    ("the mirror is empty", not_there, "error", "answers, and has no repository", 4),
    ("a captive portal", portal, "error", "found HTML with status 200", 4),
    ("a hidden root", hidden_root, "warning", "next check: root 9 is announced", 0),
]


@pytest.mark.parametrize(
    ("change", "severity", "words", "code"), [c[1:] for c in SICK], ids=[c[0] for c in SICK]
)
def test_what_is_sick_is_named(
    ready: DeviceOnDisk,
    mirror: Mirror,
    change: Callable[[DeviceOnDisk, Mirror], None],
    severity: str,
    words: str,
    code: int,
) -> None:
    change(ready, mirror)
    said = ready.run("doctor")
    assert any(words in line for line in lines(said, severity)), said.out
    assert said.code == code
    documents = json.loads(ready.run("doctor", before=("--json",)).out)["findings"]
    assert any(words in f"{f['subject']}: {f['detail']}" for f in documents)


def test_a_device_without_state_is_examined_as_far_as_it_goes(ready: DeviceOnDisk) -> None:
    for file in (ready.directory / "state").iterdir():
        file.unlink()
    ready.now = ""
    said = ready.run("doctor")
    assert said.code == ExitCode.ACTION_REQUIRED
    hint = f"run `firmroot-device --config {ready.config} init`"
    assert any(hint in line for line in lines(said, "error"))
    assert any(line.startswith("factory: ") for line in lines(said, "ok"))


def test_what_several_examinations_fail_of_is_said_once(ready: DeviceOnDisk) -> None:
    for file in (ready.directory / "state").iterdir():
        file.unlink()
    ready.now = ""
    said = ready.run("doctor")
    assert sum("there is no trust state in" in line for line in said.out.splitlines()) == 1
    findings = json.loads(ready.run("doctor", before=("--json",)).out)["findings"]
    assert sum("there is no trust state in" in each["detail"] for each in findings) == 1


def test_each_mirror_that_fails_is_said_though_they_fail_alike(
    publisher: Publisher, ready: DeviceOnDisk
) -> None:
    with Mirror({}) as one, Mirror({}) as other:
        ready.make(publisher.repo.files["metadata/1.root.json"], [one.url, other.url])
        errors = lines(ready.run("doctor"), "error")
    for url in (one.url, other.url):
        assert any(line.startswith(f"{url}: answers, and has no repo") for line in errors)


def test_slots_are_compared_with_the_next_release(
    ready: DeviceOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots = ready.directory / "slots"
    slots.mkdir()
    (slots / "B.img").write_bytes(b"older" * 100)
    record = {"schema": 1, "primary": "A", "running": "A", "bootable": ["A"]}
    (slots / "boot.json").write_text(json.dumps(record))
    said = "\n".join(lines(ready.run("doctor"), "ok"))
    assert "slots: release 1.0 has 800 bytes, slot A has room for " in said
    monkeypatch.setattr(doctor, "free_bytes", lambda _: 300)
    just = ready.run("doctor")
    assert "slots: release 1.0 has 800 bytes, slot B has room for 800" in lines(just, "ok")
    monkeypatch.setattr(doctor, "free_bytes", lambda _: 299)
    sick = ready.run("doctor")
    assert sick.code == ExitCode.REFUSED
    (error,) = lines(sick, "error")
    assert error.startswith("slots: release 1.0 has 800 bytes, slot B has room for 799: free some")
    told = [line for line in lines(sick, "warning") if line.startswith("slots: ")]
    assert len(told) == 1, "the slot that runs is written later"
    assert told[0].startswith("slots: release 1.0 has 800 bytes, slot A has room for 299: ")
    monkeypatch.undo()
    assert ready.run("update").code == 0


def test_a_release_above_the_quota_of_a_command_is_named(
    publisher: Publisher, device: DeviceOnDisk
) -> None:
    command = 'handler = "command"\n[install.command]\nrun = ["true", "{path}"]\n'
    device.make(
        publisher.repo.files["metadata/1.root.json"],
        json.loads(device.config.read_text().split("mirrors = ")[1].splitlines()[0]),
        install=command,
        download='quota = "1KiB"',
    )

    def handed_over(release: Release) -> Release:
        payloads = tuple(replace(one, handler="command") for one in release.payloads)
        return replace(release, payloads=payloads)

    publisher.release("1.0", 1, b"x" * 1025, handed_over, handler="command")
    device.run("init")
    said = device.run("doctor")
    text = "space: release 1.0 has 1025 bytes, download.quota allows 1024: raise it in device.toml"
    assert text in lines(said, "error")
    device.config.write_text(device.config.read_text().replace("1KiB", "2KiB"))
    assert not [line for line in lines(device.run("doctor"), "error") if "1025" in line]


def test_a_trial_is_mentioned(ready: DeviceOnDisk) -> None:
    ready.run("update")
    said = ready.run("doctor")
    text = (
        "installer: release 1.0 is on trial: nothing new starts until it is confirmed or rejected"
    )
    assert text in lines(said, "warning")


def test_a_device_that_cannot_say_who_it_is_learns_it_before_the_first_update(
    publisher: Publisher, device: DeviceOnDisk
) -> None:
    publisher.release("1.0", 1, b"an image" * 100)
    whole = device.config.read_text()
    serial = f"file:{device.directory}/none"
    line = 'device_id = "file:/etc/machine-id" or device_id = "literal:SERIAL"'
    device.config.write_text(whole.replace("literal:device-1", serial))
    failed = device.run("init")
    assert failed.code == ExitCode.USAGE
    assert "identity.device_id: " in failed.err
    assert "write one of these lines under [identity] in device.toml: " + line in failed.err
    assert not (device.directory / "state" / "a.db").exists()
    device.now = ""  # without a store nothing says that this is a LAB
    said = device.run("doctor")
    assert any(one.startswith("identity: ") and line in one for one in lines(said, "error"))
    device.config.write_text(whole)
    assert device.run("init").code == 0
    assert "identity: device-1, acme,gw-2" in lines(device.run("doctor"), "ok")


# Suppositions


def test_a_clock_of_1970_is_said_to_do_no_harm(ready: DeviceOnDisk) -> None:
    said = ready.run("doctor", "--clock", "1970")
    assert said.code == 0
    assert any("freshness unproven" in line for line in lines(said, "warning"))
    assert any(line.startswith("next check: would install 1.0") for line in lines(said, "ok"))


def test_a_clock_of_2040_is_refused_and_named(ready: DeviceOnDisk) -> None:
    said = ready.run("doctor", "--clock", "2040-01-31")
    assert said.code == ExitCode.NOT_TRUSTED
    assert any("your clock or a frozen mirror" in line for line in lines(said, "error"))
    assert ready.run("check").code == 0


def test_years_on_a_shelf_are_survived(ready: DeviceOnDisk) -> None:
    ready.run("update")
    said = ready.run("doctor", "--shelf", "5y")
    assert said.code == 0
    fine = lines(said, "ok")
    assert any("after 5.0 years root 1 has expired: the device walks" in line for line in fine)
    assert any("gateway-stable, gateway-stable-hold, targets have expired" in line for line in fine)


DURATIONS = [("5y", 1825), ("6w", 42), ("90d", 90)]


@pytest.mark.parametrize(("text", "days"), DURATIONS)
def test_a_shelf_time_is_read(text: str, days: int) -> None:
    assert duration(text) == timedelta(days=days)


def test_a_moment_is_read() -> None:
    assert moment("1970") == datetime(1970, 1, 1, tzinfo=UTC)
    assert moment("2040-01-31") == datetime(2040, 1, 31, tzinfo=UTC)


@pytest.mark.parametrize("text", ["5", "y", "0y", "5h", "-5y", "5y "])
def test_a_shelf_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="expected such as 5y"):
        duration(text)


@pytest.mark.parametrize("text", ["", "70", "2040-1-1", "2040-13-01", "0000", "now"])
def test_a_moment_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="expected such as 1970"):
        moment(text)


# The archive


def test_the_archive_has_what_support_needs_and_no_secret(
    ready: DeviceOnDisk, tmp_path: Path
) -> None:
    secret = ready.directory / "secret"
    secret.write_text("Authorization: Bearer open-sesame")
    text = ready.config.read_text().replace(
        "[repository]", '[repository]\ncredentials = "secret"  # http://user:open-sesame@proxy/'
    )
    ready.config.write_text(text)
    ready.run("check")
    said = ready.run("doctor", "--archive", str(tmp_path / "sick.tar.gz"))
    assert "it holds no secret" in said.out
    with tarfile.open(tmp_path / "sick.tar.gz") as archive:
        names = set(archive.getnames())
        whole = b"".join(
            member.read() for name in names if (member := archive.extractfile(name)) is not None
        )
    base = "firmroot-doctor"
    assert {
        f"{base}/report.json",
        f"{base}/metadata/timestamp.json",
        f"{base}/metadata/snapshot.json",
        f"{base}/metadata/gateway-stable.json",
        f"{base}/metadata/root-chain/0.json",
    } <= names
    assert b"open-sesame" not in whole
    assert b"(struck out)@proxy" in whole


def test_an_archive_that_cannot_be_written_is_an_error(ready: DeviceOnDisk) -> None:
    said = ready.run("doctor", "--archive", str(ready.directory / "no" / "such.tar.gz"))
    assert said.code == ExitCode.USAGE
    assert "name another file with --archive" in said.err


# The recovery anchor.


@dataclass
class Rescue:
    """A device with an anchor, and the URLs where it asks."""

    device: DeviceOnDisk
    anchor: AnchorSimulator
    urls: list[Mirror]

    def doctor(self) -> tuple[int, dict[str, list[str]]]:
        """Exit code, and what was found about the anchor by severity; URLs by their number."""
        said = self.device.run("doctor", before=("--json",))
        found: dict[str, list[str]] = {}
        names = {url.url: str(number) for number, url in enumerate(self.urls)}
        for each in json.loads(said.out)["findings"]:
            subject = names.get(each["subject"], each["subject"])
            if subject in {*names.values(), "recovery anchor"}:
                found.setdefault(each["severity"], []).append(f"{subject}: {each['detail']}")
        return said.code, found


@pytest.fixture
def rescue(publisher: Publisher, mirror: Mirror, device: DeviceOnDisk) -> Iterator[Rescue]:
    publisher.release("1.0", 1, b"an image" * 100)
    root = publisher.repo.files["metadata/1.root.json"]
    anchor = AnchorSimulator(root)
    with Mirror(anchor.files) as one, Mirror(anchor.files) as other:
        urls = f"recovery = {json.dumps([one.url, other.url])}"
        device.make(root, [mirror.url], recovery_root=anchor.files["1.root.json"], repository=urls)
        assert device.run("init").code == 0
        yield Rescue(device, anchor, [one, other])


def test_each_recovery_url_is_asked_on_its_own(rescue: Rescue) -> None:
    before = read_tree(rescue.device.directory)
    code, found = rescue.doctor()
    assert code == 0
    lines = [line for each in found.values() for line in each]
    assert [line.split(";")[0] for line in lines][:2] == [
        "0: recovery root 1, epoch 0",
        "1: recovery root 1, epoch 0",
    ]
    assert {path for url in rescue.urls for path in url.paths} == {"1.root.json", "2.root.json"}
    assert "not be heard" not in str(found)
    assert read_tree(rescue.device.directory) == before


def empty(rescue: Rescue) -> None:
    rescue.urls[1].files = {}


def broken(rescue: Rescue) -> None:
    rescue.urls[1].files = rescue.anchor.files | {"2.root.json": b"{}"}


def another(rescue: Rescue) -> None:
    rescue.urls[1].files = {"1.root.json": AnchorSimulator(b"another").newest()}


def failing(rescue: Rescue) -> None:
    rescue.urls[1].trouble = Trouble(status=503)


BAD = [
    ("nothing is there", empty, "answers, and has no 1.root.json: correct its URL"),
    ("a link that is none", broken, "recovery root 1, epoch 0; "),
    ("another anchor", another, "its 1.root.json is not the one that this device trusts"),
    ("it fails", failing, "503"),
]


@pytest.mark.parametrize(("change", "words"), [c[1:] for c in BAD], ids=[c[0] for c in BAD])
def test_a_bad_recovery_url_is_named_and_hides_no_good_one(
    rescue: Rescue, change: Callable[[Rescue], None], words: str
) -> None:
    change(rescue)
    code, found = rescue.doctor()
    assert code == 0, "it stops no update"
    assert any(line.startswith("1: ") and words in line for line in found["warning"]), found
    assert any("0: recovery root 1, epoch 0" in line for each in found.values() for line in each)


def test_a_new_epoch_and_a_fork_are_told(rescue: Rescue) -> None:
    kept = dict(rescue.anchor.files)
    second = Publisher(RepositorySimulator(epoch=1))
    second.release("2.0", 5, b"another image" * 100)
    rescue.anchor.re_root(second.repo)
    rescue.urls[0].files, rescue.urls[1].files = rescue.anchor.files, kept
    code, found = rescue.doctor()
    assert code == ExitCode.RETRY_LATER, "the mirrors do not have the new epoch yet"
    assert any(line.startswith("0: recovery root 2, epoch 1") for line in found["warning"])
    assert any(
        line.startswith("recovery anchor: epoch 1 has begun, this device is in epoch 0")
        for line in found["warning"]
    )
    fork = AnchorSimulator.__new__(AnchorSimulator)
    fork.__dict__.update(rescue.anchor.__dict__)
    fork.files = dict(kept)
    fork.says = {**rescue.anchor.says, "sha256": "ab" * 32}
    fork.write("root")
    rescue.urls[1].files = fork.files
    code, found = rescue.doctor()
    assert code == ExitCode.NOT_TRUSTED
    assert any("names two primary roots for epoch 1" in line for line in found["error"])


def test_a_re_rooted_device_is_examined_in_its_epoch(rescue: Rescue, mirror: Mirror) -> None:
    second = Publisher(RepositorySimulator(epoch=1))
    second.release("2.0", 5, b"another image" * 100)
    rescue.anchor.re_root(second.repo)
    mirror.files = second.repo.files
    for command in ("update", "confirm"):
        assert rescue.device.run(command).code == 0
    code, found = rescue.doctor()
    assert code == 0
    assert any("0: recovery root 2, epoch 1" in line for each in found.values() for line in each)
    assert "begun" not in str(found)
    mirror.files = {}
    said = rescue.device.run("doctor")
    assert any("answers, and has no repository" in line for line in lines(said, "error"))


def test_a_recovery_root_with_nowhere_to_ask_is_told(
    rescue: Rescue, publisher: Publisher, mirror: Mirror
) -> None:
    root = publisher.repo.files["metadata/1.root.json"]
    rescue.device.make(root, [mirror.url], recovery_root=rescue.anchor.files["1.root.json"])
    code, found = rescue.doctor()
    assert (code, len(found["warning"])) == (0, 1)
    assert "names no URL" in found["warning"][0]


def test_urls_without_a_recovery_root_are_told(ready: DeviceOnDisk, mirror: Mirror) -> None:
    root = (ready.directory / "factory/root.json").read_bytes()
    ready.make(root, [mirror.url], repository='recovery = ["http://127.0.0.1:9/"]')
    said = ready.run("doctor")
    assert any("recovery anchor: repository.recovery is set" in x for x in lines(said, "warning"))
    assert said.code == 0


def test_recovery_urls_that_all_fail_are_told_once_more(rescue: Rescue) -> None:
    for url in rescue.urls:
        url.files = {}
    code, found = rescue.doctor()
    assert code == 0
    assert any("a re-rooting would not be heard" in line for line in found["warning"])
    for url in rescue.urls:
        url.files = rescue.anchor.files
