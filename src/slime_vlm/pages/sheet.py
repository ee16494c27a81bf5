"""A sheet for laying out a page: text and shapes are given in pixels of the tile grid and stored in page pixels."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from slime_vlm.model.tiling import TileGrid
from slime_vlm.pages.fonts import FontMetrics, font_metrics, font_names
from slime_vlm.pages.page import Colour, Drawing, Page, Question, Run, TextStyle
from slime_vlm.pages.settings import PageSettings
from slime_vlm.pages.values import is_heldout

# Least width of a character. A visual token of the small model covers 32 grid pixels and names at most five characters.
MIN_ADVANCE = 6.4
MIN_PITCH = 33.0
GAP = 26.0  # between two texts on a line

_PAPERS: tuple[Colour, ...] = (
    (255, 255, 255),
    (255, 255, 255),
    (252, 250, 244),
    (246, 247, 250),
    (250, 246, 232),
    (240, 240, 238),
)
_INKS: tuple[Colour, ...] = ((0, 0, 0), (18, 18, 22), (40, 40, 44), (24, 30, 70), (60, 30, 20), (62, 62, 66))
_ACCENTS: tuple[Colour, ...] = ((30, 60, 120), (120, 30, 40), (20, 90, 70), (70, 70, 75), (90, 50, 120), (140, 80, 20))


@dataclass(frozen=True)
class Face:
    """A font at a size.

    Attributes:
        name: Name of the font.
        size: Size in whole page pixels.
        metrics: Its measures for size 1.
        unit: Page pixels of one grid pixel.
    """

    name: str
    size: int
    metrics: FontMetrics
    unit: float

    def advances(self, text: str) -> np.ndarray:
        """Return the width of every character, float64 [len(text)], in page pixels."""
        codes = np.frombuffer(text.encode("ascii"), np.uint8)
        return np.maximum(self.metrics.advances[codes] * self.size, MIN_ADVANCE * self.unit)

    def width(self, text: str) -> float:
        """Return the width of a text in grid pixels."""
        return float(self.advances(text).sum()) / self.unit

    @property
    def grid_size(self) -> float:
        """Font size in grid pixels."""
        return self.size / self.unit


class Sheet:
    """A page during layout. Every coordinate is in pixels of the tile grid, from the corner of the page.

    Attributes:
        height: Height of the page in grid pixels.
        width: Width of the page in grid pixels.
        pitch: Distance between two lines.
        body: Face of most text.
        head: Face of titles and headers.
        ink: Colour of most text.
        paper: Background colour.
        accent: Colour of rules and headers.
        runs: Texts placed so far.
        questions: Filled by the page kinds.
        layout: Name of the arrangement.
    """

    def __init__(self, rng: random.Random, page_height: int, page_width: int, grid: TileGrid, settings: PageSettings):
        self.rng = rng
        self.settings = settings
        self.split = settings.split
        self.page_height, self.page_width = page_height, page_width
        # Scaled images have whole pixels, so the scales of the two axes differ slightly. Take the one that fits both.
        self.unit = max(page_height / grid.scaled_height, page_width / grid.scaled_width)
        self.height, self.width = page_height / self.unit, page_width / self.unit
        names = font_names(settings.split, settings.fonts)
        low, high = settings.text_px
        size = low + (high - low) * rng.random() ** 1.4  # small print is more common than large
        self.body = self.face(rng.choice(names), size)
        self.head = self.body if rng.random() < 0.5 else self.face(rng.choice(names), size)
        tallest = max(self.body.grid_size, self.head.grid_size)
        self.pitch = max(MIN_PITCH, 1.5 * tallest) * rng.uniform(1.0, 1.08)
        self.margin = rng.uniform(7.0, 14.0) if min(self.height, self.width) < 400 else rng.uniform(10.0, 28.0)
        self.ink = rng.choice(_INKS)
        self.paper = rng.choice(_PAPERS)
        self.accent = rng.choice(_ACCENTS)
        self.runs: list[Run] = []
        self.styles: list[TextStyle] = []
        self.drawings: list[Drawing] = []
        self.questions: list[Question] = []
        self.layout = ""

    @property
    def heldout(self) -> bool:
        """Whether the page belongs to a held-out split."""
        return self.split != "train"

    def allows(self, value: str) -> bool:
        """Return whether a value may be printed on a page of this split."""
        return is_heldout(value) == self.heldout

    def face(self, name: str, size: float) -> Face:
        """Return a font at a size in grid pixels, larger (within `text_px`) if its digits would be too narrow."""
        metrics = font_metrics(name)
        digit = float(metrics.advances[48])
        size = min(max(size, 10.0 / digit), max(size, self.settings.text_px[1]))
        return Face(name, max(6, round(size * self.unit)), metrics, self.unit)

    def choose_layout(self, trained: tuple[str, ...], heldout: tuple[str, ...]) -> str:
        """Draw an arrangement. Only held-out pages use the held-out ones, half of the time."""
        name = self.rng.choice(heldout if self.heldout and self.rng.random() < 0.5 else trained)
        self.layout = name
        return name

    def text(
        self,
        x: float,
        middle: float,
        text: str,
        role: str,
        words: tuple[str, ...] = (),
        word_runs: tuple[int, ...] = (),
        *,
        face: Face | None = None,
        colour: Colour | None = None,
        align: str = "left",
    ) -> int:
        """Place a text on a line and return its index.

        Args:
            x: Left end, right end or middle of the text, depending on `align`.
            middle: Height of the middle of a capital letter.
            text: The characters.
            role: See `Run`.
            words: See `Run`.
            word_runs: See `Run`.
            face: Font and size, by default the body's.
            colour: By default the ink.
            align: "left", "right" or "centre".
        """
        face = face or self.body
        advances = face.advances(text)
        total = float(advances.sum())
        left = x * self.unit - total * {"left": 0.0, "right": 1.0, "centre": 0.5}[align]
        left = min(max(left, 1.0), max(1.0, self.page_width - 1.0 - total))
        metrics = face.metrics
        baseline = round(middle * self.unit + metrics.capital * face.size / 2)
        boxes = np.empty((len(text), 4), np.float32)
        ends = np.cumsum(advances) + left
        boxes[:, 0], boxes[:, 2] = ends - advances, ends
        boxes[:, 1], boxes[:, 3] = baseline - metrics.ascent * face.size, baseline + metrics.descent * face.size
        self.runs.append(Run(text, boxes, role, words, word_runs))
        self.styles.append(TextStyle(face.name, face.size, colour or self.ink, baseline))
        return len(self.runs) - 1

    def draw(
        self,
        shape: str,
        points: list[tuple[float, float]],
        *,
        fill: Colour | None = None,
        outline: Colour | None = None,
        width: float = 1.0,
        words: tuple[str, ...] = (),
    ) -> None:
        """Draw a shape under the text. `width` is in grid pixels, and `words` are its name in questions."""
        scaled = tuple((x * self.unit, y * self.unit) for x, y in points)
        self.drawings.append(Drawing(shape, scaled, fill, outline, max(1, round(width * self.unit)), words))

    def rule(self, x0: float, x1: float, y: float, *, colour: Colour | None = None, width: float = 1.0) -> None:
        """Draw a horizontal line."""
        self.draw("line", [(x0, y), (x1, y)], outline=colour or self.accent, width=width)

    def page(self, kind: str, seed: int) -> Page:
        """Return the finished page."""
        noise = self.settings.noise * self.rng.uniform(0.0, 1.0)
        return Page(
            height=self.page_height,
            width=self.page_width,
            kind=kind,
            split=self.split,
            seed=seed,
            runs=self.runs,
            questions=self.questions,
            styles=self.styles,
            drawings=self.drawings,
            paper=self.paper,
            noise=noise,
            layout=self.layout,
        )
