"""The project's own documents: their text, blocks of code and commands."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent.parent
DOCUMENTS = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


def text_of(name: str) -> str:
    """Return the text of a file of the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(name), flags=re.MULTILINE | re.DOTALL)


def slime_commands() -> list[str]:
    """Return every command of a shell block that starts with `slime`; a backslash at the end of a line continues it."""
    shell = [block.replace("\\\n", " ") for name in DOCUMENTS for block in blocks(name, "bash")]
    lines = [line for block in shell for line in block.splitlines()]
    return list(dict.fromkeys(line for line in lines if line.startswith("slime ")))


def load_module(path: str) -> ModuleType:
    """Import a Python file that belongs to no package."""
    name = Path(path).stem
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
