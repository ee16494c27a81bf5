from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import slime_vlm
from slime_vlm.checkpoints import loading
from slime_vlm.checkpoints.loading import load
from slime_vlm.checkpoints.published.convert import convert
from slime_vlm.errors import CheckpointError, ConfigError
from tests.tiny_published import write_published


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    published = write_published(root / "published")
    convert(published, root / "native")
    return {"published": published, "native": root / "native"}


@pytest.mark.parametrize("kind", ["published", "native"])
def test_load_answers(folders: dict[str, Path], kind: str):
    model, processor = load(folders[kind], device="cpu")
    assert model.dtype == torch.float32
    assert not model.training
    messages = [
        {
            "role": "user",
            "content": [{"type": "image", "image": Image.new("RGB", (90, 60))}, {"type": "text", "text": "What?"}],
        }
    ]
    inputs = processor.apply_chat_template(messages, tokenize=True, return_dict=True, add_generation_prompt=True)
    new = model.generate(**inputs, max_new_tokens=3, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    assert 1 <= new.shape[1] <= 3


def test_published_and_native_agree(folders: dict[str, Path]):
    image = Image.effect_noise((90, 60), 80).convert("RGB")
    logits = []
    for kind in ("published", "native"):
        model, processor = load(str(folders[kind]), dtype="float32")
        inputs = processor(text="<image>\nWhat?", images=image)
        with torch.no_grad():
            logits.append(model(**inputs).logits)
    assert torch.equal(*logits)


@pytest.mark.parametrize("kind", ["published", "native"])
def test_overrides_reach_model_and_processor(folders: dict[str, Path], kind: str):
    model, processor = load(folders[kind], views="global", selector_top_p=0.5, max_tiles=3)
    assert (model.config.views, model.config.selector_top_p) == ("global", 0.5)
    assert processor.num_tile_tokens == 0
    assert processor.image_processor.max_tiles == 3
    inputs = processor(text="<image>\nWhat?", images=Image.new("RGB", (90, 60)))
    assert (inputs["input_ids"] == model.config.image_token_id).sum() == 16
    with torch.no_grad():
        assert model(**inputs).logits.shape[1] == inputs["input_ids"].shape[1]


@pytest.mark.parametrize("name", ["top_p", "selector_topp"])
def test_unknown_override_names_the_nearest(folders: dict[str, Path], name: str):
    expected = f"'{name}' is not a field of SlimeConfig; did you mean 'selector_top_p'"
    with pytest.raises(ConfigError, match=expected):
        load(folders["native"], **{name: 1})


@pytest.mark.parametrize("name", ["vision_config", "temperature_of_the_room"])
def test_an_override_like_no_field_gets_no_suggestion(folders: dict[str, Path], name: str):
    with pytest.raises(
        ConfigError, match=f"'{name}' is not a field of SlimeConfig; valid names: .*, views, .*max_tiles, "
    ):
        load(folders["native"], **{name: 1})


@pytest.mark.parametrize("override", [{"views": "globl"}, {"selector_top_p": 2.0}, {"selector_top_p": "much"}])
@pytest.mark.parametrize("kind", ["published", "native"])
def test_override_with_a_wrong_value(folders: dict[str, Path], kind: str, override: dict[str, object]):
    with pytest.raises(ConfigError):
        load(folders[kind], **override)


@pytest.mark.parametrize(
    ("override", "kind"),
    [
        ({"selector": "attention"}, "missing"),
        ({"page_positions": True}, "missing"),
        ({"num_local_queries": 9}, "of another shape"),
        ({"patch_size": 28}, "of another shape"),
    ],
    ids=str,
)
@pytest.mark.parametrize("layout", ["published", "native"])
def test_override_that_the_weights_are_not_of(
    folders: dict[str, Path], layout: str, override: dict[str, Any], kind: str
):
    """Never a random part: the override is named, and nothing else that was given."""
    ((name, value),) = override.items()
    with pytest.raises(ConfigError, match=rf"^{name}={value!r} needs another model, .* are {kind}: model\.") as caught:
        # The same as in the checkpoint, so not to blame.
        load(folders[layout], gate="mixture", **override)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("layout", ["published", "native"])
def test_override_that_no_model_can_be_built_with(folders: dict[str, Path], layout: str):
    with pytest.raises(ConfigError, match="no model can be built with query_attention_head_dim=0"):
        load(folders[layout], query_attention_head_dim=0)


def test_damage_is_not_blamed_on_an_override(folders: dict[str, Path], tmp_path: Path):
    shutil.copytree(folders["native"], tmp_path, dirs_exist_ok=True)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-500])
    with pytest.raises(CheckpointError, match="damaged or incomplete"):
        load(tmp_path, selector_top_p=0.5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nonsense", "nonsense: no such folder, expected nano, pages, a checkpoint folder or a hub id"),
        ("./nonsense/here", "no such folder"),
        ("/nonsense", "no such folder"),
        ("a/b/c", "no such folder"),
        ("nobody/nothing", "neither a local folder nor on the hub"),
    ],
)
def test_missing_checkpoint(name: str, message: str, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=message) as caught:
        load(name)
    assert "\n" not in str(caught.value)


