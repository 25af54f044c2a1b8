"""Which images a FITS file holds, and how: by the quick look at its headers, else by astropy."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from streamgeo.errors import OpenError, StreamGeoError
from streamgeo.fits_cards import is_number
from streamgeo.fits_packing import DTYPES, Packing
from streamgeo.sources.fits_headers import Endless, Header, Unusual, headers
from streamgeo.sources.handles import POOL

Which = int | str | Sequence[int | str] | None

_PACKERS = (b"\x1f\x8b", b"\x1f\x9d", b"BZh", b"PK", b"\xfd7zXZ")  # gzip, compress, bzip2, zip, xz
DEFAULT_NAMES = ("", "PRIMARY", "COMPRESSED_IMAGE")


class Image(NamedTuple):
    """One image HDU, by its header.

    Attributes:
        offset: where plain pixels begin; None where they are compressed.
        header: where the header of a compressed image begins; None where only astropy understands it, or the whole
            file is packed.
    """

    hdu: int
    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    packing: Packing
    offset: int | None
    header: int | None = None


def find_images(path: str, size: int, which: Which) -> list[Image]:
    """The images that were asked for, as :func:`streamgeo.open_fits` takes them.

    Raises:
        OpenError: when the file is no FITS file, is cut short, or has no such image.
    """
    found = _quickly(path, size, which)
    if found is not None:
        return found
    with reading(path), POOL.lease("fits", path, open_fits, close_fits) as hdus:
        return [_image(hdus, index, path, size) for index in _choose(hdus, which, path)]


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Whatever a damaged file makes a library raise becomes one OpenError."""
    try:
        yield
    except StreamGeoError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise OpenError(f"open_fits: {what} cannot be read: damaged or not FITS ({reason})") from error


def open_fits(path: str) -> Any:
    """The file as astropy has it."""
    from astropy.io import fits

    # No memory maps here: what reads through astropy reads what it needs, once.
    return fits.open(path, mode="readonly", memmap=False, do_not_scale_image_data=True)


def close_fits(hdus: Any) -> None:
    """Let go of what :func:`open_fits` gave."""
    hdus.close()


def packed(path: str) -> bool:
    """Whether the whole file is compressed."""
    with Path(path).open("rb") as file:
        return file.read(6).startswith(_PACKERS)


# -- by a quick look ------------------------------------------------------------------------------------


def _quickly(path: str, size: int, which: Which) -> list[Image] | None:
    """The images by the few cards that are needed; None where anything is out of the ordinary.

    astropy then has the last word, also on what the error is.
    """
    wanted: Sequence[int | str | None] = [which] if which is None or isinstance(which, int | str) else which
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        if os.pread(fd, 9, 0) != b"SIMPLE  =":
            return None
        seen: list[Header] = []
        walk = headers(fd, size)
        found = [_quick_image(_pick(one, seen, walk), seen, size) for one in wanted]
    except (Unusual, OSError):
        return None
    except Endless as claim:  # astropy would count
        raise OpenError(f"open_fits: {path}: {claim}; fetch the file again") from None
    finally:
        os.close(fd)
    return found or None


def _pick(which: int | str | None, seen: list[Header], walk: Iterator[Header]) -> int:
    """The number of the HDU that is meant; headers are read as far as needed."""
    test: Callable[[int], bool]
    if which is None:
        test = lambda i: _kind(seen[i]) != "other"  # noqa: E731
    elif isinstance(which, int):
        test = lambda i: i == which  # noqa: E731
    else:
        name = which.strip().upper()
        test = lambda i: _name(seen, i).upper() == name  # noqa: E731
    number = 0
    while True:
        if number == len(seen):
            header = next(walk, None)
            if header is None:
                raise Unusual("there is no such HDU")
            seen.append(header)
        if test(number):
            return number
        number += 1


def _kind(header: Header) -> str:
    """``"plain"`` and ``"compressed"`` images with pixels, and all else."""
    extension = header.text("XTENSION", "IMAGE").rstrip()
    if extension == "IMAGE":
        sizes = header.sizes("NAXIS")
        return "plain" if sizes and all(sizes) else "other"
    if extension == "BINTABLE":
        if header.cards.get("ZIMAGE", False) is not True:
            return "other"
        sizes = header.sizes("ZNAXIS")
        return "compressed" if sizes and all(sizes) else "other"
    if extension == "TABLE":
        return "other"
    raise Unusual(f"XTENSION = {extension!r}")


