"""Merge a LoRA into its base. The result is compared with the LoRA as peft computes it before anything is written."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from slime_vlm.checkpoints.hub import resolve
from slime_vlm.checkpoints.json_files import read_json
from slime_vlm.checkpoints.lora.adapter_folder import is_lora_folder, open_lora, settings_folder
from slime_vlm.checkpoints.native import build_model, read_native, written
from slime_vlm.checkpoints.tensor_files import StoredTensor, write_weights
from slime_vlm.errors import CheckpointError
from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.hub_card import write_card
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from slime_vlm.processing.processing_slime import SlimeProcessor

_SEED, _ROWS, _TEXT_TOKENS = 0, 2, 48
# In float32 only the order of sums differs. With fewer bits every weight is rounded once.
_EXACT, _ROUNDINGS = 1e-4, 8


@dataclass(frozen=True)
class MergeReport:
    """Report of a merge.

    Attributes:
        source: Folder of the LoRA.
        base: Folder of its base.
        target: Folder that was written.
        num_changed: Number of tensors with low-rank weights.
        num_whole: Number of tensors that were trained whole.
        difference: Largest difference of a logit.
        largest: Largest logit.
        limit: Largest accepted difference.
    """

    source: str
    base: str
    target: str
    num_changed: int
    num_whole: int
    difference: float
    largest: float
    limit: float

    def __str__(self) -> str:
        return (
            f"{self.source} on {self.base} -> {self.target}: low-rank weights added to {self.num_changed} tensors, "
            f"{self.num_whole} taken over whole\n"
            f"largest difference of a logit: {self.difference:.3g} (largest logit {self.largest:.3g}, accepted up to "
            f"{self.limit:.3g})"
        )


def merge(src: str | Path, dst: str | Path, *, base: str | Path | None = None) -> MergeReport:
    """Merge a LoRA into its base and write a native checkpoint.

    The model runs twice on a seeded batch in float32: once with the LoRA as peft computes it, and once merged. This
    needs memory for the weights in float32 once.

    Args:
        src: Folder or hub id of the LoRA.
        dst: Folder to write. It must not exist, or be empty.
        base: Folder or hub id of the base. None takes the recorded one.

    Raises:
        CheckpointError: `src` is not a LoRA on a SliME, or it or its base is damaged or missing. Or the two runs differ
            by more than rounding, or `dst` is not empty or cannot be written.
    """
    src, dst = resolve(src), Path(dst)
    if dst.exists() and (not dst.is_dir() or any(dst.iterdir())):
        raise CheckpointError(f"{dst} exists already, expected a new or empty folder; choose another one")
    settings = settings_folder(src, base)
    if read_json(settings / "config.json").get("model_type") != SlimeConfig.model_type or not is_lora_folder(src):
        raise CheckpointError(
            f"{src} is not a LoRA of slime train, peft or TRL; for a LoRA in the published layout use slime "
            "convert --base"
        )
    opened = open_lora(src, base)
    config, processor = read_native(settings)
    merged = opened.merged()
    expected = _logits(_with_peft(_model(settings, opened.unmerged()), src), processor)
    found = _logits(_model(settings, merged), processor)
    largest = max(logits.abs().max().item() for logits in expected)
    difference = max((one - other).abs().max().item() for one, other in zip(expected, found, strict=True))
    limit = largest * max(_EXACT, *(_ROUNDINGS * _precision(merged[name]) for name in opened.lora.pairs))
    # Written so that NaN is refused, too.
    if not difference <= limit:
        raise CheckpointError(
            f"merging {src} into {opened.base} changes logits by up to {difference:.3g} (accepted {limit:.3g}, largest "
            f"logit {largest:.3g}), nothing was written; use the LoRA without merging, or a base in float32"
        )
    with written(dst) as part:
        write_weights(part, merged)
        processor.save_pretrained(part)
        generation = settings / "generation_config.json"
        if generation.is_file():
            (part / generation.name).write_bytes(generation.read_bytes())
        # Last, since a folder without it is not a checkpoint.
        config.architectures = [SlimeForConditionalGeneration.__name__]
        config.dtype = next(merged[name].dtype for name in opened.lora.pairs)
        config.save_pretrained(part)
        write_card(part, config, sources=[opened.base])
    return MergeReport(
        source=str(src),
        base=str(opened.base),
        target=str(dst),
        num_changed=len(opened.lora.pairs),
        num_whole=len(opened.lora.whole),
        difference=difference,
        largest=largest,
        limit=limit,
    )


def _precision(tensor: StoredTensor) -> float:
    """Return the distance from 1 to the next number of a tensor's type."""
    return torch.finfo(tensor.dtype or torch.float32).eps


def _model(settings: Path, tensors: Mapping[str, StoredTensor]) -> SlimeForConditionalGeneration:
    config, _ = read_native(settings)
    state = {name: tensor.load(torch.float32) for name, tensor in tensors.items()}
    return build_model(settings, None, config, {}, state_dict=state, dtype=torch.float32).eval()


def _with_peft(model: SlimeForConditionalGeneration, src: Path) -> nn.Module:
    """Add the low-rank weights by peft. Whole modules are in the model already, rounded to the type of the base."""
    from peft import LoraConfig, PeftModel, set_peft_model_state_dict
    from peft.utils import load_peft_weights

    settings = LoraConfig.from_pretrained(src)
    settings.modules_to_save = None
    with warnings.catch_warnings():
        # peft uses an attribute of transformers by its old name.
        warnings.simplefilter("ignore", FutureWarning)
        adapted = PeftModel(model, settings)
    weights = {name: value for name, value in load_peft_weights(str(src), device="cpu").items() if ".lora_" in name}
    set_peft_model_state_dict(adapted, weights)
    return adapted.eval()


@torch.no_grad()
def _logits(model: Any, processor: SlimeProcessor) -> list[Tensor]:
    """Compute logits of rows of text and of one question about an image of noise, all drawn from one seed."""
    generator = torch.Generator().manual_seed(_SEED)
    # A tokenizer may have tokens without an embedding in the model, such as the image placeholder.
    words = min(len(processor.tokenizer), model.get_input_embeddings().num_embeddings)
    ids = torch.randint(words, (_ROWS, _TEXT_TOKENS), generator=generator)
    # Placeholders would stand for an image.
    ids[ids == processor.image_token_id] = 0
    side = processor.image_processor.view_size
    pixels = torch.randint(256, (side, 2 * side, 3), generator=generator, dtype=torch.uint8)
    question = processor(text="<image>\nWhat is it?", images=Image.fromarray(pixels.numpy()), batch_layout="views")
    return [model(input_ids=ids).logits, model(**question).logits]
