"""The family of sinusoids (paper, figure 1)."""

from dataclasses import replace
from types import MappingProxyType

from metaleader.buffer import Recency
from metaleader.experiments.experiment import Experiment, Preset, learners, search_space, smaller
from metaleader.learners import FTL, FTML, TOE, Adam, Scratch
from metaleader.models import MLP
from metaleader.online.protocol import OnlineProtocol
from metaleader.problem.losses import squared_error
from metaleader.problem.scores import mean_squared_error
from metaleader.streams import Sinusoid
from metaleader.update import GradientDescent, InnerMomentum, OptimizerSteps

_SMOKE = Preset(
    stream=Sinusoid(rounds=3, examples_per_task=10),
    model=MLP(),
    loss=squared_error,
    protocol=OnlineProtocol(chunk=5, threshold=0.1),
    learners=learners(
        FTML(GradientDescent(step_size=0.003), adapt_steps=5, optimizer=Adam(3e-3, average=0.99)),
        FTL(update=OptimizerSteps(200, InnerMomentum(0.003, decay=0.0)), optimizer=Adam(3e-3, average=0.99)),
        TOE(optimizer=Adam(3e-3, average=0.99)),
        Scratch(optimizer=Adam(3e-3, average=0.9)),
    ),
    gradients=1500,
)

# Every number of a learner was found by a search, of 24 trials for each and of single changes to the best:
# docs/tuning/sinusoid.
_LAPTOP = replace(
    _SMOKE,
    stream=Sinusoid(),
    learners=learners(
        FTML(
            GradientDescent(steps=2, step_size=0.00394),
            adapt_steps=27,
            meta_batch=10,
            train_size=7,
            validation_size=6,
            optimizer=Adam(0.00501, average=0.995),
            sampling=Recency(newest=0.1),
        ),
        FTL(
            batch_tasks=22,
            batch_size=42,
            optimizer=Adam(0.0046, average=0.98),
            update=OptimizerSteps(3861, InnerMomentum(0.00736, decay=0.0)),
        ),
        TOE(batch_tasks=3, batch_size=12, optimizer=Adam(0.000175, average=0.995)),
        Scratch(batch_size=12, optimizer=Adam(0.0101, average=0.9)),
    ),
    gradients=32_000,
)

# The paper gives no schedule for this illustration: ten times the tasks.
_PAPER = smaller(_LAPTOP, rounds=500)

SINUSOID = Experiment(
    "sinusoid",
    "a family of sinusoids, of which joint training learns the mean (paper, figure 1)",
    mean_squared_error,
    MappingProxyType({"smoke": _SMOKE, "laptop": _LAPTOP, "full": _LAPTOP, "paper": _PAPER}),
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
