"""Config, tokenizer and vision encoder of a checkpoint in the published layout (`llava_llama`).

A published folder has a flat config with `mm_*` fields, tokenizer files, and the name of its vision encoder, which is a
folder beside the config or a hub id. `published_fields` is the inverse: it maps a native config to such fields.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, CLIPVisionConfig, GenerationConfig, LlamaConfig, PretrainedConfig

from slime_vlm.checkpoints.json_files import check_folder, read_json
from slime_vlm.checkpoints.layouts import PUBLISHED_MODEL_TYPES
from slime_vlm.checkpoints.native import CONFIG_ERRORS
from slime_vlm.checkpoints.validation import (
    check_dtype,
    check_outputs,
    check_separator,
    check_statistics,
    check_tokenizer,
)
from slime_vlm.errors import CheckpointError, SlimeError, one_line
from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.selectors import SELECTORS
from slime_vlm.processing.image_processing_slime import SlimeImageProcessor
from slime_vlm.processing.processing_slime import SlimeProcessor

RELEASED_VISION_TOWER = "openai/clip-vit-large-patch14-336"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
_PROJECTORS = {"gated": "gated", "mlp2x_gelu": "mlp", "qformer": "query_attention"}
_GATES = {-1: "mixture", 0: "mlp", 1: "attention"}
_SELECTORS = {published: name for name, selector in SELECTORS.items() for published in selector.published_types}
# Not "cls_patch": with the class token a view has 577 tokens, and the published adapter has queries for 576.
_FEATURES = {"patch": "default"}
_MERGES = {"spatial": "spatial", "flat": "flat"}
_NUMBERS: dict[str, Any] = {
    "seperator": int,
    "mm_vision_select_layer": int,
    "mm_resampler_dim": int,
    "mm_resampler_topp": int | float,
    "mm_resampler_temp": int | float,
    "rope_theta": int | float,
}
# Text fields of a published config. A Llama config has the same.
_TEXT_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "hidden_act",
    "rms_norm_eps",
    "initializer_range",
    "attention_bias",
    "attention_dropout",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
# Choices of a native model that the published code does not have, with the only value that fits it.
_FIXED: dict[str, Any] = {
    "projector_bias": True,
    "projector_vocabulary": None,
    "page_positions": False,
    "tile_margin": 0,
    "global_pooling": 1,
    "characters": None,
    "query_attention_head_dim": 128,
    "selector_noise": 0.1,
    "gate_noise": True,
    "keep_position_ids": False,
    "max_tiles": 7,
    "max_local_tokens": None,
}


def read_published(src: Path, tokenizer_folder: Path | None = None) -> tuple[SlimeConfig, SlimeProcessor]:
    """Read everything but the weights of a published folder: the native config and the processor.

    Args:
        src: Folder to read.
        tokenizer_folder: Folder with the tokenizer if `src` has none, as with adapters on a base.

    Raises:
        CheckpointError: The folder is not of the published layout, or cannot be read.
    """
    for folder in filter(None, (src, tokenizer_folder)):
        check_folder(folder)
    published = read_json(src / "config.json")
    if published.get("model_type") not in PUBLISHED_MODEL_TYPES:
        raise CheckpointError(
            f"{src} is of model type '{published.get('model_type')}', expected the published layout "
            f"({', '.join(PUBLISHED_MODEL_TYPES)})"
        )
    check_dtype(f"{src}: config.json", published)
    check_outputs(f"{src}: config.json", published)
    check_separator(f"{src}: config.json", published.get("seperator", 0), published)
    tokenizer = _tokenizer(tokenizer_folder or src, published)
    vocabulary = tokenizer.get_vocab()
    style = "llama3" if {"<|start_header_id|>", "<|eot_id|>"} <= set(vocabulary) else "v1"
    vision_config, preprocessing = _vision(src, published)
    config = native_config(src, published, vision_config)
    statistics: dict[str, Any] = {
        name: preprocessing[name] for name in ("image_mean", "image_std") if name in preprocessing
    }
    check_statistics(f"{src}: preprocessor_config.json", statistics)
    return config, SlimeProcessor.from_config(config, tokenizer, style, SlimeImageProcessor(**statistics))


def slime_config(published: Mapping[str, Any], vision_config: PretrainedConfig) -> SlimeConfig:
    """Map the fields of a published config to a native one.

    Deviation: the published cut of every sequence at 2048 tokens is not used, since it can remove the question.

    Args:
        published: The published config.json.
        vision_config: Config of its vision encoder.

    Raises:
        CheckpointError: A field has a value that no released checkpoint uses.
    """

    def choice(field: str, known: Mapping[Any, str], default: Any) -> str:
        value = published.get(field, default)
        if value not in known:
            raise CheckpointError(
                f"config.json has {field} {value!r}, expected one of {', '.join(map(repr, known))}; "
                "checkpoints of this kind cannot be converted"
            )
        return known[value]

    for field, kind in _NUMBERS.items():
        value = published.get(field)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise CheckpointError(f"config.json has {field} {value!r}, expected a number")
    choice("image_aspect_ratio", {"anyres": "tiles", None: "tiles"}, None)
    choice("mm_use_im_start_end", {False: "", None: ""}, None)
    only_global, only_local = bool(published.get("use_global_only")), bool(published.get("use_local_only"))
    if only_global and only_local:
        raise CheckpointError("config.json has use_global_only and use_local_only, expected one of them at most")
    resampler = published.get("mm_resampler_type")
    selector = choice("mm_resampler_type", _SELECTORS, None)
    try:
        return SlimeConfig(
            vision_config=vision_config,
            text_config=_text_config(published),
            separator_token_id=published["seperator"],
            vision_feature_layer=published.get("mm_vision_select_layer", -2),
            vision_feature_select_strategy=choice("mm_vision_select_feature", _FEATURES, "patch"),
            projector_type=choice("mm_projector_type", _PROJECTORS, "gated"),
            gate=choice("mm_learnable_gated", _GATES, -1),
            views="global" if only_global else "local" if only_local else "both",
            local_compression=resampler not in ("identity", None),
            num_local_queries=published.get("mm_resampler_dim", 144),
            local_merge=choice("mm_patch_merge_type", _MERGES, "spatial"),
            selector=selector,
            selector_top_p=published.get("mm_resampler_topp", 0.95),
            selector_temperature=published.get("mm_resampler_temp", 1.0),
            dtype=published.get("torch_dtype"),  # type: ignore[call-arg]  # a field of transformers' base class
        )
    except KeyError as error:
        raise CheckpointError(f"config.json has no field {error}, expected a SliME checkpoint") from None


def native_config(src: Path, published: Mapping[str, Any], vision_config: PretrainedConfig) -> SlimeConfig:
    """Map published fields as `slime_config` does, with the folder in every error.

    Raises:
        CheckpointError: The fields do not describe a model.
    """
    try:
        return slime_config(published, vision_config)
    except SlimeError as error:
        raise CheckpointError(f"{src}: {error}") from None
    except CONFIG_ERRORS as error:
        raise CheckpointError(
            f"{src}: config.json does not describe a model ({one_line(error)}); fetch it again"
        ) from None


def published_fields(config: SlimeConfig) -> dict[str, Any]:
    """Map a native config to the fields of a published config.json, the inverse of `slime_config`.

    Raises:
        CheckpointError: The published layout has no such model.
    """
    text, vision = config.text_config, config.vision_config
    found: dict[str, Any] = {"language model": text.model_type, "vision encoder": vision.model_type}
    found |= {name: getattr(config, name) for name in _FIXED}
    found["compression without a selector"] = config.local_compression and not config.scores_tokens
    found["a selector that is not published"] = not SELECTORS[config.selector].published_types
    # The published selector compares with all text, which is the prompt at inference.
    found["a selector that uses the question alone"] = config.selector_text == "question"
    expected: dict[str, Any] = {"language model": "llama", "vision encoder": "clip_vision_model", **_FIXED}
    if isinstance(vision, CLIPVisionConfig):
        # Views have the size that the encoder was trained on.
        found |= {"view_size": config.view_size, "patch_size": config.patch_size}
        whole = vision.image_size // vision.patch_size * vision.patch_size
        expected |= {"view_size": whole, "patch_size": vision.patch_size}
    for name, value in found.items():
        if value != expected.get(name, False):
            raise CheckpointError(
                f"{name} is {value!r}, but the published layout only has {expected.get(name, False)!r}; this model "
                "cannot be written in it"
            )

    def back(known: Mapping[Any, str], value: str) -> Any:
        return next(published for published, ours in known.items() if ours == value)

    limit = config.max_sequence_length
    rope = dict(text.rope_parameters)
    theta = rope.pop("rope_theta", 10000.0)
    return {
        **{name: getattr(text, name) for name in _TEXT_FIELDS},
        "rope_theta": theta,
        "rope_scaling": None if rope.get("rope_type", "default") == "default" else rope,
        "tie_word_embeddings": config.tie_word_embeddings,
        "torch_dtype": None if config.dtype is None else str(config.dtype).removeprefix("torch."),
        "image_aspect_ratio": "anyres",
        "mm_use_im_start_end": False,
        "mm_hidden_size": config.vision_width,
        "mm_vision_select_layer": config.vision_feature_layer,
        "mm_vision_select_feature": back(_FEATURES, config.vision_feature_select_strategy),
        "mm_projector_type": back(_PROJECTORS, config.projector_type),
        "mm_learnable_gated": back(_GATES, config.gate),
        "mm_patch_merge_type": back(_MERGES, config.local_merge),
        "mm_resampler_type": back(_SELECTORS, config.selector) if config.local_compression else "identity",
        "mm_resampler_dim": config.num_local_queries,
        "mm_resampler_topp": config.selector_top_p,
        "mm_resampler_temp": config.selector_temperature,
        "use_global_only": config.views == "global",
        "use_local_only": config.views == "local",
        "seperator": config.separator_token_id,
        **({} if limit is None else {"tokenizer_model_max_length": limit}),
    }


def generation_config(src: Path, config: SlimeConfig, processor: SlimeProcessor) -> GenerationConfig:
    """Configure greedy generation that ends at every end token of the checkpoint and of its conversation style.

    Deviation: stored sampling settings are dropped, so that the same question gets the same answer. The end of turn of
    the conversation is added to the stored end tokens, which may lack it.
    """
    path = src / "generation_config.json"
    stored = read_json(path) if path.exists() else {}
    tokenizer = processor.tokenizer
    ends: list[int] = []
    for found in (
        stored.get("eos_token_id"),
        getattr(config.text_config, "eos_token_id", None),
        tokenizer.eos_token_id,
    ):
        ends += found if isinstance(found, list) else [] if found is None else [found]
    if processor.style is not None:
        closing = tokenizer.get_vocab().get(processor.style.assistant_close)
        ends += [] if closing is None else [closing]
    ends = list(dict.fromkeys(ends))
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends[0] if len(ends) == 1 else ends,
        pad_token_id=tokenizer.pad_token_id,
    )


def read_published_config(src: Path) -> SlimeConfig:
    """Read the native config of a published folder alone. Its image token does not come from a tokenizer.

    Raises:
        CheckpointError: The config is not of the published layout, or the config of its vision encoder is missing.
    """
    published = read_json(src / "config.json")
    return native_config(src, published, _vision(src, published)[0])


def _text_config(published: Mapping[str, Any]) -> LlamaConfig:
    known = {field.name for field in dataclasses.fields(LlamaConfig)}
    fields = {name: value for name, value in published.items() if name in known}
    for name in ("model_type", "architectures", "transformers_version", "dtype", "rope_parameters"):
        fields.pop(name, None)
    rope = {**(published.get("rope_scaling") or {}), "rope_theta": published.get("rope_theta", 10000.0)}
    return LlamaConfig(**fields, rope_parameters=rope)


def _tokenizer(src: Path, published: Mapping[str, Any]) -> Any:
    if (src / "tokenizer.model").is_file() and not (src / "tokenizer.json").is_file():
        # transformers would take the file for another kind of tokenizer, and its error would not help.
        absent = [name for name in ("sentencepiece", "google.protobuf") if not _is_installed(name)]
        if absent:
            raise CheckpointError(
                f'{src}: tokenizer.model needs {absent[0]}, which is not installed: pip install "slime-vlm[convert]"'
            )
    check_tokenizer(src)
    try:
        # This config keeps transformers from reading config.json, whose model type is unknown to it.
        tokenizer = AutoTokenizer.from_pretrained(src, config=LlamaConfig(), trust_remote_code=False)
    # The tokenizers library raises plain Exceptions.
    except Exception as error:
        raise CheckpointError(f"{src}: the tokenizer cannot be read ({one_line(error)}); fetch it again") from None
    if tokenizer.pad_token is None:
        pad = published.get("pad_token_id")
        tokenizer.pad_token = (
            tokenizer.unk_token or tokenizer.eos_token if pad is None else tokenizer.convert_ids_to_tokens(pad)
        )
    # Deviation: published tokenizers pad on the right, where batch generation would process the padding.
    tokenizer.padding_side = "left"
    return tokenizer


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        # The parent package is missing, or the module is blocked.
        return False


def _vision(src: Path, published: Mapping[str, Any]) -> tuple[PretrainedConfig, dict[str, Any]]:
    """Read the config of the vision encoder, and its preprocessor_config.json if there is one."""
    name = published.get("mm_vision_tower") or published.get("vision_tower")
    if not isinstance(name, str):
        raise CheckpointError(f"{src}: config.json has no mm_vision_tower, expected a SliME checkpoint")
    folder = next((path for path in (src / name, Path(name)) if os.path.isdir(path)), None)
    if folder is None and name.rstrip("/").endswith(RELEASED_VISION_TOWER.split("/")[1]):
        # All released checkpoints use this encoder. Its config is known, so conversion needs no network.
        return SlimeConfig().vision_config, {}
    try:
        config = AutoConfig.from_pretrained(folder or name, trust_remote_code=False)
    except (OSError, *CONFIG_ERRORS) as error:
        raise CheckpointError(
            f"{src}: the vision encoder's config '{name:.80}' is neither a folder beside config.json nor on the hub "
            f"({one_line(error)}); put it there"
        ) from None
    config = getattr(config, "vision_config", config)
    check_outputs(f"{src}: the vision encoder's config.json", config.to_dict())
    # The path and the stored type do not apply to the converted model.
    config.name_or_path, config.dtype = "", None
    if not isinstance(config, CLIPVisionConfig):
        raise CheckpointError(f"{src}: the vision encoder is of type {config.model_type}, expected CLIP")
    path = None if folder is None else folder / "preprocessor_config.json"
    return config, read_json(path) if path is not None and path.is_file() else {}
