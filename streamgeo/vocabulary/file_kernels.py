"""Files of images, sound, arrays and text in a sample: which file is meant, and what mlx-data reads from it."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from streamgeo.engine import Kernel, csv_rows, text_lines
from streamgeo.errors import OpenError, StepError
from streamgeo.links import readable
from streamgeo.vocabulary.array_kernels import bytes_of, text_of

Array = NDArray[Any]


def path_of(value: Array, prefix: str) -> Path:
    """The file that a value names, below ``prefix`` unless it is absolute.

    Raises:
        OpenError: when there is no such file.
    """
    path = Path(prefix) / os.fsdecode(bytes_of(value))
    if not path.is_file():
        raise OpenError(f"there is no file {str(path)!r}; the working directory is {Path.cwd()}")
    return path


def load_file(value: Array, *, prefix: str) -> Array:
    """The bytes of a file, as int8."""
    return text_of(path_of(value, prefix).read_bytes())


def load_numpy(value: Array, *, prefix: str, from_memory: bool) -> Array:
    """The array of a .npy file of any dtype and order; pickled objects are refused."""
    source: Any = io.BytesIO(bytes_of(value)) if from_memory else path_of(value, prefix)
    try:
        array: Array = np.lib.format.read_array(source, allow_pickle=False) if from_memory else _npy(source)
    except (ValueError, EOFError) as error:
        told = "the bytes" if from_memory else str(source)
        raise OpenError(f"{told}: not an array in .npy format ({error})") from error
    return array


def _npy(path: Path) -> Array:
    with path.open("rb") as file:
        array: Array = np.lib.format.read_array(file, allow_pickle=False)
    return array


def loaded(
    values: Mapping[str, Array],
    *,
    kernel: Kernel,
    key: str,
    prefix: str,
    from_memory: bool,
    outputs: tuple[str, ...],
) -> dict[str, Array]:
    """What mlx-data reads from the file named under ``key``, or from its bytes.

    Raises:
        OpenError: when it cannot, or finds nothing.
    """
    path = None if from_memory else path_of(values[key], prefix)
    told = "the bytes given" if path is None else str(path)
    content = bytes_of(values[key]) if path is None else path.read_bytes() if _is_jpeg(path) else b""
    if content[:2] == b"\xff\xd8" and not whole_jpeg(content):
        raise OpenError(f"{told}: the JPEG image is cut off")
    try:
        made = _from_memory(kernel, key, content) if path is None else _from_path(kernel, key, path)
    except (RuntimeError, ValueError) as error:
        raise OpenError(f"{told}: mlx-data cannot read it ({error})") from error
    shown = [] if kernel.operation == "load_audio" else [made[output] for output in outputs]
    if not all(array.size and (array.ndim > 1 or array.any()) for array in shown):  # info is a vector: 0, 0
        raise OpenError(f"{told}: mlx-data finds nothing in it; it is damaged, or of another format")
    return {output: made[output] for output in outputs}


def _from_path(kernel: Kernel, key: str, path: Path) -> dict[str, Array]:
    return kernel({key: text_of(os.fsencode(path.absolute()))})


def _from_memory(kernel: Kernel, key: str, content: bytes) -> dict[str, Array]:
    if content[:2] != b"\xff\xd8" or kernel.operation != "load_image":
        return kernel({key: np.frombuffer(content, np.uint8)})
    # mlx-data 0.1.0 reads damaged JPEG images in memory without end; those in files it refuses.
    file = Kernel(kernel.operation, {**kernel.arguments, "from_memory": False})
    with tempfile.NamedTemporaryFile(suffix=".jpg") as copy:
        copy.write(content)
        copy.flush()
        return _from_path(file, key, Path(copy.name))


def _is_jpeg(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\xff\xd8"


def whole_jpeg(content: bytes) -> bool:
    """Whether a JPEG image has its end: its segments follow each other, and behind the pixels comes EOI.

    ITU-T T.81, B.1.1: each segment before the pixels begins with FF and its kind, and says its length.
    """
    at = 2
    while content[at : at + 1] == b"\xff":
        kind = content[at + 1 : at + 2]
        if kind == b"\xff":  # a fill byte
            at += 1
        elif kind == b"\xda":  # the pixels begin; in them FF is followed by 00 or RST
            return content.find(b"\xff\xd9", at) > 0
        else:
            at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return False


def resampled(
    values: Mapping[str, Array], *, kernel: Kernel, key: str, info_key: str, output: str
) -> dict[str, Array]:
    """Sound at another rate."""
    sound = values[key]
    if sound.ndim != 2 or sound.dtype != np.float32:
        raise StepError(
            f"{key!r} is {sound.dtype} of shape {sound.shape}; it works on float32 of shape (frames, channels), as "
            "load_audio gives it"
        )
    given = {key: sound}
    if info_key:
        info = values[info_key]
        if info.dtype.kind not in "iu" or info.shape not in ((), (3,)):
            raise StepError(
                f"{info_key!r} is {info.dtype} of shape {info.shape}; give a rate, or load_audio's info"
            )
        given[info_key] = info if info.dtype == np.int32 and not info.ndim else info.astype(np.int64)
    return {output: kernel(given)[output]}


def saved(
    values: Mapping[str, Array],
    *,
    kernel: Kernel,
    key: str,
    filename_key: str,
    prefix: str,
    name_prefix: str,
) -> dict[str, Array]:
    """Write an image to the file that ``filename_key`` names; the sample stays as it is."""
    image, name = values[key], Path(name_prefix + os.fsdecode(bytes_of(values[filename_key])))
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 3) or not image.size:
        raise StepError(
            f"{key!r} is {image.dtype} of shape {image.shape}; it writes uint8 of shape (height, width, 1 or 3)"
        )
    path = (Path(prefix) / name).with_suffix(".jpg")
    if not path.parent.is_dir():
        raise OpenError(f"there is no folder {str(path.parent)!r}; make it first")
    part = path.with_name(f".{uuid4().hex}.jpg")  # whoever looks finds a whole file or none
    try:
        kernel({key: image, filename_key: text_of(os.fsencode(part.absolute()))})
        part.replace(path)
    except (OSError, RuntimeError) as error:
        raise OpenError(f"{path}: mlx-data cannot write it ({error})") from error
    finally:
        part.unlink(missing_ok=True)
    return {}


def from_tar(
    values: Mapping[str, Array],
    *,
    kernel: Kernel,
    tar: str,
    tar_prefix: str,
    from_key: bool,
    own: bool,
    ikey: str,
    okey: str,
) -> dict[str, Array]:
    """A file from a tar archive, as uint8."""
    given = {ikey: text_of(bytes_of(values[ikey]))}
    if from_key:
        given[tar] = text_of(bytes_of(values[tar]))
    if own:  # else a fetcher brings the archive
        path_of(values[tar] if from_key else np.array(tar), tar_prefix)
    try:
        return {okey: kernel(given)[okey]}
    except RuntimeError as error:
        raise OpenError(f"{tar}: {error}") from error


def tokens(array: Array, *, kernel: Kernel, seeded: bool, rng: np.random.Generator | None = None) -> Array:
    """Text as the numbers of its tokens."""
    content = bytes_of(array)
    seed = int(rng.integers(1 << 31)) if seeded and rng is not None else None
    try:
        made: Array = kernel({"text": text_of(content)}, seed)["text"]
    except RuntimeError as error:
        raise StepError(f"{error}; add what is missing to the vocabulary, or give ignore_unk=True") from error
    return made


def csv_of(
    value: Array, *, sep: str, quote: str, from_memory: bool, prefix: str, fetcher: Any
) -> Iterator[dict[str, Array]]:
    """The rows of a CSV file."""
    source = _source(value, from_memory, prefix, fetcher)
    rows = partial(csv_rows, source, sep, quote, prefix if fetcher else "", fetcher)
    yield from readable(rows)


def lines_of(
    value: Array, *, dst_key: str, unzip: bool, from_memory: bool, prefix: str, fetcher: Any
) -> Iterator[dict[str, Array]]:
    """The lines of a text file."""
    source = _source(value, from_memory, prefix, fetcher)
    lines = partial(text_lines, source, dst_key, unzip, prefix if fetcher else "", fetcher)
    yield from readable(lines)


def _source(value: Array, from_memory: bool, prefix: str, fetcher: Any) -> str | bytes:
    if from_memory:
        return bytes_of(value)
    if fetcher is not None:
        return os.fsdecode(bytes_of(value))  # it brings the file when it is opened
    return str(path_of(value, prefix).absolute())
