"""What the tests of FITS share: reading with astropy, making files, and views of a grid."""

from __future__ import annotations

import warnings

import numpy as np
from astropy.io import fits

from streamgeo.window import Window


def astropy_data(path, hdu, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(path, memmap=False, **options) as hdus:
            data = np.array(hdus[hdu].data)
            return data.astype(data.dtype.newbyteorder("="))


def astropy_header(path, hdu):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(path) as hdus:
            hdus[hdu].verify("silentfix+ignore")
            return hdus[hdu].header.copy()


def windows(scene, count, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        cuts = [np.sort(rng.integers(0, size + 1, 2)) for size in scene.shape]
        yield Window({dim: (int(lo), int(hi)) for dim, (lo, hi) in zip(scene.dims, cuts)})


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def write_fits(path, *hdus):
    fits.HDUList(list(hdus)).writeto(path)
    return str(path)


def ramp(*shape, dtype="f4"):
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


def make(path, array, bscale=1, bzero=0, blank=None, compression=None, tile=None):
    """A file with one image, in HDU 1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if compression:
            hdu = fits.CompImageHDU(array, compression_type=compression, tile_shape=tile)
        else:
            hdu = fits.ImageHDU(array)
        for keyword, value, default in (("BSCALE", bscale, 1), ("BZERO", bzero, 0), ("BLANK", blank, None)):
            if value != default:
                hdu.header[keyword] = value
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, overwrite=True)
    return path


def odd_file(path, cards, data=None):
    data = ramp(4, 5, dtype=">i2") if data is None else data
    head = [
        "SIMPLE  =                    T",
        f"BITPIX  = {data.itemsize * 8:20d}",
        "NAXIS   =                    2",
    ]
    head += [f"NAXIS{i + 1}  = {n:20d}" for i, n in enumerate(reversed(data.shape))]
    text = b"".join(card.ljust(80)[:80].encode("latin1") for card in [*head, *cards, "END"])
    body = data.tobytes()
    path.write_bytes(text + b" " * (-len(text) % 2880) + body + bytes(-len(body) % 2880))
    return str(path)


VIEWS = {
    "crop": lambda g: g.crop(Window(y=(5, 37), x=(3, 30))),
    "pad": lambda g: g.pad(y=(3, 4), x=(7, 0)),
    "coarsen": lambda g: g.coarsen(y=2, x=2),
    "refine": lambda g: g.coarsen(y=0.5, x=0.5),
    "unequal": lambda g: g.crop(Window(y=(4, 32), x=(2, 32))).coarsen(y=2, x=3),
    "flip_x": lambda g: g.flip("x"),
    "flip_y": lambda g: g.crop(Window(y=(0, 21))).flip("y"),
    "all": lambda g: g.flip("y").crop(Window(y=(1, 31), x=(-5, 25))).coarsen(y=3, x=0.5).flip("x"),
}


def check_view(old, new, grid):
    """World coordinates of the new file's pixels are those of the pixels of the old file that they cover."""
    axes = [grid.axes[-1 - i] for i in range(old.naxis)]
    points = np.array([[0.0, a.size - 1, (a.size - 1) / 2, 0.25] for a in axes])
    there = [a.centres(p) for a, p in zip(axes, points)]
    expected = np.array(old.all_pix2world(*there, 0))
    assert np.allclose(np.array(new.all_pix2world(*points, 0)), expected, rtol=1e-13, atol=1e-13)


def assert_agree(one, other, grid):
    points = np.array([[0.0, axis.size - 1, (axis.size - 1) / 2] for axis in reversed(grid.axes)])
    back = np.array(other.wcs_world2pix(*one.wcs_pix2world(*points, 0), 0))
    scale = np.array([[abs(axis.centres(0).item()) + 1000] for axis in reversed(grid.axes)])
    assert np.all(np.abs(back - points) <= 1e-9 + 1e-12 * scale)
    assert np.allclose(one.wcs.crpix, other.wcs.crpix, rtol=0, atol=1e-9)
    assert np.allclose(one.pixel_scale_matrix, other.pixel_scale_matrix, rtol=1e-13, atol=0)
