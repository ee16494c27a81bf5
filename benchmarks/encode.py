"""Measure the cost of answering, step by step, against the published way and LLaVA-NeXT of the same sizes.

    python benchmarks/encode.py [--repeats 3] [--out encode.json]
    python benchmarks/encode.py --small     # tiny parts, a quick check that it works
    python benchmarks/encode.py --views     # only from a JPEG to views

One vision encoder (CLIP-L/14 at 336) and one language model (Llama, 16 layers of width 1024) with random weights answer
questions about images of 2, 4, 6 and 7 tiles in float32, in these ways:

- ours: views one at a time (in chunks on a GPU), without blank views and without the layers after the one that is used.
  An image is encoded once, and its global tokens are processed once.
- ours, packed: the same with packed weights, as `slime ask` has them where the processor gains (`load(packed=True)`).
- ours, fast: the same with what `load(fast=True)` does: bfloat16 or int8, by the processor.
- published: view by view through all layers of an encoder without fused attention, again for every question. Fused
  attention was missing in transformers of 2023. The published code also encodes blank views if a batch has images of
  several sizes; they are left out here.
- LLaVA-NeXT: `LlavaNextForConditionalGeneration` on the same views and the same text, with every token of every tile,
  again for every question.

Every contender has a process of its own, which builds its model once. They take turns within a repeat, so that only one
works at a time, and medians are printed. Memory is the peak of that process while it answers, weights and libraries
included. All models are in memory at the same time; `--contenders` chooses fewer.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import forget_peak, machine, own_process, peak_memory
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
from slime_vlm.checkpoints.int8_linear import use_int8
from slime_vlm.checkpoints.packed_linear import can_pack, use_packed
from slime_vlm.checkpoints.shipped import SHIPPED
from slime_vlm.diagnostics.cpu_features import cpu_has_bf16
from slime_vlm.inference.answering import encode
from slime_vlm.inference.questions import encode_question
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
CONTENDERS = ("ours", *(("ours, packed",) if can_pack() else ()), "ours, fast", "published", "LLaVA-NeXT")
NO_MODEL = "processor"


@dataclass
class Parts:
    """Model and processor of a contender.

    Attributes:
        config: Config of our model.
        processor: Processor of our model.
        model: Our model, which the published way uses as well. "ours, fast" has it as `load(fast=True)` gives it.
        llava: LLaVA-NeXT with a vision encoder and a language model of the same sizes.
    """

    config: slime_vlm.SlimeConfig
    processor: slime_vlm.SlimeProcessor
    model: Any = None
    llava: Any = None


def build(small: bool, contender: str, text: LlamaConfig | None = None) -> Parts:
    """Build what a contender needs, with random weights. `NO_MODEL` needs none.

    Args:
        small: Whether encoder and language model are tiny.
        contender: One of `CONTENDERS`, or `NO_MODEL`.
        text: Another language model.
    """
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED["nano"])
    vision_size = (32, 64, 3, 2, 56) if small else (1024, 4096, 24, 16, 336)
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size")
    vision = CLIPVisionConfig(**dict(zip(names, vision_size, strict=True)), patch_size=14)
    width, layers, heads = (32, 2, 2) if small else (1024, 16, 8)
    config = slime_vlm.SlimeConfig(
        vision_config=vision,
        text_config=text or language_model(width, width * 11 // 4, layers, heads, len(tokenizer)),
        num_local_queries=4 if small else 144,
        query_attention_head_dim=min(128, vision.hidden_size),
        separator_token_id=tokenizer.convert_tokens_to_ids(","),
    )
    processor = slime_vlm.SlimeProcessor.from_config(config, tokenizer, "llama3")
    parts = Parts(config, processor)
    if contender == "LLaVA-NeXT":
        parts.llava = build_llava(config, processor)
    elif contender != NO_MODEL:
        model: Any = slime_vlm.SlimeForConditionalGeneration(config).eval()
        # An end token would stop decoding early.
        model.generation_config.eos_token_id = None
        if contender == "ours, packed":
            use_packed(model.model)
        parts.model = make_fast(model) if contender == "ours, fast" else model
    return parts


def language_model(width: int, intermediate: int, layers: int, heads: int, vocabulary: int) -> LlamaConfig:
    """Return the config of a Llama of this size."""
    return LlamaConfig(
        hidden_size=width,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        vocab_size=vocabulary,
        max_position_embeddings=8192,
    )


def build_llava(config: slime_vlm.SlimeConfig, processor: slime_vlm.SlimeProcessor) -> Any:
    """Build LLaVA-NeXT with the encoder and the language model of a config, and random weights."""
    llava: Any = LlavaNextForConditionalGeneration(
        LlavaNextConfig(
            vision_config=config.vision_config,
            text_config=config.text_config,
            image_token_index=processor.image_token_id,
            image_grid_pinpoints=[list(grid) for grid in GRIDS.values()],
        )
    ).eval()
    llava.generation_config.eos_token_id = None
    return llava


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


def run_ours(parts: Parts, image: Image.Image, questions: int, new_tokens: int) -> Iterator[Seconds]:
    """Encode once and ask every question. Yield the seconds of each by step; the first one has those of the image."""
    encoded = encode(parts.model, parts.processor, image)
    for _ in range(questions):
        seconds = encoded.ask(QUESTION, max_new_tokens=new_tokens).seconds
        yield {step: seconds[step] for step in STEPS}


@torch.inference_mode()
def run_published(parts: Parts, image: Image.Image, questions: int, new_tokens: int) -> Iterator[Seconds]:
    """Repeat everything for every question, view by view, through all layers. Yield the seconds of each by step."""
    model, processor = parts.model, parts.processor
    model.model.vision_tower.set_attn_implementation("eager")
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
        yield dict(zip(STEPS, times, strict=True))


def llava_prompt(parts: Parts, rows: int, cols: int) -> torch.Tensor:
    """Return the ids [1, S] of our prompt, with LLaVA-NeXT's tokens for an image of so many tiles in place of ours."""
    processor, rate = parts.processor, parts.config.feature_side
    grid = processor.image_processor.grid(rows * parts.config.view_size, cols * parts.config.view_size)
    ids = encode_question(processor, QUESTION, grid)["input_ids"][0]
    places = (ids == processor.image_token_id).nonzero()[:, 0]
    # The global view, then the map of all tiles with one extra token at the end of every row.
    number = rate**2 + rows * rate * (cols * rate + 1)
    image = torch.full((number,), processor.image_token_id)
    return torch.cat([ids[: int(places[0])], image, ids[int(places[-1]) + 1 :]])[None]


