from __future__ import annotations

import json
import pickle
import threading
from functools import partial
from typing import Any

import numpy as np
import pytest
from astropy.units import Quantity
from hypothesis import given
from hypothesis import strategies as st

import streamgeo as sg
from streamgeo.errors import InverseError, StepError
from streamgeo.parameters import function_key, function_name, in_unit, literal
from streamgeo.step import (
    POINT,
    REGISTRY,
    SCENE,
    Context,
    Moves,
    Step,
    as_step,
    halo,
    register,
    step_from_json,
    wants,
)
from streamgeo.window import Window
from tests.laws import PLANE

X = np.arange(6.0).reshape(2, 3)


def double(x: Any) -> Any:
    return x * 2


def halve(y: Any) -> Any:
    return y / 2


def centre(x: Any) -> Any:
    return x - x.mean(), x.mean()


def uncentre(y: Any, *, residual: Any) -> Any:
    return y + residual


def everything(x: Any, *, grid: Any, attrs: Any, rng: Any) -> Any:
    return x * grid.shape[0] + attrs["k"] + rng.integers(0, 1)


@register("test_step.power")
def power(exponent: float, *, note: Any = None) -> Step:
    return (
        Step(partial(np.power, 1.0), reach=POINT) if exponent is None else Step(partial(_power, n=exponent))
    )


def _power(x: Any, *, n: float) -> Any:
    return x**n


@register("test_step.each")
def each(*dims: str, **sizes: Any) -> Step:
    return Step(double)


@register("test_step.anything")
def anything(value: Any) -> Step:
    return Step(double)


# -- what a function asks for ---------------------------------------------------------------------------


def test_wants_finds_keywords() -> None:
    assert wants(everything) == {"grid", "attrs", "rng"}
    assert wants(uncentre) == {"residual"}
    assert wants(double) == frozenset()


def test_wants_leaves_out_what_is_bound_first_or_not_a_keyword() -> None:
    assert wants(partial(everything, grid=PLANE)) == {"attrs", "rng"}
    assert wants(lambda grid: grid) == frozenset()
    assert wants(lambda x, grid: x) == {"grid"}
    assert wants(lambda x, *grid, **attrs: x) == frozenset()


def test_wants_of_builtins_and_unhashables() -> None:
    class Call:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, x: Any, *, rng: Any) -> Any:
            return x

    assert wants(np.sin) == frozenset()
    assert wants(Call()) == {"rng"}


def test_a_step_gets_what_it_asks_for_and_nothing_else() -> None:
    step = Step(everything)
    assert step.asks == {"grid", "attrs", "rng"}
    assert step.random
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(step(X, grid=PLANE, attrs={"k": 5}, rng=rng), X * 12 + 5)
    np.testing.assert_array_equal(Step(double)(X, grid=PLANE, attrs={}, rng=rng), X * 2)


@pytest.mark.parametrize(("name", "remedy"), [("grid", "give grid="), ("rng", "give rng=numpy.random")])
def test_missing_context_is_named(name: str, remedy: str) -> None:
    context = {"grid": PLANE, "rng": np.random.default_rng(0), "attrs": {"k": 1}}
    del context[name]
    with pytest.raises(
        StepError, match=rf"everything: it asks for '{name}', and there is none here \({remedy}"
    ):
        Step(everything)(X, **context)


def test_context_with_a_default_may_be_missing() -> None:
    step = Step(lambda x, *, grid=None: x + (0 if grid is None else 1))
    assert step(X).tolist() == X.tolist()
    assert step(X, grid=PLANE).tolist() == (X + 1).tolist()


def test_residuals_go_from_forward_to_inverse() -> None:
    step = Step(centre, uncentre)
    assert step.keeps_residual
    value, residual = step.apply(X, Context())
    assert isinstance(residual, np.ndarray)
    np.testing.assert_array_equal(step.invert(value, Context(residual=residual)), X)
    np.testing.assert_array_equal(step(X), X - X.mean())
    with pytest.raises(
        StepError, match=r"inverse of centre: it asks for 'residual'.*pass what forward returned"
    ):
        step.undo(value)


def test_forward_must_return_the_residual() -> None:
    with pytest.raises(StepError, match=r"double: its inverse asks for a residual.*it returned ndarray"):
        Step(double, uncentre)(X)


