"""Pages of PDF files as pixels with the box of every character, by pypdfium2."""

from __future__ import annotations

import ctypes
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from slime_vlm.extras import import_extra

# Letters whose height is the x-height.
_X_LETTERS = frozenset(map(ord, "acemnorsuvxz"))
_MEASURED = 120  # letters to measure on a page
_LIGATURES = {0xFB00: "ff", 0xFB01: "fi", 0xFB02: "fl", 0xFB03: "ffi", 0xFB04: "ffl"}
_FIRST_HALVES, _SECOND_HALVES, _UNKNOWN = range(0xD800, 0xDC00), range(0xDC00, 0xE000), 0xFFFD
_PLAIN = {0x00A0: 0x20, 0x2010: 0x2D, 0x2011: 0x2D, 0x00AD: 0x2D, 0x0002: 0x2D, 0xFFFE: 0x2D}
_LINE_GAP = 1.6  # widths of the line's height between words that are still one line


@dataclass
class PdfText:
    """Text of a PDF page in points, y downwards from the top of the page.

    Attributes:
        characters: See `ReadablePage`.
        boxes: float32 [N, 4], in points.
        lines: int32 [N].
        sizes: float32 [N], height of the line's box, a stand-in for the font size.
        x_height: Median x-height in points, 0 when the page has no letters.
        width: Page width in points.
        height: Page height in points.
    """

    characters: str
    boxes: np.ndarray
    lines: np.ndarray
    sizes: np.ndarray
    x_height: float
    width: float
    height: float


def open_pdf(path: str) -> Any:
    """Open a PDF file.

    Raises:
        InputError: pypdfium2 is not installed.
    """
    return import_extra("pypdfium2", path, "a PDF file", "pdf").PdfDocument(path)


def render_pdf_page(page: Any, scale: float) -> np.ndarray:
    """Draw a PDF page without annotations, `scale` pixels a point: uint8 [H, W, 3]."""
    bitmap = page.render(scale=scale, may_draw_forms=False, draw_annots=False, rev_byteorder=True)
    # An array of its own, so that the bitmap's memory is freed.
    return np.array(bitmap.to_numpy()[..., :3])


def read_pdf_page(page: Any) -> PdfText:
    """Read the characters of a PDF page with their boxes, upright text only, lines in the file's order."""
    raw: Any = import_extra("pypdfium2.raw", "page", "a PDF file", "pdf")
    text_page = page.get_textpage()
    width, height = page.get_size()
    codes, boxes, x_heights = _characters(raw, text_page)
    text_page.close()
    # Boxes count from the origin of the file's coordinates, not from the corner of what is drawn.
    left, _, _, top = page.get_cropbox()
    moved = np.empty_like(boxes)
    moved[:, 0], moved[:, 2] = boxes[:, 0] - left, boxes[:, 1] - left
    moved[:, 1], moved[:, 3] = top - boxes[:, 3], top - boxes[:, 2]
    characters, placed, lines = _in_lines(codes, moved, width, height)
    return PdfText(
        characters=characters,
        boxes=placed,
        lines=lines,
        sizes=placed[:, 3] - placed[:, 1],
        x_height=float(np.median(x_heights)) if x_heights else 0.0,
        width=width,
        height=height,
    )


def _characters(raw: Any, text_page: Any) -> tuple[list[int], np.ndarray, list[float]]:
    """Return code points (0 = the line breaks here), boxes [N, 4] as left, right, bottom, top, and x-heights."""
    count = raw.FPDFText_CountChars(text_page)
    codes: list[int] = []
    boxes: list[tuple[float, float, float, float]] = []
    x_heights: list[float] = []
    loose = raw.FS_RECTF()
    left, right, bottom, top = (ctypes.c_double() for _ in range(4))
    get_code, get_loose, get_tight = raw.FPDFText_GetUnicode, raw.FPDFText_GetLooseCharBox, raw.FPDFText_GetCharBox
    get_angle = raw.FPDFText_GetCharAngle
    nothing = (0.0, 0.0, 0.0, 0.0)
    for i in range(count):
        code = get_code(text_page, i)
        code = _PLAIN.get(code, code)
        # A character beyond 16 bits comes in two halves.
        if code in _SECOND_HALVES:
            continue
        code = _UNKNOWN if code in _FIRST_HALVES else code
        if code in (10, 13):
            if codes and codes[-1]:
                codes.append(0)
                boxes.append(nothing)
            continue
        if code < 32 or not get_loose(text_page, i, loose):
            continue
        box = (loose.left, loose.right, loose.bottom, loose.top)
        # Turned text would need boxes that are not upright. A slanted face counts as turned by up to 0.3.
        if box[1] - box[0] > 6 * (box[3] - box[2]) or 0.35 < get_angle(text_page, i) < 5.93:
            continue
        if code in _X_LETTERS and len(x_heights) < _MEASURED and get_tight(text_page, i, left, right, bottom, top):
            x_heights.append(top.value - bottom.value)
        parts = _LIGATURES.get(code)
        if parts:
            step = (box[1] - box[0]) / len(parts)
            for k, part in enumerate(parts):
                codes.append(ord(part))
                boxes.append((box[0] + k * step, box[0] + (k + 1) * step, box[2], box[3]))
        else:
            codes.append(code)
            boxes.append(box)
    return codes, np.array(boxes, np.float32).reshape(-1, 4), x_heights


