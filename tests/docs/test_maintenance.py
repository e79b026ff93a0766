"""The files for maintainers: make targets, CI workflow, hooks, container files, promises of docs/stability.md."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import gpuaria
from gpuaria.formats import manifest
from tests.support.checkout import ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
WORKFLOW: dict[Any, Any] = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "RELEASING.md", "SECURITY.md", "Containerfile")]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def made(text: str) -> set[str]:
    """Return the make targets that the commands in a text run."""
    calls = re.findall(r"\bmake ((?:[A-Z]+=\S+ |-\w+ )*[a-z]+(?: [a-z]+)*)", text)
    return {word for call in calls for word in call.split() if word.isalpha() and word.islower()}


def commands() -> list[str]:
    """Return every command of the workflow."""
    return [step["run"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "run" in step]


def test_each_target_is_phony_and_has_a_help_text() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony
    assert set(phony[1].split()) == TARGETS == set(re.findall(r"^([a-z]+):.*## ", MAKEFILE, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_pages_run_existing_make_targets(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    quoted = "\n".join(re.findall(r"`[^`]*`|^ *make .*$|^#.*$", text, re.MULTILINE))
    assert made(quoted.replace("# ", "\n")) <= TARGETS


def test_contributing_lists_every_target() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert {name for name in TARGETS - {"help", "fetch"} if f"`make {name}`" not in text} == set()


def test_the_workflow_runs_existing_make_targets() -> None:
    called = {name for command in commands() for name in made(command)}
    assert called <= TARGETS
    assert {"lint", "test", "unit", "coverage", "dist", "single", "audit"} <= called


def test_the_workflow_tests_each_supported_python_and_both_ends_of_the_dependencies() -> None:
    matrix = WORKFLOW["jobs"]["test"]["strategy"]["matrix"]
    supported = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert matrix["python"] == supported
    assert PROJECT["requires-python"] == f">={supported[0]}"
    assert {(row["python"], row["deps"]) for row in matrix["include"]} == {
        (supported[-1], "newest"),
        (supported[0], "oldest"),
    }


def test_each_job_of_the_workflow_has_a_time_limit_and_checks_the_code_out() -> None:
    for name, job in WORKFLOW["jobs"].items():
        assert job["timeout-minutes"] <= 60, name
        assert job["steps"][0]["uses"].startswith("actions/checkout@"), name


def test_hooks_run_the_tools_of_the_project() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    assert [repo["repo"] for repo in config["repos"]] == ["local"]  # no network
    assert {hook["entry"].split()[0] for hook in hooks} <= {f".venv/bin/{tool}" for tool in TOOLS}
    assert {"ruff", "mypy", "codespell"} <= {Path(hook["entry"].split()[0]).name for hook in hooks}


TOOLS = ("ruff", "mypy", "codespell", "python")


def test_the_devcontainer_builds_from_its_container_file() -> None:
    folder = ROOT / ".devcontainer"
    config = json.loads((folder / "devcontainer.json").read_text(encoding="utf-8"))
    assert (folder / config["build"]["dockerfile"]).is_file()
    assert made(config["postCreateCommand"]) <= TARGETS


def test_the_container_file_copies_what_make_dist_builds() -> None:
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    copied = re.findall(r"^COPY (\S+) ", text, re.MULTILINE)
    assert copied == ["dist/gpuaria-*-py3-none-any.whl"]
    assert Path(f"dist/gpuaria-{gpuaria.__version__}-py3-none-any.whl").match(copied[0])
    assert re.search(r"^USER (?!root)", text, re.MULTILINE)
    assert 'ENTRYPOINT ["gpuaria"]' in text
    assert "gpuaria" in PROJECT["scripts"]


def test_the_set_up_script_installs_what_it_is_given(tmp_path: Path) -> None:
    """Run bootstrap.sh with an interpreter that records its arguments instead of installing."""
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/arguments\n')
    python.chmod(0o755)
    command = ["sh", str(ROOT / "scripts" / "bootstrap.sh"), str(tmp_path / "venv"), "-c", "a file.txt", "-e", ".[dev]"]
    subprocess.run(command, check=True, capture_output=True, timeout=20)
    words = (tmp_path / "arguments").read_text().splitlines()
    assert words[:3] == ["-m", "pip", "install"]
    assert words[-4:] == ["-c", "a file.txt", "-e", ".[dev]"]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(
    ("deps", "expected"),
    [
        ("newest", "bootstrap.sh .venv -e '.[demo]'"),
        ("locked", "bootstrap.sh .venv-locked --require-hashes -r requirements-dev.lock"),
        ("oldest", "bootstrap.sh .venv-oldest -c build/oldest.txt -e '.[demo]'"),
    ],
)
def test_make_installs_the_dependencies_that_are_asked_for(deps: str, expected: str) -> None:
    command = ["make", "-n", "-B", "unit", f"DEPS={deps}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=20)
    assert expected in done.stdout


def test_the_stability_page_names_the_python_api_and_the_format() -> None:
    text = (ROOT / "docs" / "stability.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| Python API |"))
    assert set(re.findall(r"`(?:gpuaria\.)?(\w+)`", row)) == set(gpuaria.__all__) - {"__version__"}
    assert f"`{manifest.FORMAT}`" in text
    assert "(exit-status.md)" in text


def test_each_exit_status_has_its_promised_number() -> None:
    """Numbers that docs/stability.md promises: change neither the page nor this table without a new major version."""
    text = (ROOT / "docs" / "exit-status.md").read_text(encoding="utf-8")
    first_words = {int(number): word for number, word in re.findall(r"^\| (\d+) \| (\w+)", text, re.MULTILINE)}
    assert first_words == {
        0: "every",
        1: "a",
        2: "invalid",
        3: "some",
        4: "wrong",
        5: "not",
        6: "access",
        7: "network",
        8: "disk",
        9: "aria2c",
        10: "a",
        130: "interrupted",
    }
