"""Draw how time and memory grow, from the JSON files that `run_all.py` gathers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

COLOURS = {
    "ours": "#1f4e8c",
    "ours, packed": "#6a9fd8",
    "ours, fast": "#2a9d8f",
    "published": "#8a8a8a",
    "LLaVA-NeXT": "#d9731a",
}
CACHES = {"in place": ("ours", COLOURS["ours"]), "transformers": ("published, LLaVA-NeXT", COLOURS["LLaVA-NeXT"])}


def plot(results: dict[str, Any], target: Path) -> None:
    """Draw a column for every kind of growth that was measured: seconds above, memory or tokens below.

    Args:
        results: What each benchmark wrote, by its file. None for one that failed or was left out.
        target: PNG file.

    Raises:
        SystemExit: There is nothing to draw.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    drawn = [(column, results[name]) for name, column in _COLUMNS if results.get(name)]
    if not drawn:
        raise SystemExit(f"--plot {target}: none of {', '.join(sorted({name for name, _ in _COLUMNS}))} was measured")
    size = (4.2 * len(drawn), 7.2)
    figure, axes = plt.subplots(2, len(drawn), figsize=size, dpi=110, layout="constrained", squeeze=False)
    for (column, found), pair in zip(drawn, axes.T, strict=True):
        column(*pair, found)
    for axis in axes.flat:
        axis.set_ylim(bottom=0)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_axisbelow(True)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=9)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, facecolor="white")
    plt.close(figure)


def _growth(found: dict[str, Any], unit: str) -> dict[str, dict[int, dict[str, float]]]:
    """Return rows like "2 tiles, ours" by contender and number."""
    lines: dict[str, dict[int, dict[str, float]]] = {}
    for name, row in found.items():
        number, between, contender = name.partition(f" {unit}, ")
        if between:
            lines.setdefault(contender, {})[int(number)] = row
    return lines


def _whole(row: dict[str, float]) -> float:
    return sum(value for step, value in row.items() if step != "peak")


def _contenders(unit: str, title: str) -> Callable[[Any, Any, Any], None]:
    def draw(time: Any, memory: Any, found: Any) -> None:
        for contender, rows in _growth(found, unit).items():
            style = {"color": COLOURS[contender], "label": contender}
            time.plot(list(rows), [_whole(row) for row in rows.values()], "o-", **style)
            memory.plot(list(rows), [row["peak"] for row in rows.values()], "o-", **style)
        time.set(title=f"{title}, seconds", xlabel=unit)
        memory.set(title=f"{title}, peak in MB", xlabel=unit)

    return draw


def _caches(along: str, other: str, label: str) -> Callable[[Any, Any, Any], None]:
    def draw(time: Any, memory: Any, found: Any) -> None:
        rows = sorted((row for row in found if row[other] == found[0][other]), key=lambda row: row[along])
        numbers = [row[along] for row in rows]
        for cache, (name, colour) in CACHES.items():
            time.plot(numbers, [1000 * row[cache]["seconds"] for row in rows], "o-", color=colour, label=name)
            memory.plot(numbers, [row[cache]["megabytes"] for row in rows], "o-", color=colour, label=name)
        time.set(title="A step of decoding, CPU ms", xlabel=label)
        memory.set(title="Keys and values, MB", xlabel=label)

    return draw


def _pixels(time: Any, memory: Any, found: Any) -> None:
    pixels = [row["megapixels"] for row in found]
    encoding = [row["seconds"]["preprocess"] + row["seconds"]["encode"] for row in found]
    time.plot(pixels, encoding, "o-", color=COLOURS["published"], label="preprocess and encode")
    time.plot(pixels, [row["seconds"]["prefill"] for row in found], "o-", color=COLOURS["ours"], label="prefill")
    time.set(title="Ours, fixed budget of local tokens, seconds", xlabel="megapixels")
    memory.plot(pixels, [row["peak"] for row in found], "o-", color=COLOURS["ours"], label="peak of the process")
    memory.plot(
        pixels, [row["decoded"] for row in found], "o--", color=COLOURS["published"], label="decoded image alone"
    )
    memory.set(title="Memory, MB", xlabel="megapixels")


def _first_token(time: Any, tokens: Any, found: Any) -> None:
    for contender, rows in _growth(found, "tiles").items():
        style = {"color": COLOURS[contender], "label": contender}
        time.plot(list(rows), [row["computed"] for row in rows.values()], "o-", **style)
        read = [row["global"] + row["local"] + row["text"] for row in rows.values()]
        tokens.plot(list(rows), read, "o-", **style)
    layers = found["settings"]["all layers"]
    time.set(title=f"First token, {layers} layers (computed), seconds", xlabel="tiles")
    tokens.set(title="Tokens in the language model", xlabel="tiles")


_COLUMNS: tuple[tuple[str, Callable[[Any, Any, Any], None]], ...] = (
    ("huge_image.py", _pixels),
    ("encode.py", _contenders("tiles", "One question")),
    ("encode.py", _contenders("questions", "About one image")),
    ("first_token.py", _first_token),
    ("decode.py", _caches("rows", "tokens", "rows decoded together")),
    ("decode.py", _caches("tokens", "rows", "tokens of a row")),
)
