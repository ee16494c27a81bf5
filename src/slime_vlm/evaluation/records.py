"""Load the records of a benchmark: from a local copy under `--data`, else from the hub through `datasets`.

The local copy of a task T is the file DATA/T.EXT or the folder DATA/T/. In a folder, files are named by the split
(`test.jsonl`, `data/test-00000-of-00002.parquet`), or there is a single file. EXT is json, jsonl, parquet or tsv.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slime_vlm.errors import DataError, one_line
from slime_vlm.evaluation.benchmarks import Benchmark, Joined, Source, Task

ORGANISATION = "lmms-lab-encoder"
"""Hub organisation of most benchmarks' copies. `lmms-lab` is an older name of the same data sets."""

_ENDINGS = (".jsonl", ".json", ".parquet", ".tsv")


@dataclass(frozen=True)
class Records:
    """The records of a task, in order. A record that several questions are asked about occurs once for each of them.

    Attributes:
        rows: The records. They can be iterated once.
        length: Number of questions, or None if it is not known in advance.
        folder: Folder that image paths are relative to. None for records from the hub.
        origin: Where the records come from, for run.json.
    """

    rows: Iterable[dict[str, Any]]
    length: int | None
    folder: Path | None
    origin: str


def load_records(
    task: Task,
    data: Path | None = None,
    organisation: str = ORGANISATION,
    limit: int | None = None,
    offset: int = 0,
) -> Records:
    """Find the records of a task.

    Args:
        task: Benchmark and split.
        data: Folder of local copies. A task without a local copy is loaded from the hub.
        organisation: Hub organisation to use in place of `ORGANISATION`.
        limit: Maximum number of questions, the first ones after `offset`.
        offset: Number of questions to leave out at the start.

    Raises:
        DataError: There are no records, or they do not have the format of this benchmark.
    """
    benchmark = task.benchmark
    found = _local(task, data) if data is not None else None
    each = benchmark.questions
    records = found or _hub(task, data, organisation, None if limit is None else math.ceil((offset + limit) / each))
    left = None if records.length is None else max(0, each * records.length - offset)
    length = left if limit is None else min(limit, limit if left is None else left)
    return Records(_checked(records, benchmark, limit, offset), length, records.folder, records.origin)


def hub_id(benchmark: Benchmark, organisation: str = ORGANISATION) -> str:
    """Return the hub id of a benchmark's data set."""
    owner, _, name = benchmark.source.repo.partition("/")
    return f"{organisation}/{name}" if owner == ORGANISATION else benchmark.source.repo


def _checked(records: Records, benchmark: Benchmark, limit: int | None, offset: int) -> Iterator[dict[str, Any]]:
    index = -1
    for index, row in enumerate(row for row in records.rows for _ in range(benchmark.questions)):
        if limit is not None and index >= offset + limit:
            return
        if index < offset:
            continue
        missing = [name for name in benchmark.fields if name not in row]
        if missing:
            raise DataError(
                f"{benchmark.title}: record {index // benchmark.questions} of {records.origin} has no "
                f"{', '.join(missing)}, it has {', '.join(map(str, row))}; expected the record format of "
                f"{benchmark.source.repo}"
            )
        yield row
    if index < 0:
        raise DataError(f"{benchmark.title}: {records.origin} holds no records; download it again")
    if index < offset:
        raise DataError(f"{benchmark.title}: --offset {offset}, but {records.origin} holds {index + 1} questions")


# Local copies ----------------------------------------------------------------------------------------------------


def _local(task: Task, data: Path) -> Records | None:
    if not data.is_dir():
        raise DataError(f"--data {data}: no such folder, expected a folder with a file or folder per task")
    source = task.benchmark.source
    single = next((path for path in (data / f"{task.name}{e}" for e in _ENDINGS) if path.is_file()), None)
    folder = data if single else data / task.benchmark.name
    if not single and not folder.is_dir():
        return None
    others = _table_files(folder, source.joined) if source.joined and not single else []
    files = [single] if single else _split_files(folder, task.split, source, others)
    if not files:
        return None
    rows = _chain(files)
    if others and source.joined:
        rows = _join(rows, _chain(others), source.joined)
    shared = _beside(folder, source.beside) if source.beside and not single else {}
    if shared:
        rows = ({**shared, **row} for row in rows)
    names = ", ".join(f"{path.relative_to(data)} ({path.stat().st_size} bytes)" for path in files)
    return Records(rows, _count(files), folder, names)


def _split_files(folder: Path, split: str, source: Source, others: list[Path]) -> list[Path]:
    every = [path for path in _record_files(folder) if path not in others]
    named = [path for path in every if _is_of(path, split)]
    of_config = [path for path in named if source.config in path.relative_to(folder).parts]
    # A single file may have any name, but not that of another split.
    other_splits = [name for name in (source.split, source.test_split) if name not in (None, split)]
    other_split_found = any(_is_of(path, name) for path in every for name in other_splits)
    if not named and (len(every) > 1 or other_split_found):
        raise DataError(
            f"{folder} has {', '.join(path.name for path in every[:5])} but none for the split {split}; "
            f"rename one to {split}.*"
        )
    return of_config or named or every


