"""The same page drawn larger or smaller: layout, texts and questions stay, only pixels become more or fewer."""

from __future__ import annotations

from dataclasses import replace

from slime_vlm.pages.page import Page


def scale_page(page: Page, longest_side: int) -> Page:
    """Lay a page out again so that its longest side has so many pixels.

    Fonts come in whole pixels, so that text may be up to half a pixel larger or smaller than the rest.

    Args:
        page: the page.
        longest_side: pixels of the longest side, at least 1.
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