@torch.inference_mode()
def run_llava(parts: Parts, image: Image.Image, questions: int, new_tokens: int) -> Iterator[Seconds]:
    """Run LLaVA-NeXT on the same views. Yield the seconds of each question; `encode` is that of its vision tower."""
    processor, llava, side = parts.processor, parts.llava, parts.config.view_size
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
        ids = llava_prompt(parts, rows, cols)
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
        yield dict(zip(STEPS, (cut - start, encoding, 0.0, first - cut - encoding, end - first), strict=True))
    for hook in hooks:
        hook.remove()


RUNS: dict[str, Callable[..., Iterator[Seconds]]] = {
    **dict.fromkeys(CONTENDERS, run_ours),
    "published": run_published,
    "LLaVA-NeXT": run_llava,
}


@functools.cache
def parts_of(small: bool, contender: str) -> Parts:
    """Build a contender once in its process."""
    logging.set_verbosity_error()
    return build(small, contender)


def answer(small: bool, contender: str, tiles: int, questions: int, new_tokens: int) -> list[Seconds]:
    """Ask a contender questions about an image. Run this in its process.

    Returns:
        For every question its seconds by step, and the peak megabytes since the first question began as `peak`.
    """
    parts = parts_of(small, contender)
    forget_peak()
    rounds = RUNS[contender](parts, image_of(tiles, parts.config.view_size), questions, new_tokens)
    return [{**seconds, "peak": peak_memory()} for seconds in rounds]


class Contenders:
    """The processes of the contenders.

    Attributes:
        processes: Each by the name of its contender.
        small: Whether their models are tiny.
    """

    def __init__(self, processes: dict[str, ProcessPoolExecutor], small: bool) -> None:
        self.processes, self.small = processes, small

    def ask(self, name: str, tiles: int, questions: int, new_tokens: int) -> list[Seconds]:
        """Return what `answer` found."""
        return self.processes[name].submit(answer, self.small, name, tiles, questions, new_tokens).result()

    def medians(self, tiles: int, new_tokens: int, repeats: int) -> dict[str, Seconds]:
        """Return the median seconds by step of one question, and the peak. The contenders take turns."""
        rounds: dict[str, list[Seconds]] = {name: [] for name in self.processes}
        for _ in range(repeats):
            for name, measured in rounds.items():
                measured += self.ask(name, tiles, 1, new_tokens)
        return {
            name: {key: statistics.median(one[key] for one in measured) for key in STEPS}
            | {"peak": max(one["peak"] for one in measured)}
            for name, measured in rounds.items()
        }

    def questions(self, tiles: int, number: int, new_tokens: int) -> dict[str, list[Seconds]]:
        """Return seconds by step after each of several questions about one image, and the peak up to there."""
        found = {}
        for name in self.processes:
            asked = self.ask(name, tiles, number, new_tokens)
            found[name] = [
                {step: sum(one[step] for one in asked[:count]) for step in STEPS} | {"peak": asked[count - 1]["peak"]}
                for count in range(1, number + 1)
            ]
        return found


