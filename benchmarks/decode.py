"""Measure a step of decoding with a cache that grows in place, against the dynamic cache of transformers.

    python benchmarks/decode.py [--rows 1 10] [--tokens 1154] [--steps 8] [--out decode.json]
    python benchmarks/decode.py --tokens 1154 300 4096     # other lengths, too, for the first number of rows
    python benchmarks/decode.py --small     # a tiny model, a quick check that it works

A language model with random weights (Llama, 16 layers of width 1024, 8 heads, float32) continues rows of so many cached
tokens. Both caches take turns, and the numbers are medians of the process's CPU time: on one thread, work beside it
changes them little. Memory is what the tensors of a cache take after the last step, room for more tokens included.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from machine import machine
from transformers import LlamaConfig, LlamaModel
from transformers.cache_utils import DynamicCache

from slime_vlm.model.cache_name import CACHE
from slime_vlm.model.growing_cache import growing_cache

CACHES = {"transformers": DynamicCache, "in place": growing_cache}


def build(small: bool) -> LlamaModel:
    """Build a language model with random weights."""
    torch.manual_seed(0)
    width, layers = (64, 2) if small else (1024, 16)
    config = LlamaConfig(
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=8,
        vocab_size=64,
    )
    return LlamaModel(config).eval()


def filled(kind: str, config: LlamaConfig, rows: int, tokens: int) -> DynamicCache:
    """Return a cache with random keys and values."""
    cache = CACHES[kind](config=config)
    torch.manual_seed(1)
    heads, width = config.num_key_value_heads, config.hidden_size // config.num_attention_heads
    for layer in range(config.num_hidden_layers):
        cache.update(torch.randn(rows, heads, tokens, width), torch.randn(rows, heads, tokens, width), layer)
    return cache


@torch.inference_mode()
def measure(model: LlamaModel, rows: int, tokens: int, steps: int) -> dict[str, dict[str, float]]:
    """Return the median CPU `seconds` of a step with every cache, and the `megabytes` that it takes.

    Raises:
        SystemExit: The caches give different hidden states.
    """
    caches = {kind: filled(kind, model.config, rows, tokens) for kind in CACHES}
    seconds: dict[str, list[float]] = {kind: [] for kind in CACHES}
    torch.manual_seed(2)
    for step in range(steps + 1):
        new, found = torch.randn(rows, 1, model.config.hidden_size), []
        for kind, cache in caches.items():
            start = time.process_time()
            found.append(model(inputs_embeds=new, use_cache=True, **{CACHE: cache}).last_hidden_state)
            # The first step allocates.
            if step:
                seconds[kind].append(time.process_time() - start)
        if not torch.equal(*found):
            raise SystemExit(f"the caches differ by {float((found[0] - found[1]).abs().max()):.2g}")
    return {
        kind: {"seconds": statistics.median(values), "megabytes": megabytes(caches[kind])}
        for kind, values in seconds.items()
    }


def megabytes(cache: Any) -> float:
    """Return the memory of a cache's tensors."""
    tensors = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors) / 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true", help="use a tiny model")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--tokens", type=int, nargs="+", default=[1154], help="cached tokens of a row")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = build(arguments.small)
    results: list[dict[str, Any]] = []
    print(f"{machine()}, torch {torch.__version__}, one thread, float32; CPU milliseconds of a step, medians\n")
    print(f"| rows | tokens | {' | '.join(CACHES)} | ratio | {', MB | '.join(CACHES)}, MB |\n|{' --- |' * 7}")
    first = arguments.tokens[0]
    cases = [(rows, first) for rows in arguments.rows]
    cases += [(arguments.rows[0], tokens) for tokens in arguments.tokens[1:]]
    for rows, tokens in cases:
        found = measure(model, rows, tokens, arguments.steps)
        seconds, held = ([found[kind][what] for kind in CACHES] for what in ("seconds", "megabytes"))
        cells = [*(f"{1000 * one:.1f}" for one in seconds), f"{seconds[1] / seconds[0]:.2f}"]
        cells += [f"{one:,.0f}" for one in held]
        print(f"| {rows} | {tokens:,} | {' | '.join(cells)} |", flush=True)
        results.append({"rows": rows, "tokens": tokens, **found})
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
