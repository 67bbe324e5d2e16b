"""How annotations are checked at run time: an int is a float, as the type checker has it."""

from functools import partial
from typing import Any

from beartype import BeartypeConf, beartype

_checked = partial(beartype, conf=BeartypeConf(is_pep484_tower=True))


def check(annotated: Any) -> Any:
    """The function or class, checking its annotations; a function within another as it is.

    That one is made anew at every call of the outer one, and making the check takes longer than most of what it checks.
    """
    return annotated if "<locals>" in annotated.__qualname__ else _checked(annotated)
