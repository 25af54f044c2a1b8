"""The chain as a table in a notebook, and as text that builds it again: nothing is read, nothing is run."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import streamgeo as sg
from streamgeo import made
from streamgeo.links import called
from streamgeo.outline import rows
from streamgeo.scene import Scene


@pytest.fixture(scope="module")
def land(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("land")
    made.land(folder, 3, (70, 90))
    return str(folder / "*.tif")


@pytest.fixture(autouse=True)
def reads(monkeypatch) -> list[str]:
    """The scenes of which pixels were read."""
    from streamgeo.sources.geotiff import GeoTiffScene

    found: list[str] = []
    for kind in (Scene, GeoTiffScene):
        for name in ("read", "read_into", "_read", "_read_into"):
            real = vars(kind).get(name)
            if real is not None:
                monkeypatch.setattr(
                    kind,
                    name,
                    lambda self, *a, _real=real, **k: (found.append(self.name), _real(self, *a, **k))[1],
                )
    return found


def opened(pattern: str) -> sg.Buffer:
    return sg.files(pattern, key="i").key_transform("i", sg.open_geotiff())


def never(*arguments: object, **named: object):
    raise AssertionError("a function of the user was called")


def never_with(x: np.ndarray, *, rng: np.random.Generator):
    raise AssertionError("a function of the user was called")


class Table(HTMLParser):
    """The cells of a table, and the text around it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.other: list[str] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list) -> None:
        assert not any(name.startswith("on") for name, _ in attrs)
        self.tags.append(tag)
        self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self._open or "th" in self._open:
            self.rows[-1][-1] += data
        else:
            self.other.append(data)


def table(chain: sg.Buffer | sg.Stream) -> list[list[str]]:
    return Table(chain._repr_html_()).rows[1:]


def test_dims_shapes_dtypes_and_counts(land: str, reads: list[str]) -> None:
    chain = (
        opened(land)
        .key_transform("i", sg.crop(y=slice(3, 67)))
        .key_transform("i", sg.normalize(1.0, 2.0), "n")
        .cache()
        .key_transform("n", sg.patch(32))
        .key_transform("n", sg.transpose("y", "x", "band"))
        .key_transform("n", sg.cast("float16"))
        .filter_key("n")
        .batch(4)
        .prefetch(3, 2)
    )
    found = table(chain)
    assert [row[1:4] for row in found] == [
        ["i", "", "text"],
        ["i", "band=4, y=70, x=90", "float32"],
        ["i", "band=4, y=64, x=90", "float32"],
        ["i -> n", "band=4, y=64, x=90", "float32"],
        ["", "", ""],
        ["n", "band=4, y=32, x=32", "float32"],
        ["n", "y=32, x=32, band=4", "float32"],
        ["n", "y=32, x=32, band=4", "float16"],
        ["n", "y=32, x=32, band=4", "float16"],
        ["n", "sample=4, y=32, x=32, band=4", "float16"],
        ["", "", ""],
    ]
    assert [row[4] for row in found] == ["3"] * 5 + ["6 in the first scene", *["?"] * 5]
    assert Table(chain._repr_html_()).other[0] == "streamgeo.Stream"
    assert reads == []


def test_what_it_says_is_what_comes(land: str) -> None:
    chain = (
        opened(land)
        .key_transform("i", sg.crop(y=slice(3, 67)))
        .key_transform("i", sg.rot90())
        .key_transform("i", sg.patch(32, edge="pad"))
        .key_transform("i", sg.normalize(1.0, 2.0))
    )
    last = rows(chain.node)[-1]
    sample = chain[0]["i"]
    sizes = tuple(int(size) for size in re.findall(r"=(\d+)", last.sizes))
    assert (sizes, last.dtype) == (sample.shape, sample.dtype.name)


