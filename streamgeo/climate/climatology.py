"""Climatologies: means and standard deviations by pixel and season, fitted to the scenes of a chain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from streamgeo.climate.anomaly import anomaly, read_saved
from streamgeo.climate.axes import GROUPS, By, days_in_years, groups_of, time_coord, time_dim_of
from streamgeo.errors import StepError
from streamgeo.step import Step
from streamgeo.window import Window

Floats = NDArray[np.float64]
_BLOCK = 64 << 20  # bytes of one read


@dataclass(frozen=True, eq=False)
class Climatology:
    """Mean and standard deviation of each pixel, over all times or by month or day of year.

    Attributes:
        mean, std: float64 of shape ``(groups, *dims)``, without the first dim where ``by`` is None. The
            standard deviation divides by the number of values; it is NaN where there are fewer than two, or
            all are equal.
        count: how many values there are; NaN is not counted.
        dims: names of the dims.
        by: ``"month"`` (12 groups), ``"dayofyear"`` (366), or None.
    """

    mean: Floats
    std: Floats
    count: NDArray[np.int64]
    dims: tuple[str, ...]
    by: By | None

    def anomaly(self, *, standardise: bool = False) -> Step:
        """The step that subtracts the mean, and with ``standardise`` divides by the standard deviation."""
        step: Step = anomaly(self.mean, std=self.std if standardise else None, by=self.by)
        return step

    def save(self, path: str | Path) -> Path:
        """Write it as ``.npz``; :func:`load_climatology` reads it."""
        target = Path(path)
        target = target if target.suffix == ".npz" else target.with_name(target.name + ".npz")
        target.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            target, mean=self.mean, std=self.std, count=self.count, dims=np.array(self.dims), by=self.by or ""
        )
        return target


def load_climatology(path: str | Path) -> Climatology:
    """A climatology that :meth:`Climatology.save` wrote.

    Raises:
        OpenError: when the file is missing or is no climatology.
    """
    saved = read_saved(str(path), "climate.load_climatology")
    dims, by = tuple(str(dim) for dim in saved["dims"]), str(saved["by"]) or None
    return Climatology(saved["mean"], saved["std"], saved["count"], dims, cast(By | None, by))


def fit_climatology(chain: Any, key: str = "image", by: By | None = "month") -> Climatology:
    """Mean and standard deviation of each pixel over all times of all scenes, by month, day of year, or overall.

    Read slice by slice in float64, so memory is that of the result. Every scene must have the same dims and
    sizes, except in time.

    Args:
        chain: a Buffer whose ``key`` was opened from files (before ``patch``), or a list of scenes. It should
            not cut the files, since :func:`anomaly` takes the part under a window from the grid of the file.
        key: the key.
        by: ``"month"``, ``"dayofyear"`` (of the file's own calendar, 1 to 366), or None for one group. As in
            xarray, days are counted from 1 January: in a leap year day 60 is 29 February and 1 March day 61, and
            only leap years have day 366. Give files of the same calendar to what is fitted.

    Raises:
        StepError: when there are no scenes, or they differ in shape, or by day of year in calendar.
        GridError: with ``by``, for a scene without a time coordinate.

    >>> import tempfile
    >>> from streamgeo import made, files, open_netcdf
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = made.sea(Path(folder), count=2, shape=(6, 8))
    ...     normals = fit_climatology(files(paths, key="sst").key_transform("sst", open_netcdf("sst")), "sst")
    >>> normals.mean.shape, int(normals.count.max())
    ((12, 6, 8), 2)
    """
    if by is not None and by not in GROUPS:
        raise StepError(f"climate.fit_climatology: by={by!r} must be one of {sorted(GROUPS)}, or None")
    fit: _Fit | None = None
    years: str | None = None
    for scene in _scenes(chain, key):
        dim = _time_of(scene, by)
        dims = tuple(name for name in scene.dims if name != dim)
        shape = tuple(size for name, size in zip(scene.dims, scene.shape) if name != dim)
        if fit is None:
            fit = _Fit(dims, shape, 1 if by is None else GROUPS[by], scene.name)
        elif (fit.dims, fit.shape) != (dims, shape):
            raise StepError(
                f"climate.fit_climatology: {scene.name} has {dict(zip(dims, shape))}, and {fit.name} "
                f"{dict(zip(fit.dims, fit.shape))}; bring them to one grid first"
            )
        if by == "dayofyear" and (coord := time_coord(scene.grid)) is not None:
            years = years or days_in_years(coord)
            if days_in_years(coord) != years:
                raise StepError(
                    f"climate.fit_climatology: {scene.name} counts days in a calendar of {days_in_years(coord)}, and "
                    f'{fit.name} in one of {years}; fit each on its own, or by="month"'
                )
        groups = np.zeros(scene.shape[scene.dims.index(dim)] if dim else (), np.int64)
        fit.add_scene(scene, dim, groups_of(scene.grid, by) if by is not None else groups)
    if fit is None:
        raise StepError("climate.fit_climatology: there is no scene to fit to")
    return fit.result(by)


def _scenes(chain: Any, key: str) -> Iterable[Any]:
    if isinstance(chain, Sequence):
        return chain
    return (chain.scene(key, number) for number in range(len(chain)))


def _time_of(scene: Any, by: str | None) -> str | None:
    grid = scene.grid
    dim = time_dim_of(grid) if time_coord(grid) is not None else None
    if dim is None and by is None and "time" in scene.dims:
        return "time"
    return dim if dim in scene.dims else None


class _Fit:
    """Counts, means and sums of squared departures by group, one slice after another (Welford 1962)."""

    def __init__(self, dims: tuple[str, ...], shape: tuple[int, ...], groups: int, name: str) -> None:
        self.dims, self.shape, self.name = dims, shape, name
        self.count = np.zeros((groups, *shape), np.int64)
        self.mean, self.squares = np.zeros((groups, *shape)), np.zeros((groups, *shape))

    def add_scene(self, scene: Any, dim: str | None, groups: NDArray[np.int64]) -> None:
        if dim is None:
            self.add(int(groups), scene.read())
            return
        axis = scene.dims.index(dim)
        step = max(1, _BLOCK // max(1, int(np.prod(self.shape)) * np.dtype(scene.dtype).itemsize))
        for start in range(0, scene.shape[axis], step):
            stop = min(start + step, scene.shape[axis])
            values = scene.read(Window({dim: (start, stop)}))
            for at in range(stop - start):
                self.add(int(groups[start + at]), values.take(at, axis))

    def add(self, group: int, values: NDArray[Any]) -> None:
        there = ~np.isnan(values)
        work = np.where(there, values, 0).astype(np.float64)
        count, mean = self.count[group], self.mean[group]
        count += there
        delta = np.where(there, work - mean, 0)
        mean += delta / np.maximum(count, 1)
        self.squares[group] += delta * np.where(there, work - mean, 0)

    def result(self, by: By | None) -> Climatology:
        some = np.maximum(self.count, 1)
        mean = np.where(self.count > 0, self.mean, np.nan)
        std = np.sqrt(self.squares / some)
        std = np.where((self.count > 1) & (std > 0), std, np.nan)
        if by is None:
            return Climatology(mean[0], std[0], self.count[0], self.dims, None)
        return Climatology(mean, std, self.count, self.dims, by)