# -- what a function returns ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "returned NoneType; a step must return an array of numbers"),
        (np.ma.masked_array(X, X > 3), r"returned a masked array; return .filled\(numpy.nan\)"),
        (Quantity(X, "m"), r"returned a Quantity; return .to_value\(unit\)"),
        ((X, X), r"returned a tuple; a step returns one array, or \(value, residual\)"),
        ({"a": 1}, "returned dict"),
        ([object()], "returned list"),
    ],
)
def test_results_that_are_not_arrays(result: Any, message: str) -> None:
    def give(x: Any) -> Any:
        return result

    for call in (Step(give), Step(double, give).undo):
        with pytest.raises(StepError, match=message):
            call(X)


def test_another_inverse_does_not_let_a_pair_pass_for_an_array() -> None:
    with pytest.raises(StepError, match=r"_fill.* returned a tuple"):
        sg.fill_nan().replaced(inverse=double, reach=POINT)(X)


def test_scalars_and_lists_become_arrays() -> None:
    assert Step(lambda x: float(x.sum()))(X).shape == ()
    assert Step(lambda x: [1, 2])(X).tolist() == [1, 2]


def test_no_inverse() -> None:
    with pytest.raises(
        InverseError, match=r"double has no inverse; give one with key_transform\(..., inverse=...\)"
    ):
        Step(double).undo(X)
    with pytest.raises(InverseError, match=r"double has no inverse \(it loses the sign\)"):
        Step(double, lossy="the sign").need_inverse()


# -- making steps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Step(3), r"Step: forward=3 is not a function"),
        (lambda: Step(double, "no"), r"Step: inverse='no' is not a function"),
        (lambda: Step(double, reach=4), r"Step: reach=4 must be sg.POINT, sg.halo\(n\) or sg.SCENE"),
        (lambda: halo(-1), r"halo: -1 pixels is negative"),
        (lambda: as_step(7), r"key_transform: 7 is neither a step nor a function"),
        (lambda: power(), r"test_step.power: missing a required argument: 'exponent'; it takes \(exponent"),
        (lambda: power(2, wrong=1), r"test_step.power: got an unexpected keyword argument 'wrong'"),
    ],
)
def test_steps_that_cannot_be_made(make: Any, message: str) -> None:
    with pytest.raises(StepError, match=message):
        make()


def test_reach() -> None:
    assert [repr(r) for r in (POINT, SCENE, halo(3))] == ["POINT", "SCENE", "halo(3)"]
    assert halo(0) == POINT
    assert halo(2).margin == 2
    assert Step(double).reach == SCENE


def test_as_step() -> None:
    known = sg.normalize(1.0, 2.0)
    assert as_step(known) is known
    assert as_step(double).reach == SCENE
    assert as_step(double, inverse=halve, reach=POINT).undo(X).tolist() == (X / 2).tolist()
    near = as_step(known, reach=SCENE)
    assert near.reach == SCENE
    assert near.name is None
    assert near.undo(near(X)).tolist() == X.tolist()
    other = as_step(known, inverse=double)
    assert other.reach == POINT
    assert other.undo(X).tolist() == (X * 2).tolist()


def test_grid_and_dtype_after() -> None:
    step = Step(double, grid=lambda grid: grid.flip("x"), dtype=lambda d: np.int16)
    assert isinstance(step.moves, Moves)
    assert step.moves.source is None
    assert step.grid_after(PLANE) == PLANE.flip("x")
    assert step.dtype_after(np.dtype("f4")) == np.int16
    plain = Step(double)
    assert plain.grid_after(PLANE) is PLANE
    assert plain.dtype_after(np.dtype("f8")) == np.float64
    assert plain.dtype_after(np.dtype("u2")) == np.float32


def test_steps_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Step(double).reach = POINT  # type: ignore[misc]


# -- repr, equality, hash -------------------------------------------------------------------------------


def test_repr_of_registered_and_plain_steps() -> None:
    assert repr(power(2)) == "test_step.power(exponent=2)"
    assert repr(power(2, note="a'b")) == 'test_step.power(exponent=2, note="a\'b")'
    assert repr(each("y", "x", size=3)) == "test_step.each('y', 'x', size=3)"
    assert repr(Step(double, halve, reach=halo(2))) == "Step(double, inverse=halve, reach=halo(2))"
    assert repr(Step(partial(_power, n=2))) == "Step(partial(_power, n=2), reach=SCENE)"


def test_positional_and_keyword_arguments_are_one_step() -> None:
    assert power(2.0) == power(exponent=2.0)
    assert hash(power(2.0)) == hash(power(exponent=2.0))
    assert power(2.0) != power(3.0)
    assert power(2.0) != power(2.0, note="x")