def test_counts_once_they_are_known(land: str, reads: list[str]) -> None:
    one = opened(land)[:1].key_transform("i", sg.patch(32)).batch(4)
    assert [row[4] for row in table(one)] == ["3", "3", "1", "9", "3"]
    three = opened(land).key_transform("i", sg.patch(32))
    assert table(three)[-1][4] == "9 in the first scene"
    assert len(three) == 27
    assert [row[4] for row in table(three.shuffle(seed=1).shard(2, 0).take(5))][-4:] == [
        "27",
        "27",
        "14",
        "5",
    ]
    assert reads == []


@pytest.mark.parametrize(
    "build",
    [
        lambda b: b.key_transform("i", never),
        lambda b: b.key_transform("i", never, reach=sg.POINT).key_transform("i", sg.patch(32)).batch(2),
        lambda b: b.key_transform("i", sg.patch(32)).key_transform("i", never).batch(2),
        lambda b: b.key_transform("i", never_with).shuffle(seed=1),
        lambda b: b.key_transform("i", sg.Step(never, never, grid=never, dtype=never)).key_transform(
            "i", sg.patch(8)
        ),
        lambda b: b.sample_transform(never).batch(2).prefetch(2),
        lambda b: b.sample_transform(never, keys=["j"]).batch(2),
        lambda b: b.filter(never).batch(2),
        lambda b: sg.concatenate(b, b.key_transform("i", never)).batch(2),
        lambda b: sg.zip(b, b.rename_key("i", "j").key_transform("j", never)).batch(2),
        lambda b: sg.mix([b, b.key_transform("i", never)]).take(3),
        lambda b: sg.stream_python_iterable(never).key_transform("i", sg.patch(2)).batch(3),
    ],
)
def test_no_function_of_the_user_is_called_and_no_pixel_read(build, land: str, reads: list[str]) -> None:
    chain = build(opened(land))
    found = table(chain)
    assert "AssertionError" not in chain._repr_html_() and reads == []
    assert [row[0] for row in found if row[0]] == [link.text().lstrip(".") for link in called(chain.node)]


def test_what_a_function_makes_is_unknown_until_patch_fixes_it(land: str) -> None:
    chain = opened(land).key_transform("i", never, reach=sg.POINT)
    assert table(chain)[-1][2:4] == ["?", "?"]
    assert table(chain.key_transform("i", sg.patch(32)))[-1][2:4] == ["band=4, y=32, x=32", "?"]
    assert table(chain.sample_transform(never, keys=["i"]))[-1][1:4] == ["i", "?", "?"]


def test_lists_and_unknown_lengths() -> None:
    vector = sg.buffer_from_vector([{"x": np.zeros((4, 6), np.int16), "name": "a"}] * 5)
    assert table(vector) == [
        ["sg.buffer_from_vector([...])", "x", "dim_0=4, dim_1=6", "int16", "5"],
        ["", "name", "", "text", ""],
    ]
    assert table(vector.key_transform("x", sg.patch(2)))[-1][2:] == [
        "dim_0=2, dim_1=2",
        "int16",
        "6 in the first scene",
    ]
    assert table(vector[:0].batch(3))[-2][4] == "0"
    assert table(vector.repeat(2))[-1][4] == "10"
    assert table(vector.to_stream().repeat())[-1][4] == "without end"
    assert table(vector.filter(never))[-1][4] == "?"
    stream = sg.stream_python_iterable(never)
    assert table(stream.batch(2))[0][4] == "?"
    assert table(vector.batch(2, pad={"x": 0}))[-2][2] == "sample=2, dim_0=?, dim_1=?"
    assert table(sg.buffer_from_vector([]).batch(2))[-1][4] == "0"


