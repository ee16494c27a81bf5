"""Draw how time and memory grow, from the JSON files that `run_all.py` gathers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

COLOURS = {"ours": "#1f4e8c", "ours, fast": "#2a9d8f", "published": "#8a8a8a", "LLaVA-NeXT": "#d9731a"}


def plot(results: dict[str, Any], target: Path) -> None:
    """Draw a panel for every kind of growth that was measured.

    Args:
        results: What each benchmark wrote, by its file. None for one that failed or was left out.
        target: PNG file.

    Raises:
        SystemExit: There is nothing to draw.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    drawn = [(panel, results[name]) for name, panel in _PANELS if results.get(name)]
    if not drawn:
        raise SystemExit(f"--plot {target}: none of {', '.join(sorted({name for name, _ in _PANELS}))} was measured")
    figure, axes = plt.subplots(1, len(drawn), figsize=(4.2 * len(drawn), 3.8), dpi=110, layout="constrained")
    for axis, (panel, found) in zip([axes] if len(drawn) == 1 else axes, drawn, strict=True):
        panel(axis, found)
        axis.set_ylim(bottom=0)
        axis.set_axisbelow(True)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=9)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, facecolor="white")
    plt.close(figure)


def _whole(seconds: dict[str, float]) -> float:
    return sum(value for step, value in seconds.items() if step != "peak")


def _tiles(axis: Any, found: Any) -> None:
    for contender, colour in COLOURS.items():
        rows = {
            int(name.split()[0]): _whole(seconds)
            for name, seconds in found.items()
            if name.endswith(f" tiles, {contender}")
        }
        axis.plot(list(rows), list(rows.values()), "o-", color=colour, label=contender)
    axis.set(title="One question, seconds", xlabel="tiles")


def _questions(axis: Any, found: Any) -> None:
    rows = [(name, _whole(seconds)) for name, seconds in found.items() if " questions, " in name]
    for place, (name, seconds) in enumerate(rows):
        number, _, contender = name.partition(" questions, ")
        axis.bar(place, seconds, color=COLOURS[contender], label=contender)
        axis.set(title=f"{number} questions about an image, seconds", xlabel="", xticks=[])


def _rows(axis: Any, found: Any) -> None:
    rows = [int(name.split()[0]) for name in found]
    for cache, colour in (("in place", COLOURS["ours"]), ("transformers", COLOURS["published"])):
        axis.plot(rows, [1000 * one[cache] for one in found.values()], "o-", color=colour, label=f"cache: {cache}")
    axis.set(title="A step of decoding, CPU ms", xlabel="rows decoded together")


def _seconds_of_pixels(axis: Any, found: Any) -> None:
    pixels = [row["megapixels"] for row in found]
    encoding = [row["seconds"]["preprocess"] + row["seconds"]["encode"] for row in found]
    axis.plot(pixels, encoding, "o-", color=COLOURS["published"], label="preprocess and encode")
    axis.plot(pixels, [row["seconds"]["prefill"] for row in found], "o-", color=COLOURS["ours"], label="prefill")
    axis.set(title="Fixed budget of local tokens, seconds", xlabel="megapixels")


def _memory_of_pixels(axis: Any, found: Any) -> None:
    pixels = [row["megapixels"] for row in found]
    axis.plot(pixels, [row["peak"] for row in found], "o-", color=COLOURS["ours"], label="peak of the process")
    axis.plot(pixels, [row["decoded"] for row in found], "o--", color=COLOURS["published"], label="decoded image alone")
    axis.set(title="Memory, MB", xlabel="megapixels")


_PANELS: tuple[tuple[str, Callable[[Any, Any], None]], ...] = (
    ("encode.py", _tiles),
    ("encode.py", _questions),
    ("decode.py", _rows),
    ("huge_image.py", _seconds_of_pixels),
    ("huge_image.py", _memory_of_pixels),
)
