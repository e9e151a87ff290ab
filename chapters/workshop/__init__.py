"""What the chapters need besides the library, imported as `minillm.workshop`, so that any folder will do.

scale.py (how much to compute), exercises.py (the check of an exercise), stepping.py (finite differences, a debugger to
watch), deliverables.py (what a chapter leaves to a later one). The other files hold the pictures and bookkeeping of
one chapter each, so that the chapter itself can show the idea.
"""

from .deliverables import made
from .exercises import as_mask, as_plain, check
from .scale import progress, read_scale, show_versions
from .stepping import numerical_gradient, type_into_debugger

__all__ = [
    "as_mask",
    "as_plain",
    "check",
    "made",
    "numerical_gradient",
    "progress",
    "read_scale",
    "show_versions",
    "type_into_debugger",
]
