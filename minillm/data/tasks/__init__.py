"""Tasks that a small model can learn, made here; and execution/, which runs the code that one wrote."""
