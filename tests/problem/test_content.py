"""Equality by content: what behaves alike is equal, what does not is told apart, and equal problems compile once."""

import dataclasses
import functools
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaleader import FTML, Batch, Model, Problem, Score, mean_squared_error
from metaleader.problem import problem as problems_module
from metaleader.problem.content import Static, content
from problems import points

SCALE = 2.0


def scaled(by: Any) -> Callable[[Any], Any]:
    return lambda x: x * by


def factorial(of: int) -> Callable[[int], int]:
    """A local function that calls itself, and ends at `of`."""

    def function(n: int) -> int:
        return of if n < 2 else n * function(n - 1)

    return function


def even(at_zero: bool) -> Callable[[int], bool]:
    """Two local functions that call one another."""

    def is_even(n: int) -> bool:
        return at_zero if n == 0 else is_odd(n - 1)

    def is_odd(n: int) -> bool:
        return not at_zero if n == 0 else is_even(n - 1)

    return is_even


def with_default(default: float) -> Callable[..., Any]:
    def function(x: Any, by: float = default) -> Any:
        return x * by

    return function


def with_named_default(default: float) -> Callable[..., Any]:
    def function(x: Any, *, by: float = default) -> Any:
        return x * by

    return function


@dataclasses.dataclass(frozen=True)
class Line:
    slope: Any
    offset: float = 0.0

    def at(self, x: Any) -> Any:
        return self.slope * x + self.offset


@dataclasses.dataclass(frozen=True)
class Curve:
    """As `Line`, and another type."""

    slope: Any
    offset: float = 0.0


@dataclasses.dataclass(frozen=True)
class Document:
    """A user's dataclass whose field happens to be called as the property of objects that know their content."""

    content: Any
    pages: int


class Plain:
    """An object that says nothing about itself."""

    def __init__(self, content: Any = None) -> None:
        self.content = content


# Made twice, each pair is of different objects that behave alike.
EQUAL: dict[str, Callable[[], Any]] = {
    "lambda": lambda: lambda x: x + 1,
    "nested lambda": lambda: lambda x: (lambda y: y * 3)(x),
    "comprehension": lambda: lambda x: [i * x for i in range(3)],
    "closure": lambda: scaled(2.0),
    "closure over an array": lambda: scaled(np.arange(3.0)),
    "closure over a function": lambda: scaled(scaled(1)),
    "default": lambda: with_default(1.0),
    "keyword default": lambda: with_named_default(1.0),
    "global": lambda: lambda x: x * SCALE,
    "recursion": lambda: factorial(1),
    "mutual recursion": lambda: even(True),
    "array": lambda: np.arange(6, dtype=np.float32).reshape(2, 3),
    "array on the device": lambda: jnp.arange(3.0),
    "random key": lambda: jax.random.key(3),
    "partial": lambda: functools.partial(scaled(1), 2.0),
    "partial with keywords": lambda: functools.partial(with_default(1.0), by=3.0),
    "bound method": lambda: Line(2.0).at,
    "bound method over an array": lambda: Line(np.ones(2)).at,
    "dataclass": lambda: Line(scaled(1), 2.0),
    "dataclass with a field called content": lambda: Document(np.ones(2), 3),
    "nan": lambda: float("nan"),
    "closure over nan": lambda: scaled(float("nan")),
    "dict": lambda: {"a": [1, (2.0, None)], "b": {3, 4}},
    "model": lambda: Model(lambda key: {"w": 1.0}, lambda params, inputs, weights: params["w"] * inputs),
    "optax": lambda: optax.chain(optax.clip(1.0), optax.adam(1e-3)),
    "schedule": lambda: optax.piecewise_constant_schedule(0.1, {3: 0.5}),
}


@pytest.mark.parametrize("name", EQUAL)
def test_what_is_made_twice_is_equal(name: str) -> None:
    one, other = EQUAL[name](), EQUAL[name]()
    assert content(one) == content(other)
    assert hash(content(one)) == hash(content(other))
    assert Static(one) == Static(other)
    assert hash(Static(one)) == hash(Static(other))


