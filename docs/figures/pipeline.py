"""Draw docs/figures/pipeline.png: python docs/figures/pipeline.py (needs matplotlib).

Every box names the files that implement it. tests/test_docs.py checks that they exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

BLUE, ORANGE, GREEN, GREY, VIOLET = "#dbe9f8", "#fde6cc", "#dcf1de", "#eeeeee", "#e8def5"


WIDTH, HEIGHT = 3.6, 1.5
COLUMN, ROW = 4.0, 2.05


@dataclass(frozen=True)
class Box:
    """One step: its column and row, its title, its files and what it passes on."""

    column: int
    row: int
    title: str
    files: tuple[str, ...]
    detail: str
    colour: str

    @property
    def x(self) -> float:
        return self.column * COLUMN

    @property
    def y(self) -> float:
        return -self.row * ROW


QUERY_ATTENTION = "model/query_attention.py"
BOXES = {
    "image": Box(0, 0, "image, any size", ("media/opening.py",), "upright 8-bit RGB", GREY),
    "tiling": Box(
        0,
        1,
        "slice into tiles",
        ("model/tiling.py", "processing/image_processing_slime.py"),
        "1 global view, 2-7 tiles",
        BLUE,
    ),
    "question": Box(
        0,
        2,
        "question",
        ("processing/processing_slime.py", "processing/chat_styles.py"),
        "chat template, token ids",
        GREY,
    ),
    "vision": Box(1, 1, "vision encoder", ("model/vision_encoder.py",), "576 features per view", BLUE),
    "global": Box(
        2, 0, "two adapters, gated", ("model/global_adapters.py", QUERY_ATTENTION), "global view: 576 tokens", ORANGE
    ),
    "local": Box(
        2, 1, "compress, stitch", ("model/local_compressor.py", QUERY_ATTENTION), "each tile: 144 tokens", ORANGE
    ),
    "selector": Box(3, 1, "select by question", ("model/question_selector.py",), "keeps some local tokens", GREEN),
    "merge": Box(3, 0, "one sequence", ("model/token_merging.py",), "global | separator | kept | text", GREEN),
    "llm": Box(4, 0, "language model", ("model/modeling_slime.py",), "loss, generate", VIOLET),
    "answer": Box(
        4, 1, "answer, heat map", ("inference/answering.py", "inference/heat_map.py"), "slime ask --show", GREY
    ),
}
ARROWS = [
    ("image", "tiling"),
    ("tiling", "vision"),
    ("vision", "global"),
    ("vision", "local"),
    ("global", "merge"),
    ("local", "selector"),
    ("selector", "merge"),
    ("merge", "llm"),
    ("llm", "answer"),
]


def draw(target: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.patches import FancyBboxPatch

    figure, axes = plt.subplots(figsize=(18.5, 5), dpi=110)
    axes.set_xlim(-0.1, 4 * COLUMN + WIDTH + 0.1)
    axes.set_ylim(-2 * ROW - 0.1, HEIGHT + 0.1)
    axes.axis("off")
    for box in BOXES.values():
        outline = "round,pad=0,rounding_size=0.12"
        axes.add_patch(
            FancyBboxPatch(
                (box.x, box.y), WIDTH, HEIGHT, outline, facecolor=box.colour, edgecolor="#555555", linewidth=1.2
            )
        )
        centred = {"ha": "center", "va": "center"}
        middle = box.x + WIDTH / 2
        axes.text(middle, box.y + HEIGHT - 0.27, box.title, fontsize=12.5, weight="bold", **centred)
        names = "\n".join(box.files)
        axes.text(middle, box.y + HEIGHT / 2 - 0.04, names, fontsize=8, family="monospace", color="#1f4e8c", **centred)
        axes.text(middle, box.y + 0.2, box.detail, fontsize=10, color="#444444", **centred)
    style = {"arrowstyle": "-|>", "color": "#333333", "linewidth": 1.5}
    for start, end in ARROWS:
        tail, head = _ends(BOXES[start], BOXES[end])
        axes.annotate("", xy=head, xytext=tail, arrowprops=style)
    # The question reaches the selector from below, around the other boxes, and the sequence between two columns.
    question, selector, merge = BOXES["question"], BOXES["selector"], BOXES["merge"]
    level, gap = question.y + HEIGHT / 2, merge.x + WIDTH + (COLUMN - WIDTH) / 2
    corner = (selector.x + WIDTH / 2, level)
    axes.plot([question.x + WIDTH, gap, gap], [level, level, merge.y + HEIGHT / 4], color="#333333", linewidth=1.5)
    axes.annotate("", xy=(corner[0], selector.y), xytext=corner, arrowprops={**style, "shrinkA": 0})
    end = merge.y + HEIGHT / 4
    axes.annotate("", xy=(merge.x + WIDTH, end), xytext=(gap, end), arrowprops={**style, "shrinkA": 0})
    axes.text(gap - 0.1, level + 0.12, "text", fontsize=10, color="#444444", ha="right")
    figure.savefig(target, bbox_inches="tight", pad_inches=0.08, facecolor="white")
    plt.close(figure)


def _ends(start: Box, end: Box) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the points where an arrow leaves one box and enters another, on the sides that face each other."""
    if start.column == end.column:
        x, down = start.x + WIDTH / 2, start.row < end.row
        return (x, start.y if down else start.y + HEIGHT), (x, end.y + HEIGHT if down else end.y)
    return (start.x + WIDTH, start.y + HEIGHT / 2), (end.x, end.y + HEIGHT / 2)


if __name__ == "__main__":
    draw(Path(__file__).with_suffix(".png"))
