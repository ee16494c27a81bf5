"""The notebook runs as it is, without Jupyter, and so does the page of Gradio."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

import slime_vlm

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


def test_the_page_of_gradio_answers(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    gradio_app = importlib.import_module("gradio_app")
    ask = gradio_app.asking_of(*slime_vlm.load("nano", device="cpu"))
    path = str(EXAMPLES / "invoice.png")
    text, drawing, seen = ask(path, "What is the amount due?", 32, None)
    assert text.strip() == "$87.84"
    assert drawing.size[0] >= seen[1].width
    # The second question has the same image, the third another one.
    assert ask(path, "What is the amount due?", 32, seen)[2] is seen
    with pytest.raises(slime_vlm.SlimeError, match="not an image"):
        ask(__file__, "What?", 32, seen)
    with pytest.raises(slime_vlm.SlimeError, match="expected a file and a question"):
        ask(None, "What?", 32, None)
    gradio = pytest.importorskip("gradio")
    assert isinstance(gradio_app.build_app(ask), gradio.Blocks)
