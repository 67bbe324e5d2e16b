"""The family of sinusoids (paper, figure 1)."""

from types import MappingProxyType

from metaleader.experiments.experiment import Experiment, Preset, learners, smaller
from metaleader.learners import FTL, FTML, TOE, Adam, Scratch
from metaleader.models import MLP
from metaleader.objective import mean_squared_error, squared_error
from metaleader.protocol import Protocol
from metaleader.streams import Sinusoid
from metaleader.update import GradientDescent

# All learners take about as many gradients.
_LAPTOP = Preset(
    stream=Sinusoid(),
    model=MLP(),
    loss=squared_error,
    protocol=Protocol(chunk=5, evaluate_at=(5, 10, 20, 50), threshold=0.1),
    learners=learners(
        FTML(GradientDescent(step_size=0.003), meta_steps=50, optimizer=Adam(3e-3)),
        FTL(GradientDescent(step_size=0.003), steps=600, optimizer=Adam(3e-3)),
        TOE(steps=600, optimizer=Adam(3e-3)),
        Scratch(steps=600, optimizer=Adam(3e-3)),
    ),
)

# The paper gives no schedule for this illustration: ten times the tasks.
_PAPER = smaller(_LAPTOP, rounds=500)

SINUSOID = Experiment(
    "sinusoid",
    "a family of sinusoids, of which joint training learns the mean (paper, figure 1)",
    mean_squared_error,
    MappingProxyType({"smoke": smaller(_LAPTOP, rounds=3, examples_per_task=10), "laptop": _LAPTOP, "paper": _PAPER}),
    illustration="sinusoids",
)
