"""Measure answers on a GPU, ours and LLaVA-NeXT's: first token and tokens a second, of what the device can do at most.

    python benchmarks/gpu/answering.py [--tiles 4] [--batches 1 16] [--budget 576] [--compile] [--out answering.json]
    python benchmarks/gpu/answering.py --small --device cpu      # tiny parts, a quick check that it works

Both have the same vision encoder (CLIP-L/14 at 336) and the same language model (the shape of Llama 3 8B) with the same
random weights in bfloat16, and take turns on the same images. Cutting images into views is left out: it is no work of a
GPU.

- First token: views to the first token of every answer of the batch. "Prefill" is that without encoding. Its share of
  the ceiling counts the products of the language model and of its attention.
- Tokens a second: those after the first, of all answers together. Their share of the ceiling counts the bytes of the
  weights, and of keys and values, that every step has to read.

Weights are random, so that our selector keeps nearly all local tokens. `--budget` keeps so many. With `--compile`, both
have a static cache and compiled steps, as transformers does it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from ceilings import Ceilings, device_of, measure_ceilings, name_of, seconds_of
from transformers import LlamaConfig
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).parent.parent))

from encode import GRIDS, QUESTION, Parts, build, build_llava, image_of, llava_prompt
from machine import machine

OURS, THEIRS = "ours", "LLaVA-NeXT"
HEADS = ("tiles", "rows", "", "tokens a row", "encode, s", "prefill, s", "first token, s", "of ceiling", "tokens/s")


def language(small: bool) -> LlamaConfig:
    """Return the shape of Llama 3 8B, or of a tiny one."""
    sizes = (64, 128, 2, 4, 2, 32_000) if small else (4096, 14336, 32, 32, 8, 128_256)
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    return LlamaConfig(**dict(zip((*names, "vocab_size"), sizes, strict=True)), max_position_embeddings=16_384)


def build_both(small: bool, budget: int | None, device: torch.device, dtype: torch.dtype) -> Parts:
    """Build our model, and LLaVA-NeXT with the same encoder and language model."""
    torch.set_default_dtype(dtype)
    with device:
        parts = build(small, OURS, language(small))
        hollow = type(parts.config).from_dict(parts.config.to_dict())
        hollow.text_config.num_hidden_layers = 0
        parts.llava = build_llava(hollow, parts.processor)
    torch.set_default_dtype(torch.float32)
    parts.model.config.max_local_tokens = budget
    parts.llava.config.text_config = parts.config.text_config
    parts.llava.model.vision_tower = parts.model.model.vision_tower
    parts.llava.model.language_model = parts.model.model.language_model
    parts.llava.lm_head = parts.model.lm_head
    return parts


def inputs_of(parts: Parts, name: str, tiles: int, rows: int) -> dict[str, Any]:
    """Return the inputs of a batch: every row has the same image and question."""
    image, processor = image_of(tiles, parts.config.view_size), parts.processor
    device, dtype = parts.model.device, parts.model.dtype
    if name == OURS:
        content = [{"type": "image", "image": image}, {"type": "text", "text": QUESTION}]
        talks = [[{"role": "user", "content": content}]] * rows
        found = processor.apply_chat_template(talks, tokenize=True, return_dict=True, add_generation_prompt=True)
        found = dict(found)
    else:
        views = processor.image_processor(images=[image], return_tensors="pt")
        down, right = views["image_grids"][0].tolist()
        side = parts.config.view_size
        parts.llava.config.image_grid_pinpoints = [[down * side, right * side]]
        ids = llava_prompt(parts, down, right).expand(rows, -1)
        pixels = views["pixel_values"][None].expand(rows, -1, -1, -1, -1)
        sizes = torch.tensor([[image.height, image.width]] * rows)
        found = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels, "image_sizes": sizes}
    found["pixel_values"] = found["pixel_values"].to(dtype)
    return {key: value.to(device) for key, value in found.items()}


@torch.inference_mode()
def encode(parts: Parts, name: str, inputs: dict[str, Any]) -> None:
    """Encode the views of a batch."""
    pixels = inputs["pixel_values"]
    if name == OURS:
        parts.model.model.encode_images(pixels, inputs["image_grids"])
    else:
        parts.llava.model.vision_tower(pixel_values=pixels.flatten(0, 1), output_hidden_states=True)


@torch.inference_mode()
def tokens_of(parts: Parts, name: str, inputs: dict[str, Any]) -> int:
    """Return how many tokens of a row the language model reads before the answer."""
    counts: list[int] = []
    layer = parts.model.model.language_model.layers[0]
    hook = layer.register_forward_pre_hook(lambda _, given: counts.append(given[0].shape[1]))
    model_of(parts, name).generate(**inputs, max_new_tokens=1, do_sample=False)
    hook.remove()
    return counts[0]


def model_of(parts: Parts, name: str) -> Any:
    """Return the model of a contender."""
    return parts.model if name == OURS else parts.llava


def shares(text: LlamaConfig, weights: int, rows: int, tokens: int, new: int) -> tuple[float, float]:
    """Return the floating point operations of a prefill, and the bytes in 16 bits that a later step reads on average.

    Args:
        text: Shape of the language model.
        weights: Its weights, without the embeddings, which are looked up.
        rows: Rows of the batch.
        tokens: Tokens of a row before the answer.
        new: Tokens of the answer.
    """
    head_dim = text.hidden_size // text.num_attention_heads
    # Half of all pairs of tokens see each other, for scores and for values.
    attention = 2 * text.num_hidden_layers * tokens**2 * text.hidden_size
    kept = 2 * text.num_hidden_layers * text.num_key_value_heads * head_dim * (tokens + new / 2)
    return rows * (2 * weights * tokens + attention), 2 * (weights + rows * kept)


def measure(parts: Parts, name: str, tiles: int, rows: int, new: int, compiled: bool, most: Ceilings) -> dict[str, Any]:
    """Measure a contender on a batch."""
    inputs, device = inputs_of(parts, name, tiles, rows), parts.model.device
    options = {"do_sample": False, **({"cache_implementation": "static"} if compiled else {})}
    model, language_model = model_of(parts, name), parts.model.model.language_model

    def answer(count: int) -> float:
        return seconds_of(lambda: model.generate(**inputs, max_new_tokens=count, **options), device, 3)

    tokens = tokens_of(parts, name, inputs)
    encoding = seconds_of(lambda: encode(parts, name, inputs), device, 3)
    first, whole = answer(1), answer(1 + new)
    weights = sum(weight.numel() for weight in language_model.layers.parameters()) + parts.model.lm_head.weight.numel()
    operations, read = shares(parts.config.text_config, weights, rows, tokens, new)
    prefill, step = first - encoding, (whole - first) / new
    return {
        "tokens": tokens,
        "encode": encoding,
        "prefill": prefill,
        "first": first,
        "prefill of ceiling": operations / prefill / most.multiply,
        "tokens a second": rows / step,
        "decode of ceiling": read / step / most.read,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiles", type=int, nargs="+", choices=GRIDS, default=[2, 4, 6])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16], help="rows of a batch")
    parser.add_argument("--budget", type=int, help="max_local_tokens (default: the selector decides)")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--compile", action="store_true", help="static caches and compiled steps for both")
    parser.add_argument("--small", action="store_true", help="use tiny models and images")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    device = device_of(parser, arguments.device)
    logging.set_verbosity_error()
    most = measure_ceilings(device, torch.bfloat16, arguments.small)
    parts = build_both(arguments.small, arguments.budget, device, torch.bfloat16)
    named = name_of(device)
    print(f"{named}; {machine()}; torch {torch.__version__}, bfloat16\nAt most: {most}\n")
    print(f"| {' | '.join((*HEADS, 'of ceiling'))} |\n|{' --- |' * (len(HEADS) + 1)}")
    results: dict[str, Any] = {"device": named, "multiply": most.multiply, "read": most.read}
    settings = (arguments.new_tokens, arguments.compile, most)
    for tiles in arguments.tiles:
        for rows in arguments.batches:
            found = {name: measure(parts, name, tiles, rows, *settings) for name in (OURS, THEIRS)}
            for name, row in found.items():
                cells = [f"{row[key]:.4f}" for key in ("encode", "prefill", "first")]
                cells += [f"{row['prefill of ceiling']:.2f}", f"{row['tokens a second']:,.1f}"]
                cells += [f"{row['decode of ceiling']:.2f}"]
                print(f"| {tiles} | {rows} | {name} | {row['tokens']:,} | {' | '.join(cells)} |", flush=True)
                results[f"{tiles} tiles, {rows} rows, {name}"] = row
            ratio = found[OURS]["first"] / found[THEIRS]["first"]
            print(f"| {tiles} | {rows} | ours of LLaVA-NeXT | | | | {ratio:.2f} | | | |", flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
