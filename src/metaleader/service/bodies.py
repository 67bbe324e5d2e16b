"""The bodies of requests: what they must hold, as the OpenAPI page shows it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from metaleader.live.inputs import NAME_LENGTH

Key = (
    Annotated[str, Field(max_length=NAME_LENGTH, description="any text")]
    | Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
)
X = "inputs: a list with one entry a datapoint, of the shape that this learner takes; or an object of such lists"
ROWS = "in place of x (and y): rows of this learner's table, each an object with its columns"
Rows = Annotated[list[dict[str, Any]], Field(min_length=1)]


class Body(BaseModel):
    """What all have in common: nothing is converted, and what is not known is refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Datapoints(Body):
    """Datapoints: `x` and `y`, or `rows`."""

    x: Any = Field(None, description=X, examples=[[[0.5], [1.5]]])
    y: Any = Field(None, description="targets, likewise", examples=[[[2.0], [4.0]]])
    rows: Rows | None = Field(None, description=ROWS, examples=[None])


class Learn(Datapoints):
    """Datapoints of a task, to be stored and learned together."""

    task: Key = Field(examples=["north"])
    ids: list[str] | None = Field(
        None,
        description="a name for each datapoint, unique within the task: what is sent again counts once",
        examples=[["till 7, 12:03", "till 7, 12:04"]],
    )


class Predict(Body):
    """Inputs of a task: `x`, or `rows` without their target."""

    task: Key = Field(examples=["north"])
    x: Any = Field(None, description=X, examples=[[[0.5], [1.5]]])
    rows: Rows | None = Field(None, description=ROWS, examples=[None])


class Adapt(Datapoints):
    """Datapoints to adapt to, and inputs to predict: nothing is stored."""

    inputs: Any = Field(None, description="what to predict, as x", examples=[[[2.5]]])
    input_rows: Rows | None = Field(None, description="what to predict, as rows", examples=[None])


class Forget(Body):
    """A task."""

    task: Key = Field(examples=["north"])


class Wait(Body):
    """How long to wait until all is learned."""

    timeout: float = Field(10.0, gt=0, le=3600, allow_inf_nan=False, description="seconds")


# Answers


class Message(BaseModel):
    """What is wrong."""

    message: str


class Error(BaseModel):
    """The body of every answer that is no success."""

    error: Message


class Acknowledgement(BaseModel):
    """The datapoints are on the disk."""

    new: int = Field(description="how many were not there before")
    sequence: int = Field(description="the number of the newest datapoint of the task, in the order of all")


class Predictions(BaseModel):
    """Predictions, one for each input."""

    predictions: Any = Field(description="values, or probabilities of the classes; null: not finite")
    dtype: Any = Field(description="of the predictions, by the name of NumPy")
    classes: list[str] | None = Field(None, description="names of the classes, in the order of the probabilities")


class TaskCount(BaseModel):
    """A task."""

    task: str | int
    datapoints: int


class Tasks(BaseModel):
    """Some of the tasks."""

    tasks: list[TaskCount]
    total: int
    next: int | None = Field(description="`start` of the request for those that follow; null: there are no more")


class Forgotten(BaseModel):
    """The task is forgotten."""

    task: str | int
    datapoints: int
    influence: bool = Field(description="whether what it taught is still in the weights; rebuilding removes it")


class Means(BaseModel):
    """Means over datapoints."""

    datapoints: int
    values: dict[str, float | None]


class Score(BaseModel):
    """How good predictions were, each datapoint judged before it was learned."""

    overall: Means
    by_age: dict[str, Means] = Field(description="by how many datapoints the task had before, in doublings")
    recent: Means
    not_finite: int
