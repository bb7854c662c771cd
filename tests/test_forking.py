"""The cache that searches, thumbnails and near-duplicates share, and the batches that queries are computed in."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from together import answered_together

from retrieval.forking import Batches, Cache, OneThread


def test_full_cache_drops_the_least_recently_used_value() -> None:
    cache = Cache[str, int](2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert [cache.get(key) for key in "abc"] == [1, None, 3]


def test_putting_a_value_again_counts_as_using_it() -> None:
    cache = Cache[str, int](2)
    for key, value in [("a", 1), ("b", 2), ("a", 4), ("c", 3)]:
        cache.put(key, value)
    assert [cache.get(key) for key in "abc"] == [4, None, 3]


class Halves:
    """Halves numbers in batches on a thread, and remembers the batches."""

    def __init__(self, most: int) -> None:
        self.thread, self.batches, self.threads = OneThread("halves"), list[list[int]](), set[int]()
        self.queries = Batches(self.thread, self._halve, most)

    def _halve(self, numbers: list[int]) -> list[float]:
        self.batches.append(numbers)
        self.threads.add(threading.get_ident())
        if 7 in numbers:
            raise ValueError("seven")
        return [number / 2 for number in numbers][: None if 9 not in numbers else len(numbers) - 1]


def test_item_alone_is_computed_at_once() -> None:
    halves = Halves(4)
    assert [halves.queries.run(number) for number in (3, 4)] == [1.5, 2]
    assert halves.batches == [[3], [4]]


def test_items_that_come_while_the_thread_is_busy_are_computed_together() -> None:
    halves = Halves(4)
    numbers = [*range(10, 20)]
    assert answered_together(halves.thread, halves.queries, halves.queries.run, numbers) == [n / 2 for n in numbers]
    assert [len(batch) for batch in halves.batches] == [4, 4, 2]
    assert sorted(number for batch in halves.batches for number in batch) == numbers
    assert len(halves.threads) == 1


@pytest.mark.parametrize(("bad", "kind"), [(7, "seven"), (9, "shorter")])
def test_item_that_fails_does_not_affect_the_others_of_its_batch(bad: int, kind: str) -> None:
    halves = Halves(4)
    *good, failed = answered_together(halves.thread, halves.queries, halves.queries.run, [1, 2, 3, bad])
    assert good == [0.5, 1, 1.5]
    assert isinstance(failed, ValueError)
    assert kind in str(failed)


def test_other_work_has_its_turn_between_two_batches() -> None:
    halves = Halves(2)
    gate, busy = threading.Event(), threading.Event()
    halves.thread.submit(lambda: (busy.set(), gate.wait()))
    busy.wait()
    asking = [threading.Thread(target=halves.queries.run, args=(number,)) for number in range(3)]
    for thread in asking:
        before = halves.thread._executor._work_queue.qsize()
        thread.start()
        while halves.thread._executor._work_queue.qsize() == before:
            time.sleep(0.001)
        if thread is asking[0]:
            halves.thread.submit(halves.batches.append, [])
    gate.set()
    for thread in asking:
        thread.join()
    assert halves.batches == [[0, 1], [], [2]]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_forked_child_computes_while_items_wait_in_its_parent() -> None:
    halves = Halves(4)

    def in_a_child(number: int) -> float:
        reader, writer = os.pipe()
        if not (child := os.fork()):
            signal.alarm(20)
            os.write(writer, str(halves.queries.run(number)).encode())
            os._exit(0)
        os.waitpid(child, 0)
        return float(os.read(reader, 100))

    gate, asked = threading.Event(), threading.Thread(target=halves.queries.run, args=(1,))
    halves.thread.submit(gate.wait)
    asked.start()
    while not halves.queries._waiting:
        time.sleep(0.001)
    assert in_a_child(30) == 15
    gate.set()
    asked.join()
    assert halves.batches == [[1]]
