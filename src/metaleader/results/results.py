"""Results of runs, from memory or from a folder, as tables, figures and a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from metaleader.errors import UserError, unknown
from metaleader.results import metrics, report
from metaleader.results.metrics import Run


@dataclass(frozen=True)
class Results:
    """What runs gave, finished or not.

    Attributes:
        runs: in the order in which they began.

    Examples:
        >>> import metaleader as ml
        >>> problem = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
        >>> stream = ml.Sinusoid(2, 20, 10).stream(0)
        >>> results = ml.run(problem, stream, {"toe": ml.TOE(1)}, seeds=2, progress=False)
        >>> [(run.about.learner, run.about.seed, len(run.records)) for run in results.runs]
        [('toe', 0, 4), ('toe', 1, 4)]
    """

    runs: tuple[Run, ...]

    @property
    def summary(self) -> dict[str, Any]:
        """All measures of every learner over the last third of the rounds; see `metrics.summary`.

        Raises:
            UserError: the runs are of several experiments.
        """
        return metrics.summary(self._one_experiment())

    def table(self) -> str:
        """A row for every learner, in Markdown.

        Raises:
            UserError: the runs are of several experiments.
        """
        return report.markdown_table(*report.table_rows(self.summary))

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with a row for every record: its fields, learner and seed, and each score by its name.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise UserError("pandas is not installed: pip install 'metaleader[pandas]'") from None
        rows = []
        for run in self.runs:
            for record in run.records:
                fields = asdict(record)
                others = fields.pop("other_scores")
                about = {"experiment": run.about.experiment, "learner": run.line, "seed": run.about.seed}
                rows.append({**about, **fields, run.about.score.name: record.score, **others})
        return pd.DataFrame(rows)

    def figure(self, name: str = "learning-curves") -> Figure:
        """A figure of the report, by its name.

        Raises:
            UserError: there is no figure of that name, or the runs are of several experiments.
        """
        runs = self._one_experiment()
        drawn = report.pictures(runs, metrics.summary(runs))
        if name not in drawn:
            raise UserError(unknown("figure", name, drawn))
        return drawn[name][0]

    def report(self, path: str | Path) -> Path:
        """Write the report into a folder, and return its page in HTML, which needs no other file.

        Raises:
            UserError: a file cannot be written.
        """
        return report.write(self.runs, Path(path))[0]

    def _one_experiment(self) -> Sequence[Run]:
        sections = report.sectioned(self.runs)
        if len(sections) != 1:
            raise UserError(
                f"these are runs of {len(sections)} experiments or settings, {', '.join(sections) or 'none'}: choose "
                "those of one, as Results(tuple(run for run in results.runs if run.section == NAME))"
            )
        return self.runs

    def _repr_html_(self) -> str:
        """What a notebook shows: a table for every experiment."""
        shown = []
        for name, runs in report.sectioned(self.runs).items():
            table = report.text_table(*report.table_rows(metrics.summary(runs)))
            shown.append(f"<p>{escape(name)}</p>{table}")
        return "".join(shown)


def load(folder: str | Path) -> Results:
    """The results in a folder that `run` or the command made, also while it is still being filled.

    Raises:
        UserError: the folder does not exist or holds no run.

    Examples:
        >>> import tempfile, metaleader as ml
        >>> problem = ml.Problem(ml.MLP(depth=0), ml.squared_error, ml.mean_squared_error)
        >>> stream = ml.Sinusoid(2, 20, 10).stream(0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     made = ml.run(problem, stream, {"toe": ml.TOE(1)}, out=folder, progress=False)
        ...     ml.load(folder).runs[0].records == made.runs[0].records
        True
    """
    return Results(tuple(metrics.load([Path(folder)])))
