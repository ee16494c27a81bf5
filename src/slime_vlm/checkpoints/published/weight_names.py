"""Map weight names between published checkpoints and this package, in both directions.

Published attention layers hold query, key and value weights in one fused tensor, this package has three. One published
tensor may therefore become several, stacked along the first dimension. The way back concatenates them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from slime_vlm.errors import CheckpointError
from slime_vlm.model.selectors import SELECTORS

_PUBLISHED_SELECTOR, _SELECTOR = "model.sampler.selector.", "model.selector.scorer."
_SELECTOR_WEIGHTS = [pair for selector in SELECTORS.values() for pair in selector.published_weights.items()]

# Tried in order. The first match counts. A published tensor with several replacements is their concatenation.
RULES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"lm_head\.(.+)", (r"lm_head.\1",)),
    (r"model\.vision_tower\.vision_tower\.vision_model\.(.+)", (r"model.vision_tower.\1",)),
    (r"model\.mm_projector\.w_gate", (r"model.global_adapter.gate_weight",)),
    (r"model\.mm_projector\.(?:projection\.)?0\.(.+)", (r"model.projector.linear_1.\1",)),
    (r"model\.mm_projector\.(?:projection\.)?2\.(.+)", (r"model.projector.linear_2.\1",)),
    *(
        (re.escape(_PUBLISHED_SELECTOR + published) + "(.+)", tuple(rf"{_SELECTOR}{native}\1" for native in parts))
        for published, parts in _SELECTOR_WEIGHTS
    ),
    *(
        (published + pattern, tuple(native + part for part in parts))
        for published, native in (
            # The published projector of type "qformer" is the resampler itself, without the inner "attn." in its names.
            (r"model\.mm_projector\.(?:attn\.)?(?=attn\.|ln_|query$|pos_embed$)", "model.global_adapter."),
            (r"model\.sampler\.post_qformer\.", "model.local_compressor."),
        )
        for pattern, parts in (
            (r"attn\.in_proj_(weight|bias)", tuple(rf"query_attention.{part}_proj.\1" for part in "qkv")),
            (r"attn\.out_proj\.(.+)", (r"query_attention.out_proj.\1",)),
            (r"ln_q\.(.+)", (r"query_attention.norm_query.\1",)),
            (r"ln_kv\.(.+)", (r"query_attention.norm_input.\1",)),
            (r"ln_post\.(.+)", (r"query_attention.norm_output.\1",)),
            (r"query", ("query_attention.query",)),
            (r"pos_embed", ("query_attention.position_table",)),
        )
    ),
    (r"model\.(embed_tokens|layers|norm)\.(.+)", (r"model.language_model.\1.\2",)),
)

# Published tensors that no forward pass uses: noise weights and statistics of an abandoned gate, inner parts of the
# attention selector, and tables that are computed.
UNUSED: tuple[str, ...] = (
    r"model\.mm_projector\.(w_noise|mean|std)",
    *(re.escape(_PUBLISHED_SELECTOR) + name for selector in SELECTORS.values() for name in selector.published_unused),
    r"model\.vision_tower\.vision_tower\.vision_model\.embeddings\.position_ids",
    r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",
)


def is_unused(published: str) -> bool:
    """Whether a published tensor has no counterpart because no forward pass uses it."""
    return any(re.fullmatch(pattern, published) for pattern in UNUSED)


def native_names(published: str) -> list[str]:
    """Return our names of a published tensor, in the order of its rows. Empty for an unknown or unused tensor."""
    if is_unused(published):
        return []
    for pattern, replacements in RULES:
        match = re.fullmatch(pattern, published)
        if match:
            return [match.expand(replacement) for replacement in replacements]
    return []


class _Chunkable(Protocol):
    def chunk(self, count: int, /) -> Sequence[Any]: ...


T = TypeVar("T", bound=_Chunkable)


def native_tensors(published: str, tensor: T) -> Iterator[tuple[str, T]]:
    """Rename one published tensor, loaded or still in its file, and split it if it is fused.

    An unknown or unused tensor yields nothing.
    """
    names = native_names(published)
    if names:
        yield from zip(names, tensor.chunk(len(names)), strict=True)


# The way back. The names of the projector's parts depend on its type, see `published_names`.
_BACK: tuple[tuple[str, str], ...] = (
    (r"lm_head\.(.+)", r"lm_head.\1"),
    (r"model\.language_model\.(.+)", r"model.\1"),
    (r"model\.vision_tower\.(.+)", r"model.vision_tower.vision_tower.vision_model.\1"),
    (r"model\.projector\.linear_1\.(.+)", r"model.mm_projector.projection.0.\1"),
    (r"model\.projector\.linear_2\.(.+)", r"model.mm_projector.projection.2.\1"),
    (r"model\.global_adapter\.gate_weight", "model.mm_projector.w_gate"),
    *(
        (rf"{re.escape(_SELECTOR)}(?:{'|'.join(map(re.escape, parts))})(.+)", rf"{_PUBLISHED_SELECTOR}{published}\1")
        for published, parts in _SELECTOR_WEIGHTS
    ),
    *(
        (native + pattern, published + name)
        for native, published in (
            (r"model\.global_adapter\.query_attention\.", "model.mm_projector.attn."),
            (r"model\.local_compressor\.query_attention\.", "model.sampler.post_qformer."),
        )
        for pattern, name in (
            (r"[qkv]_proj\.(.+)", r"attn.in_proj_\1"),
            (r"out_proj\.(.+)", r"attn.out_proj.\1"),
            (r"norm_query\.(.+)", r"ln_q.\1"),
            (r"norm_input\.(.+)", r"ln_kv.\1"),
            (r"norm_output\.(.+)", r"ln_post.\1"),
            (r"query", "query"),
            (r"position_table", "pos_embed"),
        )
    ),
)
_PROJECTOR_PREFIXES = {
    "gated": {},
    "mlp": {"model.mm_projector.projection.": "model.mm_projector."},
    "query_attention": {"model.mm_projector.attn.": "model.mm_projector."},
}


def published_names(native: Iterable[str], projector_type: str) -> dict[str, list[str]]:
    """Map native names to published ones.

    Args:
        native: Names of all tensors of a native model.
        projector_type: Projector type of the model. The published names of the projector depend on it.

    Returns:
        For every published name the native names of its rows, in order.

    Raises:
        CheckpointError: A tensor has no published name.
    """
    found: dict[str, list[str]] = {}
    for name in native:
        for pattern, replacement in _BACK:
            match = re.fullmatch(pattern, name)
            if match:
                published = match.expand(replacement)
                break
        else:
            raise CheckpointError(f"{name} has no name in the published layout, which lacks this part of the model")
        for prefix, other in _PROJECTOR_PREFIXES[projector_type].items():
            if published.startswith(prefix):
                published = other + published.removeprefix(prefix)
        found.setdefault(published, []).append(name)
    # The rows of a fused tensor are in the order query, key, value, whatever the order of the names.
    return {
        published: sorted(names, key=lambda name: "qkv".find(name.split("_proj.")[0][-1])) if len(names) > 1 else names
        for published, names in found.items()
    }
