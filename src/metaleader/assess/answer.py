"""The answer in words: does learning across tasks pay here, who is best, and from how many rows on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from jaxtyping import Bool

from metaleader.assess.contest import END, Contest
from metaleader.assess.inference import FEWEST, FEWEST_IN_TIME, Ratio, Resampled, resampled
from metaleader.assess.saved import Saved, saved
from metaleader.errors import listed

NEAR = 1.5  # times the error of the best
NAMED = 3  # learners that failed, of many


@dataclass(frozen=True)
class Comparison:
    """A learner against another at a size.

    Attributes:
        size: of D_t, or `END`.
        better: name.
        other: name.
        ratio: of their errors; NaN where they are not compared.
        failed: where one of the two failed at this size, so that they are not compared, all learners that did.
    """

    size: int
    better: str
    other: str
    ratio: Ratio
    failed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What the contest says.

    Attributes:
        pays: at each size, the best learner across tasks against the best of one task alone.
        wins: at each size, the best of all against the second best.
        meta: at each size, the best learner that learns to adapt against the best that does not; nothing where only
            one of the two kinds competes.
        best_at: at each size, those that did not fail and are not shown to be worse than the best of all.
        winner: the learner to keep: with the least geometric mean of errors over all sizes.
        saved: the rows of a new task that it saves against the best learner of one task alone or, where it is that one
            itself, against the second best of all; None where there is one size to judge at.
        tasks: how many were judged.
        needed: how many are needed to say something of others.
    """

    pays: tuple[Comparison, ...]
    wins: tuple[Comparison, ...]
    meta: tuple[Comparison, ...]
    best_at: tuple[tuple[str, ...], ...]
    winner: str
    saved: Saved | None
    tasks: int
    needed: int


def answer(found: Contest) -> Answer:
    """Compare errors at every size; each of the three kinds of comparisons holds at all sizes at once.

    Who is best was found on the same tasks: the best is compared with all others at once, so that its lead over the
    second is not taken for more than the best of several learners gets by luck. Those that err more than `NEAR` times
    as much are out without a comparison: errors of a learner that is off by much on a few tasks would widen the
    intervals of all.
    """
    names = list(found.setup.candidates)
    entries = found.setup.candidates
    across = [i for i, name in enumerate(names) if entries[name].across]
    alone = [i for i in range(len(names)) if i not in across]
    meta = [i for i, name in enumerate(names) if entries[name].meta]
    simple = [i for i in range(len(names)) if i not in meta]
    means = resampled(found.errors, ordered=not found.setup.tasks.shuffled)
    sizes = range(len(found.setup.sizes))
    everyone = range(len(names))
    sound = np.isfinite(means.means)

    def named(best: list[tuple[int, int, Ratio]]) -> tuple[Comparison, ...]:
        failed = [() if sound[[i, j], at].all() else _named(names, ~sound[:, at]) for at, (i, j, _) in enumerate(best)]
        return tuple(
            Comparison(found.setup.sizes[at], names[i], names[j], ratio, failed[at])
            for at, (i, j, ratio) in enumerate(best)
        )

    of_size = [_leader(means, everyone, at) for at in sizes]
    seconds = [_leader(means, [j for j in everyone if j != i], at) for at, i in enumerate(of_size)]
    every = [
        [(i, j, at) for j in everyone if j != i and (j == seconds[at] or _near(means, j, i, at))]
        for at, i in enumerate(of_size)
    ]
    ratios = iter(means.compare([pair for pairs in every for pair in pairs]))
    against = [{j: next(ratios) for _, j, _ in pairs} for pairs in every]
    wins = named([(i, j, against[at][j]) for at, (i, j) in enumerate(zip(of_size, seconds, strict=True))])
    best_at = tuple(
        tuple(
            names[j]
            for j in (i, *sorted(found_, key=lambda j: means.logs[j, at]))
            if sound[j, at] and not (j != i and found_[j].shown)
        )
        for at, (i, found_) in enumerate(zip(of_size, against, strict=True))
    )
    overall = int(np.argmin(means.logs.mean(axis=1)))
    numbers = [size for size in found.setup.sizes if size != END]
    rival = _leader(means, alone, len(numbers) - 1)
    if rival == overall:
        rival = min((i for i in everyone if i != overall), key=lambda i: means.logs[i].mean())
    return Answer(
        named(_group_against_group(means, across, alone)),
        wins,
        named(_group_against_group(means, meta, simple)) if meta and simple else (),
        best_at,
        names[overall],
        saved(means, names, numbers, overall, rival),
        found.errors.shape[1],
        FEWEST if found.setup.tasks.shuffled else FEWEST_IN_TIME,
    )


