"""Teach a vision encoder and the local compressor to read pages, and measure how well they do on held-out ones.

The queries name the character at every place. The encoder is frozen at first, then its last blocks are trained, then
all of it. What frozen parts give is computed once for several steps.
What is measured and saved is a moving average of the weights, so that a run can be stopped at any time. Parts of SliME
are saved under the names that they have in its checkpoints.

    python scripts/convert_recogniser.py runs/recogniser
    python scripts/fetch_typeset_pdfs.py runs/pdfs
    python scripts/train_reader.py runs/recogniser runs/reader --pdfs runs/pdfs --cpu-minutes 160
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, IterableDataset
from transformers import AutoModel

from slime_vlm.errors import ConfigError
from slime_vlm.pages.readable import ReadablePage
from slime_vlm.pages.scan_look import apply_look
from slime_vlm.pages.writing_readable import page_source
from slime_vlm.training.pages.character_cells import words_found
from slime_vlm.training.pages.reading import (
    SLOTS,
    LabelledTiles,
    PageReader,
    labelled_tiles,
    read_page,
    reading_loss,
    reading_score,
    start_from_tiles,
)

HELDOUT_SEED = 1_000_000
FIRST_PAGES = 8
"""Pages whose tiles set the start of projection and head."""

LARGE_PRINT = {"x_height": (14.0, 36.0), "max_side": 9000}
"""Sizes of pages in large print. A window of `LARGE_WINDOW` of them is shown."""

LARGE_WINDOW = (1400, 1100)

Pages = Callable[[int], ReadablePage]


def pages_of(options: argparse.Namespace, split: str, looks: float) -> dict[str, Pages]:
    """Return for every source with a folder a function from seeds to pages, a share of them with looks.

    Raises:
        ConfigError: No folder is given.
    """
    folders = {"typeset": options.pdfs, "browser": options.fonts}
    names = [name for name, folder in folders.items() if folder is not None]
    if not names:
        raise ConfigError("no pages to read, expected --pdfs FOLDER or --fonts FOLDER")

    def with_looks(source: Pages) -> Pages:
        def page(seed: int) -> ReadablePage:
            drawn = source(seed)
            return apply_look(drawn, "mixed", seed) if np.random.default_rng(seed).random() < looks else drawn

        return page

    def with_large_print(name: str) -> Pages:
        usual = page_source(name, split, pdfs=options.pdfs, fonts=options.fonts, x_height=tuple(options.x_height))
        large = page_source(name, split, pdfs=options.pdfs, fonts=options.fonts, **LARGE_PRINT)

        def page(seed: int) -> ReadablePage:
            rng = np.random.default_rng([seed, 2])
            return large(seed).window(LARGE_WINDOW, rng) if rng.random() < options.large else usual(seed)

        return page

    return {name: with_looks(with_large_print(name)) for name in names}


def in_turn(sources: dict[str, Pages]) -> Pages:
    """Return a function that takes pages of all sources in turn."""
    functions = list(sources.values())
    return lambda seed: functions[seed % len(functions)](seed)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("encoder", type=Path, help="folder that convert_recogniser.py wrote")
    parser.add_argument("out", type=Path, help="folder for checkpoints and the log; an unfinished run goes on")
    parser.add_argument("--pdfs", type=Path, help="folder that fetch_typeset_pdfs.py wrote: typeset pages")
    parser.add_argument("--fonts", type=Path, help="folder that fetch_fonts.py wrote: pages laid out by a browser")
    parser.add_argument(
        "--start",
        type=Path,
        help="reader.safetensors of a run, or model.safetensors of a joined model, to go on from",
    )
    parser.add_argument("--looks", type=float, default=0.5, help="share of pages that look scanned or photographed")
    parser.add_argument(
        "--large", type=float, default=0.15, help="share of pages in large print, also of held-out ones"
    )
    parser.add_argument(
        "--x-height", type=float, nargs=2, default=(9.0, 14.0), help="x-heights in pixels of the other pages"
    )
    parser.add_argument("--cpu-minutes", type=float, default=160.0, help="time to train, over all threads")
    parser.add_argument("--frozen", type=float, default=0.2, help="share of the time with a frozen encoder")
    parser.add_argument("--whole", type=float, default=0.2, help="share of the time, the last, in which all is trained")
    parser.add_argument("--blocks", type=int, default=4, help="last blocks of the encoder, trained in between")
    parser.add_argument("--context", type=int, default=0, help="blocks that tell a place what stands around it")
    parser.add_argument("--bf16", action="store_true", help="steps in bfloat16: twice as fast on CPUs with AMX")
    parser.add_argument("--warm-steps", type=int, default=50, help="steps in which the rates rise")
    parser.add_argument("--average", type=float, default=0.997, help="decay of the moving average at every step")
    parser.add_argument("--view", type=int, default=304, help="pixels along a side of a view")
    parser.add_argument("--max-tiles", type=int, default=64)
    parser.add_argument("--tiles", type=int, default=8, help="tiles of a step")
    parser.add_argument("--tiles-of-page", type=int, default=12, help="tiles drawn from a page")
    parser.add_argument("--buffer", type=int, default=1024, help="maps of tiles kept to train on again while frozen")
    parser.add_argument("--reuse", type=int, default=4, help="times that a tile is trained on while frozen")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--encoder-rate", type=float, default=2e-4)
    parser.add_argument("--eval-pages", type=int, default=12)
    parser.add_argument("--heldout-looks", type=float, default=0.0, help="the same share of the held-out pages")
    parser.add_argument("--eval-minutes", type=float, default=10.0, help="the same between two measurements")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--scans", type=Path, help="folder of PNG files: share of RapidOCR's words on them")
    parser.add_argument(
        "--scan-tiles", type=int, nargs="+", help="most tiles of a scan, each measured; large print needs few"
    )
    parser.add_argument("--eval-only", action="store_true")
    return parser.parse_args()


class Run:
    """A run: the reader, its optimizer, and how much of its time is used."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        torch.manual_seed(options.seed)
        encoder = AutoModel.from_pretrained(options.encoder, image_size=options.view, trust_remote_code=False)
        self.reader = PageReader(encoder, context=options.context)
        # In the same order in every run: the optimizer's state is matched by it.
        self.stages = [*encoder.stem.parameters(), *encoder.stages.parameters()]
        known = set(self.stages)
        others = [parameter for parameter in self.reader.parameters() if parameter not in known]
        last = encoder.stages[-1]
        self.blocks = [*last[len(last) - options.blocks :].parameters()]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": others, "rate": options.rate},
                {"params": self.stages, "rate": options.encoder_rate},
            ],
            betas=(0.9, 0.98),
            weight_decay=0.01,
        )
        self.seconds, self.page, self.step = 0.0, 0, 0
        if options.start is not None:
            known = self.reader.state_dict()
            weights = {name.removeprefix("model."): value.float() for name, value in load_file(options.start).items()}
            blocks = len({name.split(".")[2] for name in weights if name.startswith("local_compressor.context.")})
            if blocks > options.context:
                raise SystemExit(f"{options.start} has {blocks} blocks of context, expected --context {blocks} or more")
            weights = {name: value for name, value in weights.items() if name in known}
            # A new block of context changes nothing, and a reader does not use the encoder's projection.
            missing = [
                name for name in known.keys() - weights.keys() if not re.search(r"\.(context|projection)\.", name)
            ]
            if missing:
                raise SystemExit(f"{options.start} lacks {min(missing)}, expected a reader or a joined model")
            self.reader.load_state_dict(weights, strict=False)
        self.averaged = AveragedModel(self.reader)
        self.state = options.out / "state.pt"
        if self.state.exists():
            saved = torch.load(self.state)
            self.reader.load_state_dict(saved["reader"])
            self.averaged.load_state_dict(saved["averaged"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.seconds, self.page, self.step = saved["seconds"], saved["page"], saved["step"]
        self.shape = {"view_size": options.view, "max_tiles": options.max_tiles}

    @property
    def progress(self) -> float:
        """Share of the time that is used."""
        return min(1.0, self.seconds / (60 * self.options.cpu_minutes))

    def labelled(self, pages: Pages, seed: int) -> LabelledTiles:
        """Draw and label the page of a seed."""
        return labelled_tiles(pages(seed), **self.shape)

    def set_rates(self) -> str:
        """Set the learning rates for now, and return what is trained of the encoder: "nothing", "blocks" or "all"."""
        options = self.options
        trained = "all" if self.progress >= 1 - options.whole else "blocks"
        trained = "nothing" if self.progress < options.frozen else trained
        warm = min(1.0, (self.step + 1) / options.warm_steps)
        fall = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.progress))
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * warm * fall
        for parameter in self.stages:
            parameter.requires_grad_(trained == "all")
        for parameter in self.blocks:
            parameter.requires_grad_(trained != "nothing")
        return trained

    def learn(self, inputs: Tensor, ids: Tensor, trained: str) -> float:
        """Take one step on pixels if all of the encoder is trained, on maps otherwise."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.options.bf16):
            if trained == "all":
                logits = self.reader(self.reader.early_map(inputs))
            else:
                logits = self.reader(inputs.float(), self.options.blocks if trained == "blocks" else 0)
            loss = reading_loss(logits, ids)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.reader.parameters(), 1.0)
        self.optimizer.step()
        # A short average at first: the weights that training began with are soon forgotten.
        decay = min(self.options.average, (1 + self.step) / (10 + self.step))
        self.averaged.multi_avg_fn = get_ema_multi_avg_fn(decay)
        self.averaged.update_parameters(self.reader)
        self.step += 1
        return loss.item()

    def save(self) -> None:
        """Write the averaged weights, and what is needed to go on."""
        self.options.out.mkdir(parents=True, exist_ok=True)
        weights = {name: value.contiguous() for name, value in self.averaged.module.state_dict().items()}
        part = self.options.out / "reader.part"
        save_file(weights, part)
        part.rename(self.options.out / "reader.safetensors")
        state = {
            "reader": self.reader.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        part = self.state.with_suffix(".part")
        torch.save(state | {"seconds": self.seconds, "page": self.page, "step": self.step}, part)
        part.rename(self.state)

    def log(self, **values: Any) -> None:
        """Print and append a line of the log."""
        line = json.dumps({"step": self.step, "cpu_minutes": round(self.seconds / 60, 1), "pages": self.page, **values})
        print(line, flush=True)  # noqa: T201
        with (self.options.out / "log.jsonl").open("a") as file:
            file.write(line + "\n")


def scan_pages(run: Run, folder: Path) -> dict[str, tuple[LabelledTiles, list[str]]]:
    """Return the tiles of scans at every size, and RapidOCR's words of four and more letters on them."""
    from slime_vlm.evaluation.ocr_baseline.reader import OcrReader

    ocr = OcrReader(run.options.threads)
    scans = {}
    for path in sorted(folder.glob("*.png")):
        image = Image.open(path).convert("RGB")
        words = sorted({word for box in ocr.read(image) for word in re.findall(r"[^\W\d_]{4,}", box.text)})
        page = ReadablePage(
            image=np.asarray(image),
            characters="",
            boxes=np.zeros((0, 4), np.float32),
            lines=np.zeros(0, np.int32),
            questions=[],
            source="scan",
            template=path.name,
            split="heldout",
            seed=0,
            x_height=0.0,
        )
        for most in run.options.scan_tiles or [run.options.max_tiles]:
            tiles = labelled_tiles(page, **run.shape | {"max_tiles": most})
            scans[f"{path.name}, {most} tiles"] = tiles, words
    return scans


