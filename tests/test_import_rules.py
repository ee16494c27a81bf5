"""What may import what inside the package.

Imports inside functions count as well: they make a circle work, but do not remove it. Imports under `if TYPE_CHECKING:`
never run, so a circle may pass through them. The `__init__` of a package counts where a module imports from the package
itself.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

SRC = Path(__file__).parent.parent / "src"


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_name(path): path for path in sorted((SRC / "slime_vlm").rglob("*.py"))}


def import_statements(node: ast.AST, for_types: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Return import statements below a node, those under `if TYPE_CHECKING:` only when `for_types`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING") and not for_types:
            for other in child.orelse:
                yield from import_statements(other, for_types)
        else:
            yield from import_statements(child, for_types)


def imports_of(module: str, for_types: bool) -> set[str]:
    """Return the modules of this package that a module imports."""
    names: set[str] = set()
    for node in import_statements(ast.parse(FILES[module].read_text(encoding="utf-8")), for_types):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        else:
            assert node.level == 0, f"{module} has a relative import, which these rules do not follow"
            # `from slime_vlm.model import tiling` imports a module, `from slime_vlm.media import open_image` a name.
            paths = {f"{node.module}.{alias.name}" for alias in node.names}
            names.update(path if path in FILES else str(node.module) for path in paths)
    return names & set(FILES)


def test_no_circle_of_imports() -> None:
    graph = {module: imports_of(module, for_types=False) for module in FILES}
    assert len(graph) > 200
    assert sum(map(len, graph.values())) > 500
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" imports ".join(reversed(error.args[1]))) from error


def test_the_model_imports_only_errors_and_itself() -> None:
    modules = [module for module in FILES if module.split(".")[1:2] == ["model"]]
    assert len(modules) > 15
    found = {name for module in modules for name in imports_of(module, for_types=True)}
    allowed = {"slime_vlm.errors", *modules}
    assert "slime_vlm.errors" in found
    assert found <= allowed, sorted(found - allowed)


def modules_after(program: str) -> set[str]:
    """Modules that a new process has imported when the program ends."""
    program += "\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_reading_a_recipe_imports_no_torch() -> None:
    modules = modules_after("from slime_vlm.training.recipe import load_recipe; load_recipe('nano')")
    assert "slime_vlm.training.recipe.schema" in modules
    assert not {"torch", "transformers"} & modules


def test_loading_a_native_checkpoint_imports_no_converter() -> None:
    modules = modules_after("import slime_vlm; slime_vlm.load('nano')")
    assert "slime_vlm.checkpoints.native" in modules
    assert not {module for module in modules if module.startswith("slime_vlm.checkpoints.published")}
    # What other commands need would double the start-up of `slime ask`.
    assert not {"peft", "matplotlib", "pandas", "pyarrow", "datasets", "scipy", "torchvision"} & modules
