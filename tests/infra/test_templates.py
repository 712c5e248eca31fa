"""The templates of `infra/aws`, as a linter reads them and as they are meant.

What is asserted here by reading is what no emulator plays: clauses with condition keys that it does
not know, object lock, and a CDN with a cache. The page says of each that it is untested on AWS.
"""

from __future__ import annotations

import fnmatch
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.infra.templates import DIRECTORY, NAMES, load, of_type, statements, texts
from tests.simulators.services import needed

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.services

CREATES = {"s3:ObjectCreationOperation": "true"}


def lint(*files: Path) -> subprocess.CompletedProcess[str]:
    line = [needed("cfn-lint", "sh scripts/bootstrap services"), *map(str, files)]
    return subprocess.run(line, check=False, capture_output=True, text=True, timeout=120)


def test_cfn_lint_accepts_them(tmp_path: Path) -> None:
    files = sorted(DIRECTORY.glob("*.yaml"))
    assert {file.stem for file in files} == set(NAMES)
    done = lint(*files)
    assert done.returncode == 0, done.stdout
    broken = tmp_path / "refresher.yaml"
    text = (DIRECTORY / "refresher.yaml").read_text()
    broken.write_text(text.replace("TreatMissingData: breaching", "TreatMissingData: shrug"))
    assert "shrug" in lint(broken).stdout, "it would not have told"


def policies() -> dict[str, dict[str, dict[str, Any]]]:
    """The statements of every bucket policy, by its bucket."""
    return {
        f"{name}.{policy['Bucket']['Ref']}": statements(policy)
        for name in ("repository", "recovery")
        for policy in of_type(load(name), "AWS::S3::BucketPolicy").values()
    }


def matches(statement: dict[str, Any], key: str, bucket: str = "Bucket") -> bool:
    """Whether a statement is about an object."""
    place = f"${{{bucket}.Arn}}/{key}"
    # Of a pattern only `*` is used; an ARN is case-sensitive.
    return any(
        fnmatch.fnmatchcase(place.replace("[", "").replace("]", ""), pattern)
        for pattern in texts(statement["Resource"])
    )


# Key: whether it is created once, or replaced if unchanged.
WRITTEN = {
    "metadata/1.root.json": "once",
    "metadata/12.snapshot.json": "once",
    "metadata/12.timestamp.json": "once",
    "metadata/e1/12.timestamp.json": "once",
    "metadata/3.gateway-stable.json": "once",
    "metadata/e1/12.snapshot.json": "once",
    "metadata/root-chain/7": "once",
    "metadata/e1/root-chain/7": "once",
    "targets/builds/gateway/1.0/abc.gw2.img": "once",
    "inbox/submissions/abc/submission.json": "once",
    "inbox/answers/abc.json": "once",
    "metadata/timestamp.json": "unchanged",
    "metadata/e1/timestamp.json": "unchanged",
    "gc/running.json": "unchanged",
}


@pytest.mark.parametrize("key", WRITTEN)
def test_every_object_is_written_with_a_condition(key: str) -> None:
    found = policies()["repository.Bucket"]
    once, unchanged = found["ObjectsAreCreatedOnce"], found["TimestampIsReplacedIfUnchanged"]
    assert matches(once, key) == (WRITTEN[key] == "once")
    assert matches(unchanged, key) == (WRITTEN[key] == "unchanged")
    for each in (once, unchanged):
        assert (each["Effect"], each["Principal"], each["Action"]) == ("Deny", "*", "s3:PutObject")
    assert once["Condition"] == {"Null": {"s3:if-none-match": "true"}, "Bool": CREATES}
    # Both keys absent: the conditions of one block are joined by AND.
    assert unchanged["Condition"] == {
        "Null": {"s3:if-match": "true", "s3:if-none-match": "true"},
        "Bool": CREATES,
    }


def test_the_memory_and_the_anchor_are_written_with_a_condition() -> None:
    memory = policies()["repository.StateBucket"]["MemoryIsReplacedIfUnchanged"]
    assert matches(memory, "refresher/e1/high-water.json", "StateBucket")
    assert memory["Condition"]["Null"] == {"s3:if-match": "true", "s3:if-none-match": "true"}
    anchor = policies()["recovery.Bucket"]["RootsAreCreatedOnce"]
    assert matches(anchor, "1.root.json")
    assert anchor["Condition"] == {"Null": {"s3:if-none-match": "true"}, "Bool": CREATES}