def test_plain_steps_compare_by_function_and_parameters() -> None:
    assert Step(partial(_power, n=2)) == Step(partial(_power, n=2))
    assert Step(partial(_power, n=2)) != Step(partial(_power, n=3))
    assert Step(double) != Step(double, halve)
    assert Step(double) != Step(double, reach=POINT)
    assert Step(double) != power(2)
    assert Step(double) != double
    assert function_key(partial(_power, n=2)) == function_key(partial(_power, n=2))


def test_names_of_functions() -> None:
    assert function_name(double) == "double"
    assert function_name(np.sin) == "sin"
    assert function_name(partial(double, 1, k=2)) == "partial(double, 1, k=2)"


def test_pickle_keeps_name_and_parameters() -> None:
    step = pickle.loads(pickle.dumps(power(2, note=[1, 2])))
    assert step == power(2, note=[1, 2])
    assert repr(step) == repr(power(2, note=[1, 2]))
    assert step(X).tolist() == (X**2).tolist()


# -- JSON -----------------------------------------------------------------------------------------------

VALUES = [
    None, True, 3, -2.5, "text", [1, [2, "x"]], (1, 2), slice(3, 7), slice(None, 4), Quantity(617.3, "nm"),
    Quantity([1.0, 2.0], "DN/s"), Window(y=(0, 3), x=(2, 5)), np.arange(4, dtype=np.int16),
    np.array([[1.0, np.nan], [np.inf, 0.0]], np.float32), np.float64(0.1), np.int8(3), {"y": 3, "x": [1]}, {},
    {1: "a"}, np.dtype("float16"), np.uint8,
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_parameters_survive_json_and_repr(value: Any) -> None:
    step = anything(value)
    text = step.to_json()
    json.loads(text)
    again = step_from_json(text)
    assert again == step
    assert again.to_json() == text
    scope = {"sg": sg, "np": np, "Quantity": Quantity, "anything": anything}
    assert eval(f"anything({literal(value)})", scope) == step


def test_parameters_come_back_as_what_they_were() -> None:
    for value in (slice(3, 7), Window(y=(0, 3)), {"y": 3, "x": [1]}, 0.1, None):
        assert step_from_json(anything(value).to_json()).params["value"] == value
    array = np.array([[1.0, np.nan], [np.inf, 0.0]], np.float32)
    found = step_from_json(anything(array).to_json()).params["value"]
    np.testing.assert_array_equal(found, array)
    assert found.dtype == np.float32
    length = step_from_json(anything(Quantity(617.3, "nm")).to_json()).params["value"]
    assert length.to_value("m") == pytest.approx(617.3e-9)


def test_a_step_as_a_parameter() -> None:
    step = anything(power(2))
    again = step_from_json(step.to_json())
    assert again == step
    assert again.params["value"] == power(2)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_survive_json_exactly(value: float) -> None:
    assert step_from_json(anything(value).to_json()).params["value"] == value


def test_what_json_cannot_hold() -> None:
    with pytest.raises(StepError, match="double: only registered steps save to JSON"):
        Step(double).to_json()
    with pytest.raises(StepError, match="a parameter of type object cannot be saved to JSON"):
        anything(object()).to_json()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"step": "x"}', "nonsense", "null", "3"])
def test_text_that_is_no_step(text: str) -> None:
    with pytest.raises(StepError, match="step_from_json: not the JSON of a step"):
        step_from_json(text)


def test_a_name_that_nobody_registered() -> None:
    with pytest.raises(StepError, match="no step is registered as 'nobody'"):
        step_from_json('{"step": "nobody", "params": {}}')


def test_register_keeps_the_factory_readable() -> None:
    assert REGISTRY["test_step.power"] is power
    assert power.__name__ == "power"
    assert sg.normalize.__doc__ is not None
    assert "zero mean" in sg.normalize.__doc__


# -- units ----------------------------------------------------------------------------------------------


def test_in_unit() -> None:
    assert in_unit(617.3, "nm", "w") == 617.3
    assert in_unit(Quantity(6173, "Angstrom"), "nm", "w") == pytest.approx(617.3)
    assert in_unit(np.float32(2), "s", "t") == 2.0


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Quantity(1, "s"), r"w: 1.0 s cannot be given in nm"),
        ("red", r"w: 'red' is not a number in nm"),
        (None, r"w: None is not a number in nm"),
        (float("nan"), r"w: nan is not finite"),
        (Quantity(np.inf, "m"), r"w: inf is not finite"),
    ],
)
def test_in_unit_refuses(value: Any, message: str) -> None:
    with pytest.raises(StepError, match=message):
        in_unit(value, "nm", "w")


def test_steps_run_in_many_threads_at_once() -> None:
    step = sg.normalize(2.0, 4.0)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(step(X))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(np.array_equal(y, (X - 2) / 4) for y in found)
