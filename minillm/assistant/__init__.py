"""From a base model to an assistant: packing.py puts short examples into full rows."""