def _is_of(path: Path, split: str | None) -> bool:
    return path.stem == split or path.stem.startswith((f"{split}-", f"{split}_"))


def _table_files(folder: Path, joined: Joined) -> list[Path]:
    """Return the files of the other table: named by its config, or in a folder of that name."""
    return [
        path
        for path in _record_files(folder)
        if path.stem == joined.config or joined.config in path.relative_to(folder).parts
    ]


def _beside(folder: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the content of the named files that are somewhere in a folder."""
    found: dict[str, Any] = {}
    for name in names:
        path = next(iter(sorted(folder.rglob(name))), None)
        if path is not None:
            with _naming(path):
                text = path.read_text(encoding="utf-8")
                found[name] = json.loads(text) if path.suffix == ".json" else text
    return found


def _record_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in _ENDINGS and path.is_file())


def _chain(files: list[Path]) -> Iterator[dict[str, Any]]:
    for path in files:
        with _naming(path):
            for row in _read(path):
                if not isinstance(row, dict):
                    raise DataError(f"{path} holds {row!r:.60}, expected records with keys and values")
                yield row


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn any error about the content of a file into a DataError that names the file."""
    try:
        yield
    except (ValueError, OSError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({one_line(error)}); download it again") from error


def _read(path: Path) -> Iterator[Any]:
    if path.suffix == ".jsonl":
        with path.open(encoding="utf-8") as lines:
            yield from (json.loads(line) for line in lines if line.strip())
    elif path.suffix == ".json":
        yield from _json_rows(path)
    elif path.suffix == ".tsv":
        # Images in base64 are longer than the default limit of the reader.
        csv.field_size_limit(sys.maxsize)
        with path.open(encoding="utf-8", newline="") as table:
            yield from csv.DictReader(table, delimiter="\t")
    else:
        import pyarrow.parquet

        # A few rows at a time: a table of images may not fit in memory.
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=16):
                yield from batch.to_pylist()


def _json_rows(path: Path) -> list[Any]:
    """Return the records of a JSON file: a list, or an object with one list among its values (`data`, `questions`)."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(content, dict):
        lists = [value for value in content.values() if isinstance(value, list) and value]
        content = lists[0] if len(lists) == 1 else None
    if not isinstance(content, list):
        raise DataError(f"{path}: expected a list of records, or an object that holds one")
    return content


def _count(files: list[Path]) -> int | None:
    total = 0
    for path in files:
        if path.suffix == ".tsv":
            # Cells may hold line ends; counting them would read the whole table twice.
            return None
        with _naming(path):
            if path.suffix == ".parquet":
                import pyarrow.parquet

                total += pyarrow.parquet.read_metadata(path).num_rows
            elif path.suffix == ".jsonl":
                with path.open("rb") as lines:
                    total += sum(bool(line.strip()) for line in lines)
            else:
                total += len(_json_rows(path))
    return total


def _join(rows: Iterable[dict[str, Any]], others: Iterable[dict[str, Any]], joined: Joined) -> Iterator[dict[str, Any]]:
    table = {str(row[joined.other]): row for row in others if joined.other in row}
    for row in rows:
        yield {**table.get(str(row.get(joined.key)), {}), **row}


# The hub ---------------------------------------------------------------------------------------------------------


def _hub(task: Task, data: Path | None, organisation: str, limit: int | None) -> Records:
    benchmark, source = task.benchmark, task.benchmark.source
    name = hub_id(benchmark, organisation)
    config = f" --config {source.config}" if source.config else ""
    try:
        rows, length = _load(name, source.config, task.split, limit)
        if source.joined and source.config:
            others, _ = _load(name, source.joined.config, task.split, None)
            rows = _join(rows, others, source.joined)
    except ModuleNotFoundError:
        raise
    # A missing network, data set, config or permission raises a class of its own each. All mean the same here.
    except Exception as error:
        where = f"{data or '--data DIR'}/{benchmark.name}/{task.split}.parquet (or .jsonl, .json, .tsv)"
        raise DataError(
            f"{benchmark.title}: no local data, and the hub has none ({one_line(error)}); the data set is "
            f"{name}{config} split {task.split}: put a copy at {where}, or use another --organisation"
        ) from error
    return Records(rows, length, None, f"{name}{f' ({source.config})' if source.config else ''}")


def _load(name: str, config: str | None, split: str, limit: int | None) -> tuple[Iterable[dict[str, Any]], int | None]:
    import datasets

    # A few records of a large data set do not justify downloading all of it.
    streaming = limit is not None
    table = datasets.load_dataset(name, config, split=split, streaming=streaming)
    features = table.features or {}
    for column, feature in features.items():
        if isinstance(feature, datasets.Image):
            table = table.cast_column(column, datasets.Image(decode=False))
        elif isinstance(feature, datasets.List) and isinstance(feature.feature, datasets.Image):
            table = table.cast_column(column, datasets.List(datasets.Image(decode=False)))
    return table, None if streaming else len(table)
