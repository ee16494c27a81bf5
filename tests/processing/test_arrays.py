"""Image arrays of any type are shown as they are, or refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slime_vlm.errors import InputError
from slime_vlm.processing.image_processing_slime import as_rgb


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_of_0_to_1_are_scaled(dtype: type) -> None:
    array = np.array([[0.0, 0.5, 1.0]], dtype=dtype)
    assert np.asarray(as_rgb(array))[..., 0].tolist() == [[0, 128, 255]]
    assert np.asarray(as_rgb(torch.from_numpy(array)))[..., 0].tolist() == [[0, 128, 255]]


def test_a_small_overshoot_is_clipped() -> None:
    assert np.asarray(as_rgb(np.array([[-0.02, 1.03]])))[..., 0].tolist() == [[0, 255]]


@pytest.mark.parametrize(
    ("values", "message"),
    [([0.0, 255.0], "from 0 to 255"), ([-2.1, 2.6], "from -2.1 to 2.6"), ([0.0, float("nan")], "nan")],
)
def test_other_ranges_are_refused(values: list[float], message: str) -> None:
    with pytest.raises(InputError, match=f"{message}.*expected 0 to 1"):
        as_rgb(np.array([values, values]))
