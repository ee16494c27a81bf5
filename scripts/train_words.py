"""Teach the language side of a page model to find and copy values whose keys it has never seen, on perfect tokens.

Sheets of keys and values are laid out without pixels, cut into cells, and every cell's characters are given. What is
measured uses keys, values and, where named, wordings that training never uses. An unfinished run goes on.

    python scripts/fetch_fonts.py runs/fonts
    python scripts/train_words.py runs/words --words runs/fonts/wamerican/usr/share/dict/american-english
    torchrun --nproc-per-node 2 scripts/train_words.py runs/words ...    # twice the pages a step, on two cores
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file

from slime_vlm.pages.page import ABSENT
from slime_vlm.pages.text_page import TextPage, read_text_pages, stretched
from slime_vlm.pages.text_sheets import SheetSettings, TextSheets
from slime_vlm.pages.word_lists import read_words
from slime_vlm.training.pages.words.answerer import AnswererSettings, PageAnswerer
from slime_vlm.training.pages.words.batch import make_batch
from slime_vlm.training.pages.words.cells import CellSettings, PageCells, cells_of
from slime_vlm.training.pages.words.losses import LossWeights, finding_losses, look_losses, word_losses
from slime_vlm.training.pages.words.measuring import measure
from slime_vlm.training.pages.words.readings import as_read

HELDOUT_SEED = 1_000_000
BESIDE = (("beside", 1.0),)
HELDOUT = SheetSettings(layouts=BESIDE, synonyms=0.0, wrapped=0.0, absent=0.1, keys="heldout")

TESTS: dict[str, tuple[SheetSettings, dict[str, Any]]] = {
    "4 lines": (replace(HELDOUT, lines=(4, 4)), {}),
    "12 lines": (replace(HELDOUT, lines=(12, 12)), {}),
    "30 lines": (replace(HELDOUT, lines=(30, 30)), {}),
}
"""What is measured during training: settings of the sheets and of their cells."""

MORE_TESTS: dict[str, tuple[SheetSettings, dict[str, Any]]] = {
    "12 lines, wordings never trained": (replace(HELDOUT, lines=(12, 12), wordings="heldout"), {}),
    "30 lines, wordings never trained": (replace(HELDOUT, lines=(30, 30), wordings="heldout"), {}),
    "12 lines, known keys in other words": (replace(HELDOUT, lines=(12, 12), known=0.9, synonyms=1.0), {}),
    "12 lines, keys above values": (replace(HELDOUT, lines=(12, 12), layouts=(("above", 1.0),)), {}),
    "12 lines, tables": (replace(HELDOUT, lines=(12, 12), layouts=(("table", 1.0),)), {}),
    "12 lines, wrapped values": (replace(HELDOUT, lines=(12, 12), wrapped=1.0), {}),
    "12 lines, 5% of characters misread at most": (replace(HELDOUT, lines=(12, 12)), {"misread": 0.05}),
    "12 lines, 20% of characters misread at most": (replace(HELDOUT, lines=(12, 12)), {"misread": 0.2}),
    "12 lines, characters beyond edges": (replace(HELDOUT, lines=(12, 12)), {"edge": True}),
}
"""What is measured at the end as well."""

UNPRINTED = ("kind", "colour", "position")
"""Families of questions whose answers need not be printed."""

STEPS_DRAWN = 8
"""Steps whose pages are drawn together."""

HARD_CELLS = (80, 160)
"""Cells among which the finder looks for answers, where they are chosen as the selector does."""

MOST_QUESTIONS = 8
"""Questions about a printed page that a step asks."""

BUDGET_LINES = (12, 30, 200)
"""Lines of the sheets of which only the selector's best 128 tokens are read."""


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, help="folder for checkpoints and the log; an unfinished run goes on")
    parser.add_argument("--words", type=Path, help="word list; without it words are made up")
    parser.add_argument(
        "--pages",
        type=Path,
        nargs="+",
        default=[],
        help="files of gather_text_pages.py, from 0.4 of the time on",
    )
    parser.add_argument("--pages-share", type=float, default=0.5, help="share of these pages, once they are used")
    parser.add_argument(
        "--start",
        type=Path,
        help="words.safetensors of another run, or model.safetensors of a joined model, to go on from",
    )
    parser.add_argument("--heldout-pages", type=Path, help="the same of held-out pages, measured at the end")
    parser.add_argument("--cpu-minutes", type=float, default=25.0)
    parser.add_argument("--look", type=float, default=0.0, help="share of the time before the language model trains")
    parser.add_argument("--finder", type=float, default=0.0, help="share of the time before all but the finder trains")
    parser.add_argument("--cell", type=int, nargs=2, default=(32, 32), help="height and width of a cell in pixels")
    parser.add_argument("--plain", action="store_true", help="a plain softmax instead of the copy output")
    parser.add_argument("--unguided", action="store_true", help="tell what is asked where an answer begins, not later")
    parser.add_argument("--no-finder", action="store_true", help="no answer finder")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--misread", type=float, default=0.0, help="most characters misread, from half of the time on")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--eval-minutes", type=float, default=4.0)
    parser.add_argument("--eval-pages", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--eval-only", action="store_true", help="measure everything, and the budgets of tokens")
    options = parser.parse_args()
    if options.finder and (options.no_finder or options.plain):
        parser.error("--finder trains the answer finder, which there is none of with --no-finder or --plain")
    for path in (options.words, *options.pages, options.heldout_pages, options.start):
        if path is not None and not path.is_file():
            parser.error(f"{path} is no file, expected the output of fetch_fonts.py or gather_text_pages.py")
    return options


def printed_pages(path: Path) -> list[TextPage]:
    """Return the pages of a file with the questions that characters alone can answer."""
    pages = []
    for page in read_text_pages(path):
        page.questions = [one for one in page.questions if one.family not in UNPRINTED or one.answer == ABSENT]
        if page.questions:
            pages.append(page)
    return pages


def some_questions(page: TextPage, rng: np.random.Generator) -> TextPage:
    """Return the page with some of its questions: more pages teach more than more questions about a page."""
    if len(page.questions) <= MOST_QUESTIONS:
        return page
    chosen = rng.choice(len(page.questions), MOST_QUESTIONS, replace=False)
    return replace(page, questions=[page.questions[k] for k in sorted(chosen)])


def of_part(name: str) -> str:
    """Return the name that a tensor of a joined checkpoint has in the language side."""
    return name.removeprefix("model.").replace("page_positions.linear.", "page_positions.")


def is_finder(name: str) -> bool:
    """Whether a tensor belongs to the answer finder."""
    return name.startswith("answer_finder.")


class Run:
    """A run: the model, its optimizer, and how much of its time is used."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        torch.manual_seed(options.seed)
        self.settings = AnswererSettings(
            dim=options.dim,
            layers=options.layers,
            copies=not options.plain,
            guided=not options.unguided,
            finds=not options.no_finder,
        )
        self.model = PageAnswerer(self.settings)
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        vectors = [p for p in self.model.parameters() if p.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}],
            lr=options.rate,
            betas=(0.9, 0.98),
            fused=True,
        )
        self.seconds, self.page, self.step = 0.0, 0, 0
        if options.start is not None:
            # Parts that have another shape, or are new, begin anew.
            known = self.model.state_dict()
            weights = {of_part(name): part.float() for name, part in load_file(options.start).items()}
            fits = {name: part for name, part in weights.items() if name in known and known[name].shape == part.shape}
            if not any(name.startswith("language_model.") for name in fits):
                raise SystemExit(
                    f"{options.start} holds no language side of this size, expected the words.safetensors of another "
                    "run or the model.safetensors of a joined model"
                )
            if sum(map(is_finder, fits)) < sum(map(is_finder, known)):
                # The finder of another size begins anew as a whole.
                fits = {name: part for name, part in fits.items() if not is_finder(name)}
            self.model.load_state_dict(fits, strict=False)
        self.state = options.out / "state.pt"
        if self.state.exists():
            saved = torch.load(self.state)
            try:
                self.model.load_state_dict(saved["model"])
            except RuntimeError as error:
                raise SystemExit(
                    f"{self.state} is of a model of other parts or sizes, train into a new folder "
                    f"({str(error).splitlines()[-1].strip()})"
                ) from None
            self.optimizer.load_state_dict(saved["optimizer"])
            self.seconds, self.page, self.step = saved["seconds"], saved["page"], saved["step"]
        self.rank, self.ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.listed = read_words(options.words)
        self.cells = CellSettings(size=tuple(options.cell), slots=self.settings.slots)
        # What was misread is answered as it was read: a language model cannot know better.
        pages = (page for path in options.pages for page in printed_pages(path))
        mine = islice(pages, self.rank, None, self.ranks)
        self.printed = [page for page in map(as_read, mine) if page.questions]
        self.waiting: list[list[PageCells]] = []

    @property
    def progress(self) -> float:
        """Share of the time that is used."""
        return min(1.0, self.seconds / (60 * self.options.cpu_minutes))

    @property
    def stage(self) -> float:
        """Progress as the curriculum has it: a run that goes on from another one's weights is past its beginning."""
        return max(self.progress, 0.0 if self.options.start is None else 0.55)

    def save(self) -> None:
        """Write the weights, and what is needed to go on."""
        part = self.options.out / "words.part"
        save_file({name: value.contiguous() for name, value in self.model.state_dict().items()}, part)
        part.rename(self.options.out / "words.safetensors")
        part = self.state.with_suffix(".part")
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save(state | {"seconds": self.seconds, "page": self.page, "step": self.step}, part)
        part.rename(self.state)

    def log(self, **values: Any) -> None:
        """Print and append a line of the log."""
        line = json.dumps({"step": self.step, "cpu_minutes": round(self.seconds / 60, 1), "pages": self.page, **values})
        print(line, flush=True)  # noqa: T201
        with (self.options.out / "log.jsonl").open("a") as file:
            file.write(line + "\n")

    def curriculum(self) -> tuple[SheetSettings, int]:
        """Return the sheets of now, and how many make a step: single keys, then a few, then whole sheets."""
        progress = self.stage
        if self._looks:
            return SheetSettings(lines=(3, 40)), 4
        if progress < 0.1:
            return SheetSettings(lines=(1, 2), layouts=BESIDE, distractors=False, questions=2, absent=0.0), 8
        if progress < 0.3:
            return SheetSettings(lines=(2, 3 + int(40 * (progress - 0.1))), questions=4), 5
        return SheetSettings(), 3

    def next_pages(self, rng: np.random.Generator) -> tuple[list[PageCells], list[float]]:
        """Draw the pages of a step, and the share of their tokens that is read."""
        if not self.waiting:
            self.waiting = self._draw(rng)
        pages = self.waiting.pop()
        # Most long pages are thinned out: to find the asked tokens among a hundred is to find them among more.
        shown = [max(1, int(page.shown.sum())) for page in pages]
        keep = [rng.uniform(0.3, 1.2) * min(1.0, 130 / n) if rng.random() < 0.8 else min(1.0, 200 / n) for n in shown]
        return pages, keep

    def _draw(self, rng: np.random.Generator) -> list[list[PageCells]]:
        """Draw the pages of some steps. Those of a step are about equally long, so that little is padding."""
        settings, count = self.curriculum()
        sheets = TextSheets(self.listed, settings)
        cells = replace(self.cells, misread=self.options.misread, edge=True) if self._noisy else self.cells
        total = count * STEPS_DRAWN
        printed = int(total * self.options.pages_share) if self.printed and (self._looks or self.stage > 0.4) else 0
        drawn = [self.printed[k] for k in rng.integers(max(1, len(self.printed)), size=printed)]
        texts = [some_questions(stretched(page, rng), rng) for page in drawn]
        first = self.page + self.rank * total
        texts += [sheets.page(first + k) for k in range(total - printed)]
        self.page += total * self.ranks
        pages = sorted((cells_of(text, cells, rng) for text in texts), key=lambda page: int(page.shown.sum()))
        steps = [pages[k : k + count] for k in range(0, total, count)]
        # In the same order in all processes, which wait for each other: those of a step are about equally long.
        order = np.random.default_rng([self.options.seed, self.page]).permutation(len(steps))
        return [steps[k] for k in order]

    @property
    def _looks(self) -> bool:
        """Whether only what comes before the language model trains, which takes a fraction of the time."""
        return self.progress < max(self.options.look, self.options.finder)

    @property
    def _noisy(self) -> bool:
        return self.options.misread > 0 and self.stage > 0.5

    def learn(self, rng: np.random.Generator) -> dict[str, float]:
        """Take one step."""
        progress = self.progress
        rate = self.options.rate * min(1.0, (self.step + 1) / 60)
        rate *= 1.0 if progress < 0.4 else max(0.02, (1 - progress) / 0.6)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        pages, keep = self.next_pages(rng)
        batch = make_batch(pages, self.settings.buckets, keep, rng)
        if self._looks:
            most = int(rng.integers(*HARD_CELLS)) if rng.random() < 0.5 else None
            frozen = progress < self.options.finder
            look = self.model.look_and_find(batch, most, frozen)
            if frozen:
                loss, logs = finding_losses(batch, look, LossWeights())
            else:
                loss, logs, _ = look_losses(self.model, batch, look, LossWeights())
        else:
            loss, logs = word_losses(self.model, batch, self.model(batch), LossWeights())
        self.optimizer.zero_grad()
        loss.backward()
        self._share_gradients()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        return logs

    def _share_gradients(self) -> None:
        """Average the gradients of all processes."""
        if self.ranks == 1:
            return
        parameters = list(self.model.parameters())
        # What no process has a gradient of stays without: weight decay would shrink it.
        learns = torch.tensor([float(parameter.grad is not None) for parameter in parameters])
        dist.all_reduce(learns)
        gradients = []
        for parameter, count in zip(parameters, learns.tolist(), strict=True):
            if count and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if parameter.grad is not None:
                gradients.append(parameter.grad)
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.ranks
        for gradient, part in zip(gradients, flat.split([one.numel() for one in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def spend(self, seconds: float) -> None:
        """Count the time that a step took, the mean of all processes, so that they end together."""
        if self.ranks > 1:
            spent = torch.tensor(seconds, dtype=torch.float64)
            dist.all_reduce(spent)
            seconds = float(spent) / self.ranks
        self.seconds += seconds

    def heldout(self, settings: SheetSettings, **cells: Any) -> list[PageCells]:
        """Return held-out pages, the same ones every time."""
        rng = np.random.default_rng(HELDOUT_SEED)
        sheets = TextSheets(self.listed, settings)
        how = replace(self.cells, **cells)
        return [cells_of(sheets.page(HELDOUT_SEED + k), how, rng) for k in range(self.options.eval_pages)]

    def measured(self, tests: dict[str, tuple[SheetSettings, dict[str, Any]]]) -> dict[str, Any]:
        """Measure some tests."""
        return {name: measure(self.model, self.heldout(sheets, **cells)) for name, (sheets, cells) in tests.items()}


def train(run: Run) -> None:
    """Train until the time is over."""
    rng = np.random.default_rng([run.options.seed, run.step, run.rank])
    measured, shown = run.seconds, run.seconds
    logs: list[dict[str, float]] = []
    while run.progress < 1:
        started = time.process_time()
        learnt = run.learn(rng)
        if run.rank == 0:
            logs.append(learnt)
        run.spend(time.process_time() - started)
        if run.seconds - shown > 30 and run.rank == 0:
            shown = run.seconds
            run.log(**{name: round(float(np.mean([log[name] for log in logs if name in log])), 3) for name in logs[-1]})
            logs.clear()
            run.save()
        if run.rank == 0 and (run.seconds - measured > 60 * run.options.eval_minutes or run.progress >= 1):
            measured = run.seconds
            run.log(**run.measured(TESTS))
    if run.rank == 0:
        run.save()


def main() -> None:
    """Train and measure."""
    options = arguments()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    if dist.is_torchelastic_launched():
        dist.init_process_group("gloo")
    run = Run(options)
    if not options.eval_only:
        train(run)
    if dist.is_initialized():
        dist.destroy_process_group()
    if run.rank > 0:
        return
    for name, test in (TESTS | MORE_TESTS).items():
        run.log(**run.measured({name: test}))
    for lines in BUDGET_LINES:
        pages = run.heldout(replace(HELDOUT, lines=(lines, lines), known=0.1))
        run.log(**{f"{lines} lines, best 128 tokens": measure(run.model, pages, budget=128, batch_size=1)})
    if options.heldout_pages:
        rng = np.random.default_rng(HELDOUT_SEED)
        printed = [cells_of(page, run.cells, rng) for page in printed_pages(options.heldout_pages)]
        run.log(printed=measure(run.model, printed, batch_size=1))
        run.log(printed_best_128=measure(run.model, printed, budget=128, batch_size=1))


if __name__ == "__main__":
    main()
