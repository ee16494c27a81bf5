"""Pages are counted without decoding one."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from slime_vlm.errors import MediaError
from slime_vlm.media import count_pages
from tests.media.test_pdf import pdf_of


@pytest.mark.parametrize(("kind", "number"), [("TIFF", 3), ("PNG", 1), ("GIF", 2)])
def test_pages_of_images(kind: str, number: int) -> None:
    pages = [Image.new("RGB", (8, 6), (40 * index, 0, 0)) for index in range(number)]
    file = io.BytesIO()
    pages[0].save(file, kind, **({"save_all": True, "append_images": pages[1:]} if number > 1 else {}))
    assert count_pages(file.getvalue(), "file") == number


def test_pages_of_a_pdf_that_are_too_large_to_draw() -> None:
    assert count_pages(pdf_of([(10**6, 10**6, ""), (72, 72, "")]), "file") == 2


def test_no_image() -> None:
    with pytest.raises(MediaError, match="file: not an image"):
        count_pages(b"text", "file")
