"""Steps: a pure function on one key, with its inverse and what it needs to know beside it.

A step that streamgeo provides is made by a registered factory, so it prints as the call that made it, compares
by its parameters, pickles, and saves to JSON by name and parameters (never by code).
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial, wraps
from importlib import import_module
from typing import Any, ParamSpec

import numpy as np
from numpy.typing import DTypeLike, NDArray

from streamgeo.errors import InverseError, StepError
from streamgeo.grid import Grid
from streamgeo.parameters import decode, encode, function_key, function_name, literal
from streamgeo.window import Window

Array = NDArray[Any]
P = ParamSpec("P")


@dataclass(frozen=True)
class Reach:
    """What a step needs around a pixel to compute it: a margin in pixels, or the whole scene (None)."""

    margin: int | None

    def __repr__(self) -> str:
        names: dict[int | None, str] = {0: "POINT", None: "SCENE"}
        return names.get(self.margin, f"halo({self.margin})")


POINT = Reach(0)
SCENE = Reach(None)


def halo(pixels: int) -> Reach:
    """The reach of a step that looks ``pixels`` to each side, such as a filter with a small kernel."""
    if pixels < 0:
        raise StepError(f"halo: {pixels} pixels is negative; give 0 or more")
    return Reach(int(pixels))


@dataclass(frozen=True)
class Moves:
    """What a step that moves pixels does to the grid, and where the pixels of a window come from.

    Attributes:
        grid: Grid of the input to Grid of the output.
        source: (window of the output, Grid of the input) to the window of the input that holds its pixels.
        cut: the forward function for pixels that ``source`` has already picked; None means forward itself.
        windowed: whether ``cut`` takes the window of the output as ``window=`` and the Grid of the whole input
            as ``whole=``, because the source of a window holds more than the window itself needs.
        draw: what a random step draws for one sample, (generator, Grid of the input) to a small array: its residual.
            Then ``grid`` tells the sizes of the output only.
        made: (that array, Grid of the input) to the step that it stands for.
    """

    grid: Callable[[Grid], Grid]
    source: Callable[[Window, Grid], Window] | None = None
    cut: Callable[..., Any] | None = None
    windowed: bool = False
    draw: Callable[[np.random.Generator, Grid], Any] | None = None
    made: Callable[[Any, Grid], Step] | None = None

    def cut_for(self, window: Window, whole: Grid) -> Callable[..., Any] | None:
        """``cut`` for one window of the output."""
        if not self.windowed or self.cut is None:
            return self.cut
        return partial(self.cut, window=window, whole=whole)


@dataclass(frozen=True)
class Context:
    """What a step's functions may ask for by keyword name.

    ``grid`` is the grid of the input, for the inverse too: there it is the grid that the result of the inverse
    is to lie on. Where a model changed the resolution by a factor, that grid has the factor as well.
    ``out`` is an array to write the result to, which may be the input itself; None asks for a new one.
    """

    grid: Grid | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)
    rng: np.random.Generator | None = None
    residual: Array | None = None
    out: Array | None = None


_KNOWN = ("grid", "attrs", "rng", "residual", "out")


@lru_cache(maxsize=1024)
def _wants(f: Callable[..., Any]) -> frozenset[str]:
    """Which of the context's names a function asks for by keyword."""
    try:
        parameters = inspect.signature(f).parameters
    except (TypeError, ValueError):  # numpy ufuncs and other builtins have no signature
        return frozenset()
    bound = set(f.keywords) if isinstance(f, partial) else set()
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    first = next(iter(parameters), None)
    return frozenset(
        name
        for name in _KNOWN
        if name in parameters
        and parameters[name].kind
        in (kinds if name != "out" else kinds[:1])  # numpy's own have out by position
        and name not in bound
        and name != first
    )


def wants(f: Callable[..., Any]) -> frozenset[str]:
    """Which of ``grid``, ``attrs``, ``rng`` and ``residual`` a function asks for by keyword name."""
    try:
        return _wants(f)
    except TypeError:  # an unhashable callable
        return _wants.__wrapped__(f)


