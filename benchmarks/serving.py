"""Predictions and datapoints a second through HTTP, while learning runs: `python -m benchmarks.serving`."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.outcome import Bar, Outcome, PartOptions, Table, main
from benchmarks.served import EXAMPLE, KINDS, LEARNER, PROBLEM, datapoints, served
from metaleader.live import Live, Pace

TITLE = "A learner that is served"
TICKS = os.sysconf("SC_CLK_TCK")
WARM_UP = 5.0  # seconds before anything counts
LONGEST = 120.0  # seconds until a service must answer
SETTLING = 0.25  # of the time, after which memory is taken to be steady


@dataclass(frozen=True)
class Options(PartOptions):
    """Ask a service by HTTP from another process, so many requests a second, and measure how long answers take.

    The times of requests are set before: a request that starts late, as all connections wait for answers, counts from
    when it was due.
    """

    seconds: float = 60.0
    """How long each service is asked."""
    tasks: int = 1000
    """Tasks, asked for at random."""
    in_flight: int = 8
    """Connections, each with one request at a time."""
    predictions: float = 305.0
    """Predictions asked for a second, of one input each."""
    datapoints: float = 102.0
    """Datapoints given a second."""
    together: int = 1
    """Datapoints in a request."""
    refresh: float = 2.0
    """Seconds for which predictions may be made from an older state."""
    share: float = 1.0
    """How much of the time learning may take."""


class Load(NamedTuple):
    """What was measured of a service: seconds of each answer by verb, and of the process."""

    predict: np.ndarray
    learn: np.ndarray
    refused: int
    seconds: float
    cpu: float
    memory: list[float]
    backlog: int


def measure(options: Options) -> Outcome:
    """Each service in turn, and adapting within the process."""
    seconds = 3.0 if options.quick else options.seconds
    tasks = 20 if options.quick else options.tasks
    loads: dict[str, Load] = {}
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            pace = Pace(share=options.share, refresh=options.refresh, snapshot=options.refresh)
            with served(kind, Path(folder) / "live", tasks, pace) as (port, process):
                loads[kind] = asyncio.run(_load(options, seconds, tasks, port, process))
    adapting = _adapting(20 if options.quick else 500)
    rows = tuple(_row(kind, load, options) for kind, load in loads.items())
    live = loads["live"]
    steady = live.memory[int(SETTLING * len(live.memory)) :]
    columns = (
        "service",
        "predictions/s",
        "p50",
        "p99",
        "datapoints/s",
        "p50",
        "p99",
        "refused",
        "CPU",
        "MiB",
        "backlog",
    )
    note = (
        f"{options.in_flight} connections, {tasks} tasks, predictions of one input, {options.together} datapoints a "
        f"request, {seconds:g} s. p50 and p99 in ms, from when a request was due. CPU: seconds of the server in a "
        "second. floor: the same net behind the same service, neither learning nor storing. river: a linear model for "
        "each task behind the same service, learning within the request, storing nothing."
    )
    times = Table(
        "Adapting to 10 datapoints of a new task and predicting, in the process",
        ("p50", "p99"),
        (tuple(f"{1e3 * np.quantile(adapting, q):.2f} ms" for q in (0.5, 0.99)),),
    )
    bars = (
        Bar("predictions a second", len(live.predict) / live.seconds, 300, at_least=True),
        Bar("durable datapoints a second", options.together * len(live.learn) / live.seconds, 100, at_least=True),
        Bar("p99 of predictions while learning runs", 1e3 * float(np.quantile(live.predict, 0.99)), 30, unit=" ms"),
        Bar("growth of memory", max(steady) - min(steady[: max(len(steady) // 4, 1)]), 50, unit=" MiB"),
        Bar("adapting to 10 datapoints and predicting, median", 1e3 * float(np.median(adapting)), 5, unit=" ms"),
    )
    return Outcome(TITLE, (Table("Answers by HTTP", columns, rows, note), times), bars)


def _row(kind: str, load: Load, options: Options) -> tuple[str, ...]:
    def of(seconds: np.ndarray) -> tuple[str, ...]:
        return tuple(f"{1e3 * np.quantile(seconds, q):.1f}" for q in (0.5, 0.99))

    return (
        kind,
        f"{len(load.predict) / load.seconds:.0f}",
        *of(load.predict),
        f"{options.together * len(load.learn) / load.seconds:.0f}",
        *of(load.learn),
        str(load.refused),
        f"{load.cpu / load.seconds:.2f}",
        f"{load.memory[-1]:.0f}",
        str(load.backlog),
    )


async def _load(options: Options, seconds: float, tasks: int, port: int, process: int) -> Load:
    random, loop = np.random.default_rng(0), asyncio.get_running_loop()
    a_second = {"predict": options.predictions, "learn": options.datapoints / options.together}
    due = sorted(
        (at, verb)
        for verb, rate in a_second.items()
        for at in np.arange(0.0, WARM_UP + seconds, 1 / rate) + random.uniform(0, 1 / rate)
    )
    bodies = iter([(at, verb, _body(verb, int(random.integers(tasks)), options.together)) for at, verb in due])
    found: dict[str, list[float]] = {"predict": [], "learn": []}
    refused = 0
    connections = [await _opened(port) for _ in range(options.in_flight)]
    for reader, writer in connections:  # compiled for what is asked
        await _asked(reader, writer, "predict", _body("predict", 0, 1))
    began, cpu, memory = loop.time(), 0.0, list[float]()

    async def work(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal refused
        for at, verb, body in bodies:
            await asyncio.sleep(max(began + at - loop.time(), 0))
            status = await _asked(reader, writer, verb, body)
            if at >= WARM_UP:
                refused += status != 200
                if status == 200:
                    found[verb].append(loop.time() - began - at)

    async def watch() -> None:
        nonlocal cpu
        await asyncio.sleep(WARM_UP)
        cpu = _cpu(process)
        while True:
            memory.append(_memory(process))
            await asyncio.sleep(0.5)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(work(*connection) for connection in connections))
    watching.cancel()
    took, cpu = loop.time() - began - WARM_UP, _cpu(process) - cpu
    reader, writer = connections[0]
    status = await _told(reader, writer)
    for _, writer in connections:
        writer.close()
    predict, learn = (np.array(found[verb]) for verb in ("predict", "learn"))
    return Load(predict, learn, refused, took, cpu, memory, status["backlog"])


def _body(verb: str, task: int, n: int) -> bytes:
    x, y = datapoints(task, 1 if verb == "predict" else n)
    told = {"task": task, "x": x.tolist()} | ({} if verb == "predict" else {"y": y.tolist()})
    return json.dumps(told).encode()


async def _opened(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    until = time.monotonic() + LONGEST
    while True:
        try:
            return await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:  # it is not serving yet
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.1)


async def _asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, verb: str, body: bytes) -> int:
    """The status of the answer. A client of few lines, which leaves the processors to the server."""
    head = f"POST /v1/{verb} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return (await _answer(reader))[0]


async def _told(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Any:
    writer.write(b"GET /v1/status HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    return json.loads((await _answer(reader))[1])


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
    length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length:"))
    return int(lines[0].split()[1]), await reader.readexactly(length)


def _family(process: int) -> list[int]:
    """A process and those that it started: the one that learns."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [process, *(each for child in children for each in _family(int(child)))]


def _cpu(process: int) -> float:
    """Seconds that a process and those that it started have computed."""
    stats = [Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split() for each in _family(process)]
    return sum(int(fields[11]) + int(fields[12]) for fields in stats) / TICKS


def _memory(process: int) -> float:
    """MiB that they have in memory; what two share counts twice."""
    pages = sum(int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in _family(process))
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _adapting(times: int) -> np.ndarray:
    """Seconds to adapt to 10 datapoints and to predict one input, compiled before."""
    found = []
    with tempfile.TemporaryDirectory() as folder, Live.create(folder, PROBLEM, LEARNER, example=EXAMPLE) as live:
        for i in range(times + 10):
            x, y = datapoints(i, 10)
            began = time.perf_counter()
            live.adapt(x, y).predict(x[:1])
            found.append(time.perf_counter() - began)
    return np.array(found[10:])


if __name__ == "__main__":
    main(Options, measure)
