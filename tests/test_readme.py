"""The README is true: it is short, its table of the code is complete, its commands and its Python run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import tomllib

import pytest
from typer.testing import CliRunner

from slime_vlm.cli import app

from .documents import ROOT, blocks, slime_commands, text_of


def test_it_is_short_and_shows_the_result_first() -> None:
    lines = text_of("README.md").splitlines()
    assert len(lines) <= 150
    shown = next(number for number, line in enumerate(lines) if "docs/figures/where_it_looked_pages.png" in line)
    assert shown < 15


def test_the_code_map_is_complete() -> None:
    table = text_of("README.md").split("## Code map")[1].split("\n## ")[0]
    packages = [path.parent.name for path in (ROOT / "src" / "slime_vlm").glob("*/__init__.py")]
    assert len(packages) > 8
    assert [name for name in packages if f"`{name}/`" not in table] == []


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


CHEAP = (
    "slime pages --out pages -n 20",
    'slime ask examples/printed_invoice.png -q "When is payment due?" --show overlay.png',
    "slime train nano --out runs/nano --dry-run",
    "slime info nano --image-size 3000x4000",
)


@pytest.mark.parametrize("line", ["slime --help", *CHEAP])
def test_cheap_commands_run_as_written(line, tmp_path, monkeypatch):
    assert line == "slime --help" or any(command.startswith(line) for command in slime_commands())
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, shlex.split(line.replace("-n 20", "-n 2"))[1:])
    assert done.exit_code == 0, done.output
    said = {
        "ask": "13 April 2025",
        "pages": "2 pages",
        "train": "stage find-small",
        "info": "Parameters",
        "--help": "convert",
    }
    assert said[shlex.split(line)[1]] in done.output
    assert (tmp_path / "overlay.png").exists() == ("--show" in line)


def test_json_answers(monkeypatch):
    monkeypatch.chdir(ROOT)
    done = CliRunner().invoke(
        app, ["ask", "examples/printed_invoice.png", "-q", "When is payment due?", "-q", "invoice number", "--json"]
    )
    assert done.exit_code == 0, done.output
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["question"] for answer in answers] == ["When is payment due?", "invoice number"]
    assert [answer["answer"] for answer in answers] == ["13 April 2025", "HP-20417"]


def make(*arguments, folder):
    """Run make as a user has it: CI may have chosen another environment and other versions."""
    environment = {name: value for name, value in os.environ.items() if name not in ("VENV", "CONSTRAINTS")}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_make_leaves_no_half_made_environment(tmp_path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text(text_of(name))
    python = tmp_path / "python"
    # What a Python without ensurepip does.
    python.write_text('#!/bin/sh\n[ "$1" = -c ] && exit 0\nmkdir -p .venv/bin && touch .venv/bin/python && exit 1\n')
    python.chmod(0o755)
    done = make("demo", f"PYTHON={python}", folder=tmp_path)
    assert done.returncode == 2
    assert "apt install python3-venv), then make demo" in done.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_knows_the_two_commands(target):
    assert f"\nmake {target} " in text_of("README.md")
    done = make("--dry-run", target, folder=ROOT)
    assert done.returncode == 0, done.stderr


def test_python_runs_as_written(monkeypatch, capsys):
    (program,) = blocks("README.md", "python")
    monkeypatch.chdir(ROOT)
    exec(compile(program, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert printed.count("local tokens kept") == 2
    assert "13 April 2025" in printed
