"""Nothing of mlx-data's vocabulary is forgotten: its names and argument names, read from the installed one."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import mlx.data as dx
import pytest

import streamgeo as sg

# What differs, and why.
LEFT_OUT = {
    "datasets": "downloads",
    "BufferIterator": "an iterator is an iterator",
}
DEFAULTS = {
    ("batch", "pad"): "None for {}: a mutable default",
    ("batch", "dim"): "the same",
    ("dynamic_batch", "pad"): "the same",
    ("dynamic_batch", "dim"): "the same",
    ("load_audio", "info_type"): "None for LoadAudioInfo.All, so that the import stays light",
    ("load_audio_if", "info_type"): "the same",
    ("tokenize", "mode"): "None for TokenizeMode.Shortest, so that the import stays light",
    ("tokenize_if", "mode"): "the same",
    ("tokenize", "trie_key_scores"): "() for []: a mutable default",
    ("tokenize_if", "trie_key_scores"): "the same",
}


def arguments(doc: str, name: str) -> list[tuple[str, str | None]]:
    """Argument names and defaults in the first line that pybind11 writes into a docstring."""
    inside = doc[doc.index(f"{name}(") + len(name) + 1 : doc.index(") -> ")]
    parts, depth, quoted, start = [], 0, False, 0
    for at, char in enumerate(inside):
        quoted ^= char == "'" and inside[at - 1] != "\\"
        depth += 0 if quoted else (char in "[({<") - (char in "])}>" and inside[at - 1] != "-")
        if char == "," and not depth and not quoted:
            parts.append(inside[start:at])
            start = at + 1
    found = []
    for part in [*parts, inside[start:]]:
        if name_of := re.match(r"\s*(\w+)(?:: [^=]*)?(?: = (.*))?$", part, re.DOTALL):
            found.append((name_of[1], name_of[2]))
    return [(key, default) for key, default in found if key != "self"]


METHODS = [
    (kind, name)
    for kind in ("Buffer", "Stream")
    for name in dir(getattr(dx, kind))
    if not name.startswith("__") or name in ("__len__", "__getitem__", "__iter__", "__next__", "__call__")
]


def test_there_is_something_to_compare() -> None:
    names = {name for _, name in METHODS}
    assert {"pad_if", "sliding_window", "image_random_area_crop", "read_from_tar", "dynamic_batch"} <= names
    assert len(METHODS) > 130
    assert arguments(dx.Stream.batch.__doc__, "batch") == [("batch_size", None), ("pad", "{}"), ("dim", "{}")]


@pytest.mark.parametrize(("kind", "name"), METHODS)
def test_methods_have_the_same_arguments(kind: str, name: str) -> None:
    ours = getattr(getattr(sg, kind), name, None)
    assert callable(ours), f"{kind}.{name} is missing"
    if name.startswith("__"):
        return
    check(ours, getattr(getattr(dx, kind), name), name)


def check(ours: object, theirs: object, name: str) -> None:
    parameters = inspect.signature(ours).parameters  # type: ignore[arg-type]
    names = [key for key in parameters if key != "self"]
    wanted = [entry for entry in arguments(theirs.__doc__ or "", name) if entry[0] != "*"]
    assert names[: len(wanted)] == [key for key, _ in wanted]
    for key, default in wanted:
        given = parameters[key].default
        if default is None:
            continue
        if (name, key) in DEFAULTS:
            assert given in (None, ())
        else:
            assert str(given) == default.strip("'").replace('\\"', '"'), key
    for key in names[len(wanted) :]:  # ours come after theirs, and are optional
        assert parameters[key].default is not inspect.Parameter.empty


FUNCTIONS = [
    name for name in dir(dx) if not name.startswith("_") and name not in ("Buffer", "Stream", *LEFT_OUT)
]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_module_has_the_same_names(name: str) -> None:
    ours, theirs = getattr(sg, name), getattr(dx, name)
    if name in ("core", "tokenizer_helpers"):
        assert {n for n in dir(theirs) if not n.startswith("_")} <= set(dir(ours))
    elif inspect.isroutine(theirs):
        check(ours, theirs, name)
    else:
        assert ours is theirs


def test_submodules_import_under_their_names() -> None:
    code = (
        "import sys, streamgeo\n"
        "assert 'mlx' not in sys.modules\n"
        "from streamgeo.core import CharTrie, BPETokenizer\n"
        "from streamgeo.features import mfsc\n"
        "from streamgeo.tokenizer_helpers import gpt2_byte_map\n"
        "assert len(gpt2_byte_map()) == 256 and CharTrie().num_keys() == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        sg.nonsense  # type: ignore[attr-defined]


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k, n in METHODS if n.endswith("_if")])
def test_the_conditional_form_is_left_out_when_false(kind: str, name: str) -> None:
    buffer = sg.buffer_from_vector([{"x": 1}])
    chain = buffer if kind == "Buffer" else buffer.to_stream()
    method = getattr(chain, name)
    required = [
        p.name
        for p in inspect.signature(method).parameters.values()
        if p.default is inspect.Parameter.empty and p.name != "cond"
    ]
    assert method(cond=False, **dict.fromkeys(required)) is chain
    assert inspect.signature(method).parameters["cond"].default is inspect.Parameter.empty
