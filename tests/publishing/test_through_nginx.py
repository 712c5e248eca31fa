"""The checks of what serves a repository, against the real thing: nginx with a cache before an S3.

The configuration is the one that `infra/nginx` ships; each bad one differs from it in one place.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest

from repo_tools.publishing.verify import Severity
from tests.publishing.lab import HARDWARE, PRODUCT, Lab
from tests.simulators.nginx import nginx
from tests.simulators.seaweed import ACCESS, SECRET, seaweed

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.services

ERROR, WARNING = Severity.ERROR.value, Severity.WARNING.value
PREFIX = "/acme/firmware"
PUBLIC = {"name": "anonymous", "actions": ["Read", "List"]}


@dataclass(frozen=True)
class Scene:
    """A repository that is live on S3.

    Attributes:
        lab: its workspace.
        origin: host and port of the S3.
    """

    lab: Lab
    origin: str

    def through(self, url: str, *arguments: str) -> tuple[int, set[tuple[str, str]]]:
        """Exit code and findings, but those that every lab has."""
        done = self.lab.run("--json", "verify", "--through", url, *arguments)
        (mirror,) = done.json["mirrors"]
        assert not mirror["trouble"]
        found = {(each["id"], each["severity"]) for each in mirror["findings"]}
        return done.code, {each for each in found if each[1] != "ok"} - {("root-chain", WARNING)}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    top = tmp_path_factory.mktemp("nginx")
    with pytest.MonkeyPatch.context() as patch, seaweed(top, [PUBLIC]) as service:
        patch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_REGION", "us-east-1")
        service.client().create_bucket(Bucket="acme")
        lab = Lab(top / "acme", datetime.now(UTC).replace(microsecond=0))
        lab.init()
        config = lab.directory / "firmroot.toml"
        url = f"s3://acme/firmware?endpoint={service.endpoint}"
        config.write_text(
            config.read_text().replace('storage = "repository"', f'storage = "{url}"')
        )
        lab.ok("product", "add", PRODUCT, "--hardware", HARDWARE)
        lab.ship("1.0")
        lab.ok("factory", "export", PRODUCT, "--to", top / "device")
        key = "firmware/inbox/submissions/one/submission.json"
        service.client().put_object(Bucket="acme", Key=key, Body=b"{}")
        yield Scene(lab, service.endpoint.removeprefix("http://"))


BRIEF = "proxy_cache_valid 200 10s;"
GOOD_LOCATION = "    location / {\n        return 404;\n    }"
OPEN = "    location / {\n        proxy_pass http://firmroot_origin@PREFIX@$uri;\n    }"
BAD: dict[str, tuple[dict[str, str], int, set[tuple[str, str]]]] = {
    "the configuration that is shipped": ({}, 0, set()),
    "a timestamp for an hour": (
        {'200     "max-age=60"': '200     "max-age=3600"'},
        5,
        {("timestamp-lifetime", ERROR)},
    ),
    "what the storage says of caches": (
        {"proxy_hide_header Cache-Control;": "", "$firmroot_immutable always": "'' always"},
        0,
        {("errors-kept", WARNING)},
    ),
    "immutable objects for a day": (
        {"public, max-age=31536000, immutable": "public, max-age=86400"},
        0,
        {("immutable", WARNING)},
    ),
    "404 remembered": (
        {
            "gzip on;": "gzip on; proxy_cache_valid 404 10m;",
        },
        5,
        {("errors-kept", ERROR)},
    ),
    "errors that may be kept": (
        {'default "no-store";': 'default "public, max-age=300";'},
        5,
        {("errors-kept", ERROR)},
    ),
    "403 for what is not there": (
        {"gzip on;": "gzip on; proxy_intercept_errors on; error_page 404 =403 @no;",
         GOOD_LOCATION: GOOD_LOCATION + "\n    location @no { return 403; }"},
        0,
        {("absent", WARNING), ("errors-kept", WARNING)},
    ),
    "a page of one's own for what is not there": (
        {"gzip on;": "gzip on; proxy_intercept_errors on; error_page 404 =200 @no;",
         GOOD_LOCATION: GOOD_LOCATION + "\n    location @no { return 200 '<html>'; }"},
        6,
        {("absent", ERROR), ("metadata", ERROR), ("device", ERROR)},
    ),
    "no ranges": (
        {"slice 1m;": "max_ranges 0;", "proxy_set_header Range $slice_range;": "",
         "$uri$slice_range": "$uri"},
        0,
        {("range", WARNING)},
    ),
    "compression of everything": (
        {"add_header Cache-Control $firmroot_brief always;":
         "add_header Cache-Control $firmroot_brief always; gzip on; gzip_min_length 1; "
         "gzip_types *; gzip_proxied any;"},
        0,
        {("etag", WARNING), ("gzip", WARNING)},
    ),
    "an open inbox": ({GOOD_LOCATION: OPEN}, 5, {("inbox", ERROR)}),
    "a list of the bucket": (
        {GOOD_LOCATION: "    location = / { proxy_pass http://firmroot_origin/acme; }\n"
         + GOOD_LOCATION},
        0,
        {("listing", WARNING)},
    ),
    "a redirect to https": (
        {"listen @LISTEN@;": "listen @LISTEN@; return 301 https://$host$request_uri;"},
        6,
        {("answers", ERROR), ("plain-http", ERROR), ("absent", ERROR), ("metadata", ERROR),
         ("range", ERROR)},
    ),
    "a password for metadata": (
        {"gzip on;": "gzip on; deny all;"},
        6,
        {("answers", ERROR), ("public", ERROR), ("absent", WARNING), ("metadata", ERROR),
         ("device", ERROR)},
    ),
    "a cookie": (
        {"add_header Cache-Control $firmroot_brief always;":
         "add_header Cache-Control $firmroot_brief always; add_header Set-Cookie id=1;"},
        0,
        {("cookies", WARNING)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_nginx_has(case: str, scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> None:
    changes, code, expected = BAD[case]
    directory = tmp_path_factory.mktemp("one")
    with nginx(directory, origin=scene.origin, prefix=PREFIX, changes=changes) as url:
        # From the storage, and from the cache.
        for _ in range(2):
            assert scene.through(url) == (code, expected)


def test_a_cache_that_keeps_the_timestamp_shows_in_the_comparison_with_the_storage(
    scene: Scene, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("kept")
    kept = {BRIEF: "proxy_cache_valid 200 1h;"}
    with nginx(directory, origin=scene.origin, prefix=PREFIX, changes=kept) as url:
        assert scene.through(url) == (0, set())
        later = scene.lab.later(seconds=1)
        later.ok("refresh")
        code, found = Scene(later, scene.origin).through(url)
        assert (code, found) == (0, {("origin", WARNING)}), "within a minute that is what it is for"
        much_later = scene.lab.later(seconds=62)
        code, found = Scene(much_later, scene.origin).through(url)
        assert (code, found) == (5, {("origin", ERROR)})
    honest = tmp_path_factory.mktemp("honest")
    with nginx(honest, origin=scene.origin, prefix=PREFIX) as url:
        assert Scene(much_later, scene.origin).through(url) == (0, set())


def test_every_artifact_is_read_through_the_cache(
    scene: Scene, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lab = scene.lab.later(minutes=2)
    with nginx(tmp_path_factory.mktemp("read"), origin=scene.origin, prefix=PREFIX) as url:
        done = lab.ok("verify", "--through", url, "--artifacts")
        assert "reading target 3 of 3" in done.out
        assert "X-Cache: " not in done.out
        assert "x-cache: HIT" in done.out
        done = lab.ok("verify", "--through", url, "--artifacts")
        assert "targets: 3 files" in done.out


def test_a_device_sees_a_publish_through_the_shipped_cache(
    scene: Scene, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """After the ten seconds that the cache keeps a timestamp, and not before nginx must ask."""
    brief = {BRIEF: "proxy_cache_valid 200 1s;"}
    directory = tmp_path_factory.mktemp("brief")
    with nginx(directory, origin=scene.origin, prefix=PREFIX, changes=brief) as url:
        before = urlopen(f"{url}metadata/timestamp.json", timeout=5).read()  # noqa: S310
        lab = Lab(scene.lab.directory, scene.lab.now + timedelta(minutes=3))
        lab.ok("refresh")
        ends = time.monotonic() + 20
        while urlopen(f"{url}metadata/timestamp.json", timeout=5).read() == before:  # noqa: S310
            assert time.monotonic() < ends
            time.sleep(0.2)
        assert Scene(lab, scene.origin).through(url) == (0, set())
