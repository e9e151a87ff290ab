"""Data: from files on a disk to batches of token ids."""
