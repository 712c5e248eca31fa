"""Updates over a bad network: each one ends installed, or in a state from which the next one works.

A schedule of faults comes from a seed, so that a failure can be seen again:
`FIRMROOT_FAULT_SEED=123 pytest tests/transport/test_faults.py -m services`. `FIRMROOT_FAULTS` is
how many there are; 500, the first 10 of them among the ordinary tests. 500 take 19 minutes on two
cores that are busy with other things, most of it waiting.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from client_reference.errors import ExitCode
from client_reference.payload.segments import SEGMENT
from client_reference.transport.fetch import Patience
from tests.simulators.certificates import Issuer, make_issuer
from tests.simulators.device import IMPATIENT, DeviceOnDisk, Publisher
from tests.simulators.fault_proxy import Fault, FaultProxy, schedule
from tests.simulators.mirror import Mirror
from tests.transport.fetchers import FILES, META, fetcher

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IMAGE = os.urandom(SEGMENT // 2) * 2 + b"end"
ORDINARY = 10
HURRIED = replace(IMPATIENT, patience=Patience(connect=0.2, grace=0.1))
RETRYABLE = {ExitCode.DONE, ExitCode.RETRY_LATER, ExitCode.NOT_TRUSTED}


@pytest.fixture(scope="module")
def publisher() -> Publisher:
    made = Publisher()
    made.release("1.0", 1, IMAGE)
    return made


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    return make_issuer(tmp_path_factory.mktemp("issuer"))


@pytest.fixture
def device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> DeviceOnDisk:
    return DeviceOnDisk(tmp_path, capsys)


@pytest.fixture(scope="module")
def mirrors(publisher: Publisher, issuer: Issuer) -> Iterator[tuple[Mirror, Mirror]]:
    """A plain one, and one with TLS."""
    files = publisher.repo.files
    with Mirror(files) as plain, Mirror(files, issuer.server("fw")) as encrypted:
        plain.etags = encrypted.etags = plain.packs = encrypted.packs = True
        yield plain, encrypted


def survive(
    device: DeviceOnDisk,
    publisher: Publisher,
    issuer: Issuer,
    mirrors: tuple[Mirror, Mirror],
    seed: int,
) -> str:
    """One update under faults, another one without; how the first ended."""
    with ExitStack() as stack:
        networks = [
            stack.enter_context(
                FaultProxy(mirrors[(seed + number) % 2], schedule(seed * 10 + number, len(IMAGE)))
            )
            for number in range(1 + seed % 3 // 2)
        ]
        root = publisher.repo.files["metadata/1.root.json"]
        device.make(root, [network.url for network in networks], tls='roots = "private"')
        bundle = device.directory / "factory" / "ca-bundle.pem"
        bundle.write_bytes(issuer.bundle.read_bytes())
        assert device.run("init").code == 0
        device.ambient = HURRIED
        faulty = device.run("update")
        assert faulty.code in RETRYABLE, faulty.err
        for network in networks:
            network.heal()
        device.ambient = IMPATIENT
        state = device.run("status", before=("--json",)).json
        assert state["phase"] == ("trial" if faulty.code == 0 else state["phase"])
        if faulty.code != 0:
            assert state["running"] == "A"
            assert state["phase"] in {"idle", "writing"}
            honest = device.run("update")
            assert honest.code == 0, f"{faulty.err}\n{honest.err}"
        assert device.slot("B") == IMAGE
        confirmed = device.run("confirm")
        assert confirmed.code == 0, confirmed.err
        assert "1.0 is installed" in device.run("check").out
        return ExitCode(faulty.code).name


@pytest.mark.parametrize("seed", range(ORDINARY))
def test_an_update_under_faults_ends_installed_or_can_be_run_again(
    device: DeviceOnDisk,
    publisher: Publisher,
    issuer: Issuer,
    mirrors: tuple[Mirror, Mirror],
    seed: int,
) -> None:
    survive(device, publisher, issuer, mirrors, seed)


@pytest.mark.services
def test_hundreds_of_updates_under_faults(
    publisher: Publisher,
    issuer: Issuer,
    mirrors: tuple[Mirror, Mirror],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = int(os.environ.get("FIRMROOT_FAULT_SEED", "0"))
    number = 1 if first else int(os.environ.get("FIRMROOT_FAULTS", "500"))
    ends: dict[str, int] = {}
    failed: list[str] = []
    begun = time.monotonic()
    for seed in range(first, first + number):
        device = DeviceOnDisk(tmp_path / str(seed), capsys)
        try:
            end = survive(device, publisher, issuer, mirrors, seed)
        except AssertionError as error:
            failed.append(f"seed {seed}: {error}")
            continue
        ends[end] = ends.get(end, 0) + 1
    with capsys.disabled():
        print(f"\n{number} schedules in {time.monotonic() - begun:.0f} s: {ends}")
    assert not failed, "\n".join(failed)
    if number >= 100:
        assert {"DONE", "RETRY_LATER"} <= ends.keys(), (
            "faults that always or never matter test little"
        )


# The proxy itself

FAULTS = {
    "nothing": Fault(),
    "late": Fault(latency=0.01),
    "slow": Fault(rate=100_000),
}
BREAKS = {
    "cut at once": Fault(cut=0),
    "cut in the head": Fault(cut=20),
    "cut in the body": Fault(cut=45),
    "reset at once": Fault(reset=0),
    "reset in the head": Fault(reset=20),
    "stalled": Fault(stall=20),
    "a bit of the version": Fault(flips=(8 * 2,)),
    "too slow": Fault(rate=50),
}


@pytest.mark.parametrize("sentence", FAULTS)
def test_what_only_takes_time_arrives(sentence: str) -> None:
    with (
        Mirror(FILES) as mirror,
        FaultProxy(mirror, [FAULTS[sentence]]) as network,
        fetcher(network.url) as http,
    ):
        assert http.fetch(META, 100) == FILES[META]
        assert http.traffic.requests == 1
        assert network.met == 1


@pytest.mark.parametrize("sentence", BREAKS)
def test_each_fault_breaks_one_connection_and_the_next_is_honest(sentence: str) -> None:
    with (
        Mirror(FILES) as mirror,
        FaultProxy(mirror, [BREAKS[sentence]]) as network,
        fetcher(network.url, grace=0.4) as http,
    ):
        assert http.fetch(META, 100) == FILES[META]
        assert http.traffic.requests == 2
        assert network.connections == 2


def test_a_flipped_bit_arrives_flipped() -> None:
    with Mirror(FILES) as mirror:
        for bit in range(8):
            last = 8 * (len(b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n") + 13) + bit
            with (
                FaultProxy(mirror, [Fault(flips=(last,))]) as network,
                fetcher(network.url) as http,
            ):
                changed = bytes([FILES[META][-1] ^ 1 << bit])
                assert http.fetch(META, 100) == FILES[META][:-1] + changed


def test_a_schedule_comes_from_its_seed() -> None:
    assert schedule(7, 1000) == schedule(7, 1000)
    assert schedule(7, 1000) != schedule(8, 1000)
    kinds = {
        name
        for seed in range(100)
        for fault in schedule(seed, 1000)
        for name, value in vars(fault).items()
        if value != getattr(Fault(), name)
    }
    assert kinds == {"latency", "rate", "cut", "reset", "stall", "flips"}
