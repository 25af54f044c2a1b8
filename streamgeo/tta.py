"""Test-time augmentation: the model sees each patch in several orientations, and its answers are turned back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgeo.answers import answers
from streamgeo.errors import ChainError, StepError

Array = NDArray[Any]


@dataclass(frozen=True)
class Turn:
    """``turns`` quarter turns of the last two axes, from the first to the second, after a mirroring of the last one."""

    turns: int = 0
    mirrored: bool = False

    def forward(self, x: Array) -> Array:
        """The turned array, contiguous."""
        if self.turns % 2 and x.shape[-1] != x.shape[-2]:
            raise StepError(f"tta: a quarter turn needs square patches, these are {x.shape}; use sg.flips()")
        mirrored = x[..., ::-1] if self.mirrored else x
        return np.ascontiguousarray(np.rot90(mirrored, self.turns, (-2, -1)))

    def inverse(self, y: Array) -> Array:
        """An answer of the model turned back."""
        back = np.rot90(y, -self.turns, (-2, -1))
        return back[..., ::-1] if self.mirrored else back


def d4() -> tuple[Turn, ...]:
    """The eight orientations of a square: four quarter turns, each also mirrored.

    >>> x = np.arange(9.0).reshape(3, 3)
    >>> all(np.array_equal(turn.inverse(turn.forward(x)), x) for turn in d4()), len(d4())
    (True, 8)
    """
    return tuple(Turn(turns, mirrored) for mirrored in (False, True) for turns in range(4))


def flips() -> tuple[Turn, ...]:
    """The four orientations of a rectangle: itself, mirrored in each of the last two axes, and in both.

    >>> [turn.forward(np.array([[1, 2], [3, 4]])).tolist()[0] for turn in flips()]
    [[1, 2], [4, 3], [2, 1], [3, 4]]
    """
    return Turn(0), Turn(2), Turn(0, True), Turn(2, True)


def averaged(model: Callable[..., Any], turns: Sequence[Turn], batches: int) -> Callable[..., Any]:
    """The model's mean answer over orientations of what it is given.

    Answers that have pixels (two dims behind those of the batches) are turned back first.

    Raises:
        ChainError: for what is no sequence of :class:`Turn`.
    """
    if isinstance(turns, Turn) or not turns or not all(isinstance(turn, Turn) for turn in turns):
        raise ChainError(f"predict: tta={turns!r} must be sg.d4(), sg.flips() or a part of these")

    def run(*arrays: Array) -> Any:
        answers = [_answer(model(*(turn.forward(x) for x in arrays)), turn, batches) for turn in turns]
        if isinstance(answers[0], dict):
            return {name: _mean([answer[name] for answer in answers]) for name in answers[0]}
        return _mean(answers)

    return run


def _answer(made: Any, turn: Turn, batches: int) -> Any:
    if isinstance(made, Mapping):
        return {name: _answer(value, turn, batches) for name, value in made.items()}
    (array,) = answers(made).values()
    if array.dtype.kind not in "fc":
        raise StepError(
            f"tta: answers are averaged, and the model returned {array.dtype}; return probabilities, and let "
            'predict(..., decide="argmax") choose'
        )
    return turn.inverse(array) if array.ndim - batches >= 2 else array


def _mean(answers: Sequence[Array]) -> Array:
    mean = np.mean(answers, axis=0, dtype=np.result_type(answers[0], np.float64))
    return np.asarray(mean, answers[0].dtype)
