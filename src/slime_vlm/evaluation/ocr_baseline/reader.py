"""Read the texts of an image with RapidOCR. Its models come with its package, nothing is downloaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from slime_vlm.evaluation.ocr_baseline.boxes import TextBox
from slime_vlm.extras import import_extra

if TYPE_CHECKING:
    from PIL import Image


class OcrReader:
    """Read images with the models that RapidOCR ships.

    Args:
        threads: Number of CPU threads.

    Raises:
        MediaError: RapidOCR or onnxruntime is not installed.
    """

    def __init__(self, threads: int) -> None:
        what = "the OCR baseline needs RapidOCR"
        import_extra("onnxruntime", "ocr", what, "ocr")
        package = import_extra("rapidocr", "ocr", what, "ocr")
        self._engine: Any = package.RapidOCR(
            params={
                "Global.log_level": "error",
                # Pages are upright. The model does not handle rotated lines either.
                "Global.use_cls": False,
                "EngineConfig.onnxruntime.intra_op_num_threads": threads,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            }
        )

    def read(self, image: Image.Image) -> list[TextBox]:
        """Return the texts of an RGB image, with their boxes in pixels."""
        # RapidOCR expects BGR arrays, as OpenCV has them.
        found = self._engine(np.asarray(image)[..., ::-1])
        if found.boxes is None:
            return []
        boxes = []
        for corners, text in zip(np.asarray(found.boxes, dtype=float), found.txts, strict=True):
            (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
            boxes.append(TextBox(str(text), left, top, right, bottom))
        return boxes
