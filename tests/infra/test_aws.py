"""The stacks of `infra/aws`, made on an emulator of AWS that asks who may do what.

The refresh function runs there on its schedule, from its own package, and signs with the key in
KMS; a device sees what it signed through the CDN. Every role tries what it may and what it must
not.

The emulator knows neither `s3:if-none-match`, `s3:if-match`, `s3:ObjectCreationOperation` and
`s3:object-lock-legal-hold` nor `kms:SigningAlgorithm` and `cloudwatch:namespace`, does not make a
bucket with object lock from a template, and has no cache: `test_templates.py` reads what is said
about those.
"""

from __future__ import annotations

import importlib
import io
import json
import sys
import zipfile
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from client_reference.errors import ConfigurationError, LockedError
from repo_tools.metadata.repository import sha256
from repo_tools.storage.protocol import Created
from repo_tools.storage.s3 import S3Storage
from tests.infra.company import STACK, Company
from tests.infra.test_ci import lines
from tests.simulators.aws import Account, account, edge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Ask = Callable[[str, str, str, dict[str, Any]], str]
    Act = Callable[[Mapping[str, str]], tuple[str, str, dict[str, Any]]]

pytestmark = pytest.mark.services

PROBE = """
import boto3
def handler(event, context):
    client = boto3.client(event["service"])
    arguments = {
        name: value["bytes"].encode("latin-1") if isinstance(value, dict) else value
        for name, value in event["arguments"].items()
    }
    try:
        getattr(client, event["request"])(**arguments)
    except client.exceptions.ClientError as error:
        return error.response["Error"]["Code"]
    return "done"
"""
"""A function that asks for one thing, with whatever role it has."""


