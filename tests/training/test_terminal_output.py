"""What `slime train` prints: lines of its own, and none of the packages that it uses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.mini import records_recipe, write_recipe

ON_AVX512_BF16 = """
import importlib.util, sys

class Finder:
    # bitsandbytes takes the path on which it looks for a kernel from the package `kernels`, which is missing.
    def find_spec(self, name, path, target=None):
        if name != "bitsandbytes.functional":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def execute_and_patch(module):
            execute(module)
            module.has_avx512bf16 = lambda: True

        spec.loader.exec_module = execute_and_patch
        return spec

sys.meta_path.insert(0, Finder())
sys.modules["kernels"] = None
"""

SLIME = f"{ON_AVX512_BF16}\nfrom slime_vlm.cli import main\nmain()\n"

OURS = re.compile(
    r" *stage 3 *|[\u2500-\u257f].*|utilisation is measured against .*|3 +\d+/10  loss .* left|finished: try it with .*"
)
"""The title and the rows of a table, the measured peak, steps, and the end."""


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    )


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    return write_recipe(folder, records_recipe(folder, steps=10, lora={"rank": 2, "alpha": 4}))


def test_training_adapters_prints_lines_of_our_own(recipe: Path, tmp_path: Path) -> None:
    done = run(SLIME, "train", str(recipe), "--out", str(tmp_path / "run"))
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert [line for line in lines if not OURS.fullmatch(line)] == []
    assert sum(line.startswith("3 ") for line in lines) == 10


def test_a_dry_run_prints_the_plan_alone(recipe: Path) -> None:
    assert run(SLIME, "train", str(recipe), "--dry-run").stderr == ""


def test_the_import_would_warn() -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    assert "gemm_4bit_forward" in run(f"{ON_AVX512_BF16}\nimport bitsandbytes").stderr
