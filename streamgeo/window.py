"""Windows: half-open boxes of pixels in named dims. Arithmetic only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import GridError

Box = slice | tuple[int, int]


class Window(Mapping[str, slice]):
    """A half-open box of pixels in named dims.

    A window is a mapping from dim to ``slice(start, stop)``. It may reach outside the scene (a negative
    start, or a stop past the end): :meth:`clip` cuts it to what is there.

    >>> w = Window(y=slice(0, 256), x=slice(512, 768))
    >>> w.shape, w["x"].start
    ((256, 256), 512)
    >>> w.shift(y=10)
    Window(y=slice(10, 266), x=slice(512, 768))

    Raises:
        GridError: for a step other than 1, an open end, parts of pixels, or a stop before its start.
    """

    __slots__ = ("_box",)

    def __init__(self, box: Mapping[str, Box] | None = None, /, **dims: Box) -> None:
        self._box: dict[str, tuple[int, int]] = {
            name: _bounds(name, value) for name, value in {**(box or {}), **dims}.items()
        }

    @classmethod
    def _of(cls, box: dict[str, tuple[int, int]]) -> Window:
        """From starts and stops that are known to be right: every patch makes a few windows."""
        new = cls.__new__(cls)
        new._box = box
        return new

    @classmethod
    def whole(cls, dims: Sequence[str], shape: Sequence[int]) -> Window:
        """The window that covers an array of ``shape`` with these ``dims``."""
        return cls({name: (0, int(size)) for name, size in zip(dims, shape, strict=True)})

    @classmethod
    def from_array(cls, dims: Sequence[str], array: NDArray[np.int64]) -> Window:
        """From an int64 array of shape ``(ndim, 2)``: start and stop in each dim, as samples carry it."""
        return cls({name: (int(lo), int(hi)) for name, (lo, hi) in zip(dims, array, strict=True)})

    def to_array(self, dims: Sequence[str] | None = None) -> NDArray[np.int64]:
        """Start and stop in each dim: int64 of shape ``(ndim, 2)``."""
        box = self._box.values() if dims is None else [self._box[name] for name in dims]
        return np.array(list(box), np.int64).reshape(-1, 2)

    def __getitem__(self, dim: str) -> slice:
        return slice(*self._box[dim])

    def __iter__(self) -> Iterator[str]:
        return iter(self._box)

    def __len__(self) -> int:
        return len(self._box)

    def __eq__(self, other: object) -> bool:
        return self._box == other._box if isinstance(other, Window) else NotImplemented

    def __hash__(self) -> int:
        return hash(frozenset(self._box.items()))

    def __repr__(self) -> str:
        return f"Window({', '.join(f'{name}=slice({lo}, {hi})' for name, (lo, hi) in self._box.items())})"

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the dims, in order."""
        return tuple(self._box)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of pixels in each dim."""
        return tuple([hi - lo for lo, hi in self._box.values()])  # quicker than a generator, and asked often

    def slices(self, dims: Sequence[str]) -> tuple[slice, ...]:
        """Index of an array with these ``dims``; a dim that the window does not name is taken whole."""
        return tuple(slice(*self._box[name]) if name in self._box else slice(None) for name in dims)

    def box(self, dims: Sequence[str]) -> tuple[tuple[int, int], ...]:
        """Start and stop along these dims, which it must name."""
        box = self._box
        return tuple([box[dim] for dim in dims])

    def shift(self, **offset: int) -> Window:
        """Moved by ``offset`` pixels in the named dims."""
        return Window(
            {
                name: (lo + offset.get(name, 0), hi + offset.get(name, 0))
                for name, (lo, hi) in self._box.items()
            }
        )

    def expand(self, margin: int, dims: Sequence[str] | None = None) -> Window:
        """Grown by ``margin`` pixels on both sides of the named dims (of all when None)."""
        grown = set(self._box if dims is None else dims)
        return Window(
            {
                name: (lo - margin, hi + margin) if name in grown else (lo, hi)
                for name, (lo, hi) in self._box.items()
            }
        )

    def intersect(self, other: Window) -> Window:
        """What both cover, empty where they do not meet. Dims that only ``other`` has are ignored."""
        out = {}
        for name, (lo, hi) in self._box.items():
            a, b = other._box.get(name, (lo, hi))
            start = min(max(lo, a), max(b, a))
            out[name] = (start, max(start, min(hi, b)))
        return Window(out)

    def clip(self, dims: Sequence[str], shape: Sequence[int]) -> Window:
        """Cut to an array of ``shape`` with these ``dims``."""
        return self.intersect(Window.whole(dims, shape))

    def within(self, dims: Sequence[str], shape: Sequence[int]) -> bool:
        """Whether it lies wholly inside an array of ``shape`` with these ``dims``."""
        if tuple(self._box) == tuple(dims):  # nearly always
            # Several times as quick as all().
            for (lo, hi), size in zip(self._box.values(), shape):  # noqa: SIM110
                if lo < 0 or hi > size:
                    return False
            return True
        sizes = dict(zip(dims, shape, strict=True))
        return all(lo >= 0 and hi <= sizes[name] for name, (lo, hi) in self._box.items())

    def relative_to(self, outer: Window) -> Window:
        """The same pixels counted from the start of ``outer``."""
        return self.shift(**{name: -lo for name, (lo, _) in outer._box.items()})

    def complete(self, dims: Sequence[str], shape: Sequence[int]) -> Window:
        """In the order of ``dims``, with a dim that is not named taken whole.

        Raises:
            GridError: when it names a dim that is not among ``dims``.
        """
        if tuple(self._box) == tuple(dims):
            return self
        unknown = [name for name in self._box if name not in dims]
        if unknown:
            raise GridError(f"window: no dim {unknown[0]!r}; the dims are {tuple(dims)}")
        return Window(
            {name: self._box.get(name, (0, int(size))) for name, size in zip(dims, shape, strict=True)}
        )


def _bounds(name: str, value: Box) -> tuple[int, int]:
    if isinstance(value, slice):
        if value.step not in (None, 1) or value.start is None or value.stop is None:
            raise GridError(f"window: {name}={value} must have a start, a stop and a step of 1")
        value = (value.start, value.stop)
    lo, hi = int(value[0]), int(value[1])
    if (lo, hi) != (value[0], value[1]):
        raise GridError(f"window: {name}={tuple(value)} must be whole pixels; round them first")
    if hi < lo:
        raise GridError(f"window: {name} stops at {hi}, before its start {lo}")
    return lo, hi
