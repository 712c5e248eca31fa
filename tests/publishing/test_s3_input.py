"""At the command line: a bucket that is not ours, and trouble in the middle of a publish."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import ExitCode
from tests.publishing.bucket import BUCKET, Bucket, moved
from tests.publishing.lab import HARDWARE, PRODUCT, Lab
from tests.simulators.gate import Gate, Rule
from tests.simulators.seaweed import ACCESS, SECRET, Service, seaweed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.services

TIMESTAMP = "metadata/timestamp.json"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with seaweed(tmp_path_factory.mktemp("seaweed")) as running:
        running.client().create_bucket(Bucket=BUCKET)
        yield running


@pytest.fixture
def gate(service: Service) -> Iterator[Gate]:
    with Gate(service.endpoint) as gate:
        yield gate


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setattr(time, "sleep", lambda _: None)  # the SDK's pauses, and ours


class Gated(Bucket):
    """A prefix of the bucket, behind the gate."""

    gate: Gate

    @property
    def url(self) -> str:
        return f"s3://{BUCKET}/{self.prefix}?endpoint={self.gate.url}"


@pytest.fixture
def bucket(service: Service, gate: Gate, request: pytest.FixtureRequest) -> Bucket:
    made = Gated(service, re.sub(r"\W", "-", request.node.name))
    Gated.gate = gate
    return made


# What a PUT is answered in the middle of the publish -> exit code, message, hint.
TROUBLE: dict[str, tuple[Rule, ExitCode, str, str]] = {
    "the credentials expire": (
        Rule("PUT", status=400, code="ExpiredToken"),
        ExitCode.USAGE,
        "the credentials have expired (ExpiredToken)",
        "sign in again, then run the same command again; what was stored stays",
    ),
    "a permission is missing": (
        Rule("PUT", status=403, code="AccessDenied"),
        ExitCode.USAGE,
        "access denied to PutObject",
        "these credentials need s3:PutObject on arn:aws:s3:::firmware/",
    ),
    "the service is overloaded": (
        Rule("PUT", status=503, code="SlowDown"),
        ExitCode.RETRY_LATER,
        "SlowDown",
        "run the same command again",
    ),
    "no answer arrives any more": (
        Rule("PUT", executed=True, lost=True),
        ExitCode.RETRY_LATER,
        "Connection was closed",
        "run the same command again",
    ),
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_in_the_middle_of_a_publish(
    trouble: str, bucket: Bucket, gate: Gate, moments: dict[str, Lab], tmp_path: Path
) -> None:
    """It stops before each write; devices have the old release, and run again it finishes."""
    rule, code, message, hint = TROUBLE[trouble]
    lab = moved(moments["next"].copy(tmp_path / "acme"), bucket)
    before = bucket.read(TIMESTAMP)
    for writes in (0, 3):
        rule.after = writes
        gate.rules.append(rule)
        done = lab.run("publish")
        assert (done.code, done.out) == (code, "")
        assert message in done.err
        assert hint in done.err
        assert bucket.read(TIMESTAMP) == before
        gate.rules.clear()
    assert "published timestamp 2" in lab.ok("publish").out
    lab.ok("verify")


def test_a_commit_whose_answers_are_lost_is_found_by_the_next_run(
    bucket: Bucket, gate: Gate, moments: dict[str, Lab], tmp_path: Path
) -> None:
    lab = moved(moments["next"].copy(tmp_path / "acme"), bucket)
    gate.rules.append(Rule("PUT", TIMESTAMP, executed=True, lost=True))
    assert lab.run("publish").code == ExitCode.RETRY_LATER
    gate.rules.clear()
    assert b'"version":2' in bucket.read(TIMESTAMP).replace(b" ", b"")
    lab.ok("publish")
    assert len(list((lab.directory / "history").glob("*.json"))) == 2
    lab.ok("verify")


def test_a_bucket_with_other_content_is_not_published_into(
    bucket: Bucket, moments: dict[str, Lab], tmp_path: Path
) -> None:
    lab = moved(moments["ready"].copy(tmp_path / "acme"), bucket)
    others = {f"photos/{number}.jpg": b"..." for number in range(4)}
    bucket.fill({**others, "metadata/1.root.json.bak": b""}, {})
    done = lab.run("publish")
    assert done.code == ExitCode.REFUSED
    assert (
        f"{bucket.url} holds other things than a repository: photos/0.jpg, photos/1.jpg, "
        "photos/2.jpg ...; expected nothing, or metadata/, targets/, inbox/, gc/"
    ) in done.err
    assert "such as s3://BUCKET/firmware; or remove what is there" in done.err
    assert bucket.objects().keys() == {*others, "metadata/1.root.json.bak"}
    bucket.fill({}, {})
    lab.ok("publish")


def test_a_bucket_with_another_repository_is_not_published_into(
    bucket: Bucket, moments: dict[str, Lab], tmp_path: Path
) -> None:
    moved(moments["live"].copy(tmp_path / "theirs" / "acme"), bucket)
    theirs = bucket.tags()
    lab = Lab(tmp_path / "ours" / "acme")
    lab.directory.parent.mkdir()
    lab.init()
    lab.ok("product", "add", PRODUCT, "--hardware", HARDWARE)
    lab.add("1.0")
    lab.promote("1.0")
    config = lab.directory / "firmroot.toml"
    text = config.read_text()
    config.write_text(text.replace('storage = "repository"', f'storage = "{bucket.url}"'))
    done = lab.run("publish")
    assert done.code == ExitCode.NOT_TRUSTED
    assert f"{bucket.url} holds a repository that this workspace has not published" in done.err
    assert "correct `storage` in firmroot.toml" in done.err
    assert bucket.tags() == theirs
    config.write_text(config.read_text().replace(bucket.prefix, f"{bucket.prefix}/ours"))
    lab.ok("publish")
