"""A folder of images with a .json or .txt file of the same name beside each."""

from __future__ import annotations

import os
from pathlib import Path

from slime_vlm.data.sources.samples import Samples


class FolderRecords(Samples):
    """Samples of a folder and those below it."""

    def __init__(self, path: Path, images: Path | None = None) -> None:
        """Args: the folder, and where images lie if elsewhere, under the same names."""
        names = [
            (Path(folder) / file).relative_to(top).as_posix()
            for top in dict.fromkeys([path, images or path])
            for folder, _, files in os.walk(top, followlinks=True)
            for file in files
        ]
        super().__init__(str(path), images or path, dict.fromkeys(names))
        self.path = path

    def content(self, file: str) -> bytes:
        """Bytes of a text file."""
        return (self.path / file).read_bytes()
