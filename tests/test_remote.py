"""Remote sensing against published values, against rasterio on real files, and inside chains."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

import streamgeo as sg
from streamgeo import made, remote
from streamgeo.errors import MissingKeyError, OpenError, StepError

LANDSAT = "remote_sensing/landsat8/LC08_L1TP_224077_20200518_20200518_01_RT_B{}.TIF"
MTL = """GROUP = LANDSAT_METADATA_FILE
  GROUP = IMAGE_ATTRIBUTES
    SPACECRAFT_ID = "LANDSAT_8"
    SUN_ELEVATION = 30.00000000
  END_GROUP = IMAGE_ATTRIBUTES
  GROUP = LEVEL2_SURFACE_REFLECTANCE_PARAMETERS
    REFLECTANCE_MULT_BAND_4 = 2.75e-05
    REFLECTANCE_ADD_BAND_4 = -0.2
  END_GROUP = LEVEL2_SURFACE_REFLECTANCE_PARAMETERS
  GROUP = LEVEL2_SURFACE_TEMPERATURE_PARAMETERS
    TEMPERATURE_MULT_BAND_ST_B10 = 0.00341802
    TEMPERATURE_ADD_BAND_ST_B10 = 149.0
  END_GROUP = LEVEL2_SURFACE_TEMPERATURE_PARAMETERS
  GROUP = LEVEL1_RADIOMETRIC_RESCALING
    RADIANCE_MULT_BAND_4 = 9.8000E-03
    RADIANCE_MULT_BAND_10 = 3.3420E-04
    RADIANCE_ADD_BAND_4 = -49.00000
    RADIANCE_ADD_BAND_10 = 0.10000
    REFLECTANCE_MULT_BAND_4 = 2.0000E-05
    REFLECTANCE_MULT_BAND_5 = 2.0000E-05
    REFLECTANCE_ADD_BAND_4 = -0.100000
    REFLECTANCE_ADD_BAND_5 = -0.100000
  END_GROUP = LEVEL1_RADIOMETRIC_RESCALING
  GROUP = LEVEL1_THERMAL_CONSTANTS
    K1_CONSTANT_BAND_10 = 774.8853
    K2_CONSTANT_BAND_10 = 1321.0789
  END_GROUP = LEVEL1_THERMAL_CONSTANTS
