"""Pages of PDF files, drawn by PDFium."""

from __future__ import annotations

import math
import threading

from PIL import Image

from slime_vlm.errors import MediaError
from slime_vlm.extras import import_extra
from slime_vlm.media.request import Request

_POINTS_PER_INCH = 72

# PDFium must not be entered by two threads, not even with two documents.
_PDFIUM = threading.Lock()


def read_pdf(request: Request) -> Image.Image:
    """Draws a page on white, with its annotations and filled-in forms.

    Raises:
        MediaError: pypdfium2 is not installed, the file is locked, there is no such page, or it is larger than the
            limit.
    """
    pdfium = import_extra("pypdfium2", request.name, "a PDF", "pdf")
    with _PDFIUM:
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
            # Rounded as pypdfium2 rounds.
            width, height = (math.ceil(side * scale) for side in page.get_size())
            request.check_size(height, width, advice=f", or lower --dpi (it is {request.dpi:g})")
            # A copy, as the bitmap's memory goes with the document.
            return page.render(scale=scale, rev_byteorder=True).to_pil().convert("RGB")
