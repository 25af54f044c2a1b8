"""Images as mlx-data has them: height, width and channels in this order, or frames before these for a video.

Crops and flips are plain numpy, of any dtype and any number of channels. Resizing and rotating are mlx-data's
own, on uint8.
"""

from __future__ import annotations

from math import ceil, floor, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.engine import Kernel
from streamgeo.errors import StepError

Array = NDArray[Any]
WEIGHTS = {
    "default": (0.299, 0.587, 0.114),
    "rec601": (0.299, 0.587, 0.114),
    "rec709": (0.2126, 0.7152, 0.0722),
    "rec2020": (0.2627, 0.678, 0.0593),
    "green": (0.0, 1.0, 0.0),
}


def size_of(image: Array) -> tuple[int, int]:
    """Width and height.

    Raises:
        StepError: when the array is no image.
    """
    if image.ndim not in (3, 4):
        raise StepError(
            f"an array of shape {image.shape} is no image; give (height, width, channels), or (frames, height, "
            "width, channels), and a last dim of 1 to an image without channels"
        )
    return image.shape[-2], image.shape[-3]


def box(image: Array, x: int, y: int, w: int, h: int) -> Array:
    """The part of ``w`` columns from ``x`` on and ``h`` rows from ``y`` on."""
    return image[..., y : y + h, x : x + w, :]


def center_crop(image: Array, *, w: int, h: int) -> Array:
    """The middle of an image."""
    width, height = _room(image, w, h)
    return box(image, (width - w) // 2, (height - h) // 2, w, h)


def random_crop(image: Array, *, w: int, h: int, rng: np.random.Generator) -> Array:
    """A part of an image, all places alike."""
    width, height = _room(image, w, h)
    return box(image, int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h)


def _room(image: Array, w: int, h: int) -> tuple[int, int]:
    width, height = size_of(image)
    if w > width or h > height:
        raise StepError(
            f"w={w}, h={h} exceeds an image of width {width} and height {height}; pad or resize it first"
        )
    return width, height


def random_area_crop(
    image: Array,
    *,
    area_range: tuple[float, float],
    aspect_ratio_range: tuple[float, float],
    num_trial: int,
    rng: np.random.Generator,
) -> Array:
    """A part of an image with a share of its area, and of its aspect ratio, in the given ranges.

    A width is drawn, then a height that keeps both ranges; the whole image when no trial finds one.
    """
    width, height = size_of(image)
    (least, most), (narrow, wide) = area_range, aspect_ratio_range
    low, high = ceil(sqrt(least * narrow) * width), floor(min(sqrt(most * wide) * width, width))
    for _ in range(num_trial if 0 < low <= high and height else 0):
        w = int(rng.integers(low, high + 1))
        ratio = w * height / width  # the height at which the aspect ratio is that of the image
        bottom = ceil(max(ratio / wide, least * width * height / w))
        top = floor(min(ratio / narrow, most * width * height / w, height))
        if not 0 < bottom <= top:
            continue
        h = int(rng.integers(bottom, top + 1))
        return box(image, int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h)
    return image


def random_h_flip(image: Array, *, prob: float, rng: np.random.Generator) -> Array:
    """Left to right, with a probability."""
    size_of(image)
    return image[..., ::-1, :] if rng.random() < prob else image


def by_kernel(image: Array, *, kernel: Kernel) -> Array:
    """What one of mlx-data's own operations on uint8 images of 1 to 4 channels makes of it."""
    size_of(image)
    if image.dtype != np.uint8:
        raise StepError(
            f"it works on uint8, and the image is {image.dtype}; bring it to 0 to 255 and sg.cast first"
        )
    if not 1 <= image.shape[-1] <= 4 or not image.size:
        raise StepError(
            f"it works on images of 1 to 4 channels that are not empty, not on shape {image.shape}"
        )
    made: Array = kernel({"image": image})["image"]
    return made


def channel_reduction(image: Array, *, preset: str, kernel: Kernel) -> Array:
    """Red, green and blue as one channel. uint8 is mlx-data's own; other integers are rounded."""
    size_of(image)
    if image.shape[-1] != 3:
        raise StepError(f"it needs 3 channels, red, green and blue; the image has shape {image.shape}")
    if image.dtype == np.uint8:
        return by_kernel(image, kernel=kernel)
    if image.dtype.kind not in "iufc":
        raise StepError(f"it works on numbers, and the image is {image.dtype}; use sg.cast first")
    mixed = sum(image[..., c : c + 1] * np.float64(w) for c, w in enumerate(WEIGHTS[preset]))
    return (np.rint(mixed) if image.dtype.kind in "iu" else np.asarray(mixed)).astype(image.dtype)
