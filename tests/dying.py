"""An experiment for tests of sweeps: a learner that kills its own process, once, in the third of four rounds."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaleader import MLP, TOE, Experiment, OnlineProtocol, Preset, Sinusoid, mean_squared_error, squared_error


@dataclass(frozen=True)
class Dying(TOE):
    """TOE that writes down every round it sees."""

    log: str = ""
    """A file for a line `PID ROUND` whenever datapoints arrive."""
    deaths: int = 1
    """How often to die in round 3."""

    def observe(self, problem: Any, state: Any, task: int | str, batch: Any) -> Any:
        log = Path(self.log)
        before = log.read_text().splitlines() if log.exists() else []
        log.write_text("\n".join([*before, f"{os.getpid()} {str(task).removeprefix('round ')}"]) + "\n")
        died = sum(line.endswith(" 3") for line in before) // 2
        if task == "round 2":
            time.sleep(1.1)  # so that a checkpoint is due
        if task == "round 3" and died < self.deaths and state.buffer.is_current(task):
            os.kill(os.getpid(), signal.SIGKILL)  # in the middle of the round
        return super().observe(problem, state, task, batch)


experiment = Experiment(
    "dying",
    "for tests",
    mean_squared_error,
    {
        "smoke": Preset(
            Sinusoid(rounds=4, examples_per_task=10, test_examples=10),
            MLP(width=4, depth=1),
            squared_error,
            OnlineProtocol(chunk=5, threshold=0.5),
            {"toe": TOE(steps=2), "dying": Dying(steps=2)},
        )
    },
    ("toe", "dying"),
)
