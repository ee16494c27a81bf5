"""Read many damaged files of records, and count what happens."""

from __future__ import annotations

import json
import random
import tempfile
from collections import Counter
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

from slime_vlm.data import archives, open_source
from slime_vlm.data.archives import read_member
from slime_vlm.data.reading import read_whole
from slime_vlm.errors import SlimeError
from tests.data.writing import make_image, make_records, write_lines, write_tar
from tests.robustness.mutating import mutated, mutated_json


def try_records(count: int, seed: int = 0) -> Counter[str]:
    """Open damaged JSON, JSONL and tar files, and read their records, or a member of a damaged zip file.

    Args:
        count: How many.
        seed: Seed of the damage.

    Returns:
        Counts of files "tried", "opened" (bad records included), "refused" and "foreign exception".
    """
    counts: Counter[str] = Counter(tried=0, opened=0, refused=0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        records = make_records(folder, 3)
        write_lines(folder / "a.jsonl", records)
        (folder / "a.json").write_text(json.dumps(records))
        files = {f"{record['id']}.json": json.dumps(record).encode() for record in records}
        write_tar(folder / "a.tar", {**files, "r0.png": make_image("red")})
        with ZipFile(folder / "a.zip", "w", ZIP_DEFLATED) as packed:
            packed.writestr("é.png", make_image("red"))
        contents = [
            (path, path.read_bytes()) for path in (folder / f"a.{kind}" for kind in ("json", "jsonl", "tar", "zip"))
        ]
        for number in range(count):
            chance = random.Random(f"{seed} {number}")
            path, content = contents[number % 4]
            if path.suffix == ".json" and chance.random() < 0.7:
                path.write_text(json.dumps(mutated_json(records, chance)))
            else:
                path.write_bytes(mutated(content, chance))
            counts["tried"] += 1
            try:
                _read(path)
                counts["opened"] += 1
            except SlimeError:
                counts["refused"] += 1
            except Exception as error:
                counts["foreign exception"] += 1
                counts[f"{type(error).__name__}: {str(error)[:200]} ({path.name}, {seed} {number})"] += 1
    return counts


def _read(path: Path) -> None:
    if path.suffix == ".zip":
        # Archives stay open, but this one has changed.
        archives._zip.cache_clear()
        read_member(path, "é.png")
        return
    source = open_source(path)
    for index in range(len(source)):
        read_whole(source, index)
