"""`python -m client_reference`: the same as `firmroot-device`."""

from client_reference.cli import run

run()
