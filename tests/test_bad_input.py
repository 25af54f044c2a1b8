"""Bad input: one clear error that names the file, the step, the value and the remedy; nothing left behind."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest

import streamgeo as sg
from streamgeo import made

OPENERS = {
    "fits": sg.open_fits(),
    "tif": sg.open_geotiff(),
    "nc": sg.open_netcdf(),
    "h5": sg.open_hdf5(),
    "npy": sg.open_numpy(),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One good file of each format."""
    import h5py

    folder = tmp_path_factory.mktemp("good")
    files = {
        "fits": made.sun(folder, 1, 128)[0],
        "tif": made.land(folder, 1, (80, 90))[0],
        "nc": made.sea(folder, 1, (40, 60))[0],
    }
    files["h5"], files["npy"] = folder / "a.h5", folder / "a.npy"
    with h5py.File(files["h5"], "w") as file:
        file.create_dataset(
            "a/b", data=np.random.default_rng(0).random((64, 64)), chunks=(16, 16), compression="gzip"
        )
    np.save(files["npy"], np.arange(64 * 64).reshape(64, 64))
    return files


def first(path: Path | str, opener: sg.Opener) -> dict:
    return sg.files([path], key="image").key_transform("image", opener)[0]


@pytest.mark.parametrize("kind", OPENERS)
@pytest.mark.parametrize("opener", ["own", "any"])
class TestFiles:
    def chosen(self, kind: str, opener: str) -> sg.Opener:
        return OPENERS[kind] if opener == "own" else sg.open()

    def test_good(self, good, kind, opener) -> None:
        assert first(good[kind], self.chosen(kind, opener))["image"].dtype == np.float32

    def test_missing(self, tmp_path, kind, opener) -> None:
        path = tmp_path / f"gone.{kind}"
        with pytest.raises(sg.SampleError, match=r"sample 0: open.*no such file: .*gone") as caught:
            first(path, self.chosen(kind, opener))
        assert isinstance(caught.value.__cause__, sg.OpenError)

    def test_empty(self, tmp_path, kind, opener) -> None:
        path = tmp_path / f"empty.{kind}"
        path.touch()
        with pytest.raises(sg.SampleError, match=r"empty\.\w+ is empty \(0 bytes\)"):
            first(path, self.chosen(kind, opener))

    def test_a_folder(self, tmp_path, kind, opener) -> None:
        with pytest.raises(sg.SampleError, match="is a folder; give files, or a pattern such as"):
            first(tmp_path, self.chosen(kind, opener))

    def test_text(self, tmp_path, kind, opener) -> None:
        path = tmp_path / f"text.{kind}"
        path.write_text("this is no image\n" * 500)
        with pytest.raises(sg.SampleError, match=r"text\.") as caught:
            first(path, self.chosen(kind, opener))
        assert isinstance(caught.value.__cause__, sg.OpenError)

    @pytest.mark.parametrize("part", [0.05, 0.5, 0.9, 0.99])
    def test_truncated(self, good, tmp_path, kind, opener, part) -> None:
        content = good[kind].read_bytes()
        path = tmp_path / good[kind].name
        path.write_bytes(content[: int(len(content) * part)])
        whole = first(good[kind], self.chosen(kind, opener))["image"]
        if part == 0.99 and kind in ("fits", "tif"):  # what is cut off may be padding: then nothing is lost
            try:
                np.testing.assert_array_equal(first(path, self.chosen(kind, opener))["image"], whole)
                return
            except sg.SampleError:
                pass
        with pytest.raises(sg.SampleError, match=path.name) as caught:
            first(path, self.chosen(kind, opener))
        assert isinstance(caught.value.__cause__, sg.OpenError), repr(caught.value.__cause__)

    def test_corrupt(self, good, tmp_path, kind, opener) -> None:
        """Bytes changed anywhere: an OpenError, or an array of the shape that the header tells."""
        content = bytearray(good[kind].read_bytes())
        rng = np.random.default_rng(0)
        for number in range(25):
            broken = bytearray(content)
            at = rng.integers(0, len(broken), 40)
            for position in at:
                broken[position] = int(rng.integers(0, 256))
            path = tmp_path / f"{number}{good[kind].suffix}"
            path.write_bytes(broken)
            try:
                assert first(path, self.chosen(kind, opener))["image"].size
            except sg.SampleError as error:
                assert path.name in str(error)
                assert isinstance(error.__cause__, sg.StreamGeoError), repr(error.__cause__)


def test_wrong_kind_of_file(good) -> None:
    for kind, opener in OPENERS.items():
        for other, path in good.items():
            if other == kind or {other, kind} == {"nc", "h5"} or kind == "tif":  # GDAL reads most of them
                continue
            with pytest.raises(sg.SampleError, match=path.name):
                first(path, opener)


