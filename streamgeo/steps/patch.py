"""Patches: an array cut into windows of one size, and stitched again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import StepError
from streamgeo.grid import Grid, plain_grid
from streamgeo.scene import Scene
from streamgeo.step import POINT, Step, register
from streamgeo.steps.stitch import Canvas
from streamgeo.window import Window

Array = NDArray[Any]
Edge = Literal["shift", "pad", "drop"]
Sizes = int | Sequence[int] | Mapping[str, int]


@dataclass(frozen=True)
class Cut:
    """How one dim is cut: ``count`` starts, ``stride`` apart, the last one moved inwards when ``last`` says."""

    whole: int
    size: int
    stride: int
    count: int
    last: int

    def start(self, number: int) -> int:
        """First pixel of a patch; negative never, past the end only with edge="pad"."""
        return self.last if number == self.count - 1 else number * self.stride

    def number(self, start: int) -> int:
        """Which patch starts at a pixel; inverse of :meth:`start`."""
        return self.count - 1 if start == self.last else start // self.stride


@dataclass(frozen=True)
class Layout:
    """All windows of one scene, counted row by row; nothing is stored but a few numbers a dim."""

    dims: tuple[str, ...]
    cuts: tuple[Cut, ...]
    patched: tuple[int, ...]

    def __len__(self) -> int:
        return self._count

    @cached_property
    def _count(self) -> int:
        return math.prod(cut.count for cut in self.cuts)

    def __getitem__(self, number: int) -> Window:
        if not 0 <= number < self._count:
            raise IndexError(number)
        box = dict.fromkeys(self.dims, (0, 0))  # in their order, which the loop below goes through backwards
        for dim, cut in zip(reversed(self.dims), reversed(self.cuts)):
            if cut.count == 1:
                box[dim] = (cut.last, cut.last + cut.size)
                continue
            number, at = divmod(number, cut.count)
            start = cut.start(at)
            box[dim] = (start, start + cut.size)
        return Window._of(box)

    def band(self, chunks: Sequence[int]) -> int:
        """How many consecutive patches a row of chunks holds: those along the first dim that is cut, and all behind."""
        for axis, (cut, chunk) in enumerate(zip(self.cuts, chunks)):
            if cut.count > 1:
                rows = max(1, -(-chunk // cut.stride))
                return min(rows, cut.count) * math.prod(other.count for other in self.cuts[axis + 1 :])
        return 1

    def on(self, box: Window, dims: Sequence[str], shape: Sequence[int]) -> Window:
        """A window of this layout on a scene of the same patched dims; its other dims are taken whole."""
        patched = {self.dims[axis] for axis in self.patched}
        return Window({dim: box[dim] if dim in patched else (0, n) for dim, n in zip(dims, shape)})

    @property
    def dropped(self) -> int:
        """Pixels of the scene that lie in no window."""
        covered = 1
        for cut in self.cuts:
            reached = np.zeros(cut.whole, bool)
            for number in range(cut.count):
                reached[cut.start(number) : cut.start(number) + cut.size] = True
            covered *= int(reached.sum())
        return math.prod(cut.whole for cut in self.cuts) - covered


class Patch(Step):
    """A step that makes many samples of one: see :func:`patch`."""

    size: Sizes
    stride: Sizes | None
    dims: tuple[str, ...] | None
    edge: Edge
    fill: float | None

    def layout(self, grid: Grid, what: str = "the array") -> Layout:
        """The windows of a scene with this grid; ``what`` names it in messages."""
        return lay_out(grid, size=self.size, stride=self.stride, dims=self.dims, edge=self.edge, what=what)

    def layout_of(self, dims: Sequence[str], shape: Sequence[int], spatial: Sequence[str]) -> Layout:
        """The same, for a scene of which no more is known than its dims, shape and horizontal dims."""
        names = self.dims if self.dims is not None else tuple(spatial)
        grid = Grid.of(dims, shape)
        return lay_out(grid, size=self.size, stride=self.stride, dims=names, edge=self.edge)

    def read(self, scene: Scene, window: Window) -> Array:
        """The pixels of one window, filled where it reaches past the scene."""
        if window.within(scene.dims, scene.shape):
            return scene.read(window)
        inside = window.clip(scene.dims, scene.shape)
        return _fill_up(scene.read(inside), window, inside, self.fill)

    def read_into(self, scene: Scene, window: Window, out: Array) -> None:
        """The same, written to an array of the window's shape and the scene's dtype."""
        if self.edge != "pad" or window.within(scene.dims, scene.shape):
            scene.read_into(out, window)
        else:
            out[...] = self.read(scene, window)


@register("patch")
def patch(
    size: Sizes,
    stride: Sizes | None = None,
    *,
    dims: Sequence[str] | None = None,
    edge: Edge = "shift",
    fill: float | None = None,
) -> Patch:
    """Cut into patches; the inverse stitches them (weighted mean on overlaps).

    In a chain, one scene becomes many samples, and each sample carries ``<key>.scene`` (index of the scene)
    and ``<key>.window`` (int64 of shape ``(ndim, 2)``: start and stop in each dim). Called on an array of
    shape ``(..., H, W)`` it returns ``(n, ..., h, w)``.

    Args:
        size: pixels in each patched dim: one number for all, one for each, or a mapping from dim to number.
        stride: pixels from one patch to the next; by default ``size``, so that patches do not overlap.
        dims: dims to cut, the others stay whole; by default the keys of a mapping ``size``, else the two
            horizontal dims of the grid.
        edge: what happens where the scene is no multiple of the stride. ``"shift"`` moves the last patch
            inwards, so that it ends with the scene; ``"pad"`` lets it reach past the end; ``"drop"`` leaves
            it out (``explain()`` says how many pixels are then in no patch; ``predict`` wants ``fill=`` for them).
        fill: value past the end with ``"pad"``: by default NaN for floats, 0 for other dtypes.

    Raises:
        StepError: for a size or stride below 1, a stride that leaves gaps (unless ``edge="drop"``), a dim
            that is not there, or a scene smaller than the patch (unless ``edge="pad"``).

    >>> patches, shape = patch(2).forward(np.arange(9.0).reshape(3, 3))
    >>> patches.shape, patch(2).undo(patches, residual=shape).shape
    ((4, 2, 2), (3, 3))
    """
    if edge not in ("shift", "pad", "drop"):
        raise StepError(f'patch: edge={edge!r} must be "shift", "pad" or "drop"')
    for what, numbers in (("size", size), ("stride", stride)):
        for number in _numbers(what, numbers):
            if number < 1:
                raise StepError(f"patch: {what}={number} must be 1 or more")
    if isinstance(dims, str):
        dims = (dims,)
    names = tuple(dims) if dims is not None else tuple(size) if isinstance(size, Mapping) else None
    settings: dict[str, Any] = dict(size=size, stride=stride, dims=names, edge=edge)
    step = Patch(
        partial(_split, fill=fill, **settings), partial(_stitch, **settings), reach=POINT, dtype=np.dtype
    )
    for key, value in {**settings, "fill": fill}.items():
        object.__setattr__(step, key, value)
    return step


def _split(x: Array, *, fill: float | None, **settings: Any) -> tuple[Array, NDArray[np.int64]]:
    layout = lay_out(plain_grid(x.shape), **settings)
    whole = Window.whole(layout.dims, x.shape)
    parts = [
        _fill_up(x[(inside := window.intersect(whole)).slices(layout.dims)], window, inside, fill)
        for window in (layout[i] for i in range(len(layout)))
    ]
    shape = tuple(cut.size for cut in layout.cuts)
    stacked = np.stack(parts) if parts else np.empty((0, *shape), x.dtype)
    return stacked, np.array(x.shape, np.int64)


def _stitch(y: Array, *, residual: NDArray[np.int64], **settings: Any) -> Array:
    layout = lay_out(plain_grid(tuple(residual.tolist())), **settings)
    if len(y) != len(layout):
        raise StepError(
            f"stitch: {len(y)} patches, but a scene of {tuple(residual.tolist())} has {len(layout)}"
        )
    canvas = Canvas(tuple(residual.tolist()), y.dtype, layout.patched)
    for number, values in enumerate(y):
        canvas.put(values, [part.start for part in layout[number].values()])
    return canvas.result()


def lay_out(
    grid: Grid,
    *,
    size: Sizes,
    stride: Sizes | None,
    dims: Sequence[str] | None,
    edge: Edge,
    what: str = "the array",
) -> Layout:
    """The windows that a patch step makes of a grid; errors as :func:`patch` says."""
    names = tuple(dims) if dims is not None else grid.spatial
    unknown = [dim for dim in names if dim not in grid.dims]
    if unknown:
        raise StepError(f"patch: {what} has no dim {unknown[0]!r}; its dims are {grid.dims}")
    sizes = _by_dim("size", size, names)
    strides = sizes if stride is None else _by_dim("stride", stride, names)
    cuts = []
    for dim, whole in grid.sizes.items():
        if dim in names:
            cuts.append(_cut(dim, whole, sizes[dim], strides[dim], edge, what))
        else:
            cuts.append(Cut(whole, whole, max(whole, 1), 1, 0))
    return Layout(grid.dims, tuple(cuts), tuple(grid.dims.index(dim) for dim in names))


def _cut(dim: str, whole: int, size: int, stride: int, edge: Edge, what: str) -> Cut:
    if stride > size and edge != "drop":
        raise StepError(
            f"patch: stride {stride} exceeds size {size} in {dim}, which leaves gaps; "
            'use a smaller stride or edge="drop"'
        )
    if size > whole and edge != "pad":
        raise StepError(
            f'patch: size {size} exceeds {dim}={whole} of {what}; use a smaller size or edge="pad"'
        )
    if edge == "drop":
        count = (whole - size) // stride + 1
        return Cut(whole, size, stride, count, (count - 1) * stride)
    if whole == 0:
        raise StepError(f"patch: {what} has no pixels in {dim}")
    count = max(0, math.ceil((whole - size) / stride)) + 1
    return Cut(whole, size, stride, count, (count - 1) * stride if edge == "pad" else whole - size)


def _by_dim(what: str, numbers: Sizes, names: Sequence[str]) -> dict[str, int]:
    if isinstance(numbers, Mapping):
        missing = [dim for dim in names if dim not in numbers]
        if missing:
            raise StepError(f"patch: {what}={dict(numbers)} says nothing of dim {missing[0]!r}")
        return {dim: int(numbers[dim]) for dim in names}
    if isinstance(numbers, Sequence):
        if len(numbers) != len(names):
            raise StepError(
                f"patch: {what}={tuple(numbers)} has {len(numbers)} numbers for the dims {tuple(names)}"
            )
        return {dim: int(number) for dim, number in zip(names, numbers)}
    return dict.fromkeys(names, int(numbers))


def _numbers(what: str, numbers: Sizes | None) -> list[int]:
    if numbers is None:
        return []
    values = list(numbers.values()) if isinstance(numbers, Mapping) else numbers
    found = list(values) if isinstance(values, Sequence) else [values]
    if not all(isinstance(value, (int, np.integer)) and not isinstance(value, bool) for value in found):
        raise StepError(f"patch: {what}={numbers!r} must be whole numbers of pixels")
    return found


def _fill_up(part: Array, window: Window, inside: Window, fill: float | None) -> Array:
    """``part`` (the pixels of ``inside``) set into an array of the size of ``window``."""
    if part.shape == window.shape:
        return part
    value = fill if fill is not None else np.nan if part.dtype.kind in "fc" else 0
    out = np.full(window.shape, value, part.dtype)
    out[inside.relative_to(window).slices(window.dims)] = part
    return out
