"""Fonts by fixed name: the families for training, the held-out families, their metrics and their glyphs.

No font of the system is used, so the same settings draw the same pages everywhere. Font files come from Python packages
of the `train` extra. Aileron is built into Pillow.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from PIL import ImageFont

from slime_vlm.errors import ConfigError

_METRIC_SIZE = 200  # metrics are measured once at this size and scaled


@dataclass(frozen=True)
class FontFile:
    """A face of a family and the Python package that carries it; `pillow` needs no file."""

    family: str
    package: str
    file: str
    heldout: bool = False


def _faces(family: str, package: str, folder: str, files: str, heldout: bool = False) -> dict[str, FontFile]:
    return {Path(f).stem: FontFile(family, package, folder + f, heldout) for f in files.split()}


_MPL = "mpl-data/fonts/ttf/"
FONTS: dict[str, FontFile] = {
    **_faces("DejaVu Sans", "matplotlib", _MPL, "DejaVuSans.ttf DejaVuSans-Bold.ttf DejaVuSans-Oblique.ttf"),
    **_faces("DejaVu Serif", "matplotlib", _MPL, "DejaVuSerif.ttf DejaVuSerif-Bold.ttf DejaVuSerif-Italic.ttf"),
    **_faces("DejaVu Sans Mono", "matplotlib", _MPL, "DejaVuSansMono.ttf DejaVuSansMono-Bold.ttf"),
    **_faces(
        "Roboto",
        "font_roboto",
        "files/",
        "Roboto-Regular.ttf Roboto-Medium.ttf Roboto-Bold.ttf Roboto-Italic.ttf",
    ),
    **_faces(
        "Source Sans Pro",
        "font_source_sans_pro",
        "files/",
        "SourceSansPro-Regular.ttf SourceSansPro-Semibold.ttf SourceSansPro-It.ttf",
    ),
    **_faces(
        "Source Serif Pro",
        "font_source_serif_pro",
        "files/",
        "SourceSerifPro-Regular.otf SourceSerifPro-Semibold.otf SourceSerifPro-It.otf",
    ),
    **_faces("Manrope", "font_manrope", "files/", "Manrope-Regular.ttf Manrope-SemiBold.ttf"),
    **_faces("Lato", "font_lato", "files/", "Lato-Regular.ttf Lato-Bold.ttf Lato-Italic.ttf"),
    **_faces("Red Hat Display", "font_rhd", "files/", "RedHatDisplay-Regular.ttf RedHatDisplay-Bold.ttf"),
    **_faces("Fjalla One", "font_fjallaone", "files/", "FjallaOne-Regular.ttf"),
    "Aileron": FontFile("Aileron", "pillow", ""),
    **_faces(
        "Caladea", "font_caladea", "files/", "Caladea-Regular.ttf Caladea-Bold.ttf Caladea-Italic.ttf", heldout=True
    ),
    **_faces(
        "Hanken Grotesk",
        "font_hanken_grotesk",
        "files/",
        "HankenGrotesk-Regular.otf HankenGrotesk-SemiBold.otf",
        heldout=True,
    ),
    **_faces("STIX", "matplotlib", _MPL, "STIXGeneral.ttf STIXGeneralBol.ttf", heldout=True),
}


def font_names(split: str, fonts: str = "all") -> tuple[str, ...]:
    """Return the names of the faces that pages of a split may use.

    Args:
        split: "heldout_fonts" for the held-out families, anything else for the training ones.
        fonts: "all", or "pillow" for the one face that needs no extra package.

    Raises:
        ConfigError: Held-out faces asked of "pillow", which has none.
    """
    heldout = split == "heldout_fonts"
    names = tuple(n for n, f in FONTS.items() if f.heldout == heldout and (fonts == "all" or f.package == "pillow"))
    if not names:
        raise ConfigError(
            f"fonts '{fonts}' have no held-out family, which the split heldout_fonts needs; use fonts 'all'"
        )
    return names


@cache
def _path(name: str) -> str:
    face = FONTS[name]
    spec = importlib.util.find_spec(face.package)
    for root in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(root) / face.file
        if path.is_file():
            return str(path)
    raise ConfigError(
        f"font {name} ({face.family}) not found, expected in the package {face.package}: "
        'run pip install "slime-vlm[eval]", or take the font of Pillow: slime pages --fonts pillow, or fonts: pillow '
        "under data.pages of a recipe"
    )


@lru_cache(maxsize=512)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    if FONTS[name].package == "pillow":
        font = ImageFont.load_default(size)
        if not isinstance(font, ImageFont.FreeTypeFont):
            raise ConfigError("Pillow was built without FreeType: install a wheel of Pillow")
        return font
    # Basic layout: one glyph per character, so a character's box is known without shaping.
    return ImageFont.truetype(_path(name), size, layout_engine=ImageFont.Layout.BASIC)


@dataclass(frozen=True)
class FontMetrics:
    """Measures of a face for a font size of 1.

    Attributes:
        advances: float64 [128], width of each ASCII character.
        ascent: Height of the tallest letter above the baseline.
        descent: Depth of the deepest letter below it.
        capital: Height of a capital letter.
    """

    advances: np.ndarray
    ascent: float
    descent: float
    capital: float


@cache
def font_metrics(name: str) -> FontMetrics:
    """Return the measures of the face called `name`.

    Raises:
        ConfigError: The package that carries the face is not installed.
    """
    font = _font(name, _METRIC_SIZE)
    advances = np.zeros(128)
    for code in range(32, 127):
        advances[code] = font.getlength(chr(code)) / _METRIC_SIZE
    _, top, _, bottom = font.getbbox("dlpgqyj()0", anchor="ls")
    return FontMetrics(
        advances, -top / _METRIC_SIZE, bottom / _METRIC_SIZE, -font.getbbox("H", anchor="ls")[1] / _METRIC_SIZE
    )


@lru_cache(maxsize=20000)
def glyph(name: str, size: int, character: str) -> tuple[np.ndarray, int, int, float]:
    """Return the coverage of one character.

    Returns:
        uint8 [h, w], its offset (down, right) from the pen position on the baseline, and its advance in pixels.
    """
    advance = float(font_metrics(name).advances[ord(character)]) * size
    mask, (right, down) = _font(name, size).getmask2(character, mode="L", anchor="ls")
    width, height = mask.size
    if width * height == 0:
        return np.zeros((0, 0), np.uint8), 0, 0, advance
    return np.array(mask, dtype=np.uint8).reshape(height, width), down, right, advance
