"""Steps that move pixels and change no value: crop, transpose, flip, quarter turns. Dims go by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import StepError
from streamgeo.grid import Grid
from streamgeo.parameters import in_unit
from streamgeo.pointwise import Array
from streamgeo.step import POINT, Context, Moves, Step, register
from streamgeo.window import Box, Window

Dim = str | int


@register("crop")
def crop(window: Mapping[str, Box] | None = None, **dims: Box) -> Step:
    """Keep the pixels of a window.

    Args:
        window: a :class:`~streamgeo.window.Window`, or give it dim by dim:
        dims: ``crop(y=slice(0, 256), x=slice(512, 768))``. Dims that are not named stay whole.

    Between an opener and ``patch``, only these pixels are read. Called on an array without a grid, the last
    two dims are ``y`` and ``x``. The dtype stays.

    The inverse puts the pixels back where they were; the rest is NaN (0 for integers). It also takes a
    prediction of another resolution, if its grid has that resolution too.

    Raises:
        StepError: without a window, for one that is empty or starts below 0, or (when it runs) one that
            reaches outside the array or names a dim that is not there.

    >>> crop(y=slice(1, 3), x=slice(0, 1))(np.arange(6).reshape(3, 2)).tolist()
    [[2], [4]]
    """
    if (window is None) == (not dims):
        raise StepError("crop: give a Window, or slices by dim: crop(y=slice(0, 256), x=slice(0, 256))")
    box = Window(dims if window is None else window)
    for dim, part in box.items():
        if part.start < 0 or part.stop <= part.start:
            raise StepError(f"crop: {dim}={part.start}:{part.stop} must start at 0 or above and hold a pixel")
    moves = Moves(partial(_crop_grid, window=box), partial(_crop_source, window=box), _as_it_is)
    return Step(
        partial(_crop, window=box),
        partial(_uncrop, window=box),
        reach=POINT,
        grid=moves,
        dtype=np.dtype,
        lossy="the pixels outside the window",
    )


def _crop(x: Array, *, window: Window, grid: Grid | None = None) -> Array:
    dims = _dims(x, grid, "crop")
    _inside(window, dict(zip(dims, x.shape)))
    return x[window.slices(dims)]


def _uncrop(y: Array, *, window: Window, grid: Grid) -> Array:
    if y.ndim != len(grid.dims):
        raise StepError(f"inverse of crop: a prediction of shape {y.shape} has not the dims {grid.dims}")
    place = tuple(_place(dim, n, window, grid.sizes[dim]) for dim, n in zip(grid.dims, y.shape))
    out = np.full(grid.shape, np.nan if y.dtype.kind in "fc" else 0, y.dtype)
    out[place] = y
    return out


def _place(dim: str, count: int, window: Window, whole: int) -> slice:
    """Where ``count`` pixels of one dim go; they may be finer or coarser than the window by a factor."""
    part = window[dim] if dim in window else slice(0, whole)
    size = part.stop - part.start
    start, rest = divmod(part.start * count, size)
    if rest or start + count > whole:
        raise StepError(
            f"inverse of crop: {count} pixels in {dim} cannot stand for {dim}={part.start}:{part.stop} of a "
            f"grid with {dim}={whole}"
        )
    return slice(start, start + count)


def _crop_grid(grid: Grid, *, window: Window) -> Grid:
    _inside(window, grid.sizes)
    return grid.crop(window)


def _crop_source(out: Window, grid: Grid, *, window: Window) -> Window:
    return out.shift(**{dim: part.start for dim, part in window.items()})


def _inside(window: Window, sizes: Mapping[str, int]) -> None:
    for dim, part in window.items():
        if dim not in sizes:
            raise StepError(f"crop: no dim {dim!r}; the dims are {tuple(sizes)}")
        if part.stop > sizes[dim]:
            box = f"{dim}={part.start}:{part.stop}"
            raise StepError(f"crop: {box} reaches outside {dim}={sizes[dim]}; use a smaller window")


def _as_it_is(x: Any) -> Any:
    return x


@register("transpose")
def transpose(*dims: Dim) -> Step:
    """Put the dims in another order, such as ``transpose("band", "y", "x")`` for bands last in the file.

    Args:
        dims: all dims, by name (or by position, as in ``numpy.transpose``).

    Called on an array without a grid, the last two dims are ``y`` and ``x``. The dtype stays; the inverse is
    exact.

    Raises:
        StepError: without dims, for one that is named twice, or (when it runs) when they are not all the
            dims of the array.

    >>> transpose("x", "y")(np.zeros((2, 3))).shape
    (3, 2)
    """
    _once("transpose", dims)
    moves = Moves(partial(_transpose_grid, dims=dims), _same_window)
    return Step(
        partial(_transpose, dims=dims),
        partial(_untranspose, dims=dims),
        reach=POINT,
        grid=moves,
        dtype=np.dtype,
    )


def _transpose(x: Array, *, dims: Sequence[Dim], grid: Grid | None = None) -> Array:
    return np.transpose(x, _order(dims, _dims(x, grid, "transpose")))


def _untranspose(y: Array, *, dims: Sequence[Dim], grid: Grid | None = None) -> Array:
    order = _order(dims, grid.dims if grid is not None else _names(y.ndim))
    return np.transpose(y, np.argsort(order))


def _transpose_grid(grid: Grid, *, dims: Sequence[Dim]) -> Grid:
    return grid.transpose(*(grid.dims[at] for at in _order(dims, grid.dims)))


def _same_window(out: Window, grid: Grid) -> Window:
    return out


def _order(dims: Sequence[Dim], names: Sequence[str]) -> list[int]:
    order = [_position(dim, names, "transpose") for dim in dims]
    if sorted(order) != list(range(len(names))):
        raise StepError(f"transpose: {dims} is not an order of the dims {tuple(names)}; name each once")
    return order


@register("flip")
def flip(*dims: Dim, p: float | None = None) -> Step:
    """Reverse the order of pixels in the named dims; the grid follows, and the inverse is exact.

    Args:
        dims: by name (or by position).
        p: flip each of the dims with this probability instead, drawn anew for each sample: an augmentation, as
            :func:`random_flip`.

    Called on an array without a grid, the last two dims are ``y`` and ``x``. The dtype stays.

    Raises:
        StepError: without dims, for a p outside 0 to 1, or (when it runs) for a dim that is not there.

    >>> flip("x")(np.array([[1, 2, 3]])).tolist()
    [[3, 2, 1]]
    """
    _once("flip", dims)
    if p is None:
        return _reversal(dims)
    return random_reversal(dims, p, "flip")


def random_reversal(dims: Sequence[Dim], p: float, what: str) -> Step:
    """Each of the dims, or of the horizontal ones where none is named, reversed with probability ``p``."""
    settings: dict[str, Any] = {"dims": tuple(dims)}
    return drawn(
        partial(_flips, p=probability(p, f"{what}: p"), **settings), partial(_some_flipped, **settings)
    )


def _reversal(dims: Sequence[Dim]) -> Step:
    moves = Moves(partial(_flip_grid, dims=dims), partial(_flip_source, dims=dims))
    step = partial(_flip, dims=dims)
    return Step(step, step, reach=POINT, grid=moves, dtype=np.dtype)


def _flip(x: Array, *, dims: Sequence[Dim], grid: Grid | None = None) -> Array:
    names = grid.dims if grid is not None else _names(x.ndim)
    return np.flip(x, tuple(_position(dim, names, "flip") for dim in dims))


def _flips(rng: np.random.Generator, grid: Grid, *, dims: Sequence[Dim], p: float) -> NDArray[np.bool_]:
    return rng.random(len(dims or grid.spatial)) < p


def _some_flipped(flipped: NDArray[np.bool_], grid: Grid, *, dims: Sequence[Dim]) -> Step:
    return _reversal([dim for dim, turned in zip(dims or grid.spatial, flipped) if turned])


def _flip_grid(grid: Grid, *, dims: Sequence[Dim]) -> Grid:
    return grid.flip(*(grid.dims[_position(dim, grid.dims, "flip")] for dim in dims))


def _flip_source(out: Window, grid: Grid, *, dims: Sequence[Dim]) -> Window:
    return _mirror(out, grid, [grid.dims[_position(dim, grid.dims, "flip")] for dim in dims])


def _mirror(window: Window, grid: Grid, dims: Sequence[str]) -> Window:
    """The same pixels counted from the other end of the named dims."""
    box: dict[str, Box] = {}
    for dim, part in window.items():
        size = grid.sizes[dim]
        box[dim] = (size - part.stop, size - part.start) if dim in dims else part
    return Window(box)


@register("rot90")
def rot90(k: int = 1, dims: Sequence[Dim] | None = None) -> Step:
    """Turn by ``k`` quarter turns, from the first of two dims towards the second, as ``numpy.rot90`` does.

    An odd turn of ``(y, x)`` gives an array with the dims ``(x, y)``: one dim flipped, and the two exchanged.
    The grid follows, and the inverse is exact.

    Args:
        k: number of quarter turns; negative turns the other way.
        dims: two dims by name (or by position); by default the two horizontal ones of the grid, or the last
            two of an array without a grid.

    The dtype stays.

    Raises:
        StepError: for a k that is not whole, other than two dims, or (when it runs) a dim that is not there.

    >>> rot90()(np.array([[1, 2], [3, 4]])).tolist()
    [[2, 4], [1, 3]]
    """
    if isinstance(k, bool) or k != int(k):
        raise StepError(f"rot90: k={k!r} must be a whole number of quarter turns")
    plane = tuple(dims) if dims is not None else None
    if plane is not None:
        _once("rot90", plane)
        if len(plane) != 2:
            raise StepError(f"rot90: give two dims, not {plane}")
    turn: dict[str, Any] = {"k": int(k) % 4, "dims": plane}
    moves = Moves(partial(_turn_grid, **turn), partial(_turn_source, **turn))
    return Step(partial(_turn, **turn), partial(_unturn, **turn), reach=POINT, grid=moves, dtype=np.dtype)


def _turn(x: Array, *, k: int, dims: tuple[Dim, Dim] | None, grid: Grid | None = None) -> Array:
    return np.rot90(x, k, _plane(x.ndim, dims, grid))


def _unturn(y: Array, *, k: int, dims: tuple[Dim, Dim] | None, grid: Grid | None = None) -> Array:
    return np.rot90(y, -k, _plane(y.ndim, dims, grid))


def _turn_grid(grid: Grid, *, k: int, dims: tuple[Dim, Dim] | None) -> Grid:
    a, b = _plane(len(grid.dims), dims, grid)
    turned = grid.flip(*_turned(grid, k, dims))
    order = list(grid.dims)
    if k % 2:
        order[a], order[b] = order[b], order[a]
    return turned.transpose(*order)


def _turn_source(out: Window, grid: Grid, *, k: int, dims: tuple[Dim, Dim] | None) -> Window:
    return _mirror(out, grid, _turned(grid, k, dims))


def _turned(grid: Grid, k: int, dims: tuple[Dim, Dim] | None) -> list[str]:
    """Which dims a turn reverses: a quarter turn is one flip and an exchange of the two."""
    first, second = (grid.dims[at] for at in _plane(len(grid.dims), dims, grid))
    return {0: [], 1: [second], 2: [first, second], 3: [first]}[k]


def _plane(ndim: int, dims: tuple[Dim, Dim] | None, grid: Grid | None) -> tuple[int, int]:
    names = grid.dims if grid is not None else _names(ndim)
    chosen: Sequence[Dim] = dims if dims is not None else grid.spatial if grid is not None else names[-2:]
    if len(chosen) != 2:
        raise StepError(f"rot90: an array with the dims {tuple(names)} cannot be turned; it needs two dims")
    a, b = (_position(dim, names, "rot90") for dim in chosen)
    return a, b


# -- a random choice among steps -----------------------------------------------------------------------------


def drawn(
    draw: Callable[[np.random.Generator, Grid], Any],
    made: Callable[[Any, Grid], Step],
    *,
    grid: Callable[[Grid], Grid] = _as_it_is,
    lossy: str | None = None,
) -> Step:
    """A step that is another one for each sample; the grid, the windows that are read and the inverse are its own.

    Args:
        draw: (generator, Grid of the input) to a small array, which is kept for the inverse. It may look at sizes
            and names of dims only, so that keys that lie on one grid get the same.
        made: (that array, Grid of the input) to the step.
        grid: what all of them do to the sizes.
        lossy: what they lose.
    """
    moves = Moves(grid, draw=draw, made=made)
    return Step(
        partial(_drawn, draw=draw, made=made), partial(_undrawn, made=made), reach=POINT, grid=moves,
        dtype=np.dtype, lossy=lossy,
    )  # fmt: skip


def _drawn(
    x: Array, *, rng: np.random.Generator, draw: Any, made: Any, grid: Grid | None = None
) -> tuple[Array, Any]:
    place = _placed(x, grid)
    choice = draw(rng, place)
    return made(choice, place).apply(x, Context(grid))[0], choice


def _undrawn(y: Array, *, residual: Any, made: Any, grid: Grid | None = None) -> Array:
    back: Array = made(residual, _placed(y, grid)).invert(y, Context(grid))
    return back


def _placed(x: Array, grid: Grid | None) -> Grid:
    return Grid.of(_names(np.ndim(x)), np.shape(x)) if grid is None else grid


def probability(value: Any, what: str) -> float:
    """A number from 0 to 1.

    Raises:
        StepError: for another.
    """
    chance = in_unit(value, "", what)
    if not 0 <= chance <= 1:
        raise StepError(f"{what}={chance} must be a probability, 0 to 1")
    return chance


def _names(ndim: int) -> tuple[str, ...]:
    """Dims of an array that came without a grid."""
    return (*(f"dim_{i}" for i in range(ndim - 2)), *("y", "x")[-ndim:]) if ndim else ()


def _dims(x: Array, grid: Grid | None, what: str) -> tuple[str, ...]:
    if grid is None:
        return _names(np.ndim(x))
    if x.shape != grid.shape:
        raise StepError(f"{what}: the array has shape {x.shape}, its grid {grid.sizes}")
    return grid.dims


def _position(dim: Dim, names: Sequence[str], what: str) -> int:
    if isinstance(dim, str):
        if dim not in names:
            raise StepError(f"{what}: no dim {dim!r}; the dims are {tuple(names)}")
        return list(names).index(dim)
    if not -len(names) <= dim < len(names):
        raise StepError(f"{what}: no dim at position {dim}; the dims are {tuple(names)}")
    return dim % len(names)


def _once(what: str, dims: Sequence[Dim]) -> None:
    if not dims:
        raise StepError(f'{what}: name the dims, such as {what}("y", "x")')
    for dim in dims:
        if isinstance(dim, bool) or not isinstance(dim, (str, int)):
            raise StepError(f"{what}: {dim!r} is neither the name of a dim nor a position")
        if list(dims).count(dim) > 1:
            raise StepError(f"{what}: the dim {dim!r} is named twice")
