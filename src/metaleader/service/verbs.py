"""The verbs of a learner, each as a function of the bytes of a request; called in threads, as all of them block."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

from starlette.responses import Response

from metaleader.errors import WriteError
from metaleader.live import Ended, Follows, Live, NotInTime, Status, UnknownTask
from metaleader.service import arrow, bodies, wire
from metaleader.service.limits import Limits, whole_seconds
from metaleader.service.refusal import Refusal, answer
from metaleader.service.watch import backlog

_log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")
# What is said where the file system or the database refuses to write, by the verb.
_REFUSED = {
    "learn": (503, "the file system refuses: nothing of this request is stored; try again later with the same ids"),
    # No 503, after which clients ask again: the task is forgotten then, and not known.
    "forget": (
        507,
        "the file system refuses: if the task is forgotten, which the list of tasks tells, its datapoints leave the "
        "files with the next save that succeeds",
    ),
}


class Sent(NamedTuple):
    """What a client sent.

    Attributes:
        raw: the body.
        content_type: of it.
        accept: which types of answers it takes.
    """

    raw: bytes
    content_type: str
    accept: str


def refusing(verb: Callable[P, T]) -> Callable[P, T]:
    """With errors of the learner as refusals. Those that may tell of other tasks, or of files, are told to the log."""

    @wraps(verb)
    def told(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return verb(*args, **kwargs)
        except Ended as error:
            _log.error("%s", error)
            message = "learning has ended: whoever runs the service finds the cause in its log"
            raise Refusal(503, message, {"Retry-After": "60"}) from error
        except WriteError as error:
            _log.error("%s", error)
            status, message = _REFUSED.get(verb.__name__, (503, "the disk or the database refuses: try again later"))
            raise Refusal(status, message, {"Retry-After": "10"}) from error
        except Follows as error:
            _log.warning("%s", error)
            raise Refusal(
                409, "this process follows another one, which alone learns and saves: ask that one"
            ) from error
        except NotInTime as error:
            raise Refusal(504, str(error)) from error
        except UnknownTask as error:
            raise Refusal(404, str(error)) from error
        except ValueError as error:  # UserError, and what the library says of data
            raise Refusal(422, " ".join(str(error).split())) from error

    return told


@refusing
def learn(live: Live, limits: Limits, sent: Sent) -> Response:
    """Store datapoints, unless too many wait to be learned."""
    body = wire.read(bodies.Learn, sent.raw, sent.content_type, live, limits.rows)
    if (waiting := live.backlog) >= limits.backlog:
        raise Refusal(
            503,
            f"{waiting} datapoints wait to be learned: give these again later, with the same ids",
            {"Retry-After": whole_seconds(waiting / 1000)},
        )
    told: Any = live.learn  # inputs and targets, or rows
    new, sequence = told(body.task, *wire.datapoints(live, body, limits.rows), ids=body.ids)
    return answer({"new": new, "sequence": sequence})


@refusing
def predict(live: Live, limits: Limits, sent: Sent) -> Response:
    """Predict inputs of a task."""
    body = wire.read(bodies.Predict, sent.raw, sent.content_type, live, limits.rows)
    return _predicted(live, live.predict(body.task, wire.inputs(live, body.x, body.rows, limits.rows)), sent.accept)


@refusing
def adapt(live: Live, limits: Limits, sent: Sent) -> Response:
    """Predict inputs of a task that has the datapoints given."""
    body = wire.read(bodies.Adapt, sent.raw, sent.content_type, live, limits.rows)
    inputs = wire.inputs(live, body.inputs, body.input_rows, limits.rows, "inputs")
    adapted: Any = live.adapt  # to inputs and targets, or rows
    return _predicted(live, adapted(*wire.datapoints(live, body, limits.rows)).predict(inputs), sent.accept)


@refusing
def forget(live: Live, limits: Limits, sent: Sent) -> Response:
    """Forget a task."""
    body = wire.read(bodies.Forget, sent.raw, sent.content_type, live, limits.rows)
    return answer(live.forget(body.task)._asdict())


@refusing
def wait(live: Live, limits: Limits, sent: Sent) -> Response:
    """Wait until all is learned."""
    body = wire.read(bodies.Wait, sent.raw, sent.content_type, live, limits.rows)
    live.wait(body.timeout)
    return Response(status_code=204)


@refusing
def tasks(live: Live, start: int, limit: int) -> Response:
    """Some of the tasks."""
    found = list(live.tasks().items())
    some = [{"task": task, "datapoints": n} for task, n in found[start : start + limit]]
    more = start + limit if start + limit < len(found) else None
    return answer({"tasks": some, "total": len(found), "next": more})


@refusing
def score(live: Live) -> Response:
    """How good predictions were."""
    return answer(wire.standing(live.score()))


@refusing
def save(live: Live) -> Response:
    """Write a snapshot."""
    live.save()
    return Response(status_code=204)


@refusing
def rebuild(live: Live) -> Response:
    """Learn the log anew."""
    live.rebuild()
    return Response(status_code=204)


@refusing
def ready(live: Live, since: int) -> Response:
    """Whether what was stored when the service began is learned by now, and learning goes on."""
    status = live.status()
    if status.failed:
        raise Refusal(503, "learning has ended: whoever runs the service finds the cause in its log")
    if not is_ready(live, status, since):
        left = since - status.served
        raise Refusal(
            503, f"{left} events of the log are still to be learned", {"Retry-After": whole_seconds(left / 100)}
        )
    return answer({"status": "ready", "backlog": backlog(status)})


def is_ready(live: Live, status: Status, since: int) -> bool:
    """Whether predictions know the first `since` events of the log; of those that follow others, any snapshot."""
    follows = not live.learns and live.learning is None
    return not status.failed and (status.served >= since or (follows and status.served > 0))


def _predicted(live: Live, predictions: Any, accept: str) -> Response:
    about = {"classes": list(live.classes)} if live.classes else {}
    if arrow.MEDIA_TYPE in accept:
        return Response(arrow.written(predictions, about), media_type=arrow.MEDIA_TYPE)
    values, dtype = wire.plain(predictions)
    return answer({"predictions": values, "dtype": dtype, **about})