class Measurement:
    """What is measured: held-out pages, and scans if a folder is given."""

    def __init__(self, run: Run) -> None:
        options = run.options
        self.reader: PageReader = run.averaged.module
        self.heldout = {
            name: [run.labelled(pages, HELDOUT_SEED + k) for k in range(options.eval_pages)]
            for name, pages in pages_of(options, "heldout", options.heldout_looks).items()
        }
        self.scans = scan_pages(run, options.scans) if options.scans else {}

    def __call__(self) -> dict[str, Any]:
        """Return the share of held-out cells that are read right, and how many of RapidOCR's words are read whole."""
        found: dict[str, Any] = {}
        for name, heldout in self.heldout.items():
            counts: Counter[str] = Counter()
            for page in heldout:
                counts.update(reading_score(self.reader, page))
            found[name] = {
                "right": round(counts["right"] / counts["cells"], 4),
                "right_up_to_3": round(counts["short_right"] / max(1, counts["short"]), 4),
                "exact": round(counts["exact"] / counts["cells"], 4),
                "words": round(counts["whole"] / counts["words"], 4),
                "cells": counts["cells"],
            }
        for name, (page, words) in self.scans.items():
            found[name] = f"{sum(words_found(self._raster(page), words))} of {len(words)}"
        return found

    def _raster(self, page: LabelledTiles) -> np.ndarray:
        return read_page(self.reader, page, whole=True).cells((page.cells.rows, page.cells.cols), SLOTS)


