"""Our metrics say what the official scripts said, on every recorded answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluation.official_verdicts import COMMITTED, OFFICIAL, differences, table, verdicts

ROOT = Path(__file__).parent.parent.parent
# Of a shared catalogue that lies beside some checkouts. It may hold more verdicts than the copy here.
CATALOGUE = ROOT.parent / "shared" / "catalog" / "verdicts"

every_file = pytest.mark.parametrize("name", OFFICIAL)


def test_every_file_is_replayed() -> None:
    assert {path.name.removesuffix(".jsonl.gz") for path in COMMITTED.iterdir()} == set(OFFICIAL)
    assert sum(path.stat().st_size for path in COMMITTED.iterdir()) < 150_000
    assert sum(len(list(verdicts(name))) for name in OFFICIAL) == 5393


@every_file
def test_equal_on_every_line(name: str) -> None:
    count, different = differences(name)
    assert count >= 120
    assert different == []


@every_file
def test_equal_on_the_catalogue(name: str) -> None:
    if not (CATALOGUE / f"{name}.jsonl").is_file():
        pytest.skip("no catalogue beside this checkout")
    assert differences(name, CATALOGUE)[1] == []


def test_the_documented_table_is_the_replayed_one() -> None:
    assert table() in (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8"), (
        "paste the output of `python -m tests.evaluation.official_verdicts` into docs/evaluation.md"
    )
