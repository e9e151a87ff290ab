"""Models: one file each, a config dataclass and a Module. Read gpt.py first."""
