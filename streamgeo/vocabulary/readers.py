"""A sample of a stream becomes several: the windows of an array, the rows or lines of a file."""

from __future__ import annotations

import os
from functools import partial
from typing import Any, Self

from streamgeo import links
from streamgeo.vocabulary import file_kernels as k
from streamgeo.vocabulary.base import Described, names, one_char, whole

PathLike = str | os.PathLike[str]


class Readers(Described):
    """One sample becomes several."""

    def sliding_window(self, key: str, size: int, stride: int, dim: int = -1, index_key: str = "") -> Self:
        """The sample once for each window of an array, such as a time series.

        Windows begin at 0, ``stride``, 2 ``stride`` and so on; the last ones, which reach past the end, are
        shorter. Take only whole ones with ``filter_by_shape(key, dim, size)``.

        Args:
            key: the array.
            size: the length of a window.
            stride: the distance of the beginnings.
            dim: the dim.
            index_key: where the number of the window goes.
        """
        (key,) = names("sliding_window", "key", (key,))
        options: dict[str, Any] = {
            "size": whole("sliding_window", "size", size, 1),
            "stride": whole("sliding_window", "stride", stride, 1),
            "dim": whole("sliding_window", "dim", dim),
            "index_key": index_key,
        }
        told = f", dim={dim}" if dim != -1 else ""
        told += f", index_key={index_key!r}" if index_key else ""
        change = partial(links.windows, key=key, **options)
        shown = f".sliding_window({key!r}, {size}, {stride}{told})"
        return self._with(links.Unfold(self.node, change, shown, (key, index_key) if index_key else (key,)))

    def csv_reader_from_key(
        self,
        key: str,
        sep: str = ",",
        quote: str = '"',
        from_memory: bool = False,
        local_prefix: PathLike = "",
        file_fetcher: Any = None,
    ) -> Self:
        """A sample for each row of the CSV file that a key names, or whose bytes it holds: text by column.

        Args:
            key: the file, below ``local_prefix`` unless it is absolute.
            sep: what stands between fields.
            quote: what stands around fields that have it in them.
            from_memory: the key holds the file's bytes.
            local_prefix: the folder.
            file_fetcher: one of mlx-data's, for files elsewhere.
        """
        read = partial(
            k.csv_of,
            sep=one_char("csv_reader_from_key", "sep", sep),
            quote=one_char("csv_reader_from_key", "quote", quote),
            from_memory=bool(from_memory),
            prefix=os.fspath(local_prefix),
            fetcher=file_fetcher,
        )
        told = {"sep": sep if sep != "," else "", "quote": quote if quote != '"' else ""}
        return self._rows("csv_reader_from_key", key, read, {**told, "from_memory": from_memory})

    def line_reader_from_key(
        self,
        key: str,
        dst_key: str,
        from_memory: bool = False,
        unzip: bool = False,
        local_prefix: PathLike = "",
        file_fetcher: Any = None,
    ) -> Self:
        """A sample for each line of the text file that a key names, or whose bytes it holds.

        Args:
            key: the file, below ``local_prefix`` unless it is absolute.
            dst_key: where the line goes, as bytes without its newline.
            from_memory: the key holds the file's bytes.
            unzip: the file is compressed.
            local_prefix: the folder.
            file_fetcher: one of mlx-data's, for files elsewhere.
        """
        names("line_reader_from_key", "dst_key", (dst_key,))
        read = partial(
            k.lines_of,
            dst_key=dst_key,
            unzip=bool(unzip),
            from_memory=bool(from_memory),
            prefix=os.fspath(local_prefix),
            fetcher=file_fetcher,
        )
        told = {"dst_key": dst_key, "from_memory": from_memory, "unzip": unzip}
        return self._rows("line_reader_from_key", key, read, told)

    def _rows(self, name: str, key: str, read: Any, told: dict[str, Any]) -> Self:
        rest = "".join(f", {option}={value!r}" for option, value in told.items() if value)
        change = partial(links.rows, key=key, read=read, operation=name)
        return self._with(links.Unfold(self.node, change, f".{name}({key!r}{rest})", None))
