"""Measure the cost of answering, step by step, against the published way and LLaVA-NeXT with the same weights.

    python benchmarks/encode.py [--repeats 3] [--out encode.json]
    python benchmarks/encode.py --small     # tiny parts, a quick check that it works
    python benchmarks/encode.py --views     # only from a JPEG to views

One vision encoder (CLIP-L/14 at 336) and one language model (Llama, 16 layers of width 1024) with random weights answer
questions about images of 2, 4, 6 and 7 tiles in float32, in four ways:

- ours: views one at a time (in chunks on a GPU), without blank views and without the layers after the one that is used.
  An image is encoded once, and its global tokens are processed once.
- ours, fast: the same with what `load(fast=True)` does: bfloat16 or int8, by the processor.
- published: view by view through all layers of an encoder without fused attention, again for every question. Fused
  attention was missing in transformers of 2023. The published code also encodes blank views if a batch has images of
  several sizes; they are left out here.
- LLaVA-NeXT: `LlavaNextForConditionalGeneration` on the same views, with every token of every tile.

The contenders take turns within a repeat, and medians are printed. Memory is the peak of a separate process.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine, peak_memory
from PIL import Image
from transformers import (
    AutoTokenizer,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
)
from transformers.utils import logging

import slime_vlm
from slime_vlm.checkpoints.hub import SHIPPED
from slime_vlm.checkpoints.int8_linear import use_int8
from slime_vlm.diagnostics.bf16 import cpu_has_bf16
from slime_vlm.inference.answering import encode
from slime_vlm.inference.timing import TimedStreamer
from slime_vlm.media import open_image
from slime_vlm.model.local_compressor import stitch_tiles
from slime_vlm.model.outputs import VisionTokens
from slime_vlm.processing.image_processing_slime import SlimeImageProcessor

Seconds = dict[str, float]

QUESTION = "What is the total?"
GRIDS = {2: (1, 2), 4: (2, 2), 6: (2, 3), 7: (1, 7)}
MOST_VIEWS = 8
STEPS = ("preprocess", "encode", "select", "prefill", "decode")
CONTENDERS = ("ours", "ours, fast", "published", "LLaVA-NeXT")
NO_MODEL = "processor"


@dataclass
class Parts:
    """Models and processor of the contenders.

    Attributes:
        config: Config of our model.
        processor: Processor of our model.
        model: Our model, which the published way uses as well.
        fast: Our model as `load(fast=True)` gives it.
        llava: LLaVA-NeXT with the same vision encoder and language model.
    """

    config: slime_vlm.SlimeConfig
    processor: slime_vlm.SlimeProcessor
    model: Any = None
    fast: Any = None
    llava: Any = None


def build(small: bool, contender: str | None = None) -> Parts:
    """Build all models with the same weights, or the one that a contender needs. `NO_MODEL` needs none."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED["nano"])
    vision_size = (32, 64, 3, 2, 56) if small else (1024, 4096, 24, 16, 336)
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size")
    vision = CLIPVisionConfig(**dict(zip(names, vision_size, strict=True)), patch_size=14)
    width, layers, heads = (32, 2, 2) if small else (1024, 16, 8)
    text = LlamaConfig(
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        vocab_size=len(tokenizer),
        max_position_embeddings=8192,
    )
    config = slime_vlm.SlimeConfig(
        vision_config=vision,
        text_config=text,
        num_local_queries=4 if small else 144,
        query_attention_head_dim=min(128, vision.hidden_size),
        separator_token_id=tokenizer.convert_tokens_to_ids(","),
    )
    processor = slime_vlm.SlimeProcessor.from_config(config, tokenizer, "llama3")
    parts = Parts(config, processor)
    # An end token would stop decoding early.
    if contender not in ("LLaVA-NeXT", NO_MODEL):
        parts.model = slime_vlm.SlimeForConditionalGeneration(config).eval()
        parts.model.generation_config.eos_token_id = None
        if contender == "ours, fast":
            parts.fast = make_fast(parts.model)
    if contender in (None, "LLaVA-NeXT"):
        grids = [list(grid) for grid in GRIDS.values()]
        llava_config = LlavaNextConfig(
            vision_config=vision,
            text_config=text,
            image_token_index=processor.image_token_id,
            image_grid_pinpoints=grids,
        )
        parts.llava = LlavaNextForConditionalGeneration(llava_config).eval()
        parts.llava.generation_config.eos_token_id = None
    if contender is None:
        ours, llava = parts.model.model, parts.llava.model
        tower = getattr(llava.vision_tower, "vision_model", llava.vision_tower)
        tower.load_state_dict(ours.vision_tower.state_dict())
        llava.language_model.load_state_dict(ours.language_model.state_dict())
        parts.llava.lm_head.load_state_dict(parts.model.lm_head.state_dict())
        parts.fast = make_fast(copy.deepcopy(parts.model))
    return parts