def _name(seen: list[Header], number: int) -> str:
    header = seen[number]
    default = "PRIMARY" if number == 0 else "COMPRESSED_IMAGE" if header.cards.get("ZIMAGE") is True else ""
    return header.text("EXTNAME", default)


def _quick_image(number: int, seen: list[Header], size: int) -> Image:
    header, kind = seen[number], _kind(seen[number])
    if kind == "other":
        raise Unusual("it is no image with pixels")
    z = "Z" if kind == "compressed" else ""
    if z:  # a table must have these
        header.whole("PCOUNT"), header.whole("GCOUNT"), header.whole("TFIELDS")
    shape = header.sizes(f"{z}NAXIS")
    bitpix = header.whole(f"{z}BITPIX")
    if bitpix not in DTYPES:
        raise Unusual(f"BITPIX = {bitpix}")
    dtype = np.dtype(DTYPES[bitpix])
    # The last block of a table may lack its padding, not more.
    span = -(-header.span // 2880) * 2880 - 2879 if z else header.span
    if header.data + max(span, 1) > size or (not z and header.whole("PCOUNT", 0)):
        raise Unusual("the file is cut short, or pixels have parameters before them")
    scale, zero = float(header.number("BSCALE", 1)), float(header.number("BZERO", 0))
    if z and scale == 0:
        scale = 1.0  # as astropy has it
    blank = _quick_blank(header, dtype, z) if dtype.kind != "f" else None
    kinds = {axis: header.text(f"CTYPE{axis}", "") for axis in range(3, len(shape) + 1)}
    name = _name(seen, number)
    return Image(
        number, "" if name in DEFAULT_NAMES else name, _dims(kinds, len(shape)), shape,
        Packing(dtype, scale, zero, blank), None if z else header.data, header.start if z else None,
    )  # fmt: skip


def _quick_blank(header: Header, dtype: np.dtype[Any], z: str) -> int | None:
    for keyword in ("BLANK", "ZBLANK") if z else ("BLANK",):
        if keyword in header.cards:
            return header.whole(keyword)
    columns = [header.cards.get(f"TTYPE{i}") for i in range(1, header.whole("TFIELDS", 0) + 1)]
    return -(1 << (8 * dtype.itemsize - 1)) if "ZBLANK" in columns else None


# -- by astropy -----------------------------------------------------------------------------------------
def _walk(hdus: Any) -> Iterator[tuple[int, Any]]:
    """HDUs one by one, so that no more headers are read than needed."""
    index = 0
    while True:
        try:
            hdu = hdus[index]
        except IndexError:
            return
        yield index, hdu
        index += 1


def _is_image(hdu: Any) -> bool:
    return bool(getattr(hdu, "is_image", False)) and len(hdu.shape) > 0 and min(hdu.shape) > 0


def _contents(hdus: Any) -> str:
    """What a file holds, for messages."""
    words, end, path = [], 0, hdus.filename()
    for index, hdu in _walk(hdus):
        if _is_image(hdu):
            kind = "x".join(str(n) for n in hdu.shape) + " image"
        else:
            kind = "table" if "Table" in type(hdu).__name__ else "no data"
        words.append(f"hdu {index} {hdu.name!r} ({kind})")
        end = hdu.fileinfo()["datLoc"] + hdu.fileinfo()["datSpan"]
    rest = 0 if packed(path) else Path(path).stat().st_size - end
    if rest > 0:
        words.append(f"then {rest} bytes that are no whole HDU: the file is truncated or damaged")
    return ", ".join(words)


def _choose(hdus: Any, which: Which, path: str) -> list[int]:
    """Indices of the HDUs that were asked for."""
    name = Path(path).name
    if which is None:
        found = next((index for index, hdu in _walk(hdus) if _is_image(hdu)), None)
        if found is not None:
            return [found]
        tables = [index for index, hdu in _walk(hdus) if "Table" in type(hdu).__name__]
        if tables:
            raise OpenError(
                f"open_fits: {name} holds tables and no image: {_contents(hdus)}; read a table with "
                f"astropy.table.Table.read({name!r}, hdu={tables[0]})"
            )
        raise OpenError(f"open_fits: {name} holds no image with pixels: {_contents(hdus)}")
    wanted = [which] if isinstance(which, int | str) else list(which)
    if not wanted:
        raise OpenError(f"open_fits: hdu=[] names no HDU of {name}; it has {_contents(hdus)}")
    return [_index(hdus, one, name) for one in wanted]


def _index(hdus: Any, which: int | str, name: str) -> int:
    for index, hdu in _walk(hdus):
        if which == index if isinstance(which, int) else which.strip().upper() == hdu.name.upper():
            if not _is_image(hdu):
                raise OpenError(
                    f"open_fits: hdu {which!r} of {name} holds no image with pixels; it has {_contents(hdus)}"
                )
            return index
    raise OpenError(f"open_fits: no hdu {which!r} in {name}; it has {_contents(hdus)}")


def _image(hdus: Any, index: int, path: str, file_size: int) -> Image:
    """The image of one HDU from its header; pixels that the file is too short for are an error."""
    hdu = hdus[index]
    header, shape = hdu.header, tuple(int(n) for n in hdu.shape)
    dtype = np.dtype(DTYPES[_card(header, "BITPIX", None, path)])
    scale, zero = (
        _number(header, keyword, default, path) for keyword, default in (("BSCALE", 1), ("BZERO", 0))
    )
    packing = Packing(dtype, scale, zero, _blank(header, dtype, path))
    info = hdu.fileinfo()
    offset, span = int(info["datLoc"]), int(info["datSpan"])
    plain = not packed(path)
    compressed = type(hdu).__name__ == "CompImageHDU"
    if plain:
        # The last block of a table may lack its padding, not more.
        need = max(span - 2879, 1) if compressed else math.prod(shape) * packing.dtype.itemsize
        if offset + need > file_size:
            raise OpenError(
                f"open_fits: {path} is truncated: the pixels of hdu {index} take {need} bytes from byte "
                f"{offset} on, and the file ends at byte {file_size}; fetch it again"
            )
    name = "" if hdu.name in DEFAULT_NAMES else hdu.name
    direct = offset if plain and not compressed else None
    return Image(index, name, _dims(_kinds(header, len(shape)), len(shape)), shape, packing, direct)


def _number(header: Any, keyword: str, default: float, path: str) -> float:
    value = _card(header, keyword, default, path)
    if not is_number(value):
        raise OpenError(
            f"open_fits: {path}: {keyword} = {value!r} is not a number, so the pixels have no values"
        )
    return float(value)


def _card(header: Any, keyword: str, default: Any, path: str) -> Any:
    """The value of a card. astropy works with the last of several and shows the first, or one with HIERARCH."""
    cards = [card for card in header.cards if card.keyword == keyword]
    values = {repr(card.value) for card in cards}
    if len(values) > 1 or any(card.image.startswith("HIERARCH") for card in cards):
        raise OpenError(
            f"open_fits: what {keyword} of {path} is cannot be told from "
            f"{', '.join(card.image.strip() for card in cards)}; leave one card of that name in the header"
        )
    return cards[0].value if cards else default


def _blank(header: Any, dtype: np.dtype[Any], path: str) -> int | None:
    """BLANK of an integer image; astropy has warned where it is not an integer."""
    value = _card(header, "BLANK", None, path) if dtype.kind != "f" else None
    return value if isinstance(value, int) and is_number(value) else None


_NAMES = (
    ("TIME", "time"), ("UTC", "time"), ("TAI", "time"),
    ("WAVE", "wave"), ("AWAV", "wave"), ("FREQ", "freq"), ("STOKES", "stokes"),
)  # fmt: skip


def _dims(kinds: Mapping[int, str], naxis: int) -> tuple[str, ...]:
    """Names of the dims in numpy order: y and x last, leading ones by what CTYPE says of them."""
    names = ["x", "y"][:naxis]
    for axis in range(3, naxis + 1):
        kind = kinds.get(axis, "").strip().upper()
        other = "z" if axis == 3 else f"axis{axis}"
        name = next((dim for start, dim in _NAMES if kind.startswith(start)), other)
        names.append(name if name not in names else f"axis{axis}")
    return tuple(reversed(names))


def _kinds(header: Any, naxis: int) -> dict[int, str]:
    kinds = {}
    for axis in range(3, naxis + 1):
        try:
            kinds[axis] = str(header.get(f"CTYPE{axis}", ""))
        except Exception:  # a card that does not parse names nothing
            kinds[axis] = ""
    return kinds
