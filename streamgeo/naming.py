"""Errors that say where they happened: step, file, window and sample."""

from __future__ import annotations

from types import TracebackType

from streamgeo.errors import SampleError
from streamgeo.window import Window


class naming:
    """Turn an exception into a SampleError that names step, file, window and sample; outer blocks add theirs."""

    __slots__ = ("file", "index", "step", "window")

    def __init__(
        self, step: str, *, index: int | None = None, file: str | None = None, window: Window | None = None
    ) -> None:
        self.step, self.index, self.file, self.window = step, index, file, window

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, SampleError):
            if self.index is not None and error.index is None:
                raise at_sample(error, self.index) from error.__cause__
        elif isinstance(error, Exception):
            raise self.named(error) from error

    def named(self, error: Exception) -> SampleError:
        """What an exception is turned into."""
        file, window, index = self.file, repr(self.window) if self.window else None, self.index
        where = "".join(f" {text}" for text in (f"on {file}" if file else "", window or "") if text)
        head = f"sample {index}" if index is not None else f"{self.step} failed{where}"
        step = self.step if index is None else None
        return SampleError(f"{head}: {says(error)}", index=index, file=file, window=window, step=step or None)


def says(error: Exception) -> str:
    """Kind and message of an error."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def at_sample(error: SampleError, index: int) -> SampleError:
    """The same error with the number of the sample."""
    return SampleError(
        f"sample {index}: {error}", index=index, file=error.file, window=error.window, step=error.step
    )
