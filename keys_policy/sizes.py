"""Pure: how long signed metadata becomes by its keys and signatures, estimated from the policy.

An estimate, on the high side: names of targets and artifacts are not counted. The exact bytes are
judged when something is published; here a policy is judged before anybody signs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tuf.api.metadata import Key

    from keys_policy.model import KeyHolder

__all__ = ["LIMITS", "LIMITS_ELSEWHERE", "estimate"]

# What a shipped client reads at most, in bytes.
LIMITS: Mapping[str, int] = {
    "root": 512_000,
    "timestamp": 65_536,
    "snapshot": 2_000_000,
    "targets": 5_000_000,
}
# The same of python-tuf, which others may have shipped.
LIMITS_ELSEWHERE: Mapping[str, int] = {**LIMITS, "timestamp": 16_384}

_FRAME = 1_000  # everything that is there without any key
_ENTRY = 200  # a key id, with names and punctuation
_KEYID = 70  # in the list of a role
_ROLE = 400  # a role with its paths, or a line of a snapshot

# Hexadecimal digits of a signature; of RSA those of 4096 bits.
_SIGNATURE = {"ed25519": 128, "ecdsa": 208, "rsa": 1_024, "ml-dsa": 6_618}


def estimate(
    signers: Iterable[KeyHolder],
    listed: Iterable[KeyHolder] = (),
    roles: int = 0,
    keyids: int = 0,
) -> int:
    """Bytes of a role that all its keys have signed.

    Signatures count twice: a new root has those of the old keys as well, and so has everything
    while a bridge rotation lasts.

    Args:
        signers: its keys.
        listed: keys that it delegates to.
        roles: roles that it names.
        keyids: key ids that they have together.
    """
    signatures = sum(_SIGNATURE[each.key.keytype] + _ENTRY for each in signers)
    keys = {each.key.keyid: _key(each.key) for each in listed}
    return _FRAME + 2 * signatures + sum(keys.values()) + roles * _ROLE + keyids * _KEYID


def _key(key: Key) -> int:
    return len(str(key.keyval.get("public", ""))) + 2 * _ENTRY
