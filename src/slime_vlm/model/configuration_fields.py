"""Fields of a SliME configuration: every choice of the paper and of the published implementation.

They stand apart from `SlimeConfig` because importing transformers' base class imports torch, which takes seconds.
Recipes check their keys against these fields without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from slime_vlm.model.selectors import SELECTORS

CHOICES: dict[str, tuple[str, ...]] = {
    # Not the class token too ("full"): adapter, compressor and stitched maps need a square of tokens.
    "vision_feature_select_strategy": ("default",),
    "projector_type": ("gated", "mlp", "query_attention"),
    "gate": ("mixture", "mlp", "attention"),
    "views": ("both", "global", "local"),
    "local_merge": ("spatial", "flat"),
    "selector": tuple(SELECTORS),
    "selector_text": ("prompt", "all", "question"),
}


@dataclass
class SlimeFields:
    """Fields of `SlimeConfig` with the published defaults.

    Attributes:
        vision_config: Config of the vision encoder, any AutoModel type; default CLIP ViT-L/14 at 336 pixels.
        text_config: Config of the language model, any AutoModel type; default Llama.
        image_token_id: Id of the image placeholder; it may lie outside the language model's vocabulary.
        separator_token_id: Token whose embedding stands between global and local tokens (paper section 3.4).
        view_size: Side of a view in pixels; default that of the vision encoder, in whole patches.
        patch_size: Pixels per vision token along a side; default that of the vision encoder.
        vision_feature_layer: Index into the hidden states of the vision encoder.
        vision_feature_select_strategy: "default", the patches alone, without class token and registers.
        projector_type: "gated" (the paper), "mlp" (MLP_proj without any gate or attention adapter) or
            "query_attention" (one resampler without MLP_proj; needs equal widths). The last two are published variants.
        projector_bias: Whether the layers of MLP_proj have biases.
        gate: "mixture" of both adapters, or one of them alone (stages 1a and 1b).
        gate_noise: Whether training adds noise to the gate's logits.
        views: "both", or only the "global" view or the "local" tiles.
        local_compression: False sends every tile through the gated projector, without compressor and selector.
        num_local_queries: Queries Q of a tile; a square number.
        query_attention_head_dim: Width of a head in the query attentions.
        local_merge: "spatial" stitches the tiles' token maps into one raster, "flat" keeps tile after tile.
        max_tiles: Largest number of tiles of an image.
        selector: How local tokens are scored against the question; "none" keeps all.
        selector_text: Text the selector sees. "prompt" leaves answers out, "all" is the published training
            behaviour (the answer is seen), "question" uses only the tokens marked by the processor.
        selector_top_p: Probability mass of local tokens to keep; 1.0 keeps all. (A plain `top_p` in a model config is
            taken by transformers for the sampling parameter of the same name.)
        selector_temperature: Temperature of the selector's softmax.
        selector_noise: Standard deviation of the noise that training adds to the scores.
        max_local_tokens: Fixed budget: keep exactly the best k local tokens (all where there are fewer), whatever
            selector_top_p says, so that the sequence length is known beforehand. Needs a selector.
        max_sequence_length: Cut every row to this many tokens after the images are inserted. None, the default,
            never cuts; the published code cuts at 2048, which can remove the question.
        views_per_chunk: Views that the vision encoder takes at once.
        projector_vocabulary: Sizes of the slots of a visual vocabulary, see `visual_vocabulary`. None: plain MLP.
        page_positions: Whether local tokens carry their place on the page, see `page_positions`.
        keep_position_ids: Whether kept local tokens, and the text after them, keep the position ids that they would
            have had if no local token had been dropped.
    """

    # Given as configs, dicts or nothing; always configs once __post_init__ has run.
    vision_config: Any = None
    text_config: Any = None
    image_token_id: int = 32000
    separator_token_id: int = 29892
    view_size: int = None  # type: ignore[assignment]  # filled in by __post_init__
    patch_size: int = None  # type: ignore[assignment]
    vision_feature_layer: int = -2
    vision_feature_select_strategy: str = "default"
    projector_type: str = "gated"
    projector_bias: bool = True
    gate: str = "mixture"
    gate_noise: bool = True
    views: str = "both"
    local_compression: bool = True
    num_local_queries: int = 144
    query_attention_head_dim: int = 128
    local_merge: str = "spatial"
    max_tiles: int = 7
    selector: str = "cosine"
    selector_text: str = "prompt"
    selector_top_p: float = 0.95
    selector_temperature: float = 1.0
    selector_noise: float = 0.1
    max_local_tokens: int | None = None
    max_sequence_length: int | None = None
    views_per_chunk: int = 32
    projector_vocabulary: list[int] | None = None
    page_positions: bool = False
    keep_position_ids: bool = False
    tie_word_embeddings: bool = False
