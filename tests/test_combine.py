"""Several chains as one: order, state and inverses are kept; nothing is dropped unseen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import streamgeo as sg


def numbers(start: int, stop: int, key: str = "n") -> sg.Buffer:
    return sg.buffer_from_vector([{key: np.array(i)} for i in range(start, stop)])


def ns(chain: sg.Buffer | sg.Stream, key: str = "n") -> list[int]:
    return [int(sample[key]) for sample in chain]


def test_concatenate() -> None:
    both = sg.concatenate(numbers(0, 3), numbers(10, 14))
    assert isinstance(both, sg.Buffer) and len(both) == 7 and both[4]["n"] == 11
    assert ns(both) == [0, 1, 2, 10, 11, 12, 13] == sorted(ns(both.shuffle(seed=1)))
    mixed = sg.concatenate(numbers(0, 2), numbers(5, 7).prefetch(2, 2))
    assert isinstance(mixed, sg.Stream) and ns(mixed) == [0, 1, 5, 6]


def test_zip() -> None:
    both = sg.zip(numbers(0, 3, "a"), numbers(10, 13, "b"))
    assert [(int(s["a"]), int(s["b"])) for s in both] == [(0, 10), (1, 11), (2, 12)]
    with pytest.raises(sg.ChainError, match=r"the chains have \[3, 4\] samples"):
        len(sg.zip(numbers(0, 3, "a"), numbers(0, 4, "b")))
    with pytest.raises(sg.SampleError, match="chain 0 ended before the others"):
        for _ in sg.zip(numbers(0, 3, "a").to_stream(), numbers(0, 4, "b").to_stream()):
            pass
    with pytest.raises(sg.SampleError, match="both chains have the key 'n'"):
        sg.zip(numbers(0, 1), numbers(0, 1))[0]


def test_mix_keeps_all_and_follows_its_weights() -> None:
    chains = [numbers(0, 1000), numbers(1000, 2000), numbers(2000, 2100)]
    stream = sg.mix(chains, weights=[1, 3, 1], seed=4)
    first, second = ns(stream), ns(stream)
    assert sorted(first) == sorted(second) == list(range(2100)) and first != second
    assert first == ns(sg.mix(chains, weights=[1, 3, 1], seed=4).prefetch(4, 4))
    head = np.array(first[:400]) // 1000
    assert 0.5 < np.mean(head == 1) < 0.7
    for part in (slice(0, 1000), slice(1000, 2000)):
        inside = [n for n in first if part.start <= n < part.stop]
        assert inside == sorted(inside)
    with pytest.raises(sg.ChainError, match="3 numbers above 0"):
        sg.mix(chains, weights=[1, 0, 1])


def test_filter_take_skip() -> None:
    assert ns(numbers(0, 10).filter(lambda s: s["n"] % 3 == 0)) == [0, 3, 6, 9]
    assert [s["n"].tolist() for s in numbers(0, 10).prefetch(4, 2).filter(lambda s: s["n"] % 3).batch(4)] == [
        [1, 2, 4, 5],
        [7, 8],
    ]
    assert ns(numbers(0, 10).take(3)) == ns(numbers(0, 10).to_stream().take(3)) == [0, 1, 2]
    assert ns(numbers(0, 10).skip(8)) == ns(numbers(0, 10).to_stream().skip(8)) == [8, 9]
    assert ns(numbers(0, 5).to_stream().skip(1).take(2)) == [1, 2] and ns(numbers(0, 5).take(0)) == []
    assert len(numbers(0, 10).to_stream().skip(3).take(20)) == 7
    with pytest.raises(sg.ChainError, match="take: -1 samples"):
        numbers(0, 10).take(-1)


def test_skipped_samples_are_not_made() -> None:
    made = []

    def note(x: np.ndarray) -> np.ndarray:
        made.append(int(x))
        return x

    assert ns(numbers(0, 10).key_transform("n", note).to_stream().skip(7)) == [7, 8, 9] == made


def test_a_failing_sample_passes_a_filter_as_an_error() -> None:
    stream = numbers(0, 5).filter(lambda s: 1 / (int(s["n"]) - 2) < 5)
    with pytest.raises(sg.SampleError, match="ZeroDivisionError"):
        list(stream)
    skipping = numbers(0, 5).filter(lambda s: 1 / (int(s["n"]) - 2) < 5).on_error("skip", limit=1)
    assert ns(skipping) == [0, 1, 3, 4] and len(skipping.skipped) == 1


COMBINED = {
    "concatenate": lambda: sg.concatenate(numbers(0, 5), numbers(10, 17).shuffle(seed=1)).prefetch(2, 2),
    "concatenate streams": lambda: sg.concatenate(
        numbers(0, 5).prefetch(2, 1), numbers(10, 17).prefetch(2, 2)
    ),
    "zip": lambda: sg.zip(numbers(0, 9).shuffle(seed=1), numbers(0, 9, "m")).prefetch(2, 2),
    "zip streams": lambda: sg.zip(numbers(0, 9).prefetch(2, 2), numbers(0, 9, "m").to_stream()),
    "mix": lambda: sg.mix([numbers(0, 9), numbers(10, 15)], weights=[2, 1], seed=3).prefetch(2, 2),
    "filter": lambda: numbers(0, 20).filter(lambda s: s["n"] % 3 != 1).batch(3).prefetch(2, 2),
    "take": lambda: numbers(0, 20).prefetch(2, 2).skip(4).take(9).batch(2),
}


@pytest.mark.parametrize("name", COMBINED)
def test_restored_at_every_step(name: str) -> None:
    stream = COMBINED[name]()
    samples, states = [], [stream.state_dict()]
    for sample in stream:
        samples.append(sample)
        states.append(stream.state_dict())
    for position in range(len(samples)):
        again = COMBINED[name]()
        again.load_state_dict(states[position])
        rest = list(again)
        assert len(rest) == len(samples) - position
        for a, b in zip(rest, samples[position:], strict=True):
            assert a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def test_states_of_other_combinations_are_refused() -> None:
    state = COMBINED["concatenate"]().state_dict()
    other = sg.concatenate(numbers(0, 5), numbers(10, 17).shuffle(seed=2)).prefetch(2, 2)
    with pytest.raises(sg.ChainError, match="another chain"):
        other.load_state_dict(state)


@pytest.fixture
def folders(samples: Path) -> tuple[sg.Buffer, sg.Buffer]:
    folder = samples / "helio" / "sharp_377"

    def chain(pattern: str) -> sg.Buffer:
        opened = sg.files(str(folder / pattern), key="image").key_transform("image", sg.open_fits())
        scaled = opened.key_transform("image", sg.normalize(mean=1.0, std=100.0))
        return scaled.key_transform("image", sg.patch(128, 64)).key_transform("image", sg.minmax(-50.0, 50.0))

    return chain("*B*.fits"), chain("*continuum.fits")


@pytest.mark.parametrize("join", ["concatenate", "mix"])
def test_predictions_over_joined_chains(folders: tuple[sg.Buffer, sg.Buffer], join: str) -> None:
    a, b = folders
    joined = sg.concatenate(a, b) if join == "concatenate" else sg.mix([a, b], seed=1)
    scenes = {scene.files[0]: scene for scene in joined.batch(8).prefetch(2, 2).predict(lambda x: x)}
    assert len(scenes) == 4
    for path, scene in scenes.items():
        np.testing.assert_allclose(scene.array, sg.open_fits()(path).array, rtol=1e-5, atol=0.01)


def test_scene_numbers_stay_apart(folders: tuple[sg.Buffer, sg.Buffer]) -> None:
    a, b = folders
    joined = sg.concatenate(a, b)
    sample = joined[len(a)]
    assert sample["image.scene"] == 3 and "continuum" in joined.scene("image", 3).files[0]
    assert joined.grid("image", sample) == b.grid("image", b[0])


def test_chains_with_other_steps_since_patch_have_no_common_inverse(
    folders: tuple[sg.Buffer, sg.Buffer],
) -> None:
    a, b = folders
    with pytest.raises(sg.InverseError, match="treats 'image' by"):
        sg.concatenate(a, b.key_transform("image", sg.minmax(0.0, 2.0))).inverse("image")


def test_predict_over_zipped_chains(samples: Path) -> None:
    folder = samples / "helio" / "sharp_377"

    def chain(pattern: str, key: str) -> sg.Buffer:
        opened = sg.files(str(folder / pattern), key=key).key_transform(key, sg.open_fits())
        return opened.key_transform(key, sg.patch(128, 64))

    both = sg.zip(
        chain("*Br.fits", "image"), chain("*Bp.fits", "target").key_transform("target", sg.minmax(-9.0, 9.0))
    )
    (scene,) = both.batch(8).predict(lambda x: np.zeros_like(x), key="image", output_key="target")
    assert "Bp" in scene.name and np.allclose(scene.array, -9)


def test_a_permutation_is_told_by_all_its_numbers() -> None:
    b = sg.buffer_from_vector([{"n": i} for i in range(3000)])
    short = b.perm(range(20))
    assert ".perm([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19])" in repr(short)
    order = list(range(3000))
    state = b.perm(order).to_stream().state_dict()
    order[1500], order[1501] = order[1501], order[1500]
    with pytest.raises(sg.ChainError, match="another chain"):
        b.perm(order).to_stream().load_state_dict(state)


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("stride", [1, 2, 7])
def test_windows_of_neighbouring_samples(size: int, stride: int) -> None:
    chain = numbers(0, 12).windows(size, stride)
    expected = [list(range(start, start + size)) for start in range(0, 12 - size + 1, stride)]
    assert [window["n"].tolist() for window in chain.prefetch(2, 2)] == expected
    assert len(chain) == len(expected)
    shuffled = [window["n"].tolist() for window in chain.shuffle(1)]
    assert sorted(shuffled) == expected
    stream = chain.prefetch(2, 2)
    next(iter(stream))
    stream.load_state_dict(stream.state_dict())
    assert [window["n"].tolist() for window in stream] == expected[1:]
    assert len(numbers(0, 3).windows(4)) == 0
    again = eval("(" + repr(chain).replace("[...]", "[{'n': n} for n in range(12)]") + ")", {"sg": sg})
    assert [window["n"].tolist() for window in again] == expected
