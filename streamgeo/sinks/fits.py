"""Write FITS images: the header of the input carried over, with WCS cards for the new grid."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import WriteError
from streamgeo.fits_cards import AxisView, is_wcs, view_header
from streamgeo.fits_packing import BITPIX, code, to_stored
from streamgeo.grid import Grid
from streamgeo.locate import CoordLocator, GeoLocator, WcsLocator
from streamgeo.sinks.fits_rice import RiceTable
from streamgeo.sinks.flat import write_blocks
from streamgeo.sinks.pixels import Pixels, Readable, in_turn
from streamgeo.template import Template

Array = NDArray[Any]

_STACK = "hdu"
_STRUCTURE = re.compile(
    r"SIMPLE|XTENSION|BITPIX|NAXIS\d*|PCOUNT|GCOUNT|GROUPS|EXTEND|BLOCKED|CHECKSUM|DATASUM|END|"
    r"Z(IMAGE|SIMPLE|TENSION|EXTEND|BLOCKED|PCOUNT|GCOUNT|BITPIX|NAXIS\d*|TILE\d+|NAME\d+|VAL\d+|CMPTYPE|"
    r"QUANTIZ|DITHER0|BLANK|SCALE|ZERO|MASKCMP|HECKSUM|DATASUM)"
)
_STATISTICS = re.compile(r"DATA(MIN|MAX|MEAN|MEDN|RMS|SKEW|KURT|P\d\d)")
_Card = tuple[str, Any, str]  # keyword, value, comment
_PACKING: tuple[str, ...] = ("BSCALE", "BZERO", "BLANK")
_CRS_UNITS = {"metre": "m", "degree": "deg", "kilometre": "km"}
_CF_PACKING = ("scale_factor", "add_offset", "_FillValue", "missing_value", "valid_range", "valid_min",
               "valid_max", "_Unsigned")  # fmt: skip


class _Part(NamedTuple):
    """One HDU to write: pixels in file order, their grid, the header that it takes over, and where it was."""

    values: Pixels
    grid: Grid
    text: str
    hdu: int


def write(
    path: Path,
    values: Array | Readable,
    grid: Grid,
    template: Template,
    *,
    rice: bool = False,
    quantize: float | None = None,
) -> None:
    """Write values as a FITS file that astropy and sunpy open as they open the input.

    The image stays where it was: in the primary HDU, or in extension 1 after an empty primary HDU with the
    primary header of the input. A dim ``hdu`` becomes one image HDU for each of its pixels. Tile-compressed
    inputs are written uncompressed unless ``rice`` says otherwise. Other HDUs of the input (tables, masks) are
    not copied.

    Header: all cards of the input with their comments, except structure and compression, CHECKSUM, DATASUM,
    statistics of the pixels (DATAMIN, DATAMAX, DATAMEAN, DATAMEDN, DATARMS, DATASKEW, DATAKURT, DATAPnn), and
    for physical values BSCALE, BZERO and BLANK. CRPIX, CDELT, PC, CD and SIP cards follow the grid, in their
    own units, for every alternate WCS too; an axis that is gone loses its cards, and a HISTORY card says so.

    A template of another format gives a header from its units and simple attributes. CRS + affine become
    linear WCS cards (CRPIX 0.5 is the outer edge of the first pixel) with the CRS as WKT in CRS_WKT; regular
    coordinate vectors become CRVAL and CDELT. What has no place in FITS is named in HISTORY cards: irregular
    and 2-D coordinates, and attributes that are no text or number.

    Args:
        path: the file.
        values: floats, integers or bools (written as uint8) of the shape of ``grid``; NaN stays NaN. With
            ``template.raw`` from a FITS file they must fit the stored type exactly.
        grid: where they lie.
        template: what to take over.
        rice: compress by the Rice code, in tiles of 256 x 256 pixels: without loss for integers. The image comes in
            extension 1, as FITS has it. Several HDUs are then written one after the other, not row by row.
        quantize: for floats with ``rice``: the step, in units of the values, to which they are rounded (NO_DITHER), so
            that none is more than half a step off.

    Raises:
        WriteError: for an option that does not fit, or when FITS cannot hold the values.
    """
    given = Pixels.of(values, grid, path.name)
    if not given.size or not given.ndim:
        raise WriteError(f"save: {path.name} would hold no pixels: the shape is {given.shape}")
    order = _file_order(grid, template)
    parts = _parts(given.transpose(*order), grid.transpose(*order), template)
    pixels = [_as_stored(part.values, template, path.name) for part in parts]
    bodies = [_body(part, template) for part in parts]
    if quantize is not None and not rice:
        raise WriteError(f"save: quantize={quantize!r} is for rice=True, and {path.name} is not compressed")
    extension = parts[0].hdu != 0 or rice
    with path.open("wb") as file:
        if extension:
            _write_empty_primary(file, template)
        if rice:
            for body, (stored, cards) in zip(bodies, pixels):
                table = RiceTable(stored, quantize, path.name)
                in_turn([table.write(file, partial(_rice_head, table, body, cards))])
            return
        writers = []
        for i, (part, body, (stored, cards)) in enumerate(zip(parts, bodies, pixels)):
            primary = i == 0 and not extension
            image = _image(body, stored.dtype, part.values.shape, primary=primary, extend=len(parts) > 1)
            file.write(_text(_head(body, image, cards)))
            stored = stored.astype(stored.dtype.newbyteorder(">"))
            writers.append(write_blocks(file, stored, file.tell()))
            length = stored.size * stored.dtype.itemsize
            file.seek(length + -length % 2880, os.SEEK_CUR)
        file.truncate()  # with zeros for what is still to be written, and after it
        in_turn(writers)


def _own(template: Template) -> bool:
    """Whether a FITS file was read, so that there is a header to take over."""
    return template.format == "fits" and bool(template.carry.get("headers"))


def _stacks(grid: Grid, template: Template) -> bool:
    return template.format == "fits" and _STACK in grid.dims and _STACK in template.dims


def _file_order(grid: Grid, template: Template) -> list[str]:
    """Dims as the file has them: HDUs, then dims that it did not know, then its own."""
    known = [dim for dim in template.dims if dim in grid.dims]
    if template.format != "fits":  # rows and columns last, as FITS readers expect
        known = [d for d in known if d not in grid.spatial] + [d for d in grid.spatial if d in known]
    new = [dim for dim in grid.dims if dim not in known]
    stack = [_STACK] if _stacks(grid, template) else []
    return stack + new + [dim for dim in known if dim not in stack]


def _parts(values: Pixels, grid: Grid, template: Template) -> list[_Part]:
    texts: Sequence[str] = template.carry["headers"] if _own(template) else ()
    hdus: Sequence[int] = template.carry["hdus"] if _own(template) else ()
    text, hdu = (texts[0], hdus[0]) if texts else ("", 0)
    if not _stacks(grid, template):
        return [_Part(values, grid, text, hdu)]
    axis, below = grid.axis(_STACK), grid.drop(_STACK)
    parts = []
    for i in range(axis.size):
        at = float(axis.centres(i))
        own = axis.located and at.is_integer() and 0 <= at < len(texts)
        which = int(at) if own else 0
        parts.append(
            _Part(values.take(_STACK, i), below, texts[which] if texts else "", hdus[which] if own else i + 1)
        )
    return parts


# -- pixels ---------------------------------------------------------------------------------------------


def _as_stored(values: Pixels, template: Template, name: str) -> tuple[Pixels, dict[str, Any]]:
    """Values of a type that FITS has, and the cards that say what they stand for."""
    if template.raw and _own(template):
        return values.map(partial(_exactly, dtype=np.dtype(template.carry["dtype"]), name=name)), {}
    if values.dtype.kind == "b":
        values = values.astype(np.uint8)
    elif values.dtype == np.float16:
        values = values.astype(np.float32)
    nodata = template.nodata if template.raw and values.dtype.kind in "iu" else None
    bzero = to_stored(np.empty(0, values.dtype))[1]
    if bzero:
        values = values.map(lambda block: to_stored(block)[0])
    if code(values.dtype) not in BITPIX:
        raise WriteError(f"save: FITS has no type for {values.dtype} ({name}); cast to float32 or an integer")
    cards: dict[str, Any] = {"BSCALE": 1, "BZERO": bzero} if bzero else {}
    if nodata is not None and float(nodata).is_integer():
        blank = int(nodata) - bzero
        if np.iinfo(values.dtype).min <= blank <= np.iinfo(values.dtype).max:
            cards["BLANK"] = blank
    return values, cards


def _exactly(values: Array, *, dtype: np.dtype[Any], name: str) -> Array:
    if code(values.dtype) == code(dtype):
        return values
    with np.errstate(invalid="ignore", over="ignore"):
        cast = values.astype(dtype)
        same = np.array_equal(cast, values, equal_nan=cast.dtype.kind == values.dtype.kind == "f")
    if not same:
        raise WriteError(
            f"save: {name} was opened with raw=True and is stored as {dtype}, which does not hold these "
            f"{values.dtype} values exactly; round and clip them, or open with raw=False"
        )
    return cast


def _text(head: Any) -> bytes:
    text: bytes = head.tostring(sep="", endcard=True, padding=True).encode("ascii")
    return text


# -- headers --------------------------------------------------------------------------------------------


def _rice_head(table: RiceTable, body: Any, cards: Mapping[str, Any]) -> bytes:
    return _text(_head(body, table.structure(), cards))


def _image(
    body: Any, dtype: np.dtype[Any], shape: Sequence[int], *, primary: bool, extend: bool
) -> list[_Card]:
    """The cards that say how an image lies in its HDU."""
    kind = (
        ("SIMPLE", True, "conforms to FITS standard") if primary else ("XTENSION", "IMAGE", "image extension")
    )
    required: list[_Card] = [
        kind,
        ("BITPIX", BITPIX[code(dtype)], "bits of one pixel, negative for floats"),
        ("NAXIS", len(shape), "number of axes"),
        *((f"NAXIS{i}", int(size), "") for i, size in enumerate(reversed(shape), 1)),
    ]
    if not primary:
        required += [("PCOUNT", 0, "number of parameters"), ("GCOUNT", 1, "number of groups")]
    elif extend or "EXTEND" in body:
        required.append(("EXTEND", True, "extensions are permitted"))
    return [(key, value, body.comments[key] if key in body else comment) for key, value, comment in required]


def _head(body: Any, structure: Sequence[_Card], cards: Mapping[str, Any]) -> Any:
    """The whole header: structure first, as the standard orders it, then the cards of ``body``."""
    from astropy.io.fits import Header

    head = Header()
    for card in structure:
        head.append(card, end=True)
    for keyword, value in cards.items():
        head.append((keyword, value), end=True)
    for card in body.cards:
        if not _STRUCTURE.fullmatch(card.keyword) and card.keyword not in cards:
            head.append(card, end=True)
    return head


def _write_empty_primary(file: BinaryIO, template: Template) -> None:
    from astropy.io.fits import Header

    body = Header.fromstring(template.carry.get("primary", ""))
    body.remove("BLANK", ignore_missing=True)
    empty = _image(body, np.dtype(np.uint8), (), primary=True, extend=True)
    file.write(_text(_head(body, empty, {})))


def _body(part: _Part, template: Template) -> Any:
    """The cards that describe the image: those of the input, and where it lies now."""
    from astropy.io.fits import Header

    own, locator = _own(template), part.grid.locator
    text = part.text if own else locator.header if isinstance(locator, WcsLocator) else ""
    body, notes = _place(Header.fromstring(text), part.grid, template)
    stale = _PACKING if not (own and template.raw) else ()
    if own and template.raw and np.dtype(template.carry["dtype"]).kind == "f":
        stale = ("BLANK",)  # it means nothing in a float image, and may not stand there
    kept = Header()
    for card in body.cards:
        if not _STATISTICS.fullmatch(card.keyword) and card.keyword not in stale:
            kept.append(card, end=True)
    if not own:
        notes += _add_attrs(kept, template)
    units = _ascii(template.units)
    if not (own and template.raw) and units != str(kept.get("BUNIT", "")).strip():
        if units:
            kept["BUNIT"] = units
        else:
            del kept["BUNIT"]
    if kept.get("EXTNAME") == "COMPRESSED_IMAGE":
        del kept["EXTNAME"]
    for note in notes:
        kept.add_history(f"streamgeo: {_ascii(note)}")
    return kept


def _place(header: Any, grid: Grid, template: Template) -> tuple[Any, list[str]]:
    """The header with WCS cards for ``grid``, and what they cannot say."""
    from astropy.io.fits import Header

    locator, own = grid.locator, _own(template)
    unmoved = template.carry.get("wcs") if own else None
    naxis = header.get("NAXIS", 0)
    if own and (locator.header if isinstance(locator, WcsLocator) else locator) == unmoved:
        dims = tuple(dim for dim in template.dims if dim != _STACK)[-naxis:]  # a stack of files has one more
    elif isinstance(locator, WcsLocator):
        dims, source = locator.dims, Header.fromstring(locator.header)
        naxis = source.get("NAXIS", len(dims))
        if own:  # a step gave the image the WCS of another file
            header = _without_wcs(header)
            for card in source.cards:
                if is_wcs(card.keyword):
                    header.append(card, end=True)
    else:
        header = _without_wcs(header)
        return header, _linear(header, grid)
    axes: list[AxisView | None] = []
    for axis in reversed(grid.axes):
        known = axis.name in dims and axis.located
        number = len(dims) - dims.index(axis.name) if known else 0
        axes.append(AxisView(number, axis.origin, axis.step) if known else None)
    placed, lost = view_header(header, axes, naxis)
    return placed, [f"no coordinates any more for {one}" for one in lost]


def _without_wcs(header: Any) -> Any:
    from astropy.io.fits import Header

    out = Header()
    for card in header.cards:
        if not is_wcs(card.keyword):
            out.append(card, end=True)
    return out


# -- grids and attributes of other formats --------------------------------------------------------------


def _linear(header: Any, grid: Grid) -> list[str]:
    """Add linear WCS cards for CRS + affine or coordinate vectors; returns what they cannot say."""
    number = {dim: len(grid.dims) - i for i, dim in enumerate(grid.dims)}
    if isinstance(grid.locator, GeoLocator):
        return _affine_cards(header, grid, number)
    if isinstance(grid.locator, CoordLocator):
        return _vector_cards(header, grid, number)
    return []


def _affine_cards(header: Any, grid: Grid, number: Mapping[str, int]) -> list[str]:
    assert isinstance(grid.locator, GeoLocator)
    ydim, xdim = grid.locator.spatial
    if not all(dim in number and grid.axis(dim).located for dim in (ydim, xdim)):
        return ["the CRS and transform of the input do not hold for these axes"]
    a, b, c, d, e, f = grid.affine
    x, y = number[xdim], number[ydim]
    crs = grid.crs
    names = ("LON", "LAT") if crs is not None and crs.is_geographic else ("X", "Y")
    unit = _CRS_UNITS.get(crs.axis_info[0].unit_name) if crs is not None else None
    for axis, name, origin in ((x, names[0], c), (y, names[1], f)):
        header[f"CTYPE{axis}"], header[f"CRPIX{axis}"], header[f"CRVAL{axis}"] = name, 0.5, float(origin)
        if unit:
            header[f"CUNIT{axis}"] = unit
    if b == 0 and d == 0:
        header[f"CDELT{x}"], header[f"CDELT{y}"] = float(a), float(e)
    else:
        for row, column, value in ((x, x, a), (x, y, b), (y, x, d), (y, y, e)):
            header[f"CD{row}_{column}"] = float(value)
    _add_crs(header, crs)
    return []


def _vector_cards(header: Any, grid: Grid, number: Mapping[str, int]) -> list[str]:
    notes = []
    for dim, axis in number.items():
        vectors = [c for c in grid.coords if c.dims == (dim,) and c.numeric]
        coord = next((c for c in vectors if c.name == dim), vectors[0] if vectors else None)
        if coord is None:
            continue
        values = coord.values
        step, off, allowed = coord.spacing
        if not off <= allowed or (values.size > 1 and not step):
            notes.append(f"coordinate {coord.name} of axis {axis} is not regular, so it is not written")
            continue
        units = str(coord.attrs.get("units", ""))
        header[f"CTYPE{axis}"] = (_ascii(coord.name), _ascii(units))
        header[f"CRPIX{axis}"], header[f"CRVAL{axis}"] = 1.0, float(values[0])
        if values.size > 1:
            header[f"CDELT{axis}"] = step
        if unit := _fits_unit(units):
            header[f"CUNIT{axis}"] = unit
    notes += [
        f"coordinate {c.name} of axes {', '.join(c.dims)} has no place in a FITS header"
        for c in grid.coords
        if len(c.dims) > 1 or not c.numeric
    ]
    if isinstance(grid.locator, CoordLocator) and grid.locator.crs:
        try:
            _add_crs(header, grid.crs)
        except Exception as error:  # a grid mapping that pyproj does not know
            notes.append(f"the grid mapping has no place in a FITS header ({error})")
    return notes


def _add_crs(header: Any, crs: Any) -> None:
    if crs is not None:
        header["CRS_WKT"] = _ascii(crs.to_wkt())


def _fits_unit(units: str) -> str:
    if units.lower().startswith("degrees"):
        return "deg"
    from astropy.units import Unit

    try:
        return str(Unit(units).to_string("fits"))
    except ValueError:
        return ""  # "days since ..." and the like: the comment of CTYPE keeps it


def _add_attrs(header: Any, template: Template) -> list[str]:
    """Add text and numbers of the attributes as cards; returns what is no text or number."""
    from astropy.io.fits import Card

    left = []
    for key in ("COMMENT", "HISTORY"):
        for line in str(template.attrs.get(key, "")).splitlines():
            header[key] = _ascii(line)
    for key, given in template.attrs.items():
        value = given.item() if isinstance(given, np.ndarray | np.generic) and np.size(given) == 1 else given
        name = _ascii(str(key))
        known = name.upper() in header or name in header or is_wcs(name.upper())
        if known or name.upper() in _PACKING or _STRUCTURE.fullmatch(name.upper()):
            continue
        if name in _CF_PACKING and not template.raw:
            continue
        short = re.fullmatch(r"[A-Za-z0-9_-]{1,8}", name)
        try:
            if value is None or not isinstance(value, str | int | float):
                raise ValueError(f"{type(value).__name__} has no card")
            value = _ascii(value) if isinstance(value, str) else value
            card = Card(name.upper() if short else f"HIERARCH {name}", value)
            card.verify("exception")
            str(card)
        except ValueError:  # too long a keyword, NaN, lists, nested tables
            left.append(name)
            continue
        header.append(card, end=True)
    return [f"attributes without a place in a FITS header: {', '.join(left)}"] if left else []


def _ascii(text: str) -> str:
    """Printable ASCII, as FITS wants it; other characters as their escapes."""
    return "".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode() for c in text).strip()
