"""The table as a section of docs/threat-model.md.

    python -m tests.attacks.render      writes it anew
"""

from __future__ import annotations

from pathlib import Path

from tests.attacks.keys import KEYS
from tests.attacks.named import NAMED
from tests.attacks.surface import SURFACE

CHAPTERS = (NAMED, KEYS, SURFACE)
