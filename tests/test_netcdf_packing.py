"""Packed numbers in NetCDF, read and written, against netCDF4-python."""

from __future__ import annotations

import warnings

import netCDF4
import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from streamgeo.errors import OpenError
from streamgeo.scene import ArrayScene
from streamgeo.sources.netcdf import open_scene
from streamgeo.window import Window
from tests.netcdf_made import (
    RAMP16,
    assert_attributes,
    attributes,
    make,
    reference,
)

# -- made files -------------------------------------------------------------------------------------------


PACKED = {
    "negative scale": (RAMP16, {"scale_factor": -0.5, "add_offset": 3.0}, -30),
    "float32 scale": (RAMP16, {"scale_factor": np.float32(0.1), "add_offset": np.float32(7.3)}, None),
    "neutral scale": (RAMP16, {"scale_factor": np.float32(1), "add_offset": np.float32(0)}, 3),
    "integer scale": (RAMP16, {"scale_factor": np.int16(2)}, 3),
    "unsigned": (
        RAMP16,
        {"_Unsigned": "true", "scale_factor": 0.01, "valid_range": np.array([0, -6], "i2")},
        -1,
    ),
    "unsigned bytes": (RAMP16.astype("i1"), {"_Unsigned": "true"}, -2),
    "valid range": (RAMP16, {"valid_range": np.array([-10, 10], "i2")}, None),
    "valid min": (RAMP16, {"valid_min": np.int16(-3)}, None),
    "valid max": (RAMP16.astype("f4"), {"valid_max": np.float32(4)}, None),
    "missing values": (RAMP16, {"missing_value": np.array([1, 2, 3], "i2")}, 5),
    "default fill": (np.where(RAMP16 > 20, -32767, RAMP16).astype("i2"), {}, None),
    "default fill of bytes": (np.where(RAMP16 > 20, 255, 7).astype("u1"), {}, None),
    "bytes without fill": (np.where(RAMP16 > 20, 255, 7).astype("u1"), {}, False),
    "nan fill": (np.where(RAMP16 > 20, np.nan, RAMP16).astype("f4"), {}, np.nan),
    "inf": (np.where(RAMP16 > 20, np.inf, RAMP16).astype("f4"), {}, -30.0),
    "float64 out of float32": (RAMP16 * 1e300, {}, None),
    "fill out of float32": (RAMP16 * 1.0, {}, -1.7e308),
    "int64": (RAMP16.astype("i8") * 2**40 + 1, {"scale_factor": 1e-3}, None),
    "uint64": (RAMP16.astype("u8"), {}, 7),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("case", PACKED)
def test_packings(tmp_path, case, raw):
    values, attrs, fill = PACKED[case]
    path = make(tmp_path / "in.nc", values, attrs, fill=fill)
    scene = open_scene(path, raw=raw)
    assert np.array_equal(scene.read(), reference(path, "v", raw), equal_nan=scene.dtype.kind == "f")
    scene.save(tmp_path / "out.nc")
    assert np.array_equal(reference(tmp_path / "out.nc", "v"), reference(path, "v"), equal_nan=True)
    with netCDF4.Dataset(tmp_path / "out.nc") as dataset, netCDF4.Dataset(path) as source:
        variable = dataset["v"]
        if raw:
            assert_attributes(attributes(variable), attributes(source["v"]))
            assert variable.dtype == source["v"].dtype
        else:
            assert variable.dtype == np.float32
            assert set(attributes(variable)) <= {"_FillValue", "missing_value"}


def test_text_for_a_scale_is_refused_and_raw_reads(tmp_path):
    path = make(tmp_path / "in.nc", RAMP16, {"scale_factor": "0.1"})
    with pytest.raises(OpenError, match=r"scale_factor='0.1' is text; open with raw=True"):
        open_scene(path)
    assert np.array_equal(open_scene(path, raw=True).read(), RAMP16)


def test_a_marker_that_does_not_fit_is_reported(tmp_path):
    path = make(tmp_path / "in.nc", RAMP16, {"missing_value": np.int32(99999)})
    with pytest.warns(UserWarning, match=r"missing_value=.*99999.* does not fit int16 and is not used"):
        open_scene(path)


numbers = st.one_of(st.integers(-40, 40), st.sampled_from([127, 255, -127, -128, 32767, -32767]))


@st.composite
def packings(draw):
    dtype = np.dtype(draw(st.sampled_from(["i1", "u1", "i2", "u2", "i4", "f4", "f8", ">i2", ">f4"])))
    values = np.array(draw(st.lists(numbers, min_size=12, max_size=12))).astype(dtype).reshape(3, 4)
    attrs = {}
    for key in draw(st.sets(st.sampled_from(["missing_value", "valid_min", "valid_max"]))):
        attrs[key] = np.array(draw(numbers)).astype(dtype.newbyteorder("="))
    for key in draw(st.sets(st.sampled_from(["scale_factor", "add_offset"]))):
        attrs[key] = draw(
            st.sampled_from([1.0, 0.0, -0.01, np.float32(0.1), np.float32(2), np.float64(273.15)])
        )
    if dtype.kind == "i" and draw(st.booleans()):
        attrs["_Unsigned"] = draw(st.sampled_from(["true", "false"]))
    fill = draw(st.one_of(st.none(), st.just(False), numbers))
    fill = fill if fill is None or fill is False else np.array(fill).astype(dtype.newbyteorder("="))
    return values, attrs, fill


@settings(max_examples=60, deadline=None)
@given(packings(), st.data())
def test_any_packing_in_any_window(tmp_path_factory, packing, data):
    values, attrs, fill = packing
    folder = tmp_path_factory.mktemp("p")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        endian = "big" if values.dtype.byteorder == ">" else "native"
        path = make(folder / "in.nc", values, attrs, fill=fill, endian=endian)
        ends = [sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in values.shape]
        window = Window(y=tuple(ends[0]), x=tuple(ends[1]))
        for raw in (False, True):
            scene = open_scene(path, raw=raw)
            try:
                want = reference(path, "v", raw)
            except (TypeError, OverflowError):  # netCDF4-python fails on unsigned bytes without a fill value
                reject()
            assert np.array_equal(
                scene.read(window), want[window.slices(scene.dims)], equal_nan=want.dtype.kind == "f"
            )
            scene.save(folder / "out.nc")
            try:
                again, before = reference(folder / "out.nc", "v"), reference(path, "v")
            except (TypeError, OverflowError):  # the same
                reject()
            assert np.array_equal(again, before, equal_nan=True)
            if raw:
                assert np.array_equal(
                    reference(folder / "out.nc", "v", True), want, equal_nan=want.dtype.kind == "f"
                )


@pytest.mark.parametrize(
    "fmt", ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA", "NETCDF4_CLASSIC"]
)
def test_older_formats(tmp_path, fmt):
    path = make(tmp_path / "in.nc", RAMP16, {"scale_factor": 0.5, "units": "K"}, fill=-30, fmt=fmt)
    for raw in (False, True):
        scene = open_scene(path, raw=raw)
        assert np.array_equal(scene.read(), reference(path, "v", raw), equal_nan=not raw)
        scene.save(tmp_path / "out.nc")
        assert np.array_equal(reference(tmp_path / "out.nc", "v"), reference(path, "v"), equal_nan=True)
        with netCDF4.Dataset(tmp_path / "out.nc") as dataset:
            assert dataset.data_model == "NETCDF4" and dataset["v"].units == "K"


def test_big_endian_stays_big_endian(tmp_path):
    path = make(tmp_path / "in.nc", RAMP16.astype(">i2"), endian="big")
    scene = open_scene(path, raw=True)
    assert scene.dtype == np.int16 and scene.dtype.isnative and scene.read().dtype.isnative
    scene.save(tmp_path / "out.nc")
    with netCDF4.Dataset(tmp_path / "out.nc") as dataset:
        assert dataset["v"].endian() == "big" and np.array_equal(dataset["v"][:], RAMP16)


def test_a_dim_that_is_there_twice(tmp_path):
    path = make(tmp_path / "in.nc", np.arange(16.0, dtype="f4").reshape(4, 4), dims=("x", "x"))
    scene = open_scene(path)
    assert scene.dims == ("x", "x_1")
    scene.save(tmp_path / "out.nc")
    with netCDF4.Dataset(tmp_path / "out.nc") as dataset:
        assert dataset["v"].dimensions == ("x", "x")
    half = ArrayScene(scene.array[:2], scene.grid.crop(Window(x=(0, 2))), scene.template, name="s.nc")
    half.save(tmp_path / "half.nc")
    assert np.array_equal(reference(tmp_path / "half.nc", "v"), np.arange(8.0).reshape(2, 4))


def test_an_enumeration_keeps_the_names_of_its_values(tmp_path):
    with netCDF4.Dataset(tmp_path / "in.nc", "w") as dataset:
        kind = dataset.createEnumType(np.uint8, "cloud", {"clear": 0, "cloudy": 1, "no data": 255})
        dataset.createDimension("y", 2), dataset.createDimension("x", 3)
        dataset.createVariable("v", kind, ("y", "x"), fill_value=255)[:] = [[0, 1, 255], [1, 1, 0]]
    scene = open_scene(str(tmp_path / "in.nc"))
    assert np.array_equal(scene.read(), [[0, 1, np.nan], [1, 1, 0]], equal_nan=True)
    assert scene.attrs["flag_meanings"] == "clear cloudy no_data"
