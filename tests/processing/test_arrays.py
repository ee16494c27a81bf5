"""Image arrays of any type are shown as they are, or refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slime_vlm.errors import InputError, MediaError
from slime_vlm.processing.image_processing_slime import as_rgb
from tests.tiny_text import tiny_processor


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


def test_a_grey_array_is_an_image_like_any_other() -> None:
    processor = tiny_processor()
    grey = np.arange(56 * 56, dtype=np.uint8).reshape(56, 56)
    expected = processor(images=[np.stack([grey] * 3, axis=-1)], text="<image>a")
    found = processor(images=[grey], text="<image>a")
    assert torch.equal(found["pixel_values"], expected["pixel_values"])


def test_a_text_that_names_no_image_is_shown_in_short() -> None:
    with pytest.raises(MediaError, match="no such file") as error:
        tiny_processor()(images=["none/of/these.png" + "A" * 10_000], text="<image>a")
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    "options", [{"size": {"height": 9, "width": 9}}, {"do_resize": False}, {"crop_size": {"height": 9, "width": 9}}]
)
def test_options_of_other_image_processors_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(options))} is .*expected none"):
        tiny_processor()(images=[np.zeros((56, 56, 3), np.uint8)], text="<image>a", **options)
    tiny_processor()(images=[np.zeros((56, 56, 3), np.uint8)], text="<image>a", do_center_crop=False, do_pad=False)


def test_normalising_grey_levels_that_are_not_rescaled_is_refused() -> None:
    image, processor = np.zeros((56, 56, 3), np.float32), tiny_processor()
    with pytest.raises(InputError, match="do_rescale is False"):
        processor(images=[image], text="<image>a", do_rescale=False)
    processor(images=[image], text="<image>a", do_rescale=False, do_normalize=False)
