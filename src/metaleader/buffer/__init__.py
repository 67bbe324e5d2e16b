"""The task buffer B, sampling distributions nu over its tasks, and limited memories (paper, section 5)."""

from metaleader.buffer.retention import Retention
from metaleader.buffer.sampling import Recency, Sampling
from metaleader.buffer.store import TaskBuffer, TaskKey

__all__ = ["Recency", "Retention", "Sampling", "TaskBuffer", "TaskKey"]
