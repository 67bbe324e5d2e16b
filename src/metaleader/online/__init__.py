"""The online setting (paper, section 3 and Algorithm 1): tasks arrive, a learner learns, and is judged."""

from metaleader.online.protocol import OnlineProtocol, RunState, begin, play, resume
from metaleader.online.record import Record

__all__ = ["OnlineProtocol", "Record", "RunState", "begin", "play", "resume"]
