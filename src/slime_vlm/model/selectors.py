"""The selectors: how local tokens are scored against the question (paper section 3.3). One entry per selector.

The config (allowed values of `selector`), `QuestionSelector` and the published layout (names of the selector and of its
weights) are built from this table. It imports no torch, because recipes are checked without it.

To add a selector:
1. Write its scorer in `scorers.py`: a module that maps local tokens [I, L, D], texts [R, S, D], their masks [R, S], the
   index [I] of the text of every image, and the norms [I, L] of the local tokens (or None) to scores [I, L].
2. Add an entry to `SELECTORS` below.
3. Describe it in `configuration_fields.SlimeFields` and, if it is not in the paper, mark it with `Deviation:`.
4. Run `tests/model/test_question_selector.py` and `tests/checkpoints/published`: their tests run over every entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Selector:
    """One way to score local tokens.

    Attributes:
        build: Make the scorer for a width D and a number of heads. None keeps all local tokens and scores nothing.
        softmax_scores: Whether the softmax is applied to the scores before it turns them into probabilities, so twice.
        published_types: Values of `mm_resampler_type` in published configs. The first one is written. Empty if the
            published code has no such selector.
        published_weights: Beginning of published weight names, after `model.sampler.selector.`, and the beginnings of
            ours after `model.selector.scorer.`. One published tensor may hold several of ours, stacked.
        published_unused: Patterns of published weights, after `model.sampler.selector.`, that no forward pass uses.
    """

    build: Callable[[int, int], nn.Module] | None
    softmax_scores: bool = False
    published_types: tuple[str | None, ...] = ()
    published_weights: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    published_unused: tuple[str, ...] = ()


def _cosine(dim: int, num_heads: int) -> nn.Module:
    from slime_vlm.model.scorers import CosineScorer

    return CosineScorer()


def _attention(dim: int, num_heads: int) -> nn.Module:
    from slime_vlm.model.scorers import AttentionScorer

    return AttentionScorer(dim=dim, num_heads=num_heads)


SELECTORS: dict[str, Selector] = {
    "cosine": Selector(build=_cosine, published_types=("cosine",)),
    "attention": Selector(
        build=_attention,
        # Published behaviour.
        softmax_scores=True,
        published_types=("qformer",),
        published_weights={
            "cross_attn.in_proj_": ("q_proj.", "k_proj.", "v_proj."),
            "cross_attn.out_proj.": ("out_proj.",),
            "ln_q.": ("norm_query.",),
            "ln_kv.": ("norm_input.",),
            "ln_post.": ("norm_output.",),
            "prob_proj.0.": ("score_1.",),
            "prob_proj.2.": ("score_2.",),
        },
        published_unused=(r"query", r"self_attn\..+"),
    ),
    "none": Selector(build=None, published_types=("identity", None)),
}
"""Every selector, by its value in `SlimeConfig.selector`."""
