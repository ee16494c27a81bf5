"""A small model from nothing for rendered pages, with initial values that let it learn within minutes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import set_seed

from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from slime_vlm.model.query_attention import QueryAttention
from slime_vlm.processing.processing_slime import SlimeProcessor
from slime_vlm.training.architecture import recipe_config
from slime_vlm.training.pages.labels import SlotVocabulary, page_vocabulary
from slime_vlm.training.pages.tokenizer import build_page_tokenizer
from slime_vlm.training.recipe import Recipe


def new_page_model(recipe: Recipe, overrides: dict[str, Any]) -> tuple[SlimeForConditionalGeneration, SlimeProcessor]:
    """Build a small model with random weights, and its processor with the tokenizer of rendered pages.

    Args:
        recipe: The recipe.
        overrides: SlimeConfig values of a stage.
    """
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
    """Start visual tokens on the scale of text, and a word on a page as the embedding of that word in a question.

    Position codes of full size would dominate the content of a token. The language model then stays on a plateau for
    minutes.
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


# Weights of red, green and blue: differences in both directions, since the ReLU after them keeps only positive values,
# and darkness.
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
    """Set the first filters of a ResNet to averages of colours.

    Found necessary: an encoder that learns to read keeps only edges, and a shape of one colour has none inside. A
    linear probe of its features then names 0.2 of the colours of shapes, and 0.8 right after these filters are set.
    """
    tower: Any = model.model.vision_tower
    if model.config.vision_config.model_type != "resnet":
        return
    weight = tower.embedder.embedder.convolution.weight
    with torch.no_grad():
        for kernel, colours in zip(weight[: len(weight) // 4], _COLOUR_FILTERS, strict=False):
            kernel.copy_(torch.tensor(colours)[:, None, None].expand_as(kernel) / kernel[0].numel())


def _start_local(model: SlimeForConditionalGeneration) -> None:
    """Let every query attend to its own position from the start, each head to a different part of it.

    Deviation: the published code draws all projections at random; this is only for models from nothing. Found necessary
    for speed: with random projections the queries first have to discover that positions correspond, and content
    dominates the position code. Here content starts small, and a head compares only positions, shifted by its offset.
    """
    parts: Sequence[Any] = (model.model.local_compressor, model.model.global_adapter)
    for module in parts:
        if module is not None:
            start_local_attention(module.query_attention, model.config.num_features)


def start_local_attention(attention: QueryAttention, num_inputs: int, sharpness: float = 35.0) -> None:
    """Set the query and key projections of a query attention so that every head compares only positions.

    Of eight heads, four attend to the features under their query, two pool the row of the query and two its column. The
    key of a value stands left of it or above it.

    Args:
        attention: The layer.
        num_inputs: Number N of features that it attends to.
        sharpness: Logit scale. A larger one attends to fewer positions.
    """
    num_queries, dim = attention.query.shape
    head_dim = dim // attention.num_heads
    frequencies = 10000.0 ** (-torch.arange(head_dim // 4) / (dim // 4))
    # Offset (y, x) of a head, in units of the queries' grid; None pools over the axis.
    part = 0.25 if num_inputs > num_queries else 0.0
    offsets: list[tuple[float | None, float | None]] = [
        *((y, x) for y in (-part, part) for x in (-part, part)),
        *((y, None) for y in (-part, part)),
        *((None, x) for x in (-part, part)),
    ]
    with torch.no_grad():
        for projection in (attention.q_proj, attention.k_proj):
            projection.bias.zero_()
            projection.weight.normal_(std=0.005)
            for head in range(attention.num_heads):
                for axis, offset in enumerate(reversed(offsets[head % len(offsets)])):
                    if offset is None:
                        continue
                    shift = offset if projection is attention.q_proj else 0.0
                    for i, frequency in enumerate(frequencies.tolist()):
                        row = head * head_dim + 4 * i + 2 * axis
                        sine, cosine = axis * 2 * (dim // 4) + i, (axis * 2 + 1) * (dim // 4) + i
                        turn = torch.tensor(frequency * shift)
                        projection.weight[row, sine], projection.weight[row, cosine] = turn.cos(), turn.sin()
                        projection.weight[row + 1, sine], projection.weight[row + 1, cosine] = -turn.sin(), turn.cos()
            projection.weight.mul_(sharpness**0.5)
        attention.norm_query.weight.fill_(0.05)
        attention.norm_input.weight.fill_(0.05)
