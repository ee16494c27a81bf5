"""OCRBench v2: similarities of tables, charts and documents by the edit distance of their trees (APTED)."""

from __future__ import annotations

import ast
import functools
import json
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rapidfuzz.distance import Levenshtein

_FENCED = re.compile(r"```(?:python|json)?\n(.*?)\n```", re.DOTALL | re.IGNORECASE)
# Rewritings of a document's line, in order, and the characters that become blanks.
_CLEANING = (
    (re.compile(r"<bos>|<eos>|<pad>|<unk>"), ""),
    (re.compile(r"\s##(\S)"), r"\1"),
    (re.compile(r"\\\s"), r"\\"),
    (re.compile(r"\s\*\s\*\s"), "**"),
    (re.compile(r"{\s"), "{"),
    (re.compile(r"\s}"), "}"),
    (re.compile(r"\s}"), "}"),
    (re.compile(r"\\(begin|end)\s"), r"\\\1"),
    (re.compile(r"\\end{table}"), r"\\end{table}   "),
)
_BLANKED = str.maketrans("*_", "  ")


@dataclass
class Tree:
    """A node of a tree.

    Attributes:
        label: The tag of an element, or the text of a line.
        spans: Columns and rows that a cell spans. None for other nodes.
        content: Characters and tags in a cell.
        children: Nodes below it.
    """

    label: Any
    spans: tuple[int, int] | None = None
    content: list[str] = field(default_factory=list)
    children: list[Tree] = field(default_factory=list)

    def find(self, label: str) -> Tree | None:
        """Return the first node with a label, parents before their children."""
        if self.label == label:
            return self
        return next(filter(None, (child.find(label) for child in self.children)), None)

    def size(self) -> int:
        """Return the number of nodes."""
        return 1 + sum(child.size() for child in self.children)


def html_similarity(prediction: str, answer: str) -> float:
    """Return TEDS of the first table in a prediction, from `<body` or `<table` on, and the right one, both HTML."""
    text = prediction.replace("\n", "")
    for start in ("<body", "<table"):
        if start in text:
            return _teds(_document(text[text.index(start) :]), _document(answer))
    return 0.0


def markdown_similarity(prediction: str, answer: str) -> float:
    """Return TEDS of two tables in Markdown."""
    return _teds(_of_markdown(prediction), _of_markdown(answer))


def chart_similarity(prediction: str, answer: str) -> float:
    """Return TEDS of two mappings, one row for a key. A value is compared as its text. Unreadable ones count 0."""
    given = _stated_mapping(prediction)
    return _teds(_of_mapping(given), _of_mapping(_literal(answer) or json.loads(answer))) if given else 0.0


def document_similarity(prediction: str, answer: str) -> float:
    """Return the similarity of the trees of two documents in Markdown: titles, and the lines below each.

    As in the official script, the text of a line counts only by being blank or not.
    """
    given, wanted = _outline(prediction), _outline(answer)

    def rename(one: Tree, other: Tree) -> float:
        return float(not one.label.split() or not other.label.split())

    return 1 - _distance(given, wanted, rename) / max(given.size(), wanted.size())


@functools.cache
def lacking_for_trees() -> str:
    """Return in one line what the similarities of this module lack on this machine, or nothing."""
    try:
        import apted  # noqa: F401
        import lxml.html  # noqa: F401
    except ModuleNotFoundError as error:
        return (
            f'tables, charts and documents need {error.name}, which is not installed: pip install "slime-vlm[scores]"'
        )
    return ""


# Tables ----------------------------------------------------------------------------------------------------------


def _teds(prediction: str, answer: str) -> float:
    """Return one minus the edit distance of two tables by the number of elements in the larger one.

    The distance may be more than that number, so the least value is below 0, as in the official script. A table that
    cannot be read, such as one with a cell of "two" columns, counts 0.
    """
    from lxml import etree, html

    parser = html.HTMLParser(remove_comments=True, encoding="utf-8")
    try:
        pages = [html.fromstring(text, parser=parser) for text in (prediction, answer)]
        tables = [page.xpath("body/table") for page in pages]
        if not all(tables):
            return 0.0
        size = max(len(table[0].xpath(".//*")) for table in tables)
        given, wanted = (_of_element(table[0]) for table in tables)
    except (ValueError, etree.LxmlError, RecursionError):
        return 0.0
    return 1 - _distance(given, wanted, _rename_element) / size if size else 0.0


