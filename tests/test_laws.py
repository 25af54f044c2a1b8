from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamgeo as sg
from streamgeo.errors import InverseError, StepError
from streamgeo.step import REGISTRY
from tests import laws
from tests.laws import CASES, EXEMPT, Case

ALL = [pytest.param(case, id=f"{name}-{i}") for name, found in CASES.items() for i, case in enumerate(found)]
INVERTIBLE = [param for param in ALL if param.values[0].step.inverse is not None]
WINDOWED = [param for param in ALL if param.values[0].step.reach.margin is not None]
MOVING = [param for param in ALL if param.values[0].step.moves is not None]
seeds = st.integers(0, 2**32 - 1)


def test_every_registered_step_has_a_case() -> None:
    assert laws.registered() == CASES.keys() | EXEMPT.keys()
    assert not CASES.keys() & EXEMPT.keys()


@pytest.mark.parametrize("name", sorted(CASES))
def test_cases_stand_under_their_name(name: str) -> None:
    assert {case.step.name for case in CASES[name]} == {name}


@pytest.mark.parametrize("name", sorted(CASES | dict.fromkeys(EXEMPT)))
def test_public_name(name: str) -> None:
    found = sg
    for part in name.split("."):
        found = getattr(found, part)
    assert found is REGISTRY[name]


@pytest.mark.parametrize("case", INVERTIBLE)
@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_inverse_restores(case: Case, seed: int) -> None:
    laws.inverse_restores(case, laws.pixels(case, seed))


@pytest.mark.parametrize("case", INVERTIBLE)
def test_inverse_restores_float64(case: Case) -> None:
    laws.inverse_restores(case, laws.pixels(case, 1, dtype=np.float64))


@pytest.mark.parametrize("case", WINDOWED)
@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_window_commutes(case: Case, seed: int) -> None:
    after = case.step.grid_after(case.grid)
    window = laws.some_window(after, np.random.default_rng(seed), case.uncut)
    laws.window_commutes(case, laws.pixels(case, seed, dtype=(np.float32, np.float64)[seed % 2]), window)


@pytest.mark.parametrize("case", [p for p in WINDOWED if not p.values[0].step.random])
@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_plan_commutes(case: Case, seed: int) -> None:
    after = case.step.grid_after(case.grid)
    window = laws.some_window(after, np.random.default_rng(seed), case.uncut)
    laws.plan_commutes(case, laws.pixels(case, seed), window)


@pytest.mark.parametrize("case", MOVING)
def test_grid_follows(case: Case) -> None:
    laws.grid_follows(case, laws.pixels(case, 0))


@pytest.mark.parametrize("case", ALL)
def test_dtype_as_declared(case: Case) -> None:
    laws.dtype_as_declared(case)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint16, np.int32])
@pytest.mark.parametrize("case", ALL)
def test_layouts_do_not_matter(case: Case, dtype: type) -> None:
    laws.layouts_do_not_matter(case, laws.pixels(case, 6, dtype=dtype))


@pytest.mark.parametrize("case", WINDOWED)
def test_nothing_is_nothing(case: Case) -> None:
    laws.nothing_is_nothing(case, laws.pixels(case, 7))


@pytest.mark.parametrize("case", ALL)
def test_all_missing_stays_missing(case: Case) -> None:
    laws.all_missing_stays_missing(case)


@pytest.mark.parametrize("case", [p for p in ALL if p.values[0].takes_nan])
@settings(max_examples=5, deadline=None)
@given(seed=seeds)
def test_nan_stays(case: Case, seed: int) -> None:
    laws.nan_stays(case, laws.pixels(case, seed))


@pytest.mark.parametrize("case", [p for p in ALL if not p.values[0].takes_nan])
def test_nan_is_refused(case: Case) -> None:
    x = laws.pixels(case, 4)
    x[(1,) * x.ndim] = np.nan
    with pytest.raises(StepError, match="NaN"):
        case.forward(x)


@pytest.mark.parametrize("case", ALL)
def test_input_untouched(case: Case) -> None:
    laws.input_untouched(case, laws.pixels(case, 2))


@pytest.mark.parametrize("law", [laws.survives_pickle, laws.survives_json, laws.repr_builds])
@pytest.mark.parametrize("case", ALL)
def test_is_built_again(case: Case, law: object) -> None:
    law(case, laws.pixels(case, 3))  # type: ignore[operator]


def test_json_is_read_by_a_fresh_interpreter() -> None:
    texts = [case.step.to_json() for found in CASES.values() for case in found]
    code = (
        "import sys; from streamgeo.step import step_from_json;"
        "[print(step_from_json(line).to_json()) for line in sys.stdin]"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], input="\n".join(texts), capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines() == texts


@pytest.mark.parametrize("case", [p for p in ALL if p.values[0].step.inverse is None])
def test_no_inverse_says_what_it_loses(case: Case) -> None:
    assert case.step.lossy
    with pytest.raises(InverseError, match=case.step.lossy):
        case.step.undo(np.ones(case.grid.shape))


@pytest.mark.parametrize("case", INVERTIBLE)
def test_a_lossy_inverse_says_so(case: Case) -> None:
    exact = case.restores and case.atol < 0.5 and case.rtol < 1e-4
    assert (case.step.lossy is None) == exact
