"""Measure a training step: rows packed, rows padded, and the published way, with the same weights and batch.

    python benchmarks/train_step.py [--size small] [--repeats 1] [--threads 2] [--bf16] [--out train_step.json]

A batch of stage 3 mixes text rows with images of two to seven tiles, and everything but the vision encoder is trained:
forward pass, backward pass and AdamW, in float32. There are these ways:

- packed: views of all rows in one call, logits only for answers, rows concatenated without padding;
- packed, bf16: the same under bfloat16 autocast, as recipes train where it pays (`--bf16` only);
- padded: the same, with rows padded to the longest;
- published: sample by sample through all layers of the encoder, each with ten views of which most are blank, logits for
  all tokens, rows padded to the longest.

Weights are random and noise is off, so that all in float32 have the same loss. Views are those of the paper (576
tokens, 144 per tile), the models are small (`--size`). Every way runs in a process of its own, whose peak memory is
that of the whole run: Python, torch, model, optimizer and batch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from machine import in_own_process, machine, peak_memory

if TYPE_CHECKING:
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
    from slime_vlm.training.recipe import Stage

WAYS = ("packed", "padded", "published")
BF16 = "packed, bf16"
PUBLISHED_VIEWS = 10

# (encoder width, its layers, view side), (language model width, its layers), vocabulary
SIZES: dict[str, tuple[tuple[int, int, int], tuple[int, int], int]] = {
    "tiny": ((16, 3, 56), (24, 2), 200),
    "small": ((128, 5, 336), (256, 3), 8_000),
    "medium": ((256, 8, 336), (512, 6), 16_000),
    "large": ((1024, 24, 336), (1024, 24), 32_000),
}

# (rows, columns) of tiles, tokens of the question, tokens of the answer. A quarter of the samples is text. Most images
# are small, like photographs of a few hundred pixels, and a few are pages or charts with many tiles.
Sample = tuple[tuple[int, int] | None, int, int]
SAMPLES: list[Sample] = [
    ((1, 2), 40, 30),
    (None, 60, 240),
    ((1, 2), 50, 90),
    ((2, 3), 60, 60),
    ((2, 1), 30, 12),
    ((2, 2), 45, 120),
    (None, 120, 420),
    ((1, 7), 70, 150),
]


def build(size: str) -> tuple[SlimeForConditionalGeneration, Stage]:
    """Build a model with random weights, and apply the paper's stage 3 to it."""
    import torch
    from transformers import CLIPVisionConfig, LlamaConfig

    import slime_vlm
    from slime_vlm.training.recipe import load_recipe
    from slime_vlm.training.stages import apply_stage, frozen_modules

    (vision_width, vision_layers, side), (width, layers), words = SIZES[size]
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=vision_width,
        intermediate_size=4 * vision_width,
        num_hidden_layers=vision_layers,
        num_attention_heads=max(1, vision_width // 64),
        image_size=side,
        patch_size=14,
    )
    text = LlamaConfig(
        hidden_size=width,
        intermediate_size=width * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 64),
        num_key_value_heads=max(1, width // 64),
        vocab_size=words,
        max_position_embeddings=8192,
        tie_word_embeddings=False,
    )
    config = slime_vlm.SlimeConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=words - 1,
        separator_token_id=3,
        num_local_queries=(side // 28) ** 2,
        query_attention_head_dim=min(64, vision_width),
        selector_noise=0.0,
        gate_noise=False,
    )
    model = slime_vlm.SlimeForConditionalGeneration(config).train()
    recipe = load_recipe("slime-vicuna-7b")
    stage = next(stage for stage in recipe.stages if stage.name == "3")
    apply_stage(model, stage)
    for name in frozen_modules(model, stage):
        model.get_submodule(f"model.{name}").eval()
    return model, stage


