"""Settings of a harness become those of `generate`, and the entry point names an existing module."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

from slime_vlm.harnesses.generation import read_generation

ROOT = Path(__file__).parents[2]


def test_usual_settings_are_greedy() -> None:
    # As most tasks of lmms-eval write it.
    found = read_generation(
        {"max_new_tokens": 16, "temperature": 0.0, "top_p": 1.0, "num_beams": 1, "do_sample": False}
    )
    assert (found.max_new_tokens, found.stops, found.options) == (16, (), {"num_beams": 1})
    assert found.ignored == ()


def test_nothing_said() -> None:
    found = read_generation({})
    assert found.options == {}
    assert found.max_new_tokens == 1024


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"temperature": 0.2}, {"do_sample": True, "temperature": 0.2}),
        (
            {"temperature": 0.7, "top_p": 0.9, "top_k": 5, "do_sample": True},
            {"temperature": 0.7, "top_p": 0.9, "top_k": 5},
        ),
        ({"temperature": 0.7, "top_p": 0, "top_k": None}, {"temperature": 0.7}),
        # No temperature to sample with, and sampling switched off.
        ({"temperature": 0, "do_sample": True}, {}),
        ({"temperature": 0.2, "top_p": 0.9, "do_sample": False}, {}),
        ({"num_beams": 3, "repetition_penalty": 1.1}, {"num_beams": 3, "repetition_penalty": 1.1}),
    ],
)
def test_sampling(given: dict[str, object], wanted: dict[str, object]) -> None:
    options = read_generation(given).options
    assert {name: value for name, value in options.items() if name != "do_sample"} == {
        name: value for name, value in wanted.items() if name != "do_sample"
    }
    assert options.get("do_sample", False) == ("temperature" in wanted)


def test_answers_end_before_the_first_stop() -> None:
    found = read_generation({"until": ["\n\n", "", "END"]})
    assert found.stops == ("\n\n", "END")
    assert found.cut("one END two\n\nthree") == "one"
    assert found.cut(" whole\n") == "whole"
    assert read_generation({"until": ";"}).cut("a;b") == "a"
    assert read_generation({"until": None}).cut("a;b") == "a;b"


def test_unknown_settings_are_told() -> None:
    assert read_generation({"until": [], "image_aspect_ratio": "original", "seed": 1}).ignored == (
        "image_aspect_ratio",
        "seed",
    )


def test_entry_point_names_what_is_there() -> None:
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["lmms_eval.models"]
    module, function = points["slime_vlm"].split(":")
    tree = _tree(module)
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    paths = [text for text in texts if isinstance(text, str) and text.startswith("slime_vlm.harnesses.")]
    assert len(paths) == 1
    adapter, name = paths[0].rsplit(".", 1)
    assert name in {node.name for node in _tree(adapter).body if isinstance(node, ast.ClassDef)}


def _tree(module: str) -> ast.Module:
    return ast.parse((ROOT / "src" / Path(*module.split("."))).with_suffix(".py").read_text())
