"""The README tells the truth: its paths exist, its commands parse, its Python runs."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from slime_vlm.cli import app

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    "README.md",
    *(
        f"docs/{name}.md"
        for name in ("paper_map", "models", "checkpoints", "chat", "inputs", "training", "results", "log")
    ),
]


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
            source = (package / file).read_text(encoding="utf-8")
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
    assert "847.97" in printed
