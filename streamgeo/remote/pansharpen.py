"""Pansharpening: the detail of a panchromatic band for bands of a coarser resolution."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np

from streamgeo.errors import MissingKeyError, StepError
from streamgeo.grid import Grid
from streamgeo.pointwise import Array, as_floats, settle
from streamgeo.step import POINT, Moves, Step, register
from streamgeo.window import Window

Method = Literal["brovey", "ihs"]


@register("remote.pansharpen")
def pansharpen(pan: int = -1, method: Method = "brovey") -> Step:
    """Sharpen bands by a panchromatic band that is stacked with them; the pan band itself is dropped.

    With the intensity ``I``, the mean of the bands, ``"brovey"`` gives ``band * pan / I`` and ``"ihs"`` gives
    ``band + (pan - I)``. The forward function also returns ``pan / I`` or ``pan - I`` (its residual), from
    which the inverse restores the bands and the pan band.

    Args:
        pan: where the pan band is on axis -3 (negative from the end). A later ``patch`` must leave that axis
            whole.
        method: ``"brovey"`` or ``"ihs"``.

    All bands must be on the grid of the pan band: see :func:`streamgeo.remote.upsample`, and
    :func:`streamgeo.remote.pansharpened` for bands that are under two keys. A pixel with NaN in any band becomes
    NaN in all, and so does one whose intensity is 0 with ``"brovey"``. Floats keep their dtype, integers
    become float32. Sources: Gillespie et al. 1987, Remote Sens. Environ. 22, 343 (Brovey); Tu et al. 2001,
    Information Fusion 2, 177 (fast IHS).

    Raises:
        StepError: for another method, or (when it runs) an array that has no such band, or no other.

    >>> x = np.array([1.0, 3.0, 4.0]).reshape(3, 1, 1)
    >>> pansharpen()(x).ravel().tolist(), pansharpen(method="ihs")(x).ravel().tolist()
    ([2.0, 6.0], [3.0, 5.0])
    """
    if method not in ("brovey", "ihs"):
        raise StepError(f'remote.pansharpen: method={method!r} must be "brovey" or "ihs"')
    if isinstance(pan, bool) or not isinstance(pan, (int, np.integer)):
        raise StepError(f"remote.pansharpen: pan={pan!r} must be the number of a band")
    bound: dict[str, Any] = {"pan": int(pan), "method": method}
    moves = Moves(_sharp_grid, _sharp_source, partial(_sharpen_window, **bound), windowed=True)
    return Step(partial(_sharpen, **bound), partial(_blur, **bound), reach=POINT, grid=moves)


def _sharpen(x: Array, *, pan: int, method: str) -> tuple[Array, Array]:
    work, dtype = as_floats(x)
    count = work.shape[-3] if work.ndim >= 3 else 0
    if count < 2 or not -count <= pan < count:
        raise StepError(
            f"remote.pansharpen: pan={pan}, but the array has shape {work.shape}; give (bands, y, x) with the pan "
            "band among the bands"
        )
    rest = [band for band in range(count) if band != pan % count]
    sharp, detail = _with_detail(work[..., rest, :, :], work[..., [pan], :, :], method)
    return settle(sharp, dtype), settle(detail, dtype)


def _with_detail(bands: Array, pan: Array, method: str) -> tuple[Array, Array]:
    intensity = bands.mean(axis=-3, keepdims=True)
    if method == "ihs":
        detail = pan - intensity
        return bands + detail, detail
    with np.errstate(divide="ignore", invalid="ignore"):
        detail = np.where(intensity == 0, np.nan, pan / intensity)
    return bands * detail, detail


def _sharpen_window(x: Array, *, window: Window, whole: Grid, pan: int, method: str) -> Array:
    kept = window[whole.dims[-3]]
    return _sharpen(x, pan=pan, method=method)[0][..., kept, :, :]


def _blur(y: Array, *, pan: int, method: str, residual: Array) -> Array:
    work, dtype = as_floats(y)
    detail = np.asarray(residual, work.dtype)
    bands = work - detail if method == "ihs" else work / detail
    intensity = bands.mean(axis=-3, keepdims=True)
    coarse = intensity + detail if method == "ihs" else intensity * detail
    at = pan % (bands.shape[-3] + 1)
    return settle(np.concatenate([bands[..., :at, :, :], coarse, bands[..., at:, :, :]], axis=-3), dtype)


def _sharp_grid(grid: Grid) -> Grid:
    if len(grid.dims) < 3:
        raise StepError(f"remote.pansharpen: the dims {grid.dims} have no bands; stack them in axis -3")
    return grid.resize(**{grid.dims[-3]: grid.shape[-3] - 1})


def _sharp_source(out: Window, grid: Grid) -> Window:
    return Window({dim: (0, grid.sizes[dim]) if dim == grid.dims[-3] else out[dim] for dim in grid.dims})


def pansharpened(
    bands: str, pan: str, method: Method = "brovey"
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function of samples for ``sample_transform``: ``bands`` sharpened by the key ``pan``, which stays.

    Args:
        bands: key of ``(..., bands, y, x)``, on the grid of the pan band: see
            :func:`streamgeo.remote.upsample`.
        pan: key of ``(..., y, x)`` or ``(..., 1, y, x)``.
        method: as in :func:`pansharpen`.

    >>> sample = {"ms": np.array([1.0, 3.0]).reshape(2, 1, 1), "pan": np.array([[4.0]])}
    >>> pansharpened("ms", "pan")(sample)["ms"].ravel().tolist()
    [2.0, 6.0]
    """
    pansharpen(method=method)  # its check of the method
    return partial(_pansharpened, bands=bands, pan=pan, method=method)


def _pansharpened(sample: dict[str, Any], *, bands: str, pan: str, method: str) -> dict[str, Any]:
    for name in (bands, pan):
        if name not in sample:
            raise MissingKeyError(
                f"remote.pansharpened: no key {name!r} in the sample; it has {sorted(sample)}"
            )
    (work, dtype), (fine, _) = as_floats(sample[bands]), as_floats(sample[pan])
    if work.ndim >= 3 and fine.ndim == work.ndim - 1:
        fine = fine[..., None, :, :]
    if work.ndim < 3 or fine.shape != (*work.shape[:-3], 1, *work.shape[-2:]):
        raise StepError(
            f"remote.pansharpened: {pan!r} has shape {np.shape(sample[pan])} and {bands!r} {work.shape}; bring "
            "both to one grid with remote.upsample(...) first"
        )
    return {**sample, bands: settle(_with_detail(work, fine.astype(work.dtype), method)[0], dtype)}