END_GROUP = LANDSAT_METADATA_FILE
END
"""


# -- radiometry -----------------------------------------------------------------------------------------


@pytest.fixture
def mtl(tmp_path: Path) -> Path:
    path = tmp_path / "LC08_MTL.txt"
    path.write_text(MTL)
    return path


def test_brightness_temperature_of_the_handbook_formula() -> None:
    # Landsat 8 band 10: DN 25000 is 8.455 W/(m2 sr um), and 1321.0789 / ln(774.8853 / 8.455 + 1) = 291.71 K
    step = remote.brightness_temperature(774.8853, 1321.0789, 3.3420e-4, 0.1)
    assert step(np.array([25000.0])).item() == pytest.approx(291.71, abs=0.01)
    radiance = remote.radiance(3.3420e-4, 0.1)(np.array([25000.0]))
    two = remote.brightness_temperature(774.8853, 1321.0789)(radiance)
    assert two.item() == pytest.approx(step(np.array([25000.0])).item(), rel=1e-12)


def test_published_valid_ranges_of_collection_2(mtl: Path) -> None:
    # USGS LSDS-1619: digital numbers 7273 and 43636 are reflectance 0 and 1; 293 and 61440 are 150 and 359 K.
    surface = remote.landsat(mtl, 4, "surface_reflectance")
    np.testing.assert_allclose(surface(np.array([7273, 43636], np.uint16)), [0, 1], atol=2e-5)
    temperature = remote.landsat(mtl, 10, "surface_temperature")
    np.testing.assert_allclose(temperature(np.array([293, 61440], np.uint16)), [150, 359], atol=5e-3)


def test_sentinel_2_offset_begins_with_baseline_4() -> None:
    dn = np.array([1000, 11000], np.uint16)
    for baseline, expected in (
        ("02.14", [0.1, 1.1]),
        ("03.01", [0.1, 1.1]),
        ("04.00", [0, 1]),
        (5.1, [0, 1]),
    ):
        np.testing.assert_allclose(remote.sentinel2(baseline)(dn), expected, atol=1e-6)
    assert remote.sentinel2("N0400")(dn)[0] == pytest.approx(0, abs=1e-6)


def test_mtl_text_and_json_are_the_same(mtl: Path, tmp_path: Path) -> None:
    fields = remote.read_mtl(mtl)
    assert fields["SPACECRAFT_ID"] == "LANDSAT_8"
    assert fields["REFLECTANCE_MULT_BAND_4"] == 2e-5
    assert fields["LEVEL2_REFLECTANCE_MULT_BAND_4"] == 2.75e-5
    content: dict[str, dict[str, str]] = {"LANDSAT_METADATA_FILE": {}}
    group = ""
    for line in MTL.splitlines():
        name, _, value = (part.strip() for part in line.partition("="))
        if name == "GROUP":
            group = value
            content["LANDSAT_METADATA_FILE"].setdefault(group, {})  # type: ignore[arg-type]
        elif value and name != "END_GROUP":
            content["LANDSAT_METADATA_FILE"][group][name] = value.strip('"')  # type: ignore[index]
    path = tmp_path / "MTL.json"
    path.write_text(json.dumps(content))
    assert remote.read_mtl(path) == fields
    root = ElementTree.Element("LANDSAT_METADATA_FILE")
    for group, entries in content["LANDSAT_METADATA_FILE"].items():
        below = ElementTree.SubElement(root, group) if entries else root
        for name, value in entries.items():  # type: ignore[attr-defined]
            ElementTree.SubElement(below, name).text = value
    ElementTree.ElementTree(root).write(tmp_path / "MTL.xml", encoding="UTF-8", xml_declaration=True)
    assert remote.read_mtl(tmp_path / "MTL.xml") == fields


def test_landsat_makes_a_step_that_needs_the_file_no_more(mtl: Path) -> None:
    step = remote.landsat(mtl, [4, 5])
    mtl.unlink()
    again = sg.step_from_json(step.to_json())
    dn = np.full((2, 1, 1), 30000, np.uint16)
    np.testing.assert_allclose(again(dn), 1.0, rtol=1e-6)  # (0.6 - 0.1) / sin 30 degrees
    assert step.name == "remote.toa_reflectance"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: remote.radiance(0.0), "gain=0.0 must not be 0"),
        (lambda: remote.radiance([1.0, 2.0], [1.0, 2.0, 3.0]), "gain has 2 numbers and offset 3"),
        (lambda: remote.toa_reflectance(1.0, 0.0, 0.0), "sun_elevation=0.0 must be above 0"),
        (lambda: remote.sentinel2("new"), "baseline='new' is no processing baseline"),
        (lambda: remote.sentinel2("04.00", 0), "quantification=0.0 must be finite and above 0"),
        (lambda: remote.brightness_temperature(-1.0, 2.0), "k1=-1.0 must be finite and above 0"),
        (lambda: remote.brightness_temperature(1.0, 2.0)(np.array([0.0, 1.0])), "1 of 2 radiances .* nodata"),
        (lambda: remote.decibel(floor=0.0), "floor=0.0 must be above 0"),
        (lambda: remote.decibel()(np.array([0.0, np.nan, 1.0])), "1 of 3 values .* give floor="),
        (lambda: remote.landsat({}, 4), "no field REFLECTANCE_MULT_BAND_4"),
        (lambda: remote.landsat({}, 4, "colour"), "quantity='colour' must be"),
        (lambda: remote.qa_mask("fog"), "landsat has no flag 'fog'"),
        (lambda: remote.qa_mask("cloud", sensor="goes"), "sensor='goes' must be one of"),
        (lambda: remote.qa_mask("cloud", levels={"snow": 1}), "levels has 'snow'"),
        (lambda: remote.qa_mask("cloud_confidence", levels={"cloud_confidence": 4}), "must be from 1 to 3"),
        (lambda: remote.qa_mask([]), "give a flag"),
        (lambda: remote.qa_mask(64), "bit 64 must be from 0 to 63"),
        (lambda: remote.qa_mask(3)(np.array([0.5])), "whole numbers"),
        (lambda: remote.qa_mask(3)(np.array([-1])), "the value -1 is below 0"),
        (lambda: remote.class_mask("fog"), "has no class 'fog'"),
        (lambda: remote.index("NDXI", ["red"]), "no index 'NDXI'"),
        (lambda: remote.index("NDVI", ["red", "green"]), "NDVI needs 'nir'"),
        (lambda: remote.index("NDVI", ["red", "nir", "red"]), "names a band twice"),
        (lambda: remote.index("NDVI", ["red", "nir"])(np.zeros((3, 4, 4))), "2 bands"),
        (lambda: remote.index("NDVI", ["red", "nir"])(np.zeros((2, 2))), "2 bands"),
    ],
)
def test_errors(call: object, message: str) -> None:
    with pytest.raises(StepError, match=message):
        call()  # type: ignore[operator]


def test_mtl_errors(tmp_path: Path) -> None:
    with pytest.raises(OpenError, match="cannot be read"):
        remote.read_mtl(tmp_path / "none.txt")
    empty = tmp_path / "MTL.txt"
    empty.write_text("hello")
    with pytest.raises(OpenError, match="holds no lines"):
        remote.read_mtl(empty)
    for text in ('{"LANDSAT_METADATA_FILE": ', "<LANDSAT_METADATA_FILE><IMAGE_ATTR"):
        empty.write_text(text)
        with pytest.raises(OpenError, match=r"MTL.txt is damaged \(.*\); fetch it anew"):
            remote.read_mtl(empty)


# -- masks ----------------------------------------------------------------------------------------------

# Values of QA_PIXEL with their meaning: USGS LSDS-1619, table 6-3.
PUBLISHED = {
    1: {"fill"},
    21824: {"clear"},
    21762: {"dilated_cloud"},
    21890: {"dilated_cloud", "water"},
    21952: {"clear", "water"},
    22080: {"clear"},  # with medium confidence of cloud
    22280: {"cloud", "cloud_confidence"},
    23888: {"clear", "cloud_shadow", "cloud_shadow_confidence"},
    24344: {"cloud", "cloud_confidence", "cloud_shadow", "cloud_shadow_confidence"},
    30048: {"clear", "snow", "snow_confidence"},
    54596: {"clear", "cirrus", "cirrus_confidence"},
}


@pytest.mark.parametrize("flag", sorted(remote.QA["landsat"]))
@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_published_values_of_landsat_qa(flag: str, dtype: type) -> None:
    found = remote.qa_mask(flag)(np.array(list(PUBLISHED), dtype))
    assert found.tolist() == [float(flag in meaning) for meaning in PUBLISHED.values()]


# Values of BQA with their meaning: USGS, Landsat Collection 1 Level 1 quality assessment band, Landsat 8.
PUBLISHED_C1 = {
    1: {"fill"},
    2: {"terrain_occlusion"},
    2720: set[str](),  # clear terrain, low confidences
    2722: {"terrain_occlusion"},
    2724: {"saturated"},
    2732: {"saturated"},
    2752: set[str](),  # medium confidence of cloud
    2800: {"cloud", "cloud_confidence"},
    2976: {"cloud_shadow_confidence"},
    3744: {"snow_confidence"},
    6816: {"cirrus_confidence"},
    6896: {"cloud", "cloud_confidence", "cirrus_confidence"},
    7072: {"cirrus_confidence", "cloud_shadow_confidence"},
}
# Values of pixel_qa with their meaning: USGS, Landsat 8 Collection 1 LaSRC Product Guide, section 6.
PUBLISHED_C1_SR = {
    1: {"fill"},
    322: {"clear"},
    324: {"water"},
    328: {"cloud_shadow"},
    336: {"snow"},
    352: {"cloud"},
    368: {"cloud", "snow"},
    386: {"clear"},
    480: {"cloud", "cloud_confidence"},
    834: {"clear", "cirrus_confidence"},
    992: {"cloud", "cloud_confidence", "cirrus_confidence"},
    1346: {"clear", "terrain_occlusion"},
}


@pytest.mark.parametrize(
    ("sensor", "published"), [("landsat_c1", PUBLISHED_C1), ("landsat_c1_sr", PUBLISHED_C1_SR)]
)
def test_published_values_of_landsat_collection_1(sensor: str, published: dict[int, set[str]]) -> None:
    assert set.union(*published.values()) == set(remote.QA[sensor])
    for flag in remote.QA[sensor]:
        found = remote.qa_mask(flag, sensor)(np.array(list(published), np.uint16))
        assert found.tolist() == [float(flag in meaning) for meaning in published.values()], flag


def test_levels_of_a_confidence() -> None:
    medium = np.array([22080], np.uint16)  # medium confidence of cloud
    assert remote.qa_mask("cloud_confidence")(medium) == 0
    assert remote.qa_mask("cloud_confidence", levels={"cloud_confidence": 2})(medium) == 1


def test_modis_cloud_state_3_is_assumed_clear() -> None:
    assert remote.qa_mask("cloud", sensor="modis_state")(np.arange(4)).tolist() == [0, 1, 1, 0]


def test_scl_names() -> None:
    cloudy = remote.class_mask(["cloud_shadow", "cloud_medium", "cloud_high", "cirrus"])
    assert np.flatnonzero(cloudy(np.arange(12, dtype=np.uint8))).tolist() == [3, 8, 9, 10]


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5), (2, 3, 4, 5)])
def test_masked_holds_for_all_bands(shape: tuple[int, ...]) -> None:
    mask = np.zeros(shape[:1] + shape[-2:] if len(shape) == 4 else shape[-2:], np.uint8)
    mask[..., 1, 2] = 1
    sample = {"image": np.ones(shape, np.uint16), "cloud": mask}
    found = remote.masked("image", "cloud")(sample)["image"]
    assert found.dtype == np.float32
    assert np.isnan(found[..., 1, 2]).all()
    assert np.isnan(found).sum() == found[..., 1, 2].size
    assert remote.masked("image", "cloud", value=0)(sample)["image"].dtype == np.uint16


def test_masked_errors() -> None:
    with pytest.raises(MissingKeyError, match="no key 'cloud'"):
        remote.masked("image", "cloud")({"image": np.ones((2, 2))})
    with pytest.raises(StepError, match="does not fit"):
        remote.masked("image", "cloud")({"image": np.ones((2, 2)), "cloud": np.ones((3, 3))})


# -- indices --------------------------------------------------------------------------------------------

BANDS = ("blue", "green", "red", "rededge", "nir", "swir1", "swir2")
VALUES = dict(zip(BANDS, (0.04, 0.08, 0.06, 0.15, 0.40, 0.20, 0.10)))


def formula(text: str) -> float:
    """The value of a formula of the table, read as text."""
    import re

    code = text.replace("^", "**").replace("sqrt", "np.sqrt")
    code = re.sub(r"(\d)\s+(?=[a-z(])", r"\1 * ", code)
    return float(eval(code, {"np": np, **VALUES}))


@pytest.mark.parametrize("name", sorted(remote.INDICES))
def test_index_is_its_formula(name: str) -> None:
    x = np.array(list(VALUES.values())).reshape(-1, 1, 1)
    assert remote.index(name, BANDS)(x).item() == pytest.approx(
        formula(remote.INDICES[name].formula), rel=1e-12
    )


def test_published_index_values() -> None:
    # NDVI of healthy and of stressed plants: NASA Earth Observatory, Measuring Vegetation (0.50, 0.08; 0.4, 0.30)
    x = np.array([[[0.08, 0.30]], [[0.50, 0.40]]])
    np.testing.assert_allclose(remote.index("NDVI", ["red", "nir"])(x), [[0.72, 0.14]], atol=5e-3)


def test_zero_over_zero_is_nan_without_a_warning() -> None:
    with np.errstate(all="raise"):
        assert np.isnan(remote.index("NDVI", ["red", "nir"])(np.zeros((2, 1, 1)))).all()


# -- resolutions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_bilinear_against_scipy(factor: int) -> None:
    from scipy.ndimage import map_coordinates

    x = np.random.default_rng(factor).random((7, 9))
    places = [(np.arange(n * factor) + 0.5) / factor - 0.5 for n in x.shape]
    expected = map_coordinates(x, np.meshgrid(*places, indexing="ij"), order=1, mode="nearest")
    np.testing.assert_allclose(remote.upsample(factor, "bilinear")(x), expected, rtol=1e-12)


def test_downsample_against_rasterio(samples: Path) -> None:
    from rasterio.warp import Resampling, reproject

    path = samples / LANDSAT.format(2)
    chain = (
        sg.files([path], key="image")
        .key_transform("image", sg.open_geotiff(bands=1))
        .key_transform("image", remote.downsample(2))
        .key_transform("image", sg.patch(128, stride=128))
    )
    assert "not pushed down" not in chain.explain()
    (scene,) = chain.batch(8).predict(np.asarray, key="image", inverse=[])
    with rasterio.open(path) as file:
        expected = np.zeros((file.height // 2, file.width // 2), np.float32)
        grid = {"src_crs": file.crs, "dst_crs": file.crs, "src_transform": file.transform}
        coarse = file.transform @ rasterio.Affine.scale(2)
        values = file.read(1).astype(np.float32)
    reproject(values, expected, dst_transform=coarse, resampling=Resampling.average, **grid)
    np.testing.assert_allclose(scene.array, expected, rtol=1e-6, atol=1e-3)
    assert scene.grid.affine == pytest.approx(coarse[:6])


def test_two_resolutions_share_patches_and_are_sharpened(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    coarse = rng.integers(100, 200, (3, 40, 48)).astype(np.uint16)
    fine = rng.integers(100, 200, (1, 80, 96)).astype(np.uint16)
    paths = {
        "ms": str(write_scene(tmp_path / "ms.tif", coarse)),
        "pan": str(write_scene(tmp_path / "pan.tif", fine, transform=from_origin(500000, 4100000, 15, 15))),
    }
    chain = (
        sg.buffer_from_vector([paths])
        .key_transform("ms", sg.open_geotiff())
        .key_transform("pan", sg.open_geotiff(bands=1))
        .key_transform("ms", remote.upsample(2))
        .key_transform(("ms", "pan"), sg.patch(32))
        .sample_transform(remote.pansharpened("ms", "pan"), keys=["ms"])
    )
    (scene,) = chain.batch(4).predict(np.asarray, key="ms", inverse=[])
    bands = coarse.repeat(2, 1).repeat(2, 2).astype(float)
    np.testing.assert_allclose(scene.array, bands * fine / bands.mean(0), rtol=1e-5)
    np.testing.assert_allclose(scene.array.mean(0), fine[0], rtol=1e-5)
    assert scene.grid.affine[0] == 15


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: remote.upsample(0), "factor=0 must be a whole number"),
        (lambda: remote.upsample(2, "cubic"), "method='cubic' must be"),
        (lambda: remote.downsample(2.5), "factor=2.5 must be a whole number"),
        (lambda: remote.downsample(2, valid=2), "valid=2 must be a share"),
        (lambda: remote.pansharpen(method="magic"), "method='magic' must be"),
        (lambda: remote.pansharpen(pan=4)(np.ones((3, 2, 2))), "pan=4, but the array has shape"),
        (lambda: remote.pansharpened("a", "b")({"a": np.ones((2, 2, 2)), "b": np.ones((4, 4))}), "one grid"),
    ],
)
def test_errors_of_resolutions(call: object, message: str) -> None:
    with pytest.raises(StepError, match=message):
        call()  # type: ignore[operator]


# -- in chains ------------------------------------------------------------------------------------------


def write_scene(path: Path, values: np.ndarray, **options: object) -> Path:
    profile = {
        "driver": "GTiff", "count": len(values), "height": values.shape[1], "width": values.shape[2],
        "dtype": values.dtype, "crs": "EPSG:32633", "transform": from_origin(500000, 4100000, 30, 30),
        "tiled": True, "blockxsize": 32, "blockysize": 32, **options,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(values)
    return path


def test_ndvi_as_a_new_key_lies_on_the_map(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    dn = rng.integers(7300, 43000, (4, 90, 110)).astype(np.uint16)
    dn[:, :5] = 0
    path = write_scene(tmp_path / "scene.tif", dn)
    chain = (
        sg.files([path], key="image")
        .key_transform("image", sg.open_geotiff())
        .key_transform("image", remote.nodata(0))
        .key_transform("image", remote.reflectance(2.75e-5, -0.2))
        .key_transform("image", remote.index("NDVI", bands=["blue", "green", "red", "nir"]), "ndvi")
        .key_transform(("image", "ndvi"), sg.patch(32, stride=24))
    )
    assert "pushed down" in chain.explain()
    assert "not pushed down" not in chain.explain()
    (scene,) = chain.batch(4).prefetch(2, 2).predict(np.asarray, key="ndvi", inverse=[])
    with rasterio.open(scene.save(tmp_path / "out.tif")) as out, rasterio.open(path) as source:
        assert (out.count, out.crs, out.transform) == (1, source.crs, source.transform)
        found = out.read(1)
    reflectance = np.where(dn == 0, np.nan, dn) * 2.75e-5 - 0.2
    expected = (reflectance[3] - reflectance[2]) / (reflectance[3] + reflectance[2])
    np.testing.assert_allclose(found, expected, rtol=3e-4, atol=1e-5)


def test_digital_numbers_come_back_exactly(tmp_path: Path) -> None:
    dn = np.random.default_rng(1).integers(0, 20000, (3, 70, 64)).astype(np.uint16)
    path = write_scene(tmp_path / "s2.tif", dn)
    chain = (
        sg.files([path], key="image")
        .key_transform("image", sg.open_geotiff())
        .key_transform("image", remote.nodata(0))
        .key_transform("image", remote.sentinel2("04.00"))
        .key_transform("image", sg.patch(32, stride=32))
    )
    (scene,) = chain.batch(3).predict(np.asarray, key="image")
    np.testing.assert_allclose(scene.array, dn, atol=2e-3)


def test_cloud_mask_as_a_key(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    image = write_scene(tmp_path / "image.tif", rng.integers(1, 9, (2, 64, 64)).astype(np.uint16))
    flags = rng.choice(np.array([21824, 22280, 23888], np.uint16), (1, 64, 64))
    quality = write_scene(tmp_path / "qa.tif", flags)
    chain = (
        sg.buffer_from_vector([{"image": str(image), "qa": str(quality)}])
        .key_transform("image", sg.open_geotiff())
        .key_transform("qa", sg.open_geotiff(bands=1))
        .key_transform("qa", remote.qa_mask(["cloud", "cloud_shadow"]), "cloud")
        .key_transform(("image", "cloud"), sg.patch(32))
        .sample_transform(remote.masked("image", "cloud"), keys=())
    )
    (scene,) = chain.batch(2).predict(np.asarray, key="image")
    np.testing.assert_array_equal(np.isnan(scene.array), np.broadcast_to(flags != 21824, (2, 64, 64)))


# -- real files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("band", [2, 3, 4])
def test_landsat_8_against_rasterio(samples: Path, band: int) -> None:
    path = samples / LANDSAT.format(band)
    step = remote.toa_reflectance(2e-5, -0.1, sun_elevation=37.0)
    chain = (
        sg.files([path], key="image")
        .key_transform("image", sg.open_geotiff(bands=1))
        .key_transform("image", step)
        .key_transform("image", sg.patch(256, stride=256))
    )
    (scene,) = chain.batch(8).predict(np.asarray, key="image", inverse=[])
    with rasterio.open(path) as file:
        dn = file.read(1).astype(np.float64)
    np.testing.assert_allclose(
        scene.array, (2e-5 * dn - 0.1) / np.sin(np.radians(37.0)), rtol=1e-5, atol=1e-6
    )


def test_radar_in_decibel_against_rasterio(samples: Path) -> None:
    path = samples / "remote_sensing/cog_nodata_nan.tif"  # Sentinel-1 gamma0
    scene = sg.open_geotiff(bands=1)(path)
    found = remote.decibel(floor=1e-5)(scene.array)
    with rasterio.open(path) as file:
        power = file.read(1, masked=True).filled(np.nan)
    np.testing.assert_allclose(found, 10 * np.log10(np.maximum(power, 1e-5)), rtol=1e-5, atol=1e-5)
    assert np.nanmedian(found) < 0


def test_bands_of_a_sample_may_be_paths(tmp_path: Path) -> None:
    files = made.landsat(tmp_path, shape=(40, 50))
    bands = [files["B4"], files["B5"]]
    found = [
        sg.buffer_from_vector([{"image": given}]).key_transform("image", sg.open_geotiff())[0]["image"]
        for given in (bands, [str(path) for path in bands], tuple(bands))
    ]
    assert found[0].shape == (2, 40, 50)
    np.testing.assert_array_equal(*found[:2])
    np.testing.assert_array_equal(*found[1:])
    alone = sg.buffer_from_vector([{"image": bands[0]}])
    np.testing.assert_array_equal(
        alone.key_transform("image", sg.open_geotiff(bands=1))[0]["image"], found[0][0]
    )
