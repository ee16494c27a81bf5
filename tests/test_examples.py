"""The notebook runs as it is, without Jupyter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_notebook_runs(monkeypatch, capsys):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from matplotlib import pyplot

    monkeypatch.chdir(EXAMPLES)
    notebook = json.loads((EXAMPLES / "where_it_looked.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 4
    # Committed without outputs: they would be megabytes, and out of date with the next model.
    assert all(cell["outputs"] == [] for cell in cells)
    names: dict[str, object] = {}
    with monkeypatch.context() as context:
        context.setattr(pyplot, "show", lambda: None)
        for number, cell in enumerate(cells):
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    assert capsys.readouterr().out.count("tokens") == 4
    assert len(pyplot.get_fignums()) == 2
    pyplot.close("all")
