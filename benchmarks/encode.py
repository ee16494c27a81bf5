"""What seeing costs, step by step, beside the published way and beside LLaVA-NeXT with the same weights.

    python benchmarks/encode.py [--repeats 3] [--out encode.json]
    python benchmarks/encode.py --small     # tiny parts, to see that it works

One encoder (CLIP-L/14 at 336) and one language model (Llama, 16 layers of width 1024) of random weights answer about
images of 2, 4, 6 and 7 tiles, in float32, three ways:

- ours: views one at a time (on a GPU in chunks), no blank ones, no layer behind the wanted one; an image is encoded
  once, and its global tokens are read once;
- published: view by view through all layers of an encoder without fused attention, which its transformers of 2023 did
  not have, anew for every question (blank views, which the published code encodes where a batch holds images of
  several sizes, are left out);
- LLaVA-NeXT: `LlavaNextForConditionalGeneration` on the same views, every token of every tile read.

Contenders take turns within a repeat, and medians are told. Memory is the peak of a process of its own.
"""

from __future__ import annotations

import argparse
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
from slime_vlm.diagnostics.bf16 import cpu_has_bf16
from slime_vlm.inference.answering import TimedStreamer, encode
from slime_vlm.media import open_image
from slime_vlm.model.local_compressor import stitch_tiles
from slime_vlm.model.outputs import VisionTokens
from slime_vlm.processing.image_processing_slime import SlimeImageProcessor

Seconds = dict[str, float]

QUESTION = "What is the total?"
GRIDS = {2: (1, 2), 4: (2, 2), 6: (2, 3), 7: (1, 7)}
MOST_VIEWS = 8
STEPS = ("preprocess", "encode", "select", "prefill", "decode")
CONTENDERS = ("ours", "published", "LLaVA-NeXT")


@dataclass
class Parts:
    """What contenders run on.

    Attributes:
        config: of our model.
        processor: of our model.
        model: ours, which the published way runs, too.
        llava: a LLaVA-NeXT with the same encoder and language model.
    """

    config: slime_vlm.SlimeConfig
    processor: slime_vlm.SlimeProcessor
    model: Any = None
    llava: Any = None


def build(small: bool, contender: str | None = None) -> Parts:
    """All models with the same weights, or the one that a contender runs."""
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
    # An end token would cut the decoding short.
    if contender != "LLaVA-NeXT":
        parts.model = slime_vlm.SlimeForConditionalGeneration(config).eval()
        parts.model.generation_config.eos_token_id = None
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
    return parts


