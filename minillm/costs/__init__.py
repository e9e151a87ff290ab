"""What a model costs: what each architecture is made of (architectures.py), the parameters, operations and memory that
follow (sizes.py), the cards that could pay (cards.py), and what to buy with a budget: scaling laws (scaling.py)."""
