"""A table's preprocessing as plain data: rows become examples, and outputs of a model predictions, by NumPy alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped

from metaleader.errors import UserError
from metaleader.problem.batch import Batch
from metaleader.streams import frames
from metaleader.streams.encoding import Category, Encoding, Number
from metaleader.streams.target import Target

VERSION = 1  # of what `as_json` gives


@dataclass(frozen=True)
class RowEncoder:
    """What a table does to each of its rows (`Table.encoder`).

    It goes to JSON and comes back the same, bit for bit, and needs no scikit-learn: so it outlives the table, and the
    versions of packages that made it.

    >>> rows = {"size": [10.0, 30.0, None], "city": ["Rome", "Oslo", "Lima"], "price": [1.0, 5.0, 3.0]}
    >>> price = Target("price", "regression", (), ("price",), (), mean=3.0, scale=2.0)
    >>> size, city = Number("size", "numeric", 20.0, 10.0, 0.0, True), Category("city", ("Oslo", "Rome"), False)
    >>> encoder = RowEncoder(Encoding((size,), (city,)), price)
    >>> encoder.features
    ('size', 'size missing', 'city=Oslo', 'city=Rome')
    >>> encoder.encode(rows).tolist()
    [[-1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0]]
    >>> encoder.targets(rows).tolist()
    [[-1.0], [1.0], [0.0]]
    >>> RowEncoder.from_json(encoder.as_json()) == encoder
    True

    Attributes:
        inputs: how columns become inputs.
        target: what is predicted.
    """

    inputs: Encoding
    target: Target

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return self.inputs.features

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by label; none for a regression."""
        return self.target.classes

    def example(self) -> Batch:
        """An example of zeros, of the shapes and types that rows have once they are encoded."""
        several = (len(self.classes),) if self.target.kind == "multi-label" else (1,)
        labels = self.target.kind in ("binary", "multi-class")
        targets = np.zeros(1, np.int32) if labels else np.zeros((1, *several), np.float32)
        return Batch.of(np.zeros((1, len(self.features)), np.float32), targets)

    def encode(self, rows: Any) -> Float32[np.ndarray, "n features"]:
        """The inputs of rows. A category that was never met counts as a rare one, or as none.

        Truth values and whole numbers may be spelled in other ways than in the table: true is True, and 1.0 is 1.

        Args:
            rows: a data frame that narwhals reads; a mapping of columns, name to values; or a list of mappings, one a
                row, or one alone. Other columns than those of the inputs may be there, and may be missing.

        Raises:
            UserError: there is no row; a column is missing, a value cannot be of the kind that its column has in the
                table, or is infinite, or too large.
        """
        return self.inputs(frames.values_of(rows, self.inputs.columns, next(iter(self.inputs.columns))))

    def targets(self, rows: Any) -> Shaped[np.ndarray, "n ..."]:
        """The targets of rows as a learner sees them: see `Target`.

        Args:
            rows: as in `encode`, with the columns of the target.

        Raises:
            UserError: as `encode` does; a row has no target, or one of no class.
        """
        values = frames.values_of(rows, self.target.read_as, next(iter(self.inputs.columns)))
        self.target.check(values)
        return self.target(values)

    def told(self, y: Any) -> Shaped[np.ndarray, "n ..."]:
        """Targets that are given apart from the rows, in the words and the unit of the table, as a learner sees them.

        Args:
            y: `n` numbers, names of classes, or lists of labels; where each label has a column, `(n, labels)` of 0 and
                1, or a mapping or data frame of these columns.

        Raises:
            UserError: as `targets` does, or they are of another shape.
        """
        names = self.target.columns
        if len(names) > 1:
            if isinstance(y, Mapping) or hasattr(y, "columns"):
                return self.targets(y)
            table = np.asarray(y)
            if table.ndim != 2 or table.shape[1] != len(names):
                raise UserError(
                    f"targets must have shape (n, {len(names)}), a column for each of {', '.join(names)}; got "
                    f"{table.shape}"
                )
            return self.targets(dict(zip(names, table.T, strict=True)))
        given = frames.as_list(y)
        if self.target.kind == "regression":
            given = [value[0] if isinstance(value, list) and len(value) == 1 else value for value in given]
        values = frames.values_of({names[0]: given}, self.target.read_as, names[0])
        self.target.check(values)
        return self.target(values)

    def decode(self, outputs: Any) -> np.ndarray:
        """Outputs of a model as predictions in the words and the unit of the table: see `Target.decode`."""
        return self.target.decode(outputs)

    def as_json(self) -> dict[str, Any]:
        """As plain JSON; numbers are told by as many digits as tell them apart from all others."""
        return {"version": VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> RowEncoder:
        """What `as_json` gave.

        Raises:
            UserError: it is of another version, or damaged.
        """
        if told.get("version") != VERSION:
            raise UserError(
                f"preprocessing of version {told.get('version')} cannot be read, this metaleader reads {VERSION}: use "
                "the version that wrote it"
            )
        try:
            inputs, target = told["inputs"], dict(told["target"])
            numbers = tuple(Number(**each) for each in inputs["numbers"])
            categories = tuple(Category(**{**each, "values": tuple(each["values"])}) for each in inputs["categories"])
            target |= {name: tuple(target[name]) for name in ("classes", "columns", "distinct")}
            return cls(Encoding(numbers, categories), Target(**target))
        except (KeyError, TypeError) as error:
            raise UserError(f"preprocessing is damaged ({error}): restore it from a back-up") from error
