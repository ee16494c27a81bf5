"""What several processes learn from, and what one process learnt from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from slime_vlm.training.run import train
from tests.training.mini import records_recipe, write_recipe

STEPS = 12


@pytest.fixture(scope="session")
def shared_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records with answers of several lengths; a checkpoint at every step."""
    folder = tmp_path_factory.mktemp("shared_recipe")
    values = records_recipe(
        folder / "data",
        steps=STEPS,
        batch_size=4,
        micro_batch_size=1,
        learning_rate=1e-3,
        save_minutes=0.0,
        gradient_checkpointing=True,
        # What is drawn at random differs between processes.
        config={"selector_noise": 0.0, "gate_noise": False},
    )
    records = []
    for i in range(6):
        Image.new("RGB", (60 + 10 * i, 80), (40 * i, 90, 120)).save(folder / "data" / f"{i}.png")
        turns = [
            {"from": "human", "value": "<image>\nHow many?"},
            {"from": "gpt", "value": " ".join("abcdef"[: i + 1])},
        ]
        records.append({"id": str(i), "image": f"{i}.png", "conversations": turns})
    # Text alone uses fewer parts than an image does, and embeddings less often.
    said = [{"from": "human", "value": "Two?"}, {"from": "gpt", "value": "2"}]
    records.append({"id": "text", "conversations": said})
    (folder / "data" / "records.json").write_text(json.dumps(records))
    return write_recipe(folder, values)


@pytest.fixture(scope="session")
def alone(shared_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the stage as one process runs it."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("alone")
    train(shared_recipe, out)
    return out / "3"
