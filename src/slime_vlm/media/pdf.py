"""Pages of PDF files, drawn by PDFium."""

from __future__ import annotations

import math

from PIL import Image

from slime_vlm.errors import MediaError
from slime_vlm.extras import import_extra
from slime_vlm.media.file_type import FileType
from slime_vlm.media.request import Request

_POINTS_PER_INCH = 72


def recognizes_pdf(head: bytes) -> bool:
    """Tell whether a file is a PDF. Other bytes may come before its signature."""
    return b"%PDF-" in head


def read_pdf(request: Request) -> Image.Image:
    """Draw a page on white, with its annotations and filled-in forms.

    PDFium is not thread-safe, so this is called by one thread of a process, as the worker does.

    Raises:
        MediaError: pypdfium2 is not installed, the file is locked, it has no such page, or the page is larger than the
            limit.
    """
    pdfium = import_extra("pypdfium2", request.name, "a PDF needs pypdfium2", "pdf")
    try:
        document = pdfium.PdfDocument(request.path)
    except pdfium.PdfiumError as error:
        if "password" not in str(error).lower():
            raise
        raise MediaError(f"{request.name}: locked by a password; save a copy without one") from None
    with document:
        document.init_forms()
        page = document[request.index(len(document), "pages")]
        scale = request.dpi / _POINTS_PER_INCH
        # pypdfium2 rounds up as well.
        width, height = (math.ceil(side * scale) for side in page.get_size())
        request.check_size(height, width, advice=f", or lower --dpi (it is {request.dpi:g})")
        # Copy the pixels: closing the document frees the bitmap.
        return page.render(scale=scale, rev_byteorder=True).to_pil().convert("RGB")


PDF = FileType(recognizes_pdf, read_pdf)
