"""The workflows of `infra/ci`: as linters read them, and whether their commands exist."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest

from repo_tools.cli.main import COMMANDS, cli
from tests.simulators.services import missing, needed

if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORY = Path(__file__).parent.parent.parent / "infra/ci"
FILES = ("github", "gitlab")
BOOTSTRAP = "sh scripts/bootstrap services"
SCHEMAS = {
    "github": ("vendor.github-workflows",),
    "gitlab": ("vendor.gitlab-ci", "--data-transform", "gitlab-ci"),
}


def lines(name: str) -> list[str]:
    """Every line of a workflow that runs firmroot."""
    text = (DIRECTORY / f"{name}.yml").read_text()
    found = re.findall(r"^\s*(?:- |- run: |run: )?(firmroot .+)$", text, re.MULTILINE)
    return [each.replace('"$(cat VERSION)"', "1.1").replace('"$VERSION"', "1.1") for each in found]


def parsed(line: str) -> tuple[str, dict[str, Any]]:
    """A command as `firmroot` itself understands it; its full name and parameters."""
    program, *words = shlex.split(line)
    assert program == "firmroot"
    if words[0] == "-C":
        del words[:2]
    command: click.Command | None = cli
    path = [program]
    while isinstance(command, click.Group):
        path.append(words.pop(0))
        command = command.get_command(click.Context(command), path[-1])
    assert command is not None, line
    return " ".join(path), command.make_context(path[-1], words).params


@pytest.mark.parametrize("name", FILES)
def test_the_commands_exist_with_their_options(name: str) -> None:
    found = [parsed(line) for line in lines(name)]
    assert [path for path, _ in found] == [
        "firmroot key import",
        "firmroot firmware add",
        "firmroot submit",
        "firmroot status",
    ]
    assert found[1][1]["version"] == "1.1"
    assert found[3][1]["fail_within"] == "30d"
    assert {path.split()[1] for path, _ in found} <= set(COMMANDS)
    with pytest.raises(click.UsageError):
        parsed("firmroot status --fail-in 30d")


def lint(*line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(line, check=False, capture_output=True, text=True, timeout=60)


@pytest.mark.services
@pytest.mark.parametrize("name", FILES)
def test_its_schema_accepts_it(name: str, tmp_path: Path) -> None:
    program = needed("check-jsonschema", BOOTSTRAP)
    line = (program, "--builtin-schema", *SCHEMAS[name])
    file = DIRECTORY / f"{name}.yml"
    done = lint(*line, str(file))
    assert done.returncode == 0, done.stdout
    broken = tmp_path / file.name
    text = file.read_text().replace("permissions: {}", "permissions: []")
    broken.write_text(text.replace("stage: watch", "stage: 7"))
    assert lint(*line, str(broken)).returncode != 0, "it would not have told"


@pytest.mark.services
def test_zizmor_finds_nothing_that_could_be_abused(tmp_path: Path) -> None:
    program = needed("zizmor", BOOTSTRAP)
    line = (program, "--offline", "--no-progress", "--pedantic")
    file = DIRECTORY / "github.yml"
    done = lint(*line, str(file))
    assert done.returncode == 0, done.stdout
    assert "No findings" in done.stdout + done.stderr
    broken = tmp_path / "github.yml"
    broken.write_text(file.read_text().replace('"$VERSION"', "${{ github.ref_name }}"))
    told = lint(*line, str(broken))
    assert told.returncode != 0, "it would not have told"
    assert "template-injection" in told.stdout


def loaded(name: str) -> dict[Any, Any]:
    try:
        import yaml
    except ImportError:
        missing(f"PyYAML is not installed: {BOOTSTRAP}")
    found: dict[Any, Any] = yaml.safe_load((DIRECTORY / f"{name}.yml").read_text())
    return found


def _texts(value: object) -> Iterator[str]:
    match value:
        case dict():
            for key, each in value.items():
                yield str(key)
                yield from _texts(each)
        case list():
            for each in value:
                yield from _texts(each)
        case _:
            yield str(value)


@pytest.mark.services
@pytest.mark.parametrize("name", FILES)
def test_no_key_is_stored(name: str) -> None:
    for text in _texts(loaded(name)):
        for word in ("secrets.", "AWS_ACCESS_KEY_ID", "AWS_SECRET", "PASSPHRASE", "password"):
            assert word not in text


@pytest.mark.services
def test_on_github_the_build_has_no_credentials_yet() -> None:
    workflow = loaded("github")
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert job["permissions"] == {"contents": "read", "id-token": "write"}
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", step["uses"]), step
    names = [step.get("name", "") for step in workflow["jobs"]["hand-in"]["steps"]]
    assert names.index("Build the image") < names.index("Become the builder")
    assert workflow["jobs"]["hand-in"]["environment"] == "release"


@pytest.mark.services
def test_on_gitlab_the_build_is_a_job_without_a_token() -> None:
    workflow = loaded("gitlab")
    assert "id_tokens" not in workflow["build-image"]
    assert "extends" not in workflow["build-image"]
    assert workflow[".aws"]["id_tokens"] == {"AWS_TOKEN": {"aud": "sts.amazonaws.com"}}
    for job in ("build-image", "hand-in"):
        [rule] = workflow[job]["rules"]
        assert 'CI_COMMIT_REF_PROTECTED == "true"' in rule["if"]
    assert workflow["hand-in"]["resource_group"]
