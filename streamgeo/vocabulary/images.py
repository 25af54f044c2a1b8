"""Operations on images: height, width and channels in this order, as in mlx-data."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Self

from streamgeo.engine import Kernel
from streamgeo.errors import ChainError
from streamgeo.vocabulary import image_kernels as k
from streamgeo.vocabulary.base import Described, conditional, whole


class Images(Described):
    """Operations on images of shape (height, width, channels), or videos with frames before these.

    Crops and flips take every dtype; resizing and rotating are mlx-data's own and take uint8. The random ones
    draw from (seed, epoch, sample), so they are the same with any number of threads and after a resume.
    """

    def _image(self, name: str, key: str, output_key: str, f: Callable[..., Any], *shown: Any) -> Self:
        return self._apply(name, key, output_key, f, *shown, draws="random" in name)

    def image_center_crop(self, key: str, w: int, h: int, output_key: str = "") -> Self:
        """The middle of an image, ``w`` wide and ``h`` high.

        Raises:
            SampleError: on reading, when the image is smaller.
        """
        w, h = _size("image_center_crop", w, h)
        return self._image("image_center_crop", key, output_key, partial(k.center_crop, w=w, h=h), w, h)

    def image_random_crop(self, key: str, w: int, h: int, output_key: str = "") -> Self:
        """A part of an image, ``w`` wide and ``h`` high, all places alike.

        Raises:
            SampleError: on reading, when the image is smaller.
        """
        w, h = _size("image_random_crop", w, h)
        return self._image("image_random_crop", key, output_key, partial(k.random_crop, w=w, h=h), w, h)

    def image_random_area_crop(
        self,
        key: str,
        area_range: tuple[float, float],
        aspect_ratio_range: tuple[float, float],
        num_trial: int = 10,
        output_key: str = "",
    ) -> Self:
        """A random part of an image.

        Args:
            key: the image.
            area_range: least and largest share of the image's area, above 0 and up to 1.
            aspect_ratio_range: least and largest width over height, as a factor on that of the image.
            num_trial: how often a size is drawn; the image stays whole when none keeps both ranges.
            output_key: where the result goes; by default it replaces the image.
        """
        area, aspect = _ranges(area_range, aspect_ratio_range)
        trials = whole("image_random_area_crop", "num_trial", num_trial, 1)
        f = partial(k.random_area_crop, area_range=area, aspect_ratio_range=aspect, num_trial=trials)
        return self._image("image_random_area_crop", key, output_key, f, area, aspect, trials)

    def image_random_h_flip(self, key: str, prob: float, output_key: str = "") -> Self:
        """Left to right, with the probability ``prob``."""
        if not 0 <= prob <= 1:
            raise ChainError(f"image_random_h_flip: prob={prob!r} must be from 0 to 1")
        f = partial(k.random_h_flip, prob=float(prob))
        return self._image("image_random_h_flip", key, output_key, f, float(prob))

    def image_resize(self, key: str, w: int, h: int, output_key: str = "") -> Self:
        """To ``w`` wide and ``h`` high, by mlx-data's own filter, on uint8."""
        w, h = _size("image_resize", w, h)
        return self._image("image_resize", key, output_key, _own("image_resize", w=w, h=h), w, h)

    def image_resize_smallest_side(self, key: str, size: int, output_key: str = "") -> Self:
        """So that the smaller of width and height is ``size``, by mlx-data's own filter, on uint8."""
        size = whole("image_resize_smallest_side", "size", size, 1)
        f = _own("image_resize_smallest_side", size=size)
        return self._image("image_resize_smallest_side", key, output_key, f, size)

    def image_rotate(self, key: str, angle: float, crop: bool = False, output_key: str = "") -> Self:
        """About its middle by so many degrees; ``crop`` keeps the size. By mlx-data's own kernel, on uint8."""
        if not -1e9 < angle < 1e9:
            raise ChainError(f"image_rotate: angle={angle!r} must be a number of degrees")
        f = _own("image_rotate", angle=float(angle), crop=bool(crop))
        return self._image("image_rotate", key, output_key, f, float(angle), bool(crop))

    def image_channel_reduction(self, key: str, preset: str = "default", output_key: str = "") -> Self:
        """Red, green and blue as one channel, weighted by ``preset``.

        The presets are ``default`` (as ``rec601``), ``rec601``, ``rec709``, ``rec2020`` and ``green``.
        """
        if preset not in k.WEIGHTS:
            raise ChainError(f"image_channel_reduction: preset={preset!r} must be one of {sorted(k.WEIGHTS)}")
        kernel = Kernel("image_channel_reduction", {"key": "image", "preset": preset})
        f = partial(k.channel_reduction, preset=preset, kernel=kernel)
        return self._image("image_channel_reduction", key, output_key, f, preset)

    image_center_crop_if = conditional(image_center_crop)
    image_random_crop_if = conditional(image_random_crop)
    image_random_area_crop_if = conditional(image_random_area_crop)
    image_random_h_flip_if = conditional(image_random_h_flip)
    image_resize_if = conditional(image_resize)
    image_resize_smallest_side_if = conditional(image_resize_smallest_side)
    image_rotate_if = conditional(image_rotate)
    image_channel_reduction_if = conditional(image_channel_reduction)


def _own(operation: str, **arguments: Any) -> Callable[..., Any]:
    return partial(k.by_kernel, kernel=Kernel(operation, {"key": "image", **arguments}))


def _size(operation: str, w: int, h: int) -> tuple[int, int]:
    return whole(operation, "w", w, 1), whole(operation, "h", h, 1)


def _ranges(
    area: tuple[float, float], aspect: tuple[float, float]
) -> tuple[tuple[float, float], tuple[float, float]]:
    (least, most), (narrow, wide) = (tuple(float(v) for v in pair) for pair in (area, aspect))
    name = "image_random_area_crop"
    if not 0 < least <= most <= 1:
        raise ChainError(
            f"{name}: area_range={area!r} must be two numbers above 0, up to 1, the smaller first"
        )
    if not 0 < narrow <= wide:
        raise ChainError(
            f"{name}: aspect_ratio_range={aspect!r} must be two numbers above 0, the smaller first"
        )
    if least * narrow > 1 or least > wide:
        raise ChainError(f"{name}: no part has area_range={area!r} and aspect_ratio_range={aspect!r} at once")
    return (least, most), (narrow, wide)
