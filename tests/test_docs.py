"""The documents are true: links and files exist, commands parse, Python runs, generated pages are complete."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from slime_vlm.cli import app
from slime_vlm.training.recipe import schema

from .documents import DOCUMENTS, ROOT, blocks, load_module, slime_commands, text_of

PACKAGE = ROOT / "src" / "slime_vlm"
GENERATED: dict[str, str] = load_module("docs/hooks.py").generated_pages()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)|<img src=\"([^\":]+)\"", text_of(name))
    folder = (ROOT / name).parent
    assert [link for pair in links for link in pair if link and not _exists(folder, link)] == []


def _exists(folder: Any, link: str) -> bool:
    return folder.joinpath(link).exists() or link in GENERATED


def test_every_page_is_in_the_navigation_once() -> None:
    def pages(entry: Any) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        return [page for item in (entry if isinstance(entry, list) else entry.values()) for page in pages(item)]

    listed = pages(yaml.safe_load(text_of("mkdocs.yml"))["nav"])
    written = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert sorted(listed) == sorted([*written, *GENERATED])


def test_every_command_and_option_is_on_its_page() -> None:
    page = GENERATED["reference/commands.md"]

    def check(names: str, command: Any) -> int:
        section = re.split(r"\n#+ slime", page.split(f"# {names}\n")[1])[0]
        options = [option for item in command.params for option in item.opts if option.startswith("--")]
        assert [option for option in options if option != "--help" and f"`{option}`" not in section] == []
        return 1 + sum(check(f"{names} {name}", child) for name, child in getattr(command, "commands", {}).items())

    assert check("slime", typer.main.get_command(app)) > 15


def test_every_recipe_key_is_on_its_page() -> None:
    page = GENERATED["reference/recipes.md"]
    kinds = [kind for kind in vars(schema).values() if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
    keys = [field.name for kind in kinds for field in dataclasses.fields(kind)]
    assert len(keys) > 60
    assert [key for key in keys if f"| `{key}` |" not in page] == []


def test_every_module_is_on_a_page_of_the_api() -> None:
    named = set(re.findall(r"^::: (\S+)", "\n".join(GENERATED.values()), flags=re.MULTILINE))
    modules = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in PACKAGE.rglob("*.py")
        # Modules at the top are few and small; commands have their own page.
        if path.parent != PACKAGE
        and path.relative_to(PACKAGE).parts[0] != "cli"
        # A folder without it is a checkpoint, with a stub for transformers' Auto classes.
        and (path.parent / "__init__.py").is_file()
    }
    assert len(modules) > 100
    assert sorted(modules - named) == []


def test_files_on_the_figure_exist() -> None:
    pipeline = load_module("docs/figures/pipeline.py")
    files = [file for box in pipeline.BOXES.values() for file in box.files]
    assert len(files) > 10
    assert [file for file in files if not (PACKAGE / file).is_file()] == []


def test_files_of_the_paper_map_exist_and_hold_what_it_says() -> None:
    rows = [line for line in text_of("docs/paper_map.md").splitlines() if line.startswith("| ")]
    checked = 0
    for row in rows:
        code = row.rsplit("|", 2)[1]
        for file, names in re.findall(r"`([\w/]+\.py)`(?:: ((?:`\w+`(?:, )?)+))?", code):
            # Of the package, or of the repository: benchmarks/.
            path = PACKAGE / file if (PACKAGE / file).is_file() else ROOT / file
            source = path.read_text(encoding="utf-8")
            for name in re.findall(r"`(\w+)`", names):
                assert re.search(rf"\b(def|class) {name}\b", source), f"{file} has no {name}"
            checked += 1
    assert checked > 10


def _marks(path: Path) -> int:
    """Count the marks of a file, but not where it only writes about them."""
    return len(re.findall("(?<!`)Deviation:", path.read_text(encoding="utf-8")))


def test_every_deviation_is_on_the_paper_map() -> None:
    listed = text_of("docs/paper_map.md").split("## Deviations")[1]
    files = {path.relative_to(PACKAGE).as_posix() for path in (ROOT / "src").rglob("*.py") if _marks(path)}
    assert files
    assert sorted(file for file in files if f"`{file}`" not in listed) == []


def test_every_deviation_of_the_paper_map_is_marked() -> None:
    table = text_of("docs/paper_map.md").split("## Deviations")[1]
    rows = [line.rsplit("|", 2)[1] for line in table.splitlines() if line.startswith("| ")]
    listed = Counter(file for row in rows for file in re.findall(r"`([\w/]+\.py)`", row))
    assert len(listed) > 10
    marks = {file: _marks(PACKAGE / file) for file in listed}
    assert {file: count for file, count in listed.items() if marks[file] < count} == {}


@pytest.mark.parametrize("line", slime_commands())
def test_commands_parse(line: str) -> None:
    # As in a shell, a # within a word begins no comment; shlex has it otherwise.
    arguments = shlex.split(re.sub(r"\s#\s.*", "", line))[1:]
    group = typer.main.get_command(app)
    context = group.make_context("slime", arguments, resilient_parsing=False)
    name, command, rest = group.resolve_command(context, arguments)
    if hasattr(command, "commands"):
        # A group, as `slime eval`: its own command follows.
        name, command, rest = command.resolve_command(command.make_context(name, list(rest)), list(rest))
    assert command.make_context(name, list(rest)) is not None


@pytest.mark.parametrize("name", ["docs/quickstart.md", "docs/ask.md", "docs/chat.md"])
def test_python_runs_as_written(
    name: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    programs = blocks(name, "python")
    assert programs
    for program in programs:
        exec(compile(program, name, "exec"), {})
    assert capsys.readouterr().out
