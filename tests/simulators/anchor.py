"""A recovery anchor in memory, with real keys, that is itself a `Fetcher`.

    anchor = AnchorSimulator(repo.files["metadata/1.root.json"])
    second = RepositorySimulator(epoch=1)
    anchor.re_root(second, gateway=3)

Like `RepositorySimulator`, which signs for it: `files` is what a recovery URL serves.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from tuf.api.metadata import TOP_LEVEL_ROLE_NAMES, Root

from client_reference.trust.recovery import FIELD, Anchor, first_anchor
from tests.simulators.repository import NOW, RepositorySimulator

if TYPE_CHECKING:
    from datetime import datetime

TEN_YEARS = timedelta(days=3650)


def statement(primary: bytes, epoch: int = 0, **minimum: int) -> dict[str, Any]:
    """What a recovery root says of a first primary root; `minimum` is by product."""
    return {
        "epoch": epoch,
        "sha256": hashlib.sha256(primary).hexdigest(),
        "length": len(primary),
        "minimum_sequence": minimum,
    }


class AnchorSimulator(RepositorySimulator):
    """See the module.

    Args:
        primary: the first primary root file of epoch 0.
        keys: how many recovery keys there are.
        threshold: how many must sign.
        now: the moment that expiry is computed from, ten years before it.
        number: tells anchors apart: each has its own keys.
    """

    def __init__(
        self,
        primary: bytes,
        *,
        keys: int = 3,
        threshold: int = 2,
        now: datetime = NOW,
        number: int = 1,
    ) -> None:
        # Epochs of a primary begin at 0, so no primary has this one's keys.
        super().__init__(now, epoch=-number)
        self.files.clear()
        self.signed[Root.type] = Root(version=1, expires=now + TEN_YEARS, consistent_snapshot=True)
        self.signers = {}
        self.threshold = threshold
        for _ in range(keys):
            self.add_recovery_key()
        self.says = statement(primary)
        self.write(Root.type)

    @property
    def says(self) -> dict[str, Any]:
        """The statement, to change."""
        found: dict[str, Any] = self.root.unrecognized_fields[FIELD]
        return found

    @says.setter
    def says(self, said: dict[str, Any]) -> None:
        self.root.unrecognized_fields[FIELD] = said

    def newest(self) -> bytes:
        """The newest recovery root file."""
        return self.files[self.location(Root.type)]

    def anchor(self) -> Anchor:
        """The newest recovery root, as a device that trusts it has it."""
        return first_anchor(self.newest())

    def add_recovery_key(self) -> None:
        """One more recovery key, which all four roles list."""
        signer = self.new_signer()
        for role in TOP_LEVEL_ROLE_NAMES:
            self.root.add_key(signer.public_key, role)
            self.root.get_delegated_role(role).threshold = self.threshold
        self.signers.setdefault(Root.type, {})[signer.public_key.keyid] = signer

    def renew(self) -> bytes:
        """Other recovery keys, by a new version that the old ones sign too."""
        old = list(self.root.get_delegated_role(Root.type).keyids)
        for keyid in old:
            for role in TOP_LEVEL_ROLE_NAMES:
                self.root.revoke_key(keyid, role)
        for _ in old:
            self.add_recovery_key()
        self.publish(Root.type)
        for keyid in old:
            del self.signers[Root.type][keyid]
        return self.newest()

    def re_root(self, primary: RepositorySimulator | bytes, **minimum: int) -> bytes:
        """The next epoch: it begins with root 1 of `primary`."""
        first = primary if isinstance(primary, bytes) else first_root(primary)
        epoch = self.says["epoch"] + 1
        self.says = statement(first, epoch, **minimum)
        self.files[f"e{epoch}/1.root.json"] = first
        self.publish(Root.type)
        return self.newest()

    def location(self, role: str, version: int | None = None) -> str:
        """Where a recovery repository keeps its only role."""
        return f"{version or self.signed[role].version}.root.json"


def first_root(primary: RepositorySimulator) -> bytes:
    """The root file that an epoch of a primary repository began with."""
    return primary.files[primary.location(Root.type, 1)]
