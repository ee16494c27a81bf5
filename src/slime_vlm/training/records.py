"""Published conversation records as training samples: `{"id", "image", "conversations": [{"from", "value"}, ...]}`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset

from slime_vlm.errors import DataError, SlimeError
from slime_vlm.inputs import open_image

if TYPE_CHECKING:
    from slime_vlm.model.processing_slime import SlimeProcessor


class RecordDataset(Dataset):
    """Records of a JSON (a list) or JSONL file; images are opened when a record is taken.

    Raises:
        DataError: the file is missing, is no such list, or a record lacks its conversation.
    """

    def __init__(self, path: str | Path, images: str | Path | None = None) -> None:
        """Args: the file, and the folder that image paths start from (default: the file's own)."""
        self.path = Path(path)
        self.images = Path(images) if images else self.path.parent
        if not self.path.is_file():
            raise DataError(f"no records at {path}: expected a JSON or JSONL file of conversations")
        try:
            text = self.path.read_text(encoding="utf-8")
            if text.lstrip().startswith("["):
                self.records: list[dict[str, Any]] = json.loads(text)
            else:
                self.records = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError as error:
            raise DataError(f"{path} is not JSON: {error}") from error
        if not self.records:
            raise DataError(f"{path} holds no record")
        for index, record in enumerate(self.records):
            turns = record.get("conversations") if isinstance(record, dict) else None
            if not isinstance(turns, list) or not turns:
                raise DataError(f"{path}: record {index} has no 'conversations', expected a list of turns")

    def __len__(self) -> int:
        """Number of records."""
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The record with its image opened (`image` is None for text alone)."""
        record = self.records[index]
        image = record.get("image")
        try:
            opened = None if image is None else open_image(self.images / image)
        except SlimeError as error:
            raise DataError(f"{self.path}: record {record.get('id', index)!r}: {error}") from error
        return {**record, "image": opened}


class RecordCollator:
    """Records -> a batch with labels."""

    def __init__(self, processor: SlimeProcessor, style: str | None, max_length: int | None) -> None:
        """Args: the processor, a conversation style in place of the model's, the length that rows are cut to."""
        self.processor, self.style, self.max_length = processor, style, max_length

    def __call__(self, records: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Encode a list of records."""
        images = [[record["image"]] if record["image"] is not None else [] for record in records]
        batch = self.processor.encode_conversations(
            [record["conversations"] for record in records],
            images=images,
            return_labels=True,
            style=self.style,
            max_length=self.max_length,
        )
        return dict(batch)
