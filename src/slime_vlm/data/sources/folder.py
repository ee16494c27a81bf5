"""Records of a folder: images, each with a .json or .txt file of the same name beside it."""

from __future__ import annotations

import os
from pathlib import Path

from slime_vlm.data.sources.samples import Samples


class FolderRecords(Samples):
    """Samples of a folder and its subfolders."""

    def __init__(self, path: Path, images: Path | None = None) -> None:
        """List the files of a folder.

        Args:
            path: The folder.
            images: The folder of the images, if they lie elsewhere under the same names.

        Raises:
            DataError: The folder holds no sample.
        """
        names = [
            (Path(folder) / file).relative_to(top).as_posix()
            for top in dict.fromkeys([path, images or path])
            for folder, _, files in os.walk(top, followlinks=True)
            for file in files
        ]
        super().__init__(str(path), images or path, dict.fromkeys(names))
        self.path = path

    def content(self, file: str) -> bytes:
        """Return the bytes of a text file."""
        return (self.path / file).read_bytes()
