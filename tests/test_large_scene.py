"""A scene of 60,000 x 60,000 pixels: predicted within 1 GB, killed half-way, and taken up where it was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

import streamgeo as sg

SIZE = 60_000
KNOWN = [(0, 0), (17_000, 31_000), (29_900, 59_000), (45_123, 7_777), (59_000, 59_000)]

SCRIPT = """
import resource, sys
import streamgeo as sg

sg.config(cache_bytes=128 << 20)
chain = (
    sg.files(sys.argv[1], key="image").key_transform("image", sg.open_geotiff())
    .key_transform("image", sg.normalize(mean=100.0, std=10.0)).key_transform("image", sg.patch(512))
)
count = 0

def model(x):
    global count
    count += len(x)
    if count >= int(sys.argv[3]):
        print("there", flush=True)
        sys.stdin.read()
    return x

for scene in chain.batch(16).prefetch(4, 2).predict(model, to=sys.argv[2], sparse=True):
    pass
print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> (10 if sys.platform == "linux" else 20))
"""


def make(path: Path) -> None:
    rng = np.random.default_rng(0)
    profile = dict(driver="GTiff", count=1, width=SIZE, height=SIZE, dtype="float32", nodata=-9999.0)
    layout = dict(
        tiled=True, blockxsize=512, blockysize=512, compress="deflate", SPARSE_OK=True, BIGTIFF="YES"
    )
    place = dict(crs="EPSG:32633", transform=from_origin(400_000.0, 6_000_000.0, 10.0, 10.0))
    with rasterio.open(path, "w", **profile, **layout, **place) as file:
        for y, x in KNOWN:
            block = rng.normal(100, 10, (1, 1000, 1000)).astype(np.float32)
            file.write(block, window=Window(x, y, 1000, 1000))


def start(scene: Path, out: Path, stop: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(sg.__file__).parents[1])}
    command = [sys.executable, "-c", SCRIPT, str(scene), str(out), str(stop)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_in_bounded_memory_and_taken_up(tmp_path: Path) -> None:
    scene, out = tmp_path / "scene.tif", tmp_path / "out"
    make(scene)
    patches = 118 * 118
    child = start(scene, out, patches // 2)
    assert child.stdout is not None and child.stdout.readline() == "there\n"
    child.kill()
    child.wait(60)
    told, _ = start(scene, out, 2 * patches).communicate(timeout=1500)
    count, megabytes = map(int, told.split())
    assert count < 0.55 * patches
    assert megabytes < 1024
    assert [path.name for path in out.iterdir()] == ["scene.tif"]
    with rasterio.open(scene) as before, rasterio.open(out / "scene.tif") as after:
        assert (after.crs, after.transform, after.shape, after.nodata) == (
            before.crs, before.transform, before.shape, before.nodata,
        )  # fmt: skip
        for y, x in KNOWN:
            window = Window(max(0, x - 200), max(0, y - 200), 1400, 1400)
            a, b = (file.read(1, window=window, masked=True) for file in (before, after))
            np.testing.assert_array_equal(a.mask, b.mask)
            np.testing.assert_allclose(a.filled(0), b.filled(0), rtol=1e-6)
