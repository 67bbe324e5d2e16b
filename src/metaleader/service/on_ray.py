"""The service on Ray Serve: replicas that predict and store, and one that learns, behind Ray's HTTP proxies.

Any replica that predicts answers any request, by the application of `app`: it follows the one that learns, as
`metaleader serve --follow` does. What only the learner can do goes to it by a handle of Ray. Where the replica that
learns ends, with its machine perhaps, Ray starts another one elsewhere, which takes over by the lease.
"""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import sys
import threading
from dataclasses import dataclass
from typing import Any

from metaleader.errors import UserError
from metaleader.live import Ended, Follows, Live, Pace
from metaleader.service.app import KEEPING, application
from metaleader.service.limits import Limits
from metaleader.service.logs import fields, log_json
from metaleader.service.server import KEEP_ALIVE, STOPS, TURN
from metaleader.service.tokens import Tokens

_log = logging.getLogger(__name__)
NAME, LEARNER, PREDICTOR = "metaleader", "learner", "predictor"  # of the application and its deployments
SAVING = 60.0  # seconds that the learner has at least, to write its last snapshot


@dataclass(frozen=True)
class Service:
    """What all replicas are told.

    Attributes:
        place: where the learner is: the URL of a database; or a folder, on one machine.
        pace: as in `Live.open` and `Live.follow`.
        limits: of each replica that predicts.
        tokens: one of which a request needs.
        replicas: how many predict.
    """

    place: str
    pace: Pace
    limits: Limits
    tokens: Tokens | None
    replicas: int


class Learner:
    """The replica that learns, or stands by while another process does."""

    def __init__(self, service: Service) -> None:
        log_json()
        self._live: Live | None = None
        self._failure: Exception | None = None
        # Not awaited: a process that is no replica may have the lease, and those that predict can begin meanwhile.
        threading.Thread(target=self._open, args=(service,), daemon=True).start()

    def _open(self, service: Service) -> None:
        try:
            self._live = Live.open(service.place, wait=math.inf, pace=service.pace)
        except Exception as error:
            self._failure = error
            _log.error("the learner cannot be opened: %s", error)
        else:
            _log.info("learning")

    async def save(self) -> None:
        """As `Live.save`."""
        await asyncio.to_thread(self._opened.save)

    async def rebuild(self) -> None:
        """As `Live.rebuild`."""
        await asyncio.to_thread(self._opened.rebuild)

    @property
    def _opened(self) -> Live:
        if self._live is None:
            raise Follows("the replica that learns stands by while another process learns, or is about to begin")
        return self._live

    def check_health(self) -> None:
        """Asked by Ray, which starts another replica where it fails.

        Raises:
            Ended: learning ended by an error, or could not begin.
        """
        if self._failure is not None or (self._live is not None and self._live.failed):
            raise Ended("learning ended by an error, or could not begin") from self._failure

    def __del__(self) -> None:
        """Called by Ray: let another process learn at once."""
        if self._live is not None:
            self._live.close()


class Remote:
    """The replica that learns, as those that follow it ask it (`Learning`)."""

    failed = False  # Ray sees to that

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def ask(self, verb: str) -> None:
        """Let it `save` or `rebuild`."""
        _answered(getattr(self._handle, verb).remote())


def _answered(response: Any) -> None:
    """Wait for an answer of Ray.

    Raises:
        Exception: that of the replica, without what Ray writes around it.
        Ended: the replica ended meanwhile.
    """
    from ray.exceptions import RayError, RayTaskError
    from ray.serve.exceptions import RayServeException

    try:
        response.result()
    except RayTaskError as error:
        raise error.cause from None
    except (RayError, RayServeException) as error:
        raise Ended("the replica that learns does not answer: Ray starts another one; ask again later") from error


def deployed(service: Service) -> Any:
    """The application of Ray Serve."""
    from ray import serve

    made: list[Any] = []  # in the process of a replica: its application of HTTP

    class Predictor:
        """A replica that predicts, and stores datapoints for the one that learns."""

        def __init__(self, learner: Any) -> None:
            log_json()
            sys.setswitchinterval(TURN)
            self._live = Live.follow(service.place, pace=service.pace, learning=Remote(learner))
            if self._live.layout is not None:
                self._live.warm_up()
            made.append(application(self._live, service.limits, service.tokens))

        def check_health(self) -> None:
            if self._live.failed:
                raise Ended("following ended by an error")

        def __del__(self) -> None:
            self._live.close()

    limits, about = service.limits, {"enable_access_log": False}
    learner = serve.deployment(
        Learner,
        name=LEARNER,
        num_replicas=1,
        max_ongoing_requests=KEEPING,
        ray_actor_options={"num_cpus": 1},
        graceful_shutdown_timeout_s=max(SAVING, limits.timeout),
        logging_config=about,
    )
    predictor = serve.deployment(
        serve.ingress(lambda: made[0])(Predictor),
        name=PREDICTOR,
        num_replicas=service.replicas,
        max_ongoing_requests=2 * limits.requests,  # above what is answered, so that it is the service that refuses
        max_queued_requests=limits.requests,
        ray_actor_options={"num_cpus": 1},
        graceful_shutdown_timeout_s=limits.timeout + 1,
        logging_config=about,
    )
    return predictor.bind(learner.bind(service))


def serve_on_ray(service: Service, host: str, port: int, address: str | None) -> None:
    """Answer requests until SIGTERM or SIGINT; then finish those that have begun.

    Args:
        service: what is served.
        host: where Ray's proxies listen: one on each machine that has replicas.
        port: likewise.
        address: of the Ray cluster; None: Ray is started on this machine, and ends with the service.

    Raises:
        UserError: Ray is not installed, or the cluster cannot be joined.
    """
    try:
        import ray
        from ray import serve
    except ImportError:
        raise UserError("Ray Serve is not installed: pip install 'metaleader[ray]', or leave out --ray") from None
    own = {"num_cpus": service.replicas + 1, "include_dashboard": False}
    try:
        ray.init(address or "local", logging_level=logging.WARNING, **({} if address else own))
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(f"cannot join the Ray cluster at {address}: {' '.join(str(error).split())}") from error
    over = threading.Event()
    try:
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        serve.start(
            http_options={"host": host, "port": port, "keep_alive_timeout_s": KEEP_ALIVE},
            logging_config={"log_level": "WARNING"},
        )
        serve.run(deployed(service), name=NAME, route_prefix="/")
        for each in STOPS:
            signal.signal(each, lambda *_: over.set())
        shown = f"[{host}]" if ":" in host else host
        _log.info("serving", extra=fields(url=f"http://{shown}:{port}", replicas=service.replicas))
        over.wait()
        _log.info("stopping")
        serve.delete(NAME)
        if address is None:
            serve.shutdown()
    finally:
        ray.shutdown()
    _log.info("stopped")
