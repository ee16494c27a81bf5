"""Measure what it costs to decode files in a process of their own.

    python benchmarks/decoding.py [--megapixels 20] [--rounds 5] [--out decoding.json]

Files of the formats that `media.worker_pool` decodes in a worker are opened in this process and through a worker in
turns, each in a fresh process. The table has the processor time of all processes of either way, the medians of the
rounds, and their ratio. The start of a worker and the first opening of a file do not count.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from machine import load_warning, machine, own_process
from PIL import Image

from slime_vlm.media import open_image
from slime_vlm.media.decoding import read_image
from slime_vlm.media.request import Request

_OPENINGS = 5
PAGE = Path(__file__).parent.parent / "examples" / "printed_invoice.png"


def photograph(megapixels: float) -> Image.Image:
    """A large image with detail and grain: a printed page, enlarged, with noise."""
    page = Image.open(PAGE).convert("RGB")
    scale = math.sqrt(megapixels * 1e6 / (page.width * page.height))
    page = page.resize((round(scale * page.width), round(scale * page.height)), Image.Resampling.BICUBIC)
    grain = Image.effect_noise((page.width // 2, page.height // 2), 12).resize(page.size)
    return Image.blend(page, Image.merge("RGB", [grain] * 3), 0.15)


def write_files(folder: Path, megapixels: float) -> dict[str, Path]:
    """Write a file of each format, those that Pillow can write here, and a PDF page of one image."""
    image = photograph(megapixels)
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "TIFF, LZW": ("tif", {"compression": "tiff_lzw"}),
        "TIFF, not compressed": ("tif", {}),
        "JPEG 2000": ("jp2", {"quality_mode": "rates", "quality_layers": [20]}),
        "AVIF": ("avif", {"speed": 9}),
        "HEIC": ("heic", {}),
        "BMP": ("bmp", {}),
    }
    files = {}
    try:
        pillow_heif = importlib.import_module("pillow_heif")
        pillow_heif.register_heif_opener()
    except ModuleNotFoundError:
        pass
    for name, (suffix, options) in kinds.items():
        path = folder / f"{name.replace(', ', '_').replace(' ', '_')}.{suffix}"
        try:
            image.save(path, **options)
        except (KeyError, ValueError, OSError) as error:
            print(f"{name}: left out ({error})")
            continue
        files[name] = path
    # 200 dpi are what pages are rendered at, so the image keeps its pixels.
    files["PDF of one image"] = folder / "page.pdf"
    image.save(files["PDF of one image"], resolution=200.0, quality=90)
    return files


def used(action: Callable[[], Any]) -> float:
    """Return the processor time of this process and of its workers for an action. It is counted in 10 ms."""

    def total() -> float:
        me = psutil.Process()
        times = [part.cpu_times() for part in (me, *me.children(recursive=True))]
        return sum(part.user + part.system for part in times)

    before = total()
    for _ in range(_OPENINGS):
        action()
    return (total() - before) / _OPENINGS


def opened_here(path: Path) -> float:
    """Return processor seconds of opening a file in this process."""
    return used(lambda: read_image(Request(path, path.name)))


def opened_by_a_worker(path: Path) -> float:
    """Return processor seconds of opening a file through a worker."""
    return used(lambda: open_image(path))


def measure(path: Path, rounds: int) -> tuple[float, float]:
    """Return processor seconds of both ways. Each has a process, as decoders are slower in new memory."""
    with own_process() as here, own_process() as beside:
        found = [
            (here.submit(opened_here, path).result(), beside.submit(opened_by_a_worker, path).result())
            for _ in range(rounds + 1)
        ]
    return statistics.median(one for one, _ in found[1:]), statistics.median(two for _, two in found[1:])


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the rows to this file as JSON")
    arguments = parser.parse_args()
    warning = load_warning()
    print(machine())
    rows = []
    with tempfile.TemporaryDirectory() as name:
        files = write_files(Path(name), arguments.megapixels)
        print("| file | here, CPU s | with a worker | more |\n| --- | --- | --- | --- |")
        for kind, path in files.items():
            here, both = measure(path, arguments.rounds)
            rows.append({"file": kind, "here": here, "worker": both, "more": both / here - 1})
            print(f"| {kind} | {here:.3f} | {both:.3f} | {both / here - 1:+.0%} |", flush=True)
    if warning:
        print(f"\nWarning: {warning}")
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
