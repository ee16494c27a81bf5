"""Records of WebDataset tar files. Samples are files with one name, read in place in any order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from slime_vlm.data.archives import ByteRange, read_range, tar_members
from slime_vlm.data.sources.samples import Samples


class TarShards(Samples):
    """Samples of one or more tar files. Only the headers are read until a record is accessed."""

    def __init__(self, name: str, files: Sequence[Path]) -> None:
        """Find the samples of the files.

        Args:
            name: The name of the source.
            files: Its files, all in one folder.

        Raises:
            DataError: A file is damaged or compressed, or there is no sample.
        """
        folder = files[0].parent
        # Images are named as members of their shard, which is how `images.open_stored_image` finds them.
        self.members: dict[str, tuple[Path, ByteRange]] = {
            f"{path.relative_to(folder).as_posix()}/{member}": (path, span)
            for path in files
            for member, span in tar_members(path).items()
        }
        super().__init__(name, folder, self.members)

    def content(self, file: str) -> bytes:
        """Return the bytes of a text file."""
        return read_range(*self.members[file])
