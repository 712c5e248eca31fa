"""What S3 may answer: each error says what was found, what was expected and what to do."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from client_reference.errors import (
    ConfigurationError,
    FirmrootError,
    LockedError,
    NotFoundError,
    RetryLaterError,
)
from repo_tools.storage.protocol import Blob, Created
from repo_tools.storage.s3 import (
    ATTEMPTS,
    CONFLICTS,
    S3Storage,
    connect,
    make_client,
    parse_place,
)
from tests.simulators.gate import Gate, Rule
from tests.simulators.seaweed import ACCESS, SECRET, Service, seaweed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.services

TIMESTAMP = "metadata/timestamp.json"
PART = 5 << 20
_numbers = itertools.count(1)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with seaweed(tmp_path_factory.mktemp("seaweed")) as running:
        running.client().create_bucket(Bucket="acme")
        yield running


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setattr(time, "sleep", lambda _: None)  # the SDK's pauses, and ours


@pytest.fixture
def gate(service: Service) -> Iterator[Gate]:
    with Gate(service.endpoint) as gate:
        yield gate


@pytest.fixture
def storage(gate: Gate) -> S3Storage:
    return S3Storage(f"s3://acme/{next(_numbers)}?endpoint={gate.url}", part=PART, large=PART + 1)


IMAGE = bytes(PART + 2)


def _open(storage: S3Storage) -> bytes:
    with storage.open("a") as stream:
        return stream.read()


VERBS: dict[str, Callable[[S3Storage], object]] = {
    "read": lambda storage: storage.read(TIMESTAMP, 9),
    "open": _open,
    "create": lambda storage: storage.create("metadata/1.root.json", b"x", sha256(b"x")),
    "replace": lambda storage: storage.replace(TIMESTAMP, b"1", None),
    "remove": lambda storage: storage.remove("metadata/1.root.json"),
    "remove all": lambda storage: storage.remove_all(["metadata/1.root.json"]),
    "paths": lambda storage: list(storage.paths("metadata/")),
    "in parts": lambda storage: storage.create("targets/image", IMAGE, sha256(IMAGE)),
    "look for parts": lambda storage: storage.create("targets/image", IMAGE, sha256(IMAGE)),
}
SKEWED = "<RequestTime>20200101T000000Z</RequestTime><ServerTime>2026-03-02T06:00:00Z</ServerTime>"
IN_FRANKFURT = {"x-amz-bucket-region": "eu-central-1"}
# What S3 answers to a request for an object -> what is said, and what to do.
ANSWERS: dict[str, tuple[Rule, type[FirmrootError], str, str]] = {
    "no such bucket": (
        Rule(status=404, code="NoSuchBucket"),
        ConfigurationError,
        r"there is no such bucket \(NoSuchBucket\)",
        r"`storage` or `recovery_storage` in firmroot.toml",
    ),
    "another region, named in the answer": (
        Rule(status=400, code="AuthorizationHeaderMalformed", told="<Region>eu-west-1</Region>"),
        ConfigurationError,
        r"the bucket is in region eu-west-1, and was asked for in another one",
        r"set AWS_REGION=eu-west-1",
    ),
    "another region, named in a header": (
        Rule(status=301, code="PermanentRedirect", headers=IN_FRANKFURT),
        ConfigurationError,
        r"the bucket is in region eu-central-1",
        r"set AWS_REGION=eu-central-1",
    ),
    "another region, which is not named": (
        Rule(status=301, code="PermanentRedirect"),
        ConfigurationError,
        r"the bucket is in another region",
        r"set AWS_REGION to the region of the bucket",
    ),
    "a wrong clock": (
        Rule(status=403, code="RequestTimeTooSkewed", told=SKEWED),
        ConfigurationError,
        r"the clock of this machine is wrong: it says 20200101T000000Z, the service says 2026-03-",
        r"set the clock",
    ),
    "a key that does not exist": (
        Rule(status=403, code="InvalidAccessKeyId"),
        ConfigurationError,
        r"this access key does not exist there",
        r"sign in again, then run the same command again",
    ),
    "credentials that have expired": (
        Rule(status=400, code="ExpiredToken"),
        ConfigurationError,
        r"the credentials have expired \(ExpiredToken\)",
        r"sign in again, then run the same command again",
    ),
    "a service without conditions": (
        Rule(status=501, code="NotImplemented"),
        ConfigurationError,
        r"this service does not know conditional writes, without which rivals overwrite",
        r"publish to a service that has them",
    ),
    "too many requests": (
        Rule(status=503, code="SlowDown"),
        RetryLaterError,
        r"SlowDown",
        r"run the same command again; what was stored stays",
    ),
}


@pytest.mark.parametrize("case", ANSWERS)
@pytest.mark.parametrize("verb", ["read", "create", "replace", "paths"])
def test_an_answer_is_said_in_words_and_with_a_way_on(
    case: str, verb: str, gate: Gate, storage: S3Storage
) -> None:
    rule, error, message, hint = ANSWERS[case]
    gate.rules.append(rule)
    with pytest.raises(error, match=message) as caught:
        VERBS[verb](storage)
    assert not isinstance(caught.value, NotFoundError)
    assert re.search(hint, caught.value.hint)
    gate.rules.clear()
    storage.replace(TIMESTAMP, b"1", None)
    assert storage.read(TIMESTAMP, 9).data == b"1"


DENIED = {
    "read": ("GET", "", "GetObject", "s3:GetObject on arn:aws:s3:::acme/*"),
    "create": ("PUT", "", "PutObject", "s3:PutObject on arn:aws:s3:::acme/*"),
    "remove": ("DELETE", "", "DeleteObject", "s3:DeleteObject on arn:aws:s3:::acme/*"),
    "remove all": ("POST", "?delete", "DeleteObjects", "s3:DeleteObject on arn:aws:s3:::acme/*"),
    "paths": ("GET", "list-type", "ListObjectsV2", "s3:ListBucket on arn:aws:s3:::acme"),
    "in parts": (
        "POST", "?uploads", "CreateMultipartUpload",
        "s3:PutObject on arn:aws:s3:::acme/*",
    ),
    "look for parts": (
        "GET", "?uploads", "ListMultipartUploads",
        "s3:ListBucketMultipartUploads on arn:aws:s3:::acme",
    ),
}  # fmt: skip


@pytest.mark.parametrize("verb", DENIED)
def test_the_permission_that_is_missing_is_named(verb: str, gate: Gate) -> None:
    method, part, operation, needed = DENIED[verb]
    storage = S3Storage(f"s3://acme?endpoint={gate.url}", part=PART, large=PART + 1)
    gate.rules.append(Rule(method, part, status=403, code="AccessDenied"))
    with pytest.raises(ConfigurationError, match=f"access denied to {operation} ") as caught:
        VERBS[verb](storage)
    assert f"these credentials need {needed}" in caught.value.hint
    # Without it S3 does not say "not there": only then is the reader told about listing.
    assert ("; if the object is not there: s3:ListBucket on" in caught.value.hint) == (
        verb == "read"
    )


HEADLESS = ("a wrong clock", "a key that does not exist", "credentials that have expired")


@pytest.mark.parametrize("case", HEADLESS)
def test_an_answer_without_a_body_is_asked_for_its_reason(
    case: str, gate: Gate, storage: S3Storage
) -> None:
    """The answer to a HEAD has none: expired credentials looked like a fault that passes."""
    rule, error, message, hint = ANSWERS[case]
    gate.rules.append(rule)
    for verb in ("open", "in parts"):
        with pytest.raises(error, match=message) as caught:
            VERBS[verb](storage)
        assert re.search(hint, caught.value.hint)
    gate.rules.clear()
    gate.rules.append(Rule("HEAD", status=403))
    storage.create("a", b"x", sha256(b"x"))
    # What the other question does not explain stays what it was.
    with pytest.raises(ConfigurationError, match="access denied to HeadObject"):
        VERBS["open"](storage)
    gate.rules.clear()
    assert _open(storage) == b"x"


@pytest.mark.parametrize("status", [409, 503])
def test_what_passes_is_asked_again(status: int, gate: Gate, storage: S3Storage) -> None:
    code = "ConditionalRequestConflict" if status == 409 else "SlowDown"
    gate.rules.append(Rule("PUT", status=status, code=code, times=2))
    assert storage.create("a", b"x", sha256(b"x")) is Created.NEW
    gate.rules.append(Rule("PUT", status=status, code=code, times=2))
    tag = storage.replace(TIMESTAMP, b"1", None)
    assert storage.read(TIMESTAMP, 9).tag == tag


@pytest.mark.parametrize(("status", "attempts"), [(409, CONFLICTS), (503, ATTEMPTS)])
def test_what_does_not_pass_is_for_later(
    status: int, attempts: int, gate: Gate, storage: S3Storage
) -> None:
    code = "ConditionalRequestConflict" if status == 409 else "SlowDown"
    gate.rules.append(Rule("PUT", status=status, code=code))
    with pytest.raises(RetryLaterError, match=code):
        storage.replace(TIMESTAMP, b"1", None)
    assert len(gate.asked) == attempts
    with pytest.raises(NotFoundError):
        storage.read(TIMESTAMP, 9)


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_lost_answer_is_no_rival(method: str, gate: Gate, storage: S3Storage) -> None:
    """The SDK asks again, and its second request is refused: by what the first one wrote."""
    image = bytes(PART + 2) if method == "POST" else b"x"
    part = "uploadId" if method == "POST" else "image"
    gate.rules.append(Rule(method, part, executed=True, lost=True, times=1))
    assert storage.create("image", image, sha256(image)) is Created.IDENTICAL
    assert storage.read("image", len(image)).data == image


def test_a_lost_answer_to_a_replacement_is_no_rival(gate: Gate, storage: S3Storage) -> None:
    tag = storage.replace(TIMESTAMP, b"1", None)
    gate.rules.append(Rule("PUT", TIMESTAMP, executed=True, lost=True, times=1))
    assert storage.replace(TIMESTAMP, b"2", tag) == storage.read(TIMESTAMP, 9).tag
    # None of its answers arrives: for later, and what was written stays.
    gate.rules.append(Rule("PUT", TIMESTAMP, executed=True, lost=True))
    tag = storage.read(TIMESTAMP, 9).tag
    with pytest.raises(RetryLaterError, match="Connection was closed"):
        storage.replace(TIMESTAMP, b"3", tag)
    assert storage.read(TIMESTAMP, 9).data == b"3"


def test_a_rival_is_told_apart_from_a_lost_answer(gate: Gate, storage: S3Storage) -> None:
    tag = storage.replace(TIMESTAMP, b"1", None)
    assert S3Storage(storage.url).replace(TIMESTAMP, b"rival", tag)
    gate.rules.append(Rule("PUT", TIMESTAMP, executed=True, lost=True, times=1))
    with pytest.raises(LockedError, match="changed since it was read: somebody else published"):
        storage.replace(TIMESTAMP, b"2", tag)
    assert storage.read(TIMESTAMP, 9).data == b"rival"


@pytest.mark.parametrize("request_", [("PUT", "partNumber"), ("POST", "uploadId")])
def test_an_upload_that_somebody_else_ended_is_no_missing_object(
    request_: tuple[str, str], gate: Gate, storage: S3Storage
) -> None:
    """It was "not there", without a way on: of two publishers of one artifact one saw that."""
    rule = Rule(*request_, status=404, code="NoSuchUpload", times=1)
    gate.rules.append(rule)
    with pytest.raises(RetryLaterError, match="and the upload is gone") as caught:
        VERBS["in parts"](storage)
    assert not isinstance(caught.value, NotFoundError)
    assert "run the same command again" in caught.value.hint
    # The other one has completed it.
    client = make_client(parse_place(storage.url))

    def overtake(**_: Any) -> None:  # noqa: ANN401 # whatever the SDK tells
        client.meta.events.unregister("before-call.s3.ListMultipartUploads", overtake)
        S3Storage(storage.url).create("targets/image", IMAGE, sha256(IMAGE))
        gate.rules.append(Rule(*request_, status=404, code="NoSuchUpload"))

    client.meta.events.register("before-call.s3.ListMultipartUploads", overtake)
    slower = S3Storage(storage.url, client, part=PART, large=PART + 1)
    assert slower.create("targets/image", IMAGE, sha256(IMAGE)) is Created.IDENTICAL


@pytest.mark.parametrize("header", ["If-None-Match", "If-Match"])
def test_a_service_that_ignores_a_condition_is_refused(
    header: str, gate: Gate, service: Service
) -> None:
    """Attack, or a cheap service: two publishers overwrite each other, and nobody is told."""
    client, ignoring = service.client(), [header]

    def drop(params: dict[str, Any], **_: Any) -> None:  # noqa: ANN401 # whatever the SDK tells
        for each in ignoring:
            params["headers"].pop(each, None)

    client.meta.events.register("before-call.s3.PutObject", drop)
    storage = S3Storage(f"s3://acme/{next(_numbers)}?endpoint={gate.url}", client)
    with pytest.raises(ConfigurationError, match="ignores conditional writes") as caught:
        storage.create("a", b"x", sha256(b"x"))
    assert f"only if {header} holds, which it does not, and wrote it; expected 412" in str(
        caught.value
    )
    assert "publish to a service that has them" in caught.value.hint
    ignoring.clear()
    assert storage.create("a", b"x", sha256(b"x")) is Created.IDENTICAL
    assert storage.create("b", b"x", sha256(b"x")) is Created.NEW


def test_that_conditions_are_heeded_is_asked_once(
    gate: Gate, storage: S3Storage, tmp_path: Path
) -> None:
    def writes() -> int:
        found = sum(method == "PUT" for method, _ in gate.asked)
        gate.asked.clear()
        return found

    proof = tmp_path / "new" / "conditions"
    first = S3Storage(storage.url, proof=proof)
    first.create("a", b"x", sha256(b"x"))
    assert writes() == 3
    first.create("b", b"x", sha256(b"x"))
    again = S3Storage(storage.url, proof=proof)
    again.create("c", b"x", sha256(b"x"))
    assert writes() == 2
    other = S3Storage(storage.url.replace("?", "/below?"), proof=proof)
    other.create("a", b"x", sha256(b"x"))
    assert writes() == 3
    assert proof.read_text().splitlines() == [first.url, other.url]


def test_a_policy_that_demands_a_condition_is_as_good_as_the_condition(
    gate: Gate, storage: S3Storage
) -> None:
    gate.rules.append(Rule("PUT", after=2, status=403, code="AccessDenied", times=1))
    assert storage.create("a", b"x", sha256(b"x")) is Created.NEW
    assert storage.create("b", b"x", sha256(b"x")) is Created.NEW
    assert sum(method == "PUT" for method, _ in gate.asked) == 4


def test_an_answer_without_an_etag_is_not_built_upon(gate: Gate, storage: S3Storage) -> None:
    tag = storage.replace(TIMESTAMP, b"1", None)
    gate.rules[:] = [Rule("GET", "timestamp.json", without="etag")]
    with pytest.raises(RetryLaterError, match="the service names no ETag of it"):
        storage.read(TIMESTAMP, 9)
    gate.rules[:] = [Rule("PUT", "timestamp.json", without="etag", times=1)]
    after = storage.replace(TIMESTAMP, b"2", tag)
    assert storage.read(TIMESTAMP, 9) == Blob(b"2", after)


def test_a_forked_child_does_not_speak_on_the_connections_of_its_parent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each would read answers to the other: bytes of other objects, without their ETag."""
    place = parse_place("s3://acme/x?endpoint=http://127.0.0.1:9")
    ours = connect(place)
    assert connect(place) is ours
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert connect(place) is not ours
