"""Draw docs/figures/views.png and selection.png, which docs/concepts.md shows: python docs/figures/views.py.

The figures need matplotlib. They come from the shipped model and examples/invoice.png, so they show what it does.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.gridspec import GridSpecFromSubplotSpec
from PIL import Image

import slime_vlm
from slime_vlm.inference.heat_map import plot_selection

FOLDER = Path(__file__).parent
PAGE = FOLDER.parents[1] / "examples" / "invoice.png"
QUESTIONS = ("What is the amount due?", "What is the birth date?")


def draw_views(target: Path) -> None:
    """Draw the page, its global view and its tiles."""
    image = slime_vlm.open_image(PAGE)
    _, processor = slime_vlm.load("nano")
    inputs = processor.image_processor(image, return_tensors="pt")
    rows, cols = (int(number) for number in inputs["image_grids"][0])
    mean, deviation = (processor.image_processor.image_mean, processor.image_processor.image_std)
    views = inputs["pixel_values"].permute(0, 2, 3, 1).numpy() * deviation + mean
    figure = plt.figure(figsize=(11.6, 5), dpi=110)
    page, whole, tiles = figure.add_gridspec(1, 3, width_ratios=[0.7, 1, 0.7], left=0.01, right=0.99, wspace=0.05)
    axes = figure.add_subplot(page)
    axes.imshow(image)
    axes.set_title(f"image, {image.width} x {image.height} pixels")
    axes.axis("off")
    axes = figure.add_subplot(whole)
    axes.imshow(views[0].clip(0, 1))
    axes.set_title("global view: the whole image, squashed")
    axes.axis("off")
    # Cells are wider than their square tiles, so the columns need less than no space between them.
    grid = GridSpecFromSubplotSpec(rows, cols, tiles, wspace=-0.28, hspace=0.05)
    for number in range(rows * cols):
        axes = figure.add_subplot(grid[number])
        axes.imshow(views[1 + number].clip(0, 1))
        axes.axis("off")
        if number == 0:
            axes.set_title(f"{rows * cols} tiles at full sharpness", loc="left")
    figure.savefig(target, bbox_inches="tight", pad_inches=0.08, facecolor="white")
    plt.close(figure)


def draw_selection(target: Path) -> None:
    """Draw which tokens of the same page two questions keep."""
    image: Image.Image = slime_vlm.open_image(PAGE)
    encoded = slime_vlm.encode(*slime_vlm.load("nano"), image)
    figure, panels = plt.subplots(1, len(QUESTIONS), figsize=(10, 6.6), dpi=110, layout="constrained")
    for axes, question in zip(panels, QUESTIONS, strict=True):
        answer = encoded.ask(question)
        plot_selection(axes, image, answer.selection)
        axes.set_title(f"{question}  {answer.text}\n{axes.get_title()}", fontsize=10)
    figure.savefig(target, facecolor="white")
    plt.close(figure)


if __name__ == "__main__":
    draw_views(FOLDER / "views.png")
    draw_selection(FOLDER / "selection.png")