def _call(f: Callable[..., Any], x: Any, context: Context, operation: str) -> Any:
    names = wants(f)
    if not names:
        return f(x)
    kwargs = {name: getattr(context, name) for name in names}
    for name in ("grid", "rng", "residual"):
        if name in kwargs and kwargs[name] is None and not _optional(f, name):
            raise StepError(f"{operation}: it asks for {name!r}, and there is none here ({_REMEDY[name]})")
    return f(x, **kwargs)


def _optional(f: Callable[..., Any], name: str) -> bool:
    return inspect.signature(f).parameters[name].default is not inspect.Parameter.empty


_REMEDY = {
    "grid": "give grid=, or use the step in a chain whose key was opened from a file",
    "rng": "give rng=numpy.random.default_rng(...), or use the step in a chain",
    "residual": "pass what forward returned beside its value as residual=",
}


@dataclass(frozen=True, eq=False)
class Step:
    """A forward function on an array, its inverse, and its reach.

    Args:
        forward: array to array. It may ask by keyword name for ``grid`` (of the very window it is given),
            ``attrs`` (the file's header), and ``rng`` (depends on seed, epoch and sample index only).
        inverse: array to array, or None. If it asks for ``residual``, forward must return a pair
            ``(value, residual)``, and the inverse gets that residual (a numpy array) back.
        reach: ``POINT``, ``halo(n)`` or ``SCENE``: what forward needs around a pixel.
        grid: what it does to the Grid, when it changes the shape or moves pixels (Grid to Grid).
        dtype: dtype that it returns for a dtype that it is given; by default floats stay as they are and
            integers become float32.
        lossy: what cannot be restored. A lossy step may still have an inverse that restores the rest.
        units: those of its values, or a function of those that it is given (text to text); by default they stay.

    >>> double = Step(partial(np.multiply, 2.0), partial(np.multiply, 0.5), reach=POINT)
    >>> double(np.ones(2, np.float32)).tolist(), double.undo(np.ones(2)).tolist()
    ([2.0, 2.0], [0.5, 0.5])
    """

    forward: Callable[..., Any]
    inverse: Callable[..., Any] | None = None
    reach: Reach = SCENE
    moves: Moves | None = None
    dtype: Callable[[np.dtype[Any]], DTypeLike] | None = None
    lossy: str | None = None
    units: Callable[[str], str] | str | None = None
    name: str | None = None
    args: tuple[Any, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)

    def __init__(
        self,
        forward: Callable[..., Any],
        inverse: Callable[..., Any] | None = None,
        *,
        reach: Reach = SCENE,
        grid: Callable[[Grid], Grid] | Moves | None = None,
        dtype: Callable[[np.dtype[Any]], DTypeLike] | None = None,
        lossy: str | None = None,
        units: Callable[[str], str] | str | None = None,
    ) -> None:
        for what, f in (("forward", forward), ("inverse", inverse)):
            if f is not None and not callable(f):
                raise StepError(f"Step: {what}={f!r} is not a function")
        if not isinstance(reach, Reach):
            raise StepError(f"Step: reach={reach!r} must be sg.POINT, sg.halo(n) or sg.SCENE")
        moves = Moves(grid) if grid is not None and not isinstance(grid, Moves) else grid
        values: dict[str, Any] = {
            "forward": forward, "inverse": inverse, "reach": reach, "moves": moves, "dtype": dtype, "lossy": lossy,
            "units": units, "name": None, "args": (), "params": {},
        }  # fmt: skip
        for key, value in values.items():
            object.__setattr__(self, key, value)

    # -- use --------------------------------------------------------------------------------------------

    def __call__(self, x: Any, **context: Any) -> Any:
        """Forward value of an array; ``context`` gives ``grid``, ``attrs`` or ``rng`` where it asks for them."""
        return self.apply(x, Context(**context))[0]

    def undo(self, y: Any, **context: Any) -> Any:
        """Inverse value of an array; ``context`` gives ``grid``, ``attrs``, ``rng`` or ``residual``."""
        return self.invert(y, Context(**context))

    def apply(self, x: Any, context: Context) -> tuple[Any, Array | None]:
        """Forward value and residual (None for a step whose inverse needs none)."""
        value = _call(self.forward, x, context, self.label) if self.asks else self.forward(x)
        residual = None
        if self.keeps_residual:
            if not (isinstance(value, tuple) and len(value) == 2):
                raise StepError(
                    f"{self.label}: its inverse asks for a residual, so forward must return (value, residual); "
                    f"it returned {type(value).__name__}"
                )
            value, residual = value[0], np.asarray(value[1])
        return self.checked(value), residual

    @property
    def writes_into(self) -> bool:
        """Whether forward can write its result to an array that it is given, and works pixel by pixel."""
        return self.name is not None and "out" in self.asks and self.reach == POINT and self.moves is None

    def apply_in_place(self, x: Array, context: Context) -> None:
        """Forward value of an array of the dtype that it returns, written to that array."""
        value = self.apply(x, replace(context, out=x))[0]
        if value is not x:
            x[...] = value

    def invert(self, y: Any, context: Context) -> Any:
        """Inverse value.

        Raises:
            InverseError: when the step has no inverse.
        """
        return self.checked(_call(self.need_inverse(), y, context, f"inverse of {self.label}"))

    def need_inverse(self) -> Callable[..., Any]:
        """The inverse function, or an InverseError that names the step."""
        if self.inverse is None:
            lost = f" (it loses {self.lossy})" if self.lossy else ""
            raise InverseError(
                f"{self.label} has no inverse{lost}; give one with key_transform(..., inverse=...), "
                "or pass inverse= to predict"
            )
        return self.inverse

    def checked(self, value: Any) -> Any:
        """What a function of the step returned, as an array in native byte order.

        Raises:
            StepError: when it is none, or one whose mask or unit would be lost.
        """
        if (
            type(value) is np.ndarray and value.dtype.isnative and value.dtype.kind not in "OV"
        ):  # nearly always
            return value
        if isinstance(value, tuple):
            raise StepError(
                f"{self.label} returned a tuple; a step returns one array, or (value, residual) where its "
                "inverse asks for residual= by keyword name"
            )
        if isinstance(value, np.ma.MaskedArray):
            raise StepError(
                f"{self.label} returned a masked array; return .filled(numpy.nan) or keep the mask as a key"
            )
        if hasattr(value, "unit") and hasattr(value, "to_value"):
            raise StepError(f"{self.label} returned a Quantity; return .to_value(unit)")
        array = np.asarray(value)
        if value is None or array.dtype.kind in "OV":
            raise StepError(
                f"{self.label} returned {type(value).__name__}; a step must return an array of numbers"
            )
        return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))

    # -- what is known without running ------------------------------------------------------------------

    @cached_property
    def keeps_residual(self) -> bool:
        """Whether the inverse needs what forward saw."""
        return self.inverse is not None and "residual" in wants(self.inverse)

    @cached_property
    def asks(self) -> frozenset[str]:
        """What forward asks for by keyword name."""
        return wants(self.forward)

    @cached_property
    def random(self) -> bool:
        """Whether it draws random numbers."""
        return "rng" in self.asks

    def grid_after(self, grid: Grid, residual: Array | None = None) -> Grid:
        """Grid of the output for a grid of the input; ``residual`` says what a random step has drawn."""
        if self.moves is None:
            return grid
        if residual is not None and self.moves.made is not None:
            return self.moves.made(residual, grid).grid_after(grid)
        return self.moves.grid(grid)

    def settled(self, rng: Callable[[], np.random.Generator], grid: Callable[[], Grid]) -> Step:
        """The step that a random choice among steps is for one sample; else the step itself."""
        if self.moves is None or self.moves.draw is None or self.moves.made is None:
            return self
        place = grid()
        return self.moves.made(self.moves.draw(rng(), place), place)

    def dtype_after(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """Dtype of the output for a dtype of the input."""
        if self.dtype is not None:
            return np.dtype(self.dtype(dtype)).newbyteorder("=")
        return dtype.newbyteorder("=") if dtype.kind in "fc" else np.dtype(np.float32)

    def units_after(self, units: str) -> str:
        """Units of the output for those of the input."""
        if self.units is None:
            return units
        return self.units if isinstance(self.units, str) else self.units(units)

    def replaced(self, *, inverse: Any, reach: Reach) -> Step:
        """The same forward with another inverse or reach; no longer what its factory made."""
        return Step(
            self.forward, inverse, reach=reach, grid=self.moves, dtype=self.dtype, lossy=self.lossy, units=self.units
        )  # fmt: skip

    # -- name, repr, equality, JSON ---------------------------------------------------------------------

    @cached_property
    def label(self) -> str:
        """Short name for messages."""
        return self.name or function_name(self.forward)

    def __repr__(self) -> str:
        if self.name:
            shown = [literal(a) for a in self.args] + [f"{k}={literal(v)}" for k, v in self.params.items()]
            ours = "sg." if REGISTRY[self.name].__module__.startswith("streamgeo.") else ""
            return f"{ours}{self.name}({', '.join(shown)})"
        inverse = f", inverse={function_name(self.inverse)}" if self.inverse else ""
        return f"Step({function_name(self.forward)}{inverse}, reach={self.reach})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Step):
            return NotImplemented
        if self.name or other.name:
            return self.name == other.name and self.to_json() == other.to_json()
        mine, theirs = ((function_key(s.forward), function_key(s.inverse), s.reach) for s in (self, other))
        return mine == theirs

    def __hash__(self) -> int:
        return hash((self.name, self.reach))

    def to_json(self) -> str:
        """Name and parameters as JSON text; :func:`step_from_json` builds the step again.

        Raises:
            StepError: for a step that no registered factory made.
        """
        if not self.name:
            raise StepError(
                f"{self.label}: only registered steps save to JSON; decorate the function that makes it with "
                '@sg.register("name")'
            )
        params = {key: encode(value) for key, value in self.params.items()}
        return json.dumps({"step": self.name, "args": [encode(a) for a in self.args], "params": params})


def as_step(f: Any, *, inverse: Any = None, reach: Reach | None = None) -> Step:
    """A step from a step or from a plain function.

    Raises:
        StepError: when ``f`` is neither, or a step is given an inverse or a reach that it has already.
    """
    if isinstance(f, Step):
        if inverse is not None:
            return f.replaced(inverse=inverse, reach=reach or f.reach)
        return f.replaced(inverse=f.inverse, reach=reach) if reach is not None else f
    if not callable(f):
        raise StepError(f"key_transform: {f!r} is neither a step nor a function")
    return Step(f, inverse, reach=reach or SCENE)


REGISTRY: dict[str, Callable[..., Step]] = {}


def register(name: str) -> Callable[[Callable[P, Any]], Callable[P, Any]]:
    """Decorate a factory of steps, so that what it makes prints, compares and saves by name and parameters.

    >>> @register("doctest_shift")
    ... def shift(by: float):
    ...     return Step(partial(np.add, by), partial(np.add, -by), reach=POINT)
    >>> step_from_json(shift(by=2.0).to_json()) == shift(2.0)
    True
    """

    def decorate(factory: Callable[P, Any]) -> Callable[P, Any]:
        signature = inspect.signature(factory)

        @wraps(factory)
        def make(*args: P.args, **kwargs: P.kwargs) -> Any:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as error:
                raise StepError(f"{name}: {error}; it takes {signature}") from None
            step = factory(*args, **kwargs)
            rest: tuple[Any, ...] = ()
            params: dict[str, Any] = {}
            for key, value in bound.arguments.items():
                kind = signature.parameters[key].kind
                if kind is inspect.Parameter.VAR_POSITIONAL:
                    rest = tuple(value)
                elif kind is inspect.Parameter.VAR_KEYWORD:
                    params.update(value)
                else:
                    params[key] = value
            for key, value in (("name", name), ("args", rest), ("params", params)):
                object.__setattr__(step, key, value)
            return step

        REGISTRY[name] = make
        return make

    return decorate


def step_from_json(text: str) -> Step:
    """Build a step again from what :meth:`Step.to_json` gave.

    Raises:
        StepError: when the text is not a step, or no registered factory has that name.
    """
    try:
        content = json.loads(text)
        name, args, params = content["step"], content.get("args", []), content["params"]
    except (ValueError, KeyError, TypeError) as error:
        raise StepError(f"step_from_json: not the JSON of a step ({error})") from None
    if name not in REGISTRY:
        import_module("streamgeo.catalog")
    if name not in REGISTRY:
        raise StepError(
            f"step_from_json: no step is registered as {name!r}; import the module that registers it"
        )
    rest = [decode(value, step_from_json) for value in args]
    made = REGISTRY[name](*rest, **{key: decode(value, step_from_json) for key, value in params.items()})
    assert isinstance(made, Step)
    return made
