"""Whether a resumed stage has the records and images that it began with."""

from __future__ import annotations

import json
from pathlib import Path

from slime_vlm.data import RecordDataset
from slime_vlm.data.fingerprint import changes_between, fingerprint
from slime_vlm.training.checkpoint_manifest import write_at_once

DATA_FILE = "data.json"
"""Fingerprints of the data of a stage, in the folder of the stage."""


def compare_data(folder: Path, dataset: RecordDataset, resumed: bool, accept: bool) -> list[str]:
    """Compare the data of a stage with those that it began with. One of several processes calls this.

    Args:
        folder: Folder of the stage. The fingerprints are stored there when the stage begins.
        dataset: The records.
        resumed: Whether the stage continues from a checkpoint.
        accept: Whether to store the fingerprints also if the data changed, and to continue with them.

    Returns:
        What changed; nothing for a stage that begins, and for one that an earlier version began.
    """
    now = [fingerprint(source) for source in dataset.sources]
    path = folder / DATA_FILE
    changes = []
    if resumed and path.is_file():
        try:
            changes = changes_between(json.loads(path.read_text(encoding="utf-8")), now)
        except (ValueError, LookupError, TypeError, AttributeError):
            changes = [f"{path} is damaged, so nothing can be compared"]
    if accept and changes:
        # Their indices mean other records now.
        for file in folder.glob("bad_records_*.jsonl"):
            file.replace(file.with_name(f"former_{file.name}"))
    if accept or not changes:
        folder.mkdir(parents=True, exist_ok=True)
        write_at_once(path, json.dumps(now, indent=1))
    return changes
