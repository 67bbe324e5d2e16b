"""The online setting (paper, section 3 and Algorithm 1): tasks arrive, a learner learns, and is judged."""

from metaleader.play.protocol import OnlineProtocol, RunState, begin, play, resume
from metaleader.play.record import Record

__all__ = ["OnlineProtocol", "Record", "RunState", "begin", "play", "resume"]