def test_what_is_made_differently_is_not_equal() -> None:
    """Every two of these differ in what they do, though they look alike."""
    different: list[Any] = [
        lambda x: x + 1,
        lambda x: x + 2,
        lambda x: x - 1,
        lambda x: x + 1.0,
        lambda x: x + True,
        lambda x, y: x + 1,
        lambda *x: (*x, 1),
        lambda x: SCALE + 1,
        lambda x: (lambda y: y * 3)(x),
        lambda x: (lambda y: y * 4)(x),
        lambda x: x.mean,
        lambda x: x.sum,
        lambda x: x * 0.0,
        lambda x: x * -0.0,
        scaled(2.0),
        scaled(2),
        scaled("2"),
        scaled(np.arange(3.0)),
        scaled(np.arange(3.0) + 1),
        scaled(scaled(1)),
        scaled(scaled(2)),
        with_default(1.0),
        with_default(2.0),
        with_named_default(1.0),
        with_named_default(2.0),
        factorial(1),
        factorial(2),
        even(True),
        even(False),
        functools.partial(with_default(1.0), 2.0),
        functools.partial(with_default(1.0), 3.0),
        functools.partial(with_default(1.0), x=2.0),
        functools.partial(with_default(4.0), 2.0),
        Line(1.0),
        Line(2.0),
        Line(1.0, 1.0),
        Curve(1.0),
        Line(1.0).at,
        Line(2.0).at,
        Document(1, 2),
        Document(1, 3),
        Document(2, 2),
        {"a": 1},
        {"a": 2},
        [("a", 1)],
        (("a", 1),),
        1,
        1.0,
        True,
        "1",
        None,
    ]
    contents = [content(value) for value in different]
    for i, one in enumerate(contents):
        for j, other in enumerate(contents):
            assert (one == other) == (i == j), (different[i], different[j])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.zeros(4), np.zeros((2, 2))),
        (np.zeros(2, np.float32), np.zeros(1, np.float64)),
        (np.zeros(1, np.float32), np.zeros(1, np.int32)),
        (np.array([0.0]), np.array([-0.0])),
        (jax.random.key(0), jax.random.key(1)),
        (jax.random.key(0), jax.random.key_data(jax.random.key(0))),
        (jax.random.key(0, impl="rbg"), jax.random.key(0, impl="unsafe_rbg")),
        (jnp.asarray(2.0), jnp.asarray(2.0, jnp.float32)),  # weakly typed, and not: 16-bit numbers stay so, or do not
    ],
    ids=["shape", "size", "type", "sign of zero", "seed", "key and its data", "kind of key", "weak type"],
)
def test_arrays_that_behave_differently_are_not_equal(one: Any, other: Any) -> None:
    assert content(one) != content(other)
    assert content(scaled(one)) != content(scaled(other))


def test_an_array_is_read_when_its_content_is_asked_for() -> None:
    array = np.zeros(3)
    before = Static(array)
    array[1] = 1
    assert before != Static(array)
    assert before == Static(np.zeros(3))


def test_what_a_global_name_stands_for_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    def double(x: Any) -> Any:
        return x * SCALE

    before = content(double)
    assert before == content(double)
    monkeypatch.setattr(sys.modules[__name__], "SCALE", 3.0)
    assert content(double) != before


@pytest.fixture
def notebook() -> Iterator[types.ModuleType]:
    """A module whose names can be defined anew, as those of a notebook are."""
    module = types.ModuleType("notebook_for_tests")
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


def test_a_function_defined_anew_under_its_name_is_another(notebook: types.ModuleType) -> None:
    """What was compiled for the function of an earlier cell must not serve that of a later one."""

    def define(constant: int) -> Any:
        exec(f"def function(x):\n    return x + {constant}\nclass Kind:\n    constant = {constant}", vars(notebook))
        return notebook.function, notebook.Kind, Static(notebook.function), Static(notebook.Kind)

    function, kind, static_function, static_kind = define(1)
    assert function.__module__ == notebook.__name__
    assert (Static(function), Static(kind)) == (static_function, static_kind)
    _, _, other_function, other_kind = define(2)
    assert other_function != static_function
    assert other_kind != static_kind
    # The old one, which its name no longer stands for, is not the new one either.
    assert Static(function) != other_function


def test_predictions_are_those_of_the_function_defined_last(notebook: types.ModuleType) -> None:
    def predicted(factor: float) -> Any:
        exec(f"def apply(params, inputs, weights):\n    return {factor} * inputs", vars(notebook))
        problem = Problem(Model(lambda key: {}, notebook.apply), mean_squared_error.function, mean_squared_error)
        return np.asarray(problem.predict({}, np.ones((1, 1), np.float32)))

    assert [predicted(factor).item() for factor in (2.0, 3.0)] == [2.0, 3.0]


def test_what_says_nothing_of_itself_equals_itself_alone() -> None:
    one, other = Plain(), Plain()
    assert content(one) == content(one)
    assert content(one) != content(other)
    assert content(scaled(one)) != content(scaled(other))
    assert content(Plain([1])) != content(Plain([1]))  # an attribute called content is no word of its own
    assert content(jnp.sin) == content(jnp.sin)
    assert content(jnp.sin) != content(jnp.cos)
    assert content(np) != content(jnp)
    assert content(Line) != content(Curve)


