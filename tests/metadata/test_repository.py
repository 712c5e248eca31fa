"""What a repository says, parsed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from client_reference.errors import NotTrustedError
from repo_tools.metadata.edits import assemble
from repo_tools.metadata.repository import RepositoryState, parse

NOW = datetime(2026, 3, 2, tzinfo=UTC)
TARGETS = assemble(Targets(3, expires=NOW), [])


def test_an_empty_repository_says_nothing() -> None:
    state = RepositoryState()
    assert state.root is None
    assert state.targets is None
    assert state.parsed_snapshot() is None
    assert state.parsed_timestamp() is None
    assert state.newest() == {}


def test_a_repository_says_what_its_bytes_say() -> None:
    state = RepositoryState(
        (assemble(Root(1, expires=NOW), []), assemble(Root(2, expires=NOW), [])),
        assemble(Timestamp(4, expires=NOW), []),
        assemble(Snapshot(5, expires=NOW), []),
    ).with_roles({"targets": TARGETS})
    assert state.root is not None
    assert state.root.version == 2
    assert state.targets is not None
    assert state.targets.version == 3
    timestamp, snapshot = state.parsed_timestamp(), state.parsed_snapshot()
    assert timestamp is not None
    assert snapshot is not None
    assert (timestamp.version, snapshot.version) == (4, 5)
    versions = {name: signed.version for name, signed in state.newest().items()}
    assert versions == {"root": 2, "timestamp": 4, "snapshot": 5, "targets": 3}


def test_what_has_no_metadata_yet_says_nothing() -> None:
    staged = RepositoryState(roles={"targets": TARGETS})
    assert staged.newest().keys() == {"targets"}


@pytest.mark.parametrize("data", [b"", b"{}", TARGETS[:100], b"<html>moved</html>"])
def test_truncated_metadata_is_named(data: bytes) -> None:
    with pytest.raises(NotTrustedError) as caught:
        parse(data, Targets, "targets")
    assert f"targets is not readable TUF metadata ({len(data)} bytes)" in caught.value.message
    assert "truncated" in caught.value.hint


def test_metadata_of_another_kind_is_named() -> None:
    with pytest.raises(NotTrustedError, match="root is targets metadata, expected root"):
        parse(TARGETS, Root, "root")
