"""Images to views: the global view and the tiles of every image, scaled, cut and normalised (paper section 3.1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, ImageInput, PILImageResampling
from transformers.processing_utils import ImagesKwargs, Unpack

from slime_vlm.errors import InputError
from slime_vlm.media import TiledImage, to_rgb
from slime_vlm.model.hub_mixin import HubMixin
from slime_vlm.model.hub_stub import IMAGE_PROCESSOR_AUTO_MAP, write_stub
from slime_vlm.model.tiling import TileGrid, choose_grid
from slime_vlm.processing.view_cutting import cut_views, scaling


class SlimeImageProcessorKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]
    """Options of the image processor beyond those of every image processor.

    Attributes:
        view_size: Side of a view in pixels.
        max_tiles: Maximum number of tiles of an image.
        tile_margin: Pixels of its neighbours that the view of a tile shows at every edge.
        resize_backend: "pillow", or "torch", which is faster on large images and differs by one grey level in a few of
            a thousand values. If the image shrinks far more in height than in width, or is scaled in bands, Pillow's
            filter is used anyway.
    """

    view_size: int
    max_tiles: int
    tile_margin: int
    resize_backend: str


_OVERSHOOT = 0.05
"""How far values of floating point arrays may be outside 0 to 1."""


_UNSUPPORTED = {
    "do_resize": None,
    "size": None,
    "do_center_crop": False,
    "crop_size": None,
    "do_pad": False,
    "pad_size": None,
}
"""Options of other image processors, with the value that changes nothing here."""


def as_rgb(image: Any) -> Image.Image:
    """Convert a PIL image, an array or a tensor to an 8-bit PIL RGB image.

    Arrays are [H, W], [H, W, C] or [C, H, W]. Floating point arrays hold 0 to 1, the convention of tensors. Modes and
    deep grey are treated as in opened files, see `media.to_rgb`. An RGB image is returned as it is.

    Raises:
        InputError: The array has no image shape, integers beyond 8 bits in several channels, or floating point numbers
            outside 0 to 1.
    """
    if isinstance(image, Image.Image):
        return _without_copy(image)
    array = np.asarray(image)
    if array.ndim == 3 and array.shape[-1] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3):
        raise InputError(f"an image array has shape {list(array.shape)}, expected [H, W], [H, W, C] or [C, H, W]")
    if np.issubdtype(array.dtype, np.floating):
        low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
        # Interpolation may overshoot a little. Values of 0 to 255, and normalised ones, would become black and white.
        if not (low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT):
            raise InputError(
                f"an image array of {array.dtype} holds values from {low:g} to {high:g}, expected 0 to 1; divide it by "
                "255, pass uint8, or undo its normalisation"
            )
        array = (array.clip(0.0, 1.0) * 255.0).round()
    elif array.size and not (array.min() >= 0 and array.max() <= 255):
        if array.ndim == 3:
            raise InputError(
                f"an image array holds values from {array.min()} to {array.max()}, expected 0 to 255; scale it first"
            )
        return to_rgb(Image.fromarray(array.astype(np.int32)))
    return _without_copy(Image.fromarray(array.astype(np.uint8, copy=False)))


def _without_copy(image: Image.Image) -> Image.Image:
    """Convert by `to_rgb`, but return an RGB image without a copy: it is never written to, and may take 600 MB."""
    return image if image.mode == "RGB" and not image.has_transparency_data else to_rgb(image)


def _refuse_unsupported(options: Mapping[str, Any]) -> None:
    """Refuse options of other image processors that would change the image, and that this one would ignore."""
    for name, harmless in _UNSUPPORTED.items():
        value = options.get(name)
        if value is not None and value is not harmless:
            raise InputError(
                f"{name} is {value!r:.80}, expected none: an image is scaled to its grid of tiles; set view_size and "
                "max_tiles"
            )


def normalise(
    pixels: np.ndarray, factor: float | None, statistics: tuple[Sequence[float], Sequence[float]] | None
) -> None:
    """Rescale and normalise views [V, 3, P, P] float32 in place, by mean and standard deviation of every colour."""
    if factor is not None:
        pixels *= np.float32(factor)
    if statistics is not None:
        mean, std = (np.asarray(values, dtype=np.float32)[:, None, None] for values in statistics)
        pixels -= mean
        pixels /= std


class SlimeImageProcessor(HubMixin, PilBackend):
    """Slices images of any size into views.

    It returns `pixel_values` [V, 3, P, P], the views of all images in order (the global view of an image before its
    tiles), and `image_grids` [I, 2], the (rows, columns) of every image.
    """

    model_input_names = ["pixel_values", "image_grids"]  # noqa: RUF012  (the base class's attribute)
    valid_kwargs = SlimeImageProcessorKwargs

    resample = PILImageResampling.BICUBIC
    image_mean = OPENAI_CLIP_MEAN
    image_std = OPENAI_CLIP_STD
    do_rescale = True
    do_normalize = True
    view_size = 336
    max_tiles = 7
    tile_margin = 0
    resize_backend = "pillow"

    def __init__(self, **kwargs: Unpack[SlimeImageProcessorKwargs]) -> None:
        super().__init__(**kwargs)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings, with the `auto_map` of a saved folder."""
        return {**super().to_dict(), "auto_map": dict(IMAGE_PROCESSOR_AUTO_MAP)}

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> list[str]:
        """Save preprocessor_config.json, and the stub module that its `auto_map` names."""
        write_stub(save_directory)
        return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    def grid(self, height: int, width: int) -> TileGrid:
        """Return the grid of an image of this size."""
        return choose_grid(height, width, self.view_size, self.max_tiles, self.tile_margin)

    def stream_views(
        self, image: ImageInput | TiledImage, views_per_chunk: int, views: str = "both"
    ) -> Iterator[Tensor]:
        """Cut one image of any size in bounded memory: the `pixel_values` of a call, a chunk at a time.

        Args:
            image: The image.
            views_per_chunk: Maximum number of views of a chunk.
            views: "both", or only the "global" view or the "local" tiles.

        Yields:
            [v, 3, P, P] with v <= views_per_chunk.
        """
        opened = image if isinstance(image, TiledImage) else as_rgb(image)
        cut = cut_views(opened, self.grid(opened.height, opened.width), self.resample, views, self.resize_backend)
        while chunk := list(islice(cut, views_per_chunk)):
            yield self.pixel_values(chunk)

    def frame_views(self, frames: Sequence[ImageInput]) -> Tensor:
        """Squash every frame of a video to one view: [F, 3, P, P]."""
        scalings = (scaling(as_rgb(frame), self.resample, self.resize_backend) for frame in frames)
        return self.pixel_values([scale(self.view_size, self.view_size) for scale in scalings])

    def pixel_values(self, views: Sequence[np.ndarray]) -> Tensor:
        """Convert views [P, P, 3] uint8 to the input of the vision encoder, [v, 3, P, P]."""
        pixels = np.stack(views).transpose(0, 3, 1, 2).astype(np.float32, order="C")
        normalise(
            pixels,
            self.rescale_factor if self.do_rescale else None,
            (self.image_mean, self.image_std) if self.do_normalize else None,
        )
        return torch.from_numpy(pixels)

    def process_image(self, image: ImageInput, **kwargs: Any) -> Image.Image:
        """Convert one image to RGB. Unlike other processors, this one works on PIL images until they are cut."""
        return as_rgb(image)

    def _preprocess(
        self,
        images: list[Image.Image],
        view_size: int,
        max_tiles: int,
        tile_margin: int,
        resize_backend: str,
        resample: int,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: tuple[float, ...],
        image_std: tuple[float, ...],
        return_tensors: str | None,
        **kwargs: Any,
    ) -> BatchFeature:
        if not images:
            raise InputError("got no image to process, expected at least one; leave images out for text alone")
        _refuse_unsupported(kwargs)
        if do_normalize and not do_rescale and max(image_std) <= 1:
            raise InputError(
                "do_rescale is False, but views hold 0 to 255, and image_mean and image_std are of 0 to 1; leave "
                "do_rescale out, also for arrays of 0 to 1"
            )
        grids = [choose_grid(image.height, image.width, view_size, max_tiles, tile_margin) for image in images]
        pixels = np.empty((sum(grid.num_views for grid in grids), 3, view_size, view_size), dtype=np.float32)
        views = (
            view
            for image, grid in zip(images, grids, strict=True)
            for view in cut_views(image, grid, resample, resize_backend=resize_backend)
        )
        for out, view in zip(pixels, views, strict=True):
            out[:] = view.transpose(2, 0, 1)
        normalise(pixels, rescale_factor if do_rescale else None, (image_mean, image_std) if do_normalize else None)
        data = {
            "pixel_values": pixels,
            "image_grids": np.asarray([(grid.rows, grid.cols) for grid in grids], dtype=np.int64),
        }
        return BatchFeature(data=data, tensor_type=return_tensors)
