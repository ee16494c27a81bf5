"""Pages of a hand-written PDF: size by dpi, exact colours, and the errors of pages that cannot be drawn."""

from __future__ import annotations

import numpy as np
import pypdfium2
import pytest

from slime_vlm.media import open_image
from tests.media.failing import failure, failure_here, without


def pdf_of(pages: list[tuple[int, int, str]], trailer: str = "") -> bytes:
    """Return a PDF of pages (height, width, content)."""
    kids = " ".join(f"{3 + 2 * index} 0 R" for index in range(len(pages)))
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>"]
    for index, (height, width, content) in enumerate(pages):
        box = f"/MediaBox [0 0 {width} {height}]"
        objects.append(f"<< /Type /Page /Parent 2 0 R {box} /Contents {4 + 2 * index} 0 R >>")
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
    written, offsets = b"%PDF-1.4\n", []
    for number, text in enumerate(objects, start=1):
        offsets.append(len(written))
        written += f"{number} 0 obj\n{text}\nendobj\n".encode()
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    start = len(written)
    written += f"xref\n0 {len(offsets) + 1}\n0000000000 65535 f \n{table}".encode()
    return (
        written + f"trailer\n<< /Size {len(offsets) + 1} /Root 1 0 R {trailer} >>\nstartxref\n{start}\n%%EOF\n".encode()
    )


@pytest.fixture
def pages(tmp_path):
    path = tmp_path / "scan.pdf"
    # The origin is at the lower left: red fills the lower left quarter, blue the upper half of the second page.
    path.write_bytes(pdf_of([(72, 144, "1 0 0 rg 0 0 72 36 re f"), (144, 72, "0 0 1 rg 0 72 72 72 re f")]))
    return path


def test_page_size_follows_dpi(pages):
    first = np.asarray(open_image(pages, dpi=72))
    expected = np.full((72, 144, 3), 255, np.uint8)
    expected[36:, :72] = (255, 0, 0)
    assert np.array_equal(first, expected)
    second = np.asarray(open_image(f"{pages}#2"))
    assert second.shape == (400, 200, 3)
    assert (second[:200] == (0, 0, 255)).all()
    assert (second[200:] == 255).all()


def test_a_pdf_may_begin_with_other_bytes(tmp_path, pages):
    (tmp_path / "b.bin").write_bytes(b"\n\n" + pages.read_bytes())
    assert open_image(tmp_path / "b.bin", dpi=36).size == (72, 36)


def test_missing_page(pages):
    assert failure(f"{pages}#3") == f"{pages}: there is no #3, it has 2 pages; ask for #1 to #2"


def test_pixel_limit_is_checked_before_drawing(pages, monkeypatch):
    monkeypatch.setattr(pypdfium2.PdfPage, "render", lambda *_, **__: pytest.fail("drawn"))
    line = failure_here(pages, max_pixels=79_999)
    assert "400 x 200" in line
    assert line.endswith("raise it with --max-pixels 80000, or lower --dpi (it is 200)")


def test_missing_package(pages, monkeypatch):
    without(monkeypatch, "pypdfium2")
    assert failure_here(pages) == f'{pages}: a PDF needs pypdfium2; install it with pip install "slime-vlm[pdf]"'


def test_damaged_and_locked_files(tmp_path, pages):
    cut = tmp_path / "cut.pdf"
    cut.write_bytes(pages.read_bytes()[:30])
    assert "cut.pdf: the image is damaged or incomplete" in failure(cut)
    key = "<" + "00" * 32 + ">"
    locked = tmp_path / "locked.pdf"
    encrypt = f"/Encrypt << /Filter /Standard /V 1 /R 2 /O {key} /U {key} /P -4 >> /ID [<00> <00>]"
    locked.write_bytes(pdf_of([(72, 72, "")], encrypt))
    assert "locked by a password" in failure(locked)
