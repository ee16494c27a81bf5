"""Write all sets that are present as one file of records, and report what is absent, left out or of another size."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from slime_vlm.data.smr import (
    ai2d,
    arxivqa,
    chartqa,
    dvqa,
    geometry3k,
    geoqa3,
    geoqa_plus,
    mathvision,
    scienceqa,
    tabmwp,
    textbookqa,
)
from slime_vlm.data.smr.raw_set import RawSet, Skipped
from slime_vlm.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rich.table import Table

_MODULES = (
    arxivqa,
    dvqa,
    chartqa,
    geometry3k,
    geoqa3,
    geoqa_plus,
    mathvision,
    scienceqa,
    tabmwp,
    textbookqa,
    ai2d,
)

SETS: dict[str, RawSet] = {module.__name__.rpartition(".")[2]: module.SET for module in _MODULES}
"""The raw sets by the short name that the command line takes."""


@dataclass
class Built:
    """The result for one set.

    Attributes:
        name: Its short name.
        raw: The set.
        folder: Where its files were looked for.
        state: `built`, `absent` (files are missing), or `left out` (on purpose).
        missing: Expected files that do not exist.
        records: Number of records written.
        skipped: Number of rows that became no record, by reason.
    """

    name: str
    raw: RawSet
    folder: Path
    state: Literal["built", "absent", "left out"]
    missing: list[str] = field(default_factory=list)
    records: int = 0
    skipped: Skipped = field(default_factory=Skipped)

    @property
    def remark(self) -> str:
        """What a user should know about this result."""
        if self.state == "left out":
            return self.raw.leak
        if self.state == "absent":
            return f"not in {self.folder}: {', '.join(name.replace('|', ' or ') for name in self.missing)}"
        parts = [f"{count:,}: {reason}" for reason, count in self.skipped.items()]
        if self.raw.count is not None and self.records != self.raw.count:
            parts.append(f"{self.records - self.raw.count:+,} against {self.raw.count_source}")
        return "; ".join([*parts, self.raw.leak] if self.raw.leak else parts)

    def as_dict(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return {
            "set": self.name,
            "state": self.state,
            "licence": self.raw.licence,
            "origin": self.raw.origin,
            "folder": str(self.folder),
            "missing": self.missing,
            "records": self.records,
            "expected": self.raw.count,
            "expected_by": self.raw.count_source,
            "skipped": dict(self.skipped),
            "leak": self.raw.leak,
        }


def build_smr(
    root: Path,
    out: Path,
    *,
    with_leak: bool = False,
    folders: Mapping[str, str] | None = None,
    only: Collection[str] = (),
    advance: Callable[[str], None] = lambda name: None,
) -> list[Built]:
    """Write the records of all sets below a folder, and a report beside them (`OUT.report.json`).

    Args:
        root: The folder of the sets. Image paths start there.
        out: A JSONL file that does not exist yet.
        with_leak: Also take sets that overlap with a benchmark.
        folders: Folders of single sets below the root, by short name, where they differ from the usual ones.
        only: Short names of the sets to take, all by default.
        advance: Called with the name of each set before it is built.

    Returns:
        One result per set.

    Raises:
        ConfigError: `out` exists already, or a name is unknown.
        DataError: No set is present, or one is damaged.
    """
    report = out.with_name(out.name + ".report.json")
    for path in (out, report):
        if path.exists():
            raise ConfigError(f"{path} exists already, and nothing is ever overwritten; choose another name")
    if not root.is_dir():
        raise DataError(f"no folder at {root}: expected the one that holds the raw sets")
    for name in [*(folders or {}), *only]:
        if name not in SETS:
            raise ConfigError(f"'{name}' is not a set of SMR, expected one of {', '.join(SETS)}")
    for name, folder in (folders or {}).items():
        if not Path(os.path.abspath(root / folder)).is_relative_to(os.path.abspath(root)):
            raise ConfigError(f"--folder {name}={folder} is not below {root}, where image paths start; link it there")
    built = []
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with out.open("x", encoding="utf-8") as file:
            for name, raw in SETS.items():
                if only and name not in only:
                    continue
                advance(name)
                done = _plan(name, raw, root / (folders or {}).get(name, raw.folder), with_leak)
                if done.state == "built":
                    _write(done, root, file.write)
                built.append(done)
        if not any(done.records for done in built):
            raise DataError(f"none of the sets is in {root}: " + "; ".join(done.remark for done in built))
    except BaseException:
        out.unlink(missing_ok=True)
        raise
    report.write_text(json.dumps([done.as_dict() for done in built], ensure_ascii=False, indent=1) + "\n", "utf-8")
    return built


def _plan(name: str, raw: RawSet, folder: Path, with_leak: bool) -> Built:
    missing = raw.missing(folder)
    if raw.leak and not with_leak:
        return Built(name, raw, folder, "left out", missing)
    return Built(name, raw, folder, "absent" if missing else "built", missing)


def _write(done: Built, root: Path, write: Callable[[str], Any]) -> None:
    try:
        for made in done.raw.convert(done.folder, done.skipped):
            if "image" in made:
                made["image"] = (done.folder / made["image"]).relative_to(root).as_posix()
            write(json.dumps({**made, "source": done.raw.name}, ensure_ascii=False) + "\n")
            done.records += 1
    # Others publish these files. A missing key means another release of the set.
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise DataError(
            f"{done.raw.name} in {done.folder} is not laid out as expected ({type(error).__name__}: {error}, after "
            f"{done.records} records); another release of it? Expected: {done.raw.origin}"
        ) from error


def table(built: list[Built]) -> Table:
    """Return a table of the results, for a terminal."""
    from rich.table import Table

    made = Table("set", "state", title="SMR", title_justify="left")
    for name in ("records", "expected"):
        made.add_column(name, justify="right")
    made.add_column("licence")
    made.add_column("remark", overflow="fold")
    for done in built:
        expected = "" if done.raw.count is None else f"{done.raw.count:,}"
        made.add_row(done.raw.name, done.state, f"{done.records:,}", expected, done.raw.licence, done.remark)
    total = sum(done.records for done in built)
    made.add_row("all", "", f"{total:,}", "", "treat as non-commercial", "")
    return made
