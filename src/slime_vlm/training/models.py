"""The model that a recipe starts from: a checkpoint, a new SliME over two pretrained parts, or one from nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from slime_vlm.checkpoints.from_pretrained_parts import assemble
from slime_vlm.checkpoints.json_files import read_json
from slime_vlm.checkpoints.layouts import is_published
from slime_vlm.checkpoints.loading import SHIPPED, load, resolve
from slime_vlm.checkpoints.pretrained_parts import text_config_of, vision_config_of
from slime_vlm.checkpoints.published.config import read_published
from slime_vlm.checkpoints.tensor_files import folder_tensors
from slime_vlm.errors import ConfigError
from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from slime_vlm.model.processing_slime import SlimeProcessor
from slime_vlm.model.query_attention import QueryAttention
from slime_vlm.training.page_labels import SlotVocabulary
from slime_vlm.training.page_tokenizer import build_page_tokenizer
from slime_vlm.training.recipe import Recipe
from slime_vlm.training.run_folder import STAGE_FILE


def page_vocabulary(slot_sizes: Sequence[int] | None = None) -> SlotVocabulary:
    """Slots of a projector that reads rendered pages.

    Args:
        slot_sizes: `projector_vocabulary` of an existing model; None for a new one.

    Raises:
        ConfigError: a model with these slots does not read rendered pages.
    """
    from slime_vlm.pages import characters, words

    new = SlotVocabulary(characters=characters(), words=tuple(words()))
    if slot_sizes is None:
        return new
    # Models may name more or fewer characters in a token.
    vocabulary = replace(new, character_slots=new.character_slots + len(slot_sizes) - new.num_slots)
    if vocabulary.sizes != list(slot_sizes):
        raise ConfigError(
            f"this model does not read rendered pages: its projector_vocabulary is {list(slot_sizes)}, expected "
            f"{new.sizes}, which a recipe gives it by 'projector_vocabulary: pages'"
        )
    return vocabulary


def recipe_config(recipe: Recipe, overrides: dict[str, Any]) -> SlimeConfig:
    """The architecture of a recipe, without any weights.

    Hub ids are asked for their config only where the recipe does not state it.

    Args:
        recipe: the recipe.
        overrides: SlimeConfig values of a stage.
    """
    source = recipe.model
    fields = {**source.config, **overrides}
    if source.path is not None:
        folder = resolve(source.path)
        published = is_published(read_json(folder / "config.json"))
        config = read_published(folder)[0] if published else SlimeConfig.from_pretrained(folder)
        for key, value in fields.items():
            setattr(config, key, value)
        config.check()
        return config
    if source.tokenizer == "pages":
        vocabulary = page_vocabulary()
        if fields.get("projector_vocabulary") == "pages":
            fields["projector_vocabulary"] = vocabulary.sizes
        tokenizer: Any = build_page_tokenizer(vocabulary.characters, vocabulary.words)
        ids = tokenizer.convert_tokens_to_ids
        special = {f"{name}_token_id": ids(f"<{name}>") for name in ("bos", "eos", "pad")}
        fields["text_config"] = {**fields["text_config"], "vocab_size": len(tokenizer), **special}
        fields |= {"image_token_id": ids("<image>"), "separator_token_id": ids(","), **special}
        return SlimeConfig(**fields)
    if "vision_config" not in fields and source.vision:
        fields["vision_config"] = vision_config_of(source.vision)
    if "text_config" not in fields and source.llm:
        fields["text_config"] = text_config_of(source.llm)
    return SlimeConfig(**fields)


def new_page_model(recipe: Recipe, overrides: dict[str, Any]) -> tuple[SlimeForConditionalGeneration, SlimeProcessor]:
    """A small model from nothing, with the tokenizer of rendered pages."""
    vocabulary = page_vocabulary()
    tokenizer = build_page_tokenizer(vocabulary.characters, vocabulary.words)
    config = recipe_config(recipe, overrides)
    set_seed(recipe.seed)
    model = SlimeForConditionalGeneration(config)
    _start_colours(model)
    _start_local(model)
    _start_small(model, tokenizer, vocabulary)
    return model, SlimeProcessor.from_config(config, tokenizer, recipe.model.conversation)


def _start_small(model: SlimeForConditionalGeneration, tokenizer: Any, vocabulary: SlotVocabulary) -> None:
    """Let visual tokens begin on the scale of text, a word on a page as the same word in a question.

    Positions of full size would drown what a token holds: the language model then stays for minutes on a plateau.
    """
    slime: Any = model.model
    embeddings: Any = model.get_input_embeddings().weight
    with torch.no_grad():
        embeddings.normal_(std=0.02)
        if slime.page_positions is not None:
            slime.page_positions.linear.weight.zero_()
        if model.config.projector_vocabulary != vocabulary.sizes:
            return
        begin = [sum(vocabulary.sizes[:k]) for k in range(vocabulary.num_slots)]
        for slot in begin[vocabulary.character_slots + 1 : vocabulary.character_slots + 3]:
            for word in vocabulary.words:
                token = tokenizer(word, add_special_tokens=False).input_ids[-1]
                slime.projector.table[slot + vocabulary.word_id(word)] = embeddings[token]


# Red, green, blue: differences both ways round, since what comes after keeps only what is positive, and darkness.
_COLOUR_FILTERS = (
    (1.0, -1.0, 0.0),
    (-1.0, 1.0, 0.0),
    (0.0, -1.0, 1.0),
    (0.0, 1.0, -1.0),
    (1.0, 0.0, -1.0),
    (-1.0, 0.0, 1.0),
    (-0.6, -0.6, -0.6),
)


def _start_colours(model: SlimeForConditionalGeneration) -> None:
    """Let the first filters of a ResNet be averages of colours.

    Found necessary: an eye that learns to read keeps edges alone, and a shape of one colour has none inside. A linear
    reader of its features then names 0.2 of the colours of shapes, and 0.8 right after these filters are set.
    """
    tower: Any = model.model.vision_tower
    if model.config.vision_config.model_type != "resnet":
        return
    weight = tower.embedder.embedder.convolution.weight
    with torch.no_grad():
        for place, colours in zip(weight[: len(weight) // 4], _COLOUR_FILTERS, strict=False):
            place.copy_(torch.tensor(colours)[:, None, None].expand_as(place) / place[0].numel())


def _start_local(model: SlimeForConditionalGeneration) -> None:
    """Let every query look at its own place from the start, each head at another part of it.

    Deviation: the published code draws all projections; this is for models from nothing alone. Found necessary for
    speed: with drawn projections the queries first have to discover that places correspond, and content drowns the
    position code. Here content starts small, and a head compares positions alone, shifted by its offset.
    """
    for module in (model.model.local_compressor, model.model.global_adapter):
        if module is not None:
            start_local_attention(module.query_attention, model.config.num_global_tokens)


def start_local_attention(attention: QueryAttention, num_inputs: int, sharpness: float = 35.0) -> None:
    """Set the query and key projections of a query attention so that every head compares positions alone.

    Of eight heads four look at the features under their query, two pool the row that the query lies in and two its
    column: what a value belongs to stands left of it or above it.

    Args:
        attention: the layer.
        num_inputs: features N that it reads.
        sharpness: logit scale; larger looks at fewer places.
    """
    num_queries, dim = attention.query.shape
    head_dim = dim // attention.num_heads
    frequencies = 10000.0 ** (-torch.arange(head_dim // 4) / (dim // 4))
    # (y, x) in units of the queries' grid; None pools over the axis.
    part = 0.25 if num_inputs > num_queries else 0.0
    places: list[tuple[float | None, float | None]] = [
        *((y, x) for y in (-part, part) for x in (-part, part)),
        *((y, None) for y in (-part, part)),
        *((None, x) for x in (-part, part)),
    ]
    with torch.no_grad():
        for projection in (attention.q_proj, attention.k_proj):
            projection.bias.zero_()
            projection.weight.normal_(std=0.005)
            for head in range(attention.num_heads):
                for axis, place in enumerate(reversed(places[head % len(places)])):
                    if place is None:
                        continue
                    shift = place if projection is attention.q_proj else 0.0
                    for i, frequency in enumerate(frequencies.tolist()):
                        row = head * head_dim + 4 * i + 2 * axis
                        sine, cosine = axis * 2 * (dim // 4) + i, (axis * 2 + 1) * (dim // 4) + i
                        turn = torch.tensor(frequency * shift)
                        projection.weight[row, sine], projection.weight[row, cosine] = turn.cos(), turn.sin()
                        projection.weight[row + 1, sine], projection.weight[row + 1, cosine] = -turn.sin(), turn.cos()
            projection.weight.mul_(sharpness**0.5)
        attention.norm_query.weight.fill_(0.05)
        attention.norm_input.weight.fill_(0.05)


def start_model(
    recipe: Recipe, overrides: dict[str, Any], quantization: str | None = None
) -> tuple[SlimeForConditionalGeneration, SlimeProcessor]:
    """The model before the first stage.

    Args:
        recipe: the recipe.
        overrides: SlimeConfig values of the stage.
        quantization: that of the language model's layers, of a checkpoint alone.
    """
    source = recipe.model
    if source.path is not None:
        return _load(source.path, {**source.config, **overrides}, quantization)
    if source.tokenizer == "pages":
        return new_page_model(recipe, overrides)
    if source.vision and source.llm:
        return new_model(recipe, overrides)
    raise ConfigError("model: expected 'path', 'vision' and 'llm', or 'tokenizer: pages' with a 'config'")


def new_model(recipe: Recipe, overrides: dict[str, Any]) -> tuple[SlimeForConditionalGeneration, SlimeProcessor]:
    """A new SliME over a pretrained vision encoder and language model; the parts between are drawn as published.

    Raises:
        ConfigError: a pretrained part has another shape than the recipe's config says.
    """
    source = recipe.model
    assert source.vision is not None
    assert source.llm is not None
    return assemble(
        source.vision,
        source.llm,
        conversation=source.conversation,
        dtype=torch.float32,
        seed=recipe.seed,
        fields={**source.config, **overrides},
    )


def _load(
    path: str | Path, overrides: dict[str, Any], quantization: str | None
) -> tuple[SlimeForConditionalGeneration, SlimeProcessor]:
    # Quantised weights cannot be moved, so they are put where this process trains.
    on_gpu = quantization is not None and torch.cuda.is_available()
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if on_gpu else "cpu"
    return load(path, device=device, dtype=torch.float32, quantization=quantization, **overrides)


def base_of(recipe: Recipe, before: list[Path]) -> str:
    """The checkpoint that a stage's adapters lie over, as they record it: a whole path, a hub id or `nano`."""
    if before:
        return str(before[0].resolve())
    path = recipe.model.path
    assert path is not None
    folder = Path(path).expanduser()
    return str(folder.resolve()) if path not in SHIPPED and folder.is_dir() else path


def stage_model(
    folders: list[Path], overrides: dict[str, Any], quantization: str | None = None
) -> tuple[SlimeForConditionalGeneration, SlimeProcessor]:
    """The model after one or more stages: the weights of the first folder, then what each later one trained.

    Raises:
        CheckpointError: a folder has no whole weights, in one file or in shards.
        ConfigError: what a later one trained does not fit into the model of the first.
    """
    model, processor = _load(folders[0], overrides, quantization)
    state = model.state_dict()
    for folder in folders[1:]:
        trained = tuple(json.loads((folder / STAGE_FILE).read_text())["trained"])
        for name, stored in folder_tensors(folder).items():
            if not name.startswith(trained):
                continue
            shape = tuple(state[name].shape) if name in state else None
            if shape != stored.shape:
                raise ConfigError(
                    f"{stored.origin} has the shape {list(stored.shape)}, and in {folders[0]} it is "
                    f"{'absent' if shape is None else list(shape)}: stages that start together need one model.config"
                )
            with torch.no_grad():
                state[name].copy_(stored.read())
    return model, processor