class DrawnTiles(IterableDataset[tuple[Tensor, Tensor]]):
    """Tiles of consecutive pages with their ids, without end. A process of its own draws them while steps are taken."""

    def __init__(self, run: Run, pages: Pages) -> None:
        self.options, self.shape, self.first = run.options, run.shape, run.page
        self.pages = pages

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        torch.set_num_threads(1)
        rng = np.random.default_rng([self.options.seed, self.first])
        for seed in itertools.count(self.first):
            yield labelled_tiles(self.pages(seed), **self.shape).chosen(self.options.tiles_of_page, rng)


def start(run: Run, pages: Pages) -> None:
    """Set the start of projection and head by some tiles."""
    rng = np.random.default_rng(run.options.seed)
    drawn = [run.labelled(pages, seed).chosen(4, rng) for seed in range(FIRST_PAGES)]
    with torch.no_grad():
        maps = torch.cat([run.reader.early_map(tiles) for tiles, _ in drawn])
    start_from_tiles(run.reader, maps, torch.cat([ids for _, ids in drawn]))


def train(run: Run, pages: Pages, measure: Measurement) -> None:
    """Train until the time is over."""
    options = run.options
    # Tiles of one page are alike: every step takes tiles of several pages. What is kept of a tile is its map where the
    # frozen part of the encoder ends, and each is used several times.
    maps: deque[tuple[Tensor, ...]] = deque(maxlen=options.buffer)
    pixels: deque[tuple[Tensor, ...]] = deque(maxlen=8 * options.tiles)
    rng = np.random.default_rng([options.seed, run.page])
    losses: list[float] = []
    measured = run.seconds
    before = ""
    if run.step == 0 and options.start is None:
        start(run, pages)
    # Forked: the pages' functions cannot be sent to another process.
    drawn_tiles = iter(
        DataLoader(
            DrawnTiles(run, pages), batch_size=None, num_workers=1, prefetch_factor=8, multiprocessing_context="fork"
        )
    )
    while run.progress < 1:
        started = time.process_time()
        trained = run.set_rates()
        if trained != before:
            maps.clear()
        before = trained
        tiles, ids = next(drawn_tiles)
        run.page += 1
        if trained != "all":
            blocks = options.blocks if trained == "blocks" else 0
            with torch.no_grad():
                tiles = torch.cat([run.reader.early_map(part, blocks).half() for part in tiles.split(2)])
        kept = pixels if trained == "all" else maps
        kept.extend(zip(tiles, ids, strict=True))
        steps = len(tiles) * (1 if trained == "all" else options.reuse) / options.tiles
        for _ in range(max(1, round(steps))):
            drawn = rng.choice(len(kept), min(options.tiles, len(kept)), replace=False)
            batch = [torch.stack(part) for part in zip(*(kept[i] for i in drawn), strict=True)]
            losses.append(run.learn(batch[0], batch[1], trained))
        run.seconds += time.process_time() - started
        if run.seconds - measured > 60 * options.eval_minutes or run.progress >= 1:
            measured = run.seconds
            run.save()
            run.log(loss=round(float(np.mean(losses[-200:])), 3), trained=trained, **measure())


def main() -> None:
    """Train and measure."""
    options = arguments()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    run = Run(options)
    measure = Measurement(run)
    if options.eval_only:
        run.log(**measure())
        return
    train(run, in_turn(pages_of(options, "train", options.looks)), measure)


if __name__ == "__main__":
    main()
