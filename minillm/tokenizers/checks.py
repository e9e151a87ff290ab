"""Checks of what a caller hands to a tokenizer, with errors that say what to do."""

from __future__ import annotations

from collections.abc import Iterable


def check_text(text: object) -> str:
    """`text` itself, if it is a str; otherwise a TypeError that says how to make it one."""
    if isinstance(text, str):
        return text
    advice = "decode it first: data.decode('utf-8')" if isinstance(text, bytes) else "encode_batch takes several texts"
    raise TypeError(f"text must be a str, not {type(text).__name__}; {advice}.")


def check_texts(texts: object) -> None:
    """Raise TypeError if `texts` is one text: its items would be its characters."""
    if isinstance(texts, (str, bytes)):
        raise TypeError(f"texts must be several strings, not one {type(texts).__name__}; pass [text] for one text.")


def check_special_tokens(special_tokens: Iterable[str]) -> list[str]:
    """The special tokens as a list, or an error for what cannot be one."""
    if isinstance(special_tokens, str):
        raise TypeError(f"special_tokens must be several strings; for one, pass [{special_tokens!r}].")
    tokens = list(special_tokens)
    for token in tokens:
        if not isinstance(token, str) or not token:
            raise ValueError(f"a special token must be a non-empty string, not {token!r}.")
        if any("\ud800" <= character <= "\udfff" for character in token):
            raise surrogate_error(token)
    if len(set(tokens)) < len(tokens):
        raise ValueError(f"special_tokens holds a token twice: {tokens}.")
    return tokens


def surrogate_error(text: str) -> ValueError:
    """The error for text that has no UTF-8."""
    at = next(i for i, character in enumerate(text) if "\ud800" <= character <= "\udfff")
    return ValueError(
        f"the text holds a lone surrogate, U+{ord(text[at]):04X} at character {at} of {text[:30]!r}: half a character, "
        "without UTF-8. Join it with the other half: text.encode('utf-16', 'surrogatepass').decode('utf-16'), or "
        "replace it: text.encode('utf-8', 'replace').decode('utf-8')."
    )