@pytest.fixture(scope="module")
def acme(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    top = tmp_path_factory.mktemp("aws")
    with pytest.MonkeyPatch.context() as patch, account(top) as aws:
        patch.setenv("FIRMROOT_PASSPHRASE_FILE", str(top / "passphrase"))
        patch.setenv("GIT_CEILING_DIRECTORIES", str(top))
        outputs = aws.create(STACK, "repository", RequireTls="false")
        # The emulator makes buckets without the lock that the template asks for.
        aws.client("s3").put_object_lock_configuration(
            Bucket=outputs["BucketName"], ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"}
        )
        with edge(aws, outputs["DistributionId"]) as url:
            company = Company(aws, outputs, top, url)
            company.found()
            company.ship("1.0")
            company.hand_over()
            company.start_refresher()
            yield company


def status_of(url: str) -> int:
    try:
        with urlopen(url) as answer:  # noqa: S310 # http on loopback
            return int(answer.status)
    except HTTPError as error:
        with error:
            return error.code


@pytest.fixture(scope="module")
def report(acme: Company) -> dict[str, Any]:
    """What the function said of one run."""
    return acme.invoke()


def test_a_device_sees_over_plain_http_what_the_function_signed(acme: Company) -> None:
    before = acme.live_timestamp()["version"]
    assert acme.invoke()["exit_code"] == 0
    signed = acme.live_timestamp()["version"]
    assert signed > before
    device = acme.device()
    update = device("update")
    assert (update["outcome"], update["image"]["version"]) == ("ready", "1.0")
    assert device("status")["roles"]["timestamp"]["version"] >= signed


def test_every_module_lies_in_the_package_or_the_runtime(report: dict[str, Any]) -> None:
    found = report["modules"]
    assert found["foreign"] == []
    # boto3, and whatever else signs, is in the environment of the emulator as well.
    assert found["package"] > 300
    # What the emulator's Python has loaded before the function begins.
    known = {"_distutils_hack", "certifi", "certifi.core"}
    assert {name for name in found["runtime"] if not name.startswith("__editable__")} <= known


def test_what_the_package_lacks_is_not_taken_from_elsewhere(acme: Company) -> None:
    # tomlkit is in the environment of the emulator, where a function otherwise finds it.
    importlib.import_module("tomlkit")
    with acme.resting(), acme.code_without("tomlkit/"):
        assert "No module named 'tomlkit'" in acme.invoke()["errorMessage"]
    assert acme.invoke()["exit_code"] == 0


def test_what_was_measured_reaches_the_alarms(acme: Company, report: dict[str, Any]) -> None:
    assert report["measures"]["Success"] == 1
    watch = acme.aws.client("cloudwatch")
    told = watch.list_metrics(Namespace="Firmroot")["Metrics"]
    assert {each["MetricName"] for each in told} == set(report["measures"])
    alarms = watch.describe_alarms(AlarmNamePrefix=f"{STACK}-refresh")["MetricAlarms"]
    assert {each["MetricName"] for each in alarms} <= set(report["measures"])
    assert {each["StateValue"] for each in alarms} == {"OK"}
    assert all(each["AlarmActions"] for each in alarms)


def test_the_cdn_serves_metadata_and_targets_and_nothing_else(acme: Company) -> None:
    acme.aws.client("s3").put_object(
        Bucket=acme.outputs["BucketName"], Key="inbox/submissions/x", Body=b"secret"
    )
    assert status_of(f"{acme.url}metadata/timestamp.json") == 200
    assert status_of(f"{acme.url}metadata/1.root.json") == 200
    for path in ("", "inbox/submissions/x", "gc/running.json", "metadata", "index.html"):
        assert status_of(acme.url + path) == 404, path
    # On AWS these are 404 as well: this emulator takes no notice of the permission to list.
    for path in ("metadata/", "metadata/../inbox/submissions/x", "metadata/2.root.json"):
        assert status_of(acme.url + path) in {403, 404}, path
    place = f"{acme.aws.endpoint}/{acme.outputs['BucketName']}/metadata/timestamp.json"
    assert status_of(place) == 403, "the bucket itself serves nobody"


def test_a_storage_that_went_back_is_refused_by_the_memory_outside_it(acme: Company) -> None:
    root = acme.aws.client("s3")
    bucket, key = acme.outputs["BucketName"], "metadata/timestamp.json"

    def read() -> bytes:
        found: bytes = root.get_object(Bucket=bucket, Key=key)["Body"].read()
        return found

    with acme.resting():
        old = read()
        assert acme.invoke()["exit_code"] == 0
        new = read()
        assert new != old
        # Whoever administers the whole account: its root user, whom no policy binds here.
        root.put_object(Bucket=bucket, Key=key, Body=old)
        try:
            assert "exit code 6" in acme.invoke()["errorMessage"]
            assert "a rollback of the storage" in acme.log()
            assert read() == old, "nothing was signed"
        finally:
            root.put_object(Bucket=bucket, Key=key, Body=new)
        assert acme.invoke()["exit_code"] == 0


def _s3(request: str, bucket: str, key: str, **more: object) -> Act:
    def act(outputs: Mapping[str, str]) -> tuple[str, str, dict[str, Any]]:
        return "s3", request, {"Bucket": outputs[bucket], "Key": key, **more}

    return act


def _sign(key: str) -> Act:
    def act(outputs: Mapping[str, str]) -> tuple[str, str, dict[str, Any]]:
        alias = outputs[key].removeprefix("awskms:")
        return "kms", "sign", {"KeyId": alias, **DIGEST}

    return act


def _list(outputs: Mapping[str, str]) -> tuple[str, str, dict[str, Any]]:
    return "s3", "list_objects_v2", {"Bucket": outputs["BucketName"]}


def _measure(outputs: Mapping[str, str]) -> tuple[str, str, dict[str, Any]]:
    del outputs
    measured = [{"MetricName": "Heartbeat", "Value": 1}]
    return "cloudwatch", "put_metric_data", {"Namespace": "Firmroot", "MetricData": measured}


DIGEST = {
    "Message": bytes(32),
    "MessageType": "DIGEST",
    "SigningAlgorithm": "ECDSA_SHA_256",
}
FIRMWARE, STATE = "BucketName", "StateBucketName"
BUILDER, MANAGER, PUBLISHER = "Builder", "ReleaseManager", "Publisher"
REFRESHER, WATCHER, CLEANER = "Refresher", "Watcher", "Cleaner"
ADMINISTRATOR = "administrator"
EVERYBODY = {BUILDER, MANAGER, PUBLISHER, REFRESHER, WATCHER, CLEANER, ADMINISTRATOR}
# What is tried, and who may. The administrator has every permission that the account can give.
TRIED: dict[str, tuple[Act, set[str]]] = {
    "read metadata": (_s3("get_object", FIRMWARE, "metadata/1.root.json"), EVERYBODY),
    "list the bucket": (_list, EVERYBODY),
    "read the inbox": (
        _s3("get_object", FIRMWARE, "inbox/submissions/lies-there"),
        EVERYBODY - {REFRESHER, WATCHER},
    ),
    "hand in": (
        _s3("put_object", FIRMWARE, "inbox/submissions/it", Body=b"x", IfNoneMatch="*"),
        EVERYBODY - {REFRESHER, WATCHER, CLEANER},
    ),
    "answer in the inbox": (
        _s3("put_object", FIRMWARE, "inbox/answers/it", Body=b"x", IfNoneMatch="*"),
        {PUBLISHER, ADMINISTRATOR},
    ),
    "clear the inbox": (
        _s3("delete_object", FIRMWARE, "inbox/answers/it"),
        {PUBLISHER, CLEANER, ADMINISTRATOR},
    ),
    "write a role": (
        _s3("put_object", FIRMWARE, "metadata/8.it.json", Body=b"x", IfNoneMatch="*"),
        {PUBLISHER},
    ),
    "write a root": (
        _s3("put_object", FIRMWARE, "metadata/99.root.json", Body=b"x", IfNoneMatch="*"),
        {PUBLISHER},
    ),
    "write a target": (
        _s3("put_object", FIRMWARE, "targets/it", Body=b"x", IfNoneMatch="*"),
        {PUBLISHER},
    ),
    "write a snapshot": (
        _s3("put_object", FIRMWARE, "metadata/99.snapshot.json", Body=b"x", IfNoneMatch="*"),
        {PUBLISHER, REFRESHER, CLEANER},
    ),
    "write the chain of roots": (
        _s3("put_object", FIRMWARE, "metadata/root-chain/99", Body=b"x", IfNoneMatch="*"),
        {PUBLISHER, REFRESHER, CLEANER},
    ),
    "commit": (
        _s3("put_object", FIRMWARE, "metadata/e9/timestamp.json", Body=b"x", IfNoneMatch="*"),
        {PUBLISHER, REFRESHER, CLEANER},
    ),
    "keep what a refresh replaces": (
        _s3("put_object", FIRMWARE, "metadata/99.timestamp.json", Body=b"x", IfNoneMatch="*"),
        {PUBLISHER, REFRESHER, CLEANER},
    ),
    "say that a clean-up is under way": (
        _s3("put_object", FIRMWARE, "gc/it", Body=b"x", IfNoneMatch="*"),
        {CLEANER, ADMINISTRATOR},
    ),
    "remove a root": (_s3("delete_object", FIRMWARE, "metadata/1.root.json"), set()),
    "remove the timestamp": (_s3("delete_object", FIRMWARE, "metadata/timestamp.json"), set()),
    "remove a replaced timestamp": (
        _s3("delete_object", FIRMWARE, "metadata/1.timestamp.json"),
        set(),
    ),
    "remove a role": (
        _s3("delete_object", FIRMWARE, "metadata/99.none.json"),
        {CLEANER, ADMINISTRATOR},
    ),
    "remove a target": (_s3("delete_object", FIRMWARE, "targets/none"), {CLEANER, ADMINISTRATOR}),
    "sign with the online key": (_sign("OnlineKeyAUri"), {PUBLISHER, REFRESHER, CLEANER}),
    "sign with the builder key": (_sign("BuilderKeyAUri"), {BUILDER}),
    "say what is refreshed": (
        _s3("put_object", STATE, "another.tar.gz", Body=b"x"),
        {ADMINISTRATOR},
    ),
    "read the memory": (
        _s3("get_object", STATE, "refresher/high-water.json"),
        {REFRESHER, ADMINISTRATOR},
    ),
    "write the memory": (
        _s3("put_object", STATE, "refresher/it", Body=b"x", IfNoneMatch="*"),
        {REFRESHER},
    ),
    "forget the memory": (_s3("delete_object", STATE, "refresher/it"), set()),
    "change the code": (_s3("put_object", STATE, "code/it.zip", Body=b"x"), {ADMINISTRATOR}),
    "measure": (_measure, {REFRESHER, ADMINISTRATOR}),
}


@pytest.fixture(scope="module")
def administrator(acme: Company) -> Account:
    """The account as an administrator has it, whom its policies bind."""
    aws = acme.aws
    user = aws.client("iam")
    user.create_user(UserName="root-of-all")
    user.attach_user_policy(
        UserName="root-of-all", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess"
    )
    key = user.create_access_key(UserName="root-of-all")["AccessKey"]
    return Account(
        {
            **aws.environment,
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        }
    )


@pytest.fixture(scope="module")
def ask(acme: Company, administrator: Account) -> Ask:
    """Ask for something as somebody; `done`, or the code of the error."""
    aws, bucket = acme.aws, acme.outputs["BucketName"]
    aws.client("s3").put_object(Bucket=bucket, Key="inbox/submissions/lies-there", Body=b"x")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("probe.py", PROBE)
    aws.client("lambda").create_function(
        FunctionName="probe",
        Runtime=f"python3.{sys.version_info.minor}",
        Handler="probe.handler",
        Role=acme.role(REFRESHER),
        Timeout=60,
        Code={"ZipFile": packed.getvalue()},
    )

    def by_function(service: str, request: str, arguments: dict[str, Any]) -> str:
        """Only the service may become the refresher."""
        sent = {
            name: {"bytes": value.decode("latin-1")} if isinstance(value, bytes) else value
            for name, value in arguments.items()
        }
        event = json.dumps({"service": service, "request": request, "arguments": sent})
        answer = aws.client("lambda").invoke(FunctionName="probe", Payload=event)
        found = json.loads(answer["Payload"].read())
        assert isinstance(found, str), found
        return found

    def asking(who: str, service: str, request: str, arguments: dict[str, Any]) -> str:
        if who == REFRESHER:
            return by_function(service, request, arguments)
        of = administrator if who == ADMINISTRATOR else aws
        client = of.client(service, "" if who == ADMINISTRATOR else acme.role(who))
        try:
            getattr(client, request)(**arguments)
        except client.exceptions.ClientError as error:
            return str(error.response["Error"]["Code"])
        return "done"

    return asking


@pytest.mark.parametrize("sentence", TRIED)
def test_each_role_may_what_it_must_and_nothing_else(
    acme: Company, ask: Ask, sentence: str
) -> None:
    act, allowed = TRIED[sentence]
    service, request, arguments = act(acme.outputs)
    for number, who in enumerate(sorted(EVERYBODY)):
        own = dict(arguments)
        if "IfNoneMatch" in own:  # another name for each: what is there is no refusal
            own["Key"] = own["Key"].replace("it", f"it-{number}").replace("9", f"9{number}")
        found = ask(who, service, request, own)
        expected = {"done"} if who in allowed else {"AccessDenied", "AccessDeniedException"}
        assert found in expected, f"{who} wants to {sentence}: {found}"


def test_nobody_but_the_service_becomes_the_refresher(acme: Company) -> None:
    sts = acme.aws.client("sts", acme.role(PUBLISHER))
    with pytest.raises(sts.exceptions.ClientError, match="AccessDenied"):
        sts.assume_role(RoleArn=acme.role(REFRESHER), RoleSessionName="thief")
    for role in (BUILDER, MANAGER, WATCHER):
        with pytest.raises(sts.exceptions.ClientError, match="AccessDenied"):
            sts.assume_role(RoleArn=acme.role(role), RoleSessionName="thief")


def test_roots_are_held_from_their_first_byte(acme: Company) -> None:
    root, bucket = acme.aws.client("s3"), acme.outputs["BucketName"]
    key = "metadata/1.root.json"
    head = root.head_object(Bucket=bucket, Key=key)
    assert head["ObjectLockLegalHoldStatus"] == "ON"
    assert "ObjectLockLegalHoldStatus" not in root.head_object(
        Bucket=bucket, Key="metadata/1.targets.json"
    )
    with pytest.raises(root.exceptions.ClientError, match="AccessDenied"):
        root.delete_object(Bucket=bucket, Key=key, VersionId=head["VersionId"])


def test_a_bucket_without_object_lock_holds_no_root(acme: Company) -> None:
    # The other bucket of the stack has none.
    state = acme.outputs["StateBucketName"]
    data, other = b"{}", b"[]"
    with acme.aws.acting_as():
        with pytest.raises(ConfigurationError, match="the bucket has no object lock"):
            S3Storage(f"s3://{state}?roots=hold").create("1.root.json", data, sha256(data))
        held = S3Storage(f"s3://{acme.outputs['BucketName']}/else?roots=hold")
        assert held.create("1.root.json", data, sha256(data)) is Created.NEW
        assert held.create("1.root.json", data, sha256(data)) is Created.IDENTICAL
        with pytest.raises(LockedError, match="a rival published it"):
            held.create("1.root.json", other, sha256(other))


ISSUERS = {"github": "token.actions.githubusercontent.com", "gitlab": "gitlab.com"}


def test_a_ci_job_becomes_the_builder_if_it_is_the_one_that_is_named(acme: Company) -> None:
    subjects = {BUILDER: "repo:acme/firmware:environment:release", WATCHER: ""}
    for provider, issuer in ISSUERS.items():
        made = acme.aws.create(
            f"from-{provider}",
            "repository",
            RequireTls="false",
            CiProvider=provider,
            CiSubject=subjects[BUILDER],
            CiWatchSubject=subjects[WATCHER],
        )
        for who, subject in subjects.items():
            name = made[f"{who}RoleArn"].rpartition("/")[2]
            role = acme.aws.client("iam").get_role(RoleName=name)["Role"]
            by_token = [
                (each["Principal"]["Federated"].rpartition("/")[2], each["Condition"])
                for each in role["AssumeRolePolicyDocument"]["Statement"]
                if each["Action"] == "sts:AssumeRoleWithWebIdentity"
            ]
            exactly = {f"{issuer}:aud": "sts.amazonaws.com", f"{issuer}:sub": subject}
            assert by_token == ([(issuer, {"StringEquals": exactly})] if subject else [])
        # The other way round for the second one.
        subjects[WATCHER] = "project_path:acme/firmware:ref_type:branch:ref:main"
    for wrong in ("", "repo:acme/*"):
        with pytest.raises(Exception, match="CiSubject"):
            acme.aws.create("no", "repository", CiProvider="gitlab", CiSubject=wrong)


def test_a_runner_of_ci_signs_and_hands_in_word_for_word(acme: Company) -> None:
    """The workflow's own commands, in a clone that has nothing but what git has."""
    clone = acme.clone("runner")
    (clone.top / "acme/build").mkdir()
    (clone.top / "acme/build/gw2.img").write_bytes(b"built by CI" * 1000)
    *building, watching = lines("github")
    for line in building:
        clone.typed(BUILDER, line)
    clone.typed(WATCHER, watching)
    told = acme.firmroot(PUBLISHER, "publish", "--no-wait")
    assert "published" in told
    assert "installs 1.1" not in told, "a build alone ships nothing"
    assert "1.1" in acme.firmroot(BUILDER, "firmware", "list")


@pytest.fixture(scope="module")
def rescue(acme: Company) -> dict[str, str]:
    """The outputs of the anchor's stack.

    In the same account, of which it thinks that it is another one: what is refused here is refused
    to whoever does not have the role, wherever they are.
    """
    made = acme.aws.create(
        "rescue",
        "recovery",
        PrimaryAccount="111122223333",
        PrimaryBucket=acme.outputs["BucketName"],
        RequireTls="false",
    )
    bucket = made["Storage"].removeprefix("s3://").partition("?")[0]
    acme.aws.client("s3").put_object_lock_configuration(
        Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"}
    )
    return {**made, "bucket": bucket}


def test_the_recovery_anchor_is_published_by_its_role(
    acme: Company, rescue: dict[str, str]
) -> None:
    clone = acme.clone("rescuers")
    config = clone.top / "acme/firmroot.toml"
    text = config.read_text().replace(
        '# recovery_storage = "file:///..."', f'recovery_storage = "{rescue["Storage"]}"'
    )
    config.write_text(text.replace("recovery_urls = []", f'recovery_urls = ["{rescue["Url"]}"]'))
    role = rescue["AnchorRoleArn"]
    for name in ("rescue-1", "rescue-2"):
        clone.firmroot(role, "key", "new", name, "--role", "recovery")
    clone.firmroot(role, "anchor", "init")
    clone.firmroot(role, "sign")
    assert "1.root.json is there now" in clone.firmroot(role, "anchor", "publish")
    head = acme.aws.client("s3").head_object(Bucket=rescue["bucket"], Key="1.root.json")
    assert head["ObjectLockLegalHoldStatus"] == "ON"
    with edge(acme.aws, rescue["DistributionId"]) as served:
        assert status_of(f"{served}1.root.json") == 200
        assert status_of(f"{served}timestamp.json") == 404
        assert status_of(served) == 404


def test_nobody_else_writes_to_the_recovery_anchor(
    acme: Company, rescue: dict[str, str], ask: Ask
) -> None:
    anchor = acme.aws.client("s3", rescue["AnchorRoleArn"])
    denied = anchor.exceptions.ClientError
    new = {"Bucket": rescue["bucket"], "Body": b"{}", "IfNoneMatch": "*"}
    old = {"Bucket": rescue["bucket"], "Key": "1.root.json"}
    primary = {**new, "Bucket": acme.outputs["BucketName"], "Key": "metadata/9.root.json"}
    for request, arguments in (
        ("put_object", {**new, "Key": "timestamp.json"}),
        ("put_object", primary),
        ("delete_object", old),
    ):
        with pytest.raises(denied, match="AccessDenied"):
            getattr(anchor, request)(**arguments)
    for who in (PUBLISHER, ADMINISTRATOR):
        assert ask(who, "s3", "put_object", {**new, "Key": "9.root.json"}) == "AccessDenied", who
        assert ask(who, "s3", "delete_object", old) == "AccessDenied", who
    anchor.put_object(**{**new, "Key": "e1/1.root.json"})
    with pytest.raises(Exception, match="another account"):
        acme.aws.create("no", "recovery", PrimaryAccount="000000000000", PrimaryBucket="acme")


def test_a_planted_root_is_taken_away_by_the_runbook(
    acme: Company, ask: Ask, administrator: Account
) -> None:
    bucket, key = acme.outputs["BucketName"], "metadata/2.root.json"
    place = {"Bucket": bucket, "Key": key}
    thief = acme.aws.client("s3", acme.role(PUBLISHER))
    with acme.resting():
        thief.put_object(**place, Body=b"{}", IfNoneMatch="*")
        assert "planted-root.md" in acme.firmroot(PUBLISHER, "refresh", code=6)
        # As docs/runbooks/planted-root.md has it.
        assert ask(ADMINISTRATOR, "s3", "delete_object", place) == "AccessDenied"
        by_hand = administrator.client("s3")
        policy = by_hand.get_bucket_policy(Bucket=bucket)["Policy"]
        without = json.loads(policy)
        without["Statement"] = [
            each for each in without["Statement"] if each["Sid"] != "RootsAndTimestampStay"
        ]
        by_hand.put_bucket_policy(Bucket=bucket, Policy=json.dumps(without))
        by_hand.delete_object(**place)
        by_hand.delete_object(Bucket=bucket, Key="metadata/root-chain/2")
        by_hand.put_bucket_policy(Bucket=bucket, Policy=policy)
        assert ask(ADMINISTRATOR, "s3", "delete_object", place) == "AccessDenied"
        versions = by_hand.list_object_versions(Bucket=bucket, Prefix=key)["Versions"]
        assert [each["Size"] for each in versions] == [2], "the evidence stays"
        assert "trusted: " in acme.firmroot(PUBLISHER, "verify")
        assert acme.invoke()["exit_code"] == 0


def test_a_clean_up_has_a_role_of_its_own(acme: Company) -> None:
    """Its fence is a timestamp, which no administrator signs; what it removes, no publisher may."""
    root = acme.aws.client("s3")
    mark = {"Bucket": acme.outputs["BucketName"], "Key": "gc/running.json"}
    old = {"schema": 1, "since": "2020-01-01T00:00:00Z", "token": "of another one"}
    with acme.resting():
        # One that was interrupted: nothing here is old enough to go by itself.
        root.put_object(**mark, Body=json.dumps(old).encode(), IfNoneMatch="*")
        before = acme.live_timestamp()["version"]
        acme.firmroot(PUBLISHER, "gc", code=2)
        assert "removed 0 objects" in acme.firmroot(CLEANER, "gc")
        assert acme.live_timestamp()["version"] == before + 1
        with pytest.raises(root.exceptions.ClientError, match="404"):
            root.head_object(**mark)
    # The publisher goes on from there.
    assert "nothing to publish" in acme.firmroot(PUBLISHER, "publish", "--no-wait")


def test_another_key_takes_the_place_of_the_online_one(acme: Company) -> None:
    with acme.resting():
        both = acme.aws.update(STACK, "repository", RequireTls="false", OnlineKeys="A+B")
        uri = both["OnlineKeyBUri"]
        acme.firmroot(PUBLISHER, "key", "import", uri, "--name", "online-b")
        acme.firmroot(PUBLISHER, "rotate", "online", "--to", "online-b")
        acme.firmroot(MANAGER, "sign")
        acme.firmroot(PUBLISHER, "publish", "--no-wait")
        # The refresher's workspace is that of before: it does not know who signs now.
        assert "exit code" in acme.invoke()["errorMessage"]
        acme.hand_over()
        assert acme.invoke()["exit_code"] == 0
        alone = acme.aws.update(STACK, "repository", RequireTls="false", OnlineKeys="B")
        assert "OnlineKeyAUri" not in alone
        before = acme.live_timestamp()["version"]
        assert acme.invoke()["exit_code"] == 0
        assert acme.live_timestamp()["version"] == before + 1


def test_it_runs_on_its_schedule_and_goes_on_after_all_that(acme: Company) -> None:
    # Last in this file: the schedule is once a minute.
    before = acme.live_timestamp()["version"]
    acme.await_version(before + 1)
    assert acme.log().count('"exit_code": 0') >= 1
