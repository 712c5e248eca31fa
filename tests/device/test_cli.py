"""`firmroot-device` as a user meets it: what it says, how it exits, what it leaves behind."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.measure import Command, state_writes
from client_reference import cli, config, wiring
from client_reference.errors import ConfigurationError
from client_reference.install.slots import SlotInstaller
from client_reference.payload.segments import SEGMENT
from client_reference.trust import selftest
from client_reference.trust.store import SqliteStore
from tests.power.recorder import require_strace
from tests.simulators.certificates import make_authority
from tests.simulators.device import LAB_NOW, DeviceOnDisk, Publisher
from tests.simulators.mirror import Mirror, Trouble, wait_until
from tests.simulators.repository import RepositorySimulator
from tests.simulators.servers import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable

    from client_reference.manifest import Release

ROOT = Path(__file__).parents[2]
IMAGE = random.Random(1).randbytes(2 * SEGMENT + 17)
COMMANDS = ("init", "check", "update", "confirm", "reject", "status")


def for_the_command(release: Release) -> Release:
    """The same release for the handler `command`."""
    payloads = tuple(replace(payload, handler="command") for payload in release.payloads)
    return replace(release, payloads=payloads)


@pytest.fixture
def ready(publisher: Publisher, device: DeviceOnDisk) -> DeviceOnDisk:
    """An initialised device, and release 1.0."""
    publisher.release("1.0", 1, IMAGE)
    assert device.run("init").code == 0
    return device


def test_from_the_factory_to_a_confirmed_release(publisher: Publisher, ready: DeviceOnDisk) -> None:
    assert "update available: 1.0 (2.0 MiB)" in ready.run("check").out
    assert ready.run("check", "--exit-code").code == 10
    updated = ready.run("update")
    assert (updated.code, ready.slot("B")) == (0, IMAGE)
    assert "1.0 (sequence 1) runs on trial in slot B" in updated.out
    assert updated.out.strip().endswith(f"--config {ready.config} confirm")
    assert "confirmed: 1.0" in ready.run("confirm").out
    assert "no update: 1.0 is installed" in ready.run("check", "--exit-code").out
    publisher.release("1.1", 2, IMAGE[::-1])
    assert ready.run("update").code == 0
    assert ready.slot("A") == IMAGE[::-1]
    assert "rejected: 1.1 is not tried again" in ready.run("reject").out
    assert "it was rejected on this device, by a person or a health check" in ready.run("check").out
    assert "rejected   1 payload: 1 by `reject`" in ready.run("status").out


LACKS = {
    "its credentials": ("[repository]", '[repository]\ncredentials = "nowhere"'),
    "its CA bundle": ("[tls]", '[tls]\nroots = "private"'),
    "its identity": ('"literal:device-1"', '"file:/nowhere"'),
}


@pytest.mark.parametrize("what", LACKS)
def test_a_new_system_that_lacks_something_can_be_rejected(
    publisher: Publisher, ready: DeviceOnDisk, mirror: Mirror, what: str
) -> None:
    """What may be wrong with it must not keep it running."""
    assert ready.run("update").code == 0
    good = ready.config.read_text()
    assert good.count(LACKS[what][0]) == 1
    ready.config.write_text(good.replace(*LACKS[what]))
    mirror.seen.clear()
    assert ready.run("confirm").code == 2
    rejected = ready.run("reject")
    assert rejected.code == 0, rejected.err
    assert "rejected: 1.0 is not tried again" in rejected.out
    assert not mirror.seen
    ready.config.write_text(good)
    publisher.release("1.1", 2, IMAGE[::-1])
    assert ready.run("update").code == 0
    assert ready.slot("B") == IMAGE[::-1]
    assert "confirmed: 1.1" in ready.run("confirm").out


def test_a_rejection_and_a_roll_back_are_told_apart(
    publisher: Publisher, ready: DeviceOnDisk
) -> None:
    ready.run("update")
    ready.run("confirm")
    publisher.release("1.1", 2, IMAGE[::-1])
    ready.run("update")
    record = ready.directory / "slots" / "boot.json"
    fallen = json.loads(record.read_text()) | {"running": "B", "trial": "", "tries": 0}
    record.write_text(json.dumps(fallen))  # the boot loader's tries are used up
    assert "it failed on this device and was rolled back" in ready.run("check").out
    publisher.release("1.2", 3, IMAGE[:-1])
    ready.run("update")
    ready.run("reject")
    said = ready.run("check", "--explain").out
    assert "1.2 (sequence 3): it was rejected on this device, by a person" in said
    assert "1.1 (sequence 2): it failed on this device and was rolled back" in said
    status = ready.run("status").out
    assert "rejected   2 payloads: 1 by `reject`, 1 did not come up and was rolled back" in status
    found = ready.run("status", before=("--json",)).json
    assert [one in found["rejected"] for one in found["rejected_by_request"]] == [True]
    # What is noted is a hint for words: without it nothing else changes.
    for damage in (b"", b"[1]", b'{"a": 1}', b"[" * 9000):
        (ready.directory / "state" / "rejected.json").write_bytes(damage)
        after = ready.run("check", "--explain")
        assert (after.code, "1.2 (sequence 3): it failed on this device" in after.out) == (0, True)
    publisher.release("1.3", 4, IMAGE[:-2])
    assert ready.run("update").code == 0


def test_status_says_everything_there_is(publisher: Publisher, ready: DeviceOnDisk) -> None:
    ready.run("update")
    said = ready.run("status").out
    for words in (
        "gateway/stable  (LAB: its keys protect nothing)",
        "installed  the factory image",
        "trial      1.0 (sequence 1) in slot B",
        "floor      sequence 0, time 2031-01-01T00:00:00Z",
        f"clock      {LAB_NOW}, freshness proven",
        "root 1",
        "gateway-stable 2",
        "anchor     epoch 0, none: it needs recovery-root.json of the factory export and",
        "confirm",
    ):
        assert words in said
    ready.run("confirm")
    status = ready.run("status", before=("--json",)).json
    version = publisher.repo.timestamp.version
    assert status["roles"]["timestamp"]["version"] == version
    assert status["roles"]["root"] == {"version": 1, "expires": "2032-05-13T12:00:00Z"}
    assert status["installed"]["version"] == "1.0"
    assert status["installed"]["slot"] == status["running"] == "B"
    assert (status["phase"], status["candidate"]) == ("idle", None)
    assert (status["lab"], status["freshness"]) == (True, "proven")
    assert status["confirmed_sequence"] == 1
    assert status["next"] == f"firmroot-device --config {ready.config} update"


def test_before_the_first_check_nothing_is_proven_to_be_fresh(ready: DeviceOnDisk) -> None:
    assert f"{LAB_NOW}, freshness unproven: nothing was checked yet" in ready.run("status").out
    assert ready.run("status", before=("--json",)).json["freshness"] == "unproven"
    ready.run("check")
    assert f"{LAB_NOW}, freshness proven\n" in ready.run("status").out
    assert ready.run("status", before=("--json",)).json["freshness"] == "proven"


def test_a_check_without_news_makes_two_requests(mirror: Mirror, ready: DeviceOnDisk) -> None:
    ready.run("check")
    mirror.seen.clear()
    said = ready.run("check", before=("--json",)).json
    assert mirror.paths == ["metadata/2.root.json", "metadata/timestamp.json"]
    assert said["requests"] == 2
    assert len({seen.connection for seen in mirror.seen}) == 1


def test_a_check_says_why_for_every_release(publisher: Publisher, ready: DeviceOnDisk) -> None:
    publisher.hold(1)
    said = ready.run("check", "--explain")
    assert "no update: 1.0 (sequence 1) is not installed: it is on hold" in said.out
    assert "  1.0 (sequence 1): it is on hold" in said.out
    assert ready.run("check", before=("--json",)).json["reason"] == "held"


def test_download_only_then_update(ready: DeviceOnDisk) -> None:
    said = ready.run("update", "--download-only")
    assert "is written and verified in slot B" in said.out
    assert ready.run("status", before=("--json",)).json["phase"] == "staged"
    assert "runs on trial" in ready.run("update").out


def test_no_reboot_leaves_the_restart_to_others(ready: DeviceOnDisk) -> None:
    assert "boots next in slot B" in ready.run("update", "--no-reboot").out
    status = ready.run("status", before=("--json",)).json
    assert (status["running"], status["next"]) == ("A", "restart the device")


def test_who_asks_before_restarting(publisher: Publisher, device: DeviceOnDisk) -> None:
    publisher.release("1.0", 1, IMAGE)
    text = device.config.read_text().replace("[install]", '[install]\nreboot = "ask"')
    device.config.write_text(text)
    device.run("init")
    assert "boots next" in device.run("update").out


def test_results_are_one_object_and_so_are_errors(ready: DeviceOnDisk) -> None:
    updated = ready.run("update", before=("--json",)).json
    assert updated["outcome"] == "rebooting"
    assert updated["image"]["slot"] == "B"
    assert ready.run("confirm", before=("--json",)).json["confirmed"]["version"] == "1.0"
    failed = ready.run("reject", before=("--json",))
    assert failed.out == ""
    error = json.loads(failed.err[failed.err.index("{") :])
    assert error["exit_code"] == failed.code == 5
    assert error["error"].startswith("cannot reject an image")
    assert error["hint"]


def test_init_again_changes_nothing(ready: DeviceOnDisk) -> None:
    ready.run("check")
    before = ready.run("status").out
    again = ready.run("init")
    assert again.code == 0
    assert "initialised before; nothing changed" in again.out
    assert ready.run("status").out == before


def test_init_after_the_root_moved_on_changes_nothing(
    publisher: Publisher, ready: DeviceOnDisk
) -> None:
    publisher.repo.publish("root", "timestamp")
    ready.run("check")
    assert "initialised before; nothing changed: gateway/stable, root 2" in ready.run("init").out


def test_init_knows_its_factory_root_after_the_stored_chain_was_lost(
    publisher: Publisher, ready: DeviceOnDisk
) -> None:
    publisher.repo.publish("root", "timestamp")
    ready.run("check")
    for name in ("a.db", "b.db"):
        with closing(sqlite3.connect(ready.directory / "state" / name)) as db:
            db.execute("DELETE FROM root")
            db.commit()
    assert "initialised before; nothing changed: gateway/stable, root 2" in ready.run("init").out


def test_init_does_not_exchange_one_trust_for_another(ready: DeviceOnDisk) -> None:
    other = Publisher(RepositorySimulator())
    other.repo.rotate("root")
    other.repo.publish("root")
    (ready.directory / "factory" / "root.json").write_bytes(
        other.repo.files["metadata/2.root.json"]
    )
    refused = ready.run("init")
    assert refused.code == 2
    assert "already trusts root version 1 of another chain" in refused.err
    assert f"remove {ready.directory / 'state'} first" in refused.err


def test_init_from_a_directory_that_is_named(device: DeviceOnDisk) -> None:
    (device.directory / "factory").rename(device.directory / "elsewhere")
    missing = device.run("init")
    assert missing.code == 2
    assert "root.json cannot be read (No such file or directory)" in missing.err
    assert device.run("init", "--factory", str(device.directory / "elsewhere")).code == 0


BAD_FACTORY = {
    "floors that are no JSON": ("floors.json", b"{", "a complete JSON document"),
    "floors without a time": ("floors.json", b'{"schema": 1, "product": "gateway"}', "time: found"),
    "floors of another schema": ("floors.json", b'{"schema": 2}', "schema: found 2"),
    "floors of another product": (
        "floors.json",
        b'{"schema":1,"product":"x","epoch":0,"time":"2031-01-01T00:00:00Z","minimum_sequence":0}',
        "is the factory export of 'x', the configuration says 'gateway'",
    ),
    "endless floors": ("floors.json", b" " * 20_000, "longer than 16384 bytes"),
    "a truncated root": ("root.json", b'{"signed": {', "factory/root.json (12 bytes) is damaged"),
    "a truncated recovery root": (
        "recovery-root.json",
        b"{",
        "factory/recovery-root.json (1 bytes) is damaged",
    ),
}


@pytest.mark.parametrize("sentence", BAD_FACTORY)
def test_init_from_a_damaged_export_leaves_nothing(device: DeviceOnDisk, sentence: str) -> None:
    name, content, message = BAD_FACTORY[sentence]
    (device.directory / "factory" / name).write_bytes(content)
    failed = device.run("init")
    assert failed.code in {2, 6}
    assert message in failed.err
    assert "mirror" not in failed.err, "nobody sent it"
    # The same hint is given by commands that have no --factory.
    assert "--factory" not in device.run("check").err.replace("init --factory", "")
    assert device.run("status").code == 3


def test_init_names_a_library_that_is_too_old(
    device: DeviceOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def old(required: object = None) -> None:
        asked.append(required)
        raise ConfigurationError("ml-dsa-65/1 does not verify here: cryptography 38", "install 48")

    for module in (cli, wiring):
        monkeypatch.setattr(module, "check_key_types", old)
    failed = device.run("init")
    assert (failed.code, "cryptography 38" in failed.err) == (2, True)
    assert asked == [{("ed25519", "ed25519")}]
    assert device.run("status").code == 3


def test_a_bad_signature_asks_whether_the_library_is_too_old(
    publisher: Publisher, ready: DeviceOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "metadata/timestamp.json"
    forged = json.loads(publisher.repo.files[path])
    forged["signed"]["version"] = 99
    publisher.repo.files[path] = json.dumps(forged).encode()
    refused = ready.run("check")
    assert refused.code == 6
    assert "timestamp has good signatures of 0 keys, 1 is needed" in refused.err

    def old(_required: object = None) -> None:
        raise ConfigurationError("ed25519 does not verify here: cryptography 38", "install 48")

    monkeypatch.setattr(wiring, "check_key_types", old)
    failed = ready.run("check")
    assert (failed.code, "cryptography 38" in failed.err) == (2, True)


def test_before_init_status_names_it(device: DeviceOnDisk) -> None:
    failed = device.run("status")
    assert failed.code == 3
    assert "no trust state" in failed.err
    assert f"hint: run `firmroot-device --config {device.config} init`" in failed.err


@pytest.mark.parametrize("lost", ["never made", "deleted"])
@pytest.mark.parametrize("command", ["check", "update"])
def test_without_a_store_a_device_begins_from_its_factory_and_says_so(
    device: DeviceOnDisk, command: str, lost: str
) -> None:
    if lost == "deleted":
        device.run("init")
        for path in (device.directory / "state").glob("*.db"):
            path.unlink()
    said = device.run(command)
    assert said.code == 0
    assert "there is no trust state in" in said.err
    assert "started from the factory root and its floors" in said.err
    assert "started from the factory root" not in device.run("status").err


def test_without_a_trial_there_is_nothing_to_reject(device: DeviceOnDisk) -> None:
    refused = device.run("reject")
    assert refused.code == 5
    assert "cannot reject an image: the installation is idle" in refused.err


def test_a_service_may_confirm_at_every_boot(ready: DeviceOnDisk) -> None:
    assert "nothing is on trial" in ready.run("confirm").out
    ready.run("update")
    assert "confirmed: 1.0" in ready.run("confirm").out
    again = ready.run("confirm", before=("--json",))
    assert (again.code, again.json) == (0, {"confirmed": None, "warnings": []})


def test_a_check_during_a_trial_offers_no_update(ready: DeviceOnDisk) -> None:
    ready.run("update")
    said = ready.run("check", "--exit-code")
    assert said.code == 0
    assert "1.0 is on trial" in said.out
    assert "confirm" in said.out.splitlines()[-1]


def test_what_a_mirror_sent_cannot_steer_the_terminal(
    publisher: Publisher, ready: DeviceOnDisk
) -> None:
    good = publisher.repo.files["metadata/timestamp.json"]
    publisher.repo.files["metadata/timestamp.json"] = good.replace(
        b'"_type":"timestamp"', b'"_type":"\\u001b[2J\\u202etimestamp"'
    )
    refused = ready.run("check")
    assert refused.code == 6
    assert "\x1b" not in refused.err
    assert "\u202e" not in refused.err
    assert "\\x1b[2J" in refused.err
    publisher.repo.files["metadata/timestamp.json"] = good
    assert ready.run("check").code == 0


def test_a_lost_store_is_begun_again_from_the_factory_and_that_is_said(
    ready: DeviceOnDisk,
) -> None:
    ready.run("update")
    ready.run("confirm")
    for path in (ready.directory / "state").iterdir():
        if path.stat().st_size:
            path.write_bytes(b"ruins" * 1000)
    said = ready.run("check")
    assert said.code == 0
    assert "started from the factory root and its floors" in said.err
    assert "update available: 1.0" in said.out


def test_a_lab_says_that_it_is_one(ready: DeviceOnDisk) -> None:
    assert "warning: this is a LAB repository: its keys protect" in ready.run("init").err
    assert "(LAB: its keys protect nothing)" in ready.run("status").out
    for command in ("check", "update", "confirm", "status"):
        assert "LAB" not in ready.run(command).err, "said once, not at every command"
    assert ready.run("check", before=("--json",)).json["lab"] is True


def test_time_can_be_set_in_a_lab_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    serious = Publisher()
    del serious.repo.root.unrecognized_fields["x-firmroot-lab"]
    device = DeviceOnDisk(tmp_path, capsys)
    device.make(serious.repo.write("root"), ["http://127.0.0.1:9/"])
    device.run("init")
    for command in ("check", "status"):
        refused = device.run(command)
        assert refused.code == 2
        assert (
            "FIRMROOT_LAB_NOW is set, but the root of this device is not marked LAB" in refused.err
        )
    device.now = ""
    assert device.run("status").code == 0


def test_a_time_of_another_form_is_refused(ready: DeviceOnDisk) -> None:
    ready.now = "tomorrow"
    assert "expected such as 2032-01-01T00:00:00Z" in ready.run("check").err


def test_a_clock_behind_signed_evidence_is_said(publisher: Publisher, ready: DeviceOnDisk) -> None:
    publisher.repo.timestamp.unrecognized_fields["x-firmroot-issued"] = "2031-05-14T11:00:00Z"
    publisher.repo.publish("timestamp")
    ready.run("check")
    ready.now = "1970-01-01T00:00:10Z"
    said = ready.run("check")
    assert said.code == 0
    assert "freshness unproven: this device's clock says 1970-01-01T00:00:10Z" in said.err
    assert "freshness unproven" in ready.run("status").out
    assert ready.run("status", before=("--json",)).json["freshness"] == "unproven"


def test_a_clock_ahead_of_all_that_is_stored_is_said(ready: DeviceOnDisk) -> None:
    ready.run("check")
    right, ready.now = ready.now, "2040-01-01T00:00:00Z"
    told = "your clock or a frozen mirror if the next check does not renew it"
    status = ready.run("status").out
    assert (
        "clock      2040-01-01T00:00:00Z, freshness unproven: timestamp expired at 2032-" in status
    )
    assert told in status
    assert "expired    root, timestamp, snapshot, gateway-builds" in status
    assert ready.run("status", before=("--json",)).json["freshness"] == "unproven"
    found = ready.run("doctor").out
    assert "warning  clock: this device's clock says 2040-01-01T00:00:00Z, evidence" in found
    assert told in found
    assert "your clock or a frozen mirror: set the clock" in ready.run("check").err
    ready.now = right
    assert ready.run("check").code == 0
    assert f"{right}, freshness proven\n" in ready.run("status").out
    assert "ok       clock: " in ready.run("doctor").out


def test_a_mirror_without_tls_is_said_where_it_is_configured(
    mirror: Mirror, ready: DeviceOnDisk
) -> None:
    told = f"{mirror.url}: no TLS, as configured; what is trusted rests on signatures"
    assert f"warning: {told}" in ready.run("init").err
    assert f"transport  {told}" in ready.run("status").out
    assert ready.run("status", before=("--json",)).json["without_tls"] == [mirror.url]
    assert "TLS" not in ready.run("check").err + ready.run("update").err
    said = ready.run("check", before=("--json",)).json
    assert said["degraded"] == [f"{mirror.url} was read over plain HTTP"]


def test_a_mirror_that_fell_back_from_tls_is_said_each_time(
    publisher: Publisher, device: DeviceOnDisk, tmp_path: Path
) -> None:
    publisher.release("1.0", 1, IMAGE)
    stranger = make_authority(tmp_path)  # no store of this device knows it
    with Mirror(publisher.repo.files, stranger.good) as secure:
        device.make(publisher.repo.files["metadata/1.root.json"], [secure.url])
        assert "no TLS" not in device.run("init").err
        for _ in range(2):
            said = device.run("check").err
            assert f"degraded transport: {secure.url} was read over unverified TLS" in said
        assert "no TLS" not in device.run("status").out
        found = device.run("check", before=("--json",)).json
        (told,) = found["degraded"]
        assert told.startswith(f"{secure.url} was read over unverified TLS (TLS failed: ")


def test_a_wrong_channel_is_no_quiet_no_update(ready: DeviceOnDisk) -> None:
    ready.config.write_text(ready.config.read_text().replace('"stable"', '"stabel"'))
    said = ready.run("check", "--exit-code")
    assert said.code == 0
    assert said.out == (
        "no update: likely a mistake in repository.channel of device.toml: the repository has no "
        "channel gateway/stabel, it has: gateway/stable; did you mean gateway/stable?\n"
    )
    found = ready.run("check", before=("--json",)).json
    assert found["reason"] == "no-channel"
    assert found["detail"] in said.out
    ready.config.write_text(ready.config.read_text().replace('"stabel"', '"stable"'))
    assert "update available: 1.0" in ready.run("check").out


def test_metadata_that_expired_are_refused(ready: DeviceOnDisk) -> None:
    ready.now = "2033-01-01T00:00:00Z"
    refused = ready.run("check")
    assert refused.code == 6
    assert "expired at 2032-05-13T12:00:00Z, it is 2033-01-01T00:00:00Z here" in refused.err
    assert "your clock or a frozen mirror" in refused.err
    assert "expired    root: renewed when a check needs them" in ready.run("status").out
    assert "root" in ready.run("status", before=("--json",)).json["expired"]
    ready.now = LAB_NOW
    assert ready.run("check").code == 0, "nothing remains of a clock that was wrong"
    assert "expired  " not in ready.run("status").out


def test_a_web_page_with_status_200_is_named(mirror: Mirror, ready: DeviceOnDisk) -> None:
    mirror.trouble = Trouble(body=b"<html>Welcome</html>", headers={"Content-Type": "text/html"})
    failed = ready.run("check")
    assert failed.code == 4
    assert "Expected JSON, found HTML with status 200" in failed.err
    assert "a captive portal or login page answers instead of the repository" in failed.err


def test_an_unknown_key_is_named_with_the_nearest(ready: DeviceOnDisk) -> None:
    ready.config.write_text(ready.config.read_text().replace("device_id", "devide_id"))
    failed = ready.run("check")
    assert failed.code == 2
    assert f"error: {ready.config}: unknown key identity.devide_id; did you mean" in failed.err
    assert "identity.device_id?" in failed.err


def test_two_updates_at_once(ready: DeviceOnDisk) -> None:
    with SqliteStore(ready.directory / "state"):
        second = ready.run("update")
        assert second.code == 7
        assert str(os.getpid()) in second.err
        assert ready.run("status").code == 0, "looking is always possible"
    assert ready.run("update").code == 0


TRUNCATED = ("timestamp", "snapshot", "targets", "gateway-stable", "gateway-builds")


@pytest.mark.parametrize("role", TRUNCATED)
def test_truncated_metadata_are_named_and_nothing_is_lost(
    publisher: Publisher, ready: DeviceOnDisk, role: str
) -> None:
    path = publisher.repo.location(role)
    whole = publisher.repo.files[path]
    publisher.repo.files[path] = whole[: len(whole) // 2]
    failed = ready.run("update")
    assert failed.code == 6
    assert role in failed.err
    publisher.repo.files[path] = whole
    assert ready.run("update").code == 0


def test_a_truncated_image_is_continued(
    publisher: Publisher, mirror: Mirror, ready: DeviceOnDisk
) -> None:
    mirror.trouble = Trouble(path=".img", cut=SEGMENT + 5)
    (path,) = (path for path in publisher.repo.files if path.endswith(".img"))
    publisher.repo.files[path], whole = IMAGE[: SEGMENT + 5], IMAGE
    failed = ready.run("update")
    assert failed.code == 4
    assert "what was verified of release 1.0 is kept in slot B, which cannot boot" in failed.err
    assert "the system that runs is untouched" in failed.err
    assert "nothing was changed" not in failed.err
    assert ready.slot("B")[:SEGMENT] == IMAGE[:SEGMENT], "it is as it says"
    publisher.repo.files[path] = whole
    mirror.trouble = Trouble(times=0)
    mirror.seen.clear()
    assert ready.run("update").code == 0
    (asked,) = (seen for seen in mirror.seen if seen.path.endswith(".img"))
    assert asked.headers["Range"] == f"bytes={SEGMENT}-{len(IMAGE) - 1}"
    assert ready.slot("B") == IMAGE


def _slot_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)


def _handler_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SlotInstaller, "write", full)


@pytest.mark.parametrize("full", [_slot_is_full, _handler_is_full])
def test_a_full_disk_is_said_and_the_update_goes_on_later(
    ready: DeviceOnDisk, full: Callable[[pytest.MonkeyPatch], None]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        full(patch)
        failed = ready.run("update")
    assert failed.code in {4, 5}
    assert "No space left on device" in failed.err
    assert "Traceback" not in failed.err
    assert ready.run("update").code == 0
    assert ready.slot("B") == IMAGE


def test_a_bug_has_a_traceback_only_for_those_who_ask(
    ready: DeviceOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(wiring, "open_installer", bug)
    quiet = ready.run("check")
    assert quiet.code == 1
    assert "error: this is a bug in firmroot: ZeroDivisionError: oops" in quiet.err
    assert "Traceback" not in quiet.err
    assert "Traceback" in ready.run("check", before=("-v",)).err


USAGE = {
    (): "arguments are required: COMMAND",
    ("fly",): "invalid choice: 'fly'",
    ("check", "--fast"): "unrecognized arguments: --fast",
    ("init", "--factory"): "expected one argument",
}


@pytest.mark.parametrize("arguments", USAGE)
def test_a_wrong_call_is_an_error_like_others(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments, {}) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert USAGE[arguments] in said
    assert "hint: firmroot-device" in said


@pytest.mark.parametrize("command", [(), *((one,) for one in COMMANDS)])
def test_every_command_has_help_with_an_example(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([*command, "--help"], {})
    assert caught.value.code == 0
    assert "Example:\n  firmroot-device" in capsys.readouterr().out


def test_the_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"], {})
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("firmroot-device 0.")


def test_a_setting_without_effect_is_said(ready: DeviceOnDisk) -> None:
    ready.config.write_text(ready.config.read_text() + '[check]\nevery = "12h"\n')
    assert "check.every is not yet honoured by this version" in ready.run("check").err


def test_a_proxy_of_the_environment_is_used_and_one_that_is_none_is_an_error(
    ready: DeviceOnDisk, publisher: Publisher, mirror: Mirror
) -> None:
    root = publisher.repo.files["metadata/1.root.json"]
    with Proxy({"fw.test": mirror}) as proxy:
        ready.make(root, ["http://fw.test/"])
        ready.environment = {"http_proxy": f"http://user:secret@127.0.0.1:{proxy.port}"}
        said = ready.run("check")
        assert said.code == 0
        assert "secret" not in said.err
        assert proxy.heads
        assert all(head.startswith("GET http://fw.test/") for head in proxy.heads)
        ready.environment = {"http_proxy": "socks5://user:secret@127.0.0.1:1080"}
        said = ready.run("check")
        assert said.code == 2
        assert "http_proxy names a SOCKS proxy (socks5://), expected http://HOST:PORT" in said.err
        assert "secret" not in said.err
        assert ready.run("confirm").code == 0, "what needs no network does not look at it"
        proxy.heads.clear()
        ready.make(root, [mirror.url], tls='proxy = "none"')
        assert ready.run("check").code == 0
        ready.make(root, ["http://fw.test/"], tls=f'proxy = "http://127.0.0.1:{proxy.port}"')
        assert ready.run("check").code == 0
        assert proxy.heads


def test_a_403_is_said_and_means_not_there(mirror: Mirror, ready: DeviceOnDisk) -> None:
    mirror.trouble = Trouble(status=403, path="2.root.json")
    said = ready.run("check", before=("--json",))
    assert said.code == 0
    sentence = (
        f"mirror {mirror.url} answers 403 for metadata/2.root.json, which is taken as not there: "
        "it may be a bucket without list permission, or credentials are missing"
    )
    assert said.json["forbidden"] == [sentence]
    assert f"warning: {sentence}\n" in said.err
    assert ready.run("update").code == 0
    mirror.trouble = Trouble(times=0)
    assert "403" not in ready.run("confirm").err
    assert ready.run("check", before=("--json",)).json["forbidden"] == []


def test_a_403_for_what_must_be_there_says_what_it_may_mean(
    mirror: Mirror, ready: DeviceOnDisk
) -> None:
    mirror.trouble = Trouble(status=403, path=".img")
    said = ready.run("update")
    assert said.code == 4
    assert "answers 403 for /targets/builds/gateway/1.0/" in said.err
    assert "repository.credentials or repository.client_certificate" in said.err
    assert f"warning: mirror {mirror.url} answers 403 for targets/builds/" in said.err
    mirror.trouble = Trouble(times=0)
    assert ready.run("update").code == 0


def test_the_way_is_reported_when_the_check_fails_too(
    publisher: Publisher, device: DeviceOnDisk, tmp_path: Path
) -> None:
    publisher.release("1.0", 1, IMAGE)
    stranger = make_authority(tmp_path)  # no store of this device knows it
    with Mirror(publisher.repo.files, stranger.good) as secure:
        device.make(publisher.repo.files["metadata/1.root.json"], [secure.url])
        device.run("init")
        secure.trouble = Trouble(status=503, path="timestamp.json")
        said = device.run("check")
        assert said.code == 4
        assert f"degraded transport: {secure.url} was read over unverified TLS" in said.err


def test_a_check_without_news_asks_for_no_body(mirror: Mirror, ready: DeviceOnDisk) -> None:
    mirror.etags = True
    first = ready.run("check", before=("--json",)).json
    second = ready.run("check", before=("--json",)).json
    assert first["received"] > 1000
    assert (second["requests"], second["received"]) == (2, 0)
    assert second["releases"] == first["releases"]


def test_the_mirror_that_worked_is_asked_first(
    publisher: Publisher, mirror: Mirror, ready: DeviceOnDisk
) -> None:
    with Mirror(publisher.repo.files) as first:
        ready.make(publisher.repo.files["metadata/1.root.json"], [first.url, mirror.url])
        first.trouble = Trouble(status=503)
        assert ready.run("check").code == 0
        asked = len(first.seen)
        assert asked
        first.trouble = Trouble(times=0)
        assert ready.run("check").code == 0
        assert len(first.seen) == asked


def test_a_check_without_news_writes_nothing(
    mirror: Mirror, ready: DeviceOnDisk, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Counted in the real process: no call that writes, in the state or beside it."""
    require_strace()
    scratch = tmp_path_factory.mktemp("trace")
    hint = ready.directory / "cache" / "transport.json"
    line = ["-m", "client_reference", "--config", str(ready.config), "check"]
    command = Command(line, (("FIRMROOT_LAB_NOW", LAB_NOW),))
    mirror.etags = True
    with Mirror({}) as first:
        first.trouble = Trouble(status=503)
        text = ready.config.read_text().replace(mirror.url, f'{first.url}", "{mirror.url}')
        ready.config.write_text(text)
        assert ready.run("check").code == 0
        assert hint.exists()
        mirror.seen.clear()
        assert state_writes(command, ready.directory, scratch) == 0
        assert [seen.headers["If-None-Match"] is None for seen in mirror.seen] == [True, False]
        hint.unlink()
        assert state_writes(command, ready.directory, scratch) > 0, "what is new is written"