def whole(seconds: Seconds) -> float:
    """Return the seconds of all steps."""
    return sum(seconds[step] for step in STEPS)


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


def print_preprocessing(processor: Any, small: bool, repeats: int) -> dict[str, float]:
    """Measure from a JPEG to views, and print the table."""
    size = (300, 400) if small else (3000, 4000)
    print(f"\nFrom a JPEG of {size[1]} x {size[0]} to views\n\n| | |\n| --- | --- |")
    found = preprocessing(processor, repeats, size)
    for name, value in found.items():
        text = {"share": f"{value:.2%}", "grey": f"{value:.0f}", "ratio:": f"{value:.2f}"}
        print(f"| {name} | {text.get(name.split()[0], f'{value:.3f} s')} |")
    return found


def print_tiles(contenders: Contenders, tiles: int, new_tokens: int, repeats: int) -> dict[str, Seconds]:
    """Measure one question about an image of so many tiles, and print its rows of the table."""
    rows = contenders.medians(tiles, new_tokens, repeats)
    for name, seconds in rows.items():
        cells = [*(f"{seconds[step]:.3f}" for step in STEPS), f"{first_token(seconds):.3f}", f"{whole(seconds):.3f}"]
        cells.append(f"{whole(seconds) / whole(rows['published']):.2f}" if "published" in rows else "-")
        print(f"| {tiles} | {name} | {' | '.join(cells)} | {seconds['peak']:,.0f} |", flush=True)
    return rows


def print_questions(contenders: Contenders, tiles: int, number: int, new_tokens: int) -> dict[str, list[Seconds]]:
    """Measure one question after the other about an image of so many tiles, and print the table."""
    found = contenders.questions(tiles, number, new_tokens)
    print(f"\n1 to {number} questions about an image of {tiles} tiles, seconds of all\n")
    ways = [name for name in found if name.startswith("ours") and "published" in found]
    heads = ["questions", *found, *(f"{name}, of published" for name in ways)]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for index in range(number):
        cells = [f"{whole(measured[index]):.3f}" for measured in found.values()]
        cells += [f"{whole(found[name][index]) / whole(found['published'][index]):.2f}" for name in ways]
        print(f"| {index + 1} | {' | '.join(cells)} |", flush=True)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true", help="use tiny models and images")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tiles", type=int, nargs="+", choices=GRIDS, default=list(GRIDS))
    parser.add_argument("--questions", type=int, default=10)
    parser.add_argument(
        "--question-tiles", type=int, choices=GRIDS, default=4, help="tiles of the image for --questions"
    )
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--views", action="store_true", help="only measure from a JPEG to views")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    small, repeats, new_tokens = arguments.small, arguments.repeats, arguments.new_tokens
    processor = build(small, NO_MODEL).processor
    if arguments.views:
        print(f"{machine()}, {torch.get_num_threads()} thread(s); medians")
        print_preprocessing(processor, small, repeats)
        return

    results: dict[str, Any] = {"threads": torch.get_num_threads(), "torch": torch.__version__}
    print(f"{machine()}, torch {torch.__version__}, {torch.get_num_threads()} thread(s), float32; seconds, medians")
    print(f"fast is {'bfloat16' if cpu_has_bf16() else 'int8'}\n")
    print("| tiles | | preprocess | encode | select | prefill | decode | first token | all | of published | peak, MB |")
    print(f"|{' --- |' * 11}", flush=True)
    with ExitStack() as stack:
        processes = {name: stack.enter_context(own_process()) for name in arguments.contenders}
        contenders = Contenders(processes, small)
        # One round that is not measured, because libraries load and memory is allocated on first use.
        contenders.medians(arguments.tiles[0], 2, 1)
        for tiles in arguments.tiles:
            for name, seconds in print_tiles(contenders, tiles, new_tokens, repeats).items():
                results[f"{tiles} tiles, {name}"] = seconds
        asked = print_questions(contenders, arguments.question_tiles, arguments.questions, new_tokens)
    for name, measured in asked.items():
        for number, seconds in enumerate(measured, start=1):
            results[f"{number} questions, {name}"] = seconds
    results["preprocessing"] = print_preprocessing(processor, small, repeats)
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