def _rename_element(one: Tree, other: Tree) -> float:
    if one.label != other.label or one.spans != other.spans:
        return 1.0
    return Levenshtein.normalized_distance(one.content, other.content)


def _of_element(element: Any) -> Tree:
    if element.tag != "td":
        return Tree(element.tag, children=[_of_element(child) for child in element])
    spans = int(element.attrib.get("colspan", "1")), int(element.attrib.get("rowspan", "1"))
    return Tree("td", spans, _tokens(element)[1:-1])


def _tokens(element: Any) -> list[str]:
    """Return an element as tags and single characters, with what follows it unless it is a cell."""
    tokens = [f"<{element.tag}>", *(element.text or "")]
    for child in element:
        tokens += _tokens(child)
    if element.tag != "unk":
        tokens.append(f"</{element.tag}>")
    return tokens if element.tag == "td" else [*tokens, *(element.tail or "")]


def _document(table: str) -> str:
    """Return a table with the tags around it that are missing."""
    text = table.replace("\n", "")
    if "<table" not in text:
        text = f"<table>{text}"
    if "</table>" not in text:
        text = f"{text}</table>"
    if "<body>" not in text:
        text = f"<body>{text}</body>"
    return text if "<html>" in text else f"<html>{text}</html>"


def _of_markdown(table: str) -> str:
    # Letters of the word "markdown" go at both ends with its fence, as in the official script.
    lines = table.strip("`markdown").strip("`").strip().split("\n")
    # The second line is the rule below the head.
    rows = [line.strip().split("|")[1:-1] for line in (lines[0], *lines[2:])]
    cells = ["".join(f"<td>{cell.strip() if set(cell) != {' '} else ' '}</td>" for cell in row) for row in rows]
    return f"<html><body><table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table></body></html>"


def _of_mapping(mapping: Mapping[Any, Any]) -> str:
    # The official script puts a blank between any two characters of a value.
    rows = (f"  <tr><td>{key}</td><td>{' '.join(str(value))}</td></tr>\n" for key, value in mapping.items())
    return f"<html><body><table>\n{''.join(rows)}</table></body></html>"


def _stated_mapping(text: str) -> dict[Any, Any]:
    """Return the mapping that a prediction states: in its longest fence, after `name =`, without comments."""
    content = max(_FENCED.findall(text), key=len, default=text).strip()
    content = re.sub("#.*", "", re.sub(r"^\s*\w+\s*=\s*", "", content, count=1))
    return _literal(content[: content.rfind("}") + 1] or content)


def _literal(text: str) -> dict[Any, Any]:
    """Return a mapping from its Python source, or an empty one if the text is something else."""
    try:
        with warnings.catch_warnings():
            # Silence the warnings that Python gives for odd source code.
            warnings.simplefilter("ignore")
            found = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return {}
    return found if isinstance(found, dict) else {}


# Documents -------------------------------------------------------------------------------------------------------


def _outline(document: str) -> Tree:
    """Return the lines of a document as a tree. Lines before the first title belong to a node of their own."""
    root = Tree("ROOT", children=[Tree("TITLE")])
    title = ""
    for line in map(_clean, document.split("\n")):
        if line.startswith("#"):
            title = line.replace("#", "")
            root.children.append(Tree(title))
        else:
            # Found by its text, a title that occurs twice gets the lines of both at its first place.
            above = root.find(title or "TITLE")
            assert above is not None
            above.children.append(Tree(line))
    return root


def _clean(line: str) -> str:
    for pattern, text in _CLEANING:
        line = pattern.sub(text, line)
    return line.translate(_BLANKED)


def _distance(one: Tree, other: Tree, rename: Callable[[Tree, Tree], float]) -> float:
    """Return the edit distance of two trees: 1 for a node more or less, `rename` for two that are matched."""
    from apted import APTED, Config

    class _Costs(Config):
        def rename(self, node1: Tree, node2: Tree) -> float:
            return rename(node1, node2)

    return float(APTED(one, other, _Costs()).compute_edit_distance())
