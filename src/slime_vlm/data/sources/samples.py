"""Files that share a name are one sample: an image (or several), with a record or a caption beside it."""

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
    images of one record. What belongs together is told by all of the name before its first dot.
    """

    def __init__(self, name: str, images: Path, names: Iterable[str]) -> None:
        """Args: the source's name, where file names start, and all of them.

        Raises:
            DataError: there is no sample.
        """
        super().__init__(name, images)
        found: dict[str, list[str]] = {}
        for file in names:
            # Hidden files, such as those that macOS puts beside each file of an archive.
            if PurePosixPath(file).name.startswith("."):
                continue
            key, ending = split_name(file)
            if ending in TEXTS or ending.rpartition(".")[2] in IMAGES:
                found.setdefault(key, []).append(file)
        self.samples = [(key, sorted(files)) for key, files in sorted(found.items())]
        if not any(split_name(file)[1] in TEXTS for _, files in self.samples for file in files):
            raise DataError(
                f"{name} holds no record: expected images with .json or .txt files of the same name beside them, or "
                "the name of a file of records"
            )

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.samples)

    @abstractmethod
    def content(self, file: str) -> bytes:
        """Bytes of a text file."""

    def read(self, index: int) -> Any:
        """Put a sample together."""
        key, files = self.samples[index]
        by_ending = {split_name(file)[1]: file for file in files}
        images = [file for file in files if split_name(file)[1] not in TEXTS]
        try:
            if "json" in by_ending:
                raw = json.loads(self.content(by_ending["json"]))
                if not isinstance(raw, dict):
                    raise DataError(f"{by_ending['json']} holds no record, expected keys and values")
                return {"id": key, **raw, "image": images} if images else {"id": key, **raw}
            text = next((file for ending, file in by_ending.items() if ending in TEXTS), None)
            if text is None:
                raise DataError(f"{key} is an image without a .json or .txt file of the same name")
            caption = self.content(text).decode("utf-8").strip()
        except ValueError as error:
            raise DataError(f"{key}: its text is damaged ({error})") from None
        question = "\n".join(["<image>"] * len(images))
        return {
            "id": key,
            "image": images,
            "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": caption}],
        }


def split_name(file: str) -> tuple[str, str]:
    """Name of the sample (with its folders), and what follows the first dot, in small letters."""
    path = PurePosixPath(file)
    name, _, ending = path.name.partition(".")
    return str(path.with_name(name)) if name else file, ending.lower()
