"""Random requests, by the service's own description and without: never an error of the service."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import checks
from serving import new, served
from starlette.testclient import TestClient

from metaleader.live import Live
from metaleader.service import arrow

VERBS = ("learn", "predict", "adapt", "forget", "wait")
LOOSE = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much]

number = st.one_of(st.integers(-(10**20), 10**20), st.floats(), st.booleans(), st.none())
plain = st.recursive(
    st.one_of(number, st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=8,
)
close = st.lists(st.lists(st.one_of(st.floats(width=32), number), min_size=1, max_size=3), max_size=4)
key = st.one_of(st.text(max_size=12), st.integers(), plain)
near = st.fixed_dictionaries(  # almost what it should be
    {},
    optional={
        "task": key,
        "x": st.one_of(close, plain),
        "y": st.one_of(close, plain),
        "inputs": st.one_of(close, plain),
        "ids": st.one_of(st.lists(st.text(max_size=4), max_size=4), plain),
        "rows": plain,
        "input_rows": plain,
        "timeout": st.one_of(st.just(0.01), st.text()),
    },
)
bodies = st.one_of(st.binary(max_size=40), near.map(lambda told: json.dumps(told).encode()))


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with new(tmp_path_factory.mktemp("live") / "shops") as live:
        yield live


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[TestClient]:
    with served(live) as client:
        yield client


def check(live: Live, client: TestClient, verb: str, body: bytes, content_type: str) -> None:
    before = live.status().datapoints
    answer = client.post(f"/v1/{verb}", content=body, headers={"Content-Type": content_type})
    assert answer.status_code in (200, 204, 404, 415, 422), answer.text
    if answer.status_code >= 400:
        assert list(answer.json()["error"]) == ["message"]
        assert live.status().datapoints == before


kinds = st.sampled_from(["application/json"] * 4 + [arrow.MEDIA_TYPE])


@settings(max_examples=100, deadline=None, suppress_health_check=LOOSE)
@given(st.sampled_from(VERBS), bodies, kinds)
def test_random_bodies_are_answered_or_refused(
    live: Live, client: TestClient, verb: str, body: bytes, kind: str
) -> None:
    check(live, client, verb, body, kind)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None, suppress_health_check=LOOSE)
@given(st.sampled_from(VERBS), bodies, kinds)
def test_ten_thousand_random_bodies_are_answered_or_refused(
    live: Live, client: TestClient, verb: str, body: bytes, kind: str
) -> None:
    check(live, client, verb, body, kind)


LOCAL = {"Host": "127.0.0.1"}
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


def follow_the_description(client: TestClient, requests: int) -> set[str]:
    """Ask what can be made of the description, so many requests of each kind, and compare the answers with it."""
    schema, asked = schemathesis.openapi.from_asgi("/openapi.json", client.app, headers=LOCAL), set()
    for found in schema.get_all_operations():
        operation = found.ok()  # type: ignore[union-attr] # it is, or this raises

        @settings(max_examples=requests, deadline=None, suppress_health_check=LOOSE)
        @given(operation.as_strategy())
        def ask(case: Any) -> None:
            case.validate_response(case.call(headers=LOCAL), checks=CHECKS)

        if operation.path not in ("/v1/save", "/v1/rebuild"):  # slow, and there is nothing to choose
            ask()
            asked.add(operation.path)
    return asked


def test_what_the_description_permits_is_answered_as_it_says(client: TestClient) -> None:
    assert {f"/v1/{verb}" for verb in (*VERBS, "tasks", "score", "status")} < follow_the_description(client, 10)


@pytest.mark.slow
def test_thousands_of_requests_by_the_description_are_answered_as_it_says(client: TestClient) -> None:
    follow_the_description(client, 1000)
