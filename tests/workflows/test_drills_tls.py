"""Drill dead-ca of design section 7: the TLS of a mirror is broken, in three ways.

Real servers with real certificates on loopback; their times are real, since Python's TLS cannot be
given another. The release side is played by test code: no command publishes a CA bundle yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from client_reference.update import TLS_BUNDLE, TLS_ROLE
from tests.publishing.lab import image
from tests.simulators.certificates import DAY, Issuer, make_issuer
from tests.simulators.device import DeviceOnDisk, Publisher
from tests.simulators.mirror import Mirror

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True)
class Authorities:
    """The one that devices left the factory with, and the one that the maker has today."""

    old: Issuer
    new: Issuer


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Authorities:
    top = tmp_path_factory.mktemp("authorities")
    return Authorities(make_issuer(top, "old"), make_issuer(top, "new"))


@dataclass(frozen=True)
class Kind:
    """One way in which TLS dies.

    Attributes:
        roots: `tls.roots` of the device.
        bundled: whether the image carries the old authority.
        dead: what the mirror shows when it is found out.
        alive: what it shows once the maker has found a way.
        says: what the device says is wrong.
    """

    roots: str
    bundled: bool
    dead: Callable[[Authorities], ssl.SSLContext]
    alive: Callable[[Authorities], ssl.SSLContext]
    says: str = "the certificate does not verify: unable to get local issuer certificate"


def below(issuer: Issuer) -> ssl.SSLContext:
    return issuer.intermediate("intermediate").server("mirror")


KINDS = {
    "expired certificate": Kind(
        roots="private",
        bundled=True,
        dead=lambda they: they.old.server("mirror", until=-DAY),
        alive=lambda they: they.new.server("mirror"),
        says="the certificate does not verify: certificate has expired",
    ),
    "new intermediate under an unknown root": Kind(
        roots="private",
        bundled=True,
        dead=lambda they: below(they.new),
        alive=lambda they: below(they.new),
    ),
    "root removed from the system's store": Kind(
        roots="both",
        bundled=False,
        dead=lambda they: they.old.server("mirror"),
        alive=lambda they: they.new.server("mirror"),
    ),
}


def make(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: Kind,
    they: Authorities,
    publisher: Publisher,
    url: str,
    degraded: str = "allow",
) -> DeviceOnDisk:
    """A device from the factory, which has never been anywhere."""
    device = DeviceOnDisk(tmp_path, capsys)
    tls = f'roots = "{kind.roots}"\ndegraded = "{degraded}"'
    device.make(publisher.repo.files["metadata/1.root.json"], [url], tls=tls)
    if kind.bundled:
        (tmp_path / "factory" / "ca-bundle.pem").write_bytes(they.old.bundle.read_bytes())
    return device


def install(device: DeviceOnDisk, version: str) -> str:
    """Update and confirm; what was said about the way."""
    updated, confirmed = device.run("update"), device.run("confirm")
    assert (updated.code, confirmed.code) == (0, 0), updated
    status = device.run("status", before=("--json",)).json
    assert status["installed"]["version"] == version
    assert device.slot(status["running"]) == image(version)
    return updated.err


@pytest.mark.parametrize("name", KINDS)
def test_dead_ca(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], authorities: Authorities
) -> None:
    kind, publisher = KINDS[name], Publisher()
    publisher.release("1.0", 1, image("1.0"))
    with Mirror(publisher.repo.files, kind.dead(authorities)) as mirror:
        device = make(tmp_path, capsys, kind, authorities, publisher, mirror.url)
        device.run("init")

        # It updates all the same, and says why that is no privacy.
        said = install(device, "1.0")
        assert f"degraded transport: {mirror.url} was read over unverified TLS" in said
        assert kind.says in said
        assert "what is trusted rests on signatures" in said

        # A new bundle is signed; it comes over the very connection that nothing vouches for.
        publisher.repo.delegate(TLS_ROLE, [TLS_BUNDLE], threshold=2, keys=3)
        publisher.repo.add_target(TLS_ROLE, TLS_BUNDLE, authorities.new.bundle.read_bytes())
        publisher.repo.publish(TLS_ROLE, "targets")
        said = device.run("check").err
        assert "degraded transport" in said
        assert "a new CA bundle was accepted" in said

        # The mirror has its new certificate: verified TLS, and honest updates over it.
        mirror.context = kind.alive(authorities)
        publisher.release("1.1", 2, image("1.1"))
        said = install(device, "1.1")
        assert "degraded" not in said
        assert "CA bundle" not in said

        # Who still has the old authority's key may serve what is public, as anybody may (that it
        # hears no credentials: tests/transport/test_tls_servers.py).
        mirror.context = authorities.old.server("mirror")
        publisher.release("1.2", 3, image("1.2"))
        install(device, "1.2")


@pytest.mark.parametrize("name", KINDS)
def test_dead_ca_where_degraded_transport_is_forbidden(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], authorities: Authorities
) -> None:
    """Such a device waits, and says what to do; its owner allows it, or brings a bundle."""
    kind, publisher = KINDS[name], Publisher()
    publisher.release("1.0", 1, image("1.0"))
    with Mirror(publisher.repo.files, kind.dead(authorities)) as mirror:
        device = make(tmp_path, capsys, kind, authorities, publisher, mirror.url, "forbid")
        device.run("init")
        refused = device.run("update")
        assert refused.code == 4
        assert kind.says in refused.err
        assert 'a newer CA bundle, or tls.degraded = "allow"' in refused.err
        assert not mirror.paths
        factory = tmp_path / "factory" / "ca-bundle.pem"
        factory.write_bytes(authorities.new.bundle.read_bytes())
        mirror.context = kind.alive(authorities)
        assert "degraded" not in install(device, "1.0")
