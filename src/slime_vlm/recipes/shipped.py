"""Find a shipped recipe by its name: `nano`, `ablations/joint`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class ShippedRecipe:
    """A YAML file of this folder.

    Attributes:
        name: Path inside the folder, without its suffix.
        path: The file.
        purpose: What it is for.
        command: The command line that its first comment gives.
    """

    name: str
    path: Path
    purpose: str
    command: str


def shipped_recipes() -> list[ShippedRecipe]:
    """Return every shipped recipe in the order of names, those of subfolders last."""
    files = sorted(FOLDER.rglob("*.yaml"), key=lambda path: (len(path.parts), path))
    return [_described(path) for path in files]


def recipe_path(recipe: str | Path) -> Path:
    """Return the file of a recipe given by its path or by the name of a shipped one; a file comes first."""
    path = Path(recipe)
    if path.is_file():
        return path
    return next((shipped.path for shipped in shipped_recipes() if shipped.name == path.as_posix()), path)


def _described(path: Path) -> ShippedRecipe:
    # Read as text: YAML needs a package that inference does not.
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = [line.removeprefix("#").strip() for line in lines if line.startswith("#")]
    described = [line.removeprefix("description:").strip() for line in lines if line.startswith("description:")]
    return ShippedRecipe(
        name=path.relative_to(FOLDER).with_suffix("").as_posix(),
        path=path,
        # Settings of accelerate know no description.
        purpose=(described or comments[1:])[0],
        command=comments[0],
    )