def test_private_roots_need_a_bundle(publisher: Publisher, device: DeviceOnDisk) -> None:
    root = publisher.repo.files["metadata/1.root.json"]
    device.make(root, ["https://127.0.0.1:9/"], tls='roots = "private"')
    device.run("init")
    failed = device.run("check")
    assert failed.code == 2
    assert 'tls.roots = "private", but there is neither' in failed.err


CREDENTIALS = {
    "no file": (None, "cannot be read"),
    "no header": ("secret", "does not hold one header"),
    "two headers": ("A: secret\nB: secret", "does not hold one header"),
    "a name with a space": ("A B: secret", "does not hold one header"),
}


@pytest.mark.parametrize("sentence", CREDENTIALS)
def test_credentials_that_are_no_header_are_refused_and_not_shown(
    publisher: Publisher, device: DeviceOnDisk, sentence: str
) -> None:
    content, message = CREDENTIALS[sentence]
    root = publisher.repo.files["metadata/1.root.json"]
    device.make(root, ["https://127.0.0.1:9/"], repository='credentials = "header"')
    if content is not None:
        (device.directory / "header").write_text(content)
    device.run("init")
    failed = device.run("check")
    assert failed.code == 2
    assert message in failed.err
    assert "secret" not in failed.err


def test_a_command_installs_a_whole_verified_file(
    publisher: Publisher, mirror: Mirror, device: DeviceOnDisk
) -> None:
    handler = device.directory / "install.sh"
    handler.write_text(f'#!/bin/sh\ncp "$1" {device.directory}/installed\n')
    handler.chmod(0o755)
    root = publisher.repo.files["metadata/1.root.json"]
    install = (
        f'handler = "command"\nreboot = "ask"\n[install.command]\nrun = ["{handler}", "{{path}}"]'
    )
    device.make(root, [mirror.url], install=install)
    publisher.release(
        "1.0",
        1,
        IMAGE,
        for_the_command,
        handler="command",
    )
    device.run("init")
    updated = device.run("update")
    assert updated.code == 0
    assert "next: restart the device" in updated.out
    assert (device.directory / "installed").read_bytes() == IMAGE
    device.restart()
    assert device.run("confirm").code == 0
    assert "is installed and is the newest" in device.run("check").out


