"""`firmroot-device`, exactly as its console script starts it."""

from __future__ import annotations

from bench.clients import report

report.at_exit()

from client_reference.__main__ import run  # noqa: E402 - measured from here on

run()
