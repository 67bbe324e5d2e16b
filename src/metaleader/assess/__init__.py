"""Does learning across tasks pay on a table? Many learners under one protocol, and the answer in words.

The page that shows it is in `page`, apart from these, as workers need not load what draws figures.
"""

from metaleader.assess.answer import Answer, Comparison, answer, in_words
from metaleader.assess.candidates import Candidate, candidates
from metaleader.assess.contest import END, Contest, Setup, contest, perform, setup
from metaleader.assess.keeping import Kept, check, keep
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
    "perform",
    "setup",
    "store",
]