def test_a_broken_download_for_a_command_says_where_it_is_kept(
    publisher: Publisher, mirror: Mirror, device: DeviceOnDisk
) -> None:
    root = publisher.repo.files["metadata/1.root.json"]
    install = 'handler = "command"\nreboot = "ask"\n[install.command]\nrun = ["true", "{path}"]'
    device.make(root, [mirror.url], install=install)
    publisher.release("1.0", 1, IMAGE, for_the_command, handler="command")
    device.run("init")
    mirror.trouble = Trouble(path=".img", status=503)
    failed = device.run("update")
    assert failed.code == 4
    kept = "what was verified of release 1.0 is kept in download.directory"
    assert f"{kept}; the system that runs is untouched" in failed.err
    mirror.trouble = Trouble(times=0)
    assert device.run("update").code == 0


def test_a_command_confirms_nothing_before_the_restart(
    publisher: Publisher, mirror: Mirror, device: DeviceOnDisk
) -> None:
    # Attack on itself: a confirm at the wrong time keeps an image that never ran, and its sequence.
    told = device.directory / "told"
    install = (
        'handler = "command"\nreboot = "ask"\n[install.command]\nrun = ["true", "{path}"]\n'
        f'confirm = ["touch", "{told}"]'
    )
    device.make(publisher.repo.files["metadata/1.root.json"], [mirror.url], install=install)
    publisher.release("1.0", 1, IMAGE, for_the_command, handler="command")
    device.run("init")
    assert device.run("update").code == 0
    refused = device.run("confirm")
    assert refused.code == 5
    assert "release 1.0 boots next, and this device has not restarted since" in refused.err
    assert "restart" in refused.err.split("hint: ")[1]
    assert not told.exists()
    standing = device.run("status", before=("--json",)).json
    assert (standing["phase"], standing["confirmed_sequence"]) == ("trial", 0)
    assert standing["next"] == "restart the device"
    assert "next: restart the device" in device.run("check").out
    assert device.run("update").code == 0
    device.restart()
    assert device.run("status", before=("--json",)).json["next"].endswith(" confirm")
    assert device.run("check").out.splitlines()[-1].endswith(" confirm")
    assert device.run("confirm").code == 0
    assert told.exists()
    assert device.run("status", before=("--json",)).json["confirmed_sequence"] == 1


