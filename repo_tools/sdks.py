"""SDKs of clouds and tokens are loaded only when a key URI or a storage needs them.

`securesystemslib.signer`, which `tuf.api.metadata` needs, imports every signer SDK that it finds: a
fifth of a second and 15 MB for boto3 alone, at each command. So the program hides them before
anything is imported (`client_reference.__main__.hide_sdks`), shows them when one is needed, and has
the module of the signer loaded again.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, TypeVar

from client_reference.__main__ import SDKS

if TYPE_CHECKING:
    from securesystemslib.signer import Signer

__all__ = ["load", "show"]

S = TypeVar("S", bound="type[Signer]")


def show() -> None:
    """From now on SDKs can be imported."""
    for name in SDKS:
        if name in sys.modules and sys.modules[name] is None:
            del sys.modules[name]


def load(signer: S) -> S:
    """The class of a signer, with its SDK if that is installed.

    Args:
        signer: as `securesystemslib.signer` has it.
    """
    show()
    loaded = importlib.reload(sys.modules[signer.__module__])
    found: S = getattr(loaded, signer.__name__)
    return found
