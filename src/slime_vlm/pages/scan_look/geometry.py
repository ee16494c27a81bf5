"""Effects that move the pixels of a page, and its boxes with them."""

from __future__ import annotations

import numpy as np
from PIL import Image

Moved = tuple[np.ndarray, np.ndarray, float]
"""Image uint8 [H, W, 3], boxes float32 [N, 4], and by how much letters have grown."""


def tilt(rng: np.random.Generator, image: np.ndarray, boxes: np.ndarray) -> Moved:
    """Lay the sheet askew on the glass, by up to 2.5 degrees."""
    height, width = image.shape[:2]
    angle = np.deg2rad(rng.uniform(-2.5, 2.5) * rng.choice((0.4, 0.4, 1.0)))
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    centre = corners.mean(0)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return _warp(rng, image, boxes, corners, (corners - centre) @ turn.T + centre, keep=True)


def perspective(rng: np.random.Generator, image: np.ndarray, boxes: np.ndarray) -> Moved:
    """Photograph the sheet from an angle, on a table."""
    height, width = image.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    off = rng.uniform(-0.045, 0.045, (4, 2)) * min(height, width)
    margin = rng.uniform(0.0, 0.05) * min(height, width)
    inward = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * margin
    angle = np.deg2rad(rng.uniform(-3, 3))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = corners.mean(0)
    return _warp(rng, image, boxes, corners, (corners - centre) @ turn.T + centre + off + inward, keep=False)


def _homography(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The matrix [3, 3] that takes four points to four others."""
    rows, values = [], []
    for (x, y), (u, v) in zip(source.tolist(), target.tolist(), strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.append(np.linalg.solve(np.array(rows), np.array(values)), 1).reshape(3, 3)


def move_boxes(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Move boxes [N, 4] by a homography: the upright box around each moved one."""
    if not len(boxes):
        return boxes
    x0, y0, x1, y1 = boxes.astype(float).T
    corners = np.stack([np.stack([x0, x1, x1, x0], -1), np.stack([y0, y0, y1, y1], -1), np.ones((len(boxes), 4))], -1)
    moved = corners @ matrix.T
    x, y = moved[..., 0] / moved[..., 2], moved[..., 1] / moved[..., 2]
    return np.stack([x.min(1), y.min(1), x.max(1), y.max(1)], -1).astype(np.float32)


def _warp(
    rng: np.random.Generator,
    image: np.ndarray,
    boxes: np.ndarray,
    source: np.ndarray,
    target: np.ndarray,
    keep: bool,
) -> Moved:
    """Move the corners of a page to others; `keep` keeps the size of the page, else all of it stays in view."""
    height, width = image.shape[:2]
    if not keep:
        target = target - target.min(0)
        width, height = (np.ceil(target.max(0)).astype(int)).tolist()
    matrix = _homography(source, target)
    back = np.linalg.inv(matrix)
    back /= back[2, 2]
    # What lies around the sheet: its own paper's colour on a scanner, a table under a camera.
    around = tuple(image[:4].reshape(-1, 3).mean(0).astype(int).tolist())
    fill = around if keep else tuple(int(rng.integers(20, 200)) for _ in range(3))
    moved = Image.fromarray(image).transform(
        (width, height),
        Image.Transform.PERSPECTIVE,
        back.reshape(-1)[:8].tolist(),
        Image.Resampling.BICUBIC if keep else Image.Resampling.BILINEAR,
        fillcolor=fill,
    )
    grown = float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
    return np.array(moved), move_boxes(boxes, matrix), grown
