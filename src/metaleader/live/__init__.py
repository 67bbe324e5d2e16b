"""A learner that lives: durable, learning while it predicts. It needs `pip install 'metaleader[serve]'`."""

from metaleader.live.agent import Live, Predictor
from metaleader.live.copying import copy
from metaleader.live.events import Acknowledged, Ended, Follows, Forgotten, NotInTime, Status, UnknownTask
from metaleader.live.keeping import Checked, check
from metaleader.live.prequential import Mean, Standing
from metaleader.live.replay import Replayed, RunParts, from_run, run_folder
from metaleader.live.worker import Pace

__all__ = [
    "Acknowledged",
    "Checked",
    "Ended",
    "Follows",
    "Forgotten",
    "Live",
    "Mean",
    "NotInTime",
    "Pace",
    "Predictor",
    "Replayed",
    "RunParts",
    "Standing",
    "Status",
    "UnknownTask",
    "check",
    "copy",
    "from_run",
    "run_folder",
]
