"""The engine: mlx-data's thread pool, its samples and its kernels. Nothing else touches mlx.data."""

from streamgeo.engine.board import Engine
from streamgeo.engine.mlx import (
    OWN,
    Kernel,
    Merges,
    Trie,
    csv_rows,
    from_mlx_stream,
    mlx_kind,
    own,
    tar_names,
    text_lines,
    to_mlx_buffer,
    to_mlx_stream,
)
from streamgeo.engine.pace import Pace
from streamgeo.engine.patience import Patience
from streamgeo.engine.tickets import closing

__all__ = [
    "OWN",
    "Engine",
    "Kernel",
    "Merges",
    "Pace",
    "Patience",
    "Trie",
    "closing",
    "csv_rows",
    "from_mlx_stream",
    "mlx_kind",
    "own",
    "tar_names",
    "text_lines",
    "to_mlx_buffer",
    "to_mlx_stream",
]
