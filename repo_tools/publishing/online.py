"""The online keys: they sign snapshot and timestamp, by themselves, for whoever may publish.

Their URIs are in `firmroot.toml`. While a root is on its way over a bridge, both the live root and
the next one say who signs, and the threshold of each is required (design 8): whoever publishes or
refreshes and lacks one of the keys refuses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from client_reference.errors import ActionRequiredError
from repo_tools.metadata.edits import assemble, signed_bytes
from repo_tools.signing.signers import FILES, open_signer, sign

if TYPE_CHECKING:
    from collections.abc import Sequence

    from securesystemslib.signer import Signature, Signer
    from tuf.api.metadata import Root, Snapshot, Timestamp

    from repo_tools.signing.secrets import Secrets
    from repo_tools.workspace import Workspace

__all__ = ["OnlineKeys", "OnlineKeysMissingError", "can_sign", "is_here"]


def is_here(workspace: Workspace, uri: str) -> bool:
    """Whether a key can be on this machine: `firmroot.toml` is shared, key files are not."""
    scheme, _, path = uri.partition(":")
    return scheme not in FILES or (workspace.directory / Path(path).expanduser()).exists()


def can_sign(workspace: Workspace, role: str, template: str | None = None) -> bool:
    """Whether a key of a role can be on this machine."""
    uris = workspace.key_uris()
    keys = workspace.policy.role(role, template).keys
    return any(name in uris and is_here(workspace, uris[name]) for name in keys)


class OnlineKeysMissingError(ActionRequiredError):
    """This machine cannot sign snapshot and timestamp."""


@dataclass
class OnlineKeys:
    """Keys that this machine can sign with; each is opened once.

    Attributes:
        workspace: names, public keys and URIs.
        secrets: their passphrases.
    """

    workspace: Workspace
    secrets: Secrets
    _open: dict[str, Signer] = field(default_factory=dict, repr=False)

    def sign(self, roots: Sequence[Root], signed: Snapshot | Timestamp) -> bytes:
        """Sign a role so that it meets the threshold of each of these roots.

        Raises:
            OnlineKeysMissingError: too few of the keys are here; names the role and the keys.
            ConfigurationError: a key cannot be opened.
        """
        payload = signed_bytes(signed)
        signatures: dict[str, Signature] = {}
        for root in roots:
            required = root.get_delegated_role(signed.type)
            for keyid in required.keyids:
                if keyid not in signatures and (name := self._name(keyid)) is not None:
                    signatures[keyid] = self._sign(name, payload)
            missing = [keyid for keyid in required.keyids if keyid not in signatures]
            if len(required.keyids) - len(missing) < required.threshold:
                names = ", ".join(self.workspace.key_name(keyid) for keyid in missing)
                both = f" for root {root.version}" if len(roots) > 1 else ""
                raise OnlineKeysMissingError(
                    f"{signed.type} needs {required.threshold} signature(s){both}, and this "
                    f"machine cannot sign as {names}",
                    "hand the work to the publisher: firmroot submit; or publish where the online "
                    "keys are, or name their URIs in firmroot.toml, [online]; an old key that is "
                    "gone: firmroot recover lost-key KEY",
                )
        return assemble(signed, signatures.values())

    def _name(self, keyid: str) -> str | None:
        """The name of a key that this machine can use."""
        uris = self.workspace.key_uris()
        for name, holder in self.workspace.keyring.items():
            if holder.key.keyid == keyid and name in uris and is_here(self.workspace, uris[name]):
                return name
        return None

    def _sign(self, name: str, payload: bytes) -> Signature:
        holder = self.workspace.keyring[name]
        if name not in self._open:
            uri = self.workspace.key_uris()[name]
            self._open[name] = open_signer(uri, holder, self.secrets, self.workspace.directory)
        return sign(self._open[name], holder, payload)