@pytest.mark.parametrize("name", ["repository", "recovery"])
def test_roots_are_locked_and_nobody_lifts_it(name: str) -> None:
    template = load(name)
    bucket = template["Resources"]["Bucket"]
    assert bucket["Properties"]["ObjectLockEnabled"] is True
    assert bucket["Properties"]["VersioningConfiguration"] == {"Status": "Enabled"}
    assert bucket["DeletionPolicy"] == bucket["UpdateReplacePolicy"] == "Retain"
    assert template["Outputs"]["Storage"]["Value"]["Fn::Sub"].endswith("?roots=hold")
    lifted = policies()[f"{name}.Bucket"]["HoldsAreNotLifted"]
    assert (lifted["Effect"], lifted["Principal"]) == ("Deny", "*")
    assert lifted["Action"] == "s3:PutObjectLegalHold"
    assert lifted["Condition"] == {"StringEquals": {"s3:object-lock-legal-hold": "OFF"}}
    assert matches(lifted, "1.root.json" if name == "recovery" else "metadata/1.root.json")


@pytest.mark.parametrize("name", ["repository", "recovery"])
def test_every_bucket_is_private_and_over_tls_alone(name: str) -> None:
    template = load(name)
    buckets = of_type(template, "AWS::S3::Bucket")
    for key, bucket in buckets.items():
        assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}, key
        assert bucket["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
        plain = policies()[f"{name}.{key}"]["OverTlsAlone"]
        assert (plain["Effect"], plain["Principal"], plain["Action"]) == ("Deny", "*", "s3:*")
        assert plain["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert template["Parameters"]["RequireTls"]["Default"] == "true"


def behaviors(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    [distribution] = of_type(load(name), "AWS::CloudFront::Distribution").values()
    config = distribution["DistributionConfig"]
    return config, [*config["CacheBehaviors"], config["DefaultCacheBehavior"]]


@pytest.mark.parametrize("name", ["repository", "recovery"])
def test_the_cdn_serves_plain_http_and_caches_no_error(name: str) -> None:
    config, every = behaviors(name)
    assert {each["ViewerProtocolPolicy"] for each in every} == {"allow-all"}
    assert {tuple(each["AllowedMethods"]) for each in every} == {("GET", "HEAD")}
    # Versioned metadata alone, for who asks: a range of an artifact is one of its own bytes, and
    # the ETag of timestamp.json stays what the storage gave.
    compressed = [each["PathPattern"] for each in every if each["Compress"]]
    assert compressed == (["metadata/*"] if name == "repository" else [])
    errors = {
        each["ErrorCode"]: each["ErrorCachingMinTTL"] for each in config["CustomErrorResponses"]
    }
    assert errors == dict.fromkeys((403, 404, 500, 502, 503, 504), 0)
    function = every[-1]["FunctionAssociations"]
    assert function == [
        {
            "EventType": "viewer-request",
            "FunctionARN": {"Fn::GetAtt": "NotHere.FunctionMetadata.FunctionARN"},
        }
    ]


# Path: the cache policy of the first behavior that is about it.
CACHED = {
    "metadata/timestamp.json": "BriefObjects",
    "metadata/e1/timestamp.json": "BriefObjects",
    "metadata/12.snapshot.json": "CompressedObjects",
    "metadata/root-chain/7": "CompressedObjects",
    "targets/trust/abc.ca-bundle.pem": "ImmutableObjects",
}


@pytest.mark.parametrize("path", CACHED)
def test_each_object_is_cached_as_long_as_it_stays(path: str) -> None:
    config, _ = behaviors("repository")
    [first, *_] = [
        each for each in config["CacheBehaviors"] if fnmatch.fnmatchcase(path, each["PathPattern"])
    ]
    assert first["CachePolicyId"] == {"Ref": CACHED[path]}
    rules = of_type(load("repository"), "AWS::CloudFront::CachePolicy")
    times = {
        key: tuple(each["CachePolicyConfig"][f"{word}TTL"] for word in ("Min", "Default", "Max"))
        for key, each in rules.items()
    }
    long = (0, 86_400, 31_536_000)
    assert times == {
        "BriefObjects": (0, 60, 60),
        "ImmutableObjects": long,
        "CompressedObjects": long,
    }
    for name, each in rules.items():
        key = {**each["CachePolicyConfig"]["ParametersInCacheKeyAndForwardedToOrigin"]}
        assert key.pop("EnableAcceptEncodingGzip") is (name == "CompressedObjects")
        assert set(map(str, key.values())) <= {
            "False", "{'CookieBehavior': 'none'}", "{'HeaderBehavior': 'none'}",
            "{'QueryStringBehavior': 'none'}",
        }, "what a viewer adds makes no second copy and reaches nobody"  # fmt: skip


def test_the_cdn_may_read_what_is_public_and_is_told_what_is_not_there() -> None:
    found = policies()["repository.Bucket"]
    reads, told = found["CdnReadsWhatIsPublic"], found["CdnToldWhatIsNotThere"]
    assert texts(reads["Resource"]) == ["${Bucket.Arn}/metadata/*", "${Bucket.Arn}/targets/*"]
    assert told["Action"] == "s3:ListBucket"
    for each in (reads, told):
        assert each["Principal"] == {"Service": "cloudfront.amazonaws.com"}
        [source] = texts(each["Condition"]["StringEquals"]["AWS:SourceArn"])
        assert source.endswith(":distribution/${Distribution}")
    assert texts(found["InboxIsNeverServed"]["Resource"]) == [
        "${Bucket.Arn}/inbox/*",
        "${Bucket.Arn}/gc/*",
    ]


def test_a_key_signs_for_its_roles_alone() -> None:
    keys = of_type(load("repository"), "AWS::KMS::Key")
    signers = {}
    for name, key in keys.items():
        found = statements({"PolicyDocument": key["KeyPolicy"]})
        administered = found.pop("AccountAdministers")
        assert "kms:Sign" not in administered["Action"]
        assert not [each for each in administered["Action"] if "*" in each or "Grant" in each]
        for each in found.values():
            if "kms:Sign" in texts(each["Action"]):
                signers[name] = texts(each["Principal"]["AWS"])
                # AWS always says the algorithm; the emulator does not.
                assert each["Condition"] == {
                    "StringEqualsIfExists": {"kms:SigningAlgorithm": "ECDSA_SHA_256"}
                }
    assert signers == {
        "OnlineKeyA": ["PublisherRole.Arn", "RefresherRole.Arn", "CleanerRole.Arn"],
        "OnlineKeyB": ["PublisherRole.Arn", "RefresherRole.Arn", "CleanerRole.Arn"],
        "BuilderKeyA": ["BuilderRole.Arn"],
        "BuilderKeyB": ["BuilderRole.Arn"],
    }


def test_no_role_may_more_than_is_written_down() -> None:
    for name in ("repository", "recovery"):
        for policy in of_type(load(name), "AWS::IAM::Policy").values():
            for each in policy["PolicyDocument"]["Statement"]:
                actions = texts(each["Action"])
                assert not [action for action in actions if "*" in action], policy["PolicyName"]
                if "*" in texts(each["Resource"]):
                    # There is no finer resource; the name of the namespace is the bound.
                    assert actions == ["cloudwatch:PutMetricData"]
                    assert each["Condition"] == {
                        "StringEqualsIfExists": {"cloudwatch:namespace": "Firmroot"}
                    }


def test_silence_is_an_alarm() -> None:
    alarms = of_type(load("refresher"), "AWS::CloudWatch::Alarm")
    for name in ("Silent", "Failing"):
        assert alarms[name]["TreatMissingData"] == "breaching"
        assert alarms[name]["Period"] * alarms[name]["EvaluationPeriods"] <= 86_400, (
            "CloudWatch's limit"
        )
    assert {each["AlarmActions"][0]["Ref"] for each in alarms.values()} == {"Told"}
    function = of_type(load("refresher"), "AWS::Lambda::Function")["Refresher"]
    assert function["Handler"] == "repo_tools.cloud.refresher.handler"


UNTESTED = (
    "s3:if-none-match",
    "s3:if-match",
    "s3:ObjectCreationOperation",
    "s3:object-lock-legal-hold",
    "kms:SigningAlgorithm",
    "cloudwatch:namespace",
    "aws:SecureTransport",
)


def test_the_page_lists_what_is_untested_on_aws() -> None:
    text = (DIRECTORY / "README.md").read_text()
    named = set(re.findall(r"\b([A-Z][A-Za-z]+)=", text))
    parameters = {each for name in NAMES for each in load(name)["Parameters"]}
    assert named
    assert named <= parameters
    _, _, listed = text.partition("## Untested on AWS")
    for key in UNTESTED:
        assert f"`{key}`" in listed, key
    # Every condition key of the templates is either played by the emulator or listed.
    played = {"AWS:SourceArn", "aws:PrincipalArn"}
    used = {
        key
        for found in policies().values()
        for each in found.values()
        for block in each.get("Condition", {}).values()
        for key in block
    }
    assert used <= played | set(UNTESTED)