@pytest.mark.parametrize(
    ("kind", "opener", "says"),
    [
        ("nc", sg.open_netcdf(variable="sts"), r"no variable 'sts' in .*sst_2000.nc.*sst"),
        ("nc", sg.open_netcdf(variable="a/b"), r"a/b.* in .*sst_2000.nc"),
        ("h5", sg.open_hdf5(dataset="a/c"), r"a/c.*a\.h5.*a/b"),
        ("tif", sg.open_geotiff(bands=9), r"9.*scene_0.tif.*4"),
        ("tif", sg.open_geotiff(bands=0), r"0.*scene_0.tif"),
        ("tif", sg.open_geotiff(overview=3), r"overview.*scene_0.tif"),
        ("fits", sg.open_fits(hdu=7), r"7.*continuum_0.fits|continuum_0.fits.*7"),
        ("fits", sg.open_fits(hdu="NOPE"), r"NOPE"),
        ("fits", sg.open_fits(hdu=0), r"continuum_0.fits"),
    ],
)
def test_a_part_that_is_not_there(good, kind, opener, says) -> None:
    with pytest.raises(sg.SampleError, match=says) as caught:
        first(good[kind], opener)
    assert isinstance(caught.value.__cause__, sg.OpenError)


def test_no_match_for_the_pattern(tmp_path) -> None:
    with pytest.raises(sg.ChainError, match=r"nothing matches '.*nope.*'; the working directory is"):
        sg.files(str(tmp_path / "nope*.fits"))
    with pytest.raises(sg.ChainError, match="the list of paths is empty"):
        sg.files([])
    with pytest.raises(sg.ChainError, match="3 is not a path"):
        sg.files([3])


def test_mixed_shapes_and_dtypes_in_a_batch(tmp_path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 4), np.float32))
    np.save(tmp_path / "b.npy", np.zeros((4, 5), np.float32))
    np.save(tmp_path / "c.npy", np.zeros((4, 4), np.int16))
    chain = sg.files([tmp_path / "a.npy", tmp_path / "b.npy"], key="x").key_transform(
        "x", sg.open_numpy(raw=True)
    )
    with pytest.raises(
        sg.SampleError,
        match=r"'x' has shape \(4, 5\) in .*b.npy.* and \(4, 4\) in .*a.npy.*; crop or patch .* pad=",
    ):
        chain.batch(2)[0]
    chain = sg.files([tmp_path / "a.npy", tmp_path / "c.npy"], key="x").key_transform(
        "x", sg.open_numpy(raw=True)
    )
    with pytest.raises(sg.SampleError, match=r"'x' is int16 in .*c.npy.* and float32 in .*a.npy.*sg.cast"):
        next(iter(chain.batch(2).prefetch(1, 1)))


def test_samples_whose_keys_differ() -> None:
    chain = sg.buffer_from_vector([{"a": 1}, {"a": 1, "b": 2}])
    with pytest.raises(sg.SampleError, match=r"has the keys \['a', 'b'\], sample 0 has \['a'\]"):
        chain.batch(2)[0]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda b: b.batch(0), "batch: size=0 must be a whole number, 1 or more"),
        (lambda b: b.batch(-2), "batch: size=-2"),
        (lambda b: b.batch(1.5), "batch: size=1.5"),
        (lambda b: b.prefetch(0, 1), "prefetch_size=0 must be"),
        (lambda b: b.prefetch(1, 0), "num_threads=0 must be"),
        (lambda b: b.prefetch(-1, -1), "prefetch_size=-1"),
        (lambda b: b.repeat(0), "0 times"),
        (lambda b: b.partition(0, 0), "0 parts"),
        (lambda b: b.shard(2, 2), "part 2 of 2 must be from 0 to 1"),
        (lambda b: b.perm([0, 9]), "numbers from 0 to 1"),
        (lambda b: b.shuffle(seed=0.5), "seed=0.5 must be a whole number"),
        (lambda b: b.key_transform("x", 3), "3 is neither a step nor a function"),
        (lambda b: b.key_transform((), abs), "must be a name"),
        (lambda b: b.key_transform(("x", "y"), abs, "z"), "2 keys .* but 1 output keys"),
        (lambda b: b.batch(2).key_transform("x", sg.patch(1)), "put .key_transform.* before .batch"),
    ],
)
def test_bad_arguments(call, says) -> None:
    with pytest.raises((sg.StreamGeoError, TypeError), match=says):
        call(sg.buffer_from_vector([{"x": np.ones(2)}, {"x": np.ones(2)}]))


@pytest.mark.parametrize(
    ("chain", "says"),
    [
        (lambda b: b.key_transform("y", abs), r"abs: no key 'y' in the sample; it has \['x'\]"),
        (lambda b: b.key_transform("y", sg.patch(1)), "patch: no key 'y'"),
        (lambda b: b.rename_key("y", "z"), "rename_key: no key 'y'"),
        (lambda b: b.filter_key("y"), "filter_key: no key 'y'"),
    ],
)
def test_a_key_that_is_not_there(chain, says) -> None:
    with pytest.raises(sg.SampleError, match=says) as caught:
        chain(sg.buffer_from_vector([{"x": np.ones(2)}]))[0]
    assert isinstance(caught.value.__cause__, KeyError)


