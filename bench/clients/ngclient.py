"""The peer: the least that a program on `tuf.ngclient` does for one check.

usage: ngclient.py METADATA_DIR URL [ROOT]
"""

from __future__ import annotations

import sys

from bench.clients import report

report.at_exit()

from tuf.ngclient.updater import Updater  # noqa: E402 - measured from here on

directory, url, *root = sys.argv[1:]
bootstrap = None
if root:
    with open(root[0], "rb") as file:  # noqa: PTH123 - no import that the peer does not need
        bootstrap = file.read()
Updater(directory, f"{url}metadata/", bootstrap=bootstrap).refresh()
