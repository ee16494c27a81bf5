"""Measure the first token of an answer, ours and LLaVA-NeXT's, with a language model of the shape of a 7B one.

    python benchmarks/first_token.py [--layers 4] [--repeats 3] [--tiles 2 4 6] [--threads 2] [--out first_token.json]
    python benchmarks/first_token.py --language 0.3b    # the language model of benchmarks/encode.py, all its layers
    python benchmarks/first_token.py --small            # tiny parts, a quick check that it works

Both have the very same vision encoder (CLIP-L/14 at 336, weights shared), the same language model (weights shared, too)
and the same text, and take turns on the same images. Weights are random, so that our selector keeps nearly all local
tokens, which is the dearest case for us; `--budget` keeps so many at most. "7b" has the width, heads and vocabulary of
Llama 2 7B, and as many of its layers as `--layers` says.

All layers of a language model have the same shape. So a first token with the missing layers is computed: what was
measured, and for each missing layer the mean seconds of a measured one. Tables say which numbers are measured and which
are computed. "At least" is what our ratio would be if no local token were kept, that is with the encoder, the global
tokens and the text alone (computed as well). The ratio in CPU time is that of the same first tokens with all layers.
With `--threads 1` it also holds on a busy machine.

With `--packed`, ours has its own copy of the weights, packed as `slime ask` does where the processor gains from it.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from encode import (
    GRIDS,
    QUESTION,
    STEPS,
    Parts,
    Seconds,
    build,
    build_llava,
    first_token,
    image_of,
    language_model,
    llava_prompt,
    run_llava,
)
from machine import load_warning, machine
from PIL import Image
from transformers.utils import logging

from slime_vlm.checkpoints.packed_linear import use_packed
from slime_vlm.inference.answering import encode
from slime_vlm.inference.questions import encode_question

OURS, THEIRS = "ours", "LLaVA-NeXT"


@dataclass(frozen=True)
class Language:
    """Shape of a language model: its width, that of its middle layer, its layers, heads and words."""

    width: int
    intermediate: int
    layers: int
    heads: int
    vocabulary: int


LANGUAGES = {"7b": Language(4096, 11008, 32, 32, 32_000), "0.3b": Language(1024, 2816, 16, 8, 32_000)}
SMALL = Language(32, 88, 4, 2, 32_000)


@dataclass
class LayerClock:
    """Hooks on the layers of a language model.

    Attributes:
        seconds: Time of all calls of layers since the last `start`.
        cpu: CPU time of the same.
        tokens: Tokens that the first layer processed since then.
    """

    seconds: float = 0.0
    cpu: float = 0.0
    tokens: int = 0
    _entered: list[tuple[float, float]] = field(default_factory=list)

    def watch(self, layers: Any) -> None:
        """Measure these layers from now on."""

        def enter(layer: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            self.tokens += inputs[0].shape[1] if layer is layers[0] else 0
            self._entered.append((time.perf_counter(), time.process_time()))

        def leave(*_: Any) -> None:
            clock, cpu = self._entered.pop()
            self.seconds += time.perf_counter() - clock
            self.cpu += time.process_time() - cpu

        for layer in layers:
            layer.register_forward_pre_hook(enter)
            layer.register_forward_hook(leave)

    def start(self) -> None:
        """Forget what was measured."""
        self.seconds, self.cpu, self.tokens = 0.0, 0.0, 0


def build_both(
    small: bool, shape: Language, layers: int, budget: int | None, dtype: torch.dtype, packed: bool
) -> Parts:
    """Build our model and LLaVA-NeXT with one encoder and one language model for both, ours a packed copy if wanted."""
    text = language_model(shape.width, shape.intermediate, layers, shape.heads, shape.vocabulary)
    parts = build(small, OURS, text)
    parts.model.config.max_local_tokens = budget
    parts.model.to(dtype)
    # Its own language model would be thrown away.
    hollow = copy.deepcopy(parts.config)
    hollow.text_config.num_hidden_layers = 0
    parts.llava = build_llava(hollow, parts.processor).to(dtype)
    parts.llava.config.text_config = parts.config.text_config
    parts.llava.model.vision_tower = parts.model.model.vision_tower
    parts.llava.model.language_model = parts.model.model.language_model
    parts.llava.lm_head = parts.model.lm_head
    if packed:
        parts.llava = copy.deepcopy(parts.llava)
        use_packed(parts.model.model)
    return parts


@torch.inference_mode()
def warm_up(parts: Parts) -> None:
    """Use encoder and language model once: libraries load on first use."""
    side = parts.config.view_size
    for model in (parts.model, parts.llava):
        model.model.vision_tower(pixel_values=torch.zeros(1, 3, side, side, dtype=model.dtype))
        model.model.language_model(input_ids=torch.zeros(1, 8, dtype=torch.long))


def ask_ours(parts: Parts, image: Image.Image) -> tuple[Seconds, dict[str, int]]:
    """Answer in one token. Return seconds by step, and the tokens by kind."""
    encoded = encode(parts.model, parts.processor, image)
    answer = encoded.ask(QUESTION, max_new_tokens=1)
    ids = encode_question(parts.processor, QUESTION, encoded.grid)["input_ids"]
    text = int((ids != parts.processor.image_token_id).sum()) + parts.processor.token_layout.num_separators
    return answer.seconds, {"global": answer.num_global, "local": answer.num_kept, "text": text}


def ask_theirs(parts: Parts, image: Image.Image) -> tuple[Seconds, dict[str, int]]:
    """Do the same with LLaVA-NeXT. Its local tokens are those of all tiles and of the ends of their rows."""
    (seconds,) = run_llava(parts, image, 1, 1)
    side, views = parts.config.view_size, parts.config.feature_side**2
    ids = llava_prompt(parts, image.height // side, image.width // side)
    number = int((ids == parts.processor.image_token_id).sum())
    return seconds, {"global": views, "local": number - views, "text": ids.shape[1] - number}


ASK = {OURS: ask_ours, THEIRS: ask_theirs}


def measure(parts: Parts, clock: LayerClock, tiles: int, repeats: int, missing: int) -> dict[str, dict[str, float]]:
    """Measure both contenders in turn.

    Args:
        parts: Both models.
        clock: Hooks on the layers of their language model.
        tiles: Tiles of the image.
        repeats: Turns, whose medians are returned.
        missing: Layers that the language model lacks.

    Returns:
        Of each contender its tokens by kind, its seconds by step, `layer` (of one layer), `measured` (of the first
        token), and the computed seconds `computed` (with the missing layers), `cpu` (the same in CPU time) and `least`
        (without local tokens).

    Raises:
        SystemExit: The language model processed another number of tokens than was counted.
    """
    image, layers = image_of(tiles, parts.config.view_size), parts.config.text_config.num_hidden_layers
    rounds: dict[str, list[Seconds]] = {name: [] for name in ASK}
    counts: dict[str, dict[str, int]] = {}
    for _ in range(repeats):
        for name, ask in ASK.items():
            clock.start()
            start = time.process_time()
            seconds, counts[name] = ask(parts, image)
            if clock.tokens != sum(counts[name].values()):
                raise SystemExit(f"{name}: {clock.tokens} tokens were processed, {counts[name]} were counted")
            cpu = time.process_time() - start + missing * clock.cpu / layers
            found = {step: seconds[step] for step in STEPS[:-1]}
            found |= {"layer": clock.seconds / layers, "measured": first_token(seconds), "cpu": cpu}
            rounds[name].append(found)
    results: dict[str, dict[str, float]] = {}
    for name, turns in rounds.items():
        row = {key: statistics.median(turn[key] for turn in turns) for key in turns[0]}
        row["computed"] = row["measured"] + missing * row["layer"]
        share = counts[name]["local"] / sum(counts[name].values())
        row["least"] = row["computed"] - share * (layers + missing) * row["layer"]
        results[name] = {**counts[name], **row}
    return results


def print_results(found: dict[int, dict[str, dict[str, float]]], layers: int, missing: int) -> None:
    """Print seconds and ratios."""
    heads = ["tiles", "", "global", "local", "text", "tokens", "preprocess", "encode", "select", "prefill"]
    heads += ["a layer", "a layer, ms/token", f"first token, {layers} layers, measured"]
    heads += [f"first token, {layers + missing} layers, computed"] if missing else []
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for tiles, rows in found.items():
        for name, row in rows.items():
            tokens = row["global"] + row["local"] + row["text"]
            cells = [str(tiles), name, *(f"{row[kind]:,}" for kind in ("global", "local", "text")), f"{tokens:,}"]
            cells += [f"{row[step]:.3f}" for step in (*STEPS[:-1], "layer")] + [f"{1000 * row['layer'] / tokens:.3f}"]
            cells += [f"{row['measured']:.3f}"] + ([f"{row['computed']:.3f}"] if missing else [])
            print(f"| {' | '.join(cells)} |")
    heads = ["ours of LLaVA-NeXT, tiles", "tokens", "encode", "a layer", f"first token, {layers} layers, measured"]
    heads += [f"first token, {layers + missing} layers, computed"] if missing else []
    heads += ["in CPU time", "at least, no local tokens, computed", "LLaVA-NeXT's share of encoding"]
    print(f"\n| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for tiles, rows in found.items():
        ours, theirs = rows[OURS], rows[THEIRS]
        counts = [sum(row[kind] for kind in ("global", "local", "text")) for row in (ours, theirs)]
        ratios = [counts[0] / counts[1], *(ours[key] / theirs[key] for key in ("encode", "layer", "measured"))]
        ratios += [ours["computed"] / theirs["computed"]] if missing else []
        ratios += [
            ours["cpu"] / theirs["cpu"],
            ours["least"] / theirs["computed"],
            theirs["encode"] / theirs["computed"],
        ]
        print(f"| {tiles} | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--language", choices=LANGUAGES, default="7b", help="shape of the language model")
    parser.add_argument("--layers", type=int, help="layers that are measured (default: 4 of 7b, all of 0.3b)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--budget", type=int, help="max_local_tokens (default: the selector decides)")
    parser.add_argument("--packed", action="store_true", help="pack our weights, as slime ask does on some processors")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tiles", type=int, nargs="+", choices=GRIDS, default=[2, 4, 6])
    parser.add_argument("--threads", type=int, help="number of torch threads (default: torch's choice)")
    parser.add_argument("--small", action="store_true", help="use tiny models and images")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(arguments.threads or torch.get_num_threads())
    shape = SMALL if arguments.small else LANGUAGES[arguments.language]
    layers = arguments.layers or {"7b": min(4, shape.layers // 2), "0.3b": shape.layers}[arguments.language]
    if arguments.packed and arguments.dtype != "float32":
        parser.error("--packed: only float32 is packed")
    if not 1 <= layers <= shape.layers:
        parser.error(f"--layers {layers}: the language model has 1 to {shape.layers}")
    missing, warning = shape.layers - layers, load_warning()
    parts = build_both(
        arguments.small, shape, layers, arguments.budget, getattr(torch, arguments.dtype), arguments.packed
    )
    clock = LayerClock()
    clock.watch(parts.model.model.language_model.layers)
    if arguments.packed:
        clock.watch(parts.llava.model.language_model.layers)
    threads = torch.get_num_threads()
    print(f"{machine()}, torch {torch.__version__}, {threads} thread(s), {arguments.dtype}; seconds, medians")
    print(f"Language model: width {shape.width}, {shape.intermediate} between, {shape.heads} heads, {shape.vocabulary}")
    print(f"words; {layers} layers are measured, {missing} are computed\n", flush=True)
    warm_up(parts)
    found = {tiles: measure(parts, clock, tiles, arguments.repeats, missing) for tiles in arguments.tiles}
    print_results(found, layers, missing)
    warning = warning or load_warning(own=threads)
    if warning:
        print(f"\nWarning: {warning}")
    if arguments.out:
        rows = {f"{tiles} tiles, {name}": row for tiles, rows in found.items() for name, row in rows.items()}
        sizes = {"layers": layers, "all layers": layers + missing, "threads": threads, "dtype": arguments.dtype}
        arguments.out.write_text(json.dumps({"settings": sizes, **rows}, indent=1))


if __name__ == "__main__":
    main()
