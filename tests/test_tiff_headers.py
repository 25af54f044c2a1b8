"""Sizes of TIFF files by a quick look at their first directory, against rasterio."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from rasterio.errors import RasterioIOError

import streamgeo as sg
from streamgeo.sources.geotiff import open_scene
from streamgeo.sources.tiff_headers import Look, Unusual, look
from tests.conftest import SAMPLES

REAL = sorted(p for p in SAMPLES.rglob("*") if p.suffix.lower() in (".tif", ".tiff"))
OFTEN = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def by_rasterio(path: Path | str) -> Look:
    with rasterio.open(path) as src:
        dtypes = set(src.dtypes)
        assert len(dtypes) == 1
        return Look(src.count, src.shape, np.dtype(dtypes.pop()))


def make(path: Path, dtype: str, bands: int, shape: tuple[int, int], **options: Any) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", dtype=dtype, count=bands, height=shape[0], width=shape[1], **options
    ) as out:
        out.write(np.ones((bands, *shape), dtype))
    return path


@pytest.mark.parametrize("path", REAL, ids=lambda p: p.name)
def test_real_files(path: Path) -> None:
    scene = open_scene(str(path), raw=True)
    with rasterio.open(path) as src:
        assert scene.shape == (src.count, *src.shape)
        assert {np.dtype(name) for name in src.dtypes} == {scene.dtype}
    try:
        assert look(str(path)) == by_rasterio(path)
    except Unusual as reason:
        assert f"opened by GDAL, because {reason}" in scene.reader
    else:
        assert "opened by GDAL" not in scene.reader


@pytest.mark.skipif(not REAL, reason="no sample files")
def test_most_real_files_are_plain() -> None:
    unusual = 0
    for path in REAL:
        try:
            look(str(path))
        except Unusual:
            unusual += 1
    assert unusual < len(REAL) / 4


CODECS = ["none", "deflate", "lzw", "packbits", "zstd", "lzma", "lerc", "jpeg"]
DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64",
          "complex64"]  # fmt: skip


@OFTEN
@given(
    st.sampled_from(DTYPES), st.integers(1, 5), st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.sampled_from(CODECS), st.booleans(), st.sampled_from(["pixel", "band"]), st.booleans(), st.booleans(),
    st.sampled_from([None, "minisblack", "miniswhite", "rgb"]), st.sampled_from([None, 1, 4, 12]),
)  # fmt: skip
def test_made_files(
    tmp_path: Path, dtype: str, bands: int, shape: tuple[int, int], codec: str, tiled: bool, interleave: str,
    big: bool, swapped: bool, colours: str | None, bits: int | None,
) -> None:  # fmt: skip
    options: dict[str, Any] = {"compress": codec, "interleave": interleave, "bigtiff": "yes" if big else "no"}
    rows = 8 if codec == "jpeg" else 9  # JPEG is written in strips of whole blocks of 8
    options |= {"tiled": True, "blockxsize": 32, "blockysize": 16} if tiled else {"blockysize": rows}
    options |= {"photometric": colours} if colours and (bands >= 3 or colours != "rgb") else {}
    options |= {"nbits": bits} if bits and dtype in ("uint8", "uint16") and codec != "jpeg" else {}
    if codec == "jpeg" and dtype != "uint8":
        options["compress"] = "deflate"
    if codec == "lerc" and dtype not in ("uint8", "uint16", "int16", "float32"):
        options["compress"] = "lzw"
    try:
        path = make(
            tmp_path / "a.tif", dtype, bands, shape, endianness="big" if swapped else "little", **options
        )
    except RasterioIOError:  # GDAL writes no LERC of fewer bits, and does not always say so
        assert codec == "lerc" and bits
        reject()
    try:
        assert look(str(path)) == by_rasterio(path)
    except Unusual:
        plain = dtype in ("uint8", "uint16", "int16", "uint32", "int32", "float32", "float64")
        assert not plain or bits or codec in ("lzma", "lerc", "jpeg")
    raw = open_scene(str(path), raw=True)
    with rasterio.open(path) as src:
        assert raw.shape == (src.count, *src.shape)
        assert raw.frame.dims == raw.grid.dims and raw.frame.spatial == raw.grid.spatial


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.filterwarnings("ignore")
def test_damaged_directories_say_what_gdal_says(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    whole = make(tmp_path / "a.tif", "uint16", 3, (50, 60), compress="deflate", tiled=seed % 2 == 0,
                 bigtiff="yes" if seed > 1 else "no", **({"blockxsize": 16, "blockysize": 16} if seed % 2 == 0 else {}),
                 ).read_bytes()  # fmt: skip
    path, agreed = tmp_path / "b.tif", 0
    for _ in range(400):
        data = bytearray(whole)
        for at in rng.integers(0, min(340, len(data)), rng.integers(1, 4)):
            data[at] = int(rng.integers(0, 256))
        if rng.random() < 0.2:
            del data[int(rng.integers(1, len(data))) :]
        path.write_bytes(data)
        try:
            seen = look(str(path))
        except Unusual:
            continue
        try:
            assert seen == by_rasterio(path), (seen, by_rasterio(path))
        except rasterio.errors.RasterioIOError:
            with pytest.raises(sg.OpenError, match="cannot be read"):
                open_scene(str(path)).read()
            continue
        agreed += 1
    assert agreed > 50


def test_a_directory_that_lies_behind_the_pixels(tmp_path: Path) -> None:
    path = make(tmp_path / "a.tif", "uint8", 7, (300, 200))
    with rasterio.open(path, "r+") as out:  # more tags: the directory moves to the end of the file
        out.update_tags(text="x" * 10_000)
    (start,) = struct.unpack("<I", path.read_bytes()[4:8])
    assert start > 60_000
    assert look(str(path)) == by_rasterio(path) == Look(7, (300, 200), np.dtype("u1"))


def test_gdal_is_not_asked_before_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = rasterio.open
    monkeypatch.setattr(
        rasterio, "open", lambda path, *a, **k: opened.append(str(path)) or real(path, *a, **k)
    )
    for i in range(20):
        with real(
            tmp_path / f"{i:02}.tif", "w", driver="GTiff", dtype="uint8", count=1, height=32, width=48
        ) as out:
            out.write(np.full((1, 32, 48), i, "u1"))
    chain = sg.files(str(tmp_path / "*.tif"), key="x").key_transform("x", sg.open_geotiff())
    chain = chain.key_transform("x", sg.patch(size=16))
    assert len(chain) == 120
    assert opened == []
    assert (chain[119]["x"] == 19).all()
    assert {path for path in opened if not path.startswith("/vsimem")} == {str(tmp_path / "19.tif")}


def test_what_lies_beside_a_file_changes_nothing_of_its_sizes(tmp_path: Path) -> None:
    path = make(tmp_path / "a.tif", "uint8", 2, (40, 50))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as out:
        out.write_mask(np.eye(40, 50, dtype="u1") * 255)
    assert (tmp_path / "a.tif.msk").exists()
    scene = open_scene(str(path))
    assert scene.shape == (2, 40, 50)
    assert scene.files == (str(path), f"{path}.msk")
    assert np.isnan(scene.read()).sum() == 2 * (2000 - 40)


def test_a_file_that_changes_between_the_look_and_the_grid(tmp_path: Path) -> None:
    path = make(tmp_path / "a.tif", "uint8", 2, (40, 50))
    scene = open_scene(str(path))
    make(path, "uint8", 2, (80, 50))
    with pytest.raises(sg.OpenError, match="has changed since it was opened"):
        _ = scene.grid
