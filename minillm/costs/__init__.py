"""What a model costs: what each architecture is made of (architectures.py), the parameters, operations and memory that
follow (sizes.py), and the cards that could pay (cards.py)."""
