"""Augmentation: flips, quarter turns, crops, noise and missing bands, drawn anew for each sample and epoch.

Give several keys at once, ``key_transform(("image", "mask"), sg.random_flip())``: all of them get the same draw. It
depends on seed, epoch and sample only. Grids follow what is drawn, so ``predict`` puts predictions back in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import StepError
from streamgeo.grid import Grid
from streamgeo.parameters import in_unit
from streamgeo.pointwise import Array, Numbers, PerBand, along_bands, as_floats, numbers, settle
from streamgeo.step import SCENE, Step, register
from streamgeo.steps.geometry import Dim, crop, drawn, probability, random_reversal, rot90
from streamgeo.window import Window


@register("random_flip")
def random_flip(*dims: Dim, p: float = 0.5) -> Step:
    """Reverse the order of pixels in each of the dims with probability ``p``.

    Args:
        dims: by name (or by position); by default the two horizontal ones.
        p: from 0 to 1, for each dim on its own.

    The dtype stays, and NaN stays NaN; the grid follows; the inverse flips back what was flipped.

    Raises:
        StepError: for a p outside 0 to 1, or (when it runs) for a dim that is not there.

    >>> random_flip("x", p=1)(np.array([[1, 2, 3]]), rng=np.random.default_rng(0)).tolist()
    [[3, 2, 1]]
    """
    return random_reversal(dims, p, "random_flip")


@register("random_rot90")
def random_rot90() -> Step:
    """Turn by 0, 1, 2 or 3 quarter turns, all equally likely, in the plane of the two horizontal dims.

    With :func:`random_flip` it gives all eight positions of a square. The dtype stays; the grid follows; the
    inverse turns back.

    Raises:
        StepError: when it runs, for an array that is not square, whose turns would have another shape.
    """
    return drawn(_turns, _turned)


def _turns(rng: np.random.Generator, grid: Grid) -> NDArray[np.int64]:
    sizes = {dim: grid.sizes[dim] for dim in grid.spatial}
    if len(sizes) != 2 or len(set(sizes.values())) != 1:
        raise StepError(
            f"random_rot90: {', '.join(f'{dim}={n}' for dim, n in sizes.items())} is not square; patch or crop to "
            "squares first, or use random_flip"
        )
    return rng.integers(0, 4, 1)


def _turned(turns: NDArray[np.int64], grid: Grid) -> Step:
    step: Step = rot90(int(turns[0]))
    return step


@register("random_crop")
def random_crop(size: int | Mapping[str, int]) -> Step:
    """Keep a window of one size at a random place; between an opener and ``patch`` only that window is read.

    Args:
        size: pixels of both horizontal dims; or by dim, such as ``{"y": 256, "x": 512}``.

    All places are equally likely. Keys must have the same sizes to be cut alike. The dtype stays; the grid follows;
    the inverse puts the pixels back in their place, and the rest is NaN (0 for integers).

    Raises:
        StepError: for a size that is not a whole number above 0, or (when it runs) one above that of the array.

    >>> random_crop(2)(np.zeros((5, 7)), rng=np.random.default_rng(0)).shape
    (2, 2)
    """
    sizes = dict(size) if isinstance(size, Mapping) else size
    given: list[Any] = list(sizes.values()) if isinstance(sizes, dict) else [sizes]
    for value in given or [None]:
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise StepError(f"random_crop: size={size!r} must be whole numbers of pixels, 1 or more")
    return drawn(
        partial(_starts, size=sizes), partial(_window, size=sizes), grid=partial(_first_window, size=sizes),
        lossy="the pixels outside the window",
    )  # fmt: skip


Size = int | Mapping[str, int]


def _by_dim(grid: Grid, size: Size) -> dict[str, int]:
    found = dict(size) if isinstance(size, Mapping) else dict.fromkeys(grid.spatial, size)
    for dim, count in found.items():
        if dim not in grid.dims:
            raise StepError(f"random_crop: no dim {dim!r}; the dims are {grid.dims}")
        if count > grid.sizes[dim]:
            raise StepError(
                f"random_crop: size {count} exceeds {dim}={grid.sizes[dim]}; use a smaller size, or leave small "
                "scenes out"
            )
    return found


def _starts(rng: np.random.Generator, grid: Grid, *, size: Size) -> NDArray[np.int64]:
    rooms = [grid.sizes[dim] - count + 1 for dim, count in _by_dim(grid, size).items()]
    return rng.integers(0, rooms)


def _window(starts: NDArray[np.int64], grid: Grid, *, size: Size) -> Step:
    parts = size.items() if isinstance(size, Mapping) else ((dim, size) for dim in grid.spatial)
    box = {dim: (int(start), int(start) + count) for (dim, count), start in zip(parts, starts)}
    step: Step = crop(Window(box))
    return step


def _first_window(grid: Grid, *, size: Size) -> Grid:
    return grid.crop(Window({dim: (0, count) for dim, count in _by_dim(grid, size).items()}))


@register("add_noise")
def add_noise(std: PerBand) -> Step:
    """Add Gaussian noise of mean 0.

    Args:
        std: its standard deviation in the units of the values (after ``normalize``, a share of their spread); one
            number, or one for each band as in :func:`normalize`.

    Keys of one shape get the same noise, so give it the input of a model alone. NaN stays NaN. Floats keep their
    dtype, integers become float32. The inverse leaves values as they are: a prediction has no noise to take off.

    Raises:
        StepError: for a std that is not finite and above 0; when it runs, for complex values.

    >>> x = np.array([1.0, np.nan])
    >>> np.isnan(add_noise(0.1)(x, rng=np.random.default_rng(0))).tolist(), add_noise(0.1).undo(x).tolist()
    ([False, True], [1.0, nan])
    """
    spread = numbers(std, "add_noise: std", positive=True)
    return Step(partial(_noisy, std=spread), _as_it_is, reach=SCENE, lossy="the values without noise")


def _noisy(x: Array, *, rng: np.random.Generator, std: Numbers) -> Array:
    work, dtype = as_floats(x)
    if work.dtype.kind == "c":
        raise StepError(f"add_noise: values of dtype {work.dtype}; noise is for real numbers")
    noise = rng.standard_normal(work.shape, np.float32 if dtype.itemsize <= 4 else np.float64)
    return settle(work + noise.astype(work.dtype, copy=False) * along_bands(std, work, "add_noise"), dtype)


@register("band_dropout")
def band_dropout(p: float = 0.1, fill: float = 0.0, *, dim: Dim | None = None) -> Step:
    """Replace each band by one value with probability ``p``, so that a model learns to do without it.

    One band always stays: where all would go, one of them is kept, all equally likely.

    Args:
        p: from 0 to 1, for each band on its own.
        fill: the value; after ``normalize``, 0 is the mean.
        dim: that of the bands, by name (or by position); by default the last that is not horizontal, as in
            ``(time, band, y, x)``.

    The dtype stays. The inverse leaves values as they are.

    Raises:
        StepError: for a p outside 0 to 1; when it runs, for an array without such a dim, or of a dtype that cannot
            hold the value.

    >>> band_dropout(p=1)(np.ones((3, 1, 1)), rng=np.random.default_rng(0)).ravel().tolist()
    [1.0, 0.0, 0.0]
    """
    settings: dict[str, Any] = {
        "p": probability(p, "band_dropout: p"),
        "fill": float(fill) if np.isnan(fill) else in_unit(fill, "", "band_dropout: fill"),
        "dim": dim,
    }
    return Step(
        partial(_dropped, **settings), _as_it_is, reach=SCENE, dtype=np.dtype, lossy="the bands that are dropped"
    )  # fmt: skip


def _dropped(
    x: Array, *, rng: np.random.Generator, p: float, fill: float, dim: Dim | None, grid: Grid | None = None
) -> Array:
    axis = _band_axis(x, grid, dim)
    value = np.array(fill).astype(x.dtype)
    if not np.array_equal(value, np.array(fill), equal_nan=True) and x.dtype.kind not in "fc":
        raise StepError(f"band_dropout: {x.dtype} cannot hold fill={fill:g}")
    gone = np.less(rng.random(x.shape[axis]), p)
    kept = rng.integers(0, x.shape[axis])  # drawn always, so that later draws do not depend on it
    if gone.all():
        gone[kept] = False
    out = np.array(x, x.dtype.newbyteorder("="))
    np.moveaxis(out, axis, 0)[gone] = value
    return out


def _band_axis(x: Array, grid: Grid | None, dim: Dim | None) -> int:
    names: Sequence[str] = grid.dims if grid is not None else [f"dim_{i}" for i in range(x.ndim)]
    flat = grid.spatial if grid is not None else names[-2:]
    chosen = dim if dim is not None else next((name for name in reversed(names) if name not in flat), None)
    if isinstance(chosen, str) and chosen in names:
        return list(names).index(chosen)
    if isinstance(chosen, int) and -x.ndim <= chosen < x.ndim:
        return chosen % x.ndim
    told = "no dim beside the horizontal ones" if chosen is None else f"no dim {chosen!r}"
    raise StepError(f"band_dropout: {told}; the dims are {tuple(names)}")


def _as_it_is(y: Array) -> Array:
    return y
