"""Floating point operations of training, counted per unit of work: a view, a tile, a token, a pair of tokens.

The forward pass of every part runs once on the meta device, so the counts hold for any encoder and language model. The
operations of a step are then plain arithmetic, the same for a plan (`dry_run.py`) and a run
(`reporting/throughput.py`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from slime_vlm.diagnostics.cost import FusedAttention
from slime_vlm.training.lora import LORA_MARK
from slime_vlm.training.parts import PART_PREFIXES

if TYPE_CHECKING:
    from slime_vlm.model.configuration_slime import SlimeConfig
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration

UNITS = ("views", "adapted", "tiles", "projected", "tokens", "pairs", "logits")
"""Units of work of a step: views through the encoder, views through the attention adapter, tiles through the
compressor, tokens through the projector, tokens through the language model, the squares of their rows' lengths, and
tokens with logits (those with a label: model FLOPs are the ones that the loss needs)."""

_LENGTHS = (64, 128)


def meta_model(config: SlimeConfig) -> SlimeForConditionalGeneration:
    """Return a model of this config on the meta device, where tensors have shapes but no values."""
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration

    with torch.device("meta"):
        return SlimeForConditionalGeneration(copy.deepcopy(config)).eval().requires_grad_(False)


def forward_flops(model: SlimeForConditionalGeneration) -> dict[str, float]:
    """Return the operations of one forward pass per unit. A multiplication and an addition count as one each.

    The few operations of the selector are left out. In the attention all pairs count, although half of them are masked.

    Args:
        model: A model on the meta device.
    """
    config = model.config
    with torch.device("meta"):
        views = torch.empty(1, 3, config.view_size, config.view_size)
        features = torch.empty(1, config.num_features, config.vision_width)
        rows = [torch.empty(1, length, config.text_config.hidden_size) for length in _LENGTHS]
    inner = model.model
    flops = dict.fromkeys(UNITS, 0.0)
    flops["views"] = _count(lambda: inner.encode_views(views))
    adapter, compressor, projector = inner.global_adapter, inner.local_compressor, inner.projector
    if adapter is not None:
        flops["adapted"] = _count(lambda: adapter.query_attention(features))
    if compressor is not None:
        flops["tiles"] = _count(lambda: compressor(features))
    if projector is not None:
        flops["projected"] = _count(lambda: projector(features)) / features.shape[1]
    body: Any = inner.language_model

    def read(row: torch.Tensor) -> float:
        return _count(lambda: body(inputs_embeds=row, use_cache=True))

    short, long = map(read, rows)
    # A row of n tokens takes a n + b n^2 operations. (With a cache: without one, masks depend on position values.)
    few, many = _LENGTHS
    flops["pairs"] = (long / many - short / few) / (many - few)
    flops["tokens"] = short / few - flops["pairs"] * few
    flops["logits"] = float(2 * model.lm_head.weight.numel())
    return flops


def training_flops(model: SlimeForConditionalGeneration) -> dict[str, float]:
    """Return the operations of the forward and backward pass per unit, without recomputation by gradient checkpointing.

    The backward pass of a part takes as many operations as its forward pass for the gradients of its inputs, if
    something in it or before it trains, and as many again for the gradients of its trainable weights.

    Args:
        model: The model after `apply_stage`, with its low-rank adapters if it has any, and not yet sharded.
    """
    plain = meta_model(model.config)
    # 4-bit weights are stored packed, so their number of elements is smaller than the number of weights.
    size = {part: _size(plain, part) for part in _PARTS.values()}
    open_ = {part: _size(model, part, lambda name, p: p.requires_grad and LORA_MARK not in name) for part in size}
    low_rank = _size(model, "language_model", lambda name, p: LORA_MARK in name)
    begins = {part: bool(open_[part]) for part in size}
    begins["language_model"] |= low_rank > 0
    encoder = begins["vision_tower"]
    visual = encoder or begins["global_adapter"] or begins["local_compressor"] or begins["projector"]
    flows = {
        "vision_tower": encoder,
        "global_adapter": encoder or begins["global_adapter"],
        "local_compressor": encoder or begins["local_compressor"],
        "projector": visual,
        "language_model": visual or begins["language_model"],
    }
    flops = forward_flops(plain)
    for unit, part in _PARTS.items():
        share = open_[part] / size[part] if size[part] else 0.0
        flops[unit] *= 1 + flows[part] + share
    # The products with low-rank weights are extra, in all three passes.
    flops["tokens"] += 3 * 2 * low_rank
    flops["pairs"] *= 1 + 2 * flows["language_model"]
    flops["logits"] *= 1 + flows["language_model"] + model.lm_head.weight.requires_grad
    return flops


def flops_of(work: Mapping[str, float], flops: Mapping[str, float]) -> float:
    """Return the operations of some work, from the operations per unit."""
    return sum(flops[unit] * work[unit] for unit in UNITS)


_PARTS = {
    "views": "vision_tower",
    "adapted": "global_adapter",
    "tiles": "local_compressor",
    "projected": "projector",
    "tokens": "language_model",
}


def _size(model: SlimeForConditionalGeneration, part: str, wanted: Callable[[str, Any], bool] | None = None) -> int:
    prefixes = PART_PREFIXES[part]
    return sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if name.startswith(prefixes) and (wanted is None or wanted(name, parameter))
    )


def _count(run: Callable[[], Any]) -> float:
    counter, attention = FlopCounterMode(display=False), FusedAttention()
    with torch.inference_mode(), attention, counter:
        run()
    return float(counter.get_total_flops() + attention.flops)
