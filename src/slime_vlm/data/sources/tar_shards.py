"""WebDataset tars: samples are files of one name, read in place, shard by shard or in any order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from slime_vlm.data.archives import Place, read_place, tar_places
from slime_vlm.data.sources.samples import Samples


class TarShards(Samples):
    """Samples of one or more tar files; only their headers are read before a record is wanted."""

    def __init__(self, name: str, files: Sequence[Path]) -> None:
        """Args: the source's name, and its files, all in one folder.

        Raises:
            DataError: a file is damaged or compressed, or there is no sample.
        """
        folder = files[0].parent
        # An image is named as a member of its shard, which is how `images.open_stored_image` finds it.
        self.places: dict[str, tuple[Path, Place]] = {
            f"{path.relative_to(folder).as_posix()}/{member}": (path, place)
            for path in files
            for member, place in tar_places(path).items()
        }
        super().__init__(name, folder, self.places)

    def content(self, file: str) -> bytes:
        """Bytes of a text file."""
        return read_place(*self.places[file])