def _named(names: Sequence[str], which: Bool[np.ndarray, " learners"]) -> tuple[str, ...]:
    return tuple(name for name, is_one in zip(names, which.tolist(), strict=True) if is_one)


def _leader(means: Resampled, among: range | list[int], at: int) -> int:
    return min(among, key=lambda i: means.logs[i, at])


def _near(means: Resampled, i: int, best: int, at: int) -> bool:
    return bool(means.means[i, at] <= NEAR * means.means[best, at])


def _group_against_group(means: Resampled, one: list[int], other: list[int]) -> list[tuple[int, int, Ratio]]:
    """At each size the best of one group against the best of the other.

    Every learner of the one that is near its best is compared with the best of the other, all at once, at all sizes.
    """
    sizes = range(means.logs.shape[1])
    rivals = [_leader(means, other, at) for at in sizes]
    best = [_leader(means, one, at) for at in sizes]
    pairs = [(i, rivals[at], at) for at in sizes for i in one if i == best[at] or _near(means, i, best[at], at)]
    ratios = dict(zip(pairs, means.compare(pairs), strict=True))
    return [(i, j, ratios[i, j, at]) for at, (i, j) in enumerate(zip(best, rivals, strict=True))]


def in_words(found: Contest, given: Answer) -> list[str]:
    """The answer, a sentence or two for each of its three parts."""
    title = {name: candidate.title for name, candidate in found.setup.candidates.items()}
    sound = _sound(found, given.winner)
    if given.tasks < given.needed:
        return [
            f"Only {given.tasks} tasks could be judged, too few to say anything of others: at least {given.needed} are "
            f"needed. On these, {f'{title[given.winner]} erred least' if sound else 'every learner failed'}."
        ]
    keep = "which errs least over all sizes" if sound else "though every learner failed at some number of rows"
    return [_pays(given, title), _best(given, title, keep), *([_meta(given, title)] if given.meta else [])]


def _sound(found: Contest, name: str) -> bool:
    """Whether a learner failed nowhere."""
    return bool(np.isfinite(found.errors[list(found.setup.candidates).index(name)]).all())


def rows_of(size: int) -> str:
    """`after 5 rows` and the like."""
    return "after all rows" if size == END else "before the first row" if size == 0 else f"after {_counted(size)}"


def _counted(rows: int) -> str:
    return "1 row" if rows == 1 else f"{rows} rows"


def between(first: int, last: int) -> str:
    """`from 2 to 10 rows` and the like."""
    if first == last:
        return rows_of(first)
    if last == END:
        return f"from {_counted(first)} on" if first else "at every number of rows"
    return f"from {first} to {last} rows" if first else f"up to {_counted(last)}"


def percent(ratio: Ratio) -> str:
    """`12 % less error (95 % interval 3 to 20 %)`."""
    less = ratio.gain >= 0
    low, high = (ratio.low, ratio.high) if less else (-ratio.high, -ratio.low)
    interval = f"95 % interval {_in_hundred(low)} to {_in_hundred(high)} %"
    if not math.isfinite(ratio.low):
        interval = "on so few tasks that no interval can be told"
    return f"{_in_hundred(abs(ratio.gain))} % {'less' if less else 'more'} error ({interval})"


def _in_hundred(share: float) -> str:
    """A share in per cent: whole ones, tenths below two."""
    return f"{100 * share:.0f}" if abs(share) >= 0.02 else f"{100 * share:.1f}"


def _pays(given: Answer, title: dict[str, str]) -> str:
    shown, compared = [c for c in given.pays if c.ratio.shown], [c for c in given.pays if not c.failed]
    tasks, left_out = f"over {given.tasks} tasks", _not_compared(given.pays, title)
    if not compared:
        return f"Whether learning across tasks pays cannot be told here.{left_out}"
    if not shown:
        most = max(compared, key=lambda c: c.ratio.gain)
        return (
            f"Learning across tasks does not pay here, as far as {given.tasks} tasks can tell: at no number of rows is "
            f"it shown to err less than learning each task alone. Nearest to it, {rows_of(most.size)}: "
            f"{title[most.better]} with {percent(most.ratio)} than {title[most.other]}.{left_out}"
        )
    first, last = shown[0], shown[-1]
    said = (
        f"Learning across tasks pays {_where(given.pays)}: {rows_of(first.size)} of a new task, {title[first.better]} "
        f"has {percent(first.ratio)} than the best learner of one task alone ({title[first.other]}), {tasks}"
    )
    if last is not first:
        said += f"; {rows_of(last.size)}, {title[last.better]} has {percent(last.ratio)} than {title[last.other]}"
    return f"{said}." + ("" if len(shown) == len(compared) else " Elsewhere no gain is shown.") + left_out


