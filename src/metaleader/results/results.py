"""Results of runs, from memory or from a folder, as tables, figures and a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure

from metaleader.errors import UserError, imported, unknown, writing
from metaleader.files import write_whole
from metaleader.results import metrics, report
from metaleader.results.looks import Look
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

    def table(self, format: Literal["markdown", "latex"] = "markdown") -> str:  # noqa: A002
        """A row for every learner, in Markdown or for LaTeX with the package booktabs.

        Raises:
            UserError: the runs are of several experiments, or the format is another one.
        """
        tables = {"markdown": report.markdown_table, "latex": report.latex_table}
        if format not in tables:
            raise UserError(unknown("format", format, tables))
        return tables[format](*report.table_rows(self.summary))

    def rows(self) -> list[dict[str, Any]]:
        """A row for every record: experiment, learner and seed, the fields of `Record`, each score by its name."""
        found = []
        for run in self.runs:
            for record in run.records:
                fields = asdict(record)
                others = fields.pop("other_scores")
                about = {"experiment": run.about.experiment, "learner": run.line, "seed": run.about.seed}
                found.append({**about, **fields, run.about.score.name: record.score, **others})
        return found

    def to_pandas(self) -> Any:
        """The `rows` as a `pandas.DataFrame`.

        Raises:
            UserError: pandas is not installed.
        """
        return imported("pandas", "pandas", "to_pandas").DataFrame(self.rows())

    def to_polars(self) -> Any:
        """The `rows` as a `polars.DataFrame`.

        Raises:
            UserError: polars is not installed.
        """
        return imported("polars", "tables", "to_polars").DataFrame(self.rows(), infer_schema_length=None)

    def to_arrow(self) -> Any:
        """The `rows` as a `pyarrow.Table`.

        Raises:
            UserError: pyarrow is not installed.
        """
        rows = self.rows()
        names = dict.fromkeys(name for row in rows for name in row)  # experiments may have scores of their own
        return imported("pyarrow", "arrow", "to_arrow").table({name: [row.get(name) for row in rows] for name in names})

    def to_parquet(self, path: str | Path) -> Path:
        """Write the `rows` to a file of Parquet, whole or not at all; returns its path.

        Raises:
            UserError: pyarrow is not installed.
            WriteError: the file system refuses.
        """
        table, path = self.to_arrow(), Path(path)
        with writing(path.parent):
            write_whole(path, lambda file: imported("pyarrow.parquet", "arrow", "to_parquet").write_table(table, file))
        return path

    def figure(
        self,
        name: str = "learning-curves",
        *,
        size: tuple[float, float] | None = None,
        font: float | None = None,
        grey: bool = False,
    ) -> Figure:
        """A figure of the report, by its name; `figure.savefig("curves.pdf")` keeps it.

        Args:
            name: such as learning-curves, score-against-datapoints, datapoints-to-proficiency, score-after-few-and-all.
            size: width and height in inches; None: its own.
            font: size of its text in points; None: 10.
            grey: without colours.

        Raises:
            UserError: there is no figure of that name, or the runs are of several experiments.
        """
        runs = self._one_experiment()
        drawn = report.pictures(runs, metrics.summary(runs))
        if name not in drawn:
            raise UserError(unknown("figure", name, drawn))
        return Look(size, font, grey).of(drawn[name][0])

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