def test_file_and_other_folders(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="is a file"):
        load(tmp_path / "file")
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match="type 'llama', expected 'slime'"):
        load(tmp_path)


def test_shipped_checkpoint_that_is_not_installed(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(loading.SHIPPED, "nano", tmp_path / "absent")
    with pytest.raises(CheckpointError, match="'nano' is not in this installation"):
        load("nano")


def test_damaged_native_folder(folders: dict[str, Path], tmp_path: Path):
    shutil.copytree(folders["native"], tmp_path, dirs_exist_ok=True)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-500])
    with pytest.raises(CheckpointError, match="damaged or incomplete") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)
    weights.write_bytes(whole)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="damaged or incomplete"):
        load(tmp_path)


def test_native_folder_whose_weights_do_not_fit(folders: dict[str, Path], tmp_path: Path):
    shutil.copytree(folders["native"], tmp_path, dirs_exist_ok=True)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"page_positions": false', '"page_positions": true'))
    with pytest.raises(CheckpointError, match=r"1 tensor\(s\) of .* are missing: .*; config.json does not fit"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("dtype", "expected"), [("bfloat16", torch.bfloat16), ("bf16", torch.bfloat16), (torch.float64, torch.float64)]
)
def test_dtype(folders: dict[str, Path], dtype: object, expected: torch.dtype):
    assert load(folders["native"], dtype=dtype)[0].dtype == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "int8"}, "dtype 'int8' is unknown"),
        ({"dtype": torch.int8}, "dtype 'int8' is unknown"),
        ({"dtype": "float8_e4m3fn"}, "dtype 'float8_e4m3fn' is .* expected float32, bfloat16, float16, float64"),
        ({"device": "abacus"}, "device 'abacus' is unknown"),
        ({"device": "meta"}, "device 'meta' has no values"),
        # Not on any machine: one that has the kind has no thousandth of it.
        ({"device": "cuda:999"}, "device 'cuda:999' is not available"),
        ({"device": "mps:99"}, "device 'mps:99' is not available"),
        ({"device": "xpu:99"}, "device 'xpu:99' is not available"),
    ],
    ids=str,
)
def test_unknown_dtype_and_device(folders: dict[str, Path], arguments: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message) as caught:
        load(folders["native"], **arguments)
    assert "\n" not in str(caught.value)


def test_load_is_exported():
    assert slime_vlm.load is load


