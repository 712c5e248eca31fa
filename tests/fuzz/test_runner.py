"""The command that fuzzes: what it says without atheris, and how it takes a finding up again."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest

from scripts import fuzz
from tests.fuzz import CORPUS, TARGETS

if TYPE_CHECKING:
    from pathlib import Path


def test_without_atheris_it_says_so_and_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert fuzz.main(["--all", "--artifacts", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert "error: atheris is not installed for Python 3." in said.err
    assert "hint: sh scripts/bootstrap fuzz" in said.err
    assert said.out == ""


def test_every_target_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(TARGETS)


def test_an_input_is_run_again_without_atheris(capsys: pytest.CaptureFixture[str]) -> None:
    seed = CORPUS / "manifest" / "honest"
    assert fuzz.main(["--target", "manifest", "--replay", str(seed)]) == 0
    assert f"{seed}: nothing found" in capsys.readouterr().out


def test_what_an_input_leads_to_is_raised_when_it_is_run_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("client_reference.manifest.parse", lambda data: {}[data])
    (tmp_path / "input").write_bytes(b"{}")
    with pytest.raises(KeyError):
        fuzz.main(["--target", "manifest", "--replay", str(tmp_path / "input")])


SAID = """
INFO: Running with entropic power schedule (0xFF, 100).
#2	INITED cov: 61 ft: 90 corp: 3/40b exec/s: 0 rss: 40Mb
#4096	pulse  cov: 64 ft: 120 corp: 9/400b lim: 4096 exec/s: 1365 rss: 42Mb
#9000	DONE   cov: 70 ft: 130 corp: 11/500b lim: 4096 exec/s: 1365 rss: 43Mb
Done 9000 runs in 6 second(s)
stat::number_of_executed_units: 9000
stat::peak_rss_mb:              43
"""
RAISED = """
#2	INITED cov: 61 ft: 90 corp: 3/40b exec/s: 0 rss: 40Mb

 === Uncaught Python exception: ===
KeyError: 'a'
Traceback (most recent call last):
  File "x.py", line 1, in run

==77== ERROR: libFuzzer: fuzz target exited
"""


@pytest.mark.parametrize(
    ("said", "code", "left", "counts", "told"),
    [
        pytest.param(SAID, 0, "", (9000, 70, 130, 11, 43), "", id="nothing found"),
        pytest.param(RAISED, 77, "crash-1", (2, 61, 90, 3, 0), "KeyError: 'a'", id="raised"),
        pytest.param(SAID, 70, "timeout-1", (9000, 70, 130, 11, 43), "took too long", id="slow"),
        pytest.param(SAID, 71, "oom-1", (9000, 70, 130, 11, 43), "too much memory", id="large"),
        pytest.param("no such file", 1, "", (0, 0, 0, 0, 0), "exit code 1:\nno such", id="failed"),
    ],
)
def test_what_a_run_says_is_understood(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    said: str,
    code: int,
    left: str,
    counts: tuple[int, ...],
    told: str,
) -> None:
    (tmp_path / "hold-crash-0").touch()  # of an earlier run

    def run(*_: object) -> tuple[str, int]:
        if left:
            (tmp_path / f"hold-{left}").touch()
        return said, code

    monkeypatch.setattr(fuzz, "_run", run)
    outcome = fuzz.fuzz("hold", fuzz.Bounds(), tmp_path)
    assert counts == (
        outcome.executions,
        outcome.edges,
        outcome.features,
        outcome.corpus,
        outcome.peak,
    )
    assert [path.name for path in outcome.findings] == ([f"hold-{left}"] if left else [])
    assert told in outcome.told
    assert bool(outcome.told) == bool(told)


def test_the_directory_for_findings_goes_if_there_are_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(fuzz, "require_atheris", lambda: None)
    monkeypatch.setattr(fuzz, "_run", lambda *_: (SAID, 0))
    assert fuzz.main(["--target", "hold"]) == 0
    assert list(tmp_path.iterdir()) == []
    assert "9000 executions     70 edges" in capsys.readouterr().out


def test_the_directory_for_findings_stays_with_them_and_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: list[str], *_: object) -> tuple[str, int]:
        (prefix,) = [each.partition("=")[2] for each in command if "artifact_prefix" in each]
        with open(f"{prefix}crash-1", "wb") as file:  # noqa: PTH123 # a prefix is no path
            file.write(b"{}")
        return RAISED, 77

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(fuzz, "require_atheris", lambda: None)
    monkeypatch.setattr(fuzz, "_run", run)
    assert fuzz.main(["--target", "hold"]) == 1
    (finding,) = tmp_path.glob("fuzz-findings-*/hold-crash-1")
    said = capsys.readouterr().out
    assert "KeyError: 'a'" in said
    assert f"scripts/fuzz.py --target hold --replay {finding}" in said
