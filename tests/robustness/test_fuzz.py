"""A sample of what `make fuzz` tries: no foreign exception, and no file over the limits on memory and time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from slime_vlm.errors import MediaError
from slime_vlm.media import open_clip, open_image
from tests.robustness.fuzz_addresses import try_addresses
from tests.robustness.fuzz_checkpoints import try_checkpoints, try_settings
from tests.robustness.fuzz_images import try_images
from tests.robustness.fuzz_records import try_records
from tests.robustness.hostile_files import HOSTILE_FILES

LIMITS = ("foreign exception", "opened though damaged", "over memory", "over time")


def check(counts: Counter[str], tried: int) -> None:
    assert counts["tried"] == tried == counts["opened"] + counts["refused"], counts
    assert not any(counts[name] for name in LIMITS), counts
    assert counts["refused"] > tried // 10


def test_images() -> None:
    check(try_images(300), 300)


@pytest.mark.slow
def test_checkpoints() -> None:
    check(try_checkpoints(40), 40)


@pytest.mark.slow
def test_settings() -> None:
    counts = try_settings(1)
    assert counts["tried"] > 150
    check(counts, counts["tried"])


def test_records() -> None:
    counts = try_records(150)
    assert counts["tried"] == counts["opened"] + counts["refused"] == 150, counts


def test_addresses() -> None:
    counts = try_addresses(500)
    assert counts["tried"] == counts["refused"] == 500, counts


# The others cost seconds, and have tests of their own in tests/media.
@pytest.mark.parametrize("name", ["tree.pdf", "fragments.dcm", "boxes.mp4"])
def test_lists_in_files_that_never_end(name: str, tmp_path: Path) -> None:
    HOSTILE_FILES[name](tmp_path / name)
    opening = open_clip if name.endswith(".mp4") else open_image
    with pytest.raises(MediaError, match="damaged or incomplete"):
        opening(tmp_path / name)