def test_a_slot_that_waits_for_its_boot_is_not_confirmed_either(
    device: DeviceOnDisk, publisher: Publisher
) -> None:
    publisher.release("1.0", 1, IMAGE)
    device.run("init")
    assert device.run("update", "--no-reboot").code == 0
    refused = device.run("confirm")
    assert refused.code == 5
    assert "is in slot B, but A is running" in refused.err
    assert "next: restart the device" in device.run("check").out
    assert device.run("update").code == 0
    assert device.run("confirm").code == 0


def test_a_file_above_the_quota_is_refused(
    publisher: Publisher, mirror: Mirror, device: DeviceOnDisk
) -> None:
    root = publisher.repo.files["metadata/1.root.json"]
    install = 'handler = "command"\n[install.command]\nrun = ["true", "{path}"]'
    device.make(root, [mirror.url], install=install, download='quota = "1MiB"')
    publisher.release(
        "1.0",
        1,
        IMAGE,
        for_the_command,
        handler="command",
    )
    device.run("init")
    refused = device.run("update")
    assert refused.code == 5
    assert "download.quota allows 1048576" in refused.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_update_keeps_its_state_and_goes_on(
    mirror: Mirror, ready: DeviceOnDisk, number: signal.Signals
) -> None:
    mirror.trouble = Trouble(path=".img", drip=0.5)
    command = [sys.executable, "-m", "client_reference", "--config", str(ready.config), "update"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "FIRMROOT_LAB_NOW": LAB_NOW},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_until(lambda: any(path.endswith(".img") for path in mirror.paths), 20)
        time.sleep(0.1)
        process.send_signal(number)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "interrupted; what was done so far is kept" in said
    assert "Traceback" not in said
    mirror.trouble = Trouble(times=0)
    assert ready.run("update").code == 0
    assert ready.slot("B") == IMAGE


