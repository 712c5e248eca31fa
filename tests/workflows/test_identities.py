"""Builder, release manager and publisher, each on a machine and with one key of their own."""

from __future__ import annotations

import errno
import json
import shutil
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest

from client_reference.errors import ExitCode
from repo_tools.publishing import intake, submit
from repo_tools.publishing import publish as publishing
from repo_tools.publishing.plan import StaleError
from repo_tools.publishing.publish import publish
from tests.simulators.device import DeviceOnDisk
from tests.simulators.disk import full_disk
from tests.simulators.mirror import Mirror
from tests.workflows.drill import Published
from tests.workflows.identities import Company, Machine

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def company(founded: Company, tmp_path: Path) -> Company:
    """Nothing was built yet."""
    return founded.copy(tmp_path / "acme")


@pytest.fixture
def live(shipped: Company, tmp_path: Path) -> Company:
    """1.0 is live."""
    return shipped.copy(tmp_path / "acme")


def test_three_identities_bring_firmware_to_a_device(
    company: Company, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ci, publisher = company["ci"], company["publisher"]
    for name in ("ci", "rita", "sam", "publisher"):
        keys = sorted(path.stem for path in (company.top / name).rglob(".firmroot/keys/*.pem"))
        assert keys == [name], "each has only their own key"

    # The builder signs and hands in; without online keys nothing becomes visible.
    image = bytes(range(256)) * 5000
    ci.build("1.0", image)
    said = ci("publish", code=ExitCode.ACTION_REQUIRED)
    assert "this machine cannot sign as publisher" in said
    assert "hint: hand the work to the publisher: firmroot submit" in said
    assert "next: firmroot submit  (gateway-builds: signed and staged" in ci("status")
    assert "firmroot publish" not in publisher("status").splitlines()[-1]
    said = ci.submit()
    assert "gateway-builds 1  handed in" in said
    assert "next: nothing to do  (gateway-builds: handed in; firmroot submit --status" in said
    assert "inbox: 1 submission for the publisher" in publisher("status")
    assert "next: firmroot publish  (the inbox has 1 submission)" in publisher("status")
    assert "gateway-builds 1  already there" in ci.submit()
    assert "gateway-builds 1  waits" in ci.submit("--status", code=ExitCode.RETRY_LATER)

    # The publisher takes it in; the builder's machine is told, and forgets what is live.
    said = publisher("publish")
    assert "published timestamp 2: snapshot 2, gateway-builds 1" in said
    assert "gateway-builds 1 (" in said
    assert "): published" in said
    assert "gateway-builds 1  published" in ci.submit("--status")
    assert "nothing to hand in" not in ci.submit()
    assert not ci.staged.exists()
    assert not list((ci.directory / ".firmroot/outbox").rglob("*.img"))
    assert not list((company.inbox / "submissions").rglob("*.json"))
    assert "nothing was promoted" in company.device()

    # Two release managers promote it from their own machines; the second hands it in.
    sam = company.promote("1.0")
    said = sam("publish", code=ExitCode.ACTION_REQUIRED)
    assert "this machine cannot sign as publisher" in said
    assert "gateway-stable 1  handed in" in sam.submit()
    assert "gateway-stable 1" in publisher("publish")
    assert "gateway-stable 1  published" in sam.submit("--status")

    assert "verified" in publisher("history", "--verify")

    device = DeviceOnDisk(tmp_path / "device", capsys, now="")
    with Mirror(Published(company.storage)) as mirror:
        device.make((company.storage / "metadata/1.root.json").read_bytes(), [mirror.url])
        floors = device.directory / "factory/floors.json"
        floors.write_text(floors.read_text().replace("2031", "2020"))
        done = device.run("update")
        assert done.code == 0, done
        assert device.slot("B") == image or device.slot("A") == image
        assert mirror.paths, "it asked the mirror"


def test_a_channel_that_is_handed_in_before_its_build_waits_for_it(live: Company) -> None:
    # The release manager knows the build from a copy; the publisher does not have it yet.
    ci, publisher = live["ci"], live["publisher"]
    ci.build("1.1")
    for name in ("rita", "sam"):
        there = live[name].staged
        there.parent.mkdir(exist_ok=True)
        shutil.copy(ci.staged, there)
        shutil.copytree(
            ci.directory / ".firmroot/outbox", there.parent.parent / "outbox", dirs_exist_ok=True
        )
    sam = live.promote("1.1")
    for name in ("rita", "sam"):
        live[name].staged.unlink()
    assert "gateway-stable 2  handed in" in sam.submit()
    said = publisher("publish")
    assert "inbox    gateway-stable 2" in said
    assert "waits: gateway-stable offers builds/gateway/1.1/gw2.img, and no builds role" in said
    said = sam.submit("--status", code=ExitCode.RETRY_LATER)
    assert "gateway-stable 2  waits" in said
    assert "no builds role that lists it is live" in said
    asked = (sam.submission(), ci.submission())
    found = ci.json("submit", "--status", *asked, code=ExitCode.RETRY_LATER)["submissions"]
    assert [each["role"] for each in found] == ["gateway-builds", "gateway-stable"]
    said = publisher("publish")
    assert "gateway-builds 2, gateway-stable 2" in said
    assert live.device() == "installs 1.1"
    assert "gateway-stable 2  published" in sam.submit("--status")
    assert not list((live.inbox / "waiting").glob("*"))


def test_a_builder_who_loses_the_race_rebases_and_signs_again(live: Company) -> None:
    one, two, publisher = live["ci"], live["ci-2"], live["publisher"]
    one.build("1.1", name="one.img")
    two.build("1.2", name="two.img")
    one.submit()
    two.submit()
    said = publisher("publish")
    assert "gateway-builds 2" in said
    assert "refused: gateway-builds 2 was made from what is no longer live; version 2 is" in said
    first = {each["version"] for each in publisher.json("firmware", "list")["firmware"]} - {"1.0"}
    winner, loser = (one, two) if first == {"1.1"} else (two, one)
    assert "gateway-builds 2  published" in winner.submit("--status")
    told = loser.submit("--status", code=ExitCode.REFUSED)
    assert "run firmroot submit again: builds are made anew on what is live by themselves" in told
    said = loser.submit()
    assert "made anew on what is live as version 3, and signed again" in said
    assert "has sequence 3 now, not 2" in said
    assert "gateway-builds 3  handed in" in said
    assert "gateway-builds 3" in publisher("publish")
    rows = publisher.json("firmware", "list")["firmware"]
    assert sorted(each["version"] for each in rows) == ["1.0", "1.1", "1.2"]
    assert sorted(each["sequence"] for each in rows) == [1, 2, 3]
    for machine in (one, two):
        machine.submit()
        assert not machine.staged.exists()
        assert not list((machine.directory / ".firmroot/outbox").rglob("*.img"))


def test_a_machine_without_the_key_says_who_must_sign_again(live: Company) -> None:
    one, two, publisher = live["ci"], live["ci-2"], live["publisher"]
    two.build("1.2", name="two.img")
    one.build("1.1")
    one.submit()
    publisher("publish")
    two.workspace.remove_key_uri("ci-2")
    said = two.submit(code=ExitCode.ACTION_REQUIRED)
    assert "gateway-builds 2 was made from what is no longer live (version 2 is)" in said
    assert "must be signed again by ci or ci-2" in said
    assert "hint: where the key ci or ci-2 is, add the firmware again" in said
    two.workspace.add_key_uri("ci-2", "file:.firmroot/keys/ci-2.pem")
    assert "gateway-builds 3  handed in" in two.submit()
    assert "gateway-builds 3" in publisher("publish")


def test_a_release_manager_who_loses_the_race_is_told_who_signs_again(live: Company) -> None:
    ci, sam, publisher = live["ci"], live["sam"], live["publisher"]
    ci.build("1.1")
    ci.submit()
    publisher("publish")
    # Two promotions from the same base: the second one is stale once the first is live.
    live.copy(live.top.parent / "elsewhere")
    sam = live.promote("1.1")
    other = Company(live.top.parent / "elsewhere")
    shutil.rmtree(other.storage)
    other.storage.symlink_to(live.storage)
    late = other.promote("1.1")
    sam.submit()
    publisher("publish")
    said = late.submit(code=ExitCode.REFUSED)
    assert "gateway-stable 2 was made from version 1, and version 2 is live" in said
    assert "it must be signed again, by rita or sam or tess" in said
    assert "git pull, then the change again" in said
    live.ship("1.2")


@pytest.mark.services  # long
def test_what_is_signed_on_top_of_what_was_handed_in_goes_after_it(live: Company) -> None:
    """Two promotions in a row, without a look at what became of the first."""
    ci, rita, sam, publisher = (live[name] for name in ("ci", "rita", "sam", "publisher"))
    for version in ("1.1", "1.2", "1.3"):
        ci.build(version, name=f"{version}.img")
    ci.submit()
    publisher("publish")
    for machine in (rita, sam):
        machine.submit()
    live.copy(live.top.parent / "elsewhere")
    live.promote("1.1").submit()
    shutil.copytree(sam.directory / "staged", rita.directory / "staged", dirs_exist_ok=True)
    live.promote("1.2")
    publisher("publish")
    assert live.device() == "installs 1.1"

    # Who signed the same two elsewhere did not make them from what is live, and is told so: the
    # first one with what was handed in here in mind, the second one without.
    other = Company(live.top.parent / "elsewhere")
    shutil.rmtree(other.storage)
    other.storage.symlink_to(live.storage)
    late = other.promote("1.2")
    stale = "gateway-stable {} was made from version 1, and version 2 is live"
    before, after = (each.directory / ".firmroot/submitted" for each in (late, sam))
    shutil.copytree(before, live.top / "before")
    shutil.copytree(after, before, dirs_exist_ok=True)
    assert stale.format(2) in late.submit(code=ExitCode.REFUSED)
    shutil.rmtree(before)
    shutil.copytree(live.top / "before", before)
    staged = other["rita"].directory / "staged"
    shutil.copytree(late.directory / "staged", staged, dirs_exist_ok=True)
    other.promote("1.3")
    assert stale.format(3) in late.submit(code=ExitCode.REFUSED)
    (late.directory / "metadata/gateway-stable.json").unlink()
    assert "gateway-stable 3 was made from nothing" in late.submit(code=ExitCode.REFUSED)

    assert "gateway-stable 3  handed in" in sam.submit()
    publisher("publish")
    assert live.device() == "installs 1.2"


def test_whoever_is_on_call_stops_a_release_from_another_machine(live: Company) -> None:
    call = live["oncall-1"]
    call.submit()
    call("channel", "hold", "gateway@1.0", "--on", "stable")
    call("sign")
    assert "gateway-stable-hold 1  handed in" in call.submit()
    assert "gateway-stable-hold 1" in live["publisher"]("publish")
    assert "it is on hold" in live.device()
    call.submit()
    call("channel", "unhold", "gateway@1.0", "--on", "stable")
    call("sign")
    call.submit()
    live["publisher"]("publish")
    assert live.device() == "installs 1.0"


def test_one_machine_with_all_keys_can_do_it_too(live: Company) -> None:
    """What lies in the inbox and is staged here as well is one and the same."""
    publisher = live["publisher"]
    for name in ("ci", "rita", "sam"):
        key = live[name].directory / f".firmroot/keys/{name}.pem"
        publisher("key", "import", key)
    publisher.build("1.1")
    publisher.submit()
    said = publisher("publish")
    assert "gateway-builds 2" in said
    assert "): published" in said
    publisher("channel", "promote", "gateway@1.1", "--to", "stable")
    publisher("sign")
    publisher("publish")
    assert live.device() == "installs 1.1"


def test_a_builder_with_all_keys_who_lost_the_race_is_told_the_way(live: Company) -> None:
    publisher = live["publisher"]
    publisher("key", "import", live["ci-2"].directory / ".firmroot/keys/ci-2.pem")
    publisher.build("1.2", name="two.img")
    live["ci"].build("1.1", name="one.img")
    live["ci"].submit()
    said = publisher("publish")
    assert "waits: another gateway-builds is staged in the publisher's workspace" in said
    assert "gateway-builds 2" in said, "its own goes first"
    assert "refused" in publisher("publish")
    assert "made anew on what is live as version 3" in live["ci"].submit()
    publisher("publish")
    rows = publisher.json("firmware", "list")["firmware"]
    assert sorted(each["version"] for each in rows) == ["1.0", "1.1", "1.2"]


def test_what_root_and_targets_signed_does_not_go_by_the_inbox(company: Company) -> None:
    office = company["office"]
    office("ceremony", "start", "targets")
    office("sign")
    said = office.submit()
    assert "targets: not by the inbox; it goes to the publisher by git" in said
    assert not list(company.inbox.rglob("*.json"))
    # Its root is staged as well, and live: nobody needs to take that anywhere. Nor a build.
    assert (office.directory / "staged/root.json").exists()
    company["ci"].build("1.0")
    office.staged.parent.mkdir(exist_ok=True)
    shutil.copy(company["ci"].staged, office.staged)
    shutil.copytree(
        company["ci"].directory / ".firmroot/outbox", office.directory / ".firmroot/outbox"
    )
    found = office.json("submit")
    assert found["by_git"] == ["targets"]
    assert [each["role"] for each in found["submissions"]] == ["gateway-builds"]


def test_json_says_the_same(company: Company) -> None:
    ci, publisher = company["ci"], company["publisher"]
    ci.build("1.0")
    [handed] = ci.json("submit")["submissions"]
    assert (handed["role"], handed["version"], handed["fate"]) == ("gateway-builds", 1, "handed in")
    [status] = ci.json("submit", "--status", handed["id"], code=4)["submissions"]
    assert status["fate"] == "waits"
    found = publisher.json("publish")
    assert [each["outcome"] for each in found["inbox"]] == ["published"]
    assert found["inbox"][0]["id"] == handed["id"]
    [status] = ci.json("submit", "--status", handed["id"])["submissions"]
    assert status["fate"] == "published"
    # Whoever has never seen it can ask as well: a CI runner has no memory.
    [status] = company["rita"].json("submit", "--status", handed["id"])["submissions"]
    known = status["role"], status["version"], status["fate"]
    assert known == ("gateway-builds", 1, "published")


def test_nonsense_on_the_command_line(company: Company) -> None:
    ci = company["ci"]
    assert "nothing to hand in" in ci.submit()
    assert "nothing was handed in from this machine" in ci.submit("--status")
    said = ci.submit("x", code=ExitCode.USAGE)
    assert "hint: to see what became of it: firmroot submit --status x" in said
    assert "64 hex digits" in ci.submit("--status", "x", code=ExitCode.USAGE)
    said = ci.submit("--status", "0" * 64, code=ExitCode.USAGE)
    assert "there is no submission 000" in said


def test_before_the_first_publish_nothing_can_be_handed_in(company: Company) -> None:
    ci = company["ci"]
    shutil.rmtree(ci.directory / "metadata")
    shutil.rmtree(company.storage)
    (ci.directory / "staged").mkdir()
    publisher = company["publisher"].directory
    root = publisher / "metadata/root/1.json"
    shutil.copy(root, ci.directory / "staged/root.json")
    shutil.rmtree(ci.directory / "history")
    assert "nothing is published yet" in ci.submit(code=ExitCode.ACTION_REQUIRED)


def _standing(machine: Machine) -> str:
    """What became of what a machine handed in last, whatever it is."""
    with machine.environment():
        found = submit.standings(machine.workspace, machine.workspace.storage())
    return found[-1].fate.value


def test_a_publisher_who_loses_the_race_looks_at_the_inbox_again(live: Company) -> None:
    """Between the look at the inbox and the commit another publisher takes the other builder's."""
    one, two, publisher = live["ci"], live["ci-2"], live["publisher"]
    shutil.copytree(publisher.directory, live.top / "publisher-2")
    rival = live["publisher-2"]
    one.build("1.1", name="one.img")
    two.build("1.2", name="two.img")
    first, second = sorted([one.submission(), two.submission()])
    hidden = live.top / "hidden"
    calls = 0

    def loses(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401  those of `publish`
        nonlocal calls
        calls += 1
        if calls == 1:
            (live.inbox / "submissions" / first).rename(hidden)
            with patch.object(intake, "publish_staged", publish):
                assert f"({second[:8]}): published" in rival("publish")
            hidden.rename(live.inbox / "submissions" / first)
        return publish(*arguments, **options)

    with patch.object(intake, "publish_staged", loses):
        said = publisher("publish")
    assert calls == 2
    assert f"({first[:8]}): refused: gateway-builds 2 was made from what is no longer live" in said
    assert "nothing to publish" in said
    late = one if "refused" in _standing(one) else two
    assert "handed in" in late.submit()
    assert "gateway-builds 3" in publisher("publish")


def test_a_publisher_tries_again_only_while_there_is_something_to_drop(live: Company) -> None:
    ci, publisher = live["ci"], live["publisher"]
    stale = StaleError("gateway-builds moved on", "again")
    with patch.object(intake, "publish_staged", side_effect=stale) as tried:
        assert "gateway-builds moved on" in publisher("publish", code=ExitCode.REFUSED)
    assert tried.call_count == 1, "its own work is stale, and stays so"
    ci.build("1.1")
    identity = ci.submission()
    leftovers = publisher.directory / ".firmroot/inbox" / ("0" * 64)
    leftovers.mkdir(parents=True)
    with patch.object(intake, "publish_staged", side_effect=stale) as tried:
        assert "gateway-builds moved on" in publisher("publish", code=ExitCode.REFUSED)
    assert tried.call_count == intake._ROUNDS
    # The copy of what still waits is kept for the next time, and nothing else.
    assert [each.name for each in leftovers.parent.iterdir()] == [identity]
    assert f"({identity[:8]}): published" in publisher("publish")
    assert not list(leftovers.parent.glob("*"))


def test_what_was_handed_in_by_half_is_told_and_finished(live: Company) -> None:
    ci, publisher = live["ci"], live["publisher"]
    ci.build("1.1")
    identity = ci.submission()
    (live.inbox / "submissions" / identity / "submission.json").unlink()
    for words in ((), (identity,)):
        said = ci.submit("--status", *words, code=ExitCode.RETRY_LATER)
        assert "gateway-builds 2  unfinished" in said
    assert "nothing to publish" in publisher("publish")
    assert "gateway-builds 2  handed in" in ci.submit()
    assert "gateway-builds 2" in publisher("publish")
    # And what somebody answered and did not clear away, the next one does.
    there = live.inbox / "submissions" / identity
    there.mkdir()
    (there / "submission.json").write_bytes(b"{}")
    publisher("publish")
    assert not there.exists()


def test_a_full_disk_of_the_publisher_is_nobodys_fault(live: Company) -> None:
    ci, publisher = live["ci"], live["publisher"]
    ci.build("1.1")
    identity = ci.submission()
    with full_disk(errno.ENOSPC):
        assert "the disk is full" in publisher("publish", code=ExitCode.RETRY_LATER)
    assert "waits" in ci.submit("--status", identity, code=ExitCode.RETRY_LATER)
    assert f"({identity[:8]}): published" in publisher("publish")


@pytest.mark.parametrize("again", ["refresh", "publish"])
def test_what_a_killed_publish_owes_to_history_is_finished(company: Company, again: str) -> None:
    publisher = company["publisher"]
    company["ci"].build("1.0")
    company["ci"].submit()
    publisher("publish")
    sam = company.promote("1.0")
    identity = sam.submission()
    with patch.object(publishing, "settle", side_effect=KeyboardInterrupt):
        publisher("publish", code=ExitCode.INTERRUPTED)
    assert company.device() == "installs 1.0", "it was committed"
    found = publisher.json(again).get("inbox")
    assert "published" in sam.submit("--status", identity)
    found = found or publisher.json("publish")["inbox"]
    assert [(each["id"], each["outcome"]) for each in found] == [(identity, "published")]
    assert not list((company.inbox / "submissions").glob("*"))
    assert "verified" in publisher("history", "--verify")
    [manifest] = (company.storage / "targets/channels/gateway").iterdir()
    kept = [path.read_bytes() for path in (publisher.directory / "history/objects").iterdir()]
    assert manifest.read_bytes() in kept


@pytest.mark.services  # long
def test_what_the_publisher_has_staged_and_cannot_publish_is_nobodys_fault(live: Company) -> None:
    ci, publisher = live["ci"], live["publisher"]
    ci.build("1.1")
    ci.submit()
    publisher("publish")
    for name in ("rita", "sam"):
        live[name].submit()
    other = live.copy(live.top.parent / "elsewhere")
    live.promote("1.1").submit()
    publisher("publish")
    # Somebody gave it the same promotion by git as well, signed elsewhere from what was live then.
    stale = other.promote("1.1").directory / "staged"
    shutil.copytree(stale, publisher.directory / "staged", dirs_exist_ok=True)
    role = publisher.directory / "staged/gateway-stable.json"
    role.write_text(json.dumps(json.loads(role.read_text()), indent=2))
    ci.build("1.2")
    identity = ci.submission()
    said = publisher("publish", code=ExitCode.REFUSED)
    assert "gateway-stable" in said
    assert "inbox" not in said
    [status] = ci.json("submit", "--status", identity, code=ExitCode.RETRY_LATER)["submissions"]
    assert (status["fate"], status["reason"]) == ("waits", "for the publisher")
    shutil.rmtree(publisher.directory / "staged")
    assert f"({identity[:8]}): published" in publisher("publish")


def test_what_is_wrong_with_the_publisher_is_not_blamed_on_a_submitter(live: Company) -> None:
    ci, publisher = live["ci"], live["publisher"]
    ci.build("1.1")
    identity = ci.submission()
    policy = publisher.directory / "policy.toml"
    good = policy.read_text()
    at = good.index("[roles.timestamp]")
    policy.write_text(good[:at] + good[at:].replace("threshold = 1", "threshold = 2", 1))
    said = publisher("publish", code=ExitCode.REFUSED)
    assert "roles.timestamp: threshold 2 is above its 1 keys" in said
    assert "inbox" not in said
    [status] = ci.json("submit", "--status", identity, code=ExitCode.RETRY_LATER)["submissions"]
    assert (status["fate"], status["reason"]) == ("waits", "for the publisher")
    policy.write_text(good)

    # Without its keys it publishes nothing, and refuses nobody either.
    key = publisher.directory / ".firmroot/keys/publisher.pem"
    key.rename(live.top / "away.pem")
    said = publisher("publish", code=ExitCode.ACTION_REQUIRED)
    assert "this machine cannot sign as publisher" in said
    assert "inbox" not in said
    [status] = ci.json("submit", "--status", identity, code=ExitCode.RETRY_LATER)["submissions"]
    assert (status["fate"], status["reason"]) == ("waits", "for the publisher")
    (live.top / "away.pem").rename(key)
    assert f"({identity[:8]}): published" in publisher("publish")


def test_a_stolen_builds_key_makes_no_key_of_the_publisher_elsewhere(live: Company) -> None:
    """`[online]` of firmroot.toml names the publisher's key in every clone, and it is in none."""
    ci, publisher = live["ci"], live["publisher"]
    before = ci.workspace.config.online
    ci("key", "new", "ci-3")
    said = ci("recover", "stolen-key", "ci", "--to", "ci-3")
    keys = [path.stem for path in ci.directory.glob(".firmroot/keys/*.pem")]
    assert sorted(keys) == ["ci", "ci-3"]
    assert ci.workspace.config.online == before
    assert said.count("where publisher is: firmroot rotate publisher --to NEW\n") == 1

    # The publisher's own machine has it, so the command works there.
    publisher("key", "new", "publisher-2")
    said = publisher("rotate", "publisher", "--to", "publisher-2")
    assert "publisher-2 takes the place of publisher in: snapshot, timestamp" in said
