"""Parameters of steps: as JSON, as text that builds them again, and in units."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from streamgeo.errors import StepError
from streamgeo.window import Window


def encode(value: Any) -> Any:
    """A parameter as what JSON can hold: numbers, text, arrays, slices, windows, quantities, dtypes, mappings."""
    if isinstance(value, slice):
        return {"slice": [value.start, value.stop]}
    if hasattr(value, "to_value") and hasattr(value, "unit"):
        return {"quantity": encode(np.asarray(value.value)[()]), "unit": str(value.unit)}
    if hasattr(value, "to_json"):
        return {"step": json.loads(value.to_json())}
    if isinstance(value, Window):
        return {"window": {k: [s.start, s.stop] for k, s in value.items()}}
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": value.dtype.str}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
        return np.dtype(value).name  # so that cast(np.float16) and cast("float16") are one step
    if isinstance(value, (list, tuple)):
        return [encode(v) for v in value]
    if isinstance(value, Mapping):
        return {"map": [[encode(k), encode(v)] for k, v in value.items()]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise StepError(f"a parameter of type {type(value).__name__} cannot be saved to JSON")


def decode(value: Any, build: Callable[[str], Any]) -> Any:
    """Inverse of :func:`encode`; ``build`` makes a step of its JSON text."""
    if isinstance(value, list):
        return [decode(v, build) for v in value]
    if not isinstance(value, dict):
        return value
    if "slice" in value:
        return slice(*value["slice"])
    if "quantity" in value:
        from astropy.units import Quantity

        return Quantity(decode(value["quantity"], build), value["unit"])
    if "window" in value:
        return Window({k: tuple(v) for k, v in value["window"].items()})
    if "step" in value:
        return build(json.dumps(value["step"]))
    if "array" in value:
        return np.array(value["array"], dtype=value["dtype"])
    return {decode(k, build): decode(v, build) for k, v in value["map"]}


def literal(value: Any) -> str:
    """Text that builds a parameter again."""
    if isinstance(value, slice):
        return f"slice({value.start}, {value.stop})"
    if hasattr(value, "to_value") and hasattr(value, "unit"):
        return f"Quantity({np.asarray(value.value).tolist()!r}, {str(value.unit)!r})"
    if isinstance(value, Window):
        return f"sg.{value!r}"
    if isinstance(value, np.ndarray):
        return f"np.array({value.tolist()!r}, {value.dtype.str!r})".replace("nan", "np.nan").replace(
            "inf", "np.inf"
        )
    if isinstance(value, np.generic):
        return repr(value.item())
    if isinstance(value, type) and issubclass(value, np.generic):
        return repr(np.dtype(value).name)
    if isinstance(value, np.dtype):
        return repr(value.name)
    return repr(value)


def function_name(f: Any) -> str:
    """A readable name of any callable, with the parameters of a partial."""
    if isinstance(f, partial):
        inner = ", ".join([*map(repr, f.args), *(f"{k}={v!r}" for k, v in f.keywords.items())])
        return f"partial({function_name(f.func)}, {inner})"
    return getattr(f, "__qualname__", None) or getattr(f, "__name__", None) or repr(f)


def objection(check: Callable[[Mapping[str, Any]], Any], attrs: Mapping[str, Any]) -> str | None:
    """Why a header does not pass a check, in the words of its ``why`` if it has one; None where it passes."""
    why = getattr(check, "why", None)
    if why is None:
        return None if check(attrs) else f"{function_name(check)} does not hold"
    reason = why(attrs)
    return None if reason is None else str(reason)


def function_key(f: Any) -> Any:
    """What two callables are compared by: partials by function and parameters."""
    if isinstance(f, partial):
        return ("partial", function_key(f.func), repr(f.args), repr(sorted(f.keywords.items())))
    return f


def in_unit(value: Any, unit: str, what: str) -> float:
    """A plain float in ``unit`` from a number (taken to be in that unit) or an astropy Quantity.

    Raises:
        StepError: when the unit cannot be converted, or the value is not a finite number.
    """
    if hasattr(value, "to_value"):
        try:
            value = value.to_value(unit)
        except Exception as error:
            raise StepError(f"{what}: {value} cannot be given in {unit} ({error})") from None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise StepError(f"{what}: {value!r} is not a number in {unit}") from None
    if not np.isfinite(number):
        raise StepError(f"{what}: {number} is not finite")
    return number
