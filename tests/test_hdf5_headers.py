"""Headers of NetCDF-4 and HDF5 files as the library describes them, and those that are left to it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import streamgeo as sg
from streamgeo.cf_packing import DEFAULT_FILLS
from streamgeo.headers import MANY, looked_at
from streamgeo.sources import hdf5, hdf5_headers, netcdf, netcdf_headers
from streamgeo.sources.cf import Header
from streamgeo.sources.handles import POOL, identity
from tests.netcdf_made import FILES

HDF5_FILES = ["helio/eis_20210306_064444.head.h5", "helio/eis_20210306_064444.data.h5"]
CLASSIC = ["ascat_", "eraint_", "space_weather"]
LIMIT = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NUMBERS = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]


# -- against the libraries --------------------------------------------------------------------------------


def library(path: str, kind: Any) -> Header:
    opened = netcdf._dataset(path) if kind is netcdf_headers else hdf5._file(path)
    with warnings.catch_warnings(), opened as handle:
        warnings.simplefilter("ignore")
        header = (netcdf if kind is netcdf_headers else hdf5)._scan(handle)
    POOL.close()
    return header


def assert_same_values(got: Any, want: Any, where: str) -> None:
    assert list(got) == list(want), where
    for key, value in want.items():
        assert type(got[key]) is type(value), (where, key)
        a, b = np.asarray(got[key]), np.asarray(value)
        assert a.dtype == b.dtype and a.shape == b.shape, (where, key)
        assert np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"), (where, key)


def assert_same(got: Header, want: Header) -> None:
    assert list(got.variables) == list(want.variables)
    for path, a in got.variables.items():
        b = want.variables[path]
        assert (a.path, a.dims, a.ids, a.shape, a.dtype) == (b.path, b.dims, b.ids, b.shape, b.dtype)
        assert a.storage == b.storage, path
        assert_same_values(a.attrs, b.attrs, path)
    assert (got.unlimited, got.model, list(got.groups)) == (want.unlimited, want.model, list(want.groups))
    for path, attrs in got.groups.items():
        assert_same_values(attrs, want.groups[path], path)


def agrees(path: Path | str, kind: Any, covered: bool | None = None) -> Header | None:
    """Its header, which must be that of the library; ``covered`` says whether it must be left to the library."""
    found = kind.look(str(path), identity(str(path)))
    assert covered is None or (found is not None) is covered
    if found is not None:
        assert_same(found, library(str(path), kind))
    return found


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", [netcdf_headers, hdf5_headers])
def test_real_netcdf_files(samples, name, kind) -> None:
    agrees(samples / name, kind, covered=not any(word in name for word in CLASSIC))


@pytest.mark.parametrize("name", HDF5_FILES)
def test_real_hdf5_files(samples, name) -> None:
    agrees(samples / name, hdf5_headers, covered=True)
    agrees(samples / name, netcdf_headers, covered=False)  # netCDF-C makes dims up


# -- made by netCDF-C ---------------------------------------------------------------------------------------

text = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)


@st.composite
def values(draw: Any) -> Any:
    kind = draw(st.sampled_from([*NUMBERS, "text", "texts", "long"]))
    if kind == "text":
        return draw(text)
    if kind == "texts":
        return draw(st.lists(text, min_size=1, max_size=3))
    if kind == "long":
        return "long " * draw(st.sampled_from([10, 1000, 20000]))
    array = np.array(draw(st.lists(st.integers(0, 100), max_size=3)), kind)
    return array if array.size != 1 else array[0]


attributes = st.dictionaries(names.map("a_{}".format), values(), max_size=5)


@st.composite
def storage(draw: Any, dtype: str, shape: tuple[int, ...]) -> dict[str, Any]:
    orders = (
        ["native", "little", "big"] if dtype[1] != "1" else ["native"]
    )  # the library decides on bytes in order
    options: dict[str, Any] = {"endian": draw(st.sampled_from(orders))}
    if shape and draw(st.booleans()):
        options |= {name: draw(st.booleans()) for name in ("zlib", "shuffle", "fletcher32")}
        options["chunksizes"] = tuple(draw(st.integers(1, max(size, 1))) for size in shape)
        options["complevel"] = draw(st.integers(1, 9))
    return options | {"fill_value": draw(st.sampled_from([None, False, np.array(7, dtype)[()]]))}


@LIMIT
@given(data=st.data())
def test_made_netcdf_files(data, tmp_path) -> None:
    path, draw = tmp_path / "made.nc", data.draw
    with warnings.catch_warnings(), netCDF4.Dataset(path, "w") as file:
        warnings.simplefilter("ignore")
        groups = [file]
        for name in draw(st.lists(names.map("g_{}".format), max_size=3, unique=True)):
            groups.append(draw(st.sampled_from(groups)).createGroup(name))
        for group in groups:
            for name in draw(st.lists(st.sampled_from("tyxz"), max_size=3, unique=True)):
                group.createDimension(name, draw(st.sampled_from([None, 1, 2, 5])))
            for name in draw(st.lists(st.sampled_from("tyxvw"), max_size=4, unique=True)):
                _netcdf_variable(draw, group, name).setncatts(draw(attributes))
            group.setncatts(draw(attributes))
    agrees(path, netcdf_headers, covered=True)
    agrees(path, hdf5_headers)


def _netcdf_variable(draw: Any, group: Any, name: str) -> Any:
    above, known = group, {}
    while above is not None:
        known, above = {**above.dimensions, **known}, above.parent
    dims = draw(st.lists(st.sampled_from(sorted(known)), max_size=3, unique=True)) if known else []
    if draw(st.integers(0, 5)) == 0:
        return group.createVariable(name, draw(st.sampled_from(["S1", str])), dims)
    dtype = draw(st.sampled_from(NUMBERS))
    options = draw(storage(dtype, tuple(len(known[dim]) for dim in dims)))
    variable = group.createVariable(name, dtype, dims, **options)
    if dims and known[dims[0]].isunlimited() and draw(st.booleans()):
        variable[: draw(st.integers(1, 4))] = 1
    return variable


def test_the_classic_model(tmp_path) -> None:
    path = tmp_path / "model.nc"
    with netCDF4.Dataset(path, "w", format="NETCDF4_CLASSIC") as file:
        file.createDimension("x", 4)
        file.createVariable("x", "f8", ("x",)).units = "m"
    header = agrees(path, netcdf_headers, covered=True)
    assert header is not None and header.model == "NETCDF4_CLASSIC"


def test_a_plain_netcdf_file_is_covered(tmp_path) -> None:
    """So that the test above says something: the same, with all that is common, must not be left to the library."""
    path = tmp_path / "plain.nc"
    with netCDF4.Dataset(path, "w") as file:
        file.setncatts({"title": "a title", "empty": "", "words": ["a", "b"], "history": "long " * 20000})
        file.createDimension("time", None)
        for dim in "yx":
            file.createDimension(dim, 4)
        group = file.createGroup("data").createGroup("deep")
        for name, dims in {"time": ("time",), "y": ("y",), "x": ("x",), "names": ("y", "x")}.items():
            variable = file.createVariable(name, "S1" if name == "names" else "f8", dims)
            variable.setncattr("units", "degrees_north")
        for number in range(40):
            variable = group.createVariable(f"v{number}", ">i2", ("time", "y", "x"), zlib=True, fill_value=-1)
            variable.setncatts({f"attribute {n}": np.float32(n) for n in range(3 * number)})
        group["v0"][:3] = 1
        file.createDimension("other", 3)  # a dim of the name of a variable that is not about it
        file.createVariable("other", "f4", ("y", "x")).units = "é"
        file.createVariable("there", "f4", ("other",))
    header = agrees(path, netcdf_headers, covered=True)
    assert header is not None
    assert header.variables["data/deep/v7"].shape == (3, 4, 4)
    assert header.variables["other"].dims == ("y", "x") and header.variables["there"].dims == ("other",)
    agrees(path, hdf5_headers, covered=True)


def test_coordinates_of_two_dims(tmp_path) -> None:
    path = tmp_path / "two.nc"
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("time", 2)
        file.createDimension("length", 3)
        file.createVariable("time", "S1", ("time", "length"))
        file.createVariable("v", "f4", ("time",))
    header = agrees(path, netcdf_headers, covered=True)
    assert header is not None and header.variables["time"].dims == ("time", "length")


@pytest.mark.parametrize("what", ["enum", "compound", "vlen", "named", "quantized", "zstd", "odd name"])
def test_what_is_left_to_netcdf(tmp_path, what) -> None:
    path = tmp_path / "left.nc"
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("x", 4)
        kind: Any = "f4"
        if what == "enum":
            kind = file.createEnumType("u1", "kind", {"no": 0, "yes": 1})
        elif what == "compound":
            kind = file.createCompoundType(np.dtype([("a", "f4"), ("b", "i2")]), "kind")
        elif what == "vlen":
            kind = file.createVLType("f4", "kind")
        options = {"quantized": {"significant_digits": 3, "zlib": True}, "zstd": {"compression": "zstd"}}
        file.createVariable("größe" if what == "odd name" else "v", kind, ("x",), **options.get(what, {}))
    agrees(path, netcdf_headers, covered=what in ("named",))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert library(str(path), netcdf_headers).variables


# -- made by h5py -------------------------------------------------------------------------------------------


@LIMIT
@given(data=st.data())
def test_made_hdf5_files(data, tmp_path) -> None:
    path = tmp_path / "made.h5"
    draw = data.draw
    options = {
        "libver": draw(st.sampled_from(["earliest", "latest", ("earliest", "v108"), ("v110", "v110")]))
    }
    with h5py.File(path, "w", track_order=draw(st.booleans()), **options) as file:
        groups: list[Any] = [file]
        for name in draw(st.lists(names.map("g_{}".format), max_size=4, unique=True)):
            groups.append(draw(st.sampled_from(groups)).create_group(name, track_order=draw(st.booleans())))
        scales = []
        for name in draw(st.lists(names, max_size=3, unique=True)):
            group = draw(st.sampled_from(groups))
            most = draw(st.sampled_from([None, (None,)]))
            scale = group.create_dataset(f"s_{name}", data=np.arange(4), maxshape=most)
            scale.make_scale(name)
            scales.append(scale)
        for group in groups:
            for name in draw(st.lists(names, max_size=draw(st.sampled_from([2, 2, 40])), unique=True)):
                owner = _hdf5_dataset(draw, group, name, scales)
                _hdf5_attributes(draw, owner)
            _hdf5_attributes(draw, group)
    agrees(path, hdf5_headers)
    agrees(path, netcdf_headers)


def _hdf5_dataset(draw: Any, group: Any, name: str, scales: list[Any]) -> Any:
    dtype = draw(st.sampled_from([*NUMBERS, ">i2", ">f8", "f2", "S1", "S7", "?", "c8", h5py.string_dtype()]))
    shape = draw(st.sampled_from([(), (4,), (4, 4), (2, 4)]))
    options: dict[str, Any] = {}
    if shape and isinstance(dtype, str) and draw(st.booleans()):  # no filters for text that lies elsewhere
        options = {"chunks": (2, 2)[: len(shape)], "compression": draw(st.sampled_from([None, "gzip", "lzf", 7])),
                   "shuffle": draw(st.booleans()), "fletcher32": draw(st.booleans()),
                   "maxshape": draw(st.sampled_from([None, (None, 4)[: len(shape)]]))}  # fmt: skip
    if draw(st.booleans()) and dtype in NUMBERS:
        options["fillvalue"] = 3
    found = group.create_dataset(name, shape, dtype, track_order=draw(st.booleans()), **options)
    for axis, size in enumerate(shape):
        if scales and size == 4 and draw(st.booleans()):
            found.dims[axis].attach_scale(draw(st.sampled_from(scales)))
    if shape and draw(st.integers(0, 8)) == 0:
        found.dims[0].label = "along"
    return found


def _hdf5_attributes(draw: Any, owner: Any) -> None:
    for key, value in draw(attributes).items():
        owner.attrs[key] = value
    for number in range(draw(st.sampled_from([0, 0, 0, 50]))):
        owner.attrs[f"many {number}"] = np.float32(number)
    if draw(st.booleans()):
        owner.attrs["fixed"] = np.bytes_(
            draw(st.sampled_from([b"", b"a", b"a\0b", b"\xff\xfe", "é".encode()]))
        )
        owner.attrs["fixed array"] = np.array([b"a", b"bcd"])
        owner.attrs.create("latin", b"\xff", dtype=h5py.string_dtype())
        owner.attrs["flag"] = draw(st.booleans())
        owner.attrs["square"] = np.ones((2, 2), ">f4")
    if draw(st.integers(0, 5)) == 0:
        owner.attrs["none"] = h5py.Empty(draw(st.sampled_from(["f4", ">i2", "S3"])))


@pytest.mark.parametrize("libver", ["earliest", "v108", "v110"])
def test_a_plain_hdf5_file_is_covered(tmp_path, libver) -> None:
    path = tmp_path / "plain.h5"
    with h5py.File(path, "w", libver=(libver, "v110")) as file:
        for number in range(60):
            one = file.create_dataset(
                f"level1/part{number % 7}/d{number}", data=np.ones((3, 4)), chunks=(2, 2), compression=4
            )
            one.attrs.update({f"name {n}": n for n in range(number)})
            one.attrs["units"] = "DN"
        file["soft"] = h5py.SoftLink("/level1")
        file["external"] = h5py.ExternalLink("other.h5", "/")
    header = agrees(path, hdf5_headers, covered=True)
    assert header is not None and len(header.variables) == 60


@pytest.mark.parametrize(
    "what", ["compound", "enum", "hard link", "user block", "empty", "virtual", "external"]
)
def test_what_is_left_to_h5py(tmp_path, what) -> None:
    path = tmp_path / "left.h5"
    with h5py.File(path, "w", userblock_size=512 if what == "user block" else 0) as file:
        file["v"] = np.ones((3, 4), "i2")
        if what == "compound":
            file["c"] = np.zeros(3, [("a", "f4"), ("b", "i2")])
        elif what == "enum":
            file.create_dataset("e", (3,), h5py.enum_dtype({"no": 0, "yes": 1}))
        elif what == "hard link":
            file["w"] = file["v"]
        elif what == "empty":
            file["n"] = h5py.Empty("f4")
        elif what == "virtual":
            layout = h5py.VirtualLayout((3, 4), "i2")
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "v", (3, 4))
            file.create_virtual_dataset("virtual", layout)
        elif what == "external":
            file.create_dataset("x", (4,), "i2", external=[(str(tmp_path / "raw"), 0, 8)])
    agrees(path, hdf5_headers, covered=False)
    assert sg.open_hdf5("v", raw=True)(path).array.tolist() == np.ones((3, 4)).tolist()


def test_what_a_soft_link_names_is_opened(tmp_path) -> None:
    path = tmp_path / "soft.h5"
    with h5py.File(path, "w") as file:
        file["v"] = np.arange(12.0).reshape(3, 4)
        file["other"] = h5py.SoftLink("/v")
    assert sg.open_hdf5("other")(path).array[2, 3] == 11
    POOL.close()


# -- damage -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [netcdf_headers, hdf5_headers])
def test_no_damage_of_a_header_with_checksums_goes_unseen(tmp_path, kind) -> None:
    path = tmp_path / "whole.nc"
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("y", 3)
        variable = file.createVariable("y", "f4", ("y",))
        variable.setncatts({f"n{n}": np.int32(n) for n in range(20)})
        variable.units = "m"
    data = path.read_bytes()
    whole = kind.look(str(path), identity(str(path)))
    assert whole is not None
    seen = 0
    for at in range(0, len(data), 3):
        damaged = tmp_path / "damaged.nc"
        damaged.write_bytes(data[:at] + bytes([data[at] ^ 0x15]) + data[at + 1 :])
        found = kind.look(str(damaged), identity(str(damaged)))
        seen += found is None
        if found is not None:
            assert_same(found, whole)
    assert seen > 200


@pytest.mark.parametrize("kind", [netcdf_headers, hdf5_headers])
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_damage_is_left_to_the_library_and_never_hangs(tmp_path, kind, libver) -> None:
    path = tmp_path / "whole.h5"
    with h5py.File(path, "w", libver=libver) as file:
        one = file.create_dataset("g/v", data=np.ones((3, 4)), chunks=(2, 2), compression=4)
        one.attrs.update({"units": "DN", "words": ["a", "b"], "scale": 2.0, "fixed": np.bytes_(b"abc")})
        file["x"] = np.arange(4.0)
        file["x"].make_scale("x")
        one.dims[1].attach_scale(file["x"])
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = tmp_path / "damaged.h5"
    for _ in range(1500):
        copy = bytearray(data)
        at = int(rng.integers(0, min(len(data), 9000)))
        copy[at : at + 8] = [
            rng.bytes(8),
            b"\0" * 8,
            b"\xff" * 8,
            bytes([copy[at] ^ 1]) + bytes(copy[at + 1 : at + 8]),
        ][int(rng.integers(4))]
        damaged.write_bytes(copy)
        with contextlib.suppress(sg.OpenError):
            kind.look(str(damaged), identity(str(damaged)))


def test_a_file_that_was_replaced_is_left_to_the_library(tmp_path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["v"] = np.ones((3, 4))
    size, changed = identity(str(path))
    assert hdf5_headers.look(str(path), (size, changed)) is not None
    assert hdf5_headers.look(str(path), (size, changed + 1)) is None


# -- beside -------------------------------------------------------------------------------------------------


def test_opening_needs_no_library(tmp_path) -> None:
    a, b = tmp_path / "a.nc", tmp_path / "b.h5"
    with netCDF4.Dataset(a, "w") as file:
        for dim in "yx":
            file.createDimension(dim, 4)
        file.createVariable("v", "i2", ("y", "x"), zlib=True)[:] = 3
    with h5py.File(b, "w") as file:
        file.create_dataset("v", data=np.ones((4, 4)), chunks=(2, 2))
    code = (
        "import sys, streamgeo as sg\n"
        f"for path in ({str(a)!r}, {str(b)!r}):\n"
        "    assert sg.open()(path).frame.shape == (4, 4)\n"
        "print([name for name in ('netCDF4', 'h5py') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[]"


def test_no_descriptor_stays_open(tmp_path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["v"] = np.ones((3, 4))
    left = tmp_path / "b.h5"
    left.write_bytes(path.read_bytes()[:700])
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for one in (path, left):
        hdf5_headers.look(str(one), identity(str(one)))
    assert not before or len(os.listdir("/proc/self/fd")) == before


def test_default_fills_are_those_of_netcdf() -> None:
    assert DEFAULT_FILLS.items() <= netCDF4.default_fillvals.items()


def test_headers_are_read_by_threads_only_where_one_waits() -> None:
    def computes(number: int) -> tuple[int, int]:
        return number, threading.get_ident()

    def waits(number: int) -> tuple[int, int]:
        time.sleep(0.01)
        return computes(number)

    here = threading.get_ident()
    assert list(looked_at(computes, range(100))) == [(n, here) for n in range(100)]
    found = list(looked_at(waits, range(60)))
    assert [n for n, _ in found] == [*range(60)] and {thread for _, thread in found} - {here}
    assert {thread for _, thread in looked_at(waits, range(MANY - 1))} == {here}