def forget_to_return(x: np.ndarray) -> None:
    x * 2


@pytest.mark.parametrize(
    ("f", "says"),
    [
        (forget_to_return, "forget_to_return returned NoneType; a step must return an array of numbers"),
        (lambda x: "text" and object(), "returned object"),
        (lambda x: np.ma.masked_array(x, mask=True), "returned a masked array; return .filled"),
        (lambda x: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)
def test_a_step_that_returns_the_wrong_thing(good, f, says) -> None:
    chain = sg.files([good["tif"]], key="image").key_transform("image", sg.open_geotiff())
    with pytest.raises(sg.SampleError, match=says) as caught:
        chain.key_transform("image", f)[0]
    assert "scene_0.tif" in str(caught.value) and caught.value.index == 0 and caught.value.step
    with pytest.raises(sg.SampleError, match=says):
        next(
            iter(chain.key_transform("image", sg.patch(40)).key_transform("image", f).batch(2).prefetch(2, 2))
        )


def test_a_function_that_changes_the_shape_before_patch(good) -> None:
    chain = sg.files([good["tif"]], key="image").key_transform("image", sg.open_geotiff())
    halved = chain.key_transform("image", lambda x: x[:, ::2, ::2])
    assert halved[0]["image"].shape == (4, 40, 45)
    with pytest.raises(
        sg.SampleError,
        match=r"returned shape \(4, 40, 45\) for a scene of shape \(4, 80, 90\); say what it does",
    ):
        halved.key_transform("image", sg.patch(20))[0]
    step = sg.Step(lambda x: x[:, ::2, ::2], grid=lambda g: g.coarsen(y=2, x=2))
    assert len(chain.key_transform("image", step).key_transform("image", sg.patch(20))) == 2 * 3


def test_a_failure_on_a_worker_keeps_its_traceback(good) -> None:
    import traceback

    def broken(x: np.ndarray) -> np.ndarray:
        raise LookupError("deep inside")

    chain = (
        sg.files([good["tif"]], key="image")
        .key_transform("image", sg.open_geotiff())
        .key_transform("image", sg.patch(40))
    )
    with pytest.raises(sg.SampleError) as caught:
        list(chain.key_transform("image", broken).batch(3).prefetch(2, 2))
    error = caught.value
    assert isinstance(error.__cause__, LookupError)
    assert "in broken" in "".join(traceback.format_exception(error.__cause__))
    assert error.index == 0 and "scene_0.tif" in str(error.file) and "Window(" in str(error.window)


def test_everything_is_nan(tmp_path) -> None:
    np.save(tmp_path / "nan.npy", np.full((20, 20), np.nan, np.float32))
    chain = (
        sg.files([tmp_path / "nan.npy"], key="x")
        .key_transform("x", sg.open_numpy())
        .key_transform("x", sg.patch(8))
    )
    (scene,) = chain.batch(4).predict(lambda x: x, key="x")
    assert np.isnan(np.load(scene.save(tmp_path / "out.npy"))).all()


def test_no_georeference_is_told_where_it_is_asked_for(tmp_path) -> None:
    np.save(tmp_path / "a.npy", np.ones((20, 20)))
    scene = sg.open_numpy()(tmp_path / "a.npy")
    for ask in (lambda g: g.bounds, lambda g: g.pixel_to_world(dim_0=0, dim_1=0), lambda g: g.wcs):
        with pytest.raises(sg.GridError, match="has no georeference"):
            ask(scene.grid)
    with pytest.raises(sg.SampleError, match="solar radius"):
        sg.files([tmp_path / "a.npy"], key="x").key_transform("x", sg.open_numpy()).key_transform(
            "x", sg.helio.limb_darkening(wavelength=617.3)
        )[0]


def test_unknown_format_to_save_to(good, tmp_path) -> None:
    scene = sg.open_geotiff()(good["tif"])
    with pytest.raises(
        sg.WriteError, match="no format is known for x.xyz; give format= one of fits, geotiff"
    ):
        scene.save(tmp_path / "x.xyz")
    assert list(tmp_path.iterdir()) == []


def test_an_overwritten_file_is_read_anew(tmp_path) -> None:
    path = tmp_path / "a.npy"
    for value in (1, 2):
        np.save(path, np.full((4, 4 + value), value, np.float32))
        assert first(path, sg.open_numpy())["image"].max() == value


def test_a_good_file_after_a_damaged_one(good, tmp_path) -> None:
    """GDAL keeps the last error of a thread, and rasterio may raise it for the next file."""
    content = good["tif"].read_bytes()
    for number in range(6):
        rng = np.random.default_rng(number)
        broken = bytearray(content)
        for position in rng.integers(len(content) // 2, len(content), 200):
            broken[position] = int(rng.integers(0, 256))
        path = tmp_path / f"{number}.tif"
        path.write_bytes(broken)
        with contextlib.suppress(sg.SampleError):
            first(path, sg.open_geotiff())
        assert first(good["tif"], sg.open_geotiff())["image"].size
        assert sg.open_geotiff()(good["tif"]).grid.crs is not None
