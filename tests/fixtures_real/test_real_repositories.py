"""Repositories that other people signed: from each root they shipped, the walk ends where it must.

The data are not part of this project; see `FOLDER`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import NotFoundError
from client_reference.transport.fetcher import DirectoryFetcher
from client_reference.trust.state import MemoryStore
from client_reference.trust.updater import Floors, Updater, initial_state
from client_reference.trust.verified import BadSignatureError, ExpiredError, MalformedError

if TYPE_CHECKING:
    from client_reference.errors import FirmrootError

FOLDER = Path(__file__).parents[3] / "shared" / "fixtures" / "real-repositories"

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(),
    reason=f"real repositories are not at {FOLDER.parent.parent.name}/{FOLDER.parent.name}",
)

FLOORS = Floors(time=0, minimum_sequence=0, epoch=0)


def time(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def root(folder: str, version: int) -> bytes:
    return (FOLDER / folder / "metadata" / f"{version}.root.json").read_bytes()


def device(folder: str, version: int, now: datetime) -> tuple[Updater, MemoryStore]:
    store = MemoryStore(initial_state(root(folder, version), FLOORS))
    return Updater(store, DirectoryFetcher(FOLDER / folder), now), store


def committed_root(store: MemoryStore) -> int:
    assert store.state is not None
    return store.state.trust.root_version


WALKS = [
    # folder, first root, time, last root, how the refresh ends
    ("sigstore-2022-11", 5, "2022-10-31T17:14:46Z", 5, None),
    *(("sigstore-roots", v, "2026-08-21T20:25:56Z", 15, NotFoundError) for v in range(5, 15)),
    *(("sigstore-roots", v, "2026-11-21T00:00:00Z", 15, ExpiredError) for v in range(5, 15)),
    ("bottlerocket-roots", 1, "2021-06-01T00:00:00Z", 2, NotFoundError),
    ("bottlerocket-roots", 2, "2021-06-01T00:00:00Z", 2, NotFoundError),
    ("bottlerocket-roots", 1, "2031-01-01T00:00:00Z", 2, ExpiredError),
    ("tuf-on-ci-0.11", 1, "2026-11-21T00:00:00Z", 1, None),
]


@pytest.mark.parametrize(
    ("folder", "first", "now", "last", "ends"),
    WALKS,
    ids=[f"{folder}-from-v{first}-at-{now}" for folder, first, now, *_ in WALKS],
)
def test_the_walk_ends_where_the_readme_says(
    folder: str, first: int, now: str, last: int, ends: type[FirmrootError] | None
) -> None:
    updater, store = device(folder, first, time(now))
    if ends is None:
        updater.refresh()
    else:
        with pytest.raises(ends) as caught:
            updater.refresh()
        assert ("timestamp" if ends is NotFoundError else "root expired") in caught.value.message
    assert updater.root.version == last
    assert committed_root(store) == last, "the newest root is kept"


REFUSED = [
    # folder, root, error, what its message names
    ("sigstore-2022-11", 1, MalformedError, "time data"),
    ("sigstore-2022-11", 2, MalformedError, "time data"),
    ("sigstore-2022-11", 3, MalformedError, "time data"),
    ("sigstore-2022-11", 4, BadSignatureError, "these keys cannot be used here"),
    ("sigstore-roots", 1, MalformedError, "time data"),
    ("sigstore-roots", 2, MalformedError, "time data"),
    ("sigstore-roots", 3, MalformedError, "time data"),
    ("sigstore-roots", 4, BadSignatureError, "these keys cannot be used here"),
]


@pytest.mark.parametrize(
    ("folder", "version", "error", "words"), REFUSED, ids=[f"{c[0]}-v{c[1]}" for c in REFUSED]
)
def test_a_root_of_an_older_format_is_refused_and_the_error_says_why(
    folder: str, version: int, error: type[FirmrootError], words: str
) -> None:
    with pytest.raises(error, match=words):
        initial_state(root(folder, version), FLOORS)


def test_sigstore_2022_gives_its_versions_and_all_seven_targets() -> None:
    updater, _ = device("sigstore-2022-11", 5, time("2022-10-31T17:14:46Z"))
    updater.refresh()
    versions = (updater.root.version, updater.timestamp.version, updater.snapshot.version)
    assert versions == (5, 54, 54)
    assert updater.targets.version == 5
    names = sorted(updater.targets.targets)
    assert len(names) == 7
    for name in names:
        target = updater.find(name)
        assert target is not None
        assert len(updater.fetch_target(target, 1_000_000)) == target.length


def test_sigstore_2022_is_refused_after_its_timestamp_ended() -> None:
    updater, _ = device("sigstore-2022-11", 5, time("2022-11-14T15:59:09Z"))
    with pytest.raises(ExpiredError, match="timestamp expired"):
        updater.refresh()


def test_tuf_on_ci_gives_its_versions_and_the_target_of_its_delegated_role() -> None:
    updater, _ = device("tuf-on-ci-0.11", 1, time("2026-11-21T00:00:00Z"))
    updater.refresh()
    assert (updater.timestamp.version, updater.snapshot.version) == (2, 2)
    assert updater.targets.version == 1
    role = updater.role("delegatedrole")
    assert role is not None
    assert role.version == 2
    target = updater.target("delegatedrole", "delegatedrole/artifact")
    assert target is not None
    assert updater.fetch_target(target, 1000)
