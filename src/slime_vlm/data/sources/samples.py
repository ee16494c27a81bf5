"""Samples made of files that share a name: one or more images, with a record or a caption beside them."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from slime_vlm.data.source import Source
from slime_vlm.errors import DataError

IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "jp2", "heic")
TEXTS = ("json", "txt", "caption")


class Samples(Source):
    """Samples of a folder or of tar shards (WebDataset's layout).

    `a.png` with `a.json` is a record, `a.png` with `a.txt` an image and its caption; `a.0.png` and `a.1.png` are two
    images of one record. Files belong together if their names are equal up to the first dot.
    """

    def __init__(self, name: str, images: Path, names: Iterable[str]) -> None:
        """Group the files into samples.

        Args:
            name: The name of the source.
            images: Where image paths start.
            names: The names of all files.

        Raises:
            DataError: No sample has a text.
        """
        super().__init__(name, images)
        found: dict[str, list[str]] = {}
        for file in names:
            # Skip hidden files, such as those that macOS puts into archives beside each file.
            if PurePosixPath(file).name.startswith("."):
                continue
            key, ending = split_name(file)
            if ending in TEXTS or ending.rpartition(".")[2] in IMAGES:
                found.setdefault(key, []).append(file)
        self.samples = [(key, sorted(files)) for key, files in sorted(found.items())]
        if not any(split_name(file)[1] in TEXTS for _, files in self.samples for file in files):
            raise DataError(
                f"{name} has no record: expected images with .json or .txt files of the same name beside them, or "
                "the name of a file with records"
            )

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.samples)

    @abstractmethod
    def content(self, file: str) -> bytes:
        """Return the bytes of a text file."""

    def read(self, index: int) -> Any:
        """Assemble the record of a sample."""
        key, files = self.samples[index]
        by_ending = {split_name(file)[1]: file for file in files}
        images = [file for file in files if split_name(file)[1] not in TEXTS]
        try:
            if "json" in by_ending:
                raw = json.loads(self.content(by_ending["json"]))
                if not isinstance(raw, dict):
                    raise DataError(f"{by_ending['json']} is not a record, expected keys and values")
                return {"id": key, **raw, "image": images} if images else {"id": key, **raw}
            text = next((file for ending, file in by_ending.items() if ending in TEXTS), None)
            if text is None:
                raise DataError(f"{key} is an image without a .json or .txt file of the same name")
            caption = self.content(text).decode("utf-8").strip()
        except (ValueError, RecursionError) as error:
            raise DataError(f"{key}: its text is damaged ({error})") from None
        question = "\n".join(["<image>"] * len(images))
        return {
            "id": key,
            "image": images,
            "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": caption}],
        }


def split_name(file: str) -> tuple[str, str]:
    """Split a file name into the sample (with its folders) and what follows the first dot, in small letters."""
    path = PurePosixPath(file)
    name, _, ending = path.name.partition(".")
    return str(path.with_name(name)) if name else file, ending.lower()
