"""Online meta-learning: a learner that meets tasks one after another and learns to adapt faster with each.

The public names are listed in `__init__.pyi`. Each is imported when it is first used, so that a command that needs no
JAX does not wait for it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
