"""Grey windows: values computed by hand, windows on deep grey, and texts that cannot be parsed."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from slime_vlm.errors import InputError
from slime_vlm.media import Window, open_image
from slime_vlm.media.colours import eight_bit


def test_window_values_computed_by_hand():
    # Black at 40 - 200, white at 40 + 200; between them 255 * (value + 160) / 400.
    values = np.array([[-1000, -160, -60], [40, 140, 240], [241, 3000, 0]])
    assert Window(40, 400).apply(values).tolist() == [[0, 0, 64], [128, 191, 255], [255, 255, 102]]


def test_window_on_a_sixteen_bit_png(tmp_path):
    values = np.array([[0, 1000, 1050], [1100, 1200, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    opened = np.asarray(open_image(tmp_path / "a.png", window=Window(1100, 200)))
    assert opened[..., 0].tolist() == [[0, 0, 64], [128, 255, 255]]


@pytest.mark.parametrize(
    ("text", "center", "width"), [("40/400", 40, 400), ("-600/1500", -600, 1500), (" .5 / 1e3", 0.5, 1000)]
)
def test_windows_are_parsed(text, center, width):
    assert Window.parse(text) == Window(center, width)


@pytest.mark.parametrize(
    "text", ["", "40", "40/", "/400", "40/0", "40/-3", "a/b", "40/400/1", "nan/1", "1/inf", "1/1e999"]
)
def test_invalid_windows_are_refused(text):
    with pytest.raises(InputError, match=r"--window .*expected"):
        Window.parse(text)


def test_invalid_pixels_do_not_affect_the_range():
    values = np.array([[-9999, 10], [20, 30]], np.int16)
    valid = values > -9999
    assert eight_bit(values, valid=valid).tolist() == [[0, 10], [20, 30]]
    assert eight_bit(values[:1, :1], valid=valid[:1, :1]).shape == (1, 1)
