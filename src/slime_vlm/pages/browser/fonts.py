"""Font families for browser-laid documents: their packages, which are held out, and the file of each face."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from slime_vlm.errors import ConfigError
from slime_vlm.pages.debian_packages import KeptFile, read_package_list

PACKAGES = Path(__file__).with_name("fonts.tsv")
FAMILIES = "families.json"

# Families that draw other characters than the text says: symbols, Greek, capitals in place of small letters.
_UNREADABLE = frozenset(
    {
        "Alfa-beta",
        "Bebas Neue",
        "D050000L",
        "Go Smallcaps",
        "IrianisADFStyleStd",
        "Irianis ADF Style Std",
        "Latin Modern Mono Caps",
        "Latin Modern Roman Caps",
        "Mekanus ADF Titling Std",
        "Museum",
        "Romande ADF Style Std",
        "STIX Math",
        "Standard Symbols PS",
    }
)
# What every face must have: ASCII from the space to the tilde.
_NEEDED = range(0x20, 0x7F)
_FORMAT = r"%{family[0]}\t%{weight}\t%{slant}\t%{width}\t%{variable}\t%{charset}\t%{file}\n"


@dataclass(frozen=True)
class Family:
    """A font family of the cache.

    Attributes:
        name: Name of the family.
        package: Debian package.
        split: "train" or "heldout".
        use: "text", or "display" for titles and handwriting.
        faces: File of each face by name: "regular" always, "bold" and "italic" where they exist; relative to the cache.
    """

    name: str
    package: str
    split: str
    use: str
    faces: dict[str, str]


def _covers(charset: str) -> bool:
    """Whether a fontconfig character set, ranges in hexadecimal, holds everything needed."""
    held: set[int] = set()
    for span in charset.split():
        first, _, last = span.partition("-")
        held.update(range(int(first, 16), int(last or first, 16) + 1))
        if max(held) > max(_NEEDED):
            break
    return held.issuperset(_NEEDED)


def list_families(cache: Path, files: list[KeptFile]) -> list[Family]:
    """Find the families of fetched font files by fontconfig's fc-scan, and write them to `families.json`.

    Raises:
        ConfigError: fc-scan is absent.
    """
    if shutil.which("fc-scan") is None:
        raise ConfigError("fc-scan: not found, expected fontconfig; apt-get install fontconfig")
    listed = {package.name: package for package in read_package_list(PACKAGES)}
    packages = {str(cache / file.path): file.package for file in files if file.package in listed}
    command = ["fc-scan", "--format", _FORMAT, *packages]
    scanned = subprocess.run(command, capture_output=True, text=True, errors="replace").stdout
    faces: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for line in sorted(scanned.splitlines()):
        fields = line.split("\t")
        # The ranges of a variable font's weights and widths are written in brackets.
        if len(fields) != 7 or fields[4] != "False" or not fields[1].isdigit() or not _covers(fields[5]):
            continue
        name, weight, slant, width, _, _, path = fields
        # Files that carry a stretched or condensed face under the family's name would be taken for the normal one.
        if width not in ("100", "") or path not in packages or not name.isascii() or name in _UNREADABLE:
            continue
        face = {("80", "0"): "regular", ("200", "0"): "bold", ("80", "100"): "italic", ("100", "0"): "medium"}.get(
            (weight, slant if slant == "0" else "100")
        )
        if face:
            faces[name, packages[path]].setdefault(face, str(Path(path).relative_to(cache)))
    families = []
    taken: dict[str, str] = {}
    for (name, package), found in sorted(faces.items()):
        if "medium" in found:
            medium = found.pop("medium")
            found.setdefault("regular", medium)
        # The same family from a second package would have to be in the same split; the first one is enough.
        if "regular" in found and taken.setdefault(name, package) == package:
            source = listed[package]
            families.append(Family(name, package, source.split, source.use, found))
    text = json.dumps([vars(family) for family in families], indent=1)
    (cache / FAMILIES).write_text(text + "\n", encoding="utf-8")
    return families


def read_families(cache: Path, split: str | None = None) -> list[Family]:
    """Return the families of a cache folder, of one split or of both.

    Raises:
        ConfigError: The folder holds no list of families.
    """
    path = cache / FAMILIES
    if not path.exists():
        raise ConfigError(f"{cache}: no {FAMILIES}, expected a folder of fonts; run scripts/fetch_fonts.py {cache}")
    families = [Family(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    return [family for family in families if split in (None, family.split)]
