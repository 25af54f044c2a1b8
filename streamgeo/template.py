"""Template: what a written file takes over from the file that was read, beside values and grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, eq=False)
class Template:
    """What a sink needs to write a file of the same kind.

    Attributes:
        format: ``"fits"``, ``"geotiff"``, ``"netcdf"``, ``"hdf5"`` or ``"numpy"``.
        dims: dims of the array in the file, in the file's order (a stacking dim of several variables first).
        raw: values are as stored, so dtype, scale, offset and fill are written as they were. Otherwise values
            are physical floats: no scale and offset are written, and NaN becomes the fill value.
        name: variable or dataset, several joined by commas.
        units: units of the physical values, "" where unknown.
        nodata: fill value in the space of the values, or None.
        attrs: the header, tags or attributes that functions see as ``attrs``.
        carry: whatever else the sink of this format wants; sinks of other formats ignore it.
    """

    format: str
    dims: tuple[str, ...]
    raw: bool = False
    name: str = ""
    units: str = ""
    nodata: float | int | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)
    carry: Mapping[str, Any] = field(default_factory=dict)

    def in_units(self, units: str) -> Template:
        """The same for values in other units, which ``attrs`` say too."""
        name = "BUNIT" if self.format == "fits" else "units"
        return replace(self, units=units, attrs={**self.attrs, name: units})
