"""Does learning across tasks pay on a table? Many learners under one protocol, and the answer in words."""

from metaleader.assess.answer import Answer, Comparison, answer, in_words
from metaleader.assess.candidates import Candidate, candidates
from metaleader.assess.contest import END, Contest, Setup, contest, perform, setup
from metaleader.assess.keeping import Kept, check, keep
from metaleader.assess.page import kept_words, terminal_table, write
from metaleader.assess.saved import Saved
from metaleader.assess.stored import Stored, store

__all__ = [
    "END",
    "Answer",
    "Candidate",
    "Comparison",
    "Contest",
    "Kept",
    "Saved",
    "Setup",
    "Stored",
    "answer",
    "candidates",
    "check",
    "contest",
    "in_words",
    "keep",
    "kept_words",
    "perform",
    "setup",
    "store",
    "terminal_table",
    "write",
]