def _in_lines(codes: list[int], boxes: np.ndarray, width: float, height: float) -> tuple[str, np.ndarray, np.ndarray]:
    """Join characters to lines: a line ends where the file says so, at a wide gap, and where the text goes elsewhere.

    Args:
        codes: Code points, 0 where the file ends a line.
        boxes: float32 [N, 4], x0, y0, x1, y1.
        width: Page width; what lies outside is left out.
        height: Page height.
    """
    text: list[str] = []
    kept: list[tuple[float, float, float, float]] = []
    lines: list[int] = []
    line = -1
    broken, spaced = True, False
    last = (0.0, 0.0, 0.0, 0.0)
    for code, box in zip(codes, boxes.tolist(), strict=True):
        if code == 0:
            broken = True
            continue
        if code == 32:
            spaced = True
            continue
        x0, y0, x1, y1 = box
        if x0 < -1 or y0 < -2 or x1 > width + 1 or y1 > height + 2 or x1 <= x0 or y1 <= y0:
            continue
        tall = y1 - y0
        middle = (y0 + y1) / 2
        gap = x0 - last[2]
        if broken and line >= 0 and last[1] < middle < last[3] and -0.1 * tall < gap < 0.6 * tall and text[-1] != "-":
            broken, spaced = False, spaced or gap > 0.12 * tall  # the same line after all, written in two pieces
        if not broken and not (last[1] < middle < last[3] and -tall < gap < _LINE_GAP * tall):
            broken = True
        if broken:
            line += 1
        elif spaced and gap > 0.02 * tall:
            text.append(" ")
            kept.append((last[2], last[1], x0, last[3]))
            lines.append(line)
        text.append(chr(code))
        kept.append((x0, y0, x1, y1))
        lines.append(line)
        broken, spaced, last = False, False, (x0, y0, x1, y1)
    numbers = np.array(lines, np.int32)
    return "".join(text), _levelled(np.array(kept, np.float32).reshape(-1, 4), numbers), numbers


def _levelled(boxes: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """Give the characters of a line the same top and bottom.

    A glyph that is taller than its font says gets a taller box: "p" would stand lower than "o". What stands a quarter
    of the line's height higher or lower, such as an exponent, keeps its box.
    """
    levelled = boxes.copy()
    starts = np.flatnonzero(np.diff(lines, prepend=-1)).tolist()
    for begin, end in itertools.pairwise([*starts, len(lines)]):
        y = boxes[begin:end, 1::2]
        line = np.median(y, axis=0)
        alike = np.abs(y.mean(axis=1) - line.mean()) < 0.25 * (line[1] - line[0])
        levelled[begin:end, 1::2][alike] = line
    return levelled


def page_links(document: Any, page: Any) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Return the links of a page in file order: address and x0, y0, x1, y1 in points from the top of the page."""
    raw: Any = import_extra("pypdfium2.raw", "page", "a PDF file", "pdf")
    left, _, _, top = page.get_cropbox()
    links = []
    position, link, box = ctypes.c_int(0), raw.FPDF_LINK(), raw.FS_RECTF()
    buffer = ctypes.create_string_buffer(256)
    while raw.FPDFLink_Enumerate(page, position, link):
        action = raw.FPDFLink_GetAction(link)
        if action and raw.FPDFAction_GetURIPath(document, action, buffer, 256) and raw.FPDFLink_GetAnnotRect(link, box):
            address = buffer.value.decode("latin-1")
            links.append((address, (box.left - left, top - box.top, box.right - left, top - box.bottom)))
    return links
