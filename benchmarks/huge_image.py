"""Measure the cost of huge images: tokens, seconds and memory from 1 to 100 megapixels, for a fixed token budget.

    python benchmarks/huge_image.py --plot docs/figures/huge_image.png [--megapixels 1 4 16 36 64 100] [--encoder small]
    python benchmarks/huge_image.py --megapixels 4 100 --format png
    python benchmarks/huge_image.py --format tiff       # from 30 megapixels on, TIFF is decoded by regions

Every image is a square JPEG (or PNG, TIFF) with many copies of examples/invoice.png. A separate process opens it,
encodes it and asks one question. Its peak memory is that of the whole run: Python, torch, model and image. Weights are
random. The vision encoder takes views of 336 pixels like CLIP; with `--encoder large` it has the size of CLIP-L.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import in_own_process, peak_memory
from PIL import Image

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "examples" / "invoice.png"
QUESTION = "What is the total?"
ENCODERS = {
    "tiny": {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    "small": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2},
    "large": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
}


def write_image(path: Path, megapixels: float) -> None:
    """Write a square image full of pages."""
    side = round(math.sqrt(megapixels * 1e6))
    canvas = Image.new("RGB", (side, side), "white")
    with Image.open(PAGE) as page:
        copy = page.convert("RGB")
    for top in range(0, side, copy.height):
        for left in range(0, side, copy.width):
            canvas.paste(copy, (left, top))
    if path.suffix != ".tiff":
        canvas.save(path, quality=90, compress_level=1)
    else:
        import numpy as np
        import tifffile

        tifffile.imwrite(path, np.asarray(canvas), photometric="rgb", tile=(512, 512), compression="deflate")


def build_model(encoder: str, max_tiles: int, budget: int) -> tuple[Any, Any]:
    """Build a model with random weights and nano's tokenizer."""
    import torch
    from transformers import AutoTokenizer, CLIPVisionConfig, LlamaConfig

    import slime_vlm
    from slime_vlm.checkpoints.shipped import SHIPPED

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED["nano"])
    vision = CLIPVisionConfig(**ENCODERS[encoder], image_size=336, patch_size=14)
    text = LlamaConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        vocab_size=len(tokenizer),
        max_position_embeddings=1_000_000,
    )
    config = slime_vlm.SlimeConfig(
        vision_config=vision,
        text_config=text,
        patch_size=14,
        query_attention_head_dim=min(128, vision.hidden_size),
        separator_token_id=tokenizer.convert_tokens_to_ids(","),
        max_tiles=max_tiles,
        max_local_tokens=budget,
        views_per_chunk=8,
    )
    processor = slime_vlm.SlimeProcessor.from_config(config, tokenizer, "llama3")
    return slime_vlm.SlimeForConditionalGeneration(config).eval(), processor


def measure(path: Path, encoder: str, max_tiles: int, budget: int) -> dict[str, Any]:
    """Open, encode and ask. Run this in a process of its own."""
    from slime_vlm.inference.answering import encode
    from slime_vlm.media import TiledImage, open_input

    model, processor = build_model(encoder, max_tiles, budget)
    # Use everything once, so that one-time costs do not count for the image.
    encode(model, processor, Image.new("RGB", (500, 300), "white")).ask(QUESTION, max_new_tokens=1)
    before = peak_memory()
    start = time.perf_counter()
    image = open_input(path)
    seconds = {"open": time.perf_counter() - start}
    opened = peak_memory()
    answer = encode(model, processor, image).ask(QUESTION, max_new_tokens=1)
    seconds |= answer.seconds
    return {
        "megapixels": image.width * image.height / 1e6,
        "tiles": answer.grid.num_tiles,
        "local": answer.num_local,
        "kept": answer.num_kept,
        "read": answer.num_global + 1 + answer.num_kept,
        "seconds": seconds,
        "decoded": 0.0 if isinstance(image, TiledImage) else image.width * image.height * 4 / 1e6,
        "before": before,
        "opened": opened,
        "peak": peak_memory(),
    }


