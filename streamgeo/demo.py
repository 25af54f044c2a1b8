"""The main job on three domains: open, process, normalise, patch, fit a model, predict, stitch, invert, write."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo import climate, helio, made, remote
from streamgeo.begin import files
from streamgeo.chain import Buffer
from streamgeo.errors import StreamGeoError
from streamgeo.openers import Opener, open_fits, open_geotiff, open_netcdf
from streamgeo.plot import triptych
from streamgeo.scene import Scene
from streamgeo.step import Step
from streamgeo.steps.normalize import normalize
from streamgeo.steps.patch import patch

Array = NDArray[Any]


class Denoiser:
    """A pixel from its eight neighbours: eight weights and a bias, fitted by gradient descent.

    Noise of neighbouring pixels is independent, so what the neighbours can tell of a pixel is its signal.
    """

    def __init__(self) -> None:
        self.weights = np.zeros(9)

    def _features(self, x: Array) -> Array:
        edged = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(1, 1), (1, 1)], mode="edge")
        height, width = x.shape[-2:]
        shifts = [(i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]
        around = np.stack([edged[..., i : i + height, j : j + width] for i, j in shifts], axis=-1)
        known = np.isfinite(around)  # at a coast or the limb: the mean of the neighbours that are there
        mean = np.where(known, around, 0).sum(-1, keepdims=True) / np.maximum(known.sum(-1, keepdims=True), 1)
        return np.concatenate([np.where(known, around, mean), np.ones_like(mean)], axis=-1)

    def fit(self, x: Array) -> float:
        """One step on a batch ``(..., H, W)``; the mean squared error before it."""
        known = np.isfinite(x)
        if not known.any():
            return 0.0
        features, truth = self._features(x)[known], x[known]
        error = features @ self.weights - truth
        rate = (
            1 / (features**2).sum(axis=1).mean()
        )  # below the inverse of the largest curvature: it cannot diverge
        self.weights -= rate * (features * error[:, None]).mean(axis=0)
        return float((error**2).mean())

    def __call__(self, x: Array) -> Array:
        """Prediction of the same shape and dtype; NaN stays NaN."""
        return np.where(np.isfinite(x), self._features(x) @ self.weights, np.nan).astype(x.dtype)


@dataclass
class Domain:
    """A domain: its chain up to the patches, its opener, and the reference library that reads what was written."""

    name: str
    chain: Buffer
    opener: Opener
    reopen: Callable[[Path], tuple[Array, str]]
    units: str


@dataclass
class Result:
    """One line of the table."""

    name: str
    patches: int
    rate: float
    difference: float
    grids_equal: bool
    path: Path
    reopened: str
    picture: Path


def run(out: Path, data: Path | None = None, say: Callable[[str], None] = print) -> list[Result]:
    """Run the demo; files and pictures go to ``out``. ``data`` is a folder with files of your own.

    Raises:
        StreamGeoError: when ``data`` has no file that the demo can use.
    """
    with tempfile.TemporaryDirectory(prefix="streamgeo-demo-") as scratch:
        domains = _made(Path(scratch)) if data is None else _found(data)
        results = []
        for domain in domains:
            say(f"\n{domain.name}\n{domain.chain}")
            results.append(_work(domain, out, Path(scratch) / "identity", say))
    say("\n" + table(results))
    return results


def _work(domain: Domain, out: Path, scratch: Path, say: Callable[[str], None]) -> Result:
    chain = domain.chain
    from tqdm import tqdm

    model = Denoiser()
    begin = time.perf_counter()
    stream = chain.shuffle(seed=0).batch(16).prefetch(4, 2)
    losses = [model.fit(batch["image"]) for batch in tqdm(stream, "fit", disable=None, delay=2, leave=False)]
    rate = len(chain) / (time.perf_counter() - begin)
    say(f"  fitted in {len(losses)} steps: mean squared error {losses[0]:.3f} -> {losses[-1]:.3f}")
    stream = chain.batch(16).prefetch(4, 2)
    difference, equal = 0.0, True
    for scene in stream.predict(_identity):
        again, original = domain.opener(scene.save(scratch / domain.name / "")), domain.opener(scene.files)
        difference = max(difference, _difference(again.array, original.array))
        equal &= again.grid == original.grid and np.array_equal(
            np.isnan(again.array), np.isnan(original.array)
        )
    written: list[tuple[Path, Scene]] = []
    for scene in stream.predict(model):
        written.append((scene.save(out / domain.name / ""), scene))
        say(f"  wrote {written[-1][0]}")
    path, scene = written[0]
    values, reopened = domain.reopen(path)
    before, after = _plane(domain.opener(scene.files).array), _plane(values)
    up = slice(None, None, -1 if domain.name == "heliophysics" else 1)  # rows start at the bottom in FITS
    panels = [("input", before[up]), ("prediction", after[up]), ("difference", (after - before)[up])]
    picture = triptych(out / f"{domain.name}.png", panels, f"{domain.name}: {path.name}", domain.units)
    return Result(domain.name, len(chain), rate, difference, bool(equal), path, reopened, picture)


def _identity(x: Array) -> Array:
    return x


def _difference(a: Array, b: Array) -> float:
    return float(np.nanmax(np.abs(a - b), initial=0.0)) if a.shape == b.shape else float("inf")


def _plane(array: Array) -> Array:
    """The last plane of an array of any number of dims: near infrared, the last month."""
    plane: Array = array.reshape(-1, *array.shape[-2:])[-1]
    return plane


def table(results: Sequence[Result]) -> str:
    """The results as text."""
    head = (
        "domain",
        "patches",
        "patches/s",
        "identity: largest difference",
        "grid equal",
        "file written",
        "opened by",
    )
    rows = [head] + [
        (r.name, str(r.patches), f"{r.rate:.0f}", f"{r.difference:.3g}", "yes" if r.grids_equal else "NO", str(r.path),
         r.reopened)
        for r in results
    ]  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, "", *(f"picture: {r.picture}" for r in results)])


# -- domains --------------------------------------------------------------------------------------------


def _made(folder: Path) -> list[Domain]:
    return [
        _helio(made.sun(folder / "sun"), helio.limb_darkening(wavelength=617.3)),
        _remote(made.land(folder / "land")),
        _climate(made.sea(folder / "sea"), "sst"),
    ]


def _found(data: Path) -> list[Domain]:
    """Domains from a folder of real files: for each format the first files that fit together."""
    if not data.is_dir():
        raise StreamGeoError(f"demo: --data {data} is not a folder")
    domains = []
    if sun := _alike(sorted([*data.rglob("*.fits"), *data.rglob("*.fts")]), open_fits()):
        header = open_fits()(sun[0]).attrs
        timed = float(header.get("EXPTIME", 0) or 0) > 0 and "/" not in str(header.get("BUNIT", ""))
        domains.append(_helio(sun, helio.exposure() if timed else None))
    if land := _alike(sorted([*data.rglob("*.tif"), *data.rglob("*.TIF")]), open_geotiff()):
        domains.append(_remote(land))
    if sea := _alike(sorted(data.rglob("*.nc")), open_netcdf()):
        domains.append(_climate(sea, None))
    if not domains:
        raise StreamGeoError(f"demo: {data} holds no FITS, GeoTIFF or NetCDF image of 64 pixels or more")
    return domains


def _alike(paths: Iterable[Path], opener: Opener, count: int = 3) -> list[Path]:
    """The first files that open as images of at least 64 pixels, with the dims of the first of them."""
    chosen: list[Path] = []
    lead: tuple[int, ...] | None = None
    for path in paths:
        try:
            scene = opener(path)
        except StreamGeoError:
            continue  # a table, or a file with several variables: not for this demo
        if len(scene.shape) < 2 or min(scene.shape[-2:]) < 64 or scene.grid.locator is None:
            continue
        if lead is None or scene.shape[:-2] == lead:
            lead = scene.shape[:-2]
            chosen.append(path)
        if len(chosen) == count:
            break
    return chosen


def _chain(paths: Sequence[Path], opener: Opener, process: Step | None, size: int, stride: int) -> Buffer:
    chain = files(paths, key="image").key_transform("image", opener)
    if process is not None:
        chain = chain.key_transform("image", process)
    sample = chain[0]["image"]
    mean, std = float(np.nanmean(sample)), float(np.nanstd(sample)) or 1.0
    return chain.key_transform("image", normalize(mean=mean, std=std)).key_transform(
        "image", patch(size=size, stride=stride)
    )


def _helio(paths: Sequence[Path], process: Step | None) -> Domain:
    chain = _chain(paths, open_fits(), process, 64, 32)
    return Domain(
        "heliophysics", chain, open_fits(), _with_astropy, str(open_fits()(paths[0]).template.units)
    )


def _remote(paths: Sequence[Path]) -> Domain:
    chain = _chain(paths, open_geotiff(), remote.reflectance(scale=1e-4, offset=0.0), 64, 32)
    return Domain("remote_sensing", chain, open_geotiff(), _with_rasterio, "digital number")


def _climate(paths: Sequence[Path], variable: str | None) -> Domain:
    opener = open_netcdf(variable=variable)
    mean = float(np.nanmean(opener(paths[0]).array))
    chain = _chain(paths, opener, climate.anomaly(mean), 64, 32)
    return Domain("geoscience", chain, opener, _with_netcdf4, opener(paths[0]).template.units)


def _with_astropy(path: Path) -> tuple[Array, str]:
    from astropy.io import fits
    from astropy.wcs import WCS

    with fits.open(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # astropy reports the dates that it completes
        hdu = next(h for h in file if h.data is not None)
        kinds = "/".join(WCS(hdu.header).wcs.ctype)
        return np.asarray(hdu.data, np.float32), f"astropy {kinds}"


def _with_rasterio(path: Path) -> tuple[Array, str]:
    import rasterio

    with rasterio.open(path) as file:
        return file.read(masked=True).filled(np.nan), f"rasterio {file.crs}, nodata {file.nodata}"


def _with_netcdf4(path: Path) -> tuple[Array, str]:
    import netCDF4

    with netCDF4.Dataset(path) as file:
        name = max(file.variables, key=lambda n: file[n].ndim)
        shape = dict(zip(file[name].dimensions, file[name].shape))
        return np.ma.filled(file[name][:], np.nan), f"netCDF4 {name} {shape}"
