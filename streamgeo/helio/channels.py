"""Files of several channels matched by observation time, from their headers alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from streamgeo.errors import StepError
from streamgeo.headers import looked_at
from streamgeo.helio.dates import CARDS, observed
from streamgeo.names import matching
from streamgeo.parameters import in_unit, objection
from streamgeo.sources.fits import open_scene

LOG = logging.getLogger("streamgeo")
Check = Callable[[Mapping[str, Any]], Any]
Floats = NDArray[np.float64]

_WHAT = "helio.match_channels"


@dataclass(frozen=True)
class Matched(Sequence[tuple[str, ...]]):
    """Files that belong together: one tuple of paths for each time, in the order of ``channels``.

    Attributes:
        channels: their names.
        groups: the tuples, by time of the first channel.
        left_out: the files that are in none, with the reason.
    """

    channels: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]
    left_out: Mapping[str, str]

    @property
    def samples(self) -> list[dict[str, str]]:
        """One dict of paths by channel for each time, as ``sg.buffer_from_vector`` takes them."""
        return [dict(zip(self.channels, group)) for group in self.groups]

    def __len__(self) -> int:
        return len(self.groups)

    @overload
    def __getitem__(self, index: int) -> tuple[str, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[tuple[str, ...], ...]: ...
    def __getitem__(self, index: int | slice) -> tuple[str, ...] | tuple[tuple[str, ...], ...]:
        """The files of one time, or of several."""
        return self.groups[index]

    def __repr__(self) -> str:
        return f"<{len(self)} times of {', '.join(self.channels)}; {len(self.left_out)} files left out>"


def match_channels(
    files: Mapping[str, str | Path | Sequence[str | Path]],
    tolerance: Any = 12.0,
    *checks: Check,
    cards: Sequence[str] = CARDS,
    hdu: int | str | None = None,
) -> Matched:
    """Match the FITS files of several channels by nearest observation time; no pixel is read.

    A file of each other channel is matched to one of the first: the pair that is nearest in time comes first, and
    no file is used twice. Times at which a channel is missing are left out, and told in ``left_out``.

    Where all channels share their pixels, ``sg.files(matched, key="image")`` with ``sg.open_fits()`` stacks them to
    one scene ``(file, y, x)``. Else open them one by one, ``sg.buffer_from_vector(matched.samples)``, register each
    (:func:`registration`), and patch all keys at once.

    Args:
        files: a pattern such as ``"aia/*.0171.fits"``, or a list of paths, by the name of the channel.
        tolerance: seconds, or a Quantity, by which another channel may be apart from the first.
        checks: functions of the header that say whether to use a file, such as those of ``sg.helio.select``: done
            first, so that a good file takes the place of a bad one.
        cards: cards of the time, of which the first that is there counts; by default T_OBS, DATE-OBS, DATE_OBS,
            DATE-AVG, DATE-BEG.
        hdu: index or EXTNAME of the HDU; by default the first image.

    Raises:
        StepError: for less than two channels, one without files, or a tolerance below 0.
        OpenError: for a file that cannot be opened.

    >>> match_channels({"171": "aia/*171.fits", "193": "aia/*193.fits"}, 6.0)  # doctest: +SKIP
    <412 times of 171, 193; 9 files left out>
    """
    if len(files) < 2:
        raise StepError(f"{_WHAT}: give the files of two channels or more, by name")
    most = in_unit(tolerance, "s", f"{_WHAT}: tolerance")
    if most < 0:
        raise StepError(f"{_WHAT}: tolerance={most:g} s must be 0 or more")
    paths = {str(name): _paths(str(name), given) for name, given in files.items()}
    left_out: dict[str, str] = {}
    kept = {
        name: _timed(found, partial(_look, checks=checks, cards=tuple(cards), hdu=hdu), left_out)
        for name, found in paths.items()
    }
    groups = _grouped(kept, most, left_out)
    if left_out:
        path, reason = next(iter(left_out.items()))
        LOG.info("%s: %d files left out, such as %s: %s", _WHAT, len(left_out), path, reason)
    return Matched(tuple(paths), groups, left_out)


def _paths(name: str, given: str | Path | Sequence[str | Path]) -> list[str]:
    if isinstance(given, str | Path):
        found = matching(given)
    else:
        found = [str(path) for path in given]
    if not found:
        raise StepError(f"{_WHAT}: channel {name!r} has no files: {str(given)!r} in {Path.cwd()}")
    return found


# -- headers --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Channel:
    """Files by time, in TAI seconds."""

    paths: tuple[str, ...]
    times: Floats


def _look(
    path: str, *, checks: Sequence[Check], cards: tuple[str, ...], hdu: int | str | None
) -> float | str:
    """The time of a file in TAI seconds, or why it is not used."""
    attrs = open_scene(path, hdu=hdu).attrs
    for check in checks:
        if (reason := objection(check, attrs)) is not None:
            return reason
    try:
        return float(observed(attrs, _WHAT, cards).tai.mjd) * 86400
    except StepError as error:
        return str(error)


def _timed(paths: list[str], look: Callable[[str], float | str], left_out: dict[str, str]) -> _Channel:
    found = list(looked_at(look, paths))
    left_out.update({path: reason for path, reason in zip(paths, found) if isinstance(reason, str)})
    timed = sorted((time, path) for path, time in zip(paths, found) if not isinstance(time, str))
    return _Channel(tuple(path for _, path in timed), np.array([time for time, _ in timed], np.float64))


# -- times ----------------------------------------------------------------------------------------------------


def _grouped(
    channels: Mapping[str, _Channel], tolerance: float, left_out: dict[str, str]
) -> tuple[tuple[str, ...], ...]:
    (lead, first), *others = channels.items()
    partners = {name: nearest_pairs(first.times, other.times, tolerance) for name, other in others}
    groups = []
    for number, path in enumerate(first.paths):
        missing = [name for name, found in partners.items() if found[number] < 0]
        if missing:
            left_out[path] = " and ".join(
                _alone(name, first.times[number], channels[name].times, tolerance) for name in missing
            )
        else:
            groups.append((path, *(channels[name].paths[found[number]] for name, found in partners.items())))
    used = {path for group in groups for path in group}
    for name, other in others:
        takers = {int(at): first.paths[number] for number, at in enumerate(partners[name]) if at >= 0}
        for number, path in enumerate(other.paths):
            if path not in used:
                taker = takers.get(number)
                left_out[path] = (
                    _alone(lead, other.times[number], first.times, tolerance)
                    if taker is None
                    else f"it belongs to {Path(taker).name}, which has {left_out[taker]}"
                )
    return tuple(groups)


def _alone(other: str, time: float, times: Floats, tolerance: float) -> str:
    """Why a file of one channel has no partner in another."""
    if not times.size:
        return f"no {other} that can be used"
    apart = float(np.abs(times - time).min())
    if apart <= tolerance:
        return f"no {other} within {tolerance:g} s that has not a nearer one"
    return f"no {other} within {tolerance:g} s; the nearest is {apart:.6g} s away"


def nearest_pairs(a: Floats, b: Floats, tolerance: float) -> NDArray[np.int64]:
    """For each of the sorted times ``a`` the index of its partner in the sorted ``b``, -1 for none.

    The pair that is nearest comes first, then the nearest of those that are left; of equally near ones the earlier.
    """
    found = np.full(a.size, -1, np.int64)
    free_a, free_b = np.arange(a.size), np.arange(b.size)
    while free_a.size and free_b.size:
        # who are nearest to one another are a pair, whatever becomes of the others
        near_b, near_a = _nearest(a[free_a], b[free_b]), _nearest(b[free_b], a[free_a])
        apart = np.abs(a[free_a] - b[free_b][near_b])
        paired = (near_a[near_b] == np.arange(free_a.size)) & (apart <= tolerance)
        if not paired.any():
            break
        found[free_a[paired]] = free_b[near_b[paired]]
        free_a, free_b = free_a[~paired], np.delete(free_b, near_b[paired])
    return found


def _nearest(x: Floats, y: Floats) -> NDArray[np.int64]:
    """The index in the sorted ``y`` of what is nearest to each of ``x``."""
    after = np.searchsorted(y, x).clip(1, max(y.size - 1, 1))
    if y.size == 1:
        return np.zeros(x.size, np.int64)
    return np.where(x - y[after - 1] <= y[after] - x, after - 1, after)
