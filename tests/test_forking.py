"""The cache that searches, thumbnails and near-duplicates share."""

from __future__ import annotations

from retrieval.forking import Cache


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
