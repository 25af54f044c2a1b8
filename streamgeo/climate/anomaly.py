"""Anomalies: departures from a climatology."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamgeo.climate.axes import GROUPS, By, groups_of, time_dim_of
from streamgeo.errors import OpenError, StepError
from streamgeo.grid import Axis, Grid
from streamgeo.locate import CoordLocator
from streamgeo.pointwise import Array, as_floats, settle
from streamgeo.step import POINT, Step, register
from streamgeo.window import Window


@register("climate.anomaly")
def anomaly(climatology: ArrayLike | str, std: ArrayLike | bool | None = None, by: By | None = None) -> Step:
    """Departure from a climatology: ``y = x - climatology``, divided by ``std`` where that is given.

    The inverse multiplies by ``std`` and adds the climatology. It lies on the grid of the whole file; each window
    takes its own part of it.

    Args:
        climatology: in the units of the values: a number; an array of shape (lat, lon) on the two horizontal
            dims of the file; or an array with all the dims of the array, in its order. A dim of size 1 holds
            for all (zonal means of shape (lat, 1), say). Or the path of one that was saved, ``.npz``: the step
            then prints and saves with the path, and the file must be there when it is built again.
        std: standard deviation, in the same way: then the anomalies are standardised. True takes that of a path.
        by: ``"month"`` or ``"dayofyear"``, for a climatology with a leading dim of 12 months or of 366 days of
            the year (1 January the first, in the calendar of the file); the times of the file choose which
            holds. The rest of its dims are as above; :func:`streamgeo.climate.fit_climatology` makes one.

    NaN stays NaN, and a pixel whose climatology is NaN becomes NaN in both directions. Floats keep their
    dtype, integers become float32.

    Raises:
        StepError: for arrays that are empty or no numbers, a std that is not above 0, or (when it runs) sizes
            that are not those of the file, and a grid that was coarsened, padded or refined before this step.
        OpenError: for a path that is no climatology.
        GridError: with ``by``, when it runs on a file without a time coordinate.

    >>> anomaly(15.0)(np.array([14.0, 17.5])).tolist()
    [-1.0, 2.5]
    """
    if isinstance(climatology, str) and climatology.endswith(".npz"):
        climatology, std, by = _of_file(climatology, std, by)
    elif isinstance(std, bool):
        raise StepError("climate.anomaly: std=True goes with the path of a climatology; give an array")
    normal = _field(climatology, "climatology")
    spread = None if std is None else _field(std, "std")
    if spread is not None and not np.all(np.isnan(spread) | (spread > 0)):
        raise StepError(f"climate.anomaly: std has the value {np.nanmin(spread):g}; it must be above 0")
    if by is not None:
        _grouped(normal, "climatology", by)
        if spread is not None:
            _grouped(spread, "std", by)
    bound: dict[str, Any] = {"climatology": normal, "std": spread, "by": by}
    units = None if spread is None else "1"
    return Step(partial(_depart, **bound), partial(_return, **bound), reach=POINT, units=units)


def read_saved(path: str, what: str) -> dict[str, Any]:
    """The arrays of a climatology that was saved."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in ("mean", "std", "count", "dims", "by")}
    except (OSError, KeyError, ValueError) as error:
        raise OpenError(f"{what}: {path} is no climatology ({error})") from error


def _of_file(path: str, std: Any, by: str | None) -> tuple[Array, Array | None, Any]:
    if by is not None or not (std is None or isinstance(std, bool)):
        raise StepError(
            "climate.anomaly: a saved climatology knows its groups; give only std=True, or nothing"
        )
    saved = read_saved(path, "climate.anomaly")
    return saved["mean"], saved["std"] if std else None, str(saved["by"]) or None


def _grouped(field: Array, what: str, by: str) -> None:
    if by not in GROUPS:
        raise StepError(f"climate.anomaly: by={by!r} must be one of {sorted(GROUPS)}, or None")
    if field.ndim == 0 or field.shape[0] != GROUPS[by]:
        raise StepError(
            f'climate.anomaly: {what} of shape {field.shape} must have {GROUPS[by]} in its first dim for by="{by}"'
        )


def _depart(
    x: Array, *, climatology: Array, std: Array | None, by: str | None, grid: Grid | None = None
) -> Array:
    work, dtype = as_floats(x)
    y = work - _part(climatology, work, grid, "climatology", by)
    return settle(y if std is None else y / _part(std, work, grid, "std", by), dtype)


def _return(
    y: Array, *, climatology: Array, std: Array | None, by: str | None, grid: Grid | None = None
) -> Array:
    work, dtype = as_floats(y)
    x = work if std is None else work * _part(std, work, grid, "std", by)
    return settle(x + _part(climatology, work, grid, "climatology", by), dtype)


