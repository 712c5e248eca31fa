"""Ctrl-C while a program is still being loaded: one line, exit code 130, and nothing was begun."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# The signal comes while the named module is looked for, inside a callback: Python swallows what is
# raised there, and there are such callbacks in the import machinery.
SCRIPT = """
import signal, sys, weakref
before, program, module, *sys.argv[1:] = sys.argv[1:]
signal.signal(signal.SIGINT, getattr(signal, before))

class Something: pass

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            something = Something()
            watch = weakref.ref(something, lambda _: signal.raise_signal(signal.SIGINT))
            del something

sys.meta_path.insert(0, Finder())
__import__(program + ".__main__", fromlist=["run"]).run()
"""
PROGRAMS = [("client_reference", "client_reference.cli"), ("repo_tools", "repo_tools.cli.main")]


def interrupted(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *words, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("program", "module"), PROGRAMS)
def test_an_interrupt_while_the_program_is_loaded_leaves_at_once(program: str, module: str) -> None:
    done = interrupted("default_int_handler", program, module)
    assert done.stderr == "error: interrupted; nothing was begun\n"
    assert (done.returncode, done.stdout) == (130, "")


@pytest.mark.parametrize(("program", "module"), PROGRAMS)
def test_who_ignores_the_signal_goes_on_ignoring_it(program: str, module: str) -> None:
    done = interrupted("SIG_IGN", program, module)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage" in done.stdout.lower()
