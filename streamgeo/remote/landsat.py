"""Landsat metadata (MTL files) to steps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

from streamgeo.errors import OpenError, StepError
from streamgeo.remote.radiometry import brightness_temperature, radiance, toa_reflectance
from streamgeo.remote.reflectance import reflectance
from streamgeo.step import Step

Quantity = Literal["radiance", "reflectance", "temperature", "surface_reflectance", "surface_temperature"]
Band = int | str
MTL = Mapping[str, Any]


def read_mtl(path: str | Path) -> dict[str, Any]:
    """The fields of a Landsat MTL file, ``_MTL.txt`` (ODL), ``_MTL.json`` or ``_MTL.xml``, as one flat dict.

    Numbers become int or float, the rest stays text. Where groups of Collection 2 level 2 repeat a field, the
    scale of level 2 is kept under ``LEVEL2_`` names: ``REFLECTANCE_MULT_BAND_2`` is that of level 1.

    Raises:
        OpenError: when the file is missing or damaged, or holds no MTL fields.

    >>> import tempfile
    >>> lines = "GROUP = IMAGE_ATTRIBUTES", "  SUN_ELEVATION = 43.5", "END_GROUP = IMAGE_ATTRIBUTES", "END"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "MTL.txt")
    ...     _ = path.write_text("\\n".join(lines))
    ...     read_mtl(path)
    {'SUN_ELEVATION': 43.5}
    """
    try:
        text = Path(path).read_text(errors="replace")
    except OSError as error:
        raise OpenError(f"remote.read_mtl: {path} cannot be read ({error})") from error
    read = {"{": _from_json, "<": _from_xml}.get(text.lstrip("\ufeff \t\r\n")[:1], _from_odl)
    try:
        entries = read(text)
    except (ValueError, SyntaxError) as error:  # what json and xml raise
        raise OpenError(f"remote.read_mtl: {path} is damaged ({error}); fetch it anew") from error
    fields: dict[str, Any] = {}
    for group, name, value in entries:
        level_2 = group.startswith("LEVEL2_") and group.endswith("PARAMETERS")
        fields.setdefault(f"LEVEL2_{name}" if level_2 else name, _number(value))
    if not fields:
        raise OpenError(f"remote.read_mtl: {path} holds no lines NAME = VALUE as an MTL file does")
    return fields


def _from_odl(text: str) -> list[tuple[str, str, str]]:
    found, groups = [], [""]
    for line in text.splitlines():
        name, equals, value = (part.strip() for part in line.partition("="))
        if name == "GROUP":
            groups.append(value)
        elif name == "END_GROUP":
            groups.pop()
        elif equals and name:
            found.append((groups[-1] if groups else "", name, value.strip('"')))
    return found


def _from_json(text: str) -> list[tuple[str, str, str]]:
    return list(_leaves("", json.loads(text)))


def _leaves(group: str, content: Any) -> Any:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _leaves(name, value)
        else:
            yield group, name, str(value)


def _from_xml(text: str) -> list[tuple[str, str, str]]:
    groups = ElementTree.fromstring(text).iter()
    return [(group.tag, field.tag, field.text or "") for group in groups for field in group if not len(field)]


def _number(value: str) -> Any:
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def landsat(mtl: str | Path | MTL, bands: Band | Sequence[Band], quantity: Quantity = "reflectance") -> Step:
    """The step that makes physical values of the digital numbers of Landsat bands, from the MTL file.

    Args:
        mtl: path of the MTL file, or its fields as :func:`read_mtl` gives them.
        bands: number or name of the band (``4``, ``"10"``, ``"6_VCID_1"``), or several, in the order in which
            they lie on axis -3.
        quantity: of level 1, ``"radiance"`` in W/(m2 sr um), ``"reflectance"`` at the top of the atmosphere
            (corrected for the elevation of the sun), or ``"temperature"`` (brightness, kelvin); of level 2,
            ``"surface_reflectance"`` or ``"surface_temperature"`` (kelvin).

    Returns:
        ``remote.radiance``, ``remote.toa_reflectance``, ``remote.brightness_temperature`` or
        ``remote.reflectance`` with the numbers of the file in it, so that it saves without the file.

    Raises:
        OpenError: when the file cannot be read.
        StepError: for another quantity, or a field that is missing.

    >>> fields = {"REFLECTANCE_MULT_BAND_4": 2e-5, "REFLECTANCE_ADD_BAND_4": -0.1, "SUN_ELEVATION": 30.0}
    >>> landsat(fields, 4)
    sg.remote.toa_reflectance(gain=2e-05, offset=-0.1, sun_elevation=30.0)
    """
    fields = mtl if isinstance(mtl, Mapping) else read_mtl(mtl)

    def of(name: str, prefix: str = "") -> Any:
        if isinstance(bands, (int, str)):
            return _field(fields, f"{name}_BAND_{prefix}{bands}")
        return [_field(fields, f"{name}_BAND_{prefix}{band}") for band in bands]

    step: Step
    if quantity == "radiance":
        step = radiance(gain=of("RADIANCE_MULT"), offset=of("RADIANCE_ADD"))
    elif quantity == "reflectance":
        gain, offset = of("REFLECTANCE_MULT"), of("REFLECTANCE_ADD")
        step = toa_reflectance(gain=gain, offset=offset, sun_elevation=_field(fields, "SUN_ELEVATION"))
    elif quantity == "temperature":
        step = brightness_temperature(
            of("K1_CONSTANT"), of("K2_CONSTANT"), gain=of("RADIANCE_MULT"), offset=of("RADIANCE_ADD")
        )
    elif quantity == "surface_reflectance":
        step = reflectance(scale=of("LEVEL2_REFLECTANCE_MULT"), offset=of("LEVEL2_REFLECTANCE_ADD"))
    elif quantity == "surface_temperature":
        scale, offset = of("LEVEL2_TEMPERATURE_MULT", "ST_B"), of("LEVEL2_TEMPERATURE_ADD", "ST_B")
        step = reflectance(scale=scale, offset=offset)
    else:
        raise StepError(
            f'remote.landsat: quantity={quantity!r} must be "radiance", "reflectance", "temperature", '
            '"surface_reflectance" or "surface_temperature"'
        )
    return step


def _field(fields: MTL, name: str) -> float:
    if name not in fields:
        raise StepError(f"remote.landsat: the MTL file has no field {name}; is it of this band and level?")
    return float(fields[name])
