"""Tables, charts and documents by the edit distance of their trees, by hand."""

from __future__ import annotations

import sys

import pytest

from slime_vlm.evaluation.metrics.tree_distance import (
    chart_similarity,
    document_similarity,
    html_similarity,
    lacking_for_trees,
    markdown_similarity,
)

# Two rows and four cells: six elements below the table.
TABLE = "<table><tr><td>a</td><td>b</td></tr><tr><td>c</td><td>abcd</td></tr></table>"


@pytest.mark.parametrize(
    ("prediction", "score"),
    [
        (TABLE, 1.0),
        (f"```html\n<html><body>{TABLE}</body></html>\n```", 1.0),
        # One of four characters of one cell, then a whole cell.
        (TABLE.replace("abcd", "abcx"), 1 - 0.25 / 6),
        (TABLE.replace("abcd", "x"), 1 - 1 / 6),
        # A row with its two cells is missing.
        (TABLE.replace("<tr><td>a</td><td>b</td></tr>", ""), 1 - 3 / 6),
        # A cell of two columns is another cell, with the same text as well.
        (TABLE.replace("<td>b", '<td colspan="2">b'), 1 - 1 / 6),
        (TABLE.replace("<td>b</td>", "<th>b</th>"), 1 - 1 / 6),
        (TABLE.replace("<td>b", '<td colspan="two">b'), 0.0),
        ("a b c d", 0.0),
        ("", 0.0),
    ],
)
def test_tables_in_html(prediction: str, score: float) -> None:
    assert html_similarity(prediction, TABLE) == pytest.approx(score)


def test_tables_in_markdown() -> None:
    answer = "| a | b |\n| --- | --- |\n| c | abcd |"
    assert markdown_similarity(f"```markdown\n{answer}\n```", answer) == pytest.approx(1.0)
    assert markdown_similarity(answer.replace("abcd", "abcx"), answer) == pytest.approx(1 - 0.25 / 6)
    # Text that is no table is a row without cells: it matches the first row, and five elements are missing.
    assert markdown_similarity("none", answer) == pytest.approx(1 - 5 / 6)


def test_charts() -> None:
    # A row and two cells. The value 12 is compared as "1 2", so that one of three characters differs.
    assert chart_similarity("data = {'a': 13}  # read", '{"a": 12}') == pytest.approx(1 - (1 / 3) / 3)
    # An answer in JSON has the value None, one in Python may have a `#` in a key.
    assert chart_similarity("```python\n{'a': None}\n```", '{"a": null}') == pytest.approx(1.0)
    assert chart_similarity("{'a': 1}", "{'# of a': 1}") == pytest.approx(1 - (5 / 6) / 3)
    assert [chart_similarity(text, '{"a": 12}') for text in ("", "a: 12", "[12]")] == [0.0, 0.0, 0.0]


def test_documents() -> None:
    # Four nodes: the root, the lines before the first title, the title, and its line. Texts do not matter.
    assert document_similarity("# B\ny", "# A\nx") == pytest.approx(1.0)
    assert document_similarity("# A", "# A\nx") == pytest.approx(1 - 1 / 4)
    # One blank line, taken for x at the cost of 1, and one more node above it.
    assert document_similarity("", "# A\nx") == pytest.approx(1 - 2 / 4)
    # The line of the second title A is below the first one.
    assert document_similarity("# A\nx\n# A\ny", "# A\nx\ny\n# A") == pytest.approx(1.0)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apted", None)
    lacking_for_trees.cache_clear()
    assert lacking_for_trees() == (
        'tables, charts and documents need apted, which is not installed: pip install "slime-vlm[scores]"'
    )
    monkeypatch.undo()
    lacking_for_trees.cache_clear()
    assert lacking_for_trees() == ""
