from __future__ import annotations

from typing import Any

import pytest

from streamgeo.errors import StepError
from streamgeo.helio.dates import observed

DATES: list[tuple[dict[str, Any], str]] = [
    ({"DATE-OBS": "2012-01-01T00:16:07.836"}, "2012-01-01T00:16:07.836"),
    ({"DATE-OBS": "1998-05-19T22:21:43.000Z"}, "1998-05-19T22:21:43.000"),
    ({"T_OBS": "2011.02.15_01:59:54_TAI", "DATE-OBS": "2011-02-15T00:00:00"}, "2011-02-15T01:59:20.000"),
    ({"T_OBS": "2011.02.15_01:59:54.5_UTC"}, "2011-02-15T01:59:54.500"),
    ({"T_OBS": " ", "DATE_OBS": " 2013-08-01T07:47:20.120 "}, "2013-08-01T07:47:20.120"),
    ({"DATE-OBS": "2011-02-15", "TIME-OBS": "10:20:30"}, "2011-02-15T10:20:30.000"),
    ({"DATE-OBS": "2011/09/22", "TIME-OBS": "10:30:00.5"}, "2011-09-22T10:30:00.500"),
    (
        {"DATE-OBS": "12-OCT-1998", "TIME_OBS": "10:20:30"},
        "1998-10-12T10:20:30.000",
    ),  # a T that starts no time
    ({"DATE-OBS": "12-OCT-1998 10:20:30", "TIME-OBS": "11:00:00"}, "1998-10-12T10:20:30.000"),
    ({"DATE-OBS": "2011-02-15T01:00:00", "TIME-OBS": "10:20:30"}, "2011-02-15T01:00:00.000"),
    ({"DATE-OBS": "22/09/98", "TIME-OBS": "01:02:03"}, "1998-09-22T01:02:03.000"),
    ({"DATE-OBS": "22/09/98"}, "1998-09-22T00:00:00.000"),
    # TAI is 34 s ahead of UTC in 2011; TT 32.184 s more
    ({"DATE-OBS": "2011-02-15T00:00:34", "TIMESYS": "TAI"}, "2011-02-15T00:00:00.000"),
    ({"DATE-OBS": "2011-02-15T00:01:06.184", "TIMESYS": "TT"}, "2011-02-15T00:00:00.000"),
    ({"DATE-OBS": "2011-02-15T00:00:00", "TIMESYS": "UTC"}, "2011-02-15T00:00:00.000"),
    ({"T_OBS": "2011-02-15T00:00:00Z", "TIMESYS": "TAI"}, "2011-02-15T00:00:00.000"),
    ({"T_OBS": "2011.02.15_00:00:34_TAI", "TIMESYS": "UTC"}, "2011-02-15T00:00:00.000"),
]


@pytest.mark.parametrize(("attrs", "utc"), DATES)
def test_dates_of_headers(attrs: dict[str, Any], utc: str) -> None:
    assert observed(attrs, "test").utc.isot == utc


@pytest.mark.parametrize("text", ["yesterday", "07/06/2011", "-4712.01.01_11:59:28_TAI", "2011-13-01"])
def test_what_is_no_date(text: str) -> None:
    with pytest.raises(StepError, match=r"test: DATE-OBS='.*' is not a date"):
        observed({"DATE-OBS": text}, "test")


def test_the_scale_of_the_header_is_that_of_sunpy() -> None:
    sunpy_map = pytest.importorskip("sunpy.map")
    import numpy as np

    header = {
        "CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN", "CUNIT1": "arcsec", "CUNIT2": "arcsec", "CDELT1": 1, "CDELT2": 1,
        "CRPIX1": 1, "CRPIX2": 1, "CRVAL1": 0, "CRVAL2": 0, "DATE-OBS": "2011-02-15T00:00:34", "TIMESYS": "TAI",
    }  # fmt: skip
    expected = sunpy_map.Map(np.zeros((2, 2)), header).date
    assert abs((observed(header, "test") - expected).sec) < 1e-6
