"""Fields of a SliME configuration: every choice of the paper and of the published implementation.

They are not in `SlimeConfig` because its base class in transformers imports torch, which takes seconds. Recipes check
their keys against these fields without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from slime_vlm.model.selectors import SELECTORS

CHOICES: dict[str, tuple[str, ...]] = {
    # Without the class token ("full" has it): adapter, compressor and stitched maps need a square number of tokens.
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
        vision_config: Config of the vision encoder, any AutoModel type. Default: CLIP ViT-L/14 at 336 pixels.
        text_config: Config of the language model, any AutoModel type. Default: Llama.
        image_token_id: Id of the image placeholder. It may lie outside the language model's vocabulary.
        separator_token_id: Token whose embedding stands between global and local tokens (paper section 3.4).
        view_size: Side of a view in pixels. Default: that of the vision encoder, in whole patches.
        patch_size: Pixels per vision token along a side. Default: that of the vision encoder.
        tile_margin: Pixels of its neighbours that the view of a tile shows at every edge. Tiles are smaller than views
            by as much.
        vision_feature_layer: Index into the hidden states of the vision encoder.
        vision_feature_select_strategy: "default" takes the patches alone, without class token and registers.
        projector_type: "gated" (the paper), "mlp" (MLP_proj without gate and attention adapter) or "query_attention"
            (a resampler without MLP_proj, which needs equal widths). The last two are published variants.
        projector_bias: Whether the layers of MLP_proj have biases.
        gate: "mixture" of both adapters, or a single one: "mlp" or "attention" (stages 1a and 1b).
        gate_noise: Whether training adds noise to the gate's logits.
        views: "both", or only the "global" view or the "local" tiles.
        global_pooling: Average so many by so many features of the global view before the adapters.
        local_compression: False sends every tile through the gated projector, without compressor and selector.
        num_local_queries: Number of queries Q of a tile, a square number.
        query_attention_head_dim: Width of a head in the query attentions.
        local_merge: "spatial" stitches the tiles' token maps into one raster, "flat" appends tile after tile.
        max_tiles: Maximum number of tiles of an image.
        selector: How local tokens are scored against the question, see `selectors`. "none" keeps all.
        selector_text: Text that the selector compares with. "prompt" leaves answers out, "all" includes the answer as
            in the published training, "question" takes only the tokens that the processor marks.
        selector_top_p: Probability mass of local tokens to keep. 1.0 keeps all. (transformers would take a plain
            `top_p` in a model config for the sampling parameter.)
        selector_temperature: Temperature of the selector's softmax.
        selector_noise: Standard deviation of the noise that training adds to the scores.
        max_local_tokens: Fixed budget, used instead of selector_top_p: keep exactly the best k local tokens, or all if
            there are fewer. The sequence length is then known beforehand. Needs a selector.
        max_sequence_length: Cut every row to this many tokens after the images are inserted. None, the default, never
            cuts. The published code cuts at 2048, which can remove the question.
        views_per_chunk: Number of views that the vision encoder processes at once in training and on a GPU.
        projector_vocabulary: Sizes of the slots of a visual vocabulary, see `visual_vocabulary`. None: a plain MLP.
        page_positions: Whether local tokens carry their position on the page, see `page_positions`.
        keep_position_ids: Whether kept local tokens, and the text after them, keep the position ids that they would
            have if no local token were dropped.
        characters: Characters that local tokens name, those of the ids 1, 2 and so on; with it the tokens of text are
            single characters, see `character_tokens`. None, the default, has no part of this. It needs a
            `slime_recogniser` without `project_patches` as vision encoder.
        character_slots: Characters of a local token at most.
        place_dim: Width of what the local compressor finds at a place, see `line_queries`.
        line_context: Blocks of `LineContext` before that.
        word_dim: Width of words, see `open_vocabulary`.
        word_buckets: Rows of the table of n-grams, a power of two.
        guided_answers: Whether every token of an answer is told what is asked and how much has been said, not the first
            alone.
        copy_output: Whether answers may copy characters of local tokens, see `copy_output`.
        answer_finder: Whether a module of its own finds where answers begin and end, see `answer_finder`. Needs
            copy_output.
        answer_calibration: Slope and offset that turn the mean probability of an answer's tokens into the share of such
            answers that are right, and the slope of how certain its characters were read, see `inference.confidence`.
            None: the mean probability itself.
        align_outputs: Whether hidden states, logits and labels are always as long as `input_ids`, as TRL expects. A
            dropped token gets the outputs of the last kept one before it. For Trainer's `compute_metrics` they are so
            without this field.
    """

    # Passed as configs, dicts or None. They are configs after __post_init__.
    vision_config: Any = None
    text_config: Any = None
    image_token_id: int = 32000
    separator_token_id: int = 29892
    view_size: int = None  # type: ignore[assignment]  # filled in by __post_init__
    patch_size: int = None  # type: ignore[assignment]
    tile_margin: int = 0
    vision_feature_layer: int = -2
    vision_feature_select_strategy: str = "default"
    projector_type: str = "gated"
    projector_bias: bool = True
    gate: str = "mixture"
    gate_noise: bool = True
    views: str = "both"
    global_pooling: int = 1
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
    characters: str | None = None
    character_slots: int = 8
    place_dim: int = 256
    line_context: int = 0
    word_dim: int = 128
    word_buckets: int = 16384
    guided_answers: bool = True
    copy_output: bool = False
    answer_finder: bool = False
    answer_calibration: list[float] | None = None
    align_outputs: bool = False
    tie_word_embeddings: bool = False
