"""Datapoints as bytes and settings as plain data come back as they were; snapshots of odd states as well."""

import json
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import metaleader as ml
from metaleader import UserError
from metaleader.live import snapshot
from metaleader.live.cache import Cache
from metaleader.live.layout import Layout
from metaleader.live.prequential import Prequential
from metaleader.live.settings import rebuilt
from metaleader.live.snapshot import Snapshot

DTYPES = st.sampled_from([np.float32, np.float16, np.uint8, np.int32, np.bool_, "bfloat16"])


@st.composite
def trees(draw: Any, n: int) -> Any:
    def array() -> Any:
        shape = (n, *draw(arrays.array_shapes(min_dims=0, max_dims=2, max_side=3)))
        values = np.asarray(draw(arrays.arrays(np.uint8, shape)))
        return values.astype(jax.numpy.dtype(draw(DTYPES)))

    kind = draw(st.sampled_from(["array", "dict", "list", "tuple"]))
    if kind == "array":
        return array()
    parts = [array() for _ in range(draw(st.integers(1, 3)))]
    return {"dict": dict(zip("cab", parts, strict=False)), "list": parts, "tuple": (*parts[1:], [parts[0]])}[kind]


@given(st.data(), st.integers(1, 5))
def test_datapoints_as_bytes_come_back(data: st.DataObject, n: int) -> None:
    batch = ml.Batch.of(data.draw(trees(n)), data.draw(trees(n)))
    layout = Layout.of(batch)
    layout = Layout(**json.loads(json.dumps(layout.as_json)))
    rows = layout.packed(batch)
    assert {len(row) for row in rows} == {layout.size}
    back = layout.unpacked(rows)
    assert str(jax.tree.structure(back)) == str(jax.tree.structure(batch))
    for found, expected in zip(jax.tree.leaves(back), jax.tree.leaves(batch), strict=True):
        assert found.dtype == expected.dtype
        assert found.tobytes() == np.ascontiguousarray(expected).tobytes()
        assert found.flags.writeable
    assert len(layout.unpacked([])) == 0
    layout.check(batch)


def test_what_has_no_layout_is_refused() -> None:
    from collections import OrderedDict

    x = np.zeros((1, 1), np.float32)
    with pytest.raises(UserError, match="inputs hold a OrderedDict: a learner that lives stores arrays"):
        Layout.of(ml.Batch.of(OrderedDict(a=x), x))
    layout = Layout.of(ml.Batch.of(x, x))
    with pytest.raises(ValueError, match="a datapoint of 7 bytes, where each has 8"):
        layout.unpacked([b"1234567"])


def test_a_state_of_many_kinds_comes_back_from_a_snapshot() -> None:
    state: dict[str, Any] = {
        "half": jax.numpy.arange(5, dtype="bfloat16"),
        "key": jax.random.key(3, impl="rbg"),
        "plain": [1, 2.5, True, "a", None, np.float32(1.5)],
        "empty": np.zeros((0, 3), np.int8),
        "scalar": np.array(7),
        "transposed": np.arange(6.0).reshape(2, 3).T,
    }
    leaves = snapshot.flattened(state, jax.tree.structure(state))
    found = snapshot.unpacked(snapshot.packed(Snapshot(17, leaves, {"more": np.arange(3)}, {"b": [1, "c"]})), "it")
    assert (found.sequence, found.about) == (17, {"b": [1, "c"]})
    assert np.array_equal(found.arrays["more"], np.arange(3))
    back = snapshot.restored(found.leaves, state)
    assert jax.random.key_impl(back["key"]) == "rbg"
    assert np.array_equal(jax.random.key_data(back["key"]), jax.random.key_data(state["key"]))
    assert back["plain"] == state["plain"]
    assert type(back["plain"][-1]) is np.float32
    for name in ("half", "empty", "scalar", "transposed"):
        assert (type(back[name]), back[name].dtype) == (type(state[name]), state[name].dtype)
        assert np.array_equal(back[name], state[name])
    back["transposed"][0, 0] = 1  # it can be written
    with pytest.raises(snapshot.Unsaveable, match="holds a object"):
        snapshot.flattened([object()], jax.tree.structure([0]))


OTHERS = ({"type": "Popen", "args": "ls"}, {"type": "MLP", "code": "1"}, {"function": "system"}, {"type": "MLP"})


@pytest.mark.parametrize("told", OTHERS)
def test_of_what_a_folder_tells_nothing_is_made_but_what_is_listed(told: Any) -> None:
    with pytest.raises(UserError, match=r"is not one of those of metaleader|MLP has the settings inputs, outputs"):
        rebuilt(told)


def test_the_recent_window_holds_the_fewest_groups_and_counts_what_is_not_finite() -> None:
    problem = ml.Problem(None, ml.squared_error, ml.mean_squared_error)
    score = Prequential(window=4)
    for i, value in enumerate([3.0, 1.0, 2.0, np.nan, 2.0]):
        outputs = np.full((2, 1), value, np.float32)
        score = score.after(problem, f"t{i}", i, outputs, ml.Batch.of(np.zeros((2, 1)), np.zeros((2, 1), np.float32)))
    standing = score.standing(problem)
    assert standing.not_finite == 2
    assert standing.overall.datapoints == 8
    assert standing.overall.values["loss"] == pytest.approx((9 + 1 + 4 + 4) / 4)
    assert standing.recent.datapoints == 4
    assert standing.recent.values["loss"] == pytest.approx(4)
    assert list(standing.by_age) == [0, 1, 2, 3]
    forgot = score.without("t4").standing(problem)
    assert forgot.recent.datapoints == 2
    assert forgot.overall == standing.overall
    plain, more = score.saved()
    assert Prequential.restored(4, json.loads(json.dumps(plain)), more).standing(problem) == standing


def test_a_cache_drops_what_was_used_least_recently_and_other_versions() -> None:
    cache, one = Cache(100), np.zeros(10, np.float32)
    for name in "abc":
        cache.put(name, 1, one)
    assert (len(cache), cache.bytes) == (2, 80)
    assert cache.get("a", 1) is None
    assert cache.get("b", 1) is one
    assert cache.get("b", 2) is None
    cache.put("d", 1, one)
    assert cache.get("c", 1) is None
    cache.put("b", 2, {"w": one})
    assert cache.bytes == 80
    cache.put("e", 1, np.zeros(100))  # larger than all there is room for
    assert cache.get("e", 1) is None
    assert len(cache) == 2
    cache.drop("b")
    assert cache.bytes == 40
