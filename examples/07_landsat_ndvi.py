"""Landsat level 1 to NDVI: digital numbers, metadata and quality bits in, a map that a model predicted out.

The scene is made here, laid out as USGS delivers it: one file a band, QA_PIXEL, and an MTL file. It has clouds, and
0 where there are no data, which the files do not declare.
"""

from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

import streamgeo as sg
from streamgeo import remote
from streamgeo.made import smooth

SCENE, SHAPE, BANDS = Path("scenes/landsat"), (420, 510), {2: "blue", 3: "green", 4: "red", 5: "nir"}
MTL = SCENE / "LC09_MTL.txt"


def make_scene() -> None:
    """Reflectances of fields and forest, stored as Landsat does: DN = (reflectance sin(elevation) + 0.1) / 2e-5."""
    rng, elevation = np.random.default_rng(7), 48.2
    plants, light, clouds = (smooth(rng, SHAPE, scale) for scale in (14, 30, 22))
    SCENE.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint16", "height": SHAPE[0], "width": SHAPE[1],
               "crs": "EPSG:32621", "transform": from_origin(723885.0, -2718285.0, 30.0, 30.0), "tiled": True,
               "blockxsize": 256, "blockysize": 256, "compress": "deflate"}  # fmt: skip
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    files = {"QA_PIXEL": np.where(clouds > 1.3, 22280, 21824)}  # high confidence of cloud; clear
    for band, (base, slope) in zip(BANDS, ((0.05, -0.005), (0.08, -0.005), (0.10, -0.025), (0.25, 0.07))):
        reflectance = base + slope * plants + 0.008 * light + 0.003 * rng.standard_normal(SHAPE)
        numbers = (np.where(clouds > 1.3, 0.6, reflectance) * np.sin(np.radians(elevation)) + 0.1) / 2e-5
        files[f"B{band}"] = np.where(rows + 0.2 * columns < 40, 0, np.round(numbers))
    for name, values in files.items():
        with rasterio.open(f"{SCENE}/LC09_{name}.TIF", "w", **profile) as file:
            file.write(values.astype(np.uint16), 1)
    factors = [f"REFLECTANCE_{k}_BAND_{b} = {n}" for b in BANDS for k, n in (("MULT", 2e-5), ("ADD", -0.1))]
    MTL.write_text("\n".join([f"SUN_ELEVATION = {elevation}", *factors, "END"]))


make_scene()
files = {"image": [f"{SCENE}/LC09_B{band}.TIF" for band in BANDS], "quality": f"{SCENE}/LC09_QA_PIXEL.TIF"}
chain = (
    sg.buffer_from_vector([files])
    .key_transform("image", sg.open_geotiff())  # four files are one scene (band, y, x)
    .key_transform("quality", sg.open_geotiff(bands=1))
    .key_transform("image", remote.nodata(0))
    .key_transform("image", remote.landsat(MTL, list(BANDS), "reflectance"))
    .key_transform("image", remote.index("NDVI", bands=list(BANDS.values())), "ndvi")
    .key_transform("quality", remote.qa_mask(["cloud", "cloud_shadow", "dilated_cloud"]), "cloud")
    .key_transform(("image", "ndvi", "cloud"), sg.patch(size=128, stride=96))
    .sample_transform(remote.masked("ndvi", "cloud"), keys=["ndvi"])
)
print(chain.explain())

# training: NDVI from the bands, a linear fit by normal equations, on clear pixels only
left, right = np.zeros((5, 5)), np.zeros(5)
for batch in chain.shuffle(seed=0).batch(6).prefetch(4, 2):
    known = np.isfinite(batch["ndvi"])
    x = np.vstack([np.moveaxis(batch["image"], 1, 0)[:, known], np.ones(int(known.sum()))]).astype(np.float64)
    left, right = left + x @ x.T, right + x @ batch["ndvi"][known]
weights = np.linalg.solve(left, right)


def model(x: np.ndarray) -> np.ndarray:
    """(n, 4, H, W) reflectances to (n, H, W) NDVI."""
    return np.tensordot(x, weights[:4], axes=(1, 0)) + weights[4]


# inference: the prediction is another quantity than the bands, so nothing is undone but the patches: inverse=[]
for scene in chain.batch(6).prefetch(4, 2).predict(model, key="image", inverse=[]):
    path = scene.save("out/ndvi.tif")
    clear = chain.scene("cloud").array == 0
    off = np.nanmean(np.abs(scene.array - chain.scene("ndvi").array)[clear])
    print(f"{path}: {scene.grid.crs.to_string()}, {scene.grid.bounds}")
    print(f"mean difference from NDVI itself, without clouds ({1 - clear.mean():.0%}): {off:.4f}")
