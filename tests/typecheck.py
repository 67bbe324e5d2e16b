"""How annotations are checked at run time: an int is a float, as the type checker has it."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
