"""What is said where a library that only some operations need is not there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import streamgeo as sg
from streamgeo import climate, helio, made, plot
from streamgeo.errors import OpenError, StepError, StreamGeoError
from streamgeo.optional import optional

HOLED = np.array([[1.0, np.nan]])


def _field(folder: Path) -> Any:
    return sg.open_netcdf("sst")(made.sea(folder, count=1, shape=(4, 6))[0])


def _image(folder: Path) -> Any:
    return sg.open_fits()(made.sun(folder, count=1, size=32)[0])


@pytest.mark.parametrize(
    ("module", "extra", "kind", "call"),
    [
        ("xarray", "xarray", StepError, lambda folder: _field(folder).to_xarray()),
        ("xarray", "xarray", StepError, lambda _: sg.from_xarray(None)),
        ("xarray", "xarray", StepError, lambda _: climate.on_dataarray(abs)(np.ones(3))),
        ("scipy.ndimage", "xarray", StepError, lambda _: climate.fill_gaps()(HOLED)),
        ("scipy.sparse", "xarray", StepError, lambda _: climate.fill_gaps("inpaint")(HOLED)),
        ("sunpy.map", "sun", StepError, lambda folder: _image(folder).to_map()),
        ("sunpy.map", "sun", StepError, lambda _: sg.from_maps([])),
        (
            "aiapy.calibrate", "sun", StepError,
            lambda _: helio.degradation("none.txt")(HOLED, attrs={"T_OBS": "2011-01-01", "WAVELNTH": 171}),
        ),
        ("zarr", "zarr", OpenError, lambda folder: sg.open_zarr()(made_store(folder))),
        ("matplotlib", "plot", StreamGeoError, lambda folder: plot.triptych(folder / "a.png", [], "")),
    ],
)  # fmt: skip
def test_the_error_names_the_extra(
    module: str,
    extra: str,
    kind: type[StreamGeoError],
    call: Callable[[Path], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(kind, match=rf"needs {module}.*pip install 'streamgeo\[{extra}\]'"):
        call(tmp_path)


def made_store(folder: Path) -> Path:
    (folder / "a.zarr").mkdir()
    (folder / "a.zarr" / "zarr.json").write_text("{}")
    return folder / "a.zarr"


def test_a_library_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zarr", SimpleNamespace(__version__="2.18.1"))
    with pytest.raises(OpenError, match=r"try: it needs zarr 3, and zarr 2.18.1 is installed; pip install"):
        optional("zarr", "zarr", "try", least=3, error=OpenError)
