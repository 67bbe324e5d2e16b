"""Coloured MNIST (paper, figure 1)."""

from dataclasses import replace
from types import MappingProxyType

from metaleader.experiments.experiment import Experiment, Preset, learners, smaller
from metaleader.learners import FTL, FTML, TOE, Adam, Scratch
from metaleader.models import ConvNet
from metaleader.objective import CrossEntropy, accuracy
from metaleader.protocol import Protocol
from metaleader.streams import ColouredMnist
from metaleader.update import GradientDescent

# About as many gradients for all learners, and the average of the iterates for those that learn on from task to task.
_STEPS = GradientDescent(steps=2, step_size=0.4)
_LAPTOP = Preset(
    stream=ColouredMnist(),
    model=ConvNet(depth=4, classes=5),
    loss=CrossEntropy(),
    protocol=Protocol(chunk=10, evaluate_at=(10, 20, 50, 100), threshold=0.9),
    learners=learners(
        FTML(_STEPS, meta_steps=5, validation_size=25, optimizer=Adam(3e-3, average=0.98)),
        FTL(_STEPS, steps=30, optimizer=Adam(2e-3, average=0.98)),
        TOE(steps=30, optimizer=Adam(2e-3, average=0.98)),
        Scratch(steps=30, optimizer=Adam(2e-3)),
    ),
)

# The paper gives no schedule for this illustration: the one of Rainbow MNIST, on twice the tasks.
_PAPER = Preset(
    stream=ColouredMnist(rounds=70, examples_per_task=900, test_examples=500),
    model=ConvNet(depth=5, classes=5),
    loss=CrossEntropy(),
    protocol=Protocol(chunk=20, threshold=0.9),
    learners=learners(
        FTML(meta_steps=50, meta_batch=25, past_only=True),
        FTL(steps=50, batch_size=250),
        TOE(steps=50, batch_size=250),
        Scratch(steps=100),
    ),
)

COLOURED_MNIST = Experiment(
    "coloured-mnist",
    "digits on a background that is fixed in a task and misleads across tasks (paper, figure 1)",
    accuracy,
    MappingProxyType(
        {
            "smoke": smaller(
                replace(_LAPTOP, model=ConvNet(depth=2, classes=5, filters=8)),
                rounds=2,
                examples_per_task=20,
                test_examples=50,
            ),
            "laptop": _LAPTOP,
            "paper": _PAPER,
        }
    ),
    illustration="colours",
)
