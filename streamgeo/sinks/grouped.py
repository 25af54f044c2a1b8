"""What a NetCDF or HDF5 file of a scene holds: variables, dims, groups and attributes, before any is written.

Everything here is plain arithmetic on names and arrays; no file is touched.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.cf_packing import own_fill
from streamgeo.errors import WriteError
from streamgeo.grid import Axis, Grid
from streamgeo.locate import CoordLocator, GeoLocator, WcsLocator
from streamgeo.names import unique
from streamgeo.sinks.located import Out, Place, geo_place, wcs_attributes
from streamgeo.sinks.numbers import physical, stored
from streamgeo.sinks.pixels import Pixels, Readable
from streamgeo.template import Template

Array = NDArray[Any]
FORMATS = ("netcdf", "hdf5")
_LEVEL = 4
_CRS_ATTRS = ("coordinates", "grid_mapping", "crs", "crs_wkt", "spatial_ref", "proj4", "transform", "res")
_STRUCTURE = re.compile(
    r"^(SIMPLE|BITPIX|NAXIS\d*|EXTEND|XTENSION|[PG]COUNT|GROUPS|BSCALE|BZERO|BLANK|CHECKSUM|DATASUM|WCSAXES.?"
    r"|CRPIX\d.?|CDELT\d.?|CRVAL\d.?|CTYPE\d.?|CUNIT\d.?|CROTA\d|(PC|CD)\d_\d.?|Z(IMAGE|BITPIX|NAXIS\d*|TILE\d+"
    r"|CMPTYPE|NAME\d+|VAL\d+|QUANTIZ|DITHER\d)|)$"
)


@dataclass(frozen=True)
class Dim:
    """A dim of the file: its name there, the group that defines it, its size.

    ``shared`` says that variables refer to it by name; HDF5 has arrays whose dims have none.
    """

    name: str
    group: str
    size: int
    unlimited: bool = False
    shared: bool = True


@dataclass
class Layout:
    """A file: dims by the names that variables use, attributes of groups (the root is ``""``), variables."""

    dims: dict[str, Dim] = field(default_factory=dict)
    groups: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    variables: list[Out] = field(default_factory=list)


def arrange(
    values: Array | Readable,
    grid: Grid,
    template: Template,
    file: str,
    *,
    compress: int | None = None,
    chunks: Sequence[int] | None = None,
) -> Layout:
    """Lay out a file for values of the shape of ``grid``; its data variables are read when they are written.

    A template of NetCDF or HDF5 gives names, groups, attributes, storage, coordinates as stored and grid
    mapping; several variables stacked come apart again unless a model changed their number. From another
    format come units and simple attributes. CRS + affine become coordinate vectors and a grid mapping
    ``spatial_ref``; a WCS its cards as attributes.

    Raises:
        WriteError: when the shape does not fit, there are no pixels, or the format cannot hold the numbers.
    """
    pixels = Pixels.of(values, grid, file)
    if not pixels.size or not pixels.ndim:
        raise WriteError(f"save: {file} would hold no pixels: the shape is {pixels.shape}")
    if pixels.dtype.kind not in "biufc":
        raise WriteError(
            f"save: there is no type for {pixels.dtype} in {file}; cast to float32 or an integer"
        )
    sizes = _sizes(grid.dims, chunks)
    if compress is not None and not (isinstance(compress, int) and 0 <= compress <= 9):
        raise WriteError(f"save: compress={compress!r} is no level; give 0 (none) to 9")
    order = [d for d in grid.dims if d not in template.dims] + [d for d in template.dims if d in grid.dims]
    pixels, grid = pixels.transpose(*order), grid.transpose(*order)
    carry = template.carry if template.format in FORMATS and "paths" in template.carry else {}
    place = _place(grid, carry)
    taken = {out.path for out in place.variables}
    data = [_finish(part, place, template, file) for part in _parts(pixels, grid, template, carry, taken)]
    data = [replace(out, storage={**out.storage, **_asked(out, sizes, compress)}) for out in data]
    layout = Layout(variables=[*data, *place.variables])
    layout.dims = _dims(layout.variables, carry.get("dims", {}))
    layout.groups = _groups(template, carry, grid)
    return layout


# -- storage --------------------------------------------------------------------------------------------


def _sizes(dims: Sequence[str], chunks: Sequence[int] | None) -> dict[str, int]:
    """Sizes of the chunks that are asked for, by dim.

    Raises:
        WriteError: when they are not one positive whole number for each dim.
    """
    if chunks is None:
        return {}
    sizes = list(chunks) if isinstance(chunks, Sequence) else []
    if len(sizes) != len(dims) or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise WriteError(
            f"save: chunks={chunks!r} must be one positive whole number for each of the dims {tuple(dims)}"
        )
    return dict(zip(dims, sizes))


def _asked(out: Out, sizes: Mapping[str, int], compress: int | None) -> dict[str, Any]:
    asked: dict[str, Any] = {} if compress is None else {"level": compress}
    return {**asked, "chunks": tuple(sizes[dim] for dim in out.dims)} if sizes else asked


def level_of(out: Out) -> int:
    """Level of compression: what is asked for, else that of the input, else 4; 0 for scalars and most vectors."""
    kept = out.storage
    if "level" in kept:
        return int(kept["level"])
    if not out.dims or (len(out.dims) == 1 and not kept.get("zlib")):
        return 0
    return int(kept.get("complevel") or _LEVEL)


def declare_fills(path: Path, fills: Mapping[str, Any]) -> None:
    """Give variables of a finished file a ``_FillValue``, which was not known before all numbers were seen."""
    chosen = {name: fill for name, fill in fills.items() if fill is not None}
    if chosen:
        import h5py

        with h5py.File(path, "r+") as file:
            for name, fill in chosen.items():
                file["/" + name].attrs["_FillValue"] = np.array([fill])


# -- data variables -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """A data variable before its numbers are packed; ``known`` when it is one of the template's file."""

    out: Out
    known: bool


