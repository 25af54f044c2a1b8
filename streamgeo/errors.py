"""The errors that streamgeo raises on purpose.

Every message names the operation, the value, the limit and the remedy, so that it can be acted on as it is.
"""

from __future__ import annotations


class StreamGeoError(Exception):
    """Base of every error that streamgeo raises on purpose."""


class OpenError(StreamGeoError, OSError):
    """A file is missing, empty, truncated, corrupt, or does not hold what was asked for."""


class GridError(StreamGeoError, ValueError):
    """A window or a grid does not allow the operation."""


class StepError(StreamGeoError, ValueError):
    """A step was given parameters it cannot work with, or returned the wrong thing."""


class InverseError(StepError):
    """The inverse that was asked for does not exist."""


class ChainError(StreamGeoError, ValueError):
    """A chain was put together in a way that cannot run."""


class MissingKeyError(ChainError, KeyError):
    """A sample has no such key."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class BatchError(ChainError):
    """Samples of one batch do not fit together."""


class WriteError(StreamGeoError, OSError):
    """A scene could not be written."""


class WaitError(StreamGeoError, TimeoutError):
    """A sample was not there within the time that the caller would wait for it; it is still being made."""


class SampleError(StreamGeoError, RuntimeError):
    """A sample of a chain failed; the original exception is its ``__cause__``.

    Attributes: ``index`` (position of the sample), ``file``, ``window`` and ``step`` (strings, or None).
    """

    def __init__(
        self,
        message: str,
        *,
        index: int | None = None,
        file: str | None = None,
        window: str | None = None,
        step: str | None = None,
    ) -> None:
        super().__init__(message)
        self.index = index
        self.file = file
        self.window = window
        self.step = step

    def __reduce__(self) -> tuple[object, ...]:
        return _sample_error, (str(self), self.index, self.file, self.window, self.step)


def _sample_error(
    message: str, index: int | None, file: str | None, window: str | None, step: str | None
) -> SampleError:
    return SampleError(message, index=index, file=file, window=window, step=step)
