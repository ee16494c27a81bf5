"""`slime info` counts without weights, checked against formulas by hand."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from slime_vlm.cli import main
from slime_vlm.diagnostics.cost import describe, kept_bounds, read_config
from slime_vlm.errors import CheckpointError, ConfigError, InputError
from slime_vlm.model.question_selector import keep_most_probable
from tests.conftest import tiny_config, tiny_model


def test_parameters_are_those_of_the_model():
    config = tiny_config()
    found = describe(config, (100, 100))
    assert sum(found.parameters.values()) == sum(parameter.numel() for parameter in tiny_model().parameters())
    # MLP_proj is Linear(16, 24) and Linear(24, 24) with biases.
    assert found.parameters["projection (MLP)"] == 16 * 24 + 24 + 24 * 24 + 24
    assert found.parameters["head"] == 64 * 24
    tied = tiny_config(tie_word_embeddings=True)
    assert "head" not in describe(tied, (100, 100)).parameters


def test_tokens_are_those_of_the_grid():
    # 56 px views of 16 tokens, 4 a tile; 112 x 168 fills 2 x 3 tiles exactly.
    found = describe(tiny_config(), (112, 168), text_tokens=10)
    assert (found.grid.rows, found.grid.cols) == (2, 3)
    assert found.tokens == {"global": 16, "separator": 1, "local": 24, "kept_least": 1, "kept_most": 23}
    assert found.sequence == (16 + 1 + 10 + 1, 16 + 1 + 10 + 23)


def test_bounds_of_kept_tokens_are_reached():
    config = tiny_config(selector_top_p=0.9)
    for length in (1, 4, 24, 1008):
        least, most = kept_bounds(config, length)
        lengths = torch.tensor([length])
        # In doubles the sums of equal probabilities come out right.
        even = torch.full((1, length), 1 / length, dtype=torch.float64)
        certain = torch.zeros(1, length)
        certain[0, 0] = 1.0
        assert abs(int(keep_most_probable(even, lengths, 0.9).sum()) - most) <= 1
        assert int(keep_most_probable(even, lengths, 0.9).sum()) <= most
        assert int(keep_most_probable(certain, lengths, 0.9).sum()) == least
    assert kept_bounds(tiny_config(max_local_tokens=5), 24) == (5, 5)
    assert kept_bounds(tiny_config(max_local_tokens=5), 3) == (3, 3)
    for overrides in ({"selector": "none"}, {"selector_top_p": 1.0}, {"local_compression": False}):
        assert kept_bounds(tiny_config(**overrides), 24) == (24, 24)
    assert kept_bounds(tiny_config(views="global"), 0) == (0, 0)


def test_flops_and_bytes_by_hand():
    config = tiny_config()
    found = describe(config, (112, 168), text_tokens=10, dtype=torch.float32)
    text, length = config.text_config, found.sequence[1]
    dim, inner, layers = text.hidden_size, text.intermediate_size, text.num_hidden_layers
    per_token = 2 * layers * (4 * dim * dim + 3 * dim * inner)
    attention = 4 * layers * length * length * dim
    assert found.flops["prefill, most kept"] == per_token * length + attention + 2 * dim * text.vocab_size
    assert found.flops["each answer token"] == per_token + 4 * layers * (length + 1) * dim + 2 * dim * text.vocab_size
    # The vision encoder is left before its last layer: 2 of 3 layers, 17 tokens, 7 views.
    vision = config.vision_config
    width, side = vision.hidden_size, vision.intermediate_size
    layer = 2 * 17 * (4 * width * width + 2 * width * side) + 4 * 17 * 17 * width
    patches = 2 * 16 * width * 3 * 14 * 14
    assert found.flops["vision encoder"] == 7 * (2 * layer + patches)
    assert found.cache_bytes == 2 * layers * length * dim * 4
    total = sum(found.parameters.values())
    # Quantised are the language model's layers alone: four projections, and three of the inner width.
    few, rows = layers * (4 * dim * dim + 3 * dim * inner), layers * (5 * dim + 2 * inner)
    assert found.weight_bytes == {
        "float32": 4 * total,
        "bfloat16": 2 * total,
        "int8": 2 * (total - few) + few + 4 * rows,
        "4bit": 2 * (total - few) + few // 2 + 4 * (few // 64),
    }
    # At least the inner width of one layer lives at once, and never half as much as if all layers were kept.
    assert length * inner * 4 < found.activation_bytes["reading"] < 10 * length * (dim + inner) * 4


@pytest.mark.parametrize("overrides", [{"views": "global"}, {"views": "local"}, {"selector": "none"}], ids=str)
def test_variants_are_counted(overrides):
    found = describe(tiny_config(**overrides), (112, 168))
    assert ("global adapter" in found.flops) == (overrides.get("views") != "local")
    assert ("local compressor" in found.flops) == (overrides.get("views") != "global")
    assert json.dumps(found.as_dict())


def test_a_config_alone_is_enough(tmp_path):
    tiny_config().save_pretrained(tmp_path)
    assert read_config(tmp_path, max_tiles=3).max_tiles == 3
    assert describe(read_config(tmp_path), (56, 56)).grid.num_tiles == 2
    with pytest.raises(ConfigError, match="max_tiles"):
        read_config(tmp_path, maxtiles=3)
    with pytest.raises(CheckpointError, match="no such folder"):
        read_config("./nowhere")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match="llama"):
        read_config(tmp_path)
    with pytest.raises(InputError):
        describe(tiny_config(), (0, 5))


def test_a_published_config_alone_is_enough(tmp_path):
    source = Path(__file__).parents[1] / "parity" / "data" / "checkpoints" / "tiny-llama3"
    for name in ("config.json", "vision_tower/config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(source / name, tmp_path / name)
    found = describe(read_config(tmp_path), (480, 640))
    assert found.parameters["vision encoder"] > 0
    assert found.grid.num_tiles == 4


@pytest.fixture
def slime(monkeypatch, capsys):
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["slime", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return call


def test_the_command(slime, tmp_path):
    tiny_config().save_pretrained(tmp_path)
    code, out, _ = slime("info", tmp_path, "--image-size", "112x168", "--text-tokens", 10)
    assert code == 0
    for words in ("vision encoder", "2 x 3 of 56 px", "1 to 23", "28 to 50", "prefill"):
        assert words in out
    record = json.loads(slime("info", tmp_path, "--image-size", "112x168", "--max-tiles", 3, "--json")[1])
    assert record["grid"][0] * record["grid"][1] <= 3
    for size in ("112", "0x5", "axb"):
        code, out, err = slime("info", tmp_path, "--image-size", size)
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
        assert "height x width" in err