def batch_of(model: SlimeForConditionalGeneration, samples: list[Sample]) -> dict[str, Any]:
    """Return inputs of random tokens and pixels, padded to the longest row. Only answers have labels."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    config, draw = model.config, torch.Generator().manual_seed(1)
    ids, labels, grids = [], [], []
    for grid, question, answer in samples:
        count = 0 if grid is None else config.token_layout.num_image_tokens(*grid)
        grids += [] if grid is None else [grid]
        words = torch.randint(4, config.text_config.vocab_size - 1, (question + answer,), generator=draw)
        ids.append(torch.cat([torch.full((count,), config.image_token_id), words]))
        labels.append(torch.cat([torch.full((count + question,), -100), words[question:]]))
    views, side = sum(1 + rows * cols for rows, cols in grids), config.view_size
    return {
        "input_ids": pad_sequence(ids, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
        "pixel_values": torch.randn(views, 3, side, side, generator=draw),
        "image_grids": torch.tensor(grids),
    }


def published_loss(model: SlimeForConditionalGeneration, batch: dict[str, Any]) -> Any:
    """Return the loss computed as in the published code: with ten views for every sample, even a text one."""
    import torch

    from slime_vlm.model.local_compressor import stitch_tiles
    from slime_vlm.model.outputs import VisionTokens

    slime: Any = model.model
    grids = batch["image_grids"].tolist()
    pixels = batch["pixel_values"].split([1 + rows * cols for rows, cols in grids])
    has_image = (batch["input_ids"] == model.config.image_token_id).any(dim=1).tolist()
    views_and_grids, images = iter(zip(pixels, grids, strict=True)), []
    for present in has_image:
        views, grid = next(views_and_grids) if present else (batch["pixel_values"][:0], None)
        blank = views.new_zeros(PUBLISHED_VIEWS - len(views), *views.shape[1:])
        with torch.no_grad():
            states = slime.vision_tower(pixel_values=torch.cat([views, blank]), output_hidden_states=True).hidden_states
        if grid is None:
            continue
        features = states[-2][: len(views), 1:]
        adapted, gates = slime.adapt_global(features[:1])
        local = stitch_tiles(slime.compress_tiles(features[1:]), *grid)
        images.append(VisionTokens(tuple(grid), gates[0], adapted[0], local))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    return model(**inputs, vision_tokens=images).loss


def measure(way: str, size: str, repeats: int, threads: int | None) -> dict[str, Any]:
    """Measure the steps of one way. Run this in a process of its own."""
    import torch

    from slime_vlm.model.packed_attention import use_packed_attention

    torch.set_num_threads(threads or torch.get_num_threads())
    model, stage = build(size)
    batch = batch_of(model, SAMPLES)
    is_packed = way in ("packed", BF16)
    if is_packed:
        use_packed_attention(model.model.language_model)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=stage.learning_rate, weight_decay=stage.weight_decay)
    losses, walls, works = [], [], []
    # The first step, which allocates memory, is not counted.
    for _ in range(1 + repeats):
        wall, work = time.perf_counter(), time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=way == BF16):
            if way == "published":
                loss = published_loss(model, batch)
            else:
                loss = model(**batch, loss_only=True, pack=is_packed).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        walls.append(time.perf_counter() - wall)
        works.append(time.process_time() - work)
        losses.append(loss.item())
    return {
        "way": way,
        "losses": losses,
        "seconds": statistics.median(walls[1:]) / len(SAMPLES),
        "cpu seconds": statistics.median(works[1:]) / len(SAMPLES),
        "peak": peak_memory(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "trained": sum(p.numel() for p in trained) / 1e6,
        "parameters": sum(p.numel() for p in model.parameters()) / 1e6,
    }


def main() -> None:
    """Measure each way in a process of its own, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=SIZES, default="small", help="size of vision encoder and language model")
    parser.add_argument("--repeats", type=int, default=1, help="number of measured steps, whose median is printed")
    parser.add_argument("--threads", type=int, help="number of torch threads (default: torch's choice)")
    parser.add_argument("--bf16", action="store_true", help="measure bfloat16 autocast, too")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    settings = (arguments.size, arguments.repeats, arguments.threads)
    rows = [in_own_process(measure, way, *settings) for way in ((BF16,) if arguments.bf16 else ()) + WAYS]
    last = rows[-1]
    print(
        f"{machine()}; torch {last['torch']}, {last['threads']} thread(s), float32; {last['parameters']:.2f} M "
        f"parameters, of which {last['trained']:.2f} M are trained, {len(SAMPLES)} samples per step\n"
    )
    print("| | s/sample | CPU s/sample | published / this | peak, MB | loss, first step | loss, last step |")
    print(f"|{' --- |' * 7}")
    for row in rows:
        cells = [row["way"], f"{row['seconds']:.3f}", f"{row['cpu seconds']:.3f}"]
        cells += [f"{last['seconds'] / row['seconds']:.2f}", f"{row['peak']:,.0f}"]
        cells += [f"{loss:.6f}" for loss in (row["losses"][0], row["losses"][-1])]
        print(f"| {' | '.join(cells)} |")
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
