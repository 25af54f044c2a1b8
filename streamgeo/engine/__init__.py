"""The engine: mlx-data's thread pool, its samples and its kernels. Nothing else touches mlx.data."""

from streamgeo.engine.board import Engine
from streamgeo.engine.mlx import from_mlx_stream, mlx_kind, to_mlx_buffer, to_mlx_stream
from streamgeo.engine.patience import Patience

__all__ = ["Engine", "Patience", "from_mlx_stream", "mlx_kind", "to_mlx_buffer", "to_mlx_stream"]
