"""Images of realistic size and shape, made by the test: for machines without Debian packages.

Not random throughout: code-like repetition, runs of padding, and a second version that shares most
of its bytes with the first, shifted, as real neighbours do.
"""

from __future__ import annotations

import hashlib
import random

__all__ = ["consecutive_images"]

BLOCK = 4096


def consecutive_images(name: str, size: int) -> tuple[bytes, bytes]:
    """Two versions of an image, the same on every machine; `size` in bytes, of the older."""
    draw = random.Random(name)
    words = [draw.randbytes(16) for _ in range(512)]
    blocks = [_block(draw, words) for _ in range(-(-size // BLOCK))]
    older = b"".join(blocks)[:size]
    changed = list(blocks)
    for index in draw.sample(range(len(blocks)), max(1, len(blocks) // 20)):
        changed[index] = _block(draw, words)
    changed.insert(len(changed) // 3, hashlib.sha512(name.encode()).digest() * 11)
    return older, b"".join(changed)


def _block(draw: random.Random, words: list[bytes]) -> bytes:
    if draw.random() < 0.1:
        return bytes(BLOCK)
    return b"".join(draw.choices(words, k=BLOCK // 16))
