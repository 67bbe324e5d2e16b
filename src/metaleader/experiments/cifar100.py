"""5-way CIFAR-100 (paper, section 6.2; figure 4)."""

from dataclasses import replace
from types import MappingProxyType

from metaleader.buffer import Recency
from metaleader.experiments.experiment import FINE_TUNING, Experiment, Preset, learners, search_space, smaller
from metaleader.learners import FTL, FTML, Adam, Momentum, MultiHeadFTL, MultiHeadTOE, Scratch
from metaleader.models import ConvNet
from metaleader.online.protocol import OnlineProtocol
from metaleader.problem.losses import CrossEntropy
from metaleader.problem.scores import accuracy
from metaleader.streams import FiveWayCifar100
from metaleader.update import GradientDescent, HeadFirst

_PROTOCOL = OnlineProtocol(chunk=50, evaluate_at=(50, 100, 150, 250, 400, 600, 900, 1300, 2000), threshold=0.6)

# A fifth of the classes, so that a run takes minutes. Every number of a learner was found by a search of 20 trials for
# each: docs/tuning/cifar100, that of TOE docs/tuning/cifar100-toe.
_LAPTOP = Preset(
    stream=FiveWayCifar100(rounds=16),
    model=ConvNet(depth=4, image=(32, 32, 3), classes=5, norm="task"),
    loss=CrossEntropy(),
    protocol=_PROTOCOL,
    learners=learners(
        FTML(
            GradientDescent(steps=1, step_size=0.763),
            adapt_steps=23,
            meta_batch=1,
            train_size=27,
            validation_size=52,
            optimizer=Adam(7.41e-4, average=0.9),
        ),
        MultiHeadFTL(
            batch_tasks=6,
            batch_size=26,
            optimizer=Momentum(0.169, average=0.98),
            update=HeadFirst(head_steps=14, head_step_size=0.0675, steps=13, step_size=0.489, decay=0.0),
        ),
        MultiHeadTOE(batch_tasks=2, batch_size=15, optimizer=Momentum(0.298, average=0.99)),
        Scratch(batch_size=99, optimizer=Momentum(0.324, average=0.98)),
        last_layer=FTML(
            GradientDescent(steps=1, step_size=0.566, adapt_only=("head",), first_order=True),
            adapt_steps=24,
            meta_batch=3,
            train_size=28,
            validation_size=40,
            sampling=Recency(newest=0.5),
            optimizer=Adam(1.68e-3, average=0.99),
        ),
    ),
    gradients=1600,
)

# The same with every class.
_FULL = replace(_LAPTOP, stream=FiveWayCifar100())

# The authors' schedule as they left it for Rainbow MNIST, in this experiment's sizes: 2000 meta-steps a task, 50
# images every 50, on past tasks only, 25 tasks a meta-batch, 25 images inside; twice the steps from scratch.
_PAPER = Preset(
    stream=FiveWayCifar100(),
    model=ConvNet(depth=5, image=(32, 32, 3), classes=5),
    loss=CrossEntropy(),
    protocol=_PROTOCOL,
    learners=learners(
        FTML(meta_steps=50, meta_batch=25, train_size=25, validation_size=25, past_only=True),
        FTL(50, batch_tasks=10, optimizer=Momentum(drops=(96_000, 144_000))),
        MultiHeadTOE(50, batch_tasks=10, optimizer=Momentum(drops=(96_000, 144_000))),
        Scratch(steps=100, optimizer=Momentum(drops=(2000, 3000))),
    ),
)

# Steps on the head alone may be longer; TOE draws the current task and at least one other.
SEARCH = MappingProxyType(
    {
        **search_space(
            "0.05:1.5",
            FINE_TUNING,
            adapt_steps="1:60",
            train_size="10:50",
            validation_size="15:75",
            calibrated=False,
            mixed=False,
            variants=("ftml-last-layer",),
        ),
        "ftml-last-layer.update.step-size": "0.05:3.0",
        "toe.batch-tasks": "2:8",
    }
)

_OURS = (
    "gradients a learner to learn, a small part of the paper's; four convolutions of stride 2 instead of five; FTL "
    "and TOE with a head for each task; proficiency (0.6) is not the paper's; test images do not help to predict each "
    "other."
)

CIFAR100 = Experiment(
    "cifar100",
    "5-way CIFAR-100, a new class with every task (paper, section 6.2; figure 4)",
    accuracy,
    MappingProxyType(
        {
            "smoke": smaller(
                replace(_LAPTOP, model=ConvNet(depth=2, filters=8, image=(32, 32, 3), classes=5)),
                gradients=500,
                rounds=2,
                examples_per_class=20,
                test_per_class=10,
            ),
            "laptop": _LAPTOP,
            "full": _FULL,
            "paper": _PAPER,
        }
    ),
    compared=("ftml", "ftml-last-layer", "ftl", "toe", "scratch"),
    report_sizes=(50, 250, 2000),
    search=SEARCH,
    differs=MappingProxyType(
        {
            "laptop": f"16 of 96 tasks, 20 of 100 classes; 1 M {_OURS}",
            "full": f"6 M {_OURS}",
        }
    ),
)
