"""GeoTIFF: what can be asked of the file beside its content, and overviews and COG layout of a finished one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from streamgeo.errors import WriteError

TILE = 256
CACHE = 64  # MB that GDAL may keep of what it reads and writes; by default it takes a twentieth of all memory
PREDICTED = ("deflate", "zstd", "lzw")  # compressions that code differences of neighbours
_COMPRESSIONS = (*PREDICTED, "packbits", "lzma", "none")


class Options(NamedTuple):
    """See :func:`streamgeo.sinks.geotiff.write`."""

    compress: str
    blocksize: int | None
    overviews: bool | Sequence[int] | None
    cog: bool
    sparse: bool

    def check(self) -> None:
        """Raise a WriteError for a value that no GeoTIFF can have."""
        if self.compress not in _COMPRESSIONS:
            raise WriteError(f"save: compress={self.compress!r} is none of {', '.join(_COMPRESSIONS)}")
        if self.blocksize is not None and not (
            isinstance(self.blocksize, int) and self.blocksize > 0 and self.blocksize % 16 == 0
        ):
            raise WriteError(f"save: blocksize={self.blocksize!r} must be a positive multiple of 16")
        given = [] if isinstance(self.overviews, bool) or self.overviews is None else self.overviews
        if not isinstance(given, Sequence) or not all(isinstance(one, int) and one > 1 for one in given):
            raise WriteError(
                f"save: overviews={self.overviews!r} must be True, False or whole factors above 1, as in (2, 4, 8)"
            )


def finish(plain: Path, path: Path, options: Options, *, averaged: bool) -> None:
    """Add overviews to a finished GeoTIFF; for a COG, copy it to ``path`` in that layout."""
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.shutil import copy

    resampling = Resampling.average if averaged else Resampling.nearest
    listed = options.overviews if isinstance(options.overviews, Sequence) else ()
    with rasterio.Env(GDAL_CACHEMAX=CACHE, GDAL_TIFF_OVR_BLOCKSIZE=options.blocksize or TILE):
        if listed or (options.overviews is True and not options.cog):
            with rasterio.open(plain, "r+") as dst:
                factors = list(listed) or _halvings(max(dst.shape), options.blocksize or TILE)
                if factors:
                    dst.build_overviews(factors, resampling)
        if options.cog:
            copy(
                plain,
                path,
                driver="COG",
                COMPRESS=options.compress,
                BLOCKSIZE=options.blocksize or 2 * TILE,
                BIGTIFF="IF_SAFER",
                OVERVIEWS="NONE" if options.overviews is False else "AUTO",
                OVERVIEW_RESAMPLING=resampling.name,
                **({"PREDICTOR": "YES"} if options.compress in PREDICTED else {}),
                **({"SPARSE_OK": True} if options.sparse else {}),
            )
            plain.unlink()


def _halvings(size: int, tile: int) -> list[int]:
    """Factors 2, 4, 8, ... until what is left is no larger than a tile."""
    return [2**i for i in range(1, size.bit_length() + 1) if size > tile * 2 ** (i - 1)]
