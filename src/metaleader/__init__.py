"""Online meta-learning: a learner that meets tasks one after another and learns to adapt faster with each."""

from metaleader.batch import Batch
from metaleader.buffer import Recency
from metaleader.errors import UserError
from metaleader.experiments import EXPERIMENTS, Experiment, Preset
from metaleader.learners import (
    FTL,
    FTML,
    TOE,
    AdaGrad,
    Adam,
    Learner,
    Momentum,
    MultiHeadTOE,
    Scratch,
    State,
    Streaming,
)
from metaleader.memory import Memory
from metaleader.meta import adapt, meta_gradient, meta_objective
from metaleader.models import MLP, ConvNet
from metaleader.objective import (
    CrossEntropy,
    Model,
    Problem,
    Score,
    accuracy,
    mean_squared_error,
    squared_error,
)
from metaleader.protocol import Position, Protocol, advance, play, start
from metaleader.record import Record
from metaleader.streams import FiveWayCifar100, RainbowDigits, RainbowMnist, Sinusoid, Stream, Task
from metaleader.update import (
    GradientDescent,
    Identity,
    InnerAdam,
    InnerMomentum,
    MetaSGD,
    Optimized,
    Proximal,
    Reptile,
    UpdateProcedure,
)

__all__ = [
    "EXPERIMENTS",
    "FTL",
    "FTML",
    "MLP",
    "TOE",
    "AdaGrad",
    "Adam",
    "Batch",
    "ConvNet",
    "CrossEntropy",
    "Experiment",
    "FiveWayCifar100",
    "GradientDescent",
    "Identity",
    "InnerAdam",
    "InnerMomentum",
    "Learner",
    "Memory",
    "MetaSGD",
    "Model",
    "Momentum",
    "MultiHeadTOE",
    "Optimized",
    "Position",
    "Preset",
    "Problem",
    "Protocol",
    "Proximal",
    "RainbowDigits",
    "RainbowMnist",
    "Recency",
    "Record",
    "Reptile",
    "Score",
    "Scratch",
    "Sinusoid",
    "State",
    "Stream",
    "Streaming",
    "Task",
    "UpdateProcedure",
    "UserError",
    "accuracy",
    "adapt",
    "advance",
    "mean_squared_error",
    "meta_gradient",
    "meta_objective",
    "play",
    "squared_error",
    "start",
]
