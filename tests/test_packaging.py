"""The wheel, the sdist and what describes them."""

from __future__ import annotations

import re
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from slime_vlm import __version__
from slime_vlm.cli import main
from slime_vlm.engines.vllm import register

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "slime_vlm"


def files_below(folder: Path, start: Path) -> set[str]:
    paths = {path.relative_to(start) for path in folder.rglob("*") if path.is_file()}
    return {path.as_posix() for path in paths if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    builders = pytest.importorskip("hatchling.builders.wheel")
    (path,) = builders.WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("wheel")))
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    builders = pytest.importorskip("hatchling.builders.sdist")
    (path,) = builders.SdistBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("sdist")))
    with tarfile.open(path) as archive:
        return {name.split("/", 1)[1] for name in archive.getnames()}


def test_the_wheel_has_one_top_level_module(wheel: set[str]) -> None:
    assert {name.split("/")[0] for name in wheel} == {"slime_vlm", f"slime_vlm-{__version__}.dist-info"}


def test_the_wheel_holds_the_whole_package(wheel: set[str]) -> None:
    files = files_below(PACKAGE, PACKAGE.parent)
    named = {"recipes/nano.yaml", "checkpoints/nano/model.safetensors", "py.typed"}
    assert {f"slime_vlm/{name}" for name in named} <= files
    assert files - wheel == set()


def test_the_sdist_holds_what_its_tests_read(sdist: set[str]) -> None:
    folders = ("src", "tests", "benchmarks", "docs", "examples", "scripts")
    files = {name for folder in folders for name in files_below(ROOT / folder, ROOT)}
    assert {"tests/test_packaging.py", "benchmarks/train_step.py"} <= files
    assert files - sdist == set()
    # Those of the root that this file and tests/test_readme.py read.
    assert {"README.md", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "Makefile", "mkdocs.yml"} <= sdist
    assert {"pyproject.toml", "constraints.txt", "constraints-lowest.txt", ".github/workflows/ci.yml"} <= sdist


def test_entry_points_lead_to_something(project: dict[str, Any]) -> None:
    assert project["scripts"] == {"slime": "slime_vlm.cli:main"}
    assert callable(main)
    (target,) = project["entry-points"]["vllm.general_plugins"].values()
    assert target == f"{register.__module__}:{register.__name__}"
    # The plug-in's module needs lmms-eval to be imported.
    (target,) = project["entry-points"]["lmms_eval.models"].values()
    module, name = target.split(":")
    path = PACKAGE.parent / f"{module.replace('.', '/')}.py"
    assert re.search(rf"^(def )?{name}\b", path.read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_the_same_pythons_everywhere(project: dict[str, Any]) -> None:
    prefix = "Programming Language :: Python :: 3."
    named = [item.removeprefix(prefix) for item in project["classifiers"] if item.startswith(prefix)]
    versions = [f"3.{minor}" for minor in named]
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    assert versions == workflow["jobs"]["run"]["strategy"]["matrix"]["python-version"]
    assert project["requires-python"] == f">={versions[0]}"


def test_ci_runs_the_lowest_the_tested_and_the_newest_versions(project: dict[str, Any]) -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    matrix = workflow["jobs"]["run"]["strategy"]["matrix"]
    assert matrix["versions"] == ["tested"]
    assert [entry["versions"] for entry in matrix["include"]] == ["lowest", "newest"]
    assert {entry["python-version"] for entry in matrix["include"]} <= set(matrix["python-version"])
    assert workflow["jobs"]["run"]["steps"][-1]["env"] == {"VERSIONS": "${{ matrix.versions }}"}
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    found = re.search(r'other_transformers="(\S+) (\S+)"', script)
    assert found is not None
    (bound,) = (item.split(">=")[1] for item in project["dependencies"] if item.startswith("transformers>="))
    assert found[1].startswith(f"{bound}.")
    assert f"transformers=={found[1]}\n" in (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8")
    assert f"to {found[2].rsplit('.', 1)[0]}" in (ROOT / "docs" / "install.md").read_text(encoding="utf-8")


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    assert citation["preferred-citation"]["url"].endswith("2406.08487")


def test_the_changelog_is_one_line_an_item_by_heading() -> None:
    lines = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    headings = [line for line in lines if line.startswith("#")]
    assert headings[0] == "# Changelog"
    assert headings[1].startswith(f"## {__version__}")
    kinds = {"### Added", "### Changed", "### Fixed", "### Removed"}
    assert {line for line in headings[1:] if not re.match(r"## \d", line)} <= kinds
    items = lines[lines.index(headings[1]) :]
    assert [line for line in items if line and not line.startswith(("#", "- "))] == []
