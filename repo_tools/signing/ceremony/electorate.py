"""Pure: who may sign one content, whether a signature counts, and how many are still needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from securesystemslib.exceptions import UnverifiedSignatureError
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, Targets

from client_reference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from securesystemslib.signer import Signature
    from tuf.api.metadata import Key, Root

__all__ = ["Electorate", "Quorum", "is_signed"]


@dataclass(frozen=True)
class Quorum:
    """What one delegator asks for, by key name.

    Attributes:
        delegator: such as `root 3`.
        threshold: keys that must sign.
        signed: keys that have.
        missing: keys that may.
    """

    delegator: str
    threshold: int
    signed: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def needed(self) -> int:
        """How many more must sign."""
        return max(0, self.threshold - len(self.signed))


@dataclass(frozen=True)
class Electorate:
    """Who may sign one content.

    Attributes:
        name: of the ceremony, such as `root-3`.
        role: what is being replaced.
        tuf_role: what TUF calls it: the recovery anchor is a root as well.
        payload: the canonical bytes that signatures cover.
        delegators: whose thresholds must be reached, each with the name by which people know it.
        name_of: what people call a key id.
    """

    name: str
    role: str
    tuf_role: str
    payload: bytes
    delegators: Sequence[tuple[str, Root | Targets]]
    name_of: Callable[[str], str]

    def members(self) -> dict[str, Key]:
        """Every key whose signature counts for at least one of the thresholds.

        Raises:
            ConfigurationError: a delegator does not know the role.
        """
        found: dict[str, Key] = {}
        for _, delegator in self.delegators:
            try:
                keyids = delegator.get_delegated_role(self.tuf_role).keyids
            except ValueError as error:
                raise ConfigurationError(
                    f"nobody delegates to a role {self.role!r}",
                    f"firmroot product list; to end the ceremony: firmroot ceremony abandon "
                    f"{self.role}",
                ) from error
            known = _keys(delegator)
            # A key id without a key is legal in TUF: it can never sign.
            found.update({keyid: known[keyid] for keyid in keyids if keyid in known})
        return found

    def problem(self, signature: Signature) -> str | None:
        """Why a signature does not count, or None."""
        claimed = self.name_of(signature.keyid)
        key = self.members().get(signature.keyid)
        if key is None:
            return f"a signature of {claimed}, which is not in role {self.role}"
        try:
            key.verify_signature(signature, self.payload)
        except UnverifiedSignatureError:
            return f"a signature that claims to be by {claimed} does not verify over {self.name}"
        return None

    def quorums(self, signatures: Iterable[Signature]) -> tuple[Quorum, ...]:
        """What each delegator asks for; signatures that do not verify do not count.

        Raises:
            ConfigurationError: a delegator does not know the role.
        """
        self.members()
        given = {signature.keyid: signature for signature in signatures}
        found = []
        for title, delegator in self.delegators:
            result = delegator.get_verification_result(self.tuf_role, self.payload, given)
            signed, missing = self._names(result.signed), self._names(result.unsigned)
            found.append(Quorum(title, result.threshold, signed, missing))
        return tuple(found)

    def _names(self, keyids: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted(map(self.name_of, keyids)))


def _keys(delegator: Root | Targets) -> Mapping[str, Key]:
    if not isinstance(delegator, Targets):
        return delegator.keys
    return delegator.delegations.keys if delegator.delegations else {}


def is_signed(delegator: Root | Targets, role: str, data: bytes) -> bool:
    """Whether metadata has the threshold of signatures that its delegator asks for."""
    metadata: Metadata[Any] = Metadata.from_bytes(data)
    try:
        delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (UnsignedMetadataError, ValueError):
        return False
    return True