def _not_compared(comparisons: Sequence[Comparison], title: dict[str, str]) -> str:
    """A sentence on the sizes at which there was nothing to compare; none, where there are no such sizes."""
    runs = [list(run) for failed, run in groupby(comparisons, key=lambda c: c.failed) if failed]
    parts = [f"{between(run[0].size, run[-1].size)}, where {_failed(run[0], title)}" for run in runs]
    return f" Not compared: {'; '.join(parts)}." if parts else ""


def _failed(comparison: Comparison, title: dict[str, str]) -> str:
    return f"{listed([title[name] for name in comparison.failed], NAMED)} failed"


def _where(compared: Sequence[Comparison]) -> str:
    """At which sizes the first learner is shown to be better."""
    shown = [c.ratio.shown for c in compared]
    if all(shown):
        return "at every number of rows"
    runs = [list(run) for is_shown, run in groupby(compared, key=lambda c: c.ratio.shown) if is_shown]
    return " and ".join(between(run[0].size, run[-1].size) for run in runs)


def _best(given: Answer, title: dict[str, str], keep: str) -> str:
    """Who is best, for each run of sizes at which that is the same, and the winner, with why to keep it."""
    entries = list(zip(given.wins, given.best_at, strict=True))
    parts = []
    for _, group in groupby(entries, key=lambda entry: (entry[0].better, entry[0].ratio.shown, entry[0].failed)):
        run = list(group)
        (first, able), (last, _) = run[0], run[-1]
        said = f"{between(first.size, last.size)} {title[first.better] if able else 'none'}"
        if first.failed:
            parts.append(f"{said}, as {_failed(first, title)}")
        elif first.ratio.shown:
            least, most = (end([c.ratio.gain for c, _ in run]) for end in (min, max))
            span = _in_hundred(most) if len(run) == 1 else f"{_in_hundred(least)} to {_in_hundred(most)}"
            parts.append(f"{said}, with {span} % less error than the second ({title[first.other]})")
        else:
            others = [title[name] for name in able[1:]]
            more = f" and {len(others) - 2} more" if len(others) > 2 else ""
            parts.append(f"{said}, not told apart from {', '.join(others[:2])}{more}")
    kept = f"To keep: {title[given.winner]}, {keep}{_saved(given.saved, title)}"
    return f"Best of {len(title)}: {'; '.join(parts)}. {kept}."


def _saved(saves: Saved | None, title: dict[str, str]) -> str:
    if saves is None:
        return ""
    rival, after = title[saves.rival], rows_of(saves.size)
    if saves.needed >= saves.size:
        return f"; with no fewer rows does it reach the error that {rival} has {after}"
    # Less than the first size and more than the last are not compared, so that more may be saved than is between them.
    most = saves.size - saves.first
    interval = f"from {saves.low:.2g} on" if saves.high == most else f"{saves.low:.2g} to {saves.high:.2g}"
    if saves.rows == most:
        reached, rows = f"{rows_of(saves.first)} it errs no more than {rival} does {after}", f"at least {most}"
    else:
        reached = f"{rows_of(math.ceil(saves.needed))} it has the error that {rival} has {after}"
        rows = f"about {saves.rows:.2g}"
    return f"; {reached}, and so saves {rows} rows of a new task (95 % interval {interval})"


def _meta(given: Answer, title: dict[str, str]) -> str:
    shown, compared = [c for c in given.meta if c.ratio.shown], [c for c in given.meta if not c.failed]
    left_out = _not_compared(given.meta, title)
    if not compared:
        return f"Learning to adapt (FTML) cannot be compared with simpler ways of learning across tasks.{left_out}"
    if shown:
        most = max(shown, key=lambda c: c.ratio.gain)
        return (
            f"Learning to adapt pays {_where(given.meta)}: most {rows_of(most.size)}, where {title[most.better]} has "
            f"{percent(most.ratio)} than the best learner that does not learn to adapt ({title[most.other]})."
            f"{left_out}"
        )
    least = min(compared, key=lambda c: c.ratio.gain)
    worse = least.ratio.high < 0
    return (
        "Learning to adapt (FTML) is not shown to beat simpler ways of learning across tasks at any number of rows"
        + (
            f"; {rows_of(least.size)} it is worse: {title[least.better]} has {percent(least.ratio)} than "
            f"{title[least.other]}"
            if worse
            else ""
        )
        + f".{left_out}"
    )
