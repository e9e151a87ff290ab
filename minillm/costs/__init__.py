"""What a model costs: its parameters, operations and memory (sizes.py), and the cards that could pay (cards.py)."""