def _part(field: Array, x: Array, grid: Grid | None, what: str, by: str | None) -> Array:
    """The part of a field that lies under ``x``, of the groups that its times are in."""
    if by is None:
        return _cut(field, x, grid, what)
    if grid is None:
        raise StepError(f'climate.anomaly: by="{by}" needs the times; give grid=, or use it in a chain')
    groups, dim = groups_of(grid, by), time_dim_of(grid)
    if dim is None:
        return _cut(field[int(groups)], x, grid, what)
    axis = grid.dims.index(dim)
    parts = [
        _cut(field[group], x.take([at], axis), grid.crop(Window({dim: (at, at + 1)})), what)
        for at, group in enumerate(groups.tolist())
    ]
    return np.concatenate([np.broadcast_to(p, _one(x, axis)) for p in parts], axis) if parts else x


def _one(x: Array, axis: int) -> tuple[int, ...]:
    return tuple(1 if i == axis else size for i, size in enumerate(x.shape))


def _field(values: ArrayLike, what: str) -> Array:
    array = np.array(values)  # a copy: whoever made the array may go on changing it
    if array.dtype.kind not in "iuf" or array.size == 0:
        found = f"dtype {array.dtype} and shape {array.shape}"
        raise StepError(
            f"climate.anomaly: {what} holds no numbers (it has {found}); give a number or an array"
        )
    return array.astype(np.float32 if array.dtype == np.float32 else np.float64)


def _cut(field: Array, x: Array, grid: Grid | None, what: str) -> Array:
    """The part of a field on the file's grid that lies under ``x``, shaped to broadcast to it."""
    if field.ndim == 0:
        return field.astype(x.dtype, copy=False)
    if grid is None:
        sizes = x.shape[-field.ndim :]
        if len(sizes) != field.ndim or any(n not in (1, size) for n, size in zip(field.shape, sizes)):
            raise StepError(
                f"climate.anomaly: {what} of shape {field.shape} does not fit an array of shape {x.shape}; "
                "give grid=, so that it is known which part of it to take"
            )
        return field.astype(x.dtype, copy=False)
    if x.shape != grid.shape:
        raise StepError(f"climate.anomaly: the array has shape {x.shape}, its grid {grid.sizes}")
    dims = grid.dims if field.ndim == len(grid.dims) else grid.spatial
    if field.ndim != len(dims):
        raise StepError(
            f"climate.anomaly: {what} of shape {field.shape} has neither the dims {grid.dims} "
            f"nor {grid.spatial}"
        )
    _same_file(dict(zip(dims, field.shape)), grid, what)
    part = field[np.ix_(*(_under(grid.axis(dim), size, what) for dim, size in zip(dims, field.shape)))]
    part = part.transpose([dims.index(dim) for dim in grid.dims if dim in dims])
    shape = iter(part.shape)
    return part.reshape([next(shape) if dim in dims else 1 for dim in grid.dims]).astype(x.dtype, copy=False)


def _same_file(sizes: Mapping[str, int], grid: Grid, what: str) -> None:
    """Raise where the coordinates show that the file has other sizes than the field."""
    coords = grid.locator.coords if isinstance(grid.locator, CoordLocator) else ()
    for dim, whole in ((d, n) for coord in coords for d, n in zip(coord.dims, coord.raw.shape)):
        if sizes.get(dim, 1) not in (1, whole):
            raise StepError(
                f"climate.anomaly: {what} has {sizes[dim]} pixels in {dim}, and the file has {whole}; "
                "give one on the grid of the whole file, and put climate.anomaly before a climate.subset that goes "
                "across the end of the longitudes"
            )


def _under(axis: Axis, size: int, what: str) -> NDArray[np.int64]:
    """Indices of the pixels of one axis in a field of ``size`` pixels on the whole file."""
    if size == 1:
        return np.zeros(1, np.int64)
    places = axis.centres(np.arange(axis.size))
    whole = np.rint(places).astype(np.int64)
    if abs(axis.step) != 1 or np.any(whole != places):
        raise StepError(
            f"climate.anomaly: {what} lies on the pixels of the file, and {axis.name} was resampled by a "
            f"factor of {abs(axis.step):g}; put climate.anomaly before that step"
        )
    if whole.size and (whole.min() < 0 or whole.max() >= size):
        raise StepError(
            f"climate.anomaly: {what} has {size} pixels in {axis.name}, and the array reaches from "
            f"{whole.min()} to {whole.max()}; give one on the grid of the whole file"
        )
    return whole
