"""The family of sinusoids (paper, figure 1)."""

from types import MappingProxyType

from metaleader.experiments.experiment import Experiment, Preset, learners, search_space, smaller
from metaleader.learners import FTL, FTML, TOE, Adam, Scratch
from metaleader.models import MLP
from metaleader.online.protocol import OnlineProtocol
from metaleader.problem.losses import squared_error
from metaleader.problem.scores import mean_squared_error
from metaleader.streams import Sinusoid
from metaleader.update import GradientDescent, InnerMomentum, OptimizerSteps

_LAPTOP = Preset(
    stream=Sinusoid(),
    model=MLP(),
    loss=squared_error,
    protocol=OnlineProtocol(chunk=5, threshold=0.1),
    learners=learners(
        FTML(GradientDescent(step_size=0.003), adapt_steps=5, optimizer=Adam(3e-3, average=0.99)),
        FTL(update=OptimizerSteps(200, InnerMomentum(0.003, decay=0.0)), optimizer=Adam(3e-3, average=0.99)),
        TOE(optimizer=Adam(3e-3, average=0.99)),
        Scratch(optimizer=Adam(3e-3, average=0.9)),
    ),
    gradients=32_000,
)

# The paper gives no schedule for this illustration: ten times the tasks.
_PAPER = smaller(_LAPTOP, rounds=500)

SINUSOID = Experiment(
    "sinusoid",
    "a family of sinusoids, of which joint training learns the mean (paper, figure 1)",
    mean_squared_error,
    MappingProxyType(
        {"smoke": smaller(_LAPTOP, 1500, rounds=3, examples_per_task=10), "laptop": _LAPTOP, "paper": _PAPER}
    ),
    illustration="sinusoids",
    search=search_space(
        "0.0005:0.05",
        {"steps": "5:1000", "optimizer.step-size": "0.0005:0.05", "optimizer.decay": "0.0|0.9"},
        inner_steps="1:10",
        adapt_steps="1:100",
        validation_size="5:25",
        tasks="1:25",
        batch_size="5:50",
        calibrated=False,
    ),
)
