"""Operations on keys and on whole samples: steps, plain functions, renaming, choosing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Self

from numpy.typing import NDArray

from streamgeo import links
from streamgeo.errors import ChainError, StepError
from streamgeo.parameters import function_name
from streamgeo.plan import Run
from streamgeo.step import Reach, as_step
from streamgeo.steps.patch import Patch
from streamgeo.vocabulary.base import Described, Key, conditional, names

Array = NDArray[Any]
Sample = dict[str, Array]


class Transforms(Described):
    """Steps on keys, and changes of whole samples."""

    def key_transform(
        self,
        key: Key,
        func: Any,
        output_key: Key = "",
        *,
        inverse: Callable[..., Any] | None = None,
        reach: Reach | None = None,
    ) -> Self:
        """Apply a step, or a plain function on arrays, to the value of a key.

        Args:
            key: the key, or several: then each gets the same windows and the same random draws.
            func: a :class:`~streamgeo.Step` such as ``sg.normalize(...)``, or a function array -> array.
            output_key: where the result goes; by default it replaces the value.
            inverse: the function that undoes a plain ``func``.
            reach: what a plain ``func`` needs around a pixel: ``sg.POINT``, ``sg.halo(n)``, or the whole scene
                (the default, since nothing is known of it).

        Raises:
            StepError: when ``func`` is neither a step nor a function.
            ChainError: when keys and output keys do not match in number.
        """
        step = as_step(func, inverse=inverse, reach=reach)
        keys = names("key_transform", "key", key)
        outputs = names("key_transform", "output_key", output_key) if output_key else keys
        if len(keys) != len(outputs):
            raise ChainError(
                f"key_transform: {len(keys)} keys {keys} but {len(outputs)} output keys {outputs}"
            )
        shown = [
            repr(key if isinstance(key, str) else tuple(key)),
            repr(func) if step is func else function_name(func),
        ]
        shown += [repr(output_key)] if output_key else []
        shown += [f"inverse={function_name(inverse)}"] if inverse else []
        shown += [f"reach={reach}"] if reach else []
        kind = links.Expand if isinstance(step, Patch) else links.Map
        if kind is links.Expand and any(isinstance(n, links.Batch) for n in self.node.path):
            raise ChainError(
                "patch: after batch the scenes are stacked; put .key_transform(..., patch) before .batch"
            )
        return self._with(kind(self.node, keys, outputs, step, f".key_transform({', '.join(shown)})"))  # type: ignore[arg-type]

    def sample_transform(
        self, func: Callable[[Sample], Mapping[str, Any]], *, keys: Sequence[str] | None = None
    ) -> Self:
        """Apply a function to whole samples, dict of arrays to dict of arrays.

        Args:
            func: the function; it gets its own dict, whose arrays it may change.
            keys: the keys that it changes. The others can still be predicted and inverted; when it is left
                out, all keys count as changed.

        A Stream skips samples for which ``func`` returns an empty dict.
        """
        if not callable(func):
            raise StepError(f"sample_transform: {func!r} is not a function")
        told = "" if keys is None else f", keys={tuple(keys)!r}"
        shown = f".sample_transform({function_name(func)}{told})"
        change = partial(links.transform_sample, f=func)
        kind = links.Edit if self.node.indexable else links.Drop
        return self._with(kind(self.node, change, shown, None if keys is None else tuple(keys)))

    def filter_by_attrs(self, key: str, *predicates: Callable[[Mapping[str, Any]], Any]) -> Self:
        """Only samples whose header passes; no pixel is read for it, and a Buffer stays a Buffer.

        The headers of a Buffer are read once, when the first sample or the length is asked for (of many files by
        threads), and :meth:`left_out` tells what did not pass. Put it behind the opener, and before ``patch``.

        Args:
            key: the key, which must come from a file.
            predicates: functions of the header (a dict of cards, tags or attributes) that say whether to keep the
                file, such as ``lambda attrs: attrs["EXPTIME"] > 1``; or checks such as those of
                ``sg.helio.select``, which know the reason.

        Raises:
            StepError: without a predicate, or for one that is not a function.
        """
        (key,) = names("filter_by_attrs", "key", (key,))
        if not predicates or not all(callable(predicate) for predicate in predicates):
            raise StepError(f"filter_by_attrs: give functions of a header, not {predicates!r}")
        shown = f".filter_by_attrs({', '.join([repr(key), *map(function_name, predicates)])})"
        return self._with(links.Choose(self.node, key, predicates, shown))

    def left_out(self) -> dict[str, str]:
        """The files that :meth:`filter_by_attrs` leaves out of a Buffer, with the reason; reads all headers.

        Raises:
            ChainError: where it stands behind a stream, which does not know its files beforehand.
        """
        found: dict[str, str] = {}
        for link in self.node.path:
            if isinstance(link, links.Choose):
                if not link.indexable:
                    raise ChainError("left_out: a stream knows its files at its end only; filter a Buffer")
                found.update(link.chosen(Run(self.node.seed, 0)).left_out)
        return found

    def rename_key(self, key: str, output_key: str) -> Self:
        """The value of ``key`` under another name."""
        key, output_key = names("rename_key", "key", (key, output_key))
        shown = f".rename_key({key!r}, {output_key!r})"
        change = partial(links.rename, key=key, output_key=output_key)
        return self._with(links.Edit(self.node, change, shown, renames=(key, output_key)))

    def filter_key(self, key: str, remove: bool = False) -> Self:
        """Only this key, or all but this key with ``remove=True``."""
        (key,) = names("filter_key", "key", (key,))
        shown = f".filter_key({key!r}{', remove=True' if remove else ''})"
        return self._with(links.Edit(self.node, partial(links.select_keys, key=key, remove=remove), shown))

    key_transform_if = conditional(key_transform)
    sample_transform_if = conditional(sample_transform)
    rename_key_if = conditional(rename_key)
    filter_key_if = conditional(filter_key)
