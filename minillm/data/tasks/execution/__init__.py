"""Running code that a model wrote, without trusting it: Python, evaluated by walking its syntax tree.

Nothing here calls eval, exec or compile. What is not in a table of these files does not exist: no attributes but the
methods listed, no imports, no way to a class, a module, a file, or to anything that changes a value. So all that
hostile code could do is take long or grow large, and limits.py bounds each step before it is taken. Read limits.py,
tree.py (expressions and functions), functions.py (what they may call). chapters/14_writing_code.ipynb builds a small
one, and has a model's programs run in this.
"""

from .limits import ExecutionError
from .tree import call, evaluate, passes

__all__ = ["ExecutionError", "call", "evaluate", "passes"]
