"""Watch a tokenizer work: its tokens as readable text, the merges of an encoding, the merges of training.

A token of byte-level BPE may hold part of a character, so its bytes need not be text. Here whole characters are shown
as they are, and bytes that are only part of one as \\x and two digits, with the character they belong to beside them.
"""

from __future__ import annotations

from collections.abc import Iterable

from .base import Tokenizer
from .bpe import BPETokenizer, count_words
from .bpe_plain import merge_steps, train_naive
from .byte_spelling import BYTE_OF_ID
from .split import split_text


def render(token: bytes) -> str:
    r"""A token's bytes in quotes: real characters where they print, escapes where they don't, \x.. for stray bytes.

    >>> print(render(" 中\n".encode()), render("中".encode()[:2]))
    ' 中\n' '\xe4\xb8'
    """
    shown = []
    for character in token.decode("utf-8", "surrogateescape"):
        code = ord(character)
        if 0xDC80 <= code <= 0xDCFF:  # how surrogateescape marks a byte that is not UTF-8
            shown.append(f"\\x{code - 0xDC00:02x}")
        elif 0x80 <= code <= 0xFF and not character.isprintable():
            shown.append(f"\\u{code:04x}")  # the character U+0085, not the stray byte \x85
        elif character == "'":
            shown.append("\\'")
        else:
            shown.append(repr(character)[1:-1])
    return "'" + "".join(shown) + "'"


def show(tokenizer: Tokenizer, text: str) -> str:
    r"""One line per token of `text`: its id, and what it stands for. Special tokens are allowed.

    >>> print(show(BPETokenizer.train(["low low"], 259), "low 中"))
      257  'low'
      220  ' '
      160  '\xe4'  part of '中'
      116  '\xb8'  part of '中'
      255  '\xad'  part of '中'
    """
    ids = tokenizer.encode(text, allowed_special="all")
    whole = b"".join(tokenizer.token_bytes(token_id) for token_id in ids)
    lines = []
    end = 0
    for token_id in ids:
        token = tokenizer.token_bytes(token_id)
        start, end = end, end + len(token)
        lines.append(f"{token_id:5}  {render(token)}{note_on_parts(whole, start, end)}")
    return "\n".join(lines)


def note_on_parts(whole: bytes, start: int, end: int) -> str:
    """Which characters whole[start:end] cuts into, if any."""
    first, last = start, end
    while first > 0 and whole[first] & 0xC0 == 0x80:  # 0b10xxxxxx: a byte that continues a character
        first -= 1
    while last < len(whole) and whole[last] & 0xC0 == 0x80:
        last += 1
    if (first, last) == (start, end):
        return ""
    return f"  part of {render(whole[first:last])}"


def show_merges(tokenizer: BPETokenizer, start: int = 0, stop: int | None = None) -> str:
    """The merges from number `start` to before `stop`, a line each, in the order in which they were learned."""
    lines = []
    for left, right in tokenizer.merges[start:stop]:
        first, second = tokenizer.token_bytes(left), tokenizer.token_bytes(right)
        lines.append(merge_line(tokenizer.id_of_token[first + second], first, second))
    return "\n".join(lines)


def replay_encoding(tokenizer: BPETokenizer, text: str) -> str:
    """How `text` is encoded, merge by merge: for each pre-token its bytes, then the tokens after each merge.

    >>> print(replay_encoding(BPETokenizer.train(["low lower"], 259), "slow"))
    'slow' is 1 piece
    'slow'
        's' 'l' 'o' 'w'
        's' 'lo' 'w'
        's' 'low'
    """
    pieces = split_text(text, tokenizer.pattern)
    lines = [f"{render(text.encode())} is {len(pieces)} piece{'s' * (len(pieces) != 1)}"]
    for piece in pieces:
        lines.append(render(piece.encode()))
        for ids in merge_steps(tokenizer, piece):
            lines.append("    " + " ".join(render(tokenizer.token_bytes(token_id)) for token_id in ids))
    return "\n".join(lines)


def replay_training(texts: Iterable[str], n_merges: int, *, pattern: str = "gpt4") -> str:
    """The first `n_merges` merges that training on `texts` makes, with how often each pair stood there.

    Uses the plain trainer, so give it little text.

    >>> print(replay_training(["low lower lowest low slow"], 3))
      256  'l' + 'o' -> 'lo'  5 times
      257  'lo' + 'w' -> 'low'  5 times
      258  ' ' + 'low' -> ' low'  3 times
    """
    tokens = [bytes([byte]) for byte in BYTE_OF_ID]
    lines = []
    for (left, right), count in train_naive(count_words(texts, pattern), n_merges):
        lines.append(f"{merge_line(len(tokens), tokens[left], tokens[right])}  {count} times")
        tokens.append(tokens[left] + tokens[right])
    return "\n".join(lines)


def merge_line(new_id: int, left: bytes, right: bytes) -> str:
    return f"{new_id:5}  {render(left)} + {render(right)} -> {render(left + right)}"
