"""Does learning across tasks pay on a table? Many learners under one protocol, and the answer in words."""

from metaleader.assess.answer import Answer, Comparison, answer, in_words
from metaleader.assess.candidates import Candidate, candidates
from metaleader.assess.contest import END, Contest, Setup, contest, perform, setup
from metaleader.assess.page import terminal_table, write
from metaleader.assess.stored import Stored, store

__all__ = [
    "END",
    "Answer",
    "Candidate",
    "Comparison",
    "Contest",
    "Setup",
    "Stored",
    "answer",
    "candidates",
    "contest",
    "in_words",
    "perform",
    "setup",
    "store",
    "terminal_table",
    "write",
]
