"""What a run is of: written when it begins, read by reports, and compared when it goes on."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import jax
import numpy as np

from metaleader.errors import UserError
from metaleader.online.protocol import OnlineProtocol
from metaleader.problem import Problem
from metaleader.problem.content import checksum, importable, is_own


@dataclass(frozen=True)
class ScoreDescription:
    """A score, by what a report needs of it.

    Attributes:
        name: what tables call it.
        higher_is_better: whether a higher score is a better one.
        threshold: of a score after the first, to which reports count datapoints; None: to none.
        note: a sentence for reports.
    """

    name: str
    higher_is_better: bool
    threshold: float | None = None
    note: str = ""


@dataclass(frozen=True)
class RunDescription:
    """What determines the records of a run, and how and where they were made: `config.json` of its folder.

    Attributes:
        experiment: its name.
        preset: which of its presets the settings began as.
        learner: the learner's name.
        seed: of stream and learner.
        rounds: in the stream; None for one that does not say.
        settings: of stream, model, loss, protocol and learner, as plain JSON (see `described`).
        scores: what the learner is judged by; the first decides on proficiency.
        threshold: the score of proficiency.
        gradients: see `experiments.Preset`.
        data: the checksum of every data file read, by its name.
        illustration: the picture that the run ends with; none, if empty.
        report_sizes: sizes of D_t that figures and tables show; none: some of those judged.
        differs: how the experiment differs from the paper's, in words.
        setting: what sets this run apart from others of a sweep, each as `NAME=VALUE`.
        command: the command that would make the run again.
        made: when it began, in UTC.
        commit: of the source; None where it is not known.
        versions: of Python and the packages that matter, by name.
        machine: system, cores, devices and processes.
    """

    experiment: str
    preset: str
    learner: str
    seed: int
    rounds: int | None
    settings: Mapping[str, Any]
    scores: tuple[ScoreDescription, ...]
    threshold: float
    gradients: int = 0
    data: Mapping[str, str] = field(default_factory=dict)
    illustration: str = ""
    report_sizes: tuple[int, ...] = ()
    differs: str = ""
    setting: tuple[str, ...] = ()
    command: str = ""
    made: str = ""
    commit: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        experiment: str,
        preset: str,
        problem: Problem,
        protocol: OnlineProtocol,
        stream: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> RunDescription:
        """What the runs of an experiment are of, before it is known which learner, seed and stream each has.

        Args:
            experiment: its name.
            preset: its preset's name.
            problem: what is learned.
            protocol: how a round goes.
            stream: its settings, as plain JSON; None: they are not known.
            others: other fields.
        """
        parts = {"model": problem.model, "loss": problem.loss, "protocol": protocol}
        settings = {name: described(part) for name, part in parts.items()}
        settings["scores"] = {score.name: described(score.function) for score in problem.scored}
        return cls(
            experiment,
            preset,
            learner="",
            seed=0,
            rounds=None,
            settings=settings if stream is None else {"stream": stream, **settings},
            scores=tuple(
                ScoreDescription(score.name, score.higher_is_better, score.threshold, score.note)
                for score in problem.scored
            ),
            threshold=protocol.threshold,
            **others,
        )

    @property
    def score(self) -> ScoreDescription:
        """The score that decides on proficiency."""
        return self.scores[0]

    def as_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {**dataclasses.asdict(self), "threshold": described(self.threshold)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str) -> RunDescription:
        """What `as_json` gave.

        Raises:
            UserError: a field is missing or unknown; the message begins with `where`.
        """
        try:
            return cls(
                **{
                    **content,
                    "scores": tuple(ScoreDescription(**score) for score in content["scores"]),
                    "report_sizes": tuple(content["report_sizes"]),
                    "setting": tuple(content["setting"]),
                    "threshold": float(content["threshold"]),
                }
            )
        except (TypeError, KeyError) as error:
            raise UserError(f"{where} does not describe a run of this version: {error}") from error

    def difference(self, now: RunDescription) -> tuple[str, Any, Any] | None:
        """The first setting that determines records and is not the same `now`: its name, what it was, what it is.

        A stream may have more rounds now: the run goes on to them.
        """
        for name, old, new in differences(self.as_json(), now.as_json(), DETERMINES):
            longer = name == "settings.stream.rounds" and isinstance(old, int) and isinstance(new, int) and new > old
            if not longer:
                return name, old, new
        if self.rounds and now.rounds and now.rounds < self.rounds:
            return "rounds", self.rounds, now.rounds
        return None


DETERMINES = ("experiment", "preset", "learner", "seed", "settings", "data")


def described(value: Any) -> Any:
    """A setting as plain JSON: an object by its type's name and its fields, a function by its name, inf as a string.

    Of classes and functions of the user's own, a checksum of their code is added.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {each.name: described(getattr(value, each.name)) for each in dataclasses.fields(value)}
        return {"type": type(value).__name__, **_code(type(value)), **fields}
    if isinstance(value, np.generic):
        return described(value.item())
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return sorted((described(item) for item in value), key=str)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (str, int, float, type(None))):
        return value
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {"type": type(value).__name__, **described(value._asdict())}
    if isinstance(value, Sequence):
        return [described(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): described(item) for key, item in value.items()}
    if isinstance(value, functools.partial):
        given = {"function": value.func, "arguments": value.args, **value.keywords}
        return {"type": "partial", **described(given)}
    if isinstance(value, (np.ndarray, jax.Array)):
        return f"array of {value.dtype}, shape {value.shape}, checksum {checksum(value)}"
    if isinstance(value, types.MethodType):
        return {"method": value.__qualname__, "of": described(value.__self__)}
    if hasattr(value, "__qualname__"):
        code = _code(value)
        return {"function": value.__qualname__, **code} if code else value.__qualname__
    return {"type": type(value).__qualname__, **_code(type(value)), **described(getattr(value, "__dict__", {}))}


def _code(value: Any) -> dict[str, str]:
    """The checksum of a class or function, unless its name says which it is: of an installed package."""
    return {} if importable(value) and not is_own(value) else {"code": checksum(value)}


def differences(old: Mapping[str, Any], new: Mapping[str, Any], names: Sequence[str]) -> list[tuple[str, Any, Any]]:
    """The settings among `names`, and what they hold, that are not the same: each with what it was and what it is."""
    plain = json.loads(json.dumps({name: new.get(name) for name in names}))
    return [found for name in names for found in _differences(old.get(name), plain[name], name)]


def _differences(old: Any, new: Any, name: str) -> list[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [found for key in keys for found in _differences(old.get(key), new.get(key), f"{name}.{key}")]
    return [] if old == new else [(name, old, new)]