@pytest.mark.parametrize("content", [None, b"", b"nonsense"])
def test_an_unreadable_header_is_told_and_the_chain_shown(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "scene.tif"
    if content is not None:
        path.write_bytes(content)
    chain = (
        opened([str(path)]).key_transform("i", sg.normalize(1, 2)).key_transform("i", sg.patch(32)).batch(2)
    )
    parsed = Table(chain._repr_html_())
    assert len(parsed.rows) == 1 + 5
    assert [row[2:4] for row in parsed.rows[2:5]] == [["?", "?"]] * 3
    assert any("OpenError" in text and "scene.tif" in text for text in parsed.other)


def test_a_patch_that_does_not_fit_is_told(land: str) -> None:
    chain = opened(land).key_transform("i", sg.patch(512)).batch(2)
    parsed = Table(chain._repr_html_())
    assert any("size 512 exceeds y=70" in text for text in parsed.other)
    assert len(parsed.rows) == 1 + 4


def test_the_same_link_twice_is_shown_twice() -> None:
    chain = sg.buffer_from_vector([{"x": np.zeros(2)}]).repeat(2).repeat(2)
    assert [row[0] for row in table(chain)][1:] == ["repeat(2)"] * 2


def test_names_are_escaped() -> None:
    chain = sg.buffer_from_vector([{"<b>bold</b>": np.zeros(2), "&amp;\"'": np.zeros(2)}])
    chain = chain.rename_key("<b>bold</b>", "<script>alert(1)</script>")
    parsed = Table(chain._repr_html_())
    assert not {"b", "script"} & set(parsed.tags)
    keys = [row[1] for row in parsed.rows[1:]]
    assert "<b>bold</b>" in keys and "<script>alert(1)</script>" in keys and "&amp;\"'" in keys
    missing = opened(["<i>none</i>.tif"])
    assert "i" not in Table(missing._repr_html_()).tags


def test_it_takes_the_colours_of_the_page(land: str) -> None:
    text = opened(land)._repr_html_()
    assert not re.search(r"color|background|<style|<script|http", text)


# -- repr builds the chain again ------------------------------------------------------------------------------

Build = Callable[[str], sg.Buffer | sg.Stream]
CHAINS: dict[str, Build] = {
    "opened": opened,
    "steps": lambda f: (
        opened(f)
        .key_transform("i", sg.normalize([1, 2, 3, 4], 2.5))
        .key_transform("i", sg.clip(0, 1), "j")
        .key_transform(("i", "j"), sg.patch((32, 16), stride=16, edge="pad", fill=0.0))
        .key_transform("j", sg.stretch.asinh(3.0))
        .batch(4, pad={"i": 0}, drop_last=True)
    ),
    "order": lambda f: opened(f).shuffle(seed=4)[0:2].perm([1, 0]).partition(2, 1).repeat(3).shard(2, 1),
    "stream": lambda f: (
        opened(f).to_stream().shuffle(3, seed=1).take(5).skip(1).partition(2, 0).repeat().shard(2, 0)
    ),
    "keys": lambda f: opened(f).rename_key("i", "j").filter_key("k", remove=True).batch([2, 1]),
    "cache": lambda f: (
        opened(f).cache().key_transform("i", sg.flip("x")).cache(max_bytes=10**6).prefetch(4, 2)
    ),
    "bounded": lambda f: opened(f).batch(2).prefetch(4, 2, max_bytes=10**6),
    "concatenated": lambda f: sg.concatenate(opened(f), opened(f).key_transform("i", sg.rot90())).shuffle(
        seed=1
    ),
    "zipped": lambda f: sg.zip(opened(f), opened(f).rename_key("i", "j")).batch(2).prefetch(2, 1),
    "mixed": lambda f: sg.mix([opened(f), opened(f)], weights=[1, 2], seed=3).take(4),
    "joined twice": lambda f: sg.concatenate(sg.concatenate(opened(f), opened(f)), opened(f)).batch(2),
}


@pytest.mark.parametrize("name", CHAINS)
def test_repr_builds_it_again(name: str, land: str) -> None:
    chain = CHAINS[name](land)
    again = eval(f"({chain!r})", {"sg": sg, "np": np})
    assert type(again) is type(chain) and repr(again) == repr(chain)
    assert again._repr_html_() == chain._repr_html_()
