"""The meta-gradient, next to other libraries and to a floor: `python -m benchmarks.meta_gradient`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import torch

from benchmarks import floor, peers
from benchmarks.cases import CASES, Case, Data, digits, in_double, meta_batch, package
from benchmarks.measure import Timing, by_turns
from benchmarks.outcome import Bar, Outcome, Panel, PartOptions, Table, main
from metaleader import UserError, devices

OURS = "metaleader"
EAGER, COMPILED = "torch.func with vmap", "torch.compile"
TITLE = "Meta-gradient"
APART = 1e-6  # how far apart a loss and a meta-gradient may be in double precision, relative


@dataclass(frozen=True)
class Options(PartOptions):
    """Time one meta-gradient in turns with the peers, after checking that all of them agree."""

    cases: tuple[str, ...] = tuple(CASES)
    """Which nets."""
    tasks: int = 25
    """Tasks in the meta-batch."""
    train: int = 10
    """Examples in D_tr."""
    validation: int = 10
    """Examples in D_val."""
    steps: int = 5
    """Inner gradient steps."""
    rounds: int = 7
    """Turns of every contender."""
    compiled: bool = False
    """Measure torch.compile against metaleader and eager torch.func alone, on the first net; it compiles for
    minutes."""


def measure(options: Options) -> Outcome:
    """One table a net."""
    if unknown := set(options.cases) - set(CASES):
        raise UserError(f"no case is named {', '.join(sorted(unknown))}: choose from {', '.join(CASES)}")
    devices.start()
    # Compiling is timed, and must not be found done by a run before.
    jax.config.update("jax_enable_compilation_cache", False)
    torch.compiler.config.force_disable_caches = True
    if on_gpu():
        # JAX's products round their operands to 19 bits (TF32) there unless told otherwise; PyTorch is allowed to, too.
        torch.set_float32_matmul_precision("high")
    else:
        torch.set_num_threads(jax.local_device_count())
    names = options.cases[:1] if options.compiled else options.cases
    outcomes = [_measure(options, CASES[name], first=i == 0) for i, name in enumerate(names)]
    return Outcome(
        f"{TITLE} under torch.compile" if options.compiled else TITLE,
        tuple(table for outcome in outcomes for table in outcome.tables),
        tuple(bar for outcome in outcomes for bar in outcome.bars),
        tuple(panel for outcome in outcomes for panel in outcome.panels),
    )


def on_gpu() -> bool:
    """Whether JAX computes on an accelerator."""
    return jax.default_backend() != "cpu"


def _measure(options: Options, case: Case, first: bool) -> Outcome:
    tasks = 3 if options.quick else options.tasks
    steps = 1 if options.quick and options.compiled else options.steps
    rounds = 1 if options.quick else max(2, round(options.rounds * case.rounds))
    data = meta_batch(case, tasks, options.train, options.validation)
    params = jax.tree.map(np.asarray, case.model.init(jax.random.key(0)))

    began = time.perf_counter()
    ours, _ = package(case, data, params, steps)
    compiling = {OURS: time.perf_counter() - began}
    others = {name: peer for name, (peer, _) in peers.all_peers(case, params, data, steps).items()}
    if options.compiled:
        net, tensors = peers.Net(case, params, transformed=True), peers.Tensors.of(data)
        others = {EAGER: others[EAGER], COMPILED: peers.compiled(case, net, tensors, steps)}
    apart = _agreement_in_double(case, data, params, steps)
    _warm_up(case, ours, others, compiling)

    products = floor.meta_gradient_products(floor.layers(case, params), options.train, options.validation, steps)
    floors = floor.contenders(products, tasks)
    for function in floors.values():
        function()
    timings = by_turns({OURS: ours, **others, **floors}, rounds, case.name)
    return _report(case, tasks, options, rounds, timings, apart, compiling, floor.operations(products) * tasks, first)


def _agreement_in_double(case: Case, data: Data, params: Any, steps: int) -> dict[str, tuple[float, float]]:
    """How far loss and meta-gradient of every peer are from the package's, relative, on two tasks.

    Raises:
        RuntimeError: a peer computes something else.
    """
    apart = {OURS: (0.0, 0.0)}
    with jax.enable_x64(True):
        data, params = in_double(data, params, 2)
        loss, gradient = package(case, data, params, steps)[0]()
        for name, (other, net) in peers.all_peers(case, params, data, steps).items():
            other_loss, other_gradient = other()
            apart[name] = (abs(other_loss / float(loss) - 1), peers.distance(net, other_gradient, gradient))
            if not max(apart[name]) <= APART:
                raise RuntimeError(
                    f"{name} does not agree with {OURS}: the loss is {apart[name][0]:.1e} apart, the meta-gradient "
                    f"{apart[name][1]:.1e}; {APART:.0e} is allowed"
                )
    return apart


def _warm_up(case: Case, ours: Any, others: dict[str, peers.MetaGradient], compiling: dict[str, float]) -> None:
    """The first calls of all, with what torch.compile takes.

    Raises:
        RuntimeError: a loss is another one than in the package.
    """
    loss = float(ours()[0])
    for name, other in others.items():
        began = time.perf_counter()
        other_loss = other()[0]
        if name == COMPILED:
            compiling[name] = time.perf_counter() - began
        if not abs(other_loss / loss - 1) <= (5 if on_gpu() else 1) * case.loss_apart:
            raise RuntimeError(f"{name} does not agree with {OURS}: its loss is {other_loss}, not {loss}")


def _report(
    case: Case,
    tasks: int,
    options: Options,
    rounds: int,
    timings: dict[str, Timing],
    apart: dict[str, tuple[float, float]],
    compiling: dict[str, float],
    operations: int,
    first: bool,
) -> Outcome:
    base = timings[OURS]
    rows = []
    for name, timing in sorted(timings.items(), key=lambda item: item[1].least):
        rows.append(
            (
                name,
                f"{timing.least * 1e3:.1f}",
                f"{timing.median * 1e3:.1f}",
                f"{timing.least / base.least:.2f}",
                f"{apart[name][0]:.0e}" if name in apart else "",
                f"{apart[name][1]:.0e}" if name in apart else "",
                f"{compiling[name]:.1f}" if name in compiling else "",
            )
        )
    lowest = min((name for name in timings if name.startswith("floor")), key=lambda name: timings[name].least)
    note = (
        f"{tasks} tasks of {options.train} + {options.validation} images, {options.steps} inner steps of "
        f"{case.step_size:g}, {rounds} rounds by turns; images: {digits()[2]}; {_hardware()}. The floor is "
        f"{operations / 1e9:.1f} G floating-point operations in bare "
        f"matrix products, by the fastest way: {lowest.removeprefix('floor: products by ')}. "
        "Apart: relative distance from metaleader's, on two tasks in double precision."
    )
    columns = ("", "min, ms", "median, ms", "times metaleader's", "loss apart", "gradient apart", "compiling, s")
    table = Table(f"{TITLE}: {case.name}", columns, tuple(rows), note)
    order = sorted(timings, key=lambda name: timings[name].least)
    panel = Panel(
        case.name, "time of one meta-gradient (s)", "", {"": (order, [timings[n].least for n in order])}, False, False
    )
    return Outcome(TITLE, (table,), () if on_gpu() else _bars(case.name, timings, lowest, first), (panel,))


def _hardware() -> str:
    return "float32 with products in TF32, on the GPU" if on_gpu() else f"float32, {jax.local_device_count()} cores"


def _bars(case: str, timings: dict[str, Timing], lowest: str, first: bool) -> tuple[Bar, ...]:
    """The goals for every net, and those for the Rainbow MNIST net, which comes first."""
    ours = timings[OURS].least
    if COMPILED in timings:
        return (Bar("times as fast as torch.compile", timings[COMPILED].least / ours, 2.5, at_least=True),)
    eager = {name: t.least for name, t in timings.items() if name != OURS and not name.startswith("floor")}
    fastest = min(eager, key=lambda name: eager[name])
    peer = f"{case}: times as fast as the fastest eager peer ({fastest})"
    bars = (
        Bar(peer, eager[fastest] / ours, 3, at_least=True),
        Bar(f"{case}: times XLA's own products", ours / timings[floor.XLA].least, 1.5),
    )
    of_first = (
        Bar(peer, eager[fastest] / ours, 4, at_least=True),
        Bar(f"{case}: times as fast as higher", eager["higher"] / ours, 8, at_least=True),
        Bar(f"{case}: times the matrix-product floor", ours / timings[lowest].least, 1.5),
    )
    return bars + of_first if first else bars


if __name__ == "__main__":
    main(Options, measure)
