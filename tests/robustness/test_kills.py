"""A sample of the killed and damaged runs of `make fuzz`: every one goes on, and ends as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

from tests.robustness.fuzz_resume import try_damages, try_kills


def test_kills_and_damages(tmp_path: Path) -> None:
    for name in ("kills", "damages"):
        (tmp_path / name).mkdir()
    counts = try_kills(tmp_path / "kills", 2)
    assert counts["tried"] == counts["bit-equal"] == 2, counts
    counts = try_damages(tmp_path / "damages", 2)
    assert counts["damaged"] == counts["bit-equal"] == counts["one line"] == 2, counts
