"""Scale a page: layout, texts and questions stay the same, and only the number of pixels changes."""

from __future__ import annotations

from dataclasses import replace

from slime_vlm.pages.page import Page


def scale_page(page: Page, longest_side: int) -> Page:
    """Scale a page to a longest side in pixels.

    Font sizes are whole pixels, so text may be up to half a pixel larger or smaller than everything else.

    Args:
        page: The page.
        longest_side: Pixels of the longest side, at least 1.
    """
    factor = longest_side / max(page.height, page.width)

    def scaled(pixels: float) -> int:
        return max(1, round(pixels * factor))

    return replace(
        page,
        height=scaled(page.height),
        width=scaled(page.width),
        runs=[replace(run, boxes=run.boxes * factor) for run in page.runs],
        styles=[
            replace(style, size=scaled(style.size), baseline=round(style.baseline * factor)) for style in page.styles
        ],
        drawings=[
            replace(
                drawing,
                points=tuple((x * factor, y * factor) for x, y in drawing.points),
                width=scaled(drawing.width),
            )
            for drawing in page.drawings
        ],
    )