def make_fast(model: Any) -> Any:
    """Change a model in place to what `load(fast=True)` gives, and return it."""
    if cpu_has_bf16():
        return model.bfloat16()
    use_int8(model.model)
    return model


def image_of(tiles: int, side: int) -> Image.Image:
    """Return a noise image that exactly fills a grid of so many tiles."""
    rows, cols = GRIDS[tiles]
    pixels = np.random.default_rng(tiles).integers(0, 256, (rows * side, cols * side, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def run_ours(parts: Parts, image: Image.Image, questions: int, new_tokens: int) -> Seconds:
    """Encode once and ask every question. Return seconds by step, summed over questions."""
    return ask_ours(parts.model, parts.processor, image, questions, new_tokens)


def run_fast(parts: Parts, image: Image.Image, questions: int, new_tokens: int) -> Seconds:
    """Do the same with the fast model."""
    return ask_ours(parts.fast, parts.processor, image, questions, new_tokens)


def ask_ours(model: Any, processor: Any, image: Image.Image, questions: int, new_tokens: int) -> Seconds:
    """Encode once and ask every question. Return seconds by step, summed over questions."""
    encoded = encode(model, processor, image)
    answers = [encoded.ask(QUESTION, max_new_tokens=new_tokens) for _ in range(questions)]
    return {step: sum(answer.seconds[step] for answer in answers) for step in STEPS}


@torch.inference_mode()
def run_published(parts: Parts, image: Image.Image, questions: int, new_tokens: int) -> Seconds:
    """Repeat everything for every question, view by view, through all layers. Return seconds by step."""
    model, processor = parts.model, parts.processor
    model.model.vision_tower.set_attn_implementation("eager")
    total = dict.fromkeys(STEPS, 0.0)
    for _ in range(questions):
        start = time.perf_counter()
        content = [{"type": "image", "image": image}, {"type": "text", "text": QUESTION}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=True, return_dict=True, add_generation_prompt=True
        )
        pixels, (grid,) = inputs.pop("pixel_values"), inputs.pop("image_grids").tolist()
        cut = time.perf_counter()
        features = torch.cat(
            [
                model.model.vision_tower(pixel_values=view[None], output_hidden_states=True).hidden_states[-2][:, 1:]
                for view in pixels
            ]
        )
        adapted, gates = model.model.adapt_global(features[:1])
        tiles = model.model.compress_tiles(features[1:])
        local = stitch_tiles(tiles, *grid)
        tokens = VisionTokens(tuple(grid), gates[0], adapted[0], local)
        encoded = time.perf_counter()
        selection = model.select([tokens], **inputs)
        selected = time.perf_counter()
        streamer = TimedStreamer(processor.tokenizer, None)
        model.generate(
            **inputs,
            vision_tokens=[tokens],
            kept_local_tokens=[selection.kept[0]],
            max_new_tokens=new_tokens,
            do_sample=False,
            streamer=streamer,
        )
        end = time.perf_counter()
        first = streamer.first_token or end
        times = (cut - start, encoded - cut, selected - encoded, first - selected, end - first)
        total = {step: total[step] + seconds for step, seconds in zip(STEPS, times, strict=True)}
    model.model.vision_tower.set_attn_implementation("sdpa")
    return total


@torch.inference_mode()
def run_llava(parts: Parts, image: Image.Image, questions: int, new_tokens: int) -> Seconds:
    """Run LLaVA-NeXT on the same views. Return seconds by step; `encode` is the time of its vision tower."""
    processor, llava = parts.processor, parts.llava
    side, rate = parts.config.view_size, parts.config.feature_side
    total = dict.fromkeys(STEPS, 0.0)
    marks: list[float] = []
    hooks = [
        llava.model.vision_tower.register_forward_pre_hook(lambda *_: marks.append(time.perf_counter())),
        llava.model.vision_tower.register_forward_hook(lambda *_: marks.append(time.perf_counter())),
    ]
    for _ in range(questions):
        start = time.perf_counter()
        out = processor.image_processor(images=[image], return_tensors="pt")
        rows, cols = out["image_grids"][0].tolist()
        llava.config.image_grid_pinpoints = [[rows * side, cols * side]]
        # The global view, then the map of all tiles with one extra token at the end of every row.
        number = rate**2 + rows * rate * (cols * rate + 1)
        prompt = processor.tokenizer(QUESTION, return_tensors="pt").input_ids
        ids = torch.cat([torch.full((1, number), processor.image_token_id), prompt], dim=1)
        cut = time.perf_counter()
        marks.clear()
        streamer = TimedStreamer(processor.tokenizer, None)
        llava.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=out["pixel_values"][None],
            image_sizes=torch.tensor([[image.height, image.width]]),
            max_new_tokens=new_tokens,
            do_sample=False,
            streamer=streamer,
        )
        end = time.perf_counter()
        first = streamer.first_token or end
        encoding = marks[-1] - marks[0]
        times = (cut - start, encoding, 0.0, first - cut - encoding, end - first)
        total = {step: total[step] + seconds for step, seconds in zip(STEPS, times, strict=True)}
    for hook in hooks:
        hook.remove()
    return total


RUNS: dict[str, Callable[..., Seconds]] = dict(
    zip(CONTENDERS, (run_ours, run_fast, run_published, run_llava), strict=True)
)


def medians(
    parts: Parts,
    image: Image.Image,
    questions: int,
    new_tokens: int,
    repeats: int,
    contenders: Sequence[str] = CONTENDERS,
) -> dict[str, Seconds]:
    """Return the median seconds by step of contenders, which take turns."""
    rounds: dict[str, list[Seconds]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name in contenders:
            rounds[name].append(RUNS[name](parts, image, questions, new_tokens))
    return {
        name: {step: statistics.median(seconds[step] for seconds in measured) for step in STEPS}
        for name, measured in rounds.items()
    }


def first_token(seconds: Seconds) -> float:
    """Return the seconds from the image to the first token of the first answer."""
    return sum(seconds[step] for step in STEPS[:-1])


def preprocessing(processor: Any, repeats: int, size: tuple[int, int]) -> dict[str, float]:
    """Return the median seconds from a JPEG of size (height, width) to views, for each backend."""
    settings, way = processor.image_processor, {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.jpg"
        coarse = np.random.default_rng(0).integers(0, 256, (size[0] // 20, size[1] // 20, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC).save(path, quality=90)
        image = open_image(path)
        grid = settings.grid(image.height, image.width)
        shape, side = (grid.scaled_height, grid.scaled_width), grid.view_size
        quick = SlimeImageProcessor(view_size=side, resize_backend="torch")
        way["decode"] = lambda: open_image(path)
        way["the two resizes alone, Pillow bicubic"] = lambda: (
            image.resize((side, side), Image.Resampling.BICUBIC),
            image.resize(shape[::-1], Image.Resampling.BICUBIC),
        )
        way["views, resize_backend pillow"] = lambda: torch.cat(list(settings.stream_views(image, MOST_VIEWS)))
        way["views, resize_backend torch"] = lambda: torch.cat(list(quick.stream_views(image, MOST_VIEWS)))
        found: dict[str, list[float]] = {name: [] for name in way}
        for _ in range(repeats):
            for name, function in way.items():
                start = time.perf_counter()
                function()
                found[name].append(time.perf_counter() - start)
        result = {name: statistics.median(seconds) for name, seconds in found.items()}
        apart = way["views, resize_backend pillow"]() - way["views, resize_backend torch"]()
        levels = (apart.abs() * torch.tensor(quick.image_std)[:, None, None] * 255).round()
        bicubic = result["the two resizes alone, Pillow bicubic"]
        result["ratio: torch's views to Pillow's resizes"] = result["views, resize_backend torch"] / bicubic
        result["share of values that differ with torch"] = float((levels > 0).float().mean())
        result["grey levels of difference, at most"] = float(levels.max())
        return result


def peak_of(name: str, small: bool, tiles: int) -> float:
    """Return the peak megabytes of a process in which one contender answers one question."""
    command = [sys.executable, __file__, "--contender", name, "--tiles", str(tiles), *(["--small"] if small else [])]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])


def print_preprocessing(processor: Any, small: bool, repeats: int) -> dict[str, float]:
    """Measure from a JPEG to views, and print the table."""
    size = (300, 400) if small else (3000, 4000)
    print(f"\nFrom a JPEG of {size[1]} x {size[0]} to views\n\n| | |\n| --- | --- |")
    found = preprocessing(processor, repeats, size)
    for name, value in found.items():
        text = {"share": f"{value:.2%}", "grey": f"{value:.0f}", "ratio:": f"{value:.2f}"}
        print(f"| {name} | {text.get(name.split()[0], f'{value:.3f} s')} |")
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true", help="use tiny models and images")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tiles", type=int, nargs="+", choices=GRIDS, default=list(GRIDS))
    parser.add_argument("--questions", type=int, default=10)
    parser.add_argument(
        "--question-tiles", type=int, choices=GRIDS, default=4, help="tiles of the image for --questions"
    )
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--views", action="store_true", help="only measure from a JPEG to views")
    parser.add_argument("--no-memory", action="store_true", help="do not measure memory")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument(
        "--contender", choices=CONTENDERS, help="only print the peak memory of this contender for one question"
    )
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    parts = build(arguments.small, NO_MODEL if arguments.views else arguments.contender)
    side = parts.config.view_size
    if arguments.contender:
        RUNS[arguments.contender](parts, image_of(arguments.tiles[0], side), 1, 2)
        print(peak_memory())
        return

    if arguments.views:
        print(f"{machine()}, {torch.get_num_threads()} thread(s); medians")
        print_preprocessing(parts.processor, arguments.small, arguments.repeats)
        return

    results: dict[str, Any] = {"threads": torch.get_num_threads(), "torch": torch.__version__}
    print(f"{machine()}, torch {torch.__version__}, {torch.get_num_threads()} thread(s), float32; seconds, medians")
    print(f"fast is {'bfloat16' if cpu_has_bf16() else 'int8'}\n")
    print("| tiles | | preprocess | encode | select | prefill | decode | first token | all | of published | peak, MB |")
    print(f"|{' --- |' * 11}", flush=True)
    # One round that is not measured, because libraries load and memory is allocated on first use.
    medians(parts, image_of(arguments.tiles[0], side), 1, 2, 1)
    for tiles in arguments.tiles:
        rows = medians(parts, image_of(tiles, side), 1, arguments.new_tokens, arguments.repeats)
        published = sum(rows["published"].values())
        for name, seconds in rows.items():
            peak = None if arguments.no_memory else peak_of(name, arguments.small, tiles)
            cells = [*(f"{seconds[step]:.3f}" for step in STEPS), f"{first_token(seconds):.3f}"]
            cells += [f"{sum(seconds.values()):.3f}", f"{sum(seconds.values()) / published:.2f}"]
            print(f"| {tiles} | {name} | {' | '.join(cells)} | {'-' if peak is None else f'{peak:,.0f}'} |", flush=True)
            results[f"{tiles} tiles, {name}"] = {**seconds, "peak": peak}

    tiles = arguments.question_tiles
    rows = medians(parts, image_of(tiles, side), arguments.questions, arguments.new_tokens, 1, CONTENDERS[:3])
    print(
        f"\n{arguments.questions} questions about an image of {tiles} tiles\n",
        "| | seconds | of published |\n| --- | --- | --- |",
        sep="\n",
    )
    for name, seconds in rows.items():
        total = sum(seconds.values())
        print(f"| {name} | {total:.3f} | {total / sum(rows['published'].values()):.2f} |", flush=True)
        results[f"{arguments.questions} questions, {name}"] = seconds

    results["preprocessing"] = print_preprocessing(parts.processor, arguments.small, arguments.repeats)
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
