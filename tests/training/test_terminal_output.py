"""What `slime train` prints: lines of its own, and none of the packages that it uses."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable

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

# Importing torch takes seconds, so every case runs in a child of one process that has done so.
PROGRAM = f"""{ON_AVX512_BF16}
import json, os
import torch, torch._dynamo

folder, cases = sys.argv[1], json.loads(sys.argv[2])
for name, arguments in cases.items():
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0, open(f"{{folder}}/{{name}}.err").read()
        continue
    for descriptor, kind in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{{folder}}/{{name}}.{{kind}}", os.O_WRONLY | os.O_CREAT), descriptor)
    if name == "import":
        import bitsandbytes
        break
    from slime_vlm.cli import main
    sys.argv = ["slime", *arguments]
    sys.exit(main())
"""

OURS = re.compile(
    r" *stage 3 *|[\u2500-\u257f].*|utilisation is measured against .*|3 +\d+/10  loss .* left|finished: try it with .*"
)
"""The title and the rows of a table, the measured peak, steps, and the end."""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Returns what a case printed: "train.out", "train.err" and so on."""
    folder = tmp_path_factory.mktemp("said")
    recipe = write_recipe(folder, records_recipe(folder, steps=10, lora={"rank": 2, "alpha": 4}))
    cases = {
        "train": ["train", str(recipe), "--out", str(folder / "run")],
        "plan": ["train", str(recipe), "--dry-run"],
        "import": [],
    }
    if importlib.util.find_spec("bitsandbytes") is None:
        del cases["import"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), json.dumps(cases)],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return lambda name: (folder / name).read_text()


def test_training_adapters_prints_lines_of_our_own(said: Callable[[str], str]) -> None:
    assert said("train.out") == ""
    lines = [line for line in said("train.err").splitlines() if line.strip()]
    assert [line for line in lines if not OURS.fullmatch(line)] == []
    assert sum(line.startswith("3 ") for line in lines) == 10


def test_a_dry_run_prints_the_plan_alone(said: Callable[[str], str]) -> None:
    assert said("plan.out")
    assert said("plan.err") == ""


def test_the_import_would_warn(said: Callable[[str], str]) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    assert "gemm_4bit_forward" in said("import.err")
