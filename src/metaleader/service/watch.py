"""What can be seen of a service while it runs: counts, latencies, and how the learner's score went."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import prometheus_client as prometheus
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from metaleader.errors import WriteError
from metaleader.live import Ended, Live, Standing, Status
from metaleader.service.wire import standing

NEWEST = 2000  # answers of each verb, whose latencies are shown
POINTS = 500  # of the score over time: when there are as many, every second one goes
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Watch:
    """Counts and latencies of requests, and samples of the score. Its methods are called by one event loop."""

    def __init__(self) -> None:
        self.began = time.time()
        self.registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=self.registry)
        self._requests = prometheus.Counter(
            "metaleader_requests", "Requests by verb and status of HTTP.", ("verb", "status"), registry=self.registry
        )
        self._seconds = prometheus.Histogram(
            "metaleader_request_seconds", "Time to answer.", ("verb",), registry=self.registry, buckets=BUCKETS
        )
        self._newest: dict[str, deque[float]] = {}
        self._counts: dict[str, int] = {}
        self._score: list[dict[str, Any]] = []
        self._every, self._due = 1, 0

    def answered(self, verb: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(verb, str(status)).inc()
        self._seconds.labels(verb).observe(seconds)
        self._newest.setdefault(verb, deque(maxlen=NEWEST)).append(seconds)
        self._counts[verb] = self._counts.get(verb, 0) + 1

    @property
    def latency(self) -> dict[str, dict[str, float]]:
        """By verb: how many were answered, and quantiles of the newest ones in seconds."""
        found: dict[str, dict[str, float]] = {}
        for verb, seconds in self._newest.items():
            quantiles = np.quantile(np.array(seconds), (0.5, 0.9, 0.99)).tolist()
            found[verb] = {"count": self._counts[verb], **dict(zip(("p50", "p90", "p99"), quantiles, strict=True))}
        return found

    @property
    def due(self) -> bool:
        """Whether the score is to be noted, asked once a second: the more there is to show, the less often."""
        self._due = (self._due or self._every) - 1
        return self._due == 0

    def note(self, now: Standing) -> None:
        """Note how the score stands."""
        score = standing(now)
        judged = score["overall"]["datapoints"]
        if judged and (not self._score or self._score[-1]["datapoints"] != judged):
            self._score.append({"time": time.time(), "datapoints": judged, "recent": score["recent"]["values"]})
        if len(self._score) >= POINTS:
            self._score, self._every = self._score[::2], 2 * self._every

    @property
    def score_over_time(self) -> list[dict[str, Any]]:
        """Samples since the service began, oldest first: `time`, `datapoints` judged by then, `recent` means."""
        return list(self._score)


class LearnerCollector(Collector):
    """Where the learner stands, as Prometheus asks for it."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The values now."""
        try:
            status = self._live.status()
            score = standing(self._live.score())
        except (Ended, WriteError):  # it is closed, or the database does not answer
            return
        for name, value, what in (
            ("tasks", status.tasks, "Tasks that have datapoints."),
            ("datapoints", status.datapoints, "Datapoints that are stored."),
            ("backlog", backlog(status), "Events that are stored, but not learned."),
            (
                "unserved",
                status.stored - status.served,
                "Events that predictions do not know by the learner's weights.",
            ),
            ("learning_failed", float(status.failed), "1: learning ended by an error."),
            ("snapshot_timestamp_seconds", status.snapshot or 0.0, "When the newest snapshot was written."),
            ("judged_datapoints", score["overall"]["datapoints"], "Datapoints judged before they were learned."),
        ):
            yield GaugeMetricFamily(f"metaleader_{name}", what, value=value)
        recent = GaugeMetricFamily(
            "metaleader_recent_score", "Means over the newest datapoints, judged before learned.", labels=["name"]
        )
        for name, value in score["recent"]["values"].items():
            if value is not None:
                recent.add_metric([name], value)
        yield recent


def backlog(status: Status) -> int:
    """Events that are stored, but not learned."""
    return status.stored - status.learned
