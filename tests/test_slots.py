"""Memory that goes round is never given out twice."""

from __future__ import annotations

import threading

import numpy as np

from streamgeo.slots import Slots


def test_a_slot_is_used_again_and_a_view_holds_it() -> None:
    slots = Slots()
    first = slots.empty((100, 200), np.dtype(np.uint16))
    where = first.ctypes.data
    part = first[3:5].T
    part[...] = 7
    del first
    others = [slots.empty((100, 200), np.dtype(np.uint16)) for _ in range(900)]
    assert len({a.ctypes.data for a in others}) == 900
    assert where not in {a.ctypes.data for a in others}
    for other in others:
        other[...] = 1
    assert (part == 7).all()
    del part
    assert slots.empty((100, 200), np.dtype(np.uint16)).ctypes.data == where


def test_sizes_do_not_mix_and_spare_memory_is_let_go() -> None:
    slots = Slots()
    for size in (40_000, 50_000, 60_000, 1_000_000, 7_000_000):
        held = [slots.empty((size,), np.dtype(np.uint8)) for _ in range(3)]
        assert all(a.size == size and a.flags.writeable for a in held)
    del held
    assert sum(len(free) * size for size, free in slots._free.items()) < 300 << 20
    assert slots.empty((5,), np.dtype(float)).size == 5
    assert slots.empty((0, 5), np.dtype(float)).shape == (0, 5)


def test_threads_never_share_a_slot() -> None:
    slots, wrong = Slots(), []

    def work(number: int) -> None:
        held = []
        for turn in range(2000):
            array = slots.empty((200, 200), np.dtype(np.int64))
            array[...] = number * 10_000 + turn
            held.append((array, number * 10_000 + turn))
            if len(held) > 5:
                old, value = held.pop(turn % 5)
                if not (old == value).all():
                    wrong.append(value)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert not wrong
