"""The script that trains the reader, on one small page."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from slime_vlm.errors import ConfigError
from tests.training.pages.test_reading import small_reader, written_page

_SCRIPT = Path(__file__).parents[3] / "scripts" / "train_reader.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("train_reader", _SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "page_source", lambda *_args, **_kwargs: lambda _seed: written_page())
    return module


def run(script: Any, monkeypatch: pytest.MonkeyPatch, encoder: Path, out: Path, *more: str) -> list[dict[str, Any]]:
    options = ["--view", "64", "--max-tiles", "2", "--tiles", "2", "--blocks", "1", "--eval-pages", "1"]
    options += ["--threads", "1"]
    monkeypatch.setattr(sys, "argv", ["train_reader.py", str(encoder), str(out), "--pdfs", "here", *options, *more])
    script.main()
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_it_trains_goes_on_and_measures(script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    encoder, out = tmp_path / "encoder", tmp_path / "out"
    small_reader().vision_tower.save_pretrained(encoder)
    stem, block = "vision_tower.stem.first.weight", "vision_tower.stages.1.0.expand.weight"
    start = {f"vision_tower.{name}": value for name, value in small_reader().vision_tower.state_dict().items()}

    first = run(script, monkeypatch, encoder, out, "--cpu-minutes", "0.015", "--frozen", "1")
    assert first[-1]["trained"] == "nothing"
    assert first[-1]["typeset"]["cells"] == 4
    weights = load_file(out / "reader.safetensors")
    assert (weights[stem] == start[stem]).all()
    assert (weights[block] == start[block]).all()
    # The parts of SliME have the names that they have in its checkpoints.
    assert "local_compressor.row_bias" in weights

    second = run(script, monkeypatch, encoder, out, "--cpu-minutes", "0.03", "--frozen", "0.1", "--whole", "0")
    assert second[-1]["step"] > first[-1]["step"]
    assert second[-1]["trained"] == "blocks"
    weights = load_file(out / "reader.safetensors")
    assert (weights[stem] == start[stem]).all()
    assert (weights[block] != start[block]).any()

    third = run(script, monkeypatch, encoder, out, "--cpu-minutes", "0.045", "--frozen", "0", "--whole", "1")
    assert third[-1]["trained"] == "all"
    assert (load_file(out / "reader.safetensors")[stem] != start[stem]).any()
    measured = run(script, monkeypatch, encoder, out, "--eval-only")
    assert measured[-1]["typeset"] == third[-1]["typeset"]
    (tmp_path / "other").mkdir()
    weights = str(out / "reader.safetensors")
    started = run(script, monkeypatch, encoder, tmp_path / "other", "--start", weights, "--eval-only")
    assert started[-1]["typeset"] == third[-1]["typeset"]


def test_without_pages_it_says_what_is_wanted(script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    small_reader().vision_tower.save_pretrained(tmp_path / "encoder")
    monkeypatch.setattr(sys, "argv", ["train_reader.py", str(tmp_path / "encoder"), str(tmp_path / "out")])
    with pytest.raises(ConfigError, match="expected --pdfs FOLDER or --fonts FOLDER"):
        script.main()
