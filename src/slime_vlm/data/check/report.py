"""The results of a check, as plain data and as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from slime_vlm.data.check.findings import KINDS, Finding
from slime_vlm.data.check.record_checks import CheckedRecord
from slime_vlm.errors import printable

if TYPE_CHECKING:
    from rich.table import Table

TOKEN_STEP = 256
"""Width of a bin in the histogram of tokens."""

_BAR = 40  # characters of the longest bar


@dataclass
class SourceReport:
    """The findings and statistics of one source.

    Attributes:
        name: Name of the source.
        records: Number of its records.
        findings: What is wrong, in the order of the records.
        text_only: Number of records without an image.
        images: Number of images that could be opened.
        tiles: Number of images by number of tiles.
        tokens: Number of records by number of tokens, in steps of `TOKEN_STEP`. Empty without a model.
        longest: The largest number of tokens of a record.
        sizes: (height, width) of the images of every record with findings.
        ids: All ids.
    """

    name: str
    records: int
    findings: list[Finding] = field(default_factory=list)
    text_only: int = 0
    images: int = 0
    tiles: Counter[int] = field(default_factory=Counter)
    tokens: Counter[int] = field(default_factory=Counter)
    longest: int = 0
    sizes: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    ids: set[str | int] = field(default_factory=set)

    def add(self, checked: CheckedRecord) -> None:
        """Add a record to the findings and statistics."""
        self.findings += checked.findings
        self.images += len(checked.sizes)
        self.tiles.update(checked.tiles)
        if checked.id is not None:
            self.ids.add(checked.id)
        if checked.readable and not checked.images:
            self.text_only += 1
        if checked.tokens is not None:
            self.tokens[checked.tokens // TOKEN_STEP * TOKEN_STEP] += 1
            self.longest = max(self.longest, checked.tokens)
        if checked.findings:
            self.sizes[checked.index] = checked.sizes

    def by_record(self) -> dict[int, list[Finding]]:
        """Return the findings by record, for all records with findings."""
        found: dict[int, list[Finding]] = {}
        for finding in self.findings:
            found.setdefault(finding.index, []).append(finding)
        return found

    @property
    def refused(self) -> int:
        """Number of records that training leaves out."""
        return len({finding.index for finding in self.findings if finding.refused})

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {
            "source": self.name,
            "records": self.records,
            "wrong_records": len(self.by_record()),
            "refused_records": self.refused,
            "text_only": self.text_only,
            "text_only_share": self.text_only / self.records,
            "images": self.images,
            "findings_by_kind": dict(Counter(finding.kind for finding in self.findings)),
            "tiles": {str(tiles): count for tiles, count in sorted(self.tiles.items())},
            "tokens": {f"{start}-{start + TOKEN_STEP - 1}": count for start, count in sorted(self.tokens.items())},
            "longest": self.longest or None,
            "findings": [finding.as_dict() for finding in self.findings],
        }


@dataclass
class Report:
    """The results for all sources.

    Attributes:
        sources: One report per source.
        allowed: Kinds of findings that do not count as errors.
    """

    sources: list[SourceReport]
    allowed: Collection[str] = ()

    @property
    def clean(self) -> bool:
        """Whether all findings are of allowed kinds."""
        return all(finding.kind in self.allowed for source in self.sources for finding in source.findings)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {
            "clean": self.clean,
            "allowed": sorted(self.allowed),
            "sources": [source.as_dict() for source in self.sources],
        }

    def tables(self, examples: int = 3) -> list[Table]:
        """Return tables for a terminal: sources, findings with their first examples, histograms."""
        tables = [self._overview(), self._findings(examples)]
        images = sum((source.tiles for source in self.sources), Counter[int]())
        tokens = sum((source.tokens for source in self.sources), Counter[int]())
        if images:
            tables.append(_histogram("Tiles of an image", {str(key): images[key] for key in sorted(images)}))
        if tokens:
            bars = {f"{start:,} to {start + TOKEN_STEP - 1:,}": tokens[start] for start in sorted(tokens)}
            tables.append(_histogram("Tokens of a record, images included", bars))
        return tables

    def _overview(self) -> Table:
        from rich.table import Table

        table = Table("source", title="Records", title_justify="left")
        for name in ("records", "wrong", "refused", "text only", "images", "longest"):
            table.add_column(name, justify="right")
        for source in self.sources:
            table.add_row(
                printable(source.name),
                f"{source.records:,}",
                f"{len(source.by_record()):,}",
                f"{source.refused:,}",
                f"{source.text_only / source.records:.1%}",
                f"{source.images:,}",
                f"{source.longest:,}" if source.longest else "",
            )
        return table

    def _findings(self, examples: int) -> Table:
        from rich.table import Table

        table = Table("kind", title="Findings", title_justify="left")
        table.add_column("records", justify="right")
        table.add_column("first ones", overflow="fold")
        found: dict[str, list[tuple[SourceReport, Finding]]] = {}
        for source in self.sources:
            for finding in source.findings:
                found.setdefault(finding.kind, []).append((source, finding))
        for kind in (kind for kind in KINDS if kind in found):
            lines = [
                f"{source.name + ': ' if len(self.sources) > 1 else ''}"
                f"{finding.index if finding.id is None else finding.id!r}: {finding.message}"
                for source, finding in found[kind][:examples]
            ]
            more = [f"and {len(found[kind]) - examples:,} more"] if len(found[kind]) > examples else []
            count = len({(source.name, finding.index) for source, finding in found[kind]})
            label = f"{kind} (allowed)" if kind in self.allowed else kind
            table.add_row(label, f"{count:,}", "\n".join(map(printable, [*lines, *more])))
        if not found:
            table.add_row("none", "0", "")
        return table


def _histogram(title: str, bars: dict[str, int]) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(justify="right")
    table.add_column(justify="right")
    table.add_column()
    most = max(bars.values())
    for name, count in bars.items():
        table.add_row(name, f"{count:,}", "█" * max(1, round(_BAR * count / most)))
    return table
