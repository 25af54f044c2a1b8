"""Style, types, rooms and the cost of the import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "streamgeo"
HEAVY = (
    "astropy",
    "sunpy",
    "rasterio",
    "netCDF4",
    "h5py",
    "odc",
    "pyproj",
    "mlx",
    "matplotlib",
    "xarray",
    "scipy",
)

# Imports go only towards the start of this list; modules of one room may not import each other, except that
# a package's parts may import what stands in brackets before them.
ROOMS = [
    ["errors"], ["gate"], ["headers"], ["kernels", "slots"], ["unpacking"],
    ["window", "cf_packing", "names", "netcdf_lock", "optional"], ["locate"], ["fits_cards", "fits_packing"],
    ["grid"], ["template", "parameters", "digest", "dataarrays", "convert"], ["meter", "naming"],
    ["chunks", "order"], ["spill"], ["chunked"], ["together"], ["step"], ["pointwise"],
    ["sinks.pixels"], ["sinks.numbers", "sinks.beside", "sinks.located", "sinks.flat", "sinks.geotiff_options",
     "sinks.fits_rice"],
    ["sinks.geotiff_values"], ["sinks.regular", "sinks.grouped"],
    ["sinks.fits", "sinks.geotiff", "sinks.netcdf", "sinks.hdf5", "sinks.numpy", "sinks.zarr"], ["sinks"],
    ["scene"], ["sources.handles", "sources.cf", "sources.fits_headers", "sources.fits_codecs", "sources.tiff_headers",
     "sources.hdf5_trees"],
    ["sources.layouts", "sources.grid_mapping", "sources.fits_images", "sources.choosing"], ["sources.fits_tiles"],
    ["sources.classic", "sources.hdf5_filters", "sources.hdf5_heaps", "sources.hdf5_objects", "sources.geotiff_chunks"],
    ["sources.hdf5_chunks", "sources.hdf5_messages", "sources.geotiff_headers"],
    ["sources.hdf5_index", "sources.hdf5_headers"], ["sources.netcdf_headers", "sources.grouped"],
    ["sources.fits", "sources.geotiff", "sources.netcdf", "sources.hdf5", "sources.numpy", "sources.zarr",
     "sources.stack"],
    ["steps.stitch"],
    ["steps.normalize", "steps.stretch", "steps.gaps", "steps.geometry", "steps.cast", "steps.patch"],
    ["steps.augment"],
    ["helio", "remote", "climate"], ["openers"], ["catalog", "indexing"],
    ["engine.pace", "engine.tickets"], ["engine.board", "engine.mlx", "engine.patience"], ["unread"],
    ["plan", "engine"],
    ["core", "features", "tokenizer_helpers"], ["links"], ["wayback", "replay"], ["rows", "answers"],
    ["stitcher", "tta"], ["state", "stats", "journal"], ["progress"], ["outline"],
    ["running", "predict", "explain", "inverse"], ["vocabulary.base"],
    ["vocabulary.array_kernels"], ["vocabulary.image_kernels", "vocabulary.file_kernels"],
    ["vocabulary"], ["chain"], ["begin"], ["convert_xarray", "convert_maps"], [""],
    ["plot", "made"], ["demo"], ["cli"],
]  # fmt: skip
RANK = {name: rank for rank, room in enumerate(ROOMS) for name in room}


def run(*command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_check() -> None:
    run("ruff", "check", ".")


def test_ruff_format() -> None:
    run("ruff", "format", "--check", ".")


def test_mypy_strict() -> None:
    run("mypy")


def rank(module: str) -> int:
    """Rank of a dotted module below streamgeo, by its longest known prefix."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if (name := ".".join(parts[:length])) in RANK:
            return RANK[name]
    pytest.fail(f"streamgeo.{module} stands in no room: add it to ROOMS where it belongs")


def imports(path: Path) -> list[tuple[str, int]]:
    """Modules below streamgeo that a file imports, at its top or inside a function, with the line."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "streamgeo":
            base = node.module.partition(".")[2]
            for alias in node.names:
                inner = PACKAGE / base.replace(".", "/") / alias.name
                is_module = inner.is_dir() or inner.with_suffix(".py").exists()
                name = ".".join(part for part in (base, alias.name if is_module else "") if part)
                found.append((name, node.lineno))
        elif isinstance(node, ast.Import):
            found += [
                (a.name.partition(".")[2], node.lineno) for a in node.names if a.name.startswith("streamgeo")
            ]
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_leftwards(path: Path) -> None:
    module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")
    if module in ("", "steps", "sources", "__main__"):
        return
    package = module.split(".")[0]
    for name, line in imports(path):
        same_package = package == name.split(".")[0] and package in ("links", "helio", "remote", "climate")
        if not same_package:
            assert rank(name) < rank(module), (
                f"{path.name}:{line}: {module} must not import {name or 'streamgeo'}"
            )


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 460


def test_import_loads_nothing_heavy() -> None:
    code = f"import sys, streamgeo; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