def changed(folder: Path, tmp_path: Path, name: str, **fields: Any) -> Path:
    """Copy a folder, and change fields of one of its JSON files."""
    shutil.copytree(folder, tmp_path / "changed")
    path = tmp_path / "changed" / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    return tmp_path / "changed"


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("config.json", {"text_config": None}, "has text_config None, expected the fields of a model"),
        ("config.json", {"vision_config": []}, "has vision_config [], expected the fields of a model"),
        ("config.json", {"dtype": {}}, "has dtype {}, expected such as 'bfloat16'"),
        ("config.json", {"torch_dtype": "int64"}, "has torch_dtype 'int64', expected such as 'bfloat16'"),
        ("config.json", {"separator_token_id": {}}, "has the separator {}, expected a token of the vocabulary"),
        ("config.json", {"separator_token_id": 10**6}, "has the separator 1000000, expected a token of the vocab"),
        ("tokenizer_config.json", {"model_max_length": []}, "has model_max_length [], expected a positive number"),
        ("tokenizer_config.json", {"model_max_length": "12"}, "has model_max_length '12', expected a positive number"),
        ("generation_config.json", {"temperature": "hot"}, "has temperature 'hot', expected a number"),
        ("generation_config.json", {"eos_token_id": [1, "x"]}, "has eos_token_id [1, 'x'], expected tokens of the voc"),
        ("generation_config.json", {"pad_token_id": 10**8}, "pad_token_id 100000000, expected a token of the vocabul"),
        ("generation_config.json", {"suppress_tokens": "abc"}, "suppress_tokens 'abc', expected tokens of the vocab"),
        ("generation_config.json", {"bad_words_ids": [3]}, "bad_words_ids [3], expected a list of texts, as lists"),
        ("generation_config.json", {"sequence_bias": [[[3], "x"]]}, "sequence_bias [[[3], 'x']], expected pairs of a"),
        ("generation_config.json", {"repetition_penalty": 0}, "has repetition_penalty 0, expected a number above 0"),
        ("generation_config.json", {"top_p": 1.5}, "has top_p 1.5, expected a number from 0 to 1"),
        ("generation_config.json", {"num_return_sequences": 2}, "num_return_sequences 2, expected at most 1"),
        ("generation_config.json", {"dola_layers": "low"}, "has dola_layers 'low', which SliME cannot use; remove"),
        ("generation_config.json", {"num_beams": 10**6}, "has num_beams 1000000, expected at most 100"),
        ("processor_config.json", {"image_processor": {"view_size": 10**9}}, "view_size 1000000000, expected at most"),
        ("processor_config.json", {"image_processor": {"image_mean": [0.5]}}, "image_mean [0.5], expected three"),
        ("processor_config.json", {"image_processor": {"image_std": None}}, "image_std None, expected three numbers"),
        (
            "processor_config.json",
            {"image_processor": {"rescale_factor": "x"}},
            "rescale_factor 'x', expected a number",
        ),
        ("config.json", {"local_compression": "x"}, "local_compression is 'x', expected true or false"),
        ("config.json", {"max_local_tokens": math.inf}, "max_local_tokens is inf, expected a whole number"),
        ("config.json", {"tile_margin": 1.5}, "tile_margin is 1.5, expected a whole number"),
        ("config.json", {"selector_top_p": "0.5"}, "selector_top_p is '0.5', expected a number"),
    ],
    ids=str,
)
def test_settings_are_checked_before_anything_is_built(
    folders: dict[str, Path], tmp_path: Path, name: str, fields: dict[str, Any], words: str
):
    with pytest.raises(CheckpointError) as caught:
        load(changed(folders["native"], tmp_path, name, **fields))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("config.json", {"seperator": -1}, "has the separator -1, expected a token of the vocabulary"),
        ("config.json", {"mm_vision_select_layer": 10**9}, "vision_feature_layer is 1000000000, expected one of"),
        ("config.json", {"torch_dtype": math.inf}, "has torch_dtype inf, expected such as 'bfloat16'"),
        ("tokenizer_config.json", {"model_max_length": {}}, "has model_max_length {}, expected a positive number"),
    ],
)
def test_published_settings_are_checked_before_anything_is_built(
    folders: dict[str, Path], tmp_path: Path, name: str, fields: dict[str, Any], words: str
):
    with pytest.raises(CheckpointError) as caught:
        load(changed(folders["published"], tmp_path, name, **fields))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("part", "fields", "words"),
    [
        ("text_config", {"output_hidden_states": "x"}, "output_hidden_states 'x', expected true or false"),
        ("text_config", {"return_dict": False}, "return_dict False, expected true"),
        ("vision_config", {"num_attention_heads": -1}, "num_attention_heads -1, expected a number above 0"),
    ],
)
def test_outputs_and_heads_of_parts_are_checked(
    folders: dict[str, Path], tmp_path: Path, part: str, fields: dict[str, Any], words: str
):
    config = json.loads((folders["native"] / "config.json").read_text())
    with pytest.raises(CheckpointError) as caught:
        load(changed(folders["native"], tmp_path, "config.json", **{part: {**config[part], **fields}}))
    assert words in str(caught.value)


