"""The application of HTTP around a learner that lives."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from functools import partial
from importlib import metadata
from typing import Annotated, Any

import prometheus_client
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from metaleader.live import Live
from metaleader.online.description import described
from metaleader.service import arrow, bodies, pages, verbs, wire
from metaleader.service.bodies import Body
from metaleader.service.guard import Answering, Guard
from metaleader.service.jobs import Jobs
from metaleader.service.limits import Limits
from metaleader.service.refusal import Refusal, answer
from metaleader.service.tokens import Tokens
from metaleader.service.verbs import Sent
from metaleader.service.watch import LearnerCollector, Watch, backlog

_log = logging.getLogger(__name__)
# Threads: those that learn wait for the disk, those that keep for the learner, so that others must not wait for them.
PREDICTING, LEARNING, KEEPING, WAITING, LOOKING = 2, 8, 4, 8, 2
SMALL = 16 << 10  # bytes of a body that is read at once
ABOUT = (
    "Datapoints of tasks go in, predictions for tasks come out; see `docs/serving.md` of metaleader. A refusal has the "
    'body `{"error": {"message": ...}}`.'
)
OPEN = ("/docs", "/openapi.json", "/healthz", "/readyz")


def application(live: Live, limits: Limits | None = None, tokens: Tokens | None = None) -> FastAPI:
    """The service of a learner, an application of ASGI. It does not close the learner.

    Args:
        live: the learner.
        limits: what is refused; None: the defaults of `Limits`.
        tokens: one of which a request needs; None: requests must be to this machine by its own name.
    """
    limits = limits or Limits()
    watch, files, version = Watch(), pages.files(), metadata.version("metaleader")
    watch.registry.register(LearnerCollector(live))
    predicting = Jobs("predict", PREDICTING, limits.requests, waits=live.remote)
    learning, keeping, waiting, looking = [
        Jobs(name, threads, limits.requests)
        for name, threads in (("learn", LEARNING), ("keep", KEEPING), ("wait", WAITING), ("look", LOOKING))
    ]
    every = predicting, learning, keeping, waiting, looking
    since, rebuilding = live.status().stored, asyncio.Lock()

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        noting = asyncio.create_task(_note_scores(watch, live, looking))
        yield
        noting.cancel()
        for jobs in every:
            jobs.close()

    app = FastAPI(
        title="metaleader",
        description=ABOUT,
        version=version,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        exception_handlers={
            Refusal: _refused,
            HTTPException: _http_error,
            RequestValidationError: _invalid_query,
        },
        responses=_errors(_OF_ALL),
    )

    direct: dict[str, Answering] = {}

    def post(path: str, kind: type[Body], model: type[Any] | None, jobs: Jobs, timeout: float | None) -> None:
        """A verb that takes a body, named by its path: answered by `Guard`, described by FastAPI."""
        verb: Callable[[Live, Limits, Sent], Response] = getattr(verbs, path.rpartition("/")[2])

        def answering(sent: Sent) -> Coroutine[Any, Any, Response]:
            return jobs.run(partial(verb, live, limits, sent), timeout, waits=len(sent.raw) > SMALL)

        direct[path] = answering
        tables = kind in (bodies.Learn, bodies.Predict, bodies.Adapt)
        app.router.add_api_route(
            path,
            lambda: None,
            methods=["POST"],
            summary=verb.__doc__,
            response_model=model,
            status_code=200 if model else 204,
            openapi_extra=_described(kind, tables),
            responses=_errors(_OF_BODIES),
            operation_id=verb.__name__,
        )

    post("/v1/learn", bodies.Learn, bodies.Acknowledgement, learning, limits.timeout)
    post("/v1/predict", bodies.Predict, bodies.Predictions, predicting, limits.timeout)
    post("/v1/adapt", bodies.Adapt, bodies.Predictions, predicting, limits.timeout)
    post("/v1/forget", bodies.Forget, bodies.Forgotten, keeping, None)
    post("/v1/wait", bodies.Wait, None, waiting, None)

    @app.post("/v1/save", status_code=204, summary="Write a snapshot now")
    async def save() -> Response:
        return await keeping.run(partial(verbs.save, live), None)

    @app.post("/v1/rebuild", status_code=204, summary="Learn the log anew, without what was forgotten")
    async def rebuild() -> Response:
        if rebuilding.locked():
            raise Refusal(503, "the log is being learned anew already", {"Retry-After": "10"})
        async with rebuilding:
            return await keeping.run(partial(verbs.rebuild, live), None)

    @app.get("/v1/tasks", response_model=bodies.Tasks, summary="The tasks that have datapoints")
    async def tasks(
        start: Annotated[int, Query(ge=0, le=2**53)] = 0, limit: Annotated[int, Query(ge=1, le=10_000)] = 1000
    ) -> Response:
        return await looking.run(partial(verbs.tasks, live, start, limit), limits.timeout)

    @app.get("/v1/score", response_model=bodies.Score, summary="How good predictions were")
    async def score() -> Response:
        return await looking.run(partial(verbs.score, live), limits.timeout)

    @app.get("/v1/status", summary="How the learner and the service stand")
    async def status() -> dict[str, Any]:
        found = await looking.run(partial(_learner, live, since), limits.timeout)
        return {
            "version": version,
            "began": watch.began,
            "now": time.time(),
            **found,
            "rebuilding": rebuilding.locked(),
            "score_over_time": watch.score_over_time,
            "latency": watch.latency,
            "working_on": {jobs.name: jobs.now for jobs in every},
            "limits": described(limits),
        }

    @app.get("/healthz", summary="Whether the process answers")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", summary="Whether it has caught up with what was stored when it began, and learning goes on")
    async def readyz() -> Response:
        return await looking.run(partial(verbs.ready, live, since), limits.timeout)

    @app.get("/metrics", summary="For Prometheus", response_class=Response)
    async def metrics() -> Response:
        content = await looking.run(partial(prometheus_client.generate_latest, watch.registry), limits.timeout)
        return Response(content, media_type=prometheus_client.CONTENT_TYPE_LATEST)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return pages.docs("metaleader")

    for path, file in files.items():
        app.add_api_route(path, _sender(file), include_in_schema=False)
    if tokens is not None:
        _ask_for_tokens(app)
    paths = {getattr(route, "path", "") for route in app.routes}
    public = {*OPEN, *files}
    app.add_middleware(Guard, limits=limits, tokens=tokens, public=public, paths=paths, direct=direct, watch=watch)
    return app


_OF_ALL = (
    (401, "no token"),
    (403, "not from here"),
    (422, "not what it should be"),
    (429, "too many requests"),
    (503, "overloaded, or learning has ended"),
    (504, "not done in time"),
)
_OF_BODIES = (
    (404, "a task that is not known"),
    (408, "the body did not come"),
    (413, "too large"),
    (415, "another content type"),
)


def _errors(told: Iterable[tuple[int, str]]) -> dict[int | str, dict[str, Any]]:
    """Answers that are no success, for the OpenAPI page."""
    return {code: {"model": bodies.Error, "description": what} for code, what in told}


@verbs.refusing
def _learner(live: Live, since: int) -> dict[str, Any]:
    status = live.status()
    score = wire.standing(live.score())
    return {
        "ready": verbs.is_ready(live, status, since),
        "failed": status.failed,
        "learns": live.learns or live.learning is not None,
        "learner": described(live.learner),
        "problem": described(live.problem),
        "classes": list(live.classes),
        "takes_rows": wire.takes_rows(live),
        "tasks": status.tasks,
        "datapoints": status.datapoints,
        "stored": status.stored,
        "learned": status.learned,
        "served": status.served,
        "backlog": backlog(status),
        "snapshot": status.snapshot,
        "score": score,
    }


async def _note_scores(watch: Watch, live: Live, jobs: Jobs) -> None:
    """Note the score now and then, as long as the service runs."""
    while True:
        if watch.due:
            with contextlib.suppress(Refusal):  # there is more to do: next time
                watch.note(await jobs.run(live.score, None))
        await asyncio.sleep(1.0)


def _sender(file: pages.File) -> Callable[[], Any]:
    async def send() -> Response:
        return file.response()

    return send


async def _refused(_: Request, refusal: Any) -> Response:
    return refusal.response()


async def _http_error(_: Request, error: Any) -> Response:
    return answer({"error": {"message": str(error.detail).lower()}}, error.status_code, error.headers)


async def _invalid_query(_: Request, error: Any) -> Response:
    first = error.errors()[0]
    message = f"{first['loc'][-1]}: {first['msg'].lower()}"
    return answer({"error": {"message": message}}, 422)


def _described(kind: type[Body], tables: bool) -> dict[str, Any]:
    """The body of a request, for the OpenAPI page."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    content: dict[str, Any] = {wire.JSON: {"schema": schema}}
    if tables:
        content[arrow.MEDIA_TYPE] = {"schema": {"type": "string", "format": "binary"}}
    return {"requestBody": {"required": True, "content": content}}


def _ask_for_tokens(app: FastAPI) -> None:
    """Let the OpenAPI page have a field for a token."""
    schema = app.openapi()
    schema.setdefault("components", {})["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, verbs_of_path in schema["paths"].items():
        if path not in OPEN:
            for operation in verbs_of_path.values():
                operation["security"] = [{"token": []}]