@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_in_every_command(
    ready: DeviceOnDisk, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = ready.run("status").out
    with monkeypatch.context() as patch:
        patch.setattr(config, "load", interrupted)
        stopped = ready.run(command)
    assert stopped.code == 130
    assert "run the same command again" in stopped.err
    assert ready.run("status").out == before


def test_init_names_a_library_that_a_later_root_could_need(
    publisher: Publisher, device: DeviceOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.release("1.0", 1, IMAGE)
    verifies = selftest._verifies
    monkeypatch.setattr(
        selftest, "_verifies", lambda kind, scheme: kind != "ml-dsa" and verifies(kind, scheme)
    )
    said = device.run("init")
    assert said.code == 0, "this root needs none of it"
    assert "good signatures of type ml-dsa/ml-dsa-65/1 do not verify here" in said.err
    assert device.run("update").code == 0


class Deaf(io.TextIOBase):
    """A standard error whose reader has gone, or whose file is full."""

    def __init__(self, error: OSError) -> None:
        self.error = error

    def write(self, _: str) -> int:
        raise self.error


@pytest.mark.parametrize(
    "stream", [None, Deaf(BrokenPipeError()), Deaf(OSError(errno.ENOSPC, "full"))]
)
def test_a_warning_that_nobody_reads_stops_no_update(
    ready: DeviceOnDisk, monkeypatch: pytest.MonkeyPatch, stream: Deaf | None
) -> None:
    """The store is lost, so there is one before anything is fetched."""
    for copy in ("a.db", "b.db"):
        (ready.directory / "state" / copy).unlink()
    monkeypatch.setattr(sys, "stderr", stream)
    where = ("--config", str(ready.config))
    assert cli.main([*where, "update"], {"FIRMROOT_LAB_NOW": LAB_NOW}) == 0
    assert cli.main([*where, "confirm", "x"], {}) == 2
    assert ready.slot("B") == IMAGE


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["lines", "JSON"])
def test_a_command_whose_reader_has_gone_goes_on_and_ends_with_its_own_code(
    ready: DeviceOnDisk, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    """`firmroot-device update | head -1`, and nothing is kept back for later."""
    reader, writer = os.pipe()
    os.close(reader)
    with io.TextIOWrapper(io.FileIO(writer, "w"), write_through=True) as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        where = ("--config", str(ready.config), *options)
        assert cli.main([*where, "check", "--exit-code"], {"FIRMROOT_LAB_NOW": LAB_NOW}) == 10
        assert cli.main([*where, "update"], {"FIRMROOT_LAB_NOW": LAB_NOW}) == 0
        assert cli.main([*where, "confirm", "x"], {}) == 2
    assert ready.slot("B") == IMAGE


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_false_announcement_costs_a_check_one_request_for_each_way(
    publisher: Publisher, device: DeviceOnDisk, count: int
) -> None:
    publisher.release("1.0", 1, IMAGE)
    with ExitStack() as stack:
        mirrors = [stack.enter_context(Mirror(publisher.repo.files)) for _ in range(count)]
        device.make(publisher.repo.files["metadata/1.root.json"], [one.url for one in mirrors])
        assert [device.run(one).code for one in ("init", "update", "confirm", "check")] == [0] * 4
        publisher.repo.timestamp.unrecognized_fields["x-firmroot-root"] = 99
        publisher.repo.publish("timestamp")
        for _ in range(3):
            for mirror in mirrors:
                mirror.seen.clear()
            said = device.run("check", before=("--json",))
            assert (said.code, said.json["missing_root"]) == (0, 99)
            first, *others = (one.paths for one in mirrors)
            assert first.count("metadata/2.root.json") == 2, "once more past its caches"
            assert first.count("metadata/timestamp.json") == 1
            assert others == [["metadata/2.root.json"] * 2] * (count - 1)
        assert said.json["requests"] == 2 + 2 * count - 1
        publisher.repo.publish("root")
        publisher.repo.announce()
        publisher.release("1.1", 2, b"another image")
        assert device.run("check", before=("--json",)).json["missing_root"] is None
        assert device.run("update").code == 0


@pytest.mark.parametrize("runs", ["A", "B"])
def test_a_lost_boot_record_has_no_slot_written_until_somebody_says_which_one_runs(
    publisher: Publisher, device: DeviceOnDisk, runs: str
) -> None:
    publisher.release("1.0", 1, IMAGE)
    device.run("init")
    slots = device.directory / "slots"
    slots.mkdir()
    (slots / "A.img").write_bytes(b"the factory image")
    assert device.run("update").code == 0
    assert device.run("confirm").code == 0
    if runs == "A":
        publisher.release("1.1", 2, b"another image")
        assert device.run("update").code == 0
        assert device.run("confirm").code == 0
    publisher.release("1.2", 3, b"the newest image")
    before = [device.slot("A"), device.slot("B")]
    record = slots / "boot.json"
    for damage in (b"{", None):  # damaged, and then deleted as one does
        record.unlink()
        if damage is not None:
            record.write_bytes(damage)
        refused = device.run("update")
        assert refused.code == 5
        assert "which slot runs must be said" in refused.err
        assert [device.slot("A"), device.slot("B")] == before
        assert damage is None or record.read_bytes() == damage
        hint = refused.err.split("hint: ")[1].strip()
        record.write_text(hint[hint.index("{") :].replace('"A"', f'"{runs}"'))
    assert device.run("update").code == 0
    assert device.slot(runs) == before["AB".index(runs)]
    assert device.slot("B" if runs == "A" else "A") == b"the newest image"
    assert device.run("confirm").code == 0