def _parts(
    values: Pixels, grid: Grid, template: Template, carry: Mapping[str, Any], taken: set[str]
) -> list[_Part]:
    paths, stack = tuple(carry.get("paths", ())), carry.get("stack", "")
    common = {k: v for k, v in template.attrs.items() if k not in ("global", "variables")}
    if not carry:
        name = _clean(template.name) or "data"
        name = unique(name, [*taken, *grid.dims])
        attrs = {**_simple(template.attrs), **({"units": template.units} if template.units else {})}
        return [_Part(Out(name, grid.dims, values, attrs), False)]
    if not stack:
        path = paths[0]
        if template.name and template.name != path:  # a new name stays in the group of the old one
            path = (
                template.name
                if "/" in template.name
                else posixpath.join(posixpath.dirname(path), template.name)
            )
        attrs = {**common, **({"units": template.units} if template.units else {})}
        storage = {**carry["storage"][paths[0]], "fill": template.nodata}
        return [_Part(Out(path, grid.dims, values, attrs, storage=storage), True)]
    chosen = _chosen(grid, stack, len(paths))
    if chosen is None:
        group = posixpath.dirname(paths[0])
        name = unique(posixpath.join(group, _clean(template.name)), [*taken, *grid.dims])
        attrs = {k: v for k, v in common.items() if k in ("coordinates", "grid_mapping")}
        attrs |= {"units": template.units} if template.units else {}
        return [_Part(Out(name, grid.dims, values, attrs), False)]
    dims = tuple(dim for dim in grid.dims if dim != stack)
    return [
        _Part(
            Out(paths[i], dims, values.take(stack, position), dict(template.attrs["variables"][paths[i]]),
                storage=carry["storage"][paths[i]]),
            True,
        )
        for position, i in enumerate(chosen)
    ]  # fmt: skip


def _chosen(grid: Grid, stack: str, count: int) -> list[int] | None:
    """Which variables of the stack the grid holds; None when they are no longer those of the file."""
    if stack not in grid.dims or not grid.axis(stack).located:
        return None
    axis = grid.axis(stack)
    at = axis.centres(np.arange(axis.size))
    whole = abs(axis.step) == 1 and np.all(at == np.round(at)) and at.min() >= 0 and at.max() < count
    return [int(i) for i in at] if whole else None


def _finish(part: _Part, place: Place, template: Template, file: str) -> Out:
    """Numbers and attributes as the file gets them."""
    out = part.out
    attrs = {k: v for k, v in out.attrs.items() if not (place.replaces and k in _CRS_ATTRS)}
    attrs = {k: v for k, v in ((k, place.pointing(k, v)) for k, v in attrs.items()) if v is not None}
    attrs |= place.attrs
    changed = not part.known or place.unlocated
    assert isinstance(out.values, Pixels)
    pack = stored if template.raw and part.known else physical
    values, attrs, fill = pack(out.values, attrs, out.storage, changed=changed, file=file)
    if template.raw and template.format not in FORMATS and template.nodata is not None:
        declared = own_fill({"_FillValue": template.nodata}, values.dtype)
        fill = fill if declared is None else declared
    return replace(out, values=values, attrs=attrs, fill=fill)


