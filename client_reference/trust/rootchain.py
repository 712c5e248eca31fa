r"""Pure: the root-chain bundle, many root files in one object (design 4).

A device that missed a hundred roots would make a hundred requests. So a repository also has one
object for each root version N, `metadata/root-chain/N`, with the files of the versions up to N.
Every client can ignore it, and nothing is believed because of it: each link is verified as if it
had come alone.

Form, for any language that can read a line and count bytes:

    firmroot-root-chain 1\n
    blocks 64 131\n
    132 2034\n
    <2034 bytes, the file 132.root.json>\n
    133 2034\n
    ...

The files are cut into blocks, greedily from version 1 on, none with more than `BLOCK` bytes of
files. Object N holds the block that N is in, up to N. The second line names the last versions of
the blocks before it: `root-chain/64` and `root-chain/131` have what is missing here. So an object
has a bounded length, is never changed, and follows from the chain alone.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

from client_reference.trust.verified import MalformedError
from client_reference.values import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["BLOCK", "MAX_BUNDLE", "Bundle", "location", "make", "parse"]

BLOCK = 1_048_576
"""Bytes of root files in one object at most."""
MAX_BUNDLE = BLOCK + 131_072
"""Bytes of one object at most: the files, and the lines between them."""

_HEAD = b"firmroot-root-chain 1\n"
_BLOCKS = re.compile(rb"blocks(( [1-9][0-9]{0,15})*)\n")
_FRAME = re.compile(rb"([1-9][0-9]{0,15}) ([1-9][0-9]{0,6})\n")


@frozen
class Bundle:
    """One object.

    Attributes:
        blocks: last versions of the blocks before this one, rising.
        links: root files by version, rising by one; not verified.
    """

    blocks: tuple[int, ...]
    links: Mapping[int, bytes]


def location(version: int) -> str:
    """Where a repository keeps the object of a root version."""
    return f"root-chain/{version}"


def parse(data: bytes) -> Bundle:
    """Read one object.

    Raises:
        MalformedError: it has another form than described above.
    """
    head = _BLOCKS.match(data, len(_HEAD)) if data.startswith(_HEAD) else None
    if head is None:
        raise MalformedError("a root-chain bundle begins with another line than expected")
    blocks = tuple(int(number) for number in head[1].split())
    if any(before >= after for before, after in itertools.pairwise(blocks)):
        raise MalformedError("the blocks of a root-chain bundle do not rise")
    links: dict[int, bytes] = {}
    expected = blocks[-1] + 1 if blocks else 1
    at = head.end()
    while at < len(data):
        frame = _FRAME.match(data, at)
        if frame is None or int(frame[1]) != expected:
            raise MalformedError(f"a root-chain bundle has no root {expected} where it must be")
        end = frame.end() + int(frame[2])
        if data[end : end + 1] != b"\n":
            raise MalformedError(f"root {expected} of a root-chain bundle has another length")
        links[expected] = data[frame.end() : end]
        expected, at = expected + 1, end + 1
    if not links:
        raise MalformedError("a root-chain bundle holds no root")
    return Bundle(blocks, links)


def make(chain: Sequence[bytes]) -> bytes:
    """The object of the newest version of a chain.

    Args:
        chain: every root file from version 1 on.

    Raises:
        ValueError: the chain is empty.
    """
    if not chain:
        raise ValueError("expected at least one root")
    blocks: list[int] = []
    first, size = 1, 0
    for version, root in enumerate(chain, 1):
        if size and size + len(root) > BLOCK:
            blocks.append(version - 1)
            first, size = version, 0
        size += len(root)
    lines = [_HEAD, b"blocks" + b"".join(b" %d" % end for end in blocks) + b"\n"]
    for version, root in enumerate(chain[first - 1 :], first):
        lines += [b"%d %d\n" % (version, len(root)), root, b"\n"]
    return b"".join(lines)
