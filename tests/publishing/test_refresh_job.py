"""`firmroot refresh` as a job: what it leaves for a monitor, and when it fails loudly."""

from __future__ import annotations

import re
from contextlib import nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from client_reference.errors import ActionRequiredError, LockedError, RetryLaterError
from repo_tools.files import DiskFullError
from repo_tools.publishing import refresh as job
from repo_tools.publishing import watch
from repo_tools.publishing.watch import check_people, endings
from repo_tools.storage.local import LocalStorage
from tests.publishing.kills import count_operations, run_killed
from tests.publishing.lab import Lab

if TYPE_CHECKING:
    from pathlib import Path


def _metrics(path: Path) -> dict[str, int]:
    found = re.findall(r"^(firmroot_[^ ]+) (-?\d+)$", path.read_text(), re.MULTILINE)
    return {name.removeprefix("firmroot_"): int(value) for name, value in found}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "firmroot.prom"


def test_a_run_leaves_what_a_monitor_needs(live: Lab, file: Path) -> None:
    later = live.later(days=3)
    later.ok("ceremony", "start", "root")
    later.ok("refresh", "--metrics", file)
    found = _metrics(file)
    now = int(later.now.timestamp())
    assert found["refresh_heartbeat_timestamp_seconds"] == now
    assert found["refresh_success_timestamp_seconds"] == now
    assert found["refresh_exit_code"] == 0
    assert found["live_readable"] == 1
    assert found["timestamp_age_seconds"] == 0
    assert found["open_ceremonies"] == 1
    assert found['expiry_seconds{role="timestamp"}'] == 7 * 86400
    roles = {name for name in found if name.startswith("expiry_seconds")}
    assert roles == {
        f'expiry_seconds{{role="{role}"}}'
        for role in ("root", "targets", "snapshot", "timestamp", "gateway-builds", "gateway-stable")
    } | {name for name in roles if "hold" in name}


def test_a_failure_is_told_and_the_last_success_stays(live: Lab, file: Path) -> None:
    live.ok("refresh", "--metrics", file)
    stamp = live.repository / "metadata/timestamp.json"
    whole = stamp.read_bytes()
    stamp.write_bytes(b"{}")
    later = live.later(days=1)
    done = later.run("refresh", "--metrics", file)
    assert done.code == 6
    found = _metrics(file)
    assert found["refresh_exit_code"] == 6
    assert found["refresh_heartbeat_timestamp_seconds"] == int(later.now.timestamp())
    assert found["refresh_success_timestamp_seconds"] == int(live.now.timestamp())
    assert found["live_readable"] == 0
    assert "timestamp_age_seconds" not in found
    assert not [name for name in found if name.startswith("expiry")]
    stamp.write_bytes(whole)
    later.ok("refresh", "--metrics", file)
    assert _metrics(file)["refresh_success_timestamp_seconds"] == int(later.now.timestamp())


def test_a_workspace_that_cannot_be_opened_is_told_too(live: Lab, file: Path) -> None:
    (live.directory / "policy.toml").write_text("[")
    # Without a time of the lab's, which nobody could allow.
    with patch.object(Lab, "environment", lambda _: nullcontext()):
        assert live.run("refresh", "--metrics", file).code == 2
    assert _metrics(file)["refresh_exit_code"] == 2


def test_where_nothing_was_published_nothing_live_is_said_to_be_readable(
    ready: Lab, file: Path
) -> None:
    done = ready.run("refresh", "--metrics", file)
    assert (done.code, done.err.splitlines()[0]) == (3, "error: nothing is published yet")
    found = _metrics(file)
    assert (found["live_readable"], found["refresh_exit_code"]) == (0, 3)
    assert not [name for name in found if name.startswith("expiry")]
    ready.ok("publish")
    ready.ok("refresh", "--metrics", file)
    assert _metrics(file)["live_readable"] == 1


ESCAPES = {ZeroDivisionError("a bug"): 1, PermissionError("denied"): 2, KeyboardInterrupt(): 130}


def test_whatever_ends_it_is_told_as_the_exit_code_that_it_is(live: Lab, file: Path) -> None:
    for error, code in ESCAPES.items():
        with patch.object(job, "sign_online", side_effect=error):
            assert live.run("refresh", "--metrics", file).code == code
        assert _metrics(file)["refresh_exit_code"] == code


