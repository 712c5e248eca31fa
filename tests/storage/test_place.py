"""How a storage on S3 is written in `firmroot.toml`; needs no service."""

from __future__ import annotations

import pytest

from client_reference.errors import ConfigurationError
from repo_tools.storage.s3 import Place, parse_place

READ = {
    "s3://acme": Place("acme", "", ""),
    "s3://acme/one/two/": Place("acme", "one/two/", ""),
    "s3://acme?roots=hold": Place("acme", "", "", held=True),
    "s3://acme/x?endpoint=https://s3.example&roots=hold": Place(
        "acme", "x/", "https://s3.example", held=True
    ),
}
REFUSED = {
    "s3://acme?roots=lock": "expected roots=hold",
    "s3://acme?hold=roots": "is not a storage on S3",
    "s3://acme?endpoint=ftp://x": "the endpoint must begin with",
    "s3://acme?endpoint=": "the endpoint must begin with .* found ''",
    "s3://acme?endpoint=https://": "the endpoint must begin with .* and name a host",
    "s3://acme?endpoint=http://host:port": "the endpoint must begin with",
    "s3://acme?endpoint=http://[::1": "the endpoint must begin with",
    "s3://acme?other=": "is not a storage on S3",
    "s3://acme:9000/x": "is not a storage on S3",
    "s3://acme:x/y": "is not a storage on S3",
    "s3://[acme/x": "is not a storage on S3",
    "s3://ac me/x": "is not a storage on S3",
    "s3://acme/x/../y": "is not a storage on S3",
    "s3://": "is not a storage on S3",
    "https://acme": "is not a storage on S3",
}


@pytest.mark.parametrize("url", READ)
def test_it_is_read(url: str) -> None:
    assert parse_place(url) == READ[url]


@pytest.mark.parametrize("url", REFUSED)
def test_what_is_no_place_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=REFUSED[url]):
        parse_place(url)