def test_settings_of_steps_that_are_off_may_be_null(folders: dict[str, Path], tmp_path: Path):
    images = json.loads((folders["native"] / "processor_config.json").read_text())["image_processor"]
    off = {**images, "do_normalize": False, "image_mean": None, "do_rescale": False, "rescale_factor": None}
    _, processor = load(changed(folders["native"], tmp_path, "processor_config.json", image_processor=off))
    assert processor.image_processor.rescale_factor is None


def test_generation_settings_that_are_used(folders: dict[str, Path], tmp_path: Path):
    settings = {
        "suppress_tokens": [3, 5],
        "bad_words_ids": [[3, 4]],
        "sequence_bias": [[[6], -2.0]],
        "repetition_penalty": 1.1,
        "forced_eos_token_id": 2,
        "guidance_scale": 1.0,
        "penalty_alpha": None,
        "max_time": 60.0,
        "transformers_version": "4.40.0",
    }
    model, processor = load(changed(folders["native"], tmp_path, "generation_config.json", **settings))
    answers = slime_vlm.ask(model, processor, Image.new("RGB", (40, 30)), ["What?"], max_new_tokens=3)
    assert len(answers) == 1


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("num_hidden_layers", 10**9, "has num_hidden_layers 1000000000, but the weights have"),
        ("intermediate_size", 10**8, "fetch both again"),
        ("vocab_size", 10**9, "fetch both again"),
    ],
)
def test_a_model_beyond_its_weights_is_not_built(
    folders: dict[str, Path], tmp_path: Path, field: str, value: int, words: str
):
    part = json.loads((folders["native"] / "config.json").read_text())["text_config"]
    with pytest.raises(CheckpointError, match=words):
        load(changed(folders["native"], tmp_path, "config.json", text_config={**part, field: value}))


def test_pickled_weights_and_an_index_that_leads_out_are_refused(folders: dict[str, Path], tmp_path: Path):
    folder = tmp_path / "native"
    shutil.copytree(folders["native"], folder)
    weights = folder / "model.safetensors"
    index = {"weight_map": {"lm_head.weight": "../native/model-1.safetensors"}}
    weights.rename(folder / "model-1.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="expected file names in its own folder"):
        load(folder)
    (folder / "model.safetensors.index.json").unlink()
    torch.save({"lm_head.weight": torch.zeros(2)}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"has pytorch_model\.bin, which is pickled; expected model\.safetensors"):
        load(folder)


def test_a_chat_template_of_megabytes_is_refused(folders: dict[str, Path], tmp_path: Path):
    folder = tmp_path / "native"
    shutil.copytree(folders["native"], folder)
    (folder / "chat_template.jinja").write_text(" " * 200_000)
    with pytest.raises(CheckpointError, match="larger than 100,000 bytes"):
        load(folder)
    (folder / "chat_template.jinja").unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    for template in (" " * 200_000, [{"name": "default", "template": " " * 200_000}]):
        (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": template}))
        with pytest.raises(CheckpointError, match=r"tokenizer_config\.json has a chat template of 200,0\d\d"):
            load(folder)


@pytest.mark.parametrize("layout", ["native", "published"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "generation_config.json"])
def test_a_pipe_in_the_folder_is_refused(folders: dict[str, Path], tmp_path: Path, layout: str, name: str):
    folder = tmp_path / "copy"
    shutil.copytree(folders[layout], folder)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(CheckpointError, match="is a pipe, a socket or a device"):
        load(folder)
