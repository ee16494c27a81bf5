"""Measure a step of stage 3 on a GPU: seconds, tokens a second and the share of what the device can multiply at most.

    python benchmarks/gpu/training.py [--batches 1 4] [--repeats 5] [--checkpointing] [--out training.json]
    python benchmarks/gpu/training.py --small --device cpu       # tiny parts, a quick check that it works

The batch is that of `benchmarks/train_step.py`, some times over: text rows with images of two to seven tiles, packed
without padding. Everything but the vision encoder is trained, under bfloat16 autocast with weights in float32, by fused
AdamW. The language model has the shape of Llama 3.2 1B, the encoder that of CLIP-L/14 at 336. Weights are random.

What is counted: three times two operations for every token and every weight of the language model and its head, the
same for its attention within rows, and two for the weights of the encoder. Adapters and optimizer are not counted, nor
is what is computed twice with `--checkpointing`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from ceilings import device_of, measure_ceilings, name_of, seconds_of
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).parent.parent))

from machine import machine
from train_step import SAMPLES, SIZES, batch_of, build

from slime_vlm.model.packed_attention import use_packed_attention

SIZES["1b"] = ((1024, 24, 336), (2048, 16), 128_256)


def operations(model: Any, batch: dict[str, Any], lengths: list[int], labelled: int) -> float:
    """Return the floating point operations of a step that the language model, its head and the encoder need.

    Args:
        model: The model.
        batch: The batch.
        lengths: Tokens of every row after selection.
        labelled: Tokens that have a label. The head is not run for others.
    """
    text, layers = model.config.text_config, model.model.language_model.layers
    weights = sum(weight.numel() for weight in layers.parameters())
    attention = sum(2 * text.num_hidden_layers * length**2 * text.hidden_size for length in lengths)
    head = 2 * model.lm_head.weight.numel() * labelled
    tower = model.model.vision_tower
    views, patches = len(batch["pixel_values"]), model.config.feature_side**2 + 1
    encoder = 2 * sum(weight.numel() for weight in tower.parameters()) * views * patches
    return 3 * (2 * weights * sum(lengths) + attention + head) + encoder


def measure(size: str, times: int, repeats: int, checkpointing: bool, device: torch.device) -> dict[str, Any]:
    """Measure the step of a batch that has the samples of `train_step.py` so many times."""
    model, stage = build(size)
    model.to(device)
    use_packed_attention(model.model.language_model)
    if checkpointing:
        model.gradient_checkpointing_enable()
    batch = {name: value.to(device) for name, value in batch_of(model, SAMPLES * times).items()}
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=stage.learning_rate, weight_decay=stage.weight_decay, fused=device.type == "cuda"
    )

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            loss = model(**batch, loss_only=True, pack=True).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
        mask = model.model(**{name: value for name, value in batch.items() if name != "labels"}).attention_mask
    lengths = mask.sum(dim=1).tolist()
    seconds = seconds_of(step, device, repeats)
    labelled = int((batch["labels"] >= 0).sum())
    return {
        "rows": len(lengths),
        "tokens": sum(lengths),
        "seconds": seconds,
        "tokens a second": sum(lengths) / seconds,
        "operations a second": operations(model, batch, lengths, labelled) / seconds,
        "gigabytes": torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4], help="how often a batch has the samples")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--checkpointing", action="store_true", help="compute activations again in the backward pass")
    parser.add_argument("--small", action="store_true", help="use tiny models")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    device = device_of(parser, arguments.device)
    logging.set_verbosity_error()
    most = measure_ceilings(device, torch.bfloat16, arguments.small)
    named = name_of(device)
    print(f"{named}; {machine()}; torch {torch.__version__}\nAt most: {most}\n")
    print("| rows | tokens | s/step | tokens/s | of ceiling | peak, GB |\n|" + " --- |" * 6)
    rows = []
    for times in arguments.batches:
        settings = (times, arguments.repeats, arguments.checkpointing, device)
        row = measure("tiny" if arguments.small else "1b", *settings)
        row["of ceiling"] = row["operations a second"] / most.multiply
        cells = [f"{row['rows']}", f"{row['tokens']:,}", f"{row['seconds']:.3f}", f"{row['tokens a second']:,.0f}"]
        print(f"| {' | '.join(cells)} | {row['of ceiling']:.2f} | {row['gigabytes']:.1f} |", flush=True)
        rows.append(row)
    if arguments.out:
        arguments.out.write_text(json.dumps({"device": named, "multiply": most.multiply, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