def test_what_an_object_knows_of_its_content_is_taken() -> None:
    class Known:
        def __init__(self, shown: int, hidden: int) -> None:
            self.shown, self.hidden = shown, hidden

        @property
        def content(self) -> int:
            return self.shown

    assert content(Known(1, 2)) == content(Known(1, 3))
    assert content(Known(1, 2)) != content(Known(2, 2))


def test_where_errors_are_caught_matters() -> None:
    def careful(x: Any) -> Any:
        try:
            return x.value
        except AttributeError:
            return 0

    careless = types.FunctionType(careful.__code__.replace(co_exceptiontable=b""), globals())
    again = types.FunctionType(careful.__code__, globals())
    assert content(careful) == content(again)
    assert content(careful) != content(careless)


def test_a_value_keeps_its_place_while_its_content_is_held() -> None:
    """Otherwise another object could come to lie there, and would be taken for it."""
    held = content(Plain())
    assert all(content(Plain()) != held for _ in range(1000))


def slope(factor: float = 1.0) -> Problem:
    """A line through zero times a factor, made of new functions at every call."""
    model = Model(
        lambda key: {"w": jnp.ones(1)},
        lambda params, inputs, weights: factor * inputs * params["w"],
    )
    loss = lambda outputs, targets: ((outputs - targets) ** 2)[:, 0]  # noqa: E731 - a new one at every call
    return Problem(model, loss, Score("error", lambda outputs, targets: abs(outputs - targets)[:, 0], False))


def compiled(function: Any, call: Callable[[], Any]) -> int:
    """How many times a call made a compiled function be compiled."""
    before = function._cache_size()
    call()
    return int(function._cache_size() - before)


def forget(*functions: Any) -> None:
    """What other tests had compiled."""
    for function in functions:
        function.clear_cache()


def test_equal_problems_share_what_was_compiled() -> None:
    """And others do not, nor do they share its results."""
    one, two, other = slope(), slope(), slope(3.0)
    assert one == two != other
    assert hash(one) == hash(two)
    assert len({one, two, other}) == 2
    params, batch = one.init(jax.random.key(0)), points(5)
    forget(problems_module._predict, problems_module._judge)

    def predict(problem: Problem) -> Any:
        return problem.predict(params, batch.inputs)

    assert compiled(problems_module._predict, lambda: predict(one)) == 1
    assert compiled(problems_module._predict, lambda: predict(two)) == 0
    assert compiled(problems_module._predict, lambda: predict(other)) == 1
    np.testing.assert_allclose(predict(other), 3 * np.asarray(predict(two)), rtol=1e-6)
    judged = [compiled(problems_module._judge, lambda p=p: p.judge(predict(p), batch)) for p in (one, two)]  # type: ignore[misc]
    assert judged == [1, 0]


def test_a_learner_compiles_once_for_equal_problems_and_optimisers() -> None:
    from metaleader.learners import ftml

    def learn(factor: float, rate: float) -> Any:
        problem = slope(factor)
        learner = FTML(meta_steps=1, meta_batch=2, train_size=2, validation_size=2, optimizer=optax.sgd(rate))
        state = learner.init(problem, jax.random.key(0), points(1))
        return learner.observe(problem, state, 0, points(6))[0].params

    forget(ftml._meta_update)
    assert compiled(ftml._meta_update, lambda: learn(1.0, 0.1)) == 1
    assert compiled(ftml._meta_update, lambda: learn(1.0, 0.1)) == 0
    assert compiled(ftml._meta_update, lambda: learn(1.0, 0.2)) == 1
    assert compiled(ftml._meta_update, lambda: learn(2.0, 0.1)) == 1


def test_problems_differ_in_each_of_their_parts() -> None:
    base = slope()
    assert base == dataclasses.replace(base)
    model = Model(base.net.init, lambda params, inputs, weights: inputs)
    for changed in (
        dataclasses.replace(base, model=model),
        dataclasses.replace(base, model=None),
        dataclasses.replace(base, loss=lambda outputs, targets: abs(outputs - targets)[:, 0]),
        dataclasses.replace(base, scores=mean_squared_error),
        dataclasses.replace(base, scores=(base.score, mean_squared_error)),
    ):
        assert changed != base
    assert base != "a problem"
    assert dataclasses.replace(base, scores=(base.score,)) == base  # one score, alone or in a tuple


def test_batches_are_compared_by_their_arrays() -> None:
    batch = points(3)
    assert content(batch) == content(Batch(batch.inputs.copy(), batch.targets.copy(), batch.weights.copy()))
    assert content(batch) != content(batch[np.array([0, 2, 1])])