HEADS = [
    *("megapixels", "tiles", "local tokens", "kept", "LLM tokens", "open, s", "preprocess, s", "encode, s"),
    *("select, s", "prefill, s", "decoded image, MB", "peak, MB"),
]


def line(cells: list[str]) -> str:
    """Return a line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def format_row(row: dict[str, Any]) -> str:
    """Return a measurement as a line under `HEADS`."""
    counts = [f"{row[name]:,}" for name in ("tiles", "local", "kept", "read")]
    seconds = [f"{row['seconds'][step]:.2f}" for step in ("open", "preprocess", "encode", "select", "prefill")]
    return line([f"{row['megapixels']:.0f}", *counts, *seconds, f"{row['decoded']:,.0f}", f"{row['peak']:,.0f}"])


def plot(rows: list[dict[str, Any]], target: Path) -> None:
    """Draw tokens, seconds and memory against megapixels."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    grey, blue, orange = "#8a8a8a", "#1f4e8c", "#d9731a"
    pixels = [row["megapixels"] for row in rows]
    figure, (tokens, seconds, memory) = plt.subplots(1, 3, figsize=(13, 3.8), dpi=110, layout="constrained")
    tokens.plot(pixels, [row["local"] for row in rows], "o-", color=grey, label="local tokens of the image")
    tokens.plot(pixels, [row["read"] for row in rows], "o-", color=blue, label="image tokens in the LLM's input")
    tokens.set(title="Tokens", yscale="log")
    encoding = [row["seconds"]["preprocess"] + row["seconds"]["encode"] for row in rows]
    seconds.plot(pixels, encoding, "o-", color=grey, label="preprocess and encode, once per image")
    seconds.plot(pixels, [row["seconds"]["select"] for row in rows], "o-", color=orange, label="select")
    seconds.plot(pixels, [row["seconds"]["prefill"] for row in rows], "o-", color=blue, label="prefill")
    seconds.set(title="Seconds", yscale="log")
    memory.plot(pixels, [row["peak"] for row in rows], "o-", color=blue, label="peak of the process")
    memory.plot(
        pixels, [row["peak"] - row["decoded"] for row in rows], "o-", color=orange, label="peak without the image"
    )
    memory.plot(pixels, [row["decoded"] for row in rows], "o--", color=grey, label="decoded image alone")
    memory.set(title="Memory, MB", ylim=(0, 1.3 * max(row["peak"] for row in rows)))
    for axes in (tokens, seconds, memory):
        axes.set_xlabel("megapixels")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9, loc="best")
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, facecolor="white")
    plt.close(figure)


def main() -> None:
    """Write the images, measure each in its own process, print the table, draw the plot."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--megapixels", type=float, nargs="+", default=[1, 4, 16, 36, 64, 100])
    parser.add_argument("--encoder", choices=ENCODERS, default="small")
    parser.add_argument("--max-tiles", type=int, default=900)
    parser.add_argument("--budget", type=int, default=256, help="max_local_tokens")
    parser.add_argument("--format", choices=("jpg", "png", "tiff"), default="jpg")
    parser.add_argument("--plot", type=Path, help="PNG file to write")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    rows = []
    print(line(HEADS), line(["---"] * len(HEADS)), sep="\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"image.{arguments.format}"
        for megapixels in arguments.megapixels:
            write_image(path, megapixels)
            rows.append(in_own_process(measure, path, arguments.encoder, arguments.max_tiles, arguments.budget))
            print(format_row(rows[-1]), flush=True)
    if len(rows) > 1:
        first, last = rows[0], rows[-1]
        print(f"\n{last['megapixels']:.0f} megapixels, of {first['megapixels']:.0f}:", end=" ")
        print(f"{last['peak'] / first['peak']:.2f} times the memory,", end=" ")
        print(f"{last['seconds']['prefill'] / first['seconds']['prefill']:.2f} times the prefill")
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1))
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
