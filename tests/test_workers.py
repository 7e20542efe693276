"""Work in threads."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from fast.workers import ahead_of, map_ahead


@pytest.mark.parametrize("number", [1, 3])
def test_what_ctrl_c_finds_begun_is_finished_and_given(number, monkeypatch):
    """It comes while the last result is waited for."""
    result, may_end, done = Future.result, threading.Event(), []

    def interrupted_once(self):
        if not may_end.is_set() and len(done) == number - 1:
            may_end.set()
            raise KeyboardInterrupt
        return result(self)

    def work(item):
        if item == number - 1:
            may_end.wait(timeout=20)
        done.append(item)
        return item

    monkeypatch.setattr(Future, "result", interrupted_once)
    given = []
    with ThreadPoolExecutor(1) as executor, pytest.raises(KeyboardInterrupt):
        for item in map_ahead(executor, work, range(number), finish=True):
            given.append(item)
    assert given == done == list(range(number))


def test_items_are_the_same_ahead_of_the_caller():
    with ThreadPoolExecutor(1) as executor:
        assert list(ahead_of(executor, iter("abc"))) == ["a", "b", "c"]
