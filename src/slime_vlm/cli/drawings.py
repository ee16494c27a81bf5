"""Check and write the files of `--show` and `/show`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


def check_target(path: Path, option: str) -> None:
    """Check that a drawing can be written to a file.

    Args:
        path: The file.
        option: The option or command that named it, for the error message.

    Raises:
        MediaError: The path is a folder, does not end like an image file, or lies where nothing can be written.
    """
    from PIL import Image

    from slime_vlm.errors import MediaError

    if path.is_dir():
        raise MediaError(f"{option} {path}: this is a folder, a file name is expected")
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        ending = path.suffix or "a name without ending"
        raise MediaError(f"{option} {path}: {ending} is not an image format; end the name in .png or .jpg")
    # Missing folders are made when the image is written, inside the nearest one that exists.
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    if not nearest.is_dir() or not os.access(path if path.exists() else nearest, os.W_OK):
        raise MediaError(f"{option} {path}: nothing can be written to {nearest}; choose another folder")


def save_drawing(image: Image.Image, path: Path) -> None:
    """Write a drawing, and make the folders it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def report_missing_letters(text: str) -> None:
    """Say on standard error which letters of a drawn text no font on this machine has."""
    import typer

    from slime_vlm.inference.fonts import missing_letters

    missing = missing_letters(text)
    if missing:
        shown = missing[:8] + ("…" if len(missing) > 8 else "")
        typer.echo(
            f"slime: no installed font has {shown}, drawn as boxes; install one that has, such as Noto Sans CJK",
            err=True,
        )
