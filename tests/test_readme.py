"""The README tells the truth: its paths exist, its commands parse, its Python runs."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from slime_vlm.cli import app

ROOT = Path(__file__).parent.parent
NAMES = ["paper_map", "models", "checkpoints", "chat", "inputs", "data", "training", "evaluation", "results", "log"]
DOCUMENTS = ["README.md", *(f"docs/{name}.md" for name in NAMES)]


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(name), flags=re.MULTILINE | re.DOTALL)


def slime_commands() -> list[str]:
    lines = [line for name in DOCUMENTS for block in blocks(name, "bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith("slime ")]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    links = re.findall(r"\]\(([^)#:]+)\)", text_of(name))
    # The shipped model's card comes with its weights.
    assert [link for link in links if not (ROOT / name).parent.joinpath(link).exists()] == []


def test_the_map_of_the_code_is_complete():
    table = text_of("README.md").split("## Map of the code")[1].split("##")[0]
    package = ROOT / "src" / "slime_vlm"
    quiet = {"__init__.py", "errors.py", "py.typed", "__pycache__", "checkpoints"}
    unnamed = [path.name for path in package.iterdir() if path.name not in quiet and f"`{path.name}" not in table]
    assert unnamed == []


def test_files_on_the_figure_exist():
    spec = importlib.util.spec_from_file_location("pipeline", ROOT / "docs" / "figures" / "pipeline.py")
    assert spec is not None
    assert spec.loader is not None
    pipeline = importlib.util.module_from_spec(spec)
    sys.modules["pipeline"] = pipeline
    spec.loader.exec_module(pipeline)
    files = [file for box in pipeline.BOXES.values() for file in box.files]
    assert len(files) > 10
    assert [file for file in files if not (ROOT / "src" / "slime_vlm" / file).is_file()] == []


def test_files_of_the_paper_map_exist_and_hold_what_it_says():
    rows = [line for line in text_of("docs/paper_map.md").splitlines() if line.startswith("| ")]
    package = ROOT / "src" / "slime_vlm"
    checked = 0
    for row in rows:
        code = row.rsplit("|", 2)[1]
        for file, names in re.findall(r"`([\w/]+\.py)`(?:: ((?:`\w+`(?:, )?)+))?", code):
            # Of the package, or of the repository: benchmarks/.
            path = package / file if (package / file).is_file() else ROOT / file
            source = path.read_text(encoding="utf-8")
            for name in re.findall(r"`(\w+)`", names):
                assert re.search(rf"\b(def|class) {name}\b", source), f"{file} has no {name}"
            checked += 1
    assert checked > 10


def test_every_deviation_is_on_the_paper_map():
    listed = text_of("docs/paper_map.md").split("## Deviations")[1]
    files = {
        path.relative_to(ROOT / "src" / "slime_vlm").as_posix()
        for path in (ROOT / "src").rglob("*.py")
        if "Deviation:" in path.read_text(encoding="utf-8")
    }
    assert files
    assert sorted(file for file in files if f"`{file}`" not in listed) == []


def test_every_deviation_of_the_paper_map_is_marked():
    package = ROOT / "src" / "slime_vlm"
    table = text_of("docs/paper_map.md").split("## Deviations")[1]
    rows = [line.rsplit("|", 2)[1] for line in table.splitlines() if line.startswith("| ")]
    listed = Counter(file for row in rows for file in re.findall(r"`([\w/]+\.py)`", row))
    assert len(listed) > 10
    marks = {file: (package / file).read_text(encoding="utf-8").count("Deviation:") for file in listed}
    assert {file: count for file, count in listed.items() if marks[file] < count} == {}


def test_lower_bounds_are_those_of_the_project():
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    extras = project["optional-dependencies"]
    bounds = [
        item for item in [*project["dependencies"], *extras["train"], *extras["eval"], *extras["data"]] if ">=" in item
    ]
    lowest = dict(re.findall(r"^([\w-]+)==([\d.]+?)(?:\.\*)?$", text_of("constraints-lowest.txt"), flags=re.MULTILINE))
    for name, version in (bound.lower().split(",")[0].split(">=") for bound in bounds):
        # The fonts have one version each, and torch is pinned to the tested one.
        if not name.startswith("font-") and name != "torch":
            assert f"{lowest.pop(name)}.".startswith(f"{version}.")
    assert set(lowest) == {"torch"}


@pytest.mark.parametrize("line", slime_commands())
def test_commands_parse(line):
    # As in a shell, a # within a word begins no comment; shlex has it otherwise.
    arguments = shlex.split(re.sub(r"\s#\s.*", "", line))[1:]
    group = typer.main.get_command(app)
    context = group.make_context("slime", arguments, resilient_parsing=False)
    name, command, rest = group.resolve_command(context, arguments)
    if hasattr(command, "commands"):
        # A group, as `slime eval`: its own command follows.
        name, command, rest = command.resolve_command(command.make_context(name, list(rest)), list(rest))
    assert command.make_context(name, list(rest)).params


CHEAP = (
    "slime pages --out pages -n 20",
    'slime ask examples/invoice.png -q "What is the amount due?" --show overlay.png',
    "slime train recipes/nano.yaml --out runs/nano --dry-run",
    "slime info nano --image-size 3000x4000",
)


@pytest.mark.parametrize("line", ["slime --help", *CHEAP])
def test_cheap_commands_run_as_written(line, tmp_path, monkeypatch):
    assert line == "slime --help" or any(command.startswith(line) for command in slime_commands())
    for name in ("examples", "recipes"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, shlex.split(line.replace("-n 20", "-n 2"))[1:])
    assert done.exit_code == 0, done.output
    said = {"ask": "87.84", "pages": "2 pages", "train": "stage find-small", "info": "Parameters", "--help": "convert"}
    assert said[shlex.split(line)[1]] in done.output
    assert (tmp_path / "overlay.png").exists() == ("--show" in line)


def test_json_answers(monkeypatch):
    monkeypatch.chdir(ROOT)
    done = CliRunner().invoke(
        app, ["ask", "examples/invoice.png", "-q", "What is the amount due?", "-q", "balance", "--json"]
    )
    assert done.exit_code == 0, done.output
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["question"] for answer in answers] == ["What is the amount due?", "balance"]
    assert "87.84" in answers[0]["answer"]


def test_make_leaves_no_half_made_environment(tmp_path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text(text_of(name))
    python = tmp_path / "python"
    # What a Python without ensurepip does.
    python.write_text('#!/bin/sh\n[ "$1" = -c ] && exit 0\nmkdir -p .venv/bin && touch .venv/bin/python && exit 1\n')
    python.chmod(0o755)
    done = subprocess.run(
        ["make", "demo", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "apt install python3-venv), then make demo" in done.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_knows_the_two_commands(target):
    assert f"\nmake {target} " in text_of("README.md")
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_python_runs_as_written(monkeypatch, capsys):
    (program,) = blocks("README.md", "python")
    monkeypatch.chdir(ROOT)
    exec(compile(program, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert printed.count("local tokens kept") == 2
    assert "87.84" in printed
