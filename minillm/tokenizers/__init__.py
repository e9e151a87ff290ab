"""Tokenizers: text to ids and back. Read char.py first, then bpe.py."""