def test_a_place_that_cannot_be_written_fails_and_hides_no_other_failure(
    live: Lab, tmp_path: Path
) -> None:
    (tmp_path / "plain").write_text("")
    wrong = tmp_path / "plain" / "x.prom"
    done = live.run("refresh", "--metrics", wrong)
    assert done.code == 2
    assert "x.prom" in done.err or "plain" in done.err
    full = patch.object(watch, "replace_file", side_effect=DiskFullError("the disk is full"))
    with full:
        assert live.run("refresh", "--metrics", tmp_path / "x.prom").code == 4
    (live.repository / "metadata/timestamp.json").write_bytes(b"{}")
    assert live.run("refresh", "--metrics", wrong).code == 6
    with full:
        done = live.run("refresh", "--metrics", tmp_path / "x.prom")
    assert (done.code, "timestamp.json is damaged" in done.err) == (6, True)


def test_whoever_loses_the_race_is_done(live: Lab, file: Path) -> None:
    def faster(*_: object) -> str:
        raise LockedError("somebody else published")

    with patch.object(LocalStorage, "replace", faster):
        done = live.ok("refresh", "--metrics", file)
    assert "nothing to do: somebody else published" in done.out
    assert _metrics(file)["refresh_exit_code"] == 0


def test_the_file_is_whole_or_as_it_was(live: Lab, file: Path, tmp_path: Path) -> None:
    live.ok("refresh", "--metrics", file)
    before = file.read_text()
    later = live.later(days=1)
    trial = later.copy(tmp_path / "trial")
    count = count_operations(trial, "refresh", "--metrics", str(tmp_path / "other.prom"))
    for kill_at in (count - 2, count - 1):
        again = later.copy(tmp_path / f"trial-{kill_at}")
        file.write_text(before)
        run_killed(again, kill_at, "refresh", "--metrics", str(file))
        assert _metrics(file).keys() >= {"refresh_exit_code", "refresh_success_timestamp_seconds"}


# Days before the end of the channel's role -> whether the job fails, by default (7d) and with 30d.
MARGINS = {20: (False, True), 7: (True, True)}


@pytest.mark.parametrize("left", MARGINS)
def test_it_fails_before_something_expires_that_only_people_can_sign(
    left: int, live: Lab, file: Path
) -> None:
    late = live.later(days=365 - left)
    for fails, words in zip(MARGINS[left], ((), ("--fail-within", "30d")), strict=True):
        done = late.run("refresh", *words, "--metrics", file)
        assert done.code == (3 if fails else 0), done
        assert _metrics(file)["refresh_exit_code"] == done.code
        # It has renewed what it can all the same.
        expected = int((late.now + timedelta(days=7)).timestamp())
        assert _metrics(file)['expiry_timestamp_seconds{role="timestamp"}'] == expected
        if fails:
            assert "gateway-stable 1 expires 2027-03-02T06:00:00Z (to sign: 2 of " in done.err
            assert "rita" in done.err
            assert "hint: firmroot ceremony start" in done.err
            assert "gateway-stable" in done.err.partition("hint: ")[2]


def test_a_root_that_has_expired_has_a_way_of_its_own(live: Lab) -> None:
    late = live.later(days=400)
    expiry = endings(late.workspace, late.now, timedelta(0))
    with pytest.raises(ActionRequiredError) as caught:
        check_people(expiry, now=late.now)
    assert "root 1 expires" in caught.value.message
    assert caught.value.hint.startswith("firmroot recover expired-root")


def test_what_could_not_be_looked_at_is_not_taken_for_good(live: Lab) -> None:
    (live.repository / "metadata/1.snapshot.json").unlink()
    with pytest.raises(RetryLaterError, match="could not be looked at"):
        endings(live.workspace, live.now, timedelta(days=7))


def test_what_it_renews_itself_never_makes_it_fail(live: Lab) -> None:
    """The timestamp lives for a week, and a monitor that asks for a month would always shout."""
    live.ok("refresh", "--fail-within", "60d")


def test_a_length_of_time_is_asked_for(live: Lab, file: Path) -> None:
    done = live.run("refresh", "--fail-within", "soon", "--metrics", file)
    assert done.code == 2
    assert "expected such as 30d" in done.err
    # A unit with such a line is no silence: it ran, and badly.
    assert _metrics(file)["refresh_exit_code"] == 2
    assert _metrics(file)["live_readable"] == 1
