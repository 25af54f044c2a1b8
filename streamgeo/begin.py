"""Where chains begin: files, lists, iterables, mlx-data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from streamgeo import engine, links
from streamgeo.chain import Buffer, Stream
from streamgeo.errors import ChainError, OpenError
from streamgeo.indexing import absolute
from streamgeo.names import matching
from streamgeo.openers import Opener
from streamgeo.parameters import function_name
from streamgeo.scene import Scene
from streamgeo.step import SCENE
from streamgeo.vocabulary.base import names, one_char, whole


def files(
    pattern: str | Path | Sequence[Any], key: str = "file", *, index: str | Path | None = None
) -> Buffer:
    """A Buffer with one sample a file: its path under ``key``.

    Args:
        pattern: a pattern such as ``"aia/*.fits"`` (``**`` for any depth), matched in sorted order; or a list
            of paths. A list inside the list is several files that make up one scene, such as one file a band.
        key: the key.
        index: a file that :func:`~streamgeo.index` wrote: patches are counted from it, without opening files.
            Files that it does not know, or that have changed since, are opened as without it.

    Raises:
        ChainError: when nothing matches, the list is empty, or there is no such index.
    """
    (key,) = names("files", "key", (key,))
    if isinstance(pattern, (str, Path)):
        found: list[Any] = matching(pattern)
        if not found:
            raise ChainError(
                f"files: nothing matches {str(pattern)!r}; the working directory is {Path.cwd()}"
            )
    elif not isinstance(pattern, Iterable):
        raise ChainError(f"files: {pattern!r} is neither a pattern nor a list of paths")
    else:
        found = list(pattern)
        if not found:
            raise ChainError("files: the list of paths is empty")
    paths = tuple(_path(entry) for entry in found)
    given = (
        str(pattern)
        if isinstance(pattern, (str, Path))
        else [p if isinstance(p, str) else list(p) for p in paths]
    )
    where = None if index is None else absolute(Path(index).expanduser())
    if where is not None and not Path(where).is_file():
        raise ChainError(f"files: there is no index {str(index)!r}; make it with sg.index(...)")
    told = "" if index is None else f", index={str(index)!r}"
    return Buffer(links.Files(paths, key, f"sg.files({given!r}, key={key!r}{told})", where))


def _path(entry: Any) -> str | tuple[str, ...]:
    if isinstance(entry, (str, Path)):
        return str(entry)
    if isinstance(entry, Sequence) and entry and all(isinstance(part, (str, Path)) for part in entry):
        return tuple(str(part) for part in entry)
    raise ChainError(f"files: {entry!r} is not a path; give text, a pathlib.Path, or a list of these")


def buffer_from_vector(data: Sequence[Mapping[str, Any]]) -> Buffer:
    """A Buffer of the dicts in a list; their values become arrays.

    Raises:
        ChainError: when an entry is not a dict.
    """
    if not isinstance(data, Iterable) or isinstance(data, str | Mapping):
        raise ChainError(f"buffer_from_vector: {type(data).__name__} is no list of dicts")
    for number, sample in enumerate(data):
        if not isinstance(sample, Mapping):
            raise ChainError(f"buffer_from_vector: entry {number} is a {type(sample).__name__}; give dicts")
    return Buffer(links.Vector(data))


def buffer_of_scenes(scenes: Sequence[Scene], key: str, what: str) -> Buffer:
    """Scenes that another library holds, one sample each, as if each had been opened from a file.

    ``what`` is what they are, for the repr of the chain.
    """
    opener = Opener(_Scenes(tuple(scenes), what), _save, reach=SCENE, dtype=np.dtype)
    return buffer_from_vector([{key: number} for number in range(len(scenes))]).key_transform(key, opener)


@dataclass(frozen=True, eq=False)
class _Scenes:
    """Gives a scene for its number."""

    scenes: tuple[Scene, ...]
    what: str

    def __call__(self, number: Any) -> Scene:
        return self.scenes[int(number)]

    def __repr__(self) -> str:
        return f"<{len(self.scenes)} {self.what}>"


def _save(scene: Scene, where: Any) -> Any:
    return scene.save(where)


def stream_python_iterable(iterable_factory: Callable[[], Any]) -> Stream:
    """A Stream of the samples of an iterable, which ``iterable_factory`` makes anew for each epoch."""
    if not callable(iterable_factory):
        raise ChainError("stream_python_iterable: give a function that returns an iterable, not the iterable")
    shown = f"sg.stream_python_iterable({function_name(iterable_factory)})"
    return Stream(links.Iterable(iterable_factory, shown))


def from_mlx(source: Any) -> Buffer | Stream:
    """A chain over the samples of an mlx-data Buffer or Stream. A Stream is reset for each epoch."""
    kind = engine.mlx_kind(source)
    if kind == "Buffer":
        return Buffer(links.MlxBuffer(source))
    if kind == "Stream":
        return Stream(links.Iterable(partial(engine.from_mlx_stream, source), "sg.from_mlx(<Stream>)"))
    raise ChainError(f"from_mlx: {type(source).__name__} is neither an mlx.data Buffer nor a Stream")


# -- mlx-data's readers --------------------------------------------------------------------------------


def files_from_tar(tarfile: str | Path, nested: bool = False, num_threads: int = 1) -> Buffer:
    """A Buffer of the names of the files in a tar archive, as bytes under ``"file"``.

    Args:
        tarfile: the archive.
        nested: whether archives in the archive are opened too.
        num_threads: how many threads index nested archives.

    Raises:
        OpenError: when it cannot be read.
    """
    path = str(_existing("files_from_tar", tarfile))
    try:
        names = engine.tar_names(path, bool(nested), whole("files_from_tar", "num_threads", num_threads, 1))
    except RuntimeError as error:
        raise OpenError(f"files_from_tar: {path}: {error}") from error
    shown = f"sg.files_from_tar({path!r}{', nested=True' if nested else ''})"
    return Buffer(links.Vector([{"file": name} for name in names], shown))


def stream_csv_reader(
    file: Any,
    sep: str = ",",
    quote: str = '"',
    *,
    local_prefix: str | Path = "",
    file_fetcher: Any = None,
    file_fetcher_handle: Any = None,
) -> Stream:
    """A Stream of the rows of a CSV file: text by column, as bytes.

    Args:
        file: its path, or an open file; of that, what is left to read is read now and kept.
        sep: what stands between fields.
        quote: what stands around fields that have it in them.
        local_prefix: the folder.
        file_fetcher: one of mlx-data's, for files elsewhere.
        file_fetcher_handle: what such a fetcher gave for an open file. It is not needed, since that is read now.

    Raises:
        OpenError: when the file is not there.
    """
    source, shown = _source("stream_csv_reader", file, local_prefix, file_fetcher)
    return _csv(
        source, f"sg.stream_csv_reader({shown}{_marks(sep, quote)})", sep, quote, local_prefix, file_fetcher
    )


def stream_csv_reader_from_string(content: str | bytes, sep: str = ",", quote: str = '"') -> Stream:
    """A Stream of the rows of a CSV file whose content is given; see :func:`stream_csv_reader`."""
    source = content if isinstance(content, bytes) else content.encode()
    told = repr(content) if len(content) <= 200 else _digest(source)
    return _csv(source, f"sg.stream_csv_reader_from_string({told}{_marks(sep, quote)})", sep, quote)


def stream_line_reader(
    file: Any,
    key: str,
    unzip: bool = False,
    *,
    local_prefix: str | Path = "",
    file_fetcher: Any = None,
    file_fetcher_handle: Any = None,
) -> Stream:
    """A Stream of the lines of a text file, as bytes without their newlines.

    Args:
        file: its path, or an open file; of that, what is left to read is read now and kept.
        key: where the line goes.
        unzip: whether the file is compressed.
        local_prefix: the folder.
        file_fetcher: one of mlx-data's, for files elsewhere.
        file_fetcher_handle: what such a fetcher gave for an open file. It is not needed, since that is read now.

    Raises:
        OpenError: when the file is not there.
    """
    source, shown = _source("stream_line_reader", file, local_prefix, file_fetcher)
    prefix = str(local_prefix) if file_fetcher is not None else ""
    rows = partial(engine.text_lines, source, key, bool(unzip), prefix, file_fetcher)
    text = f"sg.stream_line_reader({shown}, {key!r}{', unzip=True' if unzip else ''})"
    return Stream(links.Iterable(partial(links.readable, rows), text))


def _csv(
    source: str | bytes, shown: str, sep: str, quote: str, prefix: str | Path = "", fetcher: Any = None
) -> Stream:
    one_char("stream_csv_reader", "sep", sep)
    one_char("stream_csv_reader", "quote", quote)
    rows = partial(engine.csv_rows, source, sep, quote, str(prefix) if fetcher is not None else "", fetcher)
    return Stream(links.Iterable(partial(links.readable, rows), shown))


def _marks(sep: str, quote: str) -> str:
    return (f", sep={sep!r}" if sep != "," else "") + (f", quote={quote!r}" if quote != '"' else "")


def _source(operation: str, file: Any, prefix: str | Path, fetcher: Any) -> tuple[str | bytes, str]:
    """A path, or the content of an open file, and how it is shown."""
    if hasattr(file, "read"):
        content = file.read()
        source = content if isinstance(content, bytes) else content.encode()
        return source, _digest(source)
    if not isinstance(file, (str, Path)):
        raise ChainError(f"{operation}: {type(file).__name__} is neither a path nor an open file")
    if fetcher is not None:
        return str(file), repr(str(file))  # it brings the file when it is opened
    path = str(_existing(operation, Path(prefix) / file))
    return path, repr(path)


def _digest(content: bytes) -> str:
    """Content by its size and digest, which tell it from other content in the state of a stream."""
    return f"<{len(content)} bytes, sha256 {sha256(content).hexdigest()[:16]}>"


def _existing(operation: str, path: str | Path) -> Path:
    """A path of a file that is there."""
    if not Path(path).is_file():
        raise OpenError(f"{operation}: there is no file {str(path)!r}; the working directory is {Path.cwd()}")
    return Path(path)


# -- several chains as one ------------------------------------------------------------------------------


def concatenate(*chains: Buffer | Stream) -> Buffer | Stream:
    """The samples of one chain after those of another; a Buffer when all are Buffers.

    >>> a, b = (buffer_from_vector([{"n": i} for i in range(k)]) for k in (2, 3))
    >>> [int(s["n"]) for s in concatenate(a, b)]
    [0, 1, 0, 1, 2]
    """
    return _joined(links.Concatenate(_nodes("concatenate", chains)), chains)


def zip(*chains: Buffer | Stream) -> Buffer | Stream:
    """One sample of each chain, as one sample; a Buffer when all are Buffers.

    Raises:
        ChainError: on reading, when they have a key in common or not the same number of samples.
    """
    return _joined(links.Zip(_nodes("zip", chains)), chains)


def mix(chains: Sequence[Buffer | Stream], weights: Sequence[float] | None = None, seed: int = 0) -> Stream:
    """Samples of several chains in random turn, by weight (all alike when None), until all are at their end.

    The draw at each place depends on (seed, epoch, place) only.

    Raises:
        ChainError: when there are not as many weights as chains, or one is not above 0.
    """
    nodes = _nodes("mix", chains)
    try:
        shares = tuple(float(w) for w in weights) if weights is not None else (1.0,) * len(nodes)
    except (TypeError, ValueError):
        shares = ()
    if len(shares) != len(nodes) or not all(0 < share < float("inf") for share in shares):
        raise ChainError(f"mix: weights={weights!r} must be {len(nodes)} numbers above 0, one for each chain")
    return Stream(links.Mix(nodes, shares, whole("mix", "seed", seed)))


def _nodes(operation: str, chains: Sequence[Any]) -> tuple[links.Node, ...]:
    if not chains or not all(isinstance(chain, (Buffer, Stream)) for chain in chains):
        raise ChainError(f"{operation}: give Buffers or Streams, at least one")
    return tuple(chain.node for chain in chains)


def _joined(node: links.Node, chains: Sequence[Buffer | Stream]) -> Buffer | Stream:
    return Buffer(node) if all(isinstance(chain, Buffer) for chain in chains) else Stream(node)
