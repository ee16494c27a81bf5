"""Join a reader and the language side of a page model to a SliME of the ordinary classes.

Both are trained apart, by `scripts/train_reader.py` and `scripts/train_words.py`. Joined, they compute what they
computed one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, set_seed

from slime_vlm.errors import CheckpointError, ConfigError
from slime_vlm.model.character_tokens import CharacterTokens
from slime_vlm.model.configuration_recogniser import RecogniserConfig
from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from slime_vlm.processing.image_processing_slime import SlimeImageProcessor
from slime_vlm.processing.processing_slime import SlimeProcessor
from slime_vlm.training.pages.character_cells import CHARACTERS, NUM_CHARACTER_IDS
from slime_vlm.training.pages.character_tokenizer import build_character_tokenizer

_NEW = ("model.projector.linear_", "model.global_adapter.")
_TRAINING_ONLY = ("copying_head.", "context_head.", "projector.linear_", "vision_tower.projection.")
_MOST_SCALE = 40.0


def joined(
    reader: Mapping[str, Tensor],
    words: Mapping[str, Tensor],
    encoder: RecogniserConfig,
    *,
    heads: int = 4,
    cell: int = 24,
    margin: int = 8,
    guided: bool = True,
    views: str = "local",
    global_pooling: int = 2,
    max_tiles: int = 7,
    refusal_bias: float = 0.0,
    trust: float = 1.0,
    seed: int = 0,
    **fields: Any,
) -> tuple[SlimeForConditionalGeneration, SlimeProcessor]:
    """Build a model and its processor.

    Args:
        reader: Weights of a `PageReader`.
        words: Weights of a `PageAnswerer`.
        encoder: Config of the reader's encoder. Its projection is left out.
        heads: Heads of the language model, which its weights do not tell.
        cell: Side of a cell in pixels.
        margin: Pixels that a view shows beyond its tile.
        guided: See `AnswererSettings`.
        views: "local", as trained, or "both". The adapters of the global view are then new, and it moves the positions
            of all other tokens: the model has to be trained further.
        global_pooling: See `SlimeFields`; without effect for "local".
        max_tiles: Maximum number of tiles of an image.
        refusal_bias: What generation adds to the logit of "not on this page". Training shows few absent things, so the
            model refuses too seldom without it.
        trust: How many times as much as trained the answer finder is believed. Of a finder that learnt longer than the
            language model beside it, twice is better (docs/log.md).
        seed: Seed of what is new.
        **fields: Other fields of `SlimeConfig`, such as `max_local_tokens`.

    Raises:
        CheckpointError: The weights are not those of such parts.
        ConfigError: They do not fit together.
    """
    config = _config(reader, words, encoder, heads, cell, margin)
    config |= {"guided_answers": guided, "views": views, "max_tiles": max_tiles}
    # Without a global view there are no adapters.
    config |= {"projector_type": "mlp"} if views == "local" else {"global_pooling": global_pooling}
    set_seed(seed)
    model = SlimeForConditionalGeneration(SlimeConfig(**{**config, **fields})).eval()
    _load(model, {**reader, **words})
    tokens = CharacterTokens(len(CHARACTERS))
    # An answer has none of these. A question begins with one, and what follows it would be words.
    never = [0, tokens.begin, tokens.user, tokens.assistant]
    model.generation_config = GenerationConfig(
        bos_token_id=tokens.begin, eos_token_id=tokens.end, pad_token_id=0, suppress_tokens=never
    )
    if model.model.answer_finder is not None:
        model.model.answer_finder.trust.data *= trust
    if refusal_bias:
        model.generation_config.sequence_bias = [[[tokens.not_there], refusal_bias]]
    images = SlimeImageProcessor(image_mean=[0.5] * 3, image_std=[0.5] * 3)
    tokenizer = build_character_tokenizer(CHARACTERS)
    return model, SlimeProcessor.from_config(model.config, tokenizer, "pages", images)


def _config(
    reader: Mapping[str, Tensor],
    words: Mapping[str, Tensor],
    encoder: RecogniserConfig,
    heads: int,
    cell: int,
    margin: int,
) -> dict[str, Any]:
    """Return the fields of `SlimeConfig` that follow from the weights."""
    try:
        embeddings = words["language_model.embed_tokens.weight"]
        inner = words["language_model.layers.0.mlp.gate_proj.weight"].shape[0]
        word_dim = words["open_vocabulary.words_in.weight"].shape[1]
        buckets = words["open_vocabulary.word_embedding.table.weight"].shape[0]
        slots = words["projector.table"].shape[0] // NUM_CHARACTER_IDS
        scale = float(words["log_scale"].exp().clamp(max=_MOST_SCALE))
        place_dim = reader["character_names.linear.weight"].shape[1]
    except KeyError as error:
        raise CheckpointError(
            f"{error.args[0]} is missing, expected the weights that train_reader.py and train_words.py write"
        ) from None
    tokens = CharacterTokens(len(CHARACTERS))
    if embeddings.shape[0] != tokens.vocabulary or embeddings.shape[1] % heads:
        raise ConfigError(
            f"the language model has {embeddings.shape[0]} tokens of width {embeddings.shape[1]}, expected "
            f"{tokens.vocabulary} and a multiple of {heads} heads"
        )
    side = encoder.image_size - 2 * margin
    if side % cell:
        raise ConfigError(f"a tile has {side} pixels, expected a multiple of the {cell} of a cell")
    down, right = encoder.map_stride
    patch = max(down, right)
    vision = encoder.to_dict() | {
        "project_patches": False,
        "patch_size": patch,
        "hidden_size": (patch // down) * (patch // right) * encoder.stage_widths[-1],
    }
    layers = {name.split(".")[2] for name in words if name.startswith("language_model.layers.")}
    text = LlamaConfig(
        vocab_size=tokens.vocabulary,
        hidden_size=embeddings.shape[1],
        intermediate_size=inner,
        num_hidden_layers=len(layers),
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=16384,
        rope_parameters={"rope_type": "default", "rope_theta": 1.0e5},
        tie_word_embeddings=True,
        bos_token_id=tokens.begin,
        eos_token_id=tokens.end,
        pad_token_id=None,
    )
    return {
        "vision_config": vision,
        "text_config": text,
        "vision_feature_layer": -1,
        "tile_margin": margin,
        "num_local_queries": (side // cell) ** 2,
        "characters": CHARACTERS,
        "character_slots": slots,
        "place_dim": place_dim,
        "line_context": len({name.split(".")[2] for name in reader if name.startswith("local_compressor.context.")}),
        "word_dim": word_dim,
        "word_buckets": buckets,
        "copy_output": "copy_output.gate.weight" in words,
        "answer_finder": "answer_finder.trust" in words,
        "page_positions": True,
        "keep_position_ids": True,
        # As published, a comma.
        "separator_token_id": 1 + CHARACTERS.index(","),
        "selector_temperature": 1.0 / scale,
        "image_token_id": tokens.vocabulary,
    }


def _load(model: SlimeForConditionalGeneration, weights: Mapping[str, Tensor]) -> None:
    """Load weights under the names that they have in the parts."""
    names = {"page_positions.weight": "page_positions.linear.weight"}
    state = {
        f"model.{names.get(name, name)}": value
        for name, value in weights.items()
        if name != "log_scale" and not name.startswith(_TRAINING_ONLY)
    }
    state["lm_head.weight"] = state["model.language_model.embed_tokens.weight"]
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"the weights do not fit together ({str(error).splitlines()[-1].strip()})") from None
    wrong = [*unexpected, *(name for name in missing if not name.startswith(_NEW))]
    if wrong:
        raise CheckpointError(
            f"{len(wrong)} tensor(s) are missing or unknown, {wrong[0]} among them; expected the weights that "
            "train_reader.py and train_words.py write"
        )


def join_folders(reader: Path, words: Path, encoder: Path, out: Path, **options: Any) -> None:
    """Write a checkpoint from the folders of two runs.

    Args:
        reader: Folder with `reader.safetensors`.
        words: Folder with `words.safetensors`.
        encoder: Folder of the encoder that the reader was trained with.
        out: Folder to write, new or empty.
        **options: See `joined`.

    Raises:
        CheckpointError: A file is missing, or as in `joined`.
        ConfigError: As in `joined`.
    """
    files = (reader / "reader.safetensors", words / "words.safetensors", encoder / "config.json")
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"{file}: no such file; expected the output of a training script")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} exists already, expected a new or empty folder; choose another one")
    config = RecogniserConfig.from_pretrained(encoder)
    config.image_size = options.pop("view_size", None) or config.image_size
    with torch.inference_mode():
        model, processor = joined(load_file(files[0]), load_file(files[1]), config, **options)
    model.save_pretrained(out)
    processor.save_pretrained(out)