def image_of(tiles: int, side: int) -> Image.Image:
    """Noise that fills a grid of so many tiles exactly."""
    rows, cols = GRIDS[tiles]
    pixels = np.random.default_rng(tiles).integers(0, 256, (rows * side, cols * side, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def run_ours(parts: Parts, image: Image.Image, questions: int, new_tokens: int) -> Seconds:
    """Encode once, ask every question; seconds by step, summed over questions."""
    encoded = encode(parts.model, parts.processor, image)
    answers = [encoded.ask(QUESTION, max_new_tokens=new_tokens) for _ in range(questions)]
    return {step: sum(answer.seconds[step] for answer in answers) for step in STEPS}


@torch.inference_mode()
def run_published(parts: Parts, image: Image.Image, questions: int, new_tokens: int) -> Seconds:
    """Everything anew for every question, view by view, through all layers."""
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
    """LLaVA-NeXT on the same views; encoding is what its vision tower takes."""
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
        # The whole view, then the map of all tiles with a token at the end of every line.
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
        seeing = marks[-1] - marks[0]
        times = (cut - start, seeing, 0.0, first - cut - seeing, end - first)
        total = {step: total[step] + seconds for step, seconds in zip(STEPS, times, strict=True)}
    for hook in hooks:
        hook.remove()
    return total


RUNS: dict[str, Callable[..., Seconds]] = dict(zip(CONTENDERS, (run_ours, run_published, run_llava), strict=True))


def medians(
    parts: Parts,
    image: Image.Image,
    questions: int,
    new_tokens: int,
    repeats: int,
    contenders: Sequence[str] = CONTENDERS,
) -> dict[str, Seconds]:
    """Median seconds by step of contenders, which take turns."""
    rounds: dict[str, list[Seconds]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name in contenders:
            rounds[name].append(RUNS[name](parts, image, questions, new_tokens))
    return {
        name: {step: statistics.median(seconds[step] for seconds in measured) for step in STEPS}
        for name, measured in rounds.items()
    }


def first_token(seconds: Seconds) -> float:
    """Seconds from the image to the first token of the first answer."""
    return sum(seconds[step] for step in STEPS[:-1])


def preprocessing(processor: Any, repeats: int, size: tuple[int, int]) -> dict[str, float]:
    """Median seconds from a JPEG of (height, width) to pixels, by the ways there are."""
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
        way["the two scalings alone, Pillow bicubic"] = lambda: (
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
        result["share of values that torch has otherwise"] = float((levels > 0).float().mean())
        result["grey levels between them, at most"] = float(levels.max())
        return result


def peak_of(name: str, small: bool, tiles: int) -> float:
    """Peak megabytes of a process in which one contender answers one question."""
    command = [sys.executable, __file__, "--contender", name, "--tiles", str(tiles), *(["--small"] if small else [])]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true", help="tiny parts and images")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tiles", type=int, nargs="+", choices=GRIDS, default=list(GRIDS))
    parser.add_argument("--questions", type=int, default=10)
    parser.add_argument("--question-tiles", type=int, choices=GRIDS, default=4, help="tiles of their image")
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--no-memory", action="store_true", help="leave out the processes that measure memory")
    parser.add_argument("--out", type=Path, help="JSON to write")
    parser.add_argument("--contender", choices=CONTENDERS, help="print only its peak memory, with one question")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    parts = build(arguments.small, arguments.contender)
    side = parts.config.view_size
    if arguments.contender:
        RUNS[arguments.contender](parts, image_of(arguments.tiles[0], side), 1, 2)
        print(peak_memory())
        return

    results: dict[str, Any] = {"threads": torch.get_num_threads(), "torch": torch.__version__}
    print(f"{machine()}, torch {torch.__version__}, {torch.get_num_threads()} thread(s), float32; seconds, medians\n")
    print("| tiles | | preprocess | encode | select | prefill | decode | first token | all | of published | peak, MB |")
    print(f"|{' --- |' * 11}", flush=True)
    # A round that is not measured: libraries load, and memory is asked for.
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
    rows = medians(parts, image_of(tiles, side), arguments.questions, arguments.new_tokens, 1, CONTENDERS[:2])
    print(
        f"\n{arguments.questions} questions about an image of {tiles} tiles\n",
        "| | seconds | of published |\n| --- | --- | --- |",
        sep="\n",
    )
    for name, seconds in rows.items():
        total = sum(seconds.values())
        print(f"| {name} | {total:.3f} | {total / sum(rows['published'].values()):.2f} |", flush=True)
        results[f"{arguments.questions} questions, {name}"] = seconds

    if cpu_has_bf16():
        parts.model.bfloat16()
        seconds = run_ours(parts, image_of(tiles, side), 1, arguments.new_tokens)
        print(f"\nours in bfloat16, {tiles} tiles: {sum(seconds.values()):.3f} s", flush=True)
        results["bfloat16, ours"] = seconds
    else:
        print("\nbfloat16: left out, this CPU has no instructions for it")

    size = (300, 400) if arguments.small else (3000, 4000)
    print(f"\nFrom a JPEG of {size[1]} x {size[0]} to views\n\n| | |\n| --- | --- |")
    results["preprocessing"] = preprocessing(parts.processor, arguments.repeats, size)
    for name, value in results["preprocessing"].items():
        told = {"share": f"{value:.2%}", "grey": f"{value:.0f}"}.get(name.split()[0], f"{value:.3f} s")
        print(f"| {name} | {told} |")
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
