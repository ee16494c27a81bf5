"""Compute parameters, tokens, memory and FLOPs of one question about one image from a model's config alone.

The model is built and run once on the meta device, where tensors have shapes but no values. The operations and the
memory of that run are counted, so the counts hold for any vision encoder and language model.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub import hf_hub_download
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from slime_vlm.checkpoints.json_files import read_json
from slime_vlm.checkpoints.layouts import is_published
from slime_vlm.checkpoints.loading import check_overrides, resolve
from slime_vlm.checkpoints.published.config import read_published_config
from slime_vlm.errors import CheckpointError, InputError, one_line
from slime_vlm.model.cache_name import CACHE
from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from slime_vlm.model.tiling import TileGrid, choose_grid


@dataclass(frozen=True)
class ModelInfo:
    """The cost of one question about one image. These are counts, not measurements.

    Attributes:
        parameters: Parameters by part. A tied head counts with the language model.
        image_size: (height, width) of the image.
        grid: Tiles of the image.
        text_tokens: Assumed number of tokens of prompt and question.
        tokens: Global, separator and local tokens, and the least and most local tokens that a question can keep.
        sequence: Least and most tokens in the language model's input.
        limit: Longest sequence of the language model, or None without a limit.
        weight_bytes: Bytes of the weights by number type.
        cache_bytes: Bytes of keys and values for the longest sequence, in `dtype`.
        activation_bytes: Peak bytes beside weights and cache, in `dtype`: "seeing" while the image is encoded,
            "reading" during the prefill of the language model.
        flops: Floating point operations by part. The prefill is counted for the least and the most kept tokens.
        dtype: Number type of cache and activations.
    """

    parameters: dict[str, int]
    image_size: tuple[int, int]
    grid: TileGrid
    text_tokens: int
    tokens: dict[str, int]
    sequence: tuple[int, int]
    limit: int | None
    weight_bytes: dict[str, int]
    cache_bytes: int
    activation_bytes: dict[str, int]
    flops: dict[str, int]
    dtype: str

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        return {
            "parameters": {**self.parameters, "total": sum(self.parameters.values())},
            "image_size": list(self.image_size),
            "grid": [self.grid.rows, self.grid.cols],
            "view_size": self.grid.view_size,
            "tokens": self.tokens,
            "text_tokens": self.text_tokens,
            "sequence": list(self.sequence),
            "limit": self.limit,
            "dtype": self.dtype,
            "bytes": {"weights": self.weight_bytes, "cache": self.cache_bytes, "activations": self.activation_bytes},
            "flops": self.flops,
        }


def read_config(name_or_path: str | Path, **overrides: Any) -> SlimeConfig:
    """Read the config of a model and nothing else. Of a hub id, only `config.json` is downloaded.

    Args:
        name_or_path: `nano` (shipped), a folder or a hub id, in the native or the published layout.
        **overrides: `SlimeConfig` fields to change.

    Raises:
        CheckpointError: The config does not exist, or is not a SliME config.
        ConfigError: An override is unknown, or the fields do not fit together.
    """
    check_overrides(overrides)
    name = str(name_or_path)
    owner_and_name = len(Path(name).parts) == 2 and not name.startswith((".", "~", "/"))
    if owner_and_name and not Path(name).exists():
        try:
            folder = Path(hf_hub_download(name, "config.json")).parent
        # The hub client raises many kinds of errors (network, permissions, names). All mean the same here.
        except Exception as error:
            raise CheckpointError(f"{name}: neither a folder here nor on the hub ({one_line(error)})") from None
    else:
        folder = resolve(name)
    fields = read_json(folder / "config.json")
    if is_published(fields):
        config = read_published_config(folder)
    elif fields.get("model_type") == SlimeConfig.model_type:
        try:
            config = SlimeConfig.from_pretrained(folder, trust_remote_code=False)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CheckpointError(f"{folder}: config.json is not a valid SliME config ({one_line(error)})") from None
    else:
        raise CheckpointError(
            f"{folder} holds a model of type '{fields.get('model_type')}', expected '{SlimeConfig.model_type}'"
        )
    for field_name, value in overrides.items():
        setattr(config, field_name, value)
    config.check()
    return config


def describe(
    config: SlimeConfig,
    image_size: tuple[int, int] = (1080, 1920),
    *,
    text_tokens: int = 64,
    dtype: torch.dtype = torch.bfloat16,
) -> ModelInfo:
    """Count what one question about one image costs.

    Multiplications and additions count one each. Attention counts all pairs of tokens, although causal attention masks
    half of them. Activations assume fused attention, which does not store the matrix of pairs.

    Args:
        config: The model's config. Its weights are not needed.
        image_size: (height, width) of the image in pixels.
        text_tokens: Number of tokens of prompt and question.
        dtype: Number type of weights, cache and activations.

    Raises:
        InputError: The image's size or `text_tokens` is not positive.
    """
    if text_tokens < 1:
        raise InputError(f"{text_tokens} text tokens, expected at least 1")
    grid = choose_grid(*image_size, config.view_size, config.max_tiles, config.tile_margin)
    with torch.device("meta"):
        model = SlimeForConditionalGeneration(config).eval().requires_grad_(False).to(dtype)
    layout = config.token_layout
    local = layout.num_local_tokens(grid.rows, grid.cols)
    least, most = kept_bounds(config, local)
    fixed = layout.num_global_tokens + layout.num_separators + text_tokens
    sequence = (fixed + least, fixed + most)

    parts = _count_encoding(model, grid)
    encoding_peak = max(part.peak_bytes for part in parts.values())
    prefill = [_count_prefill(model, length) for length in sequence]
    flops = {name: part.flops for name, part in parts.items()}
    flops["prefill, fewest kept"], flops["prefill, most kept"] = (part.flops for part in prefill)
    flops["each answer token"] = _count_next_token(model, sequence[1]).flops
    return ModelInfo(
        parameters=count_parameters(model),
        image_size=image_size,
        grid=grid,
        text_tokens=text_tokens,
        tokens={
            "global": layout.num_global_tokens,
            "separator": layout.num_separators,
            "local": local,
            "kept_least": least,
            "kept_most": most,
        },
        sequence=sequence,
        limit=getattr(config.text_config, "max_position_embeddings", None),
        weight_bytes=weight_bytes(model),
        cache_bytes=prefill[1].cache_bytes,
        activation_bytes={"seeing": encoding_peak, "reading": prefill[1].peak_bytes - prefill[1].cache_bytes},
        flops=flops,
        dtype=str(dtype).removeprefix("torch."),
    )


def weight_bytes(model: SlimeForConditionalGeneration) -> dict[str, int]:
    """Return the bytes of the weights by number type.

    int8 and 4bit apply to the layers that `checkpoints/quantization.py` quantizes; all other weights have 16 bits. A
    row of int8 weights has one scale of 4 bytes, and so has a block of 64 4-bit weights.
    """
    total = sum(parameter.numel() for parameter in model.parameters())
    linear = [m.weight for m in model.model.language_model.modules() if isinstance(m, nn.Linear)]
    quantized = sum(weight.numel() for weight in linear)
    rest = 2 * (total - quantized)
    return {
        "float32": 4 * total,
        "bfloat16": 2 * total,
        "int8": rest + quantized + 4 * sum(weight.shape[0] for weight in linear),
        "4bit": rest + quantized // 2 + 4 * (quantized // 64),
    }


def kept_bounds(config: SlimeConfig, num_local_tokens: int) -> tuple[int, int]:
    """Return the least and the most local tokens that a question can keep (paper section 3.3).

    The cumulative sum of sorted probabilities is at least k / L after k of L tokens. At most floor(top_p L) sums are
    therefore <= top_p, and one more token is kept. The least is one token, if its probability exceeds top_p. In a model
    with characters it is none: tokens that show nothing are never kept.
    """
    least, most = _kept_bounds(config, num_local_tokens)
    return (least if config.characters is None else 0), most


def _kept_bounds(config: SlimeConfig, num_local_tokens: int) -> tuple[int, int]:
    if not config.selects_tokens or num_local_tokens == 0:
        return num_local_tokens, num_local_tokens
    if config.max_local_tokens is not None:
        kept = min(config.max_local_tokens, num_local_tokens)
        return kept, kept
    if config.selector_top_p >= 1.0:
        return num_local_tokens, num_local_tokens
    return 1, min(int(config.selector_top_p * num_local_tokens) + 1, num_local_tokens)


def count_parameters(model: SlimeForConditionalGeneration) -> dict[str, int]:
    """Return the number of parameters by part of the paper. Each is counted once, missing parts are left out."""
    inner = model.model
    body = inner.language_model
    parts: dict[str, nn.Module | None] = {
        "vision encoder": inner.vision_tower,
        "projection (MLP)": inner.projector,
        "global adapter": inner.global_adapter,
        "local compressor": inner.local_compressor,
        "selector": inner.selector,
        "page positions": inner.page_positions,
        "names of characters": inner.character_names,
        "words": inner.open_vocabulary,
        "copy output": inner.copy_output,
        "answer finder": inner.answer_finder,
        "token embeddings": body.get_input_embeddings(),
        "language model": body,
        "head": model.lm_head,
    }
    seen: set[int] = set()
    counted: dict[str, int] = {}
    for name, part in parts.items():
        new = [] if part is None else [p for p in part.parameters() if id(p) not in seen]
        seen.update(map(id, new))
        if new:
            counted[name] = sum(parameter.numel() for parameter in new)
    return counted


@dataclass
class _Count:
    flops: int = 0
    peak_bytes: int = 0
    cache_bytes: int = 0


def _count_encoding(model: SlimeForConditionalGeneration, grid: TileGrid) -> dict[str, _Count]:
    config, inner = model.config, model.model
    views = {"global": 1, "local": grid.num_tiles, "both": grid.num_views}[config.views]
    pixels = torch.empty(views, 3, config.view_size, config.view_size, dtype=model.dtype, device="meta")
    counts: dict[str, _Count] = {}
    with _counting(model, counts, "vision encoder"):
        # In chunks, as in the model: the memory of one chunk is free again when the next one is encoded.
        for chunk in pixels.split(config.views_per_chunk):
            features = inner.encode_views(chunk)
    features = features.new_empty(min(views, config.views_per_chunk), *features.shape[1:])
    if config.views != "local":
        with _counting(model, counts, "global adapter"):
            inner.adapt_global(features[:1])
    if config.views != "global":
        with _counting(model, counts, "local compressor"):
            sizes = [len(chunk) for chunk in torch.arange(grid.num_tiles).split(len(features))]
            _tokens = [inner.compress_tiles(features[:size]) for size in sizes]
    return counts


def _count_prefill(model: SlimeForConditionalGeneration, length: int) -> _Count:
    counts: dict[str, _Count] = {}
    with _counting(model, counts, "prefill"):
        embeds = torch.empty(1, length, model.config.text_config.hidden_size, dtype=model.dtype, device="meta")
        output = model(inputs_embeds=embeds, use_cache=True, logits_to_keep=1)
    layers = [(layer.keys, layer.values) for layer in getattr(output, CACHE).layers if layer.is_initialized]
    counts["prefill"].cache_bytes = sum(tensor.nbytes for layer in layers for tensor in layer)
    return counts["prefill"]


def _count_next_token(model: SlimeForConditionalGeneration, length: int) -> _Count:
    counts: dict[str, _Count] = {}
    embeds = torch.empty(1, length, model.config.text_config.hidden_size, dtype=model.dtype, device="meta")
    with torch.inference_mode():
        cache = model(inputs_embeds=embeds, use_cache=True, logits_to_keep=1)[CACHE]
    with _counting(model, counts, "next"):
        model(inputs_embeds=embeds[:, :1], use_cache=True, **{CACHE: cache})
    return counts["next"]


@contextmanager
def _counting(model: nn.Module, counts: dict[str, _Count], name: str) -> Iterator[None]:
    """Count the operations and the peak memory of a `with` block."""
    counter, live, attention = FlopCounterMode(display=False), _LiveBytes(model), FusedAttention()
    with torch.inference_mode(), attention, live, counter:
        yield
    counts[name] = _Count(counter.get_total_flops() + attention.flops, live.peak)


@dataclass
class _LiveBytes(TorchDispatchMode):
    """Track the peak of bytes held by tensors created inside. Views and the model's weights do not count."""

    model: nn.Module
    peak: int = 0
    _now: int = 0
    _seen: dict[int, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()
        weights = [*self.model.parameters(), *self.model.buffers()]
        # Keep the storages themselves: the address of a freed one may be reused.
        self._seen.update({storage._cdata: storage for storage in (w.untyped_storage() for w in weights)})

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return

        def forget(_: object) -> None:
            self._seen.pop(key, None)
            self._now -= size

        self._seen[key] = weakref.ref(storage, forget)
        self._now += size
        self.peak = max(self.peak, self._now)


class FusedAttention(TorchFunctionMode):
    """Count attention by its formula. The meta device would decompose it and store the matrices of pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, key, value = args[:3]
        self.flops += 2 * query.shape[:-1].numel() * key.shape[-2] * (key.shape[-1] + value.shape[-1])
        return query.new_empty((*query.shape[:-1], value.shape[-1]))
