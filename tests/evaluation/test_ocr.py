"""Find values among boxes of text, checked by hand, without an OCR engine."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from slime_vlm.errors import MediaError
from slime_vlm.evaluation.ocr_baseline.answering import answer_from_text
from slime_vlm.evaluation.ocr_baseline.boxes import TextBox, split_boxes
from slime_vlm.evaluation.ocr_baseline.question import alike, understand
from slime_vlm.pages import ABSENT


def box(text: str, left: float, top: float) -> TextBox:
    """A line of 20 pixels, 10 for each character."""
    return TextBox(text, left, top, left + 10 * len(text), top + 20)


FORM = [
    box("REGISTRATION", 100, 0),
    box("Invoice no:", 0, 40),
    box("AB-1234", 200, 40),
    box("Due by", 0, 80),
    box("12 May 25", 200, 80),
    box("Amount due", 0, 120),
    box("1,250.00", 200, 120),
    box("Shipping 8.50", 0, 160),
    box("Cashier:Bela", 0, 200),
]
STACKED = [
    box("Doctor", 0, 0),
    box("Room", 300, 0),
    box("Marefy", 0, 24),
    box("402", 300, 24),
    box("Pulse", 0, 80),
    box("Weight", 300, 80),
    box("71", 0, 104),
    box("80.5 kg", 300, 104),
]
TABLE = [
    box("Item", 0, 0),
    box("Price", 150, 0),
    box("Stock", 300, 0),
    box("Apple", 0, 40),
    box("2.50", 160, 40),
    box("31", 330, 40),
    box("Bread", 0, 80),
    box("3.75", 160, 80),
    box("12", 330, 80),
]
BARS = [box("12.5", 5, 60), box("48", 110, 20), box("Jan", 10, 200), box("Feb", 105, 200)]


@pytest.mark.parametrize(
    ("page", "question", "answer"),
    [
        (FORM, "What is the invoice number?", "AB-1234"),
        # Misread by a letter.
        ([box("lnvoice no", 0, 40), *FORM[2:]], "invoice number", "AB-1234"),
        (FORM, "When is it due?", "12 May 25"),
        (FORM, "How much is due?", "1,250.00"),
        # Key and value in one box, with and without a colon.
        (FORM, "Please read the shipping.", "8.50"),
        (FORM, "who is the cashier", "Bela"),
        (FORM, "What is the passport?", ABSENT),
        (FORM, "Where is the whale?", ABSENT),
        (STACKED, "Who is the doctor?", "Marefy"),
        (STACKED, "Which room is it?", "402"),
        (STACKED, "What is the weight?", "80.5 kg"),
        (TABLE, "What is the stock of bread?", "12"),
        (TABLE, "apple price", "2.50"),
        # The row is there, the column is not.
        (TABLE, "What is the weight of bread?", ABSENT),
        (BARS, "What is the value for february?", "48"),
        (BARS, "Which is the highest?", "Feb"),
        ([], "total", ABSENT),
    ],
)
def test_answers(page: list[TextBox], question: str, answer: str) -> None:
    assert answer_from_text(question, page) == answer
    # The order of reading does not matter.
    assert answer_from_text(question, page[::-1]) == answer


def test_boxes_are_cut_and_joined() -> None:
    texts = [(piece.text, piece.is_key) for piece in split_boxes([box("Total: 12.50", 0, 0)])]
    assert texts == [("Total", True), ("12.50", False)]
    assert [piece.text for piece in split_boxes([box("Tax.....1.20", 0, 0)])] == ["Tax", "1.20"]
    # A time, a date and a code stay whole.
    assert [piece.text for piece in split_boxes([box("10:30", 0, 0), box("Mar 11, 23", 0, 40)])] == [
        "10:30",
        "Mar 11, 23",
    ]
    # A number and its unit, read apart, belong together; columns do not.
    joined = split_boxes([box("17.0", 0, 0), box("cm", 45, 0), box("9", 120, 0)])
    assert [(piece.text, piece.left, piece.right) for piece in joined] == [("17.0 cm", 0, 65), ("9", 120, 130)]


def test_words() -> None:
    assert alike("number", "no")
    assert alike("december", "dec")
    assert alike("units", "unit")
    assert not alike("due", "tax")
    assert understand("When is the due date?").kind == "date"
    assert understand("How much is the tip?").words == ("tip",)


def test_without_the_reader_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from slime_vlm.evaluation.ocr_baseline.reader import OcrReader

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MediaError, match=r'pip install "slime-vlm\[ocr\]"'):
        OcrReader(threads=1)


@pytest.mark.skipif(importlib.util.find_spec("rapidocr") is None, reason="needs the extra ocr")
def test_the_reader_reads_a_page() -> None:
    from PIL import Image

    from slime_vlm.evaluation.ocr_baseline.reader import OcrReader
    from slime_vlm.pages import PageSettings, make_page, render

    page = make_page(5, PageSettings(tiles=(2, 2), page_scale=(0.8, 1.3), kinds={"form": 1.0}, noise=0.0))
    found = OcrReader(threads=1).read(Image.fromarray(render(page)))
    value = next(question.answer for question in page.questions if question.value_runs)
    texts = [piece.text.replace(" ", "") for piece in split_boxes(found)]
    assert value.replace(" ", "") in texts
    box = found[texts.index(value.replace(" ", ""))] if len(texts) == len(found) else found[0]
    assert 0 <= box.left < box.right <= page.width + 10
    assert box.top < box.bottom
