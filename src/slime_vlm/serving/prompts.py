"""From a request to the row that the language model gets: the prompt, with the local tokens that its question keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from slime_vlm.model.merged_prompt import MergedPrompt
from slime_vlm.model.outputs import VisionTokens
from slime_vlm.model.question_selector import keep_most_probable
from slime_vlm.serving.encoder_cache import CachedImage
from slime_vlm.serving.jobs import Job, Usage

if TYPE_CHECKING:
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
    from slime_vlm.processing.processing_slime import SlimeProcessor


@dataclass(frozen=True)
class Prompt:
    """A prompt. C tokens before selection become S.

    Attributes:
        input_ids: [1, C] with images as their placeholders.
        merged: The row that the language model gets.
        usage: Numbers of tokens.
        explained: What a user may know of every image.
    """

    input_ids: Tensor
    merged: MergedPrompt
    usage: Usage
    explained: list[dict[str, Any]]

    @property
    def embeddings(self) -> Tensor:
        """[1, S, D]."""
        return self.merged.embeddings

    @property
    def position_ids(self) -> Tensor:
        """[1, S]."""
        return self.merged.rows.position_ids


def write_prompt(model: SlimeForConditionalGeneration, processor: SlimeProcessor, job: Job) -> Prompt:
    """Write the prompt of a request whose images are encoded, and select its local tokens.

    Raises:
        InputError: The messages do not fit the chat template.
    """
    images = [image.cached for image in job.images if image.cached is not None]
    tokens = [image.encoded.tokens for image in images]
    prompt = processor.apply_chat_template(
        list(job.messages),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        processor_kwargs={"image_grids": [part.grid for part in tokens], "batch_layout": "views"},
    )
    inputs = {name: value.to(model.device) for name, value in dict(prompt).items()}
    ids = inputs["input_ids"]
    selection = model.select(tokens, **inputs) if tokens else None
    chosen, all_scores = [], []
    for index, (source, image) in enumerate(zip(job.images, images, strict=True)):
        length = image.encoded.tokens.num_local_tokens
        kept = torch.ones(length, dtype=torch.bool, device=ids.device)
        scores = None
        if source.global_only:
            kept = torch.zeros_like(kept)
        elif selection is not None:
            kept = selection.kept[index, :length]
            if model.config.scores_tokens:
                scores = selection.scores[index, :length]
                if job.max_local_tokens is not None or job.selector_top_p is not None:
                    probs, count = (
                        selection.probs[index : index + 1, :length],
                        kept.new_tensor([length], dtype=torch.long),
                    )
                    kept = keep_most_probable(probs, count, job.selector_top_p or 1.0, job.max_local_tokens)[0]
        chosen.append(kept)
        all_scores.append(scores)
    merged = model.model.merge_prompt(ids, tokens, chosen)
    explained = [_explain(*parts) for parts in zip(images, merged.kept, all_scores, strict=True)]
    return Prompt(ids, merged, _count(merged, tokens), explained)


def _count(merged: MergedPrompt, tokens: list[VisionTokens]) -> Usage:
    num_global = sum(0 if part.global_tokens is None else len(part.global_tokens) for part in tokens)
    num_local = sum(int(mask.sum()) for mask in merged.kept)
    return Usage(
        text=merged.embeddings.shape[1] - num_global - num_local,
        global_=num_global,
        local_before=sum(part.num_local_tokens for part in tokens),
        local=num_local,
    )


def _explain(image: CachedImage, kept: Tensor, scores: Tensor | None) -> dict[str, Any]:
    """Describe what was kept of an image. Tokens are counted row by row over the tiles."""
    encoded, grid = image.encoded, image.encoded.grid
    selection = encoded.local_selection(kept, scores)
    return {
        "size": image.size,
        "grid": [grid.rows, grid.cols],
        "tile_side": selection.tile_side,
        "view_size": grid.view_size,
        "placed": {"top": grid.top, "left": grid.left, "height": grid.scaled_height, "width": grid.scaled_width},
        "tokens": {"global": encoded.num_global, "local": selection.kept.size, "kept": int(selection.kept.sum())},
        "kept": selection.kept.nonzero()[0].tolist(),
        "scores": None if selection.scores is None else [round(float(score), 5) for score in selection.scores],
    }