def _clean(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_")


def _simple(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of another format that are text or numbers and do not describe how it lay in its file."""
    out: dict[str, Any] = {}
    for key, value in attrs.items():
        kinds = (str, bool, int, float, np.number, np.bool_)
        plain = isinstance(value, kinds) or (
            isinstance(value, (list, tuple)) and bool(value) and all(isinstance(v, kinds[1:]) for v in value)
        )
        if plain and not _STRUCTURE.match(key) and key not in _CRS_ATTRS:
            out[re.sub(r"[/\s]", "_", key)] = value
    return out


# -- where it lies --------------------------------------------------------------------------------------


def _place(grid: Grid, carry: Mapping[str, Any]) -> Place:
    if isinstance(grid.locator, GeoLocator):
        place = geo_place(grid, grid.locator)
    elif isinstance(grid.locator, WcsLocator):
        place = Place([], wcs_attributes(grid), replaces=bool(carry))
    elif isinstance(grid.locator, CoordLocator):
        place = _coord_place(grid, grid.locator, carry)
    else:
        place = Place([], {}, replaces=bool(carry.get("coords") or carry.get("grid_mapping")))
    return replace(place, unlocated=any(not axis.located for axis in grid.axes))


def _coord_place(grid: Grid, locator: CoordLocator, carry: Mapping[str, Any]) -> Place:
    """Coordinates as the grid has them, each where its file had it, and the grid mapping."""
    paths, storage = carry.get("coords", {}), carry.get("storage", {})
    stack = carry.get("stack", "")
    coords = [c for c in grid.coords if not (stack and c.name == stack and c.dims == (stack,))]
    outs = []
    for coord in coords:
        path = paths.get(coord.name, coord.name)
        kept = storage.get(path, {})
        as_stored = bool(kept) and np.dtype(kept["dtype"]).newbyteorder("=") == coord.raw.dtype
        packing = kept if as_stored else {k: v for k, v in kept.items() if k in ("zlib", "complevel")}
        outs.append(Out(path, coord.dims, np.asarray(coord.raw), dict(coord.attrs), storage=packing))
    lost = {posixpath.basename(p) for p in set(paths.values()) - {out.path for out in outs}}
    place = Place(outs, {}, lost=frozenset(lost), moved=_moved(grid))
    outs[:] = [replace(out, attrs=_pointed(out.attrs, place)) for out in outs]
    mapping = carry.get("grid_mapping")
    if mapping:
        attrs = {k: place.pointing(k, v) for k, v in mapping["attrs"].items()}
        kept = {k: v for k, v in attrs.items() if v is not None}
        outs.append(
            Out(mapping["path"], mapping["dims"], mapping["values"], kept, storage=storage[mapping["path"]])
        )
    elif locator.crs and not carry:
        name = str(locator.crs["name"])
        attrs = {k: v for k, v in locator.crs.items() if k != "name"}
        outs.append(Out(name, (), np.array(0, np.int32), attrs))
        place.attrs["grid_mapping"] = name
    if not carry:
        extra = [
            out.path
            for out in outs
            if out.dims != (out.path,) and out.path != place.attrs.get("grid_mapping")
        ]
        place.attrs.update({"coordinates": " ".join(extra)} if extra else {})
    return place


def _pointed(attrs: Mapping[str, Any], place: Place) -> dict[str, Any]:
    return {k: v for k, v in ((k, place.pointing(k, v)) for k, v in attrs.items()) if v is not None}


def _moved(grid: Grid) -> tuple[Axis, Axis] | None:
    """The horizontal axes where they are no longer those of the file."""
    axes = tuple(grid.axis(dim) for dim in grid.spatial[-2:])
    if len(axes) < 2 or all((a.origin, a.step, a.located) == (0.0, 1.0, True) for a in axes):
        return None
    return axes[0], axes[1]


# -- dims and groups ------------------------------------------------------------------------------------


def _dims(variables: Sequence[Out], homes: Mapping[str, Mapping[str, Any]]) -> dict[str, Dim]:
    dims: dict[str, Dim] = {}
    for out in variables:
        for name, size in zip(out.dims, out.values.shape):
            home = homes.get(name, {"name": name, "group": "", "unlimited": False, "shared": True})
            if name not in dims:
                dims[name] = _dim(Dim(size=size, **home), name, dims.values())
    return dims


def _dim(dim: Dim, name: str, others: Any) -> Dim:
    """The dim, under the scene's own name where another of that name has another size."""
    clash = any((o.name, o.group) == (dim.name, dim.group) and o.size != dim.size for o in others)
    return replace(dim, name=name) if clash else dim


def _groups(template: Template, carry: Mapping[str, Any], grid: Grid) -> dict[str, Mapping[str, Any]]:
    if not carry:
        return {"": {"Conventions": "CF-1.8"}}
    place = Place([], {}, moved=_moved(grid))
    root = dict(template.attrs.get("global", {}))
    if not isinstance(grid.locator, CoordLocator) and grid.locator is not None:
        root = {k: v for k, v in root.items() if k not in _CRS_ATTRS}
    return {"": _pointed(root, place), **carry.get("groups", {})}
