"""The main promise on every real file: what goes through a chain and back is the file, in the same place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import streamgeo as sg
from streamgeo.steps.stitch import BLENDS
from tests.conftest import SAMPLES
from tests.real import CASES, LEFT_OUT, Case

pytestmark = pytest.mark.skipif(
    not SAMPLES.is_dir(), reason="no sample files: set STREAMGEO_SAMPLES to their folder"
)


def identity(x: np.ndarray) -> np.ndarray:
    return x


def chain_of(case: Case, size: int, *, raw: bool = False) -> sg.Buffer:
    chain = sg.files([case.path], key="image").key_transform("image", case.open(raw=raw))
    edge = (
        "shift"
        if min(chain.scene("image").grid.sizes[d] for d in chain.scene("image").grid.spatial) >= size
        else "pad"
    )
    return chain.key_transform("image", sg.patch(size, size // 2, edge=edge))


def reference(path: Path, case: Case, raw: bool = False) -> np.ndarray:
    """Values as the reference library reads them: NaN where it masks, unless ``raw``."""
    options = dict(case.options)
    if case.opener == "open_fits":
        from astropy.io import fits

        with fits.open(path, do_not_scale_image_data=raw) as file:
            return np.array(next(h for h in file if h.is_image and h.shape and 0 not in h.shape).data)
    if case.opener == "open_geotiff":
        import rasterio

        with rasterio.open(path) as file:
            if raw:
                return file.read()
            values = file.read(masked=True).astype(np.float64)
            scales, offsets = (np.reshape(v, (-1, 1, 1)) for v in (file.scales, file.offsets))
            return (values * scales + offsets).filled(np.nan)
    if case.opener == "open_numpy":
        return np.load(path)
    names = options.get("variable", options.get("dataset"))
    parts = [_variable(path, n, raw) for n in ([names] if isinstance(names, str) else names)]
    return parts[0] if isinstance(names, str) else np.stack(parts)


def _variable(path: Path, name: str, raw: bool) -> np.ndarray:
    import netCDF4

    with netCDF4.Dataset(path) as file:
        variable = file[name]
        variable.set_auto_maskandscale(not raw)
        values = variable[:]
        if not raw and np.ma.isMaskedArray(values):
            return values.astype(np.float64).filled(np.nan)
        return np.asarray(values)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_identity_round_trip(case: Case, tmp_path: Path) -> None:
    stream = chain_of(case, 64 if hash(case.file) % 2 else 128).batch(8).prefetch(4, 2)
    (scene,) = list(stream.predict(identity))
    path = scene.save(tmp_path / "out" / "")
    before, after = reference(case.path, case), reference(path, case)
    np.testing.assert_array_equal(np.isnan(before.astype(np.float64)), np.isnan(after.astype(np.float64)))
    np.testing.assert_allclose(after, before.astype(np.float32), rtol=1e-6, atol=1e-35)
    assert case.open()(path).grid == case.open()(case.path).grid


@pytest.mark.long
@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_seam_with_any_blend(case: Case) -> None:
    chain = chain_of(case, 64)
    whole = reference(case.path, case).astype(np.float32)
    for blend in BLENDS:
        (scene,) = chain.shuffle(seed=1).batch(8).predict(identity, blend=blend)
        np.testing.assert_allclose(scene.array, whole, rtol=1e-6)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_raw_round_trip(case: Case, tmp_path: Path) -> None:
    (scene,) = list(chain_of(case, 64, raw=True).batch(8).predict(identity))
    path = scene.save(tmp_path / "out" / "")
    before, after = reference(case.path, case, raw=True), reference(path, case, raw=True)
    assert before.dtype.newbyteorder("=") == after.dtype.newbyteorder("=")
    np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(reference(case.path, case), reference(path, case))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_window_through_the_chain_is_cut_from_the_whole(case: Case) -> None:
    chain = chain_of(case, 64)
    whole = reference(case.path, case).astype(np.float32)
    rng = np.random.default_rng(0)
    for number in rng.integers(0, len(chain), 10):
        sample = chain[int(number)]
        box = sample["image.window"]
        inside = tuple(slice(lo, min(hi, size)) for (lo, hi), size in zip(box, whole.shape))
        got = sample["image"][tuple(slice(0, s.stop - s.start) for s in inside)]
        np.testing.assert_array_equal(got, whole[inside])
        grid = chain.grid("image", sample)
        assert grid.shape == sample["image"].shape


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_cannot_take_part_says_why(name: str) -> None:
    opener, options, says = LEFT_OUT[name]
    with pytest.raises(sg.OpenError, match=says) as caught:
        getattr(sg, opener)(**options)(SAMPLES / name)
    assert Path(name).name in str(caught.value)
